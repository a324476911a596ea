//! One row of scores, read by a block in 16-byte vectors wherever the row starts.
//!
//! The vectors are those of memory: aligned to 16 bytes, the first and the last one perhaps only partly in
//! the row. Such a vector is read element by element, so that no address outside the row's valid prefix is
//! touched. Lanes without an element hold NaN, which no comparison selects.

use dsa_simt::{Global, half_pair, opaque, thread};

use super::bins::THREADS;
use super::key::{ABSENT, key};
use super::resident::{Pairs, Places};
use super::source::{Source, Tile, Visitor};

/// Elements of a vector.
pub const VECTOR: u32 = 4;
/// Elements of a thread's share of a tile of a row that is streamed: four vectors in flight keep the memory
/// busy.
pub const SHARE: usize = 16;

/// The valid prefix of a row.
#[derive(Clone, Copy)]
pub struct Scores {
    scores: Global<f32>,
    /// Elements of the first vector that lie before the row.
    shift: u32,
}

/// Vectors of a tile of which each thread has `n` elements.
pub const fn tile_vectors(n: usize) -> u32 {
    THREADS * n as u32 / VECTOR
}

/// A thread's share of a tile: `N` elements.
pub struct Share<const N: usize> {
    /// The scores; NaN where there is no element.
    pub scores: [f32; N],
    /// Index in the row of the first of them; wraps below zero.
    pub start: u32,
}

impl<const N: usize> Share<N> {
    /// Index in the row of element `element` of the share.
    #[inline(always)]
    pub fn index(&self, element: u32) -> u32 {
        index(self.start, element)
    }
}

#[inline(always)]
fn index(start: u32, element: u32) -> u32 {
    start.wrapping_add(element / VECTOR * (THREADS * VECTOR) + element % VECTOR)
}

impl Scores {
    /// The view of `scores`, which is exactly the valid prefix.
    #[inline(always)]
    pub fn new(scores: Global<f32>) -> Self {
        Self { scores, shift: (scores.address() / 4) as u32 % VECTOR }
    }

