//! The right answer of a row, found by sorting on the CPU.
//!
//! Nothing here is shared with the kernels: values are compared as numbers, not as the integer keys the
//! kernels use, so a mistake in the key order cannot hide. The rules are those of the contract: NaN ranks
//! below every number (below -inf), all NaNs are equal, -0.0 equals +0.0, any choice among equals is right.

use std::cmp::Ordering;
use std::fmt;

/// What fills the output after a row's last index.
pub const PADDING: i32 = -1;

/// The value that stands for `value` and all values equal to it: one NaN, and +0.0 for both zeros.
pub fn canonical(value: f32) -> f32 {
    if value.is_nan() {
        f32::NAN
    } else if value == 0.0 {
        0.0
    } else {
        value
    }
}

/// Order of scores: greater is selected first; NaN is below -inf and equal to NaN.
pub fn compare(a: f32, b: f32) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
    }
}

/// The elements of a row that the contract allows to be read: `0..length` clamped to `0..=max_len`.
pub fn valid_length(length: i32, max_len: usize) -> usize {
    usize::try_from(length).unwrap_or(0).min(max_len)
}

/// The length of row `row` in the form for multi-token prediction: rows `b * next_n ..` belong to sequence
/// `b`, and the j-th of them sees `seq_lens[b] - next_n + 1 + j` tokens, divided by `compress_ratio`
/// (rounded down). Negative where the sequence is too short.
pub fn sequence_length(seq_lens: &[i32], next_n: usize, compress_ratio: usize, row: usize) -> i32 {
    let tokens = i64::from(seq_lens[row / next_n]) - next_n as i64 + 1 + (row % next_n) as i64;
    tokens.max(0).div_euclid(compress_ratio as i64).min(i64::from(i32::MAX)) as i32
}

/// Indices of the `k` largest of `scores` (all of them when there are fewer), largest first, lowest index
/// first among equals.
pub fn top_indices(scores: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<(f32, usize)> = scores.iter().map(|&v| canonical(v)).zip(0..).collect();
    let descending = |a: &(f32, usize), b: &(f32, usize)| compare(b.0, a.0).then(a.1.cmp(&b.1));
    if k < order.len() {
        order.select_nth_unstable_by(k, descending);
        order.truncate(k);
    }
    order.sort_unstable_by(descending);
    order.into_iter().map(|(_, index)| index).collect()
}

/// The k-th largest of `scores` and how many are equal to it; `None` when there are at most `k`.
pub fn threshold(scores: &[f32], k: usize) -> Option<(f32, usize)> {
    if scores.len() <= k || k == 0 {
        return None;
    }
    let kth = scores[*top_indices(scores, k).last()?];
    let ties = scores.iter().filter(|&&v| compare(v, kth) == Ordering::Equal).count();
    Some((canonical(kth), ties))
}

/// Checks the output of one row.
///
/// `scores` is the valid prefix of the row and `out` its `k` output words. Right is: `min(k, len)` distinct
/// indices in `0..len` whose canonical values are, bit for bit, the largest of the prefix, then only
/// [`PADDING`].
///
/// # Errors
/// The first word that is wrong, with what was expected there.
pub fn check_row(scores: &[f32], out: &[i32]) -> Result<(), RowError> {
    let wanted = out.len().min(scores.len());
    let mut seen = vec![false; scores.len()];
    for (position, &word) in out.iter().enumerate() {
        if position >= wanted {
            if word != PADDING {
                return Err(RowError {
                    position,
                    fault: RowFault::NotPadding { got: word, selected: wanted },
                });
            }
            continue;
        }
        let index = usize::try_from(word).ok().filter(|&index| index < scores.len());
        let Some(index) = index else {
            return Err(RowError {
                position,
                fault: RowFault::OutsideRow { got: word, length: scores.len() },
            });
        };
        if std::mem::replace(&mut seen[index], true) {
            return Err(RowError { position, fault: RowFault::Twice { index } });
        }
    }
    if wanted == scores.len() {
        return Ok(()); // every element is selected
    }
    let expected = top_indices(scores, wanted);
    let selected = out[..wanted].iter().map(|&word| word as usize);
    if multiset(scores, selected) == multiset(scores, expected.iter().copied()) {
        return Ok(());
    }
    Err(first_difference(scores, &out[..wanted], &expected, &seen))
}

