//! Exact selection by key ranges, for any source and any distribution.
//!
//! [`narrow`] cuts a range of keys in which the k-th largest lies down to one bin of 4,096 in each round,
//! starting from the keys that really occur in it: numbers that crowd into a narrow range are told apart in
//! the first round, and equal ones are seen to be equal at once. [`select`] then writes the elements above
//! the range, ranks the few in it or, if they are all equal, takes as many as are wanted.

use dsa_simt::{AtomicOp, Carve, Shared, block, thread, warp};

use super::bins::{self, Ascending, BinOrder, Bins, Descending, THREADS};
use super::candidates::{self, Candidates};
use super::element::Element;
use super::histogram::Pick;
use super::key::{ABSENT, NAN, number_keys_beside};
use super::output::{Counters, Staged};
use super::prefix::Sums;
use super::source::{Source, Tile, Visitor};

/// A range of keys, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub first: u32,
    /// The last key.
    pub last: u32,
}

impl KeyRange {
    /// How far keys are shifted so that the range has at most as many bins as there are.
    #[inline(always)]
    pub fn shift(self) -> u32 {
        (u32::BITS - (self.last - self.first).leading_zeros()).saturating_sub(bins::BITS)
    }

    /// Whether it cannot have two different scores of type `E`. So short a range is not looked for where scores are f32.
    #[inline(always)]
    pub(super) fn is_one_score<E: Element>(self) -> bool {
        E::KEY_STEP > 1 && self.last - self.first < E::KEY_STEP
    }

    /// What is left of it without so many keys at either end, which are given as complements.
    #[inline(always)]
    pub(super) fn without(self, low: u32, high: u32) -> Self {
        Self { first: self.first + !low, last: self.last - !high }
    }

    /// The keys of bin `bin` of those that end at key `last` and are numbered from there down.
    #[inline(always)]
    pub(super) fn of_bin_below(last: u32, bin: u32, shift: u32) -> Self {
        let last = last - (bin << shift);
        // The last bins may reach beyond all keys.
        Self { first: last.saturating_sub((1 << shift) - 1), last }
    }

    /// The keys of scores that are not NaN, for comparing with its own ([`number_keys_beside`]).
    #[inline(always)]
    pub(super) fn keys_beside<const N: usize>(self, scores: [f32; N]) -> [u32; N] {
        number_keys_beside((self.first, self.last), scores)
    }

    /// The keys of bin `bin` of those that begin at key `first`.
    #[inline(always)]
    pub fn of_bin(first: u32, bin: u32, shift: u32) -> Self {
        let first = first + (bin << shift);
        // The last bins may reach beyond all keys.
        Self { first, last: first.saturating_add((1 << shift) - 1) }
    }
}

/// Up to this many elements are ranked by comparing all pairs.
pub const RANKED: u32 = 256;

/// What a block needs for selecting, in shared memory.
#[derive(Clone, Copy)]
pub struct Scratch {
    /// The histogram.
    pub bins: Bins,
    /// Running positions.
    pub counters: Counters,
    /// The elements that are ranked.
    pub ranked: Candidates,
    /// A word for each thread.
    pub words: Shared<u32>,
    /// Prefix sums.
    pub sums: Sums,
    /// The extremes of some keys.
    pub(super) extremes: Shared<u32>,
    found: Shared<u32>,
}

impl Scratch {
    /// Bytes of shared memory that [`Scratch::carve`] takes.
    pub const BYTES: u32 = 4
        * (bins::WORDS
            + Counters::WORDS
            + candidates::words(RANKED)
            + THREADS
            + Sums::WORDS
            + Self::EXTREMES
            + Self::FOUND);
    /// Rounded up to 16 bytes.
    const EXTREMES: u32 = 4;
    const FOUND: u32 = 8;
    const LAST_INDEX: u32 = 4;
    /// Where the complement of the distance of the smallest key from the start of a range is gathered.
    pub(super) const LOW: u32 = 0;
    /// The same for the largest key and the end of the range; or the largest key.
    pub(super) const HIGH: u32 = 1;

    /// Notes up to which index elements of the range are taken.
    #[inline(always)]
    fn note_last_index(self, index: u32) {
        if thread::index() == 0 {
            self.found.set(Self::LAST_INDEX, index);
        }
    }

    /// What was noted, after a block barrier.
    #[inline(always)]
    pub(super) fn noted(self) -> Narrowed {
        let [first, last, above, count] = self.found.get4(0);
        Narrowed { range: KeyRange { first, last }, above, count }
    }

