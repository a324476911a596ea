//! Threads that wait: they give up their turn, and reports are made when nothing moves any more.

use crate::emu::collective::mask_of;
use crate::emu::fault::{FaultKind, Site};
use crate::emu::launch::Preemption;
use crate::emu::state::{Context, Place, lanes, suspend};

/// Atomic loads in a row, without a spin hint, before a thread is made to yield.
pub(super) const PATIENCE: u32 = 1024;
/// Plain loads in one turn before a thread is made to yield: a loop that waits with them must not hang the
/// emulator.
pub(super) const LONG_TURN: u64 = 1 << 16;
/// Global memory must change at least once in so many times the spin limit, whatever else goes on.
const HARD_FACTOR: u64 = 1000;

/// Reports threads that wait for each other in collectives: nothing can run, and not all have ended.
pub(super) fn stalled(cx: &mut Context, slot: usize) {
    for block in slot..cx.blocks.len() {
        let block = &cx.blocks[block];
        for (number, warp) in block.warps.iter().enumerate() {
            for lane in lanes(warp.waiting) {
                let this = warp.arrivals[lane as usize];
                let wanted = mask_of(this.collective) & warp.existing;
                let elsewhere = lanes(wanted & warp.waiting).find(|&other| {
                    let arrival = warp.arrivals[other as usize];
                    arrival.collective != this.collective || arrival.place != this.place
                });
                let Some(other) = elsewhere else { continue };
                let arrival = warp.arrivals[other as usize];
                let site = Site {
                    block: block.id,
                    thread: number as u32 * 32 + other,
                    location: Some(arrival.place),
                    doing: format!("waits at {}", arrival.collective),
                };
                let kind = FaultKind::Divergence { this: this.collective, other: arrival.collective };
                let thread = number as u32 * 32 + lane;
                cx.record_for(block.id, thread, kind, Some(this.place), Some(site));
                return;
            }
        }
    }
    let blocks_not_started = cx.pending.len() as u32 * cx.launch.cluster;
    let (block, pending) = (cx.blocks[slot].id, cx.blocks[slot].pending);
    let thread = pending.map_or(0, |pending| pending.thread);
    let place = pending.map(|pending| pending.place);
    cx.record_for(block, thread, FaultKind::Deadlock { blocks_not_started }, place, None);
}

/// Reports a livelock: every thread that can run has spun many times since memory last changed, or all
/// threads together a great many times since global memory last changed.
pub(super) fn check_spinning(cx: &mut Context) {
    let limit = u64::from(cx.launch.spin_limit);
    let in_vain = cx.vain_spins_at == cx.global_progress && cx.vain_spins > limit * HARD_FACTOR;
    if !in_vain {
        if cx.spins <= cx.next_check || cx.spins_at != cx.progress {
            return;
        }
        // Again when each has spun once more.
        cx.next_check = (limit * cx.spinners).max(cx.spins + cx.spinners);
        if cx.spins <= limit * cx.spinners {
            return;
        }
    }
    let mut spinners = Vec::new();
    for block in &cx.blocks {
        for (number, warp) in block.warps.iter().enumerate() {
            for lane in lanes(warp.runnable) {
                let index = number as u32 * 32 + lane;
                let thread = &block.threads[index as usize];
                let spins = thread.spun_at == cx.progress && thread.spun >= cx.launch.spin_limit;
                if spins || in_vain && thread.spun != 0 {
                    spinners.push((block.id, index, thread.last));
                } else if !in_vain {
                    return;
                }
            }
        }
    }
    let (block, thread, place) = match spinners.first() {
        Some(&spinner) => spinner,
        None => (cx.block().id, cx.index, cx.thread().last),
    };
    let blocks_not_started = cx.pending.len() as u32 * cx.launch.cluster;
    let kind = if blocks_not_started == 0 {
        FaultKind::Livelock
    } else {
        FaultKind::Deadlock { blocks_not_started }
    };
    let other = spinners.iter().find(|spinner| spinner.0 != block).or(spinners.get(1));
    let site =
        other.map(|&(block, thread, location)| Site { block, thread, location, doing: "spins too".into() });
    cx.record_for(block, thread, kind, place, site);
}

impl Context {
    /// Notes a store to global memory.
    #[inline]
    pub(super) fn changed(&mut self, changed: bool) {
        self.progress += u64::from(changed);
        self.global_progress += u64::from(changed);
    }

    /// Lets others run, the launch's random choice permitting.
    #[inline]
    pub(super) fn preempt(&mut self, place: Place) -> bool {
        let chosen = match self.launch.preemption {
            Preemption::Never => false,
            Preemption::OneIn(count) => self.random.below(count.max(1)) == 0,
        };
        if chosen {
            self.spin(place);
        }
        chosen
    }

    /// Counts an access that waiting loops are made of; lets others run if there were many.
    #[inline]
    pub(super) fn lose_patience(&mut self, place: Place) {
        let thread = self.thread();
        thread.patience -= 1;
        if thread.patience == 0 {
            self.spin(place);
        }
    }

    /// Counts a plain load; lets others run if the turn is long.
    #[inline(always)]
    pub(super) fn count_load(&mut self, place: Place) {
        self.loads += 1;
        if self.loads >= self.long_turn {
            self.spin(place);
        }
    }

    /// Gives up the turn.
    pub(super) fn spin(&mut self, place: Place) {
        if self.spins_at != self.progress {
            self.spins_at = self.progress;
            self.spins = 0;
            self.spinners = 0;
            self.next_check = u64::from(self.launch.spin_limit);
        }
        if self.vain_spins_at != self.global_progress {
            self.vain_spins_at = self.global_progress;
            self.vain_spins = 0;
        }
        let progress = self.progress;
        let thread = self.thread();
        let first = thread.spun_at != progress;
        thread.spun_at = progress;
        thread.spun = if first { 1 } else { thread.spun + 1 };
        thread.last = Some(place);
        thread.patience = PATIENCE;
        self.spins += 1;
        self.vain_spins += 1;
        self.spinners += u64::from(first);
        let warp = self.warp();
        warp.runnable |= 1 << self.lane;
        warp.yielded = true;
        suspend();
    }
}
