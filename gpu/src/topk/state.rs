//! The words of device memory that an operator owns from launch to launch.
//!
//! All of them are zero between launches: the host zeroes them once, and every launch leaves them zero.
//! The layout is public because the host allocates it.

use dsa_simt::{AtomicOp, Global, Order, Scope, block, thread};

use super::histogram::MAX_BINS;

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

    /// Counts the block as done with one of `slices` slices, and tells whether all others are, too: then what they
    /// wrote before is visible to this block, and the state is zero again.
    ///
    /// Collective over the block; ends with a block barrier.
    #[inline(always)]
    pub fn arrive(self, slices: u32) -> bool {
        block::sync();
        let mut is_last = false;
        if thread::index() == 0 {
            // What the block wrote before its barrier is visible to whoever arrives after this.
            let arrived = self.0.atomic(AtomicOp::Add, 0, 1, Order::AcqRel, Scope::Device);
            is_last = arrived == slices - 1;
            if is_last {
                self.0.set(0, 0);
            }
        }
        block::sync_or(is_last)
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
