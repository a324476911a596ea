//! Stands in for rust-cuda's `cuda_std`: what the SIMT machine's backend uses of it, and nothing else.
//!
//! Names and signatures are those of `cuda_std` at the revision that `gpu/rust-cuda/Cargo.toml` pins, as far as they
//! could be looked up without it. What is behind them is for stock `rustc`: the intrinsics that its LLVM has, which
//! give the same instructions. So this checks that the backend is complete, that its types fit and that its assembly
//! assembles and does what it should. It says nothing of rust-cuda's code generator, of LLVM 7 and of libNVVM.
#![no_std]
#![feature(abi_unadjusted, asm_experimental_arch, link_llvm_intrinsics)]
#![allow(internal_features)]

pub use cuda_std_macros::kernel;

pub mod shared;
pub mod thread;
pub mod warp;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: the instruction takes no operands and does not return.
    unsafe { core::arch::asm!("trap;", options(noreturn, nostack)) }
}
