//! A window that does not overlap others, by a block: [`LONG`] tokens, a tile of channels.
//!
//! The threads of a block are slots times lanes: a slot takes every so many-th token of the window, and a lane a vector of
//! the tile's channels.
//!
//! 1. Each thread looks up the pages of a batch of its tokens, all of them before it waits for one, and begins to read those
//!    that earlier launches kept.
//! 2. Once the request's pages are known to be right, it reads the new ones of them from the rows of new tokens, and keeps
//!    them. With batches of one this is the serial walk of the origin.
//! 3. Lanes that have the same channels merge by shuffles.
//! 4. Each warp leaves maxima, sums and values in shared memory; a thread for each channel merges them and writes the output.
//!
//! No token is read that another thread of the launch writes: a new one comes from the rows of new tokens, rounded as it is
//! kept. Cost: the memory's time for the window, two round trips (table, rows), a barrier or two.

use dsa_simt::{Carve, Global, Halves, Shared, bf16_pair, block, thread, warp};

use super::number::Number;
use super::softmax::{Softmax, base, mean, weight};
use super::tokens::{Entry, Pages, Tokens};
use super::{Batch, LONG};

/// Numbers that a warp leaves for each channel: maximum, sum, value.
const LEFT: u32 = 3;

/// Bytes of shared memory that blocks of `warps` warps with tiles of `tile` channels need.
pub const fn shared_bytes(warps: u32, tile: u32) -> u32 {
    warps * LEFT * tile * 4
}

/// The tokens of a window that a block works on.
#[derive(Clone, Copy)]
pub struct Window {
    /// Position of its first token.
    pub first: u32,
    /// Tokens that are read of those that earlier launches kept, from the first one on: none if the window does not close.
    pub kept: u32,
    /// The first new token, and the one after the last; counted from the window's first.
    pub new: (u32, u32),
    /// The output row, if the window closes.
    pub row: Option<u32>,
}

impl Window {
    /// The window whose first token is at `first`, of a request with new tokens from `start` to `len`; `row` is its output
    /// row if it closes.
    #[inline(always)]
    pub fn new(first: u32, start: u32, len: u32, row: u32) -> Self {
        let closes = len >= first + LONG;
        Self {
            first,
            kept: if closes { start.saturating_sub(first) } else { 0 },
            new: (start.saturating_sub(first), u32::min(len - first, LONG)),
            row: if closes { Some(row) } else { None },
        }
    }

    /// Position of the first token that is read or kept.
    #[inline(always)]
    pub fn reads_from(&self) -> u32 {
        if self.row.is_some() { self.first } else { self.first + self.new.0 }
    }

    #[inline(always)]
    fn is_new(&self, token: u32) -> bool {
        token >= self.new.0 && token < self.new.1
    }

    /// Whether a token is read or kept.
    #[inline(always)]
    fn has(&self, token: u32) -> bool {
        token < self.kept || self.is_new(token)
    }
}

/// A thread's place in a block of `WARPS` warps with a tile of `TILE` channels.
#[derive(Clone, Copy)]
struct Place<const WARPS: u32, const TILE: u32> {
    slot: u32,
    column: u32,
}

impl<const WARPS: u32, const TILE: u32> Place<WARPS, TILE> {
    /// Threads that share a token.
    const fn lanes(per_vector: usize) -> u32 {
        TILE / per_vector as u32
    }

    /// Tokens that are worked on at a time.
    const fn slots(per_vector: usize) -> u32 {
        WARPS * warp::SIZE / Self::lanes(per_vector)
    }

    #[inline(always)]
    fn new<S: Number>(tile: u32) -> Self {
        let lanes = Self::lanes(S::PER_VECTOR);
        let column = tile + thread::index() % lanes * S::PER_VECTOR as u32;
        Self { slot: thread::index() / lanes, column }
    }
}

/// A thread's first tokens of a window, of those that earlier launches kept: on their way before it is known whether the
/// request's pages are all right.
///
/// With `MANY`, windows of new tokens alone are the usual case: they are read without a question for each token.
#[derive(Clone, Copy)]
pub struct Reading<const WARPS: u32, const TILE: u32, const BATCH: usize, const MANY: bool> {
    place: Place<WARPS, TILE>,
    entries: [Entry; BATCH],
    missing: bool,
}

