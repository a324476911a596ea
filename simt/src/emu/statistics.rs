//! What a launch did, counted.

/// Work done by one launch, summed over all threads unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Blocks that ran.
    pub blocks: u64,
    /// Threads that ran.
    pub threads: u64,
    /// Block barriers passed, counted once per block.
    pub block_barriers: u64,
    /// Cluster barriers passed, counted once per cluster.
    pub cluster_barriers: u64,
    /// Warp barriers, shuffles, votes, matches and reductions, counted once per warp and call.
    pub warp_collectives: u64,
    /// The warp barriers among [`warp_collectives`](Self::warp_collectives).
    pub warp_barriers: u64,
    /// Bytes read from global memory by plain, read-only and atomic loads.
    pub global_read_bytes: u64,
    /// Bytes written to global memory by plain and atomic stores.
    pub global_written_bytes: u64,
    /// Read-modify-writes of global memory.
    pub global_atomics: u64,
    /// Words of shared memory read or written by loads and stores, remote ones included.
    pub shared_accesses: u64,
    /// Read-modify-writes of shared memory, remote ones included.
    pub shared_atomics: u64,
    /// Calls of [`spin_hint`](crate::spin_hint).
    pub spins: u64,
    /// Fences.
    pub fences: u64,
}

impl std::ops::AddAssign for Statistics {
    fn add_assign(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.threads += other.threads;
        self.block_barriers += other.block_barriers;
        self.cluster_barriers += other.cluster_barriers;
        self.warp_collectives += other.warp_collectives;
        self.warp_barriers += other.warp_barriers;
        self.global_read_bytes += other.global_read_bytes;
        self.global_written_bytes += other.global_written_bytes;
        self.global_atomics += other.global_atomics;
        self.shared_accesses += other.shared_accesses;
        self.shared_atomics += other.shared_atomics;
        self.spins += other.spins;
        self.fences += other.fences;
    }
}
