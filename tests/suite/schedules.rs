//! Interleavings: the emulator tries orders of blocks and threads that a GPU rarely shows.
//!
//! On a GPU these tests repeat the launch instead: its scheduler is the one there is.

use dsa_kernels::topk::{Order, Path, ScoreType, TopKBuilder};
use dsa_kernels::{Device, EmulatorOptions, Error};
use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::distribution::Distribution;
use dsa_kernels_tests::harness::RunError;

use crate::support::{
    assert_slices_worked, assert_teams_worked, build, check_with, device, on_gpu, scaled, seed, selector,
};

/// The emulator with these options, or the GPU.
fn device_with(options: EmulatorOptions) -> Device {
    if on_gpu() { device(0) } else { Device::emulator_with(options) }
}

/// A batch that takes every path, with more rows than blocks.
fn mixed(seed: u64) -> BatchSpec {
    let max_len = 80_000;
    let lengths = vec![max_len as i32, 100, 2_500, 33_100, max_len as i32 - 77, 0, 33_000, 8_500, -1, 40_000];
    BatchSpec::new(Distribution::Normal, seed, max_len, lengths).with_distributions(&[
        Distribution::Normal,
        Distribution::Quantised,
        Distribution::Narrow,
    ])
}

/// Five rows for teams of blocks, and others that no team takes.
///
/// The five are more than the teams that two or four multiprocessors form, each of two blocks: a team takes
/// several rows in turn.
fn for_teams(seed: u64) -> BatchSpec {
    let spec = mixed(seed);
    let lengths = spec.lengths.iter().map(|&len| if len > 32_768 { len } else { len.min(2_048) }).collect();
    BatchSpec { lengths, ..spec }
}

/// Three rows, so few that the long ones are cut into slices.
fn sliced(seed: u64) -> BatchSpec {
    BatchSpec::new(Distribution::Normal, seed, 60_000, vec![60_000, 20_000, 41_001])
}

#[test]
fn every_schedule_gives_the_right_set() {
    let first = seed(61);
    for seed in first..first + scaled(16, 20) {
        let device = device_with(EmulatorOptions { seed, multiprocessors: 8, ..EmulatorOptions::default() });
        check_with(&device, 2048, mixed(seed), |builder| builder.max_sms(4));
        check_with(&device, 2048, sliced(seed), |builder| builder.max_sms(8));
        assert_slices_worked(&device);
        check_with(&device, 2048, for_teams(seed), |builder| builder.max_sms(4).path(Path::Large));
        assert_teams_worked(&device);
    }
}

/// Each block hands over its list as it has marked it, whoever is first. With k = 4,096 a thread has more of the list than with
/// less. Less than four slices hand over what they list as it is.
#[test]
fn slices_of_an_ordered_row_hand_over_what_they_list_in_any_order() {
    let first = seed(68);
    for (number, (k, multiprocessors)) in
        [(512, 16), (2_048, 4), (4_096, 16), (4_096, 4), (1_024, 5)].into_iter().enumerate()
    {
        let seed = first + number as u64;
        let device = device_with(EmulatorOptions { seed, multiprocessors, ..EmulatorOptions::default() });
        for distribution in
            [Distribution::Normal, Distribution::SortedUp, Distribution::Quantised, Distribution::ReluZeros]
        {
            for lengths in [vec![100_003], vec![70_001, 3_000, 40_000]] {
                let scores = ScoreType::ALL[number % ScoreType::ALL.len()];
                let spec = BatchSpec::new(distribution, seed, 100_003, lengths).with_scores(scores);
                check_with(&device, k, spec, |builder| {
                    builder.path(Path::Sampled).order(Order::AscendingIndex).values(true)
                });
                assert_slices_worked(&device);
            }
        }
    }
}

/// Four slices of some 75,000 elements each, of which a thread has words of both halves of the marks, and of 150,000, for which
/// there are too few marks: what they list is handed over as it is.
#[test]
fn slices_of_an_ordered_row_may_be_longer_than_their_marks() {
    let seed = seed(76);
    let device = device_with(EmulatorOptions { seed, multiprocessors: 4, ..EmulatorOptions::default() });
    for distribution in [Distribution::Normal, Distribution::SortedUp] {
        for len in [300_001, 600_003] {
            let spec = BatchSpec::new(distribution, seed, len as usize, vec![len]);
            check_with(&device, 2_048, spec, |builder| {
                builder.path(Path::Sampled).order(Order::AscendingIndex)
            });
            assert_slices_worked(&device);
        }
    }
}

/// By ranks up to 131,072 indices, of which more than half as many have words of a second half; beyond that by buckets.
#[test]
fn rows_of_one_block_are_sorted_whatever_their_length() {
    let first = seed(69);
    for (number, k) in [2_048, 4_096].into_iter().enumerate() {
        let seed = first + number as u64;
        let device = device_with(EmulatorOptions { seed, multiprocessors: 1, ..EmulatorOptions::default() });
        let lengths = vec![16_500, 32_769, 65_537, 131_072, 131_073, 140_000];
        let spec = BatchSpec::new(Distribution::Normal, seed, 140_000, lengths);
        check_with(&device, k, spec, |builder| {
            builder.path(Path::Sampled).order(Order::AscendingIndex).max_sms(1)
        });
    }
}

