//! What an operator is built for.

use crate::compress::NumberType;

/// What an operator is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of a window: 128, or 4 with windows that overlap.
    pub ratio: u32,
    /// Channels of an output row: 128 or 512.
    pub head_dim: u32,
    /// The type of the rows of new tokens.
    pub kv: NumberType,
    /// The type of the state, both pools.
    pub state: NumberType,
    /// The type of the output.
    pub output: NumberType,
    /// Warps of a block of the decode kernel; `None` for the best.
    pub warps: Option<u32>,
    /// Whether the state are running softmaxes, so that a step of decode costs what its tokens cost, not what a window
    /// costs. Needs a state of f32.
    ///
    /// The row of a token then holds the softmax of its window up to it instead of the token. A state that was written
    /// without this cannot be continued with it, nor the other way round: bring prompts in with the same operator.
    /// [`enqueue_prefill`](crate::Compressor::enqueue_prefill) then walks the tokens of a request one after the other.
    pub running: bool,
    /// Most requests of a launch.
    pub max_batch: u32,
    /// Whether launches may start while the launch before them on the stream is still running. They wait for
    /// its end before they touch device memory: results are the same, launches follow each other faster.
    /// Where that is possible, see [`LaunchConfig::overlap`](crate::LaunchConfig::overlap). Kernels of others that
    /// are launched with programmatic serialization on the same stream must execute the wait, too.
    pub overlap: bool,
}

impl Limits {
    /// What an operator is built for unless something else is said: new tokens and output of bf16, a state of f32, up
    /// to 4,096 requests, the best number of warps.
    pub const fn of(ratio: u32, head_dim: u32) -> Self {
        Self {
            ratio,
            head_dim,
            kv: NumberType::Bf16,
            state: NumberType::F32,
            output: NumberType::Bf16,
            warps: None,
            running: false,
            max_batch: 4096,
            overlap: true,
        }
    }
}
