//! `cargo xtask stage`: a directory of programs and data that runs on a machine without cargo.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::artifacts::{self, Executable};
use crate::sanitize::{self, Tool};
use crate::{c_program, link_stub, shell, workspace};

/// The most that the directory may hold.
const LIMIT: u64 = 320 << 20;
/// The shared library of the C ABI.
const C_LIBRARY: &str = "libdsa_kernels.so";
/// The script that runs the suite from there.
const RUN: &str = include_str!("stage_run.sh");
const README: &str = include_str!("stage_readme.md");

/// Puts stripped test and benchmark programs and their data into target/stage: they run on any x86-64 Linux
/// machine with a driver, without cargo.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to put them: a new or empty directory, or one that this command made, which is emptied first.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let stage = arguments.out.clone().unwrap_or_else(|| workspace::target().join("stage"));
    let executables = build()?;
    prepare(&stage)?;

    let (mut newest_libc, mut tests) = ((0, 0), Vec::new());
    for executable in &executables {
        let Some(name) = stable_name(executable) else {
            continue;
        };
        let copy = stage.join(&name);
        if copy.exists() {
            bail!("two programs are called {name}");
        }
        std::fs::copy(&executable.path, &copy)
            .with_context(|| format!("cannot copy {}", executable.path.display()))?;
        shell::quiet(Command::new("strip").arg(&copy))
            .context("cannot strip a program (package binutils)")?;
        newest_libc = newest_libc.max(newest_version(&std::fs::read(&copy)?));
        if executable.test && executable.kind != "bench" {
            tests.push(name);
        }
    }
    // The test `capi` runs them.
    for name in c_program::NAMES {
        let program = stage.join(format!("{name}_c"));
        c_program::compile(name, &program)?;
        newest_libc = newest_libc.max(newest_version(&std::fs::read(program)?));
    }
    copy_directory(&workspace::root().join("tests/data"), &stage.join("data"))?;
    let script = "torch_topk.py";
    std::fs::copy(workspace::root().join("tests/scripts").join(script), stage.join(script))
        .with_context(|| format!("cannot copy tests/scripts/{script}"))?;
    tests.sort();
    std::fs::write(stage.join("run"), run_script(&tests))?;
    shell::quiet(Command::new("chmod").arg("+x").arg(stage.join("run")))?;
    let libc = format!("{}.{}", newest_libc.0, newest_libc.1);
    std::fs::write(stage.join("README.md"), README.replace("{glibc}", &libc))?;

    let size = size_of(&stage)?;
    shell::say(format_args!(
        "{}: {:.1} MiB, needs glibc {libc}",
        stage.display(),
        size as f64 / f64::from(1 << 20)
    ));
    if size > LIMIT {
        bail!("{} holds {size} bytes, the limit is {LIMIT}", stage.display());
    }
    Ok(())
}

/// The script `run`.
fn run_script(tests: &[String]) -> String {
    let call = |tool: &Tool| format!("    sanitize {} {}", tool.name(), tool.subset().join(" "));
    let sanitize: Vec<String> = Tool::USUAL.iter().map(call).collect();
    RUN.replace("{tests}", &tests.join(" "))
        .replace("{finding}", sanitize::FINDING)
        .replace("{sanitize}", &sanitize.join("\n"))
}

/// The file that shows that a directory was made by this command.
const MARKER: &str = ".dsa-kernels-stage";

/// Makes the directory, or empties one that this command made; refuses one with other files.
fn prepare(stage: &Path) -> Result<()> {
    if stage.join(MARKER).is_file() {
        std::fs::remove_dir_all(stage)?;
    } else if stage.exists() && std::fs::read_dir(stage)?.next().is_some() {
        bail!(
            "{} holds files that this command did not put there; empty it or choose another --out",
            stage.display()
        );
    }
    std::fs::create_dir_all(stage)?;
    // First of all files: a directory that an interrupted run left is known, too.
    std::fs::write(stage.join(MARKER), "")?;
    Ok(())
}

fn build() -> Result<Vec<Executable>> {
    let mut command = shell::cargo();
    command
        .args(["build", "--release", "--lib", "--tests", "--benches", "--examples"])
        // The tests of the other crates use the emulator alone.
        .args(["--package", "dsa-kernels"])
        .args(["--package", "dsa-kernels-capi", "--features", "dsa-kernels-capi/cust"])
        .args(["--package", "dsa-kernels-tests", "--features", "dsa-kernels-tests/cust"])
        .env(link_stub::VARIABLE, link_stub::directory()?);
    shell::say("building the programs to stage");
    artifacts::build(&mut command)
}

