//! The output row, and the emission of selected indices into it.
//!
//! The winners (elements above the threshold) come first, in any order; then as many of the elements equal
//! to it as are still wanted. A warp reserves room for all its elements of a tile with one atomic.

use dsa_simt::{AtomicOp, Carve, Global, Shared, opaque, thread, warp};

use super::bins::THREADS;
use super::element::Element;
use super::histogram::{inclusive_sum, interval};
use super::key::{ABSENT, half_key};
use super::scores::Scores;
use super::source::{Tile, Visitor};
use super::{Batch, comes_last};

/// What separates winners and ties from the rest. [`ABSENT`] is neither.
pub trait Threshold: Copy {
    /// Whether a key is a winner, and whether it is a winner or a tie.
    fn selects(self, key: u32) -> (bool, bool);
}

/// Ties are the keys that start with the leading bits of the k-th largest.
#[derive(Clone, Copy)]
pub struct KeyThreshold {
    first_tie: u32,
    last_tie: u32,
}

impl KeyThreshold {
    /// Ties are the keys with `key >> shift == prefix`.
    #[inline(always)]
    pub fn new(prefix: u32, shift: u32) -> Self {
        let (first_tie, last_tie) = interval(prefix, shift);
        Self { first_tie, last_tie }
    }

    /// All keys from `key` on are ties, there are no winners: for listing what is not decided yet.
    #[inline(always)]
    pub fn all_from(key: u32) -> Self {
        Self { first_tie: key.max(ABSENT + 1), last_tie: u32::MAX }
    }
}

impl Threshold for KeyThreshold {
    #[inline(always)]
    fn selects(self, key: u32) -> (bool, bool) {
        (key > self.last_tie, key >= self.first_tie)
    }
}

/// Ties are the elements of one bin of the half-precision key: `key16 >> SHIFT == bin`.
#[derive(Clone, Copy)]
pub struct HalfThreshold<const SHIFT: u32> {
    /// The bin.
    pub bin: u32,
}

impl<const SHIFT: u32> Threshold for HalfThreshold<SHIFT> {
    #[inline(always)]
    fn selects(self, key: u32) -> (bool, bool) {
        let bin = half_key(key) >> SHIFT;
        (bin > self.bin, bin >= self.bin && key != ABSENT)
    }
}

/// Two running counts in shared memory: winners and ties that were placed.
#[derive(Clone, Copy)]
pub struct Counters(Shared<u32>);

impl Counters {
    /// Words of shared memory that [`Counters::carve`] takes, rounded up to 16 bytes.
    pub const WORDS: u32 = 4;
    const WINNERS: u32 = 0;
    const TIES: u32 = 1;

    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`Counters::WORDS`] words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        Self(unsafe { carve.array(Self::WORDS) })
    }

    /// Sets where the counting starts; one thread calls it, a block barrier before the first emission.
    #[inline(always)]
    pub fn start(self, winners: u32, ties: u32) {
        self.0.set(Self::WINNERS, winners);
        self.0.set(Self::TIES, ties);
    }

    /// A position for one tie.
    #[inline(always)]
    pub fn tie(self) -> u32 {
        self.0.atomic(AtomicOp::Add, Self::TIES, 1)
    }

    /// Positions for the thread's `ties`, one after the other.
    #[inline(always)]
    pub fn reserve_ties(self, ties: u32) -> u32 {
        self.0.atomic(AtomicOp::Add, Self::TIES, ties)
    }

    /// Winners that were placed, after a block barrier.
    #[inline(always)]
    pub fn winners(self) -> u32 {
        self.0.get(Self::WINNERS)
    }

    /// The same where they may have been reserved together with ties ([`reserve_few`](Self::reserve_few)).
    #[inline(always)]
    pub fn few_winners(self) -> u32 {
        self.winners() & 0xffff
    }

    /// The ties that were reserved so.
    #[inline(always)]
    pub fn few_ties(self) -> u32 {
        self.winners() >> u16::BITS
    }

    /// Ties that were placed, after a block barrier.
    #[inline(always)]
    pub fn ties(self) -> u32 {
        self.0.get(Self::TIES)
    }

    /// A position for one winner.
    #[inline(always)]
    pub fn winner(self) -> u32 {
        self.0.atomic(AtomicOp::Add, Self::WINNERS, 1)
    }

    /// Counts the lane's `winners`, whose positions are not asked for; collective over the warp.
    #[inline(always)]
    pub fn count_winners(self, winners: u32) {
        let sum = warp::reduce_add(warp::ALL, winners);
        if thread::lane() == 0 {
            self.0.reduce(AtomicOp::Add, Self::WINNERS, sum);
        }
    }

    /// Positions for the lane's `winners`; collective over the warp.
    #[inline(always)]
    pub fn reserve_winners(self, winners: u32) -> u32 {
        let sum = inclusive_sum(winners);
        let mut base = 0;
        if thread::lane() == warp::SIZE - 1 && sum > 0 {
            base = self.0.atomic(AtomicOp::Add, Self::WINNERS, sum);
        }
        warp::shuffle(warp::ALL, base, warp::SIZE - 1) + sum - winners
    }

    /// Positions for the lane's `winners` and `ties`; collective over the warp.
    #[inline(always)]
    pub fn reserve(self, winners: u32, ties: u32) -> (u32, u32) {
        // Both sums in one: a tile has far fewer than 2^16 elements in a warp.
        let packed = winners | ties << 16;
        let sum = inclusive_sum(packed);
        let (mut winner_base, mut tie_base) = (0, 0);
        if thread::lane() == warp::SIZE - 1 {
            if sum & 0xffff != 0 {
                winner_base = self.0.atomic(AtomicOp::Add, Self::WINNERS, sum & 0xffff);
            }
            if sum >> 16 != 0 {
                tie_base = self.0.atomic(AtomicOp::Add, Self::TIES, sum >> 16);
            }
        }
        let winner_base = warp::shuffle(warp::ALL, winner_base, warp::SIZE - 1);
        let tie_base = warp::shuffle(warp::ALL, tie_base, warp::SIZE - 1);
        let before = sum - packed;
        (winner_base + (before & 0xffff), tie_base + (before >> 16))
    }

    /// The same if there are fewer than 2^16 of either in all, which are not counted in any other way: with one atomic.
    #[inline(always)]
    pub fn reserve_few(self, winners: u32, ties: u32) -> (u32, u32) {
        let before = self.reserve_winners(winners | ties << u16::BITS);
        (before & 0xffff, before >> u16::BITS)
    }
}

