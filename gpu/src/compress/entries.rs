//! The table of the entry points of the compressor.

use super::Batch;
use super::configuration::{Configuration, Kernel};
use super::decode::{Decode, DecodeStore};
use super::number::{Bf16, F32};
use super::pool::Pool;
use super::post::{self, Rows};
use super::prefill::Prefill;
use super::report::Report;
use super::running::Running;
use super::then::Store;

/// Declares the kernels: those of a compression, by the type that they run, and the others in full.
///
/// The parameters of a compression and the expression that makes a [`Batch`] of them are written once, and passed on as one
/// token each: names that a macro makes are known only to what is made with them.
macro_rules! table {
    (
        batch { $( $name:ident = $kernel:ty ),* $(,)? }
        $($rest:tt)*
    ) => {
        table! {
            @batch
            [
                kv_score: *const u8,
                kv_score_pitch: u64,
                ape: *const f32,
                kv_pool: *mut u8,
                kv_page_pitch: u64,
                kv_pages: u32,
                kv_blocks: *const i32,
                kv_blocks_pitch: u64,
                score_pool: *mut u8,
                score_page_pitch: u64,
                score_pages: u32,
                score_blocks: *const i32,
                score_blocks_pitch: u64,
                page: u32,
                max_blocks: u32,
                kv_lens: *const i32,
                cu_new: *const i32,
                cu_out: *const i32,
                out: *mut u8,
                out_pitch: u64,
                out_bf16: u32,
                report: *mut u32,
                batch: u32,
                tokens: u32,
                rows: u32,
                head_dim: u32,
                max_new: u32,
                parts: u32,
            ]
            [
                weight: *const f32,
                epsilon: f32,
                rotations: *const f32,
                positions: u32,
                cache: *mut u8,
                cache_page_pitch: u64,
                cache_pages: u32,
                cache_blocks: *const i32,
                cache_blocks_pitch: u64,
                cache_page: u32,
                cache_max_blocks: u32,
                scales: *mut u8,
                scales_page_pitch: u64,
                scale: *const f32,
                options: u32,
                arrived: *mut u32,
            ]
            {
                Batch {
                    kv_score,
                    kv_score_pitch,
                    ape,
                    kv: Pool {
                        start: kv_pool,
                        page_pitch: kv_page_pitch,
                        pages: kv_pages,
                        blocks: kv_blocks,
                        blocks_pitch: kv_blocks_pitch,
                    },
                    score: Pool {
                        start: score_pool,
                        page_pitch: score_page_pitch,
                        pages: score_pages,
                        blocks: score_blocks,
                        blocks_pitch: score_blocks_pitch,
                    },
                    page,
                    max_blocks,
                    kv_lens,
                    cu_new,
                    cu_out,
                    out,
                    out_pitch,
                    out_bf16: out_bf16 != 0,
                    // SAFETY: the launcher promises the words of the report.
                    report: unsafe { Report::from_raw(report) },
                    batch,
                    tokens,
                    rows,
                    head_dim,
                    max_new,
                    parts,
                }
            }
            {
                |batch: &Batch, ratio| Store {
                    rows: Rows {
                        compressed: batch.out,
                        compressed_pitch: batch.out_pitch,
                        compressed_bf16: batch.out_bf16,
                        weight,
                        epsilon,
                        rotations,
                        positions,
                        cache: Pool {
                            start: cache,
                            page_pitch: cache_page_pitch,
                            pages: cache_pages,
                            blocks: cache_blocks,
                            blocks_pitch: cache_blocks_pitch,
                        },
                        cache_page,
                        cache_max_blocks,
                        scales,
                        scales_page_pitch,
                        scale,
                        kv_lens: batch.kv_lens,
                        cu_new: batch.cu_new,
                        cu_out: batch.cu_out,
                        report: batch.report,
                        batch: batch.batch,
                        rows: batch.rows,
                        head_dim: batch.head_dim,
                        ratio,
                        options: post::Options::of(options),
                    },
                    arrived,
                }
            }
            { $( $name = $kernel ),* }
            $($rest)*
        }
    };
    (
        @batch [ $($batch:tt)* ] [ $($store:tt)* ] $make_batch:tt $make_store:tt $kernels:tt
        $($rest:tt)*
    ) => {
        table! { @kernels ( $($batch)* ) ( $($batch)* $($store)* ) $make_batch $make_store $kernels $($rest)* }
    };
    (
        @kernels $batch:tt $batch_and_store:tt $make_batch:tt $make_store:tt
        { $( $name:ident = $kernel:ty ),* }
        batch_and_store { $( $storing:ident = $storing_kernel:ty ),* $(,)? }
        $($others:tt)*
    ) => {
        dsa_simt::kernels! {
            /// The kernels of the compressor.
            pub static ENTRIES;

            $(
                #[doc = concat!(
                    "The kernel `", stringify!($kernel), "`. The parameters are the fields of [`Batch`], whose promises they keep, ",
                    "and those of its two pools."
                )]
                #[launch(
                    max_threads = <$kernel as Kernel>::CONFIGURATION.warps * 32,
                    min_blocks = <$kernel as Kernel>::CONFIGURATION.min_blocks,
                    cluster = 1,
                    arch = 80
                )]
                kernel $name $batch {
                    let batch = $make_batch;
                    // SAFETY: the launcher keeps the promises of `Batch` and of this entry.
                    unsafe { <$kernel as Kernel>::run(batch) }
                }
            )*

            $(
                #[doc = concat!(
                    "The kernel `", stringify!($storing_kernel), "`. The parameters are the fields of [`Batch`] and, but for those ",
                    "that are the same, of [`Store`]; they keep the promises of both."
                )]
                #[launch(
                    max_threads = <$storing_kernel>::CONFIGURATION.warps * 32,
                    min_blocks = <$storing_kernel>::CONFIGURATION.min_blocks,
                    cluster = 1,
                    arch = 80
                )]
                kernel $storing $batch_and_store {
                    let batch = $make_batch;
                    let make_store = $make_store;
                    let store = make_store(&batch, <$storing_kernel>::CONFIGURATION.ratio);
                    // SAFETY: the launcher keeps the promises of `Batch`, of `Store` and of this entry.
                    unsafe { <$storing_kernel>::run(batch, store) }
                }
            )*

            $($others)*
        }

        /// What the kernels that take a [`Batch`] are compiled for.
        pub static CONFIGURATIONS: &[Configuration] = &[
            $( Configuration { entry: stringify!($name), ..<$kernel as Kernel>::CONFIGURATION }, )*
            $( Configuration { entry: stringify!($storing), ..<$storing_kernel>::CONFIGURATION }, )*
        ];
    };
}

