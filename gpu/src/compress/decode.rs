//! A few new tokens for each request.
//!
//! The shape of the launch depends on the limits alone: a block for each request and tile of channels ([`window`]), or a
//! warp for each request, tile and window that its tokens may be in ([`overlap`]); most of those find nothing to do. Before
//! anything is kept, every block or warp looks at all pages that the request reads or writes.

use core::marker::PhantomData;

use dsa_simt::{block, grid, thread, warp};

use super::configuration::{Configuration, Kernel, Mode};
use super::number::Number;
use super::tokens::Tokens;
use super::window::{self, Reading, Window};
use super::{Batch, LONG, OVERLAPPING, overlap, report};

/// Windows of `RATIO` tokens by blocks of `WARPS` warps; new tokens of type `K`, state of type `S`.
pub struct Decode<K, S, const RATIO: u32, const WARPS: u32>(PhantomData<(K, S)>);

/// Most warps of a block that walks through a window as the origin does: one token at a time, tiles of [`ORIGIN_TILE`].
const ORIGIN_WARPS: u32 = 4;
/// Channels of the origin's blocks.
const ORIGIN_TILE: u32 = 128;
/// Lanes that share a token in the others: a line of 128 bytes of each row, and as many blocks as that makes.
const LANES: u32 = 8;

/// Threads of a multiprocessor that have registers: 128, 80 or 64 for each, as few as hold what a thread reads at once.
const fn resident_threads(warps: u32, per_vector: usize) -> u32 {
    match (warps, per_vector) {
        (0..=ORIGIN_WARPS, _) | (_, 8) => 512,
        (8, _) => 768,
        (_, _) => 1024,
    }
}

impl<K: Number, S: Number, const RATIO: u32, const WARPS: u32> Kernel for Decode<K, S, RATIO, WARPS> {
    const CONFIGURATION: Configuration = {
        let tile = match (RATIO, WARPS <= ORIGIN_WARPS) {
            (OVERLAPPING, _) => overlap::tile(S::PER_VECTOR),
            (_, true) => ORIGIN_TILE,
            (_, false) => LANES * S::PER_VECTOR as u32,
        };
        Configuration {
            entry: "",
            mode: Mode::Decode,
            kv: K::TYPE,
            state: S::TYPE,
            ratio: RATIO,
            warps: WARPS,
            tile,
            shared_bytes: if RATIO == LONG { window::shared_bytes(WARPS, tile) } else { 0 },
        }
    };
    const MIN_BLOCKS: u32 = resident_threads(WARPS, S::PER_VECTOR) / (WARPS * warp::SIZE);

    #[inline(always)]
    unsafe fn run(batch: Batch) {
        grid::wait_for_earlier();
        grid::let_later_start();
        if RATIO == OVERLAPPING {
            by_warps::<K, S, WARPS>(batch);
        } else if WARPS <= ORIGIN_WARPS {
            by_blocks::<K, S, WARPS, ORIGIN_TILE, 1>(batch);
        } else {
            // All of a thread's tokens at once.
            match (S::PER_VECTOR, WARPS) {
                (4, 8) => by_blocks::<K, S, WARPS, { LANES * 4 }, 4>(batch),
                (4, _) => by_blocks::<K, S, WARPS, { LANES * 4 }, 2>(batch),
                (_, 8) => by_blocks::<K, S, WARPS, { LANES * 8 }, 4>(batch),
                (_, _) => by_blocks::<K, S, WARPS, { LANES * 8 }, 2>(batch),
            }
        }
    }
}

/// A block for each request and tile.
#[inline(always)]
fn by_blocks<K: Number, S: Number, const WARPS: u32, const TILE: u32, const BATCH: usize>(batch: Batch) {
    let tiles = batch.head_dim / TILE;
    let (number, tile) = (block::index() / tiles, block::index() % tiles * TILE);
    let request = match batch.offsets().request(number, LONG) {
        Ok(request) => request,
        Err(reasons) => return refuse(&batch, number, reasons, thread::index() == 0),
    };
    let tokens = Tokens::<K, S>::new(batch, request, LONG);
    let shared = window::shared(WARPS, TILE);
    let mut first = request.start / LONG * LONG;
    let mut checked = false;
    while first < request.len {
        // Only the first window can close: there are fewer new tokens than a window has.
        let window = Window::new(first, request.start, request.len, request.row);
        let reading = Reading::<WARPS, TILE, BATCH, false>::begin(&tokens, &window, tile);
        if !checked {
            let threads = WARPS * warp::SIZE;
            let missing = if BATCH == 1 {
                tokens.misses_pages(window.reads_from(), request.len, thread::index(), threads)
            } else {
                reading.misses_pages()
                    | tokens.misses_pages(first + LONG, request.len, thread::index(), threads)
            };
            if block::sync_or(missing) {
                return refuse(&batch, number, report::PAGE, thread::index() == 0);
            }
            checked = true;
        }
        reading.finish(&batch, &tokens, &window, shared);
        first += LONG;
    }
}

/// A warp for each request, tile and window.
#[inline(always)]
fn by_warps<K: Number, S: Number, const WARPS: u32>(batch: Batch) {
    let tile = overlap::tile(S::PER_VECTOR);
    let tiles = batch.head_dim.div_ceil(tile);
    let unit = block::index() * WARPS + thread::warp();
    let (team, window) = (unit / overlap::MOST_TOUCHED, unit % overlap::MOST_TOUCHED);
    let (number, tile) = (team / tiles, team % tiles * tile);
    if number >= batch.batch {
        return;
    }
    let request = match batch.offsets().request(number, OVERLAPPING) {
        Ok(request) => request,
        Err(reasons) => return refuse(&batch, number, reasons, thread::lane() == 0),
    };
    let first = request.start / OVERLAPPING;
    let window = first + window;
    if window * OVERLAPPING >= request.len {
        return;
    }
    let tokens = Tokens::<K, S>::new(batch, request, OVERLAPPING);
    let from = overlap::reads_from(first, request.start, request.len);
    let missing = tokens.misses_pages(from, request.len, thread::lane(), warp::SIZE);
    if warp::any(warp::ALL, missing) {
        return refuse(&batch, number, report::PAGE, thread::lane() == 0);
    }
    overlap::run(&batch, &tokens, window, tile);
}

/// Leaves a request out, and says why if it is a bad one; `speaks` for one thread of those that do so.
#[inline(always)]
pub fn refuse(batch: &Batch, number: u32, reasons: u32, speaks: bool) {
    if reasons != 0 && speaks {
        batch.report.add(number, reasons);
    }
}