/// The first selected value that is too small, or else a larger one that is missing. `selected` are distinct
/// indices of the row with other values than `expected`; `seen` tells which indices are selected.
fn first_difference(scores: &[f32], selected: &[i32], expected: &[usize], seen: &[bool]) -> RowError {
    let missing =
        *expected.iter().find(|&&index| !seen[index]).expect("the sets differ and are equally large");
    let kth = scores[*expected.last().expect("an empty selection does not differ")];
    let too_small = |&word: &i32| compare(scores[word as usize], kth) == Ordering::Less;
    match selected.iter().position(too_small) {
        Some(position) => {
            let index = selected[position] as usize;
            let fault =
                RowFault::TooSmall { index, value: scores[index], missing, expected: scores[missing], kth };
            RowError { position, fault }
        }
        None => RowError {
            position: selected.len() - 1,
            fault: RowFault::Missing { missing, expected: scores[missing], kth },
        },
    }
}

/// The canonical bit patterns of the selected values, sorted.
pub fn multiset(scores: &[f32], indices: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut bits: Vec<u32> = indices.map(|index| canonical(scores[index]).to_bits()).collect();
    bits.sort_unstable();
    bits
}

/// Why the output of a row is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct RowError {
    /// The first wrong word of the row's output.
    pub position: usize,
    /// What is wrong with it.
    pub fault: RowFault,
}

/// What is wrong with one word of the output.
#[derive(Clone, Debug, PartialEq)]
pub enum RowFault {
    /// A word after the last selected index is not [`PADDING`].
    NotPadding {
        /// The word.
        got: i32,
        /// Number of indices the row must have.
        selected: usize,
    },
    /// Not an index of the valid prefix.
    OutsideRow {
        /// The word.
        got: i32,
        /// Length of the valid prefix.
        length: usize,
    },
    /// The index occurs before.
    Twice {
        /// The index.
        index: usize,
    },
    /// The value is smaller than the k-th largest.
    TooSmall {
        /// The index found.
        index: usize,
        /// Its value.
        value: f32,
        /// An index that should have been there.
        missing: usize,
        /// Its value.
        expected: f32,
        /// The k-th largest value.
        kth: f32,
    },
    /// A value above the k-th largest is not among the selected.
    Missing {
        /// Its index.
        missing: usize,
        /// The value.
        expected: f32,
        /// The k-th largest value.
        kth: f32,
    },
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.position;
        match self.fault {
            RowFault::NotPadding { got, selected } => {
                write!(f, "word {position}: expected {PADDING} after {selected} selected indices, got {got}")
            }
            RowFault::OutsideRow { got, length } => {
                write!(f, "word {position}: expected an index in 0..{length}, got {got} ({got:#010x})")
            }
            RowFault::Twice { index } => {
                write!(f, "word {position}: expected a new index, got {index} a second time")
            }
            RowFault::TooSmall { index, value, missing, expected, kth } => write!(
                f,
                "word {position}: got index {index} with value {value:e} ({:#010x}), below the k-th largest {kth:e}; \
                 expected for instance index {missing} with value {expected:e} ({:#010x})",
                value.to_bits(),
                expected.to_bits(),
            ),
            RowFault::Missing { missing, expected, kth } => write!(
                f,
                "words 0..={position}: expected index {missing} with value {expected:e} ({:#010x}), above the k-th \
                 largest {kth:e}; it is not there",
                expected.to_bits(),
            ),
        }
    }
}

impl std::error::Error for RowError {}

#[cfg(test)]
mod tests {
    use super::*;

