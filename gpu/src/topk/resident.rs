//! Rows that one block keeps in registers, as half-precision values: up to 16,384 scores.
//!
//! 1. Every score is counted in the bin of its half-precision value ([`half`]).
//! 2. The bin that holds the k-th largest is found.
//! 3. Scores above it go to the output; those in it, some dozens, are read once more and ranked.
//!
//! A pair of scores takes one register and one comparison. If the bin is crowded, that is for
//! [`crowded`] or [`refine`](super::refine), which read the row again, from the cache it has just come
//! through.
//!
//! For an output in the order of the indices, what is selected is noted and counted instead of being appended, and staged in
//! order when all is known ([`runs`](super::runs)).

use dsa_simt::{block, grid, half_pair_at_least, opaque, thread};

use super::bins::{Bins, SignMagnitude, THREADS};
use super::candidates::{Candidates, TieBreak};
use super::element::{Element, bits_of_pairs, pair_of};
use super::half::{self, Bounds, LOWEST_BIN};
use super::histogram::Pick;
use super::key::number_key;
use super::output::{Counters, OutRow, Staged, lowest_bit};
use super::refine::{Outcome, RANKED, Scratch};
use super::runs::{Runs, Selected};
use super::scores::{Scores, Share, Slice, index};
use super::{Options, RESIDENT_PLACES, crowded};

/// What a thread holds of a row. Its scores are numbered as those of a [`Share`] are.
pub trait Held<E: Element> {
    /// Scores that a thread holds; at most 32.
    const SCORES: u32;
    /// Reads the first vectors of a slice, all if there are not more than a block can hold, and counts the scores in
    /// the bins of their values.
    fn hold(slice: Slice<E>, bins: Bins) -> Self;
    /// The scores that are at least as large as `bounds`, as bits.
    fn at_least(&self, bounds: u32) -> u32;
}

/// `N` pairs of scores, at most 8: half-precision values; the negative infinity where there is no score.
pub struct Pairs<const N: usize>([u32; N]);

impl<const N: usize> Pairs<N> {
    /// Holds the scores of the first vectors, which a thread has read from vector `first` of a slice on; those from
    /// vector `end` on are not counted.
    #[inline(always)]
    pub fn of<E: Element, const M: usize>(share: &Share<M>, first: u32, end: u32, bins: Bins) -> Self {
        let vectors = &share.vectors;
        let per_vector = const { E::PER_VECTOR as usize / 2 };
        let count = const { 2 * N / E::PER_VECTOR as usize };
        let mut pairs = [0; N];
        for i in 0..N {
            pairs[i] = E::pair(vectors[i / per_vector], (i % per_vector) as u32);
        }
        for v in 0..count {
            // The same for all threads: whether any of them has a score in it.
            if first + (v as u32) * THREADS < end {
                for i in 0..per_vector {
                    let (a, b) = half::words(pairs[v * per_vector + i]);
                    bins.add(a);
                    bins.add(b);
                }
            }
        }
        Self(pairs)
    }
}

impl<E: Element, const N: usize> Held<E> for Pairs<N> {
    const SCORES: u32 = 2 * N as u32;

    #[inline(always)]
    fn hold(slice: Slice<E>, bins: Bins) -> Self {
        let Slice { row, first, end } = slice;
        let count = const { 2 * N / E::PER_VECTOR as usize };
        Self::of::<E, N>(&row.share(first, end, count), first, end, bins)
    }

    #[inline(always)]
    fn at_least(&self, bounds: u32) -> u32 {
        const { assert!(N <= 8) };
        let mut pairs = 0;
        for i in 0..N {
            pairs |= pair_of(i, half_pair_at_least(self.0[i], bounds));
        }
        bits_of_pairs(pairs)
    }
}

/// Twice as many, one half after the other.
impl<E: Element, H: Held<E>> Held<E> for (H, H) {
    const SCORES: u32 = 2 * H::SCORES;

