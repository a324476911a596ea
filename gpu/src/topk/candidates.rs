//! A list in shared memory of the elements that are not decided yet: those of the bin that holds the k-th
//! largest, in the large path also those above it.
//!
//! The list is a cache: a path knows from its histogram how many elements there are, and uses the list only
//! if all of them fit. Otherwise it refines over the row itself.

use dsa_simt::{Carve, Global, Shared, opaque, thread, warp};

use super::histogram::Histogram;
use super::key::ABSENT;
use super::output::{Counters, TieSink};
use super::radix;
use super::source::{Source, Tile, Visitor};

/// Most candidates of a block's own list.
pub const CAPACITY: u32 = 4096;
/// Words of shared memory that [`Candidates::carve`] takes for a list of up to `capacity`, a multiple of 4.
pub const fn words(capacity: u32) -> u32 {
    2 * capacity
}
/// Up to this many candidates are ranked by comparing all pairs, which takes no barrier.
const RANKED: u32 = 512;

/// Which of two candidates with the same key is before the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TieBreak {
    /// The one with the lower index.
    Index,
    /// The one at the lower place of the list.
    Place,
}

/// A list of keys and of the indices they came from.
#[derive(Clone, Copy)]
pub struct Candidates {
    keys: Shared<u32>,
    indices: Shared<u32>,
}

