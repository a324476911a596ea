//! Bad input is refused with a typed error that says what to do, before anything is launched.

use dsa_kernels::topk::{Order, Path, ScoreType, Ties, TopK, TopKArgs, TopKBuilder};
use dsa_kernels::{Device, EmulatorOptions, Error, Workspace};
use dsa_kernels_tests::backend;
use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::distribution::Distribution;
use dsa_kernels_tests::harness::POISON;
use dsa_kernels_tests::oracle;

use crate::support::{build, device, selector};

/// Requires an [`Error::Argument`] for `argument` whose message has all of `words`.
fn assert_argument<T>(result: Result<T, Error>, name: &str, words: &[&str]) {
    let error = result.err().unwrap_or_else(|| panic!("a bad {name} was accepted"));
    let text = error.to_string();
    assert!(matches!(&error, Error::Argument { argument, .. } if *argument == name), "{name}: {error:?}");
    for word in words {
        assert!(text.contains(word), "{text:?} lacks {word:?}");
    }
}

#[test]
fn limits_outside_the_contract_are_refused_when_building() {
    let device = device(81);
    let good = || TopK::builder(64).max_rows(4).max_len(1_000);
    let refused = |builder: TopKBuilder, name: &str, words: &[&str]| {
        assert_argument(builder.build(&device), name, words);
    };
    refused(TopK::builder(0).max_rows(1).max_len(10), "k", &["0", "1..=4096"]);
    refused(TopK::builder(5000).max_rows(1).max_len(10), "k", &["5000", "1..=4096"]);
    refused(TopK::builder(u32::MAX).max_rows(1).max_len(10), "k", &["1..=4096"]);
    refused(good().max_rows(0), "max_rows", &["0"]);
    refused(good().max_len(0), "max_len", &["0"]);
    refused(good().max_len(u32::MAX), "max_len", &[]);
    refused(good().max_rows(u32::MAX), "max_rows", &[]);
    refused(good().max_sms(0), "max_sms", &["0"]);
    refused(good().next_n(0), "next_n", &["0"]);
    refused(good().compress_ratio(0), "compress_ratio", &["0"]);
    refused(good().max_len(8_193).path(Path::Decode), "max_len", &["8193", "8192"]);
    refused(good().max_len(1_000).path(Path::Trivial), "max_len", &["1000", "64"]);
}

#[test]
fn bad_launch_arguments_are_refused_and_nothing_is_written() {
    let device = device(82);
    let batch = build(BatchSpec::full(Distribution::Normal, 82, 1_000, 4));
    let mut selector = selector(&device, 64, &batch.spec, |builder| builder);
    let placed = selector.place(&batch).unwrap();
    let good = || TopKArgs { ..*placed.args() };
    let cases: Vec<(TopKArgs, &str, &[&str])> = vec![
        (TopKArgs { pitch: 999, ..good() }, "pitch", &["999", "1000"]),
        (TopKArgs { pitch: 0, ..good() }, "pitch", &["0", "1000"]),
        (TopKArgs { rows: 5, ..good() }, "rows", &["5", "4"]),
        (TopKArgs { rows: u32::MAX, ..good() }, "rows", &["4294967295", "4"]),
        (TopKArgs { scores: 0, ..good() }, "scores", &["null"]),
        (TopKArgs { lengths: 0, ..good() }, "lengths", &["null"]),
        (TopKArgs { out: 0, ..good() }, "out", &["null"]),
        (TopKArgs { scores: good().scores + 2, ..good() }, "scores", &["align", "4"]),
        (TopKArgs { lengths: good().lengths + 1, ..good() }, "lengths", &["align", "4"]),
        (TopKArgs { out: good().out + 3, ..good() }, "out", &["align", "4"]),
    ];
    let stream = selector.stream.clone();
    for (args, name, words) in cases {
        // SAFETY: refused before it is launched, which is what this test requires.
        let result = unsafe { selector.topk.enqueue(&stream, &mut selector.workspace, &args) };
        assert_argument(result, name, words);
    }
    stream.synchronize().unwrap();
    let untouched = placed.output().unwrap();
    assert!(untouched.iter().all(|&word| word == i32::from_ne_bytes([POISON; 4])), "a refused launch wrote");
    selector.check(&batch).unwrap_or_else(|error| panic!("after refused launches: {error}"));
}

