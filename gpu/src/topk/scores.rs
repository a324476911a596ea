//! One row of scores, read by a block in 16-byte vectors wherever the row starts.
//!
//! The vectors are those of memory: aligned to 16 bytes, the first and the last one perhaps only partly in
//! the row. Such a vector is read score by score, so that no address outside the row's valid prefix is
//! touched. Where there is no score, there is NaN, which no comparison selects.
//!
//! The *place* of a score is its distance from the start of the first vector.

use core::marker::PhantomData;

use dsa_simt::{opaque, thread};

use super::bins::THREADS;
use super::element::{Element, VECTOR_WORDS};
use super::key::{ABSENT, key, number};
use super::refine::KeyRange;
use super::source::{Source, Tile, Visitor};

/// Vectors of a thread's share of a tile of a row that is streamed: four in flight keep the memory busy.
pub const SHARE: usize = 4;

/// The valid prefix of a row.
#[derive(Clone, Copy)]
pub struct Scores<E: Element> {
    scores: E::Array,
}

/// A thread's share of a tile: `M` vectors, [`THREADS`] vectors apart.
pub struct Share<const M: usize> {
    /// The vectors; NaN where there is no score.
    pub vectors: [[u32; 4]; M],
    /// Index in the row of the first score; wraps below zero.
    pub start: u32,
}

/// Index in the row of score `number` of a share that begins at index `start`.
#[inline(always)]
pub fn index<E: Element>(start: u32, number: u32) -> u32 {
    start.wrapping_add(number + number / E::PER_VECTOR * ((THREADS - 1) * E::PER_VECTOR))
}

/// `word` with score `number` replaced by the lowest score of `other`.
#[inline(always)]
fn replace<E: Element>(word: u32, number: u32, other: u32) -> u32 {
    let width = const { u32::BITS / E::PER_WORD };
    let score = u32::MAX >> (u32::BITS - width) << (number * width);
    word & !score | other << (number * width) & score
}

impl<const M: usize> Share<M> {
    /// The first `N` vectors, with no score from index `end` of the row on.
    #[inline(always)]
    pub fn first_before<E: Element, const N: usize>(&self, end: u32) -> Share<N> {
        const { assert!(N <= M) };
        let mut vectors = [[E::NO_SCORES; 4]; N];
        vectors.copy_from_slice(&self.vectors[..N]);
        let start = self.start;
        let last = index::<E>(start, N as u32 * E::PER_VECTOR - 1);
        if last >= end {
            for v in 0..N as u32 {
                for w in 0..VECTOR_WORDS {
                    for number in 0..E::PER_WORD {
                        let index = index::<E>(start, v * E::PER_VECTOR + w * E::PER_WORD + number);
                        let word = &mut vectors[v as usize][w as usize];
                        // What lies before the row was not read.
                        if index.cast_signed() >= end.cast_signed() {
                            *word = replace::<E>(*word, number, E::NO_SCORES);
                        }
                    }
                }
            }
        }
        Share { vectors, start }
    }

    /// The scores of all vectors that `pass`, as bits: bit `i` is the score at [`index`]` i`.
    #[inline(always)]
    pub fn bits<E: Element>(&self, pass: impl Fn(f32) -> bool) -> u32 {
        const { assert!(M as u32 * E::PER_VECTOR <= u32::BITS) };
        let mut bits = 0;
        for v in 0..M {
            for w in 0..VECTOR_WORDS {
                for number in 0..E::PER_WORD {
                    let bit = v as u32 * E::PER_VECTOR + w * E::PER_WORD + number;
                    bits |= u32::from(pass(E::score(self.vectors[v][w as usize], number))) << bit;
                }
            }
        }
        bits
    }
}

impl<E: Element> Scores<E> {
    /// The view of `scores`, which is exactly the valid prefix.
    #[inline(always)]
    pub fn new(scores: E::Array) -> Self {
        Self { scores }
    }

