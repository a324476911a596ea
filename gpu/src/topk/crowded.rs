//! Rows of up to 8,192 scores of which too many are in the bin of the k-th largest to be ranked, because they are equal or
//! close to each other.
//!
//! 1. The row is read once more, from the cache it has just come through, and held as keys.
//! 2. Of those of the bin, the smallest and the largest of every fourth say where most of them are.
//! 3. One round of finer bins over that range, and some more on both sides, tells them apart. What lies beyond is counted at
//!    the ends: if the k-th largest is there, the sample has misled.
//!
//! If the sample sees one key alone, so does the whole row in most cases: as many elements as are wanted are taken, and the
//! numbers of those above it and of those that have it prove that there are no others in the bin. What is left is for
//! [`refine`](super::refine).

use dsa_simt::block;

use super::bins::{self, Bins, Descending, THREADS};
use super::element::Element;
use super::half;
use super::histogram::Pick;
use super::key::{SIGN, number, number_key};
use super::output::{OutRow, lowest_bit};
use super::refine::{Distances, KeyRange, Narrowed, Outcome, RANKED, Scratch};
use super::resident::{Found, Pairs, place, start};
use super::scores::{Scores, index};
use super::{Options, comes_last};

/// Places of the longest row.
pub const MOST_PLACES: u32 = HELD * THREADS;
/// Scores that a thread holds.
pub(super) const HELD: u32 = 16;
/// Of so many, one is looked at to find a bracket.
const SAMPLED: u32 = 4;

/// Writes the indices of the `wanted` largest scores of the row to `out`, as
/// [`resident::select`](super::resident::select) does, which has found the bin. What is still crowded, or equal where not
/// any of the equal ones will do, is noted.
///
/// The extremes and counters are zero. Collective over the block.
#[inline(always)]
pub fn select<E: Element>(
    row: Scores<E>,
    wanted: u32,
    options: Options,
    scratch: Scratch,
    out: impl Fn() -> OutRow<E>,
) -> Outcome {
    let Scratch { bins, extremes, counters, .. } = scratch;
    let vectors = row.share(0, row.vectors(), const { (HELD / E::PER_VECTOR) as usize }).vectors;
    // While they are on their way.
    bins.zero();
    let known = half::narrowed(bins.noted());
    scratch.note(known);
    if known.count == Narrowed::UNCOUNTED {
        return Outcome::Crowded;
    }
    let range = SignedRange::of(known.range);
    let keys = range.keys_beside(scores::<E>(vectors));
    let mut distances = Distances::of(range.unsigned());
    for i in 0..HELD / SAMPLED {
        // Of each four another one.
        distances.add(keys[((SAMPLED + 1) * i) as usize].cast_unsigned());
    }
    distances.gather(extremes);
    block::sync();
    let seen = range.between(extremes.get(Scratch::LOW), extremes.get(Scratch::HIGH));
    let found = |SignedRange { first, last }, above, count| {
        let (mut winners, mut selected) = (0, 0);
        for i in 0..HELD {
            winners |= u32::from(keys[i as usize] > last) << i;
            selected |= u32::from(keys[i as usize] >= first) << i;
        }
        Found { winners, ties: selected & !winners, pick: Pick { bin: 0, above, count } }
    };
    if comes_last(seen.first == seen.last && options.are_none()) {
        place_equal(row, wanted, found(seen, known.above, known.count), scratch);
        if counters.few_winners() == known.above && counters.few_ties() == known.count {
            out().write(scratch.staged(), 0, wanted);
            return Outcome::Done;
        }
        // What is staged is where the bins were.
        block::sync();
        scratch.start();
        block::sync();
    }
    let bracket = Bracket::around(seen);
    for i in 0..HELD {
        bracket.add(bins, keys[i as usize]);
    }
    block::sync();
    let Pick { bin, above, count } = bins.pick::<Descending>(wanted);
    if Bracket::is_beyond(bin) {
        return Outcome::Crowded;
    }
    let keys_of_bin = bracket.keys(bin);
    let takes_any = keys_of_bin.first == keys_of_bin.last && options.are_none();
    if count > RANKED && !takes_any {
        scratch.note(Narrowed { range: keys_of_bin.keys(), above, count });
        return Outcome::Crowded;
    }
    let found = found(keys_of_bin, above, count);
    if comes_last(!takes_any) {
        return place::<E, Pairs<{ HELD as usize / 2 }>>(row, wanted, options, found, scratch, out);
    }
    place_equal(row, wanted, found, scratch);
    out().write(scratch.staged(), 0, wanted);
    Outcome::Done
}

