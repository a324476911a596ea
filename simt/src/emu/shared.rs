//! Accesses of kernels to shared memory: each is looked up, checked against the shadow of its word, and made.

use std::sync::{Mutex, PoisonError};

use crate::emu::fault::{Access, FaultKind, Site, Target};
use crate::emu::shadow::{Far, Mark, Me, Near, UNTOUCHED_FAR, UNTOUCHED_NEAR, insert};
use crate::emu::state::{Block, Context, Place, context};
use crate::machine::AtomicOp;

/// Address of the first byte of dynamic shared memory. Not 0, so that a forgotten base is noticed.
pub(super) const BASE: u32 = 1024;
/// Addresses of other blocks of the cluster carry their rank plus 1 from this bit on.
const RANK_SHIFT: u32 = 24;

/// The dynamic shared memory of a resident block.
#[derive(Default)]
pub(super) struct SharedMemory {
    words: Vec<u32>,
    near: Vec<Near>,
    far: Vec<Far>,
    /// Bytes of this launch; the vectors may be longer.
    bytes: u32,
    /// Largest clock in the shadows.
    clock: u32,
}

/// Shared memories of earlier launches. Their shadows are as good as new.
static SPARE: Mutex<Vec<SharedMemory>> = Mutex::new(Vec::new());
const MOST_SPARE: usize = 32;
/// Shadows whose clock has come this far are not used again.
const LAST_CLOCK: u32 = 1 << 30;

impl SharedMemory {
    pub(super) fn take(bytes: u32) -> Self {
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut memory = spare.unwrap_or_default();
        memory.bytes = bytes;
        let words = bytes.div_ceil(4) as usize;
        if memory.words.len() < words {
            memory.words.resize(words, 0);
            memory.near.resize(words, UNTOUCHED_NEAR);
            memory.far.resize(words, UNTOUCHED_FAR);
        }
        memory
    }

    pub(super) fn clock(&self) -> u32 {
        self.clock
    }

    /// Gives the memory back; `clock` is the last one that was used with it.
    pub(super) fn retire(mut self, clock: u32) {
        self.clock = clock;
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if clock < LAST_CLOCK && spare.len() < MOST_SPARE {
            spare.push(self);
        }
    }
}

/// A word of some block's shared memory, found and checked.
struct Word {
    memory: *mut SharedMemory,
    block: *mut Block,
    index: usize,
}

#[inline(always)]
fn locate(cx: &mut Context, address: u32, bytes: u32, place: Place) -> Word {
    let block = cx.block;
    let shared = &mut cx.block().shared;
    let offset = address.wrapping_sub(BASE);
    if offset >= shared.bytes || bytes > shared.bytes - offset || address & (bytes - 1) != 0 {
        bad_address(cx, i64::from(address), shared.bytes, bytes, place);
    }
    Word { memory: shared, block, index: (offset / 4) as usize }
}

#[cold]
#[inline(never)]
fn bad_address(cx: &mut Context, address: i64, shared_bytes: u32, bytes: u32, place: Place) -> ! {
    let target = Target::Shared { offset: address - i64::from(BASE), bytes: shared_bytes };
    let inside =
        address >= i64::from(BASE) && address - i64::from(BASE) + i64::from(bytes) <= i64::from(shared_bytes);
    let kind = if inside && address % i64::from(bytes) != 0 {
        FaultKind::Misaligned { target, bytes }
    } else {
        FaultKind::OutOfBounds { target }
    };
    cx.raise(kind, place, None);
}

