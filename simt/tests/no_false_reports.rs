//! Sound kernels run without a report, whatever the seed.

mod common;

use common::{Words, always_clean, global_index, shared};
use dsa_simt::emu::{Launch, Preemption, run_closure};
use dsa_simt::{AtomicOp, Order, Scope, block, cluster, copies, fence, grid, spin_hint, thread, warp};

const ALL: u32 = warp::ALL;

#[test]
fn lanes_exchange_through_shared_memory_with_warp_barriers() {
    always_clean(&Launch::new(2, 112).with_shared_bytes(512), |memory, launch| {
        run_closure(memory, "exchange", launch, || {
            let (words, t) = (shared(128), thread::index());
            words.set(t, t);
            for round in 0..5 {
                warp::sync(ALL);
                let other = words.get(t ^ 1);
                warp::sync(ALL);
                assert_eq!(other, (t ^ 1) + round * 7, "round {round}");
                words.set(t, t + (round + 1) * 7);
            }
        })
    });
}

#[test]
fn parts_of_a_warp_pass_words_along_a_chain() {
    // Lane 0 -> lanes 0..4 -> lanes 3..8: lane 7 learns of lane 0 through lane 3.
    always_clean(&Launch::new(1, 32).with_shared_bytes(128), |memory, launch| {
        run_closure(memory, "chain", launch, || {
            let (words, lane) = (shared(32), thread::lane());
            if lane == 0 {
                words.set(0, 11);
            }
            if lane < 4 {
                warp::sync(0xf);
            }
            if (3..8).contains(&lane) {
                warp::sync(0xf8);
                assert_eq!(words.get(0), 11);
            }
            warp::sync(ALL);
            words.set(lane, lane);
            warp::sync(if lane < 16 { 0xffff } else { 0xffff_0000 });
            assert_eq!(words.get(lane ^ 15), lane ^ 15);
        })
    });
}

#[test]
fn double_buffers_need_one_barrier_per_step() {
    always_clean(&Launch::new(2, 160).with_shared_bytes(2 * 160 * 4), |memory, launch| {
        run_closure(memory, "double_buffer", launch, || {
            let (words, t, n) = (shared(320), thread::index(), block::threads());
            words.set(t, t);
            for step in 0..6 {
                block::sync();
                let (from, to) = (step % 2 * n, (step + 1) % 2 * n);
                words.set(to + t, words.get(from + (t + 1) % n));
            }
            block::sync();
            assert_eq!(words.get(t), (t + 6) % n);
        })
    });
}

#[test]
fn histograms_of_atomics_are_read_after_a_barrier() {
    always_clean(&Launch::new(2, 256).with_shared_bytes(64 * 4), |memory, launch| {
        run_closure(memory, "histogram", launch, || {
            let (bins, t) = (shared(64), thread::index());
            for round in 0..3 {
                if t < 64 {
                    bins.set(t, 0);
                }
                block::sync();
                for i in 0..8 {
                    bins.reduce(AtomicOp::Add, (t * 13 + i * round) % 64, 1);
                }
                let some = bins.atomic_load(t % 64, Order::Relaxed, Scope::Block);
                assert!(some <= 2048);
                block::sync();
                let sum: u32 = (0..64).map(|bin| bins.get(bin)).sum();
                assert_eq!(sum, 2048);
                block::sync();
            }
        })
    });
}

#[test]
fn prefix_sums_over_a_block_are_exact() {
    always_clean(&Launch::new(2, 320).with_shared_bytes(64 * 4), |memory, launch| {
        run_closure(memory, "scan", launch, || {
            let (sums, t) = (shared(64), thread::index());
            let mut inclusive = t * 3 + 1;
            for delta in [1, 2, 4, 8, 16] {
                let below = warp::shuffle_up(ALL, inclusive, delta);
                if thread::lane() >= delta {
                    inclusive += below;
                }
            }
            if thread::lane() == 31 {
                sums.set(thread::warp(), inclusive);
            }
            block::sync();
            let before: u32 = (0..thread::warp()).map(|warp| sums.get(warp)).sum();
            assert_eq!(before + inclusive, (0..=t).map(|i| i * 3 + 1).sum::<u32>());
        })
    });
}

#[test]
fn one_thread_reads_and_writes_its_own_words_as_it_likes() {
    always_clean(&Launch::new(1, 64).with_shared_bytes(64 * 4), |memory, launch| {
        run_closure(memory, "own", launch, || {
            let (words, t) = (shared(64), thread::index());
            words.set(t, 1);
            words.atomic(AtomicOp::Add, t, 1);
            words.set(t, words.get(t) + 1);
            words.atomic_store(t, words.get(t) + 1, Order::Relaxed, Scope::Block);
            assert_eq!(words.get(t), 4);
        })
    });
}

