//! Captured compressions, replayed while lengths, tables and contents change.

use dsa_kernels::compress::{CompressArgs, ElementType, PagedTensor, PostArgs, Store, Tensor};
use dsa_kernels::{Buffer, Device, Error, Graph};
use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::compress::batch::{Expected, Spec, Step};
use dsa_kernels_tests::compress::harness::{Harness, Launch};
use dsa_kernels_tests::compress::post_reference::{ROTATED, Steps, angles, first_wrong_bf16};
use dsa_kernels_tests::compress::reference::Shape;
use dsa_kernels_tests::distribution::Distribution;
use dsa_kernels_tests::random::Random;

use crate::compress_support::{LONG, SHORT, harness, random_step, with_types};
use crate::support::{build, device, scaled, seed, selector};

/// A step that has as many rows of new tokens and of output as the launch that was captured.
fn padded(harness: &Harness, mut step: Step) -> Step {
    let spec = harness.requests.spec;
    let garbage = f32::from_bits(u32::MAX);
    step.kv_score.resize(Harness::max_tokens(&spec) * 2 * spec.shape.width(), garbage);
    step.rows = Harness::max_rows(&spec);
    step
}

#[test]
fn a_graph_follows_lengths_tables_and_contents_changed_after_capture() {
    let seed = seed(151);
    let device = device(seed);
    let mut random = Random::new(seed);
    for (number, shape) in [LONG, SHORT].into_iter().enumerate() {
        for launch in [Launch::Decode(5), Launch::Prefill] {
            let spec = Spec {
                requests: 4,
                page: 10,
                max_new: if launch == Launch::Prefill { 150 } else { 5 },
                ..Spec::new(seed, with_types(shape, number + 1))
            };
            let mut harness = harness(&device, spec, |builder| builder);
            let stream = harness.stream.clone();
            let (tokens, rows) = (Harness::max_tokens(&spec), Harness::max_rows(&spec));
            let graph =
                Graph::capture(&stream, |stream| harness.enqueue(stream, launch, tokens, rows)).unwrap();
            let mut lens = vec![0; 4];
            for step in 0..scaled(6, 200) {
                let (next, counts) = random_step(&mut random, &spec, &lens, spec.max_new);
                let made = harness.requests.step(&next, &counts);
                let mut made = padded(&harness, made);
                if step % 5 == 4 {
                    // A bad request now and then, which the next replay does not remember.
                    made.kv_lens[step % 4] = -1;
                }
                harness.place(&made).unwrap();
                graph.launch(&stream).unwrap();
                harness
                    .verify(launch, &made)
                    .unwrap_or_else(|error| panic!("{launch:?}, step {step}: {error}"));
                lens = next;
            }
        }
    }
}

/// Rows of a page of the cache.
const CACHE_PAGE: usize = 6;
/// What rows are normalised with.
const EPSILON: f32 = 1e-5;
/// What every byte of the cache holds that nothing was stored in.
const CACHE_POISON: u8 = 0x77;

/// The cache of compressed rows, on the device and on the host.
struct Cache {
    steps: Steps,
    weight: Buffer<f32>,
    rotations: Buffer<f32>,
    pool: Buffer<u8>,
    blocks: Buffer<i32>,
    /// Physical pages by request, then by logical page.
    table: Vec<i32>,
    mirror: Vec<u8>,
    spec: Spec,
}

impl Cache {
    fn new(device: &Device, spec: Spec, random: &mut Random) -> Result<Self, Error> {
        let head_dim = spec.shape.head_dim;
        let weight: Vec<_> = (0..head_dim).map(|_| 1.0 + 0.2 * random.normal()).collect();
        let rotations: Vec<_> = (0..spec.max_len).flat_map(angles).collect();
        let pages = spec.requests * Self::max_blocks(&spec);
        let pool = device.alloc(pages * CACHE_PAGE * head_dim * 2)?;
        pool.fill_bytes(CACHE_POISON)?;
        Ok(Self {
            weight: device.upload(&weight)?,
            steps: Steps { weight, epsilon: EPSILON, hadamard: false },
            rotations: device.upload(&rotations)?,
            mirror: vec![CACHE_POISON; pool.len()],
            pool,
            blocks: device.alloc(pages)?,
            table: (0..pages as i32).collect(),
            spec,
        })
    }

    fn max_blocks(spec: &Spec) -> usize {
        (spec.max_len / spec.shape.ratio).div_ceil(CACHE_PAGE)
    }

    /// Gives the requests other pages.
    fn shuffle(&mut self, random: &mut Random) -> Result<(), Error> {
        for last in (1..self.table.len()).rev() {
            self.table.swap(last, random.below(last + 1));
        }
        self.blocks.upload(&self.table)
    }

