//! Launching a kernel on the emulator.

use std::fmt;

use crate::Entry;
use crate::emu::fault::{Fault, FaultKind};
use crate::emu::memory::Memory;
use crate::emu::scheduler;
use crate::emu::statistics::Statistics;

/// Most threads of a block.
const MOST_THREADS: u32 = 1024;
/// Most blocks of a cluster.
const MOST_CLUSTER: u32 = 16;
/// Most dynamic shared memory of a block, in bytes: that of compute capability 9.0.
const MOST_SHARED: u32 = 227 * 1024;

/// The shape of a launch and how the emulator schedules it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Number of blocks.
    pub grid: u32,
    /// Threads of a block.
    pub block: u32,
    /// Blocks of a cluster; 1 for none.
    pub cluster: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Whether all blocks must be resident together; refused if they cannot be.
    pub cooperative: bool,
    /// Whether it may start while the launch before it runs: then no thread touches global memory before it
    /// has waited for that. (Launches run one after the other all the same.)
    pub overlap: bool,
    /// Chooses the order of blocks and threads, and the preemptions.
    pub seed: u64,
    /// Most blocks that run at a time; the others start when these end.
    pub resident_blocks: u32,
    /// Whether threads are interrupted at atomic accesses to global memory.
    pub preemption: Preemption,
    /// How often all running threads may spin in vain, each, before that is called a livelock.
    pub spin_limit: u32,
}

/// Whether a thread may lose its turn at an atomic access to global memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preemption {
    /// Only where it waits.
    Never,
    /// At one in so many atomic accesses, on average.
    OneIn(u32),
}

impl Launch {
    /// A launch of `grid` blocks of `block` threads: no cluster, no shared memory, 8 resident blocks,
    /// seed 0, preemption at one in 16 global atomics.
    pub fn new(grid: u32, block: u32) -> Self {
        Self {
            grid,
            block,
            cluster: 1,
            shared_bytes: 0,
            cooperative: false,
            overlap: false,
            seed: 0,
            resident_blocks: 8,
            preemption: Preemption::OneIn(16),
            spin_limit: 1000,
        }
    }

    /// Sets the blocks of a cluster.
    pub fn with_cluster(self, cluster: u32) -> Self {
        Self { cluster, ..self }
    }

    /// Sets the bytes of dynamic shared memory of a block.
    pub fn with_shared_bytes(self, shared_bytes: u32) -> Self {
        Self { shared_bytes, ..self }
    }

    /// Makes the launch cooperative.
    pub fn with_cooperative(self, cooperative: bool) -> Self {
        Self { cooperative, ..self }
    }

    /// Sets whether the launch may start while the one before it runs.
    pub fn with_overlap(self, overlap: bool) -> Self {
        Self { overlap, ..self }
    }

    /// Sets the seed.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets the most blocks that run at a time.
    pub fn with_resident_blocks(self, resident_blocks: u32) -> Self {
        Self { resident_blocks, ..self }
    }

    /// Sets whether threads are interrupted at global atomics.
    pub fn with_preemption(self, preemption: Preemption) -> Self {
        Self { preemption, ..self }
    }

    /// Sets how often all running threads may spin in vain.
    pub fn with_spin_limit(self, spin_limit: u32) -> Self {
        Self { spin_limit, ..self }
    }

    /// Why this launch cannot run.
    fn refusal(&self) -> Option<String> {
        let Self { grid, block, cluster, shared_bytes, resident_blocks, .. } = *self;
        if grid == 0 {
            return Some("grid is 0; at least 1 block is needed".into());
        }
        if block == 0 || block > MOST_THREADS {
            return Some(format!("block is {block} threads; the limits are 1 and {MOST_THREADS}"));
        }
        if cluster == 0 || cluster > MOST_CLUSTER {
            return Some(format!("cluster is {cluster} blocks; the limits are 1 and {MOST_CLUSTER}"));
        }
        if !grid.is_multiple_of(cluster) {
            return Some(format!("grid is {grid} blocks; it must be a multiple of the cluster, {cluster}"));
        }
        if shared_bytes > MOST_SHARED {
            return Some(format!("shared memory is {shared_bytes} bytes; the limit is {MOST_SHARED}"));
        }
        if cluster > resident_blocks {
            return Some(format!("cluster is {cluster} blocks; {resident_blocks} can be resident together"));
        }
        let together = resident_blocks / cluster * cluster;
        if self.cooperative && grid > together {
            return Some(format!("cooperative grid is {grid} blocks; {together} can be resident together"));
        }
        None
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}, grid {}, block {}, cluster {}, shared bytes {}, resident blocks {}, preemption {:?}{}{}",
            self.seed,
            self.grid,
            self.block,
            self.cluster,
            self.shared_bytes,
            self.resident_blocks,
            self.preemption,
            if self.cooperative { ", cooperative" } else { "" },
            if self.overlap { ", overlapping" } else { "" }
        )
    }
}

/// Runs a declared kernel with these parameter slots.
///
/// # Errors
/// The first [`Fault`]: a violation found while the kernel ran, or a launch that its shape or the bounds
/// of the entry forbid. The memory stays usable; what the kernel wrote until then stays written.
pub fn run(memory: &Memory, entry: &Entry, launch: &Launch, slots: &[u64]) -> Result<Statistics, Fault> {
    let refuse = |reason| Err(refused(entry.name, launch, reason));
    if slots.len() != entry.parameters.len() {
        return refuse(format!(
            "{} slots were given; the kernel has {} parameters",
            slots.len(),
            entry.parameters.len()
        ));
    }
    if launch.block > entry.max_threads {
        return refuse(format!(
            "block is {} threads; the kernel is bounded to {}",
            launch.block, entry.max_threads
        ));
    }
    if entry.cluster != 0 && launch.cluster != entry.cluster {
        return refuse(format!(
            "cluster is {} blocks; the kernel is compiled for {}",
            launch.cluster, entry.cluster
        ));
    }
    // SAFETY: there is one slot per parameter, and every 64-bit value is a valid slot of every type.
    run_closure(memory, entry.name, launch, || unsafe { (entry.thread)(slots) })
}

/// Runs a closure as a kernel: once per thread. For tests.
///
/// Values that a thread owns when it is in a fault's way are leaked.
///
/// # Errors
/// As [`run`].
pub fn run_closure(
    memory: &Memory,
    name: &str,
    launch: &Launch,
    thread: impl Fn(),
) -> Result<Statistics, Fault> {
    if let Some(reason) = launch.refusal() {
        return Err(refused(name, launch, reason));
    }
    scheduler::run(memory, name, launch, &thread)
}

pub(super) fn refused(kernel: &str, launch: &Launch, reason: String) -> Fault {
    Fault {
        kernel: kernel.to_owned(),
        kind: FaultKind::InvalidLaunch { reason },
        block: 0,
        thread: 0,
        location: None,
        other: None,
        seed: launch.seed,
        launch: Box::new(launch.clone()),
    }
}
