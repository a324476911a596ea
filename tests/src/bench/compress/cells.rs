//! What is run.
//!
//! Names are what `--filter` looks at: `compress/decode/r128/b16/w4` is decode with windows of 128 for 16 requests by blocks
//! of 4 warps. Where nothing else is said, a row has 512 channels, new tokens and output are bf16, the state is f32, the
//! number of warps is what the library takes, and every request closes a window.

use std::fmt;

use dsa_kernels::compress::{CompressorBuilder, Limits, NumberType};
use dsa_kernels_gpu::compress::configuration::{Configuration, Mode};
use dsa_kernels_gpu::compress::{CONFIGURATIONS, width};

/// What a launch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A few new tokens of each request.
    Decode,
    /// The same, the state being running softmaxes.
    Running,
    /// Normalise, rotate and store the rows that a decode wrote.
    Post,
    /// Decode, then that, in two launches.
    DecodePost,
    /// The same in one launch.
    DecodeStore,
    /// Whole prompts.
    Prefill,
}

/// One cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What a launch does.
    pub work: Work,
    /// Tokens of a window.
    pub ratio: u32,
    /// Channels of an output row.
    pub head_dim: u32,
    /// Requests.
    pub batch: u32,
    /// New tokens of each.
    pub tokens: u32,
    /// Type of the state.
    pub state: NumberType,
    /// Warps of a block of decode; `None` for what the library takes.
    pub warps: Option<u32>,
}

/// New tokens of a request in a decode.
const NEXT_N: u32 = 4;

/// Batches of the table.
const BATCHES: [u32; 4] = [16, 64, 128, 256];

/// Tokens of the requests of a decode before the new ones, in windows.
const WINDOWS_BEFORE: u32 = 7;

/// Prompts: requests, tokens of each.
const PROMPTS: [(u32, u32); 4] = [(1, 8 << 10), (1, 64 << 10), (8, 8 << 10), (8, 64 << 10)];

impl Cell {
    /// Decode with windows of 128 tokens and a state of f32.
    const fn decode(batch: u32) -> Self {
        Self {
            work: Work::Decode,
            ratio: 128,
            head_dim: 512,
            batch,
            tokens: NEXT_N,
            state: NumberType::F32,
            warps: None,
        }
    }

    /// The unique name.
    pub fn name(&self) -> String {
        self.to_string()
    }

    /// What the operator is built for.
    pub fn limits(&self, overlap: bool) -> Limits {
        Limits {
            state: self.state,
            warps: self.warps,
            running: self.work == Work::Running,
            max_batch: self.batch,
            overlap,
            ..Limits::of(self.ratio, self.head_dim)
        }
    }

    /// The operator's builder.
    pub fn builder(&self, overlap: bool) -> CompressorBuilder {
        self.limits(overlap).into()
    }

    /// Columns of a row of the state.
    pub fn width(&self) -> u32 {
        width(self.head_dim, self.ratio)
    }

    /// Position of the first new token.
    pub fn start(&self) -> u32 {
        self.length() - self.tokens
    }

    /// Length of a request after the new tokens: the last of them closes a window, if it is a decode.
    pub fn length(&self) -> u32 {
        if self.work == Work::Prefill { self.tokens } else { (WINDOWS_BEFORE + 1) * 128 }
    }

    /// The first position whose state is read, or written if none is read.
    pub fn first_touched(&self) -> u32 {
        match (self.work, self.ratio) {
            (Work::Prefill, _) => 0,
            (Work::Running, _) => self.start() - 1,
            (_, 4) => (self.start() / 4 * 4).saturating_sub(4),
            (_, ratio) => self.start() / ratio * ratio,
        }
    }

    /// Windows that a request closes.
    pub fn closing(&self) -> std::ops::Range<u32> {
        self.start() / self.ratio..self.length() / self.ratio
    }

    /// Rows of the output.
    pub fn rows(&self) -> u32 {
        self.batch * (self.closing().end - self.closing().start)
    }

