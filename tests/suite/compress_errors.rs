//! Bad requests are left out whole and reported, the others are compressed; bad arguments are refused with a typed
//! error before anything is launched.

use dsa_kernels::compress::{CompressArgs, Compressor, CompressorBuilder, ElementType, NumberType, Tensor};
use dsa_kernels::{Device, EmulatorOptions, Error};
use dsa_kernels_gpu::compress::report;
use dsa_kernels_tests::backend;
use dsa_kernels_tests::compress::batch::{Spec, Step};
use dsa_kernels_tests::compress::harness::{Harness, Launch};
use dsa_kernels_tests::compress::reference::Shape;

use crate::compress_support::{LONG, SHORT, check, harness, run, warps, with_types};
use crate::support::{device, seed};

/// A step that was broken in one way.
struct Broken {
    name: String,
    /// The request that is a bad one for that.
    request: u32,
    reason: u32,
    step: Step,
}

/// Four requests of 2, 1, 1 and 2 new tokens. Numbers 1 and 3 close a window, so that output rows between them can be
/// broken without harm to the others.
fn four(harness: &mut Harness) -> Step {
    let r = harness.requests.spec.shape.ratio;
    let lens = [r + 2, 3 * r, 2 * r + 3, 2 * r + 1];
    // Pages for three new tokens of number 2: that is what it has when the offset before it is too small.
    let tables = harness.requests.step(&lens, &[2, 1, 3, 2]).tables;
    Step { tables, ..harness.requests.step(&lens, &[2, 1, 1, 2]) }
}

/// The step broken in every way.
fn broken(spec: &Spec, step: &Step) -> Vec<Broken> {
    let mut all = Vec::new();
    let mut add = |name: String, request: u32, reason: u32, break_it: &dyn Fn(&mut Step)| {
        let mut step = step.clone();
        break_it(&mut step);
        all.push(Broken { name, request, reason, step });
    };
    let longest = (spec.max_blocks() * spec.page) as i32;
    for len in [0, -1, i32::MIN, longest + 1, i32::MAX] {
        add(format!("length {len}"), 1, report::LENGTH, &|step| step.kv_lens[1] = len);
    }
    add("length 1 of 2 new tokens".to_owned(), 3, report::LENGTH, &|step| step.kv_lens[3] = 1);

    let len = step.kv_lens[1] as usize;
    let touched = spec.shape.touched(len - 1, len);
    let logical = touched.start / spec.page..touched.end.div_ceil(spec.page);
    for pool in [0, 1] {
        for page in [-1, spec.pages()[pool] as i32, i32::MIN, i32::MAX] {
            for number in [logical.start, logical.end - 1] {
                let name = format!("page {page} as logical page {number} of pool {pool}");
                let at = spec.table_pitches()[pool] + number;
                add(name, 1, report::PAGE, &|step| step.tables[pool][at] = page);
            }
        }
        // A request that emits nothing, at the page that it stores its token in.
        let at = 2 * spec.table_pitches()[pool] + (step.kv_lens[2] as usize - 1) / spec.page;
        let name = format!("page -1 of pool {pool} for a token to store");
        add(name, 2, report::PAGE, &|step| step.tables[pool][at] = -1);
    }

    let rows = step.rows as i32;
    for row in [-1, i32::MIN, rows, i32::MAX] {
        add(format!("first output row {row}"), 1, report::OUTPUT, &|step| step.cu_out[1] = row);
    }
    for end in [0, -1, i32::MIN, rows + 1, i32::MAX] {
        add(format!("end {end} of the output rows"), 1, report::OUTPUT, &|step| step.cu_out[2] = end);
    }

    // The request behind it has three new tokens then, which are rows that request 0 has, too.
    add("new tokens 2..1".to_owned(), 1, report::TOKENS, &|step| step.cu_new[2] = 1);
    for first in [-1, i32::MIN, 3, i32::MAX] {
        add(format!("new tokens {first}..2"), 0, report::TOKENS, &|step| step.cu_new[0] = first);
    }
    for end in [step.cu_new[4] + 1, i32::MAX, 3, -1, i32::MIN] {
        add(format!("new tokens 4..{end} of 6"), 3, report::TOKENS, &|step| step.cu_new[4] = end);
    }
    all
}

