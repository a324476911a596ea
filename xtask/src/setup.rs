//! `cargo xtask setup`: what the commands need from the machine.

use anyhow::{Context, Result};

use crate::{cuda_tools, device_toolchain, shell, stub, test, workspace};

/// Finds, and installs where it can, what the commands need: a device toolchain (to build PTX), NVIDIA's
/// ptxas and cuobjdump (to check it), the link stub of libcuda (to build with feature `cust`).
///
/// DSA_DEVICE_TOOLCHAIN names the sysroot of a device toolchain, or `none`; DSA_CUDA_TOOLS names a directory
/// with ptxas, cuobjdump and nvdisasm, or `none`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Fail where there is no GPU.
    #[arg(long)]
    require_gpu: bool,
}

/// Runs the command. Missing parts are told, not failed on, but for a GPU that is required: each command fails on what it cannot do without.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    device_toolchain::ensure()?;
    cuda_tools::ensure()?;
    let stub = stub::ensure(&workspace::target())?;
    shell::say(format_args!("link stub of libcuda: {}", stub.display()));
    match test::gpu() {
        Some(device) => {
            shell::say(format_args!("GPU: found {}; tests and benchmark run on it", device.display()))
        }
        None if arguments.require_gpu => {
            test::require_gpu().context("--require-gpu")?;
        }
        None => shell::say("GPU: none; tests and benchmark run on the emulator"),
    }
    Ok(())
}
