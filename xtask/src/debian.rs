//! Installing packages on Debian and Ubuntu.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Whether packages can be installed without asking: root, on Debian or a system made from it.
pub(crate) fn can_install() -> bool {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    is_debian(&release) && is_root() && Path::new("/usr/bin/apt-get").exists()
}

/// Installs packages with apt-get, after refreshing its lists.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(arguments)
            .args(packages_of(arguments, packages))
            .env("DEBIAN_FRONTEND", "noninteractive");
        shell::say(format_args!(
            "apt-get {} {}",
            arguments.join(" "),
            packages_of(arguments, packages).join(" ")
        ));
        shell::quiet(&mut command)
    };
    apt_get(&["update", "-q"]).context("cannot refresh the package lists")?;
    apt_get(&["install", "-q", "-y", "--no-install-recommends"])
        .with_context(|| format!("cannot install {}", packages.join(", ")))?;
    Ok(())
}

fn packages_of<'a>(arguments: &[&str], packages: &'a [&'a str]) -> &'a [&'a str] {
    if arguments.first() == Some(&"install") { packages } else { &[] }
}

fn is_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| matches!(*key, "ID" | "ID_LIKE"))
        .flat_map(|(_, value)| value.trim_matches('"').split_whitespace())
        .any(|id| matches!(id, "debian" | "ubuntu"))
}

fn is_root() -> bool {
    shell::quiet(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_children_are_recognised() {
        assert!(is_debian("NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(is_debian("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nHOME_URL=debian\n"));
        assert!(!is_debian(""));
    }
}
