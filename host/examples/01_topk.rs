//! Exact top-k: a batch of rows of different lengths, one launch, the indices of the k largest scores of each row.
//!
//! ```text
//! row 0, 20000 scores: 17711 (10.000), 6765 (9.999), 13530 (9.999), 2584 (9.998)
//! row 1, 1000 scores: 295 (9.998), 672 (9.986), 62 (9.979), 439 (9.967)
//! row 2, 3 scores: 1 (9.776), 2 (5.956), 0 (3.595)
//! row 3, 0 scores:
//! refused: rows is 5, but must be at most max_rows = 4; build the operator for more rows
//! ```
//!
//! `cargo run --package dsa-kernels --example 01_topk`; on a GPU with `--features cust`.

use std::error::Error;

use dsa_kernels::{Device, TopK, Workspace};

const K: usize = 4;
const MAX_LEN: usize = 20_000;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    // A GPU if there is one, else the emulator: the same kernel, the same results.
    let (device, why_no_gpu) = Device::best();
    if let Some(reason) = why_no_gpu {
        eprintln!("on the emulator: {reason}");
    }

    // Row r starts at r * MAX_LEN; only its first `lengths[r]` scores count. A length below 1 is an empty row.
    let lengths = [MAX_LEN as i32, 1_000, 3, -1];
    let scores: Vec<f32> = (0..lengths.len() * MAX_LEN).map(score).collect();

    // The operator is built once for the largest batch that there will be.
    let mut topk =
        TopK::builder(K as u32).max_rows(lengths.len() as u32).max_len(MAX_LEN as u32).build(&device)?;
    let stream = device.stream()?;
    let mut workspace = Workspace::new(&device);

    let device_scores = device.upload(&scores)?;
    let device_lengths = device.upload(&lengths)?;
    let mut out = device.alloc::<i32>(lengths.len() * K)?;
    let (pitch, rows) = (MAX_LEN as u64, lengths.len() as u32);
    // SAFETY: one stream; nothing else writes scores and lengths.
    unsafe {
        topk.enqueue_buffers(
            &stream,
            &mut workspace,
            &device_scores,
            pitch,
            &device_lengths,
            rows,
            &mut out,
        )?;
    }

    // `download` waits for the stream. After the indices of a row comes -1; their order is free, so we sort them here.
    for (row, found) in out.download()?.chunks(K).enumerate() {
        let score_of = |index: i32| scores[row * MAX_LEN + index as usize];
        let mut indices: Vec<i32> = found.iter().copied().filter(|&index| index >= 0).collect();
        indices.sort_by(|&a, &b| score_of(b).total_cmp(&score_of(a)));
        let listed: Vec<String> =
            indices.iter().map(|&index| format!(" {index} ({:.3})", score_of(index))).collect();
        println!("row {row}, {} scores:{}", lengths[row].max(0), listed.join(","));
    }

    // Arguments are checked before anything is launched.
    // SAFETY: as above.
    let refused = unsafe {
        topk.enqueue_buffers(&stream, &mut workspace, &device_scores, pitch, &device_lengths, 5, &mut out)
    };
    println!("refused: {}", refused.expect_err("five rows are too many"));
    Ok(())
}

/// Scores from 0 to 10 that look random and are all different.
fn score(i: usize) -> f32 {
    (i as f64 * 0.618_033_988_749_895 % 1.0 * 10.0) as f32
}
