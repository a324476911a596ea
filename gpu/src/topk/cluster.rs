//! Rows that the blocks of a cluster keep in their registers together: one cluster for each row.
//!
//! 1. Each block counts its slice of the row in the bins of half-precision values ([`resident`]).
//! 2. Each block replaces its counts by running sums, finds the bin of the element that would be the last one
//!    wanted if all blocks had equally many. Where rows are mixed well, the bin of the k-th largest of all is near: each
//!    block reads the running sums of all blocks around it. Where it is not, the stretch of places that it is in is found
//!    first, by the running sums at the ends of all stretches.
//! 3. Each block stages its scores above that bin, lists those in it, and tells the others how many they are. That
//!    is where the blocks of a row write their indices.
//! 4. What lies in the bin, some dozens of scores, is gathered by each block, which ranks its part of them and writes
//!    those that are selected.
//!
//! So blocks wait for each other twice, by the barrier of the hardware, and the row is read once. For an output in the
//! order of the indices they do a third time, unless the bin has so few that every block ranks all: each ranks what it has
//! listed, and tells how much of it is selected. A block writes to its own shared memory only, which the others read: such a barrier needs no fence for global memory. A
//! cluster is started as a whole: nobody waits for a block that cannot run. If the bin is crowded, its keys are told
//! apart by [`refine::narrow`] over all slices at once. Their scores are still in registers if those of a slice fit, and the
//! keys are not the lowest; otherwise they are read again, from the cache they have come through. Slices that are too long for
//! registers are left to [`sampled_cluster`].
//!
//! Rows that one block has in its registers at its best are left to the first block, which has their first scores on their
//! way before their length is known, where slices may be streamed.
//!
//! The idea of sharing the histogram of a row in a cluster is that of SGLang's top-k (its second version).

use dsa_simt::{AtomicOp, Carve, Shared, block, cluster, grid, opaque, thread, warp};

use super::ahead::Ahead;
use super::ascending::{Bitmap, Marked, Marks, Sorter};
use super::auto::{complete, write_whole};
use super::bins::{self, BinOrder, Bins, COUNT, SignMagnitude, THREADS};
use super::candidates::{self, Candidates, TieBreak};
use super::element::Element;
use super::half::{self, Bounds, LOWEST_BIN};
use super::histogram::Pick;
use super::key::ABSENT;
use super::output::{Counters, OutRow, Staged, lowest_bit};
use super::prefix::Sums;
use super::refine::{self, KeyRange, Merge, Narrowed, Outcome, Scratch};
use super::resident::{self, Found, Held, Pairs, Tie};
use super::sampled_cluster::{self, Streamed};
use super::scores::{Keys, Scores, Slice};
use super::source::{Source, Tile, Visitor};
use super::stream;
use super::{Batch, MAX_K, Options, RESIDENT_PLACES, ascending, opaque_length};

/// What the first block reads of a row before its length is known, where slices may be streamed.
type First<E> = Ahead<E, 2>;

/// Most blocks of a cluster.
pub const MAX_BLOCKS: u32 = 16;
/// Bytes of dynamic shared memory of each block of clusters of `size` blocks, if the longest row has `max_len` elements.
/// Slices that are too long for registers are streamed with `tiles` tiles at a time, one of [`DEPTHS`](stream::DEPTHS).
pub const fn shared_bytes(max_len: u32, size: u32, tiles: u32) -> u32 {
    let always = Scratch::BYTES + 4 * Team::TALLY;
    if is_held(max_len, size) {
        always + 4 * Team::WORDS
    } else {
        let streamed = stream::room_words(tiles);
        let placed = Team::WORDS;
        always + 4 * (Streamed::LISTED + if streamed > placed { streamed } else { placed })
    }
}

/// Whether the slices of all rows of up to `max_len` elements fit in the registers of clusters of `size` blocks; of the
/// longest ones perhaps only if they start at an address aligned to 16 bytes.
pub const fn is_held(max_len: u32, size: u32) -> bool {
    max_len <= size * RESIDENT_PLACES
}

/// Top-k of every row, each by a cluster of blocks that keep it in their registers, if [they can](is_held): the body of
/// [`topk_f32_cluster`](super::topk_f32_cluster) and its like.
///
/// A cluster of 2, 4, 8 or 16 blocks of [`THREADS`] threads for each row, with [`shared_bytes`]`(max_len, size, tiles)` of
/// dynamic shared memory. The parameters are the fields of [`Batch`] and the bits of [`Options`].
///
/// # Safety
/// The launch is one of these, and keeps the promises of [`Batch`].
#[inline(always)]
pub unsafe fn run_held<E: Element>(batch: Batch<E>, options: Options) {
    // SAFETY: the launcher's promise.
    unsafe { run(batch, options, true) }
}

