//! The toolchain that compiles kernels to PTX.
//!
//! It is another one than the host's: rustc before 1.96 does not mark functions convergent, so LLVM may
//! duplicate barriers into divergent branches. `core` is built with the kernels, which needs `rust-src`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{debian, shell};

/// The oldest rustc that compiles kernels correctly.
pub(crate) const FLOOR: (u32, u32) = (1, 96);
/// Chooses the toolchain: a directory with `bin/rustc`, or `none` to do as if there were none.
pub(crate) const VARIABLE: &str = "DSA_DEVICE_TOOLCHAIN";
/// Debian's packages that are a device toolchain.
pub(crate) const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// A compiler that can build kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceToolchain {
    /// The compiler.
    pub(crate) rustc: PathBuf,
    /// Its cargo.
    pub(crate) cargo: PathBuf,
    /// What it says of itself.
    pub(crate) version: Version,
}

/// What `rustc -Vv` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// The first line.
    pub(crate) line: String,
    /// Major and minor version.
    pub(crate) release: (u32, u32),
    /// Version of LLVM.
    pub(crate) llvm: String,
}

impl Version {
    /// Reads the output of `rustc -Vv`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let line = text.lines().next().filter(|line| line.starts_with("rustc "))?.trim().to_string();
        let mut numbers = field("release:")?.split('.').map(|part| part.parse::<u32>());
        let release = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self { line, release, llvm: field("LLVM version:")?.to_string() })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, LLVM {}", self.line, self.llvm)
    }
}

/// The outcome of the search.
#[derive(Debug, Default)]
pub(crate) struct Search {
    /// The first toolchain that will do.
    pub(crate) found: Option<DeviceToolchain>,
    /// Those that will not, with the reason.
    pub(crate) rejected: Vec<String>,
}

/// Looks in all places, in order; installs nothing.
pub(crate) fn search() -> Search {
    match std::env::var_os(VARIABLE) {
        Some(chosen) if chosen == "none" => {
            Search { found: None, rejected: vec![format!("{VARIABLE} is set to none")] }
        }
        Some(chosen) => search_in([PathBuf::from(chosen)]),
        None => search_in(rustup_toolchains().into_iter().chain([PathBuf::from("/usr")])),
    }
}

/// A toolchain: found, or installed where that can be done without asking. `None` after saying what is
/// missing, how to get it and what its absence costs.
pub(crate) fn ensure() -> Result<Option<DeviceToolchain>> {
    let before = search();
    if let Some(found) = before.found {
        shell::say(format_args!("device toolchain: found {} ({})", found.rustc.display(), found.version));
        return Ok(Some(found));
    }
    for reason in &before.rejected {
        shell::say(format_args!("device toolchain: not usable: {reason}"));
    }
    if std::env::var_os(VARIABLE).is_none() && debian::can_install() {
        match debian::install(&DEBIAN_PACKAGES) {
            Ok(()) => {
                let after = search();
                if let Some(installed) = after.found {
                    shell::say(format_args!(
                        "device toolchain: installed {} ({})",
                        installed.rustc.display(),
                        installed.version
                    ));
                    return Ok(Some(installed));
                }
                shell::say(format_args!("device toolchain: still none: {}", after.rejected.join("; ")));
            }
            Err(error) => shell::say(format_args!("device toolchain: {error:#}")),
        }
    }
    shell::say(remedy());
    Ok(None)
}

/// What to do about a missing toolchain, and what it costs.
pub(crate) fn remedy() -> String {
    format!(
        "device toolchain: skipped. PTX cannot be rebuilt, and its freshness is checked by the hash of the \
         sources only. To get one:\n  \
         rustup toolchain install 1.{minor}.0 --profile minimal --component rust-src\n\
         or, as root on Debian:\n  \
         apt-get update && apt-get install {packages}\n\
         or set {VARIABLE} to the sysroot of a rustc of at least 1.{minor} with rust-src.",
        minor = FLOOR.1,
        packages = DEBIAN_PACKAGES.join(" "),
    )
}

fn search_in(sysroots: impl IntoIterator<Item = PathBuf>) -> Search {
    let mut search = Search::default();
    for sysroot in sysroots {
        match inspect(&sysroot) {
            Ok(Some(toolchain)) => {
                search.found = Some(toolchain);
                break;
            }
            Ok(None) => {}
            Err(reason) => search.rejected.push(format!("{}: {reason:#}", sysroot.display())),
        }
    }
    search
}

/// `None` where there is no compiler at all.
fn inspect(sysroot: &Path) -> Result<Option<DeviceToolchain>> {
    let (rustc, cargo) = (sysroot.join("bin/rustc"), sysroot.join("bin/cargo"));
    if !rustc.is_file() {
        return Ok(None);
    }
    let mut command = Command::new(&rustc);
    clean(&mut command);
    let text = shell::quiet(command.arg("-Vv"))?;
    let version = Version::parse(&text).with_context(|| format!("cannot read its version in {text:?}"))?;
    if version.release < FLOOR {
        bail!("rustc {}.{} is older than {}.{}", version.release.0, version.release.1, FLOOR.0, FLOOR.1);
    }
    if !cargo.is_file() {
        bail!("{} has no cargo beside it", rustc.display());
    }
    // Prebuilt core alone will not do: it was compiled with another panic strategy.
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        bail!("{} has no rust-src", version.line);
    }
    Ok(Some(DeviceToolchain { rustc, cargo, version }))
}

