//! Runs a launch: starts blocks as others end, resumes warps in a seeded order, and finds out when nothing
//! moves any more.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::{self, AssertUnwindSafe};
use std::ptr;

use crate::emu::collective::{ENDED, waiter_for};
use crate::emu::copies::Copies;
use crate::emu::fault::{Collective, Fault, FaultKind};
use crate::emu::fiber::{Fiber, Stacks, Suspender};
use crate::emu::launch::{Launch, refused};
use crate::emu::memory::{Memory, Window};
use crate::emu::order::LaneOrder;
use crate::emu::shared::SharedMemory;
use crate::emu::state::{self, Arrival, Block, Cluster, Context, Place, Random, Thread, Warp, context};
use crate::emu::statistics::Statistics;
use crate::emu::waiting::{LONG_TURN, PATIENCE, check_spinning, stalled};

/// Warps of one block that run in a row, on average, while they need not wait for other blocks.
const BLOCK_TURN: u32 = 128;

/// Runs all threads of a launch whose shape is valid.
pub(super) fn run(
    memory: &Memory,
    kernel: &str,
    launch: &Launch,
    thread: &dyn Fn(),
) -> Result<Statistics, Fault> {
    if state::inside() {
        return Err(refused(kernel, launch, "a kernel cannot launch a kernel".into()));
    }
    let mut registry = memory.lock();
    let clusters = (launch.resident_blocks.min(launch.grid) / launch.cluster).max(1);
    let resident = clusters * launch.cluster;
    let count = resident as usize * launch.block as usize;
    let mut stacks = Stacks::take(count).map_err(|reason| refused(kernel, launch, reason))?;

    let mut random = Random::new(launch.seed);
    // SAFETY: only the lifetime changes. The pointer is used by fibers of this launch, all of which are
    // finished or abandoned when this function returns.
    let body: *const (dyn Fn() + 'static) = unsafe { std::mem::transmute(ptr::from_ref(thread)) };
    let mut cx = Box::new(Context {
        thread: ptr::null_mut(),
        warp: ptr::null_mut(),
        block: ptr::null_mut(),
        index: 0,
        lane: 0,
        windows: [Window { start: 0, bytes: 0, words: ptr::null_mut() }; state::WINDOWS],
        next_window: 0,
        stamp: registry.begin_launch(),
        registry: &raw mut *registry,
        launch: launch.clone(),
        kernel: kernel.to_owned(),
        body,
        statistics: Statistics::default(),
        fault: None,
        pending: start_order(launch.grid / launch.cluster, &mut random),
        random,
        ready: Vec::new(),
        turn: 0,
        turn_over: false,
        blocks: (0..resident).map(|slot| new_block(launch, slot, &mut stacks)).collect(),
        clusters: (0..clusters).map(|index| new_cluster(launch, index)).collect(),
        progress: 0,
        global_progress: 0,
        spins_at: 0,
        spins: 0,
        spinners: 0,
        next_check: 0,
        vain_spins_at: 0,
        vain_spins: 0,
        long_turn: 0,
        loads: 0,
    });
    let pointer = &raw mut *cx;
    let outer = state::enter(pointer);
    schedule();
    state::enter(outer);

    for block in cx.blocks.drain(..) {
        for thread in block.threads {
            if let Some(stack) = thread.fiber.into_stack() {
                stacks.push(stack);
            }
        }
        let cluster = &cx.clusters[(block.slot / launch.cluster) as usize];
        block.shared.retire(cluster.clock);
    }
    match cx.fault.take() {
        Some(fault) => Err(fault),
        None => Ok(cx.statistics),
    }
}

/// The order in which clusters start.
fn start_order(count: u32, random: &mut Random) -> VecDeque<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last as usize, random.below(last + 1) as usize);
    }
    order.into()
}

