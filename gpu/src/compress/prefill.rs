//! Any number of new tokens for each request: all windows of a chunk of a prompt, at any alignment.
//!
//! A block works on [`CHUNK`] tokens of a request, from a multiple of it on, and on some of the channels. Which request that
//! is it finds by itself: request `b` has the chunks from `cu_new[b] / CHUNK + 2 b` on, more than there is room for before
//! the next request's, whatever the alignment. Every warp looks through all requests for the one that has the block's
//! chunk, so that offsets which do not ascend cost the requests that have them, and no others.
//!
//! Each new token is kept once, by the block of its chunk; windows that began in an earlier launch read what that kept.
//! Before anything is kept, every block looks at all pages that the request reads or writes. Cost: the memory's time for
//! reading the new rows and writing the state.

use core::marker::PhantomData;

use dsa_simt::{block, grid, thread, warp};

use super::configuration::{Configuration, Kernel, Mode};
use super::number::Number;
use super::request::Request;
use super::tokens::Tokens;
use super::window::{self, Reading, Window};
use super::{Batch, LONG, OVERLAPPING, overlap, report};

/// Windows of `RATIO` tokens; new tokens of type `K`, state of type `S`.
pub struct Prefill<K, S, const RATIO: u32>(PhantomData<(K, S)>);

/// Tokens that a block works on: those from a multiple of this on.
pub const CHUNK: u32 = LONG;

/// Warps of a block.
const WARPS: u32 = 8;
/// Channels of a tile, in windows that do not overlap.
const TILE: u32 = 128;

/// Chunks that a launch has blocks for, for each part of the channels.
pub const fn chunks(tokens: u32, batch: u32) -> u64 {
    tokens as u64 / CHUNK as u64 + 2 * batch as u64
}

impl<K: Number, S: Number, const RATIO: u32> Kernel for Prefill<K, S, RATIO> {
    const CONFIGURATION: Configuration = {
        let tile = if RATIO == OVERLAPPING { overlap::tile(S::PER_VECTOR) } else { TILE };
        Configuration {
            entry: "",
            mode: Mode::Prefill,
            kv: K::TYPE,
            state: S::TYPE,
            ratio: RATIO,
            warps: WARPS,
            tile,
            shared_bytes: if RATIO == LONG { window::shared_bytes(WARPS, tile) } else { 0 },
            // The eight vectors of eight numbers of a window that overlaps need more registers.
            min_blocks: if RATIO == OVERLAPPING && S::PER_VECTOR == 8 { 1 } else { 2 },
        }
    };

    #[inline(always)]
    unsafe fn run(batch: Batch) {
        grid::wait_for_earlier();
        grid::let_later_start();
        let (chunk, part) = (block::index() / batch.parts, block::index() % batch.parts);
        let mut first = 0;
        while first < batch.batch {
            let number = first + thread::lane();
            let has = number < batch.batch && has_chunk(&batch, number, RATIO, chunk, block::index() == 0);
            let mut found = warp::ballot(warp::ALL, has);
            // All warps find the same.
            while found != 0 {
                let number = first + found.trailing_zeros();
                found &= found - 1;
                work::<K, S, RATIO>(&batch, number, chunk, part);
            }
            first += warp::SIZE;
        }
    }
}

/// The first chunk of a launch that is of the request whose first new token is row `token`.
#[inline(always)]
fn first_chunk(number: u32, token: u32) -> u32 {
    token / CHUNK + 2 * number
}

/// Whether chunk `chunk` of the launch is one of request `number`'s. A bad request has none; `speaks` for the block
/// that reports it.
#[inline(always)]
fn has_chunk(batch: &Batch, number: u32, ratio: u32, chunk: u32, speaks: bool) -> bool {
    match batch.offsets().request(number, ratio) {
        Ok(request) => {
            let first = first_chunk(number, request.token);
            let count = request.len.div_ceil(CHUNK) - request.start / CHUNK;
            chunk >= first && chunk - first < count
        }
        Err(reasons) => {
            batch.report.refuse(number, reasons, speaks && thread::warp() == 0);
            false
        }
    }
}

/// Works on a chunk of a request, unless its pages are bad. Collective over the block.
#[inline(always)]
fn work<K: Number, S: Number, const RATIO: u32>(batch: &Batch, number: u32, chunk: u32, part: u32) {
    // It was right before, and nothing writes the words.
    let Ok(request) = batch.offsets().request(number, RATIO) else { return };
    let tokens = Tokens::<K, S>::new(*batch, request, RATIO);
    let from = if RATIO == OVERLAPPING {
        overlap::reads_from(request.start / OVERLAPPING, request.start, request.len)
    } else {
        window::reads_from(request.start, request.len)
    };
    let missing = tokens.misses_pages(from, request.len, thread::index(), WARPS * warp::SIZE);
    if block::sync_or(missing) {
        return batch.report.refuse(number, report::PAGE, thread::index() == 0);
    }
    let first = (request.start / CHUNK + (chunk - first_chunk(number, request.token))) * CHUNK;
    if RATIO == OVERLAPPING {
        windows(batch, &tokens, first, part)
    } else {
        long(batch, &tokens, first, part)
    }
}

/// The window that the chunk is.
#[inline(always)]
fn long<K: Number, S: Number>(batch: &Batch, tokens: &Tokens<K, S>, first: u32, part: u32) {
    let Request { start, len, .. } = tokens.request;
    let window = Window::new(first, start, len, tokens.request.row_of(first / LONG, LONG));
    let shared = window::shared(WARPS, TILE);
    // As many bytes either way.
    if S::PER_VECTOR == 4 {
        Reading::<WARPS, TILE, 4, true>::begin(tokens, &window, part).finish(batch, tokens, &window, shared);
    } else {
        Reading::<WARPS, TILE, 2, true>::begin(tokens, &window, part).finish(batch, tokens, &window, shared);
    }
}

/// The windows that the chunk has, each tile of them by a warp.
#[inline(always)]
fn windows<K: Number, S: Number>(batch: &Batch, tokens: &Tokens<K, S>, first: u32, part: u32) {
    let Request { start, len, .. } = tokens.request;
    let tile = overlap::tile(S::PER_VECTOR);
    let tiles = batch.head_dim.div_ceil(tile);
    let from = start.max(first) / OVERLAPPING;
    let to = len.min(first + CHUNK).div_ceil(OVERLAPPING);
    // The parts take turns over windows and tiles.
    let mut unit = part * WARPS + thread::warp();
    while unit < (to - from) * tiles {
        overlap::run(batch, tokens, from + unit / tiles, unit % tiles * tile);
        unit += batch.parts * WARPS;
    }
}
