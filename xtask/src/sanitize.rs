//! `cargo xtask sanitize`: the suite under compute-sanitizer.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{artifacts, link_stub, shell, test};

/// The exit status that stands for a finding: compute-sanitizer's own is 0.
pub(crate) const FINDING: &str = "86";
/// Variables that name a toolkit, in order, and the usual place.
const TOOLKIT_VARIABLES: [&str; 2] = ["CUDA_HOME", "CUDA_PATH"];
const TOOLKIT: &str = "/usr/local/cuda";

/// Runs a subset of the suite on the GPU under tools of compute-sanitizer; any finding is a failure.
///
/// A launch is many times as slow under a tool: without filters each tool gets a subset that takes every path and leaves
/// the slowest tests out. compute-sanitizer is looked for in PATH, CUDA_HOME, CUDA_PATH and
/// /usr/local/cuda. On a machine without Rust: `./run sanitize` in the directory of `cargo xtask stage`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The tool, repeatable; memcheck and racecheck unless given.
    #[arg(long, value_enum)]
    tool: Vec<Tool>,
    /// Print the tests that each tool would run, and run none; needs no GPU.
    #[arg(long)]
    list: bool,
    /// Only tests of the suite whose names contain one of these, in place of the usual subset.
    filters: Vec<String>,
}

/// A tool of compute-sanitizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// Accesses out of bounds or misaligned.
    Memcheck,
    /// Hazards in shared memory.
    Racecheck,
    /// Barriers that not all threads reach.
    Synccheck,
    /// Reads of global memory that nothing has written.
    Initcheck,
}

impl Tool {
    /// Those that run unless others are asked for.
    pub(crate) const USUAL: [Self; 2] = [Self::Memcheck, Self::Racecheck];

    /// As compute-sanitizer calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memcheck => "memcheck",
            Self::Racecheck => "racecheck",
            Self::Synccheck => "synccheck",
            Self::Initcheck => "initcheck",
        }
    }

    /// The beginnings of the names of the tests that it runs unless others are asked for.
    pub(crate) fn subset(self) -> &'static [&'static str] {
        match self {
            // Slowest of all: tests of clusters and of many distributions do not end.
            Self::Racecheck => &[
                "paths::every",
                "paths::nan",
                "options::values",
                "options::indices",
                "compress_decode::every",
                "compress_decode::a_window",
                "compress_prefill::every",
                "compress_post::",
                "compress_store::",
            ],
            Self::Memcheck | Self::Synccheck | Self::Initcheck => &[
                "paths::",
                "clusters::",
                "guesses::a_threshold",
                "state::every_launch_leaves",
                "options::values",
                "options::indices",
                "options::any_k_asc",
                "compress_decode::every",
                "compress_decode::a_window",
                "compress_prefill::every",
                "compress_post::",
                "compress_store::",
                "compress_running::",
                "compress_errors::",
            ],
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    // What is missing is said before minutes of building.
    let sanitizer = if arguments.list {
        PathBuf::new()
    } else {
        test::require_gpu()?;
        find(&places()).with_context(remedy)?
    };
    let suite = build()?;
    let tools = if arguments.tool.is_empty() { Tool::USUAL.to_vec() } else { arguments.tool.clone() };
    for tool in tools {
        let filters = match arguments.filters.is_empty() {
            true => tool.subset().iter().map(|filter| filter.to_string()).collect(),
            false => arguments.filters.clone(),
        };
        let tests = tests(&suite, &filters)?;
        if arguments.list {
            tests.iter().for_each(|test| println!("{} {test}", tool.name()));
            continue;
        }
        shell::say(format_args!("{} on {} tests", tool.name(), tests.len()));
        let mut command = Command::new(&sanitizer);
        command.args(["--tool", tool.name(), "--error-exitcode", FINDING]).arg(&suite);
        command.args(["--test-threads", "1"]).args(&filters).env("DSA_BACKEND", "gpu");
        shell::run(&mut command).with_context(|| {
            format!("{}: exit status {FINDING} stands for findings of the tool", tool.name())
        })?;
    }
    Ok(())
}

/// Builds the suite for GPUs.
fn build() -> Result<PathBuf> {
    let mut command = shell::cargo();
    command
        .args(["test", "--no-run", "--release", "--package", "dsa-kernels-tests", "--features", "cust"])
        .args(["--test", "suite"])
        .env(link_stub::VARIABLE, link_stub::directory()?);
    shell::say("building the suite");
    let executables = artifacts::build(&mut command)?;
    let suite = executables.into_iter().find(|executable| executable.test && executable.target == "suite");
    Ok(suite.context("cargo built no test `suite`")?.path)
}

/// The tests that filters choose; an error if one of them chooses none, as after a test was renamed.
fn tests(suite: &Path, filters: &[String]) -> Result<Vec<String>> {
    let listed = shell::stdout_of(Command::new(suite).args(["--list", "--format", "terse"]))?;
    chosen(&listed, filters)
}

fn chosen(listed: &str, filters: &[String]) -> Result<Vec<String>> {
    let all: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    for filter in filters {
        if !all.iter().any(|test| test.contains(filter.as_str())) {
            bail!(
                "no test of the suite has `{filter}` in its name; `cargo xtask sanitize --list` prints the usual ones"
            );
        }
    }
    let is_chosen = |test: &&str| filters.iter().any(|filter| test.contains(filter.as_str()));
    Ok(all.into_iter().filter(is_chosen).map(String::from).collect())
}

/// Where compute-sanitizer may be, in order.
fn places() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let toolkits = TOOLKIT_VARIABLES.into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let toolkits = toolkits.chain([PathBuf::from(TOOLKIT)]).map(|toolkit| toolkit.join("bin"));
    std::env::split_paths(&path).chain(toolkits).collect()
}

