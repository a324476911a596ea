//! Rows with no more elements than are wanted: all of them, without reading a score.

use dsa_simt::{Global, thread};

use super::EMPTY;

/// Writes `0..len`, then [`EMPTY`] to the end of the output row; a block of `T` threads.
#[inline(always)]
pub fn select<const T: u32>(len: u32, out: Global<i32>) {
    let mut position = thread::index();
    while (position as usize) < out.len() {
        let index = if position < len { position.cast_signed() } else { EMPTY };
        out.set(position as usize, index);
        position += T;
    }
}
