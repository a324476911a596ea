//! What binaries with the feature `cust` link instead of libcuda: a static library of trampolines that
//! open `libcuda.so.1` at the first call.
//!
//! `cust_raw` asks the linker for `-lcuda`. Linked against the real library (or a shared stub), a program
//! does not even start where there is no driver. With these trampolines the program has no dependency on
//! libcuda: it starts everywhere, and every driver function returns `CUDA_ERROR_STUB_LIBRARY` (34) where
//! there is no driver, or `CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER` (36) where the driver lacks the function.
//!
//! The library is written in Rust and compiled by the `rustc` that builds everything else, as an rlib: an
//! ordinary archive, under the name that `-lcuda` looks for. Nothing else is needed to build it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Names of the driver functions that `cust_raw` declares.
const SYMBOLS: &str = include_str!("stub_symbols.txt");
/// Everything but the list of functions.
const SOURCE: &str = include_str!("stub_shim.rs.in");

/// Makes sure that the library exists under `target_dir`, and returns the directory to pass to cargo as
/// `CUDA_LIBRARY_PATH` (cust's build scripts search its `lib64` before any CUDA toolkit).
///
/// # Errors
/// When `rustc` cannot be run or the directory cannot be written.
pub(crate) fn ensure(target_dir: &Path) -> Result<PathBuf> {
    let source = source();
    // The path holds a hash of what is inside: cargo links again exactly when it changes.
    let mut hasher = DefaultHasher::new();
    (&source, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    let root = target_dir.join(format!("cuda-stub-{:016x}", hasher.finish()));
    let directory = root.join("lib64");
    let library = directory.join("libcuda.a");
    let root = std::path::absolute(root)?;
    if library.is_file() {
        return Ok(root);
    }
    fs::create_dir_all(&directory)?;
    let file = root.join("cuda_stub.rs");
    fs::write(&file, source)?;
    // Written under another name first: a second xtask never sees half a library.
    let partial = directory.join(format!("partial.{}.a", std::process::id()));
    let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-name=cuda_stub", "--crate-type=rlib"])
        .args(["-Copt-level=2", "-Cpanic=abort", "-Ccodegen-units=1", "-Cembed-bitcode=no"])
        .arg("-o")
        .args([&partial, &file])
        .output()?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::other(format!("rustc cannot compile {}:\n{message}", file.display())));
    }
    fs::rename(partial, library)?;
    Ok(root)
}

fn source() -> String {
    let functions: String =
        SYMBOLS.lines().enumerate().map(|(index, name)| format!("    {name:?} = {index},\n")).collect();
    format!("{SOURCE}functions! {{\n{functions}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A C-free program that calls the driver through `-lcuda`, as cust does.
    const PROGRAM: &str = r#"
        use std::ffi::{c_char, c_int, c_void};
        #[link(name = "cuda", kind = "dylib")]
        unsafe extern "C" {
            fn cuInit(flags: u32) -> u32;
            fn cuDeviceGetCount(count: *mut c_int) -> u32;
            fn cuLaunchKernel(f: *mut c_void, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32,
                shared: u32, stream: *mut c_void, params: *mut *mut c_void, extra: *mut *mut c_void) -> u32;
            fn cuGetErrorName(code: u32, name: *mut *const c_char) -> u32;
        }
        fn main() {
            let (mut count, mut name) = (-1, std::ptr::null());
            let null = std::ptr::null_mut;
            let codes = unsafe {
                [
                    cuInit(0),
                    cuInit(0),
                    cuDeviceGetCount(&mut count),
                    cuLaunchKernel(null(), 1, 1, 1, 1, 1, 1, 0, null(), std::ptr::null_mut(), std::ptr::null_mut()),
                    cuGetErrorName(1, &mut name),
                ]
            };
            println!("{codes:?}");
        }
    "#;

    #[test]
    fn a_program_linked_with_the_stub_needs_no_libcuda_and_starts_without_a_driver() {
        let target = env::temp_dir().join(format!("dsa-cuda-stub-test-{}", std::process::id()));
        let root = ensure(&target).expect("the stub compiles");
        assert_eq!(ensure(&target).expect("it is found again"), root);
        let (source, program) = (target.join("program.rs"), target.join("program"));
        fs::write(&source, PROGRAM).expect("the directory is writable");
        let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .arg("--edition=2024")
            .arg(format!("-Lnative={}", root.join("lib64").display()))
            .arg("-o")
            .args([&program, &source])
            .output()
            .expect("rustc runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let binary = fs::read(&program).expect("the program exists");
        let needs_libcuda = needed(&binary).iter().any(|library| library.starts_with("libcuda"));
        assert!(!needs_libcuda, "needed: {:?}", needed(&binary));

        let output = Command::new(&program).output().expect("the program starts");
        let codes = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{codes}");
        // Without a driver every call says so; with one, none does.
        let answers: Vec<&str> = codes.trim().trim_matches(['[', ']']).split(", ").collect();
        assert_eq!(answers.len(), 5, "{codes}");
        let missing = answers.iter().filter(|&&code| code == "34").count();
        assert!(missing == 5 || missing == 0, "{codes}");
        fs::remove_dir_all(target).expect("the directory is ours");
    }

    /// The names in an ELF file's DT_NEEDED entries (64-bit, little-endian).
    fn needed(elf: &[u8]) -> Vec<String> {
        let word = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().expect("eight bytes")) as usize;
        let half = |at: usize| usize::from(u16::from_le_bytes([elf[at], elf[at + 1]]));
        let (sections, size, count) = (word(0x28), half(0x3a), half(0x3c));
        let header = |index: usize| sections + index * size;
        let dynamic = (0..count).map(header).find(|&at| elf[at + 4] == 6).expect("a dynamic section");
        let strings = word(header(elf[dynamic + 0x28] as usize) + 0x18);
        let start = word(dynamic + 0x18);
        (start..start + word(dynamic + 0x20))
            .step_by(16)
            .filter(|&at| word(at) == 1)
            .map(|at| {
                let name = &elf[strings + word(at + 8)..];
                let end = name.iter().position(|&byte| byte == 0).expect("a terminated name");
                String::from_utf8_lossy(&name[..end]).into_owned()
            })
            .collect()
    }

    #[test]
    fn the_functions_that_the_library_uses_are_all_there() {
        let names: Vec<&str> = SYMBOLS.lines().collect();
        for name in ["cuInit", "cuLaunchKernel", "cuStreamBeginCapture_v2", "cuGraphLaunch"] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(names.is_sorted(), "sorted, so that a missing or doubled name shows");
    }
}
