//! Compression of a few new tokens: outputs, and every byte of the state.

use dsa_kernels::compress::NumberType;
use dsa_kernels_gpu::compress::HEAD_DIMS;
use dsa_kernels_gpu::compress::configuration::Mode;
use dsa_kernels_tests::compress::batch::{Scores, Spec};
use dsa_kernels_tests::compress::harness::Launch;
use dsa_kernels_tests::compress::reference::Shape;
use dsa_kernels_tests::random::Random;

use crate::compress_support::{
    LONG, SHORT, check, configurations, harness, random_step, run, shape_of, warps, with_types,
};
use crate::support::{device, on_gpu, scaled, seed};

/// The configurations of one ratio and head dimension.
fn every_configuration(default_seed: u64, ratio: usize, head_dim: usize) {
    let seed = seed(default_seed);
    let device = device(seed);
    assert!(HEAD_DIMS.contains(&(head_dim as u32)));
    for (number, configuration) in configurations(Mode::Decode, ratio).into_iter().enumerate() {
        let outputs = [NumberType::F32, NumberType::Bf16];
        for output in scaled(&outputs[number % 2..][..1], &outputs[..]) {
            let shape = shape_of(configuration, head_dim, *output);
            let spec = Spec { page: 16, ..Spec::new(seed + number as u64, shape) };
            let mut harness = harness(&device, spec, |builder| builder.warps(configuration.warps));
            assert_eq!(harness.compressor.plan().decode_entry(3), configuration.entry);
            // One that closes a window, one that does not, one that begins.
            let lens = [2 * ratio + 1, 3 * ratio - 1, 3];
            check(&mut harness, Launch::Decode(4), &lens, &[4, 3, 3]);
            let next = [lens[0] + 1, lens[1] + 2, lens[2] + 3];
            check(&mut harness, Launch::Decode(3), &next, &[1, 2, 3]);
        }
    }
}

#[test]
fn every_configuration_is_right_with_windows_of_128_and_128_channels() {
    every_configuration(101, 128, 128);
}

#[test]
fn every_configuration_is_right_with_windows_of_128_and_512_channels() {
    every_configuration(102, 128, 512);
}

#[test]
fn every_configuration_is_right_with_windows_of_4_and_128_channels() {
    every_configuration(103, 4, 128);
}

#[test]
fn every_configuration_is_right_with_windows_of_4_and_512_channels() {
    every_configuration(104, 4, 512);
}

/// A batch for each number of new tokens, with a request for each place among them where a window closes.
fn closes_anywhere(default_seed: u64, shape: Shape) {
    let seed = seed(default_seed);
    let device = device(seed);
    let warps = warps(shape.ratio);
    for next_n in 1..=8usize {
        let shape = with_types(shape, next_n);
        let requests = next_n.min(shape.ratio) + 1;
        let spec = Spec {
            requests,
            page: 32,
            max_len: 4 * shape.ratio + 8,
            ..Spec::new(seed + next_n as u64, shape)
        };
        for &warps in scaled(&warps[next_n % warps.len()..][..1], &warps) {
            let mut harness = harness(&device, spec, |builder| builder.warps(warps));
            // Request `place` has its window's last token as new token `place`; the last request has none such.
            let start = |place: usize| 3 * shape.ratio - 1 - place;
            let mut lens: Vec<_> = (0..requests - 1).map(|place| start(place) + next_n).collect();
            let mut counts = vec![next_n; requests - 1];
            let few = next_n.min(shape.ratio - 1);
            lens.push(2 * shape.ratio + few);
            counts.push(few);
            let expected = check(&mut harness, Launch::Decode(next_n as u32), &lens, &counts);
            let of = |request: usize| expected.rows.values().filter(|row| row.request == request).count();
            assert!((0..requests - 1).all(|request| of(request) >= 1) && of(requests - 1) == 0);
        }
    }
}

#[test]
fn a_window_may_close_at_any_of_the_new_tokens() {
    closes_anywhere(105, LONG);
}

