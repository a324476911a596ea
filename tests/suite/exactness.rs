//! The right set on every distribution and every path.

use dsa_kernels::topk::Path;
use dsa_kernels_tests::batch::{Batch, BatchSpec};
use dsa_kernels_tests::data;
use dsa_kernels_tests::distribution::Distribution;
use dsa_kernels_tests::shapes;

use crate::support::{build, check, check_with, device, on_gpu, scaled, seed, selector};

/// Row lengths that take the decode, the medium and the large path, none of them a multiple of 4.
fn path_lengths() -> Vec<usize> {
    scaled(vec![5_003, 12_001, 34_001], vec![3_001, 8_191, 32_767, 65_537, 131_073, 1_000_001])
}

#[test]
fn every_distribution_is_exact_on_every_path() {
    let seed = seed(1);
    let device = device(seed);
    for len in path_lengths() {
        let rows = scaled(1, 4);
        for &distribution in Distribution::ALL {
            check(&device, 2048, BatchSpec::full(distribution, seed, len, rows));
        }
    }
}

#[test]
fn a_batch_of_all_distributions_is_exact() {
    let seed = seed(2);
    let device = device(seed);
    let spec = |len: usize, rows: usize| {
        BatchSpec::full(Distribution::Normal, seed, len, rows).with_distributions(Distribution::ALL)
    };
    for k in [512, 1024] {
        check(&device, k, spec(2_222, scaled(20, 200)));
        check(&device, k, spec(scaled(8_500, 40_000), scaled(20, 100)));
    }
}

#[test]
fn a_crowded_bin_drops_nothing_on_any_path() {
    let seed = seed(3);
    let device = device(seed);
    let crowded = [
        Distribution::AllEqual,
        Distribution::Narrow,
        Distribution::OneHalfBin,
        Distribution::SortedUp,
        Distribution::TwoValues,
        Distribution::Uniform,
    ];
    // More elements in one bin than any candidate buffer holds.
    for len in scaled(vec![8_192, 32_768], vec![8_192, 32_768, 200_000, 1_000_000]) {
        for distribution in crowded {
            check(&device, 1, BatchSpec::full(distribution, seed, len, 1));
            check(&device, 2048, BatchSpec::full(distribution, seed, len, 1));
            check(&device, 4096, BatchSpec::full(distribution, seed, len, 1));
        }
    }
    for distribution in crowded {
        check(&device, 2048, BatchSpec::full(distribution, seed, scaled(50_000, 3_000_000), 1));
    }
}

/// A batch whose rows all are `row`.
fn constant_rows(row: &[f32], rows: usize) -> Batch {
    let mut batch = build(BatchSpec::full(Distribution::AllEqual, 0, row.len(), rows));
    batch.scores.chunks_exact_mut(row.len()).for_each(|to| to.copy_from_slice(row));
    batch
}

fn check_rows(k: usize, row: &[f32], path: Path) {
    let batch = constant_rows(row, 2);
    let mut selector = selector(&device(4), k, &batch.spec, |builder| builder.path(path));
    selector.check(&batch).unwrap_or_else(|error| panic!("{} elements, {path:?}: {error}", row.len()));
}

#[test]
fn equal_scores_that_crowd_into_a_bin_are_told_from_nearly_equal_ones() {
    // 1,000 larger scores, `crowd` of about 1, smaller ones: at the borders of what is ranked and of what is compared at
    // once. The first, the last or all of the crowd are a little larger than the others.
    for crowd in [256, 257, 2_048, 2_049, 5_000] {
        for k in [1_001, 1_200, 2_048] {
            for larger in [0..0, 0..1, crowd - 1..crowd, 0..crowd] {
                let mut row = vec![-1.0; 8_000];
                for (i, score) in row[..1_000 + crowd].iter_mut().enumerate() {
                    let in_crowd = i.checked_sub(1_000);
                    *score = match in_crowd {
                        None => 2.0 + i as f32,
                        Some(number) if larger.contains(&number) => 1.0_f32.next_up(),
                        Some(_) => 1.0,
                    };
                }
                // Spread over the row: the step has no divisor in common with its length.
                let spread: Vec<f32> = (0..row.len()).map(|i| row[i * 3_001 % row.len()]).collect();
                check_rows(k, &spread, Path::Auto);
            }
        }
    }
}

