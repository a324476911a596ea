//! What a launch is given.

use crate::compress::Tensor;
use crate::compress::tensor::Memory;

/// Paged memory: pages that requests own through a table.
///
/// Entry `t` of request `b` lies in page `blocks[b, t / page]`, row `t mod page`.
#[derive(Clone, Debug)]
pub struct PagedTensor {
    /// `[blocks, page, columns]`: the physical pages, aligned to 16 bytes, the pitch between them a multiple of that.
    pub pool: Tensor<3>,
    /// `i32[batch, max_blocks]`: the physical page of each logical page. Any contents: a page that is needed and is not
    /// in the pool makes its request a bad one. Others are not looked at.
    pub blocks: Tensor<2>,
}

/// The arguments of a compression.
///
/// `W` is `head_dim` for windows of 128 tokens and `2 * head_dim` for windows of 4. Everything but i32 is aligned to 16
/// bytes, with pitches that are multiples of 16 bytes; `ape` and the arrays of one dimension are dense.
#[derive(Clone, Debug)]
pub struct CompressArgs {
    /// `[tokens, 2 W]` of [`Limits::kv`](crate::compress::Limits::kv): the new tokens of all requests, one request
    /// after the other; kv, then score.
    pub kv_score: Tensor<2>,
    /// `f32[ratio, W]`: the bias on the score by the token's position in its window.
    pub ape: Tensor<2>,
    /// The first half of the state, `[blocks, page, W]` of [`Limits::state`](crate::compress::Limits::state).
    pub kv: PagedTensor,
    /// The second half, of the same page and `max_blocks`: scores with their bias.
    pub score: PagedTensor,
    /// `i32[batch]`: the length of each request after the new tokens.
    pub kv_lens: Tensor<1>,
    /// `i32[batch + 1]`: the first new token of each request, then the number of all.
    pub cu_new: Tensor<1>,
    /// `i32[batch + 1]`: the first output row of each request, then the number of all.
    pub cu_out: Tensor<1>,
    /// `[rows, head_dim]` of [`Limits::output`](crate::compress::Limits::output); only the rows of windows that close
    /// are written.
    pub output: Tensor<2>,
}

/// How rows are stored in the cache.
#[derive(Clone, Debug)]
pub enum Store {
    /// As bf16, rounded to nearest even.
    Bf16,
    /// As FP8 e4m3, divided by one scale for all rows.
    Fp8PerTensor {
        /// `f32[1]`, aligned to 4 bytes, which is read.
        scale: Tensor<1>,
    },
    /// As FP8 e4m3, each 128 channels divided by a scale of their own.
    Fp8PerGroup {
        /// `f32[blocks, page, head_dim / 128]`, aligned to 4 bytes, which is written: in the pages of the cache.
        scales: Tensor<3>,
    },
}

/// The arguments of what comes after a compression: normalise, rotate, quantise and store the rows that it wrote.
///
/// Aligned as [`CompressArgs`]; `weight` and `rotations` are dense.
#[derive(Clone, Debug)]
pub struct PostArgs {
    /// `[rows, head_dim]` of f32 or bf16: the output of a compression.
    pub compressed: Tensor<2>,
    /// `f32[head_dim]`: what normalised channels are multiplied by.
    pub weight: Tensor<1>,
    /// What is added to the mean square of a row, at least 0.
    pub epsilon: f32,
    /// `f32[positions, 64]`: for each position, 32 cosines, then 32 sines, by which the last 64 channels are rotated.
    pub rotations: Tensor<2>,
    /// `[blocks, page, head_dim]` of bf16 or FP8, as `store` says: the row of window `c` of a request is entry `c`.
    pub cache: PagedTensor,
    /// How rows are stored.
    pub store: Store,
    /// Whether a Walsh-Hadamard transform of the row, times `head_dim^-1/2`, comes before it is stored.
    pub hadamard: bool,
    /// As for the compression.
    pub kv_lens: Tensor<1>,
    /// As for the compression.
    pub cu_new: Tensor<1>,
    /// As for the compression.
    pub cu_out: Tensor<1>,
}

impl CompressArgs {
    /// The buffers that are viewed, by the name of the argument.
    pub(crate) fn memories(&self) -> impl Iterator<Item = (&'static str, &Memory)> + Clone {
        let all = [
            ("kv_score", self.kv_score.memory()),
            ("ape", self.ape.memory()),
            ("kv.pool", self.kv.pool.memory()),
            ("kv.blocks", self.kv.blocks.memory()),
            ("score.pool", self.score.pool.memory()),
            ("score.blocks", self.score.blocks.memory()),
            ("kv_lens", self.kv_lens.memory()),
            ("cu_new", self.cu_new.memory()),
            ("cu_out", self.cu_out.memory()),
            ("output", self.output.memory()),
        ];
        all.into_iter().filter_map(|(name, memory)| Some((name, memory?)))
    }
}

impl PostArgs {
    /// The buffers that are viewed, by the name of the argument.
    pub(crate) fn memories(&self) -> impl Iterator<Item = (&'static str, &Memory)> + Clone {
        let scales = match &self.store {
            Store::Bf16 => None,
            Store::Fp8PerTensor { scale } => scale.memory(),
            Store::Fp8PerGroup { scales } => scales.memory(),
        };
        let all = [
            ("compressed", self.compressed.memory()),
            ("weight", self.weight.memory()),
            ("rotations", self.rotations.memory()),
            ("cache.pool", self.cache.pool.memory()),
            ("cache.blocks", self.cache.blocks.memory()),
            (self.store.argument(), scales),
            ("kv_lens", self.kv_lens.memory()),
            ("cu_new", self.cu_new.memory()),
            ("cu_out", self.cu_out.memory()),
        ];
        all.into_iter().filter_map(|(name, memory)| Some((name, memory?)))
    }
}

impl Store {
    /// The name of its tensor.
    pub(crate) fn argument(&self) -> &'static str {
        match self {
            Self::Bf16 => "store",
            Self::Fp8PerTensor { .. } => "store.scale",
            Self::Fp8PerGroup { .. } => "store.scales",
        }
    }
}
