//! Compression with running softmaxes: random walks of steps and prompts against f64, and nothing but what should be
//! written.

use std::ops::Range;

use dsa_kernels::compress::{CompressArgs, Compressor, NumberType, PagedTensor, Tensor};
use dsa_kernels::{Buffer, Device, LaunchConfig};
use dsa_kernels_gpu::compress::{
    CONFIGURATIONS, configuration::Configuration, configuration::Mode, report, width,
};
use dsa_kernels_tests::backend;
use dsa_kernels_tests::compress::raw;
use dsa_kernels_tests::random::Random;
use half::bf16;

use crate::support::{device, scaled, seed};

/// What an output row that is not written holds.
const POISON: f32 = -12_345.0;
/// Most that values differ from the reference by, relative to the weighted sum of magnitudes; and logarithms, which are
/// below 16: half a unit in the last place is 4.8e-7, and there are 128 roundings.
const TOLERANCES: [f64; 2] = [4e-6, 2e-5];

/// What a softmax over some tokens of a window sums up, for one column, in f64.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    weights: f64,
    values: f64,
    magnitudes: f64,
}

impl Sums {
    fn with(self, score: f64, kv: f64) -> Self {
        let weight = score.exp();
        if weight == 0.0 {
            return self;
        }
        Self {
            weights: self.weights + weight,
            values: self.values + weight * kv,
            magnitudes: self.magnitudes + weight * kv.abs(),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            weights: self.weights + other.weights,
            values: self.values + other.values,
            magnitudes: self.magnitudes + other.magnitudes,
        }
    }

    /// How far `value` is from the weighted mean, relative to that of the magnitudes; infinite for NaN.
    fn error(self, value: f32) -> f64 {
        if self.weights == 0.0 {
            return if value == 0.0 { 0.0 } else { f64::INFINITY };
        }
        let error = (f64::from(value) - self.values / self.weights).abs() / (self.magnitudes / self.weights);
        if error.is_nan() { f64::INFINITY } else { error }
    }

    /// How far `log` is from the logarithm of the weights.
    fn log_error(self, log: f32) -> f64 {
        if self.weights == 0.0 {
            return if log == f32::NEG_INFINITY { 0.0 } else { f64::INFINITY };
        }
        let error = (f64::from(log) - self.weights.ln()).abs();
        if error.is_nan() { f64::INFINITY } else { error }
    }
}

/// New tokens of a launch: for each request the length before and after.
type Plan = Vec<(usize, usize)>;

/// The words of a launch.
#[derive(Clone, Debug)]
struct Words {
    lens: Vec<i32>,
    cu_new: Vec<i32>,
    cu_out: Vec<i32>,
    max_new: u32,
}

/// Requests on a device, and what their state should be.
struct Walk {
    device: Device,
    random: Random,
    configuration: Configuration,
    head_dim: usize,
    out_bf16: bool,
    page: usize,
    max_blocks: usize,
    pages: usize,
    /// Pages of values and of logarithms.
    tables: [Vec<i32>; 2],
    pools: [Buffer<f32>; 2],
    /// What is in the pools.
    held: [Vec<f32>; 2],
    ape: Vec<f32>,
    /// Of each request, for each of its tokens, the sums of every column.
    tokens: Vec<Vec<Vec<Sums>>>,
    /// How likely a score is minus infinity.
    nothing: f32,
    /// The largest errors so far: values, logarithms.
    errors: [f64; 2],
}

