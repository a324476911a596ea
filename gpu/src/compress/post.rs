//! What follows a compression: rows are normalised, rotated, perhaps transformed, quantised, and stored in a paged
//! cache.
//!
//! A warp takes row `i` of the compression. It is of the requests `b` with `cu_out[b] <= i < cu_out[b + 1]`: one, if
//! the offsets are as they should be, and then it is window `c = start / R + (i - cu_out[b])` of it, if that closed.
//! All offsets are read, each lane has some: one latency for 256 requests, and whatever the offsets hold, every
//! request is stored by itself, wholly or not at all.
//!
//! A lane has 4 or 16 consecutive channels in registers. In f32: rounded to bf16, as the row would be in memory;
//! `x * rsqrt(mean(x^2) + epsilon) * weight`; the last [`ROTATED`] channels turned in pairs by the angles of position
//! `c R`; the Walsh-Hadamard transform, within a lane and then between lanes; then stored at compressed position `c`.
//!
//! No shared memory, no barrier, no thread waits for another warp. Every warp of a request checks all pages that the
//! request's windows need, from the same words, so they agree without telling each other. A row costs 5 dependent
//! accesses: offsets, the request's words, then its pages beside row, weights and angles, a store. Nothing but the
//! cache, the scales and the report is written.

use dsa_simt::{Global, Halves, bf16_pair, block, fma, grid, rsqrt, thread, warp};

use super::fp8;
use super::number::bf16s;
use super::pool::Pool;
use super::report::{self, Report};
use super::request::{Offsets, Request};

/// Warps of a block.
pub const WARPS: u32 = 4;
/// Channels at the end of a row that are rotated.
pub const ROTATED: u32 = 64;
/// Channels that share a scale in [`Options::FP8_GROUPS`].
pub const GROUP: u32 = 128;
/// Largest number of FP8 e4m3.
pub const FP8_MAX: f32 = fp8::MAX;

/// Offsets that a lane reads before it looks at the first of them.
const LANE_OFFSETS: u32 = 8;
/// Requests whose offsets a warp reads at a time.
const STRIPE: u32 = LANE_OFFSETS * warp::SIZE;

/// What is done to a row.
#[derive(Clone, Copy)]
pub struct Options(u32);

impl Options {
    /// The row is stored as FP8 e4m3, divided by one scale for all rows.
    pub const FP8_TENSOR: u32 = 1;
    /// The row is stored as FP8 e4m3, each [`GROUP`] of channels divided by its own scale, which is stored, too: the
    /// largest magnitude of the group divided by [`FP8_MAX`], but 1 where that is 0, so that zeros are stored and
    /// dividing by a scale is always fine. An infinite channel makes its group's scale infinite.
    pub const FP8_GROUPS: u32 = 2;
    /// A Walsh-Hadamard transform of the row in the natural order, times `D^-1/2`, comes before it is stored.
    pub const HADAMARD: u32 = 4;

    /// The options that are set in `bits`. With neither of the FP8 formats, of which there is one at most, rows are
    /// stored as bf16.
    #[inline(always)]
    pub const fn of(bits: u32) -> Self {
        Self(bits)
    }

    #[inline(always)]
    const fn has(self, option: u32) -> bool {
        self.0 & option != 0
    }
}