/// The word that a cluster address names.
fn locate_remote(cx: &mut Context, address: u32, place: Place) -> Word {
    let Some(rank) = (address >> RANK_SHIFT).checked_sub(1) else {
        return locate(cx, address, 4, place);
    };
    let local = address & ((1 << RANK_SHIFT) - 1);
    let cluster = cx.cluster();
    if rank >= cluster.size {
        let target = Target::Nowhere { address: u64::from(address) };
        cx.raise(FaultKind::OutOfBounds { target }, place, None);
    }
    let block = &raw mut cx.blocks[(cluster.first + rank) as usize];
    // SAFETY: a resident block; no other reference to its shared memory is in use.
    let target = unsafe { &mut *block };
    let mine = rank == cx.block().rank;
    let ended = target.exited as usize == target.threads.len();
    if !mine && (ended || !cluster.passed_barrier || cx.thread().left) {
        cx.raise(FaultKind::RemoteBlockNotRunning { rank }, place, None);
    }
    if !mine && cx.thread().arrived {
        cx.raise(FaultKind::RemoteAccessInBarrier { rank }, place, None);
    }
    let offset = local.wrapping_sub(BASE);
    if offset >= target.shared.bytes || 4 > target.shared.bytes - offset || !local.is_multiple_of(4) {
        bad_address(cx, i64::from(local), target.shared.bytes, 4, place);
    }
    Word { memory: &raw mut target.shared, block, index: (offset / 4) as usize }
}

impl Word {
    #[inline(always)]
    fn memory<'a>(&self) -> &'a mut SharedMemory {
        // SAFETY: the shared memory of a resident block; one access to it is made at a time.
        unsafe { &mut *self.memory }
    }

    #[inline(always)]
    fn value<'a>(&self) -> &'a mut u32 {
        // SAFETY: `locate` checked that the index is below the length.
        unsafe { self.memory().words.get_unchecked_mut(self.index) }
    }

    #[inline(always)]
    fn near<'a>(&self) -> &'a mut Near {
        // SAFETY: as for `value`; all vectors have the same length.
        unsafe { self.memory().near.get_unchecked_mut(self.index) }
    }

    #[inline(always)]
    fn far<'a>(&self) -> &'a mut Far {
        // SAFETY: as for `value`.
        unsafe { self.memory().far.get_unchecked_mut(self.index) }
    }

    /// Faults if nobody has stored to the word since the block began.
    #[inline(always)]
    fn must_be_initialised(&self, cx: &mut Context, place: Place) {
        if self.near().stored < cx.block().start {
            self.uninitialised(cx, place);
        }
    }

    #[cold]
    fn uninitialised(&self, cx: &mut Context, place: Place) -> ! {
        let target = Target::Shared { offset: self.index as i64 * 4, bytes: self.memory().bytes };
        cx.raise(FaultKind::Uninitialised { target }, place, None);
    }

    #[inline(always)]
    fn check(&self, cx: &mut Context, me: Me, mark: Mark, access: Access) {
        if mark.may_conflict(me) {
            self.check_slowly(cx, me, mark, access);
        }
    }

    #[inline(never)]
    fn check_slowly(&self, cx: &mut Context, me: Me, mark: Mark, access: Access) {
        let Some(lane) = mark.unordered_lane(cx, me) else {
            return;
        };
        let rank = u32::from(mark.warp) / 32;
        let block = &cx.blocks[(cx.cluster().first + rank) as usize];
        let site = Site {
            block: block.id,
            thread: u32::from(mark.warp) % 32 * 32 + lane,
            location: mark.place,
            doing: mark.access.to_string(),
        };
        let kind = FaultKind::SharedRace { offset: self.index as u32 * 4, this: access, other: mark.access };
        cx.raise(kind, me.place, Some(site));
    }

    #[inline(always)]
    fn read(&self, cx: &mut Context, me: Me) -> u32 {
        self.must_be_initialised(cx, me.place);
        let near = self.near();
        self.check(cx, me, near.write, Access::Read);
        if near.far >= me.live {
            for mark in self.far().atomics {
                if mark.access != Access::AtomicRead {
                    self.check(cx, me, mark, Access::Read);
                }
            }
        }
        let new = me.mark(Access::Read);
        if !near.read.merge(&new) {
            if near.read.may_conflict(me) {
                insert(cx, me, &mut near.read, &mut self.far().read, new);
                near.far = near.far.max(me.clock);
            } else {
                near.read = new;
            }
        }
        *self.value()
    }

