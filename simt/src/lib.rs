//! The SIMT machine: what GPU kernels are written against.
//!
//! A kernel written with this crate compiles to PTX with stock `rustc` (target `nvptx64-nvidia-cuda`) or with
//! rust-cuda, and runs, from the same source, on a CPU emulator that checks what a GPU leaves undefined. The API is
//! small on purpose:
//!
//! | module or type | what |
//! |---|---|
//! | [`thread`], [`block`], [`warp`], [`cluster`] | who am I, barriers, votes, shuffles, reductions |
//! | [`grid`] | overlapping the launch before and the one after |
//! | [`Global`], [`Halves`] | device memory: plain, read-only, 16-byte and atomic accesses; 16-bit elements |
//! | [`Shared`], [`Carve`] | a block's dynamic shared memory, carved into typed regions |
//! | [`copies`] | from device to shared memory, while the thread does other things |
//! | [`fence`], [`spin_hint`], [`opaque`] | ordering, waiting, a hint |
//! | [`f32_to_f16`], [`f16_to_f32`], [`half_pair`], [`half_pair_at_least`], [`bf16_pair`], [`bf16_pair_at_least`] | 16-bit numbers |
//! | [`fma`], [`exp2`], [`log2`], [`rsqrt`], [`reciprocal`], [`truncate`] | arithmetic that `core` has not, or slower |
//! | [`kernels!`] | declares entry points and their launch bounds, once for all backends |
//! | `emu` (not on the GPU) | the emulator: memory, launches, statistics, fault reports |
//!
//! There are three backends, which implement [`Machine`]; kernels never name one. On the GPU it is the one for stock
//! `rustc`, unless the manifest sets the feature `rust-cuda`, which this crate's own cannot: it needs a git dependency,
//! and is set by the manifests of `gpu/rust-cuda`.
#![cfg_attr(target_arch = "nvptx64", no_std, feature(asm_experimental_arch))]
#![cfg_attr(
    all(target_arch = "nvptx64", not(feature = "rust-cuda")),
    feature(abi_unadjusted, link_llvm_intrinsics),
    allow(internal_features)
)]

pub mod copies;
mod entry;
mod global;
mod groups;
#[cfg(target_arch = "nvptx64")]
#[macro_use]
mod instructions;
mod machine;
mod shared;

#[cfg(not(target_arch = "nvptx64"))]
pub mod emu;
#[cfg(all(target_arch = "nvptx64", not(feature = "rust-cuda")))]
mod ptx;
#[cfg(all(target_arch = "nvptx64", feature = "rust-cuda"))]
mod rust_cuda;

/// For [`kernels!`], whose entry points are marked by an attribute of `cuda_std`.
#[cfg(all(target_arch = "nvptx64", feature = "rust-cuda"))]
#[doc(hidden)]
pub use cuda_std;

pub use entry::{Entry, Parameter, Slot};
pub use global::{Global, Halves};
pub use groups::{block, cluster, grid, thread, warp};
pub use machine::{AtomicOp, Machine, Order, Scope, Shuffle, Space};
pub use shared::{Carve, Cursor, Remote, Shared};

/// The backend this build uses: PTX on the GPU, the emulator elsewhere.
#[cfg(all(target_arch = "nvptx64", not(feature = "rust-cuda")))]
pub type Active = ptx::Ptx;
/// The backend this build uses: PTX on the GPU, the emulator elsewhere.
#[cfg(all(target_arch = "nvptx64", feature = "rust-cuda"))]
pub type Active = rust_cuda::RustCuda;
/// The backend this build uses: PTX on the GPU, the emulator elsewhere.
#[cfg(not(target_arch = "nvptx64"))]
pub type Active = emu::Emulator;

/// A 32-bit value that can live in device memory.
pub trait Word: Copy + sealed::Sealed {
    /// The value's bits.
    fn to_bits(self) -> u32;
    /// The value with these bits.
    fn from_bits(bits: u32) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for i32 {}
    impl Sealed for f32 {}
}

impl Word for u32 {
    #[inline(always)]
    fn to_bits(self) -> u32 {
        self
    }
    #[inline(always)]
    fn from_bits(bits: u32) -> Self {
        bits
    }
}

