//! What the tests of the compressor share.

use dsa_kernels::Device;
use dsa_kernels::compress::{CompressorBuilder, NumberType};
use dsa_kernels_gpu::compress::CONFIGURATIONS;
use dsa_kernels_gpu::compress::configuration::{Configuration, Mode};
use dsa_kernels_tests::compress::batch::{Expected, Spec, Step, types};
use dsa_kernels_tests::compress::harness::{Harness, Launch};
use dsa_kernels_tests::compress::reference::Shape;
use dsa_kernels_tests::random::Random;

/// Windows of 128 tokens with 128 channels.
pub(crate) const LONG: Shape = Shape {
    ratio: 128,
    head_dim: 128,
    kv: NumberType::Bf16,
    state: NumberType::F32,
    output: NumberType::Bf16,
};
/// Windows of 4 tokens that overlap, with 128 channels.
pub(crate) const SHORT: Shape = Shape { ratio: 4, ..LONG };

/// The entries of the table that do `mode` with windows of `ratio` tokens.
pub(crate) fn configurations(mode: Mode, ratio: usize) -> Vec<&'static Configuration> {
    let is_one = |c: &&Configuration| c.mode == mode && c.ratio as usize == ratio;
    let found: Vec<_> = CONFIGURATIONS.iter().filter(is_one).collect();
    assert!(!found.is_empty(), "there are kernels for {mode:?} with windows of {ratio}");
    found
}

/// The shape of an entry of the table.
pub(crate) fn shape_of(configuration: &Configuration, head_dim: usize, output: NumberType) -> Shape {
    let Configuration { kv, state, ratio, .. } = *configuration;
    Shape { ratio: ratio as usize, head_dim, kv, state, output }
}

/// Number `number` of the four pairs of types, with either output, so that a test that counts up meets them all.
pub(crate) fn with_types(shape: Shape, number: usize) -> Shape {
    let kind = |bit: usize| if number >> bit & 1 == 0 { NumberType::Bf16 } else { NumberType::F32 };
    Shape { state: kind(0), kv: kind(1), output: kind(2), ..shape }
}

/// Numbers of warps that decode has kernels for, the most first.
pub(crate) fn warps(ratio: usize) -> Vec<u32> {
    let mut warps: Vec<_> = configurations(Mode::Decode, ratio).iter().map(|c| c.warps).collect();
    warps.sort_unstable_by(|a, b| b.cmp(a));
    warps.dedup();
    warps
}

/// An operator with requests.
pub(crate) fn harness(
    device: &Device,
    spec: Spec,
    configure: impl FnOnce(CompressorBuilder) -> CompressorBuilder,
) -> Harness {
    Harness::new(device, spec, configure).unwrap_or_else(|error| panic!("{spec:?}: {error}"))
}

/// Runs a step and checks everything.
pub(crate) fn run(harness: &mut Harness, launch: Launch, step: &Step) -> Expected {
    harness.run(launch, step).unwrap_or_else(|error| {
        let spec = &harness.requests.spec;
        let Step { kv_lens, cu_new, cu_out, .. } = step;
        let entry = match launch {
            Launch::Decode(_) => harness.compressor.plan().decode_entry(kv_lens.len() as u32),
            Launch::Prefill => harness.compressor.plan().prefill_entry(),
        };
        panic!(
            "{error}\n{entry}, {}, {launch:?}, lengths {kv_lens:?}, new tokens {cu_new:?}, rows {cu_out:?}\n{spec:?}",
            types(&spec.shape)
        )
    })
}

/// Makes a step of these lengths and counts, runs it and checks everything.
pub(crate) fn check(harness: &mut Harness, launch: Launch, lens: &[usize], counts: &[usize]) -> Expected {
    let step = harness.requests.step(lens, counts);
    let expected = run(harness, launch, &step);
    assert_eq!(expected.report, None, "the step was a good one");
    expected
}

/// Lengths and counts of a random step: some requests go on from `lens`, some are others of any length.
pub(crate) fn random_step(
    random: &mut Random,
    spec: &Spec,
    lens: &[usize],
    max_new: usize,
) -> (Vec<usize>, Vec<usize>) {
    let mut of_request = |&len: &usize| {
        let count = random.below(max_new + 1);
        let start = match random.below(8) {
            0 => random.below(spec.max_len - count + 1),
            // A request that is at the end goes back to its beginning.
            _ if len + count > spec.max_len => 0,
            // Draft tokens were rejected.
            1 | 2 => len - random.below(max_new.min(len) + 1),
            _ => len,
        };
        (start + count, count)
    };
    lens.iter().map(&mut of_request).unzip()
}
