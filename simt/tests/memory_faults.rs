//! Accesses that no device memory or shared memory answers for are reported, with the thread and its line.

mod common;

use common::{Line, Words, always_faulty, global_index, here, lines, shared};
use dsa_simt::emu::{Access, Fault, FaultKind, Launch, Memory, Statistics, Target, run_closure};
use dsa_simt::{
    AtomicOp, Carve, Global, Order, Scope, Shared, Space, block, cluster, copies, grid, spin_hint, thread,
    warp,
};

const ALL: u32 = warp::ALL;

#[test]
fn indices_past_an_array_are_reported() {
    let line = Line::default();
    let launch = Launch::new(1, 32).with_shared_bytes(256);
    for fault in always_faulty(&launch, |memory, launch| {
        run_closure(memory, "shared_index", launch, || {
            let words = shared(31);
            here!(line, words.set(thread::index(), 1));
        })
    }) {
        let target = Target::Index { space: Space::Shared, index: 31, count: 1, length: 31 };
        assert_eq!(fault.kind, FaultKind::OutOfBounds { target });
        assert_eq!((fault.thread, lines(&fault)), (31, (line.get(), None)));
    }
    for fault in always_faulty(&Launch::new(1, 32), |memory, launch| {
        let words = Words::zeroed(memory, 124, "words");
        run_closure(memory, "global_index", launch, || {
            here!(line, words.global().get4(4 * thread::index() as usize));
        })
    }) {
        let target = Target::Index { space: Space::Global, index: 124, count: 4, length: 124 };
        assert_eq!(fault.kind, FaultKind::OutOfBounds { target });
        assert_eq!((fault.thread, lines(&fault)), (31, (line.get(), None)));
    }
}

#[test]
fn carving_more_shared_memory_than_there_is_is_reported() {
    let line = Line::default();
    let launch = Launch::new(1, 1).with_shared_bytes(100);
    for fault in always_faulty(&launch, |memory, launch| {
        run_closure(memory, "carve", launch, || {
            // SAFETY: the emulator checks every access.
            here!(line, unsafe { Carve::dynamic().array::<u32>(26) });
        })
    }) {
        assert!(matches!(fault.kind, FaultKind::OutOfBounds { target: Target::Index { .. } }), "{fault}");
        assert_eq!(lines(&fault).0, line.get());
    }
}

#[test]
fn a_word_written_behind_the_last_one_is_reported() {
    let line = Line::default();
    let launch = Launch::new(1, 1).with_shared_bytes(400);
    for fault in always_faulty(&launch, |memory, launch| {
        run_closure(memory, "cursor", launch, || {
            // SAFETY: the emulator checks every access.
            let words = unsafe { Carve::dynamic().array::<u32>(10) };
            let mut next = words.cursor(9);
            next.push(1);
            here!(line, next.push(2));
        })
    }) {
        let target = Target::Index { space: Space::Shared, index: 10, count: 1, length: 10 };
        assert_eq!(fault.kind, FaultKind::OutOfBounds { target });
        assert_eq!(lines(&fault).0, line.get());
    }
}

#[test]
fn a_part_that_ends_behind_its_array_is_reported() {
    let line = Line::default();
    let launch = Launch::new(1, 1).with_shared_bytes(400);
    for fault in always_faulty(&launch, |memory, launch| {
        run_closure(memory, "part", launch, || {
            // SAFETY: the emulator checks every access.
            let words = unsafe { Carve::dynamic().array::<u32>(64) };
            here!(line, words.part(48, 17));
        })
    }) {
        let target = Target::Index { space: Space::Shared, index: 48, count: 17, length: 64 };
        assert_eq!(fault.kind, FaultKind::OutOfBounds { target });
        assert_eq!(lines(&fault).0, line.get());
    }
}

/// A kernel that believes its array of 16 words has 1000.
fn overlong(
    memory: &Memory,
    launch: &Launch,
    act: impl Fn(dsa_simt::Global<u32>),
) -> Result<Statistics, Fault> {
    let words = Words::zeroed(memory, 16, "scores");
    run_closure(memory, "overlong", launch, || {
        // SAFETY: wrong on purpose; the emulator reports it before anything is touched.
        act(unsafe { dsa_simt::Global::from_raw(words.address() as *const u32, 1000) });
    })
}

