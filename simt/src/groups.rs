//! The groups a thread belongs to: itself, its warp, its block, its cluster, its grid.

/// This thread.
pub mod thread {
    use crate::{Active, Machine};

    /// Index of the thread in its block.
    #[inline(always)]
    pub fn index() -> u32 {
        Active::thread_id()
    }

    /// Index of the thread in its warp, `0..32`.
    #[inline(always)]
    pub fn lane() -> u32 {
        Active::lane_id()
    }

    /// Index of the thread's warp in the block.
    #[inline(always)]
    pub fn warp() -> u32 {
        Active::thread_id() / super::warp::SIZE
    }
}

/// The block this thread belongs to.
///
/// Every function here that waits is a collective: all threads of the block must reach the same call.
pub mod block {
    use crate::{Active, Machine};

    /// Index of the block in the grid.
    #[inline(always)]
    pub fn index() -> u32 {
        Active::block_id()
    }

    /// Number of blocks of the grid, which the compiler knows not to be zero: it makes no path to a trap for a division.
    #[inline(always)]
    pub fn count() -> u32 {
        let blocks = Active::grid_blocks();
        // SAFETY: this block is one of them.
        unsafe { core::hint::assert_unchecked(blocks > 0) };
        blocks
    }

    /// Number of threads of the block.
    #[inline(always)]
    pub fn threads() -> u32 {
        Active::block_threads()
    }

    /// Waits for all threads of the block. What they wrote before is visible to all of them after.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn sync() {
        Active::block_barrier();
    }

    /// [`sync`], and counts the threads that passed `true`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn sync_count(predicate: bool) -> u32 {
        Active::block_barrier_count(predicate)
    }

    /// [`sync`], and tells whether any thread passed `true`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn sync_or(predicate: bool) -> bool {
        Active::block_barrier_or(predicate)
    }
}

/// The warp this thread belongs to: 32 threads with consecutive indices.
///
/// Every function here is a collective over the lanes of `mask`, which must contain the calling lane.
/// Only [`sync`](warp::sync) orders memory.
pub mod warp {
    use crate::{Active, Machine, Shuffle, Word};

    /// Threads of a warp.
    pub const SIZE: u32 = 32;
    /// The mask of all lanes.
    pub const ALL: u32 = u32::MAX;

    /// Waits for the lanes of `mask`. What they wrote before is visible to them after.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn sync(mask: u32) {
        Active::warp_barrier(mask);
    }

    /// The value of lane `lane` (modulo 32), which must be in `mask`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn shuffle<T: Word>(mask: u32, value: T, lane: u32) -> T {
        T::from_bits(Active::warp_shuffle(mask, Shuffle::Index, value.to_bits(), lane))
    }

    /// The value of the lane `delta` below; lanes below `delta` get their own value.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn shuffle_up<T: Word>(mask: u32, value: T, delta: u32) -> T {
        T::from_bits(Active::warp_shuffle(mask, Shuffle::Up, value.to_bits(), delta))
    }

    /// The wrapping sum of `value` and that of the lane `delta` below, if there is one: two instructions.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn add_up(mask: u32, value: u32, delta: u32) -> u32 {
        Active::warp_add_up(mask, value, delta)
    }

    /// The value of the lane `delta` above; the last `delta` lanes get their own value.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn shuffle_down<T: Word>(mask: u32, value: T, delta: u32) -> T {
        T::from_bits(Active::warp_shuffle(mask, Shuffle::Down, value.to_bits(), delta))
    }

    /// The value of the lane whose number is this lane's exclusive-or `bits`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn shuffle_xor<T: Word>(mask: u32, value: T, bits: u32) -> T {
        T::from_bits(Active::warp_shuffle(mask, Shuffle::Xor, value.to_bits(), bits))
    }

    /// The lanes that passed `true`, as bits.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn ballot(mask: u32, predicate: bool) -> u32 {
        Active::warp_ballot(mask, predicate)
    }

    /// Whether any lane passed `true`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn any(mask: u32, predicate: bool) -> bool {
        Active::warp_any(mask, predicate)
    }

    /// Whether all lanes passed `true`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn all(mask: u32, predicate: bool) -> bool {
        Active::warp_all(mask, predicate)
    }

    /// The lanes that passed the same bits as this lane.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn match_any<T: Word>(mask: u32, value: T) -> u32 {
        Active::warp_match_any(mask, value.to_bits())
    }

    /// Wrapping sum over the lanes.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn reduce_add(mask: u32, value: u32) -> u32 {
        Active::warp_reduce_add(mask, value)
    }

    /// Maximum over the lanes.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn reduce_max(mask: u32, value: u32) -> u32 {
        Active::warp_reduce_max(mask, value)
    }
}

