//! The operator built for one cell, with its buffers, and the proof of its answer.

use std::thread;

use dsa_kernels::topk::{Limits, Path, Plan, TopK, TopKArgs, TopKBuilder};
use dsa_kernels::{Buffer, Device, Error, Stream, Workspace};

use super::inputs::workers;
use super::shapes::{Case, Options};
use crate::backend;
use crate::data::{self, DataError, RealRow};
use crate::distribution::Distribution;
use crate::oracle;

/// Fills the output before a launch: read as an index it is beyond every row.
pub const POISON: u8 = 0x7f;

/// A cell that cannot be reported as exact.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The library or the device refused.
    #[error(transparent)]
    Device(#[from] Error),
    /// The real rows are not there.
    #[error(transparent)]
    Data(#[from] DataError),
    /// It could not be timed.
    #[error(transparent)]
    Measure(#[from] super::measure::MeasureError),
    /// The answer is wrong.
    #[error("row {row} of length {length}: {reason}")]
    Wrong {
        /// First wrong row.
        row: usize,
        /// Its length.
        length: usize,
        /// What is wrong.
        reason: String,
    },
    /// Something else that was written is wrong.
    #[error("{0}")]
    Output(String),
}

/// What of an operator is not said by the cell.
#[derive(Clone, Copy, Debug)]
pub struct Variation {
    /// How rows are selected.
    pub path: Path,
    /// Whether launches may start while the one before them is still running.
    pub overlap: bool,
}

impl Default for Variation {
    fn default() -> Self {
        Self { path: Path::Auto, overlap: true }
    }
}

impl Variation {
    /// Whether there is such an operator for a cell.
    pub fn is_possible(self, device: &Device, case: &Case) -> bool {
        Plan::new(self.limits(case), device.properties()).is_ok()
    }

    fn limits(self, case: &Case) -> Limits {
        Limits {
            max_rows: case.rows(),
            max_len: case.max_len(),
            scores: case.options.scores,
            ties: case.options.ties,
            order: case.options.order,
            path: self.path,
            overlap: self.overlap,
            ..Limits::of(case.k)
        }
    }
}

/// The operator of one cell.
pub struct Operator {
    topk: TopK,
    workspace: Workspace,
    lengths: Buffer<i32>,
    out: Buffer<i32>,
    case: Case,
}

impl Operator {
    /// Builds the operator with the limits of `case`, and its buffers but for the scores.
    pub fn new(device: &Device, case: &Case, variation: Variation) -> Result<Self, Error> {
        let (rows, k) = (case.rows(), case.k);
        let topk = TopKBuilder::from(variation.limits(case)).build_with(device, &backend::topk()?)?;
        let workspace = Workspace::with_bytes(device, topk.workspace_bytes())?;
        let lengths: Vec<_> = case.lengths().into_iter().map(u32::cast_signed).collect();
        Ok(Self {
            topk,
            workspace,
            lengths: device.upload(&lengths)?,
            out: device.alloc((rows * k) as usize)?,
            case: case.clone(),
        })
    }

    /// The paths that the rows take, shortest rows first, joined by `+`.
    pub fn path(&self) -> String {
        let plan = self.topk.plan();
        let mut lengths = self.case.lengths();
        lengths.sort_unstable();
        let mut names: Vec<_> = lengths.into_iter().map(|len| plan.path_of(len).name()).collect();
        names.dedup();
        names.join("+")
    }

    /// Enqueues one launch that reads the batch at device address `scores`.
    ///
    /// # Safety
    /// `rows * pitch` scores at `scores` stay readable, and `self` stays alive, until the launch has
    /// run; if `stream` is being captured, until the last replay has run.
    pub unsafe fn enqueue(&mut self, stream: &Stream, scores: u64) -> Result<(), Error> {
        let args = TopKArgs {
            scores,
            pitch: u64::from(self.case.pitch()),
            rows: self.case.rows(),
            lengths: self.lengths.address(),
            out: self.out.address(),
            values: 0,
        };
        // SAFETY: the caller vouches for the scores; lengths and output are as large as the case says.
        unsafe { self.topk.enqueue(stream, &mut self.workspace, &args) }
    }

    /// Overwrites the output: an old answer cannot pass as a new one.
    pub fn poison(&self) -> Result<(), Error> {
        self.out.fill_bytes(POISON)
    }

    /// Proves that the output is the right answer for `scores`, the batch as the host has it.
    pub fn prove(&self, scores: &[f32]) -> Result<(), CaseError> {
        prove(&self.case, scores, &self.out.download()?)
    }

    /// Device address of the length of each row.
    pub fn lengths_address(&self) -> u64 {
        self.lengths.address()
    }
}

/// Proves that `out` is the right answer of `case` for `scores`, the batch as the host has it.
pub fn prove(case: &Case, scores: &[f32], out: &[i32]) -> Result<(), CaseError> {
    let (pitch, k) = (case.pitch() as usize, case.k as usize);
    let rows: Vec<_> = (scores.chunks(pitch).zip(out.chunks(k)).zip(case.lengths()))
        .map(|((scores, out), length)| (&scores[..length as usize], out))
        .collect();
    let Options { ties, order, .. } = case.options;
    first_wrong(&rows, |_, (scores, out)| {
        oracle::check_row_with(scores, out, ties, order).map_err(|error| error.to_string())
    })?;
    if case.distribution == Distribution::Real {
        let stored = data::rows()?;
        first_wrong(&rows, |row, (scores, out)| agrees_with_stored(&stored[row], scores, out))?;
    }
    Ok(())
}

/// Checks all rows on all cores; the first wrong one, if any.
fn first_wrong(
    rows: &[(&[f32], &[i32])],
    check: impl Fn(usize, (&[f32], &[i32])) -> Result<(), String> + Sync,
) -> Result<(), CaseError> {
    let share = rows.len().div_ceil(workers()).max(1);
    let check = &check;
    let wrong = thread::scope(|scope| {
        let workers: Vec<_> = rows
            .chunks(share)
            .enumerate()
            .map(|(worker, part)| {
                scope.spawn(move || {
                    part.iter().enumerate().find_map(|(at, &(scores, out))| {
                        let row = worker * share + at;
                        let reason = check(row, (scores, out)).err()?;
                        Some(CaseError::Wrong { row, length: scores.len(), reason })
                    })
                })
            })
            .collect();
        // All are joined before the first wrong one is picked.
        let found: Vec<_> = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        found.into_iter().flatten().next()
    });
    wrong.map_or(Ok(()), Err)
}

/// Checks an answer for a real row against the threshold and the ties stored with the row, which were
/// computed elsewhere.
fn agrees_with_stored(stored: &RealRow, scores: &[f32], out: &[i32]) -> Result<(), String> {
    if stored.length <= out.len() {
        return Ok(()); // everything is selected: there is no threshold
    }
    let chosen = || out.iter().map(|&index| scores[index as usize]);
    let least = chosen().fold(f32::INFINITY, f32::min);
    if least != stored.threshold {
        return Err(format!(
            "the smallest selected score is {least:e}, the stored threshold {:e}",
            stored.threshold
        ));
    }
    let equal = chosen().filter(|&score| score == least).count();
    if equal > stored.ties {
        return Err(format!(
            "{equal} selected scores equal the threshold, of {} that there are",
            stored.ties
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::shapes;
    use super::*;

    #[test]
    fn the_first_wrong_row_is_named_whichever_core_finds_it() {
        let scores = [1.0f32, 2.0, 3.0];
        let right = [2];
        let wrong = [0];
        let rows: Vec<(&[f32], &[i32])> =
            (0..50).map(|row| (&scores[..], if row >= 17 { &wrong[..] } else { &right[..] })).collect();
        let check = |_: usize, (scores, out): (&[f32], &[i32])| {
            oracle::check_row(scores, out).map_err(|e| e.to_string())
        };
        assert!(first_wrong(&rows[..17], check).is_ok());
        let error = first_wrong(&rows, check).unwrap_err();
        assert!(matches!(error, CaseError::Wrong { row: 17, length: 3, .. }), "{error}");
    }

    #[test]
    fn an_answer_in_another_order_is_wrong_where_the_case_asks_for_one() {
        let case = shapes::select(shapes::ordered(), Some("1x8192")).unwrap().remove(0);
        let scores: Vec<f32> = (0..8192).map(|i| (i % 4) as f32).collect();
        let mut out = oracle::expected_row(&scores, 2048);
        prove(&case, &scores, &out).unwrap();
        out.swap(3, 4);
        let error = prove(&case, &scores, &out).unwrap_err().to_string();
        assert!(error.contains("word 4"), "{error}");
        let plain = Case { options: Options::default(), ..case };
        prove(&plain, &scores, &out).unwrap();
    }

    #[test]
    fn a_real_row_must_agree_with_its_stored_threshold_and_ties() {
        let stored = |threshold, ties| RealRow { source_row: 0, columns: vec![], length: 4, threshold, ties };
        let scores = [5.0, 4.0, 4.0, 1.0];
        assert_eq!(agrees_with_stored(&stored(4.0, 2), &scores, &[0, 2]), Ok(()));
        assert!(agrees_with_stored(&stored(3.0, 1), &scores, &[0, 2]).unwrap_err().contains("threshold"));
        assert!(agrees_with_stored(&stored(4.0, 1), &scores, &[0, 1, 2]).unwrap_err().contains("of 1"));
        assert_eq!(agrees_with_stored(&stored(f32::NEG_INFINITY, 0), &scores, &[0, 1, 2, 3, -1]), Ok(()));
    }
}