/// A range of keys as signed numbers in the order of the keys, both ends included: one instruction takes such a number from
/// another and keeps the difference within bounds.
#[derive(Clone, Copy)]
struct SignedRange {
    first: i32,
    last: i32,
}

impl SignedRange {
    #[inline(always)]
    fn of(keys: KeyRange) -> Self {
        Self { first: (keys.first ^ SIGN).cast_signed(), last: (keys.last ^ SIGN).cast_signed() }
    }

    /// The keys.
    #[inline(always)]
    fn keys(self) -> KeyRange {
        KeyRange { first: self.first.cast_unsigned() ^ SIGN, last: self.last.cast_unsigned() ^ SIGN }
    }

    /// The same bits, for [`Distances`].
    #[inline(always)]
    fn unsigned(self) -> KeyRange {
        KeyRange { first: self.first.cast_unsigned(), last: self.last.cast_unsigned() }
    }

    /// Scores as such numbers, for comparing with those of a range above the lowest number: those of another sign get others
    /// than their own, below all of the range or above it as theirs are. No difference between one of the range and one of
    /// these overflows.
    #[inline(always)]
    fn keys_beside<const N: usize>(self, scores: [f32; N]) -> [i32; N] {
        const LEAST: f32 = f32::from_bits(1);
        let mut keys = [0; N];
        if self.first >= 0 {
            for i in 0..N {
                // Also instead of NaN: the maximum of NaN and a number is the number.
                keys[i] = scores[i].max(LEAST).to_bits().cast_signed();
            }
        } else if self.last < 0 {
            for i in 0..N {
                keys[i] = (number(scores[i]).min(-LEAST).to_bits() ^ !SIGN).cast_signed();
            }
        } else {
            for i in 0..N {
                let key = (number_key(number(scores[i])) ^ SIGN).cast_signed();
                keys[i] = key.max(self.first - 1).min(self.last + 1);
            }
        }
        keys
    }

    /// The part of it without so many numbers at either end, which are given as complements; all of it if they are more than
    /// it has.
    #[inline(always)]
    fn between(self, low: u32, high: u32) -> Self {
        let span = self.last.wrapping_sub(self.first).cast_unsigned();
        if !low > span || !high > span {
            return self;
        }
        Self { first: self.first + (!low).cast_signed(), last: self.last - (!high).cast_signed() }
    }
}

/// Bins for a range of keys and some on both sides of it, from the largest key down. The first and the last one are for all
/// that lies beyond.
struct Bracket {
    /// The largest key of the first bin.
    last: i32,
    shift: u32,
    /// The distance from it of the last bin.
    end: i32,
}

impl Bracket {
    /// Most keys on either side: with more, a sum might overflow.
    const MOST_BESIDE: u32 = 1 << 24;

    /// Around the keys that were seen of a range.
    #[inline(always)]
    fn around(seen: SignedRange) -> Self {
        let spread = seen.last.wrapping_sub(seen.first).cast_unsigned();
        // An eighth of them on both sides at least, and as many as there are bins for.
        let width = spread + spread / 4 + 3;
        let shift = (u32::BITS - width.leading_zeros()).saturating_sub(bins::BITS);
        let beside = (((bins::COUNT - 2) << shift).wrapping_sub(spread) / 2).min(Self::MOST_BESIDE);
        let last = seen.last.saturating_add((beside + (1 << shift)).cast_signed());
        Self { last, shift, end: ((bins::COUNT - 1) << shift).cast_signed() }
    }

    /// Counts a key.
    #[inline(always)]
    fn add(&self, bins: Bins, key: i32) {
        // In this order: the difference and both bounds are one instruction.
        bins.add(self.last.wrapping_sub(key).min(self.end).max(0).cast_unsigned() >> self.shift);
    }