/// Breaks a step in every way and checks everything.
fn bad_requests(seed: u64, shape: Shape, launch: Launch, warps: Option<u32>) {
    let device = device(seed);
    let spec =
        Spec { requests: 4, page: shape.ratio / 2, max_len: 5 * shape.ratio, ..Spec::new(seed, shape) };
    let mut harness =
        harness(&device, spec, |builder| warps.into_iter().fold(builder, CompressorBuilder::warps));
    let step = four(&mut harness);
    let fresh = harness.requests.clone();
    for Broken { name, request, reason, step: bad } in broken(&spec, &step) {
        harness.requests = fresh.clone();
        harness.requests.pools_changed = true;
        eprintln!("{launch:?}: {name}");
        let expected = run(&mut harness, launch, &bad);
        assert_eq!(expected.report, Some((reason, request)), "{name}");
        assert!(expected.rows.values().any(|row| row.request as u32 != request), "{name}");
        // The report was taken: a good step after it has none.
        let expected = run(&mut harness, launch, &step);
        assert_eq!((expected.rows.len(), expected.report), (2, None), "after {name}");
    }
}

#[test]
fn a_bad_request_is_reported_and_changes_nothing() {
    let seed = seed(131);
    for (number, warps) in warps(128).into_iter().enumerate() {
        bad_requests(seed, with_types(LONG, number), Launch::Decode(3), Some(warps));
    }
}

#[test]
fn a_bad_request_with_windows_that_overlap_is_reported_and_changes_nothing() {
    let seed = seed(132);
    for (number, warps) in warps(4).into_iter().enumerate() {
        bad_requests(seed, with_types(SHORT, number + 1), Launch::Decode(3), Some(warps));
    }
}

#[test]
fn a_bad_request_of_prefill_is_reported_and_changes_nothing() {
    let seed = seed(133);
    bad_requests(seed, with_types(LONG, 2), Launch::Prefill, None);
    bad_requests(seed, with_types(SHORT, 3), Launch::Prefill, None);
}

#[test]
fn more_new_tokens_than_a_launch_may_have_make_a_bad_request() {
    let seed = seed(134);
    let device = device(seed);
    for shape in [LONG, SHORT] {
        let spec = Spec::new(seed, shape);
        let mut harness = harness(&device, spec, |builder| builder);
        let r = shape.ratio;
        for (next_n, report) in [(8, None), (3, Some((report::TOKENS, 1))), (1, Some((report::TOKENS, 0)))] {
            let step = harness.requests.step(&[2 * r, 3 * r + 1, r], &[2, 8, 1]);
            let expected = run(&mut harness, Launch::Decode(next_n), &step);
            assert_eq!(expected.report, report);
            assert!(expected.rows.values().any(|row| row.request == 2));
        }
    }
}

#[test]
fn reports_add_up_until_they_are_taken() {
    let seed = seed(135);
    let device = device(seed);
    for shape in [LONG, SHORT] {
        let spec = Spec { requests: 4, ..Spec::new(seed, shape) };
        let mut harness = harness(&device, spec, |builder| builder);
        let mut step = four(&mut harness);
        step.kv_lens[3] = -5;
        step.cu_out[1] = -1;
        // Twice: the report is of both launches, and the step is checked after the second.
        harness.place(&step).unwrap();
        let stream = harness.stream.clone();
        let tokens = step.tokens(&shape);
        harness.enqueue(&stream, Launch::Prefill, tokens, step.rows).unwrap();
        let expected = run(&mut harness, Launch::Decode(2), &step);
        assert_eq!(expected.report, Some((report::LENGTH | report::OUTPUT, 1)));
        assert_eq!(harness.compressor.take_report().unwrap(), None);
    }
}

#[test]
fn a_batch_of_bad_requests_alone_changes_nothing() {
    let seed = seed(136);
    let device = device(seed);
    for (shape, launch) in [(LONG, Launch::Decode(4)), (SHORT, Launch::Decode(4)), (LONG, Launch::Prefill)] {
        let mut harness = harness(&device, Spec::new(seed, shape), |builder| builder);
        let r = shape.ratio;
        let mut step = harness.requests.step(&[r, 2 * r, 3 * r], &[4, 4, 4]);
        step.tables.iter_mut().for_each(|table| table.fill(-1));
        let expected = run(&mut harness, launch, &step);
        assert_eq!((expected.report, expected.rows.len()), (Some((report::PAGE, 0)), 0));
    }
}

