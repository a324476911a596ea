//! Typed reading and writing of `.npy` files, with errors that say what to do.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use ndarray::{Array, Dimension};
use ndarray_npy::{ReadNpyExt as _, ReadableElement, WritableElement, WriteNpyExt as _};

/// Why an array could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NpyError {
    /// The file could not be opened, created or renamed.
    #[error("{}: {source}; check that the path is right and that you may use it", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not a `.npy` array of the wanted type and number of dimensions.
    #[error("{}: not a {wanted} array: {reason}; convert it, for instance with numpy's astype and save", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The wanted type and number of dimensions.
        wanted: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The array could not be written.
    #[error("{}: cannot write: {reason}; check that the disk is not full", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

/// Reads the array in `path`; `wanted` describes the type in errors, as in `"2-D float32"`.
///
/// The result is in C order whatever the order in the file.
///
/// # Errors
/// [`NpyError::File`] or [`NpyError::Content`].
pub fn read<T, D>(path: &Path, wanted: &'static str) -> Result<Array<T, D>, NpyError>
where
    T: ReadableElement + Clone,
    D: Dimension,
{
    let file = File::open(path).map_err(|source| NpyError::File { path: path.into(), source })?;
    let array = Array::<T, D>::read_npy(BufReader::new(file)).map_err(|error| NpyError::Content {
        path: path.into(),
        wanted,
        reason: error.to_string(),
    })?;
    Ok(array.as_standard_layout().into_owned())
}

/// Writes `array` to `path` through a temporary file beside it that is renamed at the end: an error leaves
/// neither a partial file nor the old one damaged.
///
/// # Errors
/// [`NpyError::File`] or [`NpyError::Write`].
pub fn write<T, D>(path: &Path, array: &Array<T, D>) -> Result<(), NpyError>
where
    T: WritableElement,
    D: Dimension,
{
    let file_error = |source| NpyError::File { path: path.into(), source };
    let write_error = |reason: String| NpyError::Write { path: path.into(), reason };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask, as usual
    let mut temporary = builder.tempfile_in(folder).map_err(file_error)?;
    let mut writer = BufWriter::new(temporary.as_file_mut());
    array.write_npy(&mut writer).map_err(|error| write_error(error.to_string()))?;
    writer.flush().map_err(|error| write_error(error.to_string()))?;
    drop(writer);
    temporary.persist(path).map_err(|error| file_error(error.error))?;
    Ok(())
}
