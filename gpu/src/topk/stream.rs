//! A slice of a row on its way from memory: a tile is looked at while others are being copied to shared memory.
//!
//! A thread copies what it looks at itself, so that it waits for its own copies only, and for no other thread.
//! What it is interested in, it reads again where it is, by a number that is known at run time: registers have no
//! addresses. (The asynchronous copies of compute capability 8.0, in the usual pipeline of several stages.)

use core::marker::PhantomData;

use dsa_simt::{Carve, Shared, copies, opaque, reciprocal, thread, truncate, warp};

use super::bins::THREADS;
use super::element::{Element, VECTOR_WORDS};
use super::scores::{Scores, Share, index};

/// Vectors of a thread in a tile.
pub const SHARE: usize = 2;
/// Vectors of a tile.
const TILE: u32 = SHARE as u32 * THREADS;
/// Words of a tile in shared memory: its vectors in their order.
const TILE_WORDS: u32 = TILE * VECTOR_WORDS;
/// Numbers of tiles that may be on their way or looked at: [`copies::wait`] must know when it is compiled. Two keep the
/// memory busy with two blocks on a multiprocessor; eight with one block, and while it does something else.
pub const DEPTHS: [u32; 3] = [1, 2, 8];

/// Tiles of a long slice that are copied while something else is read.
const EARLY: u32 = 2;
/// Vectors that a warp copies together: slices have multiples of so many, so that they begin with a line of memory if their
/// row does.
pub const TOGETHER: u32 = warp::SIZE;

/// Words of a line of shared memory: what a warp copies then lies in four of them, and not in five.
const LINE: u32 = 32;

/// Words of shared memory for so many tiles.
const fn words(tiles: u32) -> u32 {
    tiles * TILE_WORDS
}

/// Words of shared memory that [`Room::carve`] takes for so many tiles, wherever it begins.
pub const fn room_words(tiles: u32) -> u32 {
    LINE + words(tiles)
}

/// Shared memory for the tiles of a stream.
#[derive(Clone, Copy)]
pub struct Room(Shared<u32>);

impl Room {
    /// Takes room for as many tiles as `carve` has left, of [`DEPTHS`].
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`room_words`]`(1)` words at least.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        carve.align(4 * LINE);
        let has_room = |tiles| carve.words_left() >= words(tiles);
        let [shallow, usual, deep] = DEPTHS;
        let tiles = if has_room(deep) {
            deep
        } else if has_room(usual) {
            usual
        } else {
            shallow
        };
        // SAFETY: passed on to the caller.
        Self(unsafe { carve.array(words(tiles)) })
    }

    /// Its words, when no tile is on its way or looked at any more.
    #[inline(always)]
    pub fn words(self) -> Shared<u32> {
        self.0
    }

    /// Whether it has as many tiles as there may be: the block has its multiprocessor for itself then.
    #[inline(always)]
    pub fn is_deep(self) -> bool {
        self.0.len() == words(DEPTHS[2])
    }

    /// Number of vectors, a power of two.
    #[inline(always)]
    fn vectors(self) -> u32 {
        const {
            assert!(DEPTHS[0].is_power_of_two() && DEPTHS[1].is_power_of_two() && DEPTHS[2].is_power_of_two())
        };
        self.0.len() / VECTOR_WORDS
    }
}

/// Vectors of each of `slices` slices of a row of `vectors`, but for the last ones, which may have fewer: a multiple of
/// [`TOGETHER`].
#[inline(always)]
pub fn share(vectors: u32, slices: u32) -> u32 {
    // An integer division would take longer. Too large by 2^-20, so that it is not too small for all the rounding.
    let quotient = truncate(vectors as f32 * reciprocal(slices as f32) * (1.0 + 1.0 / (1 << 20) as f32));
    (quotient + u32::from(quotient * slices < vectors)).next_multiple_of(TOGETHER)
}

/// A slice whose first tiles are on their way.
#[derive(Clone, Copy)]
pub struct Stream<E: Element> {
    row: Scores<E>,
    room: Room,
    /// The first vector of the slice, and the one behind it.
    first: u32,
    end: u32,
}

