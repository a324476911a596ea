//! Rows of any length, read once: a threshold guessed from a sample, what passes it listed, the answer
//! selected from the list and proven by its length.
//!
//! 1. A sample of 2,048 elements or more, spread over the row, gives a threshold that about 1.5 to 2 k
//!    elements pass.
//! 2. The row is read once, by one block or in slices by several, all with the same threshold because all
//!    take the same sample. What passes is listed: in shared memory by a block alone, in the workspace by
//!    several.
//! 3. The block that is done last, and waits for nobody, selects from the list ([`refine`]).
//!
//! If at least k elements are listed, and all that passed are, the k largest of the list are the k largest of
//! the row: that is the proof. A guess that fails costs time and nothing else: the last block then selects
//! from the row itself, in three or four more reads. A sample that is full of equal elements has the others
//! listed, and takes as many of the equal ones as are wanted from a second read that ends when it has them.
//!
//! The ideas (a counted proof, the last block to arrive finishes) are those of threshold-based selection and
//! of the classic single-pass reduction.

use dsa_simt::{AtomicOp, Carve, Global, Order, Scope, Shared, block, half_pair, opaque, thread, warp};

use super::bins::{SignMagnitude, THREADS};
use super::half::{self, LOWEST_BIN};
use super::key::{ABSENT, NAN, key, score};
use super::list::{CAPACITY, List};
use super::output::{Counters, Emit, FirstTies, KeyThreshold, lowest_bit};
use super::refine::{self, KeyRange, Narrowed, Outcome, Scratch};
use super::scores::{SHARE, Scores, Share, VECTOR, tile_vectors, visit_share};
use super::source::{Source, Tile, Visitor};
use super::state::RowState;

/// Words of workspace for the list of one row.
pub const LIST_WORDS: u32 = 2 * CAPACITY;
/// Sampled elements that are expected to be among the k largest, at least.
const EXPECTED: u64 = 16;
/// The same for large k, where less slack is affordable: [`CAPACITY`] is not much more than k.
const EXPECTED_LARGE_K: u64 = 100;
const LARGE_K: u32 = 2048;
/// Elements of the smallest sample: a vector for each thread.
const ROUND: u32 = THREADS * VECTOR;

/// What a block needs in shared memory.
#[derive(Clone, Copy)]
pub struct SampledScratch {
    /// What selecting from the list needs.
    pub scratch: Scratch,
    /// The list.
    pub list: List,
    /// The notes.
    pub notes: Notes,
}

/// One block's share of a row.
#[derive(Clone, Copy)]
pub struct Slice {
    /// Its number.
    pub number: u32,
    /// Slices of the row.
    pub count: u32,
}

/// Writes the indices of the `out.len()` largest scores of `row` to `out`, together with the blocks that have
/// its other slices. The row is longer than that and has at least 8,192 elements.
///
/// `state` and `shared_list` are the row's, used if there are several slices.
///
/// If the guess failed, the range of all keys is noted, and what was written is to be overwritten:
/// [`refine::select`] over the row is the caller's part, so that there is one copy of it for all paths.
///
/// The bins are empty and the counters zero. Collective over the block; needs a block barrier before `sampled`
/// is used again.
#[inline(always)]
pub fn select(
    row: Scores,
    out: Global<i32>,
    slice: Slice,
    state: RowState,
    shared_list: Global<u32>,
    sampled: SampledScratch,
) -> Outcome {
    let SampledScratch { scratch, list, notes } = sampled;
    let wanted = out.len() as u32;
    let share = row.vectors().div_ceil(slice.count);
    let first = slice.number * share;
    let end = row.vectors().min(first + share);
    // On its way while the threshold is found.
    let tile = row.share::<SHARE>(first, end);
    let passing = guess(row, wanted, scratch, notes);
    // `guess` ends with a barrier.
    scratch.bins.zero();
    collect(row, tile, first, end, passing, list, scratch.counters);
    block::sync();
    let mut listed = scratch.counters.winners();
    // The counters are used again from here on.
    block::sync();
    if slice.count > 1 {
        match hand_over(listed, slice, state, shared_list, list, notes.0) {
            Some(total) => listed = total,
            None => return Outcome::Done,
        }
    }
    if listed >= wanted && listed <= CAPACITY {
        if thread::index() == 0 {
            scratch.counters.start(0, 0);
        }
        let listed = list.first(listed);
        let first = notes.0.get(Notes::PASSING);
        let range = KeyRange { first, last: notes.0.get(Notes::HIGHEST).max(first) };
        if listed.select(range, out, scratch) == Outcome::Crowded {
            refine::select(&listed, wanted, scratch);
            scratch.staged().write::<THREADS>(out);
        }
        return Outcome::Done;
    }
    let crowded = notes.0.get(Notes::CROWDED);
    if listed < wanted && crowded != ABSENT && take_equal(row, crowded, listed, out, list, scratch) {
        return Outcome::Done;
    }
    scratch.note(Narrowed { range: KeyRange { first: NAN, last: u32::MAX }, above: 0, count: row.len() });
    Outcome::Crowded
}

