//! The C compiler of this machine, for the tests of what C programs use.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

/// The compiler that `CC` names, or the first of `cc`, `gcc` and `clang` in `PATH`.
pub fn find() -> Option<PathBuf> {
    let chosen = std::env::var_os("CC").filter(|name| !name.is_empty()).map(PathBuf::from);
    chosen.or_else(|| ["cc", "gcc", "clang"].iter().find_map(|name| in_path(name)))
}

/// The compiler, or a line on stderr, past the test harness, that says what is left out without one.
///
/// # Panics
/// In CI (the variable `CI` is set), where nothing may be left out.
pub fn find_or_say(left_out: &str) -> Option<PathBuf> {
    let found = find();
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI has no C compiler: {left_out} cannot be left out");
        // `eprintln!` would be captured. Where stderr is closed there is nobody to tell.
        let _ = writeln!(
            std::io::stderr(),
            "NOT RUN: {left_out}: no C compiler (cc, gcc, clang) in PATH; install one, or set CC"
        );
    }
    found
}

/// Runs the compiler; what it printed, if it failed.
///
/// # Errors
/// The command and its output.
pub fn run(compiler: &mut Command) -> Result<(), String> {
    let output = compiler.output().map_err(|error| format!("cannot start {compiler:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!("{compiler:?} failed: {}\n{}", output.status, String::from_utf8_lossy(&text)))
}

fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}
