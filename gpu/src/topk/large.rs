//! Long rows: several blocks per row, radix over the 32-bit keys in three rounds of 11, 11 and 10 bits.
//!
//! Each block takes an even slice of the row and keeps as much of it as fits in shared memory, as keys; what
//! does not fit is read again in every round. A round counts one digit of the elements that share the digits
//! found so far, merges the histograms through global memory and waits for the team once. There is no
//! candidate list, so nothing can overflow. It ends early when all elements that share the digits are
//! wanted, which is the usual case after the second round.
//!
//! Blocks know from their own histograms how many winners and ties they hold, so that one reservation per
//! block gives all its positions. A block that holds none does not look at its slice again.
//!
//! Wider digits than the eight bits of the origin (vLLM PR 37421) save a wait of about two microseconds and
//! spread the atomics of the first round over more addresses.

use dsa_simt::{Carve, Global, Shared, block, thread};

use super::MAX_K;
use super::histogram::{self, CountDigit, CountHighest, Histogram};
use super::key::ABSENT;
use super::output::{Counters, Emit, FirstTies, KeyThreshold};
use super::row::{LOADED, Row, VECTOR};
use super::source::{Source, Visitor};
use super::team::Team;

/// Bits of a digit.
const DIGIT_BITS: u32 = 11;
/// Where the highest digit is.
const HIGHEST_SHIFT: u32 = u32::BITS - DIGIT_BITS;
/// Bits of the lowest digit: what the others leave.
const LOWEST_BITS: u32 = u32::BITS % DIGIT_BITS;
/// Elements that a thread holds after the first visit: registers are scarce, and the latency of shared
/// memory is short.
const TAKEN: usize = 2 * VECTOR as usize;

/// What a block keeps in shared memory for long rows.
#[derive(Clone, Copy)]
pub struct SliceScratch<const T: u32> {
    own: Histogram<T>,
    merged: Histogram<T>,
    counters: Counters,
    kept: Shared<u32>,
}

/// Bytes of shared memory of a [`SliceScratch`] that keeps `elements` elements, a multiple of 4.
pub const fn scratch_bytes(elements: u32) -> u32 {
    4 * (2 * histogram::WORDS + Counters::WORDS + elements)
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
    let SliceScratch { own, merged, counters, kept } = scratch;
    let slice = Slice::<T>::of(row, team, kept);
    let wanted = out.len() as u32;
    let (mut prefix, mut shift, mut still_wanted) = (0, u32::BITS, wanted);
    // Winners of this block, spread over its threads.
    let mut own_winners = 0;
    if thread::index() == 0 {
        counters.start_sum();
    }
    while shift > 0 {
        let first_round = shift == u32::BITS;
        let bits = DIGIT_BITS.min(shift);
        shift -= bits;
        own.zero::<{ histogram::MAX_BINS }>();
        block::sync();
        if first_round {
            slice.load(own, wanted);
        } else {
            slice.visit(&mut CountDigit::new(own, prefix, shift, bits));
        }
        block::sync();
        let pick = team.pick(own, merged, still_wanted);
        prefix = prefix << bits | pick.bin;
        still_wanted -= pick.above;
        Histogram::<T>::for_own_bins::<{ histogram::MAX_BINS }>(|bin| {
            own_winners += if bin > pick.bin { own.get(bin) } else { 0 };
        });
        if pick.count == still_wanted {
            break;
        }
        block::sync();
    }
    let own_winners = counters.sum(own_winners);
    // The last digit's bin: the digit is narrower if it is the lowest.
    let own_ties = own.get(prefix & ((1 << if shift == 0 { LOWEST_BITS } else { DIGIT_BITS }) - 1));
    if own_winners + own_ties == 0 {
        return;
    }
    if thread::index() == 0 {
        let (winners, ties) = team.reserve(own_winners, own_ties);
        counters.start(winners, ties);
    }
    block::sync();
    let ties = FirstTies { out, position: wanted - still_wanted, wanted: still_wanted };
    slice.visit(&mut Emit { threshold: KeyThreshold::new(prefix, shift), counters, out, ties });
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
        Self { row, start, kept_end, end, kept, edges: team.rank == team.size - 1 }
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
        let load = |vector| {
            let keys = self.row.vector(vector);
            self.kept.set4((vector - self.start) * VECTOR, keys);
            keys
        };
        let mut count = CountHighest::<T, HIGHEST_SHIFT> { histogram: own, floor: ABSENT + 1 };
        let mut probed = self.start + T * LOADED as u32 / VECTOR;
        if probed < self.kept_end {
            self.row.visit_as::<T, LOADED>(self.start, probed, load, &mut count);
            block::sync();
            count.floor = (own.pick::<{ histogram::MAX_BINS }>(wanted).bin << HIGHEST_SHIFT).max(count.floor);
            block::sync();
        } else {
            probed = self.start;
        }
        self.row.visit_as::<T, LOADED>(probed, self.kept_end, load, &mut count);
        self.visit_rest(&mut count);
    }

    #[inline(always)]
    fn visit_rest(&self, visitor: &mut impl Visitor) {
        self.row.visit_vectors::<T, TAKEN>(self.kept_end, self.end, visitor);
        if self.edges {
            self.row.visit_edges(visitor);
        }
    }
}

impl<const T: u32> Source for Slice<T> {
    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        let take = |vector| self.kept.get4((vector - self.start) * VECTOR);
        self.row.visit_as::<T, TAKEN>(self.start, self.kept_end, take, visitor);
        self.visit_rest(visitor);
    }
}