/// Where ties go.
pub trait TieSink {
    /// Whether it looks at the keys of ties.
    const WANTS_KEYS: bool;
    /// Takes the tie with number `number` (each number is given once).
    fn take(&mut self, number: u32, key: u32, index: u32);
}

/// The first `wanted` ties complete the output row.
#[derive(Clone, Copy)]
pub struct FirstTies {
    /// The output row.
    pub out: Global<i32>,
    /// Position of the first tie: the number of winners.
    pub position: u32,
    /// Ties that are wanted.
    pub wanted: u32,
}

impl TieSink for FirstTies {
    const WANTS_KEYS: bool = false;

    #[inline(always)]
    fn take(&mut self, number: u32, _key: u32, index: u32) {
        if number < self.wanted {
            self.out.set((self.position + number) as usize, index.cast_signed());
        }
    }
}

/// Number of the lowest set bit. (`trailing_zeros` compiles to a branch on this target.)
#[inline(always)]
pub fn lowest_bit(bits: u32) -> u32 {
    bits.reverse_bits().leading_zeros()
}

/// Calls `put` for each bit set in `bits`, with a position, from `position` on, and the number of the bit.
#[inline(always)]
pub fn for_each_bit(mut bits: u32, mut position: u32, mut put: impl FnMut(u32, u32)) {
    while bits != 0 {
        put(position, lowest_bit(bits));
        position += 1;
        bits &= bits - 1;
    }
}

/// Writes the winners of each tile to the output row and gives the ties to a sink.
pub struct Emit<H, S> {
    /// What separates winners from ties and from the rest.
    pub threshold: H,
    /// Running positions.
    pub counters: Counters,
    /// The output row.
    pub out: Global<i32>,
    /// Where ties go.
    pub ties: S,
}

impl<H: Threshold, S: TieSink> Visitor for Emit<H, S> {
    #[inline(always)]
    fn visit<const N: usize>(&mut self, tile: Tile<N>) {
        let (mut winners, mut selected) = (0_u32, 0_u32);
        for element in 0..N {
            let (is_winner, is_selected) = self.threshold.selects(tile.keys[element]);
            winners |= u32::from(is_winner) << element;
            selected |= u32::from(is_selected) << element;
        }
        if !warp::any(warp::ALL, selected != 0) {
            return;
        }
        let ties = selected & !winners;
        let (winner, mut tie) = self.counters.reserve(winners.count_ones(), ties.count_ones());
        // Over the set bits, which are few; a loop over all elements would be unrolled to no use.
        for_each_bit(winners, winner, |position, bit| {
            self.out.set(position as usize, tile.index(bit).cast_signed());
        });
        if S::WANTS_KEYS {
            // Over all elements: an element chosen at run time would put the keys into local memory.
            for element in 0..N {
                if ties >> element & 1 != 0 {
                    self.ties.take(tie, tile.keys[element], tile.index(element as u32));
                    tie += 1;
                }
            }
        } else {
            for_each_bit(ties, tie, |tie, bit| self.ties.take(tie, ABSENT, tile.index(bit)));
        }
    }
}

/// Where the answer for a row goes: its indices and, if they are asked for, the scores at them.
#[derive(Clone, Copy)]
pub struct OutRow<E: Element> {
    out: Global<i32>,
    /// From the position of the thread's number on.
    of_thread: Global<i32>,
    values: Option<E::Array>,
    scores: E::Array,
}