    /// Number of scores.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> u32 {
        E::len(self.scores)
    }

    /// Number of vectors, partial ones included.
    #[inline(always)]
    pub fn vectors(self) -> u32 {
        (self.first_place() + self.len()).div_ceil(E::PER_VECTOR)
    }

    /// The vector behind the last one that does not end behind the row.
    #[inline(always)]
    pub fn whole_vectors(self) -> u32 {
        (self.first_place() + self.len()) / E::PER_VECTOR
    }

    /// Whether a vector that starts at index `start` lies wholly in the row.
    #[inline(always)]
    pub fn is_whole(self, start: u32) -> bool {
        start < self.len().saturating_sub(E::PER_VECTOR - 1)
    }

    /// Places of all vectors.
    #[inline(always)]
    pub fn places(self) -> u32 {
        self.vectors() * E::PER_VECTOR
    }

    /// The place of the first score: as many scores of the first vector lie before the row.
    #[inline(always)]
    pub fn first_place(self) -> u32 {
        // Computed where it is used: opaque, or it would hold a register from the start on.
        opaque(E::address(self.scores) as u32) / const { 4 / E::PER_WORD } % E::PER_VECTOR
    }

    /// A score.
    #[inline(always)]
    pub fn get(self, index: u32) -> f32 {
        E::score(E::word(self.scores, index), 0)
    }

    /// The scores themselves.
    #[inline(always)]
    pub fn array(self) -> E::Array {
        self.scores
    }

    /// All vectors.
    #[inline(always)]
    pub fn whole(self) -> Slice<E> {
        Slice { row: self, first: 0, end: self.vectors() }
    }

    /// A vector that lies wholly in the row.
    #[inline(always)]
    pub fn vector(self, vector: u32) -> [u32; 4] {
        E::vector(self.scores, vector * E::PER_VECTOR - self.first_place())
    }

    /// A vector of which only some scores lie in the row, the first of all at index `start`.
    #[inline(always)]
    pub fn partial_vector(self, start: u32) -> [u32; 4] {
        let mut words = [E::NO_SCORES; 4];
        for w in 0..VECTOR_WORDS {
            for number in 0..E::PER_WORD {
                let index = start.wrapping_add(w * E::PER_WORD + number);
                if index < self.len() {
                    let word = &mut words[w as usize];
                    *word = replace::<E>(*word, number, E::word(self.scores, index));
                }
            }
        }
        words
    }

    /// This thread's share of the tile that starts at vector `first`, as far as it lies before vector `end`:
    /// the first `count` vectors of it, known when this is compiled.
    #[inline(always)]
    pub fn share<const M: usize>(self, first: u32, end: u32, count: usize) -> Share<M> {
        let own = first + opaque(thread::index());
        let start = (own * E::PER_VECTOR).wrapping_sub(self.first_place());
        let mut vectors = [[E::NO_SCORES; 4]; M];
        // The same for all threads.
        let tile = count as u32 * THREADS;
        let inside = (first > 0 || self.first_place() == 0) && end.saturating_sub(first) >= tile;
        if inside && (first + tile) * E::PER_VECTOR <= self.first_place() + self.len() {
            for v in 0..count {
                vectors[v] = self.vector(own + v as u32 * THREADS);
            }
            return Share { vectors, start };
        }
        let last_whole = self.len().saturating_sub(E::PER_VECTOR - 1);
        let start_of = |v: usize| index::<E>(start, v as u32 * E::PER_VECTOR);
        let is_mine = |v: usize| own + (v as u32) * THREADS < end;
        for v in 0..count {
            if is_mine(v) && start_of(v) < last_whole {
                vectors[v] = E::vector(self.scores, start_of(v));
            }
        }
        // Outside the loop above, whose loads are in flight together.
        for v in 0..count {
            let begins = start_of(v).wrapping_add(E::PER_VECTOR) < E::PER_VECTOR;
            let ends = start_of(v).wrapping_sub(last_whole) < E::PER_VECTOR;
            if is_mine(v) && (begins || ends) {
                vectors[v] = self.partial_vector(start_of(v));
            }
        }
        Share { vectors, start }
    }
}

/// The whole row, read from memory at every visit.
impl<E: Element> Source for Scores<E> {
    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        self.whole().visit(visitor);
    }
}

/// Some of the vectors of a row.
#[derive(Clone, Copy)]
pub struct Slice<E: Element> {
    /// The row.
    pub row: Scores<E>,
    /// Its first vector.
    pub first: u32,
    /// The vector behind its last one, of those that the row has.
    pub end: u32,
}

