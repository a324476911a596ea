//! The device memory of a cell, as often as launches are to find it cold.
//!
//! All numbers are those of one [`Pattern`] over and over, so that the host knows what lies where without a copy of it. Pages
//! are scattered over the pools, in different orders.

use dsa_kernels::compress::{CompressArgs, ElementType, NumberType, PagedTensor, PostArgs, Store, Tensor};
use dsa_kernels::{Buffer, Device, Error};

use super::cells::{Cell, Work};
use crate::compress::post_reference::{ROTATED, Steps, angles};
use crate::compress::reference::{Kept, Shape, to_bytes};
use crate::random::Random;

/// Tokens of a page of the state, and rows of a page of the cache.
pub const PAGE: u32 = 32;
/// What a row is normalised with.
const EPSILON: f32 = 1e-6;

/// Normal numbers that are numbers of bf16, repeated without end. Their count is a prime: rows do not repeat.
pub struct Pattern {
    numbers: Vec<f32>,
}

impl Pattern {
    /// Numbers before they repeat.
    const COUNT: usize = 1_000_003;

    /// The pattern.
    pub fn new() -> Self {
        let mut random = Random::new(7);
        let numbers = (0..Self::COUNT).map(|_| half::bf16::from_f32(random.normal()).to_f32()).collect();
        Self { numbers }
    }

    /// Numbers `first..first + count`.
    pub fn numbers(&self, first: usize, count: usize) -> Vec<f32> {
        (first..first + count).map(|index| self.numbers[index % Self::COUNT]).collect()
    }

    /// Writes the first numbers to all of a buffer.
    fn fill(&self, buffer: &Buffer<u8>, kind: NumberType) -> Result<(), Error> {
        let bytes = to_bytes(kind, &self.numbers);
        for first in (0..buffer.len()).step_by(bytes.len()) {
            buffer.upload_at(first, &bytes[..bytes.len().min(buffer.len() - first)])?;
        }
        Ok(())
    }
}

impl Default for Pattern {
    fn default() -> Self {
        Self::new()
    }
}

/// Device memory of a cell, several times.
pub struct Sets<'a> {
    cell: Cell,
    pattern: &'a Pattern,
    count: usize,
    kv_score: Buffer<u8>,
    ape: Buffer<f32>,
    host_ape: Vec<f32>,
    pools: [Buffer<u8>; 2],
    tables: [Buffer<i32>; 2],
    host_tables: [Vec<i32>; 2],
    kv_lens: Buffer<i32>,
    cu_new: Buffer<i32>,
    cu_out: Buffer<i32>,
    output: Buffer<u8>,
    /// What comes after a compression.
    post: Post,
}

/// The cache that rows go to, a page of it for each request of each set.
struct Post {
    weight: Buffer<f32>,
    steps: Steps,
    rotations: Buffer<f32>,
    cache: Buffer<u8>,
    blocks: Buffer<i32>,
}

