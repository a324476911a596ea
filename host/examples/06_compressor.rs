//! The KV compressor: a prompt, then steps of decode that store the rows they write in a paged cache, in one launch.
//!
//! ```text
//! 6 new tokens, 6 together, 1 windows closed
//!   window 0: 1.50 and -0.75, cached 1.27 ... -0.63 -0.63 ...
//! 3 new tokens, 9 together, 1 windows closed
//!   window 1: 3.50 and -1.75, cached 1.27 ... 0.63 -0.63 ...
//! 1 new tokens, 10 together, 0 windows closed
//! 2 new tokens, 12 together, 1 windows closed
//!   window 2: 7.50 and -3.75, cached 1.27 ... 0.63 0.63 ...
//! ```
//!
//! `cargo run --package dsa-kernels --example 06_compressor`; on a GPU with `--features cust`.

use std::error::Error;

use dsa_kernels::compress::{CompressArgs, NumberType, PagedTensor, PostArgs, Store, Tensor};
use dsa_kernels::{Compressor, Device};
use half::bf16;

/// Tokens of a window; windows of 4 overlap: the row of one takes in the tokens of the window before, too.
const RATIO: u64 = 4;
/// Channels of a row. A token has twice as many here: one half for its own window, one for the next.
const D: u64 = 128;
const W: u64 = 2 * D;
/// Entries of a page.
const PAGE: u64 = 8;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let (device, why_no_gpu) = Device::best();
    if let Some(reason) = why_no_gpu {
        eprintln!("on the emulator: {reason}");
    }
    let stream = device.stream()?;
    let mut compressor =
        Compressor::builder(RATIO as u32, D as u32).output(NumberType::F32).max_batch(1).build(&device)?;

    // The state: kv and score of every token, in pages that the tables name. The request has pages 2 and 0.
    let pool = || device.alloc::<f32>((3 * PAGE * W) as usize);
    let (kv_pool, score_pool, table) = (pool()?, pool()?, device.upload(&[2i32, 0])?);
    let state = |pool| -> Result<PagedTensor, dsa_kernels::Error> {
        Ok(PagedTensor { pool: Tensor::of(pool, [3, PAGE, W])?, blocks: Tensor::of(&table, [1, 2])? })
    };
    let ape = device.upload(&vec![0.0f32; (RATIO * W) as usize])?;
    // Where rows go: a cache of bf16, one entry for each window.
    let cache = device.upload(&vec![bf16::ZERO; (2 * PAGE * D) as usize])?;
    let cache_table = device.upload(&[1i32])?;
    let weight = device.upload(&vec![1.0f32; D as usize])?;
    // For each position 32 cosines, then 32 sines, which rotate the last 64 channels. Here each window by a quarter turn
    // more than the one before.
    let quarter = |position: usize| [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)][position / 4 % 4];
    let rotation = |position| [[quarter(position).0; 32], [quarter(position).1; 32]].concat();
    let rotations = device.upload(&(0..16).flat_map(rotation).collect::<Vec<f32>>())?;

    // A prompt of 6 tokens, then 3, 1 and 2 new tokens.
    let mut length = 0;
    for (step, new) in [6, 3, 1, 2].into_iter().enumerate() {
        // Token t has kv t in the first half of a row's channels and -t / 2 in the other, and equal scores: the softmax
        // is a mean.
        let half_row = |kv: f32| vec![bf16::from_f32(kv); (D / 2) as usize];
        let rows = (length..length + new).flat_map(|t| {
            let kv = [half_row(t as f32), half_row(t as f32 / -2.0)].concat().repeat(2);
            [kv, vec![bf16::ONE; W as usize]].concat()
        });
        let kv_score = device.upload(&rows.collect::<Vec<_>>())?;
        let closed = (length + new) / 4 - length / 4;
        length += new;
        let (kv_lens, cu_new) = (device.upload(&[length])?, device.upload(&[0, new])?);
        let cu_out = device.upload(&[0, closed])?;
        let output = device.alloc::<f32>(2 * D as usize)?;

        let args = CompressArgs {
            kv_score: Tensor::of(&kv_score, [new as u64, 2 * W])?,
            ape: Tensor::of(&ape, [RATIO, W])?,
            kv: state(&kv_pool)?,
            score: state(&score_pool)?,
            kv_lens: Tensor::of(&kv_lens, [1])?,
            cu_new: Tensor::of(&cu_new, [2])?,
            cu_out: Tensor::of(&cu_out, [2])?,
            output: Tensor::of(&output, [closed as u64, D])?,
        };
        let post = PostArgs {
            compressed: args.output.clone(),
            weight: Tensor::of(&weight, [D])?,
            epsilon: 1e-6,
            rotations: Tensor::of(&rotations, [16, 64])?,
            cache: PagedTensor {
                pool: Tensor::of(&cache, [2, PAGE, D])?,
                blocks: Tensor::of(&cache_table, [1, 1])?,
            },
            store: Store::Bf16,
            hadamard: false,
            kv_lens: args.kv_lens.clone(),
            cu_new: args.cu_new.clone(),
            cu_out: args.cu_out.clone(),
        };
        // SAFETY: one stream; nothing else uses the buffers, and they do not overlap.
        unsafe {
            if step == 0 {
                compressor.enqueue_prefill(&stream, &args)?;
                compressor.enqueue_post(&stream, &post)?;
            } else {
                compressor.enqueue_decode_store(&stream, 4, &args, &post)?;
            }
        }
        // Lengths and pages lie in device memory: what is wrong with them is reported afterwards.
        if let Some(report) = compressor.take_report()? {
            return Err(report.to_string().into());
        }
        let (output, cache) = (output.download()?, cache.download()?);
        println!("{new} new tokens, {length} together, {closed} windows closed");
        for window in length / 4 - closed..length / 4 {
            let row = &output[((window - length / 4 + closed) as u64 * D) as usize..];
            let entry = &cache[((PAGE + window as u64) * D) as usize..];
            let [a, b, c] = [0, D - 64, D - 63].map(|channel| entry[channel as usize].to_f32());
            println!(
                "  window {window}: {:.2} and {:.2}, cached {a:.2} ... {b:.2} {c:.2} ...",
                row[0], row[64]
            );
        }
    }
    Ok(())
}
