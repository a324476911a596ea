//! Exact selection by radix: four rounds of eight bits over the 32-bit keys, by one block.
//!
//! Works for every source and every distribution, at the price of one visit per round and one for the
//! emission. It ends early when all elements that share the digits found so far are wanted.

use dsa_simt::{Global, block, thread};

use super::histogram::{CountDigit, Histogram};
use super::output::{Counters, Emit, FirstTies, KeyThreshold};
use super::source::Source;

const DIGIT_BITS: u32 = 8;
const BINS: u32 = 1 << DIGIT_BITS;

/// Writes the indices of the `wanted` largest elements of `source` to `out`, from `position` on.
///
/// The source has at least `wanted >= 1` elements. Collective over the block. Needs a block barrier before
/// `histogram` or `counters` are written again.
#[inline(always)]
pub fn select<const T: u32>(
    source: &impl Source,
    wanted: u32,
    out: Global<i32>,
    position: u32,
    histogram: Histogram<T>,
    counters: Counters,
) {
    let (mut prefix, mut shift, mut still_wanted) = (0, u32::BITS, wanted);
    while shift > 0 {
        shift -= DIGIT_BITS;
        block::sync();
        histogram.zero::<BINS>();
        block::sync();
        source.visit(&mut CountDigit::new(histogram, prefix, shift, DIGIT_BITS));
        block::sync();
        let pick = histogram.pick::<BINS>(still_wanted);
        prefix = prefix << DIGIT_BITS | pick.bin;
        still_wanted -= pick.above;
        if pick.count == still_wanted {
            break;
        }
    }
    if thread::index() == 0 {
        counters.start(0, 0);
    }
    block::sync();
    let out = out.slice(position as usize, wanted as usize);
    let ties = FirstTies { out, position: wanted - still_wanted, wanted: still_wanted };
    source.visit(&mut Emit { threshold: KeyThreshold::new(prefix, shift), counters, out, ties });
}