    const NAN_NEGATIVE: f32 = f32::from_bits(0xffc0_0001);

    #[test]
    fn nan_ranks_below_minus_infinity_and_zeros_are_equal() {
        assert_eq!(compare(f32::NEG_INFINITY, f32::NAN), Ordering::Greater);
        assert_eq!(compare(f32::NEG_INFINITY, NAN_NEGATIVE), Ordering::Greater);
        assert_eq!(compare(f32::NAN, NAN_NEGATIVE), Ordering::Equal);
        assert_eq!(compare(-0.0, 0.0), Ordering::Equal);
        assert_eq!(compare(f32::from_bits(1), 0.0), Ordering::Greater);
    }

    #[test]
    fn a_right_answer_in_any_order_passes() {
        let scores = [1.0, f32::NAN, 3.0, f32::NEG_INFINITY, 2.0, 3.0];
        assert_eq!(top_indices(&scores, 3), [2, 5, 4]);
        assert_eq!(check_row(&scores, &[4, 5, 2]), Ok(()));
        assert_eq!(check_row(&scores, &[4, 5, 2, 3, 0]), Ok(()));
        assert_eq!(check_row(&scores[..2], &[1, 0, -1]), Ok(()));
        assert_eq!(check_row(&[], &[-1, -1]), Ok(()));
    }

    #[test]
    fn either_zero_is_right_at_the_threshold() {
        let scores = [-0.0, 0.0, -1.0];
        assert_eq!(check_row(&scores, &[0]), Ok(()));
        assert_eq!(check_row(&scores, &[1]), Ok(()));
        assert_eq!(threshold(&scores, 1), Some((0.0, 2)));
    }

    #[test]
    fn every_kind_of_wrong_answer_is_reported_with_its_place() {
        let scores = [5.0, 4.0, 3.0, 2.0, f32::NAN];
        let fault =
            |out: &[i32]| check_row(&scores, out).map_err(|e| (e.position, e.to_string())).unwrap_err();
        let says = |out: &[i32], position: usize, words: &[&str]| {
            let (at, text) = fault(out);
            assert_eq!(at, position, "{text}");
            for word in words {
                assert!(text.contains(word), "{text:?} lacks {word:?}");
            }
        };
        says(&[0, 5], 1, &["0..5", "got 5"]);
        says(&[-1, 0], 0, &["got -1"]);
        says(&[0, 0], 1, &["got 0 a second time"]);
        says(&[0, 2], 1, &["index 2", "expected for instance index 1"]);
        says(&[0, 4], 1, &["index 4", "NaN", "index 1"]);
        says(&[0, 1, 2, 3, 4, 7], 5, &["expected -1", "got 7"]);
        says(&[4, 0, 1, 2], 0, &["index 3"]);
    }

    #[test]
    fn a_missing_larger_value_is_found_when_ties_hide_it() {
        // 7 is missing, and both selected elements equal the k-th value: nothing selected is too small.
        let scores = [1.0, 7.0, 1.0];
        let error = check_row(&scores, &[0, 2]).unwrap_err();
        assert!(matches!(error.fault, RowFault::Missing { missing: 1, .. }), "{error}");
    }

    #[test]
    fn lengths_are_clamped_and_sequences_count_back_from_their_end() {
        assert_eq!(valid_length(-1, 10), 0);
        assert_eq!(valid_length(i32::MIN, 10), 0);
        assert_eq!(valid_length(7, 10), 7);
        assert_eq!(valid_length(i32::MAX, 10), 10);
        assert_eq!(sequence_length(&[10, 3], 4, 1, 0), 7);
        assert_eq!(sequence_length(&[10, 3], 4, 1, 3), 10);
        assert_eq!(sequence_length(&[10, 3], 4, 1, 4), 0);
        assert_eq!(sequence_length(&[10, 3], 4, 4, 3), 2);
        assert_eq!(sequence_length(&[i32::MIN], 2, 4, 0), 0);
    }
}
