//! Blocks that work on one row together.
//!
//! Blocks of a team wait for each other, so they exist only in a cooperative launch, where the hardware
//! runs all blocks at the same time or refuses the launch.
//!
//! Rounds are counted through the whole launch, over all rows of the team. Round `r` merges into buffer
//! `r mod 3`:
//!
//! | between barriers | the buffer of round r is |
//! |---|---|
//! | r-1 and r | added to by all blocks |
//! | r and r+1 | read by all blocks; positions in it are reserved |
//! | r+1 and r+2 | zeroed, each block its share |
//!
//! The last block to leave zeroes the buffer of the last round and the counters.

use dsa_simt::{AtomicOp, Order, Scope, Shared, block, opaque, spin_hint, thread};

use super::histogram::{Histogram, MAX_BINS, Pick};
use super::state::{Buffer, TeamState};

/// A block's membership in a team.
pub struct Team {
    /// Number of this block in the team.
    pub rank: u32,
    /// Blocks of the team.
    pub size: u32,
    state: TeamState,
    /// Rounds so far, in one word of shared memory: the paths want the registers.
    rounds: Shared<u32>,
}

impl Team {
    /// Joins; the same `size` blocks do, each with its own rank. `rounds` is one word that the team keeps.
    /// Needs a block barrier before the first [`pick`](Self::pick).
    #[inline(always)]
    pub fn join(state: TeamState, rank: u32, size: u32, rounds: Shared<u32>) -> Self {
        if thread::index() == 0 {
            rounds.set(0, 0);
        }
        Self { rank, size, state, rounds }
    }

    /// Adds the blocks' `own` histograms up in `merged`, and picks from the sum.
    ///
    /// Collective over the team; after a block barrier that ends the counting in `own`.
    #[inline(always)]
    pub fn pick<const T: u32>(&self, own: Histogram<T>, merged: Histogram<T>, wanted: u32) -> Pick {
        if self.size == 1 {
            return own.pick::<MAX_BINS>(wanted);
        }
        let buffer = self.state.buffer(self.rounds.get(0));
        Histogram::<T>::for_own_bins::<MAX_BINS>(|bin| {
            let count = own.get(bin);
            if count > 0 {
                buffer.bins().reduce(AtomicOp::Add, bin as usize, count);
            }
        });
        self.barrier();
        Histogram::<T>::for_own_bins::<MAX_BINS>(|bin| {
            // Atomic, so that it is not answered from a cache line that was read before the barrier.
            merged.set(bin, buffer.bins().atomic_load(bin as usize, Order::Relaxed, Scope::Device));
        });
        self.zero::<T>(self.state.buffer(self.rounds.get(0) + 1), self.rank, self.size);
        merged.pick::<MAX_BINS>(wanted)
    }

    /// Reserves output positions: `winners` and `ties` of them, in the row whose last round was the latest
    /// one. Returns the first of each. Called by one thread of each block.
    #[inline(always)]
    pub fn reserve(&self, winners: u32, ties: u32) -> (u32, u32) {
        if self.size == 1 {
            return (0, 0);
        }
        let buffer = self.state.buffer(self.rounds.get(0) + 2);
        let winners = buffer.winners().atomic(AtomicOp::Add, 0, winners, Order::Relaxed, Scope::Device);
        let ties = buffer.ties().atomic(AtomicOp::Add, 0, ties, Order::Relaxed, Scope::Device);
        (winners, ties)
    }

    /// Leaves the team. Collective over the block.
    #[inline(always)]
    pub fn leave<const T: u32>(self) {
        if self.size == 1 {
            return;
        }
        block::sync();
        let mut last = false;
        if thread::index() == 0 {
            let before = self.state.departures().atomic(AtomicOp::Add, 0, 1, Order::AcqRel, Scope::Device);
            last = before + 1 == self.size;
        }
        if block::sync_or(last) {
            self.zero::<T>(self.state.buffer(self.rounds.get(0) + 2), 0, 1);
            if thread::index() == 0 {
                self.state.arrivals().set(0, 0);
                self.state.departures().set(0, 0);
            }
        }
    }

    /// Waits for all blocks of the team; what they wrote before is visible after.
    #[inline(always)]
    fn barrier(&self) {
        block::sync();
        if thread::index() == 0 {
            let arrivals = self.state.arrivals();
            arrivals.atomic(AtomicOp::Add, 0, 1, Order::Release, Scope::Device);
            let rounds = self.rounds.get(0) + 1;
            self.rounds.set(0, rounds);
            while arrivals.atomic_load(0, Order::Acquire, Scope::Device) < rounds * self.size {
                spin_hint();
            }
        }
        block::sync();
    }

    /// Zeroes the share of `buffer` that falls to one of `size` blocks.
    #[inline(always)]
    fn zero<const T: u32>(&self, buffer: Buffer, rank: u32, size: u32) {
        let mut word = rank * T + opaque(thread::index());
        while word < Buffer::WORDS {
            buffer.words().set(word as usize, 0);
            word += size * T;
        }
    }
}