/// The rows of a launch.
///
/// What is said of the fields is what a launcher promises; nothing but the launch writes any of the memory while it
/// runs, and no two requests have a page in common. Pointers are aligned to 16 bytes unless something else is said.
#[derive(Clone, Copy)]
pub struct Rows {
    /// `[rows, D]`, f32 or bf16: the output of a compression. Rows that no window was written to may hold anything.
    pub compressed: *const u8,
    /// Distance between them in elements: at least `D`, a multiple of 16 bytes.
    pub compressed_pitch: u64,
    /// Whether they are bf16; else f32, which is rounded to bf16 first.
    pub compressed_bf16: bool,
    /// `f32[D]`: what the normalised channels are multiplied by.
    pub weight: *const f32,
    /// What is added to the mean of the squares.
    pub epsilon: f32,
    /// `f32[positions, 64]`: for each position 32 cosines, then 32 sines, each for one pair of channels.
    pub rotations: *const f32,
    /// Positions of `rotations`. A request with a window that starts beyond is a bad one.
    pub positions: u32,
    /// `[pages, cache_page, D]` in the format of the options, with `i32[batch, cache_max_blocks]` pages. The distance
    /// between pages is in elements, and a multiple of 16 bytes.
    pub cache: Pool,
    /// Rows of a page, at least 1.
    pub cache_page: u32,
    /// Logical pages of a request.
    pub cache_max_blocks: u32,
    /// `f32[pages, cache_page, D / 128]` for [`Options::FP8_GROUPS`], aligned to 4 bytes; else not used.
    pub scales: *mut u8,
    /// Distance between the pages of the scales, in f32: at least `cache_page * D / 128`.
    pub scales_page_pitch: u64,
    /// `f32[1]` for [`Options::FP8_TENSOR`], aligned to 4 bytes: what rows are divided by; else not used.
    pub scale: *const f32,
    /// `i32[batch]`, aligned to 4 bytes, with any contents: the lengths that the compression was given.
    pub kv_lens: *const i32,
    /// `i32[batch + 1]`, aligned to 4 bytes, with any contents: the first new tokens that it was given.
    pub cu_new: *const i32,
    /// `i32[batch + 1]`, aligned to 4 bytes, with any contents: the first output rows that it was given.
    pub cu_out: *const i32,
    /// Where bad requests are reported.
    pub report: Report,
    /// Requests.
    pub batch: u32,
    /// Rows of `compressed`, at most `i32::MAX`. With none, there are no blocks, and nothing is reported.
    pub rows: u32,
    /// `D`, one of [`HEAD_DIMS`](super::HEAD_DIMS).
    pub head_dim: u32,
    /// `R`: tokens of a window.
    pub ratio: u32,
    /// What is done to a row.
    pub options: Options,
}

impl Rows {
    /// What requests are found by. New tokens are not looked at, only counted: any number will do.
    #[inline(always)]
    fn offsets(&self) -> Offsets {
        let most = i32::MAX as u64;
        let windows = u64::min(u64::from(self.cache_page) * u64::from(self.cache_max_blocks), most);
        // A length is too large when it has more whole windows than fit.
        let max_len = u64::min((windows + 1) * u64::from(self.ratio) - 1, most);
        Offsets {
            kv_lens: self.kv_lens,
            cu_new: self.cu_new,
            cu_out: self.cu_out,
            batch: self.batch,
            tokens: u32::MAX,
            rows: self.rows,
            max_new: u32::MAX,
            max_len: max_len as u32,
        }
    }

    /// Why the windows `first..end` of a request cannot be stored; 0 if they can. Collective over the warp.
    #[inline(always)]
    fn reasons(&self, request: u32, first: u32, end: u32) -> u32 {
        let last = end - 1;
        let mut in_pool = true;
        // `max_len` keeps the last page within the table.
        let mut logical = first / self.cache_page + thread::lane();
        while logical <= last / self.cache_page {
            in_pool &= self.cache.holds(self.cache.page_of(request, logical));
            logical += warp::SIZE;
        }
        let page = if warp::all(warp::ALL, in_pool) { 0 } else { report::PAGE };
        let position = if last * self.ratio < self.positions { 0 } else { report::POSITION };
        page | position
    }
}

/// The body of the entry point [`post`](super::post()).
///
/// # Safety
/// The launcher keeps the promises of [`Rows`], and launches [`WARPS`] warps in a block, blocks for all rows.
#[inline(always)]
pub unsafe fn run(rows: Rows) {
    grid::wait_for_earlier();
    grid::let_later_start();
    let row = block::index() * WARPS + thread::warp();
    if row < rows.rows {
        if rows.head_dim == 128 {
            store_row::<4>(&rows, row);
        } else {
            store_row::<16>(&rows, row);
        }
    }
    report_bad_words(&rows);
}

/// Stores row `row` of request `number`, which this launch has written: with all its writes before this call, in the
/// order of the device's memory. Collective over the warp.
#[inline(always)]
pub fn store_written(rows: &Rows, row: u32, number: u32) {
    if rows.head_dim == 128 {
        store_row_of::<4, true>(rows, row, number);
    } else {
        store_row_of::<16, true>(rows, row, number);
    }
}

/// Reports the requests whose words are wrong, each by one thread: they may have no rows, so no warp may come across
/// them.
#[inline(always)]
fn report_bad_words(rows: &Rows) {
    let offsets = rows.offsets();
    let threads = u64::from(block::count()) * u64::from(block::threads());
    let mut number = u64::from(block::index()) * u64::from(block::threads()) + u64::from(thread::index());
    while number < u64::from(rows.batch) {
        if let Err(reasons) = offsets.request(number as u32, rows.ratio)
            && reasons != 0
        {
            rows.report.add(number as u32, reasons);
        }
        number += threads;
    }
}