/// What the block notes in shared memory: the same for all threads, and the registers are wanted.
#[derive(Clone, Copy)]
pub struct Notes(Shared<u32>);

impl Notes {
    /// Words of shared memory that [`Notes::carve`] takes, a multiple of 4.
    pub const WORDS: u32 = 4;
    /// What one thread tells the others.
    const MESSAGE: u32 = 0;
    /// The key from which on elements pass.
    const PASSING: u32 = 1;
    /// The largest key of the sample: not many elements are above.
    const HIGHEST: u32 = 2;
    /// The key just below the threshold, if so many elements share it that they do not pass; else [`ABSENT`].
    const CROWDED: u32 = 3;

    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`Notes::WORDS`] words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        Self(unsafe { carve.array(Self::WORDS) })
    }
}

/// A score that, by a sample, somewhat more than `wanted` elements of the row are at or above; noted.
///
/// The bins are empty. Collective over the block; ends with a block barrier.
#[inline(always)]
fn guess(row: Scores, wanted: u32, scratch: Scratch, notes: Notes) -> f32 {
    let Scratch { bins, extremes, .. } = scratch;
    let sample = Sample::of(row, wanted);
    let rank = sample.rank(wanted);
    let mut highest = 0;
    sample.for_each_vector(|[a, b, c, d]| {
        // Not NaN: the maximum of NaN and a number is the number.
        highest = highest.max(key(a.max(b).max(c.max(d))));
        let ((a, b), (c, d)) = (half::bins(half_pair(a, b)), half::bins(half_pair(c, d)));
        bins.add(a);
        bins.add(b);
        bins.add(c);
        bins.add(d);
    });
    let highest = warp::reduce_max(warp::ALL, highest);
    if thread::lane() == 0 {
        extremes.reduce(AtomicOp::Max, Scratch::HIGH, highest);
    }
    block::sync();
    if thread::index() == 0 {
        notes.0.set(Notes::HIGHEST, extremes.get(Scratch::HIGH));
    }
    let pick = bins.pick::<SignMagnitude>(rank);
    let (mut passing, mut crowded) = (half::lower_edge(pick.bin), ABSENT);
    if pick.count > rank / 2 || pick.bin == LOWEST_BIN {
        let found = Narrowed { range: half::keys(pick.bin), above: pick.above, count: pick.count };
        let Narrowed { range, above, count } = refine::narrow(&sample, found, rank, rank / 4, scratch);
        passing = score(range.first);
        if above + count > 2 * rank {
            // Above NaN there is no score before the lowest number.
            let above = if range.last == NAN { f32::NEG_INFINITY } else { score(range.last + 1) };
            (passing, crowded) = (above, range.last);
        }
    }
    if thread::index() == 0 {
        notes.0.set(Notes::PASSING, key(passing));
        notes.0.set(Notes::CROWDED, crowded);
    }
    passing
}

/// Which vectors of a row are sampled: one from each of equal stretches, at a different place in each, so that
/// no period of the row is mistaken for the whole. Public because tests plant rows that mislead the sample.
#[derive(Clone, Copy)]
pub struct Spread {
    /// The sample has [`ROUND`] elements, doubled this often.
    doubled: u32,
    stretch: u32,
}

