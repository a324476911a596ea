//! The indices of the k largest scores of each row.
//!
//! # Contract
//! Scores are f32, row `r` at `scores + r * pitch`, 4-byte aligned. Its valid prefix has
//! `clamp(lengths, 0, max_len)` elements; what lies behind it is never read. The output row has k entries:
//! the indices of the `min(k, len)` largest elements, each once, in any order, then -1. Of equal scores any
//! may be taken. NaN ranks below every number; -0.0 equals +0.0. The result is exact for every input.
//!
//! # The paths
//! | rows with | path | blocks per row | reads of the row |
//! |---|---|---|---|
//! | `len <= k` | [`trivial`] | 1 | none |
//! | `len <= decode_max_len` | [`decode`] | 1 | one, kept in registers |
//! | `len <= medium_max_len` | [`medium`] | 1 | two |
//! | more | [`large`] | one or several | one, kept in shared memory as far as it fits |
//!
//! Each row takes its path on the device, from its own length. [`schedule`] says which blocks work on it.
//! After the persistent top-k of vLLM (PR 37421), whose four paths these are; the algorithms are described
//! in their files.

pub mod candidates;
pub mod coarse;
pub mod decode;
pub mod histogram;
pub mod key;
pub mod large;
pub mod medium;
pub mod output;
pub mod radix;
pub mod row;
pub mod schedule;
pub mod source;
pub mod state;
pub mod team;
pub mod trivial;

use dsa_simt::{Carve, Global, block};

use coarse::BlockScratch;
use large::SliceScratch;
use row::Row;
use schedule::{Desk, Queue, Survey};
use state::State;

/// What the output holds behind the last index of a row.
pub const EMPTY: i32 = -1;
/// Largest k.
pub const MAX_K: u32 = 4096;
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

/// The arguments of a launch.
///
/// What is said of the fields is what a launcher promises, with two things more: nothing but the launch
/// writes any of the memory while it runs, and the launch has the grid, block and shared memory that its
/// entry point asks for.
#[derive(Clone, Copy)]
pub struct Problem {
    /// First element of the first row, aligned to 4 bytes. `max_len` elements of each row are readable.
    pub scores: *const f32,
    /// Distance between rows, in elements; at least `max_len`.
    pub pitch: u64,
    /// `i32[ceil(rows / next_n)]`, aligned to 4 bytes, with any contents: lengths, or sequence lengths if
    /// `next_n` or `compress_ratio` is above 1.
    pub lengths: *const i32,
    /// `i32[rows, k]`, aligned to 4 bytes.
    pub out: *mut i32,
    /// Number of rows, at most `i32::MAX`.
    pub rows: u32,
    /// Longest valid prefix, at most `i32::MAX`; longer lengths are clamped.
    pub max_len: u32,
    /// Elements wanted of each row, `1..=`[`MAX_K`].
    pub k: u32,
    /// Rows per sequence, at least 1: row `s * next_n + j` has `lengths[s] - next_n + 1 + j` elements.
    pub next_n: u32,
    /// What that length is divided by, at least 1.
    pub compress_ratio: u32,
    /// Longest row of the decode path, at most [`DECODE_MAX_LEN`].
    pub decode_max_len: u32,
    /// Longest row of the medium path; longer ones need `topk_f32_grid`.
    pub medium_max_len: u32,
}

impl Problem {
    /// The valid length of a row.
    #[inline(always)]
    pub fn len(&self, row: u32) -> u32 {
        // SAFETY: the launcher promises a length for every row.
        let lengths = unsafe { Global::from_raw(self.lengths, self.rows.div_ceil(self.next_n) as usize) };
        let sequence = i64::from(lengths.get_readonly((row / self.next_n) as usize));
        // 64 bits: a length near the ends of i32 must not wrap.
        let len = sequence - i64::from(self.next_n) + 1 + i64::from(row % self.next_n);
        let len = len.clamp(0, i64::from(u32::MAX)) as u32 / self.compress_ratio;
        len.min(self.max_len)
    }

    /// Whether a row of this length is for the large path.
    #[inline(always)]
    fn is_long(&self, len: u32) -> bool {
        len > self.k && len > self.medium_max_len
    }

    /// The valid prefix of a row.
    #[inline(always)]
    fn row(&self, row: u32) -> Row {
        // SAFETY: the launcher promises `max_len` readable elements of every row, and `len` is at most
        // that; nothing writes them during the launch.
        Row::new(unsafe {
            Global::from_raw(self.scores.add(row as usize * self.pitch as usize), self.len(row) as usize)
        })
    }

    /// The output of a row.
    #[inline(always)]
    fn out_row(&self, row: u32) -> Global<i32> {
        // SAFETY: the launcher promises room for k indices for every row.
        unsafe { Global::from_raw(self.out.add(row as usize * self.k as usize), self.k as usize) }
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

/// Every row by one block: the body of `topk_f32_block`.
///
/// # Safety
/// See [`topk_f32_block`](crate::topk_f32_block).
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

/// Long rows by teams of blocks, the others by one block each: the body of `topk_f32_grid`.
///
/// # Safety
/// See [`topk_f32_grid`](crate::topk_f32_grid).
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