#[test]
fn windows_that_overlap_may_close_at_any_of_the_new_tokens() {
    closes_anywhere(106, SHORT);
}

#[test]
fn pages_of_any_size_are_found() {
    let seed = seed(107);
    let device = device(seed);
    for (number, page) in [1, 3, 16, 64, 127, 128, 129, 256, 1_000].into_iter().enumerate() {
        let spec = Spec { page, ..Spec::new(seed + page as u64, with_types(LONG, number)) };
        let mut harness = harness(&device, spec, |builder| builder);
        check(&mut harness, Launch::Decode(5), &[128, 643, 511], &[5, 4, 2]);
        check(&mut harness, Launch::Decode(5), &[130, 647, 513], &[2, 4, 2]);
    }
}

#[test]
fn pages_of_any_size_are_found_by_windows_that_overlap() {
    let seed = seed(108);
    let device = device(seed);
    for (number, page) in [1, 2, 3, 4, 5, 7, 8, 64, 1_000].into_iter().enumerate() {
        let spec = Spec { page, ..Spec::new(seed + page as u64, with_types(SHORT, number)) };
        let mut harness = harness(&device, spec, |builder| builder);
        check(&mut harness, Launch::Decode(8), &[8, 643, 511], &[8, 7, 2]);
        check(&mut harness, Launch::Decode(8), &[9, 645, 517], &[1, 4, 8]);
    }
}

#[test]
fn the_first_windows_are_right_from_the_first_token_on() {
    let seed = seed(109);
    let device = device(seed);
    for (number, warps) in warps(4).into_iter().enumerate() {
        let spec = Spec { page: 3, max_len: 40, ..Spec::new(seed, with_types(SHORT, number)) };
        let mut harness = harness(&device, spec, |builder| builder.warps(warps));
        let mut lens = [0, 0, 0];
        // All of a window at once, two windows at once, token by token.
        for _ in 0..4 {
            let counts = [4, 8, 1];
            lens = [0, 1, 2].map(|request| lens[request] + counts[request]);
            check(&mut harness, Launch::Decode(8), &lens, &counts);
        }
    }
}

#[test]
fn ragged_counts_and_requests_that_emit_nothing() {
    let seed = seed(110);
    let device = device(seed);
    let mut random = Random::new(seed);
    for (number, shape) in [LONG, SHORT, LONG, SHORT].into_iter().enumerate() {
        let requests = scaled(5, 70);
        let spec = Spec { requests, page: 24, ..Spec::new(seed, with_types(shape, number + 4)) };
        let warps = warps(shape.ratio);
        let mut harness = harness(&device, spec, |builder| builder.warps(warps[number / 2 % warps.len()]));
        let mut lens = vec![0; requests];
        for _ in 0..scaled(5, 40) {
            let (next, counts) = random_step(&mut random, &spec, &lens, 8);
            check(&mut harness, Launch::Decode(8), &next, &counts);
            lens = next;
        }
    }
}

#[test]
fn rejected_tokens_are_undone_by_running_again() {
    let seed = seed(111);
    let device = device(seed);
    let mut random = Random::new(seed);
    for (number, shape) in [LONG, SHORT, LONG, SHORT].into_iter().enumerate() {
        let spec = Spec { page: 5, ..Spec::new(seed + number as u64, with_types(shape, number)) };
        let mut harness = harness(&device, spec, |builder| builder);
        // Accepted tokens of each request: windows close with draft tokens that are rejected afterwards, and close again.
        let mut accepted = [3 * shape.ratio - 6, 2 * shape.ratio - 2, 0];
        for _ in 0..scaled(6, 60) {
            let drafts = [6, 1 + random.below(6), 6];
            let lens = [0, 1, 2].map(|request| accepted[request] + drafts[request]);
            check(&mut harness, Launch::Decode(6), &lens, &drafts);
            accepted = [0, 1, 2].map(|request| accepted[request] + random.below(drafts[request] + 1));
        }
    }
}

