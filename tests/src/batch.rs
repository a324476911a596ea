//! A batch of score rows as an engine would hold it: pitch, alignment, lengths, garbage behind the rows.

use dsa_kernels::topk::{Limits, ScoreType};

use crate::data::DataError;
use crate::distribution::Distribution;
use crate::oracle;
use crate::random::Random;
use crate::scores;

/// How to make a batch.
#[derive(Clone, Debug)]
pub struct BatchSpec {
    /// Row `r` has distribution `distributions[r % distributions.len()]`.
    pub distributions: Vec<Distribution>,
    /// Fixes all scores and all garbage.
    pub seed: u64,
    /// The most elements of a row that may be read.
    pub max_len: usize,
    /// Elements from one row to the next; at least `max_len`.
    pub pitch: usize,
    /// Elements before the first row: those that are no multiple of 16 bytes leave it unaligned for wide loads.
    pub offset: usize,
    /// One length per row; with `next_n` or `compress_ratio` above 1, one sequence length per `next_n` rows.
    pub lengths: Vec<i32>,
    /// Rows of one sequence.
    pub next_n: usize,
    /// Tokens per score.
    pub compress_ratio: usize,
    /// What the scores are rounded to.
    pub scores: ScoreType,
}

impl BatchSpec {
    /// Rows of `lengths`, all of one distribution, in a dense and aligned buffer `max_len` wide.
    pub fn new(distribution: Distribution, seed: u64, max_len: usize, lengths: Vec<i32>) -> Self {
        Self {
            distributions: vec![distribution],
            seed,
            max_len,
            pitch: max_len,
            offset: 0,
            lengths,
            next_n: 1,
            compress_ratio: 1,
            scores: ScoreType::F32,
        }
    }

    /// `rows` rows of `max_len` elements each.
    pub fn full(distribution: Distribution, seed: u64, max_len: usize, rows: usize) -> Self {
        Self::new(distribution, seed, max_len, vec![max_len as i32; rows])
    }

    /// With one distribution after the other, row by row.
    #[must_use]
    pub fn with_distributions(self, distributions: &[Distribution]) -> Self {
        Self { distributions: distributions.to_vec(), ..self }
    }

    /// With `pitch` elements from row to row, the first row `offset` elements into the buffer.
    #[must_use]
    pub fn with_layout(self, pitch: usize, offset: usize) -> Self {
        Self { pitch, offset, ..self }
    }

    /// With lengths that are sequence lengths.
    #[must_use]
    pub fn with_sequences(self, next_n: usize, compress_ratio: usize) -> Self {
        Self { next_n, compress_ratio, ..self }
    }

    /// With scores of another type.
    #[must_use]
    pub fn with_scores(self, scores: ScoreType) -> Self {
        Self { scores, ..self }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.lengths.len() * self.next_n
    }

    /// The elements of row `row` that count.
    pub fn valid(&self, row: usize) -> usize {
        let length = if self.next_n == 1 && self.compress_ratio == 1 {
            self.lengths[row]
        } else {
            oracle::sequence_length(&self.lengths, self.next_n, self.compress_ratio, row)
        };
        oracle::valid_length(length, self.max_len)
    }

    /// The distribution of row `row`.
    pub fn distribution(&self, row: usize) -> Distribution {
        self.distributions[row % self.distributions.len()]
    }

    /// Makes the batch.
    ///
    /// # Errors
    /// The real rows were asked for and cannot be read.
    pub fn build(self) -> Result<Batch, DataError> {
        let rows = self.rows();
        // The buffer ends with the last element that may be read, so that reading past it is found out.
        let words =
            self.offset + rows.saturating_sub(1) * self.pitch + if rows > 0 { self.max_len } else { 0 };
        let mut random = Random::for_item(self.seed, u64::MAX);
        let mut scores = Vec::with_capacity(words);
        scores.resize_with(words, || garbage(&mut random));
        for row in 0..rows {
            let first = self.offset + row * self.pitch;
            let valid = self.valid(row);
            let distribution = self.distribution(row);
            let row_scores = &mut scores[first..first + valid];
            distribution.fill(self.seed, row, row_scores)?;
            redraw(distribution, self.scores, row_scores);
        }
        scores.iter_mut().for_each(|score| *score = scores::rounded(self.scores, *score));
        Ok(Batch { spec: self, scores })
    }
}

