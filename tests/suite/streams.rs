//! Two operators, two streams, one device; launches that overlap on one stream.

use dsa_kernels::{Error, Graph, LaunchConfig, Stream};
use dsa_kernels_tests::backend;
use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::distribution::Distribution;

use crate::support::{build, device, scaled, selector};

#[test]
fn two_operators_on_two_streams_do_not_disturb_each_other() {
    let device = device(51);
    let long = build(BatchSpec::full(Distribution::Normal, 51, scaled(34_000, 500_000), 2));
    let short = build(BatchSpec::full(Distribution::Quantised, 52, 5_000, scaled(4, 64)));
    let mut first = selector(&device, 2048, &long.spec, |builder| builder);
    let mut second = selector(&device, 512, &short.spec, |builder| builder);
    let placed_long: Vec<_> = (0..scaled(2, 40)).map(|_| first.place(&long).unwrap()).collect();
    let placed_short: Vec<_> = (0..scaled(2, 40)).map(|_| second.place(&short).unwrap()).collect();
    for (a, b) in placed_long.iter().zip(&placed_short) {
        first.enqueue(a).unwrap();
        second.enqueue(b).unwrap();
    }
    for (a, b) in placed_long.iter().zip(&placed_short) {
        first.verify(&long, a).unwrap_or_else(|error| panic!("first: {error}"));
        second.verify(&short, b).unwrap_or_else(|error| panic!("second: {error}"));
    }
}

#[test]
fn graphs_of_two_operators_replay_at_the_same_time() {
    let device = device(53);
    let batch = build(BatchSpec::full(Distribution::Narrow, 53, scaled(33_000, 100_000), scaled(1, 8)));
    let mut selectors = [0, 1].map(|_| selector(&device, 1024, &batch.spec, |builder| builder));
    let placed: Vec<_> = selectors.iter().map(|selector| selector.place(&batch).unwrap()).collect();
    let graphs: Vec<_> = selectors
        .iter_mut()
        .zip(&placed)
        .map(|(selector, placed)| {
            let stream = selector.stream.clone();
            Graph::capture(&stream, |stream| selector.enqueue_on(stream, placed)).unwrap()
        })
        .collect();
    for _ in 0..scaled(1, 100) {
        for (selector, graph) in selectors.iter().zip(&graphs) {
            graph.launch(&selector.stream).unwrap();
        }
    }
    for (selector, placed) in selectors.iter().zip(&placed) {
        selector.verify(&batch, placed).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn operators_on_one_stream_share_a_workspace() {
    let device = device(54);
    let long = build(BatchSpec::full(Distribution::Normal, 54, 33_500, 1));
    let short = build(BatchSpec::full(Distribution::Normal, 55, 3_000, 2));
    let mut first = selector(&device, 512, &long.spec, |builder| builder);
    let mut second = selector(&device, 64, &short.spec, |builder| builder);
    let (a, b) = (first.place(&long).unwrap(), second.place(&short).unwrap());
    let stream = first.stream.clone();
    std::mem::swap(&mut first.workspace, &mut second.workspace);
    second.workspace.reserve("test", first.topk.workspace_bytes()).unwrap();
    for placed in [&a, &a] {
        // SAFETY: the buffers in `placed` live until the results have been read.
        unsafe { first.topk.enqueue(&stream, &mut second.workspace, placed.args()) }.unwrap();
        // SAFETY: as above.
        unsafe { second.topk.enqueue(&stream, &mut second.workspace, b.args()) }.unwrap();
    }
    first.verify(&long, &a).unwrap_or_else(|error| panic!("{error}"));
    second.verify(&short, &b).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_borrowed_stream_works_like_an_owned_one() {
    let device = device(56);
    let batch = build(BatchSpec::full(Distribution::Normal, 56, 9_000, 2));
    let mut selector = selector(&device, 64, &batch.spec, |builder| builder);
    let placed = selector.place(&batch).unwrap();
    // SAFETY: the stream that lends its handle lives as long as the selector, to the end of this test.
    let borrowed = unsafe { device.borrow_stream(selector.stream.raw()) };
    selector.enqueue_on(&borrowed, &placed).unwrap();
    borrowed.synchronize().unwrap();
    selector.verify(&batch, &placed).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn launches_that_overlap_see_what_the_launch_before_wrote() {
    let device = device(57);
    let kernel = device.load_kernel(&backend::probe(), "probe_overlapping").unwrap();
    let stream = device.stream().unwrap();
    // One word for each thread, then many; few blocks beside which the next launch has room, then many.
    for (grid, block, len) in
        [(1, 32, 32), (7, 96, scaled(3_000, 1_000_000)), (scaled(40, 5_000), 64, scaled(2_560, 320_000))]
    {
        let start: Vec<u32> = (0..len).collect();
        let buffers = [device.upload(&start).unwrap(), device.alloc(len as usize).unwrap()];
        let config = LaunchConfig::new(grid, block).with_overlap(true);
        // An even number: the last launch writes where the first one reads.
        let launches = scaled(4, 100);
        let chain = |stream: &Stream| -> Result<(), Error> {
            for number in 0..launches {
                let [from, to] = [number % 2, 1 - number % 2].map(|which| buffers[which].address());
                // SAFETY: the buffers have `len` words and live until the result has been read; each launch
                // waits for the one before.
                unsafe { kernel.launch(stream, &config, &[from, to, u64::from(len)]) }?;
            }
            Ok(())
        };
        let check = |additions: usize, what: &str| {
            stream.synchronize().unwrap_or_else(|error| panic!("{what}: {error}"));
            let words = buffers[0].download().unwrap();
            let wrong = (0..len).find(|&i| words[i as usize] != i + additions as u32);
            if let Some(i) = wrong {
                panic!("{what}, grid {grid}: word {i} is {}, not {i} + {additions}", words[i as usize]);
            }
        };
        chain(&stream).unwrap();
        check(launches, "launched");
        let graph = Graph::capture(&stream, chain).unwrap();
        let replays = scaled(2, 20);
        for _ in 0..replays {
            graph.launch(&stream).unwrap();
        }
        check(launches * (1 + replays), "replayed");
    }
}

#[test]
fn an_operator_that_may_not_overlap_gives_the_same_rows() {
    let device = device(58);
    let batch = build(BatchSpec::full(Distribution::Normal, 58, scaled(20_000, 200_000), 2));
    for overlap in [true, false] {
        let mut selector = selector(&device, 300, &batch.spec, |builder| builder.overlap(overlap));
        assert_eq!(selector.topk.plan().launch_config(2).overlap, overlap);
        let placed: Vec<_> = (0..scaled(2, 20)).map(|_| selector.place(&batch).unwrap()).collect();
        // One after the other on the same state and workspace.
        placed.iter().for_each(|placed| selector.enqueue(placed).unwrap());
        for placed in &placed {
            selector.verify(&batch, placed).unwrap_or_else(|error| panic!("overlap {overlap}: {error}"));
        }
    }
}