#[test]
fn options_are_refused_by_name_on_the_paths_without_them() {
    let device = device(85);
    type Configure = fn(TopKBuilder) -> TopKBuilder;
    let options: [(&str, Configure); 5] = [
        ("ties", |builder| builder.ties(Ties::LowestIndex)),
        ("order", |builder| builder.order(Order::AscendingIndex)),
        ("scores", |builder| builder.scores(ScoreType::F16)),
        ("scores", |builder| builder.scores(ScoreType::Bf16)),
        ("values", |builder| builder.values(true)),
    ];
    for path in [Path::Decode, Path::Medium, Path::Large] {
        let builder = || TopK::builder(64).max_len(1_000).path(path);
        builder().build(&device).unwrap_or_else(|error| panic!("{path} without options: {error}"));
        for (name, configure) in options {
            let result = configure(builder()).build(&device);
            let error = result.err().unwrap_or_else(|| panic!("{name} accepted on {path}"));
            assert!(matches!(error, Error::Argument { .. }), "{name} on {path}: {error:?}");
            let text = error.to_string();
            for word in [name, path.name()] {
                assert!(text.contains(word), "{name} on {path}: {text:?} lacks {word:?}");
            }
        }
    }
}

#[test]
fn bad_addresses_of_scores_and_values_are_refused_and_nothing_is_written() {
    let device = device(86);
    for kind in ScoreType::ALL.iter().copied() {
        let element = u64::from(kind.bytes());
        let spec = BatchSpec::full(Distribution::Normal, 86, 1_000, 4).with_scores(kind);
        let batch = build(spec.with_layout(1_003, 1));
        let mut selector = selector(&device, 64, &batch.spec, |builder| builder.values(true));
        let placed = selector.place(&batch).unwrap();
        let good = *placed.args();
        let bytes = element.to_string();
        let misaligned = ["align", &bytes];
        let mut cases: Vec<(TopKArgs, &str, &[&str])> =
            vec![(TopKArgs { values: 0, ..good }, "values", &["null"])];
        for off in 1..element {
            cases.push((TopKArgs { values: good.values + off, ..good }, "values", &misaligned));
            cases.push((TopKArgs { scores: good.scores + off, ..good }, "scores", &misaligned));
        }
        let stream = selector.stream.clone();
        for (args, name, words) in cases {
            // SAFETY: refused before it is launched, which is what this test requires.
            let result = unsafe { selector.topk.enqueue(&stream, &mut selector.workspace, &args) };
            assert_argument(result, name, words);
        }
        stream.synchronize().unwrap();
        let untouched = placed.answer().unwrap();
        let poison = i32::from_ne_bytes([POISON; 4]);
        let poisoned_value = poison.cast_unsigned() >> (32 - 8 * element);
        assert!(untouched.indices.iter().all(|&word| word == poison), "{kind}: a refused launch wrote");
        let values = untouched.values.unwrap();
        assert!(values.iter().all(|&bits| bits == poisoned_value), "{kind}: a refused launch wrote values");
        selector.check(&batch).unwrap_or_else(|error| panic!("{kind}, after refused launches: {error}"));
    }
}

#[test]
fn values_are_refused_by_an_operator_without_them() {
    let device = device(87);
    let batch = build(BatchSpec::full(Distribution::Normal, 87, 1_000, 2));
    let mut selector = selector(&device, 64, &batch.spec, |builder| builder);
    let placed = selector.place(&batch).unwrap();
    let stream = selector.stream.clone();
    let args = TopKArgs { values: placed.args().out, ..*placed.args() };
    // SAFETY: refused before it is launched, which is what this test requires.
    let result = unsafe { selector.topk.enqueue(&stream, &mut selector.workspace, &args) };
    assert_argument(result, "values", &["0x"]);
}