/// Requires an [`Error::Argument`] for `name` whose message has all of `words`.
fn assert_argument<T>(result: Result<T, Error>, name: &str, words: &[&str]) {
    let error = result.err().unwrap_or_else(|| panic!("a bad {name} was accepted"));
    let text = error.to_string();
    assert!(matches!(&error, Error::Argument { argument, .. } if *argument == name), "{name}: {error:?}");
    for word in words {
        assert!(text.contains(word), "{text:?} lacks {word:?}");
    }
}

#[test]
fn a_configuration_that_is_not_listed_is_refused_with_the_tuple() {
    let device = device(137);
    let refused = |builder: CompressorBuilder, words: &[&str]| {
        let error = builder.build(&device).err().unwrap_or_else(|| panic!("{builder:?} was accepted"));
        let text = error.to_string();
        assert!(matches!(error, Error::UnlistedConfiguration { .. }), "{error:?}");
        for word in words {
            assert!(text.contains(word), "{text:?} lacks {word:?}");
        }
    };
    refused(Compressor::builder(128, 64), &["64", "bf16", "f32", "128"]);
    refused(Compressor::builder(128, 0), &["128"]);
    refused(Compressor::builder(8, 512), &["512", "8"]);
    refused(Compressor::builder(0, 512), &["512"]);
    refused(Compressor::builder(128, 512).warps(3), &["3"]);
    refused(Compressor::builder(4, 512).warps(16), &["16"]);
    refused(Compressor::builder(128, u32::MAX).warps(u32::MAX), &["4294967295"]);
}

#[test]
fn limits_outside_the_contract_are_refused_when_building() {
    let device = device(138);
    let good = || Compressor::builder(128, 512);
    assert_argument(good().max_batch(0).build(&device), "max_batch", &["0"]);
    assert_argument(good().max_batch(u32::MAX).build(&device), "max_batch", &["4294967295"]);
    assert!(good().running(true).state(NumberType::Bf16).build(&device).is_err());
}

#[test]
fn arguments_outside_the_contract_are_refused_before_launching() {
    let seed = seed(139);
    let device = device(seed);
    for shape in [LONG, SHORT] {
        let spec = Spec { requests: 2, dense: true, ..Spec::new(seed, shape) };
        let mut harness = harness(&device, spec, |builder| builder);
        let lens = [2 * shape.ratio, shape.ratio];
        let step = harness.requests.step(&lens, &[2, 1]);
        harness.place(&step).unwrap();
        let good = harness.args(step.tokens(&shape), step.rows).unwrap();
        let stream = harness.stream.clone();
        let mut refused = |name: &str, break_it: &dyn Fn(&mut CompressArgs)| {
            let mut args = good.clone();
            break_it(&mut args);
            // SAFETY: refused before a launch, or the addresses would be those of the harness's buffers.
            let decode = unsafe { harness.compressor.enqueue_decode(&stream, 4, &args) };
            assert_argument(decode, name, &[]);
            // SAFETY: as above.
            let prefill = unsafe { harness.compressor.enqueue_prefill(&stream, &args) };
            assert_argument(prefill, name, &[]);
        };
        // Types.
        refused("kv_score", &|args| args.kv_score.ty = ElementType::F32);
        refused("ape", &|args| args.ape.ty = ElementType::Bf16);
        refused("kv.pool", &|args| args.kv.pool.ty = ElementType::Bf16);
        refused("score.pool", &|args| args.score.pool.ty = ElementType::Bf16);
        refused("kv.blocks", &|args| args.kv.blocks.ty = ElementType::F32);
        refused("output", &|args| args.output.ty = ElementType::F32);
        refused("kv_lens", &|args| args.kv_lens.ty = ElementType::F32);
        // Shapes.
        refused("kv_score", &|args| args.kv_score.shape[1] -= 8);
        refused("ape", &|args| args.ape.shape[0] += 1);
        refused("kv.pool", &|args| args.kv.pool.shape[1] = 0);
        refused("kv.pool", &|args| args.kv.pool.shape[2] += 8);
        refused("score.pool", &|args| args.score.pool.shape[1] -= 1);
        refused("kv.blocks", &|args| args.kv.blocks.shape[0] -= 1);
        refused("score.blocks", &|args| args.score.blocks.shape[1] -= 1);
        refused("cu_new", &|args| args.cu_new.shape[0] -= 1);
        refused("cu_out", &|args| args.cu_out.shape[0] -= 1);
        refused("output", &|args| args.output.shape[1] -= 8);
        refused("kv_score", &|args| args.kv_score.shape[0] = 1 << 31);
        refused("output", &|args| args.output.shape[0] = 1 << 31);
        refused("kv.pool", &|args| args.kv.pool.shape[0] = 1 << 31);
        // More requests than the operator was built for.
        refused("batch", &|args| args.kv_lens.shape[0] = 3);
        // Pitches: too small, not of whole vectors.
        refused("kv_score", &|args| args.kv_score.pitch -= 8);
        refused("kv_score", &|args| args.kv_score.pitch += 1);
        refused("kv.pool", &|args| args.kv.pool.pitch += 2);
        refused("score.pool", &|args| args.score.pool.pitch -= 4);
        refused("output", &|args| args.output.pitch += 4);
        refused("score.blocks", &|args| args.score.blocks.pitch -= 1);
        // Addresses: none, and not aligned.
        refused("kv_score", &|args| args.kv_score.address = 0);
        refused("output", &|args| args.output.address += 8);
        refused("kv.pool", &|args| args.kv.pool.address += 4);
        refused("score.pool", &|args| args.score.pool.address = 0);
        refused("ape", &|args| args.ape.address += 4);
        refused("cu_out", &|args| args.cu_out.address += 2);
        refused("kv.blocks", &|args| args.kv.blocks.address += 1);

        for next_n in [0, 9, u32::MAX] {
            // SAFETY: refused before a launch.
            let result = unsafe { harness.compressor.enqueue_decode(&stream, next_n, &good) };
            assert_argument(result, "next_n", &["1..=8"]);
        }
        // Nothing of all that was launched, and the good arguments are.
        let expected = run(&mut harness, Launch::Decode(2), &step);
        assert_eq!((expected.rows.len(), expected.report), (2, None));
    }
}

