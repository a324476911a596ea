//! Messages between blocks: with and without waiting.

use dsa_simt::{AtomicOp, Carve, Global, Order, Scope, Shared, block, fence, spin_hint, thread};

#[inline(always)]
pub(crate) fn last_arriver(
    data: Global<u32>,
    arrivals: Global<u32>,
    out: Global<u32>,
    words: u32,
    mode: u32,
) {
    let mut carve = Carve::dynamic();
    // SAFETY: the launch has 16 bytes of shared memory; thread 0 writes it between two barriers.
    let last: Shared<u32> = unsafe { carve.array(1) };
    let first = block::index() * words;
    let mut i = thread::index();
    while i < words {
        data.set((first + i) as usize, message(first + i));
        i += block::threads();
    }
    block::sync();
    if thread::index() == 0 {
        let earlier = if mode == 0 {
            arrivals.atomic(AtomicOp::Add, 0, 1, Order::AcqRel, Scope::Device)
        } else {
            fence(Scope::Device);
            let earlier = arrivals.atomic(AtomicOp::Add, 0, 1, Order::Relaxed, Scope::Device);
            fence(Scope::Device);
            earlier
        };
        last.set(0, u32::from(earlier + 1 == block::count()));
    }
    block::sync();
    if last.get(0) == 0 {
        return;
    }
    let mut i = thread::index() as usize;
    while i < data.len() {
        out.set(i, data.get(i));
        i += block::threads() as usize;
    }
    if thread::index() == 0 {
        arrivals.atomic_store(0, 0, Order::Relaxed, Scope::Device);
    }
}

#[inline(always)]
pub(crate) fn ping_pong(mail: Global<u32>, flags: Global<u32>, out: Global<u32>, rounds: u32) {
    if thread::index() != 0 {
        return;
    }
    let me = block::index() as usize;
    let other = 1 - me;
    let mut right = 0;
    let mut round = 1;
    while round <= rounds {
        if me == 0 {
            mail.set(0, message(2 * round));
            flags.atomic_store(0, round, Order::Release, Scope::Device);
        }
        while flags.atomic_load(other, Order::Acquire, Scope::Device) < round {
            spin_hint();
        }
        right += u32::from(mail.get(other) == message(2 * round + other as u32));
        if me == 1 {
            mail.set(1, message(2 * round + 1));
            flags.atomic_store(1, round, Order::Release, Scope::Device);
        }
        round += 1;
    }
    out.set(me, right);
}

/// A word that tells messages apart.
#[inline(always)]
fn message(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b9) ^ 0x5555_aaaa
}
