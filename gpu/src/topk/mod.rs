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

pub mod bins;
pub mod candidates;
pub mod coarse;
pub mod decode;
pub mod half;
pub mod histogram;
pub mod key;
pub mod large;
pub mod list;
pub mod medium;
pub mod output;
pub mod radix;
pub mod refine;
pub mod resident;
pub mod row;
pub mod sampled;
pub mod schedule;
pub mod scores;
pub mod source;
pub mod state;
pub mod team;
pub mod trivial;

use dsa_simt::{Carve, Global, Shared, block, grid, thread};

use coarse::BlockScratch;
use large::SliceScratch;
use list::List;
use refine::{Outcome, Scratch};
use resident::Pairs;
use row::Row;
use sampled::{Notes, SampledScratch, Slice};
use schedule::{Desk, Queue, Survey};
use scores::Scores;
use state::{RowState, State};

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

/// The rows of a launch.
///
/// What is said of the fields is what a launcher promises, with two things more: nothing but the launch
/// writes any of the memory while it runs, and the launch has the grid, block and shared memory that its
/// entry point asks for.
#[derive(Clone, Copy)]
pub struct Batch {
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
}

impl Batch {
    /// The valid length of a row.
    #[inline(always)]
    pub fn len(&self, row: u32) -> u32 {
        // SAFETY: the launcher promises a length for every row.
        let lengths = unsafe { Global::from_raw(self.lengths, self.rows.div_ceil(self.next_n) as usize) };
        if self.next_n == 1 && self.compress_ratio == 1 {
            let len = lengths.get_readonly(row as usize);
            return (len.max(0).cast_unsigned()).min(self.max_len);
        }
        let sequence = i64::from(lengths.get_readonly((row / self.next_n) as usize));
        // 64 bits: a length near the ends of i32 must not wrap.
        let len = sequence - i64::from(self.next_n) + 1 + i64::from(row % self.next_n);
        let len = len.clamp(0, i64::from(u32::MAX)) as u32 / self.compress_ratio;
        len.min(self.max_len)
    }

    /// The first `len` scores of a row, its valid length.
    #[inline(always)]
    fn scores(&self, row: u32, len: u32) -> Global<f32> {
        // SAFETY: the launcher promises `max_len` readable elements of every row, and `len` is at most that;
        // nothing writes them during the launch.
        unsafe { Global::from_raw(self.scores.add(row as usize * self.pitch as usize), len as usize) }
    }

    /// The output of a row.
    #[inline(always)]
    fn out_row(&self, row: u32) -> Global<i32> {
        // SAFETY: the launcher promises room for k indices for every row.
        unsafe { Global::from_raw(self.out.add(row as usize * self.k as usize), self.k as usize) }
    }
}

/// The arguments of the kernels that have the paths of the origin.
#[derive(Clone, Copy)]
pub struct Problem {
    /// The rows.
    pub batch: Batch,
    /// Longest row of the decode path, at most [`DECODE_MAX_LEN`].
    pub decode_max_len: u32,
    /// Longest row of the medium path; longer ones need `topk_f32_grid`.
    pub medium_max_len: u32,
}

impl core::ops::Deref for Problem {
    type Target = Batch;

    #[inline(always)]
    fn deref(&self) -> &Batch {
        &self.batch
    }
}

impl Problem {
    /// Whether a row of this length is for the large path.
    #[inline(always)]
    fn is_long(&self, len: u32) -> bool {
        len > self.k && len > self.medium_max_len
    }

