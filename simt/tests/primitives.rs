//! Every primitive gives the documented values.

mod common;

use common::{Words, global_index, per_thread};
use dsa_simt::emu::{Launch, Memory, Preemption, run_closure};
use dsa_simt::{
    AtomicOp, Carve, Halves, Order, Scope, Shared, bf16_pair_at_least, block, cluster, f32_to_f16, fence,
    half_pair_at_least, spin_hint, thread, warp,
};

const ALL: u32 = warp::ALL;

/// Three warps, the last one of 16 lanes.
fn three_warps() -> Launch {
    Launch::new(2, 80)
}

#[test]
fn threads_know_who_they_are() {
    let launch = Launch::new(3, 70);
    let ids = per_thread(&launch, || {
        assert_eq!(thread::warp(), thread::index() / 32);
        assert_eq!(cluster::rank(), 0);
        block::index() << 20 | thread::index() << 8 | thread::lane()
    });
    for (i, id) in ids.iter().enumerate() {
        let (block, thread) = (i as u32 / 70, i as u32 % 70);
        assert_eq!(*id, block << 20 | thread << 8 | (thread % 32));
    }
    assert!(per_thread(&launch, || block::threads() * 100 + block::count()).iter().all(|&v| v == 7003));
    assert!(per_thread(&launch, cluster::size).iter().all(|&size| size == 1));
}

#[test]
fn block_barriers_count_and_vote() {
    let launch = three_warps();
    let counts = per_thread(&launch, || block::sync_count(thread::index() % 3 == block::index()));
    assert!(counts[..80].iter().all(|&count| count == 27));
    assert!(counts[80..].iter().all(|&count| count == 27));
    let votes = per_thread(&launch, || {
        let one = block::sync_or(thread::index() == 79 && block::index() == 1);
        let none = block::sync_or(false);
        block::sync();
        u32::from(one) * 2 + u32::from(none)
    });
    assert!(votes[..80].iter().all(|&vote| vote == 0));
    assert!(votes[80..].iter().all(|&vote| vote == 2));
}

#[test]
fn shuffles_move_values_between_lanes() {
    let launch = Launch::new(1, 64);
    let lane = |i: usize| i % 32;
    let base = |i: usize| i / 32 * 32;
    let index = per_thread(&launch, || warp::shuffle(ALL, thread::index(), thread::lane() * 5 + 3));
    let up = per_thread(&launch, || warp::shuffle_up(ALL, thread::index(), 3));
    let down = per_thread(&launch, || warp::shuffle_down(ALL, thread::index(), 5));
    let xor = per_thread(&launch, || warp::shuffle_xor(ALL, thread::index(), 21));
    let sum = per_thread(&launch, || warp::add_up(ALL, thread::index(), 3));
    for i in 0..64 {
        assert_eq!(index[i] as usize, base(i) + (lane(i) * 5 + 3) % 32);
        assert_eq!(up[i] as usize, if lane(i) >= 3 { i - 3 } else { i });
        assert_eq!(sum[i] as usize, if lane(i) >= 3 { i + i - 3 } else { i });
        assert_eq!(down[i] as usize, if lane(i) < 27 { i + 5 } else { i });
        assert_eq!(xor[i] as usize, base(i) + (lane(i) ^ 21));
    }
    let floats = per_thread(&launch, || warp::shuffle(ALL, -1.5_f32 * thread::lane() as f32, 2).to_bits());
    assert!(floats.iter().all(|&bits| f32::from_bits(bits) == -3.0));
}

#[test]
fn votes_matches_and_reductions_see_the_lanes_of_the_mask() {
    let launch = three_warps();
    let ballot = per_thread(&launch, || warp::ballot(ALL, thread::index().is_multiple_of(5)));
    let some = per_thread(&launch, || u32::from(warp::any(ALL, thread::index() == 40)));
    let every = per_thread(&launch, || u32::from(warp::all(ALL, thread::index() != 40)));
    let alike = per_thread(&launch, || warp::match_any(ALL, thread::index() / 7));
    let sum = per_thread(&launch, || warp::reduce_add(ALL, thread::index().wrapping_sub(3)));
    let most = per_thread(&launch, || warp::reduce_max(ALL, thread::index() ^ 13));
    for i in 0..160 {
        let t = i % 80;
        let warp = (t / 32 * 32..80.min(t / 32 * 32 + 32)).map(|t| t as u32);
        let bits =
            |f: &dyn Fn(u32) -> bool| warp.clone().filter(|&t| f(t)).fold(0_u32, |b, t| b | 1 << (t % 32));
        assert_eq!(ballot[i], bits(&|t| t.is_multiple_of(5)));
        assert_eq!(some[i], u32::from(t / 32 == 1));
        assert_eq!(every[i], u32::from(t / 32 != 1));
        assert_eq!(alike[i], bits(&|other| other / 7 == t as u32 / 7));
        assert_eq!(sum[i], warp.clone().fold(0, |sum: u32, t| sum.wrapping_add(t.wrapping_sub(3))));
        assert_eq!(most[i], warp.clone().map(|t| t ^ 13).max().unwrap());
    }
}

