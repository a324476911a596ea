//! The KV compressor of DeepSeek-V4: windows of tokens pooled into one row by a softmax per channel.
//!
//! # Contract
//! A window has R = 128 tokens ([`window`]), or R = 4 and overlaps the one before ([`overlap`]). The row of a new token
//! is `[kv (W) | score (W)]` with `W = D` for R = 128 and `W = 2 D` for R = 4; `s = score + ape[t mod R]`, a bias on the
//! score by the token's position `t`. For each channel, with the softmax over the positions of the window:
//!
//! - R = 128: `out[c, d] = sum over r of softmax(s[128 c + r, d]) kv[128 c + r, d]`
//! - R = 4: the same over eight entries: positions `4 c - 4 .. 4 c` with columns `0 .. D`, then `4 c .. 4 c + 4` with
//!   columns `D .. 2 D`. Window 0 has the second half only.
//!
//! Window `c` closes when token `R (c + 1) - 1` is there, and is then written to the output, once.
//!
//! # State
//! `kv` and `s` of every token are kept in two paged pools, rounded to the type of the state, and the softmax is over what is
//! kept: a row is the same however its tokens were divided into launches, except for the order of additions.
//! Token `t` lies in the page `blocks[t / page]`, row `t mod page`, by its absolute position; a launch that starts at an
//! earlier length than the last one ended at overwrites what it finds, which is how rejected draft tokens are undone.
//!
//! # Bad requests
//! Lengths, offsets and pages are untrusted. A request with a bad one is left out whole: nothing of it is stored, and the
//! launch reports it ([`report`]). All blocks that work for a request decide that from the same words.
//!
//! # The kernels
//! | kernel | what |
//! |---|---|
//! | [`decode`] | a few new tokens for each request |
//! | [`prefill`] | any number of new tokens for each request |
//! | [`running`] | as both, with running softmaxes as the state: a step costs what its tokens cost, not a window |
//! | [`mod@post`] | normalises, rotates, quantises and stores the rows that were written: as a launch of its own, or behind a decode ([`then`]) |
//!
//! The entry points are one table, [`CONFIGURATIONS`], from which launches, tests and benchmarks are derived. The
//! mathematics is that of DeepSeek-V4; the contract follows TensorRT-LLM's `pagedKvCompressKernel` (PR 14124).

pub mod configuration;
pub mod decode;
pub mod fp8;
pub mod number;
pub mod output;
pub mod overlap;
pub mod pool;
pub mod post;
pub mod prefill;
pub mod report;
pub mod request;
pub mod running;
pub mod softmax;
pub mod then;
pub mod tokens;
pub mod window;

mod entries;

#[cfg(not(target_arch = "nvptx64"))]
pub use entries::ENTRIES;
pub use entries::*;

use pool::Pool;
use report::Report;

/// Tokens of a window that overlaps the one before.
pub const OVERLAPPING: u32 = 4;
/// Tokens of a window that does not.
pub const LONG: u32 = 128;
/// Most new tokens of a request in a launch of [`decode`].
pub const MAX_NEXT_N: u32 = 8;
/// The sizes of a row of the output.
pub const HEAD_DIMS: [u32; 2] = [128, 512];

/// Columns of a state row: each channel once for every window that a token is part of.
#[inline(always)]
pub const fn width(head_dim: u32, ratio: u32) -> u32 {
    if ratio == OVERLAPPING { 2 * head_dim } else { head_dim }
}

/// The requests of a launch.
///
/// What is said of the fields is what a launcher promises, with two things more: nothing but the launch writes any of the
/// memory while it runs, and the launch has the grid, block and shared memory that its entry point asks for. Pointers are
/// to numbers of the types of the configuration, aligned to 16 bytes unless something else is said; pitches are in
/// elements, and multiples of 16 bytes.
#[derive(Clone, Copy)]
pub struct Batch {
    /// `[tokens, 2 W]`: the rows of the new tokens of all requests, one request after the other.
    pub kv_score: *const u8,
    /// Distance between them, at least `2 W`.
    pub kv_score_pitch: u64,
    /// `f32[R, W]`.
    pub ape: *const f32,
    /// Where the first half of the state is kept.
    pub kv: Pool,
    /// Where the second half is kept: scores with their bias.
    pub score: Pool,
    /// Tokens of a page, at least 1, in both pools.
    pub page: u32,
    /// Logical pages of a request in both tables.
    pub max_blocks: u32,
    /// `i32[batch]`, aligned to 4 bytes, with any contents: the length of each request after the new tokens.
    pub kv_lens: *const i32,
    /// `i32[batch + 1]`, aligned to 4 bytes, with any contents: the first new token of each request, then their number.
    pub cu_new: *const i32,
    /// `i32[batch + 1]`, aligned to 4 bytes, with any contents: the first output row of each request, then their number.
    pub cu_out: *const i32,
    /// `[rows, D]`, f32 or bf16.
    pub out: *mut u8,
    /// Distance between its rows, at least `D`.
    pub out_pitch: u64,
    /// Whether the output is bf16, rounded to nearest even; else f32.
    pub out_bf16: bool,
    /// Where bad requests are reported.
    pub report: Report,
    /// Requests.
    pub batch: u32,
    /// Rows of `kv_score`.
    pub tokens: u32,
    /// Rows of `out`.
    pub rows: u32,
    /// `D`, one of [`HEAD_DIMS`].
    pub head_dim: u32,
    /// Most new tokens of a request; more make it a bad request.
    pub max_new: u32,
    /// Blocks that share the tiles of a window, at least 1: in [`prefill`], and in [`decode`] if windows do not overlap.
    pub parts: u32,
}
