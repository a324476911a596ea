//! Runs a batch through the operator as an engine would, with everything around it hostile.

use dsa_kernels::topk::{TopK, TopKArgs, TopKBuilder};
use dsa_kernels::{Buffer, Device, Error, Stream, Workspace};

use crate::batch::{Batch, WrongRow};

/// What every output byte holds before a run.
pub const POISON: u8 = 0x5a;
/// Words around the output that no kernel may touch. Odd: the output is aligned to 4 bytes only.
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
    /// A word outside the output was written.
    #[error("word {word} relative to the output of {words} words was overwritten with {got:#010x}")]
    Guard {
        /// Its place; negative before the output.
        word: isize,
        /// Words of the output.
        words: usize,
        /// What it holds.
        got: i32,
    },
}

/// The device buffers of one batch.
pub struct Placed {
    scores: Buffer<f32>,
    lengths: Buffer<i32>,
    out: Buffer<i32>,
    args: TopKArgs,
    words: usize,
}

impl Selector {
    /// Builds the operator, and a workspace that holds `dirt` in every byte.
    ///
    /// # Errors
    /// Those of the library.
    pub fn new(device: &Device, builder: TopKBuilder, k: usize, dirt: u8) -> Result<Self, Error> {
        let topk = builder.build(device)?;
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
        let device = self.stream.device();
        let words = batch.spec.rows() * self.k;
        let scores = device.upload(&batch.scores)?;
        let lengths = device.upload(&batch.spec.lengths)?;
        let out = device.alloc(words + 2 * GUARD)?;
        out.fill_bytes(POISON)?;
        let args = TopKArgs {
            scores: scores.address() + 4 * batch.spec.offset as u64,
            pitch: batch.spec.pitch as u64,
            rows: batch.spec.rows() as u32,
            lengths: lengths.address(),
            out: out.address() + 4 * GUARD as u64,
            values: 0,
        };
        Ok(Placed { scores, lengths, out, args, words })
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

    /// Checks what the operator wrote, and that it wrote nothing else.
    ///
    /// # Errors
    /// The first wrong word.
    pub fn verify(&self, batch: &Batch, placed: &Placed) -> Result<(), RunError> {
        self.stream.synchronize()?;
        batch.check(&placed.output()?, self.k)?;
        Ok(())
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
    /// The output words, after checking the guards around them.
    ///
    /// # Errors
    /// A guard was overwritten, or the library cannot read.
    pub fn output(&self) -> Result<Vec<i32>, RunError> {
        let all = self.out.download()?;
        let poison = i32::from_ne_bytes([POISON; 4]);
        let inside = GUARD..GUARD + self.words;
        let broken = all.iter().enumerate().find(|(i, word)| !inside.contains(i) && **word != poison);
        if let Some((i, &got)) = broken {
            return Err(RunError::Guard { word: i as isize - GUARD as isize, words: self.words, got });
        }
        Ok(all[inside].to_vec())
    }

    /// Replaces scores and lengths in place and poisons the output, as an engine's next step does. `batch`
    /// has the layout of the batch that was placed.
    ///
    /// # Errors
    /// Those of the library.
    pub fn refill(&self, batch: &Batch) -> Result<(), Error> {
        self.scores.upload(&batch.scores)?;
        self.lengths.upload(&batch.spec.lengths)?;
        self.out.fill_bytes(POISON)
    }

    /// The raw arguments.
    pub fn args(&self) -> &TopKArgs {
        &self.args
    }
}