#[test]
fn parts_of_a_warp_work_apart() {
    let values = per_thread(&Launch::new(1, 32), || {
        let lane = thread::lane();
        if lane < 8 {
            warp::reduce_add(0xff, lane)
        } else if lane.is_multiple_of(2) {
            let mask = 0x5555_5500;
            warp::sync(mask);
            warp::shuffle_xor(mask, lane, 2) * 100 + warp::ballot(mask, lane > 20).count_ones()
        } else {
            warp::reduce_max(0xaaaa_aa00, 7 * lane)
        }
    });
    for (lane, &value) in values.iter().enumerate() {
        let expected = match lane {
            0..8 => 28,
            _ if lane % 2 == 0 => (lane as u32 ^ 2) * 100 + 5,
            _ => 7 * 31,
        };
        assert_eq!(value, expected, "lane {lane}");
    }
}

#[test]
fn shared_memory_holds_words_and_vectors() {
    let launch = Launch::new(2, 64).with_shared_bytes(64 * 4 + 16 + 64 * 16);
    let values = per_thread(&launch, || {
        let mut carve = Carve::dynamic();
        // SAFETY: the emulator checks every access.
        let (words, odd, vectors): (Shared<u32>, Shared<f32>, Shared<i32>) =
            unsafe { (carve.array(64), carve.array(3), carve.array(256)) };
        assert_eq!(carve.words_left(), 0);
        let t = thread::index();
        words.set(t, t * t);
        if t < 3 {
            odd.set(t, t as f32 / 2.0);
        }
        vectors.set4(t * 4, [1, -2, 3, -4].map(|v| v * t as i32));
        block::sync();
        let [a, b, c, d] = vectors.get4((63 - t) * 4);
        assert_eq!((a + b + c + d, b), (-2 * (63 - t as i32), -2 * (63 - t as i32)));
        assert_eq!(vectors.get(4 * t + 3), -4 * t as i32);
        assert_eq!(odd.get(2), 1.0);
        words.get((t + 1) % 64)
    });
    for (i, &value) in values.iter().enumerate() {
        let next = (i as u32 % 64 + 1) % 64;
        assert_eq!(value, next * next);
    }
}

#[test]
fn words_are_written_one_after_the_other() {
    let launch = Launch::new(1, 32).with_shared_bytes(32 * 12);
    let values = per_thread(&launch, || {
        // SAFETY: the emulator checks every access.
        let words: Shared<u32> = unsafe { Carve::dynamic().array(96) };
        let t = thread::index();
        // Two words, or three, which leave no gaps.
        let mut next = words.cursor(2 * t + t / 2);
        for value in 0..2 + t % 2 {
            next.push(100 * t + value);
        }
        block::sync();
        // Each thread looks at what others have written, all of them at all of it.
        for place in [t, 32 + t, 79 - t] {
            let (pair, rest) = (place / 5, place % 5);
            let (writer, value) = if rest < 2 { (2 * pair, rest) } else { (2 * pair + 1, rest - 2) };
            assert_eq!(words.get(place), 100 * writer + value, "word {place}");
        }
        1
    });
    assert_eq!(values, [1; 32]);
}

#[test]
fn shared_memory_is_cut_from_both_ends_and_arrays_have_parts() {
    let launch = Launch::new(1, 32).with_shared_bytes(1024);
    let values = per_thread(&launch, || {
        let mut carve = Carve::dynamic();
        let mut last = carve.cut_end(64);
        assert_eq!((carve.words_left(), last.words_left()), (192, 64));
        // SAFETY: the emulator checks every access.
        let (words, others): (Shared<u32>, Shared<u32>) = unsafe { (carve.array(192), last.array(64)) };
        let (low, high) = (words.part(0, 32), words.part(160, 32));
        let t = thread::index();
        low.set(t, t);
        high.set(t, 100 + t);
        others.set(t, 200 + t);
        block::sync();
        assert_eq!((words.get(31 - t), words.get(191 - t)), (31 - t, 131 - t));
        assert_eq!((low.len(), high.part(16, 16).get(0)), (32, 116));
        // Of what is left, if more is asked for.
        let mut rest = Carve::dynamic();
        assert_eq!((rest.cut_end(1000).words_left(), rest.words_left()), (256, 0));
        others.get(t)
    });
    assert_eq!(values, (200..232).collect::<Vec<_>>());
}

