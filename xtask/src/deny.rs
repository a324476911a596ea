//! `cargo xtask deny`: what dependencies may be.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{shell, workspace};

/// The version that is installed where there is none.
const VERSION: &str = "0.20.2";

/// Checks licences, sources and known vulnerabilities of all dependencies, by the rules in deny.toml.
///
/// Runs cargo-deny: from PATH, or installed into target/tools, which takes some minutes once. Vulnerabilities are
/// looked up in a database on GitHub; where that cannot be reached, they are left out and said to be, except in CI
/// (variable CI), which is there to look them up.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave the vulnerabilities out, without a look at the network.
    #[arg(long)]
    offline: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let program = ensure()?;
    // Dependencies are looked at as Cargo.lock has them.
    shell::run(deny(&program).args(["--locked", "check", "bans", "licenses", "sources"]))?;
    if arguments.offline {
        shell::say("vulnerabilities: not looked up: --offline");
        return Ok(());
    }
    if let Err(error) = shell::quiet(deny(&program).args(["fetch", "db"])) {
        if std::env::var_os("CI").is_some() {
            bail!(
                "CI may not leave the vulnerabilities out, and their database cannot be fetched: {error:#}"
            );
        }
        shell::say(format_args!(
            "vulnerabilities: NOT LOOKED UP: their database cannot be fetched: {error:#}"
        ));
        return Ok(());
    }
    shell::run(deny(&program).args(["--locked", "check", "advisories"]))
}

fn deny(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    command
}

/// cargo-deny: found, or installed.
fn ensure() -> Result<PathBuf> {
    let root = workspace::target().join("tools");
    let installed = root.join("bin/cargo-deny");
    if let Some(found) =
        shell::find_in_path("cargo-deny").or_else(|| installed.is_file().then(|| installed.clone()))
    {
        return Ok(found);
    }
    shell::say("cargo-deny: installing it into target/tools: some minutes, once");
    let mut install = shell::cargo();
    install.args(["install", "cargo-deny", "--locked", "--version", VERSION, "--root"]).arg(root);
    shell::run(&mut install).context("cargo-deny is not in PATH and cannot be installed")?;
    Ok(installed)
}
