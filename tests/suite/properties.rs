//! Random batches in random layouts: what nobody thought of.

use dsa_kernels::topk::Path;
use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::distribution::Distribution;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::support::{build, device, scaled, seed, selector};

#[derive(Clone, Debug)]
struct Case {
    k: usize,
    max_len: usize,
    extra_pitch: usize,
    offset: usize,
    lengths: Vec<i32>,
    distributions: Vec<Distribution>,
    path: Path,
    max_sms: Option<u32>,
    next_n: usize,
    compress_ratio: usize,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let most = scaled(12_000usize, 300_000);
    let lens = prop_oneof![4 => 1..most.min(12_000), 2 => 1..most, 1 => Just(scaled(33_001, 1_100_000))];
    let k = prop_oneof![1usize..=4096, select(vec![1, 512, 1024, 2048, 4096])];
    let paths = select(vec![Path::Auto, Path::Auto, Path::Decode, Path::Medium, Path::Large]);
    (k, lens, paths).prop_flat_map(|(k, max_len, path)| {
        let path = if path == Path::Decode && max_len > 8192 { Path::Auto } else { path };
        let length = prop_oneof![
            4 => 0..=max_len as i32,
            1 => select(vec![0, -1, i32::MIN, i32::MAX, max_len as i32 + 1]),
            1 => (-2..3).prop_map(move |d| k as i32 + d),
        ];
        (
            (
                prop::collection::vec(length, 0..scaled(4, 40)),
                1usize..4,
                prop_oneof![4 => Just(1usize), 1 => 2usize..9],
            ),
            (0usize..9, 0usize..4, prop::option::of(1u32..4), any::<u32>()),
            prop::collection::vec(select(Distribution::ALL), 1..4),
        )
            .prop_map(
                move |((lengths, next_n, ratio), (extra_pitch, offset, max_sms, seed), distributions)| Case {
                    k,
                    max_len,
                    extra_pitch,
                    offset,
                    lengths,
                    distributions,
                    path,
                    max_sms,
                    next_n,
                    compress_ratio: ratio,
                    seed: u64::from(seed),
                },
            )
    })
}

fn run(case: Case) -> Result<(), TestCaseError> {
    let spec = BatchSpec::new(Distribution::Normal, case.seed, case.max_len, case.lengths)
        .with_distributions(&case.distributions)
        .with_layout(case.max_len + case.extra_pitch, case.offset)
        .with_sequences(case.next_n, case.compress_ratio);
    let limits = BatchSpec { lengths: vec![0; spec.lengths.len().max(1)], ..spec.clone() };
    let mut selector = selector(&device(case.seed), case.k, &limits, |builder| {
        let builder = builder.path(case.path);
        match case.max_sms {
            Some(limit) => builder.max_sms(limit),
            None => builder,
        }
    });
    selector.check(&build(spec)).map_err(|error| TestCaseError::fail(error.to_string()))
}

#[test]
fn any_batch_in_any_layout_is_exact() {
    let seed = seed(71);
    let config = Config {
        cases: scaled(400, 500),
        max_shrink_iters: scaled(60, 500),
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    if let Err(error) = runner.run(&cases(), run) {
        panic!("DSA_SEED={seed}: {error}");
    }
}
