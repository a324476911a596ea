//! The example `topk_npy`, run as a user runs it: on good files, and on every kind of bad one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dsa_kernels_tests::{backend, data, npy, oracle};
use ndarray::{Array1, Array2, Ix2, ShapeBuilder as _};
use ndarray_npy::WriteNpyExt as _;
use tempfile::TempDir;

/// The example: next to this test where binaries are staged, else where cargo puts examples.
fn executable() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().unwrap();
    let name = format!("topk_npy{}", std::env::consts::EXE_SUFFIX);
    let places = [folder.join(&name), folder.join("../examples").join(&name)];
    let found = places.iter().find(|place| place.is_file());
    found.unwrap_or_else(|| panic!("no {places:?}; build it with cargo build --example topk_npy")).clone()
}

struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write<T: ndarray_npy::WritableElement, D: ndarray::Dimension>(
        &self,
        name: &str,
        array: &ndarray::Array<T, D>,
    ) {
        array.write_npy(std::fs::File::create(self.path(name)).unwrap()).unwrap();
    }

    /// Runs the example on `scores.npy` and `lengths.npy` in the folder.
    fn run(&self, k: &str) -> Output {
        let backend = match backend::chosen().unwrap() {
            backend::Choice::Emulator => "emulator",
            backend::Choice::Gpu => "gpu",
        };
        self.run_on(backend, k)
    }

    fn run_on(&self, backend: &str, k: &str) -> Output {
        let mut command = Command::new(executable());
        command.args(["--k", k, "--backend", backend]);
        for (option, file) in [("--scores", "scores.npy"), ("--lengths", "lengths.npy"), ("--out", "out.npy")]
        {
            command.arg(option).arg(self.path(file));
        }
        command.output().unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Requires that the example fails, says `words`, and leaves no file behind.
    fn refused(&self, k: &str, words: &[&str]) {
        let before = self.names();
        let output = self.run(k);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{}: {text}", output.status);
        assert!(!text.contains("panicked"), "{text}");
        for word in words {
            assert!(text.contains(word), "{text:?} lacks {word:?}");
        }
        assert_eq!(self.names(), before, "a refused run left files: {text}");
    }

    /// Requires that the example succeeds, and returns the indices.
    fn accepted(&self, k: &str) -> Array2<i32> {
        let output = self.run(k);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {text}", output.status);
        npy::read::<i32, Ix2>(&self.path("out.npy"), "2-D int32").unwrap()
    }
}

fn some_scores() -> Array2<f32> {
    Array2::from_shape_fn((3, 50), |(row, column)| ((row * 50 + column) * 7919 % 1000) as f32 - 500.0)
}

fn some_files() -> Files {
    let files = Files::new();
    files.write("scores.npy", &some_scores());
    files.write("lengths.npy", &Array1::from(vec![50i32, 7, -1]));
    files
}

fn check(scores: &Array2<f32>, lengths: &[i32], out: &Array2<i32>) {
    for (row, length) in lengths.iter().enumerate() {
        let valid = oracle::valid_length(*length, scores.ncols());
        let row_scores: Vec<f32> = scores.row(row).iter().take(valid).copied().collect();
        oracle::check_row(&row_scores, &out.row(row).to_vec()).unwrap_or_else(|e| panic!("row {row}: {e}"));
    }
}

#[test]
fn real_rows_are_selected_exactly() {
    let rows: Vec<_> = data::rows().unwrap().iter().filter(|row| row.length < 20_000).collect();
    let columns = rows.iter().map(|row| row.columns.len()).max().unwrap();
    let mut scores = Array2::from_elem((rows.len(), columns), f32::INFINITY);
    for (row, real) in rows.iter().enumerate() {
        let mut to = scores.row_mut(row);
        to.iter_mut().zip(&real.columns).for_each(|(to, from)| *to = *from);
    }
    let lengths: Vec<i32> = rows.iter().map(|row| row.length as i32).collect();
    let files = Files::new();
    files.write("scores.npy", &scores);
    files.write("lengths.npy", &Array1::from(lengths.clone()));
    let out = files.accepted("2048");
    assert_eq!(out.dim(), (rows.len(), 2048));
    check(&scores, &lengths, &out);
}