const SELECTING: [Path; 3] = [Path::Decode, Path::Medium, Path::Large];

#[test]
fn a_last_vector_of_minus_infinities_adds_no_elements() {
    for path in SELECTING {
        for len in [65, 66, 67, 4_097, 4_098, 4_099] {
            check_rows(64, &vec![f32::NEG_INFINITY; len], path);
            check_rows(64, &vec![f32::NAN; len], path);
        }
    }
}

#[test]
fn nan_ranks_below_minus_infinity_on_every_path() {
    // Fewer numbers than k: the rest must be -inf before any NaN, whatever the NaN's sign and payload.
    let mut row: Vec<f32> = (0..3_000)
        .map(|i| match i % 5 {
            0 => f32::from_bits(0xff80_0001 + i),
            1 => f32::from_bits(0x7fff_ffff - i),
            _ => f32::NEG_INFINITY,
        })
        .collect();
    row[1234] = f32::INFINITY;
    row[99] = f32::MIN;
    row[2999] = -0.0;
    for path in SELECTING {
        for k in [3, 4, 1000, 1803, 1804, 2500] {
            check_rows(k, &row, path);
        }
    }
}

#[test]
fn values_at_the_edges_of_half_precision_are_told_apart() {
    // All of these share an fp16 value with their neighbours: beyond its range, between its numbers, below
    // its smallest.
    let edges = [
        65_504.0,
        65_519.9,
        65_520.0,
        1e5,
        3e38,
        f32::MAX,
        f32::INFINITY,
        1.0,
        1.000_000_1,
        1.000_4,
        1e-8,
        2e-8,
        1e-45,
        0.0,
    ];
    let row: Vec<f32> = (0..3_003)
        .map(|i| {
            let value = edges[i % edges.len()];
            let value = f32::from_bits(value.to_bits() - u32::from(i % 3 == 0 && value > 0.0));
            if i % 2 == 0 { value } else { -value }
        })
        .collect();
    for path in SELECTING {
        for k in [1, 100, 1000, 1500, 2000, 3002] {
            check_rows(k, &row, path);
        }
    }
}

#[test]
fn the_real_rows_are_exact_in_one_batch() {
    let rows: Vec<_> = data::rows().unwrap().iter().filter(|row| on_gpu() || row.length <= 70_000).collect();
    let max_len = rows.iter().map(|row| row.columns.len()).max().unwrap();
    let lengths = rows.iter().map(|row| row.length as i32).collect();
    let mut batch = build(BatchSpec::new(Distribution::Real, 0, max_len, lengths));
    for (row, real) in rows.iter().enumerate() {
        // The columns behind the valid prefix are real scores that would change the answer.
        batch.scores[row * max_len..][..real.columns.len()].copy_from_slice(&real.columns);
    }
    let mut selector = selector(&device(5), data::K, &batch.spec, |builder| builder);
    selector.check(&batch).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn named_shapes_are_exact() {
    let seed = seed(6);
    let device = device(seed);
    let small = |shape: &&shapes::Shape| on_gpu() || shape.rows * shape.len <= 70_000;
    let lists = [shapes::EDGE, shapes::SKINNY, shapes::STANDARD];
    let shapes: Vec<_> = lists.into_iter().flatten().filter(small).collect();
    assert!(shapes.len() >= 10, "{shapes:?}");
    for shape in shapes {
        check(&device, shape.k, BatchSpec::full(Distribution::Normal, seed, shape.len, shape.rows));
    }
}

#[test]
fn more_than_a_million_elements_are_exact() {
    let seed = seed(7);
    let len = 1_048_577;
    check(&device(seed), 2048, BatchSpec::full(Distribution::Normal, seed, len, scaled(1, 5)));
    if on_gpu() {
        for path in [Path::Medium, Path::Large] {
            let spec = BatchSpec::full(Distribution::Quantised, seed, len + 2, 2);
            check_with(&device(seed), 1024, spec, |builder| builder.path(path));
        }
    }
}
