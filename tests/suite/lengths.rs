//! Lengths are signed, untrusted, and different in each row.

use std::collections::BTreeSet;

use dsa_kernels::Workspace;
use dsa_kernels::topk::{Path, TopK};
use dsa_kernels_tests::backend;
use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::distribution::Distribution;
use dsa_kernels_tests::shapes;

use crate::support::{assert_teams_worked, check, check_with, device, scaled, seed};

#[test]
fn lengths_around_every_threshold_are_exact_in_one_batch() {
    let seed = seed(11);
    let device = device(seed);
    for k in scaled(vec![2048], vec![1, 512, 1024, 2048, 4096]) {
        let max_len = scaled(33_000, 140_000);
        let lengths = shapes::threshold_lengths(k, max_len);
        let spec = BatchSpec::new(Distribution::Normal, seed, max_len, lengths).with_distributions(&[
            Distribution::Normal,
            Distribution::Quantised,
            Distribution::Real,
        ]);
        check(&device, k, spec);
    }
}

#[test]
fn lengths_around_k_are_exact_for_odd_k() {
    let seed = seed(12);
    let device = device(seed);
    for k in [1, 2, 3, 5, 31, 33, 100, 1023, 1025, 4095, 4096] {
        let lengths = [-1, 0, 1, 1, 2, 3].iter().map(|d| k as i32 + d).chain([1, 4_200]).collect();
        let spec = BatchSpec::new(Distribution::Uniform, seed, 4_200, lengths).with_layout(4_203, 0);
        check(&device, k, spec);
    }
}

#[test]
fn lengths_of_graph_padding_rows_are_empty_rows() {
    let device = device(13);
    for lengths in [vec![-1], vec![0], vec![i32::MIN; 9], vec![-1, 5, -7, 3_000, 0, 10_000, -1]] {
        check(&device, 64, BatchSpec::new(Distribution::Normal, 13, 10_000, lengths.clone()));
        check(&device, 2048, BatchSpec::new(Distribution::NanMixed, 13, 33_000, lengths));
    }
}

#[test]
fn lengths_beyond_the_row_are_clamped() {
    let device = device(14);
    for max_len in [1, 100, 9_001, 33_001] {
        let lengths = vec![max_len as i32 + 1, i32::MAX, max_len as i32, 2 * max_len as i32];
        let spec = BatchSpec::new(Distribution::Uniform, 14, max_len, lengths);
        check(&device, 300, spec.clone().with_layout(max_len + 5, 1));
    }
}

#[test]
fn long_and_short_rows_in_turn_stay_exact() {
    let seed = seed(15);
    let device = device(seed);
    // On the emulator five long rows for two teams of two blocks.
    let (rows, max_len) = scaled((13, 80_000), (200, 163_840));
    for pick in scaled(vec![&Distribution::ALL[..3]], vec![&Distribution::ALL[..1], Distribution::ALL]) {
        let lengths = shapes::long_short_long(rows, max_len);
        let spec = BatchSpec::new(Distribution::Normal, seed, max_len, lengths).with_distributions(pick);
        for k in [2048, 512] {
            check(&device, k, spec.clone());
            // Teams of blocks take the longest rows, one after the other.
            let lengths =
                spec.lengths.iter().map(|&len| if len > 32_768 { len } else { len.min(500) }).collect();
            let teams = BatchSpec { lengths, ..spec.clone() };
            check_with(&device, k, teams, |builder| builder.path(Path::Large));
            assert_teams_worked(&device);
        }
    }
}

#[test]
fn rows_far_shorter_than_the_limit_stay_exact() {
    let seed = seed(16);
    let device = device(seed);
    // A 40K row in a buffer for 160K, alone, and one long row among many short ones.
    let long = scaled(36_000, 40_000);
    let max_len = 160_000;
    check(&device, 2048, BatchSpec::new(Distribution::Normal, seed, max_len, vec![long]));
    let mut lengths = vec![4_000; scaled(7, 127)];
    lengths.push(scaled(long, 160_000));
    check(&device, 2048, BatchSpec::new(Distribution::Normal, seed, max_len, lengths));
}

