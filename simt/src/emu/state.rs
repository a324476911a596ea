//! The state of a running launch: what a thread, a warp, a block and a cluster are while they live.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::panic::Location;
use std::ptr;

use crate::emu::copies::Copies;
use crate::emu::fault::{Collective, Fault, FaultKind, Site};
use crate::emu::fiber::{Fiber, Suspender};
use crate::emu::launch::Launch;
use crate::emu::memory::{Registry, Window};
use crate::emu::order::LaneOrder;
use crate::emu::shared::SharedMemory;
use crate::emu::statistics::Statistics;

/// A source location in a kernel.
pub(super) type Place = &'static Location<'static>;

/// Whether two locations are the same. One location may have several addresses.
#[inline]
pub(super) fn same_place(a: Place, b: Place) -> bool {
    ptr::eq(a, b) || a == b
}

/// One CUDA thread.
pub(super) struct Thread {
    pub(super) fiber: Fiber,
    pub(super) suspender: *const Suspender,
    /// Its last collective or spin, for reports.
    pub(super) last: Option<Place>,
    /// Value of [`Context::progress`] when it last spun, and how often it has spun since that value.
    pub(super) spun_at: u64,
    pub(super) spun: u32,
    /// Whether it has waited for the launches before this one.
    pub(super) waited: bool,
    /// Whether it has left the cluster.
    pub(super) left: bool,
    /// Whether it is between the two halves of a cluster barrier.
    pub(super) arrived: bool,
    /// Its copies from global to shared memory.
    pub(super) copies: Copies,
    /// Atomic loads until it is made to yield: a loop around one may never call the spin hint.
    pub(super) patience: u32,
}

/// 32 threads.
pub(super) struct Warp {
    /// Lanes that the block has.
    pub(super) existing: u32,
    /// Lanes to be resumed.
    pub(super) runnable: u32,
    /// Lanes inside a warp collective, and all lanes that these wait for.
    pub(super) waiting: u32,
    pub(super) wanted: u32,
    /// Whether they are in different collectives.
    pub(super) mixed: bool,
    /// Lanes at a block or cluster barrier.
    pub(super) at_barrier: u32,
    /// Lanes that have ended.
    pub(super) exited: u32,
    /// Whether the warp is in the queue, or running.
    pub(super) queued: bool,
    /// Whether a lane gave up its turn without waiting for a collective.
    pub(super) yielded: bool,
    pub(super) arrivals: [Arrival; 32],
    pub(super) results: [u32; 32],
    pub(super) order: LaneOrder,
}

/// What a lane brought to a warp collective.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) collective: Collective,
    pub(super) place: Place,
    pub(super) value: u32,
    pub(super) operand: u32,
}

/// A barrier that the first threads have reached.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    pub(super) collective: Collective,
    pub(super) place: Place,
    pub(super) block: u32,
    pub(super) thread: u32,
}

/// A resident block.
pub(super) struct Block {
    /// Index in the grid; meaningless while the cluster is idle.
    pub(super) id: u32,
    pub(super) rank: u32,
    pub(super) cluster: *mut Cluster,
    pub(super) slot: u32,
    pub(super) threads: Vec<Thread>,
    pub(super) warps: Vec<Warp>,
    /// Warps with something to run.
    pub(super) queue: Vec<u32>,
    pub(super) shared: SharedMemory,
    /// Clock when the block started, and that of its last barrier.
    pub(super) start: u32,
    pub(super) interval: u32,
    /// Clock below which every access to shared memory is ordered before what the block does now: its
    /// `interval`, or that of the cluster if there are other blocks.
    pub(super) live: u32,
    /// Threads at the pending barrier, those that have ended, the predicates so far, the last result.
    pub(super) arrived: u32,
    pub(super) pending: Option<Pending>,
    pub(super) exited: u32,
    pub(super) tally: u32,
    pub(super) result: u32,
}

/// The resident blocks of one cluster; without clusters, one block.
pub(super) struct Cluster {
    /// Index of its first block among the resident blocks.
    pub(super) first: u32,
    pub(super) size: u32,
    /// Number of the last barrier of any kind in it.
    pub(super) clock: u32,
    /// Clock of the last cluster barrier, or of the start.
    pub(super) interval: u32,
    pub(super) arrived: u32,
    pub(super) pending: Option<Pending>,
    /// Threads that have ended, and one of them.
    pub(super) exited: u32,
    pub(super) last_exit: (u32, u32),
    pub(super) passed_barrier: bool,
    /// The first write to another block's shared memory since the last barrier that publishes such: by whom, where, and the
    /// rank of that block.
    pub(super) remote_write: Option<(Site, u32)>,
    /// Words of shared memory that were written between the halves of the barrier that is under way, and of the last one.
    pub(super) late: LateWrites,
    pub(super) unpublished: LateWrites,
}

/// By the index of a resident block and that of a word, who wrote it.
pub(super) type LateWrites = HashMap<(u32, usize), Site>;

