//! Named lists of batches and lengths, used by the tests and the benchmark alike.

/// A batch in which all rows have the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of rows.
    pub rows: usize,
    /// Elements of each row.
    pub len: usize,
    /// Elements to select from each row.
    pub k: usize,
}

/// Largest length of the decode path.
pub const DECODE_LIMIT: usize = 8192;
/// Largest length of the medium path.
pub const MEDIUM_LIMIT: usize = 32_768;

/// Shapes of everyday decoding with k = 2048, one for each path and a few batch sizes.
pub const STANDARD: &[Shape] = &[
    Shape { rows: 1, len: 1500, k: 2048 },
    Shape { rows: 1, len: 8192, k: 2048 },
    Shape { rows: 1, len: 32_768, k: 2048 },
    Shape { rows: 1, len: 131_072, k: 2048 },
    Shape { rows: 8, len: 131_072, k: 2048 },
    Shape { rows: 64, len: 8192, k: 2048 },
    Shape { rows: 64, len: 65_536, k: 2048 },
    Shape { rows: 256, len: 8192, k: 2048 },
];

/// Shapes at the edges of the contract: one element, k of 1 and 4096, k equal to the length.
pub const EDGE: &[Shape] = &[
    Shape { rows: 1, len: 1, k: 1 },
    Shape { rows: 3, len: 2, k: 1 },
    Shape { rows: 2, len: 4096, k: 4096 },
    Shape { rows: 2, len: 4097, k: 4096 },
    Shape { rows: 2, len: 5000, k: 4095 },
    Shape { rows: 2, len: 9000, k: 1 },
    Shape { rows: 2, len: 8200, k: 3 },
    Shape { rows: 1, len: 33_000, k: 1 },
];

/// Shapes with many rows and few elements, and the reverse.
pub const SKINNY: &[Shape] = &[
    Shape { rows: 1000, len: 40, k: 16 },
    Shape { rows: 300, len: 513, k: 512 },
    Shape { rows: 1, len: 1_048_577, k: 2048 },
    Shape { rows: 2, len: 1_500_001, k: 1024 },
];

/// Lengths around every threshold of an operator for `k` over rows of at most `max_len`: around k, around
/// the limits of the paths, empty, negative, and beyond the row (those are clamped).
pub fn threshold_lengths(k: usize, max_len: usize) -> Vec<i32> {
    let mut lengths = vec![0, -1, i32::MIN, 1, 2, 3, 31, 32, 33];
    for limit in [k, DECODE_LIMIT, MEDIUM_LIMIT] {
        lengths.extend([limit - 1, limit, limit + 1].map(|len| len as i32));
    }
    lengths.extend([max_len - 1, max_len, max_len + 1].map(|len| len as i32));
    lengths.push(i32::MAX);
    lengths
}

/// Lengths of a batch that mixes all paths, long and short in turn.
pub fn long_short_long(rows: usize, max_len: usize) -> Vec<i32> {
    let cycle = [max_len, 1500, 6000.min(max_len), 30_000.min(max_len), max_len - max_len / 7, 0, max_len, 1];
    (0..rows).map(|row| cycle[row % cycle.len()] as i32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threshold_lengths_have_the_neighbours_of_every_limit() {
        let lengths = threshold_lengths(2048, 100_000);
        for wanted in [2047, 2048, 2049, 8191, 8192, 8193, 32_767, 32_768, 32_769, 0, -1, 100_001, i32::MAX] {
            assert!(lengths.contains(&wanted), "{wanted}");
        }
    }

    #[test]
    fn a_mixed_batch_repeats_long_after_short() {
        let lengths = long_short_long(16, 131_072);
        assert_eq!(lengths.len(), 16);
        assert!(lengths.windows(3).any(|w| w[0] > 32_768 && w[1] < 8192 || w[1] > 32_768 && w[0] < 8192));
    }
}
