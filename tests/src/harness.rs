//! Runs a batch through the operator as an engine would, with everything around it hostile.

use dsa_kernels::topk::{Limits, ScoreType, TopK, TopKArgs, TopKBuilder};
use dsa_kernels::{Buffer, Device, Error, Stream, Workspace};

use crate::backend;
use crate::batch::{Answer, Batch, WrongRow};
use crate::scores;

/// What every output byte holds before a run.
pub const POISON: u8 = 0x5a;
/// Elements around an output that no kernel may touch. Odd: the output is aligned to its elements only.
const GUARD: usize = 65;

/// An operator with its stream and workspace, reused from run to run.
pub struct Selector {
    /// The operator.
    pub topk: TopK,
    /// The stream it is enqueued on.
    pub stream: Stream,
    /// Its scratch memory.
    pub workspace: Workspace,
    /// Elements it selects from each row.
    pub k: usize,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The library reported an error.
    #[error(transparent)]
    Library(#[from] Error),
    /// A row is wrong.
    #[error(transparent)]
    Wrong(#[from] WrongRow),
    /// A byte outside an output was written.
    #[error("byte {byte} relative to the {output} of {bytes} bytes was overwritten with {got:#04x}")]
    Guard {
        /// `indices` or `values`.
        output: &'static str,
        /// Its place; negative before the output.
        byte: isize,
        /// Bytes of the output.
        bytes: usize,
        /// What it holds.
        got: u8,
    },
}

/// The device buffers of one batch.
pub struct Placed {
    scores: Buffer<u8>,
    lengths: Buffer<i32>,
    indices: Guarded,
    values: Option<Guarded>,
    kind: ScoreType,
    args: TopKArgs,
}

/// An output in device memory, with guards around it.
struct Guarded {
    name: &'static str,
    buffer: Buffer<u8>,
    /// Bytes of each guard.
    guard: usize,
}

impl Guarded {
    /// An output of `count` elements, poisoned.
    fn new(device: &Device, name: &'static str, count: usize, element: usize) -> Result<Self, Error> {
        let buffer = device.alloc((count + 2 * GUARD) * element)?;
        buffer.fill_bytes(POISON)?;
        Ok(Self { name, buffer, guard: GUARD * element })
    }

    fn address(&self) -> u64 {
        self.buffer.address() + self.guard as u64
    }

    /// What was written, after checking the guards.
    fn read(&self) -> Result<Vec<u8>, RunError> {
        let mut all = self.buffer.download()?;
        let inside = self.guard..all.len() - self.guard;
        let broken = all.iter().enumerate().find(|(i, byte)| !inside.contains(i) && **byte != POISON);
        if let Some((i, &got)) = broken {
            let byte = i as isize - self.guard as isize;
            return Err(RunError::Guard { output: self.name, byte, bytes: inside.len(), got });
        }
        all.truncate(inside.end);
        Ok(all.split_off(inside.start))
    }
}

impl Selector {
    /// Builds the operator, and a workspace that holds `dirt` in every byte.
    ///
    /// # Errors
    /// Those of the library.
    pub fn new(device: &Device, builder: TopKBuilder, k: usize, dirt: u8) -> Result<Self, Error> {
        let topk = builder.build_with(device, &backend::topk()?)?;
        let stream = device.stream()?;
        let workspace = Workspace::with_bytes(device, topk.workspace_bytes())?;
        workspace.fill_bytes(dirt)?;
        Ok(Self { topk, stream, workspace, k })
    }

    /// Copies a batch to the device, with poisoned outputs.
    ///
    /// # Errors
    /// Those of the library.
    pub fn place(&self, batch: &Batch) -> Result<Placed, Error> {
        Placed::new(self.stream.device(), batch, self.topk.plan().limits())
    }

    /// Enqueues the operator.
    ///
    /// # Errors
    /// Those of the library.
    pub fn enqueue(&mut self, placed: &Placed) -> Result<(), Error> {
        self.enqueue_on(&self.stream.clone(), placed)
    }

    /// Enqueues the operator on another stream.
    ///
    /// # Errors
    /// Those of the library.
    pub fn enqueue_on(&mut self, stream: &Stream, placed: &Placed) -> Result<(), Error> {
        // SAFETY: the addresses are those of the buffers in `placed`, which outlive the launch: reading the
        // result waits for it, and freeing a buffer does too.
        unsafe { self.topk.enqueue(stream, &mut self.workspace, &placed.args) }
    }

    /// Checks what the operator wrote against what its limits promise, and that it wrote nothing else.
    ///
    /// # Errors
    /// The first wrong word.
    pub fn verify(&self, batch: &Batch, placed: &Placed) -> Result<(), RunError> {
        self.stream.synchronize()?;
        placed.verify(batch, self.topk.plan().limits())
    }

    /// Runs a batch from beginning to end and checks it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&mut self, batch: &Batch) -> Result<(), RunError> {
        let placed = self.place(batch)?;
        self.enqueue(&placed)?;
        self.verify(batch, &placed)
    }
}

impl Placed {
    /// Copies a batch to the device for an operator with these limits, with poisoned outputs.
    ///
    /// # Errors
    /// Those of the library.
    ///
    /// # Panics
    /// If the scores are of another type than the operator takes.
    pub fn new(device: &Device, batch: &Batch, limits: &Limits) -> Result<Self, Error> {
        let spec = &batch.spec;
        assert_eq!(spec.scores, limits.scores, "the batch has other scores than the operator");
        let kind = spec.scores;
        let element = kind.bytes() as usize;
        let count = spec.rows() * limits.k as usize;
        let scores = device.upload(&batch.bytes())?;
        let lengths = device.upload(&spec.lengths)?;
        let indices = Guarded::new(device, "indices", count, size_of::<i32>())?;
        let values = limits.values.then(|| Guarded::new(device, "values", count, element)).transpose()?;
        let args = TopKArgs {
            scores: scores.address() + (element * spec.offset) as u64,
            pitch: spec.pitch as u64,
            rows: spec.rows() as u32,
            lengths: lengths.address(),
            out: indices.address(),
            values: values.as_ref().map_or(0, Guarded::address),
        };
        Ok(Self { scores, lengths, indices, values, kind, args })
    }

