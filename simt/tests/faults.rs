//! Each bug that the emulator looks for, planted in a small kernel, is reported with its kind, its threads
//! and their source lines; and the seed replays the report.

mod common;

use common::{Words, always_faulty, global_index};
use dsa_simt::emu::{
    Access, Collective, Fault, FaultKind, Launch, Memory, Preemption, Statistics, Target, run_closure,
};
use dsa_simt::{AtomicOp, Carve, Order, Scope, Shared, Space, block, cluster, spin_hint, thread, warp};

const ALL: u32 = warp::ALL;

/// Marks a line of a planted bug: evaluates its expression, which is on the same line, and notes the line.
macro_rules! here {
    ($line:expr, $call:expr) => {{
        $line.set(line!());
        $call
    }};
}

type Line = std::cell::Cell<u32>;

fn shared(len: u32) -> Shared<u32> {
    // SAFETY: the emulator checks every access.
    unsafe { Carve::dynamic().array(len) }
}

/// The source lines of both sides, which are in this file.
fn lines(fault: &Fault) -> (u32, Option<u32>) {
    let location = fault.location.expect("a location");
    let other = fault.other.as_ref().and_then(|site| site.location);
    for location in std::iter::once(location).chain(other) {
        assert!(location.file().ends_with("faults.rs"), "{location}");
    }
    (location.line(), other.map(|location| location.line()))
}

fn both_lines(fault: &Fault, a: &Line, b: &Line) {
    let (this, other) = lines(fault);
    let found = [this, other.expect("two locations")];
    assert!(
        found == [a.get(), b.get()] || found == [b.get(), a.get()],
        "lines {found:?}: {fault}"
    );
}

#[test]
fn lanes_at_different_calls_are_reported() {
    let (a, b) = (Line::default(), Line::default());
    let faults = always_faulty(&Launch::new(2, 64), |memory, launch| {
        run_closure(memory, "split_ballot", launch, || {
            if thread::lane() < 10 {
                here!(a, warp::ballot(ALL, true));
            } else {
                here!(b, warp::ballot(ALL, true));
            }
        })
    });
    for fault in faults {
        assert!(matches!(fault.kind, FaultKind::Divergence { .. }), "{fault}");
        let other = fault.other.as_ref().unwrap();
        assert_eq!((fault.block, fault.thread / 32), (other.block, other.thread / 32));
        assert_ne!(fault.thread % 32 < 10, other.thread % 32 < 10);
        both_lines(&fault, &a, &b);
        let text = fault.to_string();
        assert!(
            text.contains("split_ballot") && text.contains(&format!("seed {}", fault.seed)),
            "{text}"
        );
    }
}

#[test]
fn lanes_with_different_masks_are_reported() {
    let line = Line::default();
    let faults = always_faulty(&Launch::new(1, 32), |memory, launch| {
        run_closure(memory, "masks", launch, || {
            let mask = if thread::lane() == 7 { 0xff } else { 0xffff };
            if thread::lane() < 16 {
                here!(line, warp::reduce_add(mask, 1));
            }
        })
    });
    for fault in faults {
        let FaultKind::Divergence { this, other } = fault.kind else {
            panic!("{fault}")
        };
        let masks = [
            Collective::ReduceAdd { mask: 0xff },
            Collective::ReduceAdd { mask: 0xffff },
        ];
        assert!(masks.contains(&this) && masks.contains(&other) && this != other);
        assert!(fault.thread == 7 || fault.other.as_ref().unwrap().thread == 7);
        both_lines(&fault, &line, &line);
    }
}

#[test]
fn lanes_in_different_operations_are_reported() {
    let (a, b) = (Line::default(), Line::default());
    let faults = always_faulty(&Launch::new(1, 32), |memory, launch| {
        run_closure(memory, "operations", launch, || {
            if thread::lane() == 31 {
                here!(a, warp::sync(ALL));
            } else {
                here!(b, warp::shuffle_xor(ALL, 0_u32, 1));
            }
        })
    });
    for fault in faults {
        assert!(matches!(fault.kind, FaultKind::Divergence { .. }), "{fault}");
        both_lines(&fault, &a, &b);
    }
}

