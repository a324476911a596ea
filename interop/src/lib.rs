//! What the programs share: a batch, and the selection on the CPU that results are compared with.

use std::error::Error;
use std::process::ExitCode;

/// Elements selected from each row.
pub const K: usize = 64;
/// Room for each row, in scores.
pub const PITCH: usize = 70_000;

/// Rows of different lengths, with scores that look random and many that are equal.
pub struct Batch {
    /// `[rows, PITCH]`.
    pub scores: Vec<f32>,
    /// The valid prefix of each row.
    pub lengths: Vec<i32>,
}

impl Batch {
    /// Lengths from nothing to everything.
    pub fn new() -> Self {
        let lengths = vec![PITCH as i32, 20_000, 4_096, K as i32, 5, 1, 0, -1];
        let score = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 16) as f32 - 30_000.0;
        Self { scores: (0..lengths.len() * PITCH).map(score).collect(), lengths }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// Whether `indices`, `[rows, K]`, are right: the scores of each row's are its largest, and -1 comes after them.
    ///
    /// # Errors
    /// Says which row is wrong, and how.
    pub fn check(&self, indices: &[i32]) -> Result<(), String> {
        if indices.len() != self.rows() * K {
            return Err(format!("{} indices, but must be {}", indices.len(), self.rows() * K));
        }
        for (row, (found, &length)) in indices.chunks(K).zip(&self.lengths).enumerate() {
            let scores = &self.scores[row * PITCH..][..length.max(0) as usize];
            let mut expected = scores.to_vec();
            expected.sort_by(|a, b| b.total_cmp(a));
            expected.truncate(K);

            let (valid, rest) = found.split_at(expected.len());
            let mut distinct = valid.to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            let mut selected = Vec::new();
            for &index in &distinct {
                let score = usize::try_from(index).ok().and_then(|index| scores.get(index));
                selected.push(*score.ok_or(format!("row {row}: index {index} of {} scores", scores.len()))?);
            }
            selected.sort_by(|a, b| b.total_cmp(a));
            if selected != expected {
                return Err(format!("row {row}: selected {selected:?}, the largest are {expected:?}"));
            }
            if rest.iter().any(|&index| index != -1) {
                return Err(format!("row {row}: {rest:?} after the {} indices, but must be -1", valid.len()));
            }
        }
        Ok(())
    }
}

/// The end of a program: its error in words.
pub fn finish(result: Result<String, Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right answer, by sorting indices.
    fn selected(batch: &Batch) -> Vec<i32> {
        let rows = batch.lengths.iter().enumerate().map(|(row, &length)| {
            let score = |index: &i32| batch.scores[row * PITCH + *index as usize];
            let mut indices: Vec<i32> = (0..length.max(0)).collect();
            indices.sort_by(|a, b| score(b).total_cmp(&score(a)));
            indices.resize(K, -1);
            indices
        });
        rows.flatten().collect()
    }

    #[test]
    fn the_right_answer_passes_and_wrong_ones_are_told() {
        let batch = Batch::new();
        let right = selected(&batch);
        batch.check(&right).unwrap();
        for (place, index, words) in [
            (0, right[1], "row 0: selected"),
            (K, 20_000, "row 1: index 20000 of 20000 scores"),
            (2 * K, -1, "row 2: index -1"),
            (4 * K + 5, 0, "row 4: [0, -1"),
        ] {
            let mut wrong = right.clone();
            wrong[place] = index;
            let error = batch.check(&wrong).unwrap_err();
            assert!(error.starts_with(words), "{error}");
        }
        assert_eq!(batch.check(&right[1..]).unwrap_err(), "511 indices, but must be 512");
    }
}
