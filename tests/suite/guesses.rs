//! Rows that mislead the sample of the path `sampled`, and that of clusters: the answer is right all the same.

use dsa_kernels::Device;
use dsa_kernels::topk::{Order, Path, ScoreType, Ties, TopKBuilder};
use dsa_kernels_gpu::topk::sampled::Spread;
use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::distribution::Distribution;
use dsa_kernels_tests::harness::RunError;
use dsa_kernels_tests::random::Random;
use dsa_kernels_tests::scores;

use crate::support::{build, device, scaled, seed, selector};

/// Too long for the registers of the clusters that are asked for, and a multiple of all vectors.
const LEN: u32 = 70_016;

#[test]
fn a_sample_is_doubled_until_it_is_large_enough_or_an_eighth_of_the_row() {
    for wanted in [1, 512, 2_048, 2_049, 4_096] {
        // Of so many sampled elements that are wanted, the threshold is one.
        let expected = if wanted > 2_048 { 160 } else { 16 };
        for width in [4, 8] {
            for len in (16_385..).step_by(4_093).take(600).chain([1 << 20, (1 << 20) + 1, i32::MAX as u32]) {
                let once = 512 * width;
                let mut sampled = once;
                // Once if fewer than eight times as many are.
                let least = |sampled: u32| if sampled == once { 8 * expected } else { expected };
                while u64::from(wanted) * u64::from(sampled) < least(sampled) * u64::from(len)
                    && 16 * sampled <= len
                {
                    sampled *= 2;
                }
                let spread = Spread::of(len, len.div_ceil(width), width, wanted, 0);
                assert_eq!(spread.vectors() * width, sampled, "{wanted} of {len}, vectors of {width}");
            }
        }
    }
}

/// The row of which sampled elements are `sampled` and all others `other`, of a number each. The sample is one
/// of vectors of `width` elements.
fn planted(width: u32, wanted: u32, sampled: impl Fn(u32) -> f32, other: impl Fn(u32) -> f32) -> Vec<f32> {
    let spread = Spread::of(LEN, LEN.div_ceil(width), width, wanted, 0);
    let mut row: Vec<f32> = (0..LEN).map(other).collect();
    for number in 0..spread.vectors() {
        let first = (width * spread.vector(number)) as usize;
        for (i, score) in row[first..first + width as usize].iter_mut().enumerate() {
            *score = sampled(width * number + i as u32);
        }
    }
    row
}

/// Selects from `rows` copies of a row: on the path sampled in slices if there is one, by one block each if there are many;
/// or by clusters of two blocks.
fn check(
    device: &Device,
    row: &[f32],
    kind: ScoreType,
    wanted: u32,
    (path, rows): (Path, u32),
    configure: impl FnOnce(TopKBuilder) -> TopKBuilder,
) -> Result<(), RunError> {
    let spec = BatchSpec::full(Distribution::Normal, 0, row.len(), rows as usize).with_scores(kind);
    let mut batch = build(spec);
    let rounded: Vec<f32> = row.iter().map(|&score| scores::rounded(kind, score)).collect();
    batch.scores.chunks_exact_mut(row.len()).for_each(|to| to.copy_from_slice(&rounded));
    let forced = |builder: TopKBuilder| configure(builder.path(path));
    let mut selector = selector(device, wanted as usize, &batch.spec, forced);
    let plan = selector.topk.plan();
    assert_eq!(plan.path_of(LEN), path);
    if path == Path::Cluster {
        assert_eq!(plan.slices(rows), 2);
    } else {
        assert_eq!(plan.slices(rows) > 1, rows == 1);
    }
    selector.check(&batch)
}

/// A row that misleads the sample, and how many of it are wanted.
struct Planted {
    name: &'static str,
    wanted: u32,
    row: Vec<f32>,
}

/// Plants rows whose sample is of vectors of so many elements.
#[derive(Clone, Copy)]
struct Width(u32);