impl Walk {
    fn new(seed: u64, entry: &str, head_dim: usize, page: usize, batch: usize, max_len: usize) -> Self {
        let configuration = *CONFIGURATIONS.iter().find(|c| c.entry == entry).unwrap();
        assert_eq!(configuration.mode, Mode::Running);
        let device = device(seed);
        let mut random = Random::new(seed);
        let max_blocks = max_len.div_ceil(page);
        let pages = batch * max_blocks + 1;
        let tables = [0; 2].map(|_| raw::tables(&mut random, batch, max_blocks, max_blocks + 1, pages));
        let width = width(head_dim as u32, configuration.ratio) as usize;
        let held = [0; 2].map(|_| vec![f32::NAN; pages * (page * width + 4)]);
        let pools = held.each_ref().map(|held| device.upload(held).unwrap());
        let ape = (0..configuration.ratio as usize * width).map(|_| random.normal()).collect();
        Self {
            device,
            random,
            configuration,
            head_dim,
            out_bf16: false,
            page,
            max_blocks,
            pages,
            tables,
            pools,
            held,
            ape,
            tokens: vec![Vec::new(); batch],
            nothing: 0.0,
            errors: [0.0; 2],
        }
    }

    fn batch(&self) -> usize {
        self.tokens.len()
    }

    fn ratio(&self) -> usize {
        self.configuration.ratio as usize
    }

    fn width(&self) -> usize {
        width(self.head_dim as u32, self.configuration.ratio) as usize
    }

    fn len(&self, request: usize) -> usize {
        self.tokens[request].len()
    }

    /// The first element of the state of a token in the pools.
    fn place(&self, request: usize, position: usize) -> [usize; 2] {
        self.tables.each_ref().map(|table| {
            let page = table[request * (self.max_blocks + 1) + position / self.page];
            let pitch = self.page * self.width() + 4;
            page as usize * pitch + position % self.page * self.width()
        })
    }

    /// The words of a plan, with output rows that no window is written to here and there.
    fn words(&mut self, plan: &Plan) -> Words {
        let ratio = self.ratio();
        let spare: Vec<usize> = plan.iter().map(|_| self.random.below(2)).collect();
        let emitted =
            |(&(start, len), spare): (&(usize, usize), usize)| (len / ratio - start / ratio + spare) as i32;
        Words {
            lens: plan.iter().map(|&(_, len)| len as i32).collect(),
            cu_new: raw::running_sums(plan.iter().map(|&(start, len)| (len - start) as i32)),
            cu_out: raw::running_sums(plan.iter().zip(spare).map(emitted)),
            max_new: 8,
        }
    }

    /// Runs a plan of decode, of which all requests are good ones.
    fn step(&mut self, plan: &Plan) {
        let words = self.words(plan);
        self.run(plan, &words);
    }

    /// Runs a plan of a prefill, of which all requests are good ones.
    fn prompt(&mut self, plan: &Plan) {
        let words = self.prompt_words(plan);
        self.run(plan, &words);
    }

    /// The words of a plan that may have any number of new tokens: as many as there are rows of them.
    fn prompt_words(&mut self, plan: &Plan) -> Words {
        let words = self.words(plan);
        Words { max_new: words.cu_new[plan.len()] as u32, ..words }
    }

    fn run(&mut self, plan: &Plan, words: &Words) {
        let rows = words.cu_out[plan.len()] as usize + 1;
        let tokens = words.cu_new[plan.len()] as usize;
        self.launch(plan, words, tokens, rows, None);
    }