/// As [`run_held`], but if clusters [cannot hold](is_held) the longest row: the blocks stream slices that are too long for
/// registers. The body of [`topk_f32_cluster_streamed`](super::topk_f32_cluster_streamed) and its like.
///
/// # Safety
/// See [`run_held`].
#[inline(always)]
pub unsafe fn run_streamed<E: Element>(batch: Batch<E>, options: Options) {
    // SAFETY: the launcher's promise.
    unsafe { run(batch, options, false) }
}

/// The body of both.
///
/// # Safety
/// The launch has [`shared_bytes`] of shared memory, and `batch` keeps its promises. `are_held` exactly if
/// [all rows are](is_held).
#[cfg_attr(target_arch = "nvptx64", inline(always))]
#[cfg_attr(not(target_arch = "nvptx64"), inline(never))]
unsafe fn run<E: Element>(batch: Batch<E>, options: Options, are_held: bool) {
    let mut carve = Carve::dynamic();
    // SAFETY: the launch has `shared_bytes` of shared memory.
    let (scratch, team) = unsafe {
        let scratch = Scratch::carve(&mut carve);
        let tally = carve.array(Team::TALLY);
        // Where the tiles come to, too.
        (scratch, Team::carve(&mut { carve }, tally, scratch))
    };
    scratch.start();
    team.start();
    // Opaque: computed again at the end, and not held in a register until then.
    let own_row = || opaque(block::index()) >> cluster::size().ilog2();
    let row = own_row();
    // What can be computed now takes no time, as long as the launch before this one has not ended.
    let (sequence, start) = (opaque(batch.sequence(row)), batch.row_start(row));
    // Where slices are held, it would delay those of long rows.
    let first = (!are_held).then(|| First::of(&batch, row));
    // What is used is empty.
    block::sync();
    // As in `auto::run`.
    grid::wait_for_earlier();
    let length = opaque_length(batch.length_of(sequence));
    // By the block that has the row alone, if it is short.
    let first = first.filter(|first| cluster::rank() == 0 && !first.is_partial()).map(|first| first.read());
    // Opaque: not computed before the scores are on their way, which would wait for it.
    let len = batch.valid(row, opaque_length(length));
    if len <= batch.k {
        if cluster::rank() == 0 {
            write_whole(&batch, row, len);
        }
        return;
    }
    let scores = Scores::<E>::new(batch.scores_at(start, len));
    let is_ascending = options.is_ascending();
    if scores.places() <= RESIDENT_PLACES / 2 {
        // One block is faster than several that wait for each other.
        if cluster::rank() == 0 {
            let out = || OutRow::new(&batch, row, scores);
            let outcome = match first {
                Some(share) if scores.places() <= First::<E>::PLACES => {
                    let (share, end) = (share.first_before::<E, 2>(len), scores.vectors());
                    let held = Pairs::<4>::of::<E, 2>(&share, 0, end, scratch.bins);
                    resident::select_held::<E, _>(held, scores, batch.k, options, scratch, out)
                }
                _ => resident::select_short(scores, batch.k, options, scratch, out),
            };
            if outcome != Outcome::Done {
                complete(&batch, options, row, len, outcome, || scratch.words, scratch);
            }
        }
        return;
    }
    let slice = own_slice(scores);
    type Half = Pairs<8>;
    let will_any_do = options.are_none();
    // The same for all blocks of the cluster.
    let places = share(slice.row) * E::PER_VECTOR;
    // Each with an end of its own, and what is rare behind them: where ways meet again, one of them is jumped over.
    let mut kept = None;
    if are_held && places <= RESIDENT_PLACES / 2 {
        const { assert!(Keys::<E>::MOST_PLACES == RESIDENT_PLACES / 2) };
        let share = slice.share();
        let held = Half::of::<E, 4>(&share, slice.first, slice.end, scratch.bins);
        // So that a crowded slice need not be read again.
        kept = Some(share);
        let outcome = select::<E, Half>(held, slice, batch.k, is_ascending, scratch, team);
        if outcome != Outcome::Crowded {
            return finish(&batch, own_row(), slice, options, outcome, scratch, team);
        }
    } else if places <= RESIDENT_PLACES {
        let held = <(Half, Half)>::hold(slice, scratch.bins);
        let outcome = select::<E, _>(held, slice, batch.k, is_ascending, scratch, team);
        if outcome != Outcome::Crowded {
            return finish(&batch, own_row(), slice, options, outcome, scratch, team);
        }
    } else if !are_held {
        // SAFETY: then the launch has room for a list, and before it for the tiles. What is staged and listed at the end
        // comes into the room of the tiles, of which none is on its way then.
        let streamed = unsafe { Streamed::carve(&mut carve) };
        let outcome = sampled_cluster::select(slice, batch.k, will_any_do, scratch, team, streamed);
        if outcome != Outcome::Crowded {
            return finish(&batch, own_row(), slice, options, outcome, scratch, team);
        }
    } else {
        // At an address that is not aligned, the slices of a row of nearly as many scores have more places.
        scratch.note(Narrowed::UNKNOWN);
    }
    let slice = own_slice(scores);
    block::sync();
    let known = scratch.noted();
    let outcome = match kept {
        Some(share) if known.count != Narrowed::UNCOUNTED => {
            let keys = Keys::<E>::beside(known.range, &share);
            refine_slice(&keys, slice, batch.k, will_any_do, scratch, team)
        }
        _ => refine_slice(&slice, slice, batch.k, will_any_do, scratch, team),
    };
    finish(&batch, own_row(), slice, options, outcome, scratch, team);
}

