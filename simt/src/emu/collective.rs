//! Barriers and warp collectives: threads arrive, the last one computes the results and releases the rest.

use crate::emu::fault::{Collective, FaultKind, Site};
use crate::emu::state::{Arrival, Block, Context, Pending, Place, Warp, context, suspend};
use crate::machine::Shuffle;

/// Takes part in a warp collective and returns this lane's result.
pub(super) fn warp(mask: u32, collective: Collective, value: u32, operand: u32, place: Place) -> u32 {
    if arrive_at_warp(context(), mask, Arrival { collective, place, value, operand }) {
        suspend();
    }
    let cx = context();
    cx.warp().results[cx.lane as usize]
}

/// Takes part in a barrier of the block or cluster and returns the number of `true` predicates.
pub(super) fn barrier(collective: Collective, predicate: bool, place: Place) -> u32 {
    if arrive_at_barrier(context(), collective, predicate, place) {
        suspend();
    }
    context().block().result
}

/// Whether the lane must wait.
fn arrive_at_warp(cx: &mut Context, mask: u32, arrival: Arrival) -> bool {
    let warp = cx.warp();
    let lane = cx.lane as usize;
    let bit = 1_u32 << lane;
    cx.thread().last = Some(arrival.place);
    if mask & bit == 0 {
        cx.raise(FaultKind::LaneNotInMask { collective: arrival.collective, mask }, arrival.place, None);
    }
    if mask & (warp.exited | warp.at_barrier) != 0 {
        lane_is_elsewhere(cx, mask, arrival);
    }
    let needed = mask & warp.existing;
    let present = warp.waiting & mask;
    if present != 0 {
        let first = present.trailing_zeros();
        if !same_call(&warp.arrivals[first as usize], &arrival) {
            diverged(cx, first, arrival);
        }
    }
    warp.arrivals[lane] = arrival;
    if present | bit != needed {
        warp.waiting |= bit;
        warp.wanted |= mask;
        return true;
    }
    for other in lanes(present) {
        if !same_call(&warp.arrivals[other as usize], &arrival) {
            diverged(cx, other, arrival);
        }
    }
    complete(cx, warp, mask, needed, arrival);
    warp.waiting &= !needed;
    warp.wanted = 0;
    for other in lanes(warp.waiting) {
        warp.wanted |= mask_of(warp.arrivals[other as usize].collective);
    }
    warp.runnable |= present;
    false
}

fn same_call(a: &Arrival, b: &Arrival) -> bool {
    a.collective == b.collective && (std::ptr::eq(a.place, b.place) || a.place == b.place)
}

#[cold]
fn diverged(cx: &mut Context, other: u32, arrival: Arrival) -> ! {
    let waiting = cx.warp().arrivals[other as usize];
    let site = Site {
        block: cx.block().id,
        thread: cx.index - cx.lane + other,
        location: Some(waiting.place),
        doing: format!("waits at {}", waiting.collective),
    };
    let kind = FaultKind::Divergence { this: arrival.collective, other: waiting.collective };
    cx.raise(kind, arrival.place, Some(site));
}

/// A lane of the mask has ended or waits at a barrier that cannot complete without the caller.
#[cold]
fn lane_is_elsewhere(cx: &mut Context, mask: u32, arrival: Arrival) -> ! {
    let (warp, block) = (cx.warp(), cx.block());
    let exited = mask & warp.exited;
    let lane = if exited != 0 { exited } else { mask & warp.at_barrier }.trailing_zeros();
    let thread = cx.index - cx.lane + lane;
    let last = block.threads[thread as usize].last;
    if exited != 0 {
        let site = Site { block: block.id, thread, location: last, doing: ENDED.into() };
        cx.raise(FaultKind::ExitedBeforeBarrier { barrier: arrival.collective }, arrival.place, Some(site));
    }
    let barrier = block.pending.map_or(Collective::BlockBarrier, |pending| pending.collective);
    let site = Site { block: block.id, thread, location: last, doing: format!("waits at {barrier}") };
    cx.raise(FaultKind::Divergence { this: arrival.collective, other: barrier }, arrival.place, Some(site));
}

pub(super) const ENDED: &str = "has ended; its last collective, if any, was";

