//! Bins of the half-precision value: cheap to compute for any score, 64 to an octave, and pairs of values can
//! be compared with a bin at once.
//!
//! The bin of a score is the upper 12 bits of its half-precision value, sign first. Rounding is monotone, so
//! each bin holds the scores of one interval. NaN is in the bin of the negative infinity, and the zeros share
//! a bin with all that rounds to them.

use super::bins;
use super::histogram::Pick;
use super::key::{NAN, SIGN, key};
use super::refine::{KeyRange, Narrowed};

/// Bits of a half-precision number below its bin.
const SHIFT: u32 = 4;
const SIGN_BIN: u32 = 0x8000 >> SHIFT;
/// Bin of the positive infinity.
const INFINITY_BIN: u32 = 0x7c00 >> SHIFT;
/// Bin of the negative infinity, of all numbers that round to it, and of NaN.
pub const LOWEST_BIN: u32 = SIGN_BIN | INFINITY_BIN;
/// The smallest normal number.
const SMALLEST_NORMAL: u32 = 0x0400;
/// A half-precision NaN: nothing is at least as large.
const NOTHING: u32 = 0x7fff;
/// What scores from here on round to: +0.0, together with everything above.
const ZERO_EDGE: f32 = -1.0 / (1 << 25) as f32;

/// The words in which the bins of a pair of half-precision values are counted: [`BinOrder::word`](bins::BinOrder::word) of
/// [`SignMagnitude`](bins::SignMagnitude).
#[inline(always)]
pub fn words(pair: u32) -> (u32, u32) {
    // Of both at once.
    let pair = pair ^ ((pair >> bins::SPREAD_BY) & ((bins::SPREAD << SHIFT) * 0x1_0001));
    ((pair & 0xffff) >> SHIFT, pair >> (16 + SHIFT))
}

/// The bin above; none above the highest.
#[inline(always)]
fn above(bin: u32) -> Option<u32> {
    if bin == INFINITY_BIN {
        return None;
    }
    let above = if bin < SIGN_BIN { bin + 1 } else { bin - 1 };
    Some(if bin == SIGN_BIN { 0 } else { above })
}

/// The half-precision values that are in a bin or above it are at least this; twice, for comparing pairs.
#[inline(always)]
fn floor(bin: u32) -> u32 {
    // Of negative values those with the largest magnitude are the lowest.
    let half = bin << SHIFT | if bin < SIGN_BIN || bin == LOWEST_BIN { 0 } else { (1 << SHIFT) - 1 };
    half * 0x1_0001
}

/// What pairs are compared with to tell the values of a bin from those above and below.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Values from here on are in the bin or above it.
    pub low: u32,
    /// Values from here on are above the bin.
    pub high: u32,
}

impl Bounds {
    /// The bounds of a bin.
    #[inline(always)]
    pub fn of(bin: u32) -> Self {
        Self { low: floor(bin), high: above(bin).map_or(NOTHING * 0x1_0001, floor) }
    }
}

/// The keys of the scores of a bin.
#[inline(always)]
pub fn keys(bin: u32) -> KeyRange {
    let magnitude = bin % SIGN_BIN;
    if magnitude > SMALLEST_NORMAL >> SHIFT && magnitude < INFINITY_BIN {
        // Most bins: as many magnitudes for either sign, without a branch.
        let smallest = middle_below(magnitude << SHIFT).to_bits();
        let largest = smallest + ((1 << (SHIFT + 13)) - 1);
        let (first, last) = if bin < SIGN_BIN { (smallest, largest) } else { (!largest, !smallest) };
        return KeyRange { first: first ^ SIGN, last: last ^ SIGN };
    }
    let first = if bin == LOWEST_BIN { NAN } else { key(lower_edge(bin)) };
    let last = match above(bin) {
        Some(above) => key(lower_edge(above)) - 1,
        None => u32::MAX,
    };
    KeyRange { first, last }
}

/// What a pick among the bins of a row says of the keys.
#[inline(always)]
pub fn narrowed(pick: Pick) -> Narrowed {
    // The lowest bin also has the places without a score.
    let count = if pick.bin == LOWEST_BIN { Narrowed::UNCOUNTED } else { pick.count };
    Narrowed { range: keys(pick.bin), above: pick.above, count }
}

