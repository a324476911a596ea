//! What follows when a row of the output has been written, in the same launch.
//!
//! The blocks or warps that share a row arrive at a counter in device memory when they have written their part. The one
//! that finds all others arrived stores the row ([`mod@post`]) and sets the counter back to 0. Nobody waits for another,
//! and a launch leaves the counters as it found them. With a part alone there is nobody to arrive.

use dsa_simt::{AtomicOp, Global, Order, Scope, block, thread, warp};

use super::post::{self, Rows};
use super::request::Request;
use super::{MAX_NEXT_N, OVERLAPPING};

/// Most rows of a request in a launch of [`decode`](super::decode).
pub const MOST_ROWS: u32 = MAX_NEXT_N / OVERLAPPING;

/// What follows when a row has been written.
pub trait Then: Copy {
    /// The block has written its part of a row, one of `parts`: that of window `window` of the request. Collective over the
    /// block.
    fn block_wrote(self, request: &Request, window: u32, parts: u32);
    /// The same for a warp. Collective over it.
    fn warp_wrote(self, request: &Request, window: u32, parts: u32);
}

/// Nothing.
#[derive(Clone, Copy)]
pub struct Nothing;

impl Then for Nothing {
    #[inline(always)]
    fn block_wrote(self, _: &Request, _: u32, _: u32) {}
    #[inline(always)]
    fn warp_wrote(self, _: &Request, _: u32, _: u32) {}
}

/// The row is stored.
#[derive(Clone, Copy)]
pub struct Store {
    /// The rows: those of the compression.
    pub rows: Rows,
    /// `u32[batch, MOST_ROWS]`, aligned to 4 bytes: 0 before the launch, and after it.
    pub arrived: *mut u32,
}

impl Then for Store {
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn block_wrote(self, request: &Request, window: u32, parts: u32) {
        // What the block wrote comes before that a thread of it arrives, and what others wrote before that the block is
        // told that all have.
        block::sync();
        let mut is_last = parts == 1;
        if parts > 1 {
            is_last = block::sync_or(thread::index() == 0 && self.arrive(request, window, parts));
        }
        if is_last && thread::warp() == 0 {
            self.store(request, window);
        }
    }

    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn warp_wrote(self, request: &Request, window: u32, parts: u32) {
        warp::sync(warp::ALL);
        let is_last = parts == 1 || (thread::lane() == 0 && self.arrive(request, window, parts));
        if warp::any(warp::ALL, is_last) {
            warp::sync(warp::ALL);
            self.store(request, window);
        }
    }
}

impl Store {
    /// Arrives at a row; whether all others have. For one thread of each part.
    #[inline(always)]
    fn arrive(self, request: &Request, window: u32, parts: u32) -> bool {
        let index = (request.number * MOST_ROWS + window - request.start / self.rows.ratio) as usize;
        // SAFETY: the launcher promises the words, which are only accessed atomically.
        let arrived = unsafe { Global::from_raw(self.arrived, (self.rows.batch * MOST_ROWS) as usize) };
        let is_last = arrived.atomic(AtomicOp::Add, index, 1, Order::AcqRel, Scope::Device) == parts - 1;
        if is_last {
            arrived.atomic_store(index, 0, Order::Relaxed, Scope::Device);
        }
        is_last
    }

    /// Stores a row. Collective over the warp.
    #[inline(always)]
    fn store(self, request: &Request, window: u32) {
        post::store_written(&self.rows, request.row_of(window, self.rows.ratio), request.number);
    }
}
