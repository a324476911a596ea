//! Gives the shared library the name that programs linked with it ask the loader for.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Without it, a program that was linked by path would ask for that path.
    if std::env::var_os("CARGO_CFG_TARGET_OS").is_some_and(|system| system == "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libdsa_kernels.so");
    }
}