/// Stores row `row` for every request whose offsets say that it is theirs. Collective over the warp.
#[inline(always)]
fn store_row<const C: usize>(rows: &Rows, row: u32) {
    // SAFETY: the launcher promises the words, and nothing writes them meanwhile.
    let cu_out = unsafe { Global::from_raw(rows.cu_out, rows.batch as usize + 1) };
    let mut first = 0;
    while first < rows.batch {
        // A bit for each of the lane's requests that has the row.
        let mut mine = 0_u32;
        let mut i = 0;
        while i < LANE_OFFSETS {
            let number = first + i * warp::SIZE + thread::lane();
            if number < rows.batch {
                // As unsigned numbers, bounds below 0 are above every row: no request that is valid has one.
                let start = cu_out.get_readonly(number as usize).cast_unsigned();
                let end = cu_out.get_readonly(number as usize + 1).cast_unsigned();
                if start <= row && row < end {
                    mine |= 1 << i;
                }
            }
            i += 1;
        }
        loop {
            let lanes = warp::ballot(warp::ALL, mine != 0);
            if lanes == 0 {
                break;
            }
            let lane = lanes.trailing_zeros();
            let i = warp::shuffle(warp::ALL, mine, lane).trailing_zeros();
            if thread::lane() == lane {
                mine &= mine - 1;
            }
            store_row_of::<C, false>(rows, row, first + i * warp::SIZE + lane);
        }
        if rows.batch - first <= STRIPE {
            return;
        }
        first += STRIPE;
    }
}

/// Stores row `row`, one of those that the offsets give request `number`; `WRITTEN` by this launch. Collective over the
/// warp.
#[inline(always)]
fn store_row_of<const C: usize, const WRITTEN: bool>(rows: &Rows, row: u32, number: u32) {
    let request = match rows.offsets().request(number, rows.ratio) {
        Ok(request) => request,
        // Where this launch wrote it, by the only warp that comes across the row; else elsewhere.
        Err(reasons) => return rows.report.refuse(number, reasons, WRITTEN && thread::lane() == 0),
    };
    let Request { start, len, .. } = request;
    let (first, end) = (start / rows.ratio, len / rows.ratio);
    // Offsets may leave a request more rows than windows of it closed.
    if row - request.row >= end - first {
        return;
    }
    let window = first + (row - request.row);
    let channel = thread::lane() * C as u32;
    let head_dim = warp::SIZE * C as u32;

    // All loads first: they do not depend on each other, nor on what the check of the pages reads.
    let mut x = load::<C, WRITTEN>(rows, row, channel);
    // SAFETY: the launcher promises a weight for every channel, and nothing writes them meanwhile.
    let weights = unsafe { Global::from_raw(rows.weight, head_dim as usize) };
    let weights = vectors::<C>(weights, channel as usize);
    let reasons = rows.reasons(number, first, end);
    if reasons != 0 {
        if window == first && thread::lane() == 0 {
            rows.report.add(number, reasons);
        }
        return;
    }

    normalise(&mut x, weights, rows.epsilon);
    if channel >= head_dim - ROTATED {
        rotate(rows, &mut x, window * rows.ratio, channel + ROTATED - head_dim);
    }
    if rows.options.has(Options::HADAMARD) {
        transform(&mut x);
    }
    store(rows, &request, window, x);
}

/// `C` numbers from `index` on.
#[inline(always)]
fn vectors<const C: usize>(array: Global<f32>, index: usize) -> [f32; C] {
    let mut numbers = [0.0; C];
    let mut i = 0;
    while i < C {
        let [a, b, c, d] = array.get4_readonly(index + i);
        numbers[i] = a;
        numbers[i + 1] = b;
        numbers[i + 2] = c;
        numbers[i + 3] = d;
        i += 4;
    }
    numbers
}

