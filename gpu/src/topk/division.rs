//! Which block works on which part of which row.
//!
//! With at least as many rows as blocks, each block takes one whole row after the other. With fewer, the blocks
//! left over are divided among the long rows in proportion to their lengths, from the lengths themselves: a
//! batch that is long on paper and short in fact, or has one long row among many short ones, still keeps all
//! blocks busy. Every block computes the same division from the same lengths; nothing is communicated.

use dsa_simt::{Carve, Shared, block, opaque, thread};

use super::bins::THREADS;
use super::element::Element;
use super::prefix::Sums;
use super::slab::MAX_SLICES;
use super::{Batch, MIN_SLICE, RESIDENT_PLACES};

/// A block's part of a row.
#[derive(Clone, Copy)]
pub struct Part {
    /// The row.
    pub row: u32,
    /// Its valid length.
    pub len: u32,
    /// Number of the slice.
    pub number: u32,
    /// Slices of the row.
    pub slices: u32,
    /// Number of its first slice among the slices of all rows, if it has several.
    pub first: u32,
}

/// What a block works on, in shared memory: the same for all threads, and the registers are wanted.
#[derive(Clone, Copy)]
pub struct Desk(Shared<u32>);

/// Instead of the number of a row: there is none for the block.
const NOTHING: u32 = u32::MAX;

impl Desk {
    /// Words of shared memory that [`Desk::carve`] takes, a multiple of 4.
    pub const WORDS: u32 = 4;

    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`Desk::WORDS`] words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        Self(unsafe { carve.array(Self::WORDS) })
    }

    #[inline(always)]
    fn put(self, part: Part) {
        const { assert!(MAX_SLICES <= u16::MAX as u32) };
        self.0.set4(0, [part.row, part.len, part.number | part.slices << u16::BITS, part.first]);
    }

    /// The block's part, if there is one; after a block barrier.
    #[inline(always)]
    pub fn part(self) -> Option<Part> {
        let part = self.known_part();
        if part.row == NOTHING { None } else { Some(part) }
    }

    /// The block's part, of which [`part`](Self::part) has said that there is one.
    #[inline(always)]
    pub fn known_part(self) -> Part {
        let [row, len, packed, first] = self.0.get4(0);
        Part { row, len, number: packed & 0xffff, slices: packed >> u16::BITS, first }
    }

    /// Puts the block's first part on the desk; the batch has rows. Collective over the block; a block barrier
    /// before it is read.
    #[inline(always)]
    pub fn first<E: Element>(self, batch: &Batch<E>, sums: Sums) {
        let blocks = block::count();
        let divided = batch.rows < blocks && batch.max_len > RESIDENT_PLACES;
        // A row to a thread, if there are fewer of them than blocks, of which there are at most as many as threads.
        let row = if divided { opaque(thread::index()) } else { block::index() };
        // Of the last row, if there is none of that number: without a branch.
        let len = batch.len(row.min(batch.rows - 1));
        if divided && batch.rows > 1 {
            self.divide(row, len, batch.rows, sums);
        } else if thread::index() == 0 {
            let (number, slices) =
                if divided { (block::index(), pieces(len).clamp(1, blocks)) } else { (0, 1) };
            let row = if row < batch.rows && number < slices { row } else { NOTHING };
            self.put(Part { row, len, number, slices, first: 0 });
        }
    }

    /// Replaces the block's part by the next one. Collective over the block, between two block barriers.
    #[inline(always)]
    pub fn next<E: Element>(self, batch: &Batch<E>) {
        // Where rows are divided, nobody has more than one part.
        let row = self.0.get(0) + block::count();
        block::sync();
        if thread::index() == 0 {
            let (row, len) = if row < batch.rows { (row, batch.len(row)) } else { (NOTHING, 0) };
            self.put(Part { row, len, number: 0, slices: 1, first: 0 });
        }
    }

    /// Divides the blocks among fewer rows, of which each thread has one, if there are enough.
    #[inline(always)]
    fn divide(self, row: u32, len: u32, rows: u32, sums: Sums) {
        let exists = row < rows;
        let own = if exists { pieces(len) } else { 0 };
        let (_, [all]) = sums.before([own]);
        if all == 0 {
            // Only short rows: one to a block.
            let own_row = opaque(block::index());
            if own_row < rows {
                if row == own_row {
                    self.put(Part { row, len, number: 0, slices: 1, first: 0 });
                }
            } else if thread::index() == 0 {
                self.put(Part { row: NOTHING, len: 0, number: 0, slices: 0, first: 0 });
            }
            return;
        }
        if thread::index() == 0 {
            self.put(Part { row: NOTHING, len: 0, number: 0, slices: 0, first: 0 });
        }
        block::sync();
        // At most 512 blocks and 2^18 pieces: the product fits in 32 bits. Rounded down, so that the sum over
        // the rows is at most the number of blocks.
        let extra = if own > 0 { (block::count() - rows) * own / all } else { 0 };
        let slices = if exists { (1 + extra).min(own.max(1)) } else { 0 };
        let ([first], _) = sums.before([slices]);
        let number = block::index().wrapping_sub(first);
        if number < slices {
            self.put(Part { row, len, number, slices, first });
        }
    }
}

/// Slices that a row can be cut into, if it is longer than what a block keeps in registers; zero for shorter ones.
#[inline(always)]
fn pieces(len: u32) -> u32 {
    const { assert!(THREADS as u64 * (i32::MAX as u64 / MIN_SLICE as u64 + 1) <= u32::MAX as u64) };
    if len > RESIDENT_PLACES { len.div_ceil(MIN_SLICE) } else { 0 }
}