#[test]
fn accesses_outside_allocations_are_reported() {
    let line = Line::default();
    type Act<'a> = &'a dyn Fn(dsa_simt::Global<u32>);
    let accesses: [(i64, Act<'_>); 6] = [
        (64, &|words| here!(line, words.set(16, 1))),
        (64, &|words| here!(line, words.copy4(16, shared(4), 0))),
        (64, &|words| here!(line, words.prefetch(16))),
        (64, &|words| {
            here!(line, words.get4(16));
        }),
        (80, &|words| {
            here!(line, words.atomic_load(20, Order::Relaxed, Scope::Device));
        }),
        (3996, &|words| here!(line, words.reduce(AtomicOp::Add, 999, 1))),
    ];
    for (offset, act) in accesses {
        for fault in always_faulty(&Launch::new(1, 1).with_shared_bytes(16), |memory, launch| {
            overlong(memory, launch, act)
        }) {
            let target = Target::Global { label: "scores".into(), offset, bytes: 64 };
            assert_eq!(fault.kind, FaultKind::OutOfBounds { target });
            assert_eq!(lines(&fault).0, line.get());
        }
    }
}

#[test]
fn an_access_that_ends_past_its_allocation_is_reported() {
    let fault = {
        let memory = Memory::new();
        let words = Words::zeroed(&memory, 18, "scores");
        // SAFETY: wrong on purpose; the emulator reports it before anything is touched.
        let global = || unsafe { dsa_simt::Global::<u32>::from_raw(words.address() as *const u32, 20) };
        run_closure(&memory, "end", &Launch::new(1, 1), || {
            global().get4(16);
        })
        .unwrap_err()
    };
    let target = Target::Global { label: "scores".into(), offset: 64, bytes: 72 };
    assert_eq!(fault.kind, FaultKind::OutOfBounds { target });
}

#[test]
fn misaligned_accesses_are_reported() {
    let line = Line::default();
    for fault in always_faulty(&Launch::new(1, 1), |memory, launch| {
        overlong(memory, launch, |words| {
            here!(line, words.get4(5));
        })
    }) {
        let target = Target::Global { label: "scores".into(), offset: 20, bytes: 64 };
        assert_eq!(fault.kind, FaultKind::Misaligned { target, bytes: 16 });
        assert_eq!(lines(&fault).0, line.get());
    }
    let launch = Launch::new(1, 1).with_shared_bytes(64);
    for fault in always_faulty(&launch, |memory, launch| {
        run_closure(memory, "shared", launch, || here!(line, shared(16).set4(6, [0; 4])))
    }) {
        let target = Target::Shared { offset: 24, bytes: 64 };
        assert_eq!(fault.kind, FaultKind::Misaligned { target, bytes: 16 });
        assert_eq!(lines(&fault).0, line.get());
    }
}

#[test]
fn freed_memory_is_reported() {
    let line = Line::default();
    for fault in always_faulty(&Launch::new(1, 1), |memory, launch| {
        let words = Words::zeroed(memory, 16, "workspace");
        memory.free(words.address()).unwrap();
        run_closure(memory, "freed", launch, || {
            here!(line, words.global().get(3));
        })
    }) {
        let target = Target::Global { label: "workspace".into(), offset: 12, bytes: 64 };
        assert_eq!(fault.kind, FaultKind::FreedMemory { target });
        assert_eq!(lines(&fault).0, line.get());
    }
}

#[test]
fn uninitialised_shared_memory_is_reported() {
    let line = Line::default();
    let reads: [&dyn Fn(Shared<u32>); 4] = [
        &|words| {
            here!(line, words.get(5));
        },
        &|words| {
            here!(line, words.get4(4));
        },
        &|words| {
            here!(line, words.atomic(AtomicOp::Add, 5, 1));
        },
        &|words| {
            here!(line, words.atomic_load(5, Order::Relaxed, Scope::Block));
        },
    ];
    for read in reads {
        // The second block gets the memory of the first, which wrote all of it.
        let launch = Launch::new(2, 32).with_shared_bytes(64).with_resident_blocks(1);
        for fault in always_faulty(&launch, |memory, launch| {
            let turn = Words::zeroed(memory, 1, "turn");
            run_closure(memory, "uninitialised", launch, || {
                let words = shared(16);
                if thread::index() != 0 {
                    return;
                }
                let second = turn.global().atomic(AtomicOp::Add, 0, 1, Order::Relaxed, Scope::Device) == 1;
                for i in 0..16 {
                    if i != 5 || !second {
                        words.set(i, 0);
                    }
                }
                if second {
                    read(words);
                }
            })
        }) {
            let target = Target::Shared { offset: 20, bytes: 64 };
            assert_eq!(fault.kind, FaultKind::Uninitialised { target });
            assert_eq!((fault.thread, lines(&fault).0), (0, line.get()));
        }
    }
}

#[test]
fn what_a_copy_writes_is_uninitialised_until_its_thread_has_waited() {
    let line = Line::default();
    type Wait<'a> = &'a dyn Fn();
    let waits: [Wait<'_>; 4] = [
        // Not at all; for the group before; before it is in a group; for a copy of another thread.
        &copies::group,
        &|| {
            copies::group();
            copies::wait::<1>();
        },
        &copies::wait::<0>,
        &|| {
            if thread::index() != 5 {
                copies::group();
                copies::wait::<0>();
            }
        },
    ];
    for wait in waits {
        let launch = Launch::new(1, 32).with_shared_bytes(512);
        for fault in always_faulty(&launch, |memory, launch| {
            let from = Words::filled(memory, &[7; 128], "from");
            run_closure(memory, "copies", launch, || {
                let (words, own) = (shared(128), 4 * thread::index());
                words.set4(own, [0; 4]);
                from.global().copy4(own as usize, words, own);
                wait();
                block::sync();
                if thread::index() == 5 {
                    here!(line, words.get(21));
                }
            })
        }) {
            assert_eq!(
                fault.kind,
                FaultKind::Uninitialised { target: Target::Shared { offset: 84, bytes: 512 } }
            );
            assert_eq!((fault.thread, lines(&fault).0), (5, line.get()));
        }
    }
}

#[test]
fn uninitialised_global_memory_is_reported() {
    let line = Line::default();
    let reads: [&dyn Fn(dsa_simt::Global<u32>); 4] = [
        &|words| {
            here!(line, words.get(2));
        },
        &|words| {
            here!(line, words.get4_readonly(0));
        },
        &|words| {
            let order = Order::Relaxed;
            here!(line, words.atomic(AtomicOp::Max, 2, 1, order, Scope::Device));
        },
        &|words| here!(line, words.reduce(AtomicOp::Or, 2, 0)),
    ];
    for read in reads {
        for fault in always_faulty(&Launch::new(1, 1), |memory, launch| {
            let words = Words::undefined(memory, 4, "scratch");
            memory.write(words.address(), &[0; 8]).unwrap();
            run_closure(memory, "uninitialised", launch, || {
                words.global().set(3, 1);
                read(words.global());
            })
        }) {
            let target = Target::Global { label: "scratch".into(), offset: 8, bytes: 16 };
            assert_eq!(fault.kind, FaultKind::Uninitialised { target });
            assert_eq!(lines(&fault).0, line.get());
        }
    }
}

#[test]
fn remote_accesses_to_blocks_that_may_not_run_are_reported() {
    let launch = Launch::new(2, 32).with_cluster(2).with_shared_bytes(128);
    let line = Line::default();
    for fault in always_faulty(&launch, |memory, launch| {
        run_closure(memory, "too_early", launch, || {
            let remote = shared(32).at_rank(1 - cluster::rank());
            here!(line, remote.set(thread::index(), 1));
            cluster::sync();
        })
    }) {
        let FaultKind::RemoteBlockNotRunning { rank } = fault.kind else { panic!("{fault}") };
        assert_eq!((rank, lines(&fault).0), (1 - fault.block, line.get()));
    }
    for fault in always_faulty(&launch, |memory, launch| {
        run_closure(memory, "after_leaving", launch, || {
            cluster::sync();
            let remote = shared(32).at_rank(1 - cluster::rank());
            cluster::leave();
            here!(line, remote.set(thread::index(), 1));
            cluster::wait_until_left();
        })
    }) {
        let FaultKind::RemoteBlockNotRunning { rank } = fault.kind else { panic!("{fault}") };
        assert_eq!((rank, lines(&fault).0), (1 - fault.block, line.get()));
    }
    for fault in always_faulty(&launch, |memory, launch| {
        run_closure(memory, "in_barrier", launch, || {
            let (words, t) = (shared(32), thread::index());
            words.set(t, 0);
            cluster::sync_own();
            cluster::arrive_own();
            here!(line, words.at_rank(1 - cluster::rank()).get(t));
            cluster::wait_own();
        })
    }) {
        let FaultKind::RemoteAccessInBarrier { rank } = fault.kind else { panic!("{fault}") };
        assert_eq!((rank, lines(&fault).0), (1 - fault.block, line.get()));
    }
    for fault in always_faulty(&launch, |memory, launch| {
        let done = Words::zeroed(memory, 1, "done");
        run_closure(memory, "too_late", launch, || {
            cluster::sync();
            let done = done.global();
            if cluster::rank() == 0 {
                done.reduce(AtomicOp::Add, 0, 1);
            } else {
                while done.atomic_load(0, Order::Relaxed, Scope::Device) < 32 {
                    spin_hint();
                }
                // Lets block 0 end.
                for _ in 0..200 {
                    spin_hint();
                }
                shared(32).at_rank(0).set(0, 1);
            }
        })
    }) {
        assert_eq!(fault.kind, FaultKind::RemoteBlockNotRunning { rank: 0 });
    }
    for fault in always_faulty(&launch, |memory, launch| {
        run_closure(memory, "no_such_rank", launch, || {
            cluster::sync();
            shared(32).at_rank(2).set(0, 1);
        })
    }) {
        assert!(matches!(fault.kind, FaultKind::OutOfBounds { target: Target::Nowhere { .. } }), "{fault}");
    }
}

#[test]
fn writing_what_is_read_through_the_read_only_path_is_reported() {
    for fault in always_faulty(&Launch::new(2, 32), |memory, launch| {
        let words = Words::zeroed(memory, 64, "row");
        run_closure(memory, "read_only", launch, || {
            let (words, i) = (words.global(), global_index());
            words.get_readonly(i);
            words.set(i, 1);
        })
    }) {
        assert!(matches!(fault.kind, FaultKind::ReadOnlyWritten { this: Access::Write, .. }), "{fault}");
    }
    for fault in always_faulty(&Launch::new(1, 32), |memory, launch| {
        let words = Words::zeroed(memory, 64, "row");
        run_closure(memory, "read_only", launch, || {
            let (words, i) = (words.global(), global_index());
            words.set(i, 1);
            warp::sync(ALL);
            words.get_readonly(i ^ 1);
        })
    }) {
        assert!(matches!(fault.kind, FaultKind::ReadOnlyWritten { this: Access::ReadOnly, .. }), "{fault}");
    }
}

#[test]
fn global_memory_touched_before_the_wait_for_earlier_launches_is_reported() {
    type Act = fn(Global<u32>);
    let acts: [(Act, Access); 6] = [
        (|words| _ = words.get(1), Access::Read),
        (|words| _ = words.get_readonly(1), Access::ReadOnly),
        (|words| words.set(1, 7), Access::Write),
        (|words| _ = words.atomic_load(1, Order::Relaxed, Scope::Device), Access::AtomicRead),
        (|words| words.atomic_store(1, 7, Order::Relaxed, Scope::Device), Access::AtomicWrite),
        (|words| words.reduce(AtomicOp::Add, 1, 7), Access::AtomicUpdate),
    ];
    for (act, access) in acts {
        let launch = Launch::new(3, 64).with_resident_blocks(1).with_overlap(true);
        for fault in always_faulty(&launch, |memory, launch| {
            let words = Words::zeroed(memory, 4, "words");
            run_closure(memory, "early", launch, || {
                // One thread forgets it: that others have waited is no excuse.
                if block::index() != 1 || thread::index() != 40 {
                    grid::wait_for_earlier();
                } else {
                    act(words.global());
                }
            })
        }) {
            let target = Target::Global { label: "words".into(), offset: 4, bytes: 16 };
            assert_eq!(fault.kind, FaultKind::TooEarly { target, this: access });
            assert_eq!((fault.block, fault.thread), (1, 40));
            lines(&fault);
            let text = fault.to_string();
            assert!(text.contains(&format!("{access} before `grid::wait_for_earlier`")), "{text}");
            assert!(text.contains("words") && text.contains(", overlapping"), "{text}");
        }
    }
}