impl<'a> Sets<'a> {
    /// Memory for `count` sets.
    pub fn new(device: &Device, cell: Cell, pattern: &'a Pattern, count: usize) -> Result<Self, Error> {
        let batch = cell.batch as usize;
        let (width, head_dim) = (cell.width() as usize, cell.head_dim as usize);
        let tokens = count * batch * cell.tokens as usize;
        let kv_score = device.alloc(tokens * 2 * width * 2)?;
        // What only follows a compression reads none of its input.
        pattern.fill(&kv_score, NumberType::Bf16)?;

        let mut random = Random::new(11);
        let host_ape: Vec<_> = (0..cell.ratio as usize * width).map(|_| 0.5 * random.normal()).collect();
        let pages = count * batch * live_pages(&cell);
        let pool = || -> Result<Buffer<u8>, Error> {
            let pool = device.alloc(pages * PAGE as usize * width * cell.state.bytes())?;
            // A prompt reads nothing of what was there.
            if cell.work != Work::Prefill {
                pattern.fill(&pool, cell.state)?;
            }
            Ok(pool)
        };
        let host_tables = [0, 1].map(|_| table(&mut random, &cell, count));
        let tables = [device.upload(&host_tables[0])?, device.upload(&host_tables[1])?];
        let offsets = |each: u32| -> Vec<i32> { (0..=cell.batch).map(|b| (b * each) as i32).collect() };
        let output = device.alloc(count * cell.rows() as usize * head_dim * 2)?;
        pattern.fill(&output, NumberType::Bf16)?;
        Ok(Self {
            cell,
            pattern,
            count,
            kv_score,
            ape: device.upload(&host_ape)?,
            host_ape,
            pools: [pool()?, pool()?],
            tables,
            host_tables,
            kv_lens: device.upload(&vec![cell.length() as i32; batch])?,
            cu_new: device.upload(&offsets(cell.tokens))?,
            cu_out: device.upload(&offsets(cell.rows() / cell.batch))?,
            output,
            post: Post::new(device, &cell, &mut random, count)?,
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What set `set` gives to a compression.
    pub fn args(&self, set: usize) -> Result<CompressArgs, Error> {
        let cell = &self.cell;
        let batch = u64::from(cell.batch);
        let (width, head_dim) = (u64::from(cell.width()), u64::from(cell.head_dim));
        let tokens = batch * u64::from(cell.tokens);
        let paged = |pool: usize| -> Result<PagedTensor, Error> {
            let row = u64::from(PAGE) * width * cell.state.bytes() as u64;
            let pages = self.pools[pool].len() as u64 / row;
            Ok(PagedTensor {
                pool: raw(&self.pools[pool], 0, cell.state.into(), [pages, PAGE.into(), width]),
                blocks: words(&self.tables[pool], set, [batch, max_blocks(cell) as u64]),
            })
        };
        Ok(CompressArgs {
            kv_score: raw(&self.kv_score, set, ElementType::Bf16, [tokens, 2 * width]),
            ape: Tensor::of(&self.ape, [cell.ratio.into(), width])?,
            kv: paged(0)?,
            score: paged(1)?,
            kv_lens: Tensor::of(&self.kv_lens, [batch])?,
            cu_new: Tensor::of(&self.cu_new, [batch + 1])?,
            cu_out: Tensor::of(&self.cu_out, [batch + 1])?,
            output: raw(&self.output, set, ElementType::Bf16, [cell.rows().into(), head_dim]),
        })
    }

    /// What set `set` gives to what comes after it.
    pub fn post_args(&self, set: usize) -> Result<PostArgs, Error> {
        let args = self.args(set)?;
        let (batch, head_dim) = (u64::from(self.cell.batch), u64::from(self.cell.head_dim));
        let pages = self.count as u64 * batch;
        Ok(PostArgs {
            compressed: args.output,
            weight: Tensor::of(&self.post.weight, [head_dim])?,
            epsilon: EPSILON,
            rotations: Tensor::of(&self.post.rotations, [self.cell.length().into(), ROTATED as u64])?,
            cache: PagedTensor {
                pool: raw(&self.post.cache, 0, ElementType::Bf16, [pages, PAGE.into(), head_dim]),
                blocks: words(&self.post.blocks, set, [batch, cache_blocks(&self.cell) as u64]),
            },
            store: Store::Bf16,
            hadamard: false,
            kv_lens: args.kv_lens,
            cu_new: args.cu_new,
            cu_out: args.cu_out,
        })
    }

    /// Overwrites what launches write, where nothing reads it: old answers cannot pass as new ones.
    pub fn poison(&self) -> Result<(), Error> {
        if self.cell.work != Work::Post {
            self.output.fill_bytes(0x7f)?;
        }
        self.post.cache.fill_bytes(0x7f)
    }

    /// What is compressed.
    pub fn shape(&self) -> Shape {
        Shape {
            ratio: self.cell.ratio as usize,
            head_dim: self.cell.head_dim as usize,
            kv: NumberType::Bf16,
            state: self.cell.state,
            output: NumberType::Bf16,
        }
    }

    /// What is kept of a token before the new ones.
    pub fn kept(&self, set: usize, request: usize, position: usize) -> Kept {
        let numbers = |pool: usize| {
            self.pattern.numbers(self.place(pool, set, request, position), self.shape().width())
        };
        Kept { kv: numbers(0), score: numbers(1) }
    }

    /// What has to be kept of a new token.
    pub fn fresh(&self, set: usize, request: usize, position: usize) -> Kept {
        let cell = &self.cell;
        let token =
            (set * cell.batch as usize + request) * cell.tokens as usize + position - cell.start() as usize;
        let row = 2 * self.shape().width();
        Kept::of(&self.shape(), &self.host_ape, position, &self.pattern.numbers(token * row, row))
    }

    /// Bytes that are kept of a token, as they are on the device.
    pub fn read_kept(&self, set: usize, request: usize, position: usize) -> Result<[Vec<u8>; 2], Error> {
        let bytes = self.cell.state.bytes();
        let read = |pool: usize| -> Result<Vec<u8>, Error> {
            let mut row = vec![0; self.shape().width() * bytes];
            self.pools[pool].download_at(self.place(pool, set, request, position) * bytes, &mut row)?;
            Ok(row)
        };
        Ok([read(0)?, read(1)?])
    }

    /// Bytes of an output row, as they are on the device.
    pub fn read_output(&self, set: usize, row: usize) -> Result<Vec<u8>, Error> {
        let bytes = self.shape().head_dim * 2;
        let mut numbers = vec![0; bytes];
        self.output.download_at((set * self.cell.rows() as usize + row) * bytes, &mut numbers)?;
        Ok(numbers)
    }

    /// Bytes of a request's row in the cache, that of its last window.
    pub fn read_cache(&self, set: usize, request: usize) -> Result<Vec<u8>, Error> {
        let bytes = self.shape().head_dim * 2;
        let page = set * self.cell.batch as usize + request;
        let entry = page * PAGE as usize + (self.cell.closing().end - 1) as usize % PAGE as usize;
        let mut row = vec![0; bytes];
        self.post.cache.download_at(entry * bytes, &mut row)?;
        Ok(row)
    }

    /// What is done to a row after its compression.
    pub fn steps(&self) -> &Steps {
        &self.post.steps
    }

    /// The first number of a token in a pool.
    fn place(&self, pool: usize, set: usize, request: usize, position: usize) -> usize {
        let row = (set * self.cell.batch as usize + request) * max_blocks(&self.cell);
        let page = self.host_tables[pool][row + position / PAGE as usize] as usize;
        (page * PAGE as usize + position % PAGE as usize) * self.shape().width()
    }
}

impl Post {
    fn new(device: &Device, cell: &Cell, random: &mut Random, count: usize) -> Result<Self, Error> {
        // Prompts are compressed alone.
        let is_used = matches!(cell.work, Work::Post | Work::DecodePost | Work::DecodeStore);
        let pages = if is_used { count * cell.batch as usize } else { 0 };
        let weight: Vec<_> = (0..cell.head_dim).map(|_| 1.0 + 0.1 * random.normal()).collect();
        let positions = if is_used { cell.length() } else { 0 };
        let rotations: Vec<_> = (0..positions as usize).flat_map(angles).collect();
        let blocks = cache_blocks(cell);
        // Only the page of the last window is used.
        let table = (0..pages * blocks).map(|i| if (i + 1) % blocks == 0 { (i / blocks) as i32 } else { -1 });
        Ok(Self {
            weight: device.upload(&weight)?,
            steps: Steps { weight, epsilon: EPSILON, hadamard: false },
            rotations: device.upload(&rotations)?,
            cache: device.alloc(pages * PAGE as usize * cell.head_dim as usize * 2)?,
            blocks: device.upload(&table.collect::<Vec<_>>())?,
        })
    }
}

/// Logical pages of a request.
fn max_blocks(cell: &Cell) -> usize {
    cell.length().div_ceil(PAGE) as usize
}

/// Pages of a request that launches look at: the last ones.
fn live_pages(cell: &Cell) -> usize {
    max_blocks(cell) - (cell.first_touched() / PAGE) as usize
}

/// Logical pages of a request in the cache.
fn cache_blocks(cell: &Cell) -> usize {
    cell.closing().end.div_ceil(PAGE) as usize
}

/// A table of all sets: each live page is another one, in random order.
fn table(random: &mut Random, cell: &Cell, count: usize) -> Vec<i32> {
    let (live, blocks, requests) = (live_pages(cell), max_blocks(cell), count * cell.batch as usize);
    let mut pages: Vec<_> = (0..(requests * live) as i32).collect();
    for last in (1..pages.len()).rev() {
        pages.swap(last, random.below(last + 1));
    }
    let mut table = vec![-1; requests * blocks];
    for (request, pages) in pages.chunks_exact(live).enumerate() {
        table[(request + 1) * blocks - live..(request + 1) * blocks].copy_from_slice(pages);
    }
    table
}

/// Set `set` of equal ones, one behind the other from the start of a buffer.
fn raw<const N: usize>(buffer: &Buffer<u8>, set: usize, ty: ElementType, shape: [u64; N]) -> Tensor<N> {
    let bytes = shape.iter().product::<u64>() * ty.bytes();
    Tensor::raw(buffer.address() + set as u64 * bytes, ty, shape)
}

/// As [`raw`], of words.
fn words(buffer: &Buffer<i32>, set: usize, shape: [u64; 2]) -> Tensor<2> {
    let bytes = shape.iter().product::<u64>() * 4;
    Tensor::raw(buffer.address() + set as u64 * bytes, ElementType::I32, shape)
}
