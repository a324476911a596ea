//! Scores for the cells, generated on all cores.

use std::num::NonZero;
use std::thread;

use super::shapes::{self, Case};
use crate::data::{self, DataError};
use crate::distribution::Distribution;
use crate::scores::rounded;

/// Seed of all inputs.
pub const SEED: u64 = 0x5eed;

/// Elements of the pool that come from one sequence of random numbers.
const POOL_CHUNK: usize = 1 << 14;

/// `len` standard normal scores: rows of normal cells are cut from them.
pub fn normal_pool(len: usize) -> Result<Vec<f32>, DataError> {
    let mut pool = vec![0.0; len];
    fill(Distribution::Normal, POOL_CHUNK, &mut pool)?;
    Ok(pool)
}

/// The scores of one batch of `case`, `rows * pitch` of them, in the case's own distribution and of its type.
///
/// What lies behind the valid prefix of a real row is +inf: selecting it would be seen at once.
pub fn scores(case: &Case) -> Result<Vec<f32>, DataError> {
    let pitch = case.pitch() as usize;
    let mut scores = vec![f32::INFINITY; case.rows() as usize * pitch];
    if case.distribution == Distribution::Real {
        for (out, row) in scores.chunks_mut(pitch).zip(data::rows()?) {
            out[..row.length].copy_from_slice(row.valid());
        }
    } else {
        fill(case.distribution, pitch, &mut scores)?;
    }
    scores.iter_mut().for_each(|score| *score = rounded(case.options.scores, *score));
    Ok(scores)
}

/// The cell of the real rows.
pub fn real_case() -> Result<Case, DataError> {
    let lengths: Vec<_> = data::rows()?.iter().map(|row| row.length as u32).collect();
    let pitch = lengths.iter().copied().max().unwrap_or(0);
    Ok(shapes::real(pitch, lengths))
}

/// Fills `out`, cut into rows of `pitch`, on all cores.
fn fill(distribution: Distribution, pitch: usize, out: &mut [f32]) -> Result<(), DataError> {
    // No rows make no shares.
    let rows = out.len().div_ceil(pitch).max(1);
    let share = rows.div_ceil(workers());
    thread::scope(|scope| {
        let workers: Vec<_> = out
            .chunks_mut(share * pitch)
            .enumerate()
            .map(|(worker, part)| {
                scope.spawn(move || {
                    part.chunks_mut(pitch)
                        .enumerate()
                        .try_for_each(|(row, out)| distribution.fill(SEED, worker * share + row, out))
                })
            })
            .collect();
        // A generator that panics is a bug of the generator: let it be seen.
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Threads for work on the host.
pub(crate) fn workers() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_do_not_depend_on_the_number_of_cores() {
        let case =
            shapes::emulated().into_iter().find(|case| case.rows() == 4 && case.pitch() == 3072).unwrap();
        let batch = scores(&case).unwrap();
        for (row, scores) in batch.chunks(3072).enumerate() {
            let mut alone = vec![0.0; 3072];
            Distribution::Normal.fill(SEED, row, &mut alone).unwrap();
            assert_eq!(scores, alone, "row {row}");
        }
    }

    #[test]
    fn a_pool_that_is_no_multiple_of_a_chunk_is_filled_to_its_end() {
        let pool = normal_pool(POOL_CHUNK + 5).unwrap();
        assert_eq!(pool.len(), POOL_CHUNK + 5);
        assert!(pool.iter().all(|score| score.is_finite()));
        assert!(pool[POOL_CHUNK..].iter().any(|&score| score != 0.0));
        assert_ne!(pool[..5], pool[POOL_CHUNK..]);
    }

    #[test]
    fn a_pool_of_nothing_is_no_error() {
        assert!(normal_pool(0).unwrap().is_empty());
    }

    #[test]
    fn real_rows_are_followed_by_infinities_only() {
        let case = real_case().unwrap();
        let batch = scores(&case).unwrap();
        for (scores, row) in batch.chunks(case.pitch() as usize).zip(data::rows().unwrap()) {
            assert_eq!(&scores[..row.length], row.valid());
            assert!(scores[row.length..].iter().all(|&score| score == f32::INFINITY));
        }
    }
}
