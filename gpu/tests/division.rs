//! Which block works on which part of which row, on the emulator.

mod common;

use std::sync::Mutex;

use dsa_kernels_gpu::topk::bins::THREADS;
use dsa_kernels_gpu::topk::division::{Desk, Part};
use dsa_kernels_gpu::topk::prefix::Sums;
use dsa_kernels_gpu::topk::stream::{self, TOGETHER};
use dsa_kernels_gpu::topk::{MIN_SLICE, RESIDENT_PLACES};
use dsa_simt::emu::{Launch, Memory, run_closure};
use dsa_simt::{Carve, block, thread};
use proptest::collection;
use proptest::prelude::*;

/// The parts that `blocks` blocks find on their desks, one after the other, each with its block.
fn parts(lengths: &[i32], blocks: u32) -> Vec<(u32, Part)> {
    let memory = Memory::new();
    let batch = common::batch(&memory, lengths);
    let found: Mutex<Vec<(u32, Part)>> = Mutex::default();
    let mut launch = Launch::new(blocks, THREADS);
    launch.shared_bytes = 4 * (Desk::WORDS + Sums::WORDS);
    run_closure(&memory, "division", &launch, || {
        let mut carve = Carve::dynamic();
        // SAFETY: the launch has that much shared memory; barriers separate its uses.
        let (desk, sums) = unsafe { (Desk::carve(&mut carve), Sums::carve(&mut carve)) };
        desk.first(&batch, desk.prepare(&batch), sums);
        loop {
            block::sync();
            if !desk.has_part() {
                return;
            }
            if thread::index() == 0 {
                found.lock().unwrap().push((block::index(), desk.part()));
            }
            if !desk.has_next(&batch) {
                return;
            }
            block::sync();
            desk.next(&batch);
        }
    })
    .unwrap_or_else(|fault| panic!("{fault}"));
    found.into_inner().unwrap()
}

/// Parts of the block that has most.
fn most_parts(lengths: &[i32], blocks: u32) -> usize {
    let mut counts = vec![0; blocks as usize];
    for (block, _) in parts(lengths, blocks) {
        counts[block as usize] += 1;
    }
    counts.into_iter().max().unwrap_or(0)
}

/// Slices of each row that `blocks` blocks find on their desks, checked to be complete: each slice of each row once.
fn slices(lengths: &[i32], blocks: u32) -> Vec<u32> {
    let mut found: Vec<Part> = parts(lengths, blocks).into_iter().map(|(_, part)| part).collect();
    found.sort_unstable_by_key(|part| (part.row, part.number));
    let mut next = found.iter();
    let mut slices = Vec::new();
    for (row, &length) in lengths.iter().enumerate() {
        let part = *next.clone().next().unwrap_or_else(|| panic!("nobody has row {row}: {lengths:?}"));
        for number in 0..part.slices {
            let part = next.next().unwrap();
            assert_eq!((part.row, part.number), (row as u32, number), "{lengths:?}");
            assert_eq!(part.len, length.max(0).cast_unsigned(), "row {row} of {lengths:?}");
        }
        slices.push(part.slices);
    }
    assert!(next.next().is_none(), "a part too many: {lengths:?}");
    slices
}

#[test]
fn rows_of_equal_length_have_equally_many_slices() {
    let most = |len: i32| len.cast_unsigned().div_ceil(MIN_SLICE);
    for (rows, len, blocks) in [
        (1, 131_072, 264),
        (8, 131_072, 128),
        (8, 524_288, 132),
        (64, 131_072, 264),
        (132, 131_072, 264),
        (133, 131_072, 264),
        (3, i32::MAX, 512),
    ] {
        let expected = (blocks / rows as u32).min(most(len));
        assert_eq!(slices(&vec![len; rows], blocks), vec![expected; rows], "{rows} x {len}");
    }
}

#[test]
fn rows_of_different_length_use_all_blocks() {
    for (lengths, blocks) in [(vec![1 << 20, 1 << 19, 1 << 18], 100), (vec![131_072, 30_000], 7)] {
        assert_eq!(slices(&lengths, blocks).iter().sum::<u32>(), blocks, "{lengths:?}");
    }
}

