//! Loads, stores, shared vectors and the conversion to half precision.

use dsa_simt::{Carve, Global, Halves, Shared, block, copies, f16_to_f32, f32_to_f16, grid, thread};

#[inline(always)]
pub(crate) fn shared_vector(input: Global<u32>, out: Global<u32>) {
    let threads = block::threads();
    let mut carve = Carve::dynamic();
    // SAFETY: the launch has 2048 bytes: these 4, rounded up to 16, and the 1024 below.
    let _guard: Shared<u32> = unsafe { carve.array(1) };
    // SAFETY: as above; each thread writes its own four words, a barrier before the reads.
    let words: Shared<u32> = unsafe { carve.array(4 * threads) };
    let t = thread::index();
    let four = input.get4(4 * t as usize);
    words.set4(4 * t, four);
    block::sync();
    let other = threads - 1 - t;
    let [a, b, c, _] = words.get4(4 * other);
    // The fourth word alone, so that single and fourfold accesses are known to agree.
    let d = words.get(4 * other + 3);
    out.set4(4 * t as usize, [a, b, c, d]);
    if t == 0 {
        out.set(4 * threads as usize, carve.words_left());
    }
}

#[inline(always)]
pub(crate) fn copies(input: Global<u32>, halves: Halves, out: Global<u32>) {
    let threads = block::threads();
    // SAFETY: the launch has 2048 bytes; each thread copies to its own four words of each half, and waits for the copy,
    // and a barrier follows before others read.
    let words: Shared<u32> = unsafe { Carve::dynamic().array(8 * threads) };
    let t = thread::index();
    let (own, later) = (4 * t, 4 * (threads + t));
    input.copy4(own as usize, words, own);
    copies::group();
    halves.copy8(8 * t as usize, words, later);
    copies::group();
    copies::wait::<1>();
    out.set4(8 * t as usize, words.get4(own));
    copies::wait::<0>();
    block::sync();
    out.set4(8 * t as usize + 4, words.get4(4 * (2 * threads - 1 - t)));
}

#[inline(always)]
pub(crate) fn load(input: Global<u32>, out: Global<u32>) {
    let t = thread::index() as usize;
    let first = 11 * t;
    let slice = input.slice(4 * t, 4);
    let [a, b, c, d] = input.get4(4 * t);
    let [e, f, g, h] = slice.get4_readonly(0);
    out.set(first, input.get(4 * t + 1));
    out.set(first + 1, input.get_readonly(4 * t + 2));
    out.set(first + 2, slice.get(3));
    out.set(first + 3, a);
    out.set(first + 4, b);
    out.set(first + 5, c);
    out.set(first + 6, d);
    out.set(first + 7, e);
    out.set(first + 8, f);
    out.set(first + 9, g);
    out.set(first + 10, h);
}

#[inline(always)]
pub(crate) fn store(input: Global<u32>, out: Global<u32>) {
    let t = thread::index() as usize;
    out.set4(4 * t, input.get4_readonly(4 * t));
}

#[inline(always)]
pub(crate) fn overlapping(from: Global<u32>, to: Global<u32>) {
    grid::wait_for_earlier();
    grid::let_later_start();
    let stride = (block::count() * block::threads()) as usize;
    let mut i = (block::index() * block::threads() + thread::index()) as usize;
    while i < to.len() {
        let other = to.len() - 1 - i;
        let word = if i.is_multiple_of(2) { from.get(other) } else { from.get_readonly(other) };
        to.set(i, word.wrapping_add(1));
        i += stride;
    }
}

#[inline(always)]
pub(crate) fn half(input: Global<f32>, out: Global<u32>) {
    let stride = (block::count() * block::threads()) as usize;
    let mut i = (block::index() * block::threads() + thread::index()) as usize;
    while i < input.len() {
        out.set(i, u32::from(f32_to_f16(input.get(i))));
        i += stride;
    }
}

#[inline(always)]
pub(crate) fn halves(input: Halves, copy: Halves, wide: Global<f32>, words: Global<u32>) {
    let stride = (block::count() * block::threads()) as usize;
    let mut i = (block::index() * block::threads() + thread::index()) as usize;
    while i < input.len() {
        let half = input.get_readonly(i);
        copy.set(i, half);
        wide.set(i, f16_to_f32(half));
        if i.is_multiple_of(8) {
            words.set4(i / 2, input.get8_readonly(i));
        }
        i += stride;
    }
}
