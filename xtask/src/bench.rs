//! `cargo xtask bench`: the benchmark.

use std::process::Command;

use anyhow::{Context, Result};

use crate::ptx::Backend;
use crate::{artifacts, link_stub, shell, workspace};

/// Builds the benchmark in release and runs it: on a GPU if there is one, else on the emulator.
///
/// `cargo xtask bench -- --help` lists its options, such as --quick, --filter and --out. With --baseline report.json
/// the run is compared with an older one, and fails when a cell became slower by more than --threshold percent (10).
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whose PTX a GPU runs; for rust-cuda's, `cargo xtask ptx --backend rust-cuda` first.
    #[arg(long, value_enum, default_value_t = Backend::Stock)]
    ptx: Backend,
    /// Passed on to the benchmark; without --out, reports go to target/bench.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    benchmark: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    arguments.ptx.require()?;
    let mut build = shell::cargo();
    build
        .args([
            "build",
            "--release",
            "--package",
            "dsa-kernels-tests",
            "--features",
            "cust",
            "--bench",
            "topk",
        ])
        .env(link_stub::VARIABLE, link_stub::directory()?);
    shell::say("building the benchmark");
    let executables = artifacts::build(&mut build)?;
    let benchmark = executables
        .iter()
        .find(|executable| executable.kind == "bench" && executable.target == "topk")
        .context("cargo built no benchmark `topk`")?;
    let mut command = Command::new(&benchmark.path);
    command.args(&arguments.benchmark).envs(arguments.ptx.variable());
    if !names_output(&arguments.benchmark) {
        command.arg("--out").arg(workspace::target().join("bench"));
    }
    shell::run(&mut command)
}

fn names_output(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument == "--out" || argument.starts_with("--out="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_output_directory_is_kept() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        assert!(names_output(&words("--quick --out x")));
        assert!(names_output(&words("--out=x")));
        assert!(!names_output(&words("--quick --filter out")));
    }
}
