//! One workspace for many operators: each uses all of it, one after the other on one stream.
//!
//! ```text
//! as large as the larger of both, not as both: true
//! 3 of each row: [150000, 200000, 250000, 0, 39998, 39999]
//! 512 of row 0: [0, 50000, 100000, 150000, 200000, 250000, 299494, 299495], ...
//! parts of 1000 and 4096 bytes are 1024 bytes apart
//! one byte more than there is: refused: true
//! ```
//!
//! `cargo run --package dsa-kernels --example 03_shared_workspace`; on a GPU with `--features cust`.

use std::error::Error;

use dsa_kernels::topk::{Order, Ties};
use dsa_kernels::{Device, TopK, Workspace};

const ROWS: usize = 2;
/// Rows this long are cut into slices, which hand their candidates over in the workspace.
const LONG: usize = 300_000;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let (device, why_no_gpu) = Device::best();
    if let Some(reason) = why_no_gpu {
        eprintln!("on the emulator: {reason}");
    }
    let stream = device.stream()?;

    // Two operators: a few elements of every row, and many of the first.
    let operator = |k: u32, rows: u32| {
        TopK::builder(k)
            .max_rows(rows)
            .max_len(LONG as u32)
            .ties(Ties::LowestIndex)
            .order(Order::AscendingIndex)
            .build(&device)
    };
    let mut few = operator(3, ROWS as u32)?;
    let mut many = operator(512, 1)?;

    // A warm-up: every operator says what it needs. Then the workspace is locked, because graphs and engines may have
    // its addresses.
    let mut workspace = Workspace::new(&device);
    for (name, bytes) in [("few", few.workspace_bytes()), ("many", many.workspace_bytes())] {
        workspace.reserve(name, bytes)?;
    }
    workspace.lock();
    let largest = few.workspace_bytes().max(many.workspace_bytes());
    println!("as large as the larger of both, not as both: {}", workspace.bytes() == largest);

    // Peaks at 0, 50,000, 100,000, ... and a slope that makes every score different.
    let row: Vec<f32> = (0..LONG).map(|i| if i % 50_000 == 0 { 1e6 } else { 0.0 } + i as f32).collect();
    let scores = device.upload(&row.repeat(ROWS))?;
    let lengths = device.upload(&[LONG as i32, 40_000])?;
    let mut out_few = device.alloc::<i32>(ROWS * 3)?;
    let mut out_many = device.alloc::<i32>(512)?;
    // SAFETY: one stream, on which the second launch has the workspace when the first is done with it.
    unsafe {
        let pitch = LONG as u64;
        few.enqueue_buffers(&stream, &mut workspace, &scores, pitch, &lengths, ROWS as u32, &mut out_few)?;
        many.enqueue_buffers(&stream, &mut workspace, &scores, pitch, &lengths, 1, &mut out_many)?;
    }
    println!("3 of each row: {:?}", out_few.download()?);
    println!("512 of row 0: {:?}, ...", &out_many.download()?[..8]);

    // An operator of your own asks for all its parts at once: they do not overlap each other, but do overlap the parts
    // of the other operators. What has no room in a locked workspace is refused.
    let parts = workspace.get_simultaneous("mine", &[1_000, 4_096])?;
    println!("parts of 1000 and 4096 bytes are {} bytes apart", parts[1] - parts[0]);
    let refused = workspace.get_simultaneous("mine", &[largest + 1]).is_err();
    println!("one byte more than there is: refused: {refused}");
    Ok(())
}
