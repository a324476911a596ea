//! Rows of up to 8,192 scores of which too many are in the bin of the k-th largest to be ranked, because they are equal or
//! close to each other.
//!
//! The row is read once more, from the cache it has just come through, and held as keys. If those of the bin differ, one
//! round of finer bins over the keys that occur tells them apart. Of equal ones, as many as are wanted are taken. What is
//! left is for [`refine`](super::refine).

use dsa_simt::block;

use super::bins::{Descending, THREADS};
use super::element::Element;
use super::half;
use super::histogram::Pick;
use super::key::number;
use super::output::{OutRow, lowest_bit};
use super::refine::{CountDown, Distances, KeyRange, Narrowed, Outcome, RANKED, Scratch};
use super::resident::{Found, Pairs, place, start};
use super::scores::{Scores, index};
use super::{Options, comes_last};

/// Places of the longest row.
pub const MOST_PLACES: u32 = HELD * THREADS;
/// Scores that a thread holds.
pub(super) const HELD: u32 = 16;

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
    let Scratch { bins, extremes, .. } = scratch;
    let vectors = row.share(0, row.vectors(), const { (HELD / E::PER_VECTOR) as usize }).vectors;
    // While they are on their way.
    bins.zero();
    let mut narrowed = half::narrowed(bins.noted());
    if narrowed.count == Narrowed::UNCOUNTED {
        scratch.note(narrowed);
        return Outcome::Crowded;
    }
    let keys = narrowed.range.keys_beside(numbers::<E>(vectors));
    let mut distances = Distances::of(narrowed.range);
    for i in 0..HELD as usize {
        distances.add(keys[i]);
    }
    distances.gather(extremes);
    block::sync();
    let range = narrowed.range.without(extremes.get(Scratch::LOW), extremes.get(Scratch::HIGH));
    narrowed.range = range;
    if range.first < range.last {
        let down = CountDown::new(bins, range);
        for i in 0..HELD as usize {
            down.add(keys[i]);
        }
        block::sync();
        let Pick { bin, above, count } = bins.pick::<Descending>(wanted - narrowed.above);
        let range = KeyRange::of_bin_below(range.last, bin, range.shift());
        narrowed = Narrowed { range, above: narrowed.above + above, count };
    }
    let Narrowed { range, above, count } = narrowed;
    let takes_any = range.first == range.last && options.are_none();
    if count > RANKED && !takes_any {
        scratch.note(narrowed);
        return Outcome::Crowded;
    }
    let (mut winners, mut selected) = (0, 0);
    for i in 0..HELD {
        winners |= u32::from(keys[i as usize] > range.last) << i;
        selected |= u32::from(keys[i as usize] >= range.first) << i;
    }
    let found = Found { winners, ties: selected & !winners, pick: Pick { bin: 0, above, count } };
    if comes_last(!takes_any) {
        return place::<E, Pairs<{ HELD as usize / 2 }>>(row, wanted, options, found, scratch, out);
    }
    place_equal(row, wanted, found, scratch);
    out().write(scratch.staged(), 0, wanted);
    Outcome::Done
}

/// The thread's scores; where there is no number, the lowest number.
#[inline(always)]
fn numbers<E: Element>(vectors: [[u32; 4]; 4]) -> [f32; HELD as usize] {
    let mut numbers = [0.0; HELD as usize];
    for i in 0..HELD {
        let word = vectors[(i / E::PER_VECTOR) as usize][(i % E::PER_VECTOR / E::PER_WORD) as usize];
        numbers[i as usize] = number(E::score(word, i % E::PER_WORD));
    }
    numbers
}

/// Stages the winners and as many of the ties, which are equal, as are wanted. Collective over the block; ends with a
/// block barrier.
#[inline(always)]
fn place_equal<E: Element>(row: Scores<E>, wanted: u32, found: Found, scratch: Scratch) {
    let Found { winners, ties, pick } = found;
    let (start, staged) = (start(row), scratch.staged());
    let (winner, tie) = scratch.counters.reserve_few(winners.count_ones(), ties.count_ones());
    staged.set_reserved(winners, HELD, winner, |bit| index::<E>(start, bit));
    let (mut position, mut left) = (pick.above + tie, ties);
    while left != 0 && position < wanted {
        staged.set(position, index::<E>(start, lowest_bit(left)));
        position += 1;
        left &= left - 1;
    }
    block::sync();
}
