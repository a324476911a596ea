//! Forced paths, limits on multiprocessors, and what a plan promises.

use dsa_kernels::topk::{Path, ScoreType, TopK, TopKBuilder};
use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::distribution::Distribution;

use crate::support::{check_with, device, scaled, seed};

#[test]
fn every_forced_path_is_exact_where_it_can_run() {
    let seed = seed(31);
    let device = device(seed);
    let all =
        [Path::Auto, Path::Resident, Path::Sampled, Path::Cluster, Path::Decode, Path::Medium, Path::Large];
    for path in all {
        for len in scaled(vec![2_500, 8_192], vec![2_500, 8_192, 20_000, 100_000]) {
            let mut lengths = vec![len as i32, 2_049, 100, len as i32 / 2 + 1, -1];
            lengths.truncate(scaled(4, 5));
            let spec = BatchSpec::new(Distribution::Normal, seed, len, lengths).with_distributions(&[
                Distribution::Normal,
                Distribution::NanMixed,
                Distribution::Narrow,
            ]);
            if (path == Path::Decode && len > 8_192) || (path == Path::Resident && len > 16_377) {
                continue; // refused: see `errors`
            }
            check_with(&device, 2048, spec, |builder| builder.path(path));
        }
    }
}

/// Where there is no score, the kernels have NaN: it must not be taken for one.
#[test]
fn nan_of_16_bits_is_selected_once() {
    let seed = seed(34);
    let device = device(seed);
    for scores in [ScoreType::F16, ScoreType::Bf16] {
        for (path, len) in [(Path::Sampled, 20_000), (Path::Cluster, 9_001), (Path::Cluster, 20_003)] {
            for distribution in [Distribution::NanOnly, Distribution::RandomBits] {
                let spec = BatchSpec::full(distribution, seed, len, 1).with_scores(scores);
                let k = if distribution == Distribution::NanOnly { 2_048 } else { len.min(4_096) - 8 };
                check_with(&device, k, spec, |builder| builder.path(path));
            }
        }
    }
}

/// From 65,536 scores on at once, while others are on their way; the scores of a tile may be the last of a row.
#[test]
fn a_block_alone_counts_what_it_lists_at_once_or_afterwards() {
    let seed = seed(35);
    let device = device(seed);
    for scores in [ScoreType::F32, ScoreType::Bf16] {
        let spec = BatchSpec::new(Distribution::Normal, seed, 73_729, vec![65_536, 65_535, 73_729, 16_385])
            .with_distributions(&[Distribution::Normal, Distribution::SortedUp])
            .with_scores(scores);
        check_with(&device, 2048, spec, |builder| builder.path(Path::Sampled).max_sms(1));
    }
}

#[test]
fn the_trivial_path_takes_short_rows_whole() {
    let device = device(32);
    let spec = BatchSpec::new(Distribution::NanOnly, 32, 500, vec![0, 1, 499, 500, 501, -3]);
    check_with(&device, 500, spec, |builder| builder.path(Path::Trivial));
}

#[test]
fn a_limit_on_multiprocessors_limits_the_grid() {
    let seed = seed(33);
    let device = device(seed);
    for max_sms in [1, 2] {
        for len in [5_000, scaled(34_000, 300_000)] {
            let spec = BatchSpec::full(Distribution::Normal, seed, len, scaled(3, 50));
            check_with(&device, 2048, spec, |builder| builder.max_sms(max_sms));
        }
    }
    let grid = |limit: fn(TopKBuilder) -> TopKBuilder| {
        let builder = limit(TopK::builder(2048).max_rows(1000).max_len(1_000_000));
        builder.build(&device).unwrap().plan().launch_config(1000).grid
    };
    let (one, two, all) = (grid(|b| b.max_sms(1)), grid(|b| b.max_sms(2)), grid(|b| b));
    assert!(one < two && two < all, "grids {one}, {two}, {all}");
}
