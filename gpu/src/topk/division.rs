//! Which block works on which part of which row.
//!
//! With at least as many rows as blocks, each block takes one whole row after the other. With fewer, the blocks
//! left over are divided among the long rows in proportion to their lengths, from the lengths themselves: a
//! batch that is long on paper and short in fact, or has one long row among many short ones, still keeps all
//! blocks busy. Up to [`SHORT_ROWS`] short rows take less time than a slice of a long one, so that many short
//! rows share blocks if there are long ones. Every block computes the same division from the same lengths, by one prefix
//! sum over the rows; nothing is communicated.

use dsa_simt::{Carve, Shared, block, opaque, reciprocal, thread, truncate};

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
}

/// A row, and the sequence it is of.
#[derive(Clone, Copy)]
pub struct FirstRow {
    row: u32,
    sequence: u32,
}

/// What a block works on, in shared memory: the same for all threads, and the registers are wanted.
#[derive(Clone, Copy)]
pub struct Desk(Shared<u32>);

/// Instead of the number of a row: there is none for the block.
const NOTHING: u32 = u32::MAX;
/// Most short rows of a block of a batch that has long ones, too: most parts on a desk.
pub const SHORT_ROWS: u32 = 3;
/// Words of a part.
const PART_WORDS: u32 = 3;