    /// Runs a plan with these words; `bad` is the one bad request and why it is.
    fn launch(&mut self, plan: &Plan, words: &Words, tokens: usize, rows: usize, bad: Option<(usize, u32)>) {
        let (width, head_dim) = (self.width(), self.head_dim);
        // Rows farther apart than they are long; what is between them is no number.
        let (pitch, out_pitch) = (2 * width + 8, head_dim + 8);
        let mut kv_score = vec![f32::NAN; (tokens + 1) * pitch];
        for row in kv_score.chunks_exact_mut(pitch).take(tokens) {
            for (column, x) in row[..2 * width].iter_mut().enumerate() {
                *x = bf16::from_f32(2.0 * self.random.normal()).to_f32();
                if column >= width && self.random.chance(self.nothing) {
                    *x = f32::NEG_INFINITY;
                }
            }
        }
        let halves: Vec<u16> = kv_score.iter().map(|&x| bf16::from_f32(x).to_bits()).collect();
        let device = &self.device;
        let is_bf16 = self.configuration.kv.bytes() == 2;
        let new = if is_bf16 { None } else { Some(device.upload(&kv_score).unwrap()) };
        let new_halves = device.upload(&halves).unwrap();
        let ape = device.upload(&self.ape).unwrap();
        let out = device.upload(&vec![POISON; rows * out_pitch]).unwrap();
        let tables = self.tables.each_ref().map(|table| device.upload(table).unwrap());
        let [lens, cu_new, cu_out] =
            [&words.lens, &words.cu_new, &words.cu_out].map(|x| device.upload(x).unwrap());
        let report = device.upload(&[0_u32; report::WORDS]).unwrap();
        let page_pitch = (self.page * width + 4) as u64;
        let parameters = [
            ("kv_score", new.as_ref().map_or(new_halves.address(), Buffer::address)),
            ("kv_score_pitch", pitch as u64),
            ("ape", ape.address()),
            ("kv_pool", self.pools[0].address()),
            ("kv_page_pitch", page_pitch),
            ("kv_pages", self.pages as u64),
            ("kv_blocks", tables[0].address()),
            ("kv_blocks_pitch", self.max_blocks as u64 + 1),
            ("score_pool", self.pools[1].address()),
            ("score_page_pitch", page_pitch),
            ("score_pages", self.pages as u64),
            ("score_blocks", tables[1].address()),
            ("score_blocks_pitch", self.max_blocks as u64 + 1),
            ("page", self.page as u64),
            ("max_blocks", self.max_blocks as u64),
            ("kv_lens", lens.address()),
            ("cu_new", cu_new.address()),
            ("cu_out", cu_out.address()),
            ("out", out.address()),
            ("out_pitch", out_pitch as u64),
            ("out_bf16", u64::from(self.out_bf16)),
            ("report", report.address()),
            ("batch", self.batch() as u64),
            ("tokens", tokens as u64),
            ("rows", rows as u64),
            ("head_dim", head_dim as u64),
            ("max_new", u64::from(words.max_new)),
            ("parts", 1),
        ];
        let blocks = self.configuration.blocks(head_dim as u32, self.batch() as u32, tokens as u32, 1) as u32;
        // Overlapping, so that the emulator reports a thread that does not wait.
        let config = LaunchConfig::new(blocks, self.configuration.warps * 32).with_overlap(true);
        // SAFETY: the buffers are as large as the documentation of the kernel says, and live until the launch has
        // ended.
        unsafe { raw::launch(device, self.configuration.entry, config, &parameters) }.unwrap();
        let report = report.download().unwrap();
        let right = bad.map(|(request, why)| (why, request as u32));
        assert_eq!(report::read([report[0], report[1]]), right, "the report of {words:?}");
        let out = out.download().unwrap();
        self.check(plan, words, &kv_score, &out, bad.map(|bad| bad.0));
    }

    /// Takes the new tokens over and checks all of the pools and the output.
    fn check(&mut self, plan: &Plan, words: &Words, kv_score: &[f32], out: &[f32], bad: Option<usize>) {
        let (width, head_dim, ratio) = (self.width(), self.head_dim, self.ratio());
        let (pitch, out_pitch) = (2 * width + 8, head_dim + 8);
        let got = self.pools.each_ref().map(|pool| pool.download().unwrap());
        let mut right_out: Vec<Option<Vec<Sums>>> = vec![None; out.len() / out_pitch];
        for (request, &(start, len)) in plan.iter().enumerate() {
            if bad == Some(request) {
                continue;
            }
            self.tokens[request].truncate(start);
            for position in start..len {
                let row = (words.cu_new[request] as usize + position - start) * pitch;
                let (kv, score) = (&kv_score[row..row + width], &kv_score[row + width..row + 2 * width]);
                let bias = &self.ape[position % ratio * width..][..width];
                let before = if position % ratio == 0 { None } else { self.tokens[request].last() };
                let sums = (0..width).map(|column| {
                    let score = f64::from(score[column]) + f64::from(bias[column]);
                    before.map_or(Sums::default(), |sums| sums[column]).with(score, f64::from(kv[column]))
                });
                let sums: Vec<Sums> = sums.collect();
                let places = self.place(request, position);
                for (column, sums) in sums.iter().enumerate() {
                    let [value, log] = [0, 1].map(|pool| got[pool][places[pool] + column]);
                    let errors = [sums.error(value), sums.log_error(log)];
                    let about = format!("request {request}, position {position}, column {column}");
                    self.took(errors, || format!("{about}: {value}, {log}, not {sums:?}"));
                }
                for pool in 0..2 {
                    let place = places[pool]..places[pool] + width;
                    self.held[pool][place.clone()].copy_from_slice(&got[pool][place]);
                }
                self.tokens[request].push(sums);
                if (position + 1) % ratio == 0 {
                    let window = position / ratio;
                    let row = words.cu_out[request] as usize + window - start / ratio;
                    right_out[row] = Some(self.window(request, window));
                }
            }
        }
        for pool in 0..2 {
            let same = |(got, held): (&f32, &f32)| got.to_bits() == held.to_bits();
            let written = got[pool].iter().zip(&self.held[pool]).position(|pair| !same(pair));
            assert_eq!(written, None, "this element of pool {pool} was written, for {words:?}");
        }
        self.check_out(&right_out, out);
    }