impl<E: Element> Stream<E> {
    /// The vectors `first..end` of `row`.
    #[inline(always)]
    pub fn new(row: Scores<E>, first: u32, end: u32, room: Room) -> Self {
        Self { row, room, first, end }
    }

    /// Begins to copy the first tiles.
    #[inline(always)]
    pub fn begin(&self) {
        self.begin_some(0, self.room.vectors());
    }

    /// Begins to copy as many of the first tiles as the time until they are looked at is for: all there is room for if these
    /// are the whole slice, otherwise a few, and [`begin_rest`](Self::begin_rest) the others. What is copied before
    /// something else is read holds that up.
    #[inline(always)]
    pub fn begin_early(&self) {
        self.begin_some(0, self.early());
    }

    /// Begins to copy those of the first tiles that [`begin_early`](Self::begin_early) has left.
    #[inline(always)]
    pub fn begin_rest(&self) {
        self.begin_some(self.early(), self.room.vectors());
    }

    /// Vectors that are copied early.
    #[inline(always)]
    fn early(&self) -> u32 {
        let all = self.room.vectors();
        if self.end.saturating_sub(self.first) > all { all.min(EARLY * TILE) } else { all }
    }

    /// Begins to copy the tiles that start so many vectors behind the start of the slice, and as many before others.
    #[inline(always)]
    fn begin_some(&self, from: u32, to: u32) {
        let tiles = self.tiles();
        let begins_whole = self.first > 0 || self.row.first_place() == 0;
        let mut copied = from;
        if begins_whole {
            let whole = (tiles.whole_vectors & !(TILE - 1)).min(to);
            while copied < whole {
                tiles.copy_whole(copied);
                copies::group();
                copied += TILE;
            }
        }
        while copied < to.min(tiles.vectors) {
            tiles.copy(copied, copied > 0 || begins_whole);
            copied += TILE;
        }
        // Nothing, but it is waited for by number.
        while copied < to {
            copies::group();
            copied += TILE;
        }
    }

    /// The tiles, from the first one on, which have begun to come.
    #[inline(always)]
    pub fn tiles(&self) -> Tiles<E> {
        let Self { row, room, first, end } = *self;
        Tiles {
            row,
            room,
            first,
            vectors: end.saturating_sub(first),
            whole_vectors: end.min(row.whole_vectors()).saturating_sub(first),
            done: 0,
        }
    }
}

/// The tiles of a slice, one after the other.
pub struct Tiles<E: Element> {
    row: Scores<E>,
    room: Room,
    /// The first vector of the slice.
    first: u32,
    /// Vectors of the slice, and those that do not end behind the row.
    vectors: u32,
    whole_vectors: u32,
    /// Vectors before the tile that is looked at.
    done: u32,
}

impl<E: Element> Tiles<E> {
    /// Whether there is a tile to be looked at.
    #[inline(always)]
    pub fn has_tile(&self) -> bool {
        self.done < self.vectors
    }

    /// Whether so many are on their way that two should be looked at together: fewer waits for each element. The same for
    /// all threads.
    #[inline(always)]
    pub fn come_in_pairs(&self) -> bool {
        self.has_room_for(DEPTHS[2])
    }

    /// Whether there are two.
    #[inline(always)]
    pub fn has_pair(&self) -> bool {
        self.done + TILE < self.vectors
    }

    /// Whether the room has so many tiles; the same for all threads.
    #[inline(always)]
    fn has_room_for(&self, tiles: u32) -> bool {
        self.room.0.len() == words(tiles)
    }

    /// This thread's share of that tile, when it has arrived; of tiles that come in pairs, of the last one.
    #[inline(always)]
    pub fn tile(&self) -> Tile<E, SHARE> {
        if self.has_room_for(DEPTHS[1]) {
            copies::wait::<{ DEPTHS[1] - 1 }>();
        } else {
            const { assert!(DEPTHS[0] == 1) };
            copies::wait::<0>();
        }
        self.arrived()
    }

