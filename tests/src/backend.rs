//! The device that the suite runs on, and the PTX.

use std::path::PathBuf;

use dsa_kernels::{Device, EmulatorOptions, Error, Module, Ptx};

/// The variable that chooses the backend: `emulator` (the default) or `gpu`.
pub const VARIABLE: &str = "DSA_BACKEND";

/// The variable that names a directory with PTX of another compiler, to be used in the place of the committed: what
/// `cargo xtask ptx --backend` has written. The emulator uses none.
pub const PTX_VARIABLE: &str = "DSA_PTX";

/// A backend of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The emulator: sizes are reduced.
    Emulator,
    /// The first GPU: sizes are full.
    Gpu,
}

/// What a program is asked to run on: its option `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wanted {
    /// A GPU if there is one, else the emulator.
    Auto,
    /// The first GPU.
    Gpu,
    /// The emulator on the CPU.
    Emulator,
}

impl Wanted {
    /// The device; and why it is no GPU, if one would have been taken.
    ///
    /// # Errors
    /// Why there is no GPU, if it has to be one.
    pub fn open(self) -> Result<(Device, Option<Error>), Error> {
        if self == Self::Emulator {
            return Ok((Device::emulator(), None));
        }
        match Device::best() {
            (_, Some(reason)) if self == Self::Gpu => Err(reason),
            best => Ok(best),
        }
    }

    /// [`open`](Self::open); says on standard error why it is the emulator.
    ///
    /// # Errors
    /// As there.
    pub fn open_and_tell(self) -> Result<Device, Error> {
        let (device, reason) = self.open()?;
        if let Some(reason) = reason {
            eprintln!("using the emulator: {reason}");
        }
        Ok(device)
    }
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

/// The directory that `DSA_PTX` names, if it is set.
pub fn ptx_directory() -> Option<PathBuf> {
    std::env::var_os(PTX_VARIABLE).filter(|directory| !directory.is_empty()).map(PathBuf::from)
}

/// The kernels of top-k with the PTX that `DSA_PTX` chooses.
///
/// # Errors
/// [`Error::PtxFile`].
pub fn topk() -> Result<Module, Error> {
    chosen_ptx(Module::topk())
}

/// The kernels of the compressor with the PTX that `DSA_PTX` chooses.
///
/// # Errors
/// [`Error::PtxFile`].
pub fn compress() -> Result<Module, Error> {
    chosen_ptx(Module::compress())
}

fn chosen_ptx(module: Module) -> Result<Module, Error> {
    match ptx_directory() {
        Some(directory) => module.with_ptx_from(directory),
        None => Ok(module),
    }
}

/// The probe kernels, for any device, with the PTX that `DSA_PTX` chooses.
///
/// # Panics
/// When that cannot be read.
pub fn probe() -> Module {
    let ptx = vec![
        Ptx::embedded(80, include_str!("../ptx/probe.sm_80.ptx")),
        Ptx::embedded(90, include_str!("../ptx/probe.sm_90.ptx")),
    ];
    let module = Module::from_ptx("probe", ptx, dsa_kernels_probe::ENTRIES);
    chosen_ptx(module).unwrap_or_else(|error| panic!("{PTX_VARIABLE}: {error}"))
}
