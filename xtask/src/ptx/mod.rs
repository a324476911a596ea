//! `cargo xtask ptx`: the PTX of the kernels.

use anyhow::{Context, Result, bail};
use dsa_simt::Entry;

use crate::device_toolchain::{self, DeviceToolchain};
use crate::rust_cuda::{self, RustCuda};
use crate::{cuda_tools, golden, shell, workspace};

pub(crate) use backend::Backend;
use header::Compiler;

mod backend;
mod build;
mod header;
mod text;

/// The architectures PTX is built for. The first runs on every supported device, the second adds clusters.
pub(crate) const ARCHITECTURES: [u32; 2] = [80, 90];

/// Kernels that share a PTX file: a crate of them, or one module of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    /// Package.
    pub(crate) package: &'static str,
    /// Its directory.
    pub(crate) directory: &'static str,
    /// The module it is made of, with the feature of the same name, where the crate has several units.
    pub(crate) module: Option<&'static str>,
    /// Directory and first part of the names of its PTX files.
    pub(crate) output: &'static str,
    /// Its table of entry points.
    pub(crate) entries: &'static [Entry],
}

/// All units.
pub(crate) fn units() -> [Unit; 3] {
    [
        Unit {
            package: "dsa-kernels-gpu",
            directory: "gpu",
            module: Some("compress"),
            output: "host/ptx/compress",
            entries: dsa_kernels_gpu::compress::ENTRIES,
        },
        Unit {
            package: "dsa-kernels-gpu",
            directory: "gpu",
            module: Some("topk"),
            output: "host/ptx/topk",
            entries: dsa_kernels_gpu::topk::ENTRIES,
        },
        Unit {
            package: "dsa-kernels-probe",
            directory: "tests/probe",
            module: None,
            output: "tests/ptx/probe",
            entries: dsa_kernels_probe::ENTRIES,
        },
    ]
}

impl Unit {
    /// What it is called in messages and names of files.
    pub(crate) fn name(&self) -> &'static str {
        self.module.unwrap_or(self.package)
    }

    /// What its PTX is made from, for people.
    fn source(&self) -> String {
        match self.module {
            Some(module) => format!("crate {}, module {module},", self.package),
            None => format!("crate {}", self.package),
        }
    }

    /// The features of the package for one architecture, as cargo takes them.
    fn features(&self, arch: u32) -> String {
        let features: Vec<&str> = self.module.into_iter().chain(build::feature(arch)).collect();
        features.join(",")
    }

    /// The entry points that the file for one architecture holds.
    pub(crate) fn entries_for(&self, arch: u32) -> impl Iterator<Item = &'static Entry> + use<> {
        self.entries.iter().filter(move |entry| entry.min_arch <= arch)
    }
}

/// Builds the PTX files of the kernels, or checks that they are what the sources give.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail when a committed file is stale. Rebuilds and compares where the compiler that the
    /// file names is there, else compares the hash of the sources. With the backend stand-in: type-check all units,
    /// then build the probe and have it assembled.
    #[arg(long)]
    check: bool,
    /// What compiles them.
    #[arg(long, value_enum, default_value_t = Backend::Stock)]
    backend: Backend,
    /// Only these units: compress, topk, dsa-kernels-probe; all unless given.
    units: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let units = selected(&arguments.units)?;
    match (arguments.backend, arguments.check) {
        (Backend::RustCuda, true) => {
            bail!(
                "--check compares committed PTX, and that of rust-cuda is not committed; use --backend stand-in"
            )
        }
        (Backend::RustCuda, false) => write(&Maker::RustCuda(rust_cuda::find()?), &units),
        (Backend::Stock, true) => check(device_toolchain::ensure()?.as_ref(), &units),
        (Backend::StandIn, true) => check_stand_in(&units),
        (backend, false) => {
            let toolchain = device_toolchain::ensure()?.context("building PTX needs a device toolchain")?;
            write(&Maker::Stock(toolchain, backend), &units)
        }
    }
}

/// A compiler that was found, and the backend that it compiles.
enum Maker {
    Stock(DeviceToolchain, Backend),
    RustCuda(RustCuda),
}

impl Maker {
    fn backend(&self) -> Backend {
        match self {
            Self::Stock(_, backend) => *backend,
            Self::RustCuda(_) => Backend::RustCuda,
        }
    }

    fn compiler(&self) -> Compiler {
        match self {
            Self::Stock(toolchain, _) => Compiler::from(&toolchain.version),
            Self::RustCuda(found) => Compiler { line: found.compiler.clone(), llvm: found.llvm.clone() },
        }
    }

    fn assembly(&self, unit: &Unit, arch: u32) -> Result<String> {
        match self {
            Self::Stock(toolchain, backend) => build::assembly(toolchain, *backend, unit, arch),
            Self::RustCuda(found) => build::rust_cuda_assembly(found, unit, arch),
        }
    }
}

/// Builds and writes the files of the units.
fn write(maker: &Maker, units: &[Unit]) -> Result<()> {
    for unit in units {
        for arch in ARCHITECTURES {
            let path = maker.backend().file(unit, arch);
            let text = generate(maker, unit, arch)?;
            std::fs::create_dir_all(path.parent().context("PTX files lie in a directory")?)?;
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            shell::say(format_args!("{}: written", workspace::short(&path)));
        }
    }
    Ok(())
}