    #[inline(always)]
    fn hold(slice: Slice<E>, bins: Bins) -> Self {
        let vectors = const { H::SCORES / E::PER_VECTOR * THREADS };
        (H::hold(slice, bins), H::hold(Slice { first: slice.first + vectors, ..slice }, bins))
    }

    #[inline(always)]
    fn at_least(&self, bounds: u32) -> u32 {
        self.0.at_least(bounds) | self.1.at_least(bounds) << H::SCORES
    }
}

/// [`select`] for rows of up to half of [`RESIDENT_PLACES`] places.
#[inline(always)]
pub fn select_short<E: Element>(
    row: Scores<E>,
    wanted: u32,
    options: Options,
    scratch: Scratch,
    out: impl Fn() -> OutRow<E>,
) -> Outcome {
    // Work on places where there is no score takes time, too. The shortest rows last, which the assembler puts first.
    if row.places() > RESIDENT_PLACES / 4 {
        select::<E, Pairs<8>>(row, wanted, options, scratch, out)
    } else {
        select::<E, Pairs<4>>(row, wanted, options, scratch, out)
    }
}

/// Writes the indices of the `wanted` largest scores of the row, which has more, to `out`.
///
/// If the bin of the k-th largest is crowded, nothing is written: refining is the caller's part, so that there is one copy
/// of it for all sizes. The bin is noted if the row is too long for [`crowded`], which finds it in the bins.
///
/// The bins are empty, the counters and the extremes zero. Collective over the block.
#[inline(always)]
pub fn select<E: Element, H: Held<E>>(
    row: Scores<E>,
    wanted: u32,
    options: Options,
    scratch: Scratch,
    out: impl Fn() -> OutRow<E>,
) -> Outcome {
    select_held::<E, H>(H::hold(row.whole(), scratch.bins), row, wanted, options, scratch, out)
}

/// [`select`] when the scores are held and counted.
#[inline(always)]
pub fn select_held<E: Element, H: Held<E>>(
    held: H,
    row: Scores<E>,
    wanted: u32,
    options: Options,
    scratch: Scratch,
    out: impl Fn() -> OutRow<E>,
) -> Outcome {
    let bins = scratch.bins;
    block::sync();
    // Not earlier: what starts while others still read takes their multiprocessors.
    grid::let_later_start();
    let pick = bins.pick::<SignMagnitude>(wanted);
    if pick.count > RANKED || pick.bin == LOWEST_BIN {
        if const { H::SCORES > crowded::HELD } {
            scratch.note(half::narrowed(pick));
        }
        return Outcome::Crowded;
    }
    let bounds = Bounds::of(pick.bin);
    let winners = held.at_least(bounds.high);
    let ties = held.at_least(bounds.low) & !winners;
    place::<E, H>(row, wanted, options, Found { winners, ties, pick }, scratch, out)
}

/// What the thread's scores are, as bits, and how many there are of all.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// Those above the bin of the k-th largest.
    pub winners: u32,
    /// Those in it.
    pub ties: u32,
    pub pick: Pick,
}

impl Found {
    /// Stages the winners and lists the ties, the first of which has been asked for, where `counters` have room for them.
    /// Collective over the warp.
    #[inline(always)]
    pub(super) fn stage_and_list<E: Element, H: Held<E>>(
        self,
        row: Scores<E>,
        start: u32,
        first: Tie,
        counters: Counters,
        staged: Staged,
        listed: Candidates,
    ) {
        let Self { winners, ties, .. } = self;
        let (position, mut number) = counters.reserve_few(winners.count_ones(), ties.count_ones());
        let first = first.arrived();
        staged.set_reserved(winners, H::SCORES, position, |bit| index::<E>(start, bit));
        first.for_each(row, start, ties, |tie| {
            tie.list(listed, number);
            number += 1;
        });
    }
}

