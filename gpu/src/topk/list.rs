//! A list in shared memory of the elements of a row that passed a threshold.

use dsa_simt::{AtomicOp, Carve, Shared, Word, block, opaque, thread};

use super::bins::{self, Ascending, Bins, THREADS};
use super::element::Element;
use super::key::{ABSENT, key, number_key};
use super::output::{Counters, Staged, lowest_bit};
use super::refine::{KeyRange, Narrowed, Outcome, RANKED, Scratch};
use super::source::{Source, Tile, Visitor};

/// Most elements of a list.
pub const CAPACITY: u32 = 7680;
/// Words of shared memory that [`List::carve`] takes.
pub const WORDS: u32 = 2 * CAPACITY;

/// Scores and the indices they came from.
#[derive(Clone, Copy)]
pub struct List {
    scores: Shared<f32>,
    indices: Shared<u32>,
}

impl List {
    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`WORDS`] words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { Self { scores: carve.array(CAPACITY), indices: carve.array(CAPACITY) } }
    }

    /// Writes an element.
    #[inline(always)]
    pub fn set(self, place: u32, score: f32, index: u32) {
        self.scores.set(place, score);
        self.indices.set(place, index);
    }

    /// Writes four elements from a place on that is a multiple of four.
    #[inline(always)]
    pub fn set4(self, place: u32, scores: [f32; 4], indices: [u32; 4]) {
        self.scores.set4(place, scores);
        self.indices.set4(place, indices);
    }

    /// The score at a place.
    #[inline(always)]
    pub fn score(self, place: u32) -> f32 {
        self.scores.get(place)
    }

    /// The index at a place.
    #[inline(always)]
    pub fn index(self, place: u32) -> u32 {
        self.indices.get(place)
    }

    /// The first `len` elements, to be visited.
    #[inline(always)]
    pub fn first(self, len: u32) -> Listed {
        Listed { list: self, len }
    }
}

/// The first so many elements of a list.
#[derive(Clone, Copy)]
pub struct Listed {
    list: List,
    len: u32,
}

/// Elements that a thread takes at once of a row's list, and when it only counts them.
const SHARE: usize = 8;
const COUNTED: usize = 4;

/// Neighbouring places that a thread has of a stretch of a list in the order of the indices.
const IN_ORDER: u32 = 8;
/// Places of such a stretch.
const STRETCH: u32 = IN_ORDER * THREADS;

/// Bins that are spread evenly over a range of keys.
#[derive(Clone, Copy)]
pub struct RangeBins {
    range: KeyRange,
    shift: u32,
    bins: Bins,
}

impl RangeBins {
    /// Spreads `bins` over `range`. Keys above it are in the last bin.
    #[inline(always)]
    pub fn new(range: KeyRange, bins: Bins) -> Self {
        Self { range, shift: range.shift(), bins }
    }

    /// The keys that are counted in a bin.
    #[inline(always)]
    pub fn keys(self, bin: u32) -> KeyRange {
        let keys = KeyRange::of_bin(self.range.first, bin, self.shift);
        if bin == bins::COUNT - 1 { KeyRange { last: u32::MAX, ..keys } } else { keys }
    }

    /// Counts an element, if it exists: a number with a key from the start of the range on.
    #[inline(always)]
    pub fn add(self, exists: bool, score: f32) {
        let distance = number_key(score).wrapping_sub(self.range.first);
        self.bins.add_if(exists, (distance >> self.shift).min(bins::COUNT - 1));
    }
}

