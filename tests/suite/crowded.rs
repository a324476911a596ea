//! Short rows of which many scores share the bin of the k-th largest.

use dsa_kernels::topk::{Order, Ties, TopKBuilder};
use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::distribution::Distribution;

use crate::support::{build, device, seed, selector};

/// What the scores of the bin are, by their number: half-precision values next to 1 are 1/1024 apart, and a bin has 16 of
/// them.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Equal,
    Different,
    OfSeven,
    EqualButOne,
    Negative,
    /// All of which half precision rounds to zero.
    OfBothSigns,
    /// The same, below zero; so far from those above that the difference of their bits does not fit in 31 bits.
    TinyNegative,
    /// Beyond the range of half precision; above all others.
    Huge,
    /// All close to each other but for a few, which lie far above them.
    WithFewFarAbove,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Equal,
        Self::Different,
        Self::OfSeven,
        Self::EqualButOne,
        Self::OfBothSigns,
        Self::Negative,
        Self::TinyNegative,
        Self::Huge,
        Self::WithFewFarAbove,
    ];

    fn score(self, number: usize) -> f32 {
        match self {
            Self::Equal => 1.0,
            Self::Different => 1.0 + number as f32 * 1.2e-7,
            Self::OfSeven => 1.0 + (number % 7) as f32 * 1e-3,
            Self::EqualButOne if number == 1 => 1.001,
            Self::EqualButOne => 1.0,
            Self::OfBothSigns if number.is_multiple_of(2) => number as f32 * -1e-12,
            Self::OfBothSigns => number as f32 * 1e-12,
            Self::Negative => -0.9 - number as f32 * 1.2e-7,
            Self::TinyNegative => number as f32 * -1e-13 - 1e-12,
            Self::Huge if number == 3 => f32::INFINITY,
            Self::Huge => 1e30 + number as f32 * 1e28,
            Self::WithFewFarAbove if number < 6 => 1.013 + number as f32 * 1e-5,
            Self::WithFewFarAbove => 1.0 + number as f32 * 1.2e-7,
        }
    }

    /// Those above the bin, by their number.
    fn above(self, number: usize) -> f32 {
        match self {
            Self::TinyNegative => 1e30 + number as f32 * 1e27,
            _ => 100.0 + number as f32,
        }
    }
}

/// In which order a row's scores are placed.
const ORDERS: [fn(usize, usize) -> usize; 3] = [|i, _| i, |i, len| len - 1 - i, |i, len| i * 7_919 % len];

fn any(builder: TopKBuilder) -> TopKBuilder {
    builder
}

/// By the kernel that also takes long rows.
fn on_few_multiprocessors(builder: TopKBuilder) -> TopKBuilder {
    builder.max_sms(2)
}

fn lowest(builder: TopKBuilder) -> TopKBuilder {
    builder.ties(Ties::LowestIndex)
}

fn ascending(builder: TopKBuilder) -> TopKBuilder {
    builder.ties(Ties::LowestIndex).order(Order::AscendingIndex)
}

fn with_values(builder: TopKBuilder) -> TopKBuilder {
    builder.values(true)
}

#[test]
fn crowded_bins_of_short_rows_are_told_apart() {
    // Up to 256 scores are ranked. The rows have 8, 16 and 32 scores to a thread.
    for (len, in_bin) in
        [(3_001, 256), (3_001, 2_100), (8_005, 257), (8_005, 2_049), (8_005, 7_100), (12_001, 3_000)]
    {
        check_bin(len, in_bin, in_bin / 10);
    }
    // The last one that is selected is one of those that a sample may miss.
    check_bin(8_005, 4_000, 4);
}

#[test]
fn few_scores_of_a_bin_are_ranked() {
    // A lane to each of them up to 32.
    for (len, in_bin, of_bin) in
        [(3_001, 1, 1), (3_001, 17, 16), (8_005, 32, 5), (8_005, 33, 32), (8_005, 65, 1), (12_001, 31, 30)]
    {
        check_bin(len, in_bin, of_bin);
    }
}

#[test]
fn what_is_just_below_a_crowded_bin_comes_after_it() {
    let seed = seed(153);
    let device = device(seed);
    // Half precision rounds this to 1, and what is below it to the next bin. From here to the end of the bin there are more
    // than 2^16 numbers: some to each of the finer bins, in the last of which those below the bin may be counted, too.
    let edge = 1.0 - 1.0 / 4_096.0_f32;
    let (wanted, in_bin) = (1_000, 600);
    for len in [3_001, 8_005] {
        let spec = BatchSpec::full(Distribution::Normal, seed, len, 1);
        for configure in [any, on_few_multiprocessors, lowest, ascending, with_values] {
            let mut batch = build(spec.clone());
            let mut selector = selector(&device, wanted, &spec, configure);
            for (of_bin, place) in [in_bin, in_bin - 1, in_bin - 30].into_iter().zip(ORDERS) {
                for i in 0..len {
                    let above = wanted - of_bin;
                    batch.scores[place(i, len)] = if i < above {
                        100.0 + i as f32
                    } else if i < above + in_bin {
                        edge + (i - above) as f32 * (0.0075 / in_bin as f32)
                    } else {
                        f32::from_bits(edge.to_bits() - 1 - (i / 2) as u32)
                    };
                }
                let checked = selector.check(&batch);
                checked.unwrap_or_else(|error| panic!("{of_bin} of {in_bin}, {len} scores: {error}"));
            }
        }
    }
}

/// Selects rows of `len` scores of which `in_bin` share a bin, `of_bin` of which are selected.
fn check_bin(len: usize, in_bin: usize, of_bin: usize) {
    let seed = seed(151);
    let device = device(seed);
    let wanted = 1_000;
    let spec = BatchSpec::full(Distribution::Normal, seed, len, 1);
    for configure in [any, on_few_multiprocessors, lowest, ascending, with_values] {
        let mut batch = build(spec.clone());
        let mut selector = selector(&device, wanted, &spec, configure);
        for kind in Kind::ALL {
            for place in ORDERS {
                batch.scores.iter_mut().enumerate().for_each(|(i, score)| *score = -1.0 - i as f32);
                let above = wanted - of_bin;
                (0..above).for_each(|i| batch.scores[place(i, len)] = kind.above(i));
                for i in 0..in_bin {
                    batch.scores[place(len - in_bin + i, len)] = kind.score(i);
                }
                let checked = selector.check(&batch);
                checked.unwrap_or_else(|error| panic!("{in_bin} of {len}, {kind:?}: {error}"));
            }
        }
    }
}
