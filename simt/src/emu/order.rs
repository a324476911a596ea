//! Which accesses of a warp's lanes come before which.

use crate::emu::state::lanes;

/// Logical time of the lanes of a warp, for the order of accesses to shared memory.
///
/// A clock is the number of a barrier in the cluster. `own[l]` is that of the last barrier of lane `l`: its
/// accesses since then carry it. Lane `l` comes after what lane `j` did with clock `c` if `c` is below what
/// `l` knows of `j`: `known[l][j]`, set at barriers in which both (directly or not) took part.
pub(super) struct LaneOrder {
    pub(super) own: [u32; 32],
    /// The least of `known[l]`.
    pub(super) floor: [u32; 32],
    /// `known`, unless all barriers since the last of the block were of the whole warp: then `floor` says it.
    pub(super) known: Option<Box<[[u32; 32]; 32]>>,
}

impl LaneOrder {
    pub(super) fn reset(&mut self, clock: u32) {
        self.own = [clock; 32];
        self.floor = [clock; 32];
        self.known = None;
    }

    /// A barrier of the lanes in `needed`, with the number `clock`.
    pub(super) fn barrier(&mut self, needed: u32, existing: u32, clock: u32) {
        if needed == existing {
            self.reset(clock);
            return;
        }
        let floor = self.floor;
        let known = self.known.get_or_insert_with(|| Box::new(floor.map(|least| [least; 32])));
        let mut joined = [0; 32];
        for lane in lanes(needed) {
            for (most, of_lane) in joined.iter_mut().zip(&known[lane as usize]) {
                *most = (*most).max(*of_lane);
            }
        }
        for lane in lanes(needed) {
            joined[lane as usize] = clock;
        }
        let least = lanes(existing).map(|lane| joined[lane as usize]).min().unwrap_or(clock);
        for lane in lanes(needed) {
            known[lane as usize] = joined;
            self.own[lane as usize] = clock;
            self.floor[lane as usize] = least;
        }
    }
}
