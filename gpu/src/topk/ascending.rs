//! Output rows in the order of the indices.
//!
//! What is selected is marked by one bit each; threads take the words of the bitmap in order, count their bits,
//! and a prefix sum of the counts says where each thread's indices go. A row in registers is one bitmap
//! ([`Marked`]). Longer rows are staged in any order and sorted ([`sort`]): put into 2,048 buckets by their
//! leading bits, then ranked among the few of a bucket. Indices that crowd into few buckets are sorted by bitmaps over
//! all indices of the row, some microseconds for a million of them: it is the rare case.

use dsa_simt::{AtomicOp, Shared, block, opaque, thread, warp};

use super::bins::THREADS;
use super::element::Element;
use super::key::{NAN, key};
use super::output::{Staged, lowest_bit};
use super::prefix::Sums;
use super::scores::{SHARE, Slice, index};

/// Words that a thread has of the largest bitmap.
const MOST_PER_THREAD: u32 = 16;
/// Indices that a thread holds while a row is sorted.
const HELD: u32 = Staged::WORDS / THREADS;
/// Half of them: all there are for k up to 2,048.
const HALF: u32 = HELD / 2;

/// Words of shared memory of a bitmap in which a thread has `per_thread` words. There is one word more for each
/// thread: neighbours would meet in one bank.
const fn words(per_thread: u32) -> u32 {
    THREADS * if per_thread == 1 { 1 } else { per_thread + 1 }
}

/// Words of shared memory that [`sort`] makes the best of.
pub const WORDS: u32 = words(MOST_PER_THREAD);

/// Marks the score at a place of a tile, if every thread marks its own in the word with its number
/// ([`Share::bits`](super::scores::Share::bits)).
#[inline(always)]
pub fn mark<E: Element>(marks: Shared<u32>, place: u32) {
    let vector = place / E::PER_VECTOR;
    let number = vector / THREADS * E::PER_VECTOR + place % E::PER_VECTOR;
    marks.reduce(AtomicOp::Or, vector % THREADS, 1 << number);
}

/// What is marked in a thread's part of a tile: at neighbouring places, those of thread 0 first.
pub struct Marked {
    bits: u32,
    /// The index at the first place; wraps below zero.
    start: u32,
}

impl Marked {
    /// Nothing, nowhere.
    pub const NONE: Self = Self { bits: 0, start: 0 };

    /// This thread's part of the tile whose first index is `-first_place` and in which every thread has marked the first
    /// `per_thread` bits of its word: a power of two, at least as many as a vector has scores. After a block barrier.
    #[inline(always)]
    pub fn of<E: Element>(marks: Shared<u32>, per_thread: u32, first_place: u32) -> Self {
        // Of as many neighbouring places, the threads that hold them and where they have them in their words.
        let vectors = per_thread / E::PER_VECTOR;
        let threads = const { THREADS.ilog2() } - vectors.ilog2();
        let thread = opaque(thread::index());
        let shift = (thread >> threads) * E::PER_VECTOR;
        let first = (thread & ((1 << threads) - 1)) * vectors;
        let mut bits = 0;
        for i in 0..vectors {
            let own = marks.get(first + i) >> shift & (u32::MAX >> (u32::BITS - E::PER_VECTOR));
            bits |= own << (i * E::PER_VECTOR);
        }
        Self { bits, start: (thread * per_thread).wrapping_sub(first_place) }
    }

    /// How many are marked.
    #[inline(always)]
    pub fn count(&self) -> u32 {
        self.bits.count_ones()
    }

    /// Calls `put` with the index of each that is marked, in order, and its position, counted from `position` on.
    #[inline(always)]
    pub fn for_each(&self, mut position: u32, mut put: impl FnMut(u32, u32)) {
        let mut bits = self.bits;
        while bits != 0 {
            put(position, self.start.wrapping_add(lowest_bit(bits)));
            position += 1;
            bits &= bits - 1;
        }
    }
}

