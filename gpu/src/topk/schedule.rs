//! Which block works on which row, decided on the device from the rows' real lengths.
//!
//! Long rows come first. Every block counts them from the same lengths, and so forms the same teams of
//! equal size: as many blocks per row as keeps the number of waves low and the slices worth their waits.
//! Team `t` takes the long rows number `t`, `t + teams`, and so on. Blocks without a team start on the other
//! rows at once; the teams join them when their long rows are done. Those rows are handed out one at a time
//! by a counter, and the next one is asked for while the current one is worked on.

use dsa_simt::{AtomicOp, Carve, Order, Scope, Shared, block, opaque, thread, warp};

use super::large::{self, SliceScratch};
use super::origin::Problem;
use super::state::State;
use super::team::Team;

/// Fewest elements of a slice: one vector for each of 1,024 threads.
const MIN_SLICE: u32 = 4096;
/// Elements that costs are counted in: small enough to tell team sizes apart, and large enough for the cost
/// of the longest row to fit beside the size in one word.
const COST_UNIT: u32 = 256;
/// What the rounds of a long row cost beside its elements: the time of reading 64K elements by one block
/// while all others read too (about 8 us at 8 elements per nanosecond).
const ROUNDS_COST: u32 = 64 * 1024 / COST_UNIT;
/// What an element costs that is not kept in shared memory: it is read once more.
const REREAD_COST: u32 = 1;

/// The first of the rows that are listed at present.
const FIRST_ROW: u32 = 0;
/// Long rows that are listed at present.
const LISTED: u32 = 1;
/// Long rows before those.
const LISTED_BEFORE: u32 = 2;
/// All long rows.
const LONG_ROWS: u32 = 3;
/// Number of teams.
const TEAMS: u32 = 4;
/// Words of notes, rounded up to 16 bytes.
const NOTES: u32 = 8;
/// Words for a sum and a maximum of each warp.
const WARPS: u32 = 2 * warp::SIZE;
/// Words for the count of a team's rounds, rounded up to 16 bytes.
const ROUNDS: u32 = 4;
/// Words for the queue's two slots, rounded up to 16 bytes.
const SLOTS: u32 = 4;

/// Words of shared memory that [`Desk::carve`] takes, for blocks of `threads` threads.
pub const fn words(threads: u32) -> u32 {
    threads + WARPS + NOTES + ROUNDS + SLOTS
}

/// The scheduler's room in shared memory.
///
/// What is the same for all threads and seldom needed is noted here: the paths want the registers.
#[derive(Clone, Copy)]
pub struct Desk<const T: u32> {
    rows: Shared<u32>,
    warps: Shared<u32>,
    notes: Shared<u32>,
    rounds: Shared<u32>,
    slots: Shared<u32>,
}

impl<const T: u32> Desk<T> {
    /// Takes its room from `carve`.
    ///
    /// # Safety
    /// As for [`Carve::array`], for [`words`]`(T)` words.
    #[inline(always)]
    pub unsafe fn carve(carve: &mut Carve) -> Self {
        // SAFETY: passed on to the caller.
        unsafe {
            Self {
                rows: carve.array(T),
                warps: carve.array(WARPS),
                notes: carve.array(NOTES),
                rounds: carve.array(ROUNDS),
                slots: carve.array(SLOTS),
            }
        }
    }

    /// The number of long rows, after the block barrier that follows [`Survey::take`].
    #[inline(always)]
    pub fn long_rows(self) -> u32 {
        self.notes.get(LONG_ROWS)
    }
}

/// How many rows are long, and the longest.
#[derive(Clone, Copy)]
pub struct Survey {
    /// Number of long rows.
    pub long_rows: u32,
    longest: u32,
}

impl Survey {
    /// Reads all lengths. Collective over the block.
    #[inline(always)]
    pub fn take<const T: u32>(problem: &Problem, desk: Desk<T>) -> Self {
        let (mut count, mut longest) = (0, 0);
        let mut row = thread::index();
        while row < problem.rows {
            let len = problem.len(row);
            if problem.is_long(len) {
                count += 1;
                longest = longest.max(len);
            }
            row += T;
        }
        let (count, longest) = (warp::reduce_add(warp::ALL, count), warp::reduce_max(warp::ALL, longest));
        if thread::lane() == 0 {
            desk.warps.set(thread::warp(), count);
            desk.warps.set(warp::SIZE + thread::warp(), longest);
        }
        block::sync();
        let lane = thread::lane();
        let has_warp = lane < T / warp::SIZE;
        let count = if has_warp { desk.warps.get(lane) } else { 0 };
        let longest = if has_warp { desk.warps.get(warp::SIZE + lane) } else { 0 };
        let long_rows = warp::reduce_add(warp::ALL, count);
        if thread::index() == 0 {
            desk.notes.set(LONG_ROWS, long_rows);
        }
        Self { long_rows, longest: warp::reduce_max(warp::ALL, longest) }
    }

