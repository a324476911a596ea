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
use super::{Batch, Options, cluster, short};

/// Declares the kernels: those of rows alone, which have one list of parameters; those that share rows, which have state and
/// workspace besides; and those of the origin. Each of the first two kinds is a function that all of its kernels call, with a
/// name for each type of scores (with that of their bits) and order of the output (a constructor of [`Options`]).
macro_rules! kernels_of_rows {
    (
        $(#[$table_meta:meta])*
        $vis:vis static $table:ident;
        alone {
            $(
                #[launch $launch:tt]
                $run:path: $( $name:ident($scores:ident($bits:ident), $order:ident) ),*;
            )*
        }
        shared {
            $(
                #[launch $shared_launch:tt]
                $shared_run:path: $( $shared:ident($shared_scores:ident($shared_bits:ident), $shared_order:ident) ),*;
            )*
        }
        origin {
            $(
                #[launch $origin_launch:tt]
                $origin_run:path: $origin:ident;
            )*
        }
    ) => {
        dsa_simt::kernels! {
            $(#[$table_meta])*
            $vis static $table;

            $($(
                #[doc = concat!("Top-k of every row by [`", stringify!($run), "`], which says how it is launched.")]
                #[launch $launch]
                kernel $name(
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
                    unsafe { $run(batch, Options::$order(options)) }
                }
            )*)*

            $($(
                #[doc = concat!("Top-k of every row by [`", stringify!($shared_run), "`], which says how it is launched.")]
                #[launch $shared_launch]
                kernel $shared(
                    scores: *const $shared_bits,
                    pitch: u64,
                    lengths: *const i32,
                    out: *mut i32,
                    values: *mut $shared_bits,
                    state: *mut u32,
                    workspace: *mut u32,
                    rows: u32,
                    max_len: u32,
                    k: u32,
                    next_n: u32,
                    compress_ratio: u32,
                    options: u32,
                ) {
                    let batch = Batch::<$shared_scores> {
                        scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio,
                    };
                    // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
                    unsafe { $shared_run(batch, Options::$shared_order(options), Memory { state, workspace }) }
                }
            )*)*

            $(
                #[doc = concat!("Top-k of every row by [`", stringify!($origin_run), "`], which says how it is launched.")]
                #[launch $origin_launch]
                kernel $origin(
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
                    let values = null_mut();
                    let batch = Batch {
                        scores, pitch, lengths, out, values, rows, max_len, k, next_n, compress_ratio,
                    };
                    // SAFETY: the launcher keeps the promises of `Problem` and of this entry.
                    unsafe { $origin_run(Problem { batch, decode_max_len, medium_max_len }, state) }
                }
            )*
        }
    };
}

kernels_of_rows! {
    /// The kernels of top-k. The names of those for indices that ascend end in `_ordered`.
    pub static ENTRIES;

    alone {
        #[launch(max_threads = 512, min_blocks = 2, cluster = 1, arch = 80)]
        short::run:
            topk_f32_short(F32(f32), any_order), topk_f32_short_ordered(F32(f32), ascending),
            topk_f16_short(F16(u16), any_order), topk_f16_short_ordered(F16(u16), ascending),
            topk_bf16_short(Bf16(u16), any_order), topk_bf16_short_ordered(Bf16(u16), ascending);

        #[launch(max_threads = 512, min_blocks = 2, cluster = 0, arch = 90)]
        cluster::run_held:
            topk_f32_cluster(F32(f32), any_order), topk_f32_cluster_ordered(F32(f32), ascending),
            topk_f16_cluster(F16(u16), any_order), topk_f16_cluster_ordered(F16(u16), ascending),
            topk_bf16_cluster(Bf16(u16), any_order), topk_bf16_cluster_ordered(Bf16(u16), ascending);

        #[launch(max_threads = 512, min_blocks = 2, cluster = 0, arch = 90)]
        cluster::run_streamed:
            topk_f32_cluster_streamed(F32(f32), any_order), topk_f32_cluster_streamed_ordered(F32(f32), ascending),
            topk_f16_cluster_streamed(F16(u16), any_order), topk_f16_cluster_streamed_ordered(F16(u16), ascending),
            topk_bf16_cluster_streamed(Bf16(u16), any_order), topk_bf16_cluster_streamed_ordered(Bf16(u16), ascending);
    }

    shared {
        #[launch(max_threads = 512, min_blocks = 2, cluster = 1, arch = 80)]
        auto::run:
            topk_f32(F32(f32), any_order), topk_f32_ordered(F32(f32), ascending),
            topk_f16(F16(u16), any_order), topk_f16_ordered(F16(u16), ascending),
            topk_bf16(Bf16(u16), any_order), topk_bf16_ordered(Bf16(u16), ascending);
    }

    origin {
        #[launch(max_threads = 1024, min_blocks = 1, cluster = 1, arch = 80)]
        origin::run_block: topk_f32_block;

        #[launch(max_threads = 1024, min_blocks = 1, cluster = 1, arch = 80)]
        origin::run_grid: topk_f32_grid;
    }
}
