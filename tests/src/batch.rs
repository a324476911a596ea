//! A batch of score rows as an engine would hold it: pitch, alignment, lengths, garbage behind the rows.

use crate::data::DataError;
use crate::distribution::Distribution;
use crate::oracle;
use crate::random::Random;

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
    /// Elements before the first row: 1, 2 or 3 leave it unaligned for 16-byte loads.
    pub offset: usize,
    /// One length per row; with `next_n` or `compress_ratio` above 1, one sequence length per `next_n` rows.
    pub lengths: Vec<i32>,
    /// Rows of one sequence.
    pub next_n: usize,
    /// Tokens per score.
    pub compress_ratio: usize,
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
            self.distribution(row).fill(self.seed, row, &mut scores[first..first + valid])?;
        }
        Ok(Batch { spec: self, scores })
    }
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
    /// The buffer: `offset` elements, then the rows, `pitch` apart, the last one `max_len` long.
    pub scores: Vec<f32>,
}

impl Batch {
    /// The elements of row `row` that count.
    pub fn row(&self, row: usize) -> &[f32] {
        let first = self.spec.offset + row * self.spec.pitch;
        &self.scores[first..first + self.spec.valid(row)]
    }

    /// Checks the output words of all rows, `k` each.
    ///
    /// # Errors
    /// The first wrong row, with everything needed to make it again.
    pub fn check(&self, out: &[i32], k: usize) -> Result<(), WrongRow> {
        for (row, words) in out.chunks_exact(k).enumerate() {
            oracle::check_row(self.row(row), words).map_err(|error| WrongRow {
                row,
                rows: self.spec.rows(),
                k,
                distribution: self.spec.distribution(row),
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
#[error("row {row} of {rows} (length {length}, k {k}, distribution {distribution}, seed {seed}): {error}")]
pub struct WrongRow {
    /// Its number.
    pub row: usize,
    /// Rows of the batch.
    pub rows: usize,
    /// Elements selected from each row.
    pub k: usize,
    /// The distribution of its scores.
    pub distribution: Distribution,
    /// The seed of its scores.
    pub seed: u64,
    /// Its valid length.
    pub length: usize,
    /// The first wrong word.
    pub error: oracle::RowError,
}

#[cfg(test)]
mod tests {
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
}