/// Computes the results of the lanes in `needed`, all of which have arrived.
fn complete(cx: &mut Context, warp: &mut Warp, mask: u32, needed: u32, arrival: Arrival) {
    cx.statistics.warp_collectives += 1;
    let Warp { arrivals, results, order, .. } = warp;
    let value = |lane: u32| arrivals[lane as usize].value;
    let ballot = || lanes(needed).filter(|&lane| value(lane) != 0).fold(0, |bits, lane| bits | 1 << lane);
    let uniform = match arrival.collective {
        Collective::WarpBarrier { .. } => {
            cx.statistics.warp_barriers += 1;
            let cluster = cx.cluster();
            cluster.clock += 1;
            order.barrier(needed, warp.existing, cluster.clock);
            return;
        }
        Collective::Ballot { .. } => ballot(),
        Collective::Any { .. } => u32::from(ballot() != 0),
        Collective::All { .. } => u32::from(ballot() == needed),
        Collective::ReduceAdd { .. } => lanes(needed).fold(0, |sum: u32, lane| sum.wrapping_add(value(lane))),
        Collective::ReduceMax { .. } => lanes(needed).fold(0, |most, lane| most.max(value(lane))),
        Collective::MatchAny { .. } => {
            let mut rest = needed;
            while rest != 0 {
                let key = value(rest.trailing_zeros());
                let same = lanes(rest).filter(|&lane| value(lane) == key).fold(0, |bits, lane| bits | 1 << lane);
                for lane in lanes(same) {
                    results[lane as usize] = same;
                }
                rest &= !same;
            }
            return;
        }
        Collective::Shuffle { kind, .. } => {
            for lane in lanes(needed) {
                let source = shuffle_source(kind, lane, arrivals[lane as usize].operand & 31);
                if needed >> source & 1 == 0 {
                    undefined_shuffle(cx, lane, source, mask, arrival.place);
                }
                results[lane as usize] = value(source);
            }
            return;
        }
        Collective::BlockBarrier | Collective::BlockCount | Collective::BlockOr | Collective::ClusterBarrier => {
            unreachable!("a barrier of the block is not a warp collective")
        }
    };
    for lane in lanes(needed) {
        results[lane as usize] = uniform;
    }
}

fn shuffle_source(kind: Shuffle, lane: u32, operand: u32) -> u32 {
    match kind {
        Shuffle::Index => operand,
        Shuffle::Up => lane.checked_sub(operand).unwrap_or(lane),
        Shuffle::Down if lane + operand < 32 => lane + operand,
        Shuffle::Down => lane,
        Shuffle::Xor => lane ^ operand,
    }
}

#[cold]
fn undefined_shuffle(cx: &mut Context, lane: u32, source: u32, mask: u32, place: Place) -> ! {
    let (block, thread) = (cx.block().id, cx.index - cx.lane + lane);
    cx.record_for(block, thread, FaultKind::UndefinedShuffle { source, mask }, Some(place), None);
    loop {
        suspend();
    }
}

/// Whether the thread must wait.
fn arrive_at_barrier(cx: &mut Context, collective: Collective, predicate: bool, place: Place) -> bool {
    let (warp, block, cluster) = (cx.warp(), cx.block(), cx.cluster());
    let bit = 1_u32 << cx.lane;
    cx.thread().last = Some(place);
    let this = Pending { collective, place, block: block.id, thread: cx.index };
    if warp.wanted & bit != 0 {
        lane_is_waited_for(cx, collective, place);
    }
    let of_cluster = collective == Collective::ClusterBarrier;
    let first = *block.pending.get_or_insert(this);
    check_same_barrier(cx, this, first);
    if of_cluster {
        let first = *cluster.pending.get_or_insert(this);
        check_same_barrier(cx, this, first);
    }
    if block.exited != 0 || of_cluster && cluster.exited != 0 {
        let (exited_block, exited_thread) = cluster.last_exit;
        let site = Site { block: exited_block, thread: exited_thread, location: None, doing: "has ended".into() };
        cx.raise(FaultKind::ExitedBeforeBarrier { barrier: collective }, place, Some(site));
    }
    warp.at_barrier |= bit;
    block.arrived += 1;
    block.tally += u32::from(predicate);
    cluster.arrived += u32::from(of_cluster);
    let threads = block.threads.len() as u32;
    if of_cluster {
        if cluster.arrived < threads * cluster.size {
            return true;
        }
        cx.statistics.cluster_barriers += 1;
        cluster.clock += 1;
        cluster.interval = cluster.clock;
        cluster.arrived = 0;
        cluster.pending = None;
        cluster.passed_barrier = true;
        let blocks = cluster.first..cluster.first + cluster.size;
        let clock = cluster.clock;
        for index in blocks {
            let other = &raw mut cx.blocks[index as usize];
            // SAFETY: a resident block; no other reference to it is used after this.
            release(cx, unsafe { &mut *other }, clock);
        }
    } else {
        if block.arrived < threads {
            return true;
        }
        cx.statistics.block_barriers += 1;
        cluster.clock += 1;
        release(cx, block, cluster.clock);
    }
    // The last thread to arrive runs on.
    cx.warp().runnable &= !bit;
    false
}

