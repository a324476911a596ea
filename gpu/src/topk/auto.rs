//! Every row by the fastest path for its length: `Path::Auto`.
//!
//! A block takes its part of a row ([`division`](super::division)), stages the output row in shared memory by one
//! of the paths, and writes it. Blocks never wait for each other.

use dsa_simt::{Carve, Shared, block, grid, opaque, opaque_address, thread};

use super::ascending::Sorter;
use super::bins::THREADS;
use super::division::{Desk, Part};
use super::element::Element;
use super::list::{self, List};
use super::output::OutRow;
use super::refine::{self, Outcome, Scratch};
use super::resident::{self, Pairs};
use super::sampled::{self, Notes, SampledScratch};
use super::scores::Scores;
use super::slab::Slab;
use super::state::RowState;
use super::stream::{self, Room};
use super::{Batch, Options, RESIDENT_MAX_LEN, RESIDENT_PLACES, crowded, trivial};

/// Bytes of dynamic shared memory of a launch whose longest row has `max_len` elements; rows in slices are streamed
/// with `tiles` tiles at a time, one of [`DEPTHS`](stream::DEPTHS).
pub const fn shared_bytes(max_len: u32, tiles: u32) -> u32 {
    let always = Scratch::BYTES + 4 * Desk::WORDS;
    if max_len <= RESIDENT_MAX_LEN {
        always
    } else {
        always + 4 * (list::WORDS + Notes::WORDS + stream::room_words(tiles))
    }
}

/// The words of device memory that a launch uses besides its rows.
#[derive(Clone, Copy)]
pub struct Memory {
    /// `u32[row_words(rows)]` ([`row_words`](super::state::row_words)), zero before the first launch and used by
    /// one launch at a time; rows in it are needed only if there are more blocks than rows.
    pub state: *mut u32,
    /// `u32[rows, ROW_WORDS]` ([`ROW_WORDS`](super::slab::ROW_WORDS)), aligned to 16 bytes, with any contents;
    /// likewise.
    pub workspace: *mut u32,
}

/// Top-k of every row by the fastest path: the body of [`topk_f32`](super::topk_f32) and its like.
///
/// At most [`MAX_SLICES`](super::slab::MAX_SLICES) blocks of [`THREADS`] threads, with [`shared_bytes`]`(max_len, tiles)` of
/// dynamic shared memory. The parameters are the fields of [`Batch`] and [`Memory`], and the bits of [`Options`].
///
/// # Safety
/// The launch is one of these, and keeps the promises of [`Batch`] and [`Memory`].
#[cfg_attr(target_arch = "nvptx64", inline(always))]
#[cfg_attr(not(target_arch = "nvptx64"), inline(never))]
pub unsafe fn run<E: Element>(batch: Batch<E>, options: Options, memory: Memory) {
    if batch.rows == 0 {
        return;
    }
    let mut carve = Carve::dynamic();
    // SAFETY: the launch has `shared_bytes(max_len)` of shared memory.
    let (scratch, desk) = unsafe { (Scratch::carve(&mut carve), Desk::carve(&mut carve)) };
    scratch.start();
    let prepared = desk.prepare(&batch);
    // The launch may overlap the one before it on the stream, which may be of the same operator: state and
    // workspace are used by one launch at a time, and the scores may be what that one writes. So nothing in
    // global memory is touched before it has ended.
    grid::wait_for_earlier();
    desk.first(&batch, prepared, scratch.sums);
    loop {
        block::sync();
        if !desk.has_part() {
            return;
        }
        let outcome = stage(&batch, options, desk, memory, scratch, carve);
        let spare = || spare(batch.max_len, carve, scratch);
        // What is usual with a copy of its own, so that what is rare is not jumped over.
        let is_sorted = options.is_ascending() && outcome == Outcome::Sorted;
        if outcome == Outcome::Staged || is_sorted {
            let Part { row, len, .. } = desk.part();
            write_staged(&batch, options, row, len, is_sorted, spare, scratch);
        } else if outcome != Outcome::Done {
            // All anew, so that nothing is held in registers for the rare case.
            let Part { row, len, .. } = desk.part();
            complete(&batch, options, row, len, outcome, spare, scratch);
        }
        if !desk.has_next(&batch) {
            return;
        }
        block::sync();
        scratch.start();
        desk.next(&batch);
    }
}

