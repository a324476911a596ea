//! Long rows: several blocks per row, radix over the 32-bit keys in three rounds of 11, 11 and 10 bits.
//!
//! 1. Each block takes an even slice of the row, reads it once, and keeps as much of it as fits in shared
//!    memory, as keys; what does not fit is read again when needed.
//! 2. A round counts one digit of the elements that share the digits found so far, merges the histograms
//!    through global memory and waits for the team once.
//! 3. After the first round each block lists its elements in the k-th largest's bin and above: a few
//!    thousand of the row. The other rounds and the emission visit the list. A block whose elements do not
//!    fit in its list, which it knows from its histogram, visits its whole slice instead.
//! 4. The rounds end early when all elements that share the digits are wanted, usually after the second.
//! 5. Blocks know from their own histograms how many winners and ties they hold, so that one reservation per
//!    block gives all its positions.
//!
//! Wider digits than the eight bits of the origin (vLLM PR 37421) save a wait of about two microseconds.

use dsa_simt::{AtomicOp, Carve, Global, Shared, block, thread, warp};

use super::MAX_K;
use super::candidates::{self, CAPACITY, Candidates};
use super::histogram::{self, CountDigit, CountHighest, Histogram};
use super::key::{ABSENT, key};
use super::output::{Counters, Emit, FirstTies, KeyThreshold};
use super::row::{LOADED, Row, VECTOR};
use super::source::{Source, Visitor};
use super::team::Team;

/// Bits of a digit.
const DIGIT_BITS: u32 = 11;
/// Where the highest digit is.
const HIGHEST_SHIFT: u32 = u32::BITS - DIGIT_BITS;
/// Elements per thread of a tile in the visits after the first: registers are scarce, and the latency of
/// shared memory is short.
const TAKEN: usize = 2 * VECTOR as usize;

/// What a block keeps in shared memory for long rows.
#[derive(Clone, Copy)]
pub struct SliceScratch<const T: u32> {
    own: Histogram<T>,
    merged: Histogram<T>,
    counters: Counters,
    candidates: Candidates,
    holdings: Holdings,
    kept: Shared<u32>,
}

/// Bytes of shared memory of a [`SliceScratch`] that keeps `elements` elements, a multiple of 4.
pub const fn scratch_bytes(elements: u32) -> u32 {
    4 * (2 * histogram::WORDS + Counters::WORDS + candidates::words(CAPACITY) + Holdings::WORDS + elements)
}

impl<const T: u32> SliceScratch<T> {
    /// Takes all that `carve` has left.
    ///
    /// # Safety
    /// As for [`Carve::array`], for at least [`scratch_bytes`]`(0)` bytes.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller; the rest is whatever is left.
        unsafe {
            Self {
                own: Histogram::carve(carve),
                merged: Histogram::carve(carve),
                counters: Counters::carve(carve),
                candidates: Candidates::carve(carve, CAPACITY),
                holdings: Holdings(carve.array(Holdings::WORDS)),
                kept: carve.array(carve.words_left()),
            }
        }
    }
}

/// Elements of a slice that fit in the shared memory of this launch.
#[inline(always)]
pub fn kept_elements<const T: u32>(scratch: SliceScratch<T>) -> u32 {
    scratch.kept.len()
}

/// Writes the indices of the `out.len()` largest scores of `row`, which is longer than that.
///
/// Collective over the team. Needs a block barrier before `scratch` is used again.
#[inline(always)]
pub fn select<const T: u32>(row: Row, out: Global<i32>, team: &Team, scratch: SliceScratch<T>) {
    let SliceScratch { own, merged, counters, candidates, holdings, kept } = scratch;
    let slice = Slice::<T>::of(row, team, kept);
    let wanted = out.len() as u32;
    let (mut prefix, mut shift, mut above) = (0, u32::BITS, 0);
    if thread::index() == 0 {
        holdings.start();
    }
    while shift > 0 {
        let first_round = shift == u32::BITS;
        let bits = DIGIT_BITS.min(shift);
        shift -= bits;
        own.zero::<{ histogram::MAX_BINS }>();
        if thread::index() == 0 {
            counters.start(0, 0);
        }
        block::sync();
        if first_round {
            slice.load(own, wanted);
        } else {
            let mut count = CountDigit::new(own, prefix, shift, bits);
            match holdings.listed() {
                Some(listed) => candidates.first::<T>(listed).visit(&mut count),
                None => slice.visit(&mut count),
            }
        }
        block::sync();
        let pick = team.pick(own, merged, wanted - above);
        prefix = prefix << bits | pick.bin;
        above += pick.above;
        holdings.add(own, pick.bin);
        if first_round && holdings.selected() <= CAPACITY {
            if holdings.selected() > 0 {
                let threshold = KeyThreshold::all_from(prefix << shift);
                slice.visit(&mut Emit { threshold, counters, out, ties: candidates });
            }
            if thread::index() == 0 {
                holdings.note_list();
            }
        }
        block::sync();
        if above + pick.count == wanted {
            break;
        }
    }
    if holdings.selected() == 0 {
        return;
    }
    if thread::index() == 0 {
        let (winners, ties) = team.reserve(holdings.winners(), holdings.ties());
        counters.start(winners, ties);
    }
    block::sync();
    let ties = FirstTies { out, position: above, wanted: wanted - above };
    let mut emit = Emit { threshold: KeyThreshold::new(prefix, shift), counters, out, ties };
    match holdings.listed() {
        Some(listed) => candidates.first::<T>(listed).visit(&mut emit),
        None => slice.visit(&mut emit),
    }
}

