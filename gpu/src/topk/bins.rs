//! A histogram of 4,096 bins in shared memory, and the bin in which the k-th largest element lies.
//!
//! One bin per element and one shared atomic: the hardware merges equal bins of a warp, so that crowded bins
//! cost no more than spread ones. [`Bins::pick`] takes two block barriers: the warps' sums go to all warps
//! below with one atomic each, and only the one warp whose bins hold the element looks closer.
//! [`Bins::accumulate`] is for several blocks: with running sums, what is in all bins from any one on is known at once.

use dsa_simt::{AtomicOp, Carve, Shared, block, opaque, thread, warp};

use super::histogram::{Pick, inclusive_sum};
use super::prefix::Sums;

/// Threads of a block that uses [`Bins`].
pub const THREADS: u32 = 512;
/// Number of bins.
pub const COUNT: u32 = 1 << BITS;
/// Bits of a bin's number.
pub const BITS: u32 = 12;
/// Words of shared memory that [`Bins::carve`] takes.
pub const WORDS: u32 = COUNT + NOT_COUNTED + warp::SIZE + PICKED;
/// Places of a stretch that [`Bins::accumulate`] gives the sum of.
pub const STRETCH: u32 = 32;
/// Number of stretches.
pub const STRETCHES: u32 = COUNT / STRETCH;
/// Bins that a thread reads at once.
const GROUP: u32 = 4;
const GROUPS: u32 = COUNT / GROUP;
const PICKED: u32 = 4;
/// A word behind the bins for what is not counted, rounded up to 16 bytes.
const NOT_COUNTED: u32 = 4;

/// How the numbers of the bins follow the order of the elements.
pub trait BinOrder {
    /// The first of the four bins of group `group`, of which group 0 has the highest elements, and whether
    /// their elements ascend with their numbers.
    fn group(group: u32) -> (u32, bool);

    /// The bin at place `place` from the highest elements down, which is also the place of bin `place`.
    fn at(place: u32) -> u32;
}

/// Higher numbers, larger elements.
pub struct Ascending;

impl BinOrder for Ascending {
    #[inline(always)]
    fn group(group: u32) -> (u32, bool) {
        ((GROUPS - 1 - group) * GROUP, true)
    }

    #[inline(always)]
    fn at(place: u32) -> u32 {
        COUNT - 1 - place
    }
}

/// The numbers are the leading bits of a sign and a magnitude: those of the upper half descend.
pub struct SignMagnitude;

impl BinOrder for SignMagnitude {
    #[inline(always)]
    fn group(group: u32) -> (u32, bool) {
        let positive = group < GROUPS / 2;
        let group = if positive { GROUPS / 2 - 1 - group } else { group };
        (group * GROUP, positive)
    }

    #[inline(always)]
    fn at(place: u32) -> u32 {
        if place < COUNT / 2 { COUNT / 2 - 1 - place } else { place }
    }
}

/// The histogram of a block.
#[derive(Clone, Copy)]
pub struct Bins {
    counts: Shared<u32>,
    /// For each warp, the elements in the bins of the warps before it.
    before: Shared<u32>,
    picked: Shared<u32>,
}

