//! The table of the entry points of top-k.
//!
//! What is the same for all rows of a launch has an entry point of its own, and is not looked up: the type of the scores,
//! the order of the output, whether rows are short, or are held by clusters or streamed by them. Code that a launch does
//! not run costs it time where it lies among what it does: 0.1 to 0.4 us of 5 to 8 for rows in clusters. The emulator does
//! not mind, and its build compiles one copy of each body for all entry points of a type of scores.

use core::ptr::null_mut;

use super::auto::{self, Memory};
use super::element::{Bf16, F16, F32};
use super::origin::{self, Problem};
use super::{Batch, Options, short};

/// The kernels of `Path::Auto` and `Path::Cluster` for each type of scores (with that of their bits) and order of the
/// output, a constructor of [`Options`]; then others. The names of kernels for indices that ascend end in `_ordered`.
macro_rules! kernels_of_auto {
    (
        $(#[$table_meta:meta])*
        $vis:vis static $table:ident;
        $( $scores:ident($bits:ident), $order:ident: $auto:ident, $short:ident, $held:ident, $streamed:ident; )*
        { $($others:tt)* }
    ) => {
        dsa_simt::kernels! {
            $(#[$table_meta])*
            $vis static $table;

            $(
                /// Top-k of every row by the fastest path.
                ///
                /// A grid of at most [`slab::MAX_SLICES`](super::slab::MAX_SLICES) blocks of
                /// [`bins::THREADS`](super::bins::THREADS) threads, [`auto::shared_bytes`]`(max_len, tiles)` of dynamic
                /// shared memory. The parameters are the fields of [`Batch`] and [`Memory`], whose promises they keep, and
                /// the bits of [`Options`].
                #[launch(max_threads = 512, min_blocks = 2, cluster = 1, arch = 80)]
                kernel $auto(
                    scores: *const $bits,
                    pitch: u64,
                    lengths: *const i32,
                    out: *mut i32,
                    values: *mut $bits,
                    state: *mut u32,
                    workspace: *mut u32,
                    rows: u32,
                    max_len: u32,
                    k: u32,
                    next_n: u32,
                    compress_ratio: u32,
                    options: u32,
                ) {
                    let batch = Batch::<$scores> {
                        scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio,
                    };
                    // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
                    unsafe { auto::run(batch, Options::$order(options), Memory { state, workspace }) }
                }
            )*

            $(
                /// Top-k of every row, if the longest has at most [`RESIDENT_PLACES`](super::RESIDENT_PLACES) scores: each
                /// by a block that keeps it in its registers.
                ///
                /// Any grid, blocks of [`bins::THREADS`](super::bins::THREADS) threads, [`short::SHARED_BYTES`] of dynamic
                /// shared memory. The parameters are the fields of [`Batch`], whose promises they keep, and the bits of
                /// [`Options`].
                #[launch(max_threads = 512, min_blocks = 2, cluster = 1, arch = 80)]
                kernel $short(
                    scores: *const $bits,
                    pitch: u64,
                    lengths: *const i32,
                    out: *mut i32,
                    values: *mut $bits,
                    rows: u32,
                    max_len: u32,
                    k: u32,
                    next_n: u32,
                    compress_ratio: u32,
                    options: u32,
                ) {
                    let batch = Batch::<$scores> {
                        scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio,
                    };
                    // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
                    unsafe { short::run(batch, Options::$order(options)) }
                }
            )*

            $(
                /// Top-k of every row, each by a cluster of blocks that keep it in their registers, if
                /// [they can](super::cluster::is_held).
                ///
                /// A grid of `rows` clusters of 2, 4, 8 or 16 blocks of [`bins::THREADS`](super::bins::THREADS) threads,
                /// [`cluster::shared_bytes`](super::cluster::shared_bytes)`(max_len, size, tiles)` of dynamic shared
                /// memory. The parameters are the fields of [`Batch`], whose promises they keep, and the bits of
                /// [`Options`].
                #[launch(max_threads = 512, min_blocks = 2, cluster = 0, arch = 90)]
                kernel $held(
                    scores: *const $bits,
                    pitch: u64,
                    lengths: *const i32,
                    out: *mut i32,
                    values: *mut $bits,
                    rows: u32,
                    max_len: u32,
                    k: u32,
                    next_n: u32,
                    compress_ratio: u32,
                    options: u32,
                ) {
                    let batch = Batch::<$scores> {
                        scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio,
                    };
                    // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
                    unsafe { super::cluster::run_held(batch, Options::$order(options)) }
                }
            )*

            $(
                /// Top-k of every row, each by a cluster of blocks that stream their slices of it, if these are too long for
                /// registers. Launched as [`topk_f32_cluster`] is, but only if clusters
                /// [cannot hold](super::cluster::is_held) the longest row.
                #[launch(max_threads = 512, min_blocks = 2, cluster = 0, arch = 90)]
                kernel $streamed(
                    scores: *const $bits,
                    pitch: u64,
                    lengths: *const i32,
                    out: *mut i32,
                    values: *mut $bits,
                    rows: u32,
                    max_len: u32,
                    k: u32,
                    next_n: u32,
                    compress_ratio: u32,
                    options: u32,
                ) {
                    let batch = Batch::<$scores> {
                        scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio,
                    };
                    // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
                    unsafe { super::cluster::run_streamed(batch, Options::$order(options)) }
                }
            )*

            $($others)*
        }
    };
}

kernels_of_auto! {
    /// The kernels of top-k.
    pub static ENTRIES;

    F32(f32), any_order:
        topk_f32, topk_f32_short, topk_f32_cluster, topk_f32_cluster_streamed;
    F32(f32), ascending:
        topk_f32_ordered, topk_f32_short_ordered, topk_f32_cluster_ordered, topk_f32_cluster_streamed_ordered;
    F16(u16), any_order:
        topk_f16, topk_f16_short, topk_f16_cluster, topk_f16_cluster_streamed;
    F16(u16), ascending:
        topk_f16_ordered, topk_f16_short_ordered, topk_f16_cluster_ordered, topk_f16_cluster_streamed_ordered;
    Bf16(u16), any_order:
        topk_bf16, topk_bf16_short, topk_bf16_cluster, topk_bf16_cluster_streamed;
    Bf16(u16), ascending:
        topk_bf16_ordered, topk_bf16_short_ordered, topk_bf16_cluster_ordered, topk_bf16_cluster_streamed_ordered;

    {
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
}
