//! Compression of new tokens, few or many, for each request whose state is a running softmax: a launch costs what its
//! new tokens cost, not what the windows cost that they close.
//!
//! The state of token `t`, in f32: for each column the softmax-weighted sum of `kv` over the tokens of `t`'s window up
//! to `t`, in the one pool, and the logarithm of the sum of `exp(s)` over them, in the other. A token extends that of
//! the one before it; at the first token of a window it starts anew. A window of R = 128 tokens is done when its last
//! token is; one of R = 4 joins columns `0 .. D` at the last token of the window before with columns `D .. 2 D` at its
//! own last token. A launch that starts at an earlier length than the last one ended at finds what it needs in the
//! state of the token before, which is how rejected draft tokens are undone.
//!
//! A block is one warp and has 128 channels of a request, a lane 4 of them in both halves of a row. It walks the
//! new tokens in steps of 8 of them, whose pages lanes look up, one each. The softmax stays in registers all the
//! way: what the launch stored is never read. All pages that are read or written are checked before anything is stored,
//! by every block of the request and from the same words.
//!
//! A step of decode is three dependent accesses and a store: the request's words, then its pages beside its new
//! tokens, then the state of the token before. A prompt is serial in the tokens of a request, and parallel over requests
//! and channels only.
//!
//! A score of minus infinity has no weight, whatever its `kv` is; a window of nothing else gives 0. NaN stays in its
//! column until the window ends.
//!
//! The state is rounded at every token. Over windows of 128 tokens with normal scores of deviation 2, on the emulator,
//! values were within 2.1e-6 of f64, relative to the weighted mean of the magnitudes, and logarithms within 1.1e-5: the
//! largest errors of six random walks in the tests.

use core::f32::consts::LOG2_E;
use core::marker::PhantomData;

use dsa_simt::{Global, Halves, bf16_pair, block, exp2, fma, grid, thread, warp};

use super::configuration::{Configuration, Kernel, Mode};
use super::number::{Number, NumberType};
use super::pool::Pool;
use super::request::Request;
use super::{Batch, MAX_NEXT_N, OVERLAPPING, report, width};

/// Channels of a block.
const TILE: u32 = 128;
/// Channels of a lane.
const CHANNELS: u32 = TILE / warp::SIZE;
/// New tokens that are loaded at a time: those after them are under way while these are worked on.
const GROUP: u32 = 4;
/// New tokens whose pages are looked up at a time: all of a decode.
const STEP: u32 = MAX_NEXT_N;
/// The lanes that look up the tokens of which state is read; the first [`STEP`] have the new tokens.
const BEFORE: u32 = STEP;
const CLOSED: u32 = STEP + 1;

/// Running softmaxes over windows of `RATIO` tokens, new tokens of type `K`, f32 state.
pub struct Running<K, const RATIO: u32>(PhantomData<K>);

impl<K: Number, const RATIO: u32> Kernel for Running<K, RATIO> {
    const CONFIGURATION: Configuration = Configuration {
        entry: "",
        mode: Mode::Running,
        kv: K::TYPE,
        state: NumberType::F32,
        ratio: RATIO,
        warps: 1,
        tile: TILE,
        shared_bytes: 0,
    };
    const MIN_BLOCKS: u32 = 1;

    #[inline(always)]
    unsafe fn run(batch: Batch) {
        grid::wait_for_earlier();
        grid::let_later_start();
        let tiles = batch.head_dim / TILE;
        let (number, tile) = (block::index() / tiles, block::index() % tiles);
        let done = match batch.offsets().request(number, RATIO) {
            Ok(request) => Part::<K, RATIO>::new(&batch, request, tile).run(),
            Err(reasons) => Err(reasons),
        };
        if let Err(reasons) = done
            && reasons != 0
            && tile == 0
            && thread::lane() == 0
        {
            batch.report.add(number, reasons);
        }
    }
}

/// Numbers for the channels of a lane.
type Lane = [f32; CHANNELS as usize];

/// A softmax in progress.
#[derive(Clone, Copy)]
struct Softmax {
    /// The weighted sums.
    values: Lane,
    /// The logarithms of the sums of weights.
    logs: Lane,
}

impl Softmax {
    /// That of no tokens.
    const EMPTY: Self =
        Self { values: [0.0; CHANNELS as usize], logs: [f32::NEG_INFINITY; CHANNELS as usize] };

    /// That of what is in either of the two.
    #[inline(always)]
    fn joined(self, other: Self) -> Self {
        let mut both = Self::EMPTY;
        let mut i = 0;
        while i < CHANNELS as usize {
            (both.values[i], both.logs[i]) =
                join((self.values[i], self.logs[i]), (other.values[i], other.logs[i]));
            i += 1;
        }
        both
    }
}