impl Spread {
    /// For a row of `len` elements in `vectors` vectors, of which `wanted` are selected.
    #[inline(always)]
    pub fn of(len: u32, vectors: u32, wanted: u32) -> Self {
        let expected = if wanted > LARGE_K { EXPECTED_LARGE_K } else { EXPECTED };
        // Powers of two: a division would take longer than the loop.
        let mut doubled = 0;
        while (u64::from(wanted) * u64::from(ROUND)) << doubled < expected * u64::from(len)
            && (8 * ROUND) << (doubled + 1) <= len
        {
            doubled += 1;
        }
        // Neither the first nor the last vector: they may be partial.
        Self { doubled, stretch: ((vectors - 2) / THREADS) >> doubled }
    }

    /// Number of sampled vectors.
    #[inline(always)]
    pub fn vectors(self) -> u32 {
        THREADS << self.doubled
    }

    /// The vector of the row that is sampled vector `number`.
    #[inline(always)]
    pub fn vector(self, number: u32) -> u32 {
        let within = u64::from(number.wrapping_mul(0x9e37_79b9)) * u64::from(self.stretch);
        1 + number * self.stretch + (within >> 32) as u32
    }
}

/// The sampled elements of a row.
struct Sample {
    row: Scores,
    spread: Spread,
}

impl Sample {
    #[inline(always)]
    fn of(row: Scores, wanted: u32) -> Self {
        Self { row, spread: Spread::of(row.len(), row.vectors(), wanted) }
    }

    /// The rank in the sample that, all but certainly, `wanted` elements of the row are above or at.
    #[inline(always)]
    fn rank(&self, wanted: u32) -> u32 {
        let sampled = self.spread.vectors() * VECTOR;
        // Opaque, or the conversion is done ahead of all rows and holds a register.
        let expected = opaque(wanted) as f32 * sampled as f32 / self.row.len() as f32 + 1.0;
        // Half the exponent is a square root, 6 % too large at most; 3.5 standard deviations.
        let root = f32::from_bits((expected.to_bits() + (127 << 23)) >> 1);
        ((expected + 3.5 * root) as u32 + 2).min(sampled)
    }

    #[inline(always)]
    fn for_each_vector(&self, mut f: impl FnMut([f32; 4])) {
        let mut number = opaque(thread::index());
        while number < self.spread.vectors() {
            f(self.row.vector(self.spread.vector(number)));
            number += THREADS;
        }
    }
}

impl Source for Sample {
    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        self.for_each_vector(|scores| visitor.visit(Tile { keys: scores.map(key), start: 0, stride: 0 }));
    }
}

/// Lists what passes of the vectors `first..end`, and counts it in the counter of winners; what does not fit is
/// only counted. `tile` is the first tile. Collective over the block.
#[inline(always)]
fn collect(
    row: Scores,
    tile: Share<SHARE>,
    mut first: u32,
    end: u32,
    passing: f32,
    list: List,
    counters: Counters,
) {
    let mut share = tile;
    loop {
        let mut passed = 0_u32;
        for element in 0..SHARE {
            passed |= u32::from(share.scores[element] >= passing) << element;
        }
        if warp::any(warp::ALL, passed != 0) {
            let mut place = counters.reserve_winners(passed.count_ones());
            while passed != 0 {
                let index = share.index(lowest_bit(passed));
                if place < CAPACITY {
                    // Read again, from the cache: a register cannot be chosen at run time.
                    list.set(place, row.get(index), index);
                }
                place += 1;
                passed &= passed - 1;
            }
        }
        first += tile_vectors(SHARE);
        if first >= end {
            return;
        }
        share = row.share::<SHARE>(first, end);
    }
}