impl Word for i32 {
    #[inline(always)]
    fn to_bits(self) -> u32 {
        self.cast_unsigned()
    }
    #[inline(always)]
    fn from_bits(bits: u32) -> Self {
        bits.cast_signed()
    }
}

impl Word for f32 {
    #[inline(always)]
    fn to_bits(self) -> u32 {
        f32::to_bits(self)
    }
    #[inline(always)]
    fn from_bits(bits: u32) -> Self {
        f32::from_bits(bits)
    }
}

/// Orders this thread's memory accesses before the fence and after it, as seen by the threads of `scope`.
#[inline(always)]
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
pub fn fence(scope: Scope) {
    Active::fence(scope);
}

/// To be called in every turn of a loop that waits for another block.
#[inline(always)]
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
pub fn spin_hint() {
    Active::spin_hint();
}

/// The bits of the half-precision numbers nearest to `low` (in the low half) and `high` (ties to even), made
/// ready for ordering: NaN becomes the negative infinity, and what rounds to -0.0 becomes +0.0.
#[inline(always)]
pub fn half_pair(low: f32, high: f32) -> u32 {
    Active::half_pair(low, high)
}

/// Compares two pairs of half-precision numbers: `0xffff` in each half in which `pair` is at least `bounds`.
#[inline(always)]
pub fn half_pair_at_least(pair: u32, bounds: u32) -> u32 {
    Active::half_pair_at_least(pair, bounds)
}

/// The same for bf16 numbers.
#[inline(always)]
pub fn bf16_pair_at_least(pair: u32, bounds: u32) -> u32 {
    Active::bf16_pair_at_least(pair, bounds)
}

/// The value itself, which the optimiser must take for a new one.
///
/// What is computed from it is computed here. Without it, values that depend on the thread's index alone are
/// computed once, ahead of the outermost loop, and hold a register each from there on.
#[inline(always)]
pub fn opaque(value: u32) -> u32 {
    Active::opaque(value)
}

/// [`opaque`] for an address.
#[inline(always)]
pub fn opaque_address<T>(address: *mut T) -> *mut T {
    Active::opaque_address(address.cast()).cast()
}

/// The bits of the half-precision number nearest to `value` (ties to even; overflow gives an infinity;
/// NaN gives the canonical NaN 0x7fff).
#[inline(always)]
pub fn f32_to_f16(value: f32) -> u16 {
    Active::f32_to_f16(value)
}

/// The half-precision number with these bits.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    Active::f16_to_f32(bits)
}

/// The bits of the bf16 numbers nearest to `low` (in the low half) and `high` (ties to even; overflow gives an
/// infinity; NaN gives the canonical NaN 0x7fff).
#[inline(always)]
pub fn bf16_pair(low: f32, high: f32) -> u32 {
    Active::bf16_pair(low, high)
}

/// `a * b + c`, rounded once.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    Active::fma(a, b, c)
}

/// 2 to the power of `value`, within 2 units in the last place; what is below the smallest normal number is 0.
#[inline(always)]
pub fn exp2(value: f32) -> f32 {
    Active::exp2(value)
}

/// The logarithm of `value` to base 2, within 2^-22 of it near 1 and relative to it elsewhere.
#[inline(always)]
pub fn log2(value: f32) -> f32 {
    Active::log2(value)
}

/// One over the square root of `value`, within 2^-22 relative to it.
#[inline(always)]
pub fn rsqrt(value: f32) -> f32 {
    Active::rsqrt(value)
}

/// One over `value`, within 2^-22 relative to it; of a number too small to be normal, infinity. A division takes ten times
/// the instructions.
#[inline(always)]
pub fn reciprocal(value: f32) -> f32 {
    Active::reciprocal(value)
}

/// `value as u32`: without its fraction, or the nearest number there is; NaN gives 0. One instruction, where the compiler
/// adds four for what the hardware does already.
#[inline(always)]
pub fn truncate(value: f32) -> u32 {
    Active::truncate(value)
}

/// Stops the launch; the host sees an error. For [`panic_handler!`].
#[cfg(target_arch = "nvptx64")]
pub fn trap() -> ! {
    instructions::trap()
}