/// Joins two weighted sums with the logarithms of their sums of weights.
#[inline(always)]
fn join((value, log): (f32, f32), (other, other_log): (f32, f32)) -> (f32, f32) {
    // The smaller weight divided by the larger one, at most 1: nothing overflows.
    let ratio = exp2(-(log - other_log).abs() * LOG2_E);
    // From the side with the larger weight towards the other: the other way round, what a light value loses by rounding
    // could be much of a heavy one.
    let (heavy, light) = if other_log > log { (other, value) } else { (value, other) };
    let sum = fma(light - heavy, ratio / (1.0 + ratio), heavy);
    let sum_log = f32::max(log, other_log) + log1p(ratio);
    // Without weight, what the other side has does not count, be it NaN. This side then has 0, which does no harm.
    if other_log == f32::NEG_INFINITY { (value, log) } else { (sum, sum_log) }
}

/// `ln(1 + x)` for `x` in `[0, 1]`, within 2 units in the last place.
///
/// The logarithm that the hardware has is as wrong as `1 + x` is, which adds up over a window of small weights.
#[inline(always)]
fn log1p(x: f32) -> f32 {
    // ln(1 + x) = 2 atanh(z), z at most 1/3: what the series leaves out is below 2^-27 of it.
    let z = x / (2.0 + x);
    let square = z * z;
    let mut sum = 2.0 / 13.0;
    sum = fma(sum, square, 2.0 / 11.0);
    sum = fma(sum, square, 2.0 / 9.0);
    sum = fma(sum, square, 2.0 / 7.0);
    sum = fma(sum, square, 2.0 / 5.0);
    sum = fma(sum, square, 2.0 / 3.0);
    fma(z * square, sum, 2.0 * z)
}

/// A new token, in registers: a lane's channels of it, in both halves of a row if there are two.
#[derive(Clone, Copy)]
struct Token {
    kv: [Lane; 2],
    score: [Lane; 2],
}

impl Token {
    const NONE: Self = {
        let none = [[0.0; CHANNELS as usize]; 2];
        Self { kv: none, score: none }
    };
}

/// Where the state of a token lies: its page in both pools, and its first element in a page. Each lane has another
/// token.
#[derive(Clone, Copy)]
struct Places {
    kv: u32,
    score: u32,
    in_page: u32,
}

/// What a warp does: a tile of the channels of a request.
struct Part<'a, K, const RATIO: u32> {
    batch: &'a Batch,
    request: Request,
    /// The lane's first channel.
    channel: usize,
    tokens: PhantomData<K>,
}

impl<'a, K: Number, const RATIO: u32> Part<'a, K, RATIO> {
    /// Halves of a row: the windows that a token is part of.
    const HALVES: usize = if RATIO == OVERLAPPING { 2 } else { 1 };
    /// Whether the pages of a step are looked up while the one before is worked on. For decode, which has no next step,
    /// this is only where the compiler puts things; measured on an H100, it is then 1 to 3 % faster with windows of 4
    /// tokens, and 1 to 2 % slower with windows of 128.
    const AHEAD: bool = RATIO == OVERLAPPING;

    #[inline(always)]
    fn new(batch: &'a Batch, request: Request, tile: u32) -> Self {
        let channel = (tile * TILE + thread::lane() * CHANNELS) as usize;
        Self { batch, request, channel, tokens: PhantomData }
    }

    /// Extends the state by the new tokens and writes the windows that they close; or says why not.
    #[inline(always)]
    fn run(&self) -> Result<(), u32> {
        let Request { start, len, .. } = self.request;
        let new = len - start;
        // The new tokens do not depend on the pages: they are loaded meanwhile.
        let mut group = self.load_group(0, new);
        let mut biases = self.biases(0, new);
        let mut places = self.places()?;
        let mut softmax = [Softmax::EMPTY; 2];
        if !start.is_multiple_of(RATIO) {
            let mut half = 0;
            while half < Self::HALVES {
                softmax[half] = self.state(places, BEFORE, half);
                half += 1;
            }
        }
        let mut closed = Softmax::EMPTY;
        if self.needs_closed() {
            closed = self.state(places, CLOSED, 0);
        }

        let mut first = 0;
        loop {
            let end = u32::min(first + STEP, new);
            let ahead = if Self::AHEAD && end < new { self.look_up(end) } else { places };
            while first < end {
                let next = self.load_group(first + GROUP, new);
                // The same for every group if a window has as many tokens: registers that the loads need.
                let next_biases = if RATIO == GROUP { biases } else { self.biases(first + GROUP, new) };
                // By name: an array with an index that the compiler does not know would be local memory.
                let [a, b, c, d] = group;
                let [a_bias, b_bias, c_bias, d_bias] = biases;
                self.step(&mut softmax, &mut closed, a, a_bias, first, places);
                if first + 1 < new {
                    self.step(&mut softmax, &mut closed, b, b_bias, first + 1, places);
                }
                if first + 2 < new {
                    self.step(&mut softmax, &mut closed, c, c_bias, first + 2, places);
                }
                if first + 3 < new {
                    self.step(&mut softmax, &mut closed, d, d_bias, first + 3, places);
                }
                (group, biases) = (next, next_biases);
                first += GROUP;
            }
            if end == new {
                return Ok(());
            }
            places = if Self::AHEAD { ahead } else { self.look_up(end) };
        }
    }

