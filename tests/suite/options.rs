//! What an operator promises on demand: other types of scores, the lowest indices among equal scores,
//! ascending indices, values. The harness checks what the limits say.

use dsa_kernels::topk::{Order, Path, ScoreType, Ties, TopKBuilder};
use dsa_kernels::{Device, EmulatorOptions, Graph};
use dsa_kernels_tests::batch::{Answer, Batch, BatchSpec};
use dsa_kernels_tests::distribution::Distribution;
use dsa_kernels_tests::{oracle, scores};

use crate::support::{build, check_with, device, on_gpu, scaled, seed, selector};

const HALVES: [ScoreType; 2] = [ScoreType::F16, ScoreType::Bf16];

/// Distributions with many equal scores at the threshold, or none at all that are not.
const TIED: [Distribution; 9] = [
    Distribution::AllEqual,
    Distribution::TwoValues,
    Distribution::Quantised,
    Distribution::Narrow,
    Distribution::NanMixed,
    Distribution::NanOnly,
    Distribution::OneHalfBin,
    Distribution::SignedZeros,
    Distribution::StridePeriod,
];

/// The only right row: lowest indices, ascending.
fn ordered(builder: TopKBuilder) -> TopKBuilder {
    builder.ties(Ties::LowestIndex).order(Order::AscendingIndex)
}

fn everything(builder: TopKBuilder) -> TopKBuilder {
    ordered(builder).values(true)
}

/// Row lengths that are resident, and one that is sampled.
fn lengths() -> Vec<usize> {
    scaled(vec![5_003, 16_001, 34_001], vec![3_001, 16_381, 16_382, 65_537, 131_073, 1_000_001])
}

/// Checks rows of `distribution` in all ways that they may be selected: resident; sampled in slices; sampled
/// by one block each, which has no other block to share a row with.
fn check_everywhere(
    device: &Device,
    seed: u64,
    distribution: Distribution,
    kind: ScoreType,
    configure: fn(TopKBuilder) -> TopKBuilder,
) {
    let spec = |len, rows| BatchSpec::full(distribution, seed, len, rows).with_scores(kind);
    for len in lengths() {
        check_with(device, 2048, spec(len, scaled(1, 4)), configure);
    }
    let alone = spec(scaled(20_001, 200_001), 2);
    let one = |builder: TopKBuilder| configure(builder).max_sms(1);
    assert_eq!(selector(device, 2048, &alone, one).topk.plan().slices(2), 1);
    check_with(device, 2048, alone, one);
}

#[test]
fn scores_of_16_bits_are_exact_on_every_distribution() {
    let seed = seed(111);
    let device = device(seed);
    for kind in HALVES {
        for &distribution in Distribution::ALL {
            check_everywhere(&device, seed, distribution, kind, |builder| builder);
        }
    }
}

#[test]
fn the_lowest_indices_ascend_on_every_distribution() {
    let seed = seed(112);
    let device = device(seed);
    for &distribution in Distribution::ALL {
        check_everywhere(&device, seed, distribution, ScoreType::F32, ordered);
    }
}

#[test]
fn the_lowest_indices_ascend_among_equal_scores_of_16_bits() {
    let seed = seed(113);
    let device = device(seed);
    for kind in HALVES {
        // Rounding to 8 bits makes ties of everything.
        for distribution in TIED.into_iter().chain([Distribution::Normal]) {
            check_everywhere(&device, seed, distribution, kind, ordered);
        }
    }
}

#[test]
fn each_promise_is_kept_without_the_others() {
    let seed = seed(114);
    let device = device(seed);
    let lowest = |builder: TopKBuilder| builder.ties(Ties::LowestIndex);
    let ascending = |builder: TopKBuilder| builder.order(Order::AscendingIndex);
    let values = |builder: TopKBuilder| builder.values(true);
    for configure in [lowest, ascending, values] {
        for distribution in TIED.into_iter().chain([Distribution::Normal]) {
            check_everywhere(&device, seed, distribution, ScoreType::F32, configure);
        }
    }
}

#[test]
fn every_path_that_has_options_has_all_of_them() {
    let seed = seed(115);
    let device = device(seed);
    for kind in ScoreType::ALL.iter().copied() {
        for (path, max_len) in [
            (Path::Trivial, 2_048),
            (Path::Resident, 16_001),
            (Path::Sampled, scaled(20_003, 150_003)),
            (Path::Cluster, scaled(20_003, 150_003)),
            (Path::Auto, scaled(20_003, 150_003)),
        ] {
            let long = max_len as i32;
            let lengths = vec![long, 0, 1, 2_047, 2_048, 2_049, -1, 3_000, i32::MAX, long - 1];
            let spec = BatchSpec::new(Distribution::Normal, seed, max_len, lengths)
                .with_distributions(&[Distribution::Normal, Distribution::NanMixed, Distribution::TwoValues])
                .with_layout(max_len + 3, 1)
                .with_scores(kind);
            check_with(&device, 2048, spec, |builder| everything(builder).path(path));
        }
    }
}

