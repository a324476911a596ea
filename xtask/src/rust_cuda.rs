//! The toolchain of rust-cuda: the other compiler that makes PTX of the kernels.
//!
//! It is found and never installed: it comes as a container image. What `gpu/rust-cuda` pins is read from there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{device_toolchain, shell, workspace};

/// The image that has all of it.
const IMAGE: &str = "ghcr.io/rust-gpu/rust-cuda-ubuntu24-cuda13";
/// Where the toolkit may be: variables that name it, in order, and the usual place.
const TOOLKIT_VARIABLES: [&str; 4] = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"];
const TOOLKIT: &str = "/usr/local/cuda";
/// Names `llvm-config`.
const LLVM_VARIABLE: &str = "LLVM_CONFIG";
/// The only LLVM whose bitcode libNVVM reads for these architectures.
const LLVM_MAJOR: u32 = 7;

/// The workspace whose manifests are rust-cuda's.
pub(crate) fn directory() -> PathBuf {
    workspace::root().join("gpu/rust-cuda")
}

/// What `gpu/rust-cuda` pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pins {
    /// The toolchain, as rustup names it.
    pub(crate) channel: String,
    /// The components that it must have.
    components: Vec<String>,
    /// The repository.
    repository: String,
    /// The revision of it.
    pub(crate) revision: String,
}

impl Pins {
    /// Reads them from `rust-toolchain.toml` and `Cargo.toml`.
    pub(crate) fn read() -> Result<Self> {
        let text = |name: &str| {
            let file = directory().join(name);
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
        };
        Self::parse(&text("rust-toolchain.toml")?, &text("Cargo.toml")?)
    }

    fn parse(toolchain: &str, manifest: &str) -> Result<Self> {
        let one = |text: &str, key: &str| {
            let value = strings_after(text, key).into_iter().next();
            value.with_context(|| format!("gpu/rust-cuda pins no {key}"))
        };
        Ok(Self {
            channel: one(toolchain, "channel")?,
            components: strings_after(toolchain, "components"),
            repository: one(manifest, "git")?,
            revision: one(manifest, "rev")?,
        })
    }
}

/// The strings in quotes behind `key =`, on the first line that has them.
fn strings_after(text: &str, key: &str) -> Vec<String> {
    let sign = format!("{key} = ");
    let Some((_, after)) = text.lines().find_map(|line| line.split_once(&sign)) else { return Vec::new() };
    let end =
        if after.starts_with('[') { after.find(']') } else { after.match_indices('"').nth(1).map(|m| m.0) };
    let strings = after[..end.unwrap_or(after.len())].split('"').skip(1).step_by(2);
    strings.map(String::from).collect()
}

/// A machine that can compile with rust-cuda.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RustCuda {
    /// The directory of libNVVM.
    libnvvm: PathBuf,
    /// The first line of `rustc -Vv`, and what else makes the PTX.
    pub(crate) compiler: String,
    /// Version of LLVM.
    pub(crate) llvm: String,
}

impl RustCuda {
    /// cargo in the workspace of rust-cuda, with its toolchain.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new("cargo");
        device_toolchain::clean(&mut command);
        // libNVVM is loaded by the compiler when it runs.
        command.current_dir(directory()).env("LD_LIBRARY_PATH", &self.libnvvm);
        command
    }
}

/// Where to look, apart from the environment: for tests.
struct Places {
    /// Sysroots of rustup's toolchains.
    toolchains: Vec<PathBuf>,
    /// CUDA toolkits.
    toolkits: Vec<PathBuf>,
    /// Programs that may be `llvm-config` 7.
    llvm_configs: Vec<PathBuf>,
    /// Cargo's checkouts of git dependencies.
    checkouts: PathBuf,
}

impl Places {
    fn of_this_machine() -> Self {
        let named = TOOLKIT_VARIABLES.into_iter().filter_map(std::env::var_os).map(PathBuf::from);
        let chosen = std::env::var_os(LLVM_VARIABLE).map(PathBuf::from);
        let on_path = ["llvm-config", "llvm-config-7"].into_iter().filter_map(shell::find_in_path);
        Self {
            toolchains: device_toolchain::rustup_toolchains(),
            toolkits: named.chain([PathBuf::from(TOOLKIT)]).collect(),
            llvm_configs: chosen.into_iter().chain(on_path).collect(),
            checkouts: shell::cargo_home().join("git/checkouts"),
        }
    }
}

/// The toolchain of rust-cuda, or an error that says all that is missing and how to get it.
pub(crate) fn find() -> Result<RustCuda> {
    let pins = Pins::read()?;
    find_in(&Places::of_this_machine(), &pins, can_reach)
}

