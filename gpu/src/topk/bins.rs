//! A histogram of 4,096 bins in shared memory, and the bin in which the k-th largest element lies.
//!
//! One bin per element and one shared atomic: the hardware merges equal bins of a warp, so that crowded bins
//! cost no more than spread ones. [`Bins::pick`] takes two block barriers: by the warps' sums each thread knows what is
//! above its bins, and only the one thread whose bins hold the element looks closer.
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
pub const WORDS: u32 = ROOM + WARPS + PICKED;
/// Words of the bins and those behind them, which are free when the bins are not in use.
pub const ROOM: u32 = COUNT + SPARE;
/// Places of a stretch that [`Bins::accumulate`] gives the sum of.
pub const STRETCH: u32 = 32;
/// Number of stretches.
pub const STRETCHES: u32 = COUNT / STRETCH;
/// Bins that a thread reads at once.
const GROUP: u32 = 4;
const GROUPS: u32 = COUNT / GROUP;
const PICKED: u32 = 4;
const WARPS: u32 = THREADS / warp::SIZE;
/// Words behind the bins, of which one is for what is not counted: what follows begins in the first bank again.
const SPARE: u32 = 32;

/// Where bins are spread, the bits of a bin's number that are XORed with those [`SPREAD_BY`] above: the bits of a bank but
/// for the lowest two, so that the bins of a group stay together.
pub(super) const SPREAD: u32 = 0x1c;
/// See [`SPREAD`].
pub(super) const SPREAD_BY: u32 = 3;

/// How the numbers of the bins follow the order of the elements.
pub trait BinOrder {
    /// Whether neighbouring bins are spread over the banks of the memory ([`word`](Self::word)).
    const IS_SPREAD: bool = false;

    /// The word in which a bin is counted. The four bins of a group have four words in their order.
    #[inline(always)]
    fn word(bin: u32) -> u32 {
        if Self::IS_SPREAD { bin ^ ((bin >> SPREAD_BY) & SPREAD) } else { bin }
    }

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

/// Higher numbers, smaller elements.
pub struct Descending;

impl BinOrder for Descending {
    #[inline(always)]
    fn group(group: u32) -> (u32, bool) {
        (group * GROUP, false)
    }

    #[inline(always)]
    fn at(place: u32) -> u32 {
        place
    }
}

/// The numbers are the leading bits of a sign and a magnitude: those of the upper half descend.
///
/// Scores with few digits, as those that were quantised, have bins of which the lowest bits are zero. So that they do not
/// meet in few banks, they are spread.
pub struct SignMagnitude;

impl BinOrder for SignMagnitude {
    const IS_SPREAD: bool = true;

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
    /// For each warp, the elements in its bins.
    totals: Shared<u32>,
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
        unsafe { Self { counts: carve.array(ROOM), totals: carve.array(WARPS), picked: carve.array(PICKED) } }
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
    }

    /// The memory of the bins and some more, [`ROOM`] words: to be shared with other blocks, or for something else while
    /// they are not in use.
    #[inline(always)]
    pub fn words(self) -> Shared<u32> {
        self.counts
    }

    /// Counts one element in the bin of which this is the word ([`BinOrder::word`]): its number, in orders that are not
    /// spread. In word [`COUNT`], what is of no bin.
    #[inline(always)]
    pub fn add(self, word: u32) {
        self.counts.reduce(AtomicOp::Add, word, 1);
    }

    /// Counts one element if `counts`, without a branch.
    #[inline(always)]
    pub fn add_if(self, counts: bool, word: u32) {
        self.add(if counts { word } else { COUNT });
    }