#[test]
fn rows_are_read_as_far_as_they_are_valid_and_no_further() {
    let device = device(18);
    // The emulator counts what kernels read; a GPU does not tell.
    if device.emulator_statistics().is_none() {
        eprintln!("skipped: not an emulator");
        return;
    }
    // Bytes read for rows of these lengths beyond what as many empty rows read.
    let read = |path, max_len: usize, lengths: Vec<i32>| {
        let run = |lengths| {
            let spec = BatchSpec::new(Distribution::Normal, 18, max_len, lengths);
            check_with(&device, 2048, spec, |builder| builder.path(path));
            device.emulator_statistics().unwrap_or_default()
        };
        let empty = run(vec![0; lengths.len()]).global_read_bytes;
        let statistics = run(lengths);
        // A block that waits reads a counter each time it looks.
        statistics.global_read_bytes - empty - 4 * statistics.spins
    };
    assert_eq!(read(Path::Auto, 100_000, vec![2048, 1, 0, -1, 100]), 0, "trivial rows");
    let within = |bytes: u64, scores: u64, percent: u64| {
        assert!(bytes >= scores && bytes <= scores + scores * percent / 100, "{bytes} bytes for {scores}");
    };
    // The row once, and once more the few elements that are ranked.
    within(read(Path::Auto, 100_000, vec![8_000; 6]), 6 * 4 * 8_000, 2);
    within(read(Path::Auto, 100_000, vec![16_000; 3]), 3 * 4 * 16_000, 2);
    // The row once, the sample, and once more what passes the threshold: in one slice, then in several.
    within(read(Path::Auto, 100_000, vec![100_000; 9]), 9 * 4 * 100_000, 12);
    within(read(Path::Auto, 400_000, vec![400_000]), 4 * 400_000, 30);
    // The paths of the origin. Each thread reads the length of a row that is selected once more.
    let bytes_of_lengths = |rows: u64| 4 * 1024 * rows;
    let (bytes, scores) = (read(Path::Decode, 8_192, vec![8_000; 6]), 6 * 4 * 8_000);
    assert_eq!(bytes, scores + bytes_of_lengths(6), "decode: the row once");
    let (bytes, scores) = (read(Path::Medium, 100_000, vec![32_000; 3]), 3 * 4 * 32_000);
    assert_eq!(bytes, 2 * scores + bytes_of_lengths(3), "medium: the row twice");
    let (bytes, scores) = (read(Path::Large, 100_000, vec![100_000, 100]), 4 * 100_000);
    assert!(bytes >= scores && bytes < 2 * scores, "large: {bytes} bytes for {scores}");
}

#[test]
fn sequence_lengths_give_each_predicted_token_its_own_length() {
    let seed = seed(17);
    let device = device(seed);
    for (next_n, ratio) in [(1, 1), (2, 1), (3, 1), (4, 1), (8, 1), (1, 4), (2, 4), (3, 128), (8, 128)] {
        let seq_lens = [1, 2, 7, 130, 1_029, 8_194, 0, -1, i32::MIN, 40_003, i32::MAX, 3_000];
        let max_len = 9_000usize.div_ceil(ratio.min(2));
        let count = scaled(12 / next_n.min(4), 12);
        let offset = next_n % 3 * 4; // which sequences an emulated batch has
        let lengths = (0..count).map(|i| seq_lens[(i + offset) % seq_lens.len()]).collect();
        let spec = BatchSpec::new(Distribution::Normal, seed, max_len, lengths).with_sequences(next_n, ratio);
        check(&device, 128, spec);
    }
}

/// As an indexer leaves it that writes each row as far as it is long.
#[test]
fn what_lies_behind_a_row_may_never_have_been_written() {
    let device = device(seed(25));
    let stream = device.stream().unwrap();
    let mut workspace = Workspace::new(&device);
    let k = 64;
    for max_len in [4_096_u32, 4_099, 8_192, 16_384, 40_000] {
        let lengths = [3_000_i32, 0, 65, 2_001];
        let rows = lengths.len() as u32;
        let builder = TopK::builder(k).max_rows(rows).max_len(max_len);
        let mut topk = builder.build_with(&device, &backend::topk().unwrap()).unwrap();
        let scores = device.alloc::<f32>((rows * max_len) as usize).unwrap();
        for (row, &len) in lengths.iter().enumerate() {
            let ascending: Vec<f32> = (0..len).map(|i| i as f32).collect();
            scores.upload_at(row * max_len as usize, &ascending).unwrap();
        }
        let on_device = device.upload(&lengths).unwrap();
        let mut out = device.alloc::<i32>((rows * k) as usize).unwrap();
        // SAFETY: one stream; nothing else writes the inputs.
        unsafe {
            topk.enqueue_buffers(&stream, &mut workspace, &scores, max_len.into(), &on_device, rows, &mut out)
        }
        .unwrap();
        stream.synchronize().unwrap();
        let out = out.download().unwrap();
        for (row, &len) in out.chunks(k as usize).zip(&lengths) {
            let found: BTreeSet<i32> = row.iter().copied().filter(|&index| index >= 0).collect();
            let expected: BTreeSet<i32> = ((len - k as i32).max(0)..len).collect();
            assert_eq!(found, expected, "{len} of {max_len}");
        }
    }
}
