//! `cargo xtask package`: the crates as a registry would have them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{shell, workspace};

/// The most that crates.io takes, compressed.
const LIMIT: u64 = 10 << 20;
/// What every package has.
const NEEDED: [&str; 5] = ["Cargo.toml", "README.md", "LICENSE-APACHE", "LICENSE-MIT", "src/lib.rs"];
/// What a package may have besides [`NEEDED`]: cargo's own files, and these directories.
const CARGOS: [&str; 3] = ["Cargo.toml.orig", "Cargo.lock", ".cargo_vcs_info.json"];
const DIRECTORIES: [&str; 5] = ["src", "tests", "examples", "ptx", "include"];

/// Packages the crates that can be published, builds each from its packaged form, and checks what is in it.
///
/// Publishes nothing. The crates are not on a registry yet: cargo takes those that depend on each other from the other
/// packages. Builds without features, so that neither a device toolchain nor libcuda is needed.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// Runs the command.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    let metadata = shell::stdout_of(shell::cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let crates = publishable(&metadata)?;
    let target = workspace::target().join("packaged");
    forget(&target, &shell::cargo_home(), &crates)?;
    let mut command = shell::cargo();
    // Uncommitted changes are packaged, too: this is a check.
    command.args(["package", "--allow-dirty", "--target-dir"]).arg(&target);
    for package in &crates {
        command.args(["--package", &package.name]);
    }
    shell::run(&mut command)?;
    for package in &crates {
        let stem = package.stem();
        let file = target.join("package").join(format!("{stem}.crate"));
        let size = std::fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?.len();
        let listing = shell::stdout_of(Command::new("tar").arg("-tzf").arg(&file))?;
        let files: Vec<&str> =
            listing.lines().filter_map(|path| path.strip_prefix(&stem)?.strip_prefix('/')).collect();
        check(package, &files, size).with_context(|| format!("the package {stem}"))?;
        let mib = size as f64 / f64::from(1 << 20);
        shell::say(format_args!("{stem}: {} files, {mib:.2} MiB of 10", files.len()));
    }
    Ok(())
}

/// Removes what an earlier run built in `target`, and what cargo unpacked for it: cargo takes a package of the same name and
/// version for the same package, also if it has changed.
fn forget(target: &Path, cargo_home: &Path, crates: &[Package]) -> Result<()> {
    if target.exists() {
        std::fs::remove_dir_all(target)?;
    }
    for registry in std::fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten() {
        let registry = registry?.path();
        // Those of real registries have a name: they do not have these crates yet, and may keep them then.
        if registry.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('-')) {
            continue;
        }
        for unpacked in crates.iter().map(|package| registry.join(package.stem())) {
            if unpacked.exists() {
                std::fs::remove_dir_all(unpacked)?;
            }
        }
    }
    Ok(())
}

/// A crate that can be published.
struct Package {
    name: String,
    version: String,
    /// Files that it is of no use without, besides [`NEEDED`].
    carries: Vec<String>,
}

impl Package {
    /// What its file and its directory are called.
    fn stem(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// The crates of the workspace that can be published, by what cargo says of it.
fn publishable(metadata: &str) -> Result<Vec<Package>> {
    let metadata: Value = serde_json::from_str(metadata).context("cargo printed metadata that is no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo printed metadata without packages")?;
    let mut found = Vec::new();
    // `publish = false` is an empty list of registries.
    for package in packages.iter().filter(|package| package["publish"].is_null()) {
        let text = |key: &str| package[key].as_str().with_context(|| format!("a package without {key}"));
        let folder = Path::new(text("manifest_path")?).parent().context("a manifest in no directory")?;
        let mut carries = Vec::new();
        for directory in ["ptx", "include"] {
            if folder.join(directory).is_dir() {
                for file in std::fs::read_dir(folder.join(directory))? {
                    carries.push(format!("{directory}/{}", file?.file_name().to_string_lossy()));
                }
            }
        }
        found.push(Package { name: text("name")?.into(), version: text("version")?.into(), carries });
    }
    Ok(found)
}

/// Refuses a package that lacks a file, has one that does not belong there, or is too large.
fn check(package: &Package, files: &[&str], size: u64) -> Result<()> {
    let needed = NEEDED.into_iter().chain(package.carries.iter().map(String::as_str));
    for file in needed {
        if !files.contains(&file) {
            bail!("{file} is not in it");
        }
    }
    for file in files {
        let known = match file.split_once('/') {
            Some((directory, _)) => DIRECTORIES.contains(&directory),
            None => NEEDED.contains(file) || CARGOS.contains(file) || *file == "build.rs",
        };
        if !known {
            bail!("{file} is in it, which is no file of a library; exclude it in the manifest");
        }
    }
    if size > LIMIT {
        bail!("it has {size} bytes, but must have at most {LIMIT}; exclude files in the manifest");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package() -> Package {
        Package { name: "a".into(), version: "1.0.0".into(), carries: vec!["ptx/a.ptx".into()] }
    }

    #[test]
    fn a_package_must_have_what_belongs_in_it_and_nothing_else() {
        let good: Vec<&str> = NEEDED.into_iter().chain(CARGOS).chain(["build.rs", "ptx/a.ptx"]).collect();
        check(&package(), &good, LIMIT).unwrap();
        let refused = |files: &[&str], size| check(&package(), files, size).unwrap_err().to_string();

        let lacks: Vec<&str> = good.iter().copied().filter(|file| *file != "ptx/a.ptx").collect();
        assert_eq!(refused(&lacks, 1), "ptx/a.ptx is not in it");
        for junk in ["notes.txt", "target/debug/a"] {
            let error = refused(&[&good[..], &[junk]].concat(), 1);
            assert!(error.starts_with(&format!("{junk} is in it")), "{error}");
        }
        assert!(refused(&good, LIMIT + 1).contains("at most 10485760"));
    }

    #[test]
    fn what_an_earlier_run_left_is_forgotten_and_nothing_else() {
        let root = std::env::temp_dir().join(format!("xtask-package-{}", std::process::id()));
        let (target, registries) = (root.join("target"), root.join("registry/src"));
        let stale = registries.join("-0123/a-1.0.0");
        let kept = [registries.join("-0123/b-1.0.0"), registries.join("index-4567/a-1.0.0")];
        for directory in [&target, &stale, &kept[0], &kept[1]] {
            std::fs::create_dir_all(directory).unwrap();
        }
        // Twice: there need not be anything.
        for _ in 0..2 {
            forget(&target, &root, &[package()]).unwrap();
            assert!(!target.exists() && !stale.exists());
            assert!(kept.iter().all(|directory| directory.exists()));
        }
        std::fs::remove_dir_all(root).expect("the directory was made by this test");
    }

    #[test]
    fn what_may_not_be_published_is_left_out() {
        let metadata = r#"{"packages":[
            {"name":"a","version":"1.0.0","publish":null,"manifest_path":"/nowhere/a/Cargo.toml"},
            {"name":"b","version":"1.0.0","publish":[],"manifest_path":"/nowhere/b/Cargo.toml"}]}"#;
        let names: Vec<_> = publishable(metadata).unwrap().into_iter().map(|found| found.name).collect();
        assert_eq!(names, ["a"]);
        assert!(publishable("{}").is_err());
    }
}
