//! Sends what a library prints to a file instead of the terminal.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::dup;
use rustix::stdio::{dup2_stderr, dup2_stdout, stderr, stdout};

/// While this value lives, everything that the process prints goes to a file.
///
/// Criterion prints several lines for every measurement and cannot be told not to.
pub struct Diversion {
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Diversion {
    /// Diverts both output streams to `log`.
    pub fn to(log: &File) -> io::Result<Self> {
        let diversion = Self { stdout: dup(stdout())?, stderr: dup(stderr())? };
        dup2_stdout(log)?;
        dup2_stderr(log)?;
        Ok(diversion)
    }
}

impl Drop for Diversion {
    fn drop(&mut self) {
        // Both were open a moment ago; were they not, there would be nobody to tell.
        let _ = dup2_stdout(&self.stdout);
        let _ = dup2_stderr(&self.stderr);
    }
}
