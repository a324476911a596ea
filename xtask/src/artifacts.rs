//! The executables and shared libraries that a cargo build produced.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::shell;

/// An executable or shared library of the workspace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    /// Package it belongs to.
    pub(crate) package: String,
    /// Name of the target.
    pub(crate) target: String,
    /// `lib`, `cdylib`, `bin`, `test`, `bench` or `example`.
    pub(crate) kind: String,
    /// Whether it was built with the test harness.
    pub(crate) test: bool,
    /// The file.
    pub(crate) path: PathBuf,
}

/// Runs `cargo build` with its messages on stderr and returns what it built or found fresh.
pub(crate) fn build(command: &mut Command) -> Result<Vec<Executable>> {
    command.arg("--message-format=json-render-diagnostics").stdin(Stdio::null());
    parse(&shell::stdout_of(command)?)
}

fn parse(messages: &str) -> Result<Vec<Executable>> {
    let mut executables = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line).context("cargo printed a message that is no JSON")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let Some(path) = message["executable"].as_str().or_else(|| shared_library(&message)) else {
            continue;
        };
        executables.push(Executable {
            package: package_name(&text(&message["package_id"])).to_string(),
            target: text(&message["target"]["name"]),
            kind: text(&message["target"]["kind"][0]),
            test: message["profile"]["test"].as_bool().unwrap_or(false),
            path: path.into(),
        });
    }
    Ok(executables)
}

/// The file of a shared library for C; procedural macros are none.
fn shared_library(message: &Value) -> Option<&str> {
    let kinds = message["target"]["kind"].as_array()?;
    if !kinds.iter().any(|kind| kind == "cdylib") {
        return None;
    }
    message["filenames"].as_array()?.iter().filter_map(Value::as_str).find(|file| file.ends_with(".so"))
}

/// The name in a package id: `path+file:///a/simt#dsa-simt@0.1.0`, or without the name when the directory
/// has it: `path+file:///a/xtask#0.1.0`.
fn package_name(id: &str) -> &str {
    let (place, fragment) = id.rsplit_once('#').unwrap_or((id, ""));
    match fragment.split_once('@') {
        Some((name, _)) => name,
        None => place.rsplit('/').next().unwrap_or(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_taken_from_the_messages_and_other_artifacts_left_out() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","package_id":"path+file:///w/tests#dsa-kernels-tests@0.1.0","target":{"kind":["test"],"name":"suite"},"profile":{"test":true},"executable":"/w/target/suite-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","package_id":"path+file:///w/simt#0.1.0","target":{"kind":["lib"],"name":"simt"},"profile":{"test":false},"executable":null}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
            "\n"
        );
        let expected = Executable {
            package: "dsa-kernels-tests".into(),
            target: "suite".into(),
            kind: "test".into(),
            test: true,
            path: "/w/target/suite-1".into(),
        };
        assert_eq!(parse(messages).unwrap(), [expected]);
    }

    #[test]
    fn the_file_of_a_shared_library_is_taken_and_that_of_a_macro_is_not() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","package_id":"path+file:///w/capi#dsa-kernels-capi@0.1.0","target":{"kind":["cdylib","staticlib"],"name":"dsa_kernels"},"profile":{"test":false},"filenames":["/w/target/libdsa_kernels.a","/w/target/libdsa_kernels.so"],"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","package_id":"registry+https://x#thiserror-impl@2.0.0","target":{"kind":["proc-macro"],"name":"thiserror_impl"},"profile":{"test":false},"filenames":["/w/target/deps/libthiserror_impl-1.so"],"executable":null}"#,
        );
        let expected = Executable {
            package: "dsa-kernels-capi".into(),
            target: "dsa_kernels".into(),
            kind: "cdylib".into(),
            test: false,
            path: "/w/target/libdsa_kernels.so".into(),
        };
        assert_eq!(parse(messages).unwrap(), [expected]);
    }

    #[test]
    fn a_package_id_without_a_name_takes_it_from_the_directory() {
        assert_eq!(package_name("path+file:///w/xtask#0.1.0"), "xtask");
        assert_eq!(package_name("path+file:///w/simt#dsa-simt@0.1.0"), "dsa-simt");
    }
}