/// The index of a thread's first score.
#[inline(always)]
pub(super) fn start<E: Element>(row: Scores<E>) -> u32 {
    // Computed where it is used and not kept from the reading.
    (opaque(thread::index()) * E::PER_VECTOR).wrapping_sub(row.first_place())
}

/// The end of [`select`] if the bin of the k-th largest has few enough scores to be ranked.
#[inline(always)]
pub(super) fn place<E: Element, H: Held<E>>(
    row: Scores<E>,
    wanted: u32,
    options: Options,
    found: Found,
    scratch: Scratch,
    out: impl Fn() -> OutRow<E>,
) -> Outcome {
    let Scratch { counters, ranked, words, sums, .. } = scratch;
    let Found { winners, ties, pick } = found;
    let (start, staged) = (start(row), scratch.staged());
    let is_ascending = options.is_ascending();
    let runs = Runs::<E, H>::new(words, sums);
    // Read once more: most threads have one such score at most, which is on its way while the winners are placed.
    let first = Tie::first_of(row, start, ties);
    if is_ascending {
        runs.note(winners);
        // Where the winners go is not asked for here. One atomic for each thread, on its way with the first tie: the assembler
        // has one lane add up for the others what is the same for all, which takes longer.
        if ties != 0 {
            let mut number = counters.reserve_ties(ties.count_ones());
            first.arrived().for_each(row, start, ties, |tie| {
                tie.list(ranked, number);
                number += 1;
            });
        }
    } else {
        found.stage_and_list::<E, H>(row, start, first, counters, staged, ranked);
    }
    block::sync();
    let rest = wanted - pick.above;
    let out = out();
    if is_ascending {
        ranked.rank::<THREADS>(pick.count, rest, |_, index| runs.add(index + row.first_place()));
        block::sync();
        let Selected { bits, first, position } = runs.neighbours();
        let first = first.wrapping_sub(row.first_place());
        staged.set_reserved(bits, H::SCORES, position, |bit| first.wrapping_add(bit));
        block::sync();
        out.write(staged, 0, wanted);
    } else {
        out.write(staged, 0, pick.above);
        let mut put = |rank, index| out.put(pick.above + rank, index);
        // Most bins of long rows have more than a few.
        if const { H::SCORES <= 16 } {
            ranked.rank::<THREADS>(pick.count, rest, put);
        } else {
            ranked.rank_some::<THREADS, 4>(0, pick.count, pick.count, rest, TieBreak::Index, &mut put);
        }
    }
    Outcome::Done
}

/// A score in the bin of the k-th largest.
#[derive(Clone, Copy)]
pub(super) struct Tie {
    score: f32,
    index: u32,
}

impl Tie {
    /// The one of the lowest bit set in `ties`, of which the first would be at index `start`; anything if none is.
    #[inline(always)]
    pub(super) fn first_of<E: Element>(row: Scores<E>, start: u32, ties: u32) -> Self {
        if ties == 0 {
            return Self { score: 0.0, index: 0 };
        }
        let index = index::<E>(start, lowest_bit(ties));
        Self { score: row.get(index), index }
    }

    /// Calls `f` with this one, which is the first one of `ties`, and all others. Each is read when the one before it has
    /// been dealt with.
    #[inline(always)]
    pub(super) fn for_each<E: Element>(
        self,
        row: Scores<E>,
        start: u32,
        mut ties: u32,
        mut f: impl FnMut(Self),
    ) {
        let mut tie = self;
        while ties != 0 {
            f(tie);
            ties &= ties - 1;
            tie = Self::first_of(row, start, ties);
        }
    }

    /// Lists it at place `number`.
    #[inline(always)]
    pub(super) fn list(self, ranked: Candidates, number: u32) {
        ranked.add(number, number_key(self.score), self.index);
    }

    /// The same, once it has been read: otherwise the compiler would read it where it is used.
    #[inline(always)]
    fn arrived(self) -> Self {
        Self { score: f32::from_bits(opaque(self.score.to_bits())), ..self }
    }
}