    /// Whether the first half of the window before is needed: a window is closed, and it is not the first one.
    #[inline(always)]
    fn needs_closed(&self) -> bool {
        let Request { start, len, .. } = self.request;
        RATIO == OVERLAPPING && start >= RATIO && start / RATIO < len / RATIO
    }

    /// Finds the pages of the first step and of the tokens of which state is read, and checks those of all tokens whose
    /// state is read or written. Collective over the warp.
    #[inline(always)]
    fn places(&self) -> Result<Places, u32> {
        let Request { start, len, .. } = self.request;
        let lane = thread::lane();
        let (needed, position) = match lane {
            BEFORE => (!start.is_multiple_of(RATIO), start.wrapping_sub(1)),
            CLOSED => (self.needs_closed(), (start - start % RATIO).wrapping_sub(1)),
            _ => (lane < u32::min(len - start, STEP), start + lane),
        };
        let mut places = Places { kv: 0, score: 0, in_page: 0 };
        let mut in_pools = true;
        if needed {
            places = self.place(position);
            in_pools = self.in_pools(places);
        }
        // Decode ends here. Else the other pages, each by one lane.
        if len - start > STEP {
            let mut page = (start + STEP) / self.batch.page + lane;
            while page <= (len - 1) / self.batch.page {
                in_pools &= self.in_pools(self.page(page));
                page += warp::SIZE;
            }
        }
        if warp::all(warp::ALL, in_pools) { Ok(places) } else { Err(report::PAGE) }
    }

    /// Finds the pages of a step, whose first new token is number `first`. They were checked, and nothing writes the
    /// words meanwhile.
    #[inline(always)]
    fn look_up(&self, first: u32) -> Places {
        let Request { start, len, .. } = self.request;
        // The lanes that have no token take the last one.
        self.place(u32::min(start + first + thread::lane(), len - 1))
    }

    /// Where the state of the token at `position` lies.
    #[inline(always)]
    fn place(&self, position: u32) -> Places {
        Places { in_page: position % self.batch.page, ..self.page(position / self.batch.page) }
    }

    /// Where a logical page lies.
    #[inline(always)]
    fn page(&self, logical: u32) -> Places {
        let Batch { kv, score, .. } = self.batch;
        let page = |pool: &Pool| pool.page_of(self.request.number, logical).cast_unsigned();
        Places { kv: page(kv), score: page(score), in_page: 0 }
    }

    /// Whether both pages are in their pools.
    #[inline(always)]
    fn in_pools(&self, places: Places) -> bool {
        let Batch { kv, score, .. } = self.batch;
        kv.holds(places.kv.cast_signed()) && score.holds(places.score.cast_signed())
    }

    /// The lane's elements of the two pools for the token that lane `of` looked up. Collective over the warp.
    #[inline(always)]
    fn elements(&self, places: Places, of: u32, half: usize) -> (usize, usize) {
        let kv = warp::shuffle(warp::ALL, places.kv, of) as usize;
        let score = warp::shuffle(warp::ALL, places.score, of) as usize;
        let row = warp::shuffle(warp::ALL, places.in_page, of) as usize;
        let width = width(self.batch.head_dim, RATIO) as usize;
        let column = row * width + half * self.batch.head_dim as usize + self.channel;
        (
            kv * self.batch.kv.page_pitch as usize + column,
            score * self.batch.score.page_pitch as usize + column,
        )
    }

    /// The two pools.
    #[inline(always)]
    fn pools(&self) -> (Global<f32>, Global<f32>) {
        let (kv, score) = (self.batch.kv, self.batch.score);
        // SAFETY: the launcher promises the pages. The elements of new tokens are written by the one lane that has
        // their channels; others are only read, and those of pages that were found to be in the pools.
        unsafe {
            (
                Global::from_raw(kv.start.cast(), kv.elements()),
                Global::from_raw(score.start.cast(), score.elements()),
            )
        }
    }