    /// The sums of a window whose tokens are all there.
    fn window(&self, request: usize, window: usize) -> Vec<Sums> {
        let (tokens, head_dim, ratio) = (&self.tokens[request], self.head_dim, self.ratio());
        let last = &tokens[(window + 1) * ratio - 1];
        if ratio == 128 {
            return last.clone();
        }
        let first = |channel: usize| {
            if window == 0 { Sums::default() } else { tokens[window * ratio - 1][channel] }
        };
        (0..head_dim).map(|channel| first(channel).and(last[head_dim + channel])).collect()
    }

    /// Checks all words of the output.
    fn check_out(&mut self, right: &[Option<Vec<Sums>>], out: &[f32]) {
        let out_pitch = self.head_dim + 8;
        let bits: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
        let halves: Vec<u16> = bits.iter().flat_map(|&bits| [bits as u16, (bits >> 16) as u16]).collect();
        // Rows of bf16 are half as far apart in memory, and what is left is not used.
        let unwritten = [POISON.to_bits() as u16, (POISON.to_bits() >> 16) as u16];
        let per = if self.out_bf16 { 1 } else { 2 };
        let mut written = vec![false; halves.len()];
        for (row, sums) in right.iter().enumerate() {
            let Some(sums) = sums else { continue };
            for (channel, sums) in sums.iter().enumerate() {
                let at = row * out_pitch + channel;
                written[at * per..(at + 1) * per].fill(true);
                let about = format!("output row {row}, channel {channel}");
                if self.out_bf16 {
                    let got = bf16::from_bits(halves[at]).to_f64();
                    let Sums { weights, values, magnitudes } = *sums;
                    let (right, slack) = if weights == 0.0 {
                        (0.0, 0.0)
                    } else {
                        (values / weights, TOLERANCES[0] * magnitudes / weights)
                    };
                    let ulp = 2f64.powi(right.abs().log2().floor().max(-126.0) as i32 - 7);
                    let wrong = (got - right).abs();
                    assert!(wrong <= ulp / 2.0 + slack, "{about}: {got}, not {right}");
                } else {
                    let error = sums.error(out[at]);
                    self.took([error, 0.0], || format!("{about}: {}, not {:?}", out[at], sums));
                }
            }
        }
        let touched = (0..halves.len()).find(|&at| !written[at] && halves[at] != unwritten[at % 2]);
        assert_eq!(touched, None, "this half-word of the output was written");
    }

    /// Notes errors, which are to be small.
    fn took(&mut self, errors: [f64; 2], text: impl Fn() -> String) {
        for (kind, error) in errors.into_iter().enumerate() {
            assert!(error <= TOLERANCES[kind], "{}: wrong by {errors:?}", text());
            self.errors[kind] = self.errors[kind].max(error);
        }
    }

