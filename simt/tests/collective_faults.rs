//! Threads that do not meet in their collectives are reported, with both sides and their source lines.

mod common;

use common::{Line, always_faulty, both_lines, here, lines};
use dsa_simt::emu::{Collective, FaultKind, Launch, run_closure};
use dsa_simt::{block, cluster, thread, warp};

const ALL: u32 = warp::ALL;

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
        assert!(text.contains("split_ballot") && text.contains(&format!("seed {}", fault.seed)), "{text}");
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
        let FaultKind::Divergence { this, other } = fault.kind else { panic!("{fault}") };
        let masks = [Collective::ReduceAdd { mask: 0xff }, Collective::ReduceAdd { mask: 0xffff }];
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
        let kind = FaultKind::Divergence { this: Collective::BlockBarrier, other: Collective::BlockBarrier };
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
        assert_eq!(fault.kind, FaultKind::ExitedBeforeBarrier { barrier: Collective::BlockBarrier });
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
        assert!(matches!(fault.kind, FaultKind::ExitedBeforeBarrier { .. }), "{fault}");
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
        assert_eq!(fault.kind, FaultKind::ExitedBeforeBarrier { barrier: Collective::ClusterBarrier });
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
        assert_eq!(fault.kind, FaultKind::LaneNotInMask { collective, mask: 0xf });
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
        assert_eq!(fault.kind, FaultKind::UndefinedShuffle { source: 9, mask: 0xff });
        assert_eq!((fault.thread, lines(&fault).0), (2, line.get()));
    }
}
