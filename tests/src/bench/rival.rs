//! Other implementations: shared libraries with the function of `tests/capi/bench_topk.h`.

use std::collections::HashSet;
use std::error::Error as _;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dsa_kernels::{Backend, Device, Stream};
use libloading::Library;

use super::shapes::Case;

/// Bytes of the scratch memory, `BENCH_TOPK_SCRATCH_BYTES` of the header.
pub const SCRATCH_BYTES: usize = 64 << 20;

/// The name of the function.
const SYMBOL: &str = "bench_topk";

/// The function's type, as `tests/capi/bench_topk.h` declares it.
type Function = unsafe extern "C" fn(
    scores: *const f32,
    lengths: *const c_int,
    out: *mut c_int,
    scratch: *mut c_void,
    rows: c_int,
    pitch: c_int,
    k: c_int,
    max_len: c_int,
    stream: *mut c_void,
) -> c_int;

/// A library to compare with, as the command line names it: `NAME=LIB.so`, or `LIB.so`, whose name is that of
/// the file without `lib`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RivalSpec {
    /// Its name in the report.
    pub name: String,
    /// The library.
    pub library: PathBuf,
}

impl FromStr for RivalSpec {
    type Err = RivalError;

    fn from_str(text: &str) -> Result<Self, RivalError> {
        // A folder may have an equals sign in its name.
        let named = text.split_once('=').filter(|(name, _)| !name.contains('/'));
        let (name, library) = match named {
            Some((name, library)) => (name, library),
            None => {
                let stem = Path::new(text).file_name().and_then(|name| name.to_str()).unwrap_or("");
                let stem = stem.split('.').next().unwrap_or("");
                (stem.strip_prefix("lib").unwrap_or(stem), text)
            }
        };
        let printable = name.chars().all(|letter| !letter.is_control() && !"|`".contains(letter));
        if name.is_empty() || library.is_empty() || !printable {
            return Err(RivalError::Spec(text.to_owned()));
        }
        Ok(Self { name: name.to_owned(), library: library.into() })
    }
}

impl fmt::Display for RivalSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.library.display())
    }
}

/// A library that cannot be compared with.
#[derive(Debug, thiserror::Error)]
pub enum RivalError {
    /// The argument names no library.
    #[error(
        "--compare {0:?}: not a library; write NAME=LIB.so or LIB.so, with a name of printable letters \
         without | and `"
    )]
    Spec(String),
    /// Two libraries have one name.
    #[error("--compare: two libraries are called {0:?}; give them names of their own: NAME=LIB.so")]
    SameName(String),
    /// There is no such file.
    #[error(
        "--compare {}: no such file; name a shared library that exports {SYMBOL} (tests/capi/bench_topk.h)",
        .0.display()
    )]
    Missing(PathBuf),
    /// The loader refuses the file.
    #[error(
        "--compare {}: cannot be loaded: {reason}; expected is a shared library for this machine",
        library.display()
    )]
    Load {
        /// The library.
        library: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// The library has no such function.
    #[error(
        "--compare {}: has no function {SYMBOL}; expected is, with C linkage, int {SYMBOL}(const float *scores, \
         const int *lengths, int *out, void *scratch, int rows, int pitch, int k, int max_len, void *stream) \
         (tests/capi/bench_topk.h)", .0.display()
    )]
    NoFunction(PathBuf),
    /// There is no GPU to compare on.
    #[error(
        "--compare {0}: needs a GPU, because such a library launches kernels of its own; the emulator cannot \
         run them"
    )]
    NeedsGpu(String),
}

/// A loaded library.
#[derive(Debug)]
pub struct Rival {
    /// Its name in the report.
    pub name: String,
    /// Where it is.
    pub library: PathBuf,
    function: Function,
    /// Keeps the function's code.
    _library: Library,
}

/// Loads all libraries, for a benchmark that runs on `device`.
///
/// # Errors
/// Any [`RivalError`] but [`RivalError::Spec`].
pub fn load_all(specs: &[RivalSpec], device: &Device) -> Result<Vec<Rival>, RivalError> {
    let mut names = HashSet::new();
    if let Some(again) = specs.iter().find(|spec| !names.insert(&spec.name)) {
        return Err(RivalError::SameName(again.name.clone()));
    }
    let rivals = specs.iter().map(Rival::load).collect::<Result<_, _>>()?;
    match specs.first() {
        Some(spec) if device.properties().backend != Backend::Cuda => {
            Err(RivalError::NeedsGpu(spec.name.clone()))
        }
        _ => Ok(rivals),
    }
}

