//! What the emulator reports.

use std::fmt;
use std::panic::Location;

use crate::emu::Launch;
use crate::machine::{Shuffle, Space};

/// A violation found while a kernel ran: what, by whom, where, and how to replay it.
///
/// `Display` gives the full report.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Name of the kernel.
    pub kernel: String,
    /// What is wrong.
    pub kind: FaultKind,
    /// Block of the thread that is reported.
    pub block: u32,
    /// Index of that thread in its block.
    pub thread: u32,
    /// The call of that thread, if the fault belongs to one.
    pub location: Option<&'static Location<'static>>,
    /// The second thread, if two are involved.
    pub other: Option<Box<Site>>,
    /// The seed that replays the fault, with `launch` and the same memory contents.
    pub seed: u64,
    /// The launch.
    pub launch: Box<Launch>,
}

/// A thread and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Index of the block in the grid.
    pub block: u32,
    /// Index of the thread in the block.
    pub thread: u32,
    /// Source location of the call.
    pub location: Option<&'static Location<'static>>,
    /// What the thread does or did there, in words.
    pub doing: String,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// Two threads that should meet in one collective are in different ones: another operation,
    /// another mask or another source location.
    Divergence {
        /// Where the reported thread is.
        this: Collective,
        /// Where the other thread is.
        other: Collective,
    },
    /// A thread ended although another one waits for it in a collective.
    ExitedBeforeBarrier {
        /// The collective.
        barrier: Collective,
    },
    /// The mask of a warp collective does not contain the calling lane.
    LaneNotInMask {
        /// The collective.
        collective: Collective,
        /// Its mask.
        mask: u32,
    },
    /// A shuffle takes its value from a lane that does not take part.
    UndefinedShuffle {
        /// The source lane.
        source: u32,
        /// The mask of the shuffle.
        mask: u32,
    },
    /// An access outside an array or an allocation.
    OutOfBounds {
        /// What was addressed.
        target: Target,
    },
    /// An address that is no multiple of the access size.
    Misaligned {
        /// What was addressed.
        target: Target,
        /// Bytes of the access.
        bytes: u32,
    },
    /// An access to an allocation that was freed.
    FreedMemory {
        /// What was addressed.
        target: Target,
    },
    /// A read of a word that nobody has written.
    Uninitialised {
        /// What was read.
        target: Target,
    },
    /// Two unordered accesses of different threads to one word of shared memory, at least one of them a
    /// write and at least one of them not atomic.
    SharedRace {
        /// Byte offset of the word in the dynamic shared memory.
        offset: u32,
        /// The access of the reported thread.
        this: Access,
        /// The access of the other thread.
        other: Access,
    },
    /// A word is written and read through the read-only path in the same launch.
    ReadOnlyWritten {
        /// The word.
        target: Target,
        /// The access that is reported; the other kind came earlier in the launch.
        this: Access,
    },
    /// A thread of a launch that may overlap the one before touched global memory before it waited for that.
    TooEarly {
        /// What was addressed.
        target: Target,
        /// The access.
        this: Access,
    },
    /// An access to the shared memory of a block that has ended, or that need not have started because
    /// there was no cluster barrier yet.
    RemoteBlockNotRunning {
        /// Rank of that block in the cluster.
        rank: u32,
    },
    /// An access to the shared memory of another block by a thread between the halves of a cluster barrier.
    RemoteAccessInBarrier {
        /// Rank of that block in the cluster.
        rank: u32,
    },
    /// A thread wrote to the shared memory of another block, and a barrier that does not publish that followed.
    RemoteWriteNotPublished {
        /// Rank of that block in the cluster.
        rank: u32,
    },
    /// Threads wait for blocks that cannot start before they end.
    Deadlock {
        /// Blocks that have not started.
        blocks_not_started: u32,
    },
    /// All threads that can run only spin, and no memory changes.
    Livelock,
    /// A thread panicked.
    Panic {
        /// The message of the panic.
        message: String,
    },
    /// The launch is refused: nothing ran.
    InvalidLaunch {
        /// Argument, value and limit.
        reason: String,
    },
}