/// Lets all threads of a block pass a barrier.
fn release(cx: &mut Context, block: &mut Block, clock: u32) {
    block.interval = clock;
    block.arrived = 0;
    block.pending = None;
    block.result = block.tally;
    block.tally = 0;
    for (index, warp) in block.warps.iter_mut().enumerate() {
        warp.order.reset(clock);
        warp.runnable |= warp.at_barrier;
        warp.at_barrier = 0;
        cx.enqueue(block.slot, index as u32, warp);
    }
}

fn check_same_barrier(cx: &mut Context, this: Pending, first: Pending) {
    if this.collective != first.collective || this.place != first.place {
        let doing = format!("waits at {}", first.collective);
        let site = Site { block: first.block, thread: first.thread, location: Some(first.place), doing };
        let kind = FaultKind::Divergence { this: this.collective, other: first.collective };
        cx.raise(kind, this.place, Some(site));
    }
}

/// A lane arrives at a barrier of the block while lanes of its warp wait for it elsewhere.
#[cold]
fn lane_is_waited_for(cx: &mut Context, collective: Collective, place: Place) -> ! {
    let (lane, arrival) = waiter_for(cx.warp(), cx.lane);
    let site = Site {
        block: cx.block().id,
        thread: cx.index - cx.lane + lane,
        location: Some(arrival.place),
        doing: format!("waits at {}", arrival.collective),
    };
    cx.raise(FaultKind::Divergence { this: collective, other: arrival.collective }, place, Some(site));
}

/// A lane that waits in a warp collective for `lane`, of which there is one.
pub(super) fn waiter_for(warp: &Warp, lane: u32) -> (u32, Arrival) {
    let waiter = lanes(warp.waiting)
        .find(|&other| mask_of(warp.arrivals[other as usize].collective) >> lane & 1 != 0)
        .unwrap_or(lane);
    (waiter, warp.arrivals[waiter as usize])
}

/// The lanes that a collective names.
pub(super) fn mask_of(collective: Collective) -> u32 {
    match collective {
        Collective::BlockBarrier | Collective::BlockCount | Collective::BlockOr | Collective::ClusterBarrier => {
            u32::MAX
        }
        Collective::WarpBarrier { mask }
        | Collective::Shuffle { mask, .. }
        | Collective::Ballot { mask }
        | Collective::Any { mask }
        | Collective::All { mask }
        | Collective::MatchAny { mask }
        | Collective::ReduceAdd { mask }
        | Collective::ReduceMax { mask } => mask,
    }
}

/// The numbers of the bits that are set, ascending.
pub(super) fn lanes(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (lane < 32).then_some(lane)
    })
}

impl crate::emu::state::LaneOrder {
    /// A barrier of the lanes in `needed`, with the number `clock`.
    fn barrier(&mut self, needed: u32, existing: u32, clock: u32) {
        if needed == existing {
            self.reset(clock);
            return;
        }
        let floor = self.floor;
        let known = self.known.get_or_insert_with(|| Box::new(floor.map(|least| [least; 32])));
        let mut joined = [0; 32];
        for lane in lanes(needed) {
            for (most, of_lane) in joined.iter_mut().zip(&known[lane as usize]) {
                *most = (*most).max(*of_lane);
            }
        }
        for lane in lanes(needed) {
            joined[lane as usize] = clock;
        }
        let least = lanes(existing).map(|lane| joined[lane as usize]).min().unwrap_or(clock);
        for lane in lanes(needed) {
            known[lane as usize] = joined;
            self.own[lane as usize] = clock;
            self.floor[lane as usize] = least;
        }
    }
}
