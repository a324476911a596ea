//! Rows of any length, read once: a threshold guessed from a sample, what passes it listed, the answer
//! selected from the list and proven by its length.
//!
//! 1. A sample of 2,048 elements or more, spread over the row, gives a threshold that somewhat more
//!    than k elements pass: about 1.3 to 2 k for k from 512 to 2,048.
//! 2. The row is read once ([`stream`]), by one block or in slices by several, all with the same
//!    threshold because all take the same sample. What passes is listed: in shared memory by a block alone, in
//!    the workspace by several ([`slab`]).
//! 3. The block that is done last, and waits for nobody, selects from the list ([`refine`]). For an output in the order of the
//!    indices, several blocks mark what they list by a bit each, hand it over in this order, and the last one keeps it.
//!
//! If at least k elements are listed, and all that passed are (those of several blocks by the places that these have
//! reserved), the k largest of the list are the k largest of
//! the row: that is the proof. A guess that fails costs time and nothing else: the last block then selects
//! from the row itself, in three or four more reads (twice that if indices must be told apart, too). A sample
//! that is full of equal elements has the others listed, and takes as many of the equal ones as are wanted from
//! a second read that ends when it has them.
//!
//! The ideas (a counted proof, the last block to arrive finishes) are those of threshold-based selection and
//! of the classic single-pass reduction.

use dsa_simt::{AtomicOp, Carve, Shared, block, grid, half_pair, opaque, reciprocal, thread, truncate, warp};

use super::Options;
use super::ascending::{self, Ranks};
use super::bins::{SignMagnitude, THREADS};
use super::division::Part;
use super::element::Element;
use super::half::{self, LOWEST_BIN};
use super::key::{ABSENT, NAN, key, score};
use super::list::{CAPACITY, List, Listed, RangeBins};
use super::output::{Counters, lowest_bit};
use super::refine::{self, Alone, KeyRange, Narrowed, Outcome, Scratch};
use super::scores::{Scores, Slice, index};
use super::slab::{self, Slab};
use super::source::{Source, Tile, Visitor};
use super::state::RowState;
use super::stream::{self, Room, Stream};

/// Sampled elements that are expected to be among the k largest, at least.
const EXPECTED: f32 = 16.0;
/// The same for large k, where less slack is affordable: [`CAPACITY`] is not much more than k.
const EXPECTED_LARGE_K: f32 = 160.0;
const LARGE_K: u32 = 2048;
/// A sample is doubled once if fewer than so many times those are expected: the second vector of a sector costs little, and
/// less passes.
const WORTH_A_PAIR: f32 = 8.0;
const MANTISSA_BITS: u32 = f32::MANTISSA_DIGITS - 1;
/// A block alone counts what it lists at once, if its row has so many elements: then the memory is what is waited for.
/// Of shorter rows more passes in each tile, which is counted when all is listed. While other blocks of the multiprocessor have
/// the memory busy, that takes time of its own: with several, shorter rows are counted at once, too.
const COUNTED_AT_ONCE: u32 = 1 << 17;
const COUNTED_AT_ONCE_BESIDE_OTHERS: u32 = 1 << 16;
/// Slices of a row from which on each hands over what it lists in the order of the indices. Of fewer, each has so much that
/// one block sorts what is selected of all in less time.
const SORTED_SLICES: u32 = 4;

/// What a block needs in shared memory.
#[derive(Clone, Copy)]
pub struct SampledScratch {
    /// What selecting from the list needs.
    pub scratch: Scratch,
    /// The list.
    pub list: List,
    /// The notes.
    pub notes: Notes,
    /// Where the scores come to.
    pub room: Room,
}