#[test]
fn threads_at_different_block_barriers_are_reported() {
    let (a, b) = (Line::default(), Line::default());
    let faults = always_faulty(&Launch::new(2, 128), |memory, launch| {
        run_closure(memory, "barriers", launch, || {
            if thread::index() < 96 {
                here!(a, block::sync());
            } else {
                here!(b, block::sync());
            }
        })
    });
    for fault in faults {
        let kind = FaultKind::Divergence {
            this: Collective::BlockBarrier,
            other: Collective::BlockBarrier,
        };
        assert_eq!(fault.kind, kind);
        let other = fault.other.as_ref().unwrap();
        assert_ne!(fault.thread < 96, other.thread < 96);
        assert_eq!(fault.block, other.block);
        both_lines(&fault, &a, &b);
    }
}

#[test]
fn a_lane_at_a_block_barrier_while_its_warp_votes_is_reported() {
    let (a, b) = (Line::default(), Line::default());
    let faults = always_faulty(&Launch::new(1, 64), |memory, launch| {
        run_closure(memory, "mixed", launch, || {
            if thread::index() == 40 {
                here!(a, block::sync());
            } else {
                here!(b, warp::any(ALL, false));
                here!(a, block::sync());
            }
        })
    });
    for fault in faults {
        assert!(matches!(fault.kind, FaultKind::Divergence { .. }), "{fault}");
        let threads = [fault.thread, fault.other.as_ref().unwrap().thread];
        assert!(threads.contains(&40), "{fault}");
    }
}

#[test]
fn lanes_that_wait_for_each_other_in_a_ring_are_reported() {
    let faults = always_faulty(&Launch::new(1, 32), |memory, launch| {
        run_closure(memory, "ring", launch, || {
            let lane = thread::lane();
            if lane < 3 {
                warp::sync(1 << lane | 1 << ((lane + 1) % 3));
            }
        })
    });
    for fault in faults {
        assert!(matches!(fault.kind, FaultKind::Divergence { .. }), "{fault}");
    }
}

#[test]
fn ending_before_a_block_barrier_is_reported() {
    let line = Line::default();
    let faults = always_faulty(&Launch::new(3, 96), |memory, launch| {
        run_closure(memory, "early_end", launch, || {
            if block::index() == 1 && thread::index() == 50 {
                return;
            }
            here!(line, block::sync());
        })
    });
    for fault in faults {
        assert_eq!(
            fault.kind,
            FaultKind::ExitedBeforeBarrier {
                barrier: Collective::BlockBarrier
            }
        );
        let ended = fault.other.as_ref().unwrap();
        assert_eq!((fault.block, ended.block, ended.thread), (1, 1, 50));
        assert_eq!(lines(&fault).0, line.get());
    }
}

#[test]
fn ending_before_a_warp_collective_is_reported() {
    let (before, line) = (Line::default(), Line::default());
    let faults = always_faulty(&Launch::new(1, 64), |memory, launch| {
        run_closure(memory, "early_end", launch, || {
            here!(before, warp::sync(ALL));
            if thread::index() == 33 {
                return;
            }
            here!(line, warp::sync(ALL));
        })
    });
    for fault in faults {
        assert!(
            matches!(fault.kind, FaultKind::ExitedBeforeBarrier { .. }),
            "{fault}"
        );
        assert_eq!(fault.other.as_ref().unwrap().thread, 33);
        assert_eq!(lines(&fault), (line.get(), Some(before.get())));
    }
}

#[test]
fn ending_before_a_cluster_barrier_is_reported() {
    let line = Line::default();
    let faults = always_faulty(&Launch::new(4, 32).with_cluster(2), |memory, launch| {
        run_closure(memory, "early_block", launch, || {
            if block::index() != 3 {
                here!(line, cluster::sync());
            }
        })
    });
    for fault in faults {
        assert_eq!(
            fault.kind,
            FaultKind::ExitedBeforeBarrier {
                barrier: Collective::ClusterBarrier
            }
        );
        assert_eq!((fault.block, fault.other.as_ref().unwrap().block), (2, 3));
        assert_eq!(lines(&fault).0, line.get());
    }
}

#[test]
fn a_lane_outside_its_mask_is_reported() {
    let line = Line::default();
    for fault in always_faulty(&Launch::new(1, 32), |memory, launch| {
        run_closure(memory, "mask", launch, || {
            if thread::lane() == 4 {
                here!(line, warp::sync(0xf));
            }
        })
    }) {
        let collective = Collective::WarpBarrier { mask: 0xf };
        assert_eq!(
            fault.kind,
            FaultKind::LaneNotInMask {
                collective,
                mask: 0xf
            }
        );
        assert_eq!((fault.thread, lines(&fault).0), (4, line.get()));
    }
}

