//! `cargo xtask golden`: what NVIDIA's assembler makes of the PTX.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cuda_tools::{self, CudaTools};
use crate::ptx::{self, Backend, Unit};
use crate::{shell, workspace};

mod expected;
mod ptxas;
mod sass;

/// The architectures that the PTX must assemble for.
const ARCHITECTURES: [u32; 4] = [80, 90, 100, 120];
/// The architecture whose machine code is inspected.
const INSPECTED: u32 = 90;

/// Assembles the PTX for sm_80, sm_90, sm_100 and sm_120 and inspects the result: registers within
/// the launch bounds, no spills, no local memory, 16-byte loads and native shared atomics where promised.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whose PTX.
    #[arg(long, value_enum, default_value_t = Backend::Stock)]
    backend: Backend,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.backend.require()?;
    let tools = cuda_tools::ensure()?.context("the checks need ptxas and cuobjdump")?;
    check_units(&tools, arguments.backend, &ptx::units())
}

/// Runs the checks of one backend's PTX of these units; the error lists every finding.
pub(crate) fn check_units(tools: &CudaTools, backend: Backend, units: &[Unit]) -> Result<()> {
    let directory = workspace::target().join("golden").join(backend.name());
    std::fs::create_dir_all(&directory)?;
    let (mut findings, mut functions) = (Vec::new(), 0);
    for unit in units {
        for ptx_arch in ptx::ARCHITECTURES {
            let file = backend.file(unit, ptx_arch);
            for arch in ARCHITECTURES.into_iter().filter(|&arch| arch >= ptx_arch) {
                functions += check_one(tools, unit, &file, ptx_arch, arch, &directory, &mut findings)?;
            }
        }
    }
    if !findings.is_empty() {
        bail!("the PTX does not keep its promises:\n  {}", findings.join("\n  "));
    }
    shell::say(format_args!("golden checks: {functions} kernels assembled, none with a finding"));
    Ok(())
}

/// Checks one PTX file for one architecture. Returns how many kernels there were.
fn check_one(
    tools: &CudaTools,
    unit: &Unit,
    file: &Path,
    ptx_arch: u32,
    arch: u32,
    directory: &Path,
    findings: &mut Vec<String>,
) -> Result<usize> {
    let place = format!("{} on sm_{arch}", workspace::short(file));
    let cubin = directory.join(format!("{}.sm_{ptx_arch}.on_{arch}.cubin", unit.name()));
    let mut assemble = tools.ptxas();
    assemble.arg("-v").arg(format!("-arch=sm_{arch}")).arg("-o").arg(&cubin).arg(file);
    let report =
        ptxas::parse(&shell::quiet(&mut assemble).with_context(|| format!("{place} does not assemble"))?);

    for function in &report {
        shell::say(format_args!("{place}: {function}"));
    }
    for entry in unit.entries_for(ptx_arch) {
        if !report.iter().any(|function| function.name == entry.name) {
            findings.push(format!("{place}: no kernel {}", entry.name));
        }
    }
    for function in &report {
        let entry = unit.entries.iter().find(|entry| entry.name == function.name);
        let limit = entry.map(|entry| ptxas::register_limit(entry.max_threads, entry.min_blocks, arch));
        findings.extend(function.findings(limit).into_iter().map(|finding| format!("{place}: {finding}")));
    }
    if arch == INSPECTED {
        let text = shell::quiet(tools.cuobjdump().arg("-sass").arg(&cubin))?;
        let functions = sass::parse(&text);
        for entry in unit.entries_for(ptx_arch) {
            let found = match functions.iter().find(|function| function.name == entry.name) {
                Some(function) => expected::of(entry.name).findings(function, ptx_arch),
                None => vec![format!("{}: no machine code", entry.name)],
            };
            findings.extend(found.into_iter().map(|finding| format!("{place}: {finding}")));
        }
    }
    Ok(report.len())
}
