//! The C programs that test the C ABI, for the staged directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{shell, workspace};

/// The programs: `tests/capi/NAME.c` is compiled to `NAME_c`.
pub(crate) const NAMES: [&str; 2] = ["topk", "compress"];

/// Compiles a program of [`NAMES`] to `program`. It looks for the shared library, which must lie in the
/// directory of the program already, there and nowhere else.
pub(crate) fn compile(name: &str, program: &Path) -> Result<()> {
    let directory = program.parent().context("a program lies in a directory")?;
    let source = format!("tests/capi/{name}.c");
    let compiler = compiler().context("the C program needs a C compiler: install gcc, or set CC")?;
    let root = workspace::root();
    let mut command = Command::new(compiler);
    command.args(["-std=c99", "-O2", "-I"]).arg(root.join("capi/include"));
    command.arg(root.join(&source)).arg("-o").arg(program);
    command.arg("-L").arg(directory).args(["-ldsa_kernels", "-lm", "-Wl,-rpath,$ORIGIN"]);
    shell::quiet(&mut command).with_context(|| format!("cannot compile {source}"))?;
    Ok(())
}

fn compiler() -> Option<OsString> {
    let chosen = std::env::var_os("CC").filter(|name| !name.is_empty());
    chosen.or_else(|| {
        ["cc", "gcc", "clang"].iter().find_map(|name| shell::find_in_path(name)).map(PathBuf::into_os_string)
    })
}
