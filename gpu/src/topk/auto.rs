//! Every row by the fastest path for its length: `Path::Auto`.
//!
//! A block takes its part of a row ([`division`](super::division)), stages the output row in shared memory by one
//! of the paths, and writes it. Blocks never wait for each other.

use dsa_simt::{Carve, Global, Shared, block, grid, opaque, thread};

use super::bins::THREADS;
use super::division::{Desk, Part};
use super::element::Element;
use super::list::{self, List};
use super::output::Staged;
use super::refine::{self, Outcome, Scratch};
use super::resident::{self, Pairs};
use super::sampled::{self, Notes, SampledScratch};
use super::scores::Scores;
use super::slab::Slab;
use super::state::RowState;
use super::{Batch, Options, RESIDENT_MAX_LEN, RESIDENT_PLACES, ascending, trivial};

/// Bytes of dynamic shared memory of a launch whose longest row has `max_len` elements.
pub const fn shared_bytes(max_len: u32) -> u32 {
    let always = Scratch::BYTES + 4 * Desk::WORDS;
    if max_len <= RESIDENT_MAX_LEN { always } else { always + 4 * (list::WORDS + Notes::WORDS) }
}

/// The words of device memory that a launch uses besides its rows.
#[derive(Clone, Copy)]
pub struct Memory {
    /// `u32[row_words(rows)]` ([`row_words`](super::state::row_words)), zero before the first launch and used by
    /// one launch at a time; rows in it are needed only if there are more blocks than rows.
    pub state: *mut u32,
    /// `u32[blocks, REGION_WORDS]` ([`REGION_WORDS`](super::slab::REGION_WORDS)), aligned to 16 bytes, with any
    /// contents; likewise.
    pub workspace: *mut u32,
}

/// The body of the entry points `topk_f32`, `topk_f16` and `topk_bf16`.
///
/// # Safety
/// See [`topk_f32`](crate::topk_f32).
#[inline(always)]
pub unsafe fn run<E: Element>(batch: Batch<E>, options: Options, memory: Memory) {
    if batch.rows == 0 {
        return;
    }
    let mut carve = Carve::dynamic();
    // SAFETY: the launch has `shared_bytes(max_len)` of shared memory.
    let (scratch, desk) = unsafe { (Scratch::carve(&mut carve), Desk::carve(&mut carve)) };
    scratch.start();
    // The launch may overlap the one before it on the stream, which may be of the same operator: state and
    // workspace are used by one launch at a time, and the scores may be what that one writes. So nothing in
    // global memory is touched before it has ended.
    grid::wait_for_earlier();
    desk.first(&batch, scratch.sums);
    loop {
        block::sync();
        let Some(part) = desk.part() else { return };
        let mut outcome = stage(&batch, options, part, desk, memory, scratch, carve);
        if outcome != Outcome::Done {
            // All anew, so that nothing is held in registers for the rare case.
            let Part { row, len, .. } = desk.known_part();
            let scores = Scores::<E>::new(batch.scores(row, len));
            if outcome == Outcome::Crowded {
                refine::select(&scores, batch.k, options.lowest_indices(), scratch);
                outcome = Outcome::Staged;
            }
            if outcome == Outcome::Staged && options.is_ascending() {
                let bitmap = bitmap(batch.max_len, carve, scratch);
                ascending::sort(scratch.staged(), batch.k, len, bitmap, scratch.sums);
            }
            block::sync();
            write::<E>(scratch.staged(), batch.out_row(row), scores, batch.values_row(row));
        }
        if block::count() >= batch.rows {
            return;
        }
        block::sync();
        scratch.start();
        desk.next(&batch);
    }
}

/// Stages the output of the block's part of a row; short rows are written at once. Collective over the block.
#[inline(always)]
fn stage<E: Element>(
    batch: &Batch<E>,
    options: Options,
    part: Part,
    desk: Desk,
    memory: Memory,
    scratch: Scratch,
    mut carve: Carve,
) -> Outcome {
    let Part { row, len, .. } = part;
    if len <= batch.k {
        write_whole(batch, row, len);
        return Outcome::Done;
    }
    let scores = Scores::<E>::new(batch.scores(row, len));
    let places = scores.places();
    if places <= RESIDENT_PLACES {
        type Half = Pairs<8>;
        let is_ascending = options.is_ascending();
        if places <= RESIDENT_PLACES / 2 {
            resident::select::<E, Half>(scores, batch.k, is_ascending, scratch)
        } else {
            resident::select::<E, (Half, Half)>(scores, batch.k, is_ascending, scratch)
        }
    } else {
        // SAFETY: rows of this length have shared memory for a list.
        let sampled = unsafe {
            let list = List::carve(&mut carve);
            SampledScratch { scratch, list, notes: Notes::carve(&mut carve) }
        };
        let shared = || {
            // Read again, and not held in registers until then.
            let part = desk.known_part();
            // SAFETY: there are several slices, so that there are more blocks than rows, and state and workspace have
            // room for each of them.
            unsafe {
                let slab = Slab::from_raw(memory.workspace, part.first, part.slices);
                (part, RowState::from_raw(memory.state, part.row), slab)
            }
        };
        sampled::select(scores, batch.k, options, part, shared, sampled)
    }
}

/// Memory for sorting: where the list was, if there is one.
#[inline(always)]
fn bitmap(max_len: u32, mut carve: Carve, scratch: Scratch) -> Shared<u32> {
    const { assert!(ascending::WORDS <= list::WORDS) };
    if max_len <= RESIDENT_MAX_LEN {
        return scratch.words;
    }
    // SAFETY: the launch has room for a list there, which nobody needs any more.
    unsafe { carve.array(list::WORDS) }
}

/// Writes the staged row, and the scores at its indices.
#[inline(always)]
fn write<E: Element>(staged: Staged, out: Global<i32>, scores: Scores<E>, values: Option<E::Array>) {
    let mut position = opaque(thread::index());
    while position < out.len() as u32 {
        let index = staged.get(position);
        out.set(position as usize, index.cast_signed());
        if let Some(values) = values {
            E::copy(scores.array(), index, values, position);
        }
        position += THREADS;
    }
}

/// Writes a row of which everything is selected.
#[inline(always)]
fn write_whole<E: Element>(batch: &Batch<E>, row: u32, len: u32) {
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