    /// Steps of 0 to 8 tokens for each request, some from an earlier length, until all are at least `len` long; no
    /// longer than `max_len`.
    fn wander(&mut self, len: usize, rewind: f32) {
        while (0..self.batch()).any(|request| self.len(request) < len) {
            let mut plan = Plan::new();
            for request in 0..self.batch() {
                let mut start = self.len(request);
                if self.random.chance(rewind) {
                    start -= self.random.below(start.min(12) + 1);
                }
                let new = self.random.below(9).min(self.max_blocks * self.page - start);
                // A request without new tokens stays as it is.
                let start = if new == 0 { self.len(request) } else { start };
                plan.push((start, start + new));
            }
            self.step(&plan);
        }
    }

    /// Prompts of 0 to `most` tokens for each request, half of them from an earlier length, each followed by a step or
    /// two.
    fn wander_in_prompts(&mut self, prompts: usize, most: usize) {
        for _ in 0..prompts {
            let mut plan = Plan::new();
            for request in 0..self.batch() {
                let len = self.len(request);
                let new = self.random.below(most + 1);
                let rewound = if self.random.chance(0.5) { self.random.below(len + 1) } else { 0 };
                let start = (len - rewound).min(self.max_blocks * self.page - new);
                plan.push(if new == 0 { (len, len) } else { (start, start + new) });
            }
            self.prompt(&plan);
            for _ in 0..1 + self.random.below(2) {
                let mut plan = Plan::new();
                for request in 0..self.batch() {
                    let len = self.len(request);
                    let new = self.random.below(9).min(self.max_blocks * self.page - len);
                    plan.push((len, len + new));
                }
                self.step(&plan);
            }
        }
    }

    /// Makes requests this long.
    fn grow(&mut self, lens: &[usize]) {
        while lens.iter().enumerate().any(|(request, &len)| self.len(request) < len) {
            let lens = lens.iter().enumerate();
            let plan = lens.map(|(i, &len)| (self.len(i), len.min(self.len(i) + 8)));
            let plan = plan.collect();
            self.step(&plan);
        }
    }
}

#[test]
fn the_running_softmax_follows_a_random_walk() {
    let seed = seed(311);
    let mut errors = [0.0; 2];
    let walks = [
        ("running_f32_r128", 128, 16, false),
        ("running_bf16_r128", 128, 128, true),
        ("running_bf16_r128", 512, 256, false),
        ("running_f32_r128", 512, 1, true),
        ("running_f32_r4", 128, 1, false),
        ("running_bf16_r4", 128, 4, true),
        ("running_bf16_r4", 512, 3, false),
        ("running_f32_r4", 512, 64, true),
    ];
    for (i, (entry, head_dim, page, out_bf16)) in walks.into_iter().enumerate() {
        let len = match (entry.ends_with("r4"), head_dim) {
            (true, _) => scaled(24, 200),
            (false, 128) => 270,
            (false, _) => scaled(135, 400),
        };
        let batch = if head_dim == 128 { 3 } else { 2 };
        let mut walk = Walk::new(seed + i as u64, entry, head_dim, page, batch, len + 40);
        walk.out_bf16 = out_bf16;
        walk.wander(len, 0.25);
        errors = [0, 1].map(|j| f64::max(errors[j], walk.errors[j]));
    }
    eprintln!("largest errors: values {:.1e}, logarithms {:.1e}", errors[0], errors[1]);
}

#[test]
fn a_window_closes_at_each_of_the_new_tokens() {
    let seed = seed(312);
    for (entry, ratio) in [("running_f32_r128", 128), ("running_bf16_r4", 4)] {
        let mut walk = Walk::new(seed, entry, 128, 4, 2, 160);
        walk.grow(&[127, 127]);
        for new in 1..=8 {
            for before in 1..=new {
                // The one request closes it at its token `before`, the other one always at the last.
                walk.step(&vec![(128 - before, 128 - before + new), (128 - new, 128)]);
            }
        }
        assert_eq!(walk.ratio(), ratio);
    }
}