impl<const WARPS: u32, const TILE: u32, const BATCH: usize, const MANY: bool>
    Reading<WARPS, TILE, BATCH, MANY>
{
    /// Begins to read a window's tokens, channels `tile..tile + TILE`.
    #[inline(always)]
    pub fn begin<K: Number, S: Number>(tokens: &Tokens<K, S>, window: &Window, tile: u32) -> Self {
        let mut reading =
            Self { place: Place::new::<S>(tile), entries: [Entry::nothing::<S>(); BATCH], missing: false };
        reading.read_kept(tokens, window, 0);
        reading
    }

    /// Whether any of the tokens that are read first has a page that is not in its pool. Together the block's threads tell
    /// for the whole window, if all of it is read first.
    #[inline(always)]
    pub fn misses_pages(&self) -> bool {
        self.missing
    }

    /// Which token of the window the thread's number `e` is, of the batch that begins with token `from`.
    #[inline(always)]
    fn token<S: Number>(&self, from: u32, e: usize) -> u32 {
        from + e as u32 * Place::<WARPS, TILE>::slots(S::PER_VECTOR) + self.place.slot
    }

    /// Looks up the pages of a batch, all of them before it waits for one, and begins to read what is kept of it.
    #[inline(always)]
    fn read_kept<K: Number, S: Number>(&mut self, tokens: &Tokens<K, S>, window: &Window, from: u32) {
        let (mut pages, mut e) = ([Pages::NONE; BATCH], 0);
        while e < BATCH {
            let token = self.token::<S>(from, e);
            if window.has(token) {
                pages[e] = tokens.pages(window.first + token);
            }
            e += 1;
        }
        let mut e = 0;
        while e < BATCH {
            let token = self.token::<S>(from, e);
            let holds = tokens.holds(pages[e]);
            self.missing |= window.has(token) & !holds;
            self.entries[e] = if token < window.kept && holds {
                tokens.kept(window.first + token, pages[e], self.place.column)
            } else {
                Entry::nothing::<S>()
            };
            e += 1;
        }
    }

    /// Reads the new tokens of a batch, and keeps them.
    #[inline(always)]
    fn read_new<K: Number, S: Number>(&mut self, tokens: &Tokens<K, S>, window: &Window, from: u32) {
        let (mut e, column) = (0, self.place.column);
        if MANY && window.new == (0, LONG) {
            while e < BATCH {
                self.entries[e] = tokens.fresh(window.first + self.token::<S>(from, e), column);
                e += 1;
            }
            let mut e = 0;
            while e < BATCH {
                let position = window.first + self.token::<S>(from, e);
                tokens.keep(position, tokens.pages(position), column, self.entries[e]);
                e += 1;
            }
            return;
        }
        while e < BATCH {
            let token = self.token::<S>(from, e);
            if window.is_new(token) {
                let position = window.first + token;
                self.entries[e] = tokens.fresh(position, column);
                tokens.keep(position, tokens.pages(position), column, self.entries[e]);
            }
            e += 1;
        }
    }

    /// Keeps the new tokens, and writes the output if the window closes. Collective over the block; `shared` may be used
    /// again after the next barrier.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn finish<K: Number, S: Number>(
        mut self,
        batch: &Batch,
        tokens: &Tokens<K, S>,
        window: &Window,
        shared: Shared<f32>,
    ) {
        let step = BATCH as u32 * Place::<WARPS, TILE>::slots(S::PER_VECTOR);
        let mut softmax = Softmax::EMPTY;
        let mut from = 0;
        loop {
            self.read_new(tokens, window, from);
            if window.row.is_some() {
                // Nothing to rescale where the first batch is all.
                if step >= LONG {
                    softmax = Softmax::of::<S, BATCH>(&self.entries);
                } else {
                    softmax.add::<S, BATCH>(&self.entries);
                }
            }
            from += step;
            if from >= LONG {
                break;
            }
            self.read_kept(tokens, window, from);
        }
        if let Some(row) = window.row {
            self.place.write::<S>(batch, softmax, row, shared);
        }
    }
}

impl<const WARPS: u32, const TILE: u32> Place<WARPS, TILE> {
    /// Merges the threads' softmaxes and writes the output row.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn write<S: Number>(self, batch: &Batch, mut softmax: Softmax, row: u32, shared: Shared<f32>) {
        let lanes = Self::lanes(S::PER_VECTOR);
        softmax.merge_lanes::<S>(lanes);
        let left = |warp: u32, what: u32, channel: u32| (warp * LEFT + what) * TILE + channel;
        if thread::lane() < lanes {
            let channel = thread::lane() * S::PER_VECTOR as u32;
            let parts = [softmax.largest, softmax.sum, softmax.value];
            let mut part = 0;
            while part < LEFT as usize {
                let mut c = 0;
                while c < S::PER_VECTOR {
                    let numbers = parts[part];
                    let four = [numbers[c], numbers[c + 1], numbers[c + 2], numbers[c + 3]];
                    shared.set4(left(thread::warp(), part as u32, channel + c as u32), four);
                    c += 4;
                }
                part += 1;
            }
        }
        block::sync();

        let tile = self.column - thread::index() % lanes * S::PER_VECTOR as u32;
        let mut channel = thread::index();
        while channel < TILE {
            let mut largest = f32::NEG_INFINITY;
            let mut warp = 0;
            while warp < WARPS {
                largest = largest.max(shared.get(left(warp, 0, channel)));
                warp += 1;
            }
            let base = base(largest);
            let (mut sum, mut value) = (0.0, 0.0);
            let mut warp = 0;
            while warp < WARPS {
                let weight = weight(shared.get(left(warp, 0, channel)), base);
                sum += shared.get(left(warp, 1, channel)) * weight;
                value += shared.get(left(warp, 2, channel)) * weight;
                warp += 1;
            }
            write_number(batch, row, tile + channel, mean(value, sum));
            channel += WARPS * warp::SIZE;
        }
    }
}

/// Writes a number of the output.
#[inline(always)]
fn write_number(batch: &Batch, row: u32, column: u32, number: f32) {
    let index = row as usize * batch.out_pitch as usize + column as usize;
    let len = batch.rows as usize * batch.out_pitch as usize;
    if batch.out_bf16 {
        // SAFETY: the launcher promises `rows` rows, and `row` is one of the request's; one thread writes each number.
        let out = unsafe { Halves::from_raw(batch.out.cast(), len) };
        out.set(index, bf16_pair(number, 0.0) as u16);
    } else {
        // SAFETY: as above.
        let out = unsafe { Global::from_raw(batch.out.cast::<f32>(), len) };
        out.set(index, number);
    }
}

/// The block's shared memory for [`Reading::finish`].
#[inline(always)]
pub fn shared(warps: u32, tile: u32) -> Shared<f32> {
    // SAFETY: the launch has the bytes that the configuration asks for; between two uses there is a barrier.
    unsafe { Carve::dynamic().array(shared_bytes(warps, tile) / 4) }
}