/// The cluster this block belongs to: for kernels declared with `arch = 90`.
pub mod cluster {
    use crate::{Active, Machine};

    /// Index of the block in its cluster.
    #[inline(always)]
    pub fn rank() -> u32 {
        Active::cluster_rank()
    }

    /// Number of blocks of the cluster, which the compiler knows not to be zero: it makes no path to a trap for a logarithm.
    #[inline(always)]
    pub fn size() -> u32 {
        let blocks = Active::cluster_size();
        // SAFETY: this block is one of them.
        unsafe { core::hint::assert_unchecked(blocks > 0) };
        blocks
    }

    /// Waits for all threads of the cluster; orders their shared and global accesses among them.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn sync() {
        Active::cluster_barrier();
    }

    /// Waits for all threads of the cluster; orders what each block has written to its own shared memory before what others
    /// read of it. Does without the fence for global memory, which is most of the time of [`sync`].
    ///
    /// Nobody has written to the shared memory of another block since the last [`sync`], and every value that was read
    /// there has been used, as before [`leave`].
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn sync_own() {
        arrive_own();
        wait_own();
    }

    /// The first half of [`sync_own`]: there may be work between it and [`wait_own`], in which nobody accesses the shared
    /// memory of other blocks, nor writes what they read after it. Collective over the cluster.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn arrive_own() {
        Active::cluster_arrive_own();
    }

    /// The second half of [`sync_own`]. Collective over the cluster.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn wait_own() {
        Active::cluster_wait_own();
    }

    /// Says that this thread has done with the shared memory of the other blocks: the last but one of what a kernel
    /// does with its cluster. Cheaper than [`sync`], for it publishes nothing, and there may be work between it and
    /// [`wait_until_left`].
    ///
    /// Every value that was read there has been used: a [`block::sync`](super::block::sync) after what was written with
    /// it will do. Collective over the cluster.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn leave() {
        Active::cluster_leave();
    }

    /// Waits until all threads of the cluster have left: before a block ends whose shared memory others may still
    /// read. Orders no memory. Collective over the cluster.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn wait_until_left() {
        Active::cluster_wait_until_left();
    }
}

/// The launch this thread belongs to, among the launches of its stream.
///
/// A launch that is told to overlap may start while the one before it still runs. What it does until
/// [`wait_for_earlier`](grid::wait_for_earlier) runs beside the tail of that one.
pub mod grid {
    use crate::{Active, Machine};

    /// Waits until the launches before this one have completed, and what they wrote is visible.
    ///
    /// In a launch that may overlap the one before it, every thread calls this before it touches global
    /// memory, also to write: the launch before may still read what this one would overwrite. In other
    /// launches, and in PTX for compute capabilities below 9.0, it does nothing.
    #[inline(always)]
    pub fn wait_for_earlier() {
        Active::wait_for_earlier_launches();
    }

    /// Lets the next launch start if it may overlap this one; without it, that starts when this one ends.
    ///
    /// It starts when all blocks have called this or ended, and takes its share of the multiprocessors from
    /// then on. Orders no memory: the next launch sees what this one writes when it has waited.
    ///
    /// Only after [`wait_for_earlier`]: then at most two launches are under way, and a launch that has
    /// waited for the one before it has waited for all earlier ones.
    #[inline(always)]
    pub fn let_later_start() {
        Active::let_later_launches_start();
    }
}