table! {
    batch {
        decode_f32_f32_r128_w1 = Decode<F32, F32, 128, 1>,
        decode_f32_f32_r128_w4 = Decode<F32, F32, 128, 4>,
        decode_f32_f32_r128_w8 = Decode<F32, F32, 128, 8>,
        decode_f32_bf16_r128_w1 = Decode<F32, Bf16, 128, 1>,
        decode_f32_bf16_r128_w4 = Decode<F32, Bf16, 128, 4>,
        decode_f32_bf16_r128_w8 = Decode<F32, Bf16, 128, 8>,
        decode_bf16_f32_r128_w1 = Decode<Bf16, F32, 128, 1>,
        decode_bf16_f32_r128_w4 = Decode<Bf16, F32, 128, 4>,
        decode_bf16_f32_r128_w8 = Decode<Bf16, F32, 128, 8>,
        decode_bf16_bf16_r128_w1 = Decode<Bf16, Bf16, 128, 1>,
        decode_bf16_bf16_r128_w4 = Decode<Bf16, Bf16, 128, 4>,
        decode_bf16_bf16_r128_w8 = Decode<Bf16, Bf16, 128, 8>,
        decode_f32_f32_r4_w1 = Decode<F32, F32, 4, 1>,
        decode_f32_f32_r4_w4 = Decode<F32, F32, 4, 4>,
        decode_f32_bf16_r4_w1 = Decode<F32, Bf16, 4, 1>,
        decode_f32_bf16_r4_w4 = Decode<F32, Bf16, 4, 4>,
        decode_bf16_f32_r4_w1 = Decode<Bf16, F32, 4, 1>,
        decode_bf16_f32_r4_w4 = Decode<Bf16, F32, 4, 4>,
        decode_bf16_bf16_r4_w1 = Decode<Bf16, Bf16, 4, 1>,
        decode_bf16_bf16_r4_w4 = Decode<Bf16, Bf16, 4, 4>,
        prefill_f32_f32_r128 = Prefill<F32, F32, 128>,
        prefill_f32_bf16_r128 = Prefill<F32, Bf16, 128>,
        prefill_bf16_f32_r128 = Prefill<Bf16, F32, 128>,
        prefill_bf16_bf16_r128 = Prefill<Bf16, Bf16, 128>,
        prefill_f32_f32_r4 = Prefill<F32, F32, 4>,
        prefill_f32_bf16_r4 = Prefill<F32, Bf16, 4>,
        prefill_bf16_f32_r4 = Prefill<Bf16, F32, 4>,
        prefill_bf16_bf16_r4 = Prefill<Bf16, Bf16, 4>,
        running_f32_r128 = Running<F32, 128>,
        running_bf16_r128 = Running<Bf16, 128>,
        running_f32_r4 = Running<F32, 4>,
        running_bf16_r4 = Running<Bf16, 4>,
    }
    batch_and_store {
        decode_store_f32_f32_r128 = DecodeStore<F32, F32, 128, 8>,
        decode_store_f32_bf16_r128 = DecodeStore<F32, Bf16, 128, 8>,
        decode_store_bf16_f32_r128 = DecodeStore<Bf16, F32, 128, 8>,
        decode_store_bf16_bf16_r128 = DecodeStore<Bf16, Bf16, 128, 8>,
        decode_store_f32_f32_r4 = DecodeStore<F32, F32, 4, 1>,
        decode_store_f32_bf16_r4 = DecodeStore<F32, Bf16, 4, 1>,
        decode_store_bf16_f32_r4 = DecodeStore<Bf16, F32, 4, 1>,
        decode_store_bf16_bf16_r4 = DecodeStore<Bf16, Bf16, 4, 1>,
    }

    /// Normalises, rotates, quantises and stores compressed rows, a warp for each.
    ///
    /// [`post::WARPS`] warps in a block, blocks for `rows` rows, no dynamic shared memory. The parameters are the fields
    /// of [`Rows`], whose promises they keep.
    #[launch(max_threads = post::WARPS * 32, min_blocks = 1, cluster = 1, arch = 80)]
    kernel post(
        compressed: *const u8,
        compressed_pitch: u64,
        compressed_bf16: u32,
        weight: *const f32,
        epsilon: f32,
        rotations: *const f32,
        positions: u32,
        cache: *mut u8,
        cache_page_pitch: u64,
        cache_pages: u32,
        cache_blocks: *const i32,
        cache_blocks_pitch: u64,
        cache_page: u32,
        cache_max_blocks: u32,
        scales: *mut u8,
        scales_page_pitch: u64,
        scale: *const f32,
        options: u32,
        kv_lens: *const i32,
        cu_new: *const i32,
        cu_out: *const i32,
        report: *mut u32,
        batch: u32,
        rows: u32,
        head_dim: u32,
        ratio: u32,
    ) {
        // SAFETY: the launcher promises the words of the report.
        let report = unsafe { Report::from_raw(report) };
        let rows = Rows {
            compressed,
            compressed_pitch,
            compressed_bf16: compressed_bf16 != 0,
            weight,
            epsilon,
            rotations,
            positions,
            cache: Pool {
                start: cache,
                page_pitch: cache_page_pitch,
                pages: cache_pages,
                blocks: cache_blocks,
                blocks_pitch: cache_blocks_pitch,
            },
            cache_page,
            cache_max_blocks,
            scales,
            scales_page_pitch,
            scale,
            kv_lens,
            cu_new,
            cu_out,
            report,
            batch,
            rows,
            head_dim,
            ratio,
            options: post::Options::of(options),
        };
        // SAFETY: the launcher keeps the promises of `Rows` and of this entry.
        unsafe { post::run(rows) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::configuration::Mode;

    #[test]
    fn names_say_what_the_kernels_are_compiled_for() {
        use crate::compress::number::NumberType;
        let number = |number| match number {
            NumberType::F32 => "f32",
            NumberType::Bf16 => "bf16",
        };
        for c in CONFIGURATIONS {
            let (kv, state, ratio) = (number(c.kv), number(c.state), c.ratio);
            let name = match c.mode {
                Mode::Decode => format!("decode_{kv}_{state}_r{ratio}_w{}", c.warps),
                Mode::DecodeStore => format!("decode_store_{kv}_{state}_r{ratio}"),
                Mode::Prefill => format!("prefill_{kv}_{state}_r{ratio}"),
                Mode::Running => format!("running_{kv}_r{ratio}"),
            };
            assert_eq!(c.entry, name);
        }
    }
}