#[test]
fn a_launch_without_requests_does_nothing_and_may_have_null_addresses() {
    let device = device(140);
    let mut compressor = Compressor::builder(128, 128)
        .max_batch(3)
        .build_with(&device, &backend::compress().unwrap())
        .unwrap();
    let stream = device.stream().unwrap();
    let words = |len: u64| Tensor::raw(0, ElementType::I32, [len]);
    let paged = || dsa_kernels::compress::PagedTensor {
        pool: Tensor::raw(0, ElementType::F32, [1, 128, 128]),
        blocks: Tensor::raw(0, ElementType::I32, [0, 1]),
    };
    let args = CompressArgs {
        kv_score: Tensor::raw(0, ElementType::Bf16, [0, 256]),
        ape: Tensor::raw(0, ElementType::F32, [128, 128]),
        kv: paged(),
        score: paged(),
        kv_lens: words(0),
        cu_new: words(1),
        cu_out: words(1),
        output: Tensor::raw(0, ElementType::Bf16, [0, 128]),
    };
    // SAFETY: without requests nothing is launched.
    unsafe { compressor.enqueue_decode(&stream, 1, &args) }.unwrap();
    // SAFETY: as above.
    unsafe { compressor.enqueue_prefill(&stream, &args) }.unwrap();
    stream.synchronize().unwrap();
    assert_eq!(compressor.take_report().unwrap(), None);
}

#[test]
fn a_tensor_or_stream_of_another_device_is_refused() {
    let seed = seed(141);
    let device = device(seed);
    let mut harness = harness(&device, Spec::new(seed, LONG), |builder| builder);
    let step = harness.requests.step(&[128, 1, 1], &[1, 1, 1]);
    harness.place(&step).unwrap();
    let other = Device::emulator_with(EmulatorOptions { seed, ..EmulatorOptions::default() });
    let stream = other.stream().unwrap();
    let result = harness.enqueue(&stream, Launch::Decode(1), 3, 1);
    assert!(matches!(result, Err(Error::WrongDevice { .. })), "{result:?}");
    let args = harness.args(3, 1).unwrap();
    let foreign = other.upload(&[128i32, 1, 1]).unwrap();
    let args = CompressArgs { kv_lens: Tensor::of(&foreign, [3]).unwrap(), ..args };
    let stream = harness.stream.clone();
    // SAFETY: refused before a launch.
    let result = unsafe { harness.compressor.enqueue_decode(&stream, 1, &args) };
    assert!(matches!(result, Err(Error::WrongDevice { .. })), "{result:?}");
    check(&mut harness, Launch::Decode(1), &[128, 1, 1], &[1, 1, 1]);
}
