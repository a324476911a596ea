//! Warp collectives: lanes arrive, the last one computes the results and releases the rest.

use crate::emu::fault::{Collective, FaultKind, Site};
use crate::emu::state::{Arrival, Context, Place, Warp, context, lanes, same_place, suspend};
use crate::machine::Shuffle;

/// Takes part in a warp collective and returns this lane's result.
#[inline(always)]
pub(super) fn warp(mask: u32, collective: Collective, value: u32, operand: u32, place: Place) -> u32 {
    if arrive_at_warp(context(), mask, Arrival { collective, place, value, operand }) {
        suspend();
    }
    let cx = context();
    cx.warp().results[cx.lane as usize]
}

/// Whether the lane must wait.
#[inline(never)]
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
    let present = same_callers(cx, warp, mask, &arrival);
    warp.arrivals[lane] = arrival;
    if present | bit != needed {
        warp.mixed |= present != warp.waiting;
        warp.waiting |= bit;
        warp.wanted |= mask;
        return true;
    }
    complete(cx, warp, mask, needed, arrival);
    warp.waiting &= !needed;
    warp.wanted = 0;
    warp.mixed &= warp.waiting != 0;
    for other in lanes(warp.waiting) {
        warp.wanted |= mask_of(warp.arrivals[other as usize].collective);
    }
    warp.runnable |= present;
    false
}

/// The lanes that wait in the same call. A lane that waits for the caller in another one is a fault; one
/// that waits elsewhere for others may still come.
#[inline]
fn same_callers(cx: &mut Context, warp: &Warp, mask: u32, arrival: &Arrival) -> u32 {
    if warp.waiting == 0 {
        return 0;
    }
    let first = warp.waiting.trailing_zeros();
    if !warp.mixed && same_call(&warp.arrivals[first as usize], arrival) {
        return warp.waiting;
    }
    let mut present = 0;
    for lane in lanes(warp.waiting) {
        let other = &warp.arrivals[lane as usize];
        if same_call(other, arrival) {
            present |= 1 << lane;
        } else if mask >> lane & 1 != 0 && mask_of(other.collective) >> cx.lane & 1 != 0 {
            diverged(cx, lane, *arrival);
        }
    }
    present
}

fn same_call(a: &Arrival, b: &Arrival) -> bool {
    a.collective == b.collective && same_place(a.place, b.place)
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
                let same =
                    lanes(rest).filter(|&lane| value(lane) == key).fold(0, |bits, lane| bits | 1 << lane);
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
        Collective::BlockBarrier
        | Collective::BlockCount
        | Collective::BlockOr
        | Collective::ClusterBarrier
        | Collective::ClusterBarrierOwn
        | Collective::ClusterLeft => {
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
        Collective::BlockBarrier
        | Collective::BlockCount
        | Collective::BlockOr
        | Collective::ClusterBarrier
        | Collective::ClusterBarrierOwn
        | Collective::ClusterLeft => u32::MAX,
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