impl Candidates {
    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`words`]`(capacity)` words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve, capacity: u32) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { Self { keys: carve.array(capacity), indices: carve.array(capacity) } }
    }

    /// In the first [`words`]`(capacity)` of `words`.
    #[inline(always)]
    pub fn within(words: Shared<u32>, capacity: u32) -> Self {
        Self { keys: words.part(0, capacity), indices: words.part(capacity, capacity) }
    }

    /// Writes place `number` of the list.
    #[inline(always)]
    pub fn add(self, number: u32, key: u32, index: u32) {
        self.keys.set(number, key);
        self.indices.set(number, index);
    }

    /// The key and the index at place `number`.
    #[inline(always)]
    pub fn get(self, number: u32) -> (u32, u32) {
        (self.keys.get(number), self.indices.get(number))
    }

    /// The key at place `number` of the list that block `rank` of the cluster has in the same place.
    #[inline(always)]
    pub fn key_at_rank(self, rank: u32, number: u32) -> u32 {
        self.keys.at_rank(rank).get(number)
    }

    /// The index there.
    #[inline(always)]
    pub fn index_at_rank(self, rank: u32, number: u32) -> u32 {
        self.indices.at_rank(rank).get(number)
    }

    /// Writes the indices of the `wanted` largest of the first `count` candidates to `out`, from `position`
    /// on.
    ///
    /// `1 <= wanted <= count <= CAPACITY`. Collective over the block, after a block barrier that ends the
    /// collection; needs one before the list, `histogram` or `counters` are written again.
    #[inline(always)]
    pub fn select<const T: u32>(
        self,
        count: u32,
        wanted: u32,
        out: Global<i32>,
        position: u32,
        histogram: Histogram<T>,
        counters: Counters,
    ) {
        if count <= RANKED {
            let put = |rank, index: u32| out.set((position + rank) as usize, index.cast_signed());
            self.rank::<T>(count, wanted, put);
        } else {
            radix::select(&self.first::<T>(count), wanted, out, position, histogram, counters);
        }
    }

    /// The first `count` candidates, as elements to visit.
    #[inline(always)]
    pub fn first<const T: u32>(self, count: u32) -> Listed<T> {
        Listed { candidates: self, count }
    }

    /// A candidate's rank is the number of candidates before it, equal keys in the order of their index; `put`
    /// is called with the first `wanted` ranks and their indices.
    ///
    /// Collective over the block, after a block barrier that ends the collection.
    #[inline(always)]
    pub fn rank<const T: u32>(self, count: u32, wanted: u32, mut put: impl FnMut(u32, u32)) {
        // The assembler puts what follows `else` first.
        if count > warp::SIZE {
            self.rank_some::<T, 4>(0, count, count, wanted, TieBreak::Index, &mut put);
        } else {
            self.rank_few::<T>(count, wanted, put);
        }
    }

    /// The same if there is a lane for each candidate.
    #[inline(always)]
    pub fn rank_few<const T: u32>(self, count: u32, wanted: u32, mut put: impl FnMut(u32, u32)) {
        let warps = const { T / warp::SIZE };
        // A warp to each candidate, or to two of them.
        const { assert!(2 * (T / warp::SIZE) >= warp::SIZE) };
        // Opaque: not held in registers from before.
        let (lane, warp) = (opaque(thread::lane()), opaque(thread::warp()));
        if warp >= count {
            return;
        }
        let number = |of_warp: u32| (warp + of_warp * warps).min(count - 1);
        let own = place(self.get(lane.min(count - 1)));
        let candidates = [place(self.get(number(0))), place(self.get(number(1)))];
        let before =
            candidates.map(|candidate| warp::ballot(warp::ALL, lane < count && own > candidate).count_ones());
        let (rank, index) = if lane == 0 {
            (before[0], !(candidates[0] as u32))
        } else {
            (before[1], !(candidates[1] as u32))
        };
        if lane < 2 && warp + lane * warps < count && rank < wanted {
            put(rank, index);
        }
    }

    /// As [`rank`](Self::rank), but `put` is called for the candidates `first..end` only, of which a warp ranks `AT_ONCE`
    /// together: for a few of many. For a tie break by places, the list needs no indices but theirs.
    #[inline(always)]
    pub fn rank_some<const T: u32, const AT_ONCE: usize>(
        self,
        first: u32,
        end: u32,
        count: u32,
        wanted: u32,
        tie_break: TieBreak,
        put: &mut impl FnMut(u32, u32),
    ) {
        let order_of = |number: u32| {
            let lower = if tie_break == TieBreak::Index { self.indices.get(number) } else { number };
            place((self.keys.get(number), lower))
        };
        // A lane to each of the others. The comparisons of a warp's candidates do not wait for each other.
        let at_once = const { AT_ONCE as u32 };
        let lane = opaque(thread::lane());
        let mut first = first + thread::warp() * at_once;
        while first < end {
            let mut candidates = [0; AT_ONCE];
            for i in 0..AT_ONCE {
                candidates[i] = order_of((first + i as u32).min(end - 1));
            }
            let mut before = [0; AT_ONCE];
            let mut other = lane;
            while other < count {
                let of_other = order_of(other);
                for i in 0..AT_ONCE {
                    before[i] += u32::from(of_other > candidates[i]);
                }
                other += warp::SIZE;
            }
            // A lane to each of the warp's candidates.
            let mut rank = 0;
            for i in 0..AT_ONCE {
                let before = warp::reduce_add(warp::ALL, before[i]);
                if lane == i as u32 {
                    rank = before;
                }
            }
            let own = first + lane;
            if lane < at_once && own < end && rank < wanted {
                put(rank, self.indices.get(own));
            }
            first += const { AT_ONCE as u32 * (T / warp::SIZE) };
        }
    }
}

/// One number to compare candidates by: higher keys first, then lower indices, or places.
#[inline(always)]
fn place((key, lower): (u32, u32)) -> u64 {
    u64::from(key) << u32::BITS | u64::from(!lower)
}

impl TieSink for Candidates {
    const WANTS_KEYS: bool = true;

    #[inline(always)]
    fn take(&mut self, number: u32, key: u32, index: u32) {
        self.add(number, key, index);
    }
}

/// The first so many candidates, visited by a block of `T` threads.
pub struct Listed<const T: u32> {
    candidates: Candidates,
    count: u32,
}

impl<const T: u32> Source for Listed<T> {
    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        let mut candidate = thread::index();
        // Whole warps stop together: the visitor may contain warp collectives.
        while candidate - thread::lane() < self.count {
            let (key, index) = if candidate < self.count {
                (self.candidates.keys.get(candidate), self.candidates.indices.get(candidate))
            } else {
                (ABSENT, 0)
            };
            visitor.visit(Tile { keys: [key], start: index, step: 1, stride: 0 });
            candidate += T;
        }
    }
}
