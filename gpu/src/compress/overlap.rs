//! A window that overlaps the one before, by a warp: [`OVERLAPPING`] tokens of its own and as many before them, a vector of
//! channels for each lane.
//!
//! The tokens before have the first half of a row's columns in the window, its own the second half. Each lane reads its
//! eight vectors, kept ones from the pools and new ones from the rows of new tokens, before it uses the first; the warp keeps
//! its window's own new tokens, both halves. Warps share nothing: of the tokens before, new ones are read again. The
//! softmax is in registers, without any exchange. Cost: the memory's time, two round trips.

use dsa_simt::{thread, warp};

use super::number::{MAX_CHANNELS, Number, each_channel};
use super::softmax::{Softmax, mean};
use super::tokens::{Entry, Tokens};
use super::{Batch, MAX_NEXT_N, OVERLAPPING};

/// Most windows that the new tokens of a request are in, in a launch of [`decode`](super::decode).
pub const MOST_TOUCHED: u32 = (OVERLAPPING - 1 + MAX_NEXT_N).div_ceil(OVERLAPPING);

/// Entries of a window: those before, then its own.
const ENTRIES: usize = 2 * OVERLAPPING as usize;

/// Channels of a warp.
pub const fn tile(per_vector: usize) -> u32 {
    warp::SIZE * per_vector as u32
}

/// The positions that window `window` reads of a request with new tokens from `start` to `len`: none before the new ones if
/// it does not close.
#[inline(always)]
pub fn reads_from(window: u32, start: u32, len: u32) -> u32 {
    let first = window * OVERLAPPING;
    if len >= first + OVERLAPPING { first.saturating_sub(OVERLAPPING).min(start) } else { start.max(first) }
}

/// Keeps the new tokens of window `window`, and writes the output if it closes: channels `tile..` of the warp. The pages of
/// all tokens that it reads or keeps are in the pools.
#[inline(always)]
pub fn run<K: Number, S: Number>(batch: &Batch, tokens: &Tokens<K, S>, window: u32, tile: u32) {
    let column = tile + thread::lane() * S::PER_VECTOR as u32;
    if column >= batch.head_dim {
        return;
    }
    let (start, len, first) = (tokens.request.start, tokens.request.len, window * OVERLAPPING);
    let closes = len >= first + OVERLAPPING;
    let own = column + batch.head_dim;
    // Window 0 has none before.
    let before = |e: u32| {
        let position = (first + e).wrapping_sub(OVERLAPPING);
        match (closes && window > 0, position < start) {
            (false, _) => Entry::nothing::<S>(),
            (true, true) => tokens.kept(tokens.place(position), column),
            (true, false) => tokens.fresh(position, column),
        }
    };
    let within = |e: u32| {
        let position = first + e;
        match (position < start, position < len) {
            (true, _) if closes => tokens.kept(tokens.place(position), own),
            (false, true) => tokens.fresh(position, own),
            _ => Entry::nothing::<S>(),
        }
    };
    // Each by itself: a loop over an array would make it local memory.
    let entries: [Entry; ENTRIES] =
        [before(0), before(1), before(2), before(3), within(0), within(1), within(2), within(3)];
    let keep = |e: u32| {
        let position = first + e;
        if position >= start && position < len {
            let place = tokens.place(position);
            tokens.keep(place, own, entries[(OVERLAPPING + e) as usize]);
            tokens.keep(place, column, tokens.fresh(position, column));
        }
    };
    keep(0);
    keep(1);
    keep(2);
    keep(3);
    if !closes {
        return;
    }
    let softmax = Softmax::of::<S, ENTRIES>(&entries);
    let mut numbers = [0.0; MAX_CHANNELS];
    each_channel!(S, c => {
        numbers[c] = mean(softmax.value[c], softmax.sum[c]);
    });
    let row = tokens.request.row_of(window, OVERLAPPING);
    let mut c = 0;
    while c < S::PER_VECTOR {
        batch.write4(row, column + c as u32, [numbers[c], numbers[c + 1], numbers[c + 2], numbers[c + 3]]);
        c += 4;
    }
}
