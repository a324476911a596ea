//! Rows of up to 8,192 elements: one block, the row read once and kept in registers.
//!
//! Two-level selection ([`coarse`]) with 2,048 bins. Every visit after the load is over
//! registers, so that even the worst distribution costs no second read of the row.

use dsa_simt::{Global, thread};

use super::coarse::{self, BlockScratch};
use super::origin::DECODE_MAX_LEN;
use super::row::{Row, VECTOR};
use super::source::{Source, Tile, Visitor};

/// The bins are the top 11 of 16 bits.
const SHIFT: u32 = 5;
const BINS: u32 = 1 << (16 - SHIFT);

/// Writes the indices of the `out.len()` largest scores of `row`, which is longer than that and at most
/// [`DECODE_MAX_LEN`] long. `E` is that limit divided by the `T` threads of the block.
#[inline(always)]
pub fn select<const T: u32, const E: usize>(row: Row, out: Global<i32>, scratch: BlockScratch<T>) {
    coarse::select::<T, BINS, SHIFT>(&Registers::<T, E>::load(row), out, scratch);
}

/// The elements of a row in the registers of a block: `E` of the body per thread, and one of the edges for
/// the first threads.
struct Registers<const T: u32, const E: usize> {
    keys: [u32; E],
    start: u32,
    edge: (u32, u32),
}

impl<const T: u32, const E: usize> Registers<T, E> {
    #[inline(always)]
    fn load(row: Row) -> Self {
        const { assert!(E * T as usize == DECODE_MAX_LEN as usize && E.is_multiple_of(VECTOR as usize)) };
        let keys = row.first_keys::<T, E>();
        Self { keys, start: row.vector_start(thread::index()), edge: row.edge() }
    }
}

impl<const T: u32, const E: usize> Source for Registers<T, E> {
    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        visitor.visit(Tile { keys: self.keys, start: self.start, step: 1, stride: T * VECTOR });
        if thread::warp() == 0 {
            let (key, index) = self.edge;
            visitor.visit(Tile { keys: [key], start: index, step: 1, stride: 0 });
        }
    }
}