#[test]
fn clusters_exchange_between_cluster_barriers() {
    let launch = Launch::new(8, 64).with_cluster(4).with_shared_bytes(512).with_resident_blocks(8);
    always_clean(&launch, |memory, launch| {
        run_closure(memory, "cluster", launch, || {
            let (words, t, rank) = (shared(128), thread::index(), cluster::rank());
            words.set(t, t);
            cluster::sync();
            for round in 0..4 {
                words.at_rank((rank + 1 + round) % 4).set(64 + t, rank);
                cluster::sync();
                assert_eq!(words.get(64 + t), (rank + 3 - round) % 4);
                words.set(t, round);
                block::sync();
                assert_eq!(words.get(63 - t), round);
                cluster::sync();
            }
        })
    });
}

#[test]
fn blocks_read_what_others_have_written_to_their_own_memory() {
    let launch = Launch::new(8, 64).with_cluster(4).with_shared_bytes(512).with_resident_blocks(8);
    always_clean(&launch, |memory, launch| {
        run_closure(memory, "own", launch, || {
            let (words, t, rank) = (shared(64), thread::index(), cluster::rank());
            for round in 0..4 {
                words.set(t, t + rank + round);
                cluster::sync_own();
                assert_eq!(words.at_rank((rank + 1) % 4).get(63 - t), 63 - t + (rank + 1) % 4 + round);
                cluster::sync_own();
            }
            // A write to another block, published before the next barrier for own memory.
            words.at_rank((rank + 1) % 4).set(t, rank);
            cluster::sync();
            assert_eq!(words.get(t), (rank + 3) % 4);
            cluster::sync_own();
        })
    });
}

#[test]
fn blocks_work_on_their_own_between_the_halves_of_a_cluster_barrier() {
    let launch = Launch::new(8, 64).with_cluster(4).with_shared_bytes(512).with_resident_blocks(8);
    always_clean(&launch, |memory, launch| {
        run_closure(memory, "halves", launch, || {
            let (words, t, rank) = (shared(128), thread::index(), cluster::rank());
            for round in 0..3 {
                words.set(t, t + rank + round);
                cluster::arrive_own();
                words.set(64 + t, t + round);
                block::sync();
                assert_eq!(words.get(127 - t), 63 - t + round);
                cluster::wait_own();
                assert_eq!(words.at_rank((rank + 1) % 4).get(63 - t), 63 - t + (rank + 1) % 4 + round);
                // Publishes what was written late, too.
                cluster::sync_own();
                assert_eq!(words.at_rank((rank + 3) % 4).get(64 + t), t + round);
                cluster::sync_own();
            }
        })
    });
}

#[test]
fn blocks_go_on_by_themselves_when_they_have_left_the_cluster() {
    let launch = Launch::new(8, 64).with_cluster(4).with_shared_bytes(512).with_resident_blocks(8);
    always_clean(&launch, |memory, launch| {
        run_closure(memory, "left", launch, || {
            let (words, t, rank) = (shared(128), thread::index(), cluster::rank());
            words.set(t, t + rank);
            cluster::sync();
            words.set(64 + t, words.at_rank((rank + 1) % 4).get(t));
            block::sync();
            cluster::leave();
            assert_eq!(words.get(127 - t), 63 - t + (rank + 1) % 4);
            block::sync();
            words.set(64 + t, 0);
            cluster::wait_until_left();
            assert_eq!(words.get(64 + t), 0);
        })
    });
}

#[test]
fn the_last_block_to_arrive_sums_what_the_others_stored() {
    let launch = Launch::new(20, 64).with_shared_bytes(16).with_resident_blocks(3);
    for preemption in [Preemption::Never, Preemption::OneIn(2)] {
        always_clean(&launch.clone().with_preemption(preemption), |memory, launch| {
            let parts = Words::undefined(memory, 20 * 64, "parts");
            let state = Words::zeroed(memory, 2, "state");
            let result = run_closure(memory, "last_arriver", launch, || {
                let last = shared(1);
                parts.global().set(global_index(), 1 + block::index());
                fence(Scope::Device);
                block::sync();
                if thread::index() == 0 {
                    let ticket = state.global().atomic(AtomicOp::Add, 0, 1, Order::AcqRel, Scope::Device);
                    last.set(0, u32::from(ticket == block::count() - 1));
                }
                block::sync();
                if last.get(0) == 1 {
                    fence(Scope::Device);
                    for block in 0..block::count() {
                        let part = parts.global().get((block * 64 + thread::index()) as usize);
                        state.global().reduce(AtomicOp::Add, 1, part);
                    }
                    if thread::index() == 0 {
                        state.global().set(0, 0);
                    }
                }
            });
            assert_eq!(state.to_vec(), [0, 64 * 210]);
            result
        });
    }
}

