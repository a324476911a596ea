//! Launches of rows of up to 16,384 scores: a block for each, which keeps it in its registers ([`resident`]).
//!
//! The first scores are read before the length of the row is known, as far as a row may reach: one wait for memory
//! instead of two, one after the other. What turns out to lie behind the row is dropped.
//!
//! A kernel of its own, without a loop over rows: that alone is 0.2 us of three.

use dsa_simt::{Carve, block, grid, opaque, thread};

use super::auto::{complete, write_whole};
use super::bins::THREADS;
use super::element::Element;
use super::output::OutRow;
use super::refine::{Narrowed, Outcome, Scratch};
use super::resident::{self, Held, Pairs};
use super::scores::{Scores, Share, Slice};
use super::{Batch, Options, RESIDENT_PLACES};

/// Bytes of dynamic shared memory.
pub const SHARED_BYTES: u32 = Scratch::BYTES;

/// Places that are read before the length is known.
const AHEAD: u32 = RESIDENT_PLACES / 2;

/// Top-k of every row, if the longest has at most [`RESIDENT_PLACES`] scores: the body of
/// [`topk_f32_short`](super::topk_f32_short) and its like.
///
/// A block of [`THREADS`] threads for each row, with [`SHARED_BYTES`] of dynamic shared memory. The parameters are the fields
/// of [`Batch`] and the bits of [`Options`].
///
/// # Safety
/// The launch is one of these, and keeps the promises of [`Batch`].
#[cfg_attr(target_arch = "nvptx64", inline(always))]
#[cfg_attr(not(target_arch = "nvptx64"), inline(never))]
pub unsafe fn run<E: Element>(batch: Batch<E>, options: Options) {
    let mut carve = Carve::dynamic();
    // SAFETY: the launch has `SHARED_BYTES` of shared memory.
    let scratch = unsafe { Scratch::carve(&mut carve) };
    scratch.start();
    block::sync();
    // As in `auto::run`.
    grid::wait_for_earlier();
    let row = block::index();
    let (len, outcome) = select(&batch, options, row, scratch);
    if outcome != Outcome::Done {
        complete(&batch, options, row, len, outcome, scratch.words, scratch);
    }
}

/// Writes the output of a row as [`resident::select`] does, and returns its valid length, too. The bins are empty, the
/// counters and the extremes zero. Collective over the block.
#[inline(always)]
fn select<E: Element>(batch: &Batch<E>, options: Options, row: u32, scratch: Scratch) -> (u32, Outcome) {
    let length = batch.length(row);
    let readable = Scores::<E>::new(batch.scores(row, batch.max_len));
    // Without vectors that are partly in the row.
    let is_even = readable.first_place() == 0 && batch.max_len.is_multiple_of(E::PER_VECTOR);
    let share = if is_even {
        read_ahead(readable)
    } else {
        let scores = Scores::<E>::new(batch.scores(row, batch.valid(row, length)));
        scores.share(0, scores.vectors(), const { vectors_ahead::<E>() })
    };
    // Opaque: not computed before the scores are on their way, which would wait for it.
    let len = batch.valid(row, opaque(length.cast_unsigned()).cast_signed());
    if len <= batch.k {
        write_whole(batch, row, len);
        return (len, Outcome::Done);
    }
    let scores = Scores::<E>::new(batch.scores(row, len));
    let (places, end) = (scores.places(), scores.vectors());
    let out = || OutRow::new(batch, row, scores);
    // Work on places where there is no score takes time, too. The shortest rows last, which the assembler puts first.
    let outcome = if places > AHEAD / 2 {
        let held = Pairs::<8>::of::<E, 4>(&share.first_before::<E, 4>(len), 0, end, scratch.bins);
        if places > RESIDENT_PLACES {
            // At an address that is not aligned, a row of nearly as many scores has more places.
            scratch.note(Narrowed::UNKNOWN);
            Outcome::Crowded
        } else if places > AHEAD {
            let rest = Slice { first: AHEAD / E::PER_VECTOR, ..scores.whole() };
            let held = (held, Pairs::<8>::hold(rest, scratch.bins));
            resident::select_held::<E, _>(held, scores, batch.k, options, scratch, out)
        } else {
            resident::select_held::<E, _>(held, scores, batch.k, options, scratch, out)
        }
    } else {
        let held = Pairs::<4>::of::<E, 2>(&share.first_before::<E, 2>(len), 0, end, scratch.bins);
        resident::select_held::<E, _>(held, scores, batch.k, options, scratch, out)
    };
    (len, outcome)
}

/// A thread's vectors of the first [`AHEAD`] places.
const fn vectors_ahead<E: Element>() -> usize {
    (AHEAD / E::PER_VECTOR / THREADS) as usize
}

/// This thread's share of the first [`AHEAD`] places of a row of whole vectors, on its way. Where the row ends before,
/// there may be any scores.
#[inline(always)]
fn read_ahead<E: Element>(row: Scores<E>) -> Share<4> {
    let own = opaque(thread::index());
    let mut vectors = [[E::NO_SCORES; 4]; 4];
    for v in 0..const { vectors_ahead::<E>() } {
        // Without a branch, so that all are on their way together. Opaque: not read where it is used, when the length
        // has come.
        let vector = (own + v as u32 * THREADS).min(row.len() / E::PER_VECTOR - 1);
        vectors[v] = E::vector_ahead(row.array(), vector * E::PER_VECTOR).map(opaque);
    }
    Share { vectors, start: own * E::PER_VECTOR }
}
