//! Launches that would never end are reported, and so are panics; the memory survives all of it.

mod common;

use common::{Line, Words, always_faulty, here, lines, shared};
use dsa_simt::emu::{Fault, FaultKind, Launch, Memory, Preemption, Statistics, run_closure};
use dsa_simt::{AtomicOp, Order, Scope, block, spin_hint, thread};

/// All blocks wait until `needed` have arrived.
fn grid_barrier(
    memory: &Memory,
    launch: &Launch,
    line: &Line,
    needed: u32,
    hint: bool,
) -> Result<Statistics, Fault> {
    let arrived = Words::zeroed(memory, 1, "arrived");
    run_closure(memory, "grid_barrier", launch, || {
        if thread::index() == 0 {
            arrived.global().reduce(AtomicOp::Add, 0, 1);
            while arrived.global().atomic_load(0, Order::Acquire, Scope::Device) < needed {
                if hint {
                    here!(line, spin_hint());
                } else {
                    line.set(0);
                }
            }
        }
        block::sync();
    })
}

#[test]
fn waiting_for_blocks_that_cannot_start_is_reported() {
    let line = Line::default();
    for hint in [true, false] {
        let launch = Launch::new(5, 64).with_resident_blocks(4).with_preemption(Preemption::OneIn(3));
        let launch = if hint { launch } else { launch.with_spin_limit(50) };
        for fault in always_faulty(&launch, |memory, launch| grid_barrier(memory, launch, &line, 5, hint)) {
            assert_eq!(fault.kind, FaultKind::Deadlock { blocks_not_started: 1 });
            assert_eq!(fault.thread, 0);
            assert_ne!(fault.block, fault.other.as_ref().unwrap().block);
            assert!(fault.location.is_some());
        }
    }
}

#[test]
fn waiting_for_what_never_happens_is_reported() {
    let line = Line::default();
    for preemption in [Preemption::Never, Preemption::OneIn(2)] {
        let launch = Launch::new(3, 32).with_preemption(preemption);
        for fault in always_faulty(&launch, |memory, launch| grid_barrier(memory, launch, &line, 4, true)) {
            assert_eq!((&fault.kind, fault.thread), (&FaultKind::Livelock, 0));
            assert_eq!(lines(&fault).0, fault.location.unwrap().line());
        }
    }
}

#[test]
fn waiting_with_plain_loads_is_reported() {
    let line = Line::default();
    let launch = Launch::new(1, 3).with_shared_bytes(16).with_spin_limit(3);
    for fault in always_faulty(&launch, |memory, launch| {
        let flag = Words::zeroed(memory, 1, "flag");
        run_closure(memory, "plain_wait", launch, || {
            let words = shared(3);
            words.set(thread::index(), 0);
            match thread::index() {
                0 => while here!(line, flag.global().get(0)) == 0 {},
                index => while words.get(index) == 0 {},
            }
        })
    }) {
        assert_eq!(fault.kind, FaultKind::Livelock);
        assert_eq!((fault.thread, lines(&fault).0), (0, line.get()));
    }
}

#[test]
fn a_lock_that_two_lanes_hold_in_turn_against_each_other_is_reported() {
    // Each lane takes its lock and never gets the other's: an exchange of 1 for 1 changes nothing.
    for fault in
        always_faulty(&Launch::new(1, 2).with_shared_bytes(16).with_spin_limit(20), |memory, launch| {
            run_closure(memory, "locks", launch, || {
                let (locks, lane) = (shared(2), thread::lane());
                locks.atomic_store(lane, 0, Order::Relaxed, Scope::Block);
                block::sync();
                locks.atomic(AtomicOp::Exchange, lane, 1);
                block::sync();
                while locks.atomic(AtomicOp::Exchange, 1 - lane, 1) == 1 {}
            })
        })
    {
        assert_eq!(fault.kind, FaultKind::Livelock);
        assert!(lines(&fault).1.is_some());
    }
}

#[test]
fn blocks_that_spin_at_barriers_are_reported() {
    for fault in
        always_faulty(&Launch::new(2, 64).with_shared_bytes(16).with_spin_limit(5), |memory, launch| {
            let flag = Words::zeroed(memory, 1, "flag");
            run_closure(memory, "spin_together", launch, || {
                let (words, mut turn) = (shared(2), 0);
                loop {
                    if thread::index() == 0 {
                        spin_hint();
                        words.set(0, flag.global().atomic_load(0, Order::Acquire, Scope::Device));
                        turn += 1;
                        words.set(1, turn);
                    }
                    block::sync();
                    if words.get(0) != 0 {
                        break;
                    }
                    block::sync();
                }
            })
        })
    {
        assert_eq!(fault.kind, FaultKind::Livelock);
    }
}

#[test]
fn a_panic_of_a_thread_is_reported() {
    for fault in always_faulty(&Launch::new(2, 64), |memory, launch| {
        run_closure(memory, "panics", launch, || {
            block::sync();
            assert!(thread::index() != 37 || block::index() != 1, "thread 37 does not like it");
        })
    }) {
        assert_eq!(fault.kind, FaultKind::Panic { message: "thread 37 does not like it".into() });
        assert_eq!((fault.block, fault.thread), (1, 37));
    }
}

#[test]
fn the_memory_survives_a_fault() {
    let memory = Memory::new();
    let words = Words::zeroed(&memory, 64, "words");
    for seed in 0..50 {
        let launch = Launch::new(4, 256).with_shared_bytes(1024).with_seed(seed);
        let fault = run_closure(&memory, "faulty", &launch, || {
            words.global().set(5, 7);
            shared(4).set(0, thread::index());
            block::sync();
        })
        .unwrap_err();
        assert!(matches!(fault.kind, FaultKind::SharedRace { .. }), "{fault}");
        let written = run_closure(&memory, "sound", &launch, || {
            shared(256).set(thread::index(), 1);
            block::sync();
            let i = thread::index() as usize;
            if i < 64 && block::index() == 0 {
                words.global().set(i, seed as u32);
            }
        });
        assert!(written.is_ok(), "{written:?}");
        assert_eq!(words.to_vec(), [seed as u32; 64]);
    }
}
