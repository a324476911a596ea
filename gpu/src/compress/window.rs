//! A window that does not overlap others, by a block: [`LONG`] tokens, one tile of channels after the other.
//!
//! The threads of a block are slots times lanes: a slot takes every so many-th token of the window, and a lane a vector of
//! the tile's channels. A request's tiles are shared among `parts` blocks, which take turns. For each tile:
//!
//! 1. Each thread looks up the pages of a batch of its tokens, all of them before it waits for one, and begins to read those
//!    that earlier launches kept. Where one batch is the window, its pages are looked up once for all tiles.
//! 2. Once the request's pages are known to be right, it reads the new ones of them from the rows of new tokens, and keeps
//!    them. With batches of one this is the serial walk of the origin.
//! 3. Lanes that have the same channels merge by shuffles.
//! 4. Each warp leaves maxima, sums and values in shared memory; a thread for each channel merges them and writes the output.
//!
//! No token is read that another thread of the launch writes: a new one comes from the rows of new tokens, rounded as it is
//! kept. The next tile is on its way while one is merged. Cost: the memory's time for the window, two round trips (table,
//! rows), a barrier for each tile.

use dsa_simt::{Carve, Shared, block, thread, warp};

use super::number::Number;
use super::softmax::{Softmax, base, mean, weight};
use super::tokens::{Entry, Place, Tokens};
use super::{Batch, LONG};

/// Numbers that a warp leaves for each channel: maximum, sum, value.
const LEFT: u32 = 3;

/// Numbers that the warps of a block leave for a tile.
const fn left(warps: u32, tile: u32) -> u32 {
    warps * LEFT * tile
}

/// Bytes of shared memory that blocks of `warps` warps with tiles of `tile` channels need: for two tiles, as some threads
/// may have come to the next one when others still read what was left of the last.
pub const fn shared_bytes(warps: u32, tile: u32) -> u32 {
    2 * left(warps, tile) * 4
}

/// The block's shared memory for [`Reading::finish`].
#[inline(always)]
pub fn shared(warps: u32, tile: u32) -> Shared<f32> {
    // SAFETY: the launch has the bytes that the configuration asks for; between two uses there is a barrier.
    unsafe { Carve::dynamic().array(2 * left(warps, tile)) }
}

