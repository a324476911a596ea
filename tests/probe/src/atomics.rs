//! Read-modify-write operations on shared and on global memory.

use dsa_simt::{AtomicOp, Carve, Global, Order, Scope, Shared, block, thread};

use crate::op;

#[inline(always)]
pub(crate) fn shared(input: Global<u32>, out: Global<u32>, number: u32, start: u32) {
    let mut carve = Carve::dynamic();
    // SAFETY: the launch has 16 bytes; barriers separate the plain accesses from the atomic ones.
    let words: Shared<u32> = unsafe { carve.array(2) };
    let t = thread::index();
    let threads = block::threads() as usize;
    if t == 0 {
        words.set(0, start);
        words.atomic_store(1, start, Order::Release, Scope::Block);
    }
    block::sync();
    let value = input.get(t as usize);
    out.set(t as usize, words.atomic(op(number), 0, value));
    words.reduce(op(number), 1, value);
    block::sync();
    if t == 0 {
        out.set(threads, words.get(0));
        out.set(threads + 1, words.atomic_load(1, Order::Acquire, Scope::Block));
    }
}

#[inline(always)]
pub(crate) fn global(input: Global<u32>, state: Global<u32>, out: Global<u32>, number: u32) {
    let threads = (block::count() * block::threads()) as usize;
    let i = (block::index() * block::threads() + thread::index()) as usize;
    let value = input.get(i);
    let own = 5 + 4 * block::index() as usize;
    // Order and scope are constants of each call: the instruction is chosen at compile time.
    let device = |order: Order, word: usize| one(state, number, word, value, order, Scope::Device);
    let block = |order: Order, word: usize| one(state, number, word, value, order, Scope::Block);
    out.set(i, device(Order::Relaxed, 0));
    out.set(threads + i, device(Order::Acquire, 1));
    out.set(2 * threads + i, device(Order::Release, 2));
    out.set(3 * threads + i, device(Order::AcqRel, 3));
    out.set(4 * threads + i, block(Order::Relaxed, own));
    out.set(5 * threads + i, block(Order::Acquire, own + 1));
    out.set(6 * threads + i, block(Order::Release, own + 2));
    out.set(7 * threads + i, block(Order::AcqRel, own + 3));
    match number {
        0 => state.reduce(AtomicOp::Add, 4, value),
        1 => state.reduce(AtomicOp::Max, 4, value),
        2 => state.reduce(AtomicOp::Min, 4, value),
        3 => state.reduce(AtomicOp::Or, 4, value),
        _ => state.reduce(AtomicOp::Exchange, 4, value),
    }
}

#[inline(always)]
fn one(state: Global<u32>, number: u32, word: usize, value: u32, order: Order, scope: Scope) -> u32 {
    match number {
        0 => state.atomic(AtomicOp::Add, word, value, order, scope),
        1 => state.atomic(AtomicOp::Max, word, value, order, scope),
        2 => state.atomic(AtomicOp::Min, word, value, order, scope),
        3 => state.atomic(AtomicOp::Or, word, value, order, scope),
        _ => state.atomic(AtomicOp::Exchange, word, value, order, scope),
    }
}