fn rustup_home() -> PathBuf {
    match std::env::var_os("RUSTUP_HOME") {
        Some(home) => home.into(),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".rustup"),
    }
}

/// The sysroots of rustup's toolchains, by name.
pub(crate) fn rustup_toolchains() -> Vec<PathBuf> {
    toolchains_in(&rustup_home())
}

/// The toolchains of a rustup home, by name.
fn toolchains_in(home: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home.join("toolchains")).into_iter().flatten().flatten();
    let mut toolchains: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    toolchains.sort();
    toolchains
}

/// Removes from a command's environment what an outer cargo or rustup says of another toolchain. What says
/// how to reach the network, and `CARGO_HOME`, stays.
pub(crate) fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(names_a_toolchain) {
            command.env_remove(name);
        }
    }
}

fn names_a_toolchain(variable: &str) -> bool {
    const KEPT: [&str; 5] =
        ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_SOURCE_"];
    const REMOVED: [&str; 4] = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC"];
    let kept = variable == "CARGO_HOME" || KEPT.iter().any(|prefix| variable.starts_with(prefix));
    let removed = REMOVED.iter().any(|prefix| variable.starts_with(prefix))
        || matches!(variable, "RUSTUP_TOOLCHAIN" | "LD_LIBRARY_PATH");
    removed && !kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
        binary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn the_version_is_read_from_rustc() {
        let version = Version::parse(DEBIAN).unwrap();
        assert_eq!(version.release, (1, 96));
        assert_eq!(version.llvm, "22.1.8");
        assert_eq!(version.line, "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)");
    }

    #[test]
    fn a_nightly_version_is_read_and_other_text_is_not() {
        let nightly =
            "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(Version::parse(nightly).unwrap().release, (1, 97));
        assert_eq!(Version::parse("error: toolchain is not installed\n"), None);
        assert_eq!(Version::parse("rustc 1.96.0\n"), None);
        assert_eq!(Version::parse(""), None);
    }

    /// A sysroot whose rustc prints `version`; removed on drop.
    struct Sysroot(PathBuf);

    impl Sysroot {
        fn new(name: &str, version: &str) -> Self {
            let path = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("bin")).unwrap();
            std::fs::write(path.join("bin/cargo"), "").unwrap();
            std::fs::write(path.join("bin/rustc"), format!("#!/bin/sh\ncat <<'END'\n{version}END\n"))
                .unwrap();
            shell::quiet(Command::new("chmod").arg("+x").arg(path.join("bin/rustc"))).unwrap();
            Self(path)
        }

        fn with_sources(self) -> Self {
            std::fs::create_dir_all(self.0.join("lib/rustlib/src/rust/library/core")).unwrap();
            self
        }
    }

    impl Drop for Sysroot {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("the directory was made by this test");
        }
    }

    #[test]
    fn an_empty_machine_has_no_toolchain_and_the_remedy_says_what_to_do() {
        let search =
            search_in(toolchains_in(Path::new("/nonexistent")).into_iter().chain(["/nonexistent".into()]));
        assert_eq!(search.found, None);
        assert!(search.rejected.is_empty(), "{:?}", search.rejected);
        let remedy = remedy();
        for part in ["rustup toolchain install 1.96.0", "apt-get install rustc-web", "cannot be rebuilt"] {
            assert!(remedy.contains(part), "{remedy}");
        }
    }

    #[test]
    fn toolchains_that_are_too_old_or_have_no_sources_are_passed_over() {
        let old = Sysroot::new("old", &DEBIAN.replace("1.96", "1.95")).with_sources();
        let bare = Sysroot::new("bare", DEBIAN);
        let good = Sysroot::new("good", DEBIAN).with_sources();
        let search = search_in([old.0.clone(), bare.0.clone(), good.0.clone()]);
        assert_eq!(search.found.unwrap().rustc, good.0.join("bin/rustc"));
        assert!(search.rejected[0].contains("1.95 is older than 1.96"), "{:?}", search.rejected);
        assert!(search.rejected[1].contains("no rust-src"), "{:?}", search.rejected);
    }

    #[test]
    fn the_outer_toolchain_is_forgotten_and_the_network_is_not() {
        for removed in [
            "CARGO",
            "CARGO_TARGET_DIR",
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "RUSTUP_TOOLCHAIN",
            "CARGO_ENCODED_RUSTFLAGS",
        ] {
            assert!(names_a_toolchain(removed), "{removed}");
        }
        for kept in ["CARGO_HOME", "CARGO_HTTP_CAINFO", "CARGO_NET_OFFLINE", "PATH", "HOME", "RUSTUP_HOME"] {
            assert!(!names_a_toolchain(kept), "{kept}");
        }
    }
}
