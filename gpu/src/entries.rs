//! The table of entry points.

use crate::topk::{self, Batch, Problem};

dsa_simt::kernels! {
    /// The kernels of this crate.
    pub static ENTRIES;

    /// Top-k of every row by the fastest path.
    ///
    /// Any grid, blocks of [`topk::bins::THREADS`] threads, [`topk::shared_bytes`]`(max_len)` of dynamic shared
    /// memory. The parameters are the fields of [`Batch`], whose promises they keep, and
    /// - `slices`: blocks that a long row falls to; 1 if `rows` is above the limit below;
    /// - `state`: `u32[topk::state::row_words(rows)]`, zero before the first launch and used by one launch at a
    ///   time; rows in it are needed only if `slices` is above 1;
    /// - `workspace`: `u32[rows, topk::sampled::LIST_WORDS]` with any contents, likewise.
    #[launch(max_threads = 512, min_blocks = 2, cluster = 1, arch = 80)]
    kernel topk_f32(
        scores: *const f32,
        pitch: u64,
        lengths: *const i32,
        out: *mut i32,
        state: *mut u32,
        workspace: *mut u32,
        rows: u32,
        max_len: u32,
        k: u32,
        next_n: u32,
        compress_ratio: u32,
        slices: u32,
    ) {
        let batch = Batch { scores, pitch, lengths, out, rows, max_len, k, next_n, compress_ratio };
        // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
        unsafe { topk::run(batch, slices, state, workspace) }
    }

    /// Top-k of every row by one block: the trivial, decode and medium paths.
    ///
    /// Any grid, blocks of [`topk::THREADS`] threads, [`topk::BLOCK_SHARED_BYTES`] of dynamic shared memory.
    /// The parameters are the fields of [`Problem`], whose promises they keep, and `state`: `u32[topk::state::words(0)]`, zero
    /// before the first launch and used by one launch at a time.
    #[launch(max_threads = 1024, min_blocks = 1, cluster = 1, arch = 80)]
    kernel topk_f32_block(
        scores: *const f32,
        pitch: u64,
        lengths: *const i32,
        out: *mut i32,
        state: *mut u32,
        rows: u32,
        max_len: u32,
        k: u32,
        next_n: u32,
        compress_ratio: u32,
        decode_max_len: u32,
        medium_max_len: u32,
    ) {
        let batch = Batch { scores, pitch, lengths, out, rows, max_len, k, next_n, compress_ratio };
        let problem = Problem { batch, decode_max_len, medium_max_len };
        // SAFETY: the launcher keeps the promises of `Problem` and of this entry.
        unsafe { topk::run_block(problem, state) }
    }

    /// Top-k of every row: as [`topk_f32_block`], and long rows by teams of blocks.
    ///
    /// A *cooperative* launch: blocks of a team wait for each other. Blocks of [`topk::THREADS`] threads,
    /// at least [`topk::grid_shared_bytes`]`(0)` of dynamic shared memory, better all there is. Parameters as
    /// for [`topk_f32_block`], but `state` is `u32[topk::state::words(grid)]`.
    #[launch(max_threads = 1024, min_blocks = 1, cluster = 1, arch = 80)]
    kernel topk_f32_grid(
        scores: *const f32,
        pitch: u64,
        lengths: *const i32,
        out: *mut i32,
        state: *mut u32,
        rows: u32,
        max_len: u32,
        k: u32,
        next_n: u32,
        compress_ratio: u32,
        decode_max_len: u32,
        medium_max_len: u32,
    ) {
        let batch = Batch { scores, pitch, lengths, out, rows, max_len, k, next_n, compress_ratio };
        let problem = Problem { batch, decode_max_len, medium_max_len };
        // SAFETY: the launcher keeps the promises of `Problem` and of this entry.
        unsafe { topk::run_grid(problem, state) }
    }
}
