//! How the blocks of a row hand over what they listed, without waiting for each other.
//!
//! A row has one list in the workspace. Each block reserves places in it for its own list, writes it there, and counts
//! itself and its places as arrived ([`RowState`](super::state::RowState)); the block that finds all others arrived
//! reads the whole list, from its start to its end: nobody looks for anything. What does not fit is counted only, which
//! is seen by the number of places.
//!
//! For an output in the order of the indices, each block hands over its elements in their order, if its slice is not too long for
//! that, in groups of places that it has for itself, with a note of where that is. The last block reads the groups and the
//! notes at once, and by the notes brings the lists of the slices into their order. If all were sorted, which the notes
//! say, too, the whole list is in the order of the indices then. Places without an element have the lowest number; where
//! that passes the threshold, lists are handed over in any order.

use dsa_simt::{Global, Shared, block, opaque, thread};

use super::bins::THREADS;
use super::list::{CAPACITY, List, Listed};
use super::prefix::Sums;

/// Words of the list of a row: scores, indices, for each group of places whose it is, for each slice where it is.
pub const ROW_WORDS: u32 = NOTES + MAX_SLICES;
/// Where the words of the groups begin.
const OWNERS: u32 = 2 * CAPACITY;
/// Where the notes of the slices begin.
const NOTES: u32 = OWNERS + CAPACITY / GROUP;
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

    /// As [`write`](Self::write), of each element at the place that `rank` gives for its place in the list and its index, and
    /// to places that were reserved for as many as [`reserved`] says, of which those without an element get the lowest number.
    #[inline(always)]
    pub fn write_in_order(
        self,
        slice: u32,
        first: u32,
        listed: Listed,
        is_sorted: bool,
        rank: impl Fn(u32, u32) -> u32,
    ) {
        let end = reserved(listed.len());
        if end > CAPACITY || first + end > CAPACITY {
            return;
        }
        let thread = opaque(thread::index());
        let put = |place, score: f32, index| {
            self.0.set((first + place) as usize, score.to_bits());
            self.0.set((CAPACITY + first + place) as usize, index);
        };
        listed.for_each(|place, index| put(rank(place, index), listed.score(place), index));
        if listed.len() + thread < end {
            put(listed.len() + thread, f32::NEG_INFINITY, 0);
        }
        let mut group = thread;
        while GROUP * group < end {
            self.0.set((OWNERS + first / GROUP + group) as usize, slice);
            group += THREADS;
        }
        if thread == 0 {
            self.0.set((NOTES + slice) as usize, Note { first, listed: listed.len(), is_sorted }.to_word());
        }
    }

    /// As [`gather`](Self::gather), of what `slices` slices have written in the order of the indices, for which `reserved`
    /// places were reserved. Returns how many elements there are, and whether they are in this order in `list` now, with
    /// some of the lowest number among them that are none, and not counted.
    ///
    /// `words` has one for each thread.
    #[inline(always)]
    pub fn gather_in_order(
        self,
        slices: u32,
        reserved: u32,
        list: List,
        words: Shared<u32>,
        sums: Sums,
        count: impl Fn(bool, f32),
    ) -> (u32, bool) {
        const { assert!(MAX_SLICES == THREADS && CAPACITY <= u16::MAX as u32) };
        let thread = opaque(thread::index());
        let mut group = thread;
        // On their way while the notes are summed.
        let read = |group| (self.read(group, reserved), self.owner(group, reserved));
        let (mut near, mut far) = (read(group), read(group + THREADS));
        let note = Note::of_word(if thread < slices { self.0.get((NOTES + thread) as usize) } else { 0 });
        // Places and elements in one.
        let ([before], [all]) = sums.before([self::reserved(note.listed) << u16::BITS | note.listed]);
        // By how much its places move.
        words.set(thread, (before >> u16::BITS).wrapping_sub(note.first));
        let is_sorted = !block::sync_or(thread < slices && !note.is_sorted);
        let moved = |(entries, owner): (Entries, u32)| Entries {
            place: if entries.len > 0 { entries.place.wrapping_add(words.get(owner)) } else { 0 },
            ..entries
        };
        let count = |exists, score| count(exists && score > f32::NEG_INFINITY, score);
        loop {
            moved(near).store(list, &count);
            moved(far).store(list, &count);
            group += 2 * THREADS;
            if GROUP * group >= reserved {
                return (all & 0xffff, is_sorted);
            }
            (near, far) = (read(group), read(group + THREADS));
        }
    }

    /// The slice that has reserved a group of the first `reserved` places.
    #[inline(always)]
    fn owner(self, group: u32, reserved: u32) -> u32 {
        if GROUP * group < reserved { self.0.get((OWNERS + group) as usize) } else { 0 }
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

/// Places that are reserved for `listed` elements of a slice in the order of the indices: whole groups.
#[inline(always)]
pub fn reserved(listed: u32) -> u32 {
    listed.next_multiple_of(GROUP)
}

/// Where a slice has its elements, and how many.
struct Note {
    first: u32,
    listed: u32,
    /// Whether they are in the order of the indices.
    is_sorted: bool,
}

impl Note {
    /// Bits of a place.
    const BITS: u32 = CAPACITY.ilog2() + 1;

    #[inline(always)]
    fn to_word(&self) -> u32 {
        const { assert!(2 * Self::BITS < u32::BITS) };
        self.first | self.listed << Self::BITS | u32::from(self.is_sorted) << (2 * Self::BITS)
    }

    #[inline(always)]
    fn of_word(word: u32) -> Self {
        let place = |word| word & ((1 << Self::BITS) - 1);
        Self {
            first: place(word),
            listed: place(word >> Self::BITS),
            is_sorted: word >> (2 * Self::BITS) != 0,
        }
    }
}

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
