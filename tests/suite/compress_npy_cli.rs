//! The example `compress_npy`, run as a user runs it: on good files, and on bad ones.

use std::path::PathBuf;
use std::process::{Command, Output};

use dsa_kernels::compress::NumberType;
use dsa_kernels_tests::compress::reference::{Kept, Sequence, Shape, check_row};
use dsa_kernels_tests::random::Random;
use dsa_kernels_tests::{backend, npy};
use ndarray::{Array, Array1, Array2, Array3, Ix2, Ix3};
use ndarray_npy::WriteNpyExt as _;
use tempfile::TempDir;

/// The files that the example reads, with the options that name them.
const INPUTS: [&str; 9] =
    ["kv-score", "ape", "kv-pool", "score-pool", "kv-blocks", "score-blocks", "kv-lens", "cu-new", "cu-out"];
/// Those that it writes.
const OUTPUTS: [&str; 3] = ["out", "kv-pool-out", "score-pool-out"];

/// The example: next to this test where binaries are staged, else where cargo puts examples.
fn executable() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().unwrap();
    let name = format!("compress_npy{}", std::env::consts::EXE_SUFFIX);
    let places = [folder.join(&name), folder.join("../examples").join(&name)];
    let found = places.iter().find(|place| place.is_file());
    found.unwrap_or_else(|| panic!("no {places:?}; build it with cargo build --example compress_npy")).clone()
}

struct Files {
    folder: TempDir,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.npy"))
    }

    fn write<T: ndarray_npy::WritableElement, D: ndarray::Dimension>(&self, name: &str, array: &Array<T, D>) {
        array.write_npy(std::fs::File::create(self.path(name)).unwrap()).unwrap();
    }

    fn run(&self, options: &[&str]) -> Output {
        let backend = match backend::chosen().unwrap() {
            backend::Choice::Emulator => "emulator",
            backend::Choice::Gpu => "gpu",
        };
        let mut command = Command::new(executable());
        command.args(["--backend", backend]).args(options);
        for name in INPUTS.into_iter().chain(OUTPUTS) {
            command.arg(format!("--{name}")).arg(self.path(name));
        }
        command.output().unwrap()
    }

    fn accepted(&self, options: &[&str]) -> (Array2<f32>, [Array3<f32>; 2]) {
        let output = self.run(options);
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        let pool = |name: &str| npy::read::<f32, Ix3>(&self.path(name), "3-D float32").unwrap();
        let rows = npy::read::<f32, Ix2>(&self.path("out"), "2-D float32").unwrap();
        (rows, ["kv-pool-out", "score-pool-out"].map(pool))
    }

    /// Requires that the example fails, says `words`, and writes nothing.
    fn refused(&self, options: &[&str], words: &[&str]) {
        let output = self.run(options);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{}: {text}", output.status);
        assert!(!text.contains("panicked"), "{text}");
        for word in words {
            assert!(text.contains(word), "{text:?} lacks {word:?}");
        }
        for name in OUTPUTS {
            assert!(!self.path(name).exists(), "{name} was written: {text}");
        }
    }
}

/// Tokens of a page.
const PAGE: usize = 5;

/// Two requests with windows of 4, in float32: one closes windows 1 and 2 with 6 new tokens, one stores 2. Returns what
/// the first has then, and its new rows.
fn good() -> (Files, Shape, Sequence) {
    let shape = Shape {
        ratio: 4,
        head_dim: 128,
        kv: NumberType::F32,
        state: NumberType::F32,
        output: NumberType::F32,
    };
    let files = Files { folder: tempfile::tempdir().unwrap() };
    let (width, mut random) = (shape.width(), Random::new(3));
    let mut numbers = |count: usize| (0..count).map(|_| random.normal()).collect::<Vec<_>>();
    let ape = numbers(4 * width);
    let kv_score = numbers(8 * 2 * width);
    let pools = [numbers(6 * PAGE * width), numbers(6 * PAGE * width)];
    let tables = [[[5, 0, 2], [4, 1, -1]], [[1, 3, 0], [2, 5, -1]]];

    let mut sequence = Sequence::default();
    let (start, len) = (6, 12);
    for position in 0..len {
        let kept = if position < start {
            let row = |pool: usize| {
                let page = tables[pool][0][position / PAGE] as usize;
                pools[pool][(page * PAGE + position % PAGE) * width..][..width].to_vec()
            };
            Kept { kv: row(0), score: row(1) }
        } else {
            Kept::of(&shape, &ape, position, &kv_score[(position - start) * 2 * width..][..2 * width])
        };
        sequence.tokens.insert(position, kept);
    }

    files.write("kv-score", &Array2::from_shape_vec((8, 2 * width), kv_score).unwrap());
    files.write("ape", &Array2::from_shape_vec((4, width), ape).unwrap());
    for (pool, name) in ["kv", "score"].into_iter().enumerate() {
        let numbers = pools[pool].clone();
        files.write(&format!("{name}-pool"), &Array3::from_shape_vec((6, PAGE, width), numbers).unwrap());
        let table = tables[pool].as_flattened().to_vec();
        files.write(&format!("{name}-blocks"), &Array2::from_shape_vec((2, 3), table).unwrap());
    }
    files.write("kv-lens", &Array1::from(vec![len as i32, 3]));
    files.write("cu-new", &Array1::from(vec![0, 6, 8]));
    files.write("cu-out", &Array1::from(vec![1, 3, 3]));
    (files, shape, sequence)
}