    /// Number of elements.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> u32 {
        self.scores.len() as u32
    }

    /// Number of vectors, partial ones included.
    #[inline(always)]
    pub fn vectors(self) -> u32 {
        (self.shift + self.len()).div_ceil(VECTOR)
    }

    /// Elements of all vectors.
    #[inline(always)]
    pub fn places(self) -> u32 {
        self.vectors() * VECTOR
    }

    /// The score of an element.
    #[inline(always)]
    pub fn get(self, index: u32) -> f32 {
        self.scores.get_readonly(index as usize)
    }

    /// A vector that lies wholly in the row: neither the first nor the last one.
    #[inline(always)]
    pub fn vector(self, vector: u32) -> [f32; 4] {
        self.scores.get4_readonly((vector * VECTOR - self.shift) as usize)
    }

    /// `B` pairs of the vectors that begin at place `start` and follow at the distance of a block; `whole` if
    /// those of all threads lie wholly in the row.
    #[inline(always)]
    fn batch<const B: usize>(self, start: u32, whole: bool) -> [u32; B] {
        let mut scores = [[f32::NAN; 2]; B];
        let mut pairs = [0; B];
        // The same for all threads.
        if whole {
            for v in 0..B / 2 {
                let place = start + v as u32 * THREADS * VECTOR;
                let [a, b, c, d] = self.scores.get4_readonly(place as usize);
                scores[2 * v] = [a, b];
                scores[2 * v + 1] = [c, d];
            }
            for i in 0..B {
                pairs[i] = half_pair(scores[i][0], scores[i][1]);
            }
            return pairs;
        }
        let last_whole = self.len().saturating_sub(VECTOR - 1);
        for v in 0..B / 2 {
            let start = start.wrapping_add(v as u32 * THREADS * VECTOR);
            if start < last_whole {
                let [a, b, c, d] = self.scores.get4_readonly(start as usize);
                scores[2 * v] = [a, b];
                scores[2 * v + 1] = [c, d];
            }
        }
        // Vectors that lie in the row in part: outside the loop above, whose loads are in flight together.
        for v in 0..B / 2 {
            let start = start.wrapping_add(v as u32 * THREADS * VECTOR);
            let (begins, ends) =
                (start.wrapping_add(VECTOR) < VECTOR, start.wrapping_sub(last_whole) < VECTOR);
            if begins || ends {
                let score = |j: u32| {
                    let index = start.wrapping_add(j);
                    if index < self.len() { self.get(index) } else { f32::NAN }
                };
                scores[2 * v] = [score(0), score(1)];
                scores[2 * v + 1] = [score(2), score(3)];
            }
            pairs[2 * v] = half_pair(scores[2 * v][0], scores[2 * v][1]);
            pairs[2 * v + 1] = half_pair(scores[2 * v + 1][0], scores[2 * v + 1][1]);
        }
        pairs
    }

    /// This thread's share of the tile that starts at vector `first`, as far as it lies before vector `end`.
    #[inline(always)]
    pub fn share<const N: usize>(self, first: u32, end: u32) -> Share<N> {
        let own = first + opaque(thread::index());
        let start = (own * VECTOR).wrapping_sub(self.shift);
        let mut scores = [f32::NAN; N];
        // The same for all threads.
        let inside = (first > 0 || self.shift == 0) && end.saturating_sub(first) >= tile_vectors(N);
        if inside && (first + tile_vectors(N)) * VECTOR <= self.shift + self.len() {
            for v in 0..N / 4 {
                scores[4 * v..4 * v + 4].copy_from_slice(&self.vector(own + v as u32 * THREADS));
            }
        } else {
            let last_whole = self.len().saturating_sub(VECTOR - 1);
            for v in 0..N / 4 {
                let start = index(start, 4 * v as u32);
                if own + v as u32 * THREADS < end {
                    if start < last_whole {
                        scores[4 * v..4 * v + 4].copy_from_slice(&self.scores.get4_readonly(start as usize));
                    } else {
                        for j in 0..4 {
                            let index = start.wrapping_add(j as u32);
                            if index < self.len() {
                                scores[4 * v + j] = self.get(index);
                            }
                        }
                    }
                }
            }
        }
        Share { scores, start }
    }
}

/// The elements of a row, by their index. The first places may be negative.
impl Places for Scores {
    #[inline(always)]
    fn pairs<const N: usize>(self, first: u32) -> Pairs<N> {
        let start = ((first + opaque(thread::index())) * VECTOR).wrapping_sub(self.shift);
        let used = 2 * self.vectors().saturating_sub(first).div_ceil(THREADS);
        let end = (first + tile_vectors(2 * N)) * VECTOR;
        let whole = (first > 0 || self.shift == 0) && end <= self.shift + self.len();
        Pairs { pairs: self.batch(start, whole), start, used }
    }

    #[inline(always)]
    fn key(self, place: u32) -> u32 {
        key(self.get(place))
    }

    #[inline(always)]
    fn index(self, place: u32) -> u32 {
        place
    }
}

/// Shows a share as keys. The row has `len` elements.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "iterators over arrays become local memory")]
pub fn visit_share<const N: usize>(share: &Share<N>, len: u32, visitor: &mut impl Visitor) {
    let mut keys = [ABSENT; N];
    for element in 0..N {
        if share.index(element as u32) < len {
            keys[element] = key(share.scores[element]);
        }
    }
    visitor.visit(Tile { keys, start: share.start, stride: THREADS * VECTOR });
}

/// The whole row, read from memory at every visit.
impl Source for Scores {
    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        let mut first = 0;
        while first < self.vectors() {
            visit_share(&self.share::<SHARE>(first, self.vectors()), self.len(), visitor);
            first += tile_vectors(SHARE);
        }
    }
}
