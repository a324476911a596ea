//! One captured launch, replayed while lengths and contents change.

use dsa_kernels::Graph;
use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::distribution::Distribution;
use dsa_kernels_tests::random::Random;

use crate::support::{build, device, scaled, seed, selector};

#[test]
fn a_graph_follows_lengths_and_contents_changed_after_capture() {
    let seed = seed(41);
    let device = device(seed);
    let max_len = scaled(34_000, 200_000);
    let steps: [[i32; 4]; 5] = [
        [max_len as i32, 1, 9_000, 3_000],
        [1, max_len as i32, 2_048, -1],
        [0, 0, 0, 0],
        [2_049, 33_000, i32::MAX, 8_192],
        [-1, 5, 7, 8_193],
    ];
    let spec = |step: usize| {
        let lengths = steps[step % steps.len()].to_vec();
        BatchSpec::new(Distribution::Normal, seed + step as u64, max_len, lengths)
            .with_distributions(&Distribution::ALL[step % 7..][..3])
    };
    let first = build(spec(0));
    let mut selector = selector(&device, 2048, &first.spec, |builder| builder);
    let placed = selector.place(&first).unwrap();
    let stream = selector.stream.clone();
    let graph = Graph::capture(&stream, |stream| selector.enqueue_on(stream, &placed)).unwrap();
    for step in 0..scaled(5, 50) {
        let batch = build(spec(step));
        placed.refill(&batch).unwrap();
        graph.launch(&stream).unwrap();
        selector.verify(&batch, &placed).unwrap_or_else(|error| panic!("step {step}: {error}"));
    }
}

#[test]
fn many_replays_on_one_workspace_stay_exact() {
    let seed = seed(42);
    let device = device(seed);
    let mut random = Random::new(seed);
    let max_len = scaled(33_500, 70_000);
    let rows = 3;
    let mut lengths = |step: usize| -> Vec<i32> {
        (0..rows)
            .map(|_| {
                [0, 100, 600, 2_000, 9_000, max_len as i32]
                    [random.below(if step.is_multiple_of(9) { 6 } else { 4 })]
            })
            .collect()
    };
    let first = build(BatchSpec::new(Distribution::Normal, seed, max_len, lengths(0)));
    let mut selector = selector(&device, 512, &first.spec, |builder| builder);
    let placed = selector.place(&first).unwrap();
    let stream = selector.stream.clone();
    let graph = Graph::capture(&stream, |stream| selector.enqueue_on(stream, &placed)).unwrap();
    for step in 0..scaled(150, 1000) {
        let batch = build(BatchSpec::new(Distribution::Normal, seed + step as u64, max_len, lengths(step)));
        placed.refill(&batch).unwrap();
        // Other operators share the workspace: it holds anything between two launches.
        selector.workspace.fill_bytes(step as u8).unwrap();
        graph.launch(&stream).unwrap();
        selector.verify(&batch, &placed).unwrap_or_else(|error| panic!("step {step}: {error}"));
    }
}

#[test]
fn a_chain_of_launches_in_one_graph_is_exact() {
    let device = device(43);
    let batches: Vec<_> = [9_000, 100, 34_000]
        .into_iter()
        .map(|len| build(BatchSpec::new(Distribution::Uniform, 43, 34_000, vec![len, 50, len / 2])))
        .collect();
    let mut selector = selector(&device, 256, &batches[0].spec, |builder| builder);
    let placed: Vec<_> = batches.iter().map(|batch| selector.place(batch).unwrap()).collect();
    let stream = selector.stream.clone();
    let graph = Graph::capture(&stream, |stream| {
        placed.iter().chain(&placed).try_for_each(|placed| selector.enqueue_on(stream, placed))
    })
    .unwrap();
    for replay in 0..scaled(2, 200) {
        graph.launch(&stream).unwrap();
        for (batch, placed) in batches.iter().zip(&placed) {
            selector.verify(batch, placed).unwrap_or_else(|error| panic!("replay {replay}: {error}"));
        }
    }
}

#[test]
fn an_error_while_capturing_leaves_stream_and_operator_usable() {
    let device = device(44);
    let batch = build(BatchSpec::full(Distribution::Normal, 44, 3_000, 2));
    let mut selector = selector(&device, 100, &batch.spec, |builder| builder);
    let placed = selector.place(&batch).unwrap();
    let stream = selector.stream.clone();
    let refused = Graph::capture(&stream, |stream| {
        selector.enqueue_on(stream, &placed)?;
        device.alloc::<u8>(10).map(drop)
    });
    let Err(error) = refused else { panic!("an allocation was captured") };
    let error = error.to_string();
    assert!(error.contains("capture"), "{error}");
    selector.check(&batch).unwrap_or_else(|error| panic!("{error}"));
}
