//! Barriers of blocks and clusters: threads arrive, the last one releases the rest.

use crate::emu::collective::waiter_for;
use crate::emu::fault::{Collective, FaultKind, Site};
use crate::emu::state::{Block, Context, Pending, Place, context, same_place, suspend};

/// Arrives at the first half of a cluster barrier, which nobody waits at.
#[track_caller]
pub(super) fn arrive_early() {
    let thread = context().thread();
    assert!(!thread.arrived, "cluster::arrive_own twice, without cluster::wait_own between");
    thread.arrived = true;
}

/// Takes part in a barrier of the block or cluster and returns the number of `true` predicates.
#[inline(always)]
pub(super) fn wait(collective: Collective, predicate: bool, place: Place) -> u32 {
    if arrive_at_barrier(context(), collective, predicate, place) {
        suspend();
    }
    context().block().result
}

/// Whether the thread must wait.
#[inline(never)]
fn arrive_at_barrier(cx: &mut Context, collective: Collective, predicate: bool, place: Place) -> bool {
    let (warp, block, cluster) = (cx.warp(), cx.block(), cx.cluster());
    let bit = 1_u32 << cx.lane;
    cx.thread().last = Some(place);
    let this = Pending { collective, place, block: block.id, thread: cx.index };
    if warp.wanted & bit != 0 {
        lane_is_waited_for(cx, collective, place);
    }
    let of_cluster = matches!(
        collective,
        Collective::ClusterBarrier | Collective::ClusterBarrierOwn | Collective::ClusterLeft
    );
    let orders = collective != Collective::ClusterLeft;
    if of_cluster {
        let is_second_half = collective == Collective::ClusterBarrierOwn;
        assert!(
            cx.thread().arrived == is_second_half,
            "{collective} {} cluster::arrive_own",
            if is_second_half { "without" } else { "after" }
        );
        cx.thread().arrived = false;
    }
    let first = *block.pending.get_or_insert(this);
    check_same_barrier(cx, this, first);
    if of_cluster {
        let first = *cluster.pending.get_or_insert(this);
        check_same_barrier(cx, this, first);
    }
    if block.exited != 0 || of_cluster && cluster.exited != 0 {
        let (exited_block, exited_thread) = cluster.last_exit;
        let site =
            Site { block: exited_block, thread: exited_thread, location: None, doing: "has ended".into() };
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
        cluster.arrived = 0;
        cluster.pending = None;
        if collective == Collective::ClusterBarrierOwn
            && let Some((site, rank)) = cluster.remote_write.take()
        {
            cx.raise(FaultKind::RemoteWriteNotPublished { rank }, place, Some(site));
        }
        if orders {
            cluster.unpublished = std::mem::take(&mut cluster.late);
            cluster.remote_write = None;
            cluster.clock += 1;
            cluster.interval = cluster.clock;
            cluster.passed_barrier = true;
        }
        let blocks = cluster.first..cluster.first + cluster.size;
        let clock = cluster.clock;
        for index in blocks {
            let other = &raw mut cx.blocks[index as usize];
            // SAFETY: a resident block; no other reference to it is used after this.
            release(cx, unsafe { &mut *other }, orders.then_some(clock));
        }
    } else {
        if block.arrived < threads {
            return true;
        }
        cx.statistics.block_barriers += 1;
        cluster.clock += 1;
        release(cx, block, Some(cluster.clock));
    }
    // The last thread to arrive runs on.
    cx.warp().runnable &= !bit;
    false
}

/// Lets all threads of a block pass a barrier, number `clock` if it orders memory.
fn release(cx: &mut Context, block: &mut Block, clock: Option<u32>) {
    if let Some(clock) = clock {
        block.interval = clock;
        block.live = clock;
        if cx.launch.cluster != 1 {
            // SAFETY: the cluster of a resident block; no other reference to it is in use.
            block.live = unsafe { (*block.cluster).interval };
        }
    }
    block.arrived = 0;
    block.pending = None;
    block.result = block.tally;
    block.tally = 0;
    for index in 0..block.warps.len() {
        let warp = &mut block.warps[index];
        if let Some(clock) = clock {
            warp.order.reset(clock);
        }
        warp.runnable |= warp.at_barrier;
        warp.at_barrier = 0;
        block.enqueue(index, &mut cx.ready);
    }
}

fn check_same_barrier(cx: &mut Context, this: Pending, first: Pending) {
    if this.collective != first.collective || !same_place(this.place, first.place) {
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
