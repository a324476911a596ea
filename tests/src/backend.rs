//! The device that the suite runs on.

use dsa_kernels::{Device, EmulatorOptions, Error, Module, Ptx};

/// The variable that chooses the backend: `emulator` (the default) or `gpu`.
pub const VARIABLE: &str = "DSA_BACKEND";

/// A backend of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The emulator: sizes are reduced.
    Emulator,
    /// The first GPU: sizes are full.
    Gpu,
}

/// Why there is no device to test on.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The variable has an unknown value.
    #[error("{VARIABLE} is {0:?}; set it to emulator or gpu")]
    Unknown(String),
    /// The tests were built without GPU support.
    #[cfg(not(feature = "cust"))]
    #[error(
        "{VARIABLE} is gpu, but these tests were built without GPU support; build them with --features cust"
    )]
    NotBuilt,
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] Error),
}

/// The backend that `DSA_BACKEND` names.
///
/// # Errors
/// [`BackendError::Unknown`].
pub fn chosen() -> Result<Choice, BackendError> {
    match std::env::var(VARIABLE).unwrap_or_default().as_str() {
        "" | "emulator" => Ok(Choice::Emulator),
        "gpu" => Ok(Choice::Gpu),
        other => Err(BackendError::Unknown(other.to_owned())),
    }
}

/// The chosen device; on the emulator a new one, scheduled from `seed`.
///
/// # Errors
/// Any [`BackendError`].
pub fn device(seed: u64) -> Result<Device, BackendError> {
    match chosen()? {
        Choice::Emulator => Ok(Device::emulator_with(EmulatorOptions { seed, ..EmulatorOptions::default() })),
        #[cfg(feature = "cust")]
        Choice::Gpu => Ok(Device::cuda(0)?),
        #[cfg(not(feature = "cust"))]
        Choice::Gpu => Err(BackendError::NotBuilt),
    }
}

/// The probe kernels, for any device.
pub fn probe() -> Module {
    let ptx = vec![
        Ptx::embedded(80, include_str!("../ptx/probe.sm_80.ptx")),
        Ptx::embedded(90, include_str!("../ptx/probe.sm_90.ptx")),
    ];
    Module::from_ptx("probe", ptx, dsa_kernels_probe::ENTRIES)
}
