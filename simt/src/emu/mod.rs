//! The emulator: runs kernels on the CPU and reports what a GPU leaves undefined.

mod collective;
mod fault;
mod fiber;
mod global;
mod launch;
mod memory;
mod scheduler;
mod shared;
mod state;
mod statistics;

use std::panic::Location;

pub use fault::{Access, Collective, Fault, FaultKind, Site, Target};
pub use launch::{Launch, Preemption, run, run_closure};
pub use memory::{Memory, MemoryError};
pub use statistics::Statistics;

use crate::machine::{AtomicOp, Machine, Order, Scope, Shuffle, Space};
use state::context;

/// The emulator as a backend. Its primitives work inside [`run`] and [`run_closure`] only.
pub struct Emulator;

impl Machine for Emulator {
    fn thread_id() -> u32 {
        context().index
    }
    fn block_threads() -> u32 {
        context().launch.block
    }
    fn block_id() -> u32 {
        context().block().id
    }
    fn grid_blocks() -> u32 {
        context().launch.grid
    }
    fn lane_id() -> u32 {
        context().lane
    }
    fn cluster_rank() -> u32 {
        context().block().rank
    }
    fn cluster_size() -> u32 {
        context().launch.cluster
    }

    #[track_caller]
    fn block_barrier() {
        collective::barrier(Collective::BlockBarrier, false, Location::caller());
    }
    #[track_caller]
    fn block_barrier_count(predicate: bool) -> u32 {
        collective::barrier(Collective::BlockCount, predicate, Location::caller())
    }
    #[track_caller]
    fn block_barrier_or(predicate: bool) -> bool {
        collective::barrier(Collective::BlockOr, predicate, Location::caller()) != 0
    }
    #[track_caller]
    fn cluster_barrier() {
        collective::barrier(Collective::ClusterBarrier, false, Location::caller());
    }

    #[track_caller]
    fn warp_barrier(mask: u32) {
        collective::warp(mask, Collective::WarpBarrier { mask }, 0, 0, Location::caller());
    }
    #[track_caller]
    fn warp_shuffle(mask: u32, kind: Shuffle, value: u32, operand: u32) -> u32 {
        collective::warp(mask, Collective::Shuffle { kind, mask }, value, operand, Location::caller())
    }
    #[track_caller]
    fn warp_ballot(mask: u32, predicate: bool) -> u32 {
        collective::warp(mask, Collective::Ballot { mask }, u32::from(predicate), 0, Location::caller())
    }
    #[track_caller]
    fn warp_any(mask: u32, predicate: bool) -> bool {
        collective::warp(mask, Collective::Any { mask }, u32::from(predicate), 0, Location::caller()) != 0
    }
    #[track_caller]
    fn warp_all(mask: u32, predicate: bool) -> bool {
        collective::warp(mask, Collective::All { mask }, u32::from(predicate), 0, Location::caller()) != 0
    }
    #[track_caller]
    fn warp_match_any(mask: u32, value: u32) -> u32 {
        collective::warp(mask, Collective::MatchAny { mask }, value, 0, Location::caller())
    }
    #[track_caller]
    fn warp_reduce_add(mask: u32, value: u32) -> u32 {
        collective::warp(mask, Collective::ReduceAdd { mask }, value, 0, Location::caller())
    }
    #[track_caller]
    fn warp_reduce_max(mask: u32, value: u32) -> u32 {
        collective::warp(mask, Collective::ReduceMax { mask }, value, 0, Location::caller())
    }

