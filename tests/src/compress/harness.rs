//! Runs compressions as an engine would, with everything around them hostile, and checks every byte.
//!
//! The pools live on from launch to launch; outputs are poisoned before each. Arrays lie between guards, aligned to what
//! the contract asks for and to no more.

use dsa_kernels::compress::{
    CompressArgs, Compressor, CompressorBuilder, ElementType, NumberType, PagedTensor, Report, Tensor,
};
use dsa_kernels::{Buffer, Device, Error, Stream};

use super::batch::{self, Expected, Requests, Spec, Step};
use super::reference::{WrongChannel, check_row, of_bytes, to_bytes};
use crate::backend;

/// What every output byte holds before a launch.
pub const OUTPUT_POISON: u8 = 0x5a;
/// Bytes before and behind an array: an odd multiple of 16.
const GUARD: usize = 144;
/// Words before an array of words.
const WORD_GUARD: usize = 1;

/// Which kernel a step is run by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launch {
    /// A few new tokens, at most so many of each request.
    Decode(u32),
    /// Any number of them.
    Prefill,
}

/// Why a launch was not right.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The library reported an error.
    #[error(transparent)]
    Library(#[from] Error),
    /// An output row is wrong.
    #[error("output row {row}, window {window} of request {request}: {wrong}")]
    Row {
        /// Its number.
        row: usize,
        /// The request that it belongs to.
        request: usize,
        /// The window.
        window: usize,
        /// What is wrong.
        wrong: WrongChannel,
    },
    /// A byte of the output that no row has was written.
    #[error("byte {byte} of the output, where nothing is to be written (row {row}), is {got:#04x}")]
    Stray {
        /// Its place; negative before the output.
        byte: isize,
        /// What it is in or behind; negative before the output.
        row: isize,
        /// What it holds.
        got: u8,
    },
    /// A pool is not what it must be.
    #[error(
        "byte {byte} of the {pool} pool ({owner}) is {got:#04x}, not {wanted:#04x}; {count} bytes differ"
    )]
    Pool {
        /// `kv` or `score`.
        pool: &'static str,
        /// Its place; negative before the pool.
        byte: isize,
        /// What it belongs to.
        owner: String,
        /// What it holds.
        got: u8,
        /// What it should hold.
        wanted: u8,
        /// How many bytes are wrong.
        count: usize,
    },
    /// The report is not what it must be.
    #[error("the report is {got:?}, not {wanted:?} (reasons as bits, lowest request)")]
    Report {
        /// What it is.
        got: Option<(u32, u32)>,
        /// What it should be.
        wanted: Option<(u32, u32)>,
    },
}

/// Bytes in device memory between guards.
struct Guarded {
    buffer: Buffer<u8>,
    len: usize,
}

impl Guarded {
    fn new(device: &Device, len: usize, poison: u8) -> Result<Self, Error> {
        let buffer = device.alloc(len + 2 * GUARD)?;
        buffer.fill_bytes(poison)?;
        Ok(Self { buffer, len })
    }

    fn address(&self) -> u64 {
        self.buffer.address() + GUARD as u64
    }

    fn upload(&self, bytes: &[u8]) -> Result<(), Error> {
        assert!(bytes.len() <= self.len, "{} bytes for {}", bytes.len(), self.len);
        self.buffer.upload_at(GUARD, bytes)
    }
}

/// Words in device memory, aligned to 4 bytes only.
struct Words {
    buffer: Buffer<i32>,
}

impl Words {
    fn new(device: &Device, len: usize) -> Result<Self, Error> {
        let buffer = device.alloc(len + WORD_GUARD)?;
        buffer.fill_bytes(batch::POISON)?;
        Ok(Self { buffer })
    }

    fn address(&self) -> u64 {
        self.buffer.address() + (WORD_GUARD * size_of::<i32>()) as u64
    }

    fn upload(&self, words: &[i32]) -> Result<(), Error> {
        self.buffer.upload_at(WORD_GUARD, words)
    }
}

/// An operator with requests in device memory.
pub struct Harness {
    /// What the requests keep, on the host.
    pub requests: Requests,
    /// The operator.
    pub compressor: Compressor,
    /// The stream it is enqueued on.
    pub stream: Stream,
    kv_score: Guarded,
    ape: Guarded,
    pools: [Guarded; 2],
    tables: [Words; 2],
    kv_lens: Words,
    cu_new: Words,
    cu_out: Words,
    output: Guarded,
}

impl Harness {
    /// Most rows of new tokens of a launch.
    pub fn max_tokens(spec: &Spec) -> usize {
        spec.requests * spec.max_new + 2
    }

    /// Most output rows of a launch.
    pub fn max_rows(spec: &Spec) -> usize {
        spec.requests * (spec.max_new / spec.shape.ratio + 1) + 2
    }