impl<E: Element> Slice<E> {
    /// This thread's share of the first vectors of the slice: all of them, if it is one for [`Keys`].
    #[inline(always)]
    pub fn share(self) -> KeyShare {
        self.row.share(self.first, self.end, const { key_vectors::<E>() })
    }

    /// The index in the row of its first score, if it has one.
    #[inline(always)]
    pub fn first_index(self) -> u32 {
        (self.first * E::PER_VECTOR).saturating_sub(self.row.first_place())
    }

    /// The index in the row behind its last score.
    #[inline(always)]
    pub fn end_index(self) -> u32 {
        (self.end * E::PER_VECTOR - self.row.first_place()).min(self.row.len())
    }
}

/// A thread's share of a slice of which the keys are looked at.
pub type KeyShare = Share<SHARE>;

/// Vectors of it: as many scores for every type, for registers are scarce then.
#[inline(always)]
const fn key_vectors<E: Element>() -> usize {
    SHARE / E::PER_WORD as usize
}

impl KeyShare {
    /// The keys of score `number` of each word; [`ABSENT`] where there is none before index `end` of the row.
    #[inline(always)]
    fn keys<E: Element>(&self, number: u32, end: u32) -> [u32; 4 * SHARE] {
        let mut keys = [ABSENT; 4 * SHARE];
        for i in 0..4 * const { key_vectors::<E>() } {
            let word = i as u32;
            let place = word / VECTOR_WORDS * E::PER_VECTOR + word % VECTOR_WORDS * E::PER_WORD + number;
            if index::<E>(self.start, place) < end {
                keys[i] = key(E::score(self.vectors[i / 4][i % 4], number));
            }
        }
        keys
    }
}

/// Such keys with their indices; the share begins at index `start`.
#[inline(always)]
fn tile<E: Element>(keys: [u32; 4 * SHARE], start: u32, number: u32) -> Tile<{ 4 * SHARE }> {
    Tile { keys, start: start.wrapping_add(number), step: E::PER_WORD, stride: THREADS * E::PER_VECTOR }
}

/// Read from memory at every visit.
impl<E: Element> Source for Slice<E> {
    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        let Self { row, end, .. } = *self;
        let count = const { key_vectors::<E>() };
        let mut first = self.first;
        while first < end {
            // Opaque: one counter, not one for each address that follows it.
            let share: KeyShare = row.share(opaque(first), end, count);
            for number in 0..E::PER_WORD {
                visitor.visit(tile::<E>(share.keys::<E>(number, self.end_index()), share.start, number));
            }
            first += count as u32 * THREADS;
        }
    }
}

/// The scores of a slice in registers, as keys for comparing with those of a range.
pub struct Keys<E: Element> {
    /// Those of the first score of each word, and of the second if a word has two.
    keys: [[u32; 4 * SHARE]; 2],
    start: u32,
    element: PhantomData<E>,
}

impl<E: Element> Keys<E> {
    /// Places of the longest slice.
    pub const MOST_PLACES: u32 = key_vectors::<E>() as u32 * THREADS * E::PER_VECTOR;

    /// Of a thread's share of such a slice, as it [was read](Slice::share), for comparing with keys of numbers above the lowest.
    #[inline(always)]
    pub fn beside(range: KeyRange, share: &KeyShare) -> Self {
        let keys = |of_word| {
            let mut numbers = [f32::NEG_INFINITY; 4 * SHARE];
            for i in 0..4 * const { key_vectors::<E>() } {
                numbers[i] = number(E::score(share.vectors[i / 4][i % 4], of_word));
            }
            range.keys_beside(numbers)
        };
        Self { keys: [keys(0), keys(E::PER_WORD - 1)], start: share.start, element: PhantomData }
    }
}

impl<E: Element> Source for Keys<E> {
    const IS_HELD: bool = true;

    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        visitor.visit(tile::<E>(self.keys[0], self.start, 0));
        // Not a loop: registers have no addresses.
        if const { E::PER_WORD > 1 } {
            visitor.visit(tile::<E>(self.keys[1], self.start, 1));
        }
    }
}
