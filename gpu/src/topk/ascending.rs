//! Output rows in the order of the indices.
//!
//! What is selected is marked by one bit each; threads take the words of the bitmap in order, count their bits, and a prefix
//! sum of the counts says where each thread's indices go. A slice that a cluster has in registers is one bitmap ([`Marked`]);
//! a row that one block has there is counted where it is held ([`runs`](super::runs)). Where several blocks have slices of a row,
//! each marks what it lists and hands it over in this order ([`slab`](super::slab)). Other rows are staged in any order and sorted ([`Sorter`]): by
//! one bitmap again if their indices are close enough to each other, with a running sum in each of its words ([`Ranks`]),
//! otherwise put into 2,048 buckets by their leading bits, then ranked among the few of a bucket. Indices that crowd into few
//! buckets are sorted by bitmaps one after the other: it is the rare case. What a cluster stages of a slice that it streams is
//! marked in a [`Bitmap`] while its blocks wait for each other.

use dsa_simt::{AtomicOp, Shared, block, opaque, thread, warp};

use super::MAX_K;
use super::bins::THREADS;
use super::element::Element;
use super::key::{NAN, key};
use super::output::{OutRow, Staged, for_each_bit};
use super::prefix::Sums;
use super::scores::{SHARE, Slice, index};

/// Indices that a thread holds while a row is sorted.
const HELD: u32 = MAX_K / THREADS;
/// Half of them: all there are for k up to 2,048.
const HALF: u32 = HELD / 2;

/// What is marked of a tile, in the order of its places: a word for each thread, of which it has as many bits as
/// scores, at neighbouring places, those of thread 0 first.
#[derive(Clone, Copy)]
pub struct Marks {
    words: Shared<u32>,
    /// A power of two, at least as many as a vector has scores.
    per_thread: u32,
}

impl Marks {
    /// In the first [`THREADS`] words of `words`, of tiles of `per_thread` scores for each thread.
    #[inline(always)]
    pub fn new(words: Shared<u32>, per_thread: u32) -> Self {
        Self { words, per_thread }
    }

    /// Clears the thread's word; a block barrier before anything is marked.
    #[inline(always)]
    pub fn clear(self) {
        self.words.set(opaque(thread::index()), 0);
    }

    /// Marks a place.
    #[inline(always)]
    pub fn mark(self, place: u32) {
        self.words.reduce(
            AtomicOp::Or,
            place >> self.per_thread.ilog2(),
            1 << (place & (self.per_thread - 1)),
        );
    }

    /// What is marked for this thread, after a block barrier.
    #[inline(always)]
    fn own(self) -> u32 {
        self.words.get(opaque(thread::index()))
    }
}

/// What is selected of a thread's part of a tile: at neighbouring places, those of thread 0 first.
pub struct Marked {
    bits: u32,
    /// The index at the first place; wraps below zero.
    start: u32,
}

impl Marked {
    /// Nothing.
    pub const NOTHING: Self = Self { bits: 0, start: 0 };

    /// This thread's part of the tile whose first index is `-first_place` and of which every thread has noted what it
    /// holds in its word of `noted` ([`Share::bits`](super::scores::Share::bits)), the first `per_thread` bits: as many as
    /// for [`Marks`]. After a block barrier.
    #[inline(always)]
    pub fn of<E: Element>(noted: Shared<u32>, per_thread: u32, first_place: u32) -> Self {
        // Of as many neighbouring places, the threads that hold them and where they have them in their words.
        let vectors = per_thread / E::PER_VECTOR;
        let threads = const { THREADS.ilog2() } - vectors.ilog2();
        let thread = opaque(thread::index());
        let shift = (thread >> threads) * E::PER_VECTOR;
        let first = (thread & ((1 << threads) - 1)) * vectors;
        let mut bits = 0;
        let mut add = |vector: u32, word: u32| {
            let own = word >> shift & (u32::MAX >> (u32::BITS - E::PER_VECTOR));
            bits |= own << (vector * E::PER_VECTOR);
        };
        if vectors < 4 {
            for i in 0..vectors {
                add(i, noted.get(first + i));
            }
        }
        for group in 0..vectors / 4 {
            let words = noted.get4(first + 4 * group);
            for i in 0..4 {
                add(4 * group + i as u32, words[i]);
            }
        }
        Self { bits, start: (thread * per_thread).wrapping_sub(first_place) }
    }

