//! A list in shared memory of the elements that are not decided yet: those of the bin that holds the k-th
//! largest, in the large path also those above it.
//!
//! The list is a cache: a path knows from its histogram how many elements there are, and uses the list only
//! if all of them fit. Otherwise it refines over the row itself.

use dsa_simt::{Carve, Global, Shared, thread, warp};

use super::histogram::Histogram;
use super::key::ABSENT;
use super::output::{Counters, TieSink};
use super::radix;
use super::source::{Source, Tile, Visitor};

/// Most candidates that the list holds.
pub const CAPACITY: u32 = 4096;
/// Words of shared memory that [`Candidates::carve`] takes.
pub const WORDS: u32 = 2 * CAPACITY;
/// Up to this many candidates are ranked by comparing all pairs, which takes no barrier.
const RANKED: u32 = 512;
/// Threads that share the comparisons of one candidate: with about a hundred candidates, the usual number,
/// most of the block has something to do.
const SHARERS: u32 = 8;

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
    /// As for [`Carve::array`], for [`WORDS`] words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { Self { keys: carve.array(CAPACITY), indices: carve.array(CAPACITY) } }
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
            self.rank::<T>(count, wanted, out, position);
        } else {
            radix::select(&self.first::<T>(count), wanted, out, position, histogram, counters);
        }
    }

    /// The first `count` candidates, as elements to visit.
    #[inline(always)]
    pub fn first<const T: u32>(self, count: u32) -> Listed<T> {
        Listed { candidates: self, count }
    }

    /// A candidate's rank is the number of candidates before it, equal keys in the order of their index; the
    /// first `wanted` ranks are written.
    #[inline(always)]
    fn rank<const T: u32>(self, count: u32, wanted: u32, out: Global<i32>, position: u32) {
        let share = thread::index() % SHARERS;
        let mut candidate = thread::index() / SHARERS;
        // Whole warps stop together: the shuffles need all lanes.
        while candidate - thread::lane() / SHARERS < count {
            let listed = candidate < count;
            let mut before = 0;
            if listed {
                let key = self.keys.get(candidate);
                let index = self.indices.get(candidate);
                let mut other = share;
                while other < count {
                    let other_key = self.keys.get(other);
                    let earlier = other_key == key && self.indices.get(other) < index;
                    before += u32::from(other_key > key || earlier);
                    other += SHARERS;
                }
            }
            let mut distance = 1;
            while distance < SHARERS {
                before += warp::shuffle_xor(warp::ALL, before, distance);
                distance *= 2;
            }
            if listed && share == 0 && before < wanted {
                out.set((position + before) as usize, self.indices.get(candidate).cast_signed());
            }
            candidate += T / SHARERS;
        }
    }
}

impl TieSink for Candidates {
    const WANTS_KEYS: bool = true;

    #[inline(always)]
    fn take(&mut self, number: u32, key: u32, index: u32) {
        self.keys.set(number, key);
        self.indices.set(number, index);
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
            visitor.visit(Tile { keys: [key], start: index, stride: 0 });
            candidate += T;
        }
    }
}