#[test]
fn the_result_does_not_depend_on_how_many_blocks_run_at_once() {
    let seed = seed(62);
    // One block alone; one team of two for all long rows; one team of two for each, and a block left over.
    for multiprocessors in [1, 2, 11] {
        let options = EmulatorOptions { seed, multiprocessors, ..EmulatorOptions::default() };
        let device = device_with(options);
        check_with(&device, 2048, mixed(seed), |builder| builder.max_sms(multiprocessors));
        let large = |builder: TopKBuilder| builder.max_sms(multiprocessors).path(Path::Large);
        check_with(&device, 2048, for_teams(seed), large);
        if multiprocessors > 1 {
            assert_teams_worked(&device);
        }
    }
    if on_gpu() {
        check_with(&device(seed), 2048, mixed(seed), |builder| builder);
    }
}

#[test]
fn paths_without_co_residency_run_one_block_at_a_time() {
    let seed = seed(63);
    let options = EmulatorOptions { seed, resident_blocks: Some(1), ..EmulatorOptions::default() };
    let device = device_with(options);
    // No block waits for another, not even those that have slices of the same row.
    let lengths = vec![8_192, 20_000, 3, 9_000, 5_000, 2_049, -1];
    let spec = BatchSpec::new(Distribution::Normal, seed, 20_000, lengths);
    for path in [Path::Auto, Path::Medium] {
        check_with(&device, 2048, spec.clone(), |builder| builder.path(path));
    }
    check_with(&device, 2048, sliced(seed), |builder| builder);
    assert_slices_worked(&device);
    // One multiprocessor, and so one block of the large path: alone in its group.
    check_with(&device, 2048, mixed(seed), |builder| builder.max_sms(1).path(Path::Large));
}

#[test]
fn short_rows_share_blocks_beside_long_ones() {
    let seed = seed(66);
    let device = device_with(EmulatorOptions { seed, multiprocessors: 12, ..EmulatorOptions::default() });
    // One to ten short rows and one or two long ones on twelve blocks, of which up to four are for the short ones.
    let short = [5_000, 100, 16_300, 0, 2_500, 3_000, -1, 4_097, 64, 9_999];
    for count in [1, 3, 4, 9, 10] {
        for long in [&[60_000][..], &[50_000, 17_000]] {
            let rows = 11.min(count + long.len()) - long.len();
            let mut lengths = long.to_vec();
            lengths.extend(&short[..rows]);
            // Long ones first, last, and in the midst.
            for turn in [0, 1, rows / 2] {
                lengths.rotate_left(turn);
                let spec = BatchSpec::new(Distribution::Normal, seed, 60_000, lengths.clone());
                check_with(&device, 64, spec, |builder| builder.max_sms(12));
                assert_slices_worked(&device);
            }
        }
    }
}

#[test]
fn rows_are_streamed_through_any_number_of_tiles() {
    let seed = seed(67);
    // Eight tiles for few rows, two for many, one on a device with little shared memory.
    for (kib, lengths) in [
        (227, vec![60_001, 30_000]),
        (227, vec![60_001, 17_000, 40_002, 16_385, 20_003]),
        (99, vec![60_001, 30_000]),
        (99, vec![60_001, 17_000, 40_002, 16_385, 20_003]),
    ] {
        let options = EmulatorOptions {
            seed,
            multiprocessors: 2,
            shared_bytes_per_block: kib << 10,
            ..EmulatorOptions::default()
        };
        let device = device_with(options);
        for (scores, offset) in [(ScoreType::F32, 1), (ScoreType::F32, 0), (ScoreType::Bf16, 3)] {
            let spec = BatchSpec {
                scores,
                offset,
                ..BatchSpec::new(Distribution::Normal, seed, 60_001, lengths.clone())
            };
            check_with(&device, 512, spec, |builder| builder.max_sms(2));
        }
    }
}

#[test]
fn blocks_that_would_wait_for_blocks_that_cannot_run_are_refused() {
    if on_gpu() {
        eprintln!("skipped: a GPU holds all blocks of every plan");
        return;
    }
    let options = EmulatorOptions { resident_blocks: Some(3), ..EmulatorOptions::default() };
    let device = Device::emulator_with(options);
    let batch = build(BatchSpec::full(Distribution::Normal, 65, 40_000, 1));
    let mut refused = selector(&device, 2048, &batch.spec, |builder| builder.path(Path::Large));
    let error = refused.check(&batch).expect_err("4 blocks wait for each other, 3 can run");
    assert!(
        matches!(error, RunError::Library(Error::CooperativeTooLarge { grid: 4, limit: 3, .. })),
        "{error:?}"
    );
    check_with(&device, 2048, batch.spec, |builder| builder.max_sms(3).path(Path::Large));
}

#[test]
fn small_shared_memory_does_not_change_the_result() {
    let seed = seed(64);
    for shared_bytes_per_block in [99 * 1024, 163 * 1024] {
        let options = EmulatorOptions {
            seed,
            shared_bytes_per_block,
            compute_capability: (8, 6),
            ..EmulatorOptions::default()
        };
        let device = device_with(options);
        let spec = BatchSpec::full(Distribution::Normal, seed, scaled(120_000, 1_000_000), 1);
        for path in [Path::Auto, Path::Large] {
            check_with(&device, 2048, spec.clone(), |builder| builder.path(path));
        }
    }
}
