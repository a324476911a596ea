//! NVIDIA's assembler and disassembler: `ptxas`, `cuobjdump` and the `nvdisasm` it calls.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{debian, shell, workspace};

/// Chooses the tools: the directory that holds them, or `none` to do as if there were none.
pub(crate) const VARIABLE: &str = "DSA_CUDA_TOOLS";
/// The oldest CUDA whose ptxas knows sm_120.
const FLOOR: (u32, u32) = (12, 8);
/// The Python packages that hold the tools. Their other dependencies are for compiling CUDA C++.
const WHEELS: [&str; 3] = ["nvidia-cuda-nvcc", "nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm"];
/// The version of all of them: another assembler gives other numbers of registers and instructions. To be
/// raised together with the numbers of the golden checks.
const WHEEL_VERSION: &str = "13.5.37";
const PROGRAMS: [&str; 3] = ["ptxas", "cuobjdump", "nvdisasm"];

/// The tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CudaTools {
    /// The directory that holds them.
    directory: PathBuf,
    /// Their version.
    pub(crate) version: (u32, u32),
}

impl CudaTools {
    /// A call of ptxas.
    pub(crate) fn ptxas(&self) -> Command {
        Command::new(self.directory.join("ptxas"))
    }

    /// A call of cuobjdump; it finds nvdisasm.
    pub(crate) fn cuobjdump(&self) -> Command {
        let mut command = Command::new(self.directory.join("cuobjdump"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.directory.clone()).chain(std::env::split_paths(&path));
        // A directory with a separator in its name cannot be on the path; cuobjdump then looks beside itself.
        if let Ok(path) = std::env::join_paths(path) {
            command.env("PATH", path);
        }
        command
    }
}

/// The tools: found, or installed from Python's package index into the target directory. `None` after
/// saying what is missing, how to get it and what its absence costs.
pub(crate) fn ensure() -> Result<Option<CudaTools>> {
    if let Some(found) = search() {
        say("found", &found);
        return Ok(Some(found));
    }
    if std::env::var_os(VARIABLE).is_none() {
        match install() {
            Ok(installed) => {
                say("installed", &installed);
                return Ok(Some(installed));
            }
            Err(error) => shell::say(format_args!("CUDA tools: not installed: {error:#}")),
        }
    }
    shell::say(remedy());
    Ok(None)
}

fn say(how: &str, tools: &CudaTools) {
    let (major, minor) = tools.version;
    shell::say(format_args!("CUDA tools: {how} {} (CUDA {major}.{minor})", tools.directory.display()));
}

/// What to do about missing tools, and what it costs.
pub(crate) fn remedy() -> String {
    format!(
        "CUDA tools: skipped. The PTX is not assembled or inspected here: no check for spills, local memory, \
         16-byte loads and native shared atomics. To get them, install a CUDA toolkit of at least {}.{}, or \
         Python with venv or pip and network access (Debian: apt-get install python3-venv), or set {VARIABLE} to the \
         directory that holds {}.",
        FLOOR.0,
        FLOOR.1,
        PROGRAMS.join(", "),
    )
}

fn wheels_directory() -> PathBuf {
    workspace::target().join("cuda-tools")
}

fn search() -> Option<CudaTools> {
    match std::env::var_os(VARIABLE) {
        Some(chosen) if chosen == "none" => None,
        Some(chosen) => search_in([PathBuf::from(chosen)]),
        None => search_in(candidates()),
    }
}

/// Where the tools may be, in order.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let on_path = shell::find_in_path("ptxas").and_then(|ptxas| ptxas.parent().map(Path::to_path_buf));
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let toolkits = homes.chain([PathBuf::from("/usr/local/cuda")]).map(|home| home.join("bin"));
    on_path.into_iter().chain(toolkits).chain(find_directory(&wheels_directory(), 7))
}