impl Bins {
    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`WORDS`] words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        unsafe {
            Self {
                counts: carve.array(COUNT + NOT_COUNTED),
                before: carve.array(warp::SIZE),
                picked: carve.array(PICKED),
            }
        }
    }

    /// Empties all bins. Needs a block barrier before the first count.
    #[inline(always)]
    pub fn zero(self) {
        let first = opaque(thread::index()) * 4;
        let mut done = 0;
        while done < COUNT {
            self.counts.set4(done + first, [0; 4]);
            done += THREADS * 4;
        }
        if thread::index() == 0 {
            // The emulator wants it initialised; its value is of no interest.
            self.counts.set(COUNT, 0);
        }
        if thread::index() < warp::SIZE {
            self.before.set(thread::index(), 0);
        }
    }

    /// The memory of the bins, [`COUNT`] words: to be shared with other blocks, or for something else while they are
    /// not in use.
    #[inline(always)]
    pub fn words(self) -> Shared<u32> {
        self.counts
    }

    /// Counts one element.
    #[inline(always)]
    pub fn add(self, bin: u32) {
        self.counts.reduce(AtomicOp::Add, bin, 1);
    }

    /// Counts one element if `counts`, without a branch.
    #[inline(always)]
    pub fn add_if(self, counts: bool, bin: u32) {
        self.add(if counts { bin } else { COUNT });
    }

    /// Finds the bin of the `wanted`-th largest element (1 is the largest). All threads get the answer.
    ///
    /// The histogram holds at least `wanted >= 1` elements. Collective over the block; needs a block barrier
    /// after the last count, and [`zero`](Self::zero) before the next one.
    #[inline(always)]
    pub fn pick<O: BinOrder>(self, wanted: u32) -> Pick {
        const { assert!(GROUPS == 2 * THREADS) };
        // A warp has 64 groups, a lane one of the upper half and one of the lower.
        let warp = thread::warp();
        let group = opaque(thread::lane()) + warp * 2 * warp::SIZE;
        let (upper_first, upper_ascending) = O::group(group);
        let (lower_first, lower_ascending) = O::group(group + warp::SIZE);
        let upper_own = sum(self.counts.get4(upper_first));
        let lower_own = sum(self.counts.get4(lower_first));
        let total = warp::reduce_add(warp::ALL, upper_own + lower_own);
        if thread::lane() > warp {
            self.before.reduce(AtomicOp::Add, thread::lane(), total);
        }
        block::sync();
        let before = self.before.get(warp);
        if before < wanted && wanted <= before + total {
            let upper_total = warp::reduce_add(warp::ALL, upper_own);
            let in_upper = wanted <= before + upper_total;
            let before = if in_upper { before } else { before + upper_total };
            let own = if in_upper { upper_own } else { lower_own };
            let through = before + inclusive_sum(own);
            if through >= wanted && through - own < wanted {
                let first = if in_upper { upper_first } else { lower_first };
                // Read again by this one thread, instead of held by all of them.
                let [a, b, c, d] = self.counts.get4(opaque(first));
                let ascending = if in_upper { upper_ascending } else { lower_ascending };
                // From the highest elements down.
                let [a, b, c, d] = if ascending { [d, c, b, a] } else { [a, b, c, d] };
                let mut above = through - own;
                let (mut place, mut count) = (0, a);
                if above + count < wanted {
                    (above, place, count) = (above + a, 1, b);
                }
                if above + count < wanted {
                    (above, place, count) = (above + b, 2, c);
                }
                if above + count < wanted {
                    (above, place, count) = (above + c, 3, d);
                }
                let bin = if ascending { first + GROUP - 1 - place } else { first + place };
                self.note(Pick { bin, above, count });
            }
        }
        block::sync();
        self.noted()
    }

    /// Notes a pick; a block barrier before it is read.
    #[inline(always)]
    pub fn note(self, pick: Pick) {
        self.picked.set4(0, [pick.bin, pick.above, pick.count, 0]);
    }

    /// The pick that was noted.
    #[inline(always)]
    pub fn noted(self) -> Pick {
        let [bin, above, count, _] = self.picked.get4(0);
        Pick { bin, above, count }
    }
}

impl Bins {
    /// Replaces each count by the number of elements in that bin and all higher ones. All threads get the place of the
    /// bin of the `wanted`-th largest element ([`BinOrder::at`]), or the last place if there are not so many. `outline`, of
    /// [`STRETCHES`] words, gets the running sum at the last place of each stretch.
    ///
    /// Collective over the block; needs a block barrier after the last count.
    #[inline(always)]
    pub fn accumulate<O: BinOrder>(self, wanted: u32, sums: Sums, outline: Shared<u32>) -> u32 {
        const { assert!(GROUPS == 2 * THREADS) };
        let first_group = 2 * opaque(thread::index());
        let [(upper_first, upper_ascending), (lower_first, lower_ascending)] =
            [O::group(first_group), O::group(first_group + 1)];
        let descending =
            |[a, b, c, d]: [u32; 4], ascending| if ascending { [d, c, b, a] } else { [a, b, c, d] };
        let running = |[a, b, c, d]: [u32; 4]| [a, a + b, a + b + c, a + b + c + d];
        let upper = running(descending(self.counts.get4(upper_first), upper_ascending));
        let lower = running(descending(self.counts.get4(lower_first), lower_ascending));
        let own = upper[3] + lower[3];
        let ([before], [total]) = sums.before([own]);
        let upper = upper.map(|count| count + before);
        let lower = lower.map(|count| count + upper[3]);
        self.counts.set4(upper_first, descending(upper, upper_ascending));
        self.counts.set4(lower_first, descending(lower, lower_ascending));
        const { assert!(STRETCH.is_multiple_of(2 * GROUP)) };
        let threads = const { STRETCH / (2 * GROUP) };
        if first_group / 2 % threads == threads - 1 {
            outline.set(first_group / 2 / threads, before + own);
        }
        if before < wanted && wanted <= before + own {
            let mut place = first_group * GROUP;
            for i in 0..GROUP as usize {
                place += u32::from(upper[i] < wanted) + u32::from(lower[i] < wanted);
            }
            self.picked.set(0, place);
        }
        if total < wanted && thread::index() == 0 {
            self.picked.set(0, COUNT - 1);
        }
        block::sync();
        self.picked.get(0)
    }
}

#[inline(always)]
fn sum(counts: [u32; 4]) -> u32 {
    counts[0] + counts[1] + counts[2] + counts[3]
}
