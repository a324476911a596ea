//! How the blocks of a row hand over what they listed, without waiting for each other.
//!
//! Each block has a region of the workspace for its own list and its length. It writes them, then counts itself
//! as arrived; the block that finds all others arrived reads the lists. The order of the regions is that of the
//! slices. Nothing is reserved from others: one atomic per block, and a list that does not fit hurts nobody
//! else's.

use dsa_simt::{Carve, Global, Shared, block, opaque, thread, warp};

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
    pub fn gather(
        self,
        slices: u32,
        list: List,
        owners: Owners,
        scratch: Scratch,
        count: impl Fn(bool, f32),
    ) -> u32 {
        let thread = opaque(thread::index());
        let own = if thread < slices { self.region(thread).0.get(0) } else { 0 };
        // Capped, so that the sum of many does not wrap.
        let own = own.min(CAPACITY + 1);
        let ([before, groups_before], [total, groups]) = scratch.sums.before([own, own.div_ceil(GROUP)]);
        if total > CAPACITY {
            return total;
        }
        let starts = scratch.words;
        starts.set(thread, before | groups_before << u16::BITS);
        block::sync();
        // Behind the last slice there are empty ones, if not as many as threads.
        let start_of =
            |slice: u32| if slice < THREADS { starts.get(slice) } else { total | groups << u16::BITS };
        // All threads take equally many groups, wherever they are: the lists may be of very different lengths.
        let mut slice = thread::warp();
        while slice < slices {
            let end = start_of(slice + 1) >> u16::BITS;
            let mut group = (start_of(slice) >> u16::BITS) + opaque(thread::lane());
            while group < end {
                owners.0.set(group, slice);
                group += warp::SIZE;
            }
            slice += THREADS / warp::SIZE;
        }
        block::sync();
        let entries = |group: u32| {
            let slice = owners.0.get(group);
            let (start, next) = (start_of(slice), start_of(slice + 1));
            let from = GROUP * (group - (start >> u16::BITS));
            let place = (start & 0xffff) + from;
            self.region(slice).read(from, place, next & 0xffff)
        };
        let mut group = thread;
        while group < groups {
            // Two of them, in flight together.
            let near = entries(group);
            let are_two = group + THREADS < groups;
            let far = if are_two { entries(group + THREADS) } else { near };
            near.store(list, &count);
            if are_two {
                far.store(list, &count);
            }
            group += 2 * THREADS;
        }
        total
    }
}

/// Elements that are read at once.
const GROUP: u32 = 4;

/// Which slice each group of elements comes from, in shared memory.
#[derive(Clone, Copy)]
pub struct Owners(Shared<u32>);

impl Owners {
    /// Words of shared memory that [`Owners::carve`] takes: the last group of a slice may be a part of one.
    pub const WORDS: u32 = CAPACITY / GROUP + MAX_SLICES;

    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`Owners::WORDS`] words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        Self(unsafe { carve.array(Self::WORDS) })
    }
}

/// Some elements of a list on their way to a place in another one.
#[derive(Clone, Copy)]
struct Entries {
    scores: [f32; GROUP as usize],
    indices: [u32; GROUP as usize],
    place: u32,
    /// How many there are.
    len: u32,
}

impl Entries {
    #[inline(always)]
    fn store(self, list: List, count: &impl Fn(bool, f32)) {
        for i in 0..GROUP {
            let (exists, score) = (i < self.len, self.scores[i as usize]);
            if exists {
                list.set(self.place + i, score, self.indices[i as usize]);
            }
            count(exists, score);
        }
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

    /// Reads the four elements from place `from` on, which are to go to `place` of a list in which the slice's end
    /// before `end`.
    #[inline(always)]
    fn read(self, from: u32, place: u32, end: u32) -> Entries {
        Entries {
            scores: self.0.get4(Self::SCORES + from as usize).map(f32::from_bits),
            indices: self.0.get4(Self::INDICES + from as usize),
            place,
            len: end - place,
        }
    }
}