/// Stages the indices of the `wanted` largest scores of `row`, together with the blocks that have its other
/// slices: the last of them does. The row is longer than that and has at least 8,192 elements.
///
/// `shared` gives the part once more, and what the blocks of the row share; it is called if there are several, and
/// more than once, for nothing of it is held in registers.
///
/// If the guess failed, the range of all keys is noted, and nothing is staged: [`refine::select`] over the row
/// is the caller's part, so that there is one copy of it for all paths.
///
/// The bins are empty, the counters and the extremes zero. Collective over the block; needs a block barrier before what is
/// staged is read or `sampled` is used again.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub fn select<E: Element>(
    row: Scores<E>,
    wanted: u32,
    options: Options,
    part: Part,
    shared: impl Fn() -> (Part, RowState, Slab),
    sampled: SampledScratch,
) -> Outcome {
    let SampledScratch { scratch, list, notes, room } = sampled;
    let is_alone = part.slices == 1;
    let slice = slice_of(row, part);
    let stream = Stream::new(row, slice.first, slice.end, room);
    // On its way while the threshold is found.
    let passing = guess(row, wanted, scratch, notes, || stream.begin());
    scratch.bins.zero();
    block::sync();
    let bins = || RangeBins::new(notes.range(), scratch.bins);
    let counted_at_once = if room.is_deep() { COUNTED_AT_ONCE } else { COUNTED_AT_ONCE_BESIDE_OTHERS };
    let is_counted = is_alone && row.len() >= counted_at_once;
    if is_counted {
        // The range is read once, and not for each element.
        let bins = bins();
        collect(stream, passing, list, Reserve::Each, scratch.counters, |score, _| bins.add(true, score));
    } else if is_alone {
        collect(stream, passing, list, Reserve::Warp, scratch.counters, |_, _| {});
    } else if options.is_ascending() {
        // In the bins, which are empty and of use to the last block only. Of a longer slice, places share bits, which are not
        // used.
        let (start, ranks) =
            (slice.first_index(), Ranks::new(scratch.bins.words(), room.words(), Ranks::PLACES));
        collect(stream, passing, list, Reserve::Each, scratch.counters, |_, index| {
            ranks.mark((index - start) % Ranks::PLACES);
        });
    } else {
        collect(stream, passing, list, Reserve::Each, scratch.counters, |_, _| {});
    }
    block::sync();
    // Not earlier: what starts while others still read takes their multiprocessors.
    grid::let_later_start();
    let mut listed = scratch.counters.winners();
    // Whether the list of the row is in the order of the indices, and places in it that have no element.
    let (mut is_sorted, mut empty) = (false, 0);
    if is_alone {
        if !is_counted {
            list.first(listed.min(CAPACITY)).count(bins());
        }
    } else if options.is_ascending() && shared().0.slices >= SORTED_SLICES && notes.has_lower_numbers() {
        let places = slab::reserved(listed);
        let own = list.first(listed);
        let (part, state, slab) = shared();
        let (mut start, mut ranks) = (0, None);
        let first = state.reserve(places, scratch.words, || {
            let slice = slice_of(row, part);
            start = slice.first_index();
            let span = slice.end_index().saturating_sub(start);
            if listed <= CAPACITY && span <= Ranks::PLACES {
                let marked = Ranks::new(scratch.bins.words(), room.words(), span);
                marked.add_up(scratch.sums);
                ranks = Some(marked);
            }
        });
        let rank = |place, index: u32| match ranks {
            Some(ranks) => ranks.of(index - start),
            None => place,
        };
        slab.write_in_order(part.number, first, own, ranks.is_some(), rank);
        let (part, state, slab) = shared();
        let Some(all) = state.arrive(part.slices, places, scratch.words) else { return Outcome::Done };
        scratch.bins.zero();
        listed = all;
        if all <= CAPACITY {
            let (bins, Scratch { words, sums, .. }) = (bins(), scratch);
            let count = |exists, score| bins.add(exists, score);
            (listed, is_sorted) = slab.gather_in_order(part.slices, all, list, words, sums, count);
            empty = all - listed;
        }
    } else {
        let (_, state, slab) = shared();
        slab.write(state.reserve(listed, scratch.words, || {}), listed, list);
        let (part, state, slab) = shared();
        let Some(all) = state.arrive(part.slices, listed, scratch.words) else { return Outcome::Done };
        if options.is_ascending() {
            scratch.bins.zero();
            block::sync();
        }
        listed = all;
        if listed <= CAPACITY {
            let bins = bins();
            slab.gather(listed, list, |exists, score| bins.add(exists, score));
        }
    }
    // The list is complete and counted, and all have read the counters.
    block::sync();
    if thread::index() == 0 {
        scratch.counters.start(0, 0);
    }
    if listed >= wanted && listed + empty <= CAPACITY {
        let listed = list.first(listed + empty);
        let outcome = if is_sorted {
            listed.select_in_order(bins(), wanted, scratch)
        } else {
            listed.select::<E>(bins(), wanted, options.are_none(), scratch)
        };
        if outcome != Outcome::Crowded {
            return outcome;
        }
        refine::select(&listed, wanted, options.lowest_indices(), scratch);
        return Outcome::Staged;
    }
    let crowded = notes.crowded();
    if listed < wanted
        && crowded != ABSENT
        && take_equal(row, crowded, listed, wanted, list.first(listed + empty), scratch)
    {
        return Outcome::Staged;
    }
    scratch.note(Narrowed { count: row.len(), ..Narrowed::UNKNOWN });
    Outcome::Crowded
}