/// The first directory that holds all tools, new enough.
fn search_in(directories: impl IntoIterator<Item = PathBuf>) -> Option<CudaTools> {
    directories.into_iter().filter(|directory| complete(directory)).find_map(|directory| {
        let text = shell::quiet(Command::new(directory.join("ptxas")).arg("--version")).ok()?;
        let version = parse_version(&text)?;
        if version < FLOOR {
            shell::say(format_args!(
                "CUDA tools: passing over {}: CUDA {}.{} does not know sm_120",
                directory.display(),
                version.0,
                version.1
            ));
            return None;
        }
        Some(CudaTools { directory, version })
    })
}

fn complete(directory: &Path) -> bool {
    PROGRAMS.iter().all(|program| directory.join(program).is_file())
}

/// The directory at most `depth` levels below `root` that holds the tools.
fn find_directory(root: &Path, depth: u32) -> Option<PathBuf> {
    if complete(root) {
        return Some(root.to_path_buf());
    }
    if depth == 0 {
        return None;
    }
    let children = std::fs::read_dir(root).ok()?.flatten().map(|entry| entry.path());
    children
        .filter(|path| path.is_dir() && !path.is_symlink())
        .find_map(|path| find_directory(&path, depth - 1))
}

/// `13.5` in `Cuda compilation tools, release 13.5, V13.5.37`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let after = text.split("release ").nth(1)?;
    let (major, minor) = after.split(',').next()?.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn install() -> Result<CudaTools> {
    let directory = wheels_directory();
    if shell::find_in_path("python3").is_none() && debian::can_install() {
        debian::install(&["python3-venv"])?;
    }
    let first = install_into(&directory);
    if let Err(error) = first {
        if !debian::can_install() {
            return Err(error);
        }
        shell::say(format_args!("CUDA tools: {error:#}; trying again with python3-venv from Debian"));
        debian::install(&["python3-venv"])?;
        install_into(&directory)?;
    }
    let found = find_directory(&directory, 7).with_context(|| {
        format!("the packages left no {} in {}", PROGRAMS.join(", "), directory.display())
    })?;
    search_in([found]).context("the ptxas of the Python packages does not run")
}

/// Installs the packages with pip: that of a new venv, or, where venv is missing, the system's.
fn install_into(directory: &Path) -> Result<()> {
    if directory.exists() {
        // What an interrupted installation left is no base for another.
        std::fs::remove_dir_all(directory)?;
    }
    let venv = shell::quiet(Command::new("python3").args(["-m", "venv"]).arg(directory));
    let in_venv =
        venv.and_then(|_| pip(Command::new(directory.join("bin/python")).args(["-m", "pip", "install"])));
    let Err(venv_error) = in_venv else { return Ok(()) };
    let mut system = Command::new("python3");
    system.args(["-m", "pip", "install", "--target"]).arg(directory.join("packages"));
    if let Err(pip_error) = pip(&mut system) {
        bail!("neither a Python venv nor pip works:\n{venv_error:#}\n{pip_error:#}");
    }
    Ok(())
}

fn pip(command: &mut Command) -> Result<()> {
    let wheels = WHEELS.map(|name| format!("{name}=={WHEEL_VERSION}"));
    shell::say(format_args!("CUDA tools: installing the Python packages {}", wheels.join(" ")));
    shell::quiet(command.args(["--quiet", "--disable-pip-version-check", "--no-deps"]).args(wheels))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_ptxas() {
        let text =
            "ptxas: NVIDIA (R) Ptx optimizing assembler\nCuda compilation tools, release 13.5, V13.5.37\n";
        assert_eq!(parse_version(text), Some((13, 5)));
        assert_eq!(parse_version("Cuda compilation tools, release 12.10, V12.10.1"), Some((12, 10)));
        assert!((12, 10) > FLOOR);
        assert_eq!(parse_version("command not found"), None);
    }

    #[test]
    fn an_empty_machine_has_no_tools_and_the_remedy_says_what_to_do() {
        assert_eq!(search_in(["/nonexistent".into()]), None);
        assert_eq!(find_directory(Path::new("/nonexistent"), 7), None);
        let remedy = remedy();
        for part in ["at least 12.8", "python3-venv", VARIABLE, "not assembled"] {
            assert!(remedy.contains(part), "{remedy}");
        }
    }
}