    /// Bytes that a launch must read and write, each once.
    pub fn bytes(&self) -> u64 {
        let (width, head_dim) = (u64::from(self.width()), u64::from(self.head_dim));
        let state = 2 * width * self.state.bytes() as u64;
        let new = u64::from(self.batch * self.tokens);
        let rows = u64::from(self.rows()) * head_dim * 2;
        // Of the tokens of the window before, a window that overlaps reads the first half of the columns only, and of
        // its own the second.
        let read = match (self.work, self.ratio) {
            (Work::Prefill, _) => 0,
            (Work::Running, 128) => state,
            (Work::Running, _) => state / 2,
            (_, 4) => u64::from(self.start() - self.first_touched()) * state / 2,
            _ => u64::from(self.start() - self.first_touched()) * state,
        };
        let compress = new * (2 * width * 2 + state) + u64::from(self.batch) * read + rows;
        match self.work {
            Work::Post => 2 * rows,
            Work::DecodePost | Work::DecodeStore => compress + 2 * rows,
            _ => compress,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = match self.work {
            Work::Decode => "decode",
            Work::Running => "running",
            Work::Post => "post",
            Work::DecodePost => "decode+post",
            Work::DecodeStore => "decode_store",
            Work::Prefill => "prefill",
        };
        write!(f, "compress/{work}/r{}/", self.ratio)?;
        match self.work {
            Work::Prefill => write!(f, "{}x{}", self.batch, self.tokens)?,
            _ => write!(f, "b{}", self.batch)?,
        }
        if self.state == NumberType::Bf16 {
            f.write_str("/bf16")?;
        }
        match (self.work, self.warps) {
            (Work::Decode, Some(warps)) => write!(f, "/w{warps}"),
            (Work::Decode, None) => f.write_str("/best"),
            _ => Ok(()),
        }
    }
}

/// All cells.
pub fn full() -> Vec<Cell> {
    let each = |make: &dyn Fn(u32) -> Cell| BATCHES.map(make);
    let mut cells = Vec::new();
    for (ratio, state) in [(128, NumberType::F32), (128, NumberType::Bf16), (4, NumberType::F32)] {
        let decode = |warps| move |batch| Cell { ratio, state, warps, ..Cell::decode(batch) };
        for warps in listed_warps(ratio, state) {
            cells.extend(each(&decode(Some(warps))));
        }
        cells.extend(each(&decode(None)));
    }
    cells.extend(each(&|batch| Cell { work: Work::Running, ..Cell::decode(batch) }));
    cells.extend(each(&|batch| Cell { work: Work::Running, ratio: 4, ..Cell::decode(batch) }));
    cells.extend(each(&|batch| Cell { work: Work::Post, ..Cell::decode(batch) }));
    for ratio in [128, 4] {
        for work in [Work::DecodePost, Work::DecodeStore] {
            cells.extend(each(&|batch| Cell { work, ratio, ..Cell::decode(batch) }));
        }
    }
    cells.extend(PROMPTS.map(|(batch, tokens)| Cell { work: Work::Prefill, tokens, ..Cell::decode(batch) }));
    cells
}

/// The numbers of warps that there are kernels of decode for.
fn listed_warps(ratio: u32, state: NumberType) -> impl Iterator<Item = u32> {
    let listed = move |c: &&Configuration| {
        (c.mode, c.kv, c.state, c.ratio) == (Mode::Decode, NumberType::Bf16, state, ratio)
    };
    CONFIGURATIONS.iter().filter(listed).map(|configuration| configuration.warps)
}

/// The two smaller batches of the fastest decode.
pub fn quick() -> Vec<Cell> {
    BATCHES[..2].iter().map(|&batch| Cell::decode(batch)).collect()
}

/// One small cell of each kind.
pub fn emulated() -> Vec<Cell> {
    let decode = Cell::decode(2);
    vec![
        Cell { warps: Some(1), ..decode },
        Cell { warps: Some(4), ..decode },
        decode,
        Cell { state: NumberType::Bf16, ..decode },
        Cell { ratio: 4, ..decode },
        Cell { work: Work::Running, ..decode },
        Cell { work: Work::Running, ratio: 4, ..decode },
        Cell { work: Work::Post, ..decode },
        Cell { work: Work::DecodePost, ..decode },
        Cell { work: Work::DecodeStore, ..decode },
        Cell { work: Work::DecodeStore, ratio: 4, ..decode },
        Cell { work: Work::Prefill, tokens: 300, ..decode },
    ]
}

/// The fastest decode.
pub fn emulated_quick() -> Vec<Cell> {
    vec![Cell::decode(2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_what_is_run() {
        for cells in [full(), quick(), emulated(), emulated_quick()] {
            let mut names: Vec<_> = cells.iter().map(Cell::name).collect();
            assert!(names.iter().all(|name| name.starts_with("compress/")));
            names.sort();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count, "{names:?}");
        }
        let names: Vec<_> = full().iter().map(Cell::name).collect();
        for name in [
            "compress/decode/r128/b16/w1",
            "compress/decode/r128/b16/w4",
            "compress/decode/r128/b256/best",
            "compress/decode/r128/b64/bf16/best",
            "compress/decode/r4/b64/best",
            "compress/running/r128/b128",
            "compress/post/r128/b16",
            "compress/decode+post/r128/b16",
            "compress/decode_store/r4/b256",
            "compress/prefill/r128/8x65536",
        ] {
            assert!(names.iter().any(|other| other == name), "{name} is not in {names:?}");
        }
    }

    #[test]
    fn every_request_of_a_decode_closes_one_window() {
        for cell in full().into_iter().filter(|cell| cell.work != Work::Prefill) {
            assert_eq!(cell.rows(), cell.batch, "{cell}");
            assert_eq!(cell.length() % cell.ratio, 0);
        }
    }

    #[test]
    fn bytes_are_counted_once_each() {
        // 124 kept tokens and 4 new ones of 2 x 512 f32 each, 4 new rows of 2 x 512 bf16, a row of 512 bf16.
        assert_eq!(Cell::decode(1).bytes(), 128 * 4096 + 4 * 2048 + 1024);
        assert_eq!(Cell { work: Work::Post, ..Cell::decode(3) }.bytes(), 3 * 2 * 1024);
        // Each of the 4 tokens before: half of 2 x 1024 f32. Each of the new ones: 2 x 1024 f32, 2 x 1024 bf16.
        let short = Cell { ratio: 4, ..Cell::decode(1) };
        assert_eq!(short.bytes(), 4 * 4096 + 4 * (8192 + 4096) + 1024);
    }
}
