//! Histograms in shared memory, and the bin in which the k-th largest element lies.
//!
//! Cost of a round: a barrier after zeroing, one shared atomic per counted element, a barrier, and one more
//! barrier inside [`Histogram::pick`]. After that barrier every warp finds the bin by itself, so that the
//! answer needs no broadcast.

use dsa_simt::{AtomicOp, Carve, Shared, opaque, thread, warp};

use super::key::{ABSENT, half_key};
use super::source::{Tile, Visitor};

/// Bins of the widest histogram.
pub const MAX_BINS: u32 = 2048;
/// Warps of the largest block.
const MAX_WARPS: u32 = 32;
/// Words of shared memory that [`Histogram::carve`] takes.
pub const WORDS: u32 = MAX_BINS + MAX_WARPS;

/// Room for a histogram of up to [`MAX_BINS`] bins, used by a block of `T` threads.
#[derive(Clone, Copy)]
pub struct Histogram<const T: u32> {
    bins: Shared<u32>,
    warp_totals: Shared<u32>,
}

/// The bin in which the wanted element lies, counting from the highest bin down.
#[derive(Clone, Copy)]
pub struct Pick {
    /// The bin.
    pub bin: u32,
    /// Elements in higher bins; fewer than wanted.
    pub above: u32,
    /// Elements in this bin; `above + count` is at least as many as wanted.
    pub count: u32,
}

impl<const T: u32> Histogram<T> {
    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`WORDS`] words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { Self { bins: carve.array(MAX_BINS), warp_totals: carve.array(MAX_WARPS) } }
    }

    /// Zeroes the first `BINS` bins. Needs a block barrier before the first count.
    #[inline(always)]
    pub fn zero<const BINS: u32>(self) {
        let mut bin = opaque(thread::index());
        while bin < BINS {
            self.bins.set(bin, 0);
            bin += T;
        }
    }

    /// Counts one element.
    #[inline(always)]
    pub fn add(self, bin: u32) {
        self.bins.reduce(AtomicOp::Add, bin, 1);
    }

    /// The count of a bin.
    #[inline(always)]
    pub fn get(self, bin: u32) -> u32 {
        self.bins.get(bin)
    }

    /// Sets the count of a bin.
    #[inline(always)]
    pub fn set(self, bin: u32, count: u32) {
        self.bins.set(bin, count);
    }

    /// Calls `f` with each of the bins that [`pick`](Self::pick) first reads in this thread: a thread that
    /// sets just these itself needs no barrier before it.
    #[inline(always)]
    pub fn for_own_bins<const BINS: u32>(mut f: impl FnMut(u32)) {
        let per_warp = const { BINS / (T / warp::SIZE) };
        // Opaque here and below: cheaper computed again than kept in registers.
        let thread = opaque(thread::index());
        let first = thread / warp::SIZE * per_warp;
        let mut offset = thread % warp::SIZE;
        while offset < per_warp {
            f(first + offset);
            offset += warp::SIZE;
        }
    }

    /// Finds the bin of the `wanted`-th largest element (1 is the largest). All threads get the answer.
    ///
    /// The histogram holds at least `wanted >= 1` elements. Collective over the block; needs a block
    /// barrier after the last count, and another before the histogram is changed again.
    #[inline(always)]
    pub fn pick<const BINS: u32>(self, wanted: u32) -> Pick {
        let warps = const { T / warp::SIZE };
        let per_warp = const { BINS / (T / warp::SIZE) };
        let lane = opaque(thread::lane());

        let mut own = 0;
        Self::for_own_bins::<BINS>(|bin| own += self.bins.get(bin));
        let total = warp::reduce_add(warp::ALL, own);
        if lane == 0 {
            self.warp_totals.set(thread::warp(), total);
        }
        dsa_simt::block::sync();

        // Which warp's bins hold the element: lane 0 has the highest bins.
        let total = if lane < warps { self.warp_totals.get(warps - 1 - lane) } else { 0 };
        let (crossing, above) = cross(total, wanted);
        let first = (warps - 1 - crossing) * per_warp;

        // Which of its bins: again from the highest down, a run of `per_lane` bins to a lane.
        let per_lane = const { (BINS / (T / warp::SIZE)).div_ceil(warp::SIZE) };
        let run_end = (first + per_warp).wrapping_sub(lane * per_lane);
        let has_run = lane * per_lane < per_warp;
        let mut run = 0;
        for i in 1..=per_lane {
            run += if has_run { self.bins.get(run_end - i) } else { 0 };
        }
        let (crossing, above_run) = cross(run, wanted - above);
        let mut above = above + above_run;
        let run_end = first + per_warp - crossing * per_lane;
        let mut bin = run_end - 1;
        let mut count = self.bins.get(bin);
        for i in 2..=per_lane {
            if above + count < wanted {
                above += count;
                bin = run_end - i;
                count = self.bins.get(bin);
            }
        }
        Pick { bin, above, count }
    }
}

