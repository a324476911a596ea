//! Pitch, alignment, and what lies around the rows.

use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::distribution::Distribution;

use crate::support::{build, check, device, scaled, seed, selector};

#[test]
fn any_pitch_and_alignment_is_right() {
    let seed = seed(21);
    let device = device(seed);
    for max_len in scaled(vec![3_001, 9_002, 33_003], vec![3_001, 9_002, 33_003, 131_071]) {
        for offset in 0..4 {
            let pitch = max_len + [0, 1, 2, 3, 7, 64][(offset + max_len) % 6];
            let rows = scaled(3, 7);
            let spec = BatchSpec::full(Distribution::Normal, seed, max_len, rows).with_layout(pitch, offset);
            check(&device, 700, spec);
        }
    }
}

#[test]
fn short_rows_at_every_alignment_are_right() {
    let device = device(22);
    for offset in 0..4 {
        // Rows shorter than a vector, a warp, a block: heads and tails without a middle.
        let lengths: Vec<i32> = (1..40).chain([63, 64, 65, 127, 1_023, 1_025]).collect();
        let spec = BatchSpec::new(Distribution::Uniform, 22, 1_025, lengths).with_layout(1_027, offset);
        check(&device, 2, spec.clone());
        check(&device, 17, spec);
    }
}

#[test]
fn what_lies_behind_a_row_is_never_selected() {
    // `build` puts NaN, +inf and huge numbers behind every row; here also at lengths that end inside vectors.
    let seed = seed(23);
    let device = device(seed);
    for last in [9_000, 33_500] {
        let lengths = (0..scaled(5, 40)).map(|i| last - 5 * i).collect();
        let spec = BatchSpec::new(Distribution::Denormals, seed, last as usize + 1_000, lengths);
        check(&device, 1_000, spec.with_layout(last as usize + 1_001, 3));
    }
}

#[test]
fn the_first_rows_of_a_larger_limit_are_enough() {
    // One operator for up to 40 rows, launched with fewer: rows beyond are not touched.
    let device = device(24);
    let most = BatchSpec::full(Distribution::Normal, 24, 9_000, 40);
    let mut selector = selector(&device, 512, &most, |builder| builder);
    for rows in [1, 7, 2, 40, 3] {
        if rows == 40 && scaled(true, false) {
            continue;
        }
        let batch = build(BatchSpec::full(Distribution::Normal, rows as u64, 9_000, rows));
        selector.check(&batch).unwrap_or_else(|error| panic!("{rows} rows: {error}"));
    }
}

#[test]
fn a_batch_without_rows_touches_nothing() {
    let device = device(25);
    let most = BatchSpec::full(Distribution::Normal, 25, 1_000, 4);
    let mut selector = selector(&device, 10, &most, |builder| builder);
    selector.check(&build(BatchSpec::new(Distribution::Normal, 25, 1_000, vec![]))).unwrap();
}
