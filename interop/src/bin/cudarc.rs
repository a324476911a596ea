//! Top-k of scores that cudarc allocated, on a stream of cudarc.

use std::error::Error;
use std::process::ExitCode;

use cudarc::driver::{CudaContext, DevicePtr, DevicePtrMut};
use dsa_kernels::topk::TopKArgs;
use dsa_kernels::{Device, TopK, Workspace};
use dsa_kernels_interop::{Batch, K, PITCH, finish};

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<String, Box<dyn Error>> {
    // First: it says what is missing where there is no driver or no GPU. Both share the primary context.
    let device = Device::cuda(0)?;
    let context = CudaContext::new(0)?;
    let cudarc_stream = context.new_stream()?;

    // All of cudarc's: the scores, the lengths, the result, and the stream.
    let batch = Batch::new();
    let scores = cudarc_stream.clone_htod(&batch.scores)?;
    let lengths = cudarc_stream.clone_htod(&batch.lengths)?;
    let mut out = cudarc_stream.alloc_zeros::<i32>(batch.rows() * K)?;

    let rows = batch.rows() as u32;
    let mut topk = TopK::builder(K as u32).max_rows(rows).max_len(PITCH as u32).build(&device)?;
    let mut workspace = Workspace::new(&device);
    // SAFETY: cudarc's stream lives as long as `cudarc_stream`, which is dropped after it, and nobody captures it.
    let stream = unsafe { device.borrow_stream(cudarc_stream.cu_stream() as u64) };
    {
        // The guards let cudarc know of the accesses, for its other streams.
        let (scores, _reads_scores) = scores.device_ptr(&cudarc_stream);
        let (lengths, _reads_lengths) = lengths.device_ptr(&cudarc_stream);
        let (out, _writes_out) = out.device_ptr_mut(&cudarc_stream);
        let args = TopKArgs { scores, pitch: PITCH as u64, rows, lengths, out, values: 0 };
        // SAFETY: the addresses are those of slices of these sizes, which live until the copy below has waited for the
        // launch; it is on the stream that wrote the inputs and reads the output.
        unsafe { topk.enqueue(&stream, &mut workspace, &args)? };
    }
    // cudarc's copy on cudarc's stream comes after the launch: nothing else has to wait.
    let indices = cudarc_stream.clone_dtoh(&out)?;
    cudarc_stream.synchronize()?;

    batch.check(&indices)?;
    Ok(format!("{rows} rows of cudarc selected exactly, on its stream"))
}