#[test]
fn waiting_is_no_livelock_while_others_work() {
    // One thread works for long between two stores; 63 wait for the second one.
    always_clean(&Launch::new(1, 64).with_spin_limit(3), |memory, launch| {
        let words = Words::zeroed(memory, 2, "words");
        run_closure(memory, "patience", launch, || {
            let words = words.global();
            if thread::index() == 63 {
                for i in 0..2000 {
                    words.atomic(AtomicOp::Add, 0, i % 2, Order::Relaxed, Scope::Device);
                }
                words.atomic_store(1, 1, Order::Release, Scope::Device);
            } else {
                while words.atomic_load(1, Order::Acquire, Scope::Device) == 0 {
                    spin_hint();
                }
            }
        })
    });
}

#[test]
fn threads_may_end_at_different_times_after_the_last_barrier() {
    always_clean(&Launch::new(9, 96).with_shared_bytes(512), |memory, launch| {
        let out = Words::zeroed(memory, 9 * 96, "out");
        run_closure(memory, "staggered", launch, || {
            let (words, t) = (shared(128), thread::index());
            words.set(t, t);
            block::sync();
            if t % 2 == 0 {
                return;
            }
            warp::sync(0xaaaa_aaaa);
            out.global().set(global_index(), words.get(t - 1));
        })
    });
}

#[test]
fn a_launch_that_overlaps_may_use_shared_memory_before_its_wait_and_global_memory_after() {
    let launch = Launch::new(5, 96).with_shared_bytes(384).with_resident_blocks(2).with_overlap(true);
    always_clean(&launch, |memory, launch| {
        let words = Words::zeroed(memory, 5 * 96, "words");
        run_closure(memory, "waits", launch, || {
            let (shared, t) = (shared(96), thread::index());
            shared.set(95 - t, t);
            block::sync();
            grid::wait_for_earlier();
            grid::let_later_start();
            let words = words.global();
            words.set(global_index(), words.get(global_index()) + shared.get(t));
            words.atomic(AtomicOp::Add, 0, 1, Order::Relaxed, Scope::Device);
        })
    });
}

#[test]
fn copies_may_be_replaced_one_after_the_other_by_the_thread_that_read_them() {
    always_clean(&Launch::new(2, 64).with_shared_bytes(2 * 64 * 16), |memory, launch| {
        let from = Words::filled(memory, &std::array::from_fn::<u32, 1024, _>(|i| i as u32), "from");
        run_closure(memory, "ring", launch, || {
            let (from, words, t) = (from.global(), shared(512), thread::index());
            let place = |turn: u32| 4 * (turn % 2 * 64 + t);
            let begin = |turn: u32| {
                if turn < 4 {
                    from.copy4((4 * (turn * 64 + t)) as usize, words, place(turn));
                }
                copies::group();
            };
            begin(0);
            begin(1);
            for turn in 0..4 {
                copies::wait::<1>();
                let first = 4 * (turn * 64 + t);
                assert_eq!(words.get4(place(turn)), [first, first + 1, first + 2, first + 3]);
                begin(turn + 2);
            }
        })
    });
}

#[test]
fn a_prefetch_reads_nothing() {
    always_clean(&Launch::new(2, 64).with_overlap(true), |memory, launch| {
        let words = Words::undefined(memory, 2 * 64, "words");
        run_closure(memory, "prefetches", launch, || {
            let words = words.global();
            words.prefetch(127 - global_index());
            grid::wait_for_earlier();
            words.set(global_index(), 7);
            words.prefetch(127 - global_index());
        })
    });
}

#[test]
fn a_launch_that_does_not_overlap_need_not_wait() {
    always_clean(&Launch::new(3, 32), |memory, launch| {
        let words = Words::zeroed(memory, 3 * 32, "words");
        run_closure(memory, "plain", launch, || {
            let word = words.global().get(global_index());
            words.global().set(global_index(), word + 1);
        })
    });
}
