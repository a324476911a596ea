//! `cargo xtask stub`: the link stub of libcuda, for cargo calls by hand.

use anyhow::{Context, Result};

use crate::{stub, workspace};

/// The variable that tells cust's build script where libcuda is.
pub(crate) const VARIABLE: &str = "CUDA_LIBRARY_PATH";

/// Prints the directory to set CUDA_LIBRARY_PATH to for a cargo call with feature `cust`.
///
/// For instance: CUDA_LIBRARY_PATH=$(cargo xtask stub) cargo clippy --workspace --features cust
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// Runs the command.
pub(crate) fn run(_: &Arguments) -> Result<()> {
    println!("{}", directory()?.display());
    Ok(())
}

/// The value of [`VARIABLE`].
pub(crate) fn directory() -> Result<std::path::PathBuf> {
    stub::ensure(&workspace::target()).context("cannot make the link stub of libcuda")
}