#[test]
fn speculative_loads_may_read_what_was_never_written() {
    let memory = Memory::new();
    let words = Words::undefined(&memory, 4, "scores");
    memory.write(words.address(), &7_u32.to_le_bytes()).unwrap();
    let launch = Launch::new(1, 1);
    run_closure(&memory, "ahead", &launch, || {
        let [first, ..] = words.global().get4_speculative(0);
        assert_eq!(first, 7);
        // SAFETY: the same words.
        let halves = unsafe { Halves::from_raw(words.address() as *const u16, 8) };
        assert_eq!(halves.get8_speculative(0)[0], 7);
    })
    .unwrap();
}

#[test]
fn shared_atomics_update_one_after_the_other() {
    let launch = Launch::new(1, 96).with_shared_bytes(64);
    let values = per_thread(&launch, || {
        // SAFETY: the emulator checks every access.
        let words: Shared<u32> = unsafe { Carve::dynamic().array(5) };
        let t = thread::index();
        if t < 5 {
            words.atomic_store(t, [0, 0, 1000, 0, 7][t as usize], Order::Relaxed, Scope::Block);
        }
        block::sync();
        let ticket = words.atomic(AtomicOp::Add, 0, 2);
        words.reduce(AtomicOp::Max, 1, t);
        words.reduce(AtomicOp::Min, 2, t + 3);
        words.reduce(AtomicOp::Or, 3, 1 << (t % 32));
        words.atomic(AtomicOp::Exchange, 4, 9);
        block::sync();
        let load = |i| words.atomic_load(i, Order::Acquire, Scope::Block);
        assert_eq!([0, 1, 2, 3, 4].map(load), [192, 95, 3, u32::MAX, 9]);
        ticket
    });
    let mut tickets = values;
    tickets.sort_unstable();
    assert_eq!(tickets, (0..96).map(|i| 2 * i).collect::<Vec<_>>());
}

#[test]
fn global_memory_holds_words_and_vectors() {
    let memory = Memory::new();
    let source: Vec<u32> = (0..4096).map(|i: u32| i.wrapping_mul(2_654_435_761)).collect();
    let input = Words::filled(&memory, &source, "input");
    let output = Words::undefined(&memory, 4096, "output");
    let statistics = run_closure(&memory, "copy", &Launch::new(4, 128), || {
        let i = global_index() * 4;
        let values = input.global().get4_readonly(i);
        assert_eq!(values[1], input.global().get(i + 1));
        assert_eq!(values[2], input.global().get_readonly(i + 2));
        output.global().slice(2048, 2048).set4(i, values);
        let upper = input.global().get4(2048 + i);
        for (j, value) in upper.into_iter().enumerate() {
            output.global().set(i + j, value);
        }
    })
    .unwrap();
    assert_eq!(output.to_vec()[..2048], source[2048..]);
    assert_eq!(output.to_vec()[2048..], source[..2048]);
    assert_eq!(statistics.global_read_bytes, 512 * (16 + 4 + 4 + 16));
    assert_eq!(statistics.global_written_bytes, 4096 * 4);
    assert_eq!((statistics.blocks, statistics.threads), (4, 512));
}

#[test]
fn global_atomics_update_one_after_the_other() {
    let memory = Memory::new();
    let words = Words::filled(&memory, &[0, 0, u32::MAX, 0, 5], "words");
    let tickets = Words::zeroed(&memory, 40 * 33, "tickets");
    let launch = Launch::new(40, 33).with_seed(3).with_preemption(Preemption::OneIn(2));
    let statistics = run_closure(&memory, "atomics", &launch, || {
        let (words, i) = (words.global(), global_index() as u32);
        let ticket = words.atomic(AtomicOp::Add, 0, 1, Order::AcqRel, Scope::Device);
        tickets.global().atomic(AtomicOp::Add, ticket as usize, 1, Order::Relaxed, Scope::Device);
        words.reduce(AtomicOp::Max, 1, i);
        words.reduce(AtomicOp::Min, 2, i + 7);
        words.reduce(AtomicOp::Or, 3, 1 << (i % 32));
        words.atomic_store(4, 6, Order::Release, Scope::Device);
        fence(Scope::Device);
        assert_eq!(words.atomic_load(4, Order::Acquire, Scope::Device), 6);
    })
    .unwrap();
    assert_eq!(words.to_vec(), [1320, 1319, 7, u32::MAX, 6]);
    assert!(tickets.to_vec().iter().all(|&count| count == 1));
    assert_eq!((statistics.global_atomics, statistics.fences), (5 * 1320, 1320));
}