    /// With what is marked besides, after a block barrier.
    #[inline(always)]
    pub fn and(self, marks: Marks) -> Self {
        Self { bits: self.bits | marks.own(), ..self }
    }

    /// How many are marked.
    #[inline(always)]
    pub fn count(&self) -> u32 {
        self.bits.count_ones()
    }

    /// Calls `put` with the index of each that is marked, in order, and its position, counted from `position` on.
    #[inline(always)]
    pub fn for_each(&self, position: u32, mut put: impl FnMut(u32, u32)) {
        for_each_bit(self.bits, position, |position, bit| put(position, self.start.wrapping_add(bit)));
    }
}

/// Sorts what is staged.
#[derive(Clone, Copy)]
pub struct Sorter {
    /// Memory that nothing else uses meanwhile: at least a word for each thread.
    pub memory: Shared<u32>,
    /// Prefix sums.
    pub sums: Sums,
}

impl Sorter {
    /// Writes the first `count` staged indices to `out` in their order, from position `position` on. They are different,
    /// and among the `len` indices from `start` on.
    ///
    /// By their ranks if there is room for as many bits as there may be indices, or else by buckets, or else, if these are
    /// crowded, by bitmaps one after the other.
    /// Collective over the block; begins with a block barrier, if there is anything to write.
    #[inline(always)]
    pub fn write<E: Element>(
        self,
        staged: Staged,
        count: u32,
        (start, len): (u32, u32),
        position: u32,
        out: &OutRow<E>,
    ) {
        // A slice may have nothing that is selected.
        if count == 0 {
            return;
        }
        block::sync();
        // A thread holds no more than it must.
        if let Some(ranks) = Ranks::within(self.memory, len) {
            return if count <= HALF * THREADS {
                self.write_by_ranks::<_, { HALF as usize }>(ranks, staged, count, start, position, out);
            } else {
                self.write_by_ranks::<_, { HELD as usize }>(ranks, staged, count, start, position, out);
            };
        }
        if len > Bitmap::SPAN && self.memory.len() >= Buckets::WORDS {
            let is_written = if count <= HALF * THREADS {
                self.write_by_buckets::<_, { HALF as usize }>(staged, count, (start, len), position, out)
            } else {
                self.write_by_buckets::<_, { HELD as usize }>(staged, count, (start, len), position, out)
            };
            if is_written {
                return;
            }
        }
        self.write_by_bitmaps(staged, count, start, position, out);
    }

    /// [`write`](Self::write) by the ranks of up to `N` indices for each thread. Collective over the block, after a block
    /// barrier.
    #[inline(always)]
    fn write_by_ranks<E: Element, const N: usize>(
        self,
        ranks: Ranks,
        staged: Staged,
        count: u32,
        start: u32,
        position: u32,
        out: &OutRow<E>,
    ) {
        let exists = |i: usize| opaque(thread::index()) + i as u32 * THREADS < count;
        let held = hold::<N>(staged, count);
        ranks.clear();
        block::sync();
        // Four that follow each other in one access.
        for group in 0..const { N as u32 / 4 } {
            let first = 4 * (group * THREADS + opaque(thread::index()));
            let indices = staged.get4(first);
            for i in 0..4 {
                if first + i < count {
                    ranks.mark(indices[i as usize] - start);
                }
            }
        }
        block::sync();
        ranks.add_up(self.sums);
        block::sync();
        let mut own = [0; N];
        for i in 0..N {
            if exists(i) {
                own[i] = ranks.of(held[i] - start);
            }
        }
        // Opaque: no load waits for another.
        let own = own.map(opaque);
        for i in 0..N {
            if exists(i) {
                staged.set(own[i], held[i]);
            }
        }
        block::sync();
        out.write(staged, position, count);
    }

