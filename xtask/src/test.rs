//! `cargo xtask test`: every test that this machine can run.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::ptx::{self, Backend as PtxBackend};
use crate::{cuda_tools, golden, link_stub, shell};

/// Checks the committed PTX with NVIDIA's tools, then runs all tests on the emulator and, where there is a
/// GPU, the suite on it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the tests: leave the checks of the PTX out.
    #[arg(long)]
    quick: bool,
    /// Where the suite runs.
    #[arg(long, value_enum, default_value_t = Backend::Best)]
    backend: Backend,
    /// Whose PTX the suite runs on a GPU, and is checked; for rust-cuda's, `cargo xtask ptx --backend rust-cuda` first.
    #[arg(long, value_enum, default_value_t = PtxBackend::Stock)]
    ptx: PtxBackend,
    /// Passed on to `cargo test`: a filter, or `-- --nocapture` and the like.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Backend {
    /// The emulator, and the GPU if there is one.
    Best,
    /// The emulator only.
    Emulator,
    /// The GPU only; fails if there is none.
    Gpu,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.ptx.require()?;
    if !arguments.quick {
        check_ptx(arguments.ptx)?;
    }
    if arguments.backend == Backend::Gpu {
        require_gpu().context("--backend gpu")?;
    }
    let gpu = gpu();
    if arguments.backend != Backend::Gpu {
        shell::say("tests on the emulator");
        shell::run(
            shell::cargo()
                .args(["test", "--workspace"])
                .args(&arguments.cargo)
                .env("DSA_BACKEND", "emulator"),
        )?;
    }
    match gpu {
        Some(_) if arguments.backend != Backend::Emulator => {
            shell::say("the suite on the GPU");
            shell::run(
                shell::cargo()
                    .args(["test", "--release", "--package", "dsa-kernels", "--package", "dsa-kernels-tests"])
                    .args(["--features", "dsa-kernels-tests/cust"])
                    .args(&arguments.cargo)
                    .env("DSA_BACKEND", "gpu")
                    .envs(arguments.ptx.variable())
                    .env(link_stub::VARIABLE, link_stub::directory()?),
            )?;
        }
        Some(_) => shell::say("the suite on the GPU: not asked for"),
        None => {
            // A filter or other targets need not fit the one program here.
            if arguments.cargo.is_empty() {
                shell::say("what a build for GPUs does where there is none");
                shell::run(
                    shell::cargo()
                        .args(["test", "--package", "dsa-kernels", "--features", "cust", "--test", "device"])
                        .env("DSA_BACKEND", "emulator")
                        .env(link_stub::VARIABLE, link_stub::directory()?),
                )?;
            }
            shell::say("no GPU here: the suite ran on the emulator only, at reduced sizes");
        }
    }
    Ok(())
}

/// The golden checks. Without the tools they are left out, except in CI, which is there to run them.
fn check_ptx(backend: PtxBackend) -> Result<()> {
    match cuda_tools::ensure()? {
        Some(tools) => golden::check_units(&tools, backend, &ptx::units()),
        None if std::env::var_os("CI").is_some() => {
            bail!("the checks of the PTX need ptxas and cuobjdump, and CI may not leave them out")
        }
        None => Ok(()),
    }
}

/// The device file of an NVIDIA GPU, or an error.
pub(crate) fn require_gpu() -> Result<PathBuf> {
    gpu().context("no GPU found: none of /dev/nvidia0, /dev/nvidiactl and /dev/dxg is there")
}

/// The device file of an NVIDIA GPU.
pub(crate) fn gpu() -> Option<PathBuf> {
    ["/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"]
        .into_iter()
        .map(PathBuf::from)
        .find(|device| device.exists())
}
