//! Compiling the kernels of a unit.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Unit;
use crate::device_toolchain::{self, DeviceToolchain};
use crate::{shell, workspace};

/// PTX 8.0, of CUDA 12.0: the first one that can leave a cluster without a fence.
const SM_90_FEATURES: &str = "+ptx80";

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

/// What the compiler makes of the unit.
pub(super) fn assembly(toolchain: &DeviceToolchain, unit: &Unit, arch: u32) -> Result<String> {
    let target = workspace::target().join("device").join(format!("sm_{arch}"));
    let release = target.join(super::header::TARGET).join("release");
    let library = unit.package.replace('-', "_");
    // Cargo knows nothing of the assembly: it must compile the crate anew for the file to be this build's.
    remove_matching(&release.join(".fingerprint"), &format!("{}-", unit.package))?;
    remove_matching(&release.join("deps"), &format!("{library}."))?;

    // The crate type is named here and not in the manifests: the files of a crate that is also a `cdylib` have
    // no hash in their names, and builds with other features would overwrite each other's.
    let mut command = Command::new(&toolchain.cargo);
    device_toolchain::clean(&mut command);
    command
        .current_dir(workspace::root())
        .args(["rustc", "--quiet", "--locked", "--release", "-Zbuild-std=core", "--crate-type", "cdylib"])
        .args(["--target", super::header::TARGET, "--package", unit.package])
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(arch).join("\x1f"))
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_INCREMENTAL", "0")
        .envs(PROFILE);
    command.args(["--features", &unit.features(arch)]);
    shell::run(command.args(["--", "--emit=asm"]))?;

    let file = release.join("deps").join(format!("{library}.s"));
    std::fs::read_to_string(&file).with_context(|| format!("the compiler left no {}", file.display()))
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