const TYPES: [&str; 8] = ["--ratio", "4", "--kv", "f32", "--state", "f32", "--output", "f32"];

#[test]
fn rows_and_pools_are_right_by_either_kernel() {
    let (files, shape, sequence) = good();
    for more in [&["--next-n", "6"][..], &["--prefill"], &["--warps", "1"]] {
        let (rows, [kv, score]) = files.accepted(&[&TYPES[..], more].concat());
        assert_eq!(rows.dim(), (3, 128));
        assert!(rows.row(0).iter().all(|number| number.is_nan()), "a row without a window was written");
        for window in [1, 2] {
            let got: Vec<_> = rows.row(window).to_vec();
            check_row(NumberType::F32, &sequence.window(&shape, window), &got)
                .unwrap_or_else(|error| panic!("{more:?}: window {window}: {error}"));
        }
        // Token 11 of the first request is row 1 of its third page.
        let kept = &sequence.tokens[&11];
        let row = |pool: &Array3<f32>, page: usize| pool.slice(ndarray::s![page, 1, ..]).to_vec();
        assert_eq!((row(&kv, 2), row(&score, 0)), (kept.kv.clone(), kept.score.clone()));
    }
}

#[test]
fn numbers_of_bf16_are_rounded() {
    let (files, _, _) = good();
    let (rows, [kv, score]) = files.accepted(&["--ratio", "4", "--state", "bf16"]);
    let numbers = rows.iter().skip(128).chain(&kv).chain(&score);
    assert!(numbers.clone().all(|number| number.to_bits() & 0xffff == 0));
}

#[test]
fn arrays_of_another_type_or_shape_are_refused() {
    let (files, _, _) = good();
    files.write("kv-score", &Array2::<f64>::zeros((8, 512)));
    files.refused(&TYPES, &["kv-score.npy", "2-D float32"]);
    files.write("kv-score", &Array2::<f32>::zeros((8, 510)));
    files.refused(&TYPES, &["kv_score", "510"]);
    let (files, _, _) = good();
    files.write("score-pool", &Array3::<f32>::zeros((6, PAGE + 1, 256)));
    files.refused(&TYPES, &["score.pool", "6"]);
    let (files, _, _) = good();
    files.write("cu-new", &Array1::from(vec![0i32, 6]));
    files.refused(&TYPES, &["cu_new", "3"]);
    files.write("cu-out", &Array1::from(vec![0i32, 1, -2]));
    files.refused(&TYPES, &["--cu-out", "-2"]);
    files.write("cu-out", &Array1::<i32>::from(vec![]));
    files.refused(&TYPES, &["--cu-out", "no elements"]);
    std::fs::remove_file(files.path("kv-lens")).unwrap();
    files.refused(&TYPES, &["kv-lens.npy", "check that the path is right"]);
}

#[test]
fn what_no_kernel_is_compiled_for_is_refused_with_the_tuple() {
    let (files, _, _) = good();
    files.refused(&["--ratio", "8"], &["256", "8"]);
    files.refused(&[&TYPES[..], &["--warps", "3"]].concat(), &["3"]);
    files.refused(&[&TYPES[..], &["--next-n", "9"]].concat(), &["next_n", "1..=8"]);
    files.refused(&[&TYPES[..], &["--next-n", "2", "--prefill"]].concat(), &["--prefill"]);
}

#[test]
fn a_bad_request_is_reported() {
    let (files, _, _) = good();
    files.write("kv-lens", &Array1::from(vec![12i32, 1]));
    files.refused(&TYPES, &["number 1", "length", "nothing was written"]);
    files.write("kv-lens", &Array1::from(vec![12i32, 11]));
    files.refused(&TYPES, &["number 1", "page"]);
    files.write("kv-lens", &Array1::from(vec![12i32, 3]));
    files.refused(&[&TYPES[..], &["--next-n", "5"]].concat(), &["number 0", "too many"]);
}
