//! Sums over the threads of a block that come before a thread.

use dsa_simt::{AtomicOp, Carve, Shared, block, opaque, thread, warp};

use super::bins::THREADS;
use super::histogram::inclusive_sum;

/// Warps of a block.
pub(super) const WARPS: u32 = THREADS / warp::SIZE;
/// Sums that can be asked for at once.
const AT_ONCE: u32 = 2;

/// The sums of the warps of a block of [`THREADS`] threads.
#[derive(Clone, Copy)]
pub struct Sums(Shared<u32>);

impl Sums {
    /// Words of shared memory that [`Sums::carve`] takes.
    pub const WORDS: u32 = AT_ONCE * WARPS;

    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`Sums::WORDS`] words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        Self(unsafe { carve.array(Self::WORDS) })
    }

    /// For each of `values`, its sum over the threads before this one, and over all.
    ///
    /// Collective over the block: one barrier, and another before the next call.
    #[inline(always)]
    pub fn before<const N: usize>(self, values: [u32; N]) -> ([u32; N], [u32; N]) {
        let in_warp = self.offer(values);
        block::sync();
        self.complete(in_warp)
    }

    /// The first half of [`before`](Self::before), where the barrier is one that is needed for something else, too: the
    /// sums over the lanes before this one. Collective over the warp.
    #[inline(always)]
    pub fn offer<const N: usize>(self, values: [u32; N]) -> [u32; N] {
        const { assert!(N <= AT_ONCE as usize && WARPS <= warp::SIZE) };
        let mut before = [0; N];
        for i in 0..N {
            let sum = inclusive_sum(values[i]);
            before[i] = sum - values[i];
            if thread::lane() == warp::SIZE - 1 {
                self.set(i as u32, sum);
            }
        }
        before
    }

    /// Sets the first or second word of this warp. Called by one lane.
    #[inline(always)]
    pub fn set(self, word: u32, sum: u32) {
        self.0.set(word * WARPS + thread::warp(), sum);
    }

    /// Adds to a word of a warp.
    #[inline(always)]
    pub fn add(self, word: u32, warp: u32, number: u32) {
        self.0.reduce(AtomicOp::Add, word * WARPS + warp, number);
    }

    /// A word of a warp for each lane, of up to `words` words of all warps, one after the other; zero where there is none.
    #[inline(always)]
    pub fn of_lane(self, words: u32) -> u32 {
        let lane = opaque(thread::lane());
        if lane < words * WARPS { self.0.get(lane) } else { 0 }
    }

    /// The second half, of what [`offer`](Self::offer) returned, after the barrier. Collective over the warp.
    #[inline(always)]
    pub fn complete<const N: usize>(self, mut before: [u32; N]) -> ([u32; N], [u32; N]) {
        let (lane, warp) = (thread::lane(), thread::warp());
        let mut totals = [0; N];
        for i in 0..N {
            let sum = if lane < WARPS { self.0.get(i as u32 * WARPS + lane) } else { 0 };
            before[i] += warp::reduce_add(warp::ALL, if lane < warp { sum } else { 0 });
            totals[i] = warp::reduce_add(warp::ALL, sum);
        }
        (before, totals)
    }
}