    /// The operator for requests that have no tokens yet.
    ///
    /// # Errors
    /// Those of the library.
    pub fn new(
        device: &Device,
        spec: Spec,
        configure: impl FnOnce(CompressorBuilder) -> CompressorBuilder,
    ) -> Result<Self, Error> {
        let shape = spec.shape;
        let builder = Compressor::builder(shape.ratio as u32, shape.head_dim as u32)
            .kv(shape.kv)
            .state(shape.state)
            .output(shape.output)
            .max_batch(spec.requests as u32);
        let requests = Requests::new(spec);
        let kv_score = Self::max_tokens(&spec) * spec.kv_score_pitch() * shape.kv.bytes();
        let output = Self::max_rows(&spec) * spec.output_pitch() * shape.output.bytes();
        let [first, second] = spec.pool_bytes();
        let [kv_table, score_table] = spec.table_pitches().map(|pitch| spec.requests * pitch);
        let ape = Guarded::new(device, requests.ape.len() * size_of::<f32>(), batch::POISON)?;
        ape.upload(&to_bytes(NumberType::F32, &requests.ape))?;
        Ok(Self {
            requests,
            compressor: configure(builder).build_with(device, &backend::compress()?)?,
            stream: device.stream()?,
            kv_score: Guarded::new(device, kv_score, batch::POISON)?,
            ape,
            pools: [
                Guarded::new(device, first, batch::POISON)?,
                Guarded::new(device, second, batch::POISON)?,
            ],
            tables: [Words::new(device, kv_table)?, Words::new(device, score_table)?],
            kv_lens: Words::new(device, spec.requests)?,
            cu_new: Words::new(device, spec.requests + 1)?,
            cu_out: Words::new(device, spec.requests + 1)?,
            output: Guarded::new(device, output, OUTPUT_POISON)?,
        })
    }

    /// The arguments of a launch with so many rows of new tokens and of output.
    ///
    /// # Errors
    /// Those of the library.
    pub fn args(&self, tokens: usize, rows: usize) -> Result<CompressArgs, Error> {
        let Spec { requests, page, shape, .. } = self.requests.spec;
        let spec = &self.requests.spec;
        let width = shape.width() as u64;
        let (pages, page_pitches) = (spec.pages(), spec.page_pitches());
        let state: ElementType = shape.state.into();
        let paged = |pool: usize| -> Result<PagedTensor, Error> {
            let memory = &self.pools[pool];
            let blocks = [requests as u64, spec.max_blocks() as u64];
            Ok(PagedTensor {
                pool: Tensor::raw(memory.address(), state, [pages[pool] as u64, page as u64, width])
                    .with_pitch(page_pitches[pool] as u64)?,
                blocks: Tensor::raw(self.tables[pool].address(), ElementType::I32, blocks)
                    .with_pitch(spec.table_pitches()[pool] as u64)?,
            })
        };
        let words = |words: &Words, len: usize| Tensor::raw(words.address(), ElementType::I32, [len as u64]);
        let ape = [shape.ratio as u64, width];
        Ok(CompressArgs {
            kv_score: Tensor::raw(self.kv_score.address(), shape.kv.into(), [tokens as u64, 2 * width])
                .with_pitch(spec.kv_score_pitch() as u64)?,
            ape: Tensor::raw(self.ape.address(), ElementType::F32, ape),
            kv: paged(0)?,
            score: paged(1)?,
            kv_lens: words(&self.kv_lens, requests),
            cu_new: words(&self.cu_new, requests + 1),
            cu_out: words(&self.cu_out, requests + 1),
            output: Tensor::raw(
                self.output.address(),
                shape.output.into(),
                [rows as u64, shape.head_dim as u64],
            )
            .with_pitch(spec.output_pitch() as u64)?,
        })
    }

    /// Copies what a step is given to the device, the pools too if more than launches changed them, and poisons the
    /// output.
    ///
    /// # Errors
    /// Those of the library.
    pub fn place(&mut self, step: &Step) -> Result<(), Error> {
        let spec = self.requests.spec;
        let shape = spec.shape;
        let pitch = spec.kv_score_pitch() * shape.kv.bytes();
        let mut rows = vec![batch::POISON; self.kv_score.len];
        for (row, numbers) in step.kv_score.chunks_exact(2 * shape.width()).enumerate() {
            let bytes = to_bytes(shape.kv, numbers);
            rows[row * pitch..][..bytes.len()].copy_from_slice(&bytes);
        }
        self.kv_score.upload(&rows)?;
        for (words, contents) in [
            (&self.tables[0], &step.tables[0]),
            (&self.tables[1], &step.tables[1]),
            (&self.kv_lens, &step.kv_lens),
            (&self.cu_new, &step.cu_new),
            (&self.cu_out, &step.cu_out),
        ] {
            words.upload(contents)?;
        }
        if self.requests.pools_changed {
            for (pool, bytes) in self.pools.iter().zip(&self.requests.pools) {
                pool.upload(bytes)?;
            }
            self.requests.pools_changed = false;
        }
        self.output.buffer.fill_bytes(OUTPUT_POISON)
    }