impl Desk {
    /// Words of shared memory that [`Desk::carve`] takes, a multiple of 4.
    pub const WORDS: u32 = (SHORT_ROWS * PART_WORDS).next_multiple_of(4);

    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`Desk::WORDS`] words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        Self(unsafe { carve.array(Self::WORDS) })
    }

    /// Puts a part on the desk, the one that is worked on at place 0.
    #[inline(always)]
    fn put(self, place: u32, part: Part) {
        const { assert!(MAX_SLICES <= u16::MAX as u32) };
        let packed = part.number | part.slices << u16::BITS;
        // Opaque: the address is computed here, and not held in a register from the first part to the next.
        let start = opaque(PART_WORDS * place);
        // Not at once: four registers in a row cost others that are wanted.
        self.0.set(start, part.row);
        self.0.set(start + 1, part.len);
        self.0.set(start + 2, packed);
    }

    /// Puts a row on the desk that the block works on alone.
    #[inline(always)]
    fn put_row(self, place: u32, row: u32, len: u32) {
        self.put(place, Part { row, len, number: 0, slices: 1 });
    }

    /// Clears the places from `first` on. Called by one thread.
    #[inline(always)]
    fn clear(self, first: u32) {
        for place in first..SHORT_ROWS {
            self.put_row(place, NOTHING, 0);
        }
    }

    /// Whether the block has a part; after a block barrier.
    #[inline(always)]
    pub fn has_part(self) -> bool {
        self.0.get(0) != NOTHING
    }

    /// The block's part, of which there is one.
    #[inline(always)]
    pub fn part(self) -> Part {
        let [row, len, packed] = [0, 1, 2].map(|word| self.0.get(word));
        Part { row, len, number: packed & 0xffff, slices: packed >> u16::BITS }
    }

    /// Whether there may be long rows, so that blocks that have no row of their own are divided among them.
    #[inline(always)]
    fn may_divide<E: Element>(batch: &Batch<E>) -> bool {
        batch.max_len > RESIDENT_PLACES
    }

    /// Whether the blocks are divided among fewer rows.
    #[inline(always)]
    fn divides<E: Element>(batch: &Batch<E>) -> bool {
        batch.rows < block::count() && Self::may_divide(batch)
    }

    /// The row whose length the thread reads first, and clears the desk: all that can be done before the launch may
    /// read. The batch has rows. Collective over the block.
    #[inline(always)]
    pub fn prepare<E: Element>(self, batch: &Batch<E>) -> FirstRow {
        if thread::index() == 0 {
            self.clear(0);
        }
        // A row to a thread: there are at most as many blocks as threads. Of the last row, if there is none of that number:
        // without a branch.
        let number = if Self::divides(batch) { opaque(thread::index()) } else { block::index() };
        let row = opaque(number.min(batch.rows - 1));
        FirstRow { row, sequence: opaque(batch.sequence(row)) }
    }

    /// Puts the block's first part on the cleared desk. Collective over the block; a block barrier before it is read.
    #[inline(always)]
    pub fn first<E: Element>(self, batch: &Batch<E>, prepared: FirstRow, sums: Sums) {
        let divides = Self::divides(batch);
        if divides && batch.rows > 1 {
            self.divide(batch, prepared, sums);
        } else if thread::index() == 0 {
            let FirstRow { row, sequence } = prepared;
            let len = batch.valid(row, batch.length_of(sequence));
            let blocks = block::count();
            let (number, slices) =
                if divides { (block::index(), pieces(len).clamp(1, blocks)) } else { (0, 1) };
            if (divides || block::index() < batch.rows) && number < slices {
                self.put(0, Part { row, len, number, slices });
            }
        }
    }

    /// Whether the block has a part after the one that it works on.
    #[inline(always)]
    pub fn has_next<E: Element>(self, batch: &Batch<E>) -> bool {
        if batch.rows > block::count() {
            self.0.get(0) + block::count() < batch.rows
        } else {
            Self::may_divide(batch) && self.0.get(opaque(PART_WORDS)) != NOTHING
        }
    }

    /// Replaces the block's part by the next one, which there is. Collective over the block, between two block
    /// barriers.
    #[inline(always)]
    pub fn next<E: Element>(self, batch: &Batch<E>) {
        // Opaque: compared here, and not held in a register from the first part to the next.
        if opaque(thread::index()) > 0 {
            return;
        }
        if batch.rows > block::count() {
            let row = self.0.get(0) + block::count();
            self.put_row(0, row, batch.len(row));
        } else {
            for place in 1..SHORT_ROWS {
                for word in 0..PART_WORDS {
                    self.0.set(PART_WORDS * (place - 1) + word, self.0.get(PART_WORDS * place + word));
                }
            }
            self.clear(SHORT_ROWS - 1);
        }
    }

    /// Divides the blocks among several, but fewer rows; the desk is cleared. Collective over the block.
    #[inline(always)]
    fn divide<E: Element>(self, batch: &Batch<E>, prepared: FirstRow, sums: Sums) {
        // Warps that have no rows leave the others alone.
        let (thread, rows) = (opaque(thread::index()), batch.rows);
        let has_rows = thread - thread::lane() < rows;
        let (row, is_row) = (prepared.row, thread < rows);
        let (mut len, mut own) = (0, 0);
        if has_rows {
            len = batch.valid(row, batch.length_of(prepared.sequence));
            own = if is_row { pieces(len).min(MOST_PIECES) } else { 0 };
        }
        let is_short = is_row && own == 0;
        // Both sums in one.
        const { assert!(THREADS < 1 << (u32::BITS - PIECES_BITS)) };
        let in_warp = sums.offer([own | u32::from(is_short) << PIECES_BITS]);
        // After it the desk is clear, too.
        block::sync();
        let ([before], [total]) = sums.complete(in_warp);
        if !has_rows {
            return;
        }
        let (blocks, own_block) = (block::count(), opaque(block::index()));
        let unpacked = |sum: u32| (sum & ((1 << PIECES_BITS) - 1), sum >> PIECES_BITS);
        let ((before, shorter), (all, short)) = (unpacked(before), unpacked(total));
        // As many blocks to the long rows as they can use, if there are so many when the short ones share.
        let for_long = all.min(blocks - short.div_ceil(SHORT_ROWS));
        let for_short = blocks - for_long;
        let (place, part) = if own == 0 {
            let round = u32::from(shorter >= for_short) + u32::from(shorter >= 2 * for_short);
            let is_own = is_short && for_long + shorter - round * for_short == own_block;
            (round, is_own.then_some((0, 1)))
        } else {
            // One block to each long row, and of the others those between the shares of the rows before it and the shares of
            // the rows up to it: one sum says where a row's blocks begin and end. Rounded so that the last one ends with the
            // last block: far fewer than 2^20 are shared.
            let long = rows - short;
            let extra = (for_long - long) as f32 * (1.0 + 1.0 / (1 << 20) as f32) * reciprocal(all as f32);
            let shared = |pieces: u32| truncate(pieces as f32 * extra);
            let first = row - shorter + shared(before);
            // Rows of equal length have equally many: one that had more would have to wait for the others anyway.
            let more = if own * long == all { shared(own) } else { u32::MAX };
            let slices = 1 + more.min(shared(before + own) - shared(before)).min(own - 1);
            let number = own_block.wrapping_sub(first);
            (0, (number < slices).then_some((number, slices)))
        };
        if let Some((number, slices)) = part {
            self.put(place, Part { row, len, number, slices });
        }
    }
}

/// Bits of the sum of the pieces of all rows, of which there are at most as many as threads.
const PIECES_BITS: u32 = 21;
/// Pieces of a row that count when the blocks are divided.
const MOST_PIECES: u32 = (1 << PIECES_BITS) / THREADS - 1;

/// Slices that a row can be cut into, if it is longer than what a block keeps in registers; zero for shorter ones.
#[inline(always)]
fn pieces(len: u32) -> u32 {
    if len > RESIDENT_PLACES { len.div_ceil(MIN_SLICE) } else { 0 }
}