    /// The valid prefix of a row.
    #[inline(always)]
    fn row(&self, row: u32) -> Row {
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

/// Bytes of dynamic shared memory of `topk_f32`, whose longest row has `max_len` elements.
pub const fn shared_bytes(max_len: u32) -> u32 {
    let always = Scratch::BYTES + 4 * NOTE_WORDS;
    if max_len <= RESIDENT_MAX_LEN { always } else { always + SAMPLED_BYTES }
}

/// Longest row that is kept in registers wherever it starts; if that is at an address aligned to 16 bytes, it
/// may be [`RESIDENT_PLACES`] long.
pub const RESIDENT_MAX_LEN: u32 = RESIDENT_PLACES - 3;
/// Elements of the vectors that a block keeps in registers.
pub const RESIDENT_PLACES: u32 = 16_384;
/// Fewest elements of a slice.
pub const MIN_SLICE: u32 = 4096;
const NOTE_WORDS: u32 = 4;
const SAMPLED_BYTES: u32 = 4 * (list::WORDS + Notes::WORDS);

/// Every row by the fastest path: the body of `topk_f32`.
///
/// Row `r` falls to blocks `r * slices` and following; blocks take rows as long as there are any.
///
/// # Safety
/// See [`topk_f32`](crate::topk_f32).
#[inline(always)]
pub unsafe fn run(batch: Batch, slices: u32, state: *mut u32, workspace: *mut u32) {
    // The launch may overlap the one before it on the stream, which may be of the same operator: state and
    // workspace are used by one launch at a time, and the scores may be what that one writes. So nothing in
    // global memory is touched before it has ended, and the next one starts no earlier than that.
    grid::wait_for_earlier();
    grid::let_later_start();
    let mut carve = Carve::dynamic();
    // SAFETY: the launch has `shared_bytes(max_len)` of shared memory.
    let scratch = unsafe { Scratch::carve(&mut carve) };
    // The unit and the row that the block works on: noted, because they would hold registers all the time.
    // SAFETY: as above.
    let note: Shared<u32> = unsafe { carve.array(NOTE_WORDS) };
    let mut unit = block::index();
    while unit < batch.rows * slices {
        // Without the division in the usual case.
        let (row, number) = if slices == 1 { (unit, 0) } else { (unit / slices, unit % slices) };
        if thread::index() == 0 {
            note.set4(0, [unit, row, 0, 0]);
        }
        if run_unit(&batch, row, number, slices, state, workspace, scratch, carve) == Outcome::Crowded {
            // All anew, so that nothing is held in registers for this rare case.
            let row = note.get(1);
            refine::select(&Scores::new(batch.scores(row, batch.len(row))), batch.k, scratch);
            scratch.staged().write::<{ bins::THREADS }>(batch.out_row(note.get(1)));
        }
        if block::count() >= batch.rows * slices {
            return;
        }
        block::sync();
        unit = note.get(0) + block::count();
        block::sync();
    }
}

/// What the block does for slice `number` of a row. Collective over the block.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn run_unit(
    batch: &Batch,
    row: u32,
    number: u32,
    slices: u32,
    state: *mut u32,
    workspace: *mut u32,
    scratch: Scratch,
    mut carve: Carve,
) -> Outcome {
    let len = batch.len(row);
    // While the length is on its way.
    scratch.bins.zero();
    if thread::index() == 0 {
        scratch.start();
    }
    block::sync();
    let out = batch.out_row(row);
    let scores = Scores::new(batch.scores(row, len));
    let places = scores.places();
    let count = if places <= RESIDENT_PLACES { 1 } else { slices.min(len.div_ceil(MIN_SLICE)) };
    if number >= count {
        return Outcome::Done;
    }
    if len <= batch.k {
        trivial::select::<{ bins::THREADS }>(len, out);
        return Outcome::Done;
    }
    if places <= RESIDENT_PLACES {
        type Half = Pairs<8>;
        if places <= RESIDENT_PLACES / 2 {
            resident::select::<Half>(scores, out, scratch)
        } else {
            resident::select::<(Half, Half)>(scores, out, scratch)
        }
    } else {
        // SAFETY: rows of this length have shared memory for a list; if there are several slices, state and
        // workspace have room for each of the rows.
        let (sampled, state, list) = unsafe {
            let list = List::carve(&mut carve);
            let sampled = SampledScratch { scratch, list, notes: Notes::carve(&mut carve) };
            let words = sampled::LIST_WORDS as usize;
            let list = Global::from_raw(workspace.add(row as usize * words), words);
            (sampled, RowState::from_raw(state, row), list)
        };
        sampled::select(scores, out, Slice { number, count }, state, list, sampled)
    }
}
