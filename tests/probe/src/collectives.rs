//! Identities, shuffles, votes, reductions and barriers.

use dsa_simt::{Carve, Global, Shared, block, thread, warp};

use crate::BLOCK_THREADS;

/// The mask of the half warp that holds the calling lane.
#[inline(always)]
fn half_mask() -> u32 {
    if thread::lane() < 16 { 0x0000_ffff } else { 0xffff_0000 }
}

#[inline(always)]
pub(crate) fn identity(out: Global<u32>) {
    let words =
        [thread::index(), thread::lane(), thread::warp(), block::index(), block::count(), block::threads()];
    let first = 6 * (block::index() * block::threads() + thread::index()) as usize;
    for (i, word) in words.into_iter().enumerate() {
        out.set(first + i, word);
    }
}

#[inline(always)]
pub(crate) fn shuffle(input: Global<u32>, out: Global<u32>, operand: u32) {
    let t = thread::index() as usize;
    let value = input.get(t);
    let masks = [warp::ALL, half_mask()];
    // In the half warp, a shuffle by index may only name a lane of the half.
    let lanes = [operand, (operand & 15) | (thread::lane() & 16)];
    for (i, (mask, lane)) in masks.into_iter().zip(lanes).enumerate() {
        let bits = operand & if i == 0 { 31 } else { 15 };
        let indexed = warp::shuffle(mask, value, lane);
        let xored = warp::shuffle_xor(mask, value, bits);
        out.set(8 * t + 4 * i, indexed);
        out.set(8 * t + 4 * i + 3, xored);
        if i == 0 {
            out.set(8 * t + 1, warp::shuffle_up(mask, value, operand & 31));
            out.set(8 * t + 2, warp::shuffle_down(mask, value, operand & 31));
        } else {
            // As above, on a signed and on a floating-point word.
            out.set(8 * t + 5, warp::shuffle(mask, value.cast_signed(), lane).cast_unsigned());
            out.set(8 * t + 6, warp::shuffle_xor(mask, f32::from_bits(value), bits).to_bits());
        }
    }
}

#[inline(always)]
pub(crate) fn vote(input: Global<u32>, out: Global<u32>) {
    let t = thread::index() as usize;
    let yes = input.get(t) != 0;
    for (i, mask) in [warp::ALL, half_mask()].into_iter().enumerate() {
        out.set(6 * t + 3 * i, warp::ballot(mask, yes));
        out.set(6 * t + 3 * i + 1, u32::from(warp::any(mask, yes)));
        out.set(6 * t + 3 * i + 2, u32::from(warp::all(mask, yes)));
    }
}

#[inline(always)]
pub(crate) fn reduce(input: Global<u32>, out: Global<u32>) {
    let t = thread::index() as usize;
    let value = input.get(t);
    for (i, mask) in [warp::ALL, half_mask()].into_iter().enumerate() {
        out.set(6 * t + 3 * i, warp::match_any(mask, value));
        out.set(6 * t + 3 * i + 1, warp::reduce_add(mask, value));
        out.set(6 * t + 3 * i + 2, warp::reduce_max(mask, value));
    }
}

#[inline(always)]
pub(crate) fn barrier(input: Global<u32>, out: Global<u32>) {
    let mut carve = Carve::dynamic();
    // SAFETY: the launch has a word per thread; each is written by one thread, a barrier before the reads.
    let words: Shared<u32> = unsafe { carve.array(BLOCK_THREADS) };
    let t = thread::index();
    let value = input.get(t as usize);
    words.set(t, value);
    block::sync();
    let opposite = words.get(BLOCK_THREADS - 1 - t);
    let count = block::sync_count(value != 0);
    let any = block::sync_or(value != 0);
    out.set(3 * t as usize, opposite);
    out.set(3 * t as usize + 1, count);
    out.set(3 * t as usize + 2, u32::from(any));
}

#[inline(always)]
pub(crate) fn warp_barrier(input: Global<u32>, scratch: Global<u32>, out: Global<u32>) {
    let mut carve = Carve::dynamic();
    // SAFETY: the launch has a word per thread; a warp barrier stands between writes and reads.
    let words: Shared<u32> = unsafe { carve.array(block::threads()) };
    let t = thread::index();
    let value = input.get(t as usize);
    words.set(t, value);
    scratch.set(t as usize, value);
    warp::sync(warp::ALL);
    let neighbour = t ^ 1;
    out.set(2 * t as usize, words.get(neighbour));
    out.set(2 * t as usize + 1, scratch.get(neighbour as usize));
}
