//! `cargo xtask ci`: what has to pass before a change is handed in.

use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{link_stub, shell};

/// Runs what .github/workflows/ci.yml runs: all steps, or those that are named. Stops at the first that fails.
///
/// .ci/run has the steps that need nothing from the network but the registries of Debian, Python and Rust, and no tool that
/// takes minutes to build: all but workflows and deny.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The steps; all unless given.
    #[arg(value_enum)]
    steps: Vec<Step>,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The golden checks of the PTX, and all tests on the emulator.
    Test,
    /// The committed PTX is what the sources give.
    Ptx,
    /// Formatting.
    Fmt,
    /// Lints, without and with the feature `cust`.
    Clippy,
    /// Documentation, without and with the feature `cust`.
    Docs,
    /// The libraries build with the oldest Rust that they promise.
    Msrv,
    /// The crates that can be published build from their packaged form.
    Package,
    /// The workflows are well-formed.
    Workflows,
    /// Licences, sources and vulnerabilities of dependencies.
    Deny,
}

/// A command of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// A command of this program.
    Xtask(&'static [&'static str]),
    /// A call of cargo.
    Cargo(&'static [&'static str]),
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn calls(self) -> &'static [Call] {
        use Call::{Cargo, Xtask};
        match self {
            Self::Test => &[Xtask(&["test"])],
            // The backend for rust-cuda as far as that goes without rust-cuda.
            Self::Ptx => &[Xtask(&["ptx", "--check"]), Xtask(&["ptx", "--backend", "stand-in", "--check"])],
            Self::Fmt => &[
                Cargo(&["fmt", "--all", "--check"]),
                Cargo(&["fmt", "--all", "--check", "--manifest-path", "gpu/rust-cuda/stand-in/Cargo.toml"]),
                Cargo(&["fmt", "--check", "--manifest-path", "interop/Cargo.toml"]),
            ],
            Self::Clippy => &[
                Cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
                Cargo(&[
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--features",
                    "dsa-kernels-tests/cust,dsa-kernels-capi/cust",
                    "--",
                    "-D",
                    "warnings",
                ]),
                Cargo(&[
                    "clippy",
                    "--manifest-path",
                    "interop/Cargo.toml",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ]),
            ],
            Self::Docs => &[
                Cargo(&["doc", "--workspace", "--no-deps"]),
                Cargo(&["doc", "--workspace", "--no-deps", "--features", "dsa-kernels-tests/cust"]),
            ],
            Self::Msrv => &[Xtask(&["msrv"])],
            Self::Package => &[Xtask(&["package"])],
            Self::Workflows => &[Xtask(&["workflows"])],
            Self::Deny => &[Xtask(&["deny"])],
        }
    }
}

impl Call {
    fn run(self) -> Result<()> {
        match self {
            Self::Xtask(words) => {
                shell::say(format_args!("running cargo xtask {}", words.join(" ")));
                crate::run_words(words)
            }
            Self::Cargo(words) => {
                let mut command = shell::cargo();
                command.args(words).env("RUSTDOCFLAGS", "-D warnings");
                shell::run(command.env(link_stub::VARIABLE, link_stub::directory()?))
            }
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let steps = if arguments.steps.is_empty() { Step::value_variants() } else { &arguments.steps };
    let mut times = Vec::new();
    for step in steps {
        let name = step.name();
        shell::say(format_args!("== {name}"));
        let start = Instant::now();
        step.calls().iter().try_for_each(|call| call.run()).with_context(|| format!("step {name}"))?;
        times.push(format!("{name} {} s", start.elapsed().as_secs()));
    }
    shell::say(format_args!("all steps passed: {}", times.join(", ")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    /// The steps that a file names behind `cargo xtask ci`.
    fn steps_in(file: &str) -> Vec<Step> {
        let text = std::fs::read_to_string(workspace::root().join(file)).unwrap();
        let calls = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let words = calls
            .filter_map(|line| line.split_once("cargo xtask ci "))
            .flat_map(|(_, words)| words.split(' '));
        words
            .map(|word| Step::from_str(word.trim(), false).unwrap_or_else(|_| panic!("{file}: {word}")))
            .collect()
    }

    #[test]
    fn the_workflow_runs_every_step() {
        let run = steps_in(".github/workflows/ci.yml");
        for step in Step::value_variants() {
            assert_eq!(run.iter().filter(|other| *other == step).count(), 1, "{step:?} in {run:?}");
        }
    }

    #[test]
    fn the_entry_of_ci_runs_every_step_that_needs_no_more_than_the_registries() {
        let more = [Step::Workflows, Step::Deny];
        let wanted: Vec<_> =
            Step::value_variants().iter().filter(|step| !more.contains(step)).copied().collect();
        assert_eq!(steps_in(".ci/run"), wanted);
    }

    #[test]
    fn every_command_of_the_steps_is_understood() {
        for step in Step::value_variants() {
            for call in step.calls() {
                if let Call::Xtask(words) = call {
                    crate::parse(words).unwrap_or_else(|error| panic!("{step:?}: {error}"));
                }
            }
        }
    }
}
