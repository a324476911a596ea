//! `cargo xtask ci`: what has to pass before a change is handed in.

use std::process::Command;

use anyhow::Result;

use crate::{shell, workspace};

/// Runs .ci/run: tests, PTX freshness, lints, formatting, documentation.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// Runs the command.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    shell::run(Command::new("bash").arg(workspace::root().join(".ci/run")).current_dir(workspace::root()))
}