    /// Whether a bin is one of those for what lies beyond.
    #[inline(always)]
    fn is_beyond(bin: u32) -> bool {
        bin == 0 || bin == bins::COUNT - 1
    }

    /// The keys of a bin.
    #[inline(always)]
    fn keys(&self, bin: u32) -> SignedRange {
        let last = self.last.wrapping_sub((bin << self.shift).cast_signed());
        SignedRange { first: last.wrapping_sub((1 << self.shift) - 1), last }
    }
}

/// The thread's scores.
#[inline(always)]
fn scores<E: Element>(vectors: [[u32; 4]; 4]) -> [f32; HELD as usize] {
    let mut scores = [0.0; HELD as usize];
    for i in 0..HELD {
        let word = vectors[(i / E::PER_VECTOR) as usize][(i % E::PER_VECTOR / E::PER_WORD) as usize];
        scores[i as usize] = E::score(word, i % E::PER_WORD);
    }
    scores
}

/// Stages the winners and as many of the ties, which are equal, as are wanted. If there are more winners than those above, some
/// are left out. Collective over the block; ends with a block barrier.
#[inline(always)]
fn place_equal<E: Element>(row: Scores<E>, wanted: u32, found: Found, scratch: Scratch) {
    let Found { winners, ties, pick } = found;
    let (start, staged) = (start(row), scratch.staged());
    let (winner, tie) = scratch.counters.reserve_few(winners.count_ones(), ties.count_ones());
    let winners = if winner + winners.count_ones() <= pick.above { winners } else { 0 };
    staged.set_reserved(winners, HELD, winner, |bit| index::<E>(start, bit));
    let (mut position, mut left) = (pick.above + tie, ties);
    while left != 0 && position < wanted {
        staged.set(position, index::<E>(start, lowest_bit(left)));
        position += 1;
        left &= left - 1;
    }
    block::sync();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of the range is in a bin whose keys it is one of; the ends of a range are in none of those for what lies beyond.
    #[test]
    fn each_key_of_a_bracket_is_in_its_bin() {
        for (first, last) in [
            (0, 0),
            (-1, -1),
            (5, 6),
            (1_000, 5_095),
            (-200_000, -70_000),
            (0x477f_f000, 0x7f80_0000),
            (-0x3300_0001, 0x3300_0000),
            (0x7f80_0000, 0x7f80_0000),
        ] {
            let seen = SignedRange { first, last };
            let bracket = Bracket::around(seen);
            let bin = |key: i32| bracket.last.wrapping_sub(key).min(bracket.end).max(0) >> bracket.shift;
            for key in [first, last, first + (last.wrapping_sub(first) / 2).max(0)] {
                let bin = bin(key).cast_unsigned();
                assert!(bin < bins::COUNT && !Bracket::is_beyond(bin), "{key} of {first} to {last}: {bin}");
                let SignedRange { first, last } = bracket.keys(bin);
                assert!(first <= key && key <= last, "{key}: {first} to {last}");
            }
        }
    }

    #[test]
    fn scores_keep_their_order_beside_a_range_of_keys() {
        let scores = [
            f32::NAN,
            f32::NEG_INFINITY,
            f32::MIN,
            -2.0,
            -1.5,
            -1.0,
            -1e-30,
            -0.0,
            0.0,
            1e-30,
            1.0,
            1.5,
            2.0,
            f32::MAX,
            f32::INFINITY,
        ];
        for (low, high) in [(1.0, 1.5), (-1.5, -1.0), (-1e-30, 1e-30), (2.0, f32::INFINITY), (-2.0, -2.0)] {
            let range = SignedRange::of(KeyRange { first: number_key(low), last: number_key(high) });
            for (score, key) in scores.into_iter().zip(range.keys_beside(scores)) {
                let own = number_key(number(score));
                let place = (own < number_key(low), own > number_key(high));
                assert_eq!((key < range.first, key > range.last), place, "{score} beside {low} to {high}");
                for end in [range.first, range.last] {
                    assert!(end.checked_sub(key).is_some(), "{score} beside {low} to {high}");
                }
            }
        }
    }
}
