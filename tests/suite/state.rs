//! The words of device memory that an operator owns from launch to launch.

use dsa_kernels::topk::{Limits, Order, Path, Plan, ScoreType, Ties};
use dsa_kernels::{Buffer, Device};
use dsa_kernels_tests::backend;
use dsa_kernels_tests::batch::BatchSpec;
use dsa_kernels_tests::distribution::Distribution;
use dsa_kernels_tests::harness::Placed;

use crate::support::{assert_teams_worked, build, device, seed};

#[test]
fn every_launch_leaves_the_state_zero() {
    let seed = seed(91);
    let device = device(seed);
    // As many multiprocessors as the emulator has: five long rows are more than the teams.
    for path in [Path::Auto, Path::Large] {
        let limits = Limits { max_rows: 10, max_len: 80_000, max_sms: Some(4), path, ..Limits::of(2048) };
        launches_leave_the_state_zero(&device, seed, limits);
    }
}

#[test]
fn every_launch_with_options_leaves_the_state_zero() {
    let seed = seed(92);
    let device = device(seed);
    for scores in [ScoreType::F32, ScoreType::Bf16] {
        let limits = Limits {
            max_rows: 10,
            max_len: 80_000,
            max_sms: Some(4),
            scores,
            ties: Ties::LowestIndex,
            order: Order::AscendingIndex,
            values: true,
            ..Limits::of(2048)
        };
        launches_leave_the_state_zero(&device, seed, limits);
    }
}

fn launches_leave_the_state_zero(device: &Device, seed: u64, limits: Limits) {
    let stream = device.stream().unwrap();
    let plan = Plan::new(limits, device.properties()).unwrap();
    let kernel = device.load_kernel(&backend::topk().unwrap(), plan.entry(limits.max_rows)).unwrap();
    let state: Buffer<u32> = device.alloc(plan.state_bytes() / 4).unwrap();
    state.fill_bytes(0).unwrap();
    let workspace: Buffer<u8> = device.alloc(plan.workspace_bytes().max(1)).unwrap();
    let batches: [&[i32]; 9] = [
        &[80_000; 5],
        &[80_000],
        &[],
        &[100, 80_000, 2_500, 79_999, 0, 33_000, 8_500, 40_000, -1, 50_000],
        &[-1; 10],
        &[5_000; 10],
        &[80_000, 40_000],
        &[20_000; 6],
        &[33_000, 1, 80_000, 1, 80_000, 1, 80_000, 1, 80_000, 1],
    ];
    for lengths in batches {
        let spec = BatchSpec::new(Distribution::Normal, seed, 80_000, lengths.to_vec());
        let spec = spec.with_distributions(&[Distribution::Normal, Distribution::Quantised]);
        let batch = build(spec.with_scores(limits.scores));
        let placed = Placed::new(device, &batch, &limits).unwrap();
        let args = placed.args();
        let slots = plan.slots(args, state.address(), workspace.address()).unwrap();
        // SAFETY: the slots are the plan's; the buffers are as large as it asks for, and live until the
        // stream is synchronised.
        unsafe { kernel.launch(&stream, &plan.launch_config(args.rows), &slots) }.unwrap();
        stream.synchronize().unwrap();
        placed.verify(&batch, &limits).unwrap_or_else(|error| panic!("{error}"));
        let left = state.download().unwrap();
        let dirty: Vec<_> = left.iter().enumerate().filter(|(_, word)| **word != 0).take(8).collect();
        assert!(
            dirty.is_empty(),
            "after rows of {lengths:?} these words of the state are not zero: {dirty:?}"
        );
        if lengths == [80_000; 5] && limits.path == Path::Large {
            assert_teams_worked(device);
        }
    }
}