    /// The indices, after checking the guards around them.
    ///
    /// # Errors
    /// A guard was overwritten, or the library cannot read.
    pub fn output(&self) -> Result<Vec<i32>, RunError> {
        let bytes = self.indices.read()?;
        Ok(bytes
            .chunks_exact(4)
            .map(|word| i32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
            .collect())
    }

    /// Indices and values, after checking the guards around them.
    ///
    /// # Errors
    /// A guard was overwritten, or the library cannot read.
    pub fn answer(&self) -> Result<Answer, RunError> {
        let values = self.values.as_ref().map(Guarded::read).transpose()?;
        let values = values.map(|bytes| scores::bits_of_bytes(self.kind, &bytes));
        Ok(Answer { indices: self.output()?, values })
    }

    /// Checks what an operator built for `limits` wrote here, and that it wrote nothing else.
    ///
    /// # Errors
    /// The first wrong word.
    pub fn verify(&self, batch: &Batch, limits: &Limits) -> Result<(), RunError> {
        batch.check_answer(&self.answer()?, limits)?;
        Ok(())
    }

    /// Replaces scores and lengths in place and poisons the outputs, as an engine's next step does. `batch`
    /// has the layout of the batch that was placed.
    ///
    /// # Errors
    /// Those of the library.
    pub fn refill(&self, batch: &Batch) -> Result<(), Error> {
        self.scores.upload(&batch.bytes())?;
        self.lengths.upload(&batch.spec.lengths)?;
        for output in [Some(&self.indices), self.values.as_ref()].into_iter().flatten() {
            output.buffer.fill_bytes(POISON)?;
        }
        Ok(())
    }

    /// The raw arguments.
    pub fn args(&self) -> &TopKArgs {
        &self.args
    }
}

#[cfg(test)]
mod tests {
    use dsa_kernels::topk::{Order, Ties};

