//! A CUDA graph: captured once, replayed for every step of decoding, while lengths and scores change on the device.
//!
//! ```text
//! step 0: lengths [20000, 5]
//!   [0, 1000, 2000, 3000]
//!   [0, 1, 2, 3]
//! step 1: lengths [2, 19999]
//!   [0, 1, -1, -1]
//!   [1, 3001, 6001, 9001]
//! step 2: lengths [20000, 20000]
//!   [2, 3002, 6002, 9002]
//!   [2, 4002, 8002, 12002]
//! ```
//!
//! `cargo run --package dsa-kernels --example 02_cuda_graph`; on a GPU with `--features cust`.

use std::error::Error;

use dsa_kernels::topk::{Order, Ties};
use dsa_kernels::{Device, Graph, TopK, Workspace};

const ROWS: usize = 2;
const K: usize = 4;
const MAX_LEN: usize = 20_000;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let (device, why_no_gpu) = Device::best();
    if let Some(reason) = why_no_gpu {
        eprintln!("on the emulator: {reason}");
    }
    let stream = device.stream()?;

    // With both options the output depends on the scores alone, and needs no sorting.
    let mut topk = TopK::builder(K as u32)
        .max_rows(ROWS as u32)
        .max_len(MAX_LEN as u32)
        .ties(Ties::LowestIndex)
        .order(Order::AscendingIndex)
        .build(&device)?;

    // Nothing can be allocated during a capture, and a graph remembers addresses: the workspace gets its size first,
    // and is locked, so that nobody moves it later.
    let mut workspace = Workspace::with_bytes(&device, topk.workspace_bytes())?;
    workspace.lock();
    let scores = device.alloc::<f32>(ROWS * MAX_LEN)?;
    let lengths = device.upload(&[0i32; ROWS])?;
    let mut out = device.alloc::<i32>(ROWS * K)?;

    let graph = Graph::capture(&stream, |stream| {
        // SAFETY: what the graph reads is written between its replays only, by blocking copies.
        unsafe {
            topk.enqueue_buffers(
                stream,
                &mut workspace,
                &scores,
                MAX_LEN as u64,
                &lengths,
                ROWS as u32,
                &mut out,
            )
        }
    })?;

    // The launch was captured with lengths of 0. Its shape depends on nothing that lies in device memory: it is right
    // for a row of 5 and for one of 20,000, which are selected in different ways.
    for (step, now) in [[20_000i32, 5], [2, 19_999], [20_000, 20_000]].into_iter().enumerate() {
        let row = |row: usize| {
            (0..MAX_LEN).map(move |i| if i % (1_000 * (row + step + 1)) == step { 1.0 } else { 0.0 })
        };
        scores.upload(&(0..ROWS).flat_map(row).collect::<Vec<f32>>())?;
        lengths.upload(&now)?;
        graph.launch(&stream)?;

        println!("step {step}: lengths {now:?}");
        for indices in out.download()?.chunks(K) {
            println!("  {indices:?}");
        }
    }
    Ok(())
}