impl Rival {
    /// Loads a library and finds its function.
    ///
    /// # Errors
    /// [`RivalError::Missing`], [`RivalError::Load`], [`RivalError::NoFunction`].
    pub fn load(spec: &RivalSpec) -> Result<Self, RivalError> {
        let path = &spec.library;
        if !path.is_file() {
            return Err(RivalError::Missing(path.clone()));
        }
        // An absolute path: the loader would search its own places for a bare name.
        let absolute = std::path::absolute(path).map_err(|_| RivalError::Missing(path.clone()))?;
        // SAFETY: what the library does when it is loaded is up to whoever asked for it on the command line.
        let library = unsafe { Library::new(absolute) };
        let library = library.map_err(|error| {
            // What the loader said is one level down.
            let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            RivalError::Load { library: path.clone(), reason }
        })?;
        // SAFETY: the header tells the library's author the type of the function.
        let function = unsafe { library.get::<Function>(SYMBOL) };
        let function = *function.map_err(|_| RivalError::NoFunction(path.clone()))?;
        Ok(Self { name: spec.name.clone(), library: path.clone(), function, _library: library })
    }

    /// Calls the function: what it returned.
    ///
    /// # Safety
    /// The addresses are device memory, as the header says, until the launch has run; if `stream` is being
    /// captured, until the last replay. Nothing else uses `out` and `scratch` meanwhile.
    pub unsafe fn launch(&self, stream: &Stream, case: &Case, memory: &RivalMemory) -> c_int {
        let pointer = |address: u64| std::ptr::with_exposed_provenance_mut::<c_void>(address as usize);
        let [rows, pitch, k, max_len] =
            [case.rows(), case.pitch(), case.k, case.max_len()].map(u32::cast_signed);
        // SAFETY: the caller's promise about the memory; the author of the library vouches for the function.
        unsafe {
            (self.function)(
                pointer(memory.scores).cast(),
                pointer(memory.lengths).cast(),
                pointer(memory.out).cast(),
                pointer(memory.scratch),
                rows,
                pitch,
                k,
                max_len,
                pointer(stream.raw()),
            )
        }
    }
}

/// Device addresses for one launch.
#[derive(Clone, Copy, Debug)]
pub struct RivalMemory {
    /// The batch.
    pub scores: u64,
    /// The length of each row.
    pub lengths: u64,
    /// The indices.
    pub out: u64,
    /// [`SCRATCH_BYTES`] bytes.
    pub scratch: u64,
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tempfile::TempDir;

    use super::super::shapes;
    use super::*;
    use crate::c_compiler;

    fn spec(text: &str) -> RivalSpec {
        text.parse().unwrap()
    }

