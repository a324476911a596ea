//! Rows that one block streams from memory, meant for up to 32,768 elements; right for any length.
//!
//! Two-level selection ([`coarse`]) with 256 bins: one read to count, one to emit. A bin that
//! holds more candidates than fit costs one more read for each radix round.

use dsa_simt::Global;

use super::coarse::{self, BlockScratch};
use super::row::{Row, Streamed};

/// The bins are the top 8 of 16 bits.
const SHIFT: u32 = 8;
const BINS: u32 = 1 << (16 - SHIFT);

/// Writes the indices of the `out.len()` largest scores of `row`, which is longer than that.
#[inline(always)]
pub fn select<const T: u32>(row: Row, out: Global<i32>, scratch: BlockScratch<T>) {
    coarse::select::<T, BINS, SHIFT>(&Streamed::<T>(row), out, scratch);
}