#[test]
fn an_old_output_is_replaced_and_nothing_else_is_left() {
    let files = some_files();
    std::fs::write(files.path("out.npy"), b"old").unwrap();
    check(&some_scores(), &[50, 7, -1], &files.accepted("9"));
    assert_eq!(files.names(), ["lengths.npy", "out.npy", "scores.npy"]);
}

#[test]
fn scores_in_fortran_order_are_read_as_rows() {
    let files = some_files();
    let mut fortran = Array2::<f32>::zeros((3, 50).f());
    fortran.assign(&some_scores());
    files.write("scores.npy", &fortran);
    let text = std::fs::read(files.path("scores.npy")).unwrap();
    assert!(String::from_utf8_lossy(&text[..100]).contains("'fortran_order': True"));
    check(&some_scores(), &[50, 7, -1], &files.accepted("9"));
}

#[test]
fn arrays_of_another_type_or_shape_are_refused_with_the_wanted_one() {
    let files = some_files();
    files.write("scores.npy", &some_scores().mapv(f64::from));
    files.refused("9", &["scores.npy", "2-D float32", "convert"]);
    files.write("scores.npy", &Array1::from(vec![1.0f32; 50]));
    files.refused("9", &["scores.npy", "2-D float32"]);

    let files = some_files();
    files.write("lengths.npy", &Array1::from(vec![50i64, 7, -1]));
    files.refused("9", &["lengths.npy", "1-D int32"]);
    files.write("lengths.npy", &Array1::from(vec![50.0f32, 7.0, -1.0]));
    files.refused("9", &["lengths.npy", "1-D int32"]);
    files.write("lengths.npy", &Array1::from(vec![50i32, 7]));
    files.refused("9", &["2 elements", "3 rows", "one length per row"]);

    let files = some_files();
    files.write("scores.npy", &Array2::<f32>::zeros((3, 0)));
    files.refused("9", &["3 x 0", "at least one row"]);
}

#[test]
fn files_that_are_cut_off_or_missing_or_not_npy_are_refused() {
    let cut = |keep: fn(usize) -> usize| {
        let files = some_files();
        let path = files.path("scores.npy");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..keep(bytes.len())]).unwrap();
        files.refused("9", &["scores.npy", "2-D float32"]);
    };
    cut(|len| len - 1);
    cut(|len| len / 2);
    cut(|_| 20);
    cut(|_| 0);
    let files = some_files();
    std::fs::write(files.path("lengths.npy"), b"PK\x03\x04 this is no array").unwrap();
    files.refused("9", &["lengths.npy", "1-D int32"]);
    std::fs::remove_file(files.path("lengths.npy")).unwrap();
    files.refused("9", &["lengths.npy", "check that the path is right"]);
}

#[test]
fn headers_that_claim_more_than_the_file_has_are_refused_before_anything_is_allocated() {
    for extent in ["100000", "1000000", "4294967296", "99999999999999999999"] {
        let files = some_files();
        let text = format!(
            "{{'descr': '<f4', 'fortran_order': False, 'shape': ({extent}, {extent}), }}{:1$}\n",
            "", 20
        );
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.extend([0; 64]);
        std::fs::write(files.path("scores.npy"), bytes).unwrap();
        files.refused("9", &["scores.npy", "2-D float32", "header", extent]);
    }
}

#[test]
fn a_k_outside_its_limits_is_refused() {
    let files = some_files();
    files.refused("0", &["k is 0", "1..=4096"]);
    files.refused("5000", &["k is 5000", "1..=4096"]);
    files.refused("-3", &["-3"]);
    files.refused("many", &["many"]);
}

#[test]
fn an_output_folder_that_does_not_exist_is_refused() {
    let files = some_files();
    let mut command = Command::new(executable());
    command.args(["--k", "3", "--backend", "emulator"]);
    command.arg("--scores").arg(files.path("scores.npy")).arg("--lengths").arg(files.path("lengths.npy"));
    command.arg("--out").arg(files.path("nowhere/out.npy"));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("nowhere/out.npy") && text.contains("check that the path"), "{text}");
    assert!(!Path::exists(&files.path("nowhere")));
}

#[test]
fn a_gpu_that_this_build_or_machine_lacks_is_refused() {
    if backend::chosen().unwrap() == backend::Choice::Gpu {
        return;
    }
    let files = some_files();
    let output = files.run_on("gpu", "3");
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("GPU") || text.contains("CUDA"), "{text}");
        assert!(!files.path("out.npy").exists());
    }
}
