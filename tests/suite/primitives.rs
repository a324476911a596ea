//! The primitives of the SIMT machine do what their documentation says, on every backend.

use std::collections::HashMap;

use dsa_kernels::{Buffer, Device, LaunchConfig, Module, Stream};
use dsa_kernels_probe::{BLOCK_THREADS, FLOOR_THREADS, WARP_THREADS};
use dsa_kernels_tests::backend;
use dsa_kernels_tests::random::Random;

use crate::support::{device, scaled};

const WARP: usize = WARP_THREADS as usize;
const BLOCK: usize = BLOCK_THREADS as usize;

/// A device with the probe kernels.
struct Probe {
    device: Device,
    stream: Stream,
    module: Module,
}

impl Probe {
    fn new(seed: u64) -> Self {
        let device = device(seed);
        let stream = device.stream().unwrap();
        Self { device, stream, module: backend::probe() }
    }

    /// A probe if the device has clusters.
    fn with_clusters(seed: u64) -> Option<Self> {
        let probe = Self::new(seed);
        let has = probe.device.properties().compute_capability >= (9, 0);
        if !has {
            eprintln!("skipped: {} has no clusters", probe.device.properties().name);
        }
        has.then_some(probe)
    }

    fn upload(&self, words: &[u32]) -> Buffer<u32> {
        self.device.upload(words).unwrap()
    }

    fn poisoned(&self, words: usize) -> Buffer<u32> {
        self.upload(&vec![0xdead_beef; words])
    }

    fn launch(&self, name: &str, config: LaunchConfig, slots: &[u64]) {
        let kernel = self.device.load_kernel(&self.module, name).unwrap();
        // SAFETY: each test passes what the documentation of the probe kernel asks for, and keeps its
        // buffers until it has read the result, which waits for the launch.
        unsafe { kernel.launch(&self.stream, &config, slots) }.unwrap_or_else(|e| panic!("{name}: {e}"));
        self.stream.synchronize().unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

fn random_words(seed: u64, len: usize) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..len).map(|_| random.bits() as u32).collect()
}

/// The lanes of a warp whose values are in `values`, the mask of a lane's group, for the whole and half warp.
fn groups(values: &[u32], thread: usize) -> [(u32, Vec<(usize, u32)>); 2] {
    let lane = thread % 32;
    let warp = &values[thread - lane..thread - lane + 32];
    let all: Vec<(usize, u32)> = warp.iter().copied().enumerate().collect();
    let half = if lane < 16 { all[..16].to_vec() } else { all[16..].to_vec() };
    [(u32::MAX, all), (if lane < 16 { 0xffff } else { 0xffff_0000 }, half)]
}

fn bits_where(lanes: &[(usize, u32)], predicate: impl Fn(u32) -> bool) -> u32 {
    lanes.iter().filter(|(_, value)| predicate(*value)).fold(0, |bits, (lane, _)| bits | 1 << lane)
}

#[test]
fn a_thread_knows_its_place() {
    let probe = Probe::new(1);
    let (grid, threads) = (3, 70);
    let out = probe.poisoned(6 * grid * threads);
    probe.launch("probe_identity", LaunchConfig::new(grid as u32, threads as u32), &[out.address()]);
    for (i, words) in out.download().unwrap().chunks_exact(6).enumerate() {
        let (block, t) = (i / threads, i % threads);
        assert_eq!(words.to_vec(), [t, t % 32, t / 32, block, grid, threads].map(|w| w as u32), "thread {i}");
    }
}

#[test]
fn shuffles_take_the_value_of_the_named_lane() {
    let probe = Probe::new(2);
    let values = random_words(3, WARP);
    let input = probe.upload(&values);
    for operand in [0u32, 1, 2, 5, 15, 16, 17, 31, 37] {
        let out = probe.poisoned(8 * WARP);
        let slots = [input.address(), out.address(), u64::from(operand)];
        probe.launch("probe_shuffle", LaunchConfig::new(1, WARP_THREADS), &slots);
        let out = out.download().unwrap();
        for t in 0..WARP {
            let lane = t % 32;
            let of = |other: usize| values[t - lane + other];
            let delta = (operand % 32) as usize;
            let half_lane = (operand as usize & 15) | (lane & 16);
            let half_xor = lane ^ (operand as usize & 15);
            let expected = [
                of(delta),
                of(lane.checked_sub(delta).unwrap_or(lane)),
                of(if lane + delta < 32 { lane + delta } else { lane }),
                of(lane ^ delta),
                of(half_lane),
                of(half_lane),
                of(half_xor),
                of(half_xor),
            ];
            assert_eq!(out[8 * t..][..8], expected, "thread {t}, operand {operand}");
        }
    }
}