/// Up to this many elements are ranked by comparing all pairs, which all blocks do together.
#[inline(always)]
pub(super) fn most_ranked() -> u32 {
    (128 * cluster::size()).clamp(512, MOST_RANKED)
}

/// The same for the largest cluster.
const MOST_RANKED: u32 = 1536;

/// Vectors of a block's slice of the row; the last blocks may have fewer.
#[inline(always)]
fn share<E: Element>(row: Scores<E>) -> u32 {
    of_block(row.vectors())
}

/// Scores of a slice that a thread holds, if it is not too long for that.
#[inline(always)]
fn held<E: Element>(row: Scores<E>) -> u32 {
    let places = share(row) * E::PER_VECTOR;
    (if places <= RESIDENT_PLACES / 2 { RESIDENT_PLACES / 2 } else { RESIDENT_PLACES }) / THREADS
}

/// A block's part of `count`, rounded up.
#[inline(always)]
fn of_block(count: u32) -> u32 {
    // Sizes are powers of two.
    (count + cluster::size() - 1) >> cluster::size().ilog2()
}

/// The sum of `of` over the blocks of lower rank than `rank`. Collective over the warp.
#[inline(always)]
fn sum_of_lower(rank: u32, of: impl Fn(u32) -> u32) -> u32 {
    let lane = thread::lane();
    warp::reduce_add(warp::ALL, if lane < rank { of(lane) } else { 0 })
}

/// The slice of this block; the indices of higher ranks are higher.
#[inline(always)]
fn own_slice<E: Element>(row: Scores<E>) -> Slice<E> {
    let end = row.vectors();
    // Opaque: computed where it is used, and not held in registers.
    let first = (opaque(cluster::rank()) * share(row)).min(end);
    Slice { row, first, end: end.min(first + share(row)) }
}

/// Stages what is certain of the slice and lists what is to be ranked. What there is of both is noted; if the bin is
/// crowded, nothing is staged or listed, and it is noted.
///
/// With `is_ascending`, marks instead of staging ([`Outcome::Marked`]). The bins are empty, the counters and the extremes
/// zero. Collective over the cluster.
#[inline(always)]
fn select<E: Element, H: Held<E>>(
    held: H,
    slice: Slice<E>,
    wanted: u32,
    is_ascending: bool,
    scratch: Scratch,
    team: Team,
) -> Outcome {
    let Scratch { bins, counters, words, .. } = scratch;
    let pick = team.pick::<SignMagnitude>(bins, wanted);
    // Not earlier: what starts while others still read takes their multiprocessors.
    grid::let_later_start();
    if pick.count > most_ranked() || pick.bin == LOWEST_BIN {
        scratch.note(half::narrowed(pick));
        return Outcome::Crowded;
    }
    scratch.note(Narrowed { range: KeyRange { first: 0, last: 0 }, above: pick.above, count: pick.count });
    let bounds = Bounds::of(pick.bin);
    let winners = held.at_least(bounds.high);
    let ties = held.at_least(bounds.low) & !winners;
    let (row, start) = (slice.row, first_index(slice));
    // As in `resident::place`: on its way while the winners are placed.
    let first = Tie::first_of(row, start, ties);
    if is_ascending {
        words.set(thread::index(), winners);
        counters.count_winners(winners.count_ones());
        first.for_each(row, start, ties, |tie| tie.list(team.listed, counters.tie()));
    } else {
        let found = Found { winners, ties, pick };
        found.stage_and_list::<E, H>(row, start, first, counters, team.staged(), team.listed);
    }
    if is_ascending { Outcome::Marked } else { Outcome::Staged }
}

/// The index of the thread's first score; wraps below zero.
#[inline(always)]
fn first_index<E: Element>(slice: Slice<E>) -> u32 {
    ((slice.first + opaque(thread::index())) * E::PER_VECTOR).wrapping_sub(slice.row.first_place())
}