/// The name of a program in the directory: tests of the suite by their own name, those of other crates with
/// the crate's in front, the benchmark as `bench`, the shared library as [`C_LIBRARY`]. `None` for what is not
/// staged.
fn stable_name(executable: &Executable) -> Option<String> {
    let crate_name = executable.package.trim_start_matches("dsa-").trim_start_matches("kernels-");
    let of_suite = executable.package == "dsa-kernels-tests";
    match (executable.kind.as_str(), executable.test) {
        ("bench", _) => Some("bench".into()),
        // The test `examples` of that crate is all of them in one, which has the PTX once.
        ("example", false) if executable.package == "dsa-kernels" => None,
        ("example", false) => Some(executable.target.clone()),
        ("test", true) if of_suite => Some(executable.target.clone()),
        ("test", true) => Some(format!("{crate_name}-{}", executable.target)),
        ("lib" | "rlib" | "cdylib", true) => Some(format!("{crate_name}-unit")),
        ("cdylib", false) => Some(C_LIBRARY.into()),
        _ => None,
    }
}

/// The newest version in the names `GLIBC_2.34` of a program: the C library it needs.
fn newest_version(program: &[u8]) -> (u32, u32) {
    let mark = b"GLIBC_";
    let versions = program.windows(mark.len()).enumerate().filter(|(_, window)| window == mark);
    let parse = |start: usize| {
        let tail: String = program[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
            .map(|&byte| char::from(byte))
            .collect();
        let mut numbers = tail.split('.').map(|part| part.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    versions.filter_map(|(at, _)| parse(at + mark.len())).max().unwrap_or_default()
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or(OsStr::new(""));
        if path.is_dir() {
            copy_directory(&path, &to.join(name))?;
        } else {
            std::fs::copy(&path, to.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

fn size_of(directory: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        size += if entry.path().is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executable(package: &str, target: &str, kind: &str, test: bool) -> Executable {
        Executable {
            package: package.into(),
            target: target.into(),
            kind: kind.into(),
            test,
            path: PathBuf::new(),
        }
    }

    #[test]
    fn staged_programs_have_stable_names() {
        let name = |package, target, kind, test| stable_name(&executable(package, target, kind, test));
        assert_eq!(name("dsa-kernels-tests", "suite", "test", true).as_deref(), Some("suite"));
        assert_eq!(name("dsa-kernels-tests", "topk_npy", "example", false).as_deref(), Some("topk_npy"));
        assert_eq!(
            name("dsa-kernels-tests", "compress_npy", "example", false).as_deref(),
            Some("compress_npy")
        );
        assert_eq!(name("dsa-kernels", "01_topk", "example", false), None);
        assert_eq!(name("dsa-kernels", "examples", "test", true).as_deref(), Some("kernels-examples"));
        assert_eq!(name("dsa-kernels-tests", "topk", "bench", true).as_deref(), Some("bench"));
        assert_eq!(name("dsa-simt", "dsa_simt", "lib", true).as_deref(), Some("simt-unit"));
        assert_eq!(name("dsa-simt", "faults", "test", true).as_deref(), Some("simt-faults"));
        assert_eq!(name("dsa-kernels", "plan", "test", true).as_deref(), Some("kernels-plan"));
        assert_eq!(name("dsa-kernels-gpu", "dsa_kernels_gpu", "lib", false), None);
        assert_eq!(name("dsa-kernels-capi", "dsa_kernels", "cdylib", true).as_deref(), Some("capi-unit"));
        assert_eq!(name("dsa-kernels-capi", "dsa_kernels", "cdylib", false).as_deref(), Some(C_LIBRARY));
    }

    #[test]
    fn the_script_has_no_gaps_left_and_names_the_tests_of_each_tool() {
        let script = run_script(&["suite".into(), "capi".into()]);
        assert!(
            !script.contains("{tests}") && !script.contains("{sanitize}") && !script.contains("{finding}")
        );
        assert!(script.contains("for name in suite capi; do"), "{script}");
        for tool in Tool::USUAL {
            let line = format!("    sanitize {} {}\n", tool.name(), tool.subset().join(" "));
            assert!(script.contains(&line), "{script}");
        }
        shell::quiet(Command::new("bash").args(["-n", "-c", &script])).expect("bash understands it");
    }

    #[test]
    fn only_a_directory_of_this_command_is_emptied() {
        let root = std::env::temp_dir().join(format!("xtask-stage-{}", std::process::id()));
        let (own, foreign) = (root.join("own"), root.join("foreign"));
        prepare(&own).unwrap();
        std::fs::write(own.join("old"), "").unwrap();
        prepare(&own).unwrap();
        assert!(own.join(MARKER).is_file() && !own.join("old").exists());

        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("README.md"), "somebody's").unwrap();
        let error = prepare(&foreign).unwrap_err().to_string();
        assert!(error.contains("did not put there"), "{error}");
        assert_eq!(std::fs::read_to_string(foreign.join("README.md")).unwrap(), "somebody's");
        assert!(!foreign.join(MARKER).exists());
        std::fs::remove_dir_all(root).expect("the directory was made by this test");
    }

    #[test]
    fn the_newest_c_library_is_found() {
        assert_eq!(newest_version(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0"), (2, 34));
        assert_eq!(newest_version(b"static"), (0, 0));
    }
}