#[test]
fn clusters_share_memory() {
    let launch = Launch::new(12, 64).with_cluster(4).with_shared_bytes(256).with_resident_blocks(9);
    for seed in 0..8 {
        let values = per_thread(&launch.clone().with_seed(seed), || {
            // SAFETY: the emulator checks every access.
            let words: Shared<u32> = unsafe { Carve::dynamic().array(64) };
            let (t, rank) = (thread::index(), cluster::rank());
            assert_eq!((cluster::size(), rank), (4, block::index() % 4));
            words.set(t, block::index() * 1000 + t);
            cluster::sync();
            let next = words.at_rank((rank + 1) % 4).get(63 - t);
            cluster::sync();
            if t == 0 {
                words.at_rank(0).set(rank, 0);
            }
            cluster::sync();
            words.at_rank(0).atomic(AtomicOp::Add, 1, t);
            words.at_rank((rank + 2) % 4).atomic(AtomicOp::Max, 60, 1_000_000);
            cluster::sync();
            if rank == 0 {
                assert_eq!(words.get(1), 4 * 2016);
            }
            assert_eq!(words.get(60), 1_000_000);
            next
        });
        for (i, &value) in values.iter().enumerate() {
            let (block, t) = (i as u32 / 64, i as u32 % 64);
            let next = block / 4 * 4 + (block + 1) % 4;
            assert_eq!(value, next * 1000 + 63 - t, "seed {seed}");
        }
    }
}

#[test]
fn blocks_that_are_resident_together_can_wait_for_each_other() {
    for seed in 0..8 {
        let memory = Memory::new();
        let arrived = Words::zeroed(&memory, 1, "arrived");
        let launch = Launch::new(6, 64).with_cooperative(true).with_resident_blocks(6).with_seed(seed);
        let statistics = run_closure(&memory, "grid_barrier", &launch, || {
            if thread::index() == 0 {
                let arrived = arrived.global();
                arrived.atomic(AtomicOp::Add, 0, 1, Order::AcqRel, Scope::Device);
                while arrived.atomic_load(0, Order::Acquire, Scope::Device) < block::count() {
                    spin_hint();
                }
            }
            block::sync();
        })
        .unwrap();
        assert_eq!(statistics.block_barriers, 6);
    }
}

#[test]
fn halves_round_to_nearest_even() {
    let cases = [
        (1.0, 0x3c00),
        (-0.0, 0x8000),
        (65504.0, 0x7bff),
        (65519.9, 0x7bff),
        (65520.0, 0x7c00),
        (f32::NEG_INFINITY, 0xfc00),
        (1.0 + 1.0 / 2048.0, 0x3c00),
        (1.0 + 3.0 / 2048.0, 0x3c02),
        (5.960_464_5e-8, 0x0001),
        (2.980_232_2e-8, 0x0000),
        (f32::NAN, 0x7fff),
        (-f32::NAN, 0x7fff),
    ];
    for (value, bits) in cases {
        assert_eq!(f32_to_f16(value), bits, "{value}");
    }
}

#[test]
fn pairs_of_16_bits_are_compared_as_the_numbers_they_are() {
    // The order of the numbers 0x8000 (-0.0), 0x0000 and 0x0001 is that of both formats.
    let compare: [fn(u32, u32) -> u32; 2] = [half_pair_at_least, bf16_pair_at_least];
    for (compare, infinity) in compare.into_iter().zip([0x7c00, 0x7f80]) {
        let nan = infinity + 1;
        for (number, bound, is_at_least) in [
            (0x0001, 0x0000, true),
            (0x0000, 0x0001, false),
            (0x8000, 0x0000, true),
            (0x0000, 0x8000, true),
            (0x8001, 0x8000, false),
            (infinity, infinity, true),
            (infinity - 1, infinity, false),
            (infinity | 0x8000, infinity | 0x8000, true),
            (infinity | 0x8000, (infinity - 1) | 0x8000, false),
            (nan, infinity | 0x8000, false),
            (infinity, nan, false),
        ] {
            let case = format!("{number:#x} beside {bound:#x}");
            let mask = if is_at_least { 0xffff } else { 0 };
            // Beside NaN, which no number is at least.
            assert_eq!(compare(number | nan << 16, bound | bound << 16), mask, "{case}, low");
            assert_eq!(compare(nan | number << 16, bound | bound << 16), mask << 16, "{case}, high");
        }
    }
}

#[test]
fn a_launch_counts_its_collectives() {
    let memory = Memory::new();
    let launch = Launch::new(3, 64).with_shared_bytes(16);
    let statistics = run_closure(&memory, "counted", &launch, || {
        // SAFETY: the emulator checks every access.
        let words: Shared<u32> = unsafe { Carve::dynamic().array(4) };
        if thread::index() == 0 {
            words.set4(0, [0; 4]);
        }
        block::sync();
        warp::sync(ALL);
        let value = warp::reduce_add(ALL, 1);
        words.reduce(AtomicOp::Add, 1, value);
    })
    .unwrap();
    assert_eq!(statistics.block_barriers, 3);
    assert_eq!((statistics.warp_collectives, statistics.warp_barriers), (12, 6));
    assert_eq!((statistics.shared_accesses, statistics.shared_atomics), (12, 192));
}