/// As [`select`], for any distribution: from `source`, in which all elements of the slice are that can be among the
/// k largest. What is known of the k-th largest was noted. Of the elements equal to it those with the lowest indices are
/// taken, which are looked for in the slice, unless `will_any_do` ([`Outcome::EqualApart`]).
///
/// The extremes are zero. Collective over the cluster, after a block barrier.
#[inline(always)]
pub(super) fn refine_slice<E: Element, S: Source>(
    source: &S,
    slice: Slice<E>,
    wanted: u32,
    will_any_do: bool,
    scratch: Scratch,
    team: Team,
) -> Outcome {
    let Scratch { counters, sums, .. } = scratch;
    let known = scratch.noted();
    let narrowed = refine::narrow(source, known, wanted, most_ranked(), scratch, &team);
    let Narrowed { range, above, count } = narrowed;
    if thread::index() == 0 {
        counters.start(0, 0);
    }
    let are_all_wanted = above + count == wanted;
    let are_equal = range.first == range.last && !are_all_wanted;
    let winning = if are_all_wanted { range.first - 1 } else { range.last };
    let is_settled = are_all_wanted || are_equal && !will_any_do;
    scratch.note(if is_settled { Narrowed { range, above: wanted, count: 0 } } else { narrowed });
    block::sync();
    let staged = team.staged();
    let rest = wanted - above;
    let ties = if !are_equal {
        Ties::Listed(team.listed)
    } else if will_any_do {
        Ties::StagedBelow(wanted)
    } else {
        Ties::Counted
    };
    source.visit(&mut Emit { scratch, staged, first: range.first, winning, ties, are_few: S::IS_HELD });
    if !are_equal {
        return Outcome::Staged;
    }
    if will_any_do {
        return Outcome::EqualApart;
    }
    block::sync();
    let (winners, ties) = if S::IS_HELD {
        (counters.few_winners(), counters.few_ties())
    } else {
        (counters.winners(), counters.ties())
    };
    let (before, _) = team.before(ties);
    let end = winners + rest.saturating_sub(before);
    let next = ascending::stage_equal(own_slice(slice.row), range.first, winners, end, staged, sums);
    block::sync();
    if thread::index() == 0 {
        counters.start(next.min(end), 0);
    }
    Outcome::Staged
}

/// Stages what is above a key. What is not, but from another key on, are ties.
struct Emit {
    scratch: Scratch,
    staged: Staged,
    first: u32,
    winning: u32,
    ties: Ties,
    /// Whether there are fewer than 2^16 elements. Known to the compiler.
    are_few: bool,
}

/// What is done with ties.
#[derive(Clone, Copy)]
enum Ties {
    /// They are counted.
    Counted,
    /// They are listed.
    Listed(Candidates),
    /// They are staged from this position down, as many as are wanted of the row: there is room for them beside the winners.
    StagedBelow(u32),
}

impl Visitor for Emit {
    #[inline(always)]
    fn visit<const N: usize>(&mut self, tile: Tile<N>) {
        let (mut winners, mut ties) = (0_u32, 0_u32);
        for element in 0..N {
            let key = tile.keys[element];
            winners |= u32::from(key > self.winning) << element;
            ties |= u32::from(key >= self.first.max(ABSENT + 1)) << element;
        }
        ties &= !winners;
        if !warp::any(warp::ALL, winners | ties != 0) {
            return;
        }
        let (counters, counts) = (self.scratch.counters, (winners.count_ones(), ties.count_ones()));
        let (winner, mut tie) = if self.are_few {
            counters.reserve_few(counts.0, counts.1)
        } else {
            counters.reserve(counts.0, counts.1)
        };
        self.staged.set_bits(winners, winner, |element| tile.index(element));
        match self.ties {
            Ties::Counted => {}
            Ties::Listed(listed) => {
                for element in 0..N {
                    if ties >> element & 1 != 0 {
                        listed.add(tie, tile.keys[element], tile.index(element as u32));
                        tie += 1;
                    }
                }
            }
            Ties::StagedBelow(end) => {
                // Read, and not held in registers from tile to tile.
                let most = end - self.scratch.noted().above;
                while ties != 0 && tie < most {
                    self.staged.set(end - 1 - tie, tile.index(lowest_bit(ties)));
                    tie += 1;
                    ties &= ties - 1;
                }
            }
        }
    }
}