    use super::*;
    use crate::batch::BatchSpec;
    use crate::distribution::Distribution;
    use crate::oracle;

    /// A batch on the emulator with the right answer of an operator that promises everything.
    fn answered(kind: ScoreType) -> (Batch, Placed, Limits) {
        let limits = Limits {
            max_rows: 2,
            max_len: 9,
            scores: kind,
            ties: Ties::LowestIndex,
            order: Order::AscendingIndex,
            values: true,
            ..Limits::of(4)
        };
        let spec = BatchSpec::new(Distribution::TwoValues, 8, 9, vec![9, 3]);
        let batch = spec.with_layout(11, 1).with_scores(kind).build().unwrap();
        let placed = Placed::new(&Device::emulator(), &batch, &limits).unwrap();
        let mut values = Vec::new();
        for row in 0..2 {
            let words = oracle::expected_row(batch.row(row), 4);
            let value = |&word: &i32| match word {
                oracle::PADDING => f32::NEG_INFINITY,
                index => batch.row(row)[index as usize],
            };
            values.extend(words.iter().map(value));
            let bytes: Vec<_> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            placed.indices.buffer.upload_at(4 * GUARD + row * 16, &bytes).unwrap();
        }
        let output = placed.values.as_ref().unwrap();
        output.buffer.upload_at(output.guard, &scores::to_bytes(kind, &values)).unwrap();
        (batch, placed, limits)
    }

    #[test]
    fn outputs_are_aligned_to_their_elements_only() {
        for kind in ScoreType::ALL.iter().copied() {
            let (_, placed, _) = answered(kind);
            let element = u64::from(kind.bytes());
            let args = placed.args();
            assert_eq!((args.out % 8, args.values % (2 * element)), (4, element), "{kind}");
            assert_eq!(args.scores % (2 * element), element, "{kind}");
        }
    }

    #[test]
    fn a_right_answer_passes_and_each_overwritten_byte_around_it_is_found() {
        for kind in ScoreType::ALL.iter().copied() {
            let (batch, placed, limits) = answered(kind);
            placed.verify(&batch, &limits).unwrap_or_else(|error| panic!("{kind}: {error}"));
            for output in [&placed.indices, placed.values.as_ref().unwrap()] {
                let size = output.buffer.len() - 2 * output.guard;
                for at in [0, output.guard - 1, output.guard + size, output.buffer.len() - 1] {
                    output.buffer.upload_at(at, &[1]).unwrap();
                    let error = placed.verify(&batch, &limits).unwrap_err();
                    let place = at as isize - output.guard as isize;
                    assert!(
                        matches!(error, RunError::Guard { byte, got: 1, output: name, .. }
                            if byte == place && name == output.name),
                        "{kind}, {place}: {error}"
                    );
                    output.buffer.upload_at(at, &[POISON]).unwrap();
                }
            }
            placed.verify(&batch, &limits).unwrap();
        }
    }

    #[test]
    fn a_wrong_value_an_index_not_written_and_a_refill_are_found() {
        for kind in ScoreType::ALL.iter().copied() {
            let (batch, placed, limits) = answered(kind);
            let values = placed.values.as_ref().unwrap();
            let right = values.buffer.download().unwrap();
            let last = right.len() - values.guard - 1;
            values.buffer.upload_at(last, &[right[last] ^ 1]).unwrap();
            let error = placed.verify(&batch, &limits).unwrap_err().to_string();
            assert!(error.contains("row 1 of 2") && error.contains("value 3, of index -1"), "{error}");
            values.buffer.upload(&right).unwrap();
            placed.verify(&batch, &limits).unwrap();
            placed.refill(&batch).unwrap();
            let error = placed.verify(&batch, &limits).unwrap_err().to_string();
            assert!(error.contains("word 0") && error.contains("0x5a5a5a5a"), "{error}");
        }
    }
}
