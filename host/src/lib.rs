//! GPU kernels of sparse-attention decoding, in pure Rust.
//!
//! | module | what |
//! |---|---|
//! | [`topk`] | an operator: the k largest of each row |
//! | [`compress`] | an operator: the KV compressor of DeepSeek-V4, windows of tokens pooled into one row each |
//! | [`device`] | a GPU, or the emulator: one interface |
//! | [`stream`], [`event`] | own and borrowed streams, timing |
//! | [`buffer`], [`workspace`] | device memory, and scratch memory shared by operators |
//! | [`module`], [`launch`] | PTX, kernels, launches with raw arguments |
//! | [`graph`] | capture and replay |
//! | [`error`] | the one error type |
//!
//! The crate builds on any machine. The feature `cust` adds NVIDIA GPUs; without it, or without a GPU,
//! the same kernels run on the emulator:
//!
//! ```
//! use dsa_kernels::Device;
//!
//! let (device, why_no_gpu) = Device::best();
//! if let Some(reason) = why_no_gpu {
//!     eprintln!("{}: {reason}", device.properties().name);
//! }
//! let scores = device.upload(&[0.5f32, 2.0, -1.0])?;
//! assert_eq!(scores.download()?, [0.5, 2.0, -1.0]);
//! # Ok::<(), dsa_kernels::Error>(())
//! ```
//!
//! # The feature `cust`
//! `cust` asks the linker for libcuda. Set `CUDA_LIBRARY_PATH` to what `cargo xtask stub` of this repository
//! prints, and the program has no dependency on the driver: it opens `libcuda.so.1` at the first use, and
//! `Device::cuda` returns [`Error::NoDriver`] where there is none. Linked with a CUDA toolkit's library
//! instead, the program starts on machines with a driver only.

pub mod buffer;
mod check;
pub mod compress;
pub mod device;
pub mod error;
pub mod event;
pub mod graph;
pub mod launch;
pub mod module;
mod runtime;
pub mod stream;
pub mod topk;
pub mod workspace;

pub use buffer::{Buffer, Element};
pub use compress::Compressor;
pub use device::{Backend, Device, DeviceProperties, EmulatorOptions};
pub use error::{DriverCode, Error};
pub use event::Event;
pub use graph::Graph;
pub use launch::{Kernel, LaunchConfig, Slots};
pub use module::{Module, Ptx};
pub use stream::{Owner, Stream};
pub use topk::TopK;
pub use workspace::Workspace;
