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

use dsa_simt::{block, exp2, fma, grid, thread, warp};

use super::configuration::{Configuration, Kernel, Mode};
use super::number::{Channels, F32, Number, NumberType};
use super::request::Request;
use super::tokens::{Entry, Place, Tokens};
use super::{Batch, MAX_NEXT_N, OVERLAPPING, report};

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
        min_blocks: 1,
    };

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
        if let Err(reasons) = done {
            batch.report.refuse(number, reasons, tile == 0 && thread::lane() == 0);
        }
    }
}

/// Numbers for the channels of a lane.
type Lane = [f32; CHANNELS as usize];

/// Those of them that a vector of f32 has.
#[inline(always)]
fn lane_of([a, b, c, d, ..]: Channels) -> Lane {
    [a, b, c, d]
}

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

/// What a warp does: a tile of the channels of a request.
struct Part<'a, K, const RATIO: u32> {
    batch: &'a Batch,
    tokens: Tokens<K, F32>,
    /// The lane's first channel.
    channel: u32,
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
        let channel = tile * TILE + thread::lane() * CHANNELS;
        Self { batch, tokens: Tokens::new(*batch, request, RATIO), channel }
    }

    /// Extends the state by the new tokens and writes the windows that they close; or says why not.
    #[inline(always)]
    fn run(&self) -> Result<(), u32> {
        let Request { start, len, .. } = self.tokens.request;
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
        let Request { start, len, .. } = self.tokens.request;
        RATIO == OVERLAPPING && start >= RATIO && start / RATIO < len / RATIO
    }

    /// Finds the pages of the first step and of the tokens of which state is read, and checks those of all tokens whose
    /// state is read or written. Collective over the warp.
    #[inline(always)]
    fn places(&self) -> Result<Place, u32> {
        let Request { start, len, .. } = self.tokens.request;
        let lane = thread::lane();
        let (needed, position) = match lane {
            BEFORE => (!start.is_multiple_of(RATIO), start.wrapping_sub(1)),
            CLOSED => (self.needs_closed(), (start - start % RATIO).wrapping_sub(1)),
            _ => (lane < u32::min(len - start, STEP), start + lane),
        };
        let mut places = Place::NONE;
        let mut missing = false;
        if needed {
            places = self.tokens.place(position);
            missing = !self.tokens.holds(places);
        }
        // Decode ends here. Else the other pages, each by one lane.
        if len - start > STEP {
            missing |= self.tokens.misses_pages(start + STEP, len, lane, warp::SIZE);
        }
        if warp::any(warp::ALL, missing) { Err(report::PAGE) } else { Ok(places) }
    }

    /// Finds the places of a step, whose first new token is number `first`. Their pages were checked, and nothing writes
    /// the words meanwhile.
    #[inline(always)]
    fn look_up(&self, first: u32) -> Place {
        let Request { start, len, .. } = self.tokens.request;
        // The lanes that have no token take the last one.
        self.tokens.place(u32::min(start + first + thread::lane(), len - 1))
    }

    /// The lane's first column of a half of a row.
    #[inline(always)]
    fn column(&self, half: usize) -> u32 {
        half as u32 * self.batch.head_dim + self.channel
    }

    /// The state of the token that lane `of` looked up, before the new ones. Collective over the warp.
    #[inline(always)]
    fn state(&self, places: Place, of: u32, half: usize) -> Softmax {
        let Entry { kv, score } = self.tokens.kept(places.of_lane(of), self.column(half));
        Softmax { values: kv.map(f32::from_bits), logs: score.map(f32::from_bits) }
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
        let mut loaded = Token::NONE;
        let mut half = 0;
        while half < Self::HALVES {
            let position = self.tokens.request.start + token;
            let (kv, score) = self.tokens.new_row(position, self.column(half));
            (loaded.kv[half], loaded.score[half]) = (lane_of(kv), lane_of(score));
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
        let mut bias = [[0.0; CHANNELS as usize]; 2];
        let mut half = 0;
        while half < Self::HALVES {
            let position = self.tokens.request.start + token;
            bias[half] = lane_of(self.tokens.bias(position, self.column(half)));
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
        places: Place,
    ) {
        let position = self.tokens.request.start + number;
        if position.is_multiple_of(RATIO) {
            *softmax = [Softmax::EMPTY; 2];
        }
        let mut half = 0;
        while half < Self::HALVES {
            let (values, mut logs) = (token.kv[half], token.score[half]);
            let mut channel = 0;
            while channel < CHANNELS as usize {
                logs[channel] += bias[half][channel];
                channel += 1;
            }
            softmax[half] = softmax[half].joined(Softmax { values, logs });
            let Softmax { values, logs } = softmax[half];
            let entry = Entry { kv: values.map(f32::to_bits), score: logs.map(f32::to_bits) };
            self.tokens.keep(places.of_lane(number % STEP), self.column(half), entry);
            half += 1;
        }
        if (position + 1).is_multiple_of(RATIO) {
            let window = if RATIO == OVERLAPPING { closed.joined(softmax[1]) } else { softmax[0] };
            let row = self.tokens.request.row_of(position / RATIO, RATIO);
            self.batch.write4(row, self.channel, window.values);
            *closed = softmax[0];
        }
    }
}