#[test]
fn votes_see_exactly_the_lanes_of_their_mask() {
    let probe = Probe::new(4);
    let mut cases = vec![vec![0; WARP], vec![1; WARP]];
    let one = |set: usize| (0..WARP).map(|t| u32::from(t == set)).collect::<Vec<_>>();
    cases.extend([one(0), one(20), one(63)]);
    cases.extend((0..8).map(|seed| random_words(seed, WARP).iter().map(|w| w & 1).collect()));
    for values in cases {
        let (input, out) = (probe.upload(&values), probe.poisoned(6 * WARP));
        probe.launch("probe_vote", LaunchConfig::new(1, WARP_THREADS), &[input.address(), out.address()]);
        let out = out.download().unwrap();
        for t in 0..WARP {
            for (i, (mask, lanes)) in groups(&values, t).iter().enumerate() {
                let ballot = bits_where(lanes, |v| v != 0);
                let expected = [ballot, u32::from(ballot != 0), u32::from(ballot == *mask)];
                assert_eq!(out[6 * t + 3 * i..][..3], expected, "thread {t}, mask {mask:#x}, {values:?}");
            }
        }
    }
}

#[test]
fn match_and_reductions_see_exactly_the_lanes_of_their_mask() {
    let probe = Probe::new(5);
    let mut cases = vec![vec![7; WARP], random_words(6, WARP)];
    cases
        .extend((0..6).map(|seed| {
            random_words(seed, WARP).iter().map(|w| (w % 5).wrapping_mul(0x4000_0001)).collect()
        }));
    for values in cases {
        let (input, out) = (probe.upload(&values), probe.poisoned(6 * WARP));
        probe.launch("probe_reduce", LaunchConfig::new(1, WARP_THREADS), &[input.address(), out.address()]);
        let out = out.download().unwrap();
        for t in 0..WARP {
            for (i, (mask, lanes)) in groups(&values, t).iter().enumerate() {
                let expected = [
                    bits_where(lanes, |v| v == values[t]),
                    lanes.iter().fold(0u32, |sum, (_, v)| sum.wrapping_add(*v)),
                    lanes.iter().map(|(_, v)| *v).max().unwrap(),
                ];
                assert_eq!(out[6 * t + 3 * i..][..3], expected, "thread {t}, mask {mask:#x}, {values:?}");
            }
        }
    }
}

#[test]
fn block_barriers_publish_shared_memory_and_count_all_threads() {
    let probe = Probe::new(7);
    let sparse = |set: usize| (0..BLOCK).map(|t| if t == set { 9 } else { 0 }).collect::<Vec<u32>>();
    for values in [vec![0; BLOCK], vec![3; BLOCK], sparse(0), sparse(95), random_words(8, BLOCK)] {
        let (input, out) = (probe.upload(&values), probe.poisoned(3 * BLOCK));
        let config = LaunchConfig::new(1, BLOCK_THREADS).with_shared_bytes(4 * BLOCK_THREADS);
        probe.launch("probe_barrier", config, &[input.address(), out.address()]);
        let set = values.iter().filter(|&&v| v != 0).count() as u32;
        for (t, words) in out.download().unwrap().chunks_exact(3).enumerate() {
            assert_eq!(words, [values[BLOCK - 1 - t], set, u32::from(set > 0)], "thread {t}");
        }
    }
}

#[test]
fn a_warp_barrier_publishes_memory_to_the_warp() {
    let probe = Probe::new(9);
    let values = random_words(10, WARP);
    let (input, scratch, out) = (probe.upload(&values), probe.poisoned(WARP), probe.poisoned(2 * WARP));
    let config = LaunchConfig::new(1, WARP_THREADS).with_shared_bytes(4 * WARP_THREADS);
    probe.launch("probe_warp_barrier", config, &[input.address(), scratch.address(), out.address()]);
    for (t, words) in out.download().unwrap().chunks_exact(2).enumerate() {
        assert_eq!(words, [values[t ^ 1]; 2], "thread {t}");
    }
}

#[test]
fn shared_memory_is_carved_in_steps_of_16_bytes_and_read_four_words_at_a_time() {
    let probe = Probe::new(11);
    let values = random_words(12, 4 * WARP);
    let (input, out) = (probe.upload(&values), probe.poisoned(4 * WARP + 1));
    let config = LaunchConfig::new(1, WARP_THREADS).with_shared_bytes(2048);
    probe.launch("probe_shared_vector", config, &[input.address(), out.address()]);
    let out = out.download().unwrap();
    for t in 0..WARP {
        assert_eq!(out[4 * t..][..4], values[4 * (WARP - 1 - t)..][..4], "thread {t}");
    }
    let left = (2048 - 16 - 16 * WARP_THREADS) / 4;
    assert_eq!(out[4 * WARP], left);
}

