//! How the blocks of a row hand over what they listed, without waiting for each other.
//!
//! Each block has a region of the workspace for its own list and its length. It writes them, then counts itself
//! as arrived; the block that finds all others arrived reads the lists. The order of the regions is that of the
//! slices. Nothing is reserved from others: one atomic per block, and a list that does not fit hurts nobody
//! else's.

use dsa_simt::{Global, Shared, block, opaque, thread};

use super::bins::THREADS;
use super::list::{CAPACITY, List};
use super::refine::Scratch;

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

    /// Writes the `listed` elements of `list`, of slice `number`. `listed` may be above [`CAPACITY`], which makes
    /// the total too large for a list, too.
    ///
    /// Collective over the block, after a block barrier.
    #[inline(always)]
    pub fn write(self, number: u32, listed: u32, list: List) {
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
    }

    /// Reads the lists of all slices into `list`, in their order, and shows each score to `count`, if they fit
    /// in it. Returns how many elements there are.
    ///
    /// Collective over the block that was told that all have arrived
    /// ([`RowState::arrive`](super::state::RowState::arrive)). Needs a block barrier before `list` is
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
        // All threads take equally many, wherever they are: the lists may be of very different lengths.
        let mut first = thread;
        while first < total {
            let (mut scores, mut indices) = ([0; AT_ONCE as usize], [0; AT_ONCE as usize]);
            for i in 0..AT_ONCE {
                let place = (first + i * THREADS).min(total - 1);
                let slice = slice_of(ends, slices, place);
                let start = if slice > 0 { ends.get(slice - 1) } else { 0 };
                // One offset of 32 bits: a pointer for each region would take twice the registers.
                let score = (slice * REGION_WORDS + HEADER + place - start) as usize;
                scores[i as usize] = self.0.get(score);
                indices[i as usize] = self.0.get(score + CAPACITY as usize);
            }
            for i in 0..AT_ONCE {
                let place = first + i * THREADS;
                let score = f32::from_bits(scores[i as usize]);
                if place < total {
                    list.set(place, score, indices[i as usize]);
                }
                count(place < total, score);
            }
            first += AT_ONCE * THREADS;
        }
        total
    }
}

/// Elements that a thread reads at once.
const AT_ONCE: u32 = 4;

/// The slice that has the element at a place of the whole list: the first one that ends behind it.
#[inline(always)]
fn slice_of(ends: Shared<u32>, slices: u32, place: u32) -> u32 {
    let mut slice = 0;
    // Halved until none is left; as many steps for all threads.
    let mut step = 1 << (u32::BITS - 1 - slices.leading_zeros());
    while step > 0 {
        let next = slice + step;
        if next <= slices && ends.get(next - 1) <= place {
            slice = next;
        }
        step /= 2;
    }
    slice
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
}