#[test]
fn scores_of_any_magnitude_ties_and_minus_infinity_are_right() {
    let seed = seed(112);
    let device = device(seed);
    for (number, scores) in Scores::ALL.into_iter().enumerate() {
        for (shape, lens) in [(LONG, [386, 258]), (SHORT, [42, 4])] {
            for types in scaled(&[0usize, 3][number % 2..][..1], &[0, 1, 2, 3, 7]) {
                for warps in warps(shape.ratio) {
                    let output = NumberType::F32;
                    let shape = Shape { output, ..with_types(shape, *types) };
                    let spec =
                        Spec { scores, requests: 2, page: 64, ..Spec::new(seed + number as u64, shape) };
                    let mut harness = harness(&device, spec, |builder| builder.warps(warps));
                    check(&mut harness, Launch::Decode(4), &lens, &[4, 4]);
                }
            }
        }
    }
}

#[test]
fn rows_that_are_no_requests_are_neither_read_nor_written() {
    let seed = seed(113);
    let device = device(seed);
    for (number, shape) in [LONG, SHORT].into_iter().enumerate() {
        let spec = Spec::new(seed, with_types(shape, number));
        let mut harness = harness(&device, spec, |builder| builder);
        let lens = [2 * shape.ratio, 3 * shape.ratio + 1, shape.ratio + 3];
        let mut step = harness.requests.step(&lens, &[2, 3, 2]);
        // Two rows of NaN before the first request's, output rows left free before and behind.
        let garbage = f32::from_bits(u32::MAX);
        step.kv_score.splice(0..0, vec![garbage; 2 * 2 * shape.width()]);
        step.cu_new.iter_mut().for_each(|row| *row += 2);
        // The third emits nothing: its first output row does not matter, nor does that of an end without rows.
        step.cu_out = vec![1, 2, 4, i32::MIN];
        step.rows = 5;
        let expected = run(&mut harness, Launch::Decode(3), &step);
        assert_eq!(expected.rows.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(expected.report, None);
    }
}

#[test]
fn requests_without_new_tokens_may_have_any_length_and_any_pages() {
    let seed = seed(114);
    let device = device(seed);
    for shape in [LONG, SHORT] {
        let mut harness = harness(&device, Spec::new(seed, shape), |builder| builder);
        let mut step = harness.requests.step(&[5, 2 * shape.ratio, 7], &[0, 1, 0]);
        (step.kv_lens[0], step.kv_lens[2]) = (-1, i32::MAX);
        let expected = run(&mut harness, Launch::Decode(1), &step);
        assert_eq!((expected.rows.len(), expected.report), (1, None));

        let step = harness.requests.step(&[0; 3], &[0; 3]);
        let expected = run(&mut harness, Launch::Decode(1), &step);
        assert_eq!((expected.rows.len(), expected.report), (0, None));
    }
}

#[test]
fn positions_near_the_end_of_i32_are_right() {
    let seed = seed(115);
    let device = device(seed);
    let most = i32::MAX as usize;
    for (number, shape) in [LONG, SHORT].into_iter().enumerate() {
        let spec = Spec {
            requests: 2,
            page: 1_024,
            max_len: most,
            dense: true,
            ..Spec::new(seed, with_types(shape, 2 * number))
        };
        let mut harness = harness(&device, spec, |builder| builder);
        let closing = most / shape.ratio * shape.ratio;
        check(&mut harness, Launch::Decode(8), &[closing + 3, most], &[7, 2]);
    }
}

#[test]
fn large_batches_are_right() {
    let seed = seed(116);
    let device = device(seed);
    // The emulator has enough to do with few.
    let requests = scaled(17, 300);
    for (number, shape) in [LONG, SHORT].into_iter().enumerate() {
        let head_dim = if on_gpu() { 512 } else { 128 };
        let shape = Shape { head_dim, ..with_types(shape, number) };
        let spec = Spec { requests, max_len: 400, ..Spec::new(seed, shape) };
        let mut harness = harness(&device, spec, |builder| builder);
        let lens: Vec<_> = (0..requests).map(|request| 127 + request % 250).collect();
        check(&mut harness, Launch::Decode(4), &lens, &vec![4; requests]);
    }
}