#[test]
fn scores_of_minus_infinity_have_no_weight() {
    let seed = seed(313);
    for (entry, nothing) in [("running_f32_r4", 0.5), ("running_bf16_r4", 0.9), ("running_f32_r128", 0.97)] {
        let mut walk = Walk::new(seed, entry, 128, 16, 2, 160);
        walk.nothing = nothing;
        walk.wander(130, 0.1);
    }
}

#[test]
fn prompts_of_any_length_at_any_alignment_go_on_in_decode() {
    let seed = seed(317);
    let mut errors = [0.0; 2];
    let walks = [
        ("running_f32_r128", 128, 16, 0.0),
        ("running_bf16_r128", 512, 1, 0.0),
        ("running_bf16_r128", 128, 200, 0.9),
        ("running_f32_r4", 128, 5, 0.0),
        ("running_bf16_r4", 512, 4, 0.0),
        ("running_bf16_r4", 128, 64, 0.9),
    ];
    for (i, (entry, head_dim, page, nothing)) in walks.into_iter().enumerate() {
        let (batch, most) = if head_dim == 128 { (3, 300) } else { (2, 70) };
        let mut walk = Walk::new(seed + i as u64, entry, head_dim, page, batch, 3 * most);
        walk.out_bf16 = i % 2 == 1;
        walk.nothing = nothing;
        walk.wander_in_prompts(scaled(8, 100), most);
        errors = [0, 1].map(|j| f64::max(errors[j], walk.errors[j]));
    }
    eprintln!("largest errors: values {:.1e}, logarithms {:.1e}", errors[0], errors[1]);
}

#[test]
fn a_prompt_may_end_anywhere_in_a_step_and_decode_rewind_to_anywhere_in_it() {
    let seed = seed(318);
    for (entry, page) in [("running_f32_r4", 3), ("running_bf16_r128", 16)] {
        let mut walk = Walk::new(seed, entry, 128, page, 4, 64);
        // Up to two steps, from any token of a step or window on.
        for new in 9..=17 {
            walk.prompt(&vec![(0, new), (0, new + 1), (0, 1), (0, 0)]);
            walk.prompt(&vec![(new, 2 * new), (new % 8, 33), (0, 0), (0, 8)]);
            walk.step(&vec![(new - 2, new + 1), (new, new + 4), (0, 0), (7, 9)]);
        }
        walk.prompt(&vec![(0, 50), (0, 51), (0, 52), (0, 53)]);
        for start in (1..50).rev() {
            walk.step(&vec![(start, start + 1), (start, start + 8), (52, 52), (start, start + 4)]);
        }
    }
}

/// Lengths of the requests of the tests of bad ones, in tokens, and what is then planned.
const BAD: [(usize, usize); 3] = [(22, 26), (26, 33), (3, 4)];

fn with_a_bad_request(seed: u64, entry: &str) -> Walk {
    let mut walk = Walk::new(seed, entry, 128, 1, 3, 40);
    walk.grow(&BAD.map(|(start, _)| start));
    walk
}

/// The positions whose state a launch of `BAD[1]` reads or writes.
fn needed(ratio: usize) -> Vec<usize> {
    let Range { start, end } = BAD[1].0..BAD[1].1;
    let mut positions: Vec<usize> = (start..end).collect();
    positions.push(start - 1);
    if ratio == 4 {
        positions.push(start / 4 * 4 - 1);
    }
    positions
}

#[test]
fn a_request_with_a_bad_page_does_nothing_and_the_others_do() {
    let seed = seed(314);
    for (entry, ratio) in [("running_f32_r4", 4), ("running_bf16_r128", 128)] {
        let mut walk = with_a_bad_request(seed, entry);
        let needed = needed(ratio);
        for pool in 0..2 {
            for position in 0..walk.max_blocks {
                let at = walk.max_blocks + 1 + position;
                let right = walk.tables[pool][at];
                let bad = [-1, i32::MIN, walk.pages as i32, i32::MAX][walk.random.below(4)];
                walk.tables[pool][at] = bad;
                let plan = BAD.to_vec();
                let words = walk.words(&plan);
                if needed.contains(&position) {
                    walk.launch(&plan, &words, 12, 10, Some((1, report::PAGE)));
                } else {
                    walk.launch(&plan, &words, 12, 10, None);
                }
                walk.tables[pool][at] = right;
            }
        }
    }
}

