//! The score rows of a real model in `tests/data` (its README says where they come from).

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ndarray::{Ix1, OwnedRepr};

use crate::npy::{self, NpyError};

/// k of the stored thresholds.
pub const K: usize = 2048;

/// One stored row.
#[derive(Clone, Debug)]
pub struct RealRow {
    /// Number of the row in the full set it was cut from.
    pub source_row: usize,
    /// The stored columns: the valid prefix and, where there were more, up to 320 further real scores.
    pub columns: Vec<f32>,
    /// Length of the valid prefix.
    pub length: usize,
    /// The 2048th largest value of the valid prefix; -inf when there are at most 2048.
    pub threshold: f32,
    /// Elements of the valid prefix equal to the threshold; 0 when there are at most 2048.
    pub ties: usize,
}

impl RealRow {
    /// The valid prefix.
    pub fn valid(&self) -> &[f32] {
        &self.columns[..self.length]
    }
}

/// Why the rows could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// No folder with the rows was found.
    #[error("the real score rows were not found in {}; set DSA_DATA to the folder that holds indexer_scores.npy", list(.tried))]
    NotFound {
        /// The folders that were tried.
        tried: Vec<PathBuf>,
    },
    /// A file could not be read.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// The files do not belong together.
    #[error("{}: {reason}; restore the folder from the repository", folder.display())]
    Inconsistent {
        /// The folder.
        folder: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

fn list(folders: &[PathBuf]) -> String {
    folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The folder with the rows: `DSA_DATA`, or `data` next to the executable, or `data` in this crate.
///
/// # Errors
/// [`DataError::NotFound`] with the folders that were tried.
pub fn folder() -> Result<PathBuf, DataError> {
    let from_environment = std::env::var_os("DSA_DATA").map(PathBuf::from);
    let beside_executable =
        std::env::current_exe().ok().and_then(|exe| exe.parent().map(|folder| folder.join("data")));
    let in_crate = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("data"));
    let tried: Vec<PathBuf> = match from_environment {
        Some(chosen) => vec![chosen],
        None => [beside_executable, in_crate].into_iter().flatten().collect(),
    };
    match tried.iter().find(|folder| folder.join("indexer_scores.npy").is_file()) {
        Some(found) => Ok(found.clone()),
        None => Err(DataError::NotFound { tried }),
    }
}

/// All stored rows, read once per process.
///
/// # Errors
/// What [`load`] reports, on every call.
pub fn rows() -> Result<&'static [RealRow], DataError> {
    static ROWS: OnceLock<Vec<RealRow>> = OnceLock::new();
    if let Some(rows) = ROWS.get() {
        return Ok(rows);
    }
    let loaded = load(&folder()?)?;
    Ok(ROWS.get_or_init(|| loaded))
}

/// Reads the rows in `folder`.
///
/// # Errors
/// A file is missing or not what it should be, or the files do not belong together.
pub fn load(folder: &Path) -> Result<Vec<RealRow>, DataError> {
    let floats = |name: &str| npy::read::<f32, Ix1>(&folder.join(name), "1-D float32");
    let integers = |name: &str| npy::read::<i32, Ix1>(&folder.join(name), "1-D int32");
    let scores = floats("indexer_scores.npy")?.into_raw_vec_and_offset().0;
    let columns = integers("indexer_columns.npy")?;
    let lengths = integers("indexer_lengths.npy")?;
    let thresholds = floats("indexer_top2048_threshold.npy")?;
    let ties = integers("indexer_top2048_ties.npy")?;
    let sources = integers("indexer_source_rows.npy")?;

    let wrong = |reason: String| DataError::Inconsistent { folder: folder.into(), reason };
    let count = lengths.len();
    if [columns.len(), thresholds.len(), ties.len(), sources.len()].iter().any(|&len| len != count) {
        return Err(wrong(format!("the arrays do not all have {count} rows")));
    }
    let natural = |array: &ndarray::ArrayBase<OwnedRepr<i32>, Ix1>, row: usize, name: &str| {
        usize::try_from(array[row]).map_err(|_| wrong(format!("{name} of row {row} is {}", array[row])))
    };
    let mut rows = Vec::with_capacity(count);
    let mut start = 0;
    for row in 0..count {
        let stored = natural(&columns, row, "column count")?;
        let length = natural(&lengths, row, "length")?;
        let end = start + stored;
        if length > stored || end > scores.len() {
            return Err(wrong(format!(
                "row {row} has length {length}, {stored} columns from {start} on, of {} in all",
                scores.len()
            )));
        }
        rows.push(RealRow {
            source_row: natural(&sources, row, "source row")?,
            columns: scores[start..end].to_vec(),
            length,
            threshold: thresholds[row],
            ties: natural(&ties, row, "ties")?,
        });
        start = end;
    }
    if start != scores.len() {
        return Err(wrong(format!("{} scores, {start} of them in rows", scores.len())));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle;

    #[test]
    fn the_stored_thresholds_and_ties_are_those_of_the_stored_rows() {
        let rows = rows().unwrap();
        assert_eq!(rows.len(), 14);
        for row in rows {
            let found = oracle::threshold(row.valid(), K).unwrap_or((f32::NEG_INFINITY, 0));
            assert_eq!(found, (row.threshold, row.ties), "source row {}", row.source_row);
        }
    }

    #[test]
    fn the_stored_rows_take_every_path() {
        let lengths: Vec<usize> = rows().unwrap().iter().map(|row| row.length).collect();
        for wanted in [1, 2047, 2048, 2049, 4097, 8193, 16385, 32769, 40000, 65537, 131_072] {
            assert!(lengths.contains(&wanted), "no row of length {wanted} in {lengths:?}");
        }
    }

    #[test]
    fn a_missing_folder_names_the_way_out() {
        let error = load(Path::new("/nonexistent")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/indexer_scores.npy"), "{error}");
        let error = DataError::NotFound { tried: vec!["a".into(), "b".into()] };
        assert!(error.to_string().contains("a, b; set DSA_DATA"), "{error}");
    }
}