    /// A shared library made of `source`; `None` without a C compiler, after saying so.
    fn library(folder: &TempDir, source: &str) -> Option<PathBuf> {
        let compiler = c_compiler::find_or_say("loading libraries for --compare")?;
        let (file, library) = (folder.path().join("rival.c"), folder.path().join("librival.so"));
        std::fs::write(&file, source).unwrap();
        let mut command = Command::new(compiler);
        command.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]);
        command.arg("-I").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/capi"));
        command.arg(&file).arg("-o").arg(&library);
        c_compiler::run(&mut command).unwrap_or_else(|error| panic!("{error}"));
        Some(library)
    }

    /// Sources are not on every machine that the staged tests run on.
    fn sources_are_here() -> bool {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("capi/bench_topk.h").is_file()
    }

    #[test]
    fn a_library_has_the_name_that_it_is_given_or_that_of_its_file() {
        let named = RivalSpec { name: "vllm".to_owned(), library: "a/libtopk.so".into() };
        assert_eq!(spec("vllm=a/libtopk.so"), named);
        assert_eq!(spec("a/libtopk.so").name, "topk");
        assert_eq!(spec("flash.so.2"), RivalSpec { name: "flash".to_owned(), library: "flash.so.2".into() });
        assert_eq!(spec("./k=2048/libtopk.so").library, Path::new("./k=2048/libtopk.so"));
        assert_eq!(spec("x=./k=2048/libtopk.so").library, Path::new("./k=2048/libtopk.so"));
        assert_eq!(spec("x=y.so").to_string(), "x (y.so)");
    }

    #[test]
    fn arguments_that_name_no_library_are_refused() {
        for text in ["", "=lib.so", "name=", "a|b=lib.so", "a\nb=lib.so", "lib.so/.."] {
            let error = text.parse::<RivalSpec>().unwrap_err().to_string();
            assert!(error.contains("NAME=LIB.so"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named_with_what_was_expected() {
        let error = Rival::load(&spec("nowhere/libtopk.so")).unwrap_err().to_string();
        assert!(error.contains("nowhere/libtopk.so: no such file"), "{error}");
        assert!(error.contains("bench_topk"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_with_the_loaders_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.so");
        std::fs::write(&path, "no library").unwrap();
        let error = Rival::load(&spec(path.to_str().unwrap())).unwrap_err();
        assert!(matches!(error, RivalError::Load { .. }), "{error}");
        assert!(error.to_string().contains("text.so: cannot be loaded"), "{error}");
        let RivalError::Load { reason, .. } = error else { unreachable!() };
        assert!(reason.contains("text.so"), "the loader names the file: {reason}");
    }

    #[test]
    fn a_library_without_the_function_is_told_which_one() {
        let folder = tempfile::tempdir().unwrap();
        let source = "int topk(void);\nint topk(void) { return 0; }\n";
        let Some(path) = library(&folder, source) else { return };
        let error = Rival::load(&spec(path.to_str().unwrap())).unwrap_err().to_string();
        assert!(error.contains("has no function bench_topk"), "{error}");
        assert!(error.contains("const int *lengths"), "{error}");
    }

    #[test]
    fn the_function_gets_the_shape_and_its_answer_comes_back() {
        if !sources_are_here() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let source = "#include \"bench_topk.h\"\n\
            int bench_topk(const float *scores, const int *lengths, int *out, void *scratch, int rows,\n\
                int pitch, int k, int max_len, void *stream) {\n\
                int addresses = scores == (const float *)16 && lengths == (const int *)32 &&\n\
                    out == (int *)48 && scratch == (void *)64 && stream == 0;\n\
                int shape = rows == 4 && pitch == 3072 && k == 2048 && max_len == 3072;\n\
                return addresses && shape && BENCH_TOPK_SCRATCH_BYTES == 67108864 ? 1 : 2;\n\
            }\n";
        let Some(path) = library(&folder, source) else { return };
        let rival = Rival::load(&spec(&format!("one={}", path.display()))).unwrap();
        assert_eq!((rival.name.as_str(), &rival.library), ("one", &path));
        let case = &shapes::select(shapes::emulated(), Some("4x3072/k2048/normal")).unwrap()[0];
        let stream = Device::emulator().stream().unwrap();
        let memory = RivalMemory { scores: 16, lengths: 32, out: 48, scratch: 64 };
        // SAFETY: this function compares the addresses and does not follow them.
        assert_eq!(unsafe { rival.launch(&stream, case, &memory) }, 1);
        assert_eq!(SCRATCH_BYTES, 67_108_864);
    }

    #[test]
    fn two_libraries_of_one_name_are_refused() {
        let error = load_all(&[spec("a/libx.so"), spec("b/x.so")], &Device::emulator()).unwrap_err();
        assert!(error.to_string().contains("two libraries are called \"x\""), "{error}");
    }

    #[test]
    fn the_emulator_refuses_to_compare_and_says_why() {
        let device = Device::emulator();
        assert!(load_all(&[], &device).unwrap().is_empty());
        let folder = tempfile::tempdir().unwrap();
        let source = "int bench_topk(void);\nint bench_topk(void) { return 1; }\n";
        let Some(path) = library(&folder, source) else { return };
        let error = load_all(&[spec(path.to_str().unwrap())], &device).unwrap_err().to_string();
        assert!(error.contains("--compare rival: needs a GPU") && error.contains("emulator"), "{error}");
    }
}
