//! The GPU backend for stock `rustc`, target `nvptx64-nvidia-cuda`.
//!
//! Collectives are LLVM intrinsics: `asm!` is not convergent, so the optimiser may duplicate it into
//! divergent branches, which is fatal for a barrier. Memory accesses and arithmetic are those of
//! [`instructions`](crate::instructions).
//!
//! `dsa_dynamic_shared` is the dynamic shared memory of a block. Rust has no way to declare a symbol in
//! the shared address space; `cargo xtask ptx` adds `.extern .shared` for it at the head of the PTX.

use core::arch::asm;

use crate::machine::{AtomicOp, Machine, Order, Scope, Shuffle, Space};

/// The GPU this code runs on.
pub struct Ptx;

#[allow(improper_ctypes)]
unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.read.ptx.sreg.tid.x"]
    fn tid_x() -> u32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.ntid.x"]
    fn ntid_x() -> u32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.ctaid.x"]
    fn ctaid_x() -> u32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.laneid"]
    fn laneid() -> u32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.cluster.ctarank"]
    fn cluster_ctarank() -> u32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.cluster.nctarank"]
    fn cluster_nctarank() -> u32;
    #[link_name = "llvm.nvvm.barrier.cta.sync.aligned.all"]
    fn barrier_sync(id: u32);
    #[link_name = "llvm.nvvm.barrier.cta.red.popc.aligned.all"]
    fn barrier_popc(id: u32, predicate: bool) -> u32;
    #[link_name = "llvm.nvvm.barrier.cta.red.or.aligned.all"]
    fn barrier_or(id: u32, predicate: bool) -> bool;
    #[link_name = "llvm.nvvm.barrier.cluster.arrive.aligned"]
    fn cluster_arrive();
    #[link_name = "llvm.nvvm.barrier.cluster.arrive.relaxed.aligned"]
    fn cluster_arrive_relaxed();
    #[link_name = "llvm.nvvm.barrier.cluster.wait.aligned"]
    fn cluster_wait();
    // The same where the threads of a warp need not be together.
    #[link_name = "llvm.nvvm.barrier.cluster.wait"]
    fn cluster_wait_apart();
    #[link_name = "llvm.nvvm.bar.warp.sync"]
    fn bar_warp_sync(mask: u32);
    #[link_name = "llvm.nvvm.shfl.sync.idx.i32"]
    fn shfl_idx(mask: u32, value: u32, lane: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.up.i32"]
    fn shfl_up(mask: u32, value: u32, delta: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.down.i32"]
    fn shfl_down(mask: u32, value: u32, delta: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.bfly.i32"]
    fn shfl_xor(mask: u32, value: u32, bits: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.vote.ballot.sync"]
    fn vote_ballot(mask: u32, predicate: bool) -> u32;
    #[link_name = "llvm.nvvm.vote.any.sync"]
    fn vote_any(mask: u32, predicate: bool) -> bool;
    #[link_name = "llvm.nvvm.vote.all.sync"]
    fn vote_all(mask: u32, predicate: bool) -> bool;
    #[link_name = "llvm.nvvm.match.any.sync.i32"]
    fn match_any(mask: u32, value: u32) -> u32;
    #[link_name = "llvm.nvvm.redux.sync.add"]
    fn redux_add(value: u32, mask: u32) -> u32;
    #[link_name = "llvm.nvvm.redux.sync.umax"]
    fn redux_umax(value: u32, mask: u32) -> u32;
}

// SAFETY of the blocks below: register reads have no preconditions; collectives require that the threads they
// name arrive, which is the contract of the trait.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Machine for Ptx {
    instructions!();

    #[inline(always)]
    fn thread_id() -> u32 {
        unsafe { tid_x() }
    }
    #[inline(always)]
    fn block_threads() -> u32 {
        unsafe { ntid_x() }
    }
    #[inline(always)]
    fn block_id() -> u32 {
        unsafe { ctaid_x() }
    }
    #[inline(always)]
    fn lane_id() -> u32 {
        unsafe { laneid() }
    }
    #[inline(always)]
    fn cluster_rank() -> u32 {
        unsafe { cluster_ctarank() }
    }
    #[inline(always)]
    fn cluster_size() -> u32 {
        unsafe { cluster_nctarank() }
    }

    #[inline(always)]
    fn block_barrier() {
        unsafe { barrier_sync(0) }
    }
    #[inline(always)]
    fn block_barrier_count(predicate: bool) -> u32 {
        unsafe { barrier_popc(0, predicate) }
    }
    #[inline(always)]
    fn block_barrier_or(predicate: bool) -> bool {
        unsafe { barrier_or(0, predicate) }
    }
    #[inline(always)]
    fn cluster_barrier() {
        unsafe {
            cluster_arrive();
            cluster_wait();
        }
    }
    #[inline(always)]
    fn cluster_arrive_own() {
        unsafe {
            // No collective: the optimiser may do with it what it does with other memory accesses.
            asm!("fence.release.sync_restrict::shared::cta.cluster;", options(nostack));
            cluster_arrive_relaxed();
        }
    }
    #[inline(always)]
    fn cluster_wait_own() {
        // There may be work between the halves, after which the threads of a warp are not together.
        unsafe { cluster_wait_apart() }
    }
    #[inline(always)]
    fn cluster_leave() {
        unsafe { cluster_arrive_relaxed() }
    }
    #[inline(always)]
    fn cluster_wait_until_left() {
        // As in `cluster_wait_own`.
        unsafe { cluster_wait_apart() }
    }

    #[inline(always)]
    fn warp_barrier(mask: u32) {
        unsafe { bar_warp_sync(mask) }
    }
    #[inline(always)]
    fn warp_shuffle(mask: u32, kind: Shuffle, value: u32, operand: u32) -> u32 {
        // The clamp operand: no sub-warp segments; lane 31 (or 0 for `up`) ends the warp.
        unsafe {
            match kind {
                Shuffle::Index => shfl_idx(mask, value, operand, 0x1f),
                Shuffle::Up => shfl_up(mask, value, operand, 0),
                Shuffle::Down => shfl_down(mask, value, operand, 0x1f),
                Shuffle::Xor => shfl_xor(mask, value, operand, 0x1f),
            }
        }
    }
    #[inline(always)]
    fn warp_ballot(mask: u32, predicate: bool) -> u32 {
        unsafe { vote_ballot(mask, predicate) }
    }
    #[inline(always)]
    fn warp_any(mask: u32, predicate: bool) -> bool {
        unsafe { vote_any(mask, predicate) }
    }
    #[inline(always)]
    fn warp_all(mask: u32, predicate: bool) -> bool {
        unsafe { vote_all(mask, predicate) }
    }
    #[inline(always)]
    fn warp_match_any(mask: u32, value: u32) -> u32 {
        unsafe { match_any(mask, value) }
    }
    #[inline(always)]
    fn warp_reduce_add(mask: u32, value: u32) -> u32 {
        unsafe { redux_add(value, mask) }
    }
    #[inline(always)]
    fn warp_reduce_max(mask: u32, value: u32) -> u32 {
        unsafe { redux_umax(value, mask) }
    }

    #[inline(always)]
    fn shared_base() -> u32 {
        let address: u32;
        unsafe { asm!("mov.u32 {}, dsa_dynamic_shared;", out(reg32) address, options(pure, nomem, nostack)) };
        address
    }
}