/// Writes what the block has of the output row.
///
/// Collective over the cluster; begins with a block barrier.
#[inline(always)]
fn finish<E: Element>(
    batch: &Batch<E>,
    row: u32,
    slice: Slice<E>,
    options: Options,
    outcome: Outcome,
    scratch: Scratch,
    team: Team,
) {
    if outcome == Outcome::EqualApart {
        return finish_equal(batch, row, slice.row, scratch, team);
    }
    let Scratch { bins, counters, words, sums, .. } = scratch;
    let staged = team.staged();
    let slice = own_slice(slice.row);
    let (is_ascending, will_any_do) = (options.is_ascending(), options.are_none());
    let is_marked = outcome == Outcome::Marked;
    let (start, len) = (slice.first_index(), slice.end_index().saturating_sub(slice.first_index()));
    // What is staged of a slice that is not too long is sorted by a bitmap, in which it is marked while the block waits.
    let bitmap = Bitmap::new(team.marks, len);
    let is_sorted = is_ascending && !is_marked && len <= Bitmap::SPAN;
    // What is certain of a slice in registers is brought into order then, and the rest marked.
    let marks = Marks::new(team.marks, held(slice.row));
    if is_sorted {
        bitmap.clear();
    } else if is_marked {
        marks.clear();
    }
    team.begin_to_tell(counters);
    let first_place = slice.row.first_place().wrapping_sub(slice.first * E::PER_VECTOR);
    let mut marked = Marked::NOTHING;
    if is_sorted {
        ascending::for_each(staged, counters.few_winners(), |index| bitmap.mark(index - start));
    } else if is_marked {
        marked = Marked::of::<E>(words, held(slice.row), first_place);
    }
    team.receive(Team::COUNTS);
    let Narrowed { above, count, .. } = scratch.noted();
    let (first, own) = team.winners();
    let rank = cluster::rank();
    // Each block ranks equally many, whoever has listed them.
    let share = of_block(count);
    // Where any of equal scores will do, a block needs the indices of those that it ranks only.
    let needs_index = |number: u32| !will_any_do || number.wrapping_sub(rank * share) < share;
    team.gather(count, needs_index);
    block::sync();
    let out = OutRow::new(batch, row, slice.row);
    if !is_ascending {
        // Nobody's shared memory is read after this.
        cluster::leave();
        out.write(staged, first, own);
        let first = (rank * share).min(count);
        let end = (first + share).min(count);
        let mut put = |rank, index| out.put(above + rank, index);
        let tie_break = if will_any_do { TieBreak::Place } else { TieBreak::Index };
        team.rank(first, end, count, batch.k - above, tie_break, &mut put);
        cluster::wait_until_left();
        return;
    }
    // Few are ranked by every block, which so knows how many of each are selected. Of many, each block ranks what it has
    // listed, and tells the others how many of those are. The bins of held slices have many.
    let are_few = !is_marked && count <= warp::SIZE;
    let mut select = |_, index: u32| {
        if are_few && index.wrapping_sub(start) >= len {
            if index < start {
                team.tally.reduce(AtomicOp::Add, Team::SELECTED_BELOW, 1);
            }
            return;
        }
        if is_marked {
            marks.mark(index.wrapping_add(first_place));
        } else if is_sorted {
            bitmap.mark(index - start);
        } else {
            let number = team.tally.atomic(AtomicOp::Add, Team::SELECTED, 1);
            staged.set(own + number, index);
            return;
        }
        // Only counted.
        team.tally.reduce(AtomicOp::Add, Team::SELECTED, 1);
    };
    let wanted = batch.k - above;
    if are_few {
        cluster::leave();
        team.gathered.rank_few::<THREADS>(count, wanted, &mut select);
    } else {
        let before = sum_of_lower(rank, |lower| team.listed_by(lower));
        team.rank(before, before + team.listed_by(rank), count, wanted, TieBreak::Index, &mut select);
    }
    block::sync();
    let own = own + team.tally.get(Team::SELECTED);
    // What follows until the others have told theirs too needs nothing of them.
    if !are_few {
        team.offer(Team::NUMBERS, own);
    }
    let first = || {
        if are_few {
            block::sync();
            return first + team.tally.get(Team::SELECTED_BELOW);
        }
        team.receive(Team::NUMBERS);
        let first = team.sum_of_numbers(rank);
        cluster::leave();
        first
    };
    if is_marked {
        let marked = marked.and(marks);
        let before = sums.offer([marked.count()]);
        let first = first();
        let ([before], _) = sums.complete(before);
        // Lanes that follow each other have theirs at positions that do: not staged first.
        marked.for_each(first + before, |position, index| out.put(position, index));
    } else if is_sorted {
        bitmap.stage(start, sums, staged);
        // With a block barrier.
        out.write(staged, first(), own);
    } else {
        Sorter { memory: bins.words(), sums }.write(staged, own, (start, len), first(), &out);
    }
    cluster::wait_until_left();
}

/// The same where the elements that are equal to the k-th largest are [staged apart](Outcome::EqualApart): from position
/// `batch.k` down. Of these each block writes as many as the blocks of lower rank leave.
#[inline(always)]
fn finish_equal<E: Element>(batch: &Batch<E>, row: u32, scores: Scores<E>, scratch: Scratch, team: Team) {
    let staged = team.staged();
    team.begin_to_tell(scratch.counters);
    team.receive(Team::COUNTS);
    let (first, own) = team.winners();
    let rank = cluster::rank();
    let first_equal = scratch.noted().above + sum_of_lower(rank, |lower| team.listed_by(lower));
    // Nobody's shared memory is read after this.
    cluster::leave();
    let out = OutRow::new(batch, row, scores);
    out.write(staged, first, own);
    let count = team.listed_by(rank).min(batch.k.saturating_sub(first_equal));
    let mut number = opaque(thread::index());
    while number < count {
        out.put(first_equal + number, staged.get(batch.k - 1 - number));
        number += THREADS;
    }
    cluster::wait_until_left();
}