    /// [`write`](Self::write) by bitmaps: the first one begins with index `start`, and each after it with the lowest index
    /// that is left.
    #[inline(always)]
    fn write_by_bitmaps<E: Element>(
        self,
        staged: Staged,
        count: u32,
        mut start: u32,
        mut position: u32,
        out: &OutRow<E>,
    ) {
        let bitmap = Bitmap::new(self.memory, u32::MAX);
        let end = position + count;
        loop {
            bitmap.clear();
            block::sync();
            for_each(staged, count, |index| {
                if index.wrapping_sub(start) < bitmap.span() {
                    bitmap.mark(index - start);
                }
            });
            block::sync();
            let own = bitmap.own();
            let counts = own.map(u32::count_ones);
            let ([before], [all]) = self.sums.before([counts[0] + counts[1] + counts[2] + counts[3]]);
            let mut next = position + before;
            for i in 0..own.len() {
                let first = start + bitmap.first_of_own() + i as u32 * u32::BITS;
                for_each_bit(own[i], next, |position, bit| out.put(position, first + bit));
                next += counts[i];
            }
            position += all;
            if position >= end {
                return;
            }
            let behind = start + bitmap.span();
            let mut lowest = u32::MAX;
            for_each(staged, count, |index| {
                lowest = lowest.min(if index < behind { u32::MAX } else { index })
            });
            // Everybody has read the bitmap.
            start = self.lowest(lowest);
            if start == u32::MAX {
                // Some were the same, against the promise.
                return;
            }
        }
    }

    /// The lowest of all threads' numbers. Collective over the block; ends with a block barrier, and nobody reads or
    /// writes the memory when it begins.
    #[inline(always)]
    fn lowest(self, own: u32) -> u32 {
        if thread::index() == 0 {
            self.memory.set(0, 0);
        }
        block::sync();
        let own = warp::reduce_max(warp::ALL, !own);
        if thread::lane() == 0 {
            self.memory.reduce(AtomicOp::Max, 0, own);
        }
        block::sync();
        let lowest = !self.memory.get(0);
        block::sync();
        lowest
    }

    /// [`write`](Self::write) by buckets, of up to `N` indices for each thread, unless too many of them share a bucket: then
    /// it changes nothing and returns `false`.
    ///
    /// `count` is not zero. Collective over the block, after a block barrier; ends with one if it returns `false`.
    #[inline(always)]
    fn write_by_buckets<E: Element, const N: usize>(
        self,
        staged: Staged,
        count: u32,
        (first, len): (u32, u32),
        position: u32,
        out: &OutRow<E>,
    ) -> bool {
        const { assert!(Buckets::MOST < 1 << u16::BITS && MAX_K < 1 << u16::BITS) };
        let Self { memory, sums } = self;
        let thread = opaque(thread::index());
        let exists = |i: usize| thread + i as u32 * THREADS < count;
        let held = hold::<N>(staged, count);
        memory.set4(4 * thread, [0; 4]);
        if thread == 0 {
            memory.set(Buckets::CROWDED, 0);
        }
        block::sync();
        let shift = (u32::BITS - (len - 1).leading_zeros()).saturating_sub(Buckets::COUNT.ilog2());
        let bucket_of = |index: u32| (index - first) >> shift;
        // Numbers within the bucket. Opaque, so that all atomics are on their way before the first answer is used.
        let mut numbers = [0_u32; N];
        for i in 0..N {
            if exists(i) {
                numbers[i] = memory.atomic(AtomicOp::Add, bucket_of(held[i]), 1);
            }
        }
        let numbers = numbers.map(opaque);
        block::sync();
        let [a, b, c, d] = memory.get4(4 * thread);
        if a.max(b).max(c.max(d)) > Buckets::MOST {
            memory.reduce(AtomicOp::Or, Buckets::CROWDED, 1);
        }
        let ([before], _) = sums.before([a + b + c + d]);
        if memory.get(Buckets::CROWDED) != 0 {
            // Before the memory is used for something else.
            block::sync();
            return false;
        }
        // Where each bucket starts, and how many it has.
        let packed = |start, count| start | count << u16::BITS;
        let starts = [before, before + a, before + a + b, before + a + b + c];
        let buckets =
            [packed(starts[0], a), packed(starts[1], b), packed(starts[2], c), packed(starts[3], d)];
        memory.set4(4 * thread, buckets);
        block::sync();
        let mut places = [0_u32; N];
        for i in 0..N {
            if exists(i) {
                places[i] = memory.get(bucket_of(held[i])) & 0xffff;
            }
        }
        let places = places.map(opaque);
        for i in 0..N {
            if exists(i) {
                staged.set(places[i] + numbers[i], held[i]);
            }
        }
        block::sync();
        // Bucket after bucket, so that a warp writes neighbouring words.
        for of in 0..N / HALF as usize {
            rank_and_write(staged, count, of as u32 * HALF * THREADS, position, out, |index| {
                memory.get(bucket_of(index))
            });
        }
        true
    }
}

