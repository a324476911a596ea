//! Random batches in random layouts: what nobody thought of.

use dsa_kernels::topk::{Order, Path, ScoreType, Ties, TopKBuilder};
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
    options: Options,
}

/// What an operator may promise.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    scores: ScoreType,
    ties: Ties,
    order: Order,
    values: bool,
}

impl Options {
    fn any() -> BoxedStrategy<Self> {
        (select(ScoreType::ALL), select(Ties::ALL), select(Order::ALL), any::<bool>())
            .prop_map(|(scores, ties, order, values)| Self { scores, ties, order, values })
            .boxed()
    }

    fn configure(self, builder: TopKBuilder) -> TopKBuilder {
        builder.ties(self.ties).order(self.order).values(self.values)
    }
}

/// Cases without options, on all paths.
fn cases() -> impl Strategy<Value = Case> {
    let paths = vec![Path::Auto, Path::Auto, Path::Decode, Path::Medium, Path::Large];
    cases_of(paths, Just(Options::default()).boxed())
}

/// Cases with options, on the paths that have them.
fn cases_with_options() -> impl Strategy<Value = Case> {
    cases_of(vec![Path::Auto, Path::Trivial, Path::Resident, Path::Sampled, Path::Cluster], Options::any())
}

fn cases_of(paths: Vec<Path>, options: BoxedStrategy<Options>) -> impl Strategy<Value = Case> {
    let most = scaled(12_000usize, 300_000);
    let lens = prop_oneof![4 => 1..most.min(12_000), 2 => 1..most, 1 => Just(scaled(33_001, 1_100_000))];
    let k = prop_oneof![1usize..=4096, select(vec![1, 512, 1024, 2048, 4096])];
    (k, lens, select(paths)).prop_flat_map(move |(k, max_len, path)| {
        let longest = match path {
            Path::Trivial => k,
            Path::Resident => 16_377,
            Path::Decode => 8192,
            _ => usize::MAX,
        };
        let path = if max_len > longest { Path::Auto } else { path };
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
            (0usize..9, 0usize..9, prop::option::of(1u32..4), any::<u32>(), options.clone()),
            prop::collection::vec(select(Distribution::ALL), 1..4),
        )
            .prop_map(
                move |(
                    (lengths, next_n, ratio),
                    (extra_pitch, offset, max_sms, seed, options),
                    distributions,
                )| Case {
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
                    options,
                },
            )
    })
}

fn run(case: Case) -> Result<(), TestCaseError> {
    let spec = BatchSpec::new(Distribution::Normal, case.seed, case.max_len, case.lengths)
        .with_distributions(&case.distributions)
        .with_layout(case.max_len + case.extra_pitch, case.offset)
        .with_sequences(case.next_n, case.compress_ratio)
        .with_scores(case.options.scores);
    let limits = BatchSpec { lengths: vec![0; spec.lengths.len().max(1)], ..spec.clone() };
    let mut selector = selector(&device(case.seed), case.k, &limits, |builder| {
        let builder = case.options.configure(builder).path(case.path);
        match case.max_sms {
            Some(limit) => builder.max_sms(limit),
            None => builder,
        }
    });
    selector.check(&build(spec)).map_err(|error| TestCaseError::fail(error.to_string()))
}

/// Runs as many cases; a failure names the smallest case that fails, and the seed.
fn check_all(seed: u64, count: u32, cases: impl Strategy<Value = Case>) {
    let config = Config {
        cases: count,
        max_shrink_iters: scaled(60, 500),
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    if let Err(error) = runner.run(&cases, run) {
        panic!("DSA_SEED={seed}: {error}");
    }
}

#[test]
fn any_batch_in_any_layout_is_exact() {
    check_all(seed(71), scaled(400, 300), cases());
}

#[test]
fn any_batch_with_any_options_is_what_they_promise() {
    check_all(seed(72), scaled(400, 300), cases_with_options());
}
