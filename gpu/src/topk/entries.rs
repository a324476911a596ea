//! The table of the entry points of top-k.

use core::ptr::null_mut;

use super::auto::{self, Memory};
use super::element::{Bf16, F16, F32};
use super::origin::{self, Problem};
use super::{Batch, Options, cluster, short};

dsa_simt::kernels! {
    /// The kernels of top-k.
    pub static ENTRIES;

    /// Top-k of every row by the fastest path.
    ///
    /// A grid of at most [`slab::MAX_SLICES`](super::slab::MAX_SLICES) blocks of
    /// [`bins::THREADS`](super::bins::THREADS) threads, [`auto::shared_bytes`]`(max_len, tiles)` of dynamic shared
    /// memory. The parameters are the fields of [`Batch`] and [`Memory`], whose promises they keep, and the bits of
    /// [`Options`].
    #[launch(max_threads = 512, min_blocks = 2, cluster = 1, arch = 80)]
    kernel topk_f32(
        scores: *const f32,
        pitch: u64,
        lengths: *const i32,
        out: *mut i32,
        values: *mut f32,
        state: *mut u32,
        workspace: *mut u32,
        rows: u32,
        max_len: u32,
        k: u32,
        next_n: u32,
        compress_ratio: u32,
        options: u32,
    ) {
        let batch =
            Batch::<F32> { scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio };
        // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
        unsafe { auto::run(batch, Options::of(options), Memory { state, workspace }) }
    }

    /// [`topk_f32`] for scores of half precision.
    #[launch(max_threads = 512, min_blocks = 2, cluster = 1, arch = 80)]
    kernel topk_f16(
        scores: *const u16,
        pitch: u64,
        lengths: *const i32,
        out: *mut i32,
        values: *mut u16,
        state: *mut u32,
        workspace: *mut u32,
        rows: u32,
        max_len: u32,
        k: u32,
        next_n: u32,
        compress_ratio: u32,
        options: u32,
    ) {
        let batch =
            Batch::<F16> { scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio };
        // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
        unsafe { auto::run(batch, Options::of(options), Memory { state, workspace }) }
    }

    /// [`topk_f32`] for scores of type bf16.
    #[launch(max_threads = 512, min_blocks = 2, cluster = 1, arch = 80)]
    kernel topk_bf16(
        scores: *const u16,
        pitch: u64,
        lengths: *const i32,
        out: *mut i32,
        values: *mut u16,
        state: *mut u32,
        workspace: *mut u32,
        rows: u32,
        max_len: u32,
        k: u32,
        next_n: u32,
        compress_ratio: u32,
        options: u32,
    ) {
        let batch =
            Batch::<Bf16> { scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio };
        // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
        unsafe { auto::run(batch, Options::of(options), Memory { state, workspace }) }
    }

    /// Top-k of every row, if the longest has at most [`RESIDENT_PLACES`](super::RESIDENT_PLACES) scores: each by a
    /// block that keeps it in its registers.
    ///
    /// Any grid, blocks of [`bins::THREADS`](super::bins::THREADS) threads, [`short::SHARED_BYTES`] of dynamic shared
    /// memory. The parameters are the fields of [`Batch`], whose promises they keep, and the bits of [`Options`].
    #[launch(max_threads = 512, min_blocks = 2, cluster = 1, arch = 80)]
    kernel topk_f32_short(
        scores: *const f32,
        pitch: u64,
        lengths: *const i32,
        out: *mut i32,
        values: *mut f32,
        rows: u32,
        max_len: u32,
        k: u32,
        next_n: u32,
        compress_ratio: u32,
        options: u32,
    ) {
        let batch =
            Batch::<F32> { scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio };
        // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
        unsafe { short::run(batch, Options::of(options)) }
    }

    /// [`topk_f32_short`] for scores of half precision.
    #[launch(max_threads = 512, min_blocks = 2, cluster = 1, arch = 80)]
    kernel topk_f16_short(
        scores: *const u16,
        pitch: u64,
        lengths: *const i32,
        out: *mut i32,
        values: *mut u16,
        rows: u32,
        max_len: u32,
        k: u32,
        next_n: u32,
        compress_ratio: u32,
        options: u32,
    ) {
        let batch =
            Batch::<F16> { scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio };
        // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
        unsafe { short::run(batch, Options::of(options)) }
    }

    /// [`topk_f32_short`] for scores of type bf16.
    #[launch(max_threads = 512, min_blocks = 2, cluster = 1, arch = 80)]
    kernel topk_bf16_short(
        scores: *const u16,
        pitch: u64,
        lengths: *const i32,
        out: *mut i32,
        values: *mut u16,
        rows: u32,
        max_len: u32,
        k: u32,
        next_n: u32,
        compress_ratio: u32,
        options: u32,
    ) {
        let batch =
            Batch::<Bf16> { scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio };
        // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
        unsafe { short::run(batch, Options::of(options)) }
    }

    /// Top-k of every row, each by a cluster of blocks that keep it in their registers.
    ///
    /// A grid of `rows` clusters of 2, 4, 8 or 16 blocks of [`bins::THREADS`](super::bins::THREADS) threads,
    /// [`cluster::shared_bytes`]`(max_len, size, tiles)` of dynamic shared memory. The parameters are the fields of [`Batch`], whose promises
    /// they keep, and the bits of [`Options`].
    #[launch(max_threads = 512, min_blocks = 2, cluster = 0, arch = 90)]
    kernel topk_f32_cluster(
        scores: *const f32,
        pitch: u64,
        lengths: *const i32,
        out: *mut i32,
        values: *mut f32,
        rows: u32,
        max_len: u32,
        k: u32,
        next_n: u32,
        compress_ratio: u32,
        options: u32,
    ) {
        let batch =
            Batch::<F32> { scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio };
        // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
        unsafe { cluster::run(batch, Options::of(options)) }
    }

    /// [`topk_f32_cluster`] for scores of half precision.
    #[launch(max_threads = 512, min_blocks = 2, cluster = 0, arch = 90)]
    kernel topk_f16_cluster(
        scores: *const u16,
        pitch: u64,
        lengths: *const i32,
        out: *mut i32,
        values: *mut u16,
        rows: u32,
        max_len: u32,
        k: u32,
        next_n: u32,
        compress_ratio: u32,
        options: u32,
    ) {
        let batch =
            Batch::<F16> { scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio };
        // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
        unsafe { cluster::run(batch, Options::of(options)) }
    }

    /// [`topk_f32_cluster`] for scores of type bf16.
    #[launch(max_threads = 512, min_blocks = 2, cluster = 0, arch = 90)]
    kernel topk_bf16_cluster(
        scores: *const u16,
        pitch: u64,
        lengths: *const i32,
        out: *mut i32,
        values: *mut u16,
        rows: u32,
        max_len: u32,
        k: u32,
        next_n: u32,
        compress_ratio: u32,
        options: u32,
    ) {
        let batch =
            Batch::<Bf16> { scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio };
        // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
        unsafe { cluster::run(batch, Options::of(options)) }
    }

    /// Top-k of every row by one block: the trivial, decode and medium paths.
    ///
    /// Any grid, blocks of [`origin::THREADS`] threads, [`origin::BLOCK_SHARED_BYTES`] of dynamic shared memory.
    /// The parameters are the fields of [`Problem`], whose promises they keep, and `state`: `u32[state::words(0)]`, zero
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
        let problem = Problem {
            batch: Batch { scores, pitch, lengths, out, values: null_mut(), rows, max_len, k, next_n, compress_ratio },
            decode_max_len,
            medium_max_len,
        };
        // SAFETY: the launcher keeps the promises of `Problem` and of this entry.
        unsafe { origin::run_block(problem, state) }
    }

    /// Top-k of every row: as [`topk_f32_block`], and long rows by teams of blocks.
    ///
    /// A *cooperative* launch: blocks of a team wait for each other. Blocks of [`origin::THREADS`] threads,
    /// at least [`origin::grid_shared_bytes`]`(0)` of dynamic shared memory, better all there is. Parameters as
    /// for [`topk_f32_block`], but `state` is `u32[state::words(grid)]`.
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
        let problem = Problem {
            batch: Batch { scores, pitch, lengths, out, values: null_mut(), rows, max_len, k, next_n, compress_ratio },
            decode_max_len,
            medium_max_len,
        };
        // SAFETY: the launcher keeps the promises of `Problem` and of this entry.
        unsafe { origin::run_grid(problem, state) }
    }
}
