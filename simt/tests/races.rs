//! Unordered accesses to shared memory are reported, with both threads and their source lines.

mod common;

use common::{Line, Words, always_faulty, both_lines, here, lines, shared};
use dsa_simt::emu::{Access, Fault, FaultKind, Launch, run_closure};
use dsa_simt::{AtomicOp, Order, Remote, Scope, Shared, block, cluster, copies, thread, warp};

const ALL: u32 = warp::ALL;

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
fn a_copy_races_with_the_accesses_of_other_threads_when_it_begins_and_when_it_is_waited_for() {
    use Access::{Read, Write};
    let (copy, read) = (Line::default(), Line::default());
    for barrier_first in [false, true] {
        let faults = always_faulty(&Launch::new(1, 64).with_shared_bytes(64), |memory, launch| {
            let from = Words::filled(memory, &[7; 16], "from");
            run_closure(memory, "copy", launch, || {
                let words = shared(16);
                if thread::index() < 16 {
                    words.set(thread::index(), 0);
                }
                block::sync();
                if thread::index() == 0 {
                    here!(copy, from.global().copy4(0, words, 0));
                    copies::group();
                }
                if barrier_first {
                    block::sync();
                }
                if thread::index() == 0 {
                    let wait = copies::wait::<0>;
                    if barrier_first {
                        here!(copy, wait());
                    }
                } else if thread::index() == 63 {
                    if barrier_first {
                        here!(read, words.set(3, 1));
                    } else {
                        here!(read, words.get(3));
                    }
                }
            })
        });
        for fault in faults {
            let other = if barrier_first { Write } else { Read };
            let FaultKind::SharedRace { offset: 12, this, other: with } = fault.kind else {
                // The copy was first, and its words are not there yet.
                assert!(matches!(fault.kind, FaultKind::Uninitialised { .. }), "{fault}");
                continue;
            };
            assert!([this, with].contains(&Write) && [this, with].contains(&other), "{fault}");
            both_lines(&fault, &copy, &read);
        }
    }
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
        (AtomicUpdate, &|words| here!(line[4], words.reduce(AtomicOp::Add, 3, 1)), &line[4]),
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
        (AtomicUpdate, &|words| _ = here!(line[7], words.atomic(AtomicOp::Exchange, 3, 1)), &line[7]),
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
                let FaultKind::SharedRace { offset: 12, this, other } = fault.kind else { panic!("{fault}") };
                let site = fault.other.as_ref().unwrap();
                let (mine, theirs) = if fault.thread == first { (one, two) } else { (two, one) };
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
        assert!(matches!(fault.kind, FaultKind::SharedRace { offset: 80, .. }), "{fault}");
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
        assert!(matches!(fault.kind, FaultKind::SharedRace { offset: 0, .. }), "{fault}");
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
fn a_barrier_for_own_memory_does_not_publish_what_is_written_to_others() {
    let line = Line::default();
    let launch = Launch::new(2, 32).with_cluster(2).with_shared_bytes(128);
    let kinds: [fn(Remote<u32>, u32); 2] = [
        |remote, t| remote.set(t, 1),
        |remote, t| {
            remote.atomic(AtomicOp::Add, t, 1);
        },
    ];
    for write in kinds {
        for fault in always_faulty(&launch, |memory, launch| {
            run_closure(memory, "unpublished", launch, || {
                let (words, t, other) = (shared(32), thread::index(), 1 - cluster::rank());
                words.set(t, 0);
                cluster::sync_own();
                write(words.at_rank(other), t);
                here!(line, cluster::sync_own());
            })
        }) {
            assert!(matches!(fault.kind, FaultKind::RemoteWriteNotPublished { .. }), "{fault}");
            assert_eq!(lines(&fault).0, line.get());
        }
    }
}

#[test]
fn what_is_written_between_the_halves_of_a_cluster_barrier_is_not_published_by_it() {
    let (a, b) = (Line::default(), Line::default());
    let launch = Launch::new(2, 32).with_cluster(2).with_shared_bytes(128);
    let kinds: [fn(Shared<u32>, u32); 2] =
        [|words, t| words.set(t, 1), |words, t| words.reduce(AtomicOp::Add, t, 1)];
    for write in kinds {
        for fault in always_faulty(&launch, |memory, launch| {
            run_closure(memory, "late", launch, || {
                let (words, t) = (shared(32), thread::index());
                words.set(t, 0);
                cluster::arrive_own();
                here!(a, write(words, t));
                cluster::wait_own();
                here!(b, words.at_rank(1 - cluster::rank()).get(t));
            })
        }) {
            assert!(matches!(fault.kind, FaultKind::SharedRace { .. }), "{fault}");
            assert_eq!(lines(&fault).0, b.get());
        }
    }
}

#[test]
fn the_halves_of_a_cluster_barrier_belong_together() {
    let launch = Launch::new(2, 32).with_cluster(2).with_shared_bytes(128);
    let kernels: [(fn(), &str); 4] = [
        (cluster::wait_own, "without"),
        (
            || {
                cluster::arrive_own();
                cluster::sync();
            },
            "after",
        ),
        (
            || {
                cluster::arrive_own();
                cluster::arrive_own();
            },
            "twice",
        ),
        (
            || {
                cluster::arrive_own();
                cluster::sync_own();
            },
            "twice",
        ),
    ];
    for (kernel, word) in kernels {
        for fault in always_faulty(&launch, |memory, launch| run_closure(memory, "half", launch, kernel)) {
            assert!(fault.to_string().contains(word), "{fault}");
        }
    }
}

#[test]
fn leaving_a_cluster_orders_nothing() {
    let (a, b) = (Line::default(), Line::default());
    let launch = Launch::new(2, 32).with_cluster(2).with_shared_bytes(128);
    for fault in always_faulty(&launch, |memory, launch| {
        run_closure(memory, "left_race", launch, || {
            let (words, t) = (shared(32), thread::index());
            words.set(t, 0);
            cluster::sync();
            here!(a, words.at_rank(1 - cluster::rank()).set(t, 1));
            cluster::leave();
            cluster::wait_until_left();
            here!(b, words.get(t));
        })
    }) {
        assert!(matches!(fault.kind, FaultKind::SharedRace { .. }), "{fault}");
        both_lines(&fault, &b, &a);
    }
}