impl<E: Element> OutRow<E> {
    /// The place in `batch` for row `row`, whose scores are `scores`.
    #[inline(always)]
    pub fn new(batch: &Batch<E>, row: u32, scores: Scores<E>) -> Self {
        Self::at(Self::of_thread(batch, row), batch, row, scores)
    }

    /// What this thread [writes](Self::write) of an output row: from the position of its number on.
    #[inline(always)]
    pub fn of_thread(batch: &Batch<E>, row: u32) -> Global<i32> {
        let first = opaque(thread::index()).min(batch.k);
        batch.out_row(row).slice(first as usize, (batch.k - first) as usize)
    }

    /// As [`new`](Self::new), where [`of_thread`](Self::of_thread) is known.
    #[inline(always)]
    pub fn at(of_thread: Global<i32>, batch: &Batch<E>, row: u32, scores: Scores<E>) -> Self {
        Self { out: batch.out_row(row), of_thread, values: batch.values_row(row), scores: scores.array() }
    }

    /// Writes one entry.
    #[inline(always)]
    pub fn put(&self, position: u32, index: u32) {
        self.out.set(position as usize, index.cast_signed());
        if let Some(values) = self.values {
            E::copy(self.scores, index, values, position);
        }
    }

    /// Writes the first `count` indices that are staged, at most [`MAX_K`](super::MAX_K), from position `first` on. Collective
    /// over the block.
    #[inline(always)]
    pub fn write(&self, staged: Staged, first: u32, count: u32) {
        // Asked once, and not for each entry.
        if comes_last(self.values.is_some()) {
            for_each_staged(staged, count, |distance, index| {
                self.put(first + distance + opaque(thread::index()), index)
            });
        } else {
            for_each_staged(staged, count, |distance, index| {
                self.of_thread.set((first + distance) as usize, index.cast_signed());
            });
        }
    }
}

/// Calls `put` with the index of each of the first `count` that are staged, at most `MAX_K`, and how far its position is behind
/// the thread's number. Collective over the block.
#[inline(always)]
fn for_each_staged(staged: Staged, count: u32, put: impl Fn(u32, u32)) {
    const AT_ONCE: u32 = 4;
    const { assert!(super::MAX_K.is_multiple_of(AT_ONCE * THREADS)) };
    // Without a loop.
    for of in 0..const { super::MAX_K / (AT_ONCE * THREADS) } {
        let own = opaque(thread::index()) + of * AT_ONCE * THREADS;
        if own >= count {
            return;
        }
        // All are read before the first is written.
        let mut indices = [0; AT_ONCE as usize];
        for i in 0..AT_ONCE {
            indices[i as usize] = staged.get((own + i * THREADS).min(count - 1));
        }
        for i in 0..AT_ONCE {
            let distance = (of * AT_ONCE + i) * THREADS;
            if own + i * THREADS < count {
                put(distance, indices[i as usize]);
            }
        }
    }
}

/// An output row in the making, in shared memory: single words at scattered positions are slow to write to
/// device memory. The lanes of a warp write runs of different lengths, which do not meet in one bank often.
#[derive(Clone, Copy)]
pub struct Staged(Shared<u32>);

impl Staged {
    /// Words that the longest output row takes.
    pub const WORDS: u32 = super::MAX_K;

    /// Stages in `words`, of which there are [`Staged::WORDS`].
    #[inline(always)]
    pub fn new(words: Shared<u32>) -> Self {
        Self(words)
    }

    /// Puts an index at a position.
    #[inline(always)]
    pub fn set(self, position: u32, index: u32) {
        self.0.set(position, index);
    }

    /// The index at a position.
    #[inline(always)]
    pub fn get(self, position: u32) -> u32 {
        self.0.get(position)
    }

    /// The indices at four positions, the first a multiple of four: any behind the end.
    #[inline(always)]
    pub fn get4(self, position: u32) -> [u32; 4] {
        self.0.get4(position)
    }

    /// Puts the indices of the bits set in this lane's `winners`, of which there are up to `count`, at positions
    /// reserved for them. Collective over the warp.
    #[inline(always)]
    pub fn set_winners(self, counters: Counters, winners: u32, count: u32, index: impl Fn(u32) -> u32) {
        let position = counters.reserve_winners(winners.count_ones());
        self.set_reserved(winners, count, position, index);
    }

    /// The same at the positions from `position` on, which were reserved for this lane.
    #[inline(always)]
    pub fn set_reserved(self, winners: u32, count: u32, position: u32, index: impl Fn(u32) -> u32) {
        let mut next = self.0.cursor(position);
        for bit in 0..count {
            if winners >> bit & 1 != 0 {
                next.push(index(bit));
            }
        }
    }

    /// Puts the indices of the bits set in `bits` at the positions from `position` on.
    #[inline(always)]
    pub fn set_bits(self, bits: u32, position: u32, index: impl Fn(u32) -> u32) {
        for_each_bit(bits, position, |position, bit| self.set(position, index(bit)));
    }
}