    /// Finds the bin of the `wanted`-th largest element (1 is the largest). All threads get the answer.
    ///
    /// The histogram holds at least `wanted >= 1` elements. Collective over the block; needs a block barrier
    /// after the last count, and [`zero`](Self::zero) before the next one.
    #[inline(always)]
    pub fn pick<O: BinOrder>(self, wanted: u32) -> Pick {
        let own_groups = Groups::own::<O>();
        let counts = own_groups.firsts::<O>().map(|first| sum(self.counts.get4(O::word(first))));
        // Before the barrier, where warps wait for each other anyway.
        let in_warp = inclusive_sum(counts[0] + counts[1]);
        if thread::lane() == warp::SIZE - 1 {
            self.totals.set(thread::warp(), in_warp);
        }
        block::sync();
        let (lane, warp) = (thread::lane(), opaque(thread::warp()));
        let lower = if lane < warp { self.totals.get(lane) } else { 0 };
        let through = warp::reduce_add(warp::ALL, lower) + in_warp;
        let above = through - (counts[0] + counts[1]);
        if through >= wanted && above < wanted {
            let [higher, _] = own_groups.in_order(counts);
            let in_higher = above + higher >= wanted;
            let mut above = if in_higher { above } else { above + higher };
            let (first, ascending) = O::group(own_groups.first + u32::from(!in_higher));
            // Read again by this one thread, instead of held by all of them.
            let [a, b, c, d] = descending(self.counts.get4(O::word(opaque(first))), ascending);
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
    /// Replaces each count, in its word, by the number of elements in that bin and all higher ones. All threads get the
    /// place of the bin of the `wanted`-th largest element ([`BinOrder::at`]), or the last place if there are not so many.
    /// `outline`, of [`STRETCHES`] words, gets the running sum at the last place of each stretch.
    ///
    /// Collective over the block; needs a block barrier after the last count.
    #[inline(always)]
    pub fn accumulate<O: BinOrder>(self, wanted: u32, sums: Sums, outline: Shared<u32>) -> u32 {
        let own_groups = Groups::own::<O>();
        let firsts = own_groups.firsts::<O>();
        let (_, ascending) = O::group(own_groups.first);
        let running = |[a, b, c, d]: [u32; 4]| [a, a + b, a + b + c, a + b + c + d];
        let counts = firsts.map(|first| running(descending(self.counts.get4(O::word(first)), ascending)));
        let [upper, lower] = own_groups.in_order(counts);
        let own = upper[3] + lower[3];
        let ([before], [total]) = sums.before([own]);
        let upper = upper.map(|count| count + before);
        let lower = lower.map(|count| count + upper[3]);
        let through = own_groups.in_order([upper, lower]);
        for i in 0..2 {
            self.counts.set4(O::word(firsts[i]), descending(through[i], ascending));
        }
        const { assert!(STRETCH.is_multiple_of(2 * GROUP)) };
        let threads = const { STRETCH / (2 * GROUP) };
        if own_groups.first / 2 % threads == threads - 1 {
            outline.set(own_groups.first / 2 / threads, before + own);
        }
        if before < wanted && wanted <= before + own {
            let mut place = own_groups.first * GROUP;
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

/// The two groups of a thread, which follow each other. Unless they are spread, half of the lanes take the second one first:
/// otherwise neighbouring lanes would skip every other group, and twice as many of them meet in one bank.
#[derive(Clone, Copy)]
struct Groups {
    first: u32,
    is_second_first: bool,
}

impl Groups {
    #[inline(always)]
    fn own<O: BinOrder>() -> Self {
        const { assert!(GROUPS == 2 * THREADS) };
        let thread = opaque(thread::index());
        // Eight lanes read eight groups at once: all the banks there are. Where they are spread, these are in two stretches of
        // eight groups, one of which has the words of odd groups in the places of even ones.
        Self { first: 2 * thread, is_second_first: !O::IS_SPREAD && thread & 4 != 0 }
    }

    /// The first bins of both, as this lane takes them.
    #[inline(always)]
    fn firsts<O: BinOrder>(self) -> [u32; 2] {
        let second = u32::from(self.is_second_first);
        [self.first + second, self.first + 1 - second].map(|group| O::group(group).0)
    }

    /// What belongs to them from the order in which this lane takes them to the order of the groups, or back.
    #[inline(always)]
    fn in_order<T>(self, [a, b]: [T; 2]) -> [T; 2] {
        if self.is_second_first { [b, a] } else { [a, b] }
    }
}

/// From the highest elements down.
#[inline(always)]
fn descending([a, b, c, d]: [u32; 4], ascending: bool) -> [u32; 4] {
    if ascending { [d, c, b, a] } else { [a, b, c, d] }
}

#[inline(always)]
fn sum(counts: [u32; 4]) -> u32 {
    counts[0] + counts[1] + counts[2] + counts[3]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each bin has a word of its own, and those of a group follow each other.
    fn words_are_the_bins_in_another_order<O: BinOrder>() {
        let mut words: Vec<u32> = (0..COUNT).map(O::word).collect();
        for group in words.chunks(GROUP as usize) {
            assert!(group[0].is_multiple_of(GROUP));
            assert!(group.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{group:?}");
        }
        words.sort_unstable();
        assert!(words.into_iter().eq(0..COUNT));
    }

    #[test]
    fn each_bin_has_its_word() {
        words_are_the_bins_in_another_order::<Ascending>();
        words_are_the_bins_in_another_order::<Descending>();
        words_are_the_bins_in_another_order::<SignMagnitude>();
    }

    #[test]
    fn bins_with_few_digits_have_words_in_many_banks() {
        // Four numbers to an octave, in two octaves.
        let words = (0..8).map(|number| SignMagnitude::word(16 * number));
        let banks: std::collections::BTreeSet<u32> = words.map(|word| word % 32).collect();
        assert_eq!(banks.len(), 8);
    }
}
