//! Selection by one block in two levels: bins of the half-precision key, then the one bin that matters.
//!
//! 1. A histogram counts the top bits of the half-precision keys.
//! 2. All warps find the bin of the k-th largest.
//! 3. Elements above it go to the output, its own elements become candidates.
//! 4. The candidates are ranked exactly on their 32-bit keys. If the bin holds more than fit, radix over the
//!    source takes over instead of steps 3 and 4: no element is ever dropped.
//!
//! Shared memory: the histogram is zeroed before barrier 1, counted until barrier 2 and read from there on;
//! barrier 3 is inside `pick`; candidates are written until barrier 4 and read after it.

use dsa_simt::{Carve, Global, block, thread};

use super::candidates::{self, CAPACITY, Candidates};
use super::histogram::{self, CountHalf, Histogram};
use super::output::{Counters, Emit, HalfThreshold};
use super::radix;
use super::source::Source;

/// What a block that works alone on a row keeps in shared memory.
#[derive(Clone, Copy)]
pub struct BlockScratch<const T: u32> {
    histogram: Histogram<T>,
    counters: Counters,
    candidates: Candidates,
}

/// Bytes of shared memory of a [`BlockScratch`].
pub const SCRATCH_BYTES: u32 = 4 * (histogram::WORDS + Counters::WORDS + candidates::words(CAPACITY));

impl<const T: u32> BlockScratch<T> {
    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`SCRATCH_BYTES`] bytes.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        unsafe {
            Self {
                histogram: Histogram::carve(carve),
                counters: Counters::carve(carve),
                candidates: Candidates::carve(carve, CAPACITY),
            }
        }
    }
}

/// Writes the indices of the `out.len()` largest elements of `source`, which has more than that.
///
/// The first level has `BINS` bins, the half-precision key shifted right by `SHIFT`. Collective over the
/// block; needs a block barrier before `scratch` is used again.
#[inline(always)]
pub fn select<const T: u32, const BINS: u32, const SHIFT: u32>(
    source: &impl Source,
    out: Global<i32>,
    scratch: BlockScratch<T>,
) {
    const { assert!(BINS << SHIFT == 1 << 16) };
    let BlockScratch { histogram, counters, candidates } = scratch;
    let wanted = out.len() as u32;
    histogram.zero::<BINS>();
    if thread::index() == 0 {
        counters.start(0, 0);
    }
    block::sync();
    source.visit(&mut CountHalf::<T, SHIFT>(histogram));
    block::sync();
    let pick = histogram.pick::<BINS>(wanted);
    if pick.count > CAPACITY {
        radix::select(source, wanted, out, 0, histogram, counters);
        return;
    }
    let threshold = HalfThreshold::<SHIFT> { bin: pick.bin };
    source.visit(&mut Emit { threshold, counters, out, ties: candidates });
    block::sync();
    candidates.select(pick.count, wanted - pick.above, out, pick.above, histogram, counters);
}
