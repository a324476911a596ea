//! Asynchronous copies from global to shared memory.
//!
//! The source is read when the copy begins: no thread writes it during the launch, which is checked. The words that are
//! written are uninitialised from then until the thread has waited for the copy, the latest that the hardware
//! may write them: whoever reads them too early is told. Copies that a thread has not waited for are never made.

use crate::emu::fault::Access;
use crate::emu::state::{Place, context};
use crate::emu::{global, shared};

/// A copy on its way.
pub(super) struct Copy {
    to: u32,
    words: [u32; 4],
    /// Groups that its thread had made before it began: the number of its own.
    group: u32,
}

/// The copies of a thread.
#[derive(Default)]
pub(super) struct Copies {
    under_way: Vec<Copy>,
    groups: u32,
}

impl Copies {
    /// As for a thread that begins.
    pub(super) fn forget(&mut self) {
        self.under_way.clear();
        self.groups = 0;
    }
}

pub(super) fn begin(to: u32, from: *const u32, place: Place) {
    let words = global::load(from, Access::ReadOnly, place);
    shared::expect4(to, place);
    let copies = &mut context().thread().copies;
    copies.under_way.push(Copy { to, words, group: copies.groups });
}

pub(super) fn group() {
    context().thread().copies.groups += 1;
}

pub(super) fn wait(pending: u32, place: Place) {
    let copies = &mut context().thread().copies;
    let Some(made) = copies.groups.checked_sub(pending) else { return };
    for Copy { to, words, .. } in
        copies.under_way.extract_if(.., |copy| copy.group < made).collect::<Vec<_>>()
    {
        shared::store4(to, words, place);
    }
}
