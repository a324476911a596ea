//! What compiles the kernels, and where its PTX is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{ARCHITECTURES, Unit, build, header};
use crate::workspace;

/// What compiles the kernels to PTX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Backend {
    /// Stock rustc: the committed PTX.
    #[default]
    Stock,
    /// rust-cuda: PTX in target/ptx/rust-cuda. Needs its container image.
    RustCuda,
    /// Stock rustc with the sources of the backend for rust-cuda and a stand-in for its cuda_std: PTX in
    /// target/ptx/stand-in.
    StandIn,
}

impl Backend {
    /// What it is called on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::RustCuda => "rust-cuda",
            Self::StandIn => "stand-in",
        }
    }

    /// The command that makes its PTX.
    pub(crate) fn command(self) -> String {
        match self {
            Self::Stock => "cargo xtask ptx".into(),
            other => format!("cargo xtask ptx --backend {}", other.name()),
        }
    }

    /// Where its PTX is, if that is not committed.
    pub(crate) fn directory(self) -> Option<PathBuf> {
        (self != Self::Stock).then(|| workspace::target().join("ptx").join(self.name()))
    }

    /// The variable that has the suite and the benchmark use its PTX.
    pub(crate) fn variable(self) -> Option<(&'static str, PathBuf)> {
        self.directory().map(|directory| ("DSA_PTX", directory))
    }

    /// The PTX of a unit for one architecture.
    pub(crate) fn file(self, unit: &Unit, arch: u32) -> PathBuf {
        let name = format!("{}.sm_{arch}.ptx", unit.output);
        match self.directory() {
            None => workspace::root().join(name),
            Some(directory) => directory.join(Path::new(&name).file_name().expect("units name files")),
        }
    }

    /// Requires the PTX of all units, made of the sources as they are. The committed PTX has a check of its own.
    pub(crate) fn require(self) -> Result<()> {
        if self == Self::Stock {
            return Ok(());
        }
        for unit in super::units() {
            for arch in ARCHITECTURES {
                self.require_file(&unit, arch).with_context(|| {
                    format!("{}: run `{}`", workspace::short(&self.file(&unit, arch)), self.command())
                })?;
            }
        }
        Ok(())
    }

    fn require_file(self, unit: &Unit, arch: u32) -> Result<()> {
        let text = std::fs::read_to_string(self.file(unit, arch)).context("cannot read the file")?;
        let (recorded, now) = (
            header::Recorded::parse(&text)?.sources,
            header::source_hash(workspace::root(), self, unit, arch)?,
        );
        if recorded != now {
            bail!("the sources changed: their hash is {now}, the file says {recorded}");
        }
        Ok(())
    }

    /// The compiler's flags for one architecture, as the file's header has them.
    pub(super) fn flags(self, arch: u32) -> Vec<String> {
        match self {
            Self::Stock | Self::StandIn => build::flags(arch),
            // Set by cuda_builder, by gpu/rust-cuda/builder and by the profile of gpu/rust-cuda.
            Self::RustCuda => vec![
                format!("-arch=compute_{arch}"),
                "-fma=0".into(),
                "-Zmir-enable-passes=-JumpThreading".into(),
            ],
        }
    }

    /// Whether a file of the repository, by its path in it, is a source of this backend's PTX alone or not at all:
    /// `None` where all backends share it.
    pub(super) fn owns(self, file: &str) -> Option<bool> {
        let owner = match file {
            "simt/src/ptx.rs" => Self::Stock,
            "simt/src/rust_cuda.rs" => return Some(self != Self::Stock),
            _ if file.starts_with("gpu/rust-cuda/stand-in/") => Self::StandIn,
            _ if file.starts_with("gpu/rust-cuda/") => Self::RustCuda,
            _ => return None,
        };
        Some(owner == self)
    }

    /// Whether its compiler declares dynamic shared memory itself.
    pub(super) fn declares_shared(self) -> bool {
        self == Self::RustCuda
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_has_files_of_its_own() {
        let probe = super::super::units().into_iter().find(|unit| unit.output.ends_with("probe")).unwrap();
        let file = |backend: Backend| backend.file(&probe, 90);
        assert_eq!(file(Backend::Stock), workspace::root().join("tests/ptx/probe.sm_90.ptx"));
        for backend in [Backend::RustCuda, Backend::StandIn] {
            assert!(file(backend).ends_with(format!("ptx/{}/probe.sm_90.ptx", backend.name())));
        }
    }

    #[test]
    fn sources_belong_to_the_backends_that_compile_them() {
        use Backend::{RustCuda, StandIn, Stock};
        for (file, owners) in [
            ("simt/src/ptx.rs", vec![Stock]),
            ("simt/src/rust_cuda.rs", vec![RustCuda, StandIn]),
            ("gpu/rust-cuda/builder/build.rs", vec![RustCuda]),
            ("gpu/rust-cuda/stand-in/cuda_std/src/lib.rs", vec![StandIn]),
        ] {
            for backend in [Stock, RustCuda, StandIn] {
                assert_eq!(backend.owns(file), Some(owners.contains(&backend)), "{file}, {backend:?}");
            }
        }
        assert_eq!(Stock.owns("simt/src/lib.rs"), None);
    }
}