#[test]
fn a_bad_page_anywhere_in_a_prompt_leaves_all_of_it_out() {
    let seed = seed(319);
    // More pages than lanes look at in two turns, after those of the first step.
    for (entry, page, head_dim) in
        [("running_f32_r4", 1, 128), ("running_bf16_r128", 3, 128), ("running_bf16_r4", 4, 512)]
    {
        let ratio = if entry.ends_with("r4") { 4 } else { 128 };
        let (start, len) = if page == 1 { (26, 112) } else { (26, 26 + 25 * page) };
        let mut walk = Walk::new(seed, entry, head_dim, page, 2, len + 2 * page);
        walk.prompt(&vec![(0, 3), (0, start)]);
        let mut needed: Vec<usize> = (start - 1..len).map(|position| position / page).collect();
        if ratio == 4 {
            needed.push((start / 4 * 4 - 1) / page);
        }
        for pool in 0..2 {
            for logical in 0..walk.max_blocks {
                let at = walk.max_blocks + 1 + logical;
                let right = walk.tables[pool][at];
                walk.tables[pool][at] = [-1, i32::MIN, walk.pages as i32, i32::MAX][walk.random.below(4)];
                let bad = needed.contains(&logical).then_some((1, report::PAGE));
                let plan = vec![(3, 6), (start, len)];
                let words = walk.prompt_words(&plan);
                let [tokens, rows] = [words.cu_new[2], words.cu_out[2] + 1].map(|n| n as usize);
                walk.launch(&plan, &words, tokens, rows, bad);
                walk.tables[pool][at] = right;
            }
        }
    }
}

#[test]
fn a_request_with_bad_words_does_nothing_and_the_others_do() {
    let seed = seed(315);
    for entry in ["running_bf16_r4", "running_f32_r128"] {
        let mut walk = with_a_bad_request(seed, entry);
        let plan = BAD.to_vec();
        let closes = entry.ends_with("r4");
        let mut refused = |why: u32, change: &dyn Fn(&mut Words)| {
            let mut words = walk.words(&plan);
            change(&mut words);
            walk.launch(&plan, &words, 12, 10, Some((1, why)));
        };
        for len in [-1, i32::MIN, 6, 41, i32::MAX] {
            refused(report::LENGTH, &|words| words.lens[1] = len);
        }
        refused(report::TOKENS, &|words| words.max_new = 6);
        if closes {
            refused(report::OUTPUT, &|words| words.cu_out = vec![0, 1, 2, 3]);
            refused(report::OUTPUT, &|words| words.cu_out = vec![7, 8, 6, 9]);
        }
    }
}

#[test]
fn more_new_tokens_than_a_launch_can_have_are_refused() {
    let seed = seed(316);
    let mut walk = Walk::new(seed, "running_f32_r4", 128, 8, 2, 40);
    let plan = vec![(0, 3), (0, 9)];
    let mut words = walk.words(&plan);
    let rows = words.cu_out[2] as usize;
    walk.launch(&plan, &words, 12, rows, Some((1, report::TOKENS)));
    // The limit is the launcher's.
    words.max_new = 9;
    walk.launch(&plan, &words, 12, rows, None);
    // No token is before the first row or beyond the last one.
    let plan = vec![(0, 3), (0, 4)];
    for (bad, cu_new) in [(0, [-1, 2, 6]), (1, [0, 3, 8])] {
        let words = Words { cu_new: cu_new.to_vec(), ..walk.words(&plan) };
        let rows = words.cu_out[2] as usize;
        walk.launch(&plan, &words, 7, rows, Some((bad, report::TOKENS)));
    }
}

