//! Accesses of kernels to global memory. Every one passes through [`access`], with its thread (the current
//! one), kind, order, scope and source location: the place for a happens-before record.

use crate::emu::fault::{Access, FaultKind};
use crate::emu::memory::{INITIALISED, Miss, Window};
use crate::emu::shared::apply;
use crate::emu::state::{Context, Place, WINDOWS, context};
use crate::machine::{AtomicOp, Order, Scope};

/// Bits of a word state that hold the number of the launch that last wrote the word.
const WRITTEN_SHIFT: u32 = 7;
const STAMP: u16 = 0x7f;

/// An access, as the memory model sees it. Plain accesses have no order.
#[derive(Clone, Copy)]
struct Kind {
    access: Access,
    #[expect(dead_code, reason = "for a happens-before record")]
    order: Option<(Order, Scope)>,
}

/// Checks an access of `bytes` bytes and returns where they are. Words are what is kept track of: half of one
/// counts as the whole.
#[inline(always)]
fn access(cx: &mut Context, address: usize, bytes: usize, kind: Kind, place: Place) -> *mut u32 {
    let window = find(cx, address, bytes, place);
    if cx.launch.overlap && !cx.thread().waited {
        too_early(cx, address, kind.access, place);
    }
    let offset = address - window.start;
    for index in offset / 4..(offset + bytes).div_ceil(4) {
        // SAFETY: the window holds a state for each of its words.
        let state = unsafe { &mut *window.words.add(index) };
        let reads = !matches!(kind.access, Access::Write | Access::AtomicWrite);
        let writes = matches!(kind.access, Access::Write | Access::AtomicWrite | Access::AtomicUpdate);
        if reads && kind.access != Access::Speculative && *state & INITIALISED == 0 {
            uninitialised(cx, window.start + index * 4, place);
        }
        if matches!(kind.access, Access::ReadOnly | Access::Speculative) {
            if *state >> WRITTEN_SHIFT & STAMP == cx.stamp {
                read_only_written(cx, window.start + index * 4, kind.access, place);
            }
            *state = *state & !STAMP | cx.stamp;
        }
        if writes {
            if *state & STAMP == cx.stamp {
                read_only_written(cx, window.start + index * 4, kind.access, place);
            }
            *state = INITIALISED | cx.stamp << WRITTEN_SHIFT | *state & STAMP;
        }
    }
    std::ptr::with_exposed_provenance_mut(address)
}

#[inline(always)]
fn find(cx: &mut Context, address: usize, bytes: usize, place: Place) -> Window {
    if address.is_multiple_of(bytes) {
        for window in &cx.windows {
            let offset = address.wrapping_sub(window.start);
            if offset < window.bytes && bytes <= window.bytes - offset {
                return *window;
            }
        }
    }
    find_slowly(cx, address, bytes, place)
}

#[inline(never)]
fn find_slowly(cx: &mut Context, address: usize, bytes: usize, place: Place) -> Window {
    // SAFETY: the launch holds the registry's lock, and nothing else refers to it meanwhile.
    let registry = unsafe { &mut *cx.registry };
    match registry.window(address, bytes) {
        Ok(_) if !address.is_multiple_of(bytes) => {
            let target = registry.target(address);
            cx.raise(FaultKind::Misaligned { target, bytes: bytes as u32 }, place, None)
        }
        Ok(window) => {
            cx.windows[cx.next_window] = window;
            cx.next_window = (cx.next_window + 1) % WINDOWS;
            window
        }
        Err(Miss::Freed(target)) => cx.raise(FaultKind::FreedMemory { target }, place, None),
        Err(Miss::Outside(target)) => cx.raise(FaultKind::OutOfBounds { target }, place, None),
    }
}

#[cold]
#[inline(never)]
fn uninitialised(cx: &mut Context, address: usize, place: Place) -> ! {
    // SAFETY: as in `find_slowly`.
    let target = unsafe { &*cx.registry }.target(address);
    cx.raise(FaultKind::Uninitialised { target }, place, None);
}

#[cold]
#[inline(never)]
fn read_only_written(cx: &mut Context, address: usize, this: Access, place: Place) -> ! {
    // SAFETY: as in `find_slowly`.
    let target = unsafe { &*cx.registry }.target(address);
    cx.raise(FaultKind::ReadOnlyWritten { target, this }, place, None);
}

