//! A slice of a row on its way from memory: a tile is looked at while others are being copied to shared memory.
//!
//! A thread copies what it looks at itself, so that it waits for its own copies only, and for no other thread.
//! What it is interested in, it reads again where it is, by a number that is known at run time: registers have no
//! addresses. (The asynchronous copies of compute capability 8.0, in the usual pipeline of several stages.)

use core::marker::PhantomData;

use dsa_simt::{Carve, Shared, copies, opaque, thread};

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

    /// Number of words.
    #[inline(always)]
    fn words(self) -> u32 {
        self.0.len()
    }
}

/// The tiles of a slice.
#[derive(Clone, Copy)]
pub struct Stream<E: Element> {
    row: Scores<E>,
    room: Room,
    /// The vector at which the tile that is looked at starts, and the one behind the slice.
    first: u32,
    end: u32,
    /// Where that tile is.
    place: u32,
}

impl<E: Element> Stream<E> {
    /// The vectors `first..end` of `row`.
    #[inline(always)]
    pub fn new(row: Scores<E>, first: u32, end: u32, room: Room) -> Self {
        Self { row, room, first, end, place: 0 }
    }

    /// Begins to copy the first tiles.
    #[inline(always)]
    pub fn begin(&self) {
        let mut copied = 0;
        while copied < self.room.words() {
            self.copy(self.first + copied / VECTOR_WORDS, copied, copied == 0);
            copied += TILE_WORDS;
        }
    }

    /// Whether there is a tile to be looked at.
    #[inline(always)]
    pub fn has_tile(&self) -> bool {
        self.first < self.end
    }

    /// Whether there are two, of many that are on their way: then they may be looked at together.
    #[inline(always)]
    pub fn has_pair(&self) -> bool {
        self.has_room_for(DEPTHS[2]) && self.first + TILE < self.end
    }

    /// Whether the room has so many tiles; the same for all threads.
    #[inline(always)]
    fn has_room_for(&self, tiles: u32) -> bool {
        self.room.words() == words(tiles)
    }

    /// This thread's share of that tile, when it has arrived.
    #[inline(always)]
    pub fn tile(&self) -> Tile<E, SHARE> {
        if self.has_room_for(DEPTHS[1]) {
            copies::wait::<{ DEPTHS[1] - 1 }>();
        } else if self.has_room_for(DEPTHS[2]) {
            copies::wait::<{ DEPTHS[2] - 1 }>();
        } else {
            copies::wait::<{ DEPTHS[0] - 1 }>();
        }
        self.arrived()
    }

    /// This thread's share of a pair of tiles, when both have arrived. The stream advances twice after it.
    #[inline(always)]
    pub fn pair(&self) -> Tile<E, { 2 * SHARE }> {
        const { assert!(DEPTHS[2].is_multiple_of(2)) };
        copies::wait::<{ DEPTHS[2] - 2 }>();
        self.arrived()
    }

    /// This thread's share of what has arrived: tiles follow each other, and a pair does not end behind the room.
    #[inline(always)]
    fn arrived<const M: usize>(&self) -> Tile<E, M> {
        let place = self.place + opaque(thread::index()) * VECTOR_WORDS;
        let mut vectors = [[0; 4]; M];
        for v in 0..M {
            vectors[v] = self.room.0.get4(place + v as u32 * THREADS * VECTOR_WORDS);
        }
        let own = self.first + opaque(thread::index());
        let start = (own * E::PER_VECTOR).wrapping_sub(self.row.first_place());
        Tile { share: Share { vectors, start }, room: self.room, place, element: PhantomData }
    }

    /// Goes on to the next tile, and begins to copy another to where this one was.
    #[inline(always)]
    pub fn advance(&mut self) {
        // What was read of this one, the thread has used: no copy can overtake the reading.
        self.copy(self.first + self.room.words() / VECTOR_WORDS, self.place, false);
        self.place += TILE_WORDS;
        if self.place == self.room.words() {
            self.place = 0;
        }
        self.first += TILE;
    }

    /// Begins to copy the tile that starts at vector `first` to `place`.
    #[inline(always)]
    fn copy(&self, first: u32, place: u32, may_be_first_of_row: bool) {
        let Self { row, room: Room(room), end, .. } = *self;
        let own = first + opaque(thread::index());
        let start = (own * E::PER_VECTOR).wrapping_sub(row.first_place());
        let place = place + opaque(thread::index()) * VECTOR_WORDS;
        let index_of = |v: u32| index::<E>(start, v * E::PER_VECTOR);
        let place_of = |v: u32| place + v * (THREADS * VECTOR_WORDS);
        // The same for all threads.
        let begins_whole = !may_be_first_of_row || first > 0 || row.first_place() == 0;
        if begins_whole && first + TILE <= end.min(row.whole_vectors()) {
            for v in 0..SHARE as u32 {
                E::copy_vector(row.array(), index_of(v), room, place_of(v));
            }
        } else if first < end {
            for v in 0..SHARE as u32 {
                let is_mine = own + v * THREADS < end;
                if is_mine && row.is_whole(index_of(v)) {
                    E::copy_vector(row.array(), index_of(v), room, place_of(v));
                } else {
                    let vector = if is_mine { row.partial_vector(index_of(v)) } else { [E::NO_SCORES; 4] };
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
    /// Score `number` of the share, until the stream advances.
    #[inline(always)]
    pub fn score(&self, number: u32) -> f32 {
        let vector = number / E::PER_VECTOR * (THREADS * VECTOR_WORDS);
        let word = self.room.0.get(self.place + vector + number % E::PER_VECTOR / E::PER_WORD);
        E::score(word, number % E::PER_WORD)
    }
}