/// What this block holds of the row's elements that may be selected. In shared memory, because it is the
/// same for all threads and they want the registers.
#[derive(Clone, Copy)]
struct Holdings(Shared<u32>);

impl Holdings {
    /// Rounded up to 16 bytes.
    const WORDS: u32 = 4;
    const WINNERS: u32 = 0;
    const TIES: u32 = 1;
    const LISTED: u32 = 2;
    /// In place of a number of listed elements: there is no list.
    const NO_LIST: u32 = u32::MAX;

    /// Holds nothing; one thread calls it, a block barrier before the first use.
    #[inline(always)]
    fn start(self) {
        self.0.set(Self::WINNERS, 0);
        self.0.set(Self::LISTED, Self::NO_LIST);
    }

    /// Adds the elements above `bin` of a round's histogram to the winners; those in it are the ties now.
    /// Collective over the block; ends with a block barrier.
    #[inline(always)]
    fn add<const T: u32>(self, own: Histogram<T>, bin: u32) {
        let mut above = 0;
        Histogram::<T>::for_own_bins::<{ histogram::MAX_BINS }>(|own_bin| {
            above += if own_bin > bin { own.get(own_bin) } else { 0 };
        });
        let above = warp::reduce_add(warp::ALL, above);
        if thread::lane() == 0 && above > 0 {
            self.0.reduce(AtomicOp::Add, Self::WINNERS, above);
        }
        if thread::index() == 0 {
            self.0.set(Self::TIES, own.get(bin));
        }
        block::sync();
    }

    /// Notes that all selected elements are listed; one thread calls it, a block barrier before the next use.
    #[inline(always)]
    fn note_list(self) {
        self.0.set(Self::LISTED, self.selected());
    }

    /// Elements above the digits found so far.
    #[inline(always)]
    fn winners(self) -> u32 {
        self.0.get(Self::WINNERS)
    }

    /// Elements that share them.
    #[inline(always)]
    fn ties(self) -> u32 {
        self.0.get(Self::TIES)
    }

    /// Both.
    #[inline(always)]
    fn selected(self) -> u32 {
        self.winners() + self.ties()
    }

    /// Length of the list, if there is one.
    #[inline(always)]
    fn listed(self) -> Option<u32> {
        let listed = self.0.get(Self::LISTED);
        if listed == Self::NO_LIST { None } else { Some(listed) }
    }
}

/// A block's share of a row: vectors `start..end`, of which the first are kept in shared memory.
struct Slice<const T: u32> {
    row: Row,
    start: u32,
    kept_end: u32,
    end: u32,
    kept: Shared<u32>,
    edges: bool,
}

impl<const T: u32> Slice<T> {
    #[inline(always)]
    fn of(row: Row, team: &Team, kept: Shared<u32>) -> Self {
        // The remainder goes to the first blocks, one vector each.
        let (share, rest) = (row.vectors() / team.size, row.vectors() % team.size);
        let start = team.rank * share + team.rank.min(rest);
        let end = start + share + u32::from(team.rank < rest);
        let kept_end = end.min(start + kept.len() / VECTOR);
        Self { row, start, kept_end, end, kept, edges: team.rank + 1 == team.size }
    }

    /// The first visit: reads everything from memory, keeps what fits, and counts the highest digit.
    ///
    /// The block's first 16,384 elements show which bin the row's `wanted`-th largest is in at least. What
    /// is below it is not counted from there on: that is most of a long slice, and equal bins make shared
    /// atomics slow. The merged histogram is right from the highest floor of all blocks upwards, and no
    /// block's floor is above the bin that is picked.
    #[inline(always)]
    fn load(&self, own: Histogram<T>, wanted: u32) {
        const { assert!(T * LOADED as u32 >= MAX_K) };
        let load = |vector| self.row.vector(vector);
        let keep = |vector, scores: [f32; 4]| {
            let keys = scores.map(key);
            self.kept.set4((vector - self.start) * VECTOR, keys);
            keys
        };
        let mut count = CountHighest::<T, HIGHEST_SHIFT> { histogram: own, floor: ABSENT + 1 };
        let mut probed = self.start + T * LOADED as u32 / VECTOR;
        if probed < self.kept_end {
            self.row.visit_as::<T, LOADED, _>(self.start, probed, load, keep, &mut count);
            block::sync();
            count.floor = (own.pick::<{ histogram::MAX_BINS }>(wanted).bin << HIGHEST_SHIFT).max(count.floor);
            block::sync();
        } else {
            probed = self.start;
        }
        self.row.visit_as::<T, LOADED, _>(probed, self.kept_end, load, keep, &mut count);
        self.visit_rest::<LOADED>(&mut count);
    }

    /// Shows what is not kept, in tiles of `N` elements per thread.
    #[inline(always)]
    fn visit_rest<const N: usize>(&self, visitor: &mut impl Visitor) {
        self.row.visit_vectors::<T, N>(self.kept_end, self.end, visitor);
        if self.edges {
            self.row.visit_edges(visitor);
        }
    }
}

impl<const T: u32> Source for Slice<T> {
    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        let take = |vector| self.kept.get4((vector - self.start) * VECTOR);
        self.row.visit_as::<T, TAKEN, _>(self.start, self.kept_end, take, |_, keys| keys, visitor);
        self.visit_rest::<TAKEN>(visitor);
    }
}
