//! The words of device memory that an operator owns from launch to launch.
//!
//! All of them are zero between launches: the host zeroes them once, and every launch leaves them zero.
//! The layout is public because the host allocates it.

use dsa_simt::{AtomicOp, Global, Order, Scope, Shared, block, thread};

use super::histogram::MAX_BINS;
use super::list::CAPACITY;
use super::slab::MAX_SLICES;

/// Words that keep two things that different blocks write out of each other's cache line.
const LINE: u32 = 32;
/// Buffers of a team: one is being filled, one is being read, one is being zeroed.
const BUFFERS: u32 = 3;
const TEAM_WORDS: u32 = 2 * LINE + BUFFERS * Buffer::WORDS;
const QUEUE_WORDS: u32 = 2 * LINE;

/// Words of state for a launch whose teams have up to `blocks` blocks together. A team that uses its state
/// has at least two.
pub const fn words(blocks: u32) -> u32 {
    QUEUE_WORDS + blocks.div_ceil(2) * TEAM_WORDS
}

/// Words of state for a launch of [`auto::run`](super::auto::run) whose first `rows` rows may have several slices.
pub const fn row_words(rows: u32) -> u32 {
    QUEUE_WORDS + rows * ROW_WORDS
}

/// Words of a [`RowState`].
const ROW_WORDS: u32 = LINE;

/// The state of a row that several blocks read.
#[derive(Clone, Copy)]
pub struct RowState(Global<u32>);

impl RowState {
    /// The state of row `row`, in the state at `start`.
    ///
    /// # Safety
    /// As for [`Global::from_raw`], for [`row_words`]`(row + 1)` words from `start` on, if it is used; no other
    /// launch uses them meanwhile.
    #[inline(always)]
    pub unsafe fn from_raw(start: *mut u32, row: u32) -> Self {
        // SAFETY: passed on to the caller.
        let all = unsafe { Global::from_raw(start, row_words(row + 1) as usize) };
        Self(all.slice((QUEUE_WORDS + row * ROW_WORDS) as usize, ROW_WORDS as usize))
    }

    /// Where blocks arrive: how many have, and how many places their lists take together.
    const ARRIVED: usize = 0;
    /// Places that were reserved.
    const RESERVED: usize = 1;
    /// In the word of arrivals, one block.
    const BLOCK: u32 = 1 << 22;

    /// What is counted of a list of so many places: of one that is too long, that it is.
    #[inline(always)]
    fn counted(places: u32) -> u32 {
        const { assert!(MAX_SLICES * (CAPACITY + 1) < Self::BLOCK && MAX_SLICES <= u32::MAX / Self::BLOCK) };
        places.min(CAPACITY + 1)
    }

    /// Reserves places in the list of the row for that of the block, and returns the first. Calls `meanwhile` while the answer
    /// is on its way.
    ///
    /// Collective over the block, to which `words` tell it; ends with a block barrier.
    #[inline(always)]
    pub fn reserve(self, places: u32, words: Shared<u32>, meanwhile: impl FnOnce()) -> u32 {
        let mut first = 0;
        if thread::index() == 0 {
            let counted = Self::counted(places);
            first = self.0.atomic(AtomicOp::Add, Self::RESERVED, counted, Order::Relaxed, Scope::Device);
        }
        meanwhile();
        if thread::index() == 0 {
            words.set(0, first);
        }
        block::sync();
        words.get(0)
    }

    /// Counts the block as done with one of `slices` slices, whose list takes so many places. If all others are done, too,
    /// returns how many their lists take together, or a number above [`CAPACITY`] if that is too many: then what they wrote
    /// before is visible to this block, and the state is zero again.
    ///
    /// Collective over the block, to which `words` tell it; ends with a block barrier.
    #[inline(always)]
    pub fn arrive(self, slices: u32, places: u32, words: Shared<u32>) -> Option<u32> {
        block::sync();
        let mut is_last = false;
        if thread::index() == 0 {
            let counted = Self::counted(places);
            // What the block wrote before its barrier is visible to whoever arrives after this.
            let before = self.0.atomic(
                AtomicOp::Add,
                Self::ARRIVED,
                Self::BLOCK | counted,
                Order::AcqRel,
                Scope::Device,
            );
            is_last = before / Self::BLOCK == slices - 1;
            if is_last {
                words.set(1, before % Self::BLOCK + counted);
                self.0.set(Self::ARRIVED, 0);
                self.0.set(Self::RESERVED, 0);
            }
        }
        if block::sync_or(is_last) { Some(words.get(1)) } else { None }
    }
}

/// The state of an operator, for a grid of up to the number of blocks it was made for.
#[derive(Clone, Copy)]
pub struct State(Global<u32>);

impl State {
    /// The state at `start`.
    ///
    /// # Safety
    /// As for [`Global::from_raw`], for [`words`]`(blocks)` words; no other launch uses them meanwhile.
    #[inline(always)]
    pub unsafe fn from_raw(start: *mut u32, blocks: u32) -> Self {
        // SAFETY: passed on to the caller.
        Self(unsafe { Global::from_raw(start, words(blocks) as usize) })
    }

    /// The next row to hand out.
    #[inline(always)]
    pub fn next_row(self) -> Global<u32> {
        self.0.slice(0, 1)
    }

    /// Blocks that will take no more rows.
    #[inline(always)]
    pub fn finished_blocks(self) -> Global<u32> {
        self.0.slice(LINE as usize, 1)
    }

    /// The part of team `team`.
    #[inline(always)]
    pub fn team(self, team: u32) -> TeamState {
        TeamState(self.0.slice((QUEUE_WORDS + team * TEAM_WORDS) as usize, TEAM_WORDS as usize))
    }
}

/// The state of a team of blocks that work on one row together.
#[derive(Clone, Copy)]
pub struct TeamState(Global<u32>);

impl TeamState {
    /// Arrivals at the team's barrier since the start of the launch.
    #[inline(always)]
    pub fn arrivals(self) -> Global<u32> {
        self.0.slice(0, 1)
    }

    /// Blocks that have left the team.
    #[inline(always)]
    pub fn departures(self) -> Global<u32> {
        self.0.slice(LINE as usize, 1)
    }

    /// The buffer that round `round` of the launch fills.
    #[inline(always)]
    pub fn buffer(self, round: u32) -> Buffer {
        let start = 2 * LINE + round % BUFFERS * Buffer::WORDS;
        Buffer(self.0.slice(start as usize, Buffer::WORDS as usize))
    }
}

/// A histogram that a team's blocks merge theirs into, and the positions they reserve.
#[derive(Clone, Copy)]
pub struct Buffer(Global<u32>);

impl Buffer {
    /// Words of a buffer: the histogram, then the positions.
    pub const WORDS: u32 = MAX_BINS + LINE;

    /// All of it, to be zeroed.
    #[inline(always)]
    pub fn words(self) -> Global<u32> {
        self.0
    }

    /// The merged histogram.
    #[inline(always)]
    pub fn bins(self) -> Global<u32> {
        self.0.slice(0, MAX_BINS as usize)
    }

    /// Winners for which room was reserved.
    #[inline(always)]
    pub fn winners(self) -> Global<u32> {
        self.0.slice(MAX_BINS as usize, 1)
    }

    /// Ties for which room was reserved.
    #[inline(always)]
    pub fn ties(self) -> Global<u32> {
        self.0.slice(MAX_BINS as usize + 1, 1)
    }
}