/// The lowest score of a bin other than [`LOWEST_BIN`].
#[inline(always)]
pub fn lower_edge(bin: u32) -> f32 {
    if bin == 0 {
        ZERO_EDGE
    } else if bin < SIGN_BIN {
        middle_below(bin << SHIFT)
    } else {
        // Of the magnitudes, the middle itself rounds to the next bin, whose half-precision number is even.
        let beyond = middle_below(((bin - SIGN_BIN) + 1) << SHIFT);
        -f32::from_bits(beyond.to_bits() - 1)
    }
}

/// The middle between the positive half-precision number with these bits and the one before it; for the
/// infinity, between 65,536 and the largest number.
#[inline(always)]
fn middle_below(half: u32) -> f32 {
    const REBIAS: u32 = (127 - 15) << 23;
    if half <= SMALLEST_NORMAL {
        (2 * half - 1) as f32 * (1.0 / (1 << 25) as f32)
    } else {
        f32::from_bits((half << 13) - (1 << 12) + REBIAS)
    }
}

#[cfg(test)]
mod tests {
    use dsa_simt::{half_pair, half_pair_at_least};

    use super::super::bins::{BinOrder, COUNT, SignMagnitude};
    use super::*;

    fn bin(score: f32) -> u32 {
        let (first, second) = words(half_pair(score, score));
        assert_eq!(first, second);
        (0..COUNT).find(|&bin| SignMagnitude::word(bin) == first).unwrap()
    }

    /// All bins that hold scores, from the lowest up.
    fn ascending() -> impl Iterator<Item = u32> {
        (SIGN_BIN..=LOWEST_BIN).rev().chain(0..=INFINITY_BIN)
    }

    #[test]
    fn the_edges_of_each_bin_are_where_the_rounding_changes() {
        for (below, number) in ascending().zip(ascending().skip(1)) {
            let edge = lower_edge(number);
            assert_eq!(bin(edge), number, "lowest of bin {number:#x}");
            assert_eq!(bin(edge.next_down()), below, "below bin {number:#x}");
        }
    }

    #[test]
    fn pairs_are_told_apart_by_the_bounds_of_a_bin() {
        for (below, number) in ascending().zip(ascending().skip(1)) {
            let Bounds { low, high } = Bounds::of(number);
            let edge = lower_edge(number);
            let pair = half_pair(edge.next_down(), edge);
            assert_eq!(half_pair_at_least(pair, low), 0xffff_0000, "{number:#x}");
            assert_eq!(half_pair_at_least(pair, high), 0, "{number:#x}");
            assert_eq!(half_pair_at_least(pair, Bounds::of(below).high), 0xffff_0000, "{below:#x}");
            assert_eq!(half_pair_at_least(pair, Bounds::of(below).low), 0xffff_ffff, "{below:#x}");
        }
    }

    #[test]
    fn the_ends_of_the_number_line_and_the_zeros() {
        assert_eq!(bin(f32::INFINITY), INFINITY_BIN);
        assert_eq!(bin(f32::MAX), INFINITY_BIN);
        for lowest in [f32::NEG_INFINITY, f32::MIN, f32::NAN, -f32::NAN] {
            assert_eq!(bin(lowest), LOWEST_BIN);
        }
        for zero in [0.0, -0.0, f32::MIN_POSITIVE, -f32::MIN_POSITIVE] {
            assert_eq!(bin(zero), 0);
        }
    }

    #[test]
    fn the_keys_of_a_bin_begin_with_that_of_its_lowest_score() {
        for number in ascending().skip(1) {
            assert_eq!(keys(number).first, key(lower_edge(number)), "bin {number:#x}");
        }
    }

    #[test]
    fn the_keys_of_the_bins_can_be_counted_down() {
        // `refine::CountDown` is for as many.
        for number in ascending().skip(1) {
            let KeyRange { first, last } = keys(number);
            assert!(last - first < 1 << 31, "bin {number:#x}: {first:#x} to {last:#x}");
        }
    }

    #[test]
    fn the_keys_of_the_bins_follow_each_other_without_gaps() {
        let mut next = NAN;
        for number in ascending() {
            let keys = keys(number);
            assert_eq!(keys.first, next, "bin {number:#x}");
            next = keys.last.wrapping_add(1);
        }
        assert_eq!(next, 0);
    }
}
