//! Copies from device to shared memory that go on while the thread does other things.
//!
//! A thread begins copies ([`Global::copy4`](crate::Global::copy4)), makes groups of them, and waits for all but its
//! latest groups: with two, one is on its way while the other is worked on. What a copy writes is there for the thread
//! that has waited for it, and for others after a barrier that follows. What is copied may not be written
//! during the launch, and where it goes is neither read nor written by anybody until the thread has waited.

use crate::{Active, Machine};

/// Makes a group, which may be empty, of the copies that the thread has begun since it last did.
#[inline(always)]
pub fn group() {
    Active::copy_async_group();
}

/// Waits until the copies of all but the latest `PENDING` groups of the thread are made.
#[inline(always)]
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
pub fn wait<const PENDING: u32>() {
    Active::copy_async_wait::<PENDING>();
}