fn new_block(launch: &Launch, slot: u32, stacks: &mut Stacks) -> Block {
    let thread = |_| Thread {
        fiber: stacks.pop().map_or(Fiber::Gone, Fiber::Idle),
        suspender: ptr::null(),
        last: None,
        spun_at: u64::MAX,
        spun: 0,
        waited: false,
        left: false,
        arrived: false,
        copies: Copies::default(),
        patience: PATIENCE,
    };
    let warp = |index: u32| Warp {
        existing: u32::MAX >> (32 - (launch.block - index * 32).min(32)),
        runnable: 0,
        waiting: 0,
        wanted: 0,
        mixed: false,
        at_barrier: 0,
        exited: 0,
        queued: false,
        yielded: false,
        arrivals: [Arrival { collective: Collective::BlockBarrier, place: here(), value: 0, operand: 0 }; 32],
        results: [0; 32],
        order: LaneOrder { own: [0; 32], floor: [0; 32], known: None },
    };
    Block {
        id: 0,
        rank: slot % launch.cluster,
        cluster: ptr::null_mut(),
        slot,
        threads: (0..launch.block).map(thread).collect(),
        warps: (0..launch.block.div_ceil(32)).map(warp).collect(),
        queue: Vec::new(),
        shared: SharedMemory::take(launch.shared_bytes),
        start: 0,
        interval: 0,
        live: 0,
        arrived: 0,
        pending: None,
        exited: 0,
        tally: 0,
        result: 0,
    }
}

#[track_caller]
fn here() -> Place {
    panic::Location::caller()
}

fn new_cluster(launch: &Launch, index: u32) -> Cluster {
    Cluster {
        first: index * launch.cluster,
        size: launch.cluster,
        clock: 0,
        interval: 0,
        arrived: 0,
        pending: None,
        exited: 0,
        last_exit: (0, 0),
        passed_barrier: false,
        remote_write: None,
        late: HashMap::new(),
        unpublished: HashMap::new(),
    }
}

/// Runs until all blocks have ended or there is a fault.
fn schedule() {
    for index in 0..context().clusters.len() {
        start_next(context(), index);
    }
    while let Some((slot, warp)) = next_warp(context()) {
        run_warp(slot, warp);
        let cx = context();
        if cx.fault.is_some() {
            return;
        }
        check_spinning(cx);
        if cx.fault.is_some() {
            return;
        }
    }
    let cx = context();
    if let Some(slot) = cx.blocks.iter().position(|block| (block.exited as usize) < block.threads.len()) {
        stalled(cx, slot);
    }
}

/// Starts the next cluster in these resident blocks, if there is one.
fn start_next(cx: &mut Context, index: usize) {
    let Some(cluster_id) = cx.pending.pop_front() else {
        return;
    };
    let cluster = &raw mut cx.clusters[index];
    // SAFETY: points into the context's vector, which is not resized during a launch.
    let state = unsafe { &mut *cluster };
    let blocks = state.first as usize..(state.first + state.size) as usize;
    let newest = cx.blocks[blocks.clone()].iter().map(|block| block.shared.clock()).max();
    state.clock = state.clock.max(newest.unwrap_or(0)) + 1;
    state.interval = state.clock;
    state.exited = 0;
    state.passed_barrier = state.size == 1;
    for slot in blocks {
        let block = &raw mut cx.blocks[slot];
        // SAFETY: as above.
        let block = unsafe { &mut *block };
        block.id = cluster_id * state.size + block.rank;
        block.cluster = cluster;
        block.start = state.clock;
        block.interval = state.clock;
        block.live = state.clock;
        block.exited = 0;
        for thread in &mut block.threads {
            thread.fiber.start(thread_main);
            thread.last = None;
            thread.spun_at = u64::MAX;
            thread.spun = 0;
            thread.waited = false;
            thread.left = false;
            thread.arrived = false;
            thread.copies.forget();
            thread.patience = PATIENCE;
        }
        for number in 0..block.warps.len() {
            let warp = &mut block.warps[number];
            warp.runnable = warp.existing;
            warp.exited = 0;
            warp.order.reset(state.clock);
            block.enqueue(number, &mut cx.ready);
        }
        cx.statistics.blocks += 1;
        cx.statistics.threads += block.threads.len() as u64;
    }
}

/// What a fiber does.
fn thread_main(suspender: &Suspender) {
    let cx = context();
    cx.thread().suspender = suspender;
    let body = cx.body;
    // SAFETY: `run` keeps the closure alive until all fibers have ended.
    let body = unsafe { &*body };
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(body)) {
        let message = message_of(&*payload);
        let cx = context();
        let site = cx.thread().last.map(|place| cx.site(Some(place), "its last collective was"));
        cx.record(FaultKind::Panic { message }, None, site);
    }
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".into())
}