#[test]
fn buffers_too_small_for_the_rows_are_refused() {
    let device = device(83);
    let stream = device.stream().unwrap();
    let mut workspace = Workspace::new(&device);
    let mut topk =
        TopK::builder(10).max_rows(4).max_len(100).build_with(&device, &backend::topk().unwrap()).unwrap();
    let floats = |len: usize| device.upload(&vec![1.0f32; len]).unwrap();
    let integers = |len: usize| device.upload(&vec![100i32; len]).unwrap();
    let (scores, lengths, mut out) = (floats(3 * 120 + 100), integers(4), integers(40));
    // SAFETY: here and below: one stream, and nothing else writes the inputs.
    unsafe { topk.enqueue_buffers(&stream, &mut workspace, &scores, 120, &lengths, 4, &mut out) }.unwrap();
    let short = floats(3 * 120 + 99);
    // SAFETY: refused before it is launched, which is what this test requires.
    let result = unsafe { topk.enqueue_buffers(&stream, &mut workspace, &short, 120, &lengths, 4, &mut out) };
    assert_argument(result, "scores", &["459", "460"]);
    let short = integers(3);
    // SAFETY: refused before it is launched, which is what this test requires.
    let result = unsafe { topk.enqueue_buffers(&stream, &mut workspace, &scores, 120, &short, 4, &mut out) };
    assert_argument(result, "lengths", &["3", "4"]);
    let mut short = integers(39);
    // SAFETY: refused before it is launched, which is what this test requires.
    let result =
        unsafe { topk.enqueue_buffers(&stream, &mut workspace, &scores, 120, &lengths, 4, &mut short) };
    assert_argument(result, "out", &["39", "40"]);
}

