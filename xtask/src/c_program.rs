//! The C program that tests the C ABI, for the staged directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{shell, workspace};

/// Compiles `tests/capi/topk.c` to `program`. It looks for the shared library, which must lie in the
/// directory of the program already, there and nowhere else.
pub(crate) fn compile(program: &Path) -> Result<()> {
    let directory = program.parent().context("a program lies in a directory")?;
    let compiler = compiler().context("the C program needs a C compiler: install gcc, or set CC")?;
    let root = workspace::root();
    let mut command = Command::new(compiler);
    command.args(["-std=c99", "-O2", "-I"]).arg(root.join("capi/include"));
    command.arg(root.join("tests/capi/topk.c")).arg("-o").arg(program);
    command.arg("-L").arg(directory).args(["-ldsa_kernels", "-lm", "-Wl,-rpath,$ORIGIN"]);
    shell::quiet(&mut command).context("cannot compile tests/capi/topk.c")?;
    Ok(())
}

fn compiler() -> Option<OsString> {
    let chosen = std::env::var_os("CC").filter(|name| !name.is_empty());
    chosen.or_else(|| {
        ["cc", "gcc", "clang"].iter().find_map(|name| shell::find_in_path(name)).map(PathBuf::into_os_string)
    })
}
