//! Compresses new tokens of requests whose state lies in `.npy` files.
//!
//! ```text
//! compress_npy --ratio 128 --kv-score F.npy --ape F.npy --kv-pool F.npy --score-pool F.npy \
//!     --kv-blocks F.npy --score-blocks F.npy --kv-lens F.npy --cu-new F.npy --cu-out F.npy \
//!     --out O.npy --kv-pool-out O.npy --score-pool-out O.npy \
//!     [--next-n 8 | --prefill] [--kv bf16] [--state f32] [--output bf16] [--warps N] [--backend auto|gpu|emulator]
//! ```
//! With `W = D` for windows of 128 tokens and `W = 2 D` for windows of 4: `kv-score` is `[tokens, 2 W]`, `ape` `[ratio, W]`,
//! the pools `[blocks, page, W]`, all float32 and rounded to their types where those are bf16; `kv-blocks` and
//! `score-blocks` are `[batch, max_blocks]`, `kv-lens` `[batch]`, `cu-new` and `cu-out` `[batch + 1]`, all int32. The result
//! is `[rows, D]`, with as many rows as `cu-out` ends with, NaN where no window closes; and the pools as they are then.
//! All results are float32. What a request with a bad length, page or offset is, `dsa_kernels::Compressor` says; if there is
//! one, nothing is written.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use dsa_kernels::compress::{CompressArgs, Compressor, NumberType, PagedTensor, Report, Tensor};
use dsa_kernels::{Buffer, Device, Error};
use dsa_kernels_tests::backend::Wanted;
use dsa_kernels_tests::npy::{self, NpyError};
use half::bf16;
use ndarray::{Array, Array2, Dimension, Ix1, Ix2, Ix3};

/// Compresses new tokens of requests whose state lies in .npy files.
#[derive(Parser)]
struct Arguments {
    /// Tokens of a window: 128, or 4 with windows that overlap.
    #[arg(long)]
    ratio: u32,
    /// Rows of new tokens: 2-D float32, [tokens, 2 W], kv then score.
    #[arg(long)]
    kv_score: PathBuf,
    /// Bias of the scores: 2-D float32, [ratio, W].
    #[arg(long)]
    ape: PathBuf,
    /// Kept values: 3-D float32, [blocks, page, W].
    #[arg(long)]
    kv_pool: PathBuf,
    /// Kept scores: 3-D float32, [blocks, page, W].
    #[arg(long)]
    score_pool: PathBuf,
    /// Pages of the values: 2-D int32, [batch, max_blocks].
    #[arg(long)]
    kv_blocks: PathBuf,
    /// Pages of the scores: 2-D int32, [batch, max_blocks].
    #[arg(long)]
    score_blocks: PathBuf,
    /// Lengths after the new tokens: 1-D int32, [batch].
    #[arg(long)]
    kv_lens: PathBuf,
    /// First new token of each request, then their number: 1-D int32, [batch + 1].
    #[arg(long)]
    cu_new: PathBuf,
    /// First output row of each request, then their number: 1-D int32, [batch + 1].
    #[arg(long)]
    cu_out: PathBuf,
    /// Where to write the rows: 2-D float32, [rows, D].
    #[arg(long)]
    out: PathBuf,
    /// Where to write the values that are kept then.
    #[arg(long)]
    kv_pool_out: PathBuf,
    /// Where to write the scores that are kept then.
    #[arg(long)]
    score_pool_out: PathBuf,
    /// Most new tokens of a request, 1 to 8.
    #[arg(long, default_value_t = 8, conflicts_with = "prefill")]
    next_n: u32,
    /// Any number of new tokens.
    #[arg(long)]
    prefill: bool,
    /// Type of the rows of new tokens.
    #[arg(long, value_enum, default_value_t = Type::Bf16)]
    kv: Type,
    /// Type of the state.
    #[arg(long, value_enum, default_value_t = Type::F32)]
    state: Type,
    /// Type of the output.
    #[arg(long, value_enum, default_value_t = Type::Bf16)]
    output: Type,
    /// Warps of a block of the kernel for a few new tokens; the best number unless set.
    #[arg(long)]
    warps: Option<u32>,
    /// What runs the kernel.
    #[arg(long, value_enum, default_value_t = Wanted::Auto)]
    backend: Wanted,
}

