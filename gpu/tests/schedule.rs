//! The schedule's decisions, on the emulator.

mod common;

use std::sync::Mutex;

use dsa_kernels_gpu::topk::origin::{Problem, THREADS};
use dsa_kernels_gpu::topk::schedule::{self, Desk, Survey};
use dsa_simt::emu::{Launch, Memory, run_closure};
use dsa_simt::{Carve, block, thread};

/// The team size for rows of these lengths, as every thread of a block computes it.
fn team_size(lengths: &[i32], blocks: u32, kept: u32) -> u32 {
    let memory = Memory::new();
    let batch = common::batch(&memory, lengths);
    let problem = Problem { batch, decode_max_len: 8192, medium_max_len: 32_768 };
    let sizes = Mutex::new(Vec::new());
    let mut launch = Launch::new(1, THREADS);
    launch.shared_bytes = 4 * schedule::words(THREADS);
    run_closure(&memory, "team_size", &launch, || {
        let mut carve = Carve::dynamic();
        // SAFETY: the launch has that much shared memory, and the barrier below ends its use.
        let desk = unsafe { Desk::<THREADS>::carve(&mut carve) };
        let survey = Survey::take(&problem, desk);
        block::sync();
        let size = survey.team_size(blocks, kept);
        sizes.lock().unwrap().push((thread::index(), size));
    })
    .unwrap_or_else(|fault| panic!("{fault}"));
    let sizes = sizes.into_inner().unwrap();
    assert_eq!(sizes.len(), THREADS as usize);
    assert!(sizes.iter().all(|&(_, size)| size == sizes[0].1), "threads disagree: {sizes:?}");
    sizes[0].1
}

#[test]
fn one_long_row_gets_all_blocks_that_its_length_is_worth() {
    assert_eq!(team_size(&[131_072], 132, 40_000), 32);
    assert_eq!(team_size(&[1 << 20], 132, 40_000), 132);
}

#[test]
fn short_rows_do_not_count() {
    assert_eq!(team_size(&[100, 131_072, -1, 32_768], 132, 40_000), 32);
}

#[test]
fn rows_share_the_blocks_in_one_wave_while_slices_are_large() {
    assert_eq!(team_size(&[131_072; 8], 132, 40_000), 16);
    assert_eq!(team_size(&[131_072; 64], 132, 40_000), 2);
}

#[test]
fn the_longest_rows_there_can_be_are_shared_as_others_are() {
    for length in [i32::MAX, i32::MAX - 20_000] {
        for kept in [0, 11_000, 44_000] {
            assert_eq!(team_size(&[length; 2], 132, kept), 66, "length {length}, kept {kept}");
        }
    }
}