/// Refines and sorts the output of a row as the outcome of its path and the options want it, and writes it. What is rare is
/// here, once for all paths, and not where a path finds a bin crowded: it costs the others time if it lies among them.
///
/// `memory` is for sorting. Collective over the block.
#[inline(always)]
pub(super) fn complete<E: Element>(
    batch: &Batch<E>,
    options: Options,
    row: u32,
    len: u32,
    mut outcome: Outcome,
    memory: impl Fn() -> Shared<u32>,
    scratch: Scratch,
) {
    let scores = Scores::<E>::new(batch.scores(row, len));
    if outcome == Outcome::Crowded && scores.places() <= crowded::MOST_PLACES {
        let out = || OutRow::new(&asked_anew(options, batch), row, scores);
        outcome = crowded::select(scores, batch.k, options, scratch, out);
        if outcome == Outcome::Done {
            return;
        }
    }
    if outcome == Outcome::Crowded {
        refine::select(&scores, batch.k, options.lowest_indices(), scratch);
    }
    write_staged(batch, options, row, len, false, memory, scratch);
}

/// Writes what is staged, in the order that the options want, in which it may be staged. `memory` is for sorting. Collective
/// over the block.
#[inline(always)]
fn write_staged<E: Element>(
    batch: &Batch<E>,
    options: Options,
    row: u32,
    len: u32,
    is_sorted: bool,
    memory: impl Fn() -> Shared<u32>,
    scratch: Scratch,
) {
    let out = OutRow::new(&asked_anew(options, batch), row, Scores::<E>::new(batch.scores(row, len)));
    if options.is_ascending() && !is_sorted {
        Sorter { memory: memory(), sums: scratch.sums }.write(scratch.staged(), batch.k, (0, len), 0, &out);
    } else {
        block::sync();
        out.write(scratch.staged(), 0, batch.k);
    }
}

/// Stages the output of the block's part of a row; short rows are written at once. Collective over the block.
#[inline(always)]
fn stage<E: Element>(
    batch: &Batch<E>,
    options: Options,
    desk: Desk,
    memory: Memory,
    scratch: Scratch,
    carve: Carve,
) -> Outcome {
    let part = desk.part();
    let Part { row, len, .. } = part;
    if len <= batch.k {
        write_whole(batch, row, len);
        return Outcome::Done;
    }
    let scores = Scores::<E>::new(batch.scores(row, len));
    let places = scores.places();
    if places <= RESIDENT_PLACES {
        let out = || {
            // Read again, and not held in registers until then.
            let Part { row, len, .. } = desk.part();
            OutRow::new(&asked_anew(options, batch), row, Scores::new(batch.scores(row, len)))
        };
        if places <= RESIDENT_PLACES / 2 {
            resident::select_short(scores, batch.k, options, scratch, out)
        } else {
            type Half = Pairs<8>;
            resident::select::<E, (Half, Half)>(scores, batch.k, options, scratch, out)
        }
    } else {
        let mut carve = sized_anew(options, carve);
        // SAFETY: rows of this length have shared memory for a list and what follows.
        let sampled = unsafe {
            let list = List::carve(&mut carve);
            let notes = Notes::carve(&mut carve);
            SampledScratch { scratch, list, notes, room: Room::carve(&mut carve) }
        };
        let shared = || {
            // Read again, and not held in registers until then.
            let part = desk.part();
            // SAFETY: there are several slices, so that there are more blocks than rows, and state and workspace have
            // room for each of the rows.
            unsafe {
                let slab = Slab::from_raw(memory.workspace, part.row);
                (part, RowState::from_raw(memory.state, part.row), slab)
            }
        };
        sampled::select(scores, batch.k, options, part, shared, sampled)
    }
}

/// Memory for sorting: where the list and the stream were, if there are any.
#[inline(always)]
fn spare(max_len: u32, carve: Carve, scratch: Scratch) -> Shared<u32> {
    if max_len <= RESIDENT_MAX_LEN {
        return scratch.words;
    }
    let mut carve = carve.anew();
    // SAFETY: the launch has room for a list and a stream there, which nobody needs any more.
    unsafe { carve.array(carve.words_left()) }
}

/// The same batch. As [`sized_anew`]: whether there are values is asked where they are written.
#[inline(always)]
fn asked_anew<E: Element>(options: Options, batch: &Batch<E>) -> Batch<E> {
    if options.is_ascending() { Batch { values: opaque_address(batch.values), ..*batch } } else { *batch }
}

/// The same memory. Kernels for rows in the order of the indices need more registers, so that its size is not held in any.
#[inline(always)]
fn sized_anew(options: Options, carve: Carve) -> Carve {
    if options.is_ascending() { carve.anew() } else { carve }
}

/// Writes a row of which everything is selected.
#[inline(always)]
pub(super) fn write_whole<E: Element>(batch: &Batch<E>, row: u32, len: u32) {
    trivial::select::<THREADS>(len, batch.out_row(row));
    let Some(values) = batch.values_row(row) else { return };
    let scores = batch.scores(row, len);
    let mut position = opaque(thread::index());
    while position < batch.k {
        if position < len {
            E::copy(scores, position, values, position);
        } else {
            E::clear(values, position);
        }
        position += THREADS;
    }
}