/// The positions that a request with new tokens from `start` to `len` reads: none before the new ones if the first of its
/// windows does not close.
#[inline(always)]
pub fn reads_from(start: u32, len: u32) -> u32 {
    let first = start / LONG * LONG;
    if len >= first + LONG { first } else { start }
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

/// A thread's tokens of a window, `BATCH` at a time: a vector of their rows' channels, or what of it is on its way.
///
/// The first batch is on its way before it is known whether the request's pages are all right. With `MANY`, windows of new
/// tokens alone are the usual case: they are read without a question for each token.
#[derive(Clone, Copy)]
pub struct Reading<const WARPS: u32, const TILE: u32, const BATCH: usize, const MANY: bool> {
    /// Which of the tokens that the block works on at a time are the thread's.
    slot: u32,
    /// The thread's first channel.
    column: u32,
    places: [Place; BATCH],
    entries: [Entry; BATCH],
    missing: bool,
}

impl<const WARPS: u32, const TILE: u32, const BATCH: usize, const MANY: bool>
    Reading<WARPS, TILE, BATCH, MANY>
{
    /// Threads that share a token.
    const fn lanes<S: Number>() -> u32 {
        TILE / S::PER_VECTOR as u32
    }

    /// Tokens that the block works on at a time, one for each thread that has the same channels.
    const fn slots<S: Number>() -> u32 {
        WARPS * warp::SIZE / Self::lanes::<S>()
    }

    /// The thread's first channel of a tile.
    #[inline(always)]
    fn channel<S: Number>() -> u32 {
        thread::index() % Self::lanes::<S>() * S::PER_VECTOR as u32
    }

    /// The first channel of the tile.
    #[inline(always)]
    fn tile<S: Number>(&self) -> u32 {
        self.column - Self::channel::<S>()
    }

    /// Tokens of a batch of all threads.
    const fn step<S: Number>() -> u32 {
        BATCH as u32 * Self::slots::<S>()
    }

    /// Begins to read a window's tokens, the first tile of part `part` of the block's request.
    #[inline(always)]
    pub fn begin<K: Number, S: Number>(tokens: &Tokens<K, S>, window: &Window, part: u32) -> Self {
        let mut reading = Self {
            slot: thread::index() / Self::lanes::<S>(),
            column: part * TILE + Self::channel::<S>(),
            places: [Place::NONE; BATCH],
            entries: [Entry::nothing::<S>(); BATCH],
            missing: false,
        };
        reading.look_up(tokens, window, 0);
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
        from + e as u32 * Self::slots::<S>() + self.slot
    }

    /// Looks up the places of a batch, all of them before it waits for one.
    #[inline(always)]
    fn look_up<K: Number, S: Number>(&mut self, tokens: &Tokens<K, S>, window: &Window, from: u32) {
        let mut e = 0;
        while e < BATCH {
            let token = self.token::<S>(from, e);
            self.places[e] = if window.has(token) { tokens.place(window.first + token) } else { Place::NONE };
            e += 1;
        }
    }

    /// Begins to read what earlier launches kept of a batch. With many new tokens there is enough under way without a
    /// prefetch of those.
    #[inline(always)]
    fn read_kept<K: Number, S: Number>(&mut self, tokens: &Tokens<K, S>, window: &Window, from: u32) {
        let mut e = 0;
        while e < BATCH {
            let token = self.token::<S>(from, e);
            if !MANY && BATCH > 1 && window.is_new(token) {
                tokens.prefetch(window.first + token, self.column);
            }
            let holds = tokens.holds(self.places[e]);
            self.missing |= window.has(token) & !holds;
            self.entries[e] = if token < window.kept && holds {
                tokens.kept(self.places[e], self.column)
            } else {
                Entry::nothing::<S>()
            };
            e += 1;
        }
    }

    /// Reads the new tokens of a batch, and keeps them. With `MANY`, their places are looked up once more: held, they would
    /// cost registers that the rows need.
    #[inline(always)]
    fn read_new<K: Number, S: Number>(&mut self, tokens: &Tokens<K, S>, window: &Window, from: u32) {
        let mut e = 0;
        if MANY && window.new == (0, LONG) {
            while e < BATCH {
                let position = window.first + self.token::<S>(from, e);
                self.entries[e] = tokens.fresh(position, self.column);
                e += 1;
            }
            let mut e = 0;
            while e < BATCH {
                let position = window.first + self.token::<S>(from, e);
                tokens.keep(tokens.place(position), self.column, self.entries[e]);
                e += 1;
            }
            return;
        }
        while e < BATCH {
            let token = self.token::<S>(from, e);
            if window.is_new(token) {
                let position = window.first + token;
                self.entries[e] = tokens.fresh(position, self.column);
                let place = if MANY { tokens.place(position) } else { self.places[e] };
                tokens.keep(place, self.column, self.entries[e]);
            }
            e += 1;
        }
    }

    /// Keeps the new tokens of the part's tiles, and writes the output if the window closes. Collective over the block;
    /// `shared` may be used again after the next barrier.
    ///
    /// The kept tokens of a tile are on their way while those of the tile before are merged.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn finish<K: Number, S: Number>(
        mut self,
        batch: &Batch,
        tokens: &Tokens<K, S>,
        window: &Window,
        shared: Shared<f32>,
    ) {
        let mut free = 0;
        loop {
            let softmax = self.reduce(tokens, window);
            if window.row.is_some() {
                Self::leave::<S>(softmax, shared, free);
            }
            let tile = self.tile::<S>();
            let next = tile + batch.parts * TILE;
            if next < batch.head_dim {
                self.column += batch.parts * TILE;
                if Self::step::<S>() < LONG {
                    self.look_up(tokens, window, 0);
                }
                self.read_kept(tokens, window, 0);
            }
            if let Some(row) = window.row {
                block::sync();
                Self::merge(batch, row, tile, shared, free);
            }
            if next >= batch.head_dim {
                return;
            }
            free = left(WARPS, TILE) - free;
        }
    }

    /// Keeps the new tokens of a tile; and the softmax of the thread's tokens, if the window closes.
    #[inline(always)]
    fn reduce<K: Number, S: Number>(&mut self, tokens: &Tokens<K, S>, window: &Window) -> Softmax {
        let mut softmax = Softmax::EMPTY;
        let mut from = 0;
        loop {
            self.read_new(tokens, window, from);
            if window.row.is_some() {
                // Nothing to rescale where the first batch is all.
                if Self::step::<S>() >= LONG {
                    softmax = Softmax::of::<S, BATCH>(&self.entries);
                } else {
                    softmax.add::<S, BATCH>(&self.entries);
                }
            }
            from += Self::step::<S>();
            if from >= LONG {
                return softmax;
            }
            self.look_up(tokens, window, from);
            self.read_kept(tokens, window, from);
        }
    }

    /// Where a warp leaves a number of a channel in shared memory, from number `free` on.
    #[inline(always)]
    fn place_of(free: u32, warp: u32, number: u32, channel: u32) -> u32 {
        free + (warp * LEFT + number) * TILE + channel
    }

    /// Merges the softmaxes of each warp and leaves them for [`merge`](Self::merge).
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn leave<S: Number>(mut softmax: Softmax, shared: Shared<f32>, free: u32) {
        softmax.merge_lanes::<S>(Self::lanes::<S>());
        if thread::lane() >= Self::lanes::<S>() {
            return;
        }
        let left = [softmax.largest, softmax.sum, softmax.value];
        let mut number = 0;
        while number < LEFT {
            let mut c = 0;
            while c < S::PER_VECTOR {
                let numbers = left[number as usize];
                let four = [numbers[c], numbers[c + 1], numbers[c + 2], numbers[c + 3]];
                let channel = Self::channel::<S>() + c as u32;
                shared.set4(Self::place_of(free, thread::warp(), number, channel), four);
                c += 4;
            }
            number += 1;
        }
    }

    /// Merges what the warps left, a thread for each channel, and writes a tile of an output row.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn merge(batch: &Batch, row: u32, tile: u32, shared: Shared<f32>, free: u32) {
        let mut channel = thread::index();
        while channel < TILE {
            let left = |warp, number| shared.get(Self::place_of(free, warp, number, channel));
            let mut largest = f32::NEG_INFINITY;
            let mut warp = 0;
            while warp < WARPS {
                largest = largest.max(left(warp, 0));
                warp += 1;
            }
            let base = base(largest);
            let (mut sum, mut value) = (0.0, 0.0);
            let mut warp = 0;
            while warp < WARPS {
                let weight = weight(left(warp, 0), base);
                sum += left(warp, 1) * weight;
                value += left(warp, 2) * weight;
                warp += 1;
            }
            batch.write(row, tile + channel, mean(value, sum));
            channel += WARPS * warp::SIZE;
        }
    }
}
