//! Output rows in the order of the indices, by bitmaps.
//!
//! What is selected is marked by one bit each; threads take the words of the bitmap in order, count their bits,
//! and a prefix sum of the counts says where each thread's indices go. A row in registers is one bitmap
//! ([`stage_tile`]). Rows that had to be refined are staged in any order and sorted by bitmaps over all their
//! indices ([`sort`]), some microseconds for a million of them: it is the rare case.

use dsa_simt::{AtomicOp, Shared, block, opaque, thread};

use super::bins::THREADS;
use super::element::Element;
use super::output::Staged;
use super::prefix::Sums;

/// Words that a thread has of the largest bitmap.
const MOST_PER_THREAD: u32 = 16;
/// Indices that a thread holds while a row is sorted.
const HELD: u32 = Staged::WORDS / THREADS;

/// Words of shared memory of a bitmap in which a thread has `per_thread` words. There is one word more for each
/// thread: neighbours would meet in one bank.
const fn words(per_thread: u32) -> u32 {
    THREADS * if per_thread == 1 { 1 } else { per_thread + 1 }
}

/// Words of shared memory that [`sort`] makes the best of.
pub const WORDS: u32 = words(MOST_PER_THREAD);

/// Where the score at a place of a tile is marked, if every thread marks its own in the word with its number
/// ([`Share::bits`](super::scores::Share::bits)): the word, and the bit in it.
#[inline(always)]
pub fn tile_place<E: Element>(place: u32) -> (u32, u32) {
    let vector = place / E::PER_VECTOR;
    let number = vector / THREADS * E::PER_VECTOR + place % E::PER_VECTOR;
    (vector % THREADS, 1 << number)
}

/// Stages, in their order, the indices of what is marked in a tile whose first index is `-first_place`.
///
/// Collective over the block, after a barrier that ends the marking; another one before what is staged is read.
#[inline(always)]
pub fn stage_tile<E: Element>(marks: Shared<u32>, first_place: u32, staged: Staged, sums: Sums) {
    // Of 32 neighbouring places, the threads that hold them and where they have them in their words.
    let vectors = const { u32::BITS / E::PER_VECTOR };
    let threads = const { THREADS / (u32::BITS / E::PER_VECTOR) };
    let thread = opaque(thread::index());
    let shift = thread / threads * E::PER_VECTOR;
    let first = thread % threads * vectors;
    let mut bits = 0;
    for i in 0..vectors {
        let own = marks.get(first + i) >> shift & (u32::MAX >> (u32::BITS - E::PER_VECTOR));
        bits |= own << (i * E::PER_VECTOR);
    }
    let ([before], _) = sums.before([bits.count_ones()]);
    let start = (thread * u32::BITS).wrapping_sub(first_place);
    staged.set_bits(bits, before, |bit| start.wrapping_add(bit));
}

/// Sorts the first `count` staged indices; they are different, and below `len`.
///
/// In `memory`, which nothing else uses meanwhile, bitmaps of as many indices as fit, one after the other:
/// 262,144 if there are [`WORDS`] words. Collective over the block; begins and ends with a block barrier.
#[inline(always)]
pub fn sort(staged: Staged, count: u32, len: u32, memory: Shared<u32>, sums: Sums) {
    let thread = opaque(thread::index());
    // A power of two: divisions are shifts.
    let mut shift = 0;
    while 1 << shift < MOST_PER_THREAD
        && (THREADS * u32::BITS) << shift < len
        && words(2 << shift) <= memory.len()
    {
        shift += 1;
    }
    let per_thread = 1 << shift;
    let pitch = words(per_thread) / THREADS;
    block::sync();
    let mut held = [u32::MAX; HELD as usize];
    for i in 0..HELD {
        let position = thread + i * THREADS;
        if position < count {
            held[i as usize] = staged.get(position);
        }
    }
    let clear = |word: u32| memory.set(thread * pitch + word, 0);
    for_each(per_thread, clear);
    // Everything staged is held now, and the bitmap is empty.
    block::sync();
    let span = per_thread * THREADS * u32::BITS;
    let (mut first, mut position) = (0, 0);
    while first < len && position < count {
        for i in 0..HELD as usize {
            let distance = held[i].wrapping_sub(first);
            if distance < span {
                let word = distance / u32::BITS;
                let place = (word >> shift) * pitch + (word & (per_thread - 1));
                memory.reduce(AtomicOp::Or, place, 1 << (distance % u32::BITS));
            }
        }
        block::sync();
        let mut own = 0;
        for_each(per_thread, |word| own += memory.get(thread * pitch + word).count_ones());
        let ([before], [total]) = sums.before([own]);
        let mut own_position = position + before;
        for_each(per_thread, |word| {
            let bits = memory.get(thread * pitch + word);
            let start = first + (thread * per_thread + word) * u32::BITS;
            staged.set_bits(bits, own_position, |bit| start + bit);
            own_position += bits.count_ones();
        });
        position += total;
        for_each(per_thread, clear);
        first += span;
        // After the last pass: everything is staged.
        block::sync();
    }
}

/// Calls `f` with each of a thread's words.
#[inline(always)]
fn for_each(per_thread: u32, mut f: impl FnMut(u32)) {
    let mut word = 0;
    while word < per_thread {
        f(word);
        word += 1;
    }
}