/// Draws the bits of 16-bit scores anew, from those of f32, where the distribution is one of bits: rounded,
/// most would be zero or infinite.
fn redraw(distribution: Distribution, scores: ScoreType, row: &mut [f32]) {
    let bits: fn(u32) -> u32 = match (distribution, scores) {
        (Distribution::RandomBits, ScoreType::F16 | ScoreType::Bf16) => |wide| wide & 0xffff,
        (Distribution::Denormals, ScoreType::F16) => |wide| (wide >> 16 & 0x8000) | (wide & 0x03ff),
        _ => return,
    };
    row.iter_mut().for_each(|score| *score = scores::value(scores, bits(score.to_bits())));
}

/// What an engine's buffer may hold where no score was written: mostly what would win if it were read.
fn garbage(random: &mut Random) -> f32 {
    match random.bits() % 8 {
        0 | 1 => f32::NAN,
        2 => -f32::NAN,
        3..=5 => f32::INFINITY,
        6 => f32::MAX,
        _ => 1e30,
    }
}

/// A batch of score rows.
#[derive(Clone, Debug)]
pub struct Batch {
    /// How it was made.
    pub spec: BatchSpec,
    /// The buffer: `offset` elements, then the rows, `pitch` apart, the last one `max_len` long. Every element
    /// is a score of the batch's type.
    pub scores: Vec<f32>,
}

/// What a launch wrote for all rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `k` indices for each row.
    pub indices: Vec<i32>,
    /// The bits of as many scores, from an operator with values.
    pub values: Option<Vec<u32>>,
}

impl Batch {
    /// The elements of row `row` that count.
    pub fn row(&self, row: usize) -> &[f32] {
        let first = self.spec.offset + row * self.spec.pitch;
        &self.scores[first..first + self.spec.valid(row)]
    }

    /// The buffer as it lies in device memory.
    pub fn bytes(&self) -> Vec<u8> {
        scores::to_bytes(self.spec.scores, &self.scores)
    }

    /// Checks the indices of all rows, `k` each: any right set in any order.
    ///
    /// # Errors
    /// The first wrong row, with everything needed to make it again.
    pub fn check(&self, out: &[i32], k: usize) -> Result<(), WrongRow> {
        self.check_each(out, k, |_, scores, words| oracle::check_row(scores, words))
    }

    /// Checks what an operator built for `limits` wrote: the set, and what the limits promise of ties, order
    /// and values.
    ///
    /// # Errors
    /// The first wrong row, with everything needed to make it again.
    pub fn check_answer(&self, answer: &Answer, limits: &Limits) -> Result<(), WrongRow> {
        let k = limits.k as usize;
        self.check_each(&answer.indices, k, |row, scores, words| {
            oracle::check_row_with(scores, words, limits.ties, limits.order)?;
            match &answer.values {
                None => Ok(()),
                Some(values) => {
                    oracle::check_values(self.spec.scores, scores, words, &values[row * k..][..k])
                }
            }
        })
    }

    fn check_each(
        &self,
        out: &[i32],
        k: usize,
        check: impl Fn(usize, &[f32], &[i32]) -> Result<(), oracle::RowError>,
    ) -> Result<(), WrongRow> {
        for (row, words) in out.chunks_exact(k).enumerate() {
            check(row, self.row(row), words).map_err(|error| WrongRow {
                row,
                rows: self.spec.rows(),
                k,
                distribution: self.spec.distribution(row),
                scores: self.spec.scores,
                seed: self.spec.seed,
                length: self.spec.valid(row),
                error,
            })?;
        }
        Ok(())
    }
}

/// A row whose output is wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "row {row} of {rows} (length {length}, k {k}, distribution {distribution} in {scores}, seed {seed}): {error}"
)]
pub struct WrongRow {
    /// Its number.
    pub row: usize,
    /// Rows of the batch.
    pub rows: usize,
    /// Elements selected from each row.
    pub k: usize,
    /// The distribution of its scores.
    pub distribution: Distribution,
    /// Their type.
    pub scores: ScoreType,
    /// The seed of its scores.
    pub seed: u64,
    /// Its valid length.
    pub length: usize,
    /// The first wrong word.
    pub error: oracle::RowError,
}

#[cfg(test)]
mod tests {
    use dsa_kernels::topk::{Order, Ties};

    use super::*;

    #[test]
    fn garbage_lies_around_the_valid_prefixes_and_the_buffer_ends_with_the_last_row() {
        let spec = BatchSpec::new(Distribution::Uniform, 1, 10, vec![4, -1, 12]).with_layout(13, 3);
        let batch = spec.build().unwrap();
        assert_eq!(batch.scores.len(), 3 + 2 * 13 + 10);
        assert_eq!([0, 1, 2].map(|row| batch.row(row).len()), [4, 0, 10]);
        assert!(batch.row(0).iter().chain(batch.row(2)).all(|v| (0.0..1.0).contains(v)));
        let garbage = batch.scores[..3].iter().chain(&batch.scores[7..29]);
        assert!(garbage.clone().count() == 25 && garbage.clone().all(|v| v.is_nan() || *v >= 1e30));
    }