#[test]
fn values_are_the_bits_of_the_scores_and_then_minus_infinity() {
    let seed = seed(116);
    let device = device(seed);
    for kind in ScoreType::ALL.iter().copied() {
        // Signs of zeros, payloads of NaN; rows without an element, shorter than k, as long, longer.
        for distribution in [Distribution::RandomBits, Distribution::SignedZeros, Distribution::NanOnly] {
            for (k, max_len) in [(7, 40), (2048, scaled(17_003, 100_003)), (4096, 5_001)] {
                let k_len = k as i32;
                let lengths =
                    vec![0, max_len as i32, -1, 1, k_len - 1, 5_000, k_len, i32::MIN, k_len + 1, 33];
                let spec = BatchSpec::new(distribution, seed, max_len, lengths).with_scores(kind);
                check_with(&device, k, spec, |builder| builder.values(true));
            }
        }
    }
}

#[test]
fn any_k_is_ordered_around_its_own_length() {
    let seed = seed(117);
    let device = device(seed);
    for (number, k) in [1usize, 2, 31, 32, 33, 512, 1023, 1024, 2048, 4095, 4096].into_iter().enumerate() {
        let lengths = [-1, 0, 1, 2].iter().map(|d| k as i32 + d).chain([4_999, 18_001]).collect();
        let spec = BatchSpec::new(Distribution::Quantised, seed, 18_001, lengths)
            .with_layout(18_005, number % 8)
            .with_scores(ScoreType::ALL[number % 3]);
        check_with(&device, k, spec, everything);
    }
}

/// Rows that are sorted by buckets, where the second half of what a thread holds is left out or not.
#[test]
fn any_k_ascends_in_a_row_longer_than_a_bitmap() {
    let seed = seed(131);
    let device = device(seed);
    for k in [512, 2_047, 2_048, 2_049, 3_001, 4_096] {
        for distribution in [Distribution::Normal, Distribution::Quantised] {
            for path in [Path::Sampled, Path::Cluster] {
                let spec = BatchSpec::new(distribution, seed, 40_001, vec![40_001, 33_000]);
                check_with(&device, k, spec, |builder| everything(builder).path(path));
            }
        }
    }
}

#[test]
fn scores_of_16_bits_are_right_at_every_alignment() {
    let seed = seed(118);
    let device = device(seed);
    // Rows shorter than a vector and around vectors of 8: heads and tails without a middle.
    let around =
        [1usize, 2, 3, 8, 64, 128].map(|vectors| (8 * vectors as i32 - 2)..=(8 * vectors as i32 + 2));
    let short: Vec<i32> = (1..40).chain(around.into_iter().flatten()).collect();
    for (kind, offset) in HALVES.into_iter().flat_map(|kind| (0..=8).map(move |offset| (kind, offset))) {
        for pitch in [1_026, 1_027, 1_033] {
            let spec = BatchSpec::new(Distribution::Uniform, seed, 1_026, short.clone())
                .with_layout(pitch, offset)
                .with_scores(kind);
            check_with(&device, 2, spec.clone(), |builder| builder);
            check_with(&device, 17, spec, everything);
        }
        // The buffer ends with the last row: a vector that reaches beyond it is seen.
        for max_len in [5_000 + offset, scaled(17_000, 100_000) + 7 * offset] {
            let long = max_len as i32;
            let spec = BatchSpec::new(Distribution::Normal, seed, max_len, vec![long - 9, long - 1, long])
                .with_layout(max_len + [1, 2, 5, 0][offset % 4], offset)
                .with_scores(kind);
            check_with(&device, 700, spec.clone(), |builder| builder);
            check_with(&device, 700, spec, everything);
        }
    }
}

#[test]
fn what_lies_behind_a_row_of_16_bits_is_never_selected() {
    let seed = seed(119);
    let device = device(seed);
    for (last, kind) in [(9_000, ScoreType::F16), (19_500, ScoreType::Bf16)] {
        let lengths = (0..scaled(9, 40)).map(|i| last - 5 * i).collect();
        let spec = BatchSpec::new(Distribution::Denormals, seed, last as usize + 1_000, lengths);
        let spec = spec.with_layout(last as usize + 1_001, 5).with_scores(kind);
        check_with(&device, 1_000, spec.clone(), |builder| builder);
        check_with(&device, 1_000, spec, everything);
    }
}