    #[inline(always)]
    fn write(&self, cx: &mut Context, me: Me, value: u32) {
        let near = self.near();
        self.check(cx, me, near.write, Access::Write);
        self.check(cx, me, near.read, Access::Write);
        if near.far >= me.live {
            let far = self.far();
            self.check(cx, me, far.read, Access::Write);
            for mark in far.atomics {
                self.check(cx, me, mark, Access::Write);
            }
        }
        near.write = me.mark(Access::Write);
        self.set(cx, me, value);
    }

    #[inline(always)]
    fn atomic(&self, cx: &mut Context, me: Me, access: Access) {
        if access != Access::AtomicWrite {
            self.must_be_initialised(cx, me.place);
        }
        let near = self.near();
        self.check(cx, me, near.write, access);
        let far = self.far();
        if access != Access::AtomicRead {
            self.check(cx, me, near.read, access);
            self.check(cx, me, far.read, access);
        }
        let [first, second] = &mut far.atomics;
        insert(cx, me, first, second, me.mark(access));
        near.far = near.far.max(me.clock);
    }

    #[inline(always)]
    fn set(&self, cx: &mut Context, me: Me, value: u32) {
        let near = self.near();
        let word = self.value();
        // Clocks are numbers of the cluster, so a block's start is that of all its blocks.
        let fresh = near.stored < cx.block().start;
        near.stored = me.clock;
        if cx.thread().arrived {
            self.note_late_write(cx, me.place);
        }
        cx.progress += u64::from(fresh || *word != value);
        *word = value;
        debug_assert!(!self.block.is_null());
    }

    /// Remembers a write between the halves of a cluster barrier, which does not publish it.
    #[cold]
    fn note_late_write(&self, cx: &mut Context, place: Place) {
        let site = Site {
            block: cx.block().id,
            thread: cx.index,
            location: Some(place),
            doing: Access::Write.to_string(),
        };
        let slot = cx.block().slot;
        cx.cluster().late.entry((slot, self.index)).or_insert(site);
    }

    /// Faults if the word, which is another block's, was written there too late for the last cluster barrier.
    #[inline(always)]
    fn must_be_published(&self, cx: &mut Context, place: Place) {
        if !cx.cluster().unpublished.is_empty() {
            self.look_for_late_write(cx, place);
        }
    }

    fn look_for_late_write(&self, cx: &mut Context, place: Place) {
        // SAFETY: a resident block; only its number is read.
        let slot = unsafe { (*self.block).slot };
        let found = cx.cluster().unpublished.get(&(slot, self.index)).cloned();
        if let Some(site) = found
            && slot != cx.block().slot
        {
            let kind = FaultKind::SharedRace {
                offset: self.index as u32 * 4,
                this: Access::Read,
                other: Access::Write,
            };
            cx.raise(kind, place, Some(site));
        }
    }
}

pub(super) fn load(address: u32, place: Place) -> u32 {
    let cx = context();
    cx.statistics.shared_accesses += 1;
    let word = locate(cx, address, 4, place);
    let me = Me::new(cx, place);
    let value = word.read(cx, me);
    cx.count_load(place);
    value
}

pub(super) fn load4(address: u32, place: Place) -> [u32; 4] {
    let cx = context();
    cx.statistics.shared_accesses += 4;
    let Word { memory, block, index } = locate(cx, address, 16, place);
    let me = Me::new(cx, place);
    let values = [0, 1, 2, 3].map(|i| Word { memory, block, index: index + i }.read(cx, me));
    cx.count_load(place);
    values
}

pub(super) fn store(address: u32, value: u32, place: Place) {
    let cx = context();
    cx.statistics.shared_accesses += 1;
    let word = locate(cx, address, 4, place);
    let me = Me::new(cx, place);
    word.write(cx, me, value);
}

pub(super) fn store4(address: u32, values: [u32; 4], place: Place) {
    let cx = context();
    cx.statistics.shared_accesses += 4;
    let Word { memory, block, index } = locate(cx, address, 16, place);
    let me = Me::new(cx, place);
    for (i, value) in values.into_iter().enumerate() {
        Word { memory, block, index: index + i }.write(cx, me, value);
    }
}