/// Sorts the first `count` staged indices; they are different, and below `len`.
///
/// In `memory`, which nothing else uses meanwhile: one bitmap if it has room for that, or else buckets, or else
/// bitmaps of as many indices as fit, one after the other, 262,144 if there are [`WORDS`] words. Collective over the
/// block; begins and ends with a block barrier.
#[inline(always)]
pub fn sort(staged: Staged, count: u32, len: u32, memory: Shared<u32>, sums: Sums) {
    let thread = opaque(thread::index());
    // A power of two: divisions are shifts.
    let mut shift = 0;
    while 1 << shift < MOST_PER_THREAD
        && (THREADS * u32::BITS) << shift < len
        && words(2 << shift) <= memory.len()
    {
        shift += 1;
    }
    if len > THREADS * u32::BITS
        && memory.len() >= Buckets::WORDS
        && sort_by_buckets(staged, count, memory, sums)
    {
        return;
    }
    let per_thread = 1 << shift;
    let pitch = words(per_thread) / THREADS;
    block::sync();
    let held = hold(staged, count);
    let clear = |word: u32| memory.set(thread * pitch + word, 0);
    for_each(per_thread, clear);
    // Everything staged is held now, and the bitmap is empty.
    block::sync();
    let span = per_thread * THREADS * u32::BITS;
    let (mut first, mut position) = (0, 0);
    while first < len && position < count {
        for i in 0..HELD as usize {
            let distance = held[i].wrapping_sub(first);
            if distance < span {
                let word = distance / u32::BITS;
                let place = (word >> shift) * pitch + (word & (per_thread - 1));
                memory.reduce(AtomicOp::Or, place, 1 << (distance % u32::BITS));
            }
        }
        block::sync();
        let mut own = 0;
        for_each(per_thread, |word| own += memory.get(thread * pitch + word).count_ones());
        let ([before], [total]) = sums.before([own]);
        let mut own_position = position + before;
        for_each(per_thread, |word| {
            let bits = memory.get(thread * pitch + word);
            let start = first + (thread * per_thread + word) * u32::BITS;
            staged.set_bits(bits, own_position, |bit| start + bit);
            own_position += bits.count_ones();
        });
        position += total;
        for_each(per_thread, clear);
        first += span;
        // After the last pass: everything is staged.
        block::sync();
    }
}

/// The staged indices that a thread sorts; larger than any where there is none.
#[inline(always)]
fn hold(staged: Staged, count: u32) -> [u32; HELD as usize] {
    let mut held = [u32::MAX; HELD as usize];
    for i in 0..HELD {
        let position = opaque(thread::index()) + i * THREADS;
        if position < count {
            held[i as usize] = staged.get(position);
        }
    }
    held
}

/// Counts of the indices with the same leading bits, in shared memory.
struct Buckets;

impl Buckets {
    const COUNT: u32 = 4 * THREADS;
    /// Behind them, the complement of the lowest index, and the highest.
    const LOW: u32 = Self::COUNT;
    const HIGH: u32 = Self::COUNT + 1;
    const WORDS: u32 = Self::COUNT + 2;
    /// Most indices of a bucket.
    const MOST: u32 = 64;
}

