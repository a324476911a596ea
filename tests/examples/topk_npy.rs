//! Selects the k largest of each row of a `.npy` file, exactly.
//!
//! ```text
//! topk_npy --scores F.npy --lengths L.npy --k 2048 --out O.npy [--backend auto|gpu|emulator]
//! ```
//! Scores are a 2-D float32 array, lengths a 1-D int32 array with one length per row (below 1 is an empty
//! row, beyond the columns is all of them). The result is a 2-D int32 array `[rows, k]`: `min(k, length)`
//! distinct indices into the row in any order, then -1. NaN ranks below every number.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dsa_kernels::topk::TopK;
use dsa_kernels::{Error, Workspace};
use dsa_kernels_tests::backend::Wanted;
use dsa_kernels_tests::npy::{self, NpyError};
use ndarray::{Array2, Ix1, Ix2};

/// Selects the k largest of each row of a .npy file, exactly.
#[derive(Parser)]
struct Arguments {
    /// Scores: 2-D float32.
    #[arg(long)]
    scores: PathBuf,
    /// Valid elements of each row: 1-D int32.
    #[arg(long)]
    lengths: PathBuf,
    /// Elements to select from each row, 1 to 4096.
    #[arg(long)]
    k: u32,
    /// Where to write the indices: 2-D int32.
    #[arg(long)]
    out: PathBuf,
    /// What runs the kernel.
    #[arg(long, value_enum, default_value_t = Wanted::Auto)]
    backend: Wanted,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    File(#[from] NpyError),
    #[error(transparent)]
    Library(#[from] Error),
    #[error("--scores has shape {rows} x {columns}; pass at least one row and one column")]
    Empty { rows: usize, columns: usize },
    #[error("--scores has shape {rows} x {columns}; pass at most {limit} rows and columns", limit = i32::MAX)]
    TooLarge { rows: usize, columns: usize },
    #[error("--lengths has {lengths} elements, but --scores has {rows} rows; pass one length per row")]
    Lengths { lengths: usize, rows: usize },
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
    let scores: Array2<f32> = npy::read::<f32, Ix2>(&arguments.scores, "2-D float32")?;
    let lengths = npy::read::<i32, Ix1>(&arguments.lengths, "1-D int32")?.into_raw_vec_and_offset().0;
    let (rows, columns) = scores.dim();
    if rows == 0 || columns == 0 {
        return Err(Failure::Empty { rows, columns });
    }
    if lengths.len() != rows {
        return Err(Failure::Lengths { lengths: lengths.len(), rows });
    }
    let limit = |count: usize| u32::try_from(count).map_err(|_| Failure::TooLarge { rows, columns });
    let (row_count, column_count) = (limit(rows)?, limit(columns)?);
    let scores = scores.into_raw_vec_and_offset().0;

    let device = arguments.backend.open_and_tell()?;
    let stream = device.stream()?;
    let mut workspace = Workspace::new(&device);
    let mut topk = TopK::builder(arguments.k).max_rows(row_count).max_len(column_count).build(&device)?;
    let scores = device.upload(&scores)?;
    let lengths = device.upload(&lengths)?;
    let k = arguments.k as usize;
    let mut out = device.alloc::<i32>(rows * k)?;
    let pitch = columns as u64;
    // SAFETY: one launch on one stream, and nothing else writes the inputs.
    unsafe { topk.enqueue_buffers(&stream, &mut workspace, &scores, pitch, &lengths, row_count, &mut out)? };
    let indices = out.download()?;
    let indices = Array2::from_shape_vec((rows, k), indices).expect("k indices for each row");
    npy::write(&arguments.out, &indices)?;
    let (name, out) = (&device.properties().name, arguments.out.display());
    Ok(format!("selected {k} of each of {rows} rows of {columns} on {name}; wrote {out}"))
}
