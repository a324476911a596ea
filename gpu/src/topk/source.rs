//! Where a block's elements are, apart from what is done with them.
//!
//! A [`Source`] shows all its elements to a [`Visitor`], tile by tile. The same counting and the same
//! emission thus serve elements in registers, in shared memory and in global memory.

/// `N` elements per thread of a warp.
pub struct Tile<const N: usize> {
    /// The elements' keys; [`ABSENT`](super::key::ABSENT) where a thread has fewer.
    pub keys: [u32; N],
    /// Index in the row of the thread's first element.
    pub start: u32,
    /// Distance in the row between the elements of a group of four.
    pub step: u32,
    /// Distance in the row between the thread's groups of four.
    pub stride: u32,
}

impl<const N: usize> Tile<N> {
    /// Index in the row of element `element` of this thread.
    #[inline(always)]
    pub fn index(&self, element: u32) -> u32 {
        // Lanes without an element may have an index below zero.
        self.start.wrapping_add(element / 4 * self.stride + element % 4 * self.step)
    }
}

/// What is done with each tile. Called by all lanes of a warp together: it may use warp collectives,
/// but no block barrier, because warps may see different numbers of tiles.
pub trait Visitor {
    /// Takes one tile.
    fn visit<const N: usize>(&mut self, tile: Tile<N>);
}

/// Elements that a block can visit again and again, always the same ones.
pub trait Source {
    /// Whether there are fewer than 2^16 elements, and a number stands where a thread has fewer than others: one below all
    /// that is looked for. The keys may be for comparing with those of one range only.
    const IS_HELD: bool = false;

    /// Shows every element once to `visitor`. Called by all threads of the block.
    fn visit(&self, visitor: &mut impl Visitor);
}
