//! The right answer of a row, found by sorting on the CPU.
//!
//! Nothing here is shared with the kernels: values are compared as numbers, not as the integer keys the
//! kernels use, so a mistake in the key order cannot hide. The rules are those of the contract: NaN ranks
//! below every number (below -inf), all NaNs are equal, -0.0 equals +0.0, any choice among equals is right
//! unless the operator promises the lowest indices, and any order unless it promises ascending ones.

use std::cmp::Ordering;
use std::fmt;

use dsa_kernels::topk::{Order, ScoreType, Ties};

use crate::scores as score;

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

/// The only right output of a row of an operator with [`Ties::LowestIndex`] and [`Order::AscendingIndex`].
pub fn expected_row(scores: &[f32], k: usize) -> Vec<i32> {
    let mut row: Vec<i32> = top_indices(scores, k).into_iter().map(|index| index as i32).collect();
    row.sort_unstable();
    row.resize(k, PADDING);
    row
}

/// As [`check_row`], for an operator that may promise more.
///
/// # Errors
/// The first word that is wrong, with what was expected there.
pub fn check_row_with(scores: &[f32], out: &[i32], ties: Ties, order: Order) -> Result<(), RowError> {
    check_row(scores, out)?;
    let selected = &out[..out.len().min(scores.len())];
    if order == Order::AscendingIndex {
        check_order(selected)?;
    }
    if ties == Ties::LowestIndex {
        check_ties(scores, selected)?;
    }
    if (ties, order) == (Ties::LowestIndex, Order::AscendingIndex) {
        // Follows from the two, if they are right.
        let expected = expected_row(scores, out.len());
        if let Some(position) = (0..out.len()).find(|&i| out[i] != expected[i]) {
            let fault = RowFault::Differs { got: out[position], expected: expected[position] };
            return Err(RowError { position, fault });
        }
    }
    Ok(())
}

/// Requires that each index is greater than the one before.
fn check_order(selected: &[i32]) -> Result<(), RowError> {
    match selected.windows(2).position(|pair| pair[0] >= pair[1]) {
        None => Ok(()),
        Some(i) => Err(RowError {
            position: i + 1,
            fault: RowFault::NotAscending { index: selected[i + 1], before: selected[i] },
        }),
    }
}

/// Requires, of a right set, that the elements equal to the smallest selected are those with the lowest indices.
fn check_ties(scores: &[f32], selected: &[i32]) -> Result<(), RowError> {
    let mut expected = top_indices(scores, selected.len());
    expected.sort_unstable();
    let is_wrong = |&word: &i32| expected.binary_search(&(word as usize)).is_err();
    let Some(position) = selected.iter().position(is_wrong) else { return Ok(()) };
    let mut found: Vec<_> = selected.iter().map(|&word| word as usize).collect();
    found.sort_unstable();
    let lower = expected.into_iter().find(|index| found.binary_search(index).is_err());
    let lower = lower.expect("a wrong index takes the place of a right one");
    let index = selected[position] as usize;
    Err(RowError { position, fault: RowFault::NotLowest { index, value: scores[index], lower } })
}

