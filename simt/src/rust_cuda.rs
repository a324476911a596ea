//! The GPU backend for rust-cuda: `rustc_codegen_nvvm`, which goes through LLVM 7 and NVIDIA's libNVVM, and its
//! library `cuda_std`.
//!
//! The manifests of `gpu/rust-cuda` compile this crate with it; `gpu/rust-cuda/README.md` says what has been run.
//!
//! LLVM 7 knows neither reductions of a warp nor clusters: those are `asm!`, which is not convergent, so an optimiser
//! may duplicate it into divergent branches. What is used here may be duplicated: on compute capability 7.0 and later PTX
//! lets the lanes of a mask meet at different instructions, if those are of one kind and name the same mask (`redux.sync`,
//! `shfl.sync`, and the votes, which are `asm!` in `cuda_std`), and a barrier of the cluster without `.aligned` counts
//! threads one by one. Barriers of the block may not be, and are `cuda_std`'s, which are intrinsics.

use core::arch::asm;
use core::hint::assert_unchecked;

use cuda_std::{shared, thread, warp};

use crate::machine::{AtomicOp, Machine, Order, Scope, Shuffle, Space};

/// The GPU this code runs on.
pub struct RustCuda;

/// The word of the lane `delta` below; the first lanes keep their own.
///
/// # Safety
/// The lanes of `mask` arrive.
#[inline(always)]
unsafe fn shuffle_up(mask: u32, value: u32, delta: u32) -> u32 {
    let below: u32;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "shfl.sync.up.b32 {}, {}, {}, 0, {};",
            out(reg32) below, in(reg32) value, in(reg32) delta, in(reg32) mask, options(nomem, nostack)
        )
    };
    below
}

// SAFETY of the blocks below: register reads and arithmetic have no preconditions; collectives require that the
// threads they name arrive, which is the contract of the trait.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Machine for RustCuda {
    instructions!();

    #[inline(always)]
    fn thread_id() -> u32 {
        thread::thread_idx_x()
    }
    #[inline(always)]
    fn block_threads() -> u32 {
        thread::block_dim_x()
    }
    #[inline(always)]
    fn block_id() -> u32 {
        thread::block_idx_x()
    }
    #[inline(always)]
    fn lane_id() -> u32 {
        // Not `warp::lane_id`, which is a volatile `asm!` and is read again at every call.
        let lane: u32;
        unsafe {
            asm!("mov.u32 {}, %laneid;", out(reg32) lane, options(pure, nomem, nostack));
            assert_unchecked(lane < 32);
        }
        lane
    }
    #[inline(always)]
    fn cluster_rank() -> u32 {
        let rank: u32;
        unsafe { asm!("mov.u32 {}, %cluster_ctarank;", out(reg32) rank, options(pure, nomem, nostack)) };
        rank
    }
    #[inline(always)]
    fn cluster_size() -> u32 {
        let size: u32;
        unsafe { asm!("mov.u32 {}, %cluster_nctarank;", out(reg32) size, options(pure, nomem, nostack)) };
        size
    }

    #[inline(always)]
    fn block_barrier() {
        thread::sync_threads();
    }
    #[inline(always)]
    fn block_barrier_count(predicate: bool) -> u32 {
        thread::sync_threads_count(u32::from(predicate))
    }
    #[inline(always)]
    fn block_barrier_or(predicate: bool) -> bool {
        thread::sync_threads_or(u32::from(predicate)) != 0
    }
    #[inline(always)]
    fn cluster_barrier() {
        unsafe {
            asm!("barrier.cluster.arrive;", options(nostack));
            asm!("barrier.cluster.wait;", options(nostack));
        }
    }
    #[inline(always)]
    fn cluster_arrive_own() {
        unsafe {
            asm!("fence.release.sync_restrict::shared::cta.cluster;", options(nostack));
            asm!("barrier.cluster.arrive.relaxed;", options(nostack));
        }
    }
    #[inline(always)]
    fn cluster_wait_own() {
        unsafe { asm!("barrier.cluster.wait;", options(nostack)) }
    }
    #[inline(always)]
    fn cluster_leave() {
        unsafe { asm!("barrier.cluster.arrive.relaxed;", options(nostack)) }
    }
    #[inline(always)]
    fn cluster_wait_until_left() {
        unsafe { asm!("barrier.cluster.wait;", options(nostack)) }
    }

    #[inline(always)]
    fn warp_barrier(mask: u32) {
        unsafe { warp::sync_warp(mask) }
    }
    #[inline(always)]
    fn warp_shuffle(mask: u32, kind: Shuffle, value: u32, operand: u32) -> u32 {
        const WIDTH: u32 = 32;
        let (value, _in_range) = unsafe {
            match kind {
                Shuffle::Index => warp::warp_shuffle_idx(mask, value, operand, WIDTH),
                // Not `warp_shuffle_up`: it passes the upper end of the warp as the bound, as the others do, and with
                // that no lane has one below.
                Shuffle::Up => return shuffle_up(mask, value, operand),
                Shuffle::Down => warp::warp_shuffle_down(mask, value, operand, WIDTH),
                Shuffle::Xor => warp::warp_shuffle_xor(mask, value, operand, WIDTH),
            }
        };
        value
    }
    #[inline(always)]
    fn warp_ballot(mask: u32, predicate: bool) -> u32 {
        unsafe { warp::warp_vote_ballot(mask, predicate) }
    }
    #[inline(always)]
    fn warp_any(mask: u32, predicate: bool) -> bool {
        unsafe { warp::warp_vote_any(mask, predicate) }
    }
    #[inline(always)]
    fn warp_all(mask: u32, predicate: bool) -> bool {
        unsafe { warp::warp_vote_all(mask, predicate) }
    }
    #[inline(always)]
    fn warp_match_any(mask: u32, value: u32) -> u32 {
        unsafe { warp::warp_match_any(mask, value) }
    }
    #[inline(always)]
    fn warp_reduce_add(mask: u32, value: u32) -> u32 {
        let sum: u32;
        unsafe {
            asm!("redux.sync.add.u32 {}, {}, {};", out(reg32) sum, in(reg32) value, in(reg32) mask, options(nomem, nostack))
        };
        sum
    }
    #[inline(always)]
    fn warp_reduce_max(mask: u32, value: u32) -> u32 {
        let most: u32;
        unsafe {
            asm!("redux.sync.max.u32 {}, {}, {};", out(reg32) most, in(reg32) value, in(reg32) mask, options(nomem, nostack))
        };
        most
    }

    #[inline(always)]
    fn shared_base() -> u32 {
        let generic = shared::dynamic_shared_mem::<u32>();
        let address: u32;
        unsafe {
            asm!(
                "{{",
                ".reg .b64 %shared;",
                "cvta.to.shared.u64 %shared, {};",
                "cvt.u32.u64 {}, %shared;",
                "}}",
                in(reg64) generic, out(reg32) address, options(pure, nomem, nostack)
            )
        };
        address
    }
}
