//! Launches of rows of up to 16,384 scores: a block for each, which keeps it in its registers ([`resident`]).
//!
//! The first scores are read [ahead](super::ahead), before the length of the row is known.
//!
//! A kernel of its own, without a loop over rows: that alone is 0.2 us of three.

use dsa_simt::{Carve, Global, block, grid, opaque, warp};

use super::ahead::Ahead;
use super::auto::{complete, write_whole};
use super::bins::THREADS;
use super::element::Element;
use super::output::OutRow;
use super::refine::{Narrowed, Outcome, Scratch};
use super::resident::{self, Held, Pairs};
use super::scores::{Scores, Slice};
use super::{Batch, Options, RESIDENT_PLACES, opaque_length};

/// Bytes of dynamic shared memory.
pub const SHARED_BYTES: u32 = Scratch::BYTES;

/// What is read before the length is known.
type First<E> = Ahead<E, 4>;

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
    // What can be computed now takes no time, as long as the launch before this one has not ended.
    let row = block::index();
    let (sequence, first) = (opaque(batch.sequence(row)), First::of(&batch, row));
    let out = OutRow::of_thread(&batch, row).computed();
    block::sync();
    // As in `auto::run`.
    grid::wait_for_earlier();
    let length = opaque_length(batch.length_of(sequence));
    // The assembler moves no load over this: behind the scores, the length would arrive later.
    warp::sync(warp::ALL);
    let (len, outcome) = select(&batch, options, row, length, first, out, scratch);
    if outcome != Outcome::Done {
        complete(&batch, options, row, len, outcome, || scratch.words, scratch);
    }
}

/// Writes the output of a row, for which `length` is in `lengths`, as [`resident::select`] does, and returns its valid length,
/// too. The bins are empty, the counters and the extremes zero. Collective over the block.
#[inline(always)]
fn select<E: Element>(
    batch: &Batch<E>,
    options: Options,
    row: u32,
    length: i32,
    first: First<E>,
    out: Global<i32>,
    scratch: Scratch,
) -> (u32, Outcome) {
    const { assert!(First::<E>::PLACES == RESIDENT_PLACES / 2) };
    let share = if first.is_partial() {
        let scores = Scores::<E>::new(batch.scores(row, batch.valid(row, length)));
        scores.share(0, scores.vectors(), const { (First::<E>::PLACES / E::PER_VECTOR / THREADS) as usize })
    } else {
        first.read()
    };
    // Opaque: not computed before the scores are on their way, which would wait for it.
    let len = batch.valid(row, opaque_length(length));
    if len <= batch.k {
        write_whole(batch, row, len);
        return (len, Outcome::Done);
    }
    let scores = Scores::<E>::new(batch.scores(row, len));
    let (places, end) = (scores.places(), scores.vectors());
    let out = || OutRow::at(out, batch, row, scores);
    // Work on places where there is no score takes time, too. The shortest rows last, which the assembler puts first.
    let outcome = if places > First::<E>::PLACES / 2 {
        let held = Pairs::<8>::of::<E, 4>(&share.first_before::<E, 4>(len), 0, end, scratch.bins);
        if places > RESIDENT_PLACES {
            // At an address that is not aligned, a row of nearly as many scores has more places.
            scratch.note(Narrowed::UNKNOWN);
            Outcome::Crowded
        } else if places > First::<E>::PLACES {
            let rest = Slice { first: First::<E>::PLACES / E::PER_VECTOR, ..scores.whole() };
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