#[test]
fn after_a_launch_that_faulted_the_operator_is_right_again() {
    // Only the emulator stops a launch that reads outside its memory and goes on; nine rows on four
    // multiprocessors, so that the queue's counter is in use when it stops.
    let device = Device::emulator();
    let stream = device.stream().unwrap();
    let mut workspace = Workspace::new(&device);
    for (path, len) in [(Path::Medium, 600), (Path::Large, 20_000)] {
        let mut topk = TopK::builder(64)
            .max_rows(9)
            .max_len(len)
            .path(path)
            .build_with(&device, &backend::topk().unwrap())
            .unwrap();
        let scores: Vec<f32> = (0..9 * len).map(|i| (i * 7919 % 10_007) as f32).collect();
        let lengths = device.upload(&[len as i32; 9]).unwrap();
        let mut out = device.alloc::<i32>(9 * 64).unwrap();
        let too_short = device.upload(&scores[..scores.len() / 2]).unwrap();
        let args = TopKArgs {
            scores: too_short.address(),
            pitch: u64::from(len),
            rows: 9,
            lengths: lengths.address(),
            out: out.address(),
            values: 0,
        };
        // SAFETY: on the emulator, which checks every access.
        let result = unsafe { topk.enqueue(&stream, &mut workspace, &args) };
        assert!(matches!(result, Err(Error::Emulator(_))), "{path}: {result:?}");
        out.fill_bytes(POISON).unwrap();
        let whole = device.upload(&scores).unwrap();
        // SAFETY: one stream, and nothing else writes the inputs.
        unsafe { topk.enqueue_buffers(&stream, &mut workspace, &whole, len.into(), &lengths, 9, &mut out) }
            .unwrap();
        for (row, out) in out.download().unwrap().chunks(64).enumerate() {
            let row = &scores[row * len as usize..][..len as usize];
            oracle::check_row(row, out).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}

#[test]
fn things_of_another_device_are_refused() {
    let (device, other) = (Device::emulator(), Device::emulator());
    let stream = device.stream().unwrap();
    let mut workspace = Workspace::new(&device);
    let mut topk =
        TopK::builder(10).max_rows(1).max_len(100).build_with(&device, &backend::topk().unwrap()).unwrap();
    let scores = device.upload(&[1.0f32; 100]).unwrap();
    let lengths = device.upload(&[100i32]).unwrap();
    let mut out = device.upload(&[0i32; 10]).unwrap();
    let foreign = other.stream().unwrap();
    // SAFETY: refused before it is launched, which is what this test requires.
    let result =
        unsafe { topk.enqueue_buffers(&foreign, &mut workspace, &scores, 100, &lengths, 1, &mut out) };
    assert!(matches!(result, Err(Error::WrongDevice { argument: "stream" })), "{result:?}");
    let foreign = other.upload(&[1.0f32; 100]).unwrap();
    // SAFETY: refused before it is launched, which is what this test requires.
    let result =
        unsafe { topk.enqueue_buffers(&stream, &mut workspace, &foreign, 100, &lengths, 1, &mut out) };
    assert!(matches!(result, Err(Error::WrongDevice { argument: "scores" })), "{result:?}");
    let mut foreign = Workspace::new(&other);
    // SAFETY: refused before it is launched, which is what this test requires.
    let result = unsafe { topk.enqueue_buffers(&stream, &mut foreign, &scores, 100, &lengths, 1, &mut out) };
    assert!(matches!(result, Err(Error::WrongDevice { argument: "workspace" })), "{result:?}");
}

#[test]
fn a_locked_workspace_that_is_too_small_is_refused_by_name() {
    let device = device(84);
    let mut workspace = Workspace::with_bytes(&device, 256).unwrap();
    workspace.lock();
    let error = workspace.get_simultaneous("top-k", &[100, 200]).unwrap_err();
    assert!(matches!(error, Error::WorkspaceLocked { wanted: 512, available: 256, .. }), "{error:?}");
    let text = error.to_string();
    for word in ["top-k", "512", "256", "Workspace::lock"] {
        assert!(text.contains(word), "{text:?} lacks {word:?}");
    }
    // The operator itself either needs no workspace or is refused in the same way.
    let batch = build(BatchSpec::full(Distribution::Normal, 84, 40_000, 2));
    let mut selector = selector(&device, 64, &batch.spec, |builder| builder);
    let placed = selector.place(&batch).unwrap();
    let stream = selector.stream.clone();
    let mut empty = Workspace::new(&device);
    empty.lock();
    // SAFETY: the buffers in `placed` live to the end of the test.
    let result = unsafe { selector.topk.enqueue(&stream, &mut empty, placed.args()) };
    if selector.topk.workspace_bytes() == 0 {
        result.unwrap();
        selector.verify(&batch, &placed).unwrap();
    } else {
        assert!(matches!(result, Err(Error::WorkspaceLocked { .. })), "{result:?}");
    }
}

#[test]
fn a_device_that_is_too_old_is_refused() {
    let options = EmulatorOptions { compute_capability: (7, 5), ..EmulatorOptions::default() };
    let result = TopK::builder(10).max_rows(1).max_len(100).build(&Device::emulator_with(options));
    let error = result.expect_err("a device older than every kernel");
    assert!(matches!(error, Error::DeviceTooOld { found: (7, 5), needed: (8, 0), .. }), "{error:?}");
    assert!(error.to_string().contains("emulator"), "{error}");
}

#[test]
fn a_machine_without_a_gpu_gets_the_emulator_and_the_reason() {
    let (device, reason) = Device::best();
    match reason {
        None => assert_eq!(device.properties().backend, dsa_kernels::Backend::Cuda),
        Some(reason) => {
            assert_eq!(device.properties().backend, dsa_kernels::Backend::Emulator);
            assert!(
                reason.to_string().contains("emulator") || reason.to_string().contains("CUDA"),
                "{reason}"
            );
        }
    }
}

#[cfg(feature = "cust")]
#[test]
fn a_gpu_that_is_not_there_is_named() {
    let error = Device::cuda(1_000).expect_err("no machine has a thousand GPUs");
    if driver_is_installed() {
        // A driver without any device refuses before it counts them.
        assert!(matches!(error, Error::NoDevice { ordinal: 1_000, .. } | Error::Driver { .. }), "{error:?}");
    } else {
        assert!(matches!(error, Error::NoDriver), "{error:?}");
    }
}

/// Whether `libcuda.so.1` is in one of the places that [`Error::NoDriver`] names, or that a loader's path
/// has beside them.
#[cfg(feature = "cust")]
fn driver_is_installed() -> bool {
    let variable = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let fixed = [
        "/usr/local/nvidia/lib64",
        "/usr/local/nvidia/lib",
        "/usr/lib/wsl/lib",
        "/run/opengl-driver/lib",
        "/usr/lib64",
        "/usr/lib",
        "/lib",
        "/lib64",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/local/cuda/compat",
    ];
    let in_places = std::env::split_paths(&variable)
        .chain(fixed.map(Into::into))
        .any(|place| place.join("libcuda.so.1").exists());
    // The loader's own list covers what ld.so.conf adds.
    let cache = std::fs::read("/etc/ld.so.cache").unwrap_or_default();
    in_places || cache.windows(12).any(|name| name == b"libcuda.so.1")
}