/// What an access addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Elements of a `Global`, a `Shared` or a carving, past its length.
    Index {
        /// The memory space.
        space: Space,
        /// First element.
        index: usize,
        /// Number of elements.
        count: usize,
        /// Length of the array.
        length: usize,
    },
    /// A byte offset in (or relative to the nearest) allocation of global memory.
    Global {
        /// Label of the allocation.
        label: String,
        /// Offset from its start.
        offset: i64,
        /// Its bytes.
        bytes: usize,
    },
    /// An address far from all allocations.
    Nowhere {
        /// The address.
        address: u64,
    },
    /// A byte offset in dynamic shared memory.
    Shared {
        /// Offset from its start.
        offset: i64,
        /// Bytes of dynamic shared memory.
        bytes: u32,
    },
}

/// A kind of memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Plain load.
    Read,
    /// Load through the read-only path.
    ReadOnly,
    /// A load through the read-only path of what may never have been written.
    Speculative,
    /// Plain store.
    Write,
    /// Atomic load.
    AtomicRead,
    /// Atomic store.
    AtomicWrite,
    /// Atomic read-modify-write.
    AtomicUpdate,
}

/// A collective operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collective {
    /// `block::sync`.
    BlockBarrier,
    /// `block::sync_count`.
    BlockCount,
    /// `block::sync_or`.
    BlockOr,
    /// `cluster::sync`.
    ClusterBarrier,
    /// `cluster::sync_own`, or `cluster::wait_own`.
    ClusterBarrierOwn,
    /// `cluster::wait_until_left`.
    ClusterLeft,
    /// `warp::sync`.
    WarpBarrier {
        /// Lanes that take part.
        mask: u32,
    },
    /// `warp::shuffle*`.
    Shuffle {
        /// Which one.
        kind: Shuffle,
        /// Lanes that take part.
        mask: u32,
    },
    /// `warp::ballot`.
    Ballot {
        /// Lanes that take part.
        mask: u32,
    },
    /// `warp::any`.
    Any {
        /// Lanes that take part.
        mask: u32,
    },
    /// `warp::all`.
    All {
        /// Lanes that take part.
        mask: u32,
    },
    /// `warp::match_any`.
    MatchAny {
        /// Lanes that take part.
        mask: u32,
    },
    /// `warp::reduce_add`.
    ReduceAdd {
        /// Lanes that take part.
        mask: u32,
    },
    /// `warp::reduce_max`.
    ReduceMax {
        /// Lanes that take part.
        mask: u32,
    },
}