    fn args(&self, args: CompressArgs) -> Result<PostArgs, Error> {
        let (head_dim, blocks) = (self.spec.shape.head_dim as u64, Self::max_blocks(&self.spec) as u64);
        let requests = self.spec.requests as u64;
        let shape = [requests * blocks, CACHE_PAGE as u64, head_dim];
        Ok(PostArgs {
            compressed: args.output,
            weight: Tensor::of(&self.weight, [head_dim])?,
            epsilon: EPSILON,
            rotations: Tensor::of(&self.rotations, [self.spec.max_len as u64, ROTATED as u64])?,
            cache: PagedTensor {
                pool: Tensor::raw(self.pool.address(), ElementType::Bf16, shape),
                blocks: Tensor::of(&self.blocks, [requests, blocks])?,
            },
            store: Store::Bf16,
            hadamard: false,
            kv_lens: args.kv_lens,
            cu_new: args.cu_new,
            cu_out: args.cu_out,
        })
    }

    /// Checks the rows that were stored, and that nothing else was written.
    fn verify(&mut self, harness: &Harness, expected: &Expected) {
        let (Spec { shape, .. }, blocks) = (self.spec, Self::max_blocks(&self.spec));
        let got = self.pool.download().unwrap();
        for (&row, wanted) in &expected.rows {
            let page = self.table[wanted.request * blocks + wanted.window / CACHE_PAGE] as usize;
            let bytes = shape.head_dim * 2;
            let first = (page * CACHE_PAGE + wanted.window % CACHE_PAGE) * bytes;
            let stored = &got[first..first + bytes];
            let compressed = harness.output_row(row).unwrap();
            let row = self.steps.apply(&compressed, &angles(wanted.window * shape.ratio));
            let numbers: Vec<_> = stored.chunks_exact(2).map(|x| u16::from_ne_bytes([x[0], x[1]])).collect();
            if let Some(wrong) = first_wrong_bf16(&row, &numbers) {
                panic!("stored row of window {} of request {}: {wrong}", wanted.window, wanted.request);
            }
            self.mirror[first..first + bytes].copy_from_slice(stored);
        }
        let stray = got.iter().zip(&self.mirror).position(|(got, wanted)| got != wanted);
        assert_eq!(stray, None, "a byte of the cache was written that has no row");
    }
}

/// Compression, what comes after it, and the selection of rows, in one graph.
fn whole_step(default_seed: u64, shape: Shape) {
    const K: usize = 24;
    let seed = seed(default_seed);
    let device = device(seed);
    let mut random = Random::new(seed);
    let spec = Spec { requests: 3, page: 12, max_len: 600, max_new: 4, ..Spec::new(seed, shape) };
    let launch = Launch::Decode(4);
    let mut harness = harness(&device, spec, |builder| builder);
    let mut cache = Cache::new(&device, spec, &mut random).unwrap();
    let (tokens, rows) = (Harness::max_tokens(&spec), Harness::max_rows(&spec));
    let post = cache.args(harness.args(tokens, rows).unwrap()).unwrap();

    // The scores that rows are selected by come from elsewhere.
    let scores = |step: usize, lens: &[usize]| {
        let windows = lens.iter().map(|len| (len / shape.ratio) as i32).collect();
        build(BatchSpec::new(Distribution::Normal, seed + step as u64, spec.max_len / shape.ratio, windows))
    };
    let first = scores(0, &[0; 3]);
    let mut selector = selector(&device, K, &first.spec, |builder| builder);
    let placed = selector.place(&first).unwrap();

    let stream = harness.stream.clone();
    let graph = Graph::capture(&stream, |stream| {
        harness.enqueue(stream, launch, tokens, rows)?;
        // SAFETY: the arguments are those of buffers of `harness` and `cache`, which outlive the graph; requests have no
        // page in common.
        unsafe { harness.compressor.enqueue_post(stream, &post) }?;
        selector.enqueue_on(stream, &placed)
    })
    .unwrap();
    let mut lens = vec![0; 3];
    for step in 0..scaled(40, 1_000) {
        let (next, counts) = random_step(&mut random, &spec, &lens, 4);
        let made = harness.requests.step(&next, &counts);
        let made = padded(&harness, made);
        harness.place(&made).unwrap();
        cache.shuffle(&mut random).unwrap();
        let batch = scores(step, &next);
        placed.refill(&batch).unwrap();
        graph.launch(&stream).unwrap();
        let expected = harness.verify(launch, &made).unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert_eq!(expected.report, None);
        cache.verify(&harness, &expected);
        selector.verify(&batch, &placed).unwrap_or_else(|error| panic!("step {step}: {error}"));
        lens = next;
    }
}

#[test]
fn a_whole_decode_step_in_one_graph_stays_right_for_many_replays() {
    whole_step(152, LONG);
}

#[test]
fn a_whole_decode_step_with_windows_that_overlap_stays_right_for_many_replays() {
    whole_step(153, SHORT);
}
