//! Compression of many new tokens: chunks of any length and alignment, and what they leave for the next launch.

use dsa_kernels::compress::NumberType;
use dsa_kernels_gpu::compress::HEAD_DIMS;
use dsa_kernels_gpu::compress::configuration::Mode;
use dsa_kernels_tests::compress::batch::{Scores, Spec, Step};
use dsa_kernels_tests::compress::harness::Launch;
use dsa_kernels_tests::compress::reference::Shape;
use dsa_kernels_tests::random::Random;

use crate::compress_support::{
    LONG, SHORT, check, configurations, harness, random_step, run, shape_of, with_types,
};
use crate::support::{device, scaled, seed};

#[test]
fn every_configuration_is_right() {
    let seed = seed(121);
    let device = device(seed);
    for ratio in [128, 4] {
        for (number, configuration) in configurations(Mode::Prefill, ratio).into_iter().enumerate() {
            for head_dim in HEAD_DIMS {
                let output = [NumberType::F32, NumberType::Bf16][number % 2];
                let shape = shape_of(configuration, head_dim as usize, output);
                let spec = Spec { page: 32, max_new: 150, ..Spec::new(seed + number as u64, shape) };
                let mut harness = harness(&device, spec, |builder| builder);
                assert_eq!(harness.compressor.plan().prefill_entry(), configuration.entry);
                check(&mut harness, Launch::Prefill, &[130, 3 * ratio - 1, 1], &[130, 6, 1]);
                check(&mut harness, Launch::Prefill, &[280, 3 * ratio, 9], &[150, 1, 8]);
            }
        }
    }
}

#[test]
fn chunks_of_any_length_begin_and_end_anywhere_in_a_window() {
    let seed = seed(122);
    let device = device(seed);
    let mut random = Random::new(seed);
    for (number, shape) in [LONG, SHORT, LONG, SHORT].into_iter().enumerate() {
        let max_new = scaled(300, 3_000);
        let spec = Spec {
            requests: 4,
            page: [128, 3, 40, 256][number],
            max_len: 2 * max_new,
            max_new,
            ..Spec::new(seed, with_types(shape, number + 2))
        };
        let mut harness = harness(&device, spec, |builder| builder);
        let mut lens = vec![0; 4];
        for step in 0..scaled(3, 30) {
            let (next, counts) =
                random_step(&mut random, &spec, &lens, if step % 2 == 0 { max_new } else { 9 });
            check(&mut harness, Launch::Prefill, &next, &counts);
            lens = next;
        }
    }
}

#[test]
fn chunks_that_end_just_before_at_and_behind_a_window_are_right() {
    let seed = seed(123);
    let device = device(seed);
    for (number, shape) in [LONG, SHORT].into_iter().enumerate() {
        for (round, page) in [shape.ratio, 2 * shape.ratio, 7].into_iter().enumerate() {
            let shape = with_types(shape, number + round);
            let spec = Spec { page, max_new: 260, ..Spec::new(seed + page as u64, shape) };
            let mut harness = harness(&device, spec, |builder| builder);
            let ratio = shape.ratio;
            // Whole windows, one token less, one more; then the rest of the second's window and a token of the next.
            check(
                &mut harness,
                Launch::Prefill,
                &[2 * ratio, 2 * ratio - 1, ratio + 1],
                &[2 * ratio, 2 * ratio - 1, 1],
            );
            check(
                &mut harness,
                Launch::Prefill,
                &[3 * ratio, 2 * ratio + 1, 2 * ratio],
                &[ratio, 2, ratio - 1],
            );
        }
    }
}