fn find_in(places: &Places, pins: &Pins, can_reach: impl Fn(&str) -> Result<()>) -> Result<RustCuda> {
    let rustc = rustc(&places.toolchains, pins);
    let libnvvm = libnvvm(&places.toolkits);
    let llvm = llvm_7(&places.llvm_configs);
    let sources = if is_checked_out(&places.checkouts, &pins.revision) {
        Ok(())
    } else {
        can_reach(&pins.repository).with_context(|| {
            format!(
                "the sources of rust-cuda: revision {} is not in {}",
                pins.revision,
                places.checkouts.display()
            )
        })
    };
    match (rustc, libnvvm, llvm, sources) {
        (Ok(rustc), Ok(libnvvm), Ok(llvm), Ok(())) => {
            let compiler = format!("{rustc}, rust-cuda {}, libNVVM of {}", pins.revision, libnvvm.display());
            Ok(RustCuda { libnvvm, compiler, llvm })
        }
        (rustc, libnvvm, llvm, sources) => {
            let missing = [rustc.err(), libnvvm.err(), llvm.err(), sources.err()];
            let missing: Vec<String> =
                missing.into_iter().flatten().map(|error| format!("{error:#}")).collect();
            bail!(
                "rust-cuda cannot compile the kernels here. Missing:\n  {}\n\
                 The container image {IMAGE} has all of it but the network, which cargo needs for the sources: run this \
                 command there. `--backend stand-in` checks the backend without rust-cuda.",
                missing.join("\n  ")
            )
        }
    }
}

/// The first line of `rustc -Vv` of the pinned toolchain.
fn rustc(toolchains: &[PathBuf], pins: &Pins) -> Result<String> {
    let channel = &pins.channel;
    let is_pinned = |sysroot: &&PathBuf| {
        let name = sysroot.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(channel.as_str()) && sysroot.join("bin/rustc").is_file()
    };
    let sysroot = toolchains.iter().find(is_pinned).with_context(|| {
        format!(
            "the Rust toolchain {channel} with {}: rustup has none of that name",
            pins.components.join(", ")
        )
    })?;
    let installed = std::fs::read_to_string(sysroot.join("lib/rustlib/components")).unwrap_or_default();
    let missing: Vec<&str> = (pins.components.iter())
        .filter(|component| !installed.lines().any(|line| line.starts_with(component.as_str())))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        bail!(
            "components of the Rust toolchain {channel}: {} has no {}",
            sysroot.display(),
            missing.join(", ")
        );
    }
    let mut command = Command::new(sysroot.join("bin/rustc"));
    device_toolchain::clean(&mut command);
    let version = shell::quiet(command.arg("-V"))?;
    Ok(version.trim().to_string())
}

/// The directory of libNVVM in a toolkit that also has the library of device functions.
fn libnvvm(toolkits: &[PathBuf]) -> Result<PathBuf> {
    let complete = |toolkit: &&PathBuf| {
        toolkit.join("nvvm/lib64/libnvvm.so").is_file()
            && toolkit.join("nvvm/libdevice/libdevice.10.bc").is_file()
    };
    let found = toolkits.iter().find(complete).with_context(|| {
        let looked: Vec<String> = toolkits.iter().map(|toolkit| toolkit.display().to_string()).collect();
        format!(
            "libNVVM of a CUDA toolkit: no nvvm/lib64/libnvvm.so and nvvm/libdevice in {}",
            looked.join(", ")
        )
    })?;
    Ok(found.join("nvvm/lib64"))
}

/// The version of an LLVM 7.
fn llvm_7(llvm_configs: &[PathBuf]) -> Result<String> {
    let version = |program: &PathBuf| {
        let version = shell::quiet(Command::new(program).arg("--version")).ok()?.trim().to_string();
        let major = version.split('.').next()?.parse::<u32>().ok()?;
        Some((major, format!("{} is {version}", program.display()), version))
    };
    let found: Vec<_> = llvm_configs.iter().filter_map(version).collect();
    if let Some((_, _, version)) = found.iter().find(|(major, ..)| *major == LLVM_MAJOR) {
        return Ok(version.clone());
    }
    let others: Vec<&str> = found.iter().map(|(_, what, _)| what.as_str()).collect();
    let others = if others.is_empty() { "there is none".into() } else { others.join(", ") };
    bail!("LLVM {LLVM_MAJOR}: no llvm-config of that version on the path or in {LLVM_VARIABLE}; {others}")
}

/// Whether cargo has the revision, from an earlier build.
fn is_checked_out(checkouts: &Path, revision: &str) -> bool {
    let repositories = std::fs::read_dir(checkouts).into_iter().flatten().flatten();
    repositories
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("rust-cuda-"))
        .any(|entry| entry.path().join(revision).is_dir())
}

