//! The GPU kernels of sparse-attention decoding.
//!
//! Everything here runs on the device: compiled to PTX by `cargo xtask ptx`, and on the CPU by the
//! emulator of `dsa-simt`, from this same source. Kernels are written against [`dsa_simt`] alone.
//!
//! | module | what |
//! |---|---|
//! | [`compress`] | the KV compressor of DeepSeek-V4: windows of tokens pooled into one row each |
//! | [`topk`] | the indices of the k largest scores of each row |
//!
//! Each module has a table of its entry points, `ENTRIES`, and its own PTX, which holds nothing of the others. The
//! host crate chooses an entry point and its launch shape; see `dsa_kernels::topk::Plan`.
#![cfg_attr(target_arch = "nvptx64", no_std, feature(abi_ptx))]
// Iterators over arrays become local memory on the device.
#![allow(clippy::needless_range_loop)]

#[cfg(any(not(target_arch = "nvptx64"), feature = "compress"))]
pub mod compress;
#[cfg(any(not(target_arch = "nvptx64"), feature = "topk"))]
pub mod topk;

dsa_simt::panic_handler!();