    /// Blocks per long row, of `blocks` blocks that keep `kept` elements each: the size with the lowest
    /// estimated time. There are long rows.
    #[inline(always)]
    pub fn team_size(self, blocks: u32, kept: u32) -> u32 {
        // One at least: said for the compiler, here and below, which makes no path to a trap for the division then.
        let most = blocks.min(self.longest.div_ceil(MIN_SLICE)).clamp(1, 0xff);
        if self.long_rows <= blocks / most {
            return most;
        }
        let mut best = 0;
        let mut size = thread::lane() + 1;
        while size <= most {
            let waves = self.long_rows.div_ceil((blocks / size).max(1));
            let slice = self.longest.div_ceil(size);
            let reread = slice.saturating_sub(kept);
            let cost = ROUNDS_COST + slice / COST_UNIT + reread / COST_UNIT * REREAD_COST;
            let cost = waves.saturating_mul(cost).min(0xff_fffe);
            best = best.max(!(cost << 8 | size));
            size += warp::SIZE;
        }
        (!warp::reduce_max(warp::ALL, best) & 0xff).max(1)
    }
}

/// Works on this block's long rows, if it is in a team. Collective over the grid.
#[inline(always)]
pub fn run_long_rows<const T: u32>(
    problem: &Problem,
    survey: Survey,
    state: State,
    desk: Desk<T>,
    scratch: SliceScratch<T>,
) {
    let size = survey.team_size(block::count(), large::kept_elements(scratch));
    let teams = (block::count() / size).min(survey.long_rows);
    let number = block::index() / size;
    if number >= teams {
        return;
    }
    // A team of one shares nothing, and there may be more of them than the state has room for.
    let shared_state = if size > 1 { number } else { 0 };
    let team = Team::join(state.team(shared_state), block::index() % size, size, desk.rounds);
    if thread::index() == 0 {
        desk.notes.set(FIRST_ROW, 0);
        desk.notes.set(LISTED_BEFORE, 0);
        desk.notes.set(TEAMS, teams);
    }
    block::sync();
    while desk.notes.get(FIRST_ROW) < problem.rows {
        list_long_rows(problem, desk);
        let teams = desk.notes.get(TEAMS).max(1);
        let number = opaque(block::index()) / team.size;
        let mut turn = (number + teams - desk.notes.get(LISTED_BEFORE) % teams) % teams;
        while turn < desk.notes.get(LISTED) {
            let row = desk.rows.get(turn);
            large::select(problem.row(row), problem.out_row(row), &team, scratch);
            block::sync();
            turn += desk.notes.get(TEAMS);
        }
        block::sync();
        if thread::index() == 0 {
            desk.notes.set(FIRST_ROW, desk.notes.get(FIRST_ROW) + T);
            desk.notes.set(LISTED_BEFORE, desk.notes.get(LISTED_BEFORE) + desk.notes.get(LISTED));
        }
        block::sync();
    }
    team.leave::<T>();
}

/// Lists the long ones of the `T` rows from the noted one on, in order, and notes their number. Collective
/// over the block; ends with a block barrier.
#[inline(always)]
fn list_long_rows<const T: u32>(problem: &Problem, desk: Desk<T>) {
    // Opaque, so that nothing of this holds a register during the selection.
    let thread = opaque(thread::index());
    let (warp, lane) = (thread / warp::SIZE, thread % warp::SIZE);
    let row = desk.notes.get(FIRST_ROW) + thread;
    let long = row < problem.rows && problem.is_long(problem.len(row));
    let votes = warp::ballot(warp::ALL, long);
    if lane == 0 {
        desk.warps.set(warp, votes.count_ones());
    }
    block::sync();
    let count = if lane < T / warp::SIZE { desk.warps.get(lane) } else { 0 };
    let before = warp::reduce_add(warp::ALL, if lane < warp { count } else { 0 });
    let listed = warp::reduce_add(warp::ALL, count);
    if long {
        let place = before + (votes & ((1 << lane) - 1)).count_ones();
        desk.rows.set(place, row);
    }
    if thread == 0 {
        desk.notes.set(LISTED, listed);
    }
    block::sync();
}

/// Hands rows to blocks, one at a time, through a counter in the operator's state.
pub struct Queue {
    state: State,
    slots: Shared<u32>,
    turn: u32,
    ticket: u32,
}

impl Queue {
    /// Opens the queue. Every block that opens it takes rows until there are none, then closes it.
    #[inline(always)]
    pub fn open<const T: u32>(state: State, desk: Desk<T>) -> Self {
        Self { state, slots: desk.slots, turn: 0, ticket: 0 }
    }

    /// Asks for a row ahead of need; [`Queue::take`] gives it.
    #[inline(always)]
    pub fn ask(&mut self) {
        if thread::index() == 0 {
            self.ticket = self.state.next_row().atomic(AtomicOp::Add, 0, 1, Order::Relaxed, Scope::Device);
        }
    }

    /// The number that was asked for: 0 for the first of all blocks, then 1, and so on. Collective over the
    /// block, and a block barrier.
    #[inline(always)]
    pub fn take(&mut self) -> u32 {
        // Two slots in turn: a thread may still read one while the next is written.
        let slot = self.turn % 2;
        self.turn += 1;
        if thread::index() == 0 {
            self.slots.set(slot, self.ticket);
        }
        block::sync();
        self.slots.get(slot)
    }

    /// Ends this block's part. The last block leaves the counters as they were before the launch.
    #[inline(always)]
    pub fn close(self) {
        if thread::index() == 0 {
            let finished = self.state.finished_blocks();
            let before = finished.atomic(AtomicOp::Add, 0, 1, Order::AcqRel, Scope::Device);
            if before == block::count() - 1 {
                self.state.next_row().set(0, 0);
                finished.set(0, 0);
            }
        }
    }
}