#[test]
fn many_chunks_leave_what_one_chunk_leaves() {
    let seed = seed(124);
    let device = device(seed);
    for (number, shape) in [LONG, SHORT].into_iter().enumerate() {
        let shape = Shape { output: NumberType::F32, ..with_types(shape, number + 1) };
        let total = 3 * 128 + 50;
        let spec = Spec { requests: 1, page: 48, max_new: total, ..Spec::new(seed, shape) };
        let mut whole = harness(&device, spec, |builder| builder);
        let step = whole.requests.step(&[total], &[total]);
        run(&mut whole, Launch::Prefill, &step);

        let mut parts = harness(&device, spec, |builder| builder);
        parts.requests = whole.requests.clone();
        parts.requests.forget();
        let mut start = 0;
        let row = 2 * shape.width();
        for chunk in [1, 127, 3, 130, 0, 70, 8, 95] {
            let len = start + chunk;
            let windows = shape.closing(start, len).len();
            let part = Step {
                kv_lens: vec![len as i32],
                cu_new: vec![0, chunk as i32],
                cu_out: vec![0, windows as i32],
                kv_score: step.kv_score[start * row..len * row].to_vec(),
                rows: windows,
                tables: step.tables.clone(),
            };
            // Small chunks are decoded: what they leave is the same again.
            let launch = if chunk <= 8 { Launch::Decode(8) } else { Launch::Prefill };
            run(&mut parts, launch, &part);
            start = len;
        }
        assert_eq!(start, total);
        // The pools of both were found to be as on the host.
        assert!(parts.requests.pools == whole.requests.pools, "the pools differ after the same tokens");
    }
}

#[test]
fn decode_goes_on_where_prefill_ends_and_the_other_way_round() {
    let seed = seed(125);
    let device = device(seed);
    let mut random = Random::new(seed);
    for (number, shape) in [LONG, SHORT].into_iter().enumerate() {
        let spec = Spec { page: 20, max_new: 140, ..Spec::new(seed, with_types(shape, 3 * number + 1)) };
        let mut harness = harness(&device, spec, |builder| builder);
        let mut lens = vec![0; 3];
        for step in 0..scaled(6, 40) {
            let (launch, max_new) =
                if step % 2 == 0 { (Launch::Prefill, 140) } else { (Launch::Decode(8), 8) };
            let (next, counts) = random_step(&mut random, &spec, &lens, max_new);
            check(&mut harness, launch, &next, &counts);
            lens = next;
        }
    }
}

#[test]
fn scores_of_any_magnitude_ties_and_minus_infinity_are_right() {
    let seed = seed(126);
    let device = device(seed);
    for (number, scores) in Scores::ALL.into_iter().enumerate() {
        for shape in [LONG, SHORT] {
            let shape = Shape { output: NumberType::F32, ..with_types(shape, number) };
            let spec = Spec { scores, requests: 2, page: 64, max_new: 140, ..Spec::new(seed, shape) };
            let mut harness = harness(&device, spec, |builder| builder);
            check(&mut harness, Launch::Prefill, &[131, 256], &[131, 9]);
        }
    }
}

#[test]
fn long_prompts_are_right() {
    let seed = seed(127);
    let device = device(seed);
    for (number, shape) in [LONG, SHORT].into_iter().enumerate() {
        let len = scaled(1_000, 20_000);
        let shape = Shape { head_dim: scaled(128, 512), ..with_types(shape, number) };
        let spec = Spec { requests: 3, page: 64, max_len: len, max_new: len, ..Spec::new(seed, shape) };
        let mut harness = harness(&device, spec, |builder| builder);
        check(&mut harness, Launch::Prefill, &[len, len - 77, 30], &[len, 200, 0]);
    }
}

#[test]
fn many_requests_find_their_chunks() {
    let seed = seed(128);
    let device = device(seed);
    let mut random = Random::new(seed);
    for (number, shape) in [LONG, SHORT].into_iter().enumerate() {
        // More than a warp has lanes: chunks are found in several rounds.
        let requests = scaled(70, 500);
        let spec =
            Spec { requests, max_len: 300, max_new: 150, ..Spec::new(seed, with_types(shape, number + 2)) };
        let mut harness = harness(&device, spec, |builder| builder);
        let counts: Vec<_> = (0..requests)
            .map(|_| if random.chance(scaled(0.1, 0.5)) { random.below(151) } else { random.below(4) })
            .collect();
        let lens: Vec<_> = counts.iter().map(|count| count + random.below(301 - count)).collect();
        check(&mut harness, Launch::Prefill, &lens, &counts);
    }
}