    /// Notes where the k-th largest element is, for [`select`]: all threads know, and none needs a register
    /// for it. A block barrier before `select`, which begins with one.
    #[inline(always)]
    pub fn note(self, found: Narrowed) {
        if thread::index() == 0 {
            self.found.set4(0, [found.range.first, found.range.last, found.above, found.count]);
        }
    }

    /// The memory of the bins, for staging the output.
    #[inline(always)]
    pub fn staged(self) -> Staged {
        const { assert!(Staged::WORDS <= bins::ROOM) };
        Staged::new(self.bins.words())
    }

    /// Empties the bins and zeroes the counters and the extremes. Collective over the block; a block barrier before the first use.
    #[inline(always)]
    pub fn start(self) {
        self.bins.zero();
        if thread::index() == 0 {
            self.counters.start(0, 0);
        }
        self.zero_extremes();
    }

    /// Zeroes the extremes. Collective over the block; a block barrier before the first use.
    #[inline(always)]
    pub(super) fn zero_extremes(self) {
        if thread::index() == 0 {
            self.extremes.set(Self::LOW, 0);
            self.extremes.set(Self::HIGH, 0);
        }
    }

    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`Scratch::BYTES`] bytes.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        unsafe {
            Self {
                bins: Bins::carve(carve),
                counters: Counters::carve(carve),
                ranked: Candidates::carve(carve, RANKED),
                words: carve.array(THREADS),
                sums: Sums::carve(carve),
                extremes: carve.array(Self::EXTREMES),
                found: carve.array(Self::FOUND),
            }
        }
    }
}

/// Where the k-th largest element is.
#[derive(Clone, Copy)]
pub struct Narrowed {
    /// A range of keys that holds it.
    pub range: KeyRange,
    /// Elements above the range; fewer than wanted.
    pub above: u32,
    /// Elements in the range, or [`Narrowed::UNCOUNTED`]; together with those above at least as many as wanted.
    pub count: u32,
}

impl Narrowed {
    /// In place of a count that is not known: more than there can be.
    pub const UNCOUNTED: u32 = 1 << 31;
    /// Anywhere among all scores.
    pub const UNKNOWN: Self =
        Self { range: KeyRange { first: NAN, last: u32::MAX }, above: 0, count: Self::UNCOUNTED };

    /// Whether nothing is left to rank: all of the range are wanted, or all of it are equal.
    #[inline(always)]
    fn is_settled(self, wanted: u32) -> bool {
        self.above + self.count == wanted || self.range.first == self.range.last
    }
}

/// What a path made of its elements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The output is written, or another block's part.
    Done,
    /// The output is staged, in any order.
    Staged,
    /// What is certain of the output is marked where the thread that holds it has its word, and not staged.
    Marked,
    /// The output is staged but for elements that are equal to the k-th largest, any of which will do: they are staged from
    /// the end of the row down, perhaps more than are wanted.
    EqualApart,
    /// Too many elements for the path share what it tells them apart by: where they are is noted, or in the bins, and they
    /// are to be refined.
    Crowded,
    /// The output is staged, in the order of the indices.
    Sorted,
}

/// How what several blocks measured and counted comes together, if they look for the same element.
pub trait Merge {
    /// The largest of what each block has gathered in `extremes`, which are not used again before the next barrier of
    /// all of them. Begins with one.
    fn extremes(&self, extremes: Shared<u32>) -> (u32, u32);
    /// The bin of the `wanted`-th largest of the elements that all blocks have counted in their `bins`. Others may read
    /// these until the next barrier of all of them. Begins with one.
    fn pick<O: BinOrder>(&self, bins: Bins, wanted: u32) -> Pick;
    /// A barrier of all of them, if there are several.
    fn sync(&self);
}

/// One block, with nobody to share.
pub struct Alone;

impl Merge for Alone {
    #[inline(always)]
    fn extremes(&self, extremes: Shared<u32>) -> (u32, u32) {
        block::sync();
        (extremes.get(Scratch::LOW), extremes.get(Scratch::HIGH))
    }
    #[inline(always)]
    fn pick<O: BinOrder>(&self, bins: Bins, wanted: u32) -> Pick {
        block::sync();
        bins.pick::<O>(wanted)
    }
    #[inline(always)]
    fn sync(&self) {}
}

