//! Selection among elements that one block keeps in registers, as half-precision values: up to 16,384.
//!
//! 1. Every element is counted in the bin of its half-precision value ([`half`]).
//! 2. The bin that holds the k-th largest is found.
//! 3. Elements above it go to the output; those in it, some dozens, are read once more and ranked.
//!
//! A pair of elements takes one register and one comparison. If the bin is crowded, its keys are told apart
//! by [`refine`](super::refine), which reads the elements again, from the cache they have just come through.
//!
//! The elements are those of a row, or those of a list.

use dsa_simt::{Global, block, half_pair_at_least, opaque};

use super::bins::{Bins, SignMagnitude, THREADS};
use super::half::{self, Bounds, LOWEST_BIN};
use super::output::{Staged, lowest_bit};
use super::refine::{Narrowed, Outcome, RANKED, Scratch};

/// Elements that a thread has side by side: one vector.
const VECTOR: u32 = 4;

/// What a thread holds of the elements.
pub trait Held {
    /// Vectors of all threads together.
    const VECTORS: u32;
    /// Reads the elements from vector `first` on, and counts them in the bins of their values.
    fn hold(places: impl Places, first: u32, bins: Bins) -> Self;
    /// Emits the elements.
    fn emit(&self, emission: &Emission<impl Places>);
}

/// A thread's elements, `N` pairs, at most 16: two to a vector, the vectors [`THREADS`] vectors apart.
pub struct Pairs<const N: usize> {
    /// Half-precision values; the negative infinity where there is no element.
    pub pairs: [u32; N],
    /// Place of the first element; wraps below zero.
    pub start: u32,
    /// Pairs that hold elements, in any thread of the block: the same for all threads.
    pub used: u32,
}

/// Where the elements are.
pub trait Places: Copy {
    /// This thread's pairs of the vectors from vector `first` on.
    fn pairs<const N: usize>(self, first: u32) -> Pairs<N>;
    /// The key of the element at a place.
    fn key(self, place: u32) -> u32;
    /// Its index in the row.
    fn index(self, place: u32) -> u32;
}

/// Writes the indices of the `out.len()` largest elements; there are more.
///
/// If the bin of the k-th largest is crowded, it is noted, and nothing is written: refining is the caller's
/// part, so that there is one copy of it for all sizes.
///
/// The bins are empty and the counters zero. Collective over the block; needs a block barrier before `scratch`
/// is used again.
#[inline(always)]
pub fn select<H: Held>(places: impl Places, out: Global<i32>, scratch: Scratch) -> Outcome {
    let Scratch { bins, ranked, .. } = scratch;
    let held = H::hold(places, 0, bins);
    block::sync();
    let wanted = out.len() as u32;
    let pick = bins.pick::<SignMagnitude>(wanted);
    if pick.count > RANKED || pick.bin == LOWEST_BIN {
        // The lowest bin also has the places without an element.
        let count = if pick.bin == LOWEST_BIN { Narrowed::UNCOUNTED } else { pick.count };
        scratch.note(Narrowed { range: half::keys(pick.bin), above: pick.above, count });
        return Outcome::Crowded;
    }
    let staged = scratch.staged();
    held.emit(&Emission { bounds: Bounds::of(pick.bin), places, staged, scratch });
    block::sync();
    ranked
        .rank::<THREADS>(pick.count, wanted - pick.above, |rank, index| staged.set(pick.above + rank, index));
    block::sync();
    staged.write::<THREADS>(out);
    Outcome::Done
}

/// Writes the indices of the elements above a bin, and lists those in it.
#[derive(Clone, Copy)]
pub struct Emission<P> {
    bounds: Bounds,
    places: P,
    staged: Staged,
    scratch: Scratch,
}

impl<const N: usize> Held for Pairs<N> {
    const VECTORS: u32 = N as u32 / 2 * THREADS;

    #[inline(always)]
    fn hold(places: impl Places, first: u32, bins: Bins) -> Self {
        let held = places.pairs::<N>(first);
        for vector in 0..N / 2 {
            if (2 * vector as u32) < held.used {
                let (a, b) = half::bins(held.pairs[2 * vector]);
                let (c, d) = half::bins(held.pairs[2 * vector + 1]);
                bins.add(a);
                bins.add(b);
                bins.add(c);
                bins.add(d);
            }
        }
        held
    }

    #[inline(always)]
    fn emit(&self, emission: &Emission<impl Places>) {
        const { assert!(N <= 16) };
        let Emission { bounds, places, staged, scratch: Scratch { counters, ranked, .. } } = *emission;
        // Bit `i` is the first element of pair `i`, bit `16 + i` the second.
        let (mut winners, mut selected) = (0, 0);
        for i in 0..N {
            winners |= half_pair_at_least(self.pairs[i], bounds.high) & 0x1_0001 << i;
            selected |= half_pair_at_least(self.pairs[i], bounds.low) & 0x1_0001 << i;
        }
        let start = opaque(self.start);
        let place = |bit: u32| start.wrapping_add(bit % 16 / 2 * THREADS * VECTOR + bit % 2 * 2 + bit / 16);
        let bit = |number| number / 2 + number % 2 * 16;
        staged.set_winners(counters, winners, 2 * N as u32, bit, |bit| places.index(place(bit)));
        let mut ties = selected & !winners;
        while ties != 0 {
            let place = place(lowest_bit(ties));
            ranked.add(counters.tie(), places.key(place), places.index(place));
            ties &= ties - 1;
        }
    }
}

/// Both, one after the other.
impl<A: Held, B: Held> Held for (A, B) {
    const VECTORS: u32 = A::VECTORS + B::VECTORS;

    #[inline(always)]
    fn hold(places: impl Places, first: u32, bins: Bins) -> Self {
        (A::hold(places, first, bins), B::hold(places, first + A::VECTORS, bins))
    }

    #[inline(always)]
    fn emit(&self, emission: &Emission<impl Places>) {
        self.0.emit(emission);
        self.1.emit(emission);
    }
}
