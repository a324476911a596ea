//! Captured compressions, replayed while lengths, tables and contents change.

use dsa_kernels::Graph;
use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::compress::batch::{Spec, Step};
use dsa_kernels_tests::compress::harness::{Harness, Launch};
use dsa_kernels_tests::compress::reference::Shape;
use dsa_kernels_tests::distribution::Distribution;
use dsa_kernels_tests::random::Random;

use crate::compress_cache::Cache;
use crate::compress_support::{LONG, SHORT, harness, random_step, with_types};
use crate::support::{build, device, scaled, seed, selector};

/// A step that has as many rows of new tokens and of output as the launch that was captured.
fn padded(harness: &Harness, mut step: Step) -> Step {
    let spec = harness.requests.spec;
    let garbage = f32::from_bits(u32::MAX);
    step.kv_score.resize(Harness::max_tokens(&spec) * 2 * spec.shape.width(), garbage);
    step.rows = Harness::max_rows(&spec);
    step
}

#[test]
fn a_graph_follows_lengths_tables_and_contents_changed_after_capture() {
    let seed = seed(151);
    let device = device(seed);
    let mut random = Random::new(seed);
    for (number, shape) in [LONG, SHORT].into_iter().enumerate() {
        for launch in [Launch::Decode(5), Launch::Prefill] {
            let spec = Spec {
                requests: 4,
                page: 10,
                max_new: if launch == Launch::Prefill { 150 } else { 5 },
                ..Spec::new(seed, with_types(shape, number + 1))
            };
            let mut harness = harness(&device, spec, |builder| builder);
            let stream = harness.stream.clone();
            let (tokens, rows) = (Harness::max_tokens(&spec), Harness::max_rows(&spec));
            let graph =
                Graph::capture(&stream, |stream| harness.enqueue(stream, launch, tokens, rows)).unwrap();
            let mut lens = vec![0; 4];
            for step in 0..scaled(6, 200) {
                let (next, counts) = random_step(&mut random, &spec, &lens, spec.max_new);
                let made = harness.requests.step(&next, &counts);
                let mut made = padded(&harness, made);
                if step % 5 == 4 {
                    // A bad request now and then, which the next replay does not remember.
                    made.kv_lens[step % 4] = -1;
                }
                harness.place(&made).unwrap();
                graph.launch(&stream).unwrap();
                harness
                    .verify(launch, &made)
                    .unwrap_or_else(|error| panic!("{launch:?}, step {step}: {error}"));
                lens = next;
            }
        }
    }
}

/// Compression, what comes after it, as `launches` launches, and the selection of rows, in one graph.
fn whole_step(default_seed: u64, shape: Shape, launches: u32) {
    const K: usize = 24;
    let seed = seed(default_seed);
    let device = device(seed);
    let mut random = Random::new(seed);
    let spec = Spec { requests: 3, page: 12, max_len: 600, max_new: 4, ..Spec::new(seed, shape) };
    let launch = Launch::Decode(4);
    let mut harness = harness(&device, spec, |builder| builder);
    let mut cache = Cache::new(&device, spec, &mut random).unwrap();
    let (tokens, rows) = (Harness::max_tokens(&spec), Harness::max_rows(&spec));
    let args = harness.args(tokens, rows).unwrap();
    let post = cache.args(&args).unwrap();

    // The scores that rows are selected by come from elsewhere.
    let scores = |step: usize, lens: &[usize]| {
        let windows = lens.iter().map(|len| (len / shape.ratio) as i32).collect();
        build(BatchSpec::new(Distribution::Normal, seed + step as u64, spec.max_len / shape.ratio, windows))
    };
    let first = scores(0, &[0; 3]);
    let mut selector = selector(&device, K, &first.spec, |builder| builder);
    let placed = selector.place(&first).unwrap();

    let stream = harness.stream.clone();
    let graph = Graph::capture(&stream, |stream| {
        // SAFETY: the arguments are those of buffers of `harness` and `cache`, which outlive the graph; requests have no
        // page in common.
        unsafe {
            if launches == 1 {
                harness.compressor.enqueue_decode_store(stream, 4, &args, &post)?;
            } else {
                harness.compressor.enqueue_decode(stream, 4, &args)?;
                harness.compressor.enqueue_post(stream, &post)?;
            }
        }
        selector.enqueue_on(stream, &placed)
    })
    .unwrap();
    let mut lens = vec![0; 3];
    for step in 0..scaled(40, 1_000) {
        let (next, counts) = random_step(&mut random, &spec, &lens, 4);
        let made = harness.requests.step(&next, &counts);
        let made = padded(&harness, made);
        harness.place(&made).unwrap();
        cache.shuffle(&mut random).unwrap();
        let batch = scores(step, &next);
        placed.refill(&batch).unwrap();
        graph.launch(&stream).unwrap();
        let expected = harness.verify(launch, &made).unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert_eq!(expected.report, None);
        cache.verify(&harness, &expected);
        selector.verify(&batch, &placed).unwrap_or_else(|error| panic!("step {step}: {error}"));
        lens = next;
    }
}

#[test]
fn a_whole_decode_step_in_one_graph_stays_right_for_many_replays() {
    whole_step(152, LONG, 2);
}

#[test]
fn a_whole_decode_step_with_windows_that_overlap_stays_right_for_many_replays() {
    whole_step(153, SHORT, 2);
}

#[test]
fn a_decode_that_stores_in_one_graph_stays_right_for_many_replays() {
    whole_step(154, Shape { head_dim: 512, ..LONG }, 1);
}

#[test]
fn a_decode_that_stores_with_windows_that_overlap_stays_right_for_many_replays() {
    whole_step(155, Shape { head_dim: 512, ..SHORT }, 1);
}
