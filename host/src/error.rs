//! The one error type of the crate.

use std::fmt::{self, Display};
use std::path::PathBuf;

use dsa_kernels_gpu::compress::number::NumberType;
use dsa_simt::emu::{Fault, MemoryError};

/// Everything that can go wrong, with what to do about it.
///
/// Arguments are checked before anything is launched: after an error nothing has run and nothing is lost,
/// except for [`Driver`](Error::Driver) and [`Emulator`](Error::Emulator), which report what a launch did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is outside its limits.
    #[error("{argument} is {value}, but must be {limit}; {help}")]
    Argument {
        /// Name of the argument, as in the documentation.
        argument: &'static str,
        /// The value that was passed.
        value: String,
        /// What is allowed.
        limit: String,
        /// What to do.
        help: &'static str,
    },

    /// No kernel of the compressor is compiled for these limits.
    #[error(
        "no kernel is compiled for (head_dim {head_dim}, kv {kv}, state {state}, ratio {ratio}, warps {warps}); \
         use one of those that are listed: {listed}"
    )]
    UnlistedConfiguration {
        /// Channels of an output row.
        head_dim: u32,
        /// The type of the rows of new tokens.
        kv: NumberType,
        /// The type of the state.
        state: NumberType,
        /// Tokens of a window.
        ratio: u32,
        /// Warps of a block.
        warps: u32,
        /// The configurations that there are.
        listed: String,
    },

    /// `libcuda.so.1` cannot be opened: there is no NVIDIA driver.
    #[error(
        "no CUDA driver: libcuda.so.1 is not in the loader's path, /usr/local/nvidia/lib64 or \
         /usr/lib/wsl/lib; install the NVIDIA driver, or use the emulator"
    )]
    NoDriver,
    /// This build knows no GPU.
    #[error("this build has no GPU support; build with the feature `cust`, or use the emulator")]
    NotBuilt,
    /// There is no device with this number.
    #[error("no CUDA device {ordinal}: the driver shows {count}; check CUDA_VISIBLE_DEVICES")]
    NoDevice {
        /// Number of the device that was asked for.
        ordinal: u32,
        /// Devices that the driver shows.
        count: u32,
    },
    /// The device is older than anything this crate has PTX for.
    #[error(
        "{name} has compute capability {}.{}, but at least {}.{} is needed; use a newer device or the emulator",
        found.0, found.1, needed.0, needed.1
    )]
    DeviceTooOld {
        /// The device's name.
        name: String,
        /// Its compute capability.
        found: (u32, u32),
        /// The lowest that works.
        needed: (u32, u32),
    },

    /// A module has no PTX that runs on the device.
    #[error(
        "module {module} has PTX for {available}, none of which runs on compute capability {}.{}; \
         use a newer device or the emulator",
        found.0, found.1
    )]
    NoPtx {
        /// Name of the module.
        module: String,
        /// Compute capability of the device.
        found: (u32, u32),
        /// The architectures that there are.
        available: String,
    },
    /// A file of PTX cannot be read.
    #[error("cannot read the PTX {}: {source}; it takes one file for each architecture", path.display())]
    PtxFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A module has no kernel of this name.
    #[error("module {module} has no kernel {kernel}; it has {available}")]
    UnknownKernel {
        /// Name of the module.
        module: String,
        /// The name that was asked for.
        kernel: String,
        /// The kernels that there are.
        available: String,
    },
    /// The driver refused to compile a module.
    #[error(
        "the driver cannot compile module {module} ({name}, code {code}); \
         an older driver than the PTX asks for is the usual cause\n{log}"
    )]
    Compile {
        /// Name of the module and architecture of its PTX.
        module: String,
        /// The driver's raw code.
        code: u32,
        /// The driver's name of the code.
        name: String,
        /// What the driver's compiler wrote.
        log: String,
    },

    /// The device has not enough free memory.
    #[error(
        "the device cannot allocate {bytes} bytes{}; free memory, or lower the limits that were asked for",
        in_brackets(driver)
    )]
    OutOfMemory {
        /// The size that was asked for; `usize::MAX` when it is beyond the address space.
        bytes: usize,
        /// What the driver answered, where it was asked.
        driver: Option<DriverCode>,
    },
    /// A locked workspace would have to grow.
    #[error(
        "{requester} needs {wanted} bytes of workspace, but it is locked at {available}; \
         reserve that much before Workspace::lock"
    )]
    WorkspaceLocked {
        /// Who asked.
        requester: String,
        /// Bytes that were asked for.
        wanted: usize,
        /// Bytes that there are.
        available: usize,
    },
    /// The operation would break the stream capture that is going on.
    #[error("{operation} is not possible during a stream capture; do it before Graph::capture")]
    DuringCapture {
        /// What was tried.
        operation: &'static str,
    },
    /// Two objects belong to different devices.
    #[error("{argument} belongs to another device; create both on the same Device")]
    WrongDevice {
        /// Name of the argument.
        argument: &'static str,
    },
    /// The blocks of a cooperative launch do not fit on the device at once.
    #[error(
        "cooperative launch of {kernel}: {grid} blocks cannot all be resident, the device holds {limit}{}; \
         launch fewer blocks",
        in_brackets(driver)
    )]
    CooperativeTooLarge {
        /// Name of the kernel.
        kernel: &'static str,
        /// Blocks of the launch.
        grid: u32,
        /// Most blocks of this size that the device holds.
        limit: u32,
        /// What the driver answered, on a GPU.
        driver: Option<DriverCode>,
    },

    /// The driver reported an error; one from an earlier launch may show up in a later operation.
    #[error("{operation} failed: {name} (code {code})")]
    Driver {
        /// The driver function.
        operation: &'static str,
        /// Its raw code.
        code: u32,
        /// The driver's name of the code.
        name: String,
    },
    /// The emulator found a kernel to do what a GPU leaves undefined.
    #[error("{0}")]
    Emulator(Box<Fault>),
    /// The emulator refused a host access to its memory.
    #[error("emulated memory: {0}; is the buffer still alive and the range inside it?")]
    EmulatorMemory(#[from] MemoryError),
}

/// What the driver answered to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverCode {
    /// The driver function.
    pub operation: &'static str,
    /// Its raw code.
    pub code: u32,
    /// The driver's name of the code.
    pub name: String,
}

impl Display for DriverCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, code {}", self.operation, self.name, self.code)
    }
}

fn in_brackets(driver: &Option<DriverCode>) -> String {
    driver.as_ref().map_or_else(String::new, |driver| format!(" ({driver})"))
}

impl Error {
    /// An [`Error::Argument`].
    pub fn argument(
        argument: &'static str,
        value: impl Display,
        limit: impl Display,
        help: &'static str,
    ) -> Self {
        Self::Argument { argument, value: value.to_string(), limit: limit.to_string(), help }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Emulator(Box::new(fault))
    }
}

impl From<Box<Fault>> for Error {
    fn from(fault: Box<Fault>) -> Self {
        Self::Emulator(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_answered_is_part_of_the_message() {
        let name = "CUDA_ERROR_OUT_OF_MEMORY".to_string();
        let driver = Some(DriverCode { operation: "cuMemAlloc_v2", code: 2, name });
        let message = Error::OutOfMemory { bytes: 7, driver }.to_string();
        assert!(message.contains("7 bytes (cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY, code 2);"), "{message}");
        let message = Error::OutOfMemory { bytes: 7, driver: None }.to_string();
        assert!(message.contains("7 bytes;"), "{message}");
    }
}