/// Takes a warp out of the queues: mostly one of the block that ran last, whose stacks are in the caches.
fn next_warp(cx: &mut Context) -> Option<(u32, u32)> {
    if cx.ready.is_empty() {
        return None;
    }
    let stay = !std::mem::take(&mut cx.turn_over)
        && cx.random.below(BLOCK_TURN) != 0
        && !cx.blocks[cx.turn as usize].queue.is_empty();
    if !stay {
        cx.turn = cx.ready[cx.random.below(cx.ready.len() as u32) as usize];
    }
    let queue = &mut cx.blocks[cx.turn as usize].queue;
    let index = cx.random.below(queue.len() as u32) as usize;
    let warp = queue.swap_remove(index);
    if queue.is_empty()
        && let Some(position) = cx.ready.iter().position(|&slot| slot == cx.turn)
    {
        cx.ready.swap_remove(position);
    }
    Some((cx.turn, warp))
}

/// Resumes the lanes of a warp until none can go on, or one has given up its turn.
fn run_warp(slot: u32, number: u32) {
    let cx = context();
    let block = &raw mut cx.blocks[slot as usize];
    // SAFETY: a resident block of the context; the warp is one of its.
    let warp = unsafe { &raw mut (&mut *block).warps[number as usize] };
    cx.block = block;
    cx.warp = warp;
    loop {
        let cx = context();
        let mut todo = std::mem::take(&mut cx.warp().runnable);
        let turn = cx.random.next() as u32 & 31;
        for step in 0..32 {
            let lane = step ^ turn;
            if todo >> lane & 1 == 0 {
                continue;
            }
            todo &= !(1 << lane);
            let ended = resume(number * 32 + lane, lane);
            let cx = context();
            if ended && cx.fault.is_none() {
                on_exit(cx);
            }
            if cx.fault.is_some() {
                return;
            }
            if todo == 0 {
                break;
            }
        }
        let cx = context();
        let state = cx.warp();
        let yielded = std::mem::take(&mut state.yielded);
        if yielded || state.runnable == 0 {
            state.queued = false;
            cx.turn_over = yielded;
            cx.block().enqueue(number as usize, &mut cx.ready);
            break;
        }
    }
    let cx = context();
    let cluster = cx.cluster();
    if cluster.exited == cluster.size * cx.launch.block {
        cluster.exited = 0;
        let index = (cluster.first / cluster.size) as usize;
        start_next(cx, index);
    }
}

/// Resumes one thread and tells whether it has ended.
fn resume(index: u32, lane: u32) -> bool {
    let cx = context();
    cx.index = index;
    cx.lane = lane;
    cx.long_turn = cx.loads + LONG_TURN;
    let thread = &raw mut cx.block().threads[index as usize];
    cx.thread = thread;
    // SAFETY: the thread stays where it is. Its fiber is touched by nobody else while it runs; the fiber
    // touches the other fields of the thread only.
    unsafe { (*thread).fiber.resume() }
}

fn on_exit(cx: &mut Context) {
    let (warp, block, cluster) = (cx.warp(), cx.block(), cx.cluster());
    cx.progress += 1;
    cx.global_progress += 1;
    let bit = 1_u32 << cx.lane;
    warp.exited |= bit;
    block.exited += 1;
    cluster.exited += 1;
    cluster.last_exit = (block.id, cx.index);
    let last = cx.thread().last;
    if warp.wanted & bit != 0 {
        let (lane, arrival) = waiter_for(warp, cx.lane);
        let ended = cx.site(last, ENDED);
        let kind = FaultKind::ExitedBeforeBarrier { barrier: arrival.collective };
        cx.record_for(block.id, cx.index - cx.lane + lane, kind, Some(arrival.place), Some(ended));
    } else if let Some(pending) = block.pending.or(cluster.pending) {
        let ended = cx.site(last, ENDED);
        let kind = FaultKind::ExitedBeforeBarrier { barrier: pending.collective };
        cx.record_for(pending.block, pending.thread, kind, Some(pending.place), Some(ended));
    }
}