    fn shared_base() -> u32 {
        shared::BASE
    }
    fn shared_bytes() -> u32 {
        shared::bytes()
    }
    fn shared_at_rank(address: u32, rank: u32) -> u32 {
        shared::at_rank(address, rank)
    }
    #[track_caller]
    unsafe fn shared_load(address: u32) -> u32 {
        shared::load(address, Location::caller())
    }
    #[track_caller]
    unsafe fn shared_load4(address: u32) -> [u32; 4] {
        shared::load4(address, Location::caller())
    }
    #[track_caller]
    unsafe fn shared_store(address: u32, value: u32) {
        shared::store(address, value, Location::caller());
    }
    #[track_caller]
    unsafe fn shared_store4(address: u32, value: [u32; 4]) {
        shared::store4(address, value, Location::caller());
    }
    #[track_caller]
    unsafe fn shared_atomic_load(order: Order, scope: Scope, address: u32) -> u32 {
        let _ = (order, scope);
        shared::atomic_load(address, Location::caller())
    }
    #[track_caller]
    unsafe fn shared_atomic_store(order: Order, scope: Scope, address: u32, value: u32) {
        let _ = (order, scope);
        shared::atomic_store(address, value, Location::caller());
    }
    #[track_caller]
    unsafe fn shared_atomic(op: AtomicOp, address: u32, value: u32) -> u32 {
        shared::atomic(op, address, value, Location::caller())
    }
    #[track_caller]
    unsafe fn shared_reduce(op: AtomicOp, address: u32, value: u32) {
        shared::atomic(op, address, value, Location::caller());
    }
    #[track_caller]
    unsafe fn shared_remote_load(address: u32) -> u32 {
        shared::remote_load(address, Location::caller())
    }
    #[track_caller]
    unsafe fn shared_remote_store(address: u32, value: u32) {
        shared::remote_store(address, value, Location::caller());
    }
    #[track_caller]
    unsafe fn shared_remote_atomic(op: AtomicOp, address: u32, value: u32) -> u32 {
        shared::remote_atomic(op, address, value, Location::caller())
    }

    #[track_caller]
    unsafe fn global_load(address: *const u32) -> u32 {
        let [value] = global::load(address, false, Location::caller());
        value
    }
    #[track_caller]
    unsafe fn global_load4(address: *const u32) -> [u32; 4] {
        global::load(address, false, Location::caller())
    }
    #[track_caller]
    unsafe fn global_load_readonly(address: *const u32) -> u32 {
        let [value] = global::load(address, true, Location::caller());
        value
    }
    #[track_caller]
    unsafe fn global_load4_readonly(address: *const u32) -> [u32; 4] {
        global::load(address, true, Location::caller())
    }
    #[track_caller]
    unsafe fn global_store(address: *mut u32, value: u32) {
        global::store(address, [value], Location::caller());
    }
    #[track_caller]
    unsafe fn global_store4(address: *mut u32, value: [u32; 4]) {
        global::store(address, value, Location::caller());
    }
    #[track_caller]
    unsafe fn global_atomic_load(order: Order, scope: Scope, address: *const u32) -> u32 {
        global::atomic_load(order, scope, address, Location::caller())
    }
    #[track_caller]
    unsafe fn global_atomic_store(order: Order, scope: Scope, address: *mut u32, value: u32) {
        global::atomic_store(order, scope, address, value, Location::caller());
    }
    #[track_caller]
    unsafe fn global_atomic(op: AtomicOp, order: Order, scope: Scope, address: *mut u32, value: u32) -> u32 {
        global::atomic(op, order, scope, address, value, Location::caller())
    }
    #[track_caller]
    unsafe fn global_reduce(op: AtomicOp, address: *mut u32, value: u32) {
        global::atomic(op, Order::Relaxed, Scope::Device, address, value, Location::caller());
    }

    #[track_caller]
    fn fence(scope: Scope) {
        let _ = scope;
        context().statistics.fences += 1;
    }
    fn f32_to_f16(value: f32) -> u16 {
        // The hardware has one NaN.
        if value.is_nan() { 0x7fff } else { half::f16::from_f32(value).to_bits() }
    }
    #[track_caller]
    fn spin_hint() {
        let cx = context();
        cx.statistics.spins += 1;
        cx.spin(Location::caller());
    }
    #[inline]
    #[track_caller]
    fn check_index(space: Space, index: usize, count: usize, length: usize) {
        if index > length || count > length - index {
            out_of_bounds(space, index, count, length, Location::caller());
        }
    }
}

#[cold]
#[inline(never)]
fn out_of_bounds(space: Space, index: usize, count: usize, length: usize, place: state::Place) -> ! {
    let target = Target::Index { space, index, count, length };
    context().raise(FaultKind::OutOfBounds { target }, place, None);
}