impl Width {
    /// The row of which sampled elements are `sampled` and all others `other`, of a number each.
    fn plant(
        self,
        name: &'static str,
        wanted: u32,
        sampled: impl Fn(u32) -> f32,
        other: impl Fn(u32) -> f32,
    ) -> Planted {
        Planted { name, wanted, row: planted(self.0, wanted, sampled, other) }
    }
}

/// The vectors of f32 scores.
const F32: Width = Width(4);

fn check_all(rows: Vec<Planted>, kind: ScoreType, configure: impl Fn(TopKBuilder) -> TopKBuilder) {
    let device = device(seed(101));
    for Planted { name, wanted, row } in rows {
        for (path, copies) in
            [(Path::Sampled, 1), (Path::Sampled, scaled(5, 140)), (Path::Cluster, scaled(2, 64))]
        {
            check(&device, &row, kind, wanted, (path, copies), &configure)
                .unwrap_or_else(|error| panic!("{name} in {kind}, {copies} rows on {path}: {error}"));
        }
    }
}

fn too_few_pass(width: Width) -> Vec<Planted> {
    let small = |i: u32| (i % 977) as f32 / 977.0;
    vec![
        width.plant("the sample is the top", 2048, |i| 1000.0 + i as f32, small),
        width.plant("more are wanted than the sample has", 2060, |i| 1000.0 + i as f32, small),
    ]
}

fn too_many_pass(width: Width) -> Vec<Planted> {
    let other = |i| (i * 7919 % 60_013) as f32;
    vec![width.plant("the sample is the bottom", 2048, |i| -(i as f32), other)]
}

/// Normal scores, the same in every row.
fn noise() -> impl Fn(u32) -> f32 {
    let mut random = Random::new(seed(102));
    let noise: Vec<f32> = (0..LEN).map(|_| random.normal()).collect();
    move |i| noise[i as usize]
}

fn equal_samples(width: Width) -> Vec<Planted> {
    let noise = &noise();
    vec![
        width.plant("as many equal ones as are wanted", 2048, |_| 9.0, |i| noise(i).min(8.0)),
        width.plant("fewer equal ones than are wanted", 3000, |_| 9.0, |i| noise(i).min(8.0)),
        width.plant("some above them", 2048, |_| 1.5, noise),
        width.plant("all above them", 2048, |_| -9.0, noise),
        width.plant("all of the row are equal", 2048, |_| 1.0, |_| 1.0),
        width.plant("equal infinities", 2048, |_| f32::INFINITY, noise),
        width.plant("only NaN is sampled", 2048, |_| f32::NAN, noise),
        width.plant("all but the sample is NaN", 2060, |i| i as f32, |_| f32::NAN),
    ]
}

fn crowded_lists(width: Width) -> Vec<Planted> {
    // The largest of the sample is far away: all others share the lowest bin between.
    let crowd = |i: u32| 10.0 + (i % 50_000) as f32 * 1e-6;
    let far = |i: u32| if i == 5 { 1e30 } else { crowd(i * 31) };
    vec![
        width.plant("a far maximum", 2048, far, crowd),
        width.plant("a wide row", 2048, |i| f32::from_bits(i << 19), |i| f32::from_bits(i << 15)),
    ]
}