/// Sorts the first `count` staged indices, unless too many of them share a bucket: then it changes nothing and returns
/// `false`.
///
/// Collective over the block; begins and ends with a block barrier.
#[inline(always)]
fn sort_by_buckets(staged: Staged, count: u32, memory: Shared<u32>, sums: Sums) -> bool {
    const { assert!(Buckets::MOST < 1 << 8 && Staged::WORDS < 1 << u16::BITS) };
    let thread = opaque(thread::index());
    let exists = |i: u32| thread + i * THREADS < count;
    block::sync();
    let held = hold(staged, count);
    memory.set4(4 * thread, [0; 4]);
    if thread == 0 {
        memory.set(Buckets::LOW, 0);
        memory.set(Buckets::HIGH, 0);
    }
    let (mut low, mut high) = (0, 0);
    for i in 0..HELD {
        if exists(i) {
            low = low.max(!held[i as usize]);
            high = high.max(held[i as usize]);
        }
    }
    let (low, high) = (warp::reduce_max(warp::ALL, low), warp::reduce_max(warp::ALL, high));
    block::sync();
    if thread::lane() == 0 {
        memory.reduce(AtomicOp::Max, Buckets::LOW, low);
        memory.reduce(AtomicOp::Max, Buckets::HIGH, high);
    }
    block::sync();
    // Wrapping: nothing may be staged.
    let low = !memory.get(Buckets::LOW);
    let shift = (u32::BITS - (memory.get(Buckets::HIGH).wrapping_sub(low)).leading_zeros())
        .saturating_sub(Buckets::COUNT.ilog2());
    let bucket_of = |index: u32| (index - low) >> shift;
    // Numbers within the bucket. Opaque, so that all atomics are on their way before the first answer is used.
    let mut numbers = [0_u32; HELD as usize];
    for i in 0..HELD {
        if exists(i) {
            numbers[i as usize] = memory.atomic(AtomicOp::Add, bucket_of(held[i as usize]), 1);
        }
    }
    let numbers = bytes(numbers.map(opaque));
    block::sync();
    let [a, b, c, d] = memory.get4(4 * thread);
    let ([before], _) = sums.before([a + b + c + d]);
    if block::sync_or(a.max(b).max(c.max(d)) > Buckets::MOST) {
        return false;
    }
    // Where each bucket starts, and how many it has.
    let packed = |start, count| start | count << u16::BITS;
    let starts = [before, before + a, before + a + b, before + a + b + c];
    let buckets = [packed(starts[0], a), packed(starts[1], b), packed(starts[2], c), packed(starts[3], d)];
    memory.set4(4 * thread, buckets);
    block::sync();
    // The bucket of each index, an empty one where there is none.
    let mut own = [0_u32; HELD as usize];
    for i in 0..HELD {
        if exists(i) {
            own[i as usize] = memory.get(bucket_of(held[i as usize]));
        }
    }
    let start = |bucket: u32| bucket & 0xffff;
    for i in 0..HELD {
        if exists(i) {
            staged.set(start(own[i as usize]) + byte(numbers, i), held[i as usize]);
        }
    }
    block::sync();
    let low = ranked(staged, half(held, 0), half(own, 0));
    let high = if count > HALF * THREADS {
        ranked(staged, half(held, HALF), half(own, HALF))
    } else {
        [0; HALF as usize]
    };
    block::sync();
    for i in 0..HELD {
        if exists(i) {
            let position = if i < HALF { low[i as usize] } else { high[(i - HALF) as usize] };
            staged.set(position, held[i as usize]);
        }
    }
    block::sync();
    true
}

/// The half of what a thread holds from number `first` on.
#[inline(always)]
fn half(held: [u32; HELD as usize], first: u32) -> [u32; HALF as usize] {
    let mut half = [0; HALF as usize];
    for i in 0..HALF as usize {
        half[i] = held[first as usize + i];
    }
    half
}

/// The positions of indices when sorted, of each by its rank in its bucket.
///
/// One of each bucket at a time, and opaque, so that no load waits for another.
#[inline(always)]
fn ranked(staged: Staged, held: [u32; HALF as usize], buckets: [u32; HALF as usize]) -> [u32; HALF as usize] {
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
    positions
}

/// Numbers of a byte each, four to a word; larger ones count as 255.
#[inline(always)]
fn bytes(numbers: [u32; HELD as usize]) -> [u32; HELD.div_ceil(4) as usize] {
    let mut words = [0; HELD.div_ceil(4) as usize];
    for i in 0..HELD as usize {
        words[i / 4] |= numbers[i].min(0xff) << (i % 4 * 8);
    }
    words
}

/// Number `i` of [`bytes`].
#[inline(always)]
fn byte(words: [u32; HELD.div_ceil(4) as usize], i: u32) -> u32 {
    words[i as usize / 4] >> (i % 4 * 8) & 0xff
}

/// Calls `f` with each of a thread's words.
#[inline(always)]
fn for_each(per_thread: u32, mut f: impl FnMut(u32)) {
    let mut word = 0;
    while word < per_thread {
        f(word);
        word += 1;
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
        let mut place = next + (before[v as usize / 2] >> half & 0xffff);
        let mut bits = of_vector(v);
        while bits != 0 {
            put(place, v * E::PER_VECTOR + lowest_bit(bits));
            place += 1;
            bits &= bits - 1;
        }
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