/// A number of blocks and the lengths of fewer rows.
fn batches() -> impl Strategy<Value = (u32, Vec<i32>)> {
    let length = prop_oneof![0..3_000, 0..40_000, 0..300_000, 0..20_000_000, 0..=i32::MAX];
    (3..200_u32)
        .prop_flat_map(move |blocks| (Just(blocks), collection::vec(length.clone(), 2..blocks as usize)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slices_of_a_row_reach_its_end_and_are_not_much_longer_than_that((vectors, slices) in vectors_and_slices()) {
        let share = stream::share(vectors, slices);
        prop_assert!(share.is_multiple_of(TOGETHER), "{share}");
        prop_assert!(u64::from(share) * u64::from(slices) >= u64::from(vectors), "{share} is too few");
        let least = vectors.div_ceil(slices);
        prop_assert!(share < least + (least >> 18) + TOGETHER + 1, "{share} where {least} is enough");
    }
}

/// Vectors of a row and slices of it, at and around multiples, too.
fn vectors_and_slices() -> impl Strategy<Value = (u32, u32)> {
    (1..=512_u32).prop_flat_map(|slices| {
        let most = 1 << 29;
        let multiple = (1..most / slices).prop_flat_map(move |share| share * slices - 1..=share * slices + 1);
        (prop_oneof![1..100_000_u32, 1..most, multiple], Just(slices))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_slice_of_every_row_has_one_block_whatever_the_lengths((blocks, lengths) in batches()) {
        // Short rows may share a block, slices do not.
        let is_long = |length: i32| length.cast_unsigned() > RESIDENT_PLACES;
        let found = slices(&lengths, blocks);
        let of_long: u32 = lengths.iter().zip(&found).filter(|(len, _)| is_long(**len)).map(|(_, slices)| slices).sum();
        prop_assert!(of_long <= blocks, "{found:?}");
    }
}

#[test]
fn blocks_that_short_rows_do_not_need_go_to_the_long_ones() {
    let mut lengths = [4_000; 129];
    lengths[77] = 160_000;
    let mut expected = [1; 129];
    expected[77] = 160_000_u32.div_ceil(MIN_SLICE);
    assert_eq!(slices(&lengths, 264), expected);
    assert_eq!(slices(&[131_072, 1_500, 6_000, 30_000], 16), [11, 1, 1, 4]);
}

#[test]
fn short_rows_share_blocks_if_a_long_one_can_use_them() {
    let mut lengths = [4_000; 129];
    assert_eq!((slices(&lengths, 132), most_parts(&lengths, 132)), (vec![1; 129], 1));
    // As many slices as it is worth, or as blocks are left when three short rows share one.
    for (long, slices, parts) in [(160_000, 160_000_u32.div_ceil(MIN_SLICE), 2), (1 << 20, 89, 3)] {
        lengths[77] = long;
        assert_eq!(self::slices(&lengths, 132)[77], slices, "{long}");
        assert_eq!(most_parts(&lengths, 132), parts, "{long}");
    }
    // The same with few blocks, for every number of short rows.
    for short in 0..7 {
        let mut lengths = vec![3_000; short];
        lengths.push(60_000);
        assert_eq!(slices(&lengths, 8)[short] as usize, 8 - short.div_ceil(3), "{short}");
        assert!(most_parts(&lengths, 8) <= 3, "{short}");
    }
}

#[test]
fn rows_that_fit_in_registers_are_never_cut() {
    let limit = RESIDENT_PLACES as i32;
    assert_eq!(slices(&[limit, limit + 1, 0, -1], 64), [1, RESIDENT_PLACES / MIN_SLICE + 1, 1, 1]);
}

#[test]
fn with_as_many_rows_as_blocks_each_block_takes_whole_rows() {
    assert_eq!(slices(&[131_072; 7], 7), [1; 7]);
    assert_eq!(slices(&[131_072, 5, 1 << 20, 0, 3_000], 2), [1; 5]);
}

#[test]
fn the_longest_rows_there_can_be_do_not_overflow() {
    assert_eq!(slices(&[i32::MAX], 512), [512]);
    let all = slices(&[i32::MAX, 20_000, i32::MAX, 40_000], 512);
    assert!(all.iter().sum::<u32>() <= 512 && all[0] > 250 && all[2] > 250, "{all:?}");
}