/// A launch while it runs. The fibers reach it through a thread-local pointer.
pub(super) struct Context {
    // The current thread.
    pub(super) thread: *mut Thread,
    pub(super) warp: *mut Warp,
    pub(super) block: *mut Block,
    pub(super) index: u32,
    pub(super) lane: u32,
    // Access to global memory.
    pub(super) windows: [Window; WINDOWS],
    pub(super) next_window: usize,
    pub(super) registry: *mut Registry,
    pub(super) stamp: u16,
    // The launch.
    pub(super) launch: Launch,
    pub(super) kernel: String,
    pub(super) body: *const dyn Fn(),
    pub(super) statistics: Statistics,
    pub(super) fault: Option<Fault>,
    // Schedule.
    pub(super) random: Random,
    /// Blocks with something to run, the one that ran last, and whether it should make room for others.
    pub(super) ready: Vec<u32>,
    pub(super) turn: u32,
    pub(super) turn_over: bool,
    pub(super) blocks: Vec<Block>,
    pub(super) clusters: Vec<Cluster>,
    pub(super) pending: VecDeque<u32>,
    // Spinning. `progress` counts changes of memory and ends of threads; `spins` and `spinners` count since
    // it last changed, `vain_spins` since global memory last changed.
    pub(super) progress: u64,
    pub(super) global_progress: u64,
    pub(super) spins_at: u64,
    pub(super) spins: u64,
    pub(super) spinners: u64,
    pub(super) next_check: u64,
    pub(super) vain_spins_at: u64,
    pub(super) vain_spins: u64,
    /// The number of loads at which the current thread has had a long turn.
    pub(super) long_turn: u64,
    pub(super) loads: u64,
}

/// Allocations that a launch remembers the place of.
pub(super) const WINDOWS: usize = 4;

thread_local! {
    static CURRENT: Cell<*mut Context> = const { Cell::new(ptr::null_mut()) };
}

/// Makes `context` the current launch of this OS thread and returns the previous one.
pub(super) fn enter(context: *mut Context) -> *mut Context {
    CURRENT.replace(context)
}

/// Whether this OS thread is inside a launch.
pub(super) fn inside() -> bool {
    !CURRENT.get().is_null()
}

/// The current launch.
///
/// The reference must be given up before the fiber is suspended; every primitive takes it anew.
#[inline]
pub(super) fn context<'a>() -> &'a mut Context {
    let context = CURRENT.get();
    assert!(!context.is_null(), "a primitive of the SIMT machine was called outside a kernel");
    // SAFETY: set by the scheduler for the time of the launch, which outlives its fibers. Only one fiber
    // or the scheduler runs at a time, on this OS thread; none keeps a reference across a switch.
    unsafe { &mut *context }
}

/// Gives the turn back to the scheduler until it resumes this thread.
///
/// Always inlined, like what calls it: a processor mispredicts every return from a call that was made
/// before the switch.
#[inline(always)]
pub(super) fn suspend() {
    let suspender = context().thread().suspender;
    // SAFETY: the suspender lives at the root of this fiber's stack, as long as the fiber.
    unsafe { (*suspender).suspend(()) };
}

impl Context {
    #[inline]
    pub(super) fn thread(&mut self) -> &mut Thread {
        // SAFETY: points to the thread that runs now; threads are not moved during a launch.
        unsafe { &mut *self.thread }
    }

    #[inline]
    pub(super) fn warp<'a>(&self) -> &'a mut Warp {
        // SAFETY: as above; callers hold no other reference to the warp.
        unsafe { &mut *self.warp }
    }

    #[inline]
    pub(super) fn block<'a>(&self) -> &'a mut Block {
        // SAFETY: as above; callers hold no other reference to the block's own fields.
        unsafe { &mut *self.block }
    }

    #[inline]
    pub(super) fn cluster<'a>(&self) -> &'a mut Cluster {
        // SAFETY: as above.
        unsafe { &mut *self.block().cluster }
    }

    /// The current thread as a second party of a report.
    pub(super) fn site(&mut self, place: Option<Place>, doing: impl Into<String>) -> Site {
        Site { block: self.block().id, thread: self.index, location: place, doing: doing.into() }
    }

    /// Records a fault of the current thread, unless there is one already.
    pub(super) fn record(&mut self, kind: FaultKind, place: Option<Place>, other: Option<Site>) {
        let (block, thread) = (self.block().id, self.index);
        self.record_for(block, thread, kind, place, other);
    }

    /// Records a fault of some thread, unless there is one already.
    pub(super) fn record_for(
        &mut self,
        block: u32,
        thread: u32,
        kind: FaultKind,
        location: Option<Place>,
        other: Option<Site>,
    ) {
        if self.fault.is_none() {
            let launch = Box::new(self.launch.clone());
            let kernel = self.kernel.clone();
            let (seed, other) = (launch.seed, other.map(Box::new));
            self.fault = Some(Fault { kernel, kind, block, thread, location, other, seed, launch });
        }
    }

    /// Records a fault of the current thread and ends it.
    #[cold]
    #[inline(never)]
    pub(super) fn raise(&mut self, kind: FaultKind, place: Place, other: Option<Site>) -> ! {
        self.record(kind, Some(place), other);
        loop {
            suspend();
        }
    }
}

impl Block {
    /// Puts a warp that has something to run into the block's queue, and the block into `ready`.
    #[inline]
    pub(super) fn enqueue(&mut self, warp: usize, ready: &mut Vec<u32>) {
        let state = &mut self.warps[warp];
        if !state.queued && state.runnable != 0 {
            state.queued = true;
            if self.queue.is_empty() {
                ready.push(self.slot);
            }
            self.queue.push(warp as u32);
        }
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

/// A small generator of random numbers (splitmix64): reproducible, and good enough to shuffle with.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    #[inline]
    pub(super) fn below(&mut self, limit: u32) -> u32 {
        (((self.next() >> 32) * u64::from(limit)) >> 32) as u32
    }
}
