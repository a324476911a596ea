//! One row of scores, read by a block in 16-byte vectors.
//!
//! A row may start at any 4-byte address. Its *body* is the aligned run of whole vectors; up to three
//! elements before and three after it are its *edges*, read one by one. No address outside the row's valid
//! prefix is ever touched.

use dsa_simt::{Global, Word, opaque, thread};

use super::key::{ABSENT, key};
use super::source::{Source, Tile, Visitor};

/// Elements of one 16-byte vector.
pub const VECTOR: u32 = 4;
/// Elements that a thread loads before it uses the first: four vectors keep the memory busy.
pub const LOADED: usize = 4 * VECTOR as usize;

/// The valid prefix of a row.
#[derive(Clone, Copy)]
pub struct Row {
    scores: Global<f32>,
    head: u32,
    vectors: u32,
}

impl Row {
    /// The view of `scores`, which is exactly the valid prefix.
    #[inline(always)]
    pub fn new(scores: Global<f32>) -> Self {
        let len = scores.len() as u32;
        let past_alignment = (scores.address() / 4) as u32 % VECTOR;
        let head = ((VECTOR - past_alignment) % VECTOR).min(len);
        Self { scores, head, vectors: (len - head) / VECTOR }
    }

    /// Number of whole vectors.
    #[inline(always)]
    pub fn vectors(self) -> u32 {
        self.vectors
    }

    /// Index in the row of the first element of vector `vector`.
    #[inline(always)]
    pub fn vector_start(self, vector: u32) -> u32 {
        self.head + vector * VECTOR
    }

    /// The scores of vector `vector`.
    #[inline(always)]
    pub fn vector(self, vector: u32) -> [f32; 4] {
        self.scores.get4_readonly(self.vector_start(vector) as usize)
    }

    /// The edge element of this thread, if it has one: its key and its index in the row.
    ///
    /// The edges go to the first threads of the block, so that only its first warp has any.
    #[inline(always)]
    pub fn edge(self) -> (u32, u32) {
        let thread = thread::index();
        let body_end = self.vector_start(self.vectors);
        let index = if thread < self.head { thread } else { body_end + thread - self.head };
        if index < self.scores.len() as u32 {
            (key(self.scores.get_readonly(index as usize)), index)
        } else {
            (ABSENT, index)
        }
    }

    /// Shows the vectors `start..end` to `visitor`, the work of a block of `T` threads, in tiles of `N`
    /// elements per thread.
    #[inline(always)]
    pub fn visit_vectors<const T: u32, const N: usize>(
        self,
        start: u32,
        end: u32,
        visitor: &mut impl Visitor,
    ) {
        self.visit_as::<T, N, f32>(
            start,
            end,
            |vector| self.vector(vector),
            |_, scores| scores.map(key),
            visitor,
        );
    }

    /// Shows the vectors `start..end` to `visitor`: each is read by `load` and made into keys by `convert`.
    ///
    /// All loads of a tile come before the first conversion, so that they are in flight together.
    #[inline(always)]
    pub fn visit_as<const T: u32, const N: usize, W: Word + Default>(
        self,
        start: u32,
        end: u32,
        load: impl Fn(u32) -> [W; 4],
        convert: impl Fn(u32, [W; 4]) -> [u32; 4],
        visitor: &mut impl Visitor,
    ) {
        let block_vectors = const { T * N as u32 / VECTOR };
        // Opaque: addresses are computed here, not kept in registers from one visit to the next.
        let mut first = start + opaque(thread::index());
        // The trip count is the same for all threads: the visitor may contain collectives.
        let mut left = end.saturating_sub(start);
        while left > 0 {
            let keys = tile_keys::<T, N, W>(first, end, left >= block_vectors, &load, &convert);
            visitor.visit(Tile { keys, start: self.vector_start(first), step: 1, stride: T * VECTOR });
            first += block_vectors;
            left = left.saturating_sub(block_vectors);
        }
    }

    /// The keys of the thread's vectors of the row's first `T * N` elements.
    #[inline(always)]
    pub fn first_keys<const T: u32, const N: usize>(self) -> [u32; N] {
        let load = |vector| self.vector(vector);
        tile_keys::<T, N, f32>(thread::index(), self.vectors, false, &load, &|_, scores| scores.map(key))
    }

    /// Shows the edges to `visitor`.
    #[inline(always)]
    pub fn visit_edges(self, visitor: &mut impl Visitor) {
        if thread::warp() == 0 {
            let (key, index) = self.edge();
            visitor.visit(Tile { keys: [key], start: index, step: 1, stride: 0 });
        }
    }
}

/// The keys of vectors `first`, `first + T`, ..., as far as they are below `end`; of all of them if `whole`.
#[inline(always)]
fn tile_keys<const T: u32, const N: usize, W: Word + Default>(
    first: u32,
    end: u32,
    whole: bool,
    load: &impl Fn(u32) -> [W; 4],
    convert: &impl Fn(u32, [W; 4]) -> [u32; 4],
) -> [u32; N] {
    let mut words = [W::default(); N];
    for v in 0..N / VECTOR as usize {
        let vector = first + v as u32 * T;
        if whole || vector < end {
            words[4 * v..4 * v + 4].copy_from_slice(&load(vector));
        }
    }
    let mut keys = [ABSENT; N];
    for v in 0..N / VECTOR as usize {
        let vector = first + v as u32 * T;
        if whole || vector < end {
            let words = [words[4 * v], words[4 * v + 1], words[4 * v + 2], words[4 * v + 3]];
            keys[4 * v..4 * v + 4].copy_from_slice(&convert(vector, words));
        }
    }
    keys
}

/// A whole row, read from global memory at every visit by a block of `T` threads.
#[derive(Clone, Copy)]
pub struct Streamed<const T: u32>(pub Row);

impl<const T: u32> Source for Streamed<T> {
    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        self.0.visit_edges(visitor);
        self.0.visit_vectors::<T, LOADED>(0, self.0.vectors(), visitor);
    }
}
