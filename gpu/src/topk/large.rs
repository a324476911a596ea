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

use super::histogram::{self, CountDigit, Histogram};
use super::key::ABSENT;
use super::output::{Counters, Emit, FirstTies, KeyThreshold};
use super::row::{Row, VECTOR};
use super::source::{Source, Tile, Visitor};
use super::team::Team;

/// Bits of a digit; the last one has what is left.
const DIGIT_BITS: u32 = 11;
/// Vectors that a thread loads before it uses the first.
const IN_FLIGHT: u32 = 4;
const HELD: usize = (IN_FLIGHT * VECTOR) as usize;

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
pub fn select<const T: u32>(row: Row, out: Global<i32>, team: &mut Team, scratch: SliceScratch<T>) {
    let SliceScratch { own, merged, counters, kept } = scratch;
    let slice = Slice::<T>::of(row, team, kept);
    let wanted = out.len() as u32;
    let (mut prefix, mut shift, mut still_wanted) = (0, u32::BITS, wanted);
    // Winners of this block, spread over its threads; ties of the whole block.
    let (mut own_winners, mut own_ties) = (0, 0);
    if thread::index() == 0 {
        counters.start_sum();
    }
    while shift > 0 {
        let first_round = shift == u32::BITS;
        let bits = DIGIT_BITS.min(shift);
        shift -= bits;
        own.zero::<{ histogram::MAX_BINS }>();
        block::sync();
        let mut count = CountDigit { histogram: own, prefix, shift, bits };
        if first_round {
            slice.load(&mut count);
        } else {
            slice.visit(&mut count);
        }
        block::sync();
        let pick = team.pick(own, merged, still_wanted);
        prefix = prefix << bits | pick.bin;
        still_wanted -= pick.above;
        Histogram::<T>::for_own_bins::<{ histogram::MAX_BINS }>(|bin| {
            own_winners += if bin > pick.bin { own.get(bin) } else { 0 };
        });
        own_ties = own.get(pick.bin);
        if pick.count == still_wanted {
            break;
        }
        block::sync();
    }
    let own_winners = counters.sum(own_winners);
    if own_winners + own_ties == 0 {
        return;
    }
    if thread::index() == 0 {
        let (winners, ties) = team.reserve(own_winners, own_ties);
        counters.start(winners, ties);
    }
    block::sync();
    let ties = FirstTies { out, position: wanted - still_wanted, wanted: still_wanted };
    slice.visit(&mut Emit { threshold: KeyThreshold { prefix, shift }, counters, out, ties });
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

    /// The first visit: reads everything from memory, and keeps what fits.
    #[inline(always)]
    fn load(&self, visitor: &mut impl Visitor) {
        self.each_kept(visitor, |vector| {
            let keys = self.row.vector(vector, self.kept_end);
            if vector < self.kept_end {
                self.kept.set4((vector - self.start) * VECTOR, keys);
            }
            keys
        });
        self.visit_rest(visitor);
    }

    /// Shows the kept vectors as `keys_of` gives them.
    #[inline(always)]
    fn each_kept(&self, visitor: &mut impl Visitor, keys_of: impl Fn(u32) -> [u32; 4]) {
        let mut first = self.start + thread::index();
        // The trip count is the same for all threads: the visitor may contain collectives.
        let mut left = (self.kept_end - self.start).div_ceil(T * IN_FLIGHT);
        while left > 0 {
            let mut keys = [ABSENT; HELD];
            for v in 0..IN_FLIGHT as usize {
                keys[4 * v..4 * v + 4].copy_from_slice(&keys_of(first + v as u32 * T));
            }
            visitor.visit(Tile { keys, start: self.row.vector_start(first), stride: T * VECTOR });
            first += T * IN_FLIGHT;
            left -= 1;
        }
    }

    #[inline(always)]
    fn visit_rest(&self, visitor: &mut impl Visitor) {
        self.row.visit_vectors::<T>(self.kept_end, self.end, visitor);
        if self.edges {
            self.row.visit_edges(visitor);
        }
    }
}

impl<const T: u32> Source for Slice<T> {
    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        self.each_kept(visitor, |vector| {
            if vector < self.kept_end { self.kept.get4((vector - self.start) * VECTOR) } else { [ABSENT; 4] }
        });
        self.visit_rest(visitor);
    }
}
