//! The launches of a cell, and the proof of what they did.
//!
//! The proof takes samples: some requests, the first and last among them, and of a prompt some windows of each; all channels
//! of these are compared with the reference, and all bytes of the state of their new tokens. Of running softmaxes only the
//! outputs are.

use dsa_kernels::compress::{Compressor, NumberType};
use dsa_kernels::{Device, Error, Stream};

use super::super::operator::CaseError;
use super::cells::{Cell, Work};
use super::sets::Sets;
use crate::backend;
use crate::compress::post_reference::{angles, first_wrong_bf16};
use crate::compress::reference::{Kept, Pooled, Sequence, Softmax, check_row, of_bytes, to_bytes};

/// Samples of requests, and of windows of one.
const SAMPLES: usize = 8;

/// The operator of a cell.
pub struct Operator {
    cell: Cell,
    compressor: Compressor,
}

impl Operator {
    /// Builds the operator.
    pub fn new(device: &Device, cell: Cell, overlap: bool) -> Result<Self, Error> {
        Ok(Self { cell, compressor: cell.builder(overlap).build_with(device, &backend::compress()?)? })
    }

    /// The kernels that are launched, joined by `+`.
    pub fn entries(&self) -> String {
        let plan = self.compressor.plan();
        match self.cell.work {
            Work::Decode | Work::Running => plan.decode_entry(self.cell.batch).to_owned(),
            Work::Post => plan.post_entry().to_owned(),
            Work::DecodePost => format!("{}+{}", plan.decode_entry(self.cell.batch), plan.post_entry()),
            Work::DecodeStore => plan.decode_store_entry().unwrap_or_default().to_owned(),
            Work::Prefill => plan.prefill_entry().to_owned(),
        }
    }

    /// Enqueues the launches of a cell on set `set`.
    ///
    /// # Safety
    /// `sets` stays alive until they have run; if `stream` is being captured, until the last replay has run.
    pub unsafe fn enqueue(&mut self, stream: &Stream, sets: &Sets<'_>, set: usize) -> Result<(), Error> {
        let args = sets.args(set)?;
        // SAFETY: the arguments are those of buffers of `sets` that are as large as the cell says and do not overlap;
        // requests have no page in common.
        unsafe {
            match self.cell.work {
                Work::Decode | Work::Running | Work::DecodePost => {
                    self.compressor.enqueue_decode(stream, self.cell.tokens, &args)?;
                }
                Work::DecodeStore => {
                    let post = sets.post_args(set)?;
                    self.compressor.enqueue_decode_store(stream, self.cell.tokens, &args, &post)?;
                }
                Work::Prefill => self.compressor.enqueue_prefill(stream, &args)?,
                Work::Post => {}
            }
            match self.cell.work {
                Work::Post | Work::DecodePost => self.compressor.enqueue_post(stream, &sets.post_args(set)?),
                _ => Ok(()),
            }
        }
    }

    /// Proves that a launch on set `set` did what it had to, by samples.
    ///
    /// # Errors
    /// What is wrong.
    pub fn prove(&mut self, sets: &Sets<'_>, set: usize) -> Result<(), CaseError> {
        if let Some(report) = self.compressor.take_report()? {
            return Err(CaseError::Output(report.to_string()));
        }
        for request in samples(self.cell.batch as usize) {
            if self.cell.work != Work::Post {
                self.prove_compression(sets, set, request)?;
            }
            if matches!(self.cell.work, Work::Post | Work::DecodePost | Work::DecodeStore) {
                prove_post(&self.cell, sets, set, request)?;
            }
        }
        Ok(())
    }

    fn prove_compression(&self, sets: &Sets<'_>, set: usize, request: usize) -> Result<(), CaseError> {
        let (cell, shape) = (&self.cell, sets.shape());
        let closing = cell.closing();
        for number in samples(closing.len()) {
            let window = closing.start as usize + number;
            let mut sequence = Sequence::default();
            let channels = if cell.work == Work::Running {
                running(cell, sets, set, request)
            } else {
                let first =
                    (window * shape.ratio).saturating_sub(if shape.overlaps() { shape.ratio } else { 0 });
                for position in first..(window + 1) * shape.ratio {
                    let kept = match position < cell.start() as usize {
                        true => sets.kept(set, request, position),
                        false => sets.fresh(set, request, position),
                    };
                    sequence.tokens.insert(position, kept);
                }
                sequence.window(&shape, window)
            };
            let row = request * closing.len() + number;
            let got = of_bytes(NumberType::Bf16, &sets.read_output(set, row)?);
            check_row(NumberType::Bf16, &channels, &got).map_err(|wrong| {
                CaseError::Output(format!("set {set}, request {request}, window {window}: {wrong}"))
            })?;
            for (position, kept) in sequence.tokens.range(cell.start() as usize..) {
                let wanted = [&kept.kv, &kept.score].map(|numbers| to_bytes(cell.state, numbers));
                if sets.read_kept(set, request, *position)? != wanted {
                    let text = format!(
                        "set {set}, request {request}, token {position}: it is not kept as it should be"
                    );
                    return Err(CaseError::Output(text));
                }
            }
        }
        Ok(())
    }
}

/// The row of a request whose state are running softmaxes.
fn running(cell: &Cell, sets: &Sets<'_>, set: usize, request: usize) -> Vec<Pooled> {
    let (shape, start) = (sets.shape(), cell.start() as usize);
    let before = sets.kept(set, request, start - 1);
    let new: Vec<_> = (start..cell.length() as usize).map(|t| sets.fresh(set, request, t)).collect();
    let row = |channel: usize| {
        let mut softmax = Softmax::default();
        // The softmax of all earlier tokens is like one token with the logarithm of their sum as its score: of the window
        // itself, or of the window before.
        softmax.push(before.score[channel], before.kv[channel]);
        let column = channel + if shape.overlaps() { shape.head_dim } else { 0 };
        new.iter().for_each(|Kept { kv, score }| softmax.push(score[column], kv[column]));
        softmax.pooled()
    };
    (0..shape.head_dim).map(row).collect()
}

/// Checks the cached row of a request: the row of the output, normalised and rotated.
fn prove_post(cell: &Cell, sets: &Sets<'_>, set: usize, request: usize) -> Result<(), CaseError> {
    let row = of_bytes(NumberType::Bf16, &sets.read_output(set, request)?);
    let position = (cell.closing().end - 1) * cell.ratio;
    let wanted = sets.steps().apply(&row, &angles(position as usize));
    let stored: Vec<_> =
        sets.read_cache(set, request)?.chunks_exact(2).map(|x| u16::from_ne_bytes([x[0], x[1]])).collect();
    match first_wrong_bf16(&wanted, &stored) {
        None => Ok(()),
        Some(wrong) => Err(CaseError::Output(format!("set {set}, request {request}, cached row: {wrong}"))),
    }
}

/// Some of `0..count`: first, last, and some between.
fn samples(count: usize) -> Vec<usize> {
    let mut samples: Vec<_> = (0..SAMPLES).map(|i| i * (count - 1) / (SAMPLES - 1)).collect();
    samples.dedup();
    samples
}

#[cfg(test)]
mod tests {
    use super::samples;

    #[test]
    fn samples_have_both_ends() {
        assert_eq!(samples(1), [0]);
        assert_eq!(samples(3), [0, 1, 2]);
        let many = samples(256);
        assert_eq!((many.len(), many[0], many[7]), (8, 0, 255));
    }
}