    #[test]
    fn sequences_give_each_row_one_more_token() {
        let spec = BatchSpec::new(Distribution::Uniform, 1, 100, vec![8, 2]).with_sequences(3, 2);
        assert_eq!((0..spec.rows()).map(|row| spec.valid(row)).collect::<Vec<_>>(), [3, 3, 4, 0, 0, 1]);
    }

    #[test]
    fn a_wrong_row_is_named_with_its_distribution_and_seed() {
        let batch = BatchSpec::full(Distribution::SortedUp, 9, 5, 2).build().unwrap();
        let text = batch.check(&[4, 3, 4, 0], 2).unwrap_err().to_string();
        for part in ["row 1 of 2", "sorted-up", "seed 9", "length 5", "got index 0", "index 3"] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
    }
    #[test]
    fn scores_of_16_bits_are_rounded_with_the_garbage_around_them() {
        for scores in [ScoreType::F16, ScoreType::Bf16] {
            let spec = BatchSpec::new(Distribution::Normal, 4, 100, vec![70, 100]).with_layout(101, 3);
            let wide = spec.clone().build().unwrap();
            let batch = spec.with_scores(scores).build().unwrap();
            assert!(batch.row(0).iter().zip(wide.row(0)).all(|(s, w)| *s == scores::rounded(scores, *w)));
            assert_ne!(batch.row(1), wide.row(1));
            let bits = scores::bits_of_bytes(scores, &batch.bytes());
            assert_eq!(bits.len(), 3 + 101 + 100);
            let values = bits.iter().map(|&bits| scores::value(scores, bits));
            assert!(values.zip(&batch.scores).all(|(v, s)| v.to_bits() == s.to_bits()));
            let garbage = batch.scores[..3].iter().chain(&batch.scores[73..104]);
            assert!(garbage.clone().all(|v| v.is_nan() || *v >= 9e29));
        }
    }

    #[test]
    fn distributions_of_bits_have_every_class_of_numbers_in_16_bits_too() {
        let row = |distribution, scores| {
            let spec = BatchSpec::full(distribution, 5, 20_000, 1).with_scores(scores);
            spec.build().unwrap().scores
        };
        for scores in [ScoreType::F16, ScoreType::Bf16] {
            let bits = row(Distribution::RandomBits, scores);
            let infinite = bits.iter().filter(|v| v.is_infinite()).count();
            assert!(infinite < 20, "{scores}: {infinite} of 20,000 are infinite");
            assert!(bits.iter().any(|v| v.is_nan()) && bits.iter().any(|v| v.is_sign_negative()));
        }
        let subnormal = row(Distribution::Denormals, ScoreType::F16);
        let smallest_normal = 2f32.powi(-14);
        assert!(subnormal.iter().all(|v| v.abs() < smallest_normal));
        assert!(subnormal.iter().filter(|v| **v != 0.0).count() > 19_000);
    }

    #[test]
    fn an_answer_is_held_to_what_the_limits_promise() {
        let batch = BatchSpec::full(Distribution::AllEqual, 6, 5, 2).build().unwrap();
        let bits = batch.scores[0].to_bits();
        let answer = |indices: [i32; 4]| Answer { indices: indices.into(), values: None };
        let any = Limits::of(2);
        let lowest = Limits { ties: Ties::LowestIndex, ..any };
        let ascending = Limits { order: Order::AscendingIndex, ..any };
        let passes = |answer: &Answer, limits: &Limits| batch.check_answer(answer, limits).is_ok();
        assert!(passes(&answer([3, 1, 4, 0]), &any));
        assert!(!passes(&answer([3, 1, 4, 0]), &ascending) && passes(&answer([1, 3, 0, 4]), &ascending));
        assert!(!passes(&answer([1, 0, 0, 4]), &lowest) && passes(&answer([1, 0, 0, 1]), &lowest));
        let second = batch.scores[5].to_bits();
        let with = |values: [u32; 4]| Answer { values: Some(values.into()), ..answer([3, 1, 4, 0]) };
        assert!(passes(&with([bits, bits, second, second]), &any));
        let error = batch.check_answer(&with([bits, bits, second, second ^ 1]), &any).unwrap_err();
        assert_eq!(error.row, 1, "{error}");
    }
}