/// A bit for each of so many indices, in shared memory. A thread has up to four neighbouring words: as few as will do, so
/// that all threads have their part.
#[derive(Clone, Copy)]
pub struct Bitmap {
    words: Shared<u32>,
    /// 1, 2 or 4.
    per_thread: u32,
}

impl Bitmap {
    /// Words of the largest.
    pub const WORDS: u32 = 4 * THREADS;
    /// Indices of the largest.
    pub const SPAN: u32 = Self::WORDS * u32::BITS;

    /// For `len` indices, or as many as there is room for in `words`, at least one for each thread.
    #[inline(always)]
    pub fn new(words: Shared<u32>, len: u32) -> Self {
        let per_thread = if len <= Self::SPAN / 4 || words.len() < Self::WORDS {
            1
        } else if len <= Self::SPAN / 2 {
            2
        } else {
            4
        };
        Self { words, per_thread }
    }

    /// How many indices it is for.
    #[inline(always)]
    fn span(self) -> u32 {
        self.per_thread * const { THREADS * u32::BITS }
    }

    /// Clears it. Collective over the block.
    #[inline(always)]
    pub fn clear(self) {
        let first = self.first_word();
        if self.per_thread == 4 {
            return self.words.set4(first, [0; 4]);
        }
        for i in 0..self.per_thread {
            self.words.set(first + i, 0);
        }
    }

    /// Marks a place.
    #[inline(always)]
    pub fn mark(self, place: u32) {
        self.words.reduce(AtomicOp::Or, place / u32::BITS, 1 << (place % u32::BITS));
    }

    /// Stages the index of each place that is marked, in order, from position 0 on; that of the first place is `start`.
    ///
    /// Collective over the block, after a block barrier; needs one before what is staged is read.
    #[inline(always)]
    pub fn stage(self, start: u32, sums: Sums, staged: Staged) {
        let own = self.own();
        let counts = own.map(u32::count_ones);
        let ([mut next], _) = sums.before([counts[0] + counts[1] + counts[2] + counts[3]]);
        for i in 0..own.len() {
            let first = start + self.first_of_own() + i as u32 * u32::BITS;
            for_each_bit(own[i], next, |position, bit| staged.set(position, first + bit));
            next += counts[i];
        }
    }

    /// The thread's words; zero where it has none.
    #[inline(always)]
    fn own(self) -> [u32; 4] {
        let first = self.first_word();
        match self.per_thread {
            4 => self.words.get4(first),
            2 => [self.words.get(first), self.words.get(first + 1), 0, 0],
            _ => [self.words.get(first), 0, 0, 0],
        }
    }

    /// The thread's first word.
    #[inline(always)]
    fn first_word(self) -> u32 {
        opaque(thread::index()) * self.per_thread
    }

    /// The place of its first bit.
    #[inline(always)]
    fn first_of_own(self) -> u32 {
        self.first_word() * u32::BITS
    }
}

/// The ranks of some indices among each other: a bit for each place that there may be, and how many are marked before the
/// places of each word. A thread has four neighbouring words, and of many places four of the second half, too.
#[derive(Clone, Copy)]
pub struct Ranks {
    bits: Shared<u32>,
    before: Shared<u32>,
    has_second_half: bool,
}

impl Ranks {
    /// Words of bits for most places, and as many for what is before them.
    pub const WORDS: u32 = 2 * Self::HALF;
    /// Most places: with more, a thread has so many words that buckets take less time.
    pub const PLACES: u32 = Self::WORDS * u32::BITS;
    /// Words of a half.
    const HALF: u32 = 4 * THREADS;

