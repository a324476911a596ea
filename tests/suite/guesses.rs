//! Rows that mislead the sample of the path `sampled`: the answer is right all the same.

use dsa_kernels::topk::{Path, TopK};
use dsa_kernels::{Device, Workspace};
use dsa_kernels_gpu::topk::sampled::Spread;
use dsa_kernels_tests::oracle;
use dsa_kernels_tests::random::Random;

use crate::support::{device, scaled, seed};

const LEN: u32 = 60_000;

/// The row of which sampled elements are `sampled` and all others `other`, of a number each.
fn planted(wanted: u32, sampled: impl Fn(u32) -> f32, other: impl Fn(u32) -> f32) -> Vec<f32> {
    let spread = Spread::of(LEN, LEN.div_ceil(4), 4, wanted);
    let mut row: Vec<f32> = (0..LEN).map(other).collect();
    for number in 0..spread.vectors() {
        let first = 4 * spread.vector(number) as usize;
        for (i, score) in row[first..first + 4].iter_mut().enumerate() {
            *score = sampled(4 * number + i as u32);
        }
    }
    row
}

/// Selects from `rows` copies of a row: in slices if there are few, by one block each if there are many.
fn check(device: &Device, row: &[f32], wanted: u32, rows: u32) {
    let stream = device.stream().unwrap();
    let mut workspace = Workspace::new(device);
    let mut topk = TopK::builder(wanted).max_rows(rows).max_len(LEN).build(device).unwrap();
    assert_eq!(topk.plan().path_of(LEN), Path::Sampled);
    assert_eq!(topk.plan().slices(rows) > 1, rows == 1);
    let scores = device.upload(&row.repeat(rows as usize)).unwrap();
    let lengths = device.upload(&vec![LEN as i32; rows as usize]).unwrap();
    let mut out = device.alloc::<i32>((rows * wanted) as usize).unwrap();
    let pitch = u64::from(LEN);
    // SAFETY: one stream, and nothing else writes the inputs.
    unsafe { topk.enqueue_buffers(&stream, &mut workspace, &scores, pitch, &lengths, rows, &mut out) }
        .unwrap();
    stream.synchronize().unwrap();
    for (number, out) in out.download().unwrap().chunks(wanted as usize).enumerate() {
        oracle::check_row(row, out).unwrap_or_else(|error| panic!("row {number} of {rows}: {error}"));
    }
}

fn check_all(name: &str, wanted: u32, row: &[f32]) {
    let device = device(seed(101));
    for rows in [1, scaled(9, 300)] {
        eprintln!("{name}: {rows} rows");
        check(&device, row, wanted, rows);
    }
}

#[test]
fn a_threshold_that_too_few_elements_pass() {
    let small = |i: u32| (i % 977) as f32 / 977.0;
    check_all("the sample is the top", 2048, &planted(2048, |i| 1000.0 + i as f32, small));
    check_all("more are wanted than the sample has", 2060, &planted(2060, |i| 1000.0 + i as f32, small));
}

#[test]
fn a_threshold_that_more_elements_pass_than_a_list_holds() {
    check_all(
        "the sample is the bottom",
        2048,
        &planted(2048, |i| -(i as f32), |i| (i * 7919 % 60_013) as f32),
    );
}

#[test]
fn a_sample_of_equal_elements() {
    let mut random = Random::new(seed(102));
    let noise: Vec<f32> = (0..LEN).map(|_| random.normal()).collect();
    let noise = |i: u32| noise[i as usize];
    check_all("as many equal ones as are wanted", 2048, &planted(2048, |_| 9.0, |i| noise(i).min(8.0)));
    check_all("fewer equal ones than are wanted", 3000, &planted(3000, |_| 9.0, |i| noise(i).min(8.0)));
    check_all("some above them", 2048, &planted(2048, |_| 1.5, noise));
    check_all("all above them", 2048, &planted(2048, |_| -9.0, noise));
    check_all("all of the row are equal", 2048, &planted(2048, |_| 1.0, |_| 1.0));
    check_all("equal infinities", 2048, &planted(2048, |_| f32::INFINITY, noise));
    check_all("only NaN is sampled", 2048, &planted(2048, |_| f32::NAN, noise));
    check_all("all but the sample is NaN", 2060, &planted(2060, |i| i as f32, |_| f32::NAN));
}

#[test]
fn survivors_that_crowd_into_one_bin_of_the_list() {
    // The largest of the sample is far away: all others share the lowest bin between.
    let crowd = |i: u32| 10.0 + (i % 50_000) as f32 * 1e-6;
    let far = |i: u32| if i == 5 { 1e30 } else { crowd(i * 31) };
    check_all("a far maximum", 2048, &planted(2048, far, crowd));
    check_all("a wide row", 2048, &planted(2048, |i| f32::from_bits(i << 19), |i| f32::from_bits(i << 15)));
}