    /// This thread's share of a pair of tiles, when both have arrived. Advance twice after it.
    #[inline(always)]
    pub fn pair(&self) -> Tile<E, { 2 * SHARE }> {
        const { assert!(DEPTHS[2].is_multiple_of(2)) };
        copies::wait::<{ DEPTHS[2] - 2 }>();
        self.arrived()
    }

    /// This thread's share of what has arrived: tiles follow each other, and a pair does not end behind the room.
    #[inline(always)]
    fn arrived<const M: usize>(&self) -> Tile<E, M> {
        let place = self.place(self.done);
        let mut vectors = [[0; 4]; M];
        for v in 0..M {
            vectors[v] = self.room.0.get4(place + v as u32 * THREADS * VECTOR_WORDS);
        }
        let start = self.start(self.done);
        Tile { share: Share { vectors, start }, room: self.room, place, element: PhantomData }
    }

    /// Where the thread has its first vector of the tile that starts so many vectors behind the start of the slice.
    #[inline(always)]
    fn place(&self, tile: u32) -> u32 {
        ((tile & (self.room.vectors() - 1)) + opaque(thread::index())) * VECTOR_WORDS
    }

    /// Index in the row of the thread's first score of that tile; wraps below zero.
    #[inline(always)]
    fn start(&self, tile: u32) -> u32 {
        let own = self.first + tile + opaque(thread::index());
        (own * E::PER_VECTOR).wrapping_sub(self.row.first_place())
    }

    /// Goes on to the next tile, and begins to copy another to where this one was.
    #[inline(always)]
    pub fn advance(&mut self) {
        // What was read of this one, the thread has used: no copy can overtake the reading.
        self.copy(self.done + self.room.vectors(), true);
        self.done += TILE;
    }

    /// Begins to copy the tile that starts so many vectors behind the start of the slice, all of which lie in the row.
    #[inline(always)]
    fn copy_whole(&self, tile: u32) {
        let Self { row, room: Room(room), .. } = *self;
        let (start, place) = (self.start(tile), self.place(tile));
        for v in 0..SHARE as u32 {
            // No index wraps here: one address, and distances from it.
            let index = start as usize + (v * THREADS * E::PER_VECTOR) as usize;
            E::copy_vector(row.array(), index, room, place + v * (THREADS * VECTOR_WORDS));
        }
    }

    /// The same for any tile, one that may not start before the row if it `begins_whole`; a group of copies.
    #[inline(always)]
    fn copy(&self, tile: u32, begins_whole: bool) {
        let Self { row, room: Room(room), vectors, whole_vectors, .. } = *self;
        let start = self.start(tile);
        let place = self.place(tile);
        let place_of = |v: u32| place + v * (THREADS * VECTOR_WORDS);
        // The same for all threads.
        if begins_whole && tile + TILE <= whole_vectors {
            self.copy_whole(tile);
        } else if tile < vectors {
            let own = tile + opaque(thread::index());
            for v in 0..SHARE as u32 {
                let index = index::<E>(start, v * E::PER_VECTOR);
                let is_mine = own + v * THREADS < vectors;
                if is_mine && row.is_whole(index) {
                    E::copy_vector(row.array(), index as usize, room, place_of(v));
                } else {
                    let vector = if is_mine { row.partial_vector(index) } else { [E::NO_SCORES; 4] };
                    room.set4(place_of(v), vector);
                }
            }
        }
        copies::group();
    }
}

/// A thread's share of a tile that has arrived, of `M` vectors.
pub struct Tile<E: Element, const M: usize> {
    /// The scores.
    pub share: Share<M>,
    room: Room,
    place: u32,
    element: PhantomData<E>,
}

impl<E: Element, const M: usize> Tile<E, M> {
    /// Score `number` of the share, until the next tile.
    #[inline(always)]
    pub fn score(&self, number: u32) -> f32 {
        let vector = number / E::PER_VECTOR;
        let word = number / E::PER_WORD + vector * ((THREADS - 1) * VECTOR_WORDS);
        let word = self.room.0.get(self.place + word);
        E::score(word, number % E::PER_WORD)
    }
}