/// What the blocks of a cluster share, each with its own copy in its shared memory.
#[derive(Clone, Copy)]
pub struct Team {
    /// For staging, because others read the bins.
    staged: Shared<u32>,
    /// What the block lists, to be ranked.
    pub(super) listed: Candidates,
    /// For sorting.
    marks: Shared<u32>,
    /// What is listed by all blocks, where the bins were.
    gathered: Candidates,
    tally: Shared<u32>,
    words: Shared<u32>,
    sums: Sums,
}

impl Team {
    /// Words of shared memory that [`Team::carve`] takes.
    const WORDS: u32 = Staged::WORDS + candidates::words(MOST_RANKED) + Bitmap::WORDS;
    /// Words of the tally.
    const TALLY: u32 = Self::OUTLINE + bins::STRETCHES;
    /// In the tally, from here on: for each block, what it has staged, and in the upper half of the word what it has
    /// listed.
    const COUNTS: u32 = 0;
    /// From here on: for each block, the number that [`before`](Self::before) was given.
    const NUMBERS: u32 = MAX_BLOCKS;
    /// How many of the ranked elements that the block has listed are selected.
    const SELECTED: u32 = 2 * MAX_BLOCKS;
    /// How many of those are that blocks of lower rank have listed, where every block ranks all.
    const SELECTED_BELOW: u32 = Self::SELECTED + 1;
    /// What [`note_passed`](Self::note_passed) was told.
    const PASSED: u32 = Self::SELECTED + 2;
    /// Two words: what [`Merge::extremes`] gives.
    const EXTREMES: u32 = Self::SELECTED + 4;
    /// From here on: how many elements the block has in each stretch of places and all before it.
    const OUTLINE: u32 = Self::SELECTED + 8;
    /// Where [`pick`](Merge::pick) adds up what all blocks have, in the words: near the place that a block expects, in the
    /// stretches, and in one of them.
    const NEAR: u32 = 0;
    const FAR: u32 = THREADS / 2;
    const LAST: u32 = Self::FAR + bins::STRETCHES;

    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`Team::WORDS`] words.
    #[inline(always)]
    unsafe fn carve(carve: &mut Carve, tally: Shared<u32>, scratch: Scratch) -> Self {
        const { assert!(candidates::words(MOST_RANKED) <= COUNT) };
        // SAFETY: passed on to the caller.
        unsafe {
            Self {
                staged: carve.array(Staged::WORDS),
                listed: Candidates::carve(carve, MOST_RANKED),
                marks: carve.array(Bitmap::WORDS),
                gathered: Candidates::within(scratch.bins.words(), MOST_RANKED),
                tally,
                words: scratch.words,
                sums: scratch.sums,
            }
        }
    }

    /// Prepares what is not written by others. Collective over the block; a block barrier before the first use.
    #[inline(always)]
    fn start(self) {
        if thread::index() == 0 {
            self.tally.set(Self::SELECTED, 0);
            self.tally.set(Self::SELECTED_BELOW, 0);
        }
    }

    /// What the block has to write.
    #[inline(always)]
    pub(super) fn staged(self) -> Staged {
        Staged::new(self.staged)
    }

    /// The first half of telling all blocks what this one has staged and listed; the second is to
    /// [`receive`](Self::receive) the counts of all. Collective over the cluster; begins with a block barrier.
    #[inline(always)]
    fn begin_to_tell(self, counters: Counters) {
        block::sync();
        // More ties than are wanted of a row need not be told apart.
        let ties = counters.ties().min(MAX_K);
        self.offer(Self::COUNTS, counters.winners() | ties << u16::BITS);
    }

    /// The first half of bringing a number of each block into the tallies of all, from word `from` on: the other blocks'
    /// memory is left alone until the second, [`receive`](Self::receive). Collective over the cluster.
    #[inline(always)]
    fn offer(self, from: u32, number: u32) {
        if thread::index() == 0 {
            self.tally.set(from + cluster::rank(), number);
        }
        cluster::arrive_own();
    }

    /// The second half. Each block reads the numbers of the others: a number that is written to others needs a barrier that
    /// takes twice as long. Collective over the cluster; ends with a block barrier.
    #[inline(always)]
    fn receive(self, from: u32) {
        cluster::wait_own();
        let rank = thread::index();
        if rank < cluster::size() && rank != cluster::rank() {
            self.tally.set(from + rank, self.tally.at_rank(rank).get(from + rank));
        }
        block::sync();
    }

    /// What the blocks of lower rank have staged, and what this one has.
    #[inline(always)]
    fn winners(self) -> (u32, u32) {
        let of = |rank: u32| self.tally.get(Self::COUNTS + rank) & 0xffff;
        (sum_of_lower(cluster::rank(), of), of(cluster::rank()))
    }

    /// Tells all blocks a number of this one, and returns the sum over those of lower rank, and over all. Collective over
    /// the cluster; ends with a block barrier.
    #[inline(always)]
    pub(super) fn before(self, own: u32) -> (u32, u32) {
        self.offer(Self::NUMBERS, own);
        self.receive(Self::NUMBERS);
        (self.sum_of_numbers(cluster::rank()), self.sum_of_numbers(cluster::size()))
    }

    /// The sum of the numbers of the blocks of lower rank than `rank`. Collective over the warp.
    #[inline(always)]
    fn sum_of_numbers(self, rank: u32) -> u32 {
        sum_of_lower(rank, |lower| self.tally.get(Self::NUMBERS + lower))
    }

    /// Notes how many elements the block has listed, for [`passed`](Self::passed).
    #[inline(always)]
    pub(super) fn note_passed(self, listed: u32) {
        if thread::index() == 0 {
            self.tally.set(Self::PASSED, listed);
        }
    }

    /// How many elements all blocks together have noted, and the most of one. Collective over the warp, after a cluster
    /// barrier.
    #[inline(always)]
    pub(super) fn passed(self) -> (u32, u32) {
        let lane = thread::lane();
        let of_rank = self.tally.at_rank(lane & (cluster::size() - 1)).get(Self::PASSED);
        let own = if lane < cluster::size() { of_rank } else { 0 };
        (warp::reduce_add(warp::ALL, own), warp::reduce_max(warp::ALL, own))
    }

    /// Finds the first of so many running sums, in the words from `at` on, that is enough: its number, and the sum before
    /// it, which before the first one is `below`. A number behind them if it is not among them.
    ///
    /// Collective over the block; begins and ends with a block barrier.
    #[inline(always)]
    fn find(self, at: u32, sums: u32, below: u32, wanted: u32, bins: Bins) -> Pick {
        block::sync();
        let thread = opaque(thread::index());
        if thread < sums {
            let through = self.words.get(at + thread);
            let before = if thread > 0 { self.words.get(at + thread - 1) } else { below };
            if before < wanted && wanted <= through {
                bins.note(Pick { bin: thread, above: before, count: through - before });
            }
            let is_before = thread == 0 && wanted <= below.min(through);
            let is_behind = thread == sums - 1 && through < wanted;
            if is_before || is_behind {
                bins.note(Pick { bin: sums, above: 0, count: 0 });
            }
        }
        block::sync();
        bins.noted()
    }

    /// Copies what all blocks have listed, `count` elements. Of long lists, the indices are copied of those elements only whose
    /// numbers `needs_index`. Needs a block barrier before it is used.
    ///
    /// What one block gives to all others takes as long as it has words.
    #[inline(always)]
    fn gather(self, count: u32, needs_index: impl Fn(u32) -> bool) {
        // Equally many threads for each block: whole warps.
        const { assert!(THREADS / MAX_BLOCKS >= warp::SIZE) };
        let shift = THREADS.ilog2() - cluster::size().ilog2();
        let rank = opaque(thread::index()) >> shift;
        let before = sum_of_lower(rank, |lower| self.listed_by(lower));
        let number = opaque(thread::index()) & ((1 << shift) - 1);
        self.gather_some::<1>(rank, number, before, shift, |_| true);
        // Where one block has listed more, several are on their way together.
        let number = number + (1 << shift);
        if number < self.listed_by(rank) {
            self.gather_some::<4>(rank, number, before, shift, &needs_index);
        }
        // What is left of the longest lists is copied by all threads.
        let (lane, copied) = (thread::lane(), 5 << shift);
        if count <= copied {
            return;
        }
        let mut longer = warp::ballot(warp::ALL, lane < cluster::size() && self.listed_by(lane) > copied);
        const { assert!(MOST_RANKED <= 4 * THREADS) };
        while longer != 0 {
            let rank = lowest_bit(longer);
            let before = sum_of_lower(rank, |lower| self.listed_by(lower));
            let number = copied + opaque(thread::index());
            self.gather_some::<4>(rank, number, before, const { THREADS.ilog2() }, &needs_index);
            longer &= longer - 1;
        }
    }

    /// Copies up to `N` of what block `rank` has listed, from place `number` on, `1 << shift` places apart.
    #[inline(always)]
    fn gather_some<const N: usize>(
        self,
        rank: u32,
        number: u32,
        before: u32,
        shift: u32,
        needs_index: impl Fn(u32) -> bool,
    ) {
        let number = |i: usize| number + ((i as u32) << shift);
        let (mut keys, mut indices) = ([0; N], [0; N]);
        for i in 0..N {
            if number(i) < self.listed_by(rank) {
                keys[i] = self.listed.key_at_rank(rank, number(i));
                if needs_index(before + number(i)) {
                    indices[i] = self.listed.index_at_rank(rank, number(i));
                }
            }
        }
        for i in 0..N {
            if number(i) < self.listed_by(rank) {
                self.gathered.add(before + number(i), keys[i], indices[i]);
            }
        }
    }

    /// Calls `put` with the rank among the first `count` that were gathered, and the index, of each from number `first`
    /// to number `end` whose rank is below `wanted`. Collective over the block.
    #[inline(always)]
    fn rank(
        self,
        first: u32,
        end: u32,
        count: u32,
        wanted: u32,
        tie_break: TieBreak,
        put: &mut impl FnMut(u32, u32),
    ) {
        // One to a warp, if that is enough: the warps work side by side.
        if end - first <= const { THREADS / warp::SIZE } {
            self.gathered.rank_some::<THREADS, 1>(first, end, count, wanted, tie_break, put);
        } else {
            self.gathered.rank_some::<THREADS, 4>(first, end, count, wanted, tie_break, put);
        }
    }

    /// How many elements a block has listed.
    #[inline(always)]
    fn listed_by(self, rank: u32) -> u32 {
        self.tally.get(Self::COUNTS + rank) >> u16::BITS
    }
}

