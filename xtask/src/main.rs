//! The development commands of dsa-kernels: `cargo xtask --help`.
//!
//! | module | what |
//! |---|---|
//! | [`setup`], [`ptx`], [`golden`], [`mod@test`], [`sanitize`], [`mod@bench`], [`stage`], [`link_stub`], [`package`], [`msrv`], [`deny`], [`workflows`], [`ci`] | one command each |
//! | [`device_toolchain`], [`rust_cuda`], [`cuda_tools`], [`debian`], [`stub`] | what the commands need from the machine: found, or installed |
//! | [`c_program`] | the C programs that test the C ABI, for `stage` |
//! | [`artifacts`], [`shell`], [`workspace`] | cargo's outputs, other programs, places in the repository |
//!
//! Progress goes to stderr; stdout carries what the programs that are run print.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod artifacts;
mod bench;
mod c_program;
mod ci;
mod cuda_tools;
mod debian;
mod deny;
mod device_toolchain;
mod golden;
mod link_stub;
mod msrv;
mod package;
mod ptx;
mod rust_cuda;
mod sanitize;
mod setup;
mod shell;
mod stage;
mod stub;
mod test;
mod workflows;
mod workspace;

/// Development commands of dsa-kernels.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Arguments),
    Ptx(ptx::Arguments),
    Golden(golden::Arguments),
    Test(test::Arguments),
    Sanitize(sanitize::Arguments),
    Bench(bench::Arguments),
    Stage(stage::Arguments),
    Stub(link_stub::Arguments),
    Msrv(msrv::Arguments),
    Deny(deny::Arguments),
    Workflows(workflows::Arguments),
    Package(package::Arguments),
    Ci(ci::Arguments),
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The command of these words, as if they stood behind `cargo xtask`.
fn parse(words: &[&str]) -> Result<Command> {
    let words = std::iter::once("cargo xtask").chain(words.iter().copied());
    Ok(Arguments::try_parse_from(words)?.command)
}

/// Runs the command of these words.
fn run_words(words: &[&str]) -> Result<()> {
    run(&parse(words)?)
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Setup(arguments) => setup::run(arguments),
        Command::Ptx(arguments) => ptx::run(arguments),
        Command::Golden(arguments) => golden::run(arguments),
        Command::Test(arguments) => test::run(arguments),
        Command::Sanitize(arguments) => sanitize::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Stage(arguments) => stage::run(arguments),
        Command::Stub(arguments) => link_stub::run(arguments),
        Command::Msrv(arguments) => msrv::run(arguments),
        Command::Deny(arguments) => deny::run(arguments),
        Command::Workflows(arguments) => workflows::run(arguments),
        Command::Package(arguments) => package::run(arguments),
        Command::Ci(arguments) => ci::run(arguments),
    }
}