/// Narrows `found` until its range holds one key, or just the elements that are wanted, or at most `enough`.
///
/// The range holds the `wanted`-th largest element of the sources of all blocks that `merge` brings together. If these are
/// [held](Source::IS_HELD), their keys are for comparing with those of the range, which may begin lower in the end than it did.
/// The extremes are zero, and not afterwards. Collective over them, after a block barrier; needs one of all of them before
/// the bins are used again.
#[inline(always)]
pub fn narrow<S: Source>(
    source: &S,
    found: Narrowed,
    wanted: u32,
    enough: u32,
    scratch: Scratch,
    merge: &impl Merge,
) -> Narrowed {
    let Scratch { bins, extremes, .. } = scratch;
    let Narrowed { mut range, mut above, mut count } = found;
    // With a bin for each key there is nothing to measure.
    if range.shift() > 0 {
        let mut distances = Distances::of(range);
        source.visit(&mut distances);
        distances.gather(extremes);
        let (low, high) = merge.extremes(extremes);
        range = range.without(low, high);
    } else {
        merge.sync();
    }
    // All have come to a barrier since the bins were read.
    let mut are_read = true;
    while range.first < range.last && above + count != wanted && count > enough {
        if !are_read {
            merge.sync();
        }
        bins.zero();
        block::sync();
        let shift = range.shift();
        let pick;
        if const { S::IS_HELD } {
            source.visit(&mut CountDown::new(bins, range));
            pick = merge.pick::<Descending>(bins, wanted - above);
            range = KeyRange::of_bin_below(range.last, pick.bin, shift);
        } else {
            source.visit(&mut CountRange { bins, range, shift });
            pick = merge.pick::<Ascending>(bins, wanted - above);
            let bin = KeyRange::of_bin(range.first, pick.bin, shift);
            range = KeyRange { last: range.last.min(bin.last), ..bin };
        }
        above += pick.above;
        count = pick.count;
        are_read = false;
    }
    Narrowed { range, above, count }
}

/// Stages the indices of the `wanted` largest elements of `source`, of equal ones any or those with the lowest
/// indices. Where the k-th largest is was noted ([`Scratch::note`]): if nothing better is known, the range of
/// all keys.
///
/// Collective over the block. Begins and ends with a block barrier.
#[inline(always)]
pub fn select(source: &impl Source, wanted: u32, lowest_indices: bool, scratch: Scratch) {
    let mut view = View { source, equal: ABSENT };
    // Keys first. If more elements have the k-th largest than are wanted, then, among these, indices. In between
    // all that is known is noted, and not held in registers.
    loop {
        block::sync();
        scratch.zero_extremes();
        let mut known = scratch.noted();
        let (mut wanted_of_view, mut enough) = (wanted, RANKED);
        if view.equal != ABSENT {
            (wanted_of_view, enough) = (wanted - known.above, 0);
            let range = KeyRange { first: ABSENT + 1, last: u32::MAX };
            known = Narrowed { range, above: 0, count: known.count };
        }
        block::sync();
        let narrowed = narrow(&view, known, wanted_of_view, enough, scratch, &Alone);
        let Narrowed { range, above, count } = narrowed;
        if view.equal != ABSENT {
            scratch.note_last_index(!range.first);
            break;
        }
        scratch.note(narrowed);
        scratch.note_last_index(u32::MAX);
        if !lowest_indices || range.first < range.last || above + count == wanted {
            break;
        }
        view.equal = range.first;
    }
    if thread::index() == 0 {
        scratch.counters.start(0, 0);
    }
    block::sync();
    source.visit(&mut Emit { scratch, wanted });
    block::sync();
    let found = scratch.noted();
    if !found.is_settled(wanted) {
        let Narrowed { above, count, .. } = found;
        let put = |rank, index| scratch.staged().set(above + rank, index);
        scratch.ranked.rank::<THREADS>(count, wanted - above, put);
        block::sync();
    }
}

/// A source; or, of its elements with one key, the indices as keys, the lowest index the largest.
struct View<'a, S> {
    source: &'a S,
    /// That key, or [`ABSENT`] for the source as it is.
    equal: u32,
}

impl<S: Source> Source for View<'_, S> {
    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        self.source.visit(&mut ViewVisitor { visitor, equal: self.equal });
    }
}

struct ViewVisitor<'a, V> {
    visitor: &'a mut V,
    equal: u32,
}

impl<V: Visitor> Visitor for ViewVisitor<'_, V> {
    #[inline(always)]
    fn visit<const N: usize>(&mut self, mut tile: Tile<N>) {
        if self.equal != ABSENT {
            for element in 0..N {
                let is_equal = tile.keys[element] == self.equal;
                tile.keys[element] = if is_equal { !tile.index(element as u32) } else { ABSENT };
            }
        }
        self.visitor.visit(tile);
    }
}

/// Stages the elements above the range that was noted. Those in it are listed, or the first ones are staged, too.
///
/// What was noted is read for each tile: registers are scarcer than time here.
struct Emit {
    scratch: Scratch,
    wanted: u32,
}

