//! How the blocks of a row hand over what they listed, without waiting for each other.
//!
//! A row has one list in the workspace. Each block reserves places in it for its own list, writes it there, and counts
//! itself and its elements as arrived ([`RowState`](super::state::RowState)); the block that finds all others arrived
//! reads the whole list, from its start to its end: nobody looks for anything. What does not fit is counted only, which
//! is seen by the number of elements.

use dsa_simt::{Global, opaque, thread};

use super::bins::THREADS;
use super::list::{CAPACITY, List};

/// Words of the list of a row.
pub const ROW_WORDS: u32 = 2 * CAPACITY;
/// Most slices of a row: each thread looks at one when they are made.
pub const MAX_SLICES: u32 = THREADS;

/// The list of a row.
#[derive(Clone, Copy)]
pub struct Slab(Global<u32>);

impl Slab {
    /// The list of row `row` of those at `workspace`.
    ///
    /// # Safety
    /// As for [`Global::from_raw`], for [`ROW_WORDS`]` * (row + 1)` words at `workspace`, aligned to 16 bytes, if the slab is used.
    #[inline(always)]
    pub unsafe fn from_raw(workspace: *mut u32, row: u32) -> Self {
        // SAFETY: passed on to the caller.
        let all = unsafe { Global::from_raw(workspace, ((row + 1) * ROW_WORDS) as usize) };
        Self(all.slice((row * ROW_WORDS) as usize, ROW_WORDS as usize))
    }

    /// Writes the `listed` elements of `list` to the places from `first` on, which were reserved for them; nothing if
    /// they do not fit.
    ///
    /// Collective over the block, after a block barrier.
    #[inline(always)]
    pub fn write(self, first: u32, listed: u32, list: List) {
        if listed > CAPACITY || first + listed > CAPACITY {
            return;
        }
        let mut place = opaque(thread::index());
        while place < listed {
            self.0.set((first + place) as usize, list.score(place).to_bits());
            self.0.set((CAPACITY + first + place) as usize, list.index(place));
            place += THREADS;
        }
    }

    /// Reads the `listed` elements of the row into `list`, and shows each score to `count`. They fit.
    ///
    /// Collective over the block that was told that all have arrived
    /// ([`RowState::arrive`](super::state::RowState::arrive)). Needs a block barrier before `list` is
    /// read.
    #[inline(always)]
    pub fn gather(self, listed: u32, list: List, count: impl Fn(bool, f32)) {
        let mut group = opaque(thread::index());
        while GROUP * group < listed {
            // Two of them, in flight together.
            let near = self.read(group, listed);
            let far = self.read(group + THREADS, listed);
            near.store(list, &count);
            far.store(list, &count);
            group += 2 * THREADS;
        }
    }

    /// Reads a group of the first `listed` elements.
    #[inline(always)]
    fn read(self, group: u32, listed: u32) -> Entries {
        let place = GROUP * group;
        let mut entries =
            Entries { scores: [0; 4], indices: [0; 4], place, len: listed.saturating_sub(place) };
        if place + GROUP <= listed {
            entries.scores = self.0.get4(place as usize);
            entries.indices = self.0.get4((CAPACITY + place) as usize);
        } else {
            // Nobody has written what is behind the last one.
            for i in 0..GROUP {
                if place + i < listed {
                    entries.scores[i as usize] = self.0.get((place + i) as usize);
                    entries.indices[i as usize] = self.0.get((CAPACITY + place + i) as usize);
                }
            }
        }
        entries
    }
}

/// Elements that are read at once.
const GROUP: u32 = 4;

/// Some elements of the list of a row on their way to the same places of another one.
#[derive(Clone, Copy)]
struct Entries {
    scores: [u32; GROUP as usize],
    indices: [u32; GROUP as usize],
    place: u32,
    /// How many there are.
    len: u32,
}

impl Entries {
    #[inline(always)]
    fn store(self, list: List, count: &impl Fn(bool, f32)) {
        const { assert!(CAPACITY.is_multiple_of(GROUP)) };
        if self.len > 0 {
            // Behind the last one there is room.
            list.set4(self.place, self.scores.map(f32::from_bits), self.indices);
        }
        for i in 0..GROUP {
            count(i < self.len, f32::from_bits(self.scores[i as usize]));
        }
    }
}
