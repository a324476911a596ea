//! What a kernel of the table is compiled for.

use super::number::NumberType;
use super::{Batch, LONG, overlap, prefill};

/// What a launch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A few new tokens for each request: [`decode`](super::decode).
    Decode,
    /// The same, and the rows that are written are stored: [`decode`](super::decode), then [`post`](mod@super::post).
    DecodeStore,
    /// Any number of new tokens: [`prefill`].
    Prefill,
    /// Any number of new tokens, best a few, the state a running softmax: [`running`](super::running).
    Running,
}

/// What an entry point is compiled for, and the launch it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Configuration {
    /// The entry point.
    pub entry: &'static str,
    /// What it does.
    pub mode: Mode,
    /// The type of the rows of new tokens.
    pub kv: NumberType,
    /// The type of the state.
    pub state: NumberType,
    /// Tokens of a window.
    pub ratio: u32,
    /// Warps of a block.
    pub warps: u32,
    /// Channels that a block works on at a time; with windows that overlap, a warp.
    pub tile: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Blocks that must fit on a multiprocessor by registers.
    pub min_blocks: u32,
}

impl Configuration {
    /// Tiles of a row of `head_dim` channels.
    pub const fn tiles(&self, head_dim: u32) -> u32 {
        head_dim.div_ceil(self.tile)
    }

    /// Blocks of a launch for `batch` requests with `tokens` new tokens together. `parts` of them share the tiles of a
    /// window in [`Mode::Prefill`], and in a decode if windows do not overlap.
    pub const fn blocks(&self, head_dim: u32, batch: u32, tokens: u32, parts: u32) -> u64 {
        let tiles = batch as u64 * self.tiles(head_dim) as u64;
        match self.mode {
            Mode::Decode | Mode::DecodeStore if self.ratio == LONG => batch as u64 * parts as u64,
            Mode::Decode | Mode::DecodeStore => {
                (tiles * overlap::MOST_TOUCHED as u64).div_ceil(self.warps as u64)
            }
            Mode::Prefill => prefill::chunks(tokens, batch) * parts as u64,
            Mode::Running => tiles,
        }
    }
}

/// A kernel of the table.
pub trait Kernel {
    /// What it is compiled for; the table has the name.
    const CONFIGURATION: Configuration;

    /// Runs a thread of it.
    ///
    /// # Safety
    /// The launcher keeps the promises of [`Batch`] and of the configuration.
    unsafe fn run(batch: Batch);
}
