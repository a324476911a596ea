//! Top-k as an operator on candle's tensors, on candle's stream.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Mutex;

use candle_core::backend::BackendStorage as _;
use candle_core::cuda_backend::CudaStorage;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut};
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use dsa_kernels::topk::TopKArgs;
use dsa_kernels::{Device, TopK, Workspace};
use dsa_kernels_interop::{Batch, K, PITCH, finish};

/// The k largest of each row: of f32 scores `[rows, pitch]` and i32 lengths `[rows]`, i32 indices `[rows, k]`.
struct TopKOp {
    device: Device,
    /// Operators are launched by one thread at a time, on one stream.
    operator: Mutex<(TopK, Workspace)>,
}

impl CustomOp2 for TopKOp {
    fn name(&self) -> &'static str {
        "topk"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        candle_core::bail!("topk: the tensors are on the CPU, but must be on a CUDA device")
    }

    fn cuda_fwd(
        &self,
        scores: &CudaStorage,
        scores_layout: &Layout,
        lengths: &CudaStorage,
        lengths_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let (rows, columns) = scores_layout.shape().dims2()?;
        let (Some((first_score, _)), Some((first_length, _))) =
            (scores_layout.contiguous_offsets(), lengths_layout.contiguous_offsets())
        else {
            candle_core::bail!("topk: scores or lengths are not contiguous; call contiguous() first");
        };
        if lengths_layout.shape().dims1()? != rows {
            candle_core::bail!("topk: lengths has shape {:?}, but must be [{rows}]", lengths_layout.shape());
        }
        let mut operator =
            self.operator.lock().map_err(|error| candle_core::Error::msg(error.to_string()))?;
        let (topk, workspace) = &mut *operator;
        let k = topk.plan().limits().k as usize;

        let device = scores.device().clone();
        let candle_stream = device.cuda_stream();
        let mut out = device.alloc_zeros::<i32>(rows * k)?;
        let scores = scores.as_cuda_slice::<f32>()?.slice(first_score..);
        let lengths = lengths.as_cuda_slice::<i32>()?.slice(first_length..);
        // SAFETY: candle's stream outlives this call; nothing is left of the borrowed one after it.
        let stream = unsafe { self.device.borrow_stream(candle_stream.cu_stream() as u64) };
        {
            // The guards let cudarc know of the accesses, for its other streams.
            let (scores, _reads_scores) = scores.device_ptr(&candle_stream);
            let (lengths, _reads_lengths) = lengths.device_ptr(&candle_stream);
            let (out, _writes_out) = out.device_ptr_mut(&candle_stream);
            let args = TopKArgs { scores, pitch: columns as u64, rows: rows as u32, lengths, out, values: 0 };
            // SAFETY: the addresses are those of contiguous tensors of these shapes; candle frees and writes tensors on
            // the same stream, after the launch.
            unsafe { topk.enqueue(&stream, workspace, &args) }.map_err(candle_core::Error::wrap)?;
        }
        Ok((CudaStorage::wrap_cuda_slice(out, device), Shape::from((rows, k))))
    }
}

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<String, Box<dyn Error>> {
    // First: it says what is missing where there is no driver or no GPU. Both share the primary context.
    let device = Device::cuda(0)?;
    let candle = candle_core::Device::new_cuda(0)?;

    let batch = Batch::new();
    let rows = batch.rows();
    let scores = Tensor::from_slice(&batch.scores, (rows, PITCH), &candle)?;
    let lengths = Tensor::from_slice(&batch.lengths, rows, &candle)?;

    let topk = TopK::builder(K as u32).max_rows(rows as u32).max_len(PITCH as u32).build(&device)?;
    let workspace = Workspace::new(&device);
    let op = TopKOp { device, operator: Mutex::new((topk, workspace)) };
    let indices = scores.apply_op2_no_bwd(&lengths, &op)?;

    batch.check(&indices.flatten_all()?.to_vec1::<i32>()?)?;
    Ok(format!("{rows} rows of candle selected exactly, on its stream"))
}
