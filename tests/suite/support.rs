//! What the tests of the suite share.

use dsa_kernels::Device;
use dsa_kernels::topk::{TopK, TopKBuilder};
use dsa_kernels_tests::backend;
use dsa_kernels_tests::batch::{Batch, BatchSpec};
use dsa_kernels_tests::harness::Selector;

/// The device that `DSA_BACKEND` names; an emulator is scheduled from `seed`.
pub(crate) fn device(seed: u64) -> Device {
    backend::device(seed).unwrap_or_else(|error| panic!("{error}"))
}

/// Whether the suite runs on a GPU.
pub(crate) fn on_gpu() -> bool {
    backend::chosen().is_ok_and(|choice| choice == backend::Choice::Gpu)
}

/// A size for the emulator, and one for GPUs.
pub(crate) fn scaled<T>(emulator: T, gpu: T) -> T {
    if on_gpu() { gpu } else { emulator }
}

/// The seed of everything random in a test: `DSA_SEED`, or `default`. Printed when the test fails.
pub(crate) fn seed(default: u64) -> u64 {
    let seed = match std::env::var("DSA_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("DSA_SEED is {text:?}; set it to a number")),
        Err(_) => default,
    };
    eprintln!("DSA_SEED={seed}");
    seed
}

/// An operator for batches made like `spec`, on a dirty workspace.
pub(crate) fn selector(
    device: &Device,
    k: usize,
    spec: &BatchSpec,
    configure: impl FnOnce(TopKBuilder) -> TopKBuilder,
) -> Selector {
    let builder = TopK::builder(k as u32)
        .max_rows(spec.rows() as u32)
        .max_len(spec.max_len as u32)
        .next_n(spec.next_n as u32)
        .compress_ratio(spec.compress_ratio as u32)
        .scores(spec.scores);
    let dirt = (spec.seed as u8).wrapping_mul(37) | 1;
    Selector::new(device, configure(builder), k, dirt).unwrap_or_else(|error| panic!("k {k}: {error}"))
}

/// Makes a batch.
pub(crate) fn build(spec: BatchSpec) -> Batch {
    spec.build().unwrap_or_else(|error| panic!("{error}"))
}

/// Requires that blocks of the emulator merged histograms since the last call: only a team of several blocks
/// does so, with hundreds of atomic operations per row and round; the queue of rows needs a few.
pub(crate) fn assert_teams_worked(device: &Device) {
    if let Some(statistics) = device.emulator_statistics() {
        assert!(statistics.global_atomics > 1000, "no team of several blocks: {statistics:?}");
    }
}

/// Requires that blocks of the emulator shared a row in slices since the last call: each slice takes two atomic
/// operations on the row's state.
pub(crate) fn assert_slices_worked(device: &Device) {
    if let Some(statistics) = device.emulator_statistics() {
        assert!(statistics.global_atomics >= 4, "no row in several slices: {statistics:?}");
    }
}

/// Runs one batch through a new operator and checks it.
pub(crate) fn check(device: &Device, k: usize, spec: BatchSpec) {
    check_with(device, k, spec, |builder| builder);
}

/// As [`check`], with options of the operator.
pub(crate) fn check_with(
    device: &Device,
    k: usize,
    spec: BatchSpec,
    configure: impl FnOnce(TopKBuilder) -> TopKBuilder,
) {
    let mut selector = selector(device, k, &spec, configure);
    let backend = device.properties().backend;
    let plan = format!("{:?}", selector.topk.plan());
    if let Err(error) = selector.check(&build(spec)) {
        panic!("{error}\nbackend {backend}, {plan}");
    }
}
