//! The thread's place, and barriers of the block.

#[allow(improper_ctypes)]
unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.read.ptx.sreg.tid.x"]
    fn tid_x() -> u32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.ntid.x"]
    fn ntid_x() -> u32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.ctaid.x"]
    fn ctaid_x() -> u32;
    #[link_name = "llvm.nvvm.barrier.cta.sync.aligned.all"]
    fn barrier_sync(id: u32);
    #[link_name = "llvm.nvvm.barrier.cta.red.popc.aligned.all"]
    fn barrier_popc(id: u32, predicate: bool) -> u32;
    #[link_name = "llvm.nvvm.barrier.cta.red.or.aligned.all"]
    fn barrier_or(id: u32, predicate: bool) -> bool;
}

/// Index of the thread in its block.
#[inline(always)]
pub fn thread_idx_x() -> u32 {
    // SAFETY: reads a register.
    unsafe { tid_x() }
}

/// Threads of a block.
#[inline(always)]
pub fn block_dim_x() -> u32 {
    // SAFETY: reads a register.
    unsafe { ntid_x() }
}

/// Index of the block in the grid.
#[inline(always)]
pub fn block_idx_x() -> u32 {
    // SAFETY: reads a register.
    unsafe { ctaid_x() }
}

/// Waits for all threads of the block.
#[inline(always)]
pub fn sync_threads() {
    // SAFETY: all threads of the block arrive: the contract of the machine's collectives.
    unsafe { barrier_sync(0) }
}

/// Waits for all threads of the block, and counts those with a predicate other than 0.
#[inline(always)]
pub fn sync_threads_count(predicate: u32) -> u32 {
    // SAFETY: all threads of the block arrive: the contract of the machine's collectives.
    unsafe { barrier_popc(0, predicate != 0) }
}

/// Waits for all threads of the block; other than 0 if any has a predicate other than 0.
#[inline(always)]
pub fn sync_threads_or(predicate: u32) -> u32 {
    // SAFETY: all threads of the block arrive: the contract of the machine's collectives.
    unsafe { u32::from(barrier_or(0, predicate != 0)) }
}