#[cold]
#[inline(never)]
fn too_early(cx: &mut Context, address: usize, this: Access, place: Place) -> ! {
    // SAFETY: as in `find_slowly`.
    let target = unsafe { &*cx.registry }.target(address);
    cx.raise(FaultKind::TooEarly { target, this }, place, None);
}

/// Checks that there is something at an address. It is not read: it may be undefined, written by others, and a launch that
/// overlaps need not have waited.
pub(super) fn prefetch(address: *const u8, place: Place) {
    find(context(), address as usize, 1, place);
}

fn plain(access: Access) -> Kind {
    Kind { access, order: None }
}

/// Loads `N` words.
pub(super) fn load<const N: usize>(address: *const u32, access_kind: Access, place: Place) -> [u32; N] {
    let cx = context();
    cx.statistics.global_read_bytes += N as u64 * 4;
    let words = access(cx, address as usize, 4 * N, plain(access_kind), place);
    // SAFETY: `access` checked that the words are in an allocation, aligned.
    let values = unsafe { words.cast::<[u32; N]>().read() };
    cx.count_load(place);
    values
}

/// Stores `N` words.
pub(super) fn store<const N: usize>(address: *mut u32, values: [u32; N], place: Place) {
    let cx = context();
    cx.statistics.global_written_bytes += N as u64 * 4;
    let words = access(cx, address as usize, 4 * N, plain(Access::Write), place);
    // SAFETY: `access` checked that the words are in an allocation, aligned.
    let old = unsafe { words.cast::<[u32; N]>().replace(values) };
    cx.changed(old != values);
}

/// Loads a half-word through the read-only path.
pub(super) fn load_half(address: *const u16, place: Place) -> u16 {
    let cx = context();
    cx.statistics.global_read_bytes += 2;
    let half = access(cx, address as usize, 2, plain(Access::ReadOnly), place).cast::<u16>();
    // SAFETY: `access` checked that the half-word is in an allocation, aligned.
    let value = unsafe { half.read() };
    cx.count_load(place);
    value
}

/// Stores a half-word.
pub(super) fn store_half(address: *mut u16, value: u16, place: Place) {
    let cx = context();
    cx.statistics.global_written_bytes += 2;
    let half = access(cx, address as usize, 2, plain(Access::Write), place).cast::<u16>();
    // SAFETY: `access` checked that the half-word is in an allocation, aligned.
    let old = unsafe { half.replace(value) };
    cx.changed(old != value);
}

pub(super) fn atomic_load(order: Order, scope: Scope, address: *const u32, place: Place) -> u32 {
    let cx = context();
    cx.statistics.global_read_bytes += 4;
    let kind = Kind { access: Access::AtomicRead, order: Some((order, scope)) };
    let word = access(cx, address as usize, 4, kind, place);
    // SAFETY: `access` checked that the word is in an allocation, aligned.
    let value = unsafe { word.read() };
    if !cx.preempt(place) {
        cx.lose_patience(place);
    }
    value
}

pub(super) fn atomic_store(order: Order, scope: Scope, address: *mut u32, value: u32, place: Place) {
    let cx = context();
    cx.statistics.global_written_bytes += 4;
    let kind = Kind { access: Access::AtomicWrite, order: Some((order, scope)) };
    let word = access(cx, address as usize, 4, kind, place);
    // SAFETY: `access` checked that the word is in an allocation, aligned.
    let old = unsafe { word.replace(value) };
    cx.changed(old != value);
    cx.preempt(place);
}

pub(super) fn atomic(
    op: AtomicOp,
    order: Order,
    scope: Scope,
    address: *mut u32,
    operand: u32,
    place: Place,
) -> u32 {
    let cx = context();
    cx.statistics.global_atomics += 1;
    let kind = Kind { access: Access::AtomicUpdate, order: Some((order, scope)) };
    let word = access(cx, address as usize, 4, kind, place);
    // SAFETY: `access` checked that the word is in an allocation, aligned.
    let old = unsafe { word.read() };
    let new = apply(op, old, operand);
    // SAFETY: as above.
    unsafe { word.write(new) };
    cx.changed(new != old);
    if !cx.preempt(place) && new == old {
        cx.lose_patience(place);
    }
    old
}