#[test]
fn a_shuffle_from_a_lane_that_does_not_take_part_is_reported() {
    let line = Line::default();
    for fault in always_faulty(&Launch::new(1, 32), |memory, launch| {
        run_closure(memory, "shuffle", launch, || {
            if thread::lane() < 8 {
                let source = if thread::lane() == 2 { 9 } else { 0 };
                here!(line, warp::shuffle(0xff, thread::lane(), source));
            }
        })
    }) {
        assert_eq!(
            fault.kind,
            FaultKind::UndefinedShuffle {
                source: 9,
                mask: 0xff
            }
        );
        assert_eq!((fault.thread, lines(&fault).0), (2, line.get()));
    }
}

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
        let target = Target::Index {
            space: Space::Shared,
            index: 31,
            count: 1,
            length: 31,
        };
        assert_eq!(fault.kind, FaultKind::OutOfBounds { target });
        assert_eq!((fault.thread, lines(&fault)), (31, (line.get(), None)));
    }
    for fault in always_faulty(&Launch::new(1, 32), |memory, launch| {
        let words = Words::zeroed(memory, 124, "words");
        run_closure(memory, "global_index", launch, || {
            here!(line, words.global().get4(4 * thread::index() as usize));
        })
    }) {
        let target = Target::Index {
            space: Space::Global,
            index: 124,
            count: 4,
            length: 124,
        };
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
        assert!(
            matches!(
                fault.kind,
                FaultKind::OutOfBounds {
                    target: Target::Index { .. }
                }
            ),
            "{fault}"
        );
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
    let accesses: [(i64, Act<'_>); 4] = [
        (64, &|words| here!(line, words.set(16, 1))),
        (64, &|words| {
            here!(line, words.get4(16));
        }),
        (80, &|words| {
            here!(line, words.atomic_load(20, Order::Relaxed, Scope::Device));
        }),
        (3996, &|words| here!(line, words.reduce(AtomicOp::Add, 999, 1))),
    ];
    for (offset, act) in accesses {
        for fault in always_faulty(&Launch::new(1, 1), |memory, launch| overlong(memory, launch, act)) {
            let target = Target::Global {
                label: "scores".into(),
                offset,
                bytes: 64,
            };
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
    let target = Target::Global {
        label: "scores".into(),
        offset: 64,
        bytes: 72,
    };
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
        let target = Target::Global {
            label: "scores".into(),
            offset: 20,
            bytes: 64,
        };
        assert_eq!(fault.kind, FaultKind::Misaligned { target, bytes: 16 });
        assert_eq!(lines(&fault).0, line.get());
    }
    let launch = Launch::new(1, 1).with_shared_bytes(64);
    for fault in always_faulty(&launch, |memory, launch| {
        run_closure(memory, "shared", launch, || {
            here!(line, shared(16).set4(6, [0; 4]))
        })
    }) {
        let target = Target::Shared {
            offset: 24,
            bytes: 64,
        };
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
        let target = Target::Global {
            label: "workspace".into(),
            offset: 12,
            bytes: 64,
        };
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
                let second = turn
                    .global()
                    .atomic(AtomicOp::Add, 0, 1, Order::Relaxed, Scope::Device)
                    == 1;
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
            let target = Target::Shared {
                offset: 20,
                bytes: 64,
            };
            assert_eq!(fault.kind, FaultKind::Uninitialised { target });
            assert_eq!((fault.thread, lines(&fault).0), (0, line.get()));
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
            let target = Target::Global {
                label: "scratch".into(),
                offset: 8,
                bytes: 16,
            };
            assert_eq!(fault.kind, FaultKind::Uninitialised { target });
            assert_eq!(lines(&fault).0, line.get());
        }
    }
}

/// Two threads of a block touch word 3 in one barrier interval; returns the reports.
fn race(first: u32, second: u32, a: impl Fn(Shared<u32>), b: impl Fn(Shared<u32>)) -> Vec<Fault> {
    always_faulty(&Launch::new(2, 128).with_shared_bytes(64), |memory, launch| {
        run_closure(memory, "race", launch, || {
            let words = shared(16);
            let t = thread::index();
            if t < 16 {
                words.set(t, 0);
            }
            block::sync();
            if t == first {
                a(words);
            } else if t == second {
                b(words);
            }
            block::sync();
        })
    })
}

#[test]
fn races_on_shared_memory_are_reported() {
    use Access::{AtomicRead, AtomicUpdate, AtomicWrite, Read, Write};
    type Act<'a> = (Access, &'a dyn Fn(Shared<u32>), &'a Line);
    let line: [Line; 8] = Default::default();
    let [read, read4, write, write4, update, load, store, exchange]: [Act<'_>; 8] = [
        (Read, &|words| _ = here!(line[0], words.get(3)), &line[0]),
        (Read, &|words| _ = here!(line[1], words.get4(0)), &line[1]),
        (Write, &|words| here!(line[2], words.set(3, 1)), &line[2]),
        (Write, &|words| here!(line[3], words.set4(0, [1; 4])), &line[3]),
        (
            AtomicUpdate,
            &|words| here!(line[4], words.reduce(AtomicOp::Add, 3, 1)),
            &line[4],
        ),
        (
            AtomicRead,
            &|words| _ = here!(line[5], words.atomic_load(3, Order::Acquire, Scope::Block)),
            &line[5],
        ),
        (
            AtomicWrite,
            &|words| here!(line[6], words.atomic_store(3, 1, Order::Release, Scope::Block)),
            &line[6],
        ),
        (
            AtomicUpdate,
            &|words| _ = here!(line[7], words.atomic(AtomicOp::Exchange, 3, 1)),
            &line[7],
        ),
    ];
    let pairs = [
        (read, write),
        (read4, write),
        (write4, write),
        (read, write4),
        (update, write),
        (load, write),
        (store, write4),
        (read, store),
        (exchange, read4),
        (read, update),
    ];
    // In one warp and across warps.
    for (first, second) in [(2, 9), (9, 2), (5, 100), (127, 31)] {
        for (one, two) in pairs {
            for fault in race(first, second, one.1, two.1) {
                let FaultKind::SharedRace {
                    offset: 12,
                    this,
                    other,
                } = fault.kind
                else {
                    panic!("{fault}")
                };
                let site = fault.other.as_ref().unwrap();
                let (mine, theirs) = if fault.thread == first {
                    (one, two)
                } else {
                    (two, one)
                };
                assert_eq!(fault.thread + site.thread, first + second, "{fault}");
                assert_eq!((this, other), (mine.0, theirs.0), "{fault}");
                assert_eq!(lines(&fault), (mine.2.get(), Some(theirs.2.get())), "{fault}");
                assert_eq!(fault.block, site.block);
            }
        }
    }
}

#[test]
fn a_shuffle_orders_no_memory() {
    let (a, b) = (Line::default(), Line::default());
    for fault in always_faulty(&Launch::new(1, 32).with_shared_bytes(128), |memory, launch| {
        run_closure(memory, "shuffle_as_barrier", launch, || {
            let (words, lane) = (shared(32), thread::lane());
            here!(a, words.set(lane, lane));
            warp::shuffle(ALL, 0_u32, 0);
            warp::ballot(ALL, true);
            here!(b, words.get(lane ^ 1));
        })
    }) {
        assert!(matches!(fault.kind, FaultKind::SharedRace { .. }), "{fault}");
        both_lines(&fault, &a, &b);
        assert_eq!(fault.thread ^ 1, fault.other.as_ref().unwrap().thread);
    }
}

#[test]
fn a_barrier_of_other_lanes_orders_nothing() {
    for fault in always_faulty(&Launch::new(1, 32).with_shared_bytes(128), |memory, launch| {
        run_closure(memory, "half_a_barrier", launch, || {
            let (words, lane) = (shared(32), thread::lane());
            words.set(lane, lane);
            warp::sync(if lane < 16 { 0xffff } else { 0xffff_0000 });
            words.get(lane ^ 1);
            words.get(if lane == 3 { 20 } else { lane });
        })
    }) {
        assert!(
            matches!(fault.kind, FaultKind::SharedRace { offset: 80, .. }),
            "{fault}"
        );
        let threads = [fault.thread, fault.other.as_ref().unwrap().thread];
        assert!(threads == [3, 20] || threads == [20, 3], "{fault}");
    }
}

#[test]
fn a_word_that_many_read_is_not_overwritten_without_a_barrier() {
    for fault in always_faulty(&Launch::new(1, 256).with_shared_bytes(16), |memory, launch| {
        run_closure(memory, "reused_slot", launch, || {
            let words = shared(4);
            for round in 0..3 {
                if thread::index() == 0 {
                    words.set(0, round);
                }
                block::sync();
                words.get(0);
            }
        })
    }) {
        assert!(
            matches!(fault.kind, FaultKind::SharedRace { offset: 0, .. }),
            "{fault}"
        );
        let threads = [fault.thread, fault.other.as_ref().unwrap().thread];
        assert!(threads.contains(&0), "{fault}");
    }
}

#[test]
fn races_between_blocks_of_a_cluster_are_reported() {
    let (a, b) = (Line::default(), Line::default());
    let launch = Launch::new(2, 32).with_cluster(2).with_shared_bytes(128);
    for fault in always_faulty(&launch, |memory, launch| {
        run_closure(memory, "cluster_race", launch, || {
            let (words, t) = (shared(32), thread::index());
            words.set(t, 0);
            cluster::sync();
            if cluster::rank() == 0 {
                here!(a, words.set(t, 1));
                block::sync();
            } else {
                block::sync();
                here!(b, words.at_rank(0).get(t));
            }
            cluster::sync();
        })
    }) {
        // The two barriers are of different blocks: they order nothing.
        assert!(matches!(fault.kind, FaultKind::SharedRace { .. }), "{fault}");
        assert_ne!(fault.block, fault.other.as_ref().unwrap().block);
        both_lines(&fault, &a, &b);
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
        let FaultKind::RemoteBlockNotRunning { rank } = fault.kind else {
            panic!("{fault}")
        };
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
        assert!(
            matches!(
                fault.kind,
                FaultKind::OutOfBounds {
                    target: Target::Nowhere { .. }
                }
            ),
            "{fault}"
        );
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
        assert!(
            matches!(
                fault.kind,
                FaultKind::ReadOnlyWritten {
                    this: Access::Write,
                    ..
                }
            ),
            "{fault}"
        );
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
        assert!(
            matches!(
                fault.kind,
                FaultKind::ReadOnlyWritten {
                    this: Access::ReadOnly,
                    ..
                }
            ),
            "{fault}"
        );
    }
}

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
        let launch = Launch::new(5, 64)
            .with_resident_blocks(4)
            .with_preemption(Preemption::OneIn(3));
        let launch = if hint { launch } else { launch.with_spin_limit(50) };
        for fault in always_faulty(&launch, |memory, launch| {
            grid_barrier(memory, launch, &line, 5, hint)
        }) {
            assert_eq!(
                fault.kind,
                FaultKind::Deadlock {
                    blocks_not_started: 1
                }
            );
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
        for fault in always_faulty(&launch, |memory, launch| {
            grid_barrier(memory, launch, &line, 4, true)
        }) {
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
    for fault in always_faulty(
        &Launch::new(1, 2).with_shared_bytes(16).with_spin_limit(20),
        |memory, launch| {
            run_closure(memory, "locks", launch, || {
                let (locks, lane) = (shared(2), thread::lane());
                locks.atomic_store(lane, 0, Order::Relaxed, Scope::Block);
                block::sync();
                locks.atomic(AtomicOp::Exchange, lane, 1);
                block::sync();
                while locks.atomic(AtomicOp::Exchange, 1 - lane, 1) == 1 {}
            })
        },
    ) {
        assert_eq!(fault.kind, FaultKind::Livelock);
        assert!(lines(&fault).1.is_some());
    }
}

#[test]
fn blocks_that_spin_at_barriers_are_reported() {
    for fault in always_faulty(
        &Launch::new(2, 64).with_shared_bytes(16).with_spin_limit(5),
        |memory, launch| {
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
        },
    ) {
        assert_eq!(fault.kind, FaultKind::Livelock);
    }
}

#[test]
fn a_panic_of_a_thread_is_reported() {
    for fault in always_faulty(&Launch::new(2, 64), |memory, launch| {
        run_closure(memory, "panics", launch, || {
            block::sync();
            assert!(
                thread::index() != 37 || block::index() != 1,
                "thread 37 does not like it"
            );
        })
    }) {
        assert_eq!(
            fault.kind,
            FaultKind::Panic {
                message: "thread 37 does not like it".into()
            }
        );
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