#[test]
fn loads_and_stores_of_every_width_agree() {
    let probe = Probe::new(13);
    let values = random_words(14, 4 * WARP);
    let (input, out) = (probe.upload(&values), probe.poisoned(11 * WARP));
    probe.launch("probe_load", LaunchConfig::new(1, WARP_THREADS), &[input.address(), out.address()]);
    for (t, words) in out.download().unwrap().chunks_exact(11).enumerate() {
        let four = &values[4 * t..][..4];
        let expected = [&[four[1], four[2], four[3]], four, four].concat();
        assert_eq!(words, expected, "thread {t}");
    }
    let out = probe.poisoned(4 * WARP);
    probe.launch("probe_store", LaunchConfig::new(1, WARP_THREADS), &[input.address(), out.address()]);
    assert_eq!(out.download().unwrap(), values);
}

#[test]
fn copies_arrive_in_the_order_of_their_groups() {
    let probe = Probe::new(29);
    let values = random_words(30, 8 * WARP);
    let (early, late) = values.split_at(4 * WARP);
    let (input, halves, out) = (probe.upload(early), probe.upload(late), probe.poisoned(8 * WARP));
    let config = LaunchConfig::new(1, WARP_THREADS).with_shared_bytes(2048);
    probe.launch("probe_copies", config, &[input.address(), halves.address(), out.address()]);
    for (t, words) in out.download().unwrap().chunks_exact(8).enumerate() {
        let expected = [&early[4 * t..][..4], &late[4 * (WARP - 1 - t)..][..4]].concat();
        assert_eq!(words, expected, "thread {t}");
    }
}

#[test]
fn rounding_to_half_precision_is_to_nearest_even_for_every_half_and_its_neighbours() {
    let probe = Probe::new(15);
    let mut values = Vec::new();
    for bits in (0..=u16::MAX).step_by(scaled(3, 1)) {
        let value = half::f16::from_bits(bits).to_f32();
        let next = half::f16::from_bits(bits.wrapping_add(1)).to_f32();
        let middle = value + (next - value) / 2.0;
        values.push(value);
        values.extend([-1i32, 0, 1].map(|d| f32::from_bits(middle.to_bits().wrapping_add_signed(d))));
    }
    values.extend([65_519.996, 65_520.0, f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1), -0.0]);
    values.extend(random_words(16, 10_000).into_iter().map(f32::from_bits));
    let input = probe.device.upload(&values).unwrap();
    let out = probe.poisoned(values.len());
    let slots = [input.address(), out.address(), values.len() as u64];
    probe.launch("probe_half", LaunchConfig::new(2, 256), &slots);
    for (value, got) in values.iter().zip(out.download().unwrap()) {
        let expected = if value.is_nan() { 0x7fff } else { u32::from(half::f16::from_f32(*value).to_bits()) };
        assert_eq!(got, expected, "{value:e} ({:#010x})", value.to_bits());
    }
}

#[test]
fn every_half_word_is_read_written_and_widened() {
    let probe = Probe::new(17);
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    let input = probe.device.upload(&halves).unwrap();
    let copy = probe.device.upload(&vec![0x5a5a_u16; halves.len()]).unwrap();
    let (wide, words) = (probe.poisoned(halves.len()), probe.poisoned(halves.len() / 2));
    let slots = [input.address(), copy.address(), wide.address(), words.address(), halves.len() as u64];
    probe.launch("probe_halves", LaunchConfig::new(3, 256), &slots);
    assert_eq!(copy.download().unwrap(), halves);
    let pairs: Vec<u32> =
        halves.chunks_exact(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16).collect();
    assert_eq!(words.download().unwrap(), pairs);
    for (&half, got) in halves.iter().zip(wide.download().unwrap().into_iter().map(f32::from_bits)) {
        let expected = half::f16::from_bits(half).to_f32();
        let same = if expected.is_nan() { got.is_nan() } else { got.to_bits() == expected.to_bits() };
        assert!(same, "{half:#06x}: {got:e} instead of {expected:e}");
    }
}

/// Applies operation number `op` to `old`.
fn applied(op: u32, old: u32, value: u32) -> u32 {
    match op {
        0 => old.wrapping_add(value),
        1 => old.max(value),
        2 => old.min(value),
        3 => old | value,
        _ => value,
    }
}

