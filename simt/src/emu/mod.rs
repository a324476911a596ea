//! The emulator: runs kernels on the CPU and reports what a GPU leaves undefined.
//!
//! Each thread of a launch is a fiber. A few blocks are resident at a time; the order of blocks, warps and
//! lanes, and the interruptions at atomic accesses, follow from the seed of the launch, so a report can be
//! replayed. All runs on the calling OS thread.
//!
//! # A kernel test in ten lines
//! ```
//! use dsa_simt::emu::{Launch, Memory, run_closure};
//! use dsa_simt::{Global, block, thread, warp};
//!
//! let memory = Memory::new();
//! let out = memory.allocate(2 * 4, "out")?;
//! for seed in 0..8 {
//!     run_closure(&memory, "warp_sums", &Launch::new(1, 64).with_seed(seed), || {
//!         // SAFETY: the emulator checks every access.
//!         let out = unsafe { Global::<u32>::from_raw(out as *const u32, 2) };
//!         let sum = warp::reduce_add(warp::ALL, thread::index());
//!         if thread::lane() == 0 {
//!             out.set(thread::warp() as usize, sum);
//!         }
//!         block::sync();
//!     })?; // the error is a `Fault`: its text names kernel, threads, source lines and the replay
//! }
//! let mut sums = [0; 8];
//! memory.read(out, &mut sums)?;
//! assert_eq!(sums, [0xf0, 1, 0, 0, 0xf0, 5, 0, 0]); // 496 and 1520
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! A kernel declared with [`kernels!`](crate::kernels) runs through [`run`] with its [`Entry`](crate::Entry)
//! and one slot per parameter.
//!
//! # What is detected
//! | | when |
//! |---|---|
//! | threads at different collectives: another operation, mask or source location | at the arrival that shows it, or when nothing can run |
//! | a thread that ends before a collective that others wait in | at once |
//! | a calling lane outside its mask; a shuffle from a lane that does not take part | at the call |
//! | an access outside an array, an allocation or the shared memory; a misaligned one; one to freed memory | at the access |
//! | a read of a word that nobody has written: shared (since the block began) or global (since it was allocated) | at the access |
//! | two accesses of different threads to one word of shared memory, unordered, one of them a write, not both atomic | at the second access, in whatever order the schedule has them |
//! | a word both written and read through the read-only path in one launch | at the second access |
//! | in a launch that may overlap the one before: an access to global memory by a thread that has not waited | at the access |
//! | an access to the shared memory of a block of the cluster that has ended, or before the first cluster barrier, or by a thread that has left the cluster | at the access |
//! | a write to the shared memory of another block of the cluster, not published by `cluster::sync` before `cluster::sync_own` | when all have arrived there |
//! | an access to the shared memory of another block of the cluster between `cluster::arrive_own` and `cluster::wait_own`; a write there of what another block reads after it | at the access of the other block's memory |
//! | one half of a cluster barrier without the other | at the second half, or what is in its place |
//! | deadlock: blocks wait for one that cannot start before they end; livelock: all that can run spin | after [`Launch::spin_limit`] turns without a change of memory |
//! | a panic | at once |
//!
//! Accesses to shared memory are ordered by block barriers, cluster barriers (leaving a cluster is none) and, among the lanes that took
//! part, warp barriers. Shuffles, votes and reductions order nothing. Neither do atomics and fences *for the
//! race check*: a kernel that hands shared memory over with a release and an acquire, not with a barrier,
//! is reported.
//!
//! # What is not detected
//! - Races through global memory. The emulator is sequentially consistent: a missing fence or a too narrow
//!   scope shows no effect.
//! - Of three or more unordered groups of accesses to one shared word by one warp, from different source
//!   lines, two are remembered.
//! - Loops without any access to memory: they run forever.
//! - Limits of a real device other than those of [`Launch`]: registers, clusters per device, time.

