//! Where the selected scores of a row in registers go, in the order of the indices.
//!
//! Vector `v` of all threads are neighbours in the row, and come before every vector `v + 1`. So a score comes after those
//! that are selected of earlier vectors, and of its own vector in lower warps and in lower lanes. A warp counts for each of
//! its vectors, in fields of a word: one prefix sum in the warp and sums over the warps serve all of them. What the warps
//! have can be counted while it is not all known, and completed by single scores: so no barrier is needed for that alone.

use core::marker::PhantomData;

use dsa_simt::{AtomicOp, Shared, opaque, thread, warp};

use super::bins::THREADS;
use super::element::Element;
use super::histogram::inclusive_sum;
use super::output::Staged;
use super::prefix::Sums;
use super::resident::Held;
use super::scores::index;

/// The selected scores of a block's row: a word for each thread, and how many there are in each warp.
pub struct Runs<E: Element, H: Held<E>> {
    selected: Shared<u32>,
    sums: Sums,
    of: PhantomData<(E, H)>,
}

impl<E: Element, H: Held<E>> Runs<E, H> {
    /// Scores of a thread whose counts share a word.
    const PER_WORD: u32 = if H::SCORES < 16 { H::SCORES } else { 16 };
    /// Words for the counts of a thread.
    const WORDS: u32 = H::SCORES / Self::PER_WORD;
    /// Fields of a word, one for each vector, of which there may be one only.
    const FIELDS: u32 = if E::PER_VECTOR < Self::PER_WORD { Self::PER_WORD / E::PER_VECTOR } else { 2 };
    /// Bits of a field: enough for the scores of a warp.
    const FIELD: u32 = u32::BITS / Self::FIELDS;

    /// With the thread's word in `selected`, and `sums` for the counts.
    #[inline(always)]
    pub fn new(selected: Shared<u32>, sums: Sums) -> Self {
        const { assert!(warp::SIZE * E::PER_VECTOR < 1 << Self::FIELD) };
        Self { selected, sums, of: PhantomData }
    }

    /// Notes which of the thread's scores are selected for certain, as bits. Collective over the block; a block barrier before
    /// anything is added.
    #[inline(always)]
    pub fn note(&self, certain: u32) {
        self.selected.set(opaque(thread::index()), certain);
        for i in 0..const { Self::WORDS } {
            let all = warp::reduce_add(warp::ALL, Self::counts(certain >> (i * Self::PER_WORD)));
            if thread::lane() == 0 {
                self.sums.set(i, all);
            }
        }
    }

    /// Adds the score at a place of the row.
    #[inline(always)]
    pub fn add(&self, place: u32) {
        let vector = place / E::PER_VECTOR;
        let (of_thread, thread) = (vector / THREADS, vector % THREADS);
        let number = of_thread * E::PER_VECTOR + place % E::PER_VECTOR;
        self.selected.reduce(AtomicOp::Or, thread, 1 << number);
        let field = of_thread % Self::FIELDS * Self::FIELD;
        self.sums.add(number / Self::PER_WORD, thread / warp::SIZE, 1 << field);
    }

    /// Stages the indices of all that are selected, in order; the first of the thread's would be `start`. Collective over the
    /// block, after a block barrier; needs one before what is staged is read.
    #[inline(always)]
    pub fn stage(&self, start: u32, staged: Staged) {
        let selected = self.selected.get(opaque(thread::index()));
        let (field_mask, parts) =
            (const { u32::MAX >> (u32::BITS - Self::FIELD) }, const { Self::FIELDS / 2 });
        let mut next = 0;
        for i in 0..const { Self::WORDS } {
            let own = Self::counts(selected >> (i * Self::PER_WORD));
            let in_lanes = inclusive_sum(own) - own;
            let of_warp = self.sums.get(i, opaque(thread::lane()));
            // Half a word for each sum over warps.
            let (mut before, mut all) = ([0; 2], [0; 2]);
            for part in 0..parts {
                let counts = of_warp >> (part * Self::FIELD) & (field_mask | field_mask << u16::BITS);
                let is_before = thread::lane() < thread::warp();
                before[part as usize] = warp::reduce_add(warp::ALL, if is_before { counts } else { 0 });
                all[part as usize] = warp::reduce_add(warp::ALL, counts);
            }
            for field in 0..const { Self::PER_WORD / E::PER_VECTOR } {
                let (part, half) = (field % parts, field / parts * u16::BITS);
                let of_vectors = |sums: [u32; 2]| sums[part as usize] >> half & 0xffff;
                let in_lanes = in_lanes >> (field * Self::FIELD) & field_mask;
                let first = i * Self::PER_WORD + field * E::PER_VECTOR;
                let position = next + of_vectors(before) + in_lanes;
                staged.set_reserved(selected >> first, E::PER_VECTOR, position, |bit| {
                    index::<E>(start, first + bit)
                });
                next += of_vectors(all);
            }
        }
    }

    /// How many of the first scores are selected of each vector, in fields.
    #[inline(always)]
    fn counts(selected: u32) -> u32 {
        let selected = selected & const { u32::MAX >> (u32::BITS - Self::PER_WORD) };
        if const { E::PER_VECTOR == Self::PER_WORD } {
            return selected.count_ones();
        }
        let twos = (selected & 0x5555) + (selected >> 1 & 0x5555);
        let fours = (twos & 0x3333) + (twos >> 2 & 0x3333);
        if const { E::PER_VECTOR == 8 } {
            let eights = (fours + (fours >> 4)) & 0x0f0f;
            (eights | eights << 8) & 0x00ff_00ff
        } else if const { Self::FIELDS == 2 } {
            (fours | fours << 12) & 0x000f_000f
        } else {
            let bytes = (fours | fours << 8) & 0x00ff_00ff;
            (bytes | bytes << 4) & 0x0f0f_0f0f
        }
    }
}