impl Merge for Team {
    #[inline(always)]
    fn extremes(&self, extremes: Shared<u32>) -> (u32, u32) {
        cluster::sync_own();
        // One warp asks for all: what is read from so many blocks is read one after the other.
        if thread::warp() == 0 {
            let of_rank = extremes.at_rank(thread::lane() & (cluster::size() - 1));
            let (low, high) = (of_rank.get(Scratch::LOW), of_rank.get(Scratch::HIGH));
            let (low, high) = (warp::reduce_max(warp::ALL, low), warp::reduce_max(warp::ALL, high));
            if thread::lane() == 0 {
                self.tally.set(Self::EXTREMES, low);
                self.tally.set(Self::EXTREMES + 1, high);
            }
        }
        block::sync();
        (self.tally.get(Self::EXTREMES), self.tally.get(Self::EXTREMES + 1))
    }

    #[inline(always)]
    fn sync(&self) {
        cluster::sync_own();
    }

    #[inline(always)]
    fn pick<O: BinOrder>(&self, bins: Bins, wanted: u32) -> Pick {
        let Self { tally, words, sums, .. } = *self;
        let log2_size = cluster::size().ilog2();
        block::sync();
        // Where the block has its share of what is wanted; all the blocks' wanted one cannot be far, if the row is
        // mixed well.
        let place = bins.accumulate::<O>(of_block(wanted), sums, tally.part(Self::OUTLINE, bins::STRETCHES));
        words.set(thread::index(), 0);
        cluster::sync_own();
        // How many elements the first places have together is read from all blocks for so many numbers of places at
        // once: a warp reads from one block, neighbouring words in one access.
        let mut probes = THREADS >> log2_size;
        let mut first = (place + 1).saturating_sub(probes / 2);
        // Where these numbers are added up, and the one before the first of them.
        let (mut at, mut below) = (Self::NEAR, wanted);
        loop {
            let rank = thread::warp() & (cluster::size() - 1);
            let probe = (thread::warp() >> log2_size) * warp::SIZE + opaque(thread::lane());
            let places = (first + probe).min(COUNT);
            if probe < probes && places > 0 {
                let count = bins.words().at_rank(rank).get(O::word(O::at(places - 1)));
                words.reduce(AtomicOp::Add, at + probe, count);
            }
            let Pick { bin: probe, above, count } = self.find(at, probes, below, wanted, bins);
            if probe < probes || at != Self::NEAR {
                return Pick { bin: O::at((first + probe).min(COUNT) - 1), above, count };
            }
            // Not near: it is somewhere in a stretch of places, by what all blocks have up to the end of each.
            let rank = thread::warp();
            if rank < cluster::size() {
                let outline = tally.at_rank(rank);
                for i in 0..const { bins::STRETCHES / warp::SIZE } {
                    let stretch = i * warp::SIZE + opaque(thread::lane());
                    words.reduce(AtomicOp::Add, Self::FAR + stretch, outline.get(Self::OUTLINE + stretch));
                }
            }
            let stretch = self.find(Self::FAR, bins::STRETCHES, 0, wanted, bins);
            if stretch.bin == bins::STRETCHES {
                // There are not so many.
                return Pick { bin: O::at(COUNT - 1), ..stretch };
            }
            (probes, first) = (bins::STRETCH, stretch.bin * bins::STRETCH + 1);
            (at, below) = (Self::LAST, stretch.above);
        }
    }
}