/// Adds this block's list to the row's; the last block of the row gets the whole list, and the number of
/// elements that passed. Collective over the block; ends with a block barrier.
#[inline(always)]
fn hand_over(
    listed: u32,
    slice: Slice,
    state: RowState,
    shared_list: Global<u32>,
    list: List,
    note: Shared<u32>,
) -> Option<u32> {
    if thread::index() == 0 {
        note.set(
            Notes::MESSAGE,
            state.passed().atomic(AtomicOp::Add, 0, listed, Order::Relaxed, Scope::Device),
        );
    }
    block::sync();
    let start = note.get(Notes::MESSAGE);
    if start.saturating_add(listed) <= CAPACITY {
        let mut number = opaque(thread::index());
        while number < listed {
            shared_list.set((start + number) as usize, list.score(number).to_bits());
            shared_list.set((CAPACITY + start + number) as usize, list.index(number));
            number += THREADS;
        }
    }
    block::sync();
    let mut is_last = false;
    if thread::index() == 0 {
        let arrived = state.arrived().atomic(AtomicOp::Add, 0, 1, Order::AcqRel, Scope::Device);
        is_last = arrived == slice.count - 1;
    }
    if !block::sync_or(is_last) {
        return None;
    }
    if thread::index() == 0 {
        note.set(Notes::MESSAGE, state.passed().atomic_load(0, Order::Relaxed, Scope::Device));
        state.passed().set(0, 0);
        state.arrived().set(0, 0);
    }
    block::sync();
    let total = note.get(Notes::MESSAGE);
    if total <= CAPACITY {
        let mut place = 4 * opaque(thread::index());
        while place < total {
            // Two vectors of each, in flight together.
            let further = place + 4 * THREADS;
            let (near, far) =
                (Entries::read(shared_list, place, total), Entries::read(shared_list, further, total));
            near.store(list, place, total);
            far.store(list, further, total);
            place += 8 * THREADS;
        }
    }
    block::sync();
    Some(total)
}

/// Up to four neighbouring entries of a list.
struct Entries {
    scores: [u32; 4],
    indices: [u32; 4],
}

impl Entries {
    /// Reads those from `place` on that are below `total`.
    #[inline(always)]
    fn read(shared_list: Global<u32>, place: u32, total: u32) -> Self {
        let (score, index) = (place as usize, (CAPACITY + place) as usize);
        let mut entries = Self { scores: [0; 4], indices: [0; 4] };
        if place + 4 <= total {
            entries = Self { scores: shared_list.get4(score), indices: shared_list.get4(index) };
        } else {
            for i in 0..4 {
                if place + (i as u32) < total {
                    entries.scores[i] = shared_list.get(score + i);
                    entries.indices[i] = shared_list.get(index + i);
                }
            }
        }
        entries
    }

    /// Writes them to `list`, and zeroes behind `total`, if any of them is below that.
    #[inline(always)]
    fn store(&self, list: List, place: u32, total: u32) {
        if place < total {
            list.set4(place, self.scores.map(f32::from_bits), self.indices);
        }
    }
}

/// Writes all `listed` elements, which are above the key `equal`, and completes the row with elements that
/// have it. Tells whether there were enough of them. Collective over the block.
#[inline(always)]
fn take_equal(row: Scores, equal: u32, listed: u32, out: Global<i32>, list: List, scratch: Scratch) -> bool {
    let wanted = out.len() as u32;
    let Scratch { counters, .. } = scratch;
    let mut number = opaque(thread::index());
    while number < listed {
        out.set(number as usize, list.index(number).cast_signed());
        number += THREADS;
    }
    if thread::index() == 0 {
        counters.start(0, 0);
    }
    block::sync();
    let ties = FirstTies { out, position: listed, wanted: wanted - listed };
    let threshold = KeyThreshold::of(KeyRange { first: equal, last: equal });
    let mut emit = Emit { threshold, counters, out, ties };
    let mut first = 0;
    let mut found = 0;
    while first < row.vectors() && listed + found < wanted {
        let mut share = row.share::<SHARE>(first, row.vectors());
        for element in 0..SHARE {
            // What is above is written already.
            if key(share.scores[element]) > equal {
                share.scores[element] = f32::NAN;
            }
        }
        visit_share(&share, row.len(), &mut emit);
        block::sync();
        found = counters.ties();
        block::sync();
        first += tile_vectors(SHARE);
    }
    listed + found >= wanted
}
