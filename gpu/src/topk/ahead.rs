//! The first scores of a row, read before its length is known, as far as a row may reach: one wait for memory instead of two,
//! one after the other. What turns out to lie behind the row is dropped.
//!
//! Where they are is computed before the launch may read: while the launch before it ends, that takes no time.

use dsa_simt::{opaque, thread};

use super::Batch;
use super::bins::THREADS;
use super::element::{Element, VECTOR_WORDS};
use super::scores::{Scores, Share};

/// Where the thread's vectors of the first scores of a row are, `M` of them for scores of 32 bits.
#[derive(Clone, Copy)]
pub struct Ahead<E: Element, const M: usize> {
    row: Scores<E>,
    /// The index of the first score of each.
    vectors: [u32; M],
    /// [`PARTIAL`](Self::PARTIAL) if vectors may be partly in the row.
    partial: u32,
}

impl<E: Element, const M: usize> Ahead<E, M> {
    /// Scores that are read, of any type.
    pub const PLACES: u32 = M as u32 * VECTOR_WORDS * THREADS;
    /// Vectors of a thread.
    const COUNT: usize = M / E::PER_WORD as usize;
    const PARTIAL: u32 = 1;

    /// Of row `row`.
    #[inline(always)]
    pub fn of(batch: &Batch<E>, row: u32) -> Self {
        let readable = Scores::<E>::new(batch.scores(row, batch.max_len));
        let is_whole = readable.first_place() == 0 && batch.max_len.is_multiple_of(E::PER_VECTOR);
        let own = opaque(thread::index());
        let mut vectors = [0; M];
        for v in 0..Self::COUNT {
            // Without a branch, so that all are on their way together. Opaque: computed here.
            let vector = (own + v as u32 * THREADS).min((readable.len() / E::PER_VECTOR).saturating_sub(1));
            vectors[v] = opaque(vector * E::PER_VECTOR);
        }
        Self { row: readable, vectors, partial: opaque(if is_whole { 0 } else { Self::PARTIAL }) }
    }

    /// Whether they cannot be read ahead, because vectors may be partly in the row. The same for all threads.
    #[inline(always)]
    pub fn is_partial(&self) -> bool {
        self.partial >= Self::PARTIAL
    }

    /// This thread's share of them, on its way, if they are not [partial](Self::is_partial). Where the row ends before, there
    /// may be any scores.
    #[inline(always)]
    pub fn read(&self) -> Share<M> {
        let mut vectors = [[E::NO_SCORES; 4]; M];
        for v in 0..Self::COUNT {
            // Opaque: not read where it is used, when the length has come.
            vectors[v] = E::vector_ahead(self.row.array(), self.vectors[v]).map(opaque);
        }
        Share { vectors, start: opaque(thread::index()) * E::PER_VECTOR }
    }
}