    /// Enqueues a launch with so many rows of new tokens and of output.
    ///
    /// # Errors
    /// Those of the library.
    pub fn enqueue(
        &mut self,
        stream: &Stream,
        launch: Launch,
        tokens: usize,
        rows: usize,
    ) -> Result<(), Error> {
        let args = self.args(tokens, rows)?;
        // SAFETY: the addresses are those of the buffers of `self`, of which none overlap, which outlive the launch:
        // reading the result waits for it, and freeing a buffer does too. A page belongs to one request.
        unsafe {
            match launch {
                Launch::Decode(next_n) => self.compressor.enqueue_decode(stream, next_n, &args),
                Launch::Prefill => self.compressor.enqueue_prefill(stream, &args),
            }
        }
    }

    /// Checks what a launch of a placed step did: outputs, pools and report.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&mut self, launch: Launch, step: &Step) -> Result<Expected, CheckError> {
        self.stream.synchronize()?;
        let max_new = match launch {
            Launch::Decode(next_n) => next_n as usize,
            Launch::Prefill => step.tokens(&self.requests.spec.shape),
        };
        let expected = self.requests.apply(step, max_new);
        let got = self
            .compressor
            .take_report()?
            .map(|Report { reasons, first_request }| (reasons.bits(), first_request));
        if got != expected.report {
            return Err(CheckError::Report { got, wanted: expected.report });
        }
        self.verify_output(&expected)?;
        self.verify_pools()?;
        Ok(expected)
    }

    /// Runs a step from beginning to end and checks it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn run(&mut self, launch: Launch, step: &Step) -> Result<Expected, CheckError> {
        self.place(step)?;
        self.enqueue(&self.stream.clone(), launch, step.tokens(&self.requests.spec.shape), step.rows)?;
        self.verify(launch, step)
    }

    /// The numbers of output row `row` as they are.
    ///
    /// # Errors
    /// Those of the library.
    pub fn output_row(&self, row: usize) -> Result<Vec<f32>, Error> {
        let spec = &self.requests.spec;
        let bytes = spec.shape.output.bytes();
        let mut numbers = vec![0; spec.shape.head_dim * bytes];
        self.output.buffer.download_at(GUARD + row * spec.output_pitch() * bytes, &mut numbers)?;
        Ok(of_bytes(spec.shape.output, &numbers))
    }

    fn verify_output(&self, expected: &Expected) -> Result<(), CheckError> {
        let spec = &self.requests.spec;
        let kind = spec.shape.output;
        let (pitch, len) = (spec.output_pitch() * kind.bytes(), spec.shape.head_dim * kind.bytes());
        let mut bytes = self.output.buffer.download()?;
        for (&row, wanted) in &expected.rows {
            let place = &mut bytes[GUARD + row * pitch..][..len];
            check_row(kind, &wanted.channels, &of_bytes(kind, place)).map_err(|wrong| CheckError::Row {
                row,
                request: wanted.request,
                window: wanted.window,
                wrong,
            })?;
            place.fill(OUTPUT_POISON);
        }
        match bytes.iter().position(|byte| *byte != OUTPUT_POISON) {
            None => Ok(()),
            Some(at) => {
                let byte = at as isize - GUARD as isize;
                Err(CheckError::Stray { byte, row: byte.div_euclid(pitch as isize), got: bytes[at] })
            }
        }
    }

    fn verify_pools(&self) -> Result<(), CheckError> {
        for (number, name) in ["kv", "score"].into_iter().enumerate() {
            let got = self.pools[number].buffer.download()?;
            let wanted = &self.requests.pools[number];
            let guard = [batch::POISON; GUARD];
            if got[..GUARD] == guard
                && got[GUARD..][..wanted.len()] == **wanted
                && got[GUARD + wanted.len()..] == guard
            {
                continue;
            }
            let all = guard.iter().chain(wanted).chain(&guard);
            let mut wrong = got.iter().zip(all).enumerate().filter(|(_, (got, wanted))| got != wanted);
            let (at, (&got, &wanted)) = wrong.next().expect("a byte differs");
            let byte = at as isize - GUARD as isize;
            let owner = match usize::try_from(byte) {
                Ok(byte) if byte < self.requests.pools[number].len() => self.requests.owner(number, byte),
                _ => "outside it".to_owned(),
            };
            return Err(CheckError::Pool { pool: name, byte, owner, got, wanted, count: 1 + wrong.count() });
        }
        Ok(())
    }
}