/// Whether the repository can be fetched from.
fn can_reach(repository: &str) -> Result<()> {
    let mut git = Command::new("git");
    git.env("GIT_TERMINAL_PROMPT", "0").args(["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=20"]);
    shell::quiet(git.args(["ls-remote", "--exit-code", repository, "HEAD"])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with what is put there; removed on drop.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("xtask-rust-cuda-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&root).unwrap();
            Self(root)
        }

        fn write(&self, file: &str, text: &str) -> PathBuf {
            let file = self.0.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, text).unwrap();
            file
        }

        fn program(&self, file: &str, prints: &str) -> PathBuf {
            let file = self.write(file, &format!("#!/bin/sh\necho '{prints}'\n"));
            shell::quiet(Command::new("chmod").arg("+x").arg(&file)).unwrap();
            file
        }

        fn places(&self) -> Places {
            Places {
                toolchains: vec![
                    self.0.join("stable"),
                    self.0.join("nightly-2026-04-02-x86_64-unknown-linux-gnu"),
                ],
                toolkits: vec![self.0.join("cuda")],
                llvm_configs: vec![self.0.join("llvm-config")],
                checkouts: self.0.join("checkouts"),
            }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("the directory was made by this test");
        }
    }

    fn unreachable(repository: &str) -> Result<()> {
        bail!("{repository} cannot be resolved")
    }

    #[test]
    fn what_the_workspace_pins_is_read() {
        let pins = Pins::read().unwrap();
        assert_eq!(pins.channel, "nightly-2026-04-02");
        assert_eq!(pins.components, ["llvm-tools", "rust-src", "rustc-dev"]);
        assert_eq!(pins.revision, "946c91f");
        assert!(pins.repository.ends_with("rust-cuda"), "{}", pins.repository);
        let error = Pins::parse("channel = \"nightly\"\n", "[workspace]\n").unwrap_err().to_string();
        assert_eq!(error, "gpu/rust-cuda pins no git");
    }

    #[test]
    fn the_stand_in_has_the_same_manifests() {
        for member in ["simt", "kernels", "probe"] {
            let text = |below: &str| {
                let file = super::directory().join(below).join(member).join("Cargo.toml");
                std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
            };
            // One level further down.
            let expected = text("").replace("path = \"../", "path = \"../../");
            assert_eq!(text("stand-in"), expected, "gpu/rust-cuda/stand-in/{member}/Cargo.toml");
        }
    }

    #[test]
    fn an_empty_machine_misses_everything_and_is_told_so() {
        let tree = Tree::new("empty");
        let error = find_in(&tree.places(), &Pins::read().unwrap(), unreachable).unwrap_err().to_string();
        for part in [
            "toolchain nightly-2026-04-02 with llvm-tools, rust-src, rustc-dev: rustup has none",
            "libNVVM of a CUDA toolkit: no nvvm/lib64/libnvvm.so",
            "LLVM 7: no llvm-config of that version",
            "there is none",
            "revision 946c91f is not in",
            "cannot be resolved",
            IMAGE,
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_complete_machine_is_found_and_each_part_is_missed() {
        let tree = Tree::new("complete");
        let pins = Pins::read().unwrap();
        let sysroot = "nightly-2026-04-02-x86_64-unknown-linux-gnu";
        tree.program(&format!("{sysroot}/bin/rustc"), "rustc 1.96.0-nightly (0123abcd 2026-04-01)");
        let components = tree.write(
            &format!("{sysroot}/lib/rustlib/components"),
            "rustc-x86_64-unknown-linux-gnu\nrust-src\nllvm-tools-preview-x86_64-unknown-linux-gnu\n\
             rustc-dev-x86_64-unknown-linux-gnu\n",
        );
        tree.write("cuda/nvvm/lib64/libnvvm.so", "");
        tree.write("cuda/nvvm/libdevice/libdevice.10.bc", "");
        tree.program("llvm-config", "7.1.0");
        tree.write("checkouts/rust-cuda-0011/946c91f/Cargo.toml", "");
        let found = find_in(&tree.places(), &pins, unreachable).unwrap();
        assert_eq!(found.llvm, "7.1.0");
        assert!(
            found
                .compiler
                .starts_with("rustc 1.96.0-nightly (0123abcd 2026-04-01), rust-cuda 946c91f, libNVVM")
        );
        assert_eq!(found.libnvvm, tree.0.join("cuda/nvvm/lib64"));

        let missed = || format!("{:#}", find_in(&tree.places(), &pins, unreachable).unwrap_err());
        std::fs::write(components, "rustc-x86_64-unknown-linux-gnu\nrust-src\n").unwrap();
        assert!(missed().contains("has no llvm-tools, rustc-dev\n"), "{}", missed());
        assert!(!missed().contains("libNVVM of"), "{}", missed());
        tree.program("llvm-config", "19.1.7");
        assert!(missed().contains("llvm-config is 19.1.7"), "{}", missed());
        std::fs::remove_file(tree.0.join("cuda/nvvm/libdevice/libdevice.10.bc")).unwrap();
        assert!(missed().contains("libNVVM of"), "{}", missed());
    }
}
