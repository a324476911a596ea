//! A few new tokens for each request.
//!
//! The shape of the launch depends on the limits and the batch alone: some blocks for each request, which share its
//! tiles of channels ([`window`]), or a warp for each request, tile and window that its tokens may be in ([`overlap`]);
//! many of those find nothing to do. Before anything is kept, every block or warp looks at all pages that the request reads or writes.

use core::marker::PhantomData;

use dsa_simt::{block, grid, thread, warp};

use super::configuration::{Configuration, Kernel, Mode};
use super::number::Number;
use super::request::Request;
use super::then::{Nothing, Store, Then};
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

/// Threads of a multiprocessor that have registers where rows are stored, too.
const STORE_THREADS: u32 = 512;

/// Threads of a multiprocessor that have registers: 128 or 64 for each, as few as hold what a thread reads at once; and of
/// blocks of a warp, so many as a multiprocessor of any kind holds.
const fn resident_threads(ratio: u32, warps: u32, per_vector: usize) -> u32 {
    if ratio == OVERLAPPING || warps == 8 || warps == 1 || per_vector == 8 { 512 } else { 1024 }
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
            min_blocks: resident_threads(RATIO, WARPS, S::PER_VECTOR) / (WARPS * warp::SIZE),
        }
    };

    #[inline(always)]
    unsafe fn run(batch: Batch) {
        run::<K, S, RATIO, WARPS>(batch, Nothing);
    }
}

/// [`Decode`], and the rows that it writes are stored.
pub struct DecodeStore<K, S, const RATIO: u32, const WARPS: u32>(PhantomData<(K, S)>);

impl<K: Number, S: Number, const RATIO: u32, const WARPS: u32> DecodeStore<K, S, RATIO, WARPS> {
    /// What it is compiled for.
    pub const CONFIGURATION: Configuration = Configuration {
        mode: Mode::DecodeStore,
        min_blocks: STORE_THREADS / (WARPS * warp::SIZE),
        ..Decode::<K, S, RATIO, WARPS>::CONFIGURATION
    };

    /// Runs a thread of it.
    ///
    /// # Safety
    /// The launcher keeps the promises of [`Batch`], of [`Store`], and of the configuration.
    #[inline(always)]
    pub unsafe fn run(batch: Batch, store: Store) {
        run::<K, S, RATIO, WARPS>(batch, store);
    }
}

#[inline(always)]
fn run<K: Number, S: Number, const RATIO: u32, const WARPS: u32>(batch: Batch, then: impl Then) {
    grid::wait_for_earlier();
    grid::let_later_start();
    if RATIO == OVERLAPPING {
        by_warps::<K, S, WARPS>(batch, then);
    } else if WARPS <= ORIGIN_WARPS {
        by_blocks::<K, S, WARPS, ORIGIN_TILE, 1>(batch, then);
    } else {
        // All of a thread's tokens at once.
        match S::PER_VECTOR {
            4 => by_blocks::<K, S, WARPS, { LANES * 4 }, 4>(batch, then),
            _ => by_blocks::<K, S, WARPS, { LANES * 8 }, 4>(batch, then),
        }
    }
}

/// A block for each request and each of the parts that its tiles are shared among.
#[inline(always)]
fn by_blocks<K: Number, S: Number, const WARPS: u32, const TILE: u32, const BATCH: usize>(
    batch: Batch,
    then: impl Then,
) {
    let (number, part) = (block::index() / batch.parts, block::index() % batch.parts);
    let speaks = thread::index() == 0;
    let request = match batch.offsets().request(number, LONG) {
        Ok(request) => request,
        Err(reasons) => return batch.report.refuse(number, reasons, speaks),
    };
    let Request { start, len, row, .. } = request;
    let tokens = Tokens::<K, S>::new(batch, request, LONG);
    let shared = window::shared(WARPS, TILE);

    // Only the first window can close: there are fewer new tokens than a window has.
    let first = Window::new(start / LONG * LONG, start, len, row);
    let reading = Reading::<WARPS, TILE, BATCH, false>::begin(&tokens, &first, part);
    let missing = if BATCH == 1 {
        let from = window::reads_from(start, len);
        tokens.misses_pages(from, len, thread::index(), WARPS * warp::SIZE)
    } else {
        // Of the window after it there are fewer tokens than threads.
        let token = first.first + LONG + thread::index();
        reading.misses_pages() | (token < len && !tokens.holds(tokens.place(token)))
    };
    if block::sync_or(missing) {
        return batch.report.refuse(number, report::PAGE, speaks);
    }
    reading.finish(&batch, &tokens, &first, shared);
    if len > first.first + LONG {
        let second = Window::new(first.first + LONG, start, len, row);
        let reading = Reading::<WARPS, TILE, BATCH, false>::begin(&tokens, &second, part);
        reading.finish(&batch, &tokens, &second, shared);
    }
    if first.row.is_some() {
        then.block_wrote(&request, start / LONG, batch.parts);
    }
}

/// A warp for each request, tile and window.
#[inline(always)]
fn by_warps<K: Number, S: Number, const WARPS: u32>(batch: Batch, then: impl Then) {
    let tile = overlap::tile(S::PER_VECTOR);
    let tiles = batch.head_dim.div_ceil(tile);
    let unit = block::index() * WARPS + thread::warp();
    // The windows that few requests touch come last, so that the warps which find nothing to do are together in blocks.
    let (window, team) = (unit / (batch.batch * tiles), unit % (batch.batch * tiles));
    let (number, tile) = (team / tiles, team % tiles * tile);
    if window >= overlap::MOST_TOUCHED {
        return;
    }
    let request = match batch.offsets().request(number, OVERLAPPING) {
        Ok(request) => request,
        Err(reasons) => return batch.report.refuse(number, reasons, thread::lane() == 0),
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
        return batch.report.refuse(number, report::PAGE, thread::lane() == 0);
    }
    overlap::run(&batch, &tokens, window, tile);
    if request.len >= (window + 1) * OVERLAPPING {
        then.warp_wrote(&request, window, tiles);
    }
}
