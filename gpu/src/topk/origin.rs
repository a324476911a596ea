//! The paths of vLLM's persistent top-k (PR 37421): trivial, decode, medium and large, under one fixed launch.
//!
//! For comparison and study, f32 only and without options. [`schedule`] says which blocks work on
//! a row.

use dsa_simt::{Carve, block};

use super::coarse::{self, BlockScratch};
use super::element::F32;
use super::large::{self, SliceScratch};
use super::row::Row;
use super::schedule::{self, Desk, Queue, Survey};
use super::state::State;
use super::{Batch, decode, medium, trivial};

/// Longest row that [`decode`] takes: eight elements for each of 1,024 threads.
pub const DECODE_MAX_LEN: u32 = 8192;
/// Threads of a block.
pub const THREADS: u32 = 1024;
const DECODE_ELEMENTS: usize = (DECODE_MAX_LEN / THREADS) as usize;

/// Bytes of dynamic shared memory of `topk_f32_block`.
pub const BLOCK_SHARED_BYTES: u32 = 4 * schedule::words(THREADS) + coarse::SCRATCH_BYTES;

/// Bytes of dynamic shared memory with which `topk_f32_grid` keeps slices of `elements` elements, a multiple
/// of 4. It also works with more, and with as little as `grid_shared_bytes(0)`.
pub const fn grid_shared_bytes(elements: u32) -> u32 {
    let slices = large::scratch_bytes(elements);
    let larger = if slices > coarse::SCRATCH_BYTES { slices } else { coarse::SCRATCH_BYTES };
    4 * schedule::words(THREADS) + larger
}

/// The arguments of the kernels that have the paths of the origin.
#[derive(Clone, Copy)]
pub struct Problem {
    /// The rows.
    pub batch: Batch<F32>,
    /// Longest row of the decode path, at most [`DECODE_MAX_LEN`].
    pub decode_max_len: u32,
    /// Longest row of the medium path; longer ones need `topk_f32_grid`.
    pub medium_max_len: u32,
}

impl core::ops::Deref for Problem {
    type Target = Batch<F32>;

    #[inline(always)]
    fn deref(&self) -> &Batch<F32> {
        &self.batch
    }
}

impl Problem {
    /// Whether a row of this length is for the large path.
    #[inline(always)]
    pub fn is_long(&self, len: u32) -> bool {
        len > self.k && len > self.medium_max_len
    }

    /// The valid prefix of a row.
    #[inline(always)]
    pub fn row(&self, row: u32) -> Row {
        Row::new(self.scores(row, self.len(row)))
    }

    /// Works alone on a row that is not long. Collective over the block; needs a block barrier before
    /// `scratch` is used again.
    #[inline(always)]
    fn run_row(&self, row: u32, scratch: BlockScratch<THREADS>) {
        let len = self.len(row);
        let out = self.out_row(row);
        if len <= self.k {
            trivial::select::<THREADS>(len, out);
        } else if len <= self.decode_max_len {
            decode::select::<THREADS, DECODE_ELEMENTS>(self.row(row), out, scratch);
        } else {
            medium::select::<THREADS>(self.row(row), out, scratch);
        }
    }
}

/// Every row by one block, by the trivial, decode and medium paths: the body of [`topk_f32_block`](super::topk_f32_block).
///
/// Any grid, blocks of [`THREADS`] threads, [`BLOCK_SHARED_BYTES`] of dynamic shared memory. The parameters are the fields of
/// [`Problem`] and `state`: `u32[`[`state::words`](super::state::words)`(0)]`, zero before the first launch and used by one
/// launch at a time.
///
/// # Safety
/// The launch is one of these, and keeps the promises of [`Problem`].
#[inline(always)]
pub unsafe fn run_block(problem: Problem, state: *mut u32) {
    let mut carve = Carve::dynamic();
    // SAFETY: the launch has `BLOCK_SHARED_BYTES` of shared memory.
    let (desk, scratch) = unsafe { (Desk::<THREADS>::carve(&mut carve), BlockScratch::carve(&mut carve)) };
    // A block that has a row of its own to start with asks for another only if there are more of them.
    let blocks = block::count();
    if problem.rows <= blocks {
        if block::index() < problem.rows {
            problem.run_row(block::index(), scratch);
        }
        return;
    }
    // SAFETY: the launcher promises the state of a launch without teams.
    let mut queue = Queue::open(unsafe { State::from_raw(state, 0) }, desk);
    let mut row = block::index();
    while row < problem.rows {
        queue.ask();
        problem.run_row(row, scratch);
        row = blocks + queue.take();
    }
    queue.close();
}

/// Long rows by teams of blocks, the others as [`run_block`] does: the body of [`topk_f32_grid`](super::topk_f32_grid).
///
/// A *cooperative* launch: blocks of a team wait for each other. Blocks of [`THREADS`] threads, at least
/// [`grid_shared_bytes`]`(0)` of dynamic shared memory, better all there is. Parameters as for [`run_block`], but `state` is
/// `u32[`[`state::words`](super::state::words)`(grid)]`.
///
/// # Safety
/// The launch is one of these, and keeps the promises of [`Problem`].
#[inline(always)]
pub unsafe fn run_grid(problem: Problem, state: *mut u32) {
    let mut carve = Carve::dynamic();
    // SAFETY: the launch has at least `grid_shared_bytes(0)` of shared memory. The two kinds of scratch
    // overlap; long rows are done before the first other row, with a block barrier between.
    let (desk, slice_scratch, scratch) = unsafe {
        let desk = Desk::<THREADS>::carve(&mut carve);
        let mut overlapping = carve;
        (desk, SliceScratch::carve(&mut overlapping), BlockScratch::carve(&mut carve))
    };
    // SAFETY: the launcher promises the state of this many blocks.
    let state = unsafe { State::from_raw(state, block::count()) };
    let survey = Survey::take(&problem, desk);
    block::sync();
    if survey.long_rows > 0 {
        schedule::run_long_rows(&problem, survey, state, desk, slice_scratch);
    }
    if desk.long_rows() == problem.rows {
        return;
    }
    let mut queue = Queue::open(state, desk);
    queue.ask();
    let mut row = queue.take();
    while row < problem.rows {
        queue.ask();
        if !problem.is_long(problem.len(row)) {
            problem.run_row(row, scratch);
        }
        row = queue.take();
    }
    queue.close();
}
