//! How the blocks of a row hand over what they listed, without waiting for each other.
//!
//! Each block has a region of the workspace for its own list and its length. It writes them, then counts itself
//! as arrived; the block that finds all others arrived reads the lists. The order of the regions is that of the
//! slices. Nothing is reserved from others: one atomic per block, and a list that does not fit hurts nobody
//! else's.

use dsa_simt::{AtomicOp, Global, Order, Scope, block, opaque, thread};

use super::bins::THREADS;
use super::list::{CAPACITY, List};
use super::refine::Scratch;
use super::state::RowState;

/// Words of the region of one slice.
pub const REGION_WORDS: u32 = HEADER + 2 * CAPACITY;
/// A cache line for the length of the list.
const HEADER: u32 = 32;
/// Most slices of a row: each thread looks at one.
pub const MAX_SLICES: u32 = THREADS;

/// The regions of the slices of a row.
#[derive(Clone, Copy)]
pub struct Slab(Global<u32>);

impl Slab {
    /// The regions that begin with region `first` of those at `workspace`, one for each of `slices` slices.
    ///
    /// # Safety
    /// As for [`Global::from_raw`], for [`REGION_WORDS`]` * (first + slices)` words at `workspace`, aligned to 16
    /// bytes, if the slab is used; these regions are this row's.
    #[inline(always)]
    pub unsafe fn from_raw(workspace: *mut u32, first: u32, slices: u32) -> Self {
        // SAFETY: passed on to the caller.
        let all = unsafe { Global::from_raw(workspace, ((first + slices) * REGION_WORDS) as usize) };
        Self(all.slice((first * REGION_WORDS) as usize, (slices * REGION_WORDS) as usize))
    }

    #[inline(always)]
    fn region(self, slice: u32) -> Region {
        Region(self.0.slice((slice * REGION_WORDS) as usize, REGION_WORDS as usize))
    }

    /// Writes the `listed` elements of `list`, of slice `number`, and arrives. Tells whether all other slices
    /// have arrived, too: then this block can read their lists. `listed` may be above [`CAPACITY`], which makes
    /// the total too large for a list, too.
    ///
    /// Collective over the block; begins after and ends with a block barrier.
    #[inline(always)]
    pub fn arrive(self, number: u32, slices: u32, listed: u32, list: List, state: RowState) -> bool {
        let region = self.region(number);
        if thread::index() == 0 {
            region.0.set(0, listed);
        }
        if listed <= CAPACITY {
            // Whole vectors: what is behind the list is written, too.
            let mut place = 4 * opaque(thread::index());
            while place < listed {
                region.write(list, place, listed);
                place += 4 * THREADS;
            }
        }
        block::sync();
        let mut is_last = false;
        if thread::index() == 0 {
            // What the block wrote before its barrier is visible to whoever arrives after this.
            let arrived = state.arrived().atomic(AtomicOp::Add, 0, 1, Order::AcqRel, Scope::Device);
            is_last = arrived == slices - 1;
            if is_last {
                state.arrived().set(0, 0);
            }
        }
        block::sync_or(is_last)
    }

    /// Reads the lists of all slices into `list`, in their order, and shows each score to `count`, if they fit
    /// in it. Returns how many elements there are.
    ///
    /// Collective over the block that was told that all have arrived. Needs a block barrier before `list` is
    /// read.
    #[inline(always)]
    pub fn gather(self, slices: u32, list: List, scratch: Scratch, count: impl Fn(bool, f32)) -> u32 {
        let thread = opaque(thread::index());
        let ends = scratch.words;
        let own = if thread < slices { self.region(thread).0.get(0) } else { 0 };
        // Capped, so that the sum of many does not wrap.
        let own = own.min(CAPACITY + 1);
        let ([before], [total]) = scratch.sums.before([own]);
        if total > CAPACITY {
            return total;
        }
        ends.set(thread, before + own);
        block::sync();
        // Equally many threads for each slice: `1 << shift`.
        let shift = THREADS.ilog2() - (u32::BITS - (slices - 1).leading_zeros());
        let (slice, first) = (thread >> shift, thread & ((1 << shift) - 1));
        if slice < slices {
            let start = if slice > 0 { ends.get(slice - 1) } else { 0 };
            let len = ends.get(slice) - start;
            let region = self.region(slice);
            let step = 4 << shift;
            let mut place = 4 * first;
            while place < len {
                // Two vectors of each, in flight together.
                let near = region.read(place);
                let far = if place + step < len { region.read(place + step) } else { near };
                near.store(list, start, place, len, &count);
                far.store(list, start, place + step, len, &count);
                place += 2 * step;
            }
        }
        total
    }
}

/// The region of a slice.
#[derive(Clone, Copy)]
struct Region(Global<u32>);

impl Region {
    const SCORES: usize = HEADER as usize;
    const INDICES: usize = (HEADER + CAPACITY) as usize;

    /// Writes the four elements from place `place` on, of a list of `len`; behind its end, the last one.
    #[inline(always)]
    fn write(self, list: List, place: u32, len: u32) {
        let (mut scores, mut indices) = ([0; 4], [0; 4]);
        for i in 0..4 {
            let from = (place + i).min(len - 1);
            (scores[i as usize], indices[i as usize]) = (list.score(from).to_bits(), list.index(from));
        }
        self.0.set4(Self::SCORES + place as usize, scores);
        self.0.set4(Self::INDICES + place as usize, indices);
    }

    /// Reads the four elements from place `place` on.
    #[inline(always)]
    fn read(self, place: u32) -> Entries {
        Entries {
            scores: self.0.get4(Self::SCORES + place as usize).map(f32::from_bits),
            indices: self.0.get4(Self::INDICES + place as usize),
        }
    }
}

/// Four neighbouring elements of a list.
#[derive(Clone, Copy)]
struct Entries {
    scores: [f32; 4],
    indices: [u32; 4],
}

impl Entries {
    /// Puts those below `len` into `list`, place `place` at `start + place`, and shows their scores to `count`.
    #[inline(always)]
    fn store(&self, list: List, start: u32, place: u32, len: u32, count: impl Fn(bool, f32)) {
        for i in 0..4 {
            let exists = place + i < len;
            let score = self.scores[i as usize];
            if exists {
                list.set(start + place + i, score, self.indices[i as usize]);
            }
            count(exists, score);
        }
    }
}