/// The lane's channels of a row, rounded to bf16. What this launch has `WRITTEN` is not read through the read-only path.
#[inline(always)]
fn load<const C: usize, const WRITTEN: bool>(rows: &Rows, row: u32, channel: u32) -> [f32; C] {
    let start = row as usize * rows.compressed_pitch as usize;
    let (index, end) = (start + channel as usize, start + rows.head_dim as usize);
    let mut x = [0.0; C];
    if !rows.compressed_bf16 {
        // SAFETY: the launcher promises the row, and nothing writes it from now on.
        let array = unsafe { Global::<f32>::from_raw(rows.compressed.cast(), end) };
        let mut i = 0;
        while i < C {
            let [a, b, c, d] = if WRITTEN { array.get4(index + i) } else { array.get4_readonly(index + i) };
            [x[i], x[i + 1]] = bf16s(bf16_pair(a, b));
            [x[i + 2], x[i + 3]] = bf16s(bf16_pair(c, d));
            i += 4;
        }
        return x;
    }
    // SAFETY: as above; a row begins at a multiple of 16 bytes, and has as many words as pairs of numbers.
    let array = unsafe { Global::<u32>::from_raw(rows.compressed.cast(), end / 2) };
    let mut i = 0;
    while i < C {
        let first = (index + i) / 2;
        let words = match (C, WRITTEN) {
            // A lane with 4 channels has half a vector.
            (4, true) => [array.get(first), array.get(first + 1), 0, 0],
            (4, false) => [array.get_readonly(first), array.get_readonly(first + 1), 0, 0],
            (_, true) => array.get4(first),
            (_, false) => array.get4_readonly(first),
        };
        let mut word = 0;
        while word < 4 && i + 2 * word < C {
            [x[i + 2 * word], x[i + 2 * word + 1]] = bf16s(words[word]);
            word += 1;
        }
        i += 8;
    }
    x
}

/// Divides the row by the root of the mean of its squares, and multiplies by the weights.
#[inline(always)]
fn normalise<const C: usize>(x: &mut [f32; C], weights: [f32; C], epsilon: f32) {
    let mut sum = 0.0;
    let mut i = 0;
    while i < C {
        sum = fma(x[i], x[i], sum);
        i += 1;
    }
    // Both lanes of a pair add the same two numbers, so that all lanes end up with the same sum.
    let mut bits = 1;
    while bits < warp::SIZE {
        sum += warp::shuffle_xor(warp::ALL, sum, bits);
        bits *= 2;
    }
    // A power of two: the division is exact.
    let scale = rsqrt(sum / (warp::SIZE as usize * C) as f32 + epsilon);
    let mut i = 0;
    while i < C {
        x[i] = x[i] * scale * weights[i];
        i += 1;
    }
}

/// Turns the lane's pairs of channels, of which the first is channel `first` of those that are rotated.
#[inline(always)]
fn rotate<const C: usize>(rows: &Rows, x: &mut [f32; C], position: u32, first: u32) {
    let angles = position as usize * ROTATED as usize;
    let sines = ROTATED as usize / 2;
    // SAFETY: the launcher promises the positions, of which this was found to be one; nothing writes them meanwhile.
    let rotations = unsafe { Global::from_raw(rows.rotations, angles + ROTATED as usize) };
    let pair = angles + first as usize / 2;
    let mut i = 0;
    while i < C / 2 {
        // A lane with 4 channels has two pairs, half a vector.
        let (cosine, sine) = if C == 4 {
            let cosine = [rotations.get_readonly(pair), rotations.get_readonly(pair + 1), 0.0, 0.0];
            let sine =
                [rotations.get_readonly(pair + sines), rotations.get_readonly(pair + sines + 1), 0.0, 0.0];
            (cosine, sine)
        } else {
            (rotations.get4_readonly(pair + i), rotations.get4_readonly(pair + i + sines))
        };
        let mut j = 0;
        while j < 4 && i + j < C / 2 {
            let (a, b) = (x[2 * (i + j)], x[2 * (i + j) + 1]);
            x[2 * (i + j)] = fma(a, cosine[j], -(b * sine[j]));
            x[2 * (i + j) + 1] = fma(a, sine[j], b * cosine[j]);
            j += 1;
        }
        i += 4;
    }
}

/// Walsh-Hadamard transform of the row, times one over the root of its length. Collective over the warp.
#[inline(always)]
fn transform<const C: usize>(x: &mut [f32; C]) {
    butterflies::<C, 1>(x);
    butterflies::<C, 2>(x);
    if C == 16 {
        butterflies::<C, 4>(x);
        butterflies::<C, 8>(x);
    }
    let mut bits = 1;
    while bits < warp::SIZE {
        let sign = if thread::lane() & bits == 0 { 1.0 } else { -1.0 };
        let mut i = 0;
        while i < C {
            let other = warp::shuffle_xor(warp::ALL, x[i], bits);
            x[i] = fma(x[i], sign, other);
            i += 1;
        }
        bits *= 2;
    }
    // 1 / sqrt(128), 1 / sqrt(512).
    let scale =
        if C == 4 { core::f32::consts::FRAC_1_SQRT_2 / 8.0 } else { core::f32::consts::FRAC_1_SQRT_2 / 16.0 };
    let mut i = 0;
    while i < C {
        x[i] *= scale;
        i += 1;
    }
}