impl Visitor for Emit {
    #[inline(always)]
    fn visit<const N: usize>(&mut self, tile: Tile<N>) {
        let Scratch { counters, ranked, .. } = self.scratch;
        let staged = self.scratch.staged();
        let found = self.scratch.noted();
        let (mut winners, mut ties) = (0_u32, 0_u32);
        let first = found.range.first.max(ABSENT + 1);
        for element in 0..N {
            let key = tile.keys[element];
            winners |= u32::from(key > found.range.last) << element;
            ties |= u32::from(key >= first) << element;
        }
        ties &= !winners;
        if warp::any(warp::ALL, winners != 0) {
            staged.set_winners(counters, winners, N as u32, |element| tile.index(element));
        }
        if ties == 0 {
            return;
        }
        let is_settled = found.is_settled(self.wanted);
        let last_index = self.scratch.found.get(Scratch::LAST_INDEX);
        for element in 0..N {
            let index = tile.index(element as u32);
            if ties >> element & 1 != 0 && index <= last_index {
                let number = counters.tie();
                if !is_settled {
                    ranked.add(number, tile.keys[element], index);
                } else if found.above + number < self.wanted {
                    staged.set(found.above + number, index);
                }
            }
        }
    }
}

/// How far the smallest and the largest key of a range that occur are from its ends. Any other key is farther.
pub(super) struct Distances {
    range: KeyRange,
    low: u32,
    high: u32,
}

impl Distances {
    /// Of a range that begins above [`ABSENT`].
    #[inline(always)]
    pub(super) fn of(range: KeyRange) -> Self {
        Self { range, low: u32::MAX, high: u32::MAX }
    }

    /// Takes a key into account.
    #[inline(always)]
    pub(super) fn add(&mut self, key: u32) {
        self.low = self.low.min(key.wrapping_sub(self.range.first));
        self.high = self.high.min(self.range.last.wrapping_sub(key));
    }

    /// Merges what the threads have found into `extremes`, which were zero: the complements, of which the largest
    /// counts. Collective over the warp; a block barrier before they are read.
    #[inline(always)]
    pub(super) fn gather(&self, extremes: Shared<u32>) {
        let low = warp::reduce_max(warp::ALL, !self.low);
        let high = warp::reduce_max(warp::ALL, !self.high);
        if thread::lane() == 0 {
            extremes.reduce(AtomicOp::Max, Scratch::LOW, low);
            extremes.reduce(AtomicOp::Max, Scratch::HIGH, high);
        }
    }
}

impl Visitor for Distances {
    #[inline(always)]
    fn visit<const N: usize>(&mut self, tile: Tile<N>) {
        const { assert!(ABSENT == 0) };
        for element in 0..N {
            self.add(tile.keys[element]);
        }
    }
}

/// Counts the keys of a range by their distance from its end, in bins from the largest key down: what is larger wraps, and is
/// too far away for any bin. What is below the range comes after all of it, in bins that are not picked, or in the one of
/// its smallest keys, and is counted as these are.
pub(super) struct CountDown {
    bins: Bins,
    /// The end of the range.
    last: u32,
    shift: u32,
    /// The first distance for which there is no bin.
    end: u32,
}

impl CountDown {
    /// Counts in `bins` of the keys of a range of up to 2^31, which are empty.
    #[inline(always)]
    pub(super) fn new(bins: Bins, range: KeyRange) -> Self {
        let shift = range.shift();
        Self { bins, last: range.last, shift, end: bins::COUNT << shift }
    }

    /// Counts a key.
    #[inline(always)]
    pub(super) fn add(&self, key: u32) {
        // In this order: the difference and the minimum are one instruction.
        self.bins.add(self.last.wrapping_sub(key).min(self.end) >> self.shift);
    }
}

impl Visitor for CountDown {
    #[inline(always)]
    fn visit<const N: usize>(&mut self, tile: Tile<N>) {
        for element in 0..N {
            self.add(tile.keys[element]);
        }
    }
}

/// Counts the keys of a range by their distance from its start.
struct CountRange {
    bins: Bins,
    range: KeyRange,
    shift: u32,
}

impl Visitor for CountRange {
    #[inline(always)]
    fn visit<const N: usize>(&mut self, tile: Tile<N>) {
        for element in 0..N {
            let distance = tile.keys[element].wrapping_sub(self.range.first);
            let counts = distance <= self.range.last - self.range.first;
            self.bins.add_if(counts, distance >> self.shift);
        }
    }
}