    /// In `bits`, which are clear, and `before`, of [`WORDS`](Self::WORDS) each, for up to [`PLACES`](Self::PLACES) places.
    #[inline(always)]
    pub fn new(bits: Shared<u32>, before: Shared<u32>, places: u32) -> Self {
        Self { bits, before, has_second_half: places > const { Self::HALF * u32::BITS } }
    }

    /// For `places` places, if `memory` has room for them. They are not [clear](Self::clear).
    #[inline(always)]
    pub fn within(memory: Shared<u32>, places: u32) -> Option<Self> {
        let words = if places > const { Self::HALF * u32::BITS } { Self::WORDS } else { Self::HALF };
        if places > Self::PLACES || 2 * words > memory.len() {
            return None;
        }
        Some(Self::new(memory.part(0, words), memory.part(words, words), places))
    }

    /// Clears them. Collective over the block; a block barrier before anything is marked.
    #[inline(always)]
    pub fn clear(self) {
        let first = 4 * opaque(thread::index());
        self.bits.set4(first, [0; 4]);
        if self.has_second_half {
            self.bits.set4(Self::HALF + first, [0; 4]);
        }
    }

    /// Marks a place.
    #[inline(always)]
    pub fn mark(self, place: u32) {
        self.bits.reduce(AtomicOp::Or, place / u32::BITS, 1 << (place % u32::BITS));
    }

    /// Adds up how many are marked, which are fewer than 2^16. Collective over the block, after a block barrier; needs one
    /// before ranks are asked for.
    #[inline(always)]
    pub fn add_up(self, sums: Sums) {
        let counts = |first| self.bits.get4(first).map(u32::count_ones);
        let sum = |[a, b, c, d]: [u32; 4]| a + b + c + d;
        let first = 4 * opaque(thread::index());
        let lower = counts(first);
        let upper = if self.has_second_half { counts(Self::HALF + first) } else { [0; 4] };
        // Both in one.
        let ([before], [all]) = sums.before([sum(lower) | sum(upper) << u16::BITS]);
        let set = |first, before, [a, b, c, _]: [u32; 4]| {
            self.before.set4(first, [before, before + a, before + a + b, before + a + b + c]);
        };
        set(first, before & 0xffff, lower);
        if self.has_second_half {
            set(Self::HALF + first, (all & 0xffff) + (before >> u16::BITS), upper);
        }
    }

    /// How many places before this one are marked, after they were [added up](Self::add_up).
    #[inline(always)]
    pub fn of(self, place: u32) -> u32 {
        let (word, bit) = (place / u32::BITS, place % u32::BITS);
        self.before.get(word) + (self.bits.get(word) & ((1 << bit) - 1)).count_ones()
    }
}

/// Calls `f` with a thread's part of the first `count` staged indices.
#[inline(always)]
pub fn for_each(staged: Staged, count: u32, mut f: impl FnMut(u32)) {
    let mut position = opaque(thread::index());
    while position < count {
        f(staged.get(position));
        position += THREADS;
    }
}

/// The staged indices that a thread sorts; larger than any where there is none.
#[inline(always)]
fn hold<const N: usize>(staged: Staged, count: u32) -> [u32; N] {
    let mut held = [u32::MAX; N];
    for i in 0..N {
        let position = opaque(thread::index()) + i as u32 * THREADS;
        if position < count {
            held[i] = staged.get(position);
        }
    }
    held
}

/// Counts of the indices with the same leading bits, in shared memory.
struct Buckets;

impl Buckets {
    const COUNT: u32 = 4 * THREADS;
    /// Behind them, whether one has too many.
    const CROWDED: u32 = Self::COUNT;
    const WORDS: u32 = Self::COUNT + 1;
    /// Most indices of a bucket.
    const MOST: u32 = 64;
}

