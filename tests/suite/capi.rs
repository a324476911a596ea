//! The C ABI, used by C programs: `tests/capi/topk.c` and `tests/capi/compress.c`, linked with the shared and the
//! static library.
//!
//! Where programs are staged, the C programs `topk_c` and `compress_c` lie beside this test and are run as they are.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::Command;

use dsa_kernels_tests::{backend, c_compiler};
use tempfile::TempDir;

/// What every C file must compile with.
const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// The C programs: `NAME.c` is compiled to `NAME_c`.
const PROGRAMS: [&str; 2] = ["topk", "compress"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The C program beside this test, in a staged directory.
fn staged_program(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().unwrap().with_file_name(format!("{name}_c"));
    program.is_file().then_some(program)
}

/// Whether this test runs in a staged directory, without sources.
fn is_staged() -> bool {
    PROGRAMS.iter().any(|name| staged_program(name).is_some())
}

/// Runs a C program on the backend of the suite.
fn run(program: &Path) {
    let backend = match backend::chosen().unwrap() {
        backend::Choice::Emulator => "emulator",
        backend::Choice::Gpu => "gpu",
    };
    let output = Command::new(program).arg(backend).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    println!("{text}");
    assert!(output.status.success(), "{}: {}\n{text}", program.display(), output.status);
    assert!(text.contains("checks passed"), "{text}");
}

/// Builds the C ABI as cargo would for a user; the library files of this kind (`so`, `a`).
fn library(extension: &str) -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository());
    // What describes the package of this test would describe the wrong one to build scripts.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            cargo.env_remove(name);
        }
    }
    cargo.args(["build", "--package", "dsa-kernels-capi", "--message-format=json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    if cfg!(feature = "cust") {
        cargo.args(["--features", "cust"]);
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{cargo:?}: {}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).unwrap();
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["package_id"].as_str().is_some_and(|id| id.contains("dsa-kernels-capi")))
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|file| Some(PathBuf::from(file.as_str()?)))
        .find(|file| file.extension().is_some_and(|found| found == extension))
        .unwrap_or_else(|| panic!("cargo built no .{extension}:\n{messages}"))
}

/// Compiles a C program and links it with `libraries`.
fn compile(name: &str, compiler: &Path, folder: &TempDir, libraries: &[&str]) -> PathBuf {
    let program = folder.path().join(format!("{name}_c"));
    let mut command = Command::new(compiler);
    command.arg("-std=c99").args(STRICT).arg("-O1").arg("-I").arg(repository().join("capi/include"));
    command
        .arg(repository().join(format!("tests/capi/{name}.c")))
        .arg("-o")
        .arg(&program)
        .args(libraries)
        .arg("-lm");
    c_compiler::run(&mut command).unwrap_or_else(|error| panic!("{error}"));
    program
}

/// Runs a C program with the shared library.
fn run_with_shared(name: &str) {
    if let Some(program) = staged_program(name) {
        return run(&program);
    }
    let Some(compiler) = c_compiler::find_or_say("a C program with the shared library") else { return };
    let folder = tempfile::tempdir().unwrap();
    let library = library("so");
    // The library has a soname: the program asks for that, and the loader needs to be told where it is.
    let path = format!("-Wl,-rpath,{}", library.parent().unwrap().display());
    run(&compile(name, &compiler, &folder, &[library.to_str().unwrap(), &path]));
}

#[test]
fn a_c_program_with_the_shared_library_gets_exact_results_and_typed_errors() {
    run_with_shared("topk");
}

#[test]
fn a_c_program_compresses_and_gets_typed_errors() {
    run_with_shared("compress");
}

/// With GPUs the driver's library would have to be linked, too, which is not on every machine.
#[cfg(not(feature = "cust"))]
#[test]
fn c_programs_with_the_static_library_do_the_same() {
    let Some(compiler) = c_compiler::find_or_say("the C programs with the static library") else { return };
    let folder = tempfile::tempdir().unwrap();
    let library = library("a");
    for name in PROGRAMS {
        run(&compile(name, &compiler, &folder, &[library.to_str().unwrap(), "-lpthread", "-ldl"]));
    }
}

#[test]
fn the_headers_are_c99_and_cpp() {
    if is_staged() {
        return; // no sources there
    }
    let Some(compiler) = c_compiler::find_or_say("the headers in C and C++") else { return };
    let folder = tempfile::tempdir().unwrap();
    for (header, directory) in [("dsa_kernels.h", "capi/include"), ("bench_topk.h", "tests/capi")] {
        for (extension, standard) in [("c", "-std=c99"), ("cpp", "-std=c++11")] {
            let source = folder.path().join(format!("include.{extension}"));
            std::fs::write(&source, format!("#include \"{header}\"\n#include \"{header}\"\n")).unwrap();
            let mut command = Command::new(&compiler);
            command.arg(standard).args(STRICT).arg("-fsyntax-only");
            command.arg("-I").arg(repository().join(directory)).arg(&source);
            let result = c_compiler::run(&mut command);
            // A C compiler without its C++ part cannot say anything about C++.
            if let Err(error) = result
                && !(extension == "cpp" && error.contains("cc1plus"))
            {
                panic!("{error}");
            }
        }
    }
}