#[test]
fn sequence_lengths_apply_to_every_type_of_score() {
    let seed = seed(120);
    let device = device(seed);
    for (next_n, ratio) in [(2, 1), (3, 1), (8, 1), (1, 4), (3, 4), (8, 128)] {
        let seq_lens = [9_003, 1, 130, 1_029, -1, i32::MAX, 2, i32::MIN, 40_003, 3_000];
        let lengths = seq_lens[..scaled(3 + 7 / next_n, 10)].to_vec();
        let max_len = 9_000usize.div_ceil(ratio.min(2));
        let spec =
            BatchSpec::new(Distribution::Quantised, seed, max_len, lengths).with_sequences(next_n, ratio);
        for kind in ScoreType::ALL.iter().copied() {
            check_with(&device, 128, spec.clone().with_scores(kind), everything);
        }
    }
}

/// How a row is launched: in which batch, and on what.
struct Setting {
    rows: usize,
    /// The row's number in the batch.
    at: usize,
    /// Elements between rows, and before the first.
    gap: usize,
    offset: usize,
    max_sms: u32,
    multiprocessors: u32,
    resident_blocks: Option<u32>,
}

/// In slices by as many blocks as there are; by one block; in the midst of others.
fn settings() -> Vec<Setting> {
    let alone = Setting {
        rows: 1,
        at: 0,
        gap: 0,
        offset: 0,
        max_sms: u32::MAX >> 1,
        multiprocessors: 4,
        resident_blocks: None,
    };
    let (many, last) = scaled((5, 4), (300, 277));
    vec![
        Setting { ..alone },
        Setting { multiprocessors: 11, gap: 1, offset: 1, ..alone },
        Setting { max_sms: 1, ..alone },
        Setting { max_sms: 3, resident_blocks: Some(1), ..alone },
        Setting { rows: 3, at: 1, max_sms: 2, gap: 5, offset: 3, ..alone },
        Setting { rows: many, at: last, max_sms: 1, gap: 2, offset: 7, ..alone },
        Setting { rows: many, at: 2, ..alone },
    ]
}

/// A batch with `row` among other rows, long and short ones.
fn batch_around(row: &Batch, setting: &Setting) -> Batch {
    let len = row.spec.max_len;
    let mut lengths: Vec<i32> = (0..setting.rows).map(|i| [2_500, 0, 700, len as i32][i % 4]).collect();
    lengths[setting.at] = len as i32;
    let spec = BatchSpec::new(Distribution::Uniform, row.spec.seed + 1, len, lengths)
        .with_layout(len + setting.gap, setting.offset)
        .with_scores(row.spec.scores);
    let first = spec.offset + setting.at * spec.pitch;
    let mut batch = build(spec);
    batch.scores[first..first + len].copy_from_slice(row.row(0));
    batch
}

#[test]
fn a_row_gives_the_same_words_in_every_batch_and_on_every_schedule() {
    const K: usize = 2048;
    let first_seed = seed(121);
    for (kind, distribution) in [
        (ScoreType::F32, Distribution::Quantised),
        (ScoreType::F16, Distribution::NanMixed),
        (ScoreType::Bf16, Distribution::Normal),
    ] {
        for len in [5_003, scaled(34_001, 400_003)] {
            let row = build(BatchSpec::full(distribution, first_seed, len, 1).with_scores(kind));
            let indices = oracle::expected_row(row.row(0), K);
            let bits = |&index: &i32| scores::bits(kind, row.row(0)[index as usize]);
            let expected = Answer { values: Some(indices.iter().map(bits).collect()), indices };
            for (number, setting) in settings().iter().enumerate() {
                let options = EmulatorOptions {
                    seed: first_seed + number as u64,
                    multiprocessors: setting.multiprocessors,
                    resident_blocks: setting.resident_blocks,
                    ..EmulatorOptions::default()
                };
                let device = if on_gpu() { device(0) } else { Device::emulator_with(options) };
                let batch = batch_around(&row, setting);
                let mut selector =
                    selector(&device, K, &batch.spec, |builder| everything(builder).max_sms(setting.max_sms));
                for run in 0..scaled(1, 20) {
                    let placed = selector.place(&batch).unwrap();
                    selector.enqueue(&placed).unwrap();
                    selector.stream.synchronize().unwrap();
                    let all = placed.answer().unwrap();
                    let words = setting.at * K..(setting.at + 1) * K;
                    let values = all.values.as_ref().map(|values| values[words.clone()].to_vec());
                    let answer = Answer { indices: all.indices[words].to_vec(), values };
                    let place = format!("{distribution} in {kind}, {len}, setting {number}, run {run}");
                    assert!(answer == expected, "{place}: {}", first_difference(&answer, &expected));
                    if run == 0 {
                        // The rows around it, too.
                        selector.verify(&batch, &placed).unwrap_or_else(|error| panic!("{place}: {error}"));
                    }
                }
            }
        }
    }
}