/// A part of a row.
#[inline(always)]
fn slice_of<E: Element>(row: Scores<E>, part: Part) -> Slice<E> {
    let share = stream::share(row.vectors(), part.slices);
    let first = part.number * share;
    Slice { row, first, end: row.vectors().min(first + share) }
}

/// What the block notes in shared memory: the same for all threads, and the registers are wanted.
#[derive(Clone, Copy)]
pub struct Notes(Shared<u32>);

impl Notes {
    /// Words of shared memory that [`Notes::carve`] takes, a multiple of 4.
    pub const WORDS: u32 = 4;
    /// The key from which on elements pass.
    const PASSING: u32 = 0;
    /// The largest key of the sample: not many elements are above.
    const HIGHEST: u32 = 1;
    /// What [`crowded`](Self::crowded) gives.
    const CROWDED: u32 = 2;

    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`Notes::WORDS`] words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        Self(unsafe { carve.array(Self::WORDS) })
    }

    /// Most of what passes has keys in this range, and all has keys from its start on.
    #[inline(always)]
    pub(super) fn range(self) -> KeyRange {
        let first = self.0.get(Self::PASSING);
        KeyRange { first, last: self.0.get(Self::HIGHEST).max(first) }
    }

    /// Whether there are numbers below the threshold, so that the lowest one can stand where there is none.
    #[inline(always)]
    fn has_lower_numbers(self) -> bool {
        self.0.get(Self::PASSING) > key(f32::NEG_INFINITY)
    }

    /// The key just below the threshold, if so many elements share it that they do not pass; else [`ABSENT`].
    #[inline(always)]
    pub(super) fn crowded(self) -> u32 {
        self.0.get(Self::CROWDED)
    }
}

