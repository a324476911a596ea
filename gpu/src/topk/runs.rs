//! Where the selected scores of a row go that a block has in its registers, in the order of their indices.
//!
//! A thread holds runs of neighbouring scores, its vectors. Its run `r` comes after those of all threads before it, and before
//! every run `r + 1`. It notes which scores are selected, as bits, and each warp how many there are of each run, in fields of a
//! word. Then each thread takes as many scores as it holds, but such as follow each other: a few threads' bits of one run. How
//! many are selected before those of a warp, it adds up from the counts, some runs of all warps and one of some: one sum over
//! lanes.
//!
//! What is certain is noted while not all is known, and completed by what is selected later: so no barrier is needed for that
//! alone.

use core::marker::PhantomData;

use dsa_simt::{AtomicOp, Shared, opaque, thread, warp};

use super::bins::THREADS;
use super::element::Element;
use super::histogram::inclusive_sum;
use super::prefix::{self, Sums};
use super::resident::Held;

/// What is selected: a word for each thread, and how much there is of each run in each warp.
pub struct Runs<E: Element, H: Held<E>> {
    selected: Shared<u32>,
    sums: Sums,
    of: PhantomData<(E, H)>,
}

/// Selected ones of a thread's neighbouring places.
pub struct Selected {
    /// As bits: the first place is the lowest.
    pub bits: u32,
    /// The first place.
    pub first: u32,
    /// How many are selected of all places before it.
    pub position: u32,
}

impl<E: Element, H: Held<E>> Runs<E, H> {
    /// Runs of a thread, which are its vectors.
    const RUNS: u32 = H::SCORES / E::PER_VECTOR;
    /// Places of a thread.
    const PLACES: u32 = Self::RUNS * E::PER_VECTOR;
    /// Bits of a field: enough for the places of a warp.
    const FIELD: u32 = if Self::RUNS <= 2 || warp::SIZE * E::PER_VECTOR >= 1 << 8 { 16 } else { 8 };
    /// Fields of a word.
    const FIELDS: u32 = u32::BITS / Self::FIELD;
    /// Words for the counts of a thread.
    const WORDS: u32 = Self::RUNS.div_ceil(Self::FIELDS);
    /// Places of a thread whose counts share a word.
    const OF_WORD: u32 = Self::PLACES / Self::WORDS;

    /// With the thread's word in `selected`, and `sums` for the counts.
    #[inline(always)]
    pub fn new(selected: Shared<u32>, sums: Sums) -> Self {
        const {
            assert!(Self::RUNS.is_power_of_two() && E::PER_VECTOR.is_power_of_two());
            assert!(Self::PLACES <= u32::BITS && Self::WORDS * prefix::WARPS <= warp::SIZE);
            assert!(Self::RUNS <= prefix::WARPS);
        };
        Self { selected, sums, of: PhantomData }
    }

    /// Notes which of the thread's places are selected for certain, as bits. Collective over the block; a block barrier before
    /// anything is added.
    #[inline(always)]
    pub fn note(&self, certain: u32) {
        self.selected.set(opaque(thread::index()), certain);
        for word in 0..const { Self::WORDS } {
            let counts = Self::counts(certain >> (word * const { Self::OF_WORD }));
            let all = warp::reduce_add(warp::ALL, counts);
            if thread::lane() == 0 {
                self.sums.set(word, all);
            }
        }
    }

    /// Adds a place.
    #[inline(always)]
    pub fn add(&self, place: u32) {
        let vector = place / E::PER_VECTOR;
        let (run, thread) = (vector / THREADS, vector % THREADS);
        self.selected.reduce(AtomicOp::Or, thread, 1 << (run * E::PER_VECTOR + place % E::PER_VECTOR));
        let count = const { 1 << (u32::BITS - Self::FIELD) } >> (run % Self::FIELDS * Self::FIELD);
        self.sums.add(run / Self::FIELDS, thread / warp::SIZE, count);
    }

    /// What is selected of as many neighbouring places as a thread holds. Collective over the block, after a block barrier.
    #[inline(always)]
    pub fn neighbours(&self) -> Selected {
        let (lane, warp, thread) = (opaque(thread::lane()), opaque(thread::warp()), opaque(thread::index()));
        // As many threads as there are runs, and where they have the places.
        let run = thread / const { THREADS / Self::RUNS };
        let holder = thread % const { THREADS / Self::RUNS } * Self::RUNS;
        let mut words = [0; 8];
        if const { Self::RUNS < 4 } {
            for i in 0..Self::RUNS {
                words[i as usize] = self.selected.get(holder + i);
            }
        }
        for group in 0..const { Self::RUNS / 4 } {
            let four = self.selected.get4(holder + 4 * group);
            for i in 0..4 {
                words[(4 * group + i) as usize] = four[i as usize];
            }
        }
        // The counts of the warps: a lane for each word.
        let counts = self.sums.of_lane(const { Self::WORDS });
        let mut bits = 0;
        for i in 0..Self::RUNS {
            let of_run = words[i as usize] >> (run * E::PER_VECTOR);
            bits |= (of_run & const { u32::MAX >> (u32::BITS - E::PER_VECTOR) }) << (i * E::PER_VECTOR);
        }
        // Of warps that hold places before those of this one, the runs up to and with this one, of the others those before it.
        let lower = warp % const { prefix::WARPS / Self::RUNS } * Self::RUNS;
        let runs = warp / const { prefix::WARPS / Self::RUNS } + u32::from(lane % prefix::WARPS < lower);
        let earlier = if const { Self::WORDS == 1 } { 0 } else { lane / prefix::WARPS * Self::FIELDS };
        let fields = runs.saturating_sub(earlier).min(Self::FIELDS);
        let before = (u64::from(counts) << (fields * Self::FIELD) >> u32::BITS) as u32;
        let before = warp::reduce_add(warp::ALL, Self::sum_of_fields(before));
        let own = bits.count_ones();
        let position = before + inclusive_sum(own) - own;
        Selected { bits, first: thread * Self::PLACES, position }
    }

    /// How many of the first places are selected of each run, in fields: of the first run in the highest one.
    #[inline(always)]
    fn counts(selected: u32) -> u32 {
        const { assert!(Self::RUNS == 1 || E::PER_VECTOR == 4 || E::PER_VECTOR == 8) };
        // As many of a run, but those of the last run first.
        let selected = selected.reverse_bits() >> const { u32::BITS - Self::OF_WORD };
        if const { Self::RUNS == 1 } {
            return selected.count_ones() << const { u32::BITS - Self::FIELD };
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

    /// The sum of a word's fields.
    #[inline(always)]
    fn sum_of_fields(counts: u32) -> u32 {
        let halves = if const { Self::FIELD == 8 } {
            (counts & 0x00ff_00ff) + (counts >> 8 & 0x00ff_00ff)
        } else {
            counts
        };
        (halves & 0xffff) + (halves >> u16::BITS)
    }
}
