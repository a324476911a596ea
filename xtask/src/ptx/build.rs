//! Compiling the kernels of a unit.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{ARCHITECTURES, Backend, Unit};
use crate::device_toolchain::{self, DeviceToolchain};
use crate::rust_cuda::{self, RustCuda};
use crate::{shell, workspace};

/// PTX 8.6, of CUDA 12.7: the first one with fences for shared memory alone.
const SM_90_FEATURES: &str = "+ptx86";

/// The compiler's flags for one architecture. Part of the hash of the sources.
///
/// - No JumpThreading: it copies barriers into divergent branches.
/// - No linker: the result is assembly, and the only linker of the target does nothing that is needed.
/// - A panic is one trap instruction, not a call with a message.
/// - Loops over the elements of a tile are unrolled, or its registers would become local memory.
pub(super) fn flags(arch: u32) -> Vec<String> {
    vec![
        format!("-Ctarget-cpu=sm_{arch}"),
        format!("-Ctarget-feature={}", if arch >= 90 { SM_90_FEATURES } else { "" }),
        "-Clinker=/bin/true".into(),
        "-Zmir-enable-passes=-JumpThreading".into(),
        "-Cpanic=immediate-abort".into(),
        "-Zunstable-options".into(),
        "-Cllvm-args=-unroll-threshold=600".into(),
    ]
}

/// The profile, as environment variables. Debug info would break ptxas. Part of the hash of the sources.
pub(super) const PROFILE: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false"),
];

/// The feature that an architecture turns on.
pub(super) fn feature(arch: u32) -> Option<&'static str> {
    (arch >= 90).then_some("sm_90")
}

/// What stock rustc makes of the unit, for the backend of its own or for that of rust-cuda with the stand-in.
pub(super) fn assembly(
    toolchain: &DeviceToolchain,
    backend: Backend,
    unit: &Unit,
    arch: u32,
) -> Result<String> {
    let target = target_directory(backend, arch);
    let release = target.join(super::header::TARGET).join("release");
    let library = unit.package.replace('-', "_");
    // Cargo knows nothing of the assembly: it must compile the crate anew for the file to be this build's.
    remove_matching(&release.join(".fingerprint"), &format!("{}-", unit.package))?;
    remove_matching(&release.join("deps"), &format!("{library}."))?;

    // The crate type is named here and not in the manifests: the files of a crate that is also a `cdylib` have
    // no hash in their names, and builds with other features would overwrite each other's.
    let mut command = cargo(toolchain, backend, arch);
    command
        .args(["rustc", "--quiet", "--locked", "--release", "-Zbuild-std=core", "--crate-type", "cdylib"])
        .args(["--target", super::header::TARGET, "--package", unit.package])
        .args(["--features", &unit.features(arch)]);
    shell::run(command.args(["--", "--emit=asm"]))?;

    let file = release.join("deps").join(format!("{library}.s"));
    std::fs::read_to_string(&file).with_context(|| format!("the compiler left no {}", file.display()))
}

/// Type-checks the backend for rust-cuda and all units with it, against the stand-in: names, types, and the operands
/// of the assembly, for every architecture.
pub(super) fn check_stand_in(toolchain: &DeviceToolchain, units: &[Unit]) -> Result<()> {
    for arch in ARCHITECTURES {
        let mut command = cargo(toolchain, Backend::StandIn, arch);
        command.args(["check", "--quiet", "--locked", "-Zbuild-std=core", "--target", super::header::TARGET]);
        for unit in units {
            command.args(["--package", unit.package]);
            for feature in unit.features(arch).split(',').filter(|feature| !feature.is_empty()) {
                command.args(["--features", &format!("{}/{feature}", unit.package)]);
            }
        }
        shell::run(&mut command)?;
    }
    Ok(())
}

fn target_directory(backend: Backend, arch: u32) -> PathBuf {
    let directory = if backend == Backend::Stock { "device" } else { backend.name() };
    workspace::target().join(directory).join(format!("sm_{arch}"))
}

/// The device toolchain's cargo in the workspace of the backend.
fn cargo(toolchain: &DeviceToolchain, backend: Backend, arch: u32) -> Command {
    let mut command = Command::new(&toolchain.cargo);
    device_toolchain::clean(&mut command);
    let directory = match backend {
        Backend::Stock => workspace::root().to_path_buf(),
        _ => rust_cuda::directory().join("stand-in"),
    };
    command
        .current_dir(directory)
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(arch).join("\x1f"))
        .env("CARGO_TARGET_DIR", target_directory(backend, arch))
        .env("CARGO_INCREMENTAL", "0")
        .envs(PROFILE);
    command
}

/// What rust-cuda makes of the unit: through the build script of `gpu/rust-cuda/builder`, which reads the environment.
pub(super) fn rust_cuda_assembly(rust_cuda: &RustCuda, unit: &Unit, arch: u32) -> Result<String> {
    let target = workspace::target().join("rust-cuda");
    let output = target.join(format!("{}.sm_{arch}.ptx", unit.name()));
    std::fs::create_dir_all(&target)?;
    let member = if unit.directory == "gpu" { "kernels" } else { "probe" };
    let mut command = rust_cuda.cargo();
    command
        .args(["build", "--package", "dsa-kernels-rust-cuda"])
        .env("CARGO_TARGET_DIR", &target)
        .env("DSA_RUST_CUDA_CRATE", member)
        .env("DSA_RUST_CUDA_FEATURES", unit.features(arch))
        .env("DSA_RUST_CUDA_ARCH", arch.to_string())
        .env("DSA_RUST_CUDA_OUTPUT", &output);
    shell::run(&mut command)?;
    std::fs::read_to_string(&output).with_context(|| format!("rust-cuda left no {}", output.display()))
}

/// Removes files and directories of `directory` whose names begin with `prefix`.
fn remove_matching(directory: &Path, prefix: &str) -> Result<()> {
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry?.path();
        let matches = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        if matches && path.is_dir() {
            std::fs::remove_dir_all(&path)?;
        } else if matches {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}