/// The first position at which answers differ, and what they have there.
fn first_difference(got: &Answer, expected: &Answer) -> String {
    let at = |answer: &Answer, i: usize| (answer.indices[i], answer.values.as_ref().map(|values| values[i]));
    match (0..expected.indices.len()).find(|&i| at(got, i) != at(expected, i)) {
        Some(i) => format!("word {i}: expected {:x?}, got {:x?}", at(expected, i), at(got, i)),
        None => "no difference".to_owned(),
    }
}

#[test]
fn every_schedule_gives_the_only_right_row() {
    let first = seed(122);
    for seed in first..first + scaled(12, 20) {
        let options = EmulatorOptions { seed, ..EmulatorOptions::default() };
        let device = if on_gpu() { device(0) } else { Device::emulator_with(options) };
        let kind = ScoreType::ALL[seed as usize % 3];
        let tied = [Distribution::Quantised, Distribution::TwoValues, Distribution::Normal];
        // More rows than blocks, of every path; then so few that long ones are cut into slices.
        for lengths in [vec![40_000, 100, 2_500, 20_100, 0, 33_000, 8_500, -1, 17_001], vec![40_000, 20_000]]
        {
            let spec = BatchSpec::new(Distribution::Normal, seed, 40_000, lengths).with_scores(kind);
            check_with(&device, 2048, spec.with_distributions(&tied), everything);
        }
    }
}

#[test]
fn a_graph_with_all_options_follows_lengths_and_contents() {
    let seed = seed(123);
    let device = device(seed);
    let max_len = scaled(34_000, 200_000);
    let long = max_len as i32;
    let steps: [[i32; 4]; 4] =
        [[long, 1, 9_000, 3_000], [1, long, 2_048, -1], [0, 0, 0, 0], [2_049, 20_000, i32::MAX, 5]];
    for kind in ScoreType::ALL.iter().copied() {
        let spec = |step: usize| {
            let lengths = steps[step % steps.len()].to_vec();
            BatchSpec::new(Distribution::Normal, seed + step as u64, max_len, lengths)
                .with_distributions(&Distribution::ALL[step % 9..][..4])
                .with_layout(max_len + 1, 1)
                .with_scores(kind)
        };
        let first = build(spec(0));
        let mut selector = selector(&device, 2048, &first.spec, everything);
        let placed = selector.place(&first).unwrap();
        let stream = selector.stream.clone();
        let graph = Graph::capture(&stream, |stream| selector.enqueue_on(stream, &placed)).unwrap();
        for step in 0..scaled(4, 40) {
            let batch = build(spec(step));
            placed.refill(&batch).unwrap();
            // Other operators share the workspace: it holds anything between two launches.
            selector.workspace.fill_bytes(step as u8).unwrap();
            graph.launch(&stream).unwrap();
            selector.verify(&batch, &placed).unwrap_or_else(|error| panic!("{kind}, step {step}: {error}"));
        }
    }
}

#[test]
fn a_batch_without_rows_touches_neither_output() {
    let device = device(124);
    for kind in ScoreType::ALL.iter().copied() {
        let most = BatchSpec::full(Distribution::Normal, 124, 1_000, 4).with_scores(kind);
        let mut selector = selector(&device, 10, &most, everything);
        let none = BatchSpec { lengths: vec![], ..most };
        selector.check(&build(none)).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

/// More of them than a bucket may have, at both ends of a row that is longer than one bitmap.
#[test]
fn indices_in_two_crowds_ascend() {
    let seed = seed(127);
    let device = device(seed);
    let (len, k) = (300_001_usize, 2048);
    let spec = BatchSpec::full(Distribution::Normal, seed, len, 1);
    let mut batch = build(spec.clone());
    let mut selector = selector(&device, k, &spec, everything);
    for at_the_start in [0, 1, 1_000, 2_047] {
        for (i, score) in batch.scores.iter_mut().enumerate() {
            let is_selected = i < at_the_start || i >= len - (k - at_the_start);
            *score = if is_selected { 10.0 + (i % 97) as f32 } else { -(i as f32) };
        }
        selector.check(&batch).unwrap_or_else(|error| panic!("{at_the_start} at the start: {error}"));
    }
}
