//! Collectives of a warp.
//!
//! All functions are unsafe for one reason: the lanes of `mask`, the calling one among them, must all arrive.

#[allow(improper_ctypes)]
unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.bar.warp.sync"]
    fn bar_warp_sync(mask: u32);
    #[link_name = "llvm.nvvm.shfl.sync.idx.i32"]
    fn shfl_idx(mask: u32, value: u32, lane: u32, clamp: u32) -> u32;
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
}

/// A value that can be shuffled. `cuda_std` has more of them.
pub trait WarpShuffleValue: Sized {
    /// The value's bits.
    fn to_word(self) -> u32;
    /// The value with these bits.
    fn from_word(word: u32) -> Self;
}

impl WarpShuffleValue for u32 {
    fn to_word(self) -> u32 {
        self
    }
    fn from_word(word: u32) -> Self {
        word
    }
}

/// A value that can be compared between lanes. `cuda_std` has more of them.
pub trait WarpMatchValue: Sized {
    /// The value's bits.
    fn to_word(self) -> u32;
}

impl WarpMatchValue for u32 {
    fn to_word(self) -> u32 {
        self
    }
}

/// Waits for the lanes of `mask`.
///
/// # Safety
/// See the module.
#[inline(always)]
pub unsafe fn sync_warp(mask: u32) {
    // SAFETY: the caller's promise.
    unsafe { bar_warp_sync(mask) }
}

/// The lanes with a true predicate, as bits.
///
/// # Safety
/// See the module.
#[inline(always)]
pub unsafe fn warp_vote_ballot(mask: u32, predicate: bool) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { vote_ballot(mask, predicate) }
}

/// Whether any lane has a true predicate.
///
/// # Safety
/// See the module.
#[inline(always)]
pub unsafe fn warp_vote_any(mask: u32, predicate: bool) -> bool {
    // SAFETY: the caller's promise.
    unsafe { vote_any(mask, predicate) }
}

/// Whether all lanes have a true predicate.
///
/// # Safety
/// See the module.
#[inline(always)]
pub unsafe fn warp_vote_all(mask: u32, predicate: bool) -> bool {
    // SAFETY: the caller's promise.
    unsafe { vote_all(mask, predicate) }
}

/// The lanes with the same value, as bits.
///
/// # Safety
/// See the module.
#[inline(always)]
pub unsafe fn warp_match_any<T: WarpMatchValue>(mask: u32, value: T) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { match_any(mask, value.to_word()) }
}

/// The bound of the source lane in segments of `width` lanes: the end of the segment.
const fn bound(width: u32) -> u32 {
    0x1f | ((32 - width) << 8)
}

/// Whether the lane `by` further on is in the same segment.
fn in_segment(by: u32, width: u32) -> bool {
    let lane: u32;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mov.u32 {}, %laneid;", out(reg32) lane, options(pure, nomem, nostack));
    }
    lane % width + by < width
}

/// The value of lane `idx`, and whether there is such a lane.
///
/// # Safety
/// See the module.
#[inline(always)]
pub unsafe fn warp_shuffle_idx<T: WarpShuffleValue>(mask: u32, value: T, idx: u32, width: u32) -> (T, bool) {
    // SAFETY: the caller's promise.
    let word = unsafe { shfl_idx(mask, value.to_word(), idx, bound(width)) };
    (T::from_word(word), true)
}

/// The value of the lane `delta` further on, and whether there is such a lane.
///
/// # Safety
/// See the module.
#[inline(always)]
pub unsafe fn warp_shuffle_down<T: WarpShuffleValue>(
    mask: u32,
    value: T,
    delta: u32,
    width: u32,
) -> (T, bool) {
    // SAFETY: the caller's promise.
    let word = unsafe { shfl_down(mask, value.to_word(), delta, bound(width)) };
    (T::from_word(word), in_segment(delta, width))
}

/// The value of the lane whose number is this lane's exclusive-or `lane_mask`, and whether there is such a lane.
///
/// # Safety
/// See the module.
#[inline(always)]
pub unsafe fn warp_shuffle_xor<T: WarpShuffleValue>(
    mask: u32,
    value: T,
    lane_mask: u32,
    width: u32,
) -> (T, bool) {
    // SAFETY: the caller's promise.
    let word = unsafe { shfl_xor(mask, value.to_word(), lane_mask, bound(width)) };
    (T::from_word(word), lane_mask < width)
}
