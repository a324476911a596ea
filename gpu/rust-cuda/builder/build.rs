//! Has rust-cuda compile one crate of kernels for one architecture.
//!
//! `cargo xtask ptx --backend rust-cuda` says in the environment what to build, and finishes the PTX. Without that
//! nothing is built.

use std::env;
use std::path::PathBuf;

use cuda_builder::{CudaBuilder, NvvmArch};

/// The member of this workspace that is compiled: `kernels` or `probe`.
const CRATE: &str = "DSA_RUST_CUDA_CRATE";
/// Its features, separated by commas.
const FEATURES: &str = "DSA_RUST_CUDA_FEATURES";
/// The architecture, as in `80`.
const ARCH: &str = "DSA_RUST_CUDA_ARCH";
/// The file that the PTX is written to.
const OUTPUT: &str = "DSA_RUST_CUDA_OUTPUT";
/// What the crates are made of, seen from here. `cuda_builder` names their manifests' directory only.
const SOURCES: [&str; 5] =
    ["../Cargo.toml", "../simt", "../../src", "../../../simt/src", "../../../tests/probe/src"];

fn main() {
    for name in [CRATE, FEATURES, ARCH, OUTPUT] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
    }
    let Some(output) = env::var_os(OUTPUT).map(PathBuf::from) else { return };
    // Built again when it was removed.
    println!("cargo:rerun-if-changed={}", output.display());

    let arch = match required(ARCH).as_str() {
        "80" => NvvmArch::Compute80,
        "90" => NvvmArch::Compute90,
        other => panic!("{ARCH} is {other}; set it to 80 or 90"),
    };
    let directory = PathBuf::from("..").join(required(CRATE));
    CudaBuilder::new(directory)
        .arch(arch)
        // As stock `rustc` rounds: products are rounded before they are added, unless the kernel says otherwise.
        .fma_contraction(false)
        .build_args(&["--features", &required(FEATURES)])
        .copy_to(output)
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
}

fn required(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set; {OUTPUT} is, and needs it"))
}
