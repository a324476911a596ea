//! Remote shared memory, barriers and atomics of clusters.

use dsa_simt::{AtomicOp, Carve, Global, Order, Scope, Shared, block, cluster, fence, thread};

use crate::WARP_THREADS;

#[inline(always)]
pub(crate) fn exchange(input: Global<u32>, out: Global<u32>) {
    let mut carve = Carve::dynamic();
    // SAFETY: the launch has 1040 bytes: three arrays of 256 bytes and one of 16; cluster barriers stand
    // between writes and reads.
    let own: Shared<u32> = unsafe { carve.array(WARP_THREADS) };
    // SAFETY: as above.
    let received: Shared<u32> = unsafe { carve.array(WARP_THREADS) };
    // SAFETY: as above.
    let sums: Shared<u32> = unsafe { carve.array(2) };
    let t = thread::index();
    let i = (block::index() * WARP_THREADS + t) as usize;
    let (rank, size) = (cluster::rank(), cluster::size());
    let value = input.get(i);
    own.set(t, value);
    if t < 2 {
        sums.set(t, 0);
    }
    // Each has written to its own memory only.
    cluster::sync_own();
    let next = (rank + 1) % size;
    let from_next = own.at_rank(next).get(t);
    received.at_rank(next).set(t, value ^ 1);
    sums.at_rank(0).atomic(AtomicOp::Add, 0, value);
    sums.at_rank(0).atomic(AtomicOp::Max, 1, value);
    cluster::sync();
    let sum = sums.at_rank(0).get(0);
    let max = sums.at_rank(0).get(1);
    let words = [rank, size, from_next, received.get(t), sum, max];
    for (j, word) in words.into_iter().enumerate() {
        out.set(6 * i + j, word);
    }
    // No block leaves while another may still read its shared memory.
    cluster::sync();
}

#[inline(always)]
pub(crate) fn atomics(input: Global<u32>, state: Global<u32>, out: Global<u32>) {
    let t = thread::index();
    let i = (block::index() * WARP_THREADS + t) as usize;
    let first = 4 * (block::index() / 2) as usize;
    let value = input.get(i);
    state.atomic(AtomicOp::Add, first, value, Order::Relaxed, Scope::Cluster);
    state.atomic(AtomicOp::Add, first + 1, value, Order::Acquire, Scope::Cluster);
    state.atomic(AtomicOp::Add, first + 2, value, Order::Release, Scope::Cluster);
    state.atomic(AtomicOp::Add, first + 3, value, Order::AcqRel, Scope::Cluster);
    fence(Scope::Cluster);
    cluster::sync();
    for word in 0..4 {
        out.set(4 * i + word, state.atomic_load(first + word, Order::Acquire, Scope::Cluster));
    }
}