/// Read-modify-writes on one word happened one after the other: what each found is what another left (or
/// the start), and what the last one left is the final word.
fn assert_one_after_the_other(op: u32, start: u32, values: &[u32], olds: &[u32], last: u32, what: &str) {
    let mut balance = HashMap::<u32, i64>::new();
    for (&old, &value) in olds.iter().zip(values) {
        *balance.entry(applied(op, old, value)).or_default() += 1;
        *balance.entry(old).or_default() -= 1;
    }
    *balance.entry(start).or_default() += 1;
    *balance.entry(last).or_default() -= 1;
    assert!(
        balance.values().all(|&count| count == 0),
        "{what}, op {op}: {olds:x?} from {start:#x} to {last:#x}"
    );
    assert_final(op, start, values, last, what);
}

fn assert_final(op: u32, start: u32, values: &[u32], last: u32, what: &str) {
    if op < 4 {
        let expected = values.iter().fold(start, |word, &value| applied(op, word, value));
        assert_eq!(last, expected, "{what}, op {op}");
    } else {
        assert!(values.contains(&last), "{what}, exchange: {last:#x} was never written");
    }
}

#[test]
fn shared_atomics_lose_nothing() {
    let probe = Probe::new(17);
    let start = 0x1234;
    for op in 0..dsa_kernels_probe::OPS {
        let values: Vec<u32> = random_words(u64::from(op), BLOCK).iter().map(|w| w >> (w & 15)).collect();
        let (input, out) = (probe.upload(&values), probe.poisoned(BLOCK + 2));
        let config = LaunchConfig::new(1, BLOCK_THREADS).with_shared_bytes(16);
        let slots = [input.address(), out.address(), u64::from(op), start];
        probe.launch("probe_shared_atomic", config, &slots);
        let out = out.download().unwrap();
        assert_one_after_the_other(op, start as u32, &values, &out[..BLOCK], out[BLOCK], "shared");
        assert_final(op, start as u32, &values, out[BLOCK + 1], "shared, without old value");
    }
}

#[test]
fn global_atomics_of_every_order_and_scope_lose_nothing() {
    let probe = Probe::new(18);
    let (grid, block) = (3, 96);
    let threads = grid * block;
    for op in 0..dsa_kernels_probe::OPS {
        let values: Vec<u32> = random_words(u64::from(op), threads).iter().map(|w| w >> (w & 15)).collect();
        let start = 77;
        let state = probe.upload(&vec![start; 5 + 4 * grid]);
        let (input, out) = (probe.upload(&values), probe.poisoned(8 * threads));
        let slots = [input.address(), state.address(), out.address(), u64::from(op)];
        probe.launch("probe_global_atomic", LaunchConfig::new(grid as u32, block as u32), &slots);
        let (state, out) = (state.download().unwrap(), out.download().unwrap());
        for order in 0..4 {
            let olds = &out[order * threads..][..threads];
            assert_one_after_the_other(
                op,
                start,
                &values,
                olds,
                state[order],
                &format!("device, order {order}"),
            );
            for b in 0..grid {
                let olds = &out[(4 + order) * threads + b * block..][..block];
                let last = state[5 + 4 * b + order];
                let own = &values[b * block..][..block];
                assert_one_after_the_other(op, start, own, olds, last, &format!("block {b}, order {order}"));
            }
        }
        assert_final(op, start, &values, state[4], "device, without old value");
    }
}

/// The words that `probe_last_arriver` and `probe_ping_pong` send.
fn message(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b9) ^ 0x5555_aaaa
}

#[test]
fn the_last_block_to_arrive_sees_what_all_blocks_wrote() {
    let (grid, words) = (scaled(5, 200), 100);
    for seed in 0..scaled(6, 1) {
        let probe = Probe::new(seed);
        let (data, arrivals) = (probe.poisoned(grid * words), probe.upload(&[0]));
        let expected: Vec<u32> = (0..(grid * words) as u32).map(message).collect();
        for mode in [0, 1] {
            for launch in 0..scaled(2, 100) {
                let out = probe.poisoned(grid * words);
                data.fill_bytes(0xee).unwrap();
                let config = LaunchConfig::new(grid as u32, 64).with_shared_bytes(16);
                let slots = [data.address(), arrivals.address(), out.address(), words as u64, mode];
                probe.launch("probe_last_arriver", config, &slots);
                assert!(out.download().unwrap() == expected, "seed {seed}, mode {mode}, launch {launch}");
            }
        }
    }
}

