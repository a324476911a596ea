//! The KV compressor of DeepSeek-V4: windows of tokens pooled into one row each, by a softmax per channel.
//!
//! [`Plan`] turns limits and device properties into launches, without CUDA; [`Compressor`] is the operator that
//! enqueues them. See [`Compressor`] for the contract.

mod arguments;
mod check;
mod limits;
mod operator;
mod plan;
mod report;
mod slots;
mod tensor;

pub use dsa_kernels_gpu::compress::number::NumberType;

pub use arguments::{CompressArgs, PagedTensor, PostArgs, Store};
pub use limits::Limits;
pub use operator::{Compressor, CompressorBuilder};
pub use plan::Plan;
pub use report::{Reason, Reasons, Report};
pub use tensor::{ElementType, Tensor, TensorElement};