impl fmt::Display for Collective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BlockBarrier => f.write_str("block barrier"),
            Self::BlockCount => f.write_str("block barrier with count"),
            Self::BlockOr => f.write_str("block barrier with or"),
            Self::ClusterBarrier => f.write_str("cluster barrier"),
            Self::ClusterBarrierOwn => f.write_str("cluster barrier for own memory"),
            Self::ClusterLeft => f.write_str("wait for the cluster to be left"),
            Self::WarpBarrier { mask } => write!(f, "warp barrier of lanes {mask:#010x}"),
            Self::Shuffle { kind, mask } => write!(f, "shuffle ({kind:?}) of lanes {mask:#010x}"),
            Self::Ballot { mask } => write!(f, "ballot of lanes {mask:#010x}"),
            Self::Any { mask } => write!(f, "any-vote of lanes {mask:#010x}"),
            Self::All { mask } => write!(f, "all-vote of lanes {mask:#010x}"),
            Self::MatchAny { mask } => write!(f, "match of lanes {mask:#010x}"),
            Self::ReduceAdd { mask } => write!(f, "sum over lanes {mask:#010x}"),
            Self::ReduceMax { mask } => write!(f, "maximum over lanes {mask:#010x}"),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "plain read",
            Self::ReadOnly => "read-only load",
            Self::Speculative => "speculative load",
            Self::Write => "plain write",
            Self::AtomicRead => "atomic load",
            Self::AtomicWrite => "atomic store",
            Self::AtomicUpdate => "atomic read-modify-write",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index { space, index, count: 1, length } => {
                write!(f, "element {index} of a {space:?} array of length {length}")
            }
            Self::Index { space, index, count, length } => {
                write!(f, "{count} elements from {index} on of a {space:?} array of length {length}")
            }
            Self::Global { label, offset, bytes } => {
                write!(f, "byte {offset} of allocation `{label}` ({bytes} bytes)")
            }
            Self::Nowhere { address } => write!(f, "address {address:#x}, far from every allocation"),
            Self::Shared { offset, bytes } => {
                write!(f, "byte {offset} of the dynamic shared memory ({bytes} bytes)")
            }
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Divergence { this, other } => {
                write!(f, "threads at different collectives: {this} and {other}")
            }
            Self::ExitedBeforeBarrier { barrier } => {
                write!(f, "a thread ended although another one waits for it: {barrier}")
            }
            Self::LaneNotInMask { collective, .. } => {
                write!(f, "the calling lane is not in the mask: {collective}")
            }
            Self::UndefinedShuffle { source, mask } => {
                write!(
                    f,
                    "a shuffle of lanes {mask:#010x} takes the value of lane {source}, which is not one of them"
                )
            }
            Self::OutOfBounds { target } => write!(f, "access out of bounds: {target}"),
            Self::Misaligned { target, bytes } => write!(f, "misaligned access of {bytes} bytes: {target}"),
            Self::FreedMemory { target } => write!(f, "access to freed memory: {target}"),
            Self::Uninitialised { target } => write!(f, "read of an uninitialised word: {target}"),
            Self::SharedRace { offset, this, other } => {
                write!(f, "race on byte {offset} of the dynamic shared memory: {this} against {other}")
            }
            Self::ReadOnlyWritten { target, this } => {
                write!(
                    f,
                    "written and read through the read-only path in one launch ({this} came second): {target}"
                )
            }
            Self::TooEarly { target, this } => write!(
                f,
                "{this} before `grid::wait_for_earlier`, in a launch that may start while the one before it \
                 runs: {target}"
            ),
            Self::RemoteBlockNotRunning { rank } => write!(
                f,
                "access to the shared memory of block {rank} of the cluster, which has ended, may have ended because \
                 the thread has left, or, for want of a cluster barrier, need not have started"
            ),
            Self::RemoteAccessInBarrier { rank } => write!(
                f,
                "access to the shared memory of block {rank} of the cluster between `cluster::arrive_own` and \
                 `cluster::wait_own`"
            ),
            Self::RemoteWriteNotPublished { rank } => write!(
                f,
                "`cluster::sync_own` after a write to the shared memory of block {rank} of the cluster, which it does not \
                 publish"
            ),
            Self::Deadlock { blocks_not_started } => write!(
                f,
                "deadlock: the running blocks wait, and {blocks_not_started} blocks cannot start before they end"
            ),
            Self::Livelock => {
                f.write_str("livelock: all threads that can run only spin, and no memory changes")
            }
            Self::Panic { message } => write!(f, "panic: {message}"),
            Self::InvalidLaunch { reason } => write!(f, "launch refused: {reason}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel `{}`: {}", self.kernel, self.kind)?;
        if !matches!(self.kind, FaultKind::InvalidLaunch { .. }) {
            write!(f, "  block {}, thread {}", self.block, self.thread)?;
            if let Some(location) = self.location {
                write!(f, " at {location}")?;
            }
            writeln!(f)?;
        }
        if let Some(other) = &self.other {
            write!(f, "  block {}, thread {}: {}", other.block, other.thread, other.doing)?;
            if let Some(location) = other.location {
                write!(f, " at {location}")?;
            }
            writeln!(f)?;
        }
        write!(f, "  replay with {}", self.launch)
    }
}

impl std::error::Error for Fault {}