/// Checks the backend for rust-cuda as far as that goes without rust-cuda. Where there is no device toolchain it is left
/// out, as the comparison of committed PTX is.
fn check_stand_in(units: &[Unit]) -> Result<()> {
    let Some(toolchain) = device_toolchain::ensure()? else {
        shell::say("the backend for rust-cuda: NOT CHECKED, there is no device toolchain");
        return Ok(());
    };
    build::check_stand_in(&toolchain, units)?;
    shell::say(
        "the backend for rust-cuda: complete, and types and operands fit, against the stand-in for cuda_std",
    );
    let probe: Vec<Unit> = units.iter().filter(|unit| unit.module.is_none()).copied().collect();
    write(&Maker::Stock(toolchain, Backend::StandIn), &probe)?;
    match cuda_tools::ensure()? {
        Some(tools) => golden::check_units(&tools, Backend::StandIn, &probe),
        None => Ok(()),
    }
}

/// The units of these names; all if there are none.
fn selected(names: &[String]) -> Result<Vec<Unit>> {
    let known = units();
    for name in names {
        if !known.iter().any(|unit| unit.name() == name) {
            let known: Vec<&str> = known.iter().map(Unit::name).collect();
            bail!("no unit `{name}`; there are {}", known.join(", "));
        }
    }
    let wanted = |unit: &Unit| names.is_empty() || names.iter().any(|name| name == unit.name());
    Ok(known.into_iter().filter(wanted).collect())
}

/// Fails with the names of all stale files.
fn check(toolchain: Option<&DeviceToolchain>, units: &[Unit]) -> Result<()> {
    let mut stale = Vec::new();
    for unit in units {
        for arch in ARCHITECTURES {
            let path = Backend::Stock.file(unit, arch);
            match check_file(toolchain, unit, arch) {
                Ok(how) => shell::say(format_args!("{}: up to date ({how})", workspace::short(&path))),
                Err(why) => stale.push(format!("{}: {why:#}", workspace::short(&path))),
            }
        }
    }
    if !stale.is_empty() {
        bail!("stale PTX:\n  {}\nRun `cargo xtask ptx` and commit the files.", stale.join("\n  "));
    }
    Ok(())
}

/// How the file was found to be up to date, or why it is not.
fn check_file(toolchain: Option<&DeviceToolchain>, unit: &Unit, arch: u32) -> Result<String> {
    let committed =
        std::fs::read_to_string(Backend::Stock.file(unit, arch)).context("cannot read the file")?;
    let recorded = header::Recorded::parse(&committed)?;
    let sources = header::source_hash(workspace::root(), Backend::Stock, unit, arch)?;
    if recorded.sources != sources {
        bail!("the sources changed: their hash is {sources}, the file says {}", recorded.sources);
    }
    match toolchain {
        Some(toolchain) if recorded.made_by(&toolchain.version) => {
            let rebuilt = generate(&Maker::Stock(toolchain.clone(), Backend::Stock), unit, arch)?;
            let kept = workspace::target().join("ptx").join(format!("{}.sm_{arch}.ptx", unit.name()));
            std::fs::create_dir_all(workspace::target().join("ptx"))?;
            std::fs::write(&kept, &rebuilt)?;
            if let Some(line) = first_difference(&committed, &rebuilt) {
                bail!("line {line} is not what the compiler gives; see {}", workspace::short(&kept));
            }
            Ok("rebuilt and compared".into())
        }
        Some(toolchain) => Ok(format!(
            "hash of the sources compared; not rebuilt: made by {}, here is {}",
            recorded.compiler, toolchain.version.line
        )),
        None => Ok(format!("hash of the sources compared; not rebuilt: needs {}", recorded.compiler)),
    }
}

/// The text of one PTX file.
fn generate(maker: &Maker, unit: &Unit, arch: u32) -> Result<String> {
    let (backend, name) = (maker.backend(), format!("{} for sm_{arch}", unit.name()));
    // Before the build: when a source changes meanwhile, the file is stale rather than wrong.
    let sources = header::source_hash(workspace::root(), backend, unit, arch)?;
    let raw = maker.assembly(unit, arch).with_context(|| format!("cannot build {name}"))?;
    let entries: Vec<&Entry> = unit.entries_for(arch).collect();
    let body = text::finish(&raw, &entries, backend.declares_shared())
        .with_context(|| format!("cannot use the PTX of {name}"))?;
    Ok(format!("{}{body}", header::write(backend, unit, arch, &maker.compiler(), &sources)))
}

/// Number of the first line in which two texts differ.
fn first_difference(a: &str, b: &str) -> Option<usize> {
    if a == b {
        return None;
    }
    let same = a.lines().zip(b.lines()).take_while(|(a, b)| a == b).count();
    Some(same + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_differing_line_is_named() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some(2));
    }

    #[test]
    fn an_unknown_unit_is_answered_with_the_names_there_are() {
        let names = |names: &[&str]| selected(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(names(&["topk"]).unwrap().len(), 1);
        assert_eq!(names(&[]).unwrap().len(), units().len());
        let error = names(&["topk", "nothing"]).unwrap_err().to_string();
        assert!(error.contains("`nothing`") && error.contains("compress, topk"), "{error}");
    }

    #[test]
    fn every_unit_has_entry_points_for_every_architecture() {
        for unit in units() {
            for arch in ARCHITECTURES {
                assert!(unit.entries_for(arch).count() > 0, "{} sm_{arch}", unit.name());
            }
        }
    }
}
