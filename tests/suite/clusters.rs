//! Rows that a cluster of blocks keeps in registers together.

use dsa_kernels::topk::{Order, Path, ScoreType, Ties, TopKBuilder};
use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::distribution::Distribution;

use crate::support::{build, check_with, device, scaled, seed, selector};

fn forced(builder: TopKBuilder) -> TopKBuilder {
    builder.path(Path::Cluster)
}

fn ordered(builder: TopKBuilder) -> TopKBuilder {
    forced(builder).ties(Ties::LowestIndex).order(Order::AscendingIndex)
}

/// Limits for which a plan for few multiprocessors has clusters of 2, 4, 8 and 16 blocks.
const SIZES: [(usize, usize, u32); 5] =
    [(2, 17_001, 2), (1, 34_005, 4), (1, 70_007, 8), (5, 70_007, 16), (1, 140_009, 4)];

#[test]
fn clusters_of_every_size_are_exact_on_every_distribution() {
    let seed = seed(141);
    let device = device(seed);
    for (rows, len, size) in SIZES {
        let spec = |distribution| BatchSpec::full(distribution, seed, len, rows);
        let planned =
            selector(&device, 2048, &spec(Distribution::Normal), forced).topk.plan().slices(rows as u32);
        // A GPU has room for larger ones.
        assert!(planned == scaled(size, planned), "{planned} blocks for {rows} x {len}");
        for &distribution in Distribution::ALL {
            check_with(&device, 2048, spec(distribution), forced);
        }
        for distribution in [Distribution::Normal, Distribution::AllEqual, Distribution::SortedDown] {
            check_with(&device, 512, spec(distribution), ordered);
        }
    }
}

/// Rows that are too long for the registers of two blocks, and so many that no cluster has more.
#[test]
fn slices_that_are_too_long_for_registers_are_streamed() {
    let seed = seed(145);
    let device = device(seed);
    let (rows, len) = scaled((2, 65_603), (64, 70_003));
    let spec = |distribution| BatchSpec::full(distribution, seed, len, rows);
    let plan = selector(&device, 2048, &spec(Distribution::Normal), forced).topk.plan().clone();
    assert_eq!((plan.slices(rows as u32), plan.path_of(len as u32)), (2, Path::Cluster));
    for &distribution in Distribution::ALL {
        check_with(&device, 2048, spec(distribution), forced);
        check_with(&device, 4096, spec(distribution), ordered);
    }
    let lengths = [0, 512, 513, 8_192, 16_385, 32_768, 32_769, 40_000, 65_600, i32::MAX];
    for scores in [ScoreType::F32, ScoreType::F16, ScoreType::Bf16] {
        for lengths in lengths.chunks(rows) {
            let spec = BatchSpec::new(Distribution::Normal, seed, len, lengths.to_vec()).with_scores(scores);
            check_with(&device, 512, spec.clone(), forced);
            check_with(&device, 512, spec.with_distributions(Distribution::ALL), ordered);
        }
    }
}

#[test]
fn rows_of_all_lengths_share_a_launch_of_clusters() {
    let seed = seed(142);
    let device = device(seed);
    let lengths = vec![0, -1, 1, 700, 701, 4_096, 4_097, 8_192, 8_193, 16_384, 16_385, 24_000, i32::MAX];
    for scores in [ScoreType::F32, ScoreType::F16, ScoreType::Bf16] {
        let spec = BatchSpec::new(Distribution::Normal, seed, 24_001, lengths.clone()).with_scores(scores);
        check_with(&device, 700, spec.clone(), forced);
        check_with(&device, 700, spec.with_distributions(Distribution::ALL), ordered);
    }
}

/// Slices that are too long for one bitmap, and one of the two has all that is selected.
#[test]
fn slices_of_which_nothing_is_selected_have_nothing_to_sort() {
    let seed = seed(148);
    let device = device(seed);
    let (rows, len) = (scaled(2, 64), 140_003);
    let spec = |distribution| BatchSpec::full(distribution, seed, len, rows);
    assert_eq!(
        selector(&device, 2048, &spec(Distribution::Normal), ordered).topk.plan().slices(rows as u32),
        2
    );
    for distribution in [Distribution::SortedUp, Distribution::SortedDown, Distribution::MaximaAtEnd] {
        check_with(&device, 2048, spec(distribution), ordered);
    }
}

#[test]
fn slices_that_are_too_long_for_the_registers_of_the_largest_cluster_are_streamed() {
    let seed = seed(143);
    let device = device(seed);
    // 16 blocks have registers for 262,144 elements.
    for distribution in [Distribution::Normal, Distribution::Quantised] {
        let spec = BatchSpec::full(distribution, seed, 262_200, 1);
        check_with(&device, 2048, spec.clone(), forced);
        check_with(&device, 2048, spec, ordered);
    }
}

/// Half-precision values next to 1 are 1/1024 apart; a bin has 16 of them.
#[test]
fn a_bin_of_any_size_is_told_apart() {
    let seed = seed(144);
    let device = device(seed);
    let (len, wanted) = (34_005_usize, 1_000);
    let spec = BatchSpec::full(Distribution::Normal, seed, len, 1);
    let mut batch = build(spec.clone());
    let mut selector = selector(&device, wanted, &spec, forced);
    // Up to 512 elements are ranked by 2 or 4 blocks, up to 1,024 by 8; some of each are wanted.
    for in_bin in [2, 511, 512, 513, 1_023, 1_024, 1_025, 20_000] {
        for place_of in [|i: usize| i, |i: usize| 33_000 - i, |i: usize| i * 7_919 % 34_005] {
            batch.scores.iter_mut().enumerate().for_each(|(i, score)| *score = -1.0 - i as f32);
            let above = wanted - 1_000.min(in_bin / 2).max(1);
            (0..above).for_each(|i| batch.scores[place_of(i)] = 100.0 + i as f32);
            for i in 0..in_bin {
                batch.scores[place_of(above + i)] = 1.0 + (i * 613 % in_bin) as f32 * 1e-7;
            }
            selector.check(&batch).unwrap_or_else(|error| panic!("{in_bin} in the bin: {error}"));
        }
    }
}
