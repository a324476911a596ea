//! `cargo xtask msrv`: the oldest Rust that is promised.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{link_stub, shell, workspace};

/// The packages that others depend on, each with the features that they may choose.
const LIBRARIES: [(&str, &[&str]); 6] = [
    ("dsa-simt", &[]),
    ("dsa-kernels-gpu", &[]),
    ("dsa-kernels", &[]),
    ("dsa-kernels", &["--features", "cust"]),
    ("dsa-kernels-capi", &[]),
    ("dsa-kernels-capi", &["--features", "cust"]),
];

/// Checks that the libraries build with the oldest Rust that they promise (`rust-version` in Cargo.toml).
///
/// rust-toolchain.toml must name that version, so that all that runs here runs with it; every package must promise the
/// same; and each library is checked by itself, with the features that its users choose and none that a neighbour in
/// this workspace turns on.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// Runs the command.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    let metadata =
        shell::stdout_of(shell::cargo().args(["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let promised = promised(&serde_json::from_str(&metadata).context("cargo metadata printed no JSON")?)?;
    let file = workspace::root().join("rust-toolchain.toml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    agree(&promised, channel(&text)?)?;
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let here = shell::quiet(Command::new(rustc).arg("-V").current_dir(workspace::root()))?;
    ensure!(
        is_release(&here, &promised),
        "expected rustc {promised}, as Cargo.toml promises, found {}; is RUSTUP_TOOLCHAIN or RUSTC set?",
        here.trim()
    );
    for (package, features) in LIBRARIES {
        let mut command = shell::cargo();
        command.args(["check", "--locked", "--package", package]).args(features);
        shell::run(command.env(link_stub::VARIABLE, link_stub::directory()?))?;
    }
    shell::say(format_args!("the libraries build with rustc {promised}"));
    Ok(())
}

/// The one version that all packages of `cargo metadata` promise.
fn promised(metadata: &Value) -> Result<String> {
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let mut promised: Option<(&str, &str)> = None;
    for package in packages {
        let name = package["name"].as_str().context("a package has a name")?;
        let version = package["rust_version"].as_str();
        let version =
            version.with_context(|| format!("{name} promises nothing: `rust-version.workspace = true`"))?;
        match promised {
            Some((other, theirs)) if theirs != version => {
                bail!("{name} promises Rust {version}, {other} {theirs}: all inherit that of the workspace");
            }
            _ => promised = Some((name, version)),
        }
    }
    Ok(promised.context("the workspace has no packages")?.1.to_owned())
}

/// The channel in a rust-toolchain.toml.
fn channel(text: &str) -> Result<&str> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("channel"));
    let value =
        line.and_then(|rest| rest.trim().strip_prefix('=')).map(|value| value.trim().trim_matches('"'));
    value.context("rust-toolchain.toml has no channel")
}

fn agree(promised: &str, channel: &str) -> Result<()> {
    ensure!(
        whole(promised) == whole(channel),
        "Cargo.toml promises `rust-version = \"{promised}\"`, rust-toolchain.toml has `channel = \"{channel}\"`: raise \
         both together"
    );
    Ok(())
}

/// Whether `rustc -V` names the release.
fn is_release(rustc: &str, promised: &str) -> bool {
    rustc.strip_prefix("rustc ").and_then(|rest| rest.split_whitespace().next())
        == Some(whole(promised).as_str())
}

/// A version with its third number.
fn whole(version: &str) -> String {
    if version.matches('.').count() == 1 { format!("{version}.0") } else { version.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(versions: &[(&str, Option<&str>)]) -> Value {
        let package = |(name, version): &(&str, Option<&str>)| serde_json::json!({"name": name, "rust_version": version});
        serde_json::json!({ "packages": versions.iter().map(package).collect::<Vec<_>>() })
    }

    #[test]
    fn all_packages_must_promise_the_same() {
        assert_eq!(promised(&metadata(&[("a", Some("1.95")), ("b", Some("1.95"))])).unwrap(), "1.95");
        let error = promised(&metadata(&[("a", Some("1.95")), ("b", Some("1.90"))])).unwrap_err().to_string();
        assert!(error.contains("b promises Rust 1.90, a 1.95"), "{error}");
        let error = promised(&metadata(&[("a", None)])).unwrap_err().to_string();
        assert!(error.contains("a promises nothing"), "{error}");
    }

    #[test]
    fn the_toolchain_must_be_the_promised_one() {
        let file = "# channel\n[toolchain]\nchannel = \"1.95.0\"\n";
        assert_eq!(channel(file).unwrap(), "1.95.0");
        assert!(channel("[toolchain]\n").is_err());
        agree("1.95", "1.95.0").unwrap();
        let error = agree("1.94", "1.95.0").unwrap_err().to_string();
        assert!(error.contains("\"1.94\"") && error.contains("\"1.95.0\""), "{error}");
        assert!(is_release("rustc 1.95.0 (59807616e 2026-04-14)\n", "1.95"));
        assert!(!is_release("rustc 1.96.0-nightly (x)\n", "1.95"));
    }

    #[test]
    fn this_workspace_agrees_with_itself() {
        let text = std::fs::read_to_string(workspace::root().join("rust-toolchain.toml")).unwrap();
        agree(env!("CARGO_PKG_RUST_VERSION"), channel(&text).unwrap()).unwrap();
    }
}
