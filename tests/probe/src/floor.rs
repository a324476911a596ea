//! The floors of the benchmark: reading everything, and copying everything, with next to no computation.

use dsa_simt::{Global, block, thread, warp};

/// Independent 16-byte loads that each thread has in flight.
const IN_FLIGHT: usize = 4;

/// Folds all of `data` into one wrapping sum per warp.
#[inline(always)]
pub(crate) fn read_all(data: Global<u32>, sums: Global<u32>) {
    let vectors = data.len() / 4;
    let stride = (block::count() * block::threads()) as usize;
    let first = (block::index() * block::threads() + thread::index()) as usize;
    let mut sum = 0u32;
    let mut next = first;
    while next + (IN_FLIGHT - 1) * stride < vectors {
        let a = data.get4_readonly(4 * next);
        let b = data.get4_readonly(4 * (next + stride));
        let c = data.get4_readonly(4 * (next + 2 * stride));
        let d = data.get4_readonly(4 * (next + 3 * stride));
        sum = sum.wrapping_add(fold(a)).wrapping_add(fold(b)).wrapping_add(fold(c)).wrapping_add(fold(d));
        next += IN_FLIGHT * stride;
    }
    // At most three vectors are left; all are requested before the first is used.
    let at = |vector: usize| {
        if vector < vectors { data.get4_readonly(4 * vector) } else { [0; 4] }
    };
    let (a, b, c) = (at(next), at(next + stride), at(next + 2 * stride));
    sum = sum.wrapping_add(fold(a)).wrapping_add(fold(b)).wrapping_add(fold(c));
    let rest = 4 * vectors + first;
    if rest < data.len() {
        sum = sum.wrapping_add(data.get_readonly(rest));
    }
    let sum = warp::reduce_add(warp::ALL, sum);
    if thread::lane() == 0 {
        sums.set(first / warp::SIZE as usize, sum);
    }
}

#[inline(always)]
fn fold(words: [u32; 4]) -> u32 {
    words[0].wrapping_add(words[1]).wrapping_add(words[2]).wrapping_add(words[3])
}

/// Copies `from` to `to`, whole vectors of 16 bytes.
#[inline(always)]
pub(crate) fn copy_all(from: Global<u32>, to: Global<u32>) {
    let vectors = from.len() / 4;
    let stride = (block::count() * block::threads()) as usize;
    let mut next = (block::index() * block::threads() + thread::index()) as usize;
    while next + (IN_FLIGHT - 1) * stride < vectors {
        let at = |i: usize| 4 * (next + i * stride);
        // All are requested before the first is stored.
        let (a, b, c, d) = (
            from.get4_readonly(at(0)),
            from.get4_readonly(at(1)),
            from.get4_readonly(at(2)),
            from.get4_readonly(at(3)),
        );
        to.set4(at(0), a);
        to.set4(at(1), b);
        to.set4(at(2), c);
        to.set4(at(3), d);
        next += IN_FLIGHT * stride;
    }
    while next < vectors {
        to.set4(4 * next, from.get4_readonly(4 * next));
        next += stride;
    }
}