/// The first lane at which the running sum of `value` over the lanes reaches `wanted`, and the sum over the
/// lanes before it. The total is at least `wanted`.
#[inline(always)]
fn cross(value: u32, wanted: u32) -> (u32, u32) {
    let sum = inclusive_sum(value);
    let crossing = warp::ballot(warp::ALL, sum >= wanted).reverse_bits().leading_zeros();
    (crossing, warp::shuffle(warp::ALL, sum - value, crossing))
}

/// The sum of `value` over this lane and the lanes below.
#[inline(always)]
pub fn inclusive_sum(value: u32) -> u32 {
    let mut sum = value;
    for log2_distance in 0..warp::SIZE.ilog2() {
        sum = warp::add_up(warp::ALL, sum, 1 << log2_distance);
    }
    sum
}

/// Counts by the top bits of the half-precision key: `key16 >> SHIFT`.
pub struct CountHalf<const T: u32, const SHIFT: u32>(pub Histogram<T>);

impl<const T: u32, const SHIFT: u32> Visitor for CountHalf<T, SHIFT> {
    #[inline(always)]
    fn visit<const N: usize>(&mut self, tile: Tile<N>) {
        for element in 0..N {
            if tile.keys[element] != ABSENT {
                self.0.add(half_key(tile.keys[element]) >> SHIFT);
            }
        }
    }
}

/// Counts the highest digit of the keys from `floor` on: `key >> SHIFT`.
pub struct CountHighest<const T: u32, const SHIFT: u32> {
    /// Where to count.
    pub histogram: Histogram<T>,
    /// Keys below are left out; at least 1, which is above [`ABSENT`].
    pub floor: u32,
}

impl<const T: u32, const SHIFT: u32> Visitor for CountHighest<T, SHIFT> {
    #[inline(always)]
    fn visit<const N: usize>(&mut self, tile: Tile<N>) {
        for element in 0..N {
            if tile.keys[element] >= self.floor {
                self.histogram.add(tile.keys[element] >> SHIFT);
            }
        }
    }
}

/// Counts one digit of the keys that start with a given prefix.
pub struct CountDigit<const T: u32> {
    histogram: Histogram<T>,
    /// Those keys are an interval: it takes two instructions to tell that a key is outside.
    first: u32,
    last: u32,
    shift: u32,
    mask: u32,
}

impl<const T: u32> CountDigit<T> {
    /// Counts `key >> shift`, of which the lower `bits` bits are the digit and the others are `prefix`.
    #[inline(always)]
    pub fn new(histogram: Histogram<T>, prefix: u32, shift: u32, bits: u32) -> Self {
        let (first, last) = interval(prefix, shift + bits);
        Self { histogram, first, last, shift, mask: (1 << bits) - 1 }
    }
}

impl<const T: u32> Visitor for CountDigit<T> {
    #[inline(always)]
    fn visit<const N: usize>(&mut self, tile: Tile<N>) {
        let distance = self.last - self.first;
        for element in 0..N {
            if tile.keys[element].wrapping_sub(self.first) <= distance {
                self.histogram.add(tile.keys[element] >> self.shift & self.mask);
            }
        }
    }
}

/// The first and the last key with `key >> shift == prefix`, [`ABSENT`] left out; `shift` may be 32.
#[inline(always)]
pub fn interval(prefix: u32, shift: u32) -> (u32, u32) {
    // In 64 bits, where a shift by 32 is defined.
    let first = (u64::from(prefix) << shift) as u32;
    let last = first | ((1_u64 << shift) - 1) as u32;
    (first.max(ABSENT + 1), last)
}