    /// The state of the token that lane `of` looked up, before the new ones. Collective over the warp.
    #[inline(always)]
    fn state(&self, places: Places, of: u32, half: usize) -> Softmax {
        let (kv_pool, score_pool) = self.pools();
        let (kv, score) = self.elements(places, of, half);
        Softmax { values: kv_pool.get4_readonly(kv), logs: score_pool.get4_readonly(score) }
    }

    /// Loads those of the [`GROUP`] new tokens from `first` on that there are.
    #[inline(always)]
    fn load_group(&self, first: u32, new: u32) -> [Token; GROUP as usize] {
        let load = |token| if token < new { self.load(token) } else { Token::NONE };
        [load(first), load(first + 1), load(first + 2), load(first + 3)]
    }

    /// Loads new token `token`.
    #[inline(always)]
    fn load(&self, token: u32) -> Token {
        let Batch { head_dim, kv_score_pitch, .. } = *self.batch;
        let width = width(head_dim, RATIO) as usize;
        let start = (self.request.token + token) as usize * kv_score_pitch as usize;
        // SAFETY: the launcher promises the rows, of which this was found to be one; nothing writes them meanwhile.
        let array = unsafe { K::array(self.batch.kv_score, start + 2 * width) };
        let mut loaded = Token::NONE;
        let mut half = 0;
        while half < Self::HALVES {
            let column = half * head_dim as usize + self.channel;
            let [a, b, c, d, ..] = K::load(array, start + column, CHANNELS as usize);
            loaded.kv[half] = [a, b, c, d];
            let [a, b, c, d, ..] = K::load(array, start + width + column, CHANNELS as usize);
            loaded.score[half] = [a, b, c, d];
            half += 1;
        }
        loaded
    }

    /// Loads what the scores of a group of new tokens are biased by.
    #[inline(always)]
    fn biases(&self, first: u32, new: u32) -> [[Lane; 2]; GROUP as usize] {
        let load = |token| if token < new { self.bias(token) } else { [[0.0; CHANNELS as usize]; 2] };
        [load(first), load(first + 1), load(first + 2), load(first + 3)]
    }

    /// Loads what the scores of new token `token` are biased by.
    #[inline(always)]
    fn bias(&self, token: u32) -> [Lane; 2] {
        let width = width(self.batch.head_dim, RATIO) as usize;
        // SAFETY: the launcher promises a bias for every token of a window, and nothing writes them meanwhile.
        let ape = unsafe { Global::from_raw(self.batch.ape, RATIO as usize * width) };
        let row = ((self.request.start + token) % RATIO) as usize * width;
        let mut bias = [[0.0; CHANNELS as usize]; 2];
        let mut half = 0;
        while half < Self::HALVES {
            bias[half] = ape.get4_readonly(row + half * self.batch.head_dim as usize + self.channel);
            half += 1;
        }
        bias
    }

    /// Takes new token number `number`. Collective over the warp.
    #[inline(always)]
    fn step(
        &self,
        softmax: &mut [Softmax; 2],
        closed: &mut Softmax,
        token: Token,
        bias: [Lane; 2],
        number: u32,
        places: Places,
    ) {
        let position = self.request.start + number;
        if position.is_multiple_of(RATIO) {
            *softmax = [Softmax::EMPTY; 2];
        }
        let (kv_pool, score_pool) = self.pools();
        let mut half = 0;
        while half < Self::HALVES {
            let (values, mut logs) = (token.kv[half], token.score[half]);
            let mut channel = 0;
            while channel < CHANNELS as usize {
                logs[channel] += bias[half][channel];
                channel += 1;
            }
            softmax[half] = softmax[half].joined(Softmax { values, logs });
            let (kv, score) = self.elements(places, number % STEP, half);
            kv_pool.set4(kv, softmax[half].values);
            score_pool.set4(score, softmax[half].logs);
            half += 1;
        }
        if (position + 1).is_multiple_of(RATIO) {
            let window = if RATIO == OVERLAPPING { closed.joined(softmax[1]) } else { softmax[0] };
            self.write(position / RATIO, window.values);
            *closed = softmax[0];
        }
    }

    /// Writes the lane's channels of the output of a window.
    #[inline(always)]
    fn write(&self, window: u32, values: Lane) {
        let start = self.request.row_of(window, RATIO) as usize * self.batch.out_pitch as usize;
        let end = start + self.batch.head_dim as usize;
        let index = start + self.channel;
        if self.batch.out_bf16 {
            // SAFETY: the launcher promises the rows, of which this was found to be one. The lane that has the channels
            // is the only one to write them.
            let out = unsafe { Halves::from_raw(self.batch.out.cast(), end) };
            out.set4(index, [bf16_pair(values[0], values[1]), bf16_pair(values[2], values[3])]);
        } else {
            // SAFETY: as above.
            let out = unsafe { Global::from_raw(self.batch.out.cast(), end) };
            out.set4(index, values);
        }
    }
}