/// Rows in which it matters which of many equal elements are taken: they are where the sample is not, or
/// only begin late, or are more than a list holds.
fn equal_elsewhere(width: Width) -> Vec<Planted> {
    let noise = &noise();
    let third = |i: u32| if i.is_multiple_of(3) { 1.5 } else { noise(i).min(1.0) };
    let late = |from: u32| move |i: u32| if i >= from { 1.5 } else { noise(i).min(1.0) };
    vec![
        width.plant("equal ones in and beside the sample", 2048, |_| 1.5, third),
        width.plant("equal ones beside the sample only", 2048, |_| -3.0, third),
        width.plant("few above many equal ones", 2048, |i| if i < 100 { 2.0 + i as f32 } else { 1.5 }, third),
        width.plant("equal ones at the end only", 2048, |_| -3.0, late(LEN - 2_100)),
        width.plant("equal ones from the middle on", 2048, |_| 1.5, late(LEN / 2)),
        width.plant("all but a few equal", 2048, |_| 1.0, |i| if i % 100 == 7 { noise(i) } else { 1.0 }),
        width.plant(
            "zeros of both signs",
            2048,
            |i| if i % 2 == 0 { 0.0 } else { -0.0 },
            |i| {
                if i % 5 == 0 { -0.0 } else { noise(i).min(0.0) }
            },
        ),
    ]
}

#[test]
fn a_threshold_that_too_few_elements_pass() {
    check_all(too_few_pass(F32), ScoreType::F32, |builder| builder);
}

#[test]
fn a_threshold_that_more_elements_pass_than_a_list_holds() {
    check_all(too_many_pass(F32), ScoreType::F32, |builder| builder);
}

#[test]
fn a_sample_of_equal_elements() {
    check_all(equal_samples(F32), ScoreType::F32, |builder| builder);
}

#[test]
fn survivors_that_crowd_into_one_bin_of_the_list() {
    check_all(crowded_lists(F32), ScoreType::F32, |builder| builder);
}

#[test]
fn equal_elements_where_the_sample_does_not_show_them() {
    check_all(equal_elsewhere(F32), ScoreType::F32, |builder| builder);
}

/// Rows of scores of 16 bits, of which so many equal the last one that is wanted.
fn equal_at_the_end() -> Vec<Planted> {
    let wanted = 2_048;
    // Half of them are wanted, so that none may be left out or taken twice.
    let row = |equal: u32| {
        move |i: u32| match i * 7_919 % LEN {
            number if number < wanted - equal / 2 => 3.0 + (number % 64) as f32 / 64.0,
            number if number < wanted - equal / 2 + equal => 2.5,
            number => (number % 128) as f32 / 64.0,
        }
    };
    let planted = |(name, equal)| Planted { name, wanted, row: (0..LEN).map(row(equal)).collect() };
    let rows = [("a few equal", 40), ("more equal than are ranked", 300), ("many equal", 1_500)];
    rows.map(planted).into()
}

#[test]
fn equal_scores_of_16_bits_at_the_end_are_taken_as_they_come() {
    for kind in [ScoreType::F16, ScoreType::Bf16] {
        check_all(equal_at_the_end(), kind, |builder| builder);
        check_all(equal_at_the_end(), kind, |builder| builder.values(true));
    }
}

#[test]
fn the_lowest_indices_of_equal_scores_of_16_bits_are_found() {
    for kind in [ScoreType::F16, ScoreType::Bf16] {
        check_all(equal_at_the_end(), kind, ordered);
    }
}

fn all(width: Width) -> Vec<Planted> {
    [
        too_few_pass(width),
        too_many_pass(width),
        equal_samples(width),
        crowded_lists(width),
        equal_elsewhere(width),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The lowest indices in ascending order, with their values.
fn ordered(builder: TopKBuilder) -> TopKBuilder {
    builder.ties(Ties::LowestIndex).order(Order::AscendingIndex).values(true)
}

#[test]
fn a_misled_sample_leaves_the_lowest_indices_in_ascending_order() {
    check_all(all(F32), ScoreType::F32, ordered);
}

#[test]
fn a_misled_sample_of_16_bit_scores_leaves_the_right_set() {
    for kind in [ScoreType::F16, ScoreType::Bf16] {
        // 16 bytes have 8 scores; a sample of as many scores as that of f32 has 4 of each vector.
        for width in [Width(4), Width(8)] {
            check_all(all(width), kind, |builder| builder);
            check_all(all(width), kind, ordered);
        }
    }
}