mod barrier;
mod collective;
mod copies;
mod fault;
mod fiber;
mod global;
mod launch;
mod memory;
mod order;
mod scheduler;
mod shadow;
mod shared;
mod state;
mod statistics;
mod waiting;

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
    #[inline]
    fn thread_id() -> u32 {
        context().index
    }
    #[inline]
    fn block_threads() -> u32 {
        context().launch.block
    }
    #[inline]
    fn block_id() -> u32 {
        context().block().id
    }
    #[inline]
    fn grid_blocks() -> u32 {
        context().launch.grid
    }
    #[inline]
    fn lane_id() -> u32 {
        context().lane
    }
    #[inline]
    fn cluster_rank() -> u32 {
        context().block().rank
    }
    #[inline]
    fn cluster_size() -> u32 {
        context().launch.cluster
    }

    fn wait_for_earlier_launches() {
        context().thread().waited = true;
    }
    fn let_later_launches_start() {}

    #[inline(always)]
    #[track_caller]
    fn block_barrier() {
        barrier::wait(Collective::BlockBarrier, false, Location::caller());
    }
    #[inline(always)]
    #[track_caller]
    fn block_barrier_count(predicate: bool) -> u32 {
        barrier::wait(Collective::BlockCount, predicate, Location::caller())
    }
    #[inline(always)]
    #[track_caller]
    fn block_barrier_or(predicate: bool) -> bool {
        barrier::wait(Collective::BlockOr, predicate, Location::caller()) != 0
    }
    #[inline(always)]
    #[track_caller]
    fn cluster_barrier() {
        barrier::wait(Collective::ClusterBarrier, false, Location::caller());
    }
    #[inline(always)]
    #[track_caller]
    fn cluster_arrive_own() {
        barrier::arrive_early();
    }
    #[inline(always)]
    #[track_caller]
    fn cluster_wait_own() {
        barrier::wait(Collective::ClusterBarrierOwn, false, Location::caller());
    }
    fn cluster_leave() {
        context().thread().left = true;
    }
    #[inline(always)]
    #[track_caller]
    fn cluster_wait_until_left() {
        barrier::wait(Collective::ClusterLeft, false, Location::caller());
    }

    #[inline(always)]
    #[track_caller]
    fn warp_barrier(mask: u32) {
        collective::warp(mask, Collective::WarpBarrier { mask }, 0, 0, Location::caller());
    }
    #[inline(always)]
    #[track_caller]
    fn warp_shuffle(mask: u32, kind: Shuffle, value: u32, operand: u32) -> u32 {
        collective::warp(mask, Collective::Shuffle { kind, mask }, value, operand, Location::caller())
    }
    #[inline(always)]
    #[track_caller]
    fn warp_ballot(mask: u32, predicate: bool) -> u32 {
        collective::warp(mask, Collective::Ballot { mask }, u32::from(predicate), 0, Location::caller())
    }
    #[inline(always)]
    #[track_caller]
    fn warp_any(mask: u32, predicate: bool) -> bool {
        collective::warp(mask, Collective::Any { mask }, u32::from(predicate), 0, Location::caller()) != 0
    }
    #[inline(always)]
    #[track_caller]
    fn warp_all(mask: u32, predicate: bool) -> bool {
        collective::warp(mask, Collective::All { mask }, u32::from(predicate), 0, Location::caller()) != 0
    }
    #[inline(always)]
    #[track_caller]
    fn warp_match_any(mask: u32, value: u32) -> u32 {
        collective::warp(mask, Collective::MatchAny { mask }, value, 0, Location::caller())
    }
    #[inline(always)]
    #[track_caller]
    fn warp_reduce_add(mask: u32, value: u32) -> u32 {
        collective::warp(mask, Collective::ReduceAdd { mask }, value, 0, Location::caller())
    }
    #[inline(always)]
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
        let [value] = global::load(address, Access::Read, Location::caller());
        value
    }
    #[track_caller]
    unsafe fn global_load4(address: *const u32) -> [u32; 4] {
        global::load(address, Access::Read, Location::caller())
    }
    #[track_caller]
    unsafe fn global_load_readonly(address: *const u32) -> u32 {
        let [value] = global::load(address, Access::ReadOnly, Location::caller());
        value
    }
    #[track_caller]
    unsafe fn global_load4_readonly(address: *const u32) -> [u32; 4] {
        global::load(address, Access::ReadOnly, Location::caller())
    }
    #[track_caller]
    unsafe fn global_load4_speculative(address: *const u32) -> [u32; 4] {
        global::load(address, Access::Speculative, Location::caller())
    }
    #[track_caller]
    unsafe fn global_load2_readonly(address: *const u32) -> [u32; 2] {
        global::load(address, Access::ReadOnly, Location::caller())
    }
    #[track_caller]
    unsafe fn global_load_half_readonly(address: *const u16) -> u16 {
        global::load_half(address, Location::caller())
    }
    #[track_caller]
    unsafe fn global_prefetch(address: *const u8) {
        global::prefetch(address, Location::caller());
    }
    #[track_caller]
    unsafe fn copy_async(to: u32, from: *const u32) {
        copies::begin(to, from, Location::caller());
    }
    fn copy_async_group() {
        copies::group();
    }
    #[track_caller]
    fn copy_async_wait<const PENDING: u32>() {
        copies::wait(PENDING, Location::caller());
    }
    #[track_caller]
    unsafe fn global_store_half(address: *mut u16, value: u16) {
        global::store_half(address, value, Location::caller());
    }
    #[track_caller]
    unsafe fn global_store(address: *mut u32, value: u32) {
        global::store(address, [value], Location::caller());
    }
    #[track_caller]
    unsafe fn global_store2(address: *mut u32, value: [u32; 2]) {
        global::store(address, value, Location::caller());
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
    fn opaque(value: u32) -> u32 {
        value
    }
    #[inline(always)]
    fn opaque_address(address: *mut u32) -> *mut u32 {
        address
    }
    #[inline]
    fn bf16_pair(low: f32, high: f32) -> u32 {
        // The hardware has one NaN.
        let rounded = |value: f32| match half::bf16::from_f32(value) {
            number if number.is_nan() => 0x7fff,
            number => u32::from(number.to_bits()),
        };
        rounded(low) | rounded(high) << 16
    }
    #[inline]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    #[inline]
    fn exp2(value: f32) -> f32 {
        match value.exp2() {
            power if power.is_subnormal() => 0.0,
            power => power,
        }
    }
    #[inline]
    fn log2(value: f32) -> f32 {
        value.log2()
    }
    #[inline]
    fn rsqrt(value: f32) -> f32 {
        1.0 / value.sqrt()
    }
    #[inline]
    fn reciprocal(value: f32) -> f32 {
        1.0 / if value.is_subnormal() { 0.0_f32.copysign(value) } else { value }
    }
    #[inline]
    fn truncate(value: f32) -> u32 {
        value as u32
    }

    fn f32_to_f16(value: f32) -> u16 {
        // The hardware has one NaN.
        if value.is_nan() { 0x7fff } else { half::f16::from_f32(value).to_bits() }
    }
    #[inline]
    fn f16_to_f32(bits: u16) -> f32 {
        half::f16::from_bits(bits).to_f32()
    }
    #[inline]
    fn half_pair(low: f32, high: f32) -> u32 {
        let half = |value: f32| match half::f16::from_f32(value) {
            half if half.is_nan() => half::f16::NEG_INFINITY,
            half if half == half::f16::ZERO => half::f16::ZERO,
            half => half,
        };
        u32::from(half(low).to_bits()) | u32::from(half(high).to_bits()) << 16
    }
    #[inline]
    fn half_pair_at_least(pair: u32, bounds: u32) -> u32 {
        halves_at_least(pair, bounds, half::f16::from_bits)
    }
    #[inline]
    fn bf16_pair_at_least(pair: u32, bounds: u32) -> u32 {
        halves_at_least(pair, bounds, half::bf16::from_bits)
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

/// All ones in each half of the word in which the number of `pair` is at least that of `bounds`.
fn halves_at_least<T: PartialOrd>(pair: u32, bounds: u32, number: impl Fn(u16) -> T) -> u32 {
    let compare = |shift: u32| {
        let [value, bound] = [pair, bounds].map(|pair| number((pair >> shift) as u16));
        if value >= bound { 0xffff << shift } else { 0 }
    };
    compare(0) | compare(16)
}

#[cold]
#[inline(never)]
fn out_of_bounds(space: Space, index: usize, count: usize, length: usize, place: state::Place) -> ! {
    let target = Target::Index { space, index, count, length };
    context().raise(FaultKind::OutOfBounds { target }, place, None);
}