impl Listed {
    /// How many there are.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> u32 {
        self.len
    }

    /// Stages the indices of the `wanted` largest elements, all of which were counted in `counted`.
    ///
    /// One round of bins spread evenly over the range leaves a few elements to rank. If the elements are not
    /// spread like that and the bin of the k-th largest is crowded, it is noted, and nothing is staged:
    /// [`refine::select`](super::refine::select) is the caller's part.
    ///
    /// If the bin has room for one score only, of scores of 16 bits, its elements are equal: where `will_any_do`, as many as
    /// are wanted are staged, and nothing is ranked.
    ///
    /// The counters are zero. Collective over the block, after a block barrier; needs one before what is staged
    /// is read.
    #[inline(always)]
    pub fn select<E: Element>(
        self,
        counted: RangeBins,
        wanted: u32,
        will_any_do: bool,
        scratch: Scratch,
    ) -> Outcome {
        let Scratch { bins, counters, ranked, .. } = scratch;
        let pick = bins.pick::<Ascending>(wanted);
        let found = counted.keys(pick.bin);
        let takes_any = will_any_do && found.is_one_score::<E>();
        if !takes_any && (pick.count > RANKED || pick.bin == bins::COUNT - 1) {
            scratch.note(Narrowed { range: found, above: pick.above, count: pick.count });
            return Outcome::Crowded;
        }
        let staged = scratch.staged();
        let rest = wanted - pick.above;
        self.place::<SHARE>(found, counters, staged, |number, place| {
            if !takes_any {
                let (key, index) = self.get(place);
                ranked.add(number, key, index);
            } else if number < rest {
                staged.set(pick.above + number, self.list.index(place));
            }
        });
        if takes_any {
            return Outcome::Staged;
        }
        block::sync();
        ranked.rank::<THREADS>(pick.count, rest, |rank, index| {
            staged.set(pick.above + rank, index);
        });
        Outcome::Staged
    }

    /// As [`select`](Self::select), of a list in the order of the indices, in which the output is staged, too: of equal
    /// scores, those with the lowest indices. The list has a multiple of four places; those without an element have the lowest
    /// number, which is below all of the range.
    #[inline(always)]
    pub fn select_in_order(self, counted: RangeBins, wanted: u32, scratch: Scratch) -> Outcome {
        let Scratch { bins, counters, ranked, words, sums, .. } = scratch;
        let pick = bins.pick::<Ascending>(wanted);
        let found = counted.keys(pick.bin);
        if pick.count > RANKED || pick.bin == bins::COUNT - 1 {
            scratch.note(Narrowed { range: found, above: pick.above, count: pick.count });
            return Outcome::Crowded;
        }
        // A thread has neighbouring places in each stretch of the list, of which there are two at most.
        const { assert!(CAPACITY <= 2 * STRETCH) };
        let stretches = self.len.div_ceil(STRETCH);
        let thread = opaque(thread::index());
        let first_of = |stretch: u32| stretch * STRETCH + thread * IN_ORDER;
        let (mut winners, mut selected) = (0, 0);
        for stretch in 0..stretches {
            let scores = self.eight(self.list.scores, first_of(stretch));
            let (mut above, mut from) = (0_u32, 0_u32);
            for i in 0..IN_ORDER {
                let key = number_key(scores[i as usize]);
                above |= u32::from(key > found.last) << i;
                from |= u32::from(key >= found.first) << i;
            }
            // Whole groups of four lie behind the end.
            let exist = (1 << self.len.saturating_sub(first_of(stretch)).min(IN_ORDER)) - 1;
            winners |= (above & exist) << (stretch * IN_ORDER);
            selected |= (from & exist) << (stretch * IN_ORDER);
        }
        words.set(thread, winners);
        let mut ties = selected & !winners;
        if ties != 0 {
            let mut number = counters.reserve_ties(ties.count_ones());
            while ties != 0 {
                let bit = lowest_bit(ties);
                let place = first_of(bit / IN_ORDER) + bit % IN_ORDER;
                // By their places, which are in the order of the indices.
                ranked.add(number, key(self.list.score(place)), place);
                number += 1;
                ties &= ties - 1;
            }
        }
        block::sync();
        ranked.rank::<THREADS>(pick.count, wanted - pick.above, |_, place| {
            let bit = place / STRETCH * IN_ORDER + place % IN_ORDER;
            words.reduce(AtomicOp::Or, place % STRETCH / IN_ORDER, 1 << bit);
        });
        block::sync();
        let own = words.get(thread);
        let of_stretch = |stretch: u32| own >> (stretch * IN_ORDER) & ((1 << IN_ORDER) - 1);
        let ([before], [all]) =
            sums.before([of_stretch(0).count_ones() | of_stretch(1).count_ones() << u16::BITS]);
        for stretch in 0..stretches {
            let indices = self.eight(self.list.indices, first_of(stretch));
            let position =
                if stretch == 0 { before & 0xffff } else { (all & 0xffff) + (before >> u16::BITS) };
            scratch.staged().set_reserved(of_stretch(stretch), IN_ORDER, position, |i| indices[i as usize]);
        }
        Outcome::Sorted
    }

    /// Eight neighbouring words of a list of some groups of four, or others where that ends before.
    #[inline(always)]
    fn eight<T: Word>(self, words: Shared<T>, first: u32) -> [T; IN_ORDER as usize] {
        let last = self.len - 4;
        let ([a, b, c, d], [e, f, g, h]) = (words.get4(first.min(last)), words.get4((first + 4).min(last)));
        [a, b, c, d, e, f, g, h]
    }

    /// Calls `f` with the place and the index of each of the thread's elements.
    #[inline(always)]
    pub fn for_each(self, mut f: impl FnMut(u32, u32)) {
        let mut place = opaque(thread::index());
        while place < self.len {
            f(place, self.list.index(place));
            place += THREADS;
        }
    }

    /// The score at a place.
    #[inline(always)]
    pub fn score(self, place: u32) -> f32 {
        self.list.score(place)
    }

    /// The key at a place, and the index.
    #[inline(always)]
    pub fn get(self, place: u32) -> (u32, u32) {
        (key(self.list.score(place)), self.list.index(place))
    }

    /// Counts all elements in `bins`. Collective over the block.
    #[inline(always)]
    pub fn count(self, bins: RangeBins) {
        let mut first = 0;
        while first < self.len {
            let scores = self.scores::<COUNTED>(first);
            for i in 0..COUNTED as u32 {
                let exists = first + i * THREADS + opaque(thread::index()) < self.len;
                bins.add(exists, scores[i as usize]);
            }
            first += COUNTED as u32 * THREADS;
        }
    }

    /// Stages the indices of all elements, in the order of the list. Collective over the block.
    #[inline(always)]
    pub fn stage_all(self, staged: Staged) {
        let mut place = opaque(thread::index());
        while place < self.len {
            staged.set(place, self.list.index(place));
            place += THREADS;
        }
    }

    /// Stages the indices of all elements but those of the lowest number, as `counters` count them, which are zero. Collective
    /// over the block, after a block barrier.
    #[inline(always)]
    pub fn stage_numbers(self, counters: Counters, staged: Staged) {
        // There are no ties.
        let below = KeyRange { first: u32::MAX, last: key(f32::NEG_INFINITY) };
        self.place::<1>(below, counters, staged, |_, _| {});
    }

    /// Stages the indices of the elements above the keys `found`, and calls `take` for those with one of these keys, with
    /// the number of each and its place in this list, as `counters` count them
    /// ([`reserve_few`](Counters::reserve_few)); `N` at once in each thread. Collective over the block.
    #[inline(always)]
    pub fn place<const N: usize>(
        self,
        found: KeyRange,
        counters: Counters,
        staged: Staged,
        mut take: impl FnMut(u32, u32),
    ) {
        let mut first = 0;
        while first < self.len {
            let keys = self.keys::<N>(first);
            let place = |i: u32| first + i * THREADS + opaque(thread::index());
            let (mut winners, mut ties) = (0_u32, 0_u32);
            for i in 0..N as u32 {
                winners |= u32::from(keys[i as usize] > found.last) << i;
                ties |= u32::from(keys[i as usize] >= found.first) << i;
            }
            let mut ties = ties & !winners;
            let (position, mut number) = counters.reserve_few(winners.count_ones(), ties.count_ones());
            let mut indices = [0; N];
            for i in 0..N as u32 {
                // All of them, at once: opaque, or each would be read when its bit is looked at, and waited for.
                indices[i as usize] = opaque(self.list.index(place(i).min(self.len - 1)));
            }
            staged.set_reserved(winners, N as u32, position, |i| indices[i as usize]);
            while ties != 0 {
                take(number, place(lowest_bit(ties)));
                number += 1;
                ties &= ties - 1;
            }
            first += N as u32 * THREADS;
        }
    }

    /// The keys at this thread's places from place `first` of the block on, a block apart; [`ABSENT`] behind the
    /// end.
    #[inline(always)]
    fn keys<const N: usize>(self, first: u32) -> [u32; N] {
        let start = first + opaque(thread::index());
        let scores = self.scores::<N>(first);
        let mut keys = [ABSENT; N];
        for i in 0..N as u32 {
            let key = number_key(scores[i as usize]);
            keys[i as usize] = if start + i * THREADS < self.len { key } else { ABSENT };
        }
        keys
    }

    /// The scores at these places; any behind the end.
    #[inline(always)]
    fn scores<const N: usize>(self, first: u32) -> [f32; N] {
        let start = first + opaque(thread::index());
        let mut scores = [0.0; N];
        for i in 0..N as u32 {
            let place = (start + i * THREADS).min(self.len - 1);
            // Opaque: all are read at once, and not each where it is used.
            scores[i as usize] = f32::from_bits(opaque(self.list.score(place).to_bits()));
        }
        scores
    }
}

impl Source for Listed {
    #[inline(always)]
    fn visit(&self, visitor: &mut impl Visitor) {
        let mut place = opaque(thread::index());
        // Whole warps stop together: the visitor may contain warp collectives.
        while place - thread::lane() < self.len {
            let (key, index) = if place < self.len {
                (key(self.list.score(place)), self.list.index(place))
            } else {
                (ABSENT, 0)
            };
            visitor.visit(Tile { keys: [key], start: index, step: 1, stride: 0 });
            place += THREADS;
        }
    }
}