/// Checks the values of one row: `out` its indices, right ones, and `values` the bits of as many scores. Right
/// are, bit for bit, the scores at the indices, and the negative infinity of the type after them.
///
/// # Errors
/// The first wrong value, with what was expected there.
pub fn check_values(kind: ScoreType, scores: &[f32], out: &[i32], values: &[u32]) -> Result<(), RowError> {
    for (position, (&index, &got)) in out.iter().zip(values).enumerate() {
        let value = match usize::try_from(index) {
            Ok(index) => scores[index],
            Err(_) => f32::NEG_INFINITY,
        };
        let expected = score::bits(kind, value);
        if got != expected {
            let value = score::value(kind, got);
            return Err(RowError { position, fault: RowFault::Value { index, got, value, expected } });
        }
    }
    Ok(())
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
    /// The index is not greater than the one before it, though ascending indices are promised.
    NotAscending {
        /// The index found.
        index: i32,
        /// The index before it.
        before: i32,
    },
    /// An equal element with a lower index is not selected, though the lowest indices are promised.
    NotLowest {
        /// The index found.
        index: usize,
        /// Its value.
        value: f32,
        /// The lowest index that should have been there.
        lower: usize,
    },
    /// Not the word of the only right row.
    Differs {
        /// The word.
        got: i32,
        /// The word that is right.
        expected: i32,
    },
    /// The value is not the score at the index, bit for bit.
    Value {
        /// The index at this position.
        index: i32,
        /// The bits found.
        got: u32,
        /// The number that they are.
        value: f32,
        /// The bits that are right.
        expected: u32,
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
            RowFault::NotAscending { index, before } => {
                write!(f, "word {position}: expected an index above {before}, the one before it, got {index}")
            }
            RowFault::NotLowest { index, value, lower } => write!(
                f,
                "word {position}: got index {index} with value {value:e} ({:#010x}), but index {lower} has an \
                 equal value and is not there",
                value.to_bits(),
            ),
            RowFault::Differs { got, expected } => {
                write!(f, "word {position}: expected {expected}, got {got}")
            }
            RowFault::Value { index, got, value, expected } => write!(
                f,
                "value {position}, of index {index}: expected the bits {expected:#06x}, got {got:#06x} ({value:e})"
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
    /// Whether the fault is reported at this word, with these words.
    fn assert_fault(result: Result<(), RowError>, position: usize, words: &[&str]) {
        let error = result.expect_err("a wrong row passes");
        let text = error.to_string();
        assert_eq!(error.position, position, "{text}");
        for word in words {
            assert!(text.contains(word), "{text:?} lacks {word:?}");
        }
    }

    #[test]
    fn the_expected_row_has_the_lowest_of_equal_elements_in_ascending_order() {
        let scores = [2.0, f32::NAN, 3.0, 2.0, -0.0, 0.0, 3.0, NAN_NEGATIVE];
        assert_eq!(expected_row(&scores, 1), [2]);
        assert_eq!(expected_row(&scores, 3), [0, 2, 6]);
        assert_eq!(expected_row(&scores, 5), [0, 2, 3, 4, 6]);
        assert_eq!(expected_row(&scores, 7), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(expected_row(&scores, 10), [0, 1, 2, 3, 4, 5, 6, 7, -1, -1]);
        assert_eq!(expected_row(&[], 2), [-1, -1]);
        for k in 1..12 {
            let row = expected_row(&scores, k);
            assert_eq!(
                check_row_with(&scores, &row, Ties::LowestIndex, Order::AscendingIndex),
                Ok(()),
                "{k}"
            );
        }
    }

    #[test]
    fn a_higher_index_among_equals_is_a_fault_only_where_the_lowest_are_promised() {
        let scores = [2.0, 3.0, 2.0, f32::NAN, 2.0, 1.0];
        let check = |out: &[i32], ties| check_row_with(&scores, out, ties, Order::Any);
        for (right, wrong) in [([1, 0, 2], [1, 4, 0]), ([2, 0, 1], [2, 1, 4])] {
            assert_eq!(check(&right, Ties::LowestIndex), Ok(()));
            assert_eq!(check(&wrong, Ties::Any), Ok(()));
        }
        assert_fault(check(&[1, 4, 0], Ties::LowestIndex), 1, &["index 4", "value 2e0", "index 2"]);
        assert_fault(check(&[2, 1, 4], Ties::LowestIndex), 2, &["index 4", "index 0"]);
        // Equal are also the zeros, and NaN of any sign and payload.
        let zeros = [-1.0, 0.0, -0.0, 0.0];
        let check = |scores: &[f32], out: &[i32]| check_row_with(scores, out, Ties::LowestIndex, Order::Any);
        assert_eq!(check(&zeros, &[2, 1]), Ok(()));
        assert_fault(check(&zeros, &[1, 3]), 1, &["index 3", "index 2"]);
        assert_fault(check(&[f32::NAN, 1.0, NAN_NEGATIVE], &[1, 2]), 1, &["index 2", "index 0"]);
        // A smaller value is what it is without the promise.
        assert_fault(check(&scores, &[1, 0, 5]), 2, &["below the k-th largest"]);
    }

    #[test]
    fn an_index_that_does_not_ascend_is_a_fault_only_where_that_is_promised() {
        let scores = [5.0, 4.0, 3.0, 2.0];
        let check = |out: &[i32], order| check_row_with(&scores, out, Ties::Any, order);
        assert_eq!(check(&[0, 2, 1], Order::Any), Ok(()));
        assert_eq!(check(&[0, 1, 2], Order::AscendingIndex), Ok(()));
        assert_eq!(check(&[0, 1, 2, 3, -1, -1], Order::AscendingIndex), Ok(()));
        assert_fault(check(&[0, 2, 1], Order::AscendingIndex), 2, &["above 2", "got 1"]);
        assert_fault(check(&[1, 0, 2, 3, -1], Order::AscendingIndex), 1, &["above 1", "got 0"]);
        assert_fault(check(&[0, 1, 1], Order::AscendingIndex), 2, &["second time"]);
        assert_fault(check(&[0, 1, 2, 3, 4], Order::AscendingIndex), 4, &["expected -1"]);
    }

    #[test]
    fn every_other_row_is_a_fault_where_both_are_promised() {
        let scores = [1.0, 2.0, 1.0, 2.0, 1.0];
        let check = |out: &[i32]| check_row_with(&scores, out, Ties::LowestIndex, Order::AscendingIndex);
        let mut right = Vec::new();
        for a in 0..5 {
            for b in 0..5 {
                for c in 0..5 {
                    right.extend(check(&[a, b, c]).is_ok().then_some([a, b, c]));
                }
            }
        }
        assert_eq!(right, [[0, 1, 3]]);
        let text = RowError { position: 3, fault: RowFault::Differs { got: 7, expected: 5 } }.to_string();
        assert_eq!(text, "word 3: expected 5, got 7");
    }

    #[test]
    fn values_are_the_bits_of_the_scores_and_minus_infinity_after_them() {
        let scores = [-0.0, 1.5, NAN_NEGATIVE];
        for kind in ScoreType::ALL.iter().copied() {
            let scores = scores.map(|value| score::rounded(kind, value));
            let out = [1, 0, 2, -1, -1];
            let bits = |value| score::bits(kind, value);
            let [zero, number, nan] = scores.map(bits);
            let last = bits(f32::NEG_INFINITY);
            let check = |values: [u32; 5]| check_values(kind, &scores, &out, &values);
            assert_eq!(check([number, zero, nan, last, last]), Ok(()));
            assert_fault(check([number, bits(0.0), nan, last, last]), 1, &["of index 0"]);
            assert_fault(check([number, zero, nan ^ 1, last, last]), 2, &["of index 2", "NaN"]);
            assert_fault(check([zero, number, nan, last, last]), 0, &["of index 1"]);
            assert_fault(check([number, zero, nan, last, 0]), 4, &["of index -1"]);
            assert_fault(check([number, zero, nan, bits(-1.0), last]), 3, &["of index -1"]);
        }
    }
}
