//! Runs a launch: starts blocks as others end, resumes warps in a seeded order, and finds out when nothing
//! moves any more.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;

use crate::emu::collective::{ENDED, lanes, mask_of, waiter_for};
use crate::emu::fault::{Collective, Fault, FaultKind, Site};
use crate::emu::fiber::{Fiber, Stacks, Suspender};
use crate::emu::launch::{Launch, Preemption, refused};
use crate::emu::memory::{Memory, Window};
use crate::emu::shared::SharedMemory;
use crate::emu::state::{
    self, Arrival, Block, Cluster, Context, LaneOrder, Place, Random, Thread, Warp, context, suspend,
};
use crate::emu::statistics::Statistics;

/// Atomic loads in a row, without a spin hint, before a thread is made to yield.
const PATIENCE: u32 = 1024;
/// Global memory must change at least once in so many times the spin limit, whatever else goes on.
const HARD_FACTOR: u64 = 1000;

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
        queue: VecDeque::new(),
        blocks: (0..resident).map(|slot| new_block(launch, slot, &mut stacks)).collect(),
        clusters: (0..clusters).map(|index| new_cluster(launch, index)).collect(),
        progress: 0,
        global_progress: 0,
        spins_at: 0,
        spins: 0,
        spinners: 0,
        vain_spins_at: 0,
        vain_spins: 0,
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
        Some(fault) => Err(*fault),
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
        patience: PATIENCE,
    };
    let warp = |index: u32| Warp {
        existing: u32::MAX >> (32 - (launch.block - index * 32).min(32)),
        runnable: 0,
        waiting: 0,
        wanted: 0,
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
        shared: SharedMemory::take(launch.shared_bytes),
        interval: 0,
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
        start: 0,
        interval: 0,
        arrived: 0,
        pending: None,
        exited: 0,
        last_exit: (0, 0),
        passed_barrier: false,
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
    let Some(cluster_id) = cx.pending.pop_front() else { return };
    let cluster = &raw mut cx.clusters[index];
    // SAFETY: points into the context's vector, which is not resized during a launch.
    let state = unsafe { &mut *cluster };
    let blocks = state.first as usize..(state.first + state.size) as usize;
    let newest = cx.blocks[blocks.clone()].iter().map(|block| block.shared.clock()).max();
    state.clock = state.clock.max(newest.unwrap_or(0)) + 1;
    state.start = state.clock;
    state.interval = state.clock;
    state.exited = 0;
    state.passed_barrier = state.size == 1;
    for slot in blocks {
        let block = &raw mut cx.blocks[slot];
        // SAFETY: as above.
        let block = unsafe { &mut *block };
        block.id = cluster_id * state.size + block.rank;
        block.cluster = cluster;
        block.interval = state.clock;
        block.exited = 0;
        for thread in &mut block.threads {
            thread.fiber.start(thread_main);
            thread.last = None;
            thread.spun_at = u64::MAX;
            thread.patience = PATIENCE;
        }
        for (number, warp) in block.warps.iter_mut().enumerate() {
            warp.runnable = warp.existing;
            warp.exited = 0;
            warp.order.reset(state.clock);
            cx.enqueue(slot as u32, number as u32, warp);
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

fn next_warp(cx: &mut Context) -> Option<(u32, u32)> {
    let count = cx.queue.len() as u32;
    if count == 0 {
        return None;
    }
    let index = cx.random.below(count) as usize;
    cx.queue.swap_remove_back(index)
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
            cx.enqueue(slot, number, state);
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

/// Reports threads that wait for each other in collectives: nothing can run, and not all have ended.
fn stalled(cx: &mut Context, slot: usize) {
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

/// Reports a livelock: every thread that can run has spun since memory last changed, many times.
fn check_spinning(cx: &mut Context) {
    let limit = u64::from(cx.launch.spin_limit);
    if cx.spins <= limit * cx.spinners.max(1) || cx.spins_at != cx.progress {
        return;
    }
    let progress = cx.progress;
    let in_vain = cx.vain_spins_at == cx.global_progress && cx.vain_spins > limit * HARD_FACTOR;
    let mut spinners = Vec::new();
    for block in &cx.blocks {
        for (number, warp) in block.warps.iter().enumerate() {
            for lane in lanes(warp.runnable) {
                let index = number as u32 * 32 + lane;
                let thread = &block.threads[index as usize];
                if thread.spun_at == progress {
                    spinners.push((block.id, index, thread.last));
                } else if !in_vain {
                    return;
                }
            }
        }
    }
    let Some(&(block, thread, place)) = spinners.first() else { return };
    let blocks_not_started = cx.pending.len() as u32 * cx.launch.cluster;
    let kind =
        if blocks_not_started == 0 { FaultKind::Livelock } else { FaultKind::Deadlock { blocks_not_started } };
    let other = spinners.iter().find(|spinner| spinner.0 != block).or(spinners.get(1));
    let site = other.map(|&(block, thread, location)| Site { block, thread, location, doing: "spins too".into() });
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

    /// Gives up the turn.
    pub(super) fn spin(&mut self, place: Place) {
        if self.spins_at != self.progress {
            self.spins_at = self.progress;
            self.spins = 0;
            self.spinners = 0;
        }
        if self.vain_spins_at != self.global_progress {
            self.vain_spins_at = self.global_progress;
            self.vain_spins = 0;
        }
        let progress = self.progress;
        let thread = self.thread();
        let first = thread.spun_at != progress;
        thread.spun_at = progress;
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