/// The output rows of an operator that brings in prompts of two requests, then decodes 5 tokens of each, and the last 3 of
/// them once more.
fn rows_of_an_operator(device: &Device, seed: u64, ratio: usize, running: bool) -> Vec<Vec<f32>> {
    // The first request closes a window of either size in decode.
    let (lens, page, max_blocks) = ([253, 37], 16, 17);
    let width = width(128, ratio as u32) as usize;
    let stream = device.stream().unwrap();
    let builder = Compressor::builder(ratio as u32, 128).kv(NumberType::F32).output(NumberType::F32);
    let mut compressor =
        builder.running(running).max_batch(2).build_with(device, &backend::compress().unwrap()).unwrap();
    let mut random = Random::new(seed);
    let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal()).collect() };
    let ape = device.upload(&numbers(ratio * width)).unwrap();
    let pools = [0; 2].map(|_| device.upload(&vec![f32::NAN; 2 * max_blocks * page * width]).unwrap());
    let blocks: Vec<i32> = (0..2 * max_blocks as i32).rev().collect();
    let blocks = device.upload(&blocks).unwrap();
    let steps: [fn(usize) -> (usize, usize); 3] =
        [|len| (0, len), |len| (len, len + 5), |len| (len + 2, len + 5)];
    let mut outputs = Vec::new();
    for (step, plan) in steps.into_iter().enumerate() {
        let plan = lens.map(plan);
        let cu_new = raw::running_sums(plan.iter().map(|&(start, len)| (len - start) as i32));
        let cu_out = raw::running_sums(plan.iter().map(|&(start, len)| (len / ratio - start / ratio) as i32));
        let (tokens, rows) = (cu_new[2] as usize, cu_out[2] as usize);
        let new = device.upload(&numbers(tokens * 2 * width)).unwrap();
        let output = device.upload(&vec![POISON; (rows + 1) * 128]).unwrap();
        let kv_lens = device.upload(&plan.iter().map(|&(_, len)| len as i32).collect::<Vec<_>>()).unwrap();
        let [cu_new, cu_out] = [cu_new, cu_out].map(|sums| device.upload(&sums).unwrap());
        let [kv, score] = pools.each_ref().map(|pool| PagedTensor {
            pool: Tensor::of(pool, [2 * max_blocks, page, width].map(|n| n as u64)).unwrap(),
            blocks: Tensor::of(&blocks, [2, max_blocks as u64]).unwrap(),
        });
        let args = CompressArgs {
            kv_score: Tensor::of(&new, [tokens, 2 * width].map(|n| n as u64)).unwrap(),
            ape: Tensor::of(&ape, [ratio, width].map(|n| n as u64)).unwrap(),
            kv,
            score,
            kv_lens: Tensor::of(&kv_lens, [2]).unwrap(),
            cu_new: Tensor::of(&cu_new, [3]).unwrap(),
            cu_out: Tensor::of(&cu_out, [3]).unwrap(),
            output: Tensor::of(&output, [rows as u64 + 1, 128]).unwrap(),
        };
        // SAFETY: one stream; nothing else uses the buffers, and they do not overlap.
        unsafe {
            match step {
                0 => compressor.enqueue_prefill(&stream, &args).unwrap(),
                _ => compressor.enqueue_decode(&stream, 5, &args).unwrap(),
            }
        }
        assert_eq!(compressor.take_report().unwrap(), None);
        outputs.push(output.download().unwrap());
    }
    outputs
}

#[test]
fn an_operator_with_running_softmaxes_goes_on_from_its_prompts_as_one_without() {
    let seed = seed(320);
    let device = device(seed);
    for ratio in [4, 128] {
        let [running, plain] = [true, false].map(|r| rows_of_an_operator(&device, seed, ratio, r));
        for (step, (running, plain)) in running.iter().zip(&plain).enumerate() {
            // Magnitudes are below 6; twice the tolerance.
            let differ = |(a, b): (&f32, &f32)| a.is_nan() || b.is_nan() || (a - b).abs() > 5e-5;
            let wrong = running.iter().zip(plain).position(differ);
            assert_eq!(wrong, None, "ratio {ratio}, step {step}: this element differs");
        }
    }
}