/// Sums and differences of the lane's channels that are `DISTANCE` apart.
#[inline(always)]
fn butterflies<const C: usize, const DISTANCE: usize>(x: &mut [f32; C]) {
    let mut i = 0;
    while i < C {
        if i & DISTANCE == 0 {
            let (a, b) = (x[i], x[i + DISTANCE]);
            x[i] = a + b;
            x[i + DISTANCE] = a - b;
        }
        i += 1;
    }
}

/// Stores a row of a request whose pages were found to be in the cache. Collective over the warp.
#[inline(always)]
fn store<const C: usize>(rows: &Rows, request: &Request, window: u32, x: [f32; C]) {
    let channel = (thread::lane() * C as u32) as usize;
    let cache = rows.cache;
    let index = cache.row(request.number, window, rows.cache_page, warp::SIZE * C as u32) + channel;
    if rows.options.has(Options::FP8_TENSOR) {
        // SAFETY: the launcher promises the scale, and nothing writes it meanwhile.
        let scale = unsafe { Global::from_raw(rows.scale, 1) }.get_readonly(0);
        store_fp8(cache, index, x, scale);
    } else if rows.options.has(Options::FP8_GROUPS) {
        let scale = group_scale(x);
        let lanes = GROUP / C as u32;
        if thread::lane().is_multiple_of(lanes) {
            let physical = cache.page_of(request.number, window / rows.cache_page) as usize;
            let groups = (warp::SIZE / lanes) as usize;
            let row = (window % rows.cache_page) as usize * groups;
            let place = physical * rows.scales_page_pitch as usize + row + (thread::lane() / lanes) as usize;
            // SAFETY: the launcher promises scales for all rows of all pages, of which `physical` is one. No other
            // thread writes this one: the row is this warp's.
            let scales = unsafe { Global::from_raw(rows.scales.cast::<f32>(), place + 1) };
            scales.set(place, scale);
        }
        store_fp8(cache, index, x, scale);
    } else {
        // SAFETY: the launcher promises the pages. No other thread writes these channels: the row is this warp's.
        let array = unsafe { Halves::from_raw(cache.start.cast(), cache.elements()) };
        store_bf16(array, index, x);
    }
}

/// The scale of the group of channels that the lane's are in. Collective over the warp.
#[inline(always)]
fn group_scale<const C: usize>(x: [f32; C]) -> f32 {
    let mut most = 0.0;
    let mut i = 0;
    while i < C {
        // NaN is passed over.
        most = f32::max(most, x[i].abs());
        i += 1;
    }
    let mut bits = 1;
    while bits < GROUP / C as u32 {
        most = f32::max(most, warp::shuffle_xor(warp::ALL, most, bits));
        bits *= 2;
    }
    let scale = most / FP8_MAX;
    // Also 0 for the smallest magnitudes that there are, of which nothing is lost either that FP8 could hold.
    if scale == 0.0 { 1.0 } else { scale }
}

/// Stores channels divided by `scale` from byte `index` on.
#[inline(always)]
fn store_fp8<const C: usize>(cache: Pool, index: usize, x: [f32; C], scale: f32) {
    // SAFETY: the launcher promises the pages. No other thread writes these channels: the row is this warp's.
    let array = unsafe { Global::from_raw(cache.start.cast::<u32>(), cache.elements() / 4) };
    let mut words = [0; 4];
    let mut i = 0;
    while i < C / 4 {
        let quarter = [x[4 * i] / scale, x[4 * i + 1] / scale, x[4 * i + 2] / scale, x[4 * i + 3] / scale];
        words[i] = fp8::e4m3_word(quarter);
        i += 1;
    }
    if C == 4 {
        array.set(index / 4, words[0]);
    } else {
        array.set4(index / 4, words);
    }
}

/// Stores channels from element `index` on.
#[inline(always)]
fn store_bf16<const C: usize>(array: Halves, index: usize, x: [f32; C]) {
    if C == 4 {
        array.set4(index, [bf16_pair(x[0], x[1]), bf16_pair(x[2], x[3])]);
        return;
    }
    let mut i = 0;
    while i < C {
        let words = [
            bf16_pair(x[i], x[i + 1]),
            bf16_pair(x[i + 2], x[i + 3]),
            bf16_pair(x[i + 4], x[i + 5]),
            bf16_pair(x[i + 6], x[i + 7]),
        ];
        array.set8(index + i, words);
        i += 8;
    }
}
