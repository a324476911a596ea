//! The shadow of a word of shared memory: who touched it last.
//!
//! It keeps the last plain write, up to two groups of plain readers and up to two groups of atomic
//! accesses, each stamped with the logical clock of its lanes (see [`LaneOrder`](super::order::LaneOrder)).
//! An access is checked against those that conflict with it. Two groups are enough as long as only barriers
//! order accesses: two readers in different warps conflict with every later writer of the interval, whoever
//! it is. Clocks never go back, so nothing needs to be cleared between intervals, blocks or launches.

use crate::emu::fault::Access;
use crate::emu::state::{Context, Place};

/// One or more accesses of lanes of one warp, of the same kind, at the same clock and place.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub(super) clock: u32,
    pub(super) mask: u32,
    /// Rank of the block times 32, plus the warp.
    pub(super) warp: u16,
    pub(super) access: Access,
    pub(super) place: Option<Place>,
}

const NO_MARK: Mark = Mark { clock: 0, mask: 0, warp: 0, access: Access::Read, place: None };

/// The part of a word's shadow that every access looks at.
#[derive(Clone, Copy)]
pub(super) struct Near {
    pub(super) write: Mark,
    pub(super) read: Mark,
    /// Clock of the last store: at least that of the block's start if the word is initialised.
    pub(super) stored: u32,
    /// Latest clock among the marks of [`Far`].
    pub(super) far: u32,
}

/// The part that few accesses look at.
#[derive(Clone, Copy)]
pub(super) struct Far {
    pub(super) read: Mark,
    pub(super) atomics: [Mark; 2],
}

pub(super) const UNTOUCHED_NEAR: Near = Near { write: NO_MARK, read: NO_MARK, stored: 0, far: 0 };
pub(super) const UNTOUCHED_FAR: Far = Far { read: NO_MARK, atomics: [NO_MARK; 2] };

/// The accessing thread, as the shadow sees it.
#[derive(Clone, Copy)]
pub(super) struct Me {
    pub(super) clock: u32,
    pub(super) bit: u32,
    pub(super) warp: u16,
    /// Marks with a lower clock are ordered before everything this thread does now.
    pub(super) live: u32,
    pub(super) place: Place,
}

impl Me {
    #[inline(always)]
    pub(super) fn new(cx: &Context, place: Place) -> Self {
        let block = cx.block();
        Self {
            clock: cx.warp().order.own[(cx.lane & 31) as usize],
            bit: 1 << (cx.lane & 31),
            warp: (block.rank * 32 + cx.index / 32) as u16,
            live: block.live,
            place,
        }
    }

    #[inline(always)]
    pub(super) fn mark(self, access: Access) -> Mark {
        Mark { clock: self.clock, mask: self.bit, warp: self.warp, access, place: Some(self.place) }
    }
}

impl Mark {
    /// Whether this mark may matter: it is not ordered before `me` by a barrier of the block and not `me`'s.
    #[inline(always)]
    pub(super) fn may_conflict(&self, me: Me) -> bool {
        self.clock >= me.live && (self.warp != me.warp || self.mask != me.bit)
    }

    /// A lane of this mark whose access is not ordered before `me`.
    pub(super) fn unordered_lane(&self, cx: &Context, me: Me) -> Option<u32> {
        if self.clock == 0 || self.mask == 0 {
            return None;
        }
        if self.warp / 32 != me.warp / 32 {
            return (self.clock >= cx.cluster().interval).then(|| self.mask.trailing_zeros());
        }
        if self.clock < cx.block().interval {
            return None;
        }
        if self.warp != me.warp {
            return Some(self.mask.trailing_zeros());
        }
        let order = &cx.warp().order;
        let others = self.mask & !me.bit;
        if others == 0 || self.clock < order.floor[cx.lane as usize] {
            return None;
        }
        match &order.known {
            None => Some(others.trailing_zeros()),
            Some(known) => (0..32).find(|&lane| {
                others >> lane & 1 != 0 && known[cx.lane as usize][lane as usize] <= self.clock
            }),
        }
    }

    #[inline(always)]
    pub(super) fn merge(&mut self, new: &Mark) -> bool {
        let same = self.clock == new.clock
            && self.warp == new.warp
            && self.access == new.access
            && match (self.place, new.place) {
                (Some(a), Some(b)) => std::ptr::eq(a, b),
                _ => false,
            };
        if same {
            self.mask |= new.mask;
        }
        same
    }
}

/// Adds a mark to a group of two, dropping one that is ordered before it or that the other makes redundant.
#[inline]
pub(super) fn insert(cx: &Context, me: Me, first: &mut Mark, second: &mut Mark, new: Mark) {
    if first.merge(&new) || second.merge(&new) {
        return;
    }
    if !first.may_conflict(me) || first.unordered_lane(cx, me).is_none() {
        *first = new;
    } else if !second.may_conflict(me)
        || second.unordered_lane(cx, me).is_none()
        || first.warp == second.warp && new.warp != first.warp
    {
        *second = new;
    }
}
