//! Slices of a cluster that are too long for registers: read once, with a threshold guessed from a sample, as in
//! [`sampled`](super::sampled).
//!
//! 1. All blocks of the cluster take the same sample of the row, and so the same threshold.
//! 2. Each reads its slice once, lists what passes in its shared memory and counts it in bins.
//! 3. The bin of the k-th largest is found over all blocks, and each block stages and lists its part, as the slices in
//!    registers do ([`cluster`](super::cluster)).
//!
//! If all that passed is listed, and at least k elements are, the k largest of the lists are those of the row. A guess
//! that fails costs time and nothing else: the slices are refined. A sample that is full of equal elements has the others
//! listed, and as many of the equal ones as are wanted taken from a second read that ends when it has them.

use dsa_simt::{Carve, block, grid, thread};

use super::ascending;
use super::bins::Ascending;
use super::cluster::{Team, most_ranked, refine_slice};
use super::element::Element;
use super::key::ABSENT;
use super::list::{self, CAPACITY, List, Listed, RangeBins};
use super::refine::{KeyRange, Merge, Narrowed, Outcome, Scratch};
use super::sampled::{Notes, Reserve, collect, guess};
use super::scores::Slice;
use super::stream::{Room, Stream};

/// What a block needs in shared memory besides.
#[derive(Clone, Copy)]
pub struct Streamed {
    /// The list.
    pub list: List,
    /// The notes.
    pub notes: Notes,
    /// Where the scores come to.
    pub room: Room,
}

impl Streamed {
    /// Words of shared memory of the list and the notes.
    pub const LISTED: u32 = list::WORDS + Notes::WORDS;

    /// Takes the last [`Streamed::LISTED`] words of `carve`, and room for tiles from those before.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`Streamed::LISTED`] and [`room_words`](super::stream::room_words)`(1)` words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        let mut end = carve.cut_end(Self::LISTED);
        // SAFETY: passed on to the caller.
        unsafe {
            Self { list: List::carve(&mut end), notes: Notes::carve(&mut end), room: Room::carve(carve) }
        }
    }
}

/// Stages what is certain of the slice and lists what is to be ranked, as the slices in registers do. What there is of
/// both is noted; if the guess failed, the range of all keys is, and nothing is staged.
///
/// `will_any_do` of elements that are equal to the k-th largest. The bins are empty, the counters and the extremes zero.
/// Collective over the cluster.
#[inline(always)]
pub fn select<E: Element>(
    slice: Slice<E>,
    wanted: u32,
    will_any_do: bool,
    scratch: Scratch,
    team: Team,
    streamed: Streamed,
) -> Outcome {
    let Streamed { list, notes, room } = streamed;
    let Scratch { bins, counters, .. } = scratch;
    let stream = Stream::new(slice.row, slice.first, slice.end, room);
    // On its way while the threshold is found.
    let passing = guess(slice.row, wanted, scratch, notes, || stream.begin_early());
    stream.begin_rest();
    bins.zero();
    block::sync();
    let counted = || RangeBins::new(notes.range(), bins);
    // The range is read once, and not for each element.
    let listing = counted();
    collect(stream, passing, list, Reserve::Warp, counters, |score, _| listing.add(true, score));
    block::sync();
    // Not earlier: what starts while others still read takes their multiprocessors.
    grid::let_later_start();
    let listed = counters.winners();
    team.note_passed(listed);
    let pick = team.pick::<Ascending>(bins, wanted);
    let (passed, most) = team.passed();
    if thread::index() == 0 {
        counters.start(0, 0);
    }
    let is_complete = most <= CAPACITY;
    if is_complete && passed >= wanted {
        let found = counted().keys(pick.bin);
        scratch.note(Narrowed { range: found, above: pick.above, count: pick.count });
        block::sync();
        let listed = list.first(listed);
        let (staged, takes_any) = (team.staged(), will_any_do && found.is_one_score::<E>());
        if takes_any || pick.count <= most_ranked() {
            // A block has but a part of them.
            listed.place::<4>(found, counters, staged, |number, place| {
                let (key, index) = listed.get(place);
                if !takes_any {
                    team.listed.add(number, key, index);
                } else if number < wanted - scratch.noted().above {
                    // Read, and not held in a register.
                    staged.set(wanted - 1 - number, index);
                }
            });
            return if takes_any { Outcome::EqualApart } else { Outcome::Staged };
        }
        scratch.zero_extremes();
        block::sync();
        return refine_slice(&listed, slice, wanted, will_any_do, scratch, team);
    }
    if is_complete
        && notes.crowded() != ABSENT
        && take_equal(slice, notes.crowded(), list.first(listed), passed, wanted, scratch, team)
    {
        return Outcome::Staged;
    }
    scratch.zero_extremes();
    scratch.note(Narrowed::UNKNOWN);
    Outcome::Crowded
}

/// Stages the `listed` elements of the block, of which all blocks have `passed` and which are above the key `equal`, and
/// of the elements of the row that have it those with the lowest indices, so that all blocks have `wanted`. Tells whether
/// there were enough of them. Collective over the cluster.
#[inline(always)]
fn take_equal<E: Element>(
    slice: Slice<E>,
    equal: u32,
    listed: Listed,
    passed: u32,
    wanted: u32,
    scratch: Scratch,
    team: Team,
) -> bool {
    let (staged, first, rest) = (team.staged(), listed.len(), wanted - passed);
    listed.stage_all(staged);
    // Not more than are wanted of all: these have room.
    let end = first + rest;
    let own = ascending::stage_equal(slice, equal, first, end, staged, scratch.sums).min(end) - first;
    let (before, all) = team.before(own);
    if thread::index() == 0 {
        scratch.counters.start(first + own.min(rest.saturating_sub(before)), 0);
    }
    scratch.note(Narrowed { range: KeyRange { first: equal, last: equal }, above: wanted, count: 0 });
    all >= rest
}
