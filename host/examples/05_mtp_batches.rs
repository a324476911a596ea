//! Multi-token prediction: several new tokens of each sequence in one launch, each with a row of scores of its own that
//! ends one token later than the row before it.
//!
//! ```text
//! sequence 0, token 0: 39999 tokens, 9999 elements: [9995, 9996, 9997, 9998]
//! sequence 0, token 1: 40000 tokens, 10000 elements: [9996, 9997, 9998, 9999]
//! sequence 0, token 2: 40001 tokens, 10000 elements: [9996, 9997, 9998, 9999]
//! sequence 1, token 0: 19 tokens, 4 elements: [0, 1, 2, 3]
//! sequence 1, token 1: 20 tokens, 5 elements: [1, 2, 3, 4]
//! sequence 1, token 2: 21 tokens, 5 elements: [1, 2, 3, 4]
//! sequence 2, token 0: 3 tokens, 0 elements: [-1, -1, -1, -1]
//! sequence 2, token 1: 4 tokens, 1 elements: [0, -1, -1, -1]
//! sequence 2, token 2: 5 tokens, 1 elements: [0, -1, -1, -1]
//! sequence 3, token 0: 0 tokens, 0 elements: [-1, -1, -1, -1]
//! sequence 3, token 1: 0 tokens, 0 elements: [-1, -1, -1, -1]
//! sequence 3, token 2: 0 tokens, 0 elements: [-1, -1, -1, -1]
//! ```
//!
//! `cargo run --package dsa-kernels --example 05_mtp_batches`; on a GPU with `--features cust`.

use std::error::Error;

use dsa_kernels::topk::{Order, Ties};
use dsa_kernels::{Device, TopK, Workspace};

/// New tokens of each sequence: the one that was sampled, and two drafts.
const NEXT_N: usize = 3;
/// Tokens that were pooled into each element of a row.
const RATIO: usize = 4;
const K: usize = 4;
const MAX_LEN: usize = 20_000;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let (device, why_no_gpu) = Device::best();
    if let Some(reason) = why_no_gpu {
        eprintln!("on the emulator: {reason}");
    }
    let stream = device.stream()?;
    let mut workspace = Workspace::new(&device);

    // One length for each sequence: its tokens, the new ones included. The sequences are as long as they happen to be;
    // the last one is padding of a batch of fixed size.
    let sequences = [40_001i32, 21, 5, 0];
    let rows = sequences.len() * NEXT_N;
    let mut topk = TopK::builder(K as u32)
        .max_rows(rows as u32)
        .max_len(MAX_LEN as u32)
        .next_n(NEXT_N as u32)
        .compress_ratio(RATIO as u32)
        .ties(Ties::LowestIndex)
        .order(Order::AscendingIndex)
        .build(&device)?;

    // The later an element, the higher its score.
    let scores: Vec<f32> = (0..rows * MAX_LEN).map(|i| (i % MAX_LEN) as f32).collect();
    let scores = device.upload(&scores)?;
    let lengths = device.upload(&sequences)?;
    let mut out = device.alloc::<i32>(rows * K)?;
    // SAFETY: one stream; nothing else writes scores and lengths.
    unsafe {
        topk.enqueue_buffers(
            &stream,
            &mut workspace,
            &scores,
            MAX_LEN as u64,
            &lengths,
            rows as u32,
            &mut out,
        )?;
    }

    for (row, indices) in out.download()?.chunks(K).enumerate() {
        // Token j of a sequence sees what is before it and itself: the device does the same sum.
        let (sequence, j) = (row / NEXT_N, row % NEXT_N);
        let tokens = (sequences[sequence] - NEXT_N as i32 + 1 + j as i32).max(0);
        let elements = tokens / RATIO as i32;
        println!("sequence {sequence}, token {j}: {tokens} tokens, {elements} elements: {indices:?}");
    }
    Ok(())
}