/// A score that, by a sample, somewhat more than `wanted` elements of the row are at or above; noted.
///
/// Calls `meanwhile` while the sample is on its way. The bins are empty and the extremes zero; afterwards the bins are not in
/// use any more, and the extremes are anything.
/// Collective over the block; a block barrier before the notes are read.
#[inline(always)]
pub(super) fn guess<E: Element>(
    row: Scores<E>,
    wanted: u32,
    scratch: Scratch,
    notes: Notes,
    meanwhile: impl Fn(),
) -> f32 {
    let Scratch { bins, extremes, .. } = scratch;
    let sample = Sample::of(row, wanted);
    let rank = sample.rank(wanted);
    let mut highest = 0;
    sample.for_each_four_quickly(meanwhile, |[a, b, c, d]| {
        // Not NaN: the maximum of NaN and a number is the number.
        highest = highest.max(key(a.max(b).max(c.max(d))));
        let ((a, b), (c, d)) = (half::words(half_pair(a, b)), half::words(half_pair(c, d)));
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
        extremes.set(Scratch::HIGH, 0);
    }
    let pick = bins.pick::<SignMagnitude>(rank);
    let (mut passing, mut crowded) = (half::lower_edge(pick.bin), ABSENT);
    if pick.count > rank / 2 || pick.bin == LOWEST_BIN {
        let found = Narrowed { range: half::keys(pick.bin), above: pick.above, count: pick.count };
        let Narrowed { range, above, count } =
            refine::narrow(&sample, found, rank, rank / 4, scratch, &Alone);
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
/// no period of the row is mistaken for the whole. If there are more than one for each thread, two that are read
/// together, because they share a sector of 32 bytes. Public because tests plant rows that mislead the sample.
#[derive(Clone, Copy)]
pub struct Spread {
    /// A thread has one vector of the sample, doubled this often.
    doubled: u32,
    stretch: u32,
    /// 1 if the row begins with the second vector of a sector.
    odd: u32,
}

impl Spread {
    /// For a row of `len` elements in `vectors` vectors of `per_vector`, of which `wanted` are selected; the first
    /// vector is at byte address `address`.
    #[inline(always)]
    pub fn of(len: u32, vectors: u32, per_vector: u32, wanted: u32, address: u32) -> Self {
        let round = THREADS * per_vector;
        let expected = if wanted > LARGE_K { EXPECTED_LARGE_K } else { EXPECTED };
        // The least that makes the sample large enough, but for rows that are too short for that. Powers of two: the
        // exponents say how often, and the bits behind them whether once more.
        let (least, needed) = ((wanted * round) as f32, expected * len as f32);
        let larger = needed.to_bits().wrapping_sub(least.to_bits()).cast_signed();
        let enough = ((larger + ((1 << MANTISSA_BITS) - 1)) >> MANTISSA_BITS).max(0).cast_unsigned();
        let enough = enough.max(u32::from(WORTH_A_PAIR * needed > least));
        let doubled = enough.min((len / (8 * round)).max(1).ilog2());
        // Neither the first nor the last vector: they may be partial.
        let stretch = ((vectors - 2) / THREADS) >> doubled.saturating_sub(1);
        Self { doubled, stretch, odd: address / 16 % 2 }
    }

    /// Number of sampled vectors.
    #[inline(always)]
    pub fn vectors(self) -> u32 {
        THREADS << self.doubled
    }

    /// The vector of the row that is sampled vector `number`.
    #[inline(always)]
    pub fn vector(self, number: u32) -> u32 {
        self.first_of(number % THREADS) + number / THREADS * self.round()
    }

    /// The first of a thread's vectors.
    #[inline(always)]
    fn first_of(self, thread: u32) -> u32 {
        let Self { doubled, stretch, odd } = self;
        let pairs = doubled.min(1);
        let place = thread >> pairs;
        // A pair may begin one vector later, and ends another one later.
        let within = u64::from(place.wrapping_mul(0x9e37_79b9)) * u64::from(stretch - 2 * pairs);
        let vector = 1 + place * stretch + (within >> 32) as u32;
        vector + ((vector + odd) % 2 + thread % 2) * pairs
    }

    /// How far apart the vectors of a thread are: as far as those of a round of all threads reach.
    #[inline(always)]
    fn round(self) -> u32 {
        (THREADS >> self.doubled.min(1)) * self.stretch
    }
}

/// The sampled elements of a row.
struct Sample<E: Element> {
    row: Scores<E>,
    spread: Spread,
}

impl<E: Element> Sample<E> {
    #[inline(always)]
    fn of(row: Scores<E>, wanted: u32) -> Self {
        let address = E::address(row.array()) as u32;
        Self { row, spread: Spread::of(row.len(), row.vectors(), E::PER_VECTOR, opaque(wanted), address) }
    }

    /// The rank in the sample that, all but certainly, `wanted` elements of the row are above or at.
    #[inline(always)]
    fn rank(&self, wanted: u32) -> u32 {
        let round = THREADS * E::PER_VECTOR;
        // Opaque, or this is done ahead of all rows and holds a register. Both sides of the fraction are divided by
        // how often the sample was doubled. A little more than there are: at least the quotient rounded up and one.
        let each = reciprocal((self.row.len() >> self.spread.doubled).max(1) as f32);
        let expected = (opaque(wanted) * round) as f32 * each + 2.0;
        // Half the exponent is a square root, 6 % too large at most; 3.5 standard deviations.
        let root = f32::from_bits((expected.to_bits() + (127 << 23)) >> 1);
        (truncate(expected + 3.5 * root) + 2).min(round << self.spread.doubled)
    }

    /// Calls `f` with the scores of the thread's vectors, four at a time; reads several vectors at once. Calls
    /// `meanwhile` when the first ones are on their way.
    #[inline(always)]
    fn for_each_four_quickly(&self, meanwhile: impl Fn(), mut f: impl FnMut([f32; 4])) {
        let at_once = const { 4 / E::PER_WORD as usize };
        let (own, distance) = (self.spread.first_of(thread::index()), self.spread.round());
        let mut first = 0;
        // The same for all threads: their numbers follow each other, and there are whole rounds of them.
        while first < self.spread.vectors() {
            let mut vectors = [[0; 4]; 4];
            for i in 0..at_once {
                let round = first + i as u32 * THREADS;
                if round < self.spread.vectors() {
                    // Opaque: read before what is done meanwhile begins.
                    vectors[i] = self.row.vector(own + round / THREADS * distance).map(opaque);
                }
            }
            if first == 0 {
                meanwhile();
            }
            for i in 0..at_once {
                if first + (i as u32) * THREADS < self.spread.vectors() {
                    for of_word in 0..E::PER_WORD {
                        f(vectors[i].map(|word| E::score(word, of_word)));
                    }
                }
            }
            first += at_once as u32 * THREADS;
        }
    }

    /// Calls `f` with the scores of the thread's vectors, four at a time.
    #[inline(always)]
    fn for_each_four(&self, mut f: impl FnMut([f32; 4])) {
        let mut number = opaque(thread::index());
        while number < self.spread.vectors() {
            let words = self.row.vector(self.spread.vector(number));
            for of_word in 0..E::PER_WORD {
                f(words.map(|word| E::score(word, of_word)));
            }
            number += THREADS;
        }
    }
}

impl<E: Element> Source for Sample<E> {
    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        self.for_each_four(|scores| {
            visitor.visit(Tile { keys: scores.map(key), start: 0, step: 0, stride: 0 });
        });
    }
}

/// How places of a list are reserved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserve {
    /// For one element after the other: the fastest where a warp has few of a tile.
    Each,
    /// For all that a warp has of a tile together.
    Warp,
}

/// Lists what passes and calls `also` with the score and the index of each element that it lists; what does not fit is only
/// counted, as all that passes is, in the counter of winners. `reserve` is known to the compiler. Collective over the block.
#[inline(always)]
pub(super) fn collect<E: Element>(
    stream: Stream<E>,
    passing: f32,
    list: List,
    reserve: Reserve,
    counters: Counters,
    also: impl Fn(f32, u32),
) {
    let bound = E::bound(passing);
    let mut tiles = stream.tiles();
    if tiles.come_in_pairs() {
        while tiles.has_pair() {
            collect_tile(&tiles.pair(), bound, list, reserve, counters, &also);
            tiles.advance();
            tiles.advance();
        }
    }
    while tiles.has_tile() {
        collect_tile(&tiles.tile(), bound, list, reserve, counters, &also);
        tiles.advance();
    }
}

/// The same for what has arrived.
#[inline(always)]
fn collect_tile<E: Element, const M: usize>(
    tile: &stream::Tile<E, M>,
    bound: u32,
    list: List,
    reserve: Reserve,
    counters: Counters,
    also: &impl Fn(f32, u32),
) {
    let mut passed = E::at_least(&tile.share.vectors, bound);
    let mut reserved = match reserve {
        Reserve::Each => 0,
        Reserve::Warp => counters.reserve_winners(passed.count_ones()),
    };
    while passed != 0 {
        let bit = lowest_bit(passed);
        let place = match reserve {
            Reserve::Each => counters.winner(),
            Reserve::Warp => reserved,
        };
        if place < CAPACITY {
            let (score, index) = (tile.score(bit), index::<E>(tile.share.start, bit));
            list.set(place, score, index);
            also(score, index);
        }
        reserved += 1;
        passed &= passed - 1;
    }
}

/// Stages all `listed` elements of the list, which are above the key `equal`, and completes the row with those elements that
/// have it and the lowest indices. Tells whether there were enough of them. Collective over the block.
#[inline(always)]
fn take_equal<E: Element>(
    row: Scores<E>,
    equal: u32,
    listed: u32,
    wanted: u32,
    list: Listed,
    scratch: Scratch,
) -> bool {
    if list.len() == listed {
        list.stage_all(scratch.staged());
    } else {
        // The counters are zero.
        block::sync();
        list.stage_numbers(scratch.counters, scratch.staged());
    }
    ascending::stage_equal(row.whole(), equal, listed, wanted, scratch.staged(), scratch.sums) >= wanted
}