/// Takes the value of four words, which are about to be written: as a store, but nobody may read them until there is one.
pub(super) fn expect4(address: u32, place: Place) {
    let cx = context();
    let Word { memory, block, index } = locate(cx, address, 16, place);
    let me = Me::new(cx, place);
    for i in 0..4 {
        let word = Word { memory, block, index: index + i };
        word.write(cx, me, 0);
        word.near().stored = 0;
    }
}

pub(super) fn atomic_load(address: u32, place: Place) -> u32 {
    let cx = context();
    cx.statistics.shared_accesses += 1;
    let word = locate(cx, address, 4, place);
    let me = Me::new(cx, place);
    word.atomic(cx, me, Access::AtomicRead);
    let value = *word.value();
    cx.lose_patience(place);
    value
}

pub(super) fn atomic_store(address: u32, value: u32, place: Place) {
    let cx = context();
    cx.statistics.shared_accesses += 1;
    let word = locate(cx, address, 4, place);
    let me = Me::new(cx, place);
    word.atomic(cx, me, Access::AtomicWrite);
    word.set(cx, me, value);
}

pub(super) fn atomic(op: AtomicOp, address: u32, operand: u32, place: Place) -> u32 {
    let cx = context();
    let word = locate(cx, address, 4, place);
    update(cx, &word, op, operand, place)
}

pub(super) fn remote_load(address: u32, place: Place) -> u32 {
    let cx = context();
    cx.statistics.shared_accesses += 1;
    let word = locate_remote(cx, address, place);
    word.must_be_published(cx, place);
    let me = Me::new(cx, place);
    let value = word.read(cx, me);
    cx.count_load(place);
    value
}

pub(super) fn remote_store(address: u32, value: u32, place: Place) {
    let cx = context();
    cx.statistics.shared_accesses += 1;
    let word = locate_remote(cx, address, place);
    note_remote_write(cx, &word, place);
    let me = Me::new(cx, place);
    word.write(cx, me, value);
}

pub(super) fn remote_atomic(op: AtomicOp, address: u32, operand: u32, place: Place) -> u32 {
    let cx = context();
    let word = locate_remote(cx, address, place);
    note_remote_write(cx, &word, place);
    update(cx, &word, op, operand, place)
}

/// Remembers a write to another block's shared memory until a barrier publishes it.
fn note_remote_write(cx: &mut Context, word: &Word, place: Place) {
    // SAFETY: a resident block; only its rank is read.
    let rank = unsafe { (*word.block).rank };
    let (own_rank, block, thread) = (cx.block().rank, cx.block().id, cx.index);
    let cluster = cx.cluster();
    if rank != own_rank && cluster.remote_write.is_none() {
        let site = Site { block, thread, location: Some(place), doing: "has written there".into() };
        cluster.remote_write = Some((site, rank));
    }
}

fn update(cx: &mut Context, word: &Word, op: AtomicOp, operand: u32, place: Place) -> u32 {
    cx.statistics.shared_atomics += 1;
    let me = Me::new(cx, place);
    word.atomic(cx, me, Access::AtomicUpdate);
    let old = *word.value();
    let new = apply(op, old, operand);
    word.set(cx, me, new);
    if new == old {
        cx.lose_patience(place);
    }
    old
}

/// The result of a read-modify-write.
#[inline]
pub(super) fn apply(op: AtomicOp, old: u32, operand: u32) -> u32 {
    match op {
        AtomicOp::Add => old.wrapping_add(operand),
        AtomicOp::Max => old.max(operand),
        AtomicOp::Min => old.min(operand),
        AtomicOp::Or => old | operand,
        AtomicOp::Exchange => operand,
    }
}

pub(super) fn bytes() -> u32 {
    context().block().shared.bytes
}

pub(super) fn at_rank(address: u32, rank: u32) -> u32 {
    // A rank that does not exist stays recognisable up to 254.
    address & ((1 << RANK_SHIFT) - 1) | (rank.min(254) + 1) << RANK_SHIFT
}