/// Writes what is staged, bucket after bucket, from place `first` on, up to [`HALF`] indices for each thread: of each by its
/// rank in its bucket. `bucket_of` says where a bucket starts, and in the upper half how many it has. `count` is not zero.
///
/// One of each bucket at a time, and opaque, so that no load waits for another.
#[inline(always)]
fn rank_and_write<E: Element>(
    staged: Staged,
    count: u32,
    first: u32,
    position: u32,
    out: &OutRow<E>,
    bucket_of: impl Fn(u32) -> u32,
) {
    let own = first + opaque(thread::index());
    let exists = |i: usize| own + i as u32 * THREADS < count;
    let mut held = [0; HALF as usize];
    for i in 0..HALF as usize {
        held[i] = opaque(staged.get((own + i as u32 * THREADS).min(count - 1)));
    }
    // An empty one where there is none.
    let mut buckets = [0; HALF as usize];
    for i in 0..HALF as usize {
        let bucket = bucket_of(held[i]);
        buckets[i] = opaque(if exists(i) { bucket } else { 0 });
    }
    let mut next = buckets.map(|bucket| bucket & 0xffff);
    let (mut positions, mut ends, mut left) = (next, next, 0);
    for i in 0..HALF as usize {
        let size = buckets[i] >> u16::BITS;
        ends[i] += size;
        left = left.max(size);
    }
    while left > 0 {
        let mut others = [u32::MAX; HALF as usize];
        for i in 0..HALF as usize {
            if next[i] < ends[i] {
                others[i] = staged.get(next[i]);
            }
        }
        let others = others.map(opaque);
        for i in 0..HALF as usize {
            positions[i] += u32::from(others[i] < held[i]);
            next[i] += 1;
        }
        left -= 1;
    }
    for i in 0..HALF as usize {
        if exists(i) {
            out.put(position + positions[i], held[i]);
        }
    }
}

/// Calls `put` for each bit set in a block's [`Share::bits`](super::scores::Share::bits), with its place when all are
/// taken in the order of their indices, from place `first` on, and its number. Returns the place that follows.
///
/// Collective over the block; ends with a block barrier.
#[inline(always)]
pub fn in_order<E: Element>(bits: u32, first: u32, sums: Sums, mut put: impl FnMut(u32, u32)) -> u32 {
    // The counts of two vectors go into one word.
    const { assert!(SHARE == 4) };
    // The block's vectors follow each other: of each of a thread's four, how many elements are before it.
    let of_vector = |v: u32| bits >> (v * E::PER_VECTOR) & (u32::MAX >> (u32::BITS - E::PER_VECTOR));
    let count = |v: u32| of_vector(v).count_ones();
    let packed = [count(0) | count(1) << u16::BITS, count(2) | count(3) << u16::BITS];
    let (before, totals) = sums.before(packed);
    let mut next = first;
    for v in 0..SHARE as u32 {
        let half = v % 2 * u16::BITS;
        let place = next + (before[v as usize / 2] >> half & 0xffff);
        for_each_bit(of_vector(v), place, |place, bit| put(place, v * E::PER_VECTOR + bit));
        next += totals[v as usize / 2] >> half & 0xffff;
    }
    block::sync();
    next
}

/// Stages the indices of those elements of a slice that have the key `equal`, in their order, at the positions from
/// `position` on and below `end`. Returns where the next one would go: no elements are left if that is below `end`.
///
/// Reads no further than it has to. Collective over the block.
#[inline(always)]
pub fn stage_equal<E: Element>(
    slice: Slice<E>,
    equal: u32,
    mut position: u32,
    end: u32,
    staged: Staged,
    sums: Sums,
) -> u32 {
    // As many scores for every type: registers are scarce here.
    let vectors = const { SHARE / E::PER_WORD as usize };
    let mut first = slice.first;
    while first < slice.end && position < end {
        let share = slice.row.share::<SHARE>(first, slice.end, vectors);
        // NaN stands for no score, too: only what lies in the slice counts.
        let mut bits = share.bits::<E>(|score| key(score) == equal);
        if equal == NAN {
            for bit in 0..SHARE as u32 * E::PER_VECTOR {
                let is_score =
                    bit < vectors as u32 * E::PER_VECTOR && index::<E>(share.start, bit) < slice.end_index();
                bits &= !(u32::from(!is_score) << bit);
            }
        }
        position = in_order::<E>(bits, position, sums, |position, bit| {
            if position < end {
                staged.set(position, index::<E>(share.start, bit));
            }
        });
        first += vectors as u32 * THREADS;
    }
    position
}