fn find(directories: &[PathBuf]) -> Option<PathBuf> {
    directories.iter().map(|directory| directory.join("compute-sanitizer")).find(|program| program.is_file())
}

fn remedy() -> String {
    format!(
        "no compute-sanitizer in PATH, {}, {TOOLKIT}: it is part of the CUDA toolkit, and of Python's package \
         nvidia-cuda-sanitizer-api (in nvidia/cu13/bin); put its directory into PATH",
        TOOLKIT_VARIABLES.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn the_usual_subsets_name_tests_that_there_are() {
        for tool in Tool::value_variants() {
            for filter in tool.subset() {
                let (module, beginning) = filter.split_once("::").unwrap();
                let file = workspace::root().join(format!("tests/suite/{module}.rs"));
                let source = std::fs::read_to_string(&file).unwrap();
                assert!(source.contains(&format!("fn {beginning}")), "{} {filter}", tool.name());
            }
        }
    }

    #[test]
    fn tests_are_chosen_by_any_filter_and_one_that_chooses_none_is_an_error() {
        let listed = "paths::one: test\nstate::two: test\nthree: benchmark\n";
        let chosen = |filters: &[&str]| {
            super::chosen(listed, &filters.iter().map(|filter| filter.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(chosen(&["paths::"]).unwrap(), ["paths::one"]);
        assert_eq!(chosen(&["two", "one"]).unwrap(), ["paths::one", "state::two"]);
        let error = chosen(&["paths::", "three"]).unwrap_err().to_string();
        assert!(error.contains("`three`"), "{error}");
    }

    #[test]
    fn the_tool_is_found_in_the_first_directory_that_has_it_and_else_the_remedy_says_where_it_comes_from() {
        let root = std::env::temp_dir().join(format!("xtask-sanitize-{}", std::process::id()));
        let (empty, full) = (root.join("empty"), root.join("full"));
        std::fs::create_dir_all(&empty).unwrap();
        std::fs::create_dir_all(&full).unwrap();
        std::fs::write(full.join("compute-sanitizer"), "").unwrap();
        assert_eq!(find(&[empty.clone(), full.clone()]), Some(full.join("compute-sanitizer")));
        assert_eq!(find(&[empty]), None);
        assert!(remedy().contains("part of the CUDA toolkit"));
        std::fs::remove_dir_all(root).expect("the directory was made by this test");
    }
}
