//! The development commands of dsa-kernels: `cargo xtask --help`.
//!
//! | module | what |
//! |---|---|
//! | [`setup`], [`ptx`], [`golden`], [`mod@test`], [`mod@bench`], [`stage`], [`link_stub`], [`ci`] | one command each |
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
mod device_toolchain;
mod golden;
mod link_stub;
mod ptx;
mod rust_cuda;
mod setup;
mod shell;
mod stage;
mod stub;
mod test;
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
    Bench(bench::Arguments),
    Stage(stage::Arguments),
    Stub(link_stub::Arguments),
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

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Setup(arguments) => setup::run(arguments),
        Command::Ptx(arguments) => ptx::run(arguments),
        Command::Golden(arguments) => golden::run(arguments),
        Command::Test(arguments) => test::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Stage(arguments) => stage::run(arguments),
        Command::Stub(arguments) => link_stub::run(arguments),
        Command::Ci(arguments) => ci::run(arguments),
    }
}