#[derive(Clone, Copy, ValueEnum)]
enum Type {
    F32,
    Bf16,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    File(#[from] NpyError),
    #[error(transparent)]
    Library(#[from] Error),
    #[error("--cu-out ends with {0}; pass the number of output rows as its last element")]
    Rows(i32),
    #[error("--cu-out has no elements; pass one for each request and the number of output rows")]
    NoRows,
    #[error("--kv-lens has {0} elements; pass at most {limit} requests", limit = u32::MAX)]
    Batch(usize),
    #[error("{0}; nothing was written")]
    LeftOut(Report),
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<String, Failure> {
    let kv_score = npy::read::<f32, Ix2>(&arguments.kv_score, "2-D float32")?;
    let ape = npy::read::<f32, Ix2>(&arguments.ape, "2-D float32")?;
    let pool = |path: &Path| npy::read::<f32, Ix3>(path, "3-D float32");
    let (kv_pool, score_pool) = (pool(&arguments.kv_pool)?, pool(&arguments.score_pool)?);
    let table = |path: &Path| npy::read::<i32, Ix2>(path, "2-D int32");
    let (kv_blocks, score_blocks) = (table(&arguments.kv_blocks)?, table(&arguments.score_blocks)?);
    let words = |path: &Path| npy::read::<i32, Ix1>(path, "1-D int32");
    let (kv_lens, cu_new) = (words(&arguments.kv_lens)?, words(&arguments.cu_new)?);
    let cu_out = words(&arguments.cu_out)?;
    let last = *cu_out.last().ok_or(Failure::NoRows)?;
    let rows = usize::try_from(last).map_err(|_| Failure::Rows(last))?;
    let batch = u32::try_from(kv_lens.len()).map_err(|_| Failure::Batch(kv_lens.len()))?;
    let head_dim = ape.ncols() / if arguments.ratio == 4 { 2 } else { 1 };

    let device = arguments.backend.open_and_tell()?;
    let stream = device.stream()?;
    let mut builder = Compressor::builder(arguments.ratio, u32::try_from(head_dim).unwrap_or(u32::MAX))
        .kv(arguments.kv.into())
        .state(arguments.state.into())
        .output(arguments.output.into())
        .max_batch(batch.max(1));
    if let Some(warps) = arguments.warps {
        builder = builder.warps(warps);
    }
    let mut compressor = builder.build(&device)?;

    let kv_score = Numbers::new(&device, arguments.kv, &kv_score)?;
    let pools = [
        Numbers::new(&device, arguments.state, &kv_pool)?,
        Numbers::new(&device, arguments.state, &score_pool)?,
    ];
    let output = Numbers::new(&device, arguments.output, &Array2::from_elem((rows, head_dim), f32::NAN))?;
    let ape_memory = Numbers::new(&device, Type::F32, &ape)?;
    let (kv_table, score_table) = (Words::new(&device, &kv_blocks)?, Words::new(&device, &score_blocks)?);
    let (kv_lens, cu_new) = (Words::new(&device, &kv_lens)?, Words::new(&device, &cu_new)?);
    let cu_out = Words::new(&device, &cu_out)?;
    let args = CompressArgs {
        kv_score: kv_score.tensor()?,
        ape: ape_memory.tensor()?,
        kv: PagedTensor { pool: pools[0].tensor()?, blocks: kv_table.tensor()? },
        score: PagedTensor { pool: pools[1].tensor()?, blocks: score_table.tensor()? },
        kv_lens: kv_lens.tensor()?,
        cu_new: cu_new.tensor()?,
        cu_out: cu_out.tensor()?,
        output: output.tensor()?,
    };
    // SAFETY: one launch on one stream; the tensors are views of buffers of their own. Requests that share a page get
    // some order of writes to it, nothing else.
    unsafe {
        if arguments.prefill {
            compressor.enqueue_prefill(&stream, &args)?;
        } else {
            compressor.enqueue_decode(&stream, arguments.next_n, &args)?;
        }
    }
    if let Some(report) = compressor.take_report()? {
        return Err(Failure::LeftOut(report));
    }
    npy::write(&arguments.out, &output.download()?)?;
    npy::write(&arguments.kv_pool_out, &pools[0].download()?)?;
    npy::write(&arguments.score_pool_out, &pools[1].download()?)?;
    let (name, out) = (&device.properties().name, arguments.out.display());
    Ok(format!(
        "compressed the tokens of {batch} requests on {name}; wrote {rows} rows of {head_dim} to {out}"
    ))
}

/// An array of numbers in device memory, with its shape.
struct Numbers<D> {
    memory: Memory,
    shape: D,
}

enum Memory {
    F32(Buffer<f32>),
    Bf16(Buffer<bf16>),
}

impl<D: Dimension> Numbers<D> {
    fn new(device: &Device, ty: Type, array: &Array<f32, D>) -> Result<Self, Error> {
        let numbers: Vec<f32> = array.iter().copied().collect();
        let memory = match ty {
            Type::F32 => Memory::F32(device.upload(&numbers)?),
            Type::Bf16 => {
                let rounded: Vec<_> = numbers.into_iter().map(bf16::from_f32).collect();
                Memory::Bf16(device.upload(&rounded)?)
            }
        };
        Ok(Self { memory, shape: array.raw_dim() })
    }

    fn tensor<const N: usize>(&self) -> Result<Tensor<N>, Error> {
        match &self.memory {
            Memory::F32(buffer) => Tensor::of(buffer, extents(&self.shape)),
            Memory::Bf16(buffer) => Tensor::of(buffer, extents(&self.shape)),
        }
    }

    fn download(&self) -> Result<Array<f32, D>, Error> {
        let numbers = match &self.memory {
            Memory::F32(buffer) => buffer.download()?,
            Memory::Bf16(buffer) => buffer.download()?.into_iter().map(bf16::to_f32).collect(),
        };
        Ok(Array::from_shape_vec(self.shape.clone(), numbers).expect("the buffer was made for the shape"))
    }
}

/// An array of words in device memory, with its shape.
struct Words<D> {
    buffer: Buffer<i32>,
    shape: D,
}

impl<D: Dimension> Words<D> {
    fn new(device: &Device, array: &Array<i32, D>) -> Result<Self, Error> {
        let words: Vec<_> = array.iter().copied().collect();
        Ok(Self { buffer: device.upload(&words)?, shape: array.raw_dim() })
    }

    fn tensor<const N: usize>(&self) -> Result<Tensor<N>, Error> {
        Tensor::of(&self.buffer, extents(&self.shape))
    }
}

/// The entries of each dimension.
fn extents<const N: usize>(shape: &impl Dimension) -> [u64; N] {
    std::array::from_fn(|axis| shape[axis] as u64)
}

impl From<Type> for NumberType {
    fn from(ty: Type) -> Self {
        match ty {
            Type::F32 => Self::F32,
            Type::Bf16 => Self::Bf16,
        }
    }
}