#[test]
fn blocks_of_a_cooperative_launch_may_wait_for_each_other() {
    let rounds = scaled(40, 2000);
    for seed in 0..scaled(4, 1) {
        let probe = Probe::new(seed);
        let (mail, flags, out) = (probe.poisoned(2), probe.upload(&[0, 0]), probe.poisoned(2));
        let config = LaunchConfig::new(2, 32).with_cooperative(true);
        let slots = [mail.address(), flags.address(), out.address(), rounds];
        probe.launch("probe_ping_pong", config, &slots);
        assert_eq!(out.download().unwrap(), [rounds as u32; 2], "seed {seed}");
    }
}

#[test]
fn the_blocks_of_a_cluster_reach_each_others_shared_memory() {
    let Some(probe) = Probe::with_clusters(19) else {
        return;
    };
    for (kernel, size, grid) in [("probe_cluster2", 2, 6), ("probe_cluster4", 4, 8)] {
        let values: Vec<u32> = random_words(20, grid * WARP);
        let (input, out) = (probe.upload(&values), probe.poisoned(6 * grid * WARP));
        let config =
            LaunchConfig::new(grid as u32, WARP_THREADS).with_cluster(size as u32).with_shared_bytes(1040);
        probe.launch(kernel, config, &[input.address(), out.address()]);
        for (i, words) in out.download().unwrap().chunks_exact(6).enumerate() {
            let (block, t) = (i / WARP, i % WARP);
            let (first, rank) = (block / size * size, block % size);
            let cluster = &values[first * WARP..][..size * WARP];
            let of = |rank: usize| cluster[rank * WARP + t];
            let expected = [
                rank as u32,
                size as u32,
                of((rank + 1) % size),
                of((rank + size - 1) % size) ^ 1,
                cluster.iter().fold(0u32, |sum, v| sum.wrapping_add(*v)),
                *cluster.iter().max().unwrap(),
            ];
            assert_eq!(words, expected, "{kernel}, block {block}, thread {t}");
        }
    }
}

#[test]
fn atomics_at_cluster_scope_reach_the_whole_cluster() {
    let Some(probe) = Probe::with_clusters(21) else {
        return;
    };
    let grid = 4;
    let values: Vec<u32> = random_words(22, grid * WARP);
    let (input, state) = (probe.upload(&values), probe.upload(&vec![0; 2 * grid]));
    let out = probe.poisoned(4 * grid * WARP);
    let config = LaunchConfig::new(grid as u32, WARP_THREADS).with_cluster(2);
    probe.launch("probe_cluster_atomic", config, &[input.address(), state.address(), out.address()]);
    for (i, words) in out.download().unwrap().chunks_exact(4).enumerate() {
        let cluster = &values[i / (2 * WARP) * 2 * WARP..][..2 * WARP];
        let sum = cluster.iter().fold(0u32, |sum, v| sum.wrapping_add(*v));
        assert_eq!(words, [sum; 4], "thread {i}");
    }
}

#[test]
fn the_floor_kernels_read_every_element_and_nothing_at_all() {
    let probe = Probe::new(23);
    probe.launch("null", LaunchConfig::new(3, 32), &[]);
    for (len, grid) in
        [(0, 1), (1, 1), (3, 2), (4, 1), (4099, 1), (20_001, 2), (scaled(70_000, 10_000_001), 3)]
    {
        let values = random_words(len as u64, len);
        let (input, sums) = (probe.upload(&values), probe.poisoned(32 * grid));
        let slots = [input.address(), len as u64, sums.address()];
        probe.launch("read_all", LaunchConfig::new(grid as u32, FLOOR_THREADS), &slots);
        let sum = |words: &[u32]| words.iter().fold(0u32, |sum, w| sum.wrapping_add(*w));
        assert_eq!(sum(&sums.download().unwrap()), sum(&values), "{len} words, {grid} blocks");
    }
}

#[test]
fn the_copy_of_the_benchmark_copies_every_vector_and_nothing_else() {
    let probe = Probe::new(24);
    for (len, grid) in [(0, 1), (4, 1), (4096, 1), (20_004, 2), (scaled(70_000, 10_000_000), 3)] {
        let values = random_words(len as u64, len);
        let (from, to) = (probe.upload(&values), probe.poisoned(len + 4));
        let before = to.download().unwrap();
        let slots = [from.address(), len as u64, to.address()];
        probe.launch("copy_all", LaunchConfig::new(grid, FLOOR_THREADS), &slots);
        let after = to.download().unwrap();
        assert!(after[..len] == values && after[len..] == before[len..], "{len} words, {grid} blocks");
    }
}
