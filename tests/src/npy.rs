//! Typed reading and writing of `.npy` files, with errors that say what to do.

use std::io::{BufWriter, Write as _};
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
    let content_error = |reason: String| NpyError::Content { path: path.into(), wanted, reason };
    let bytes = std::fs::read(path).map_err(|source| NpyError::File { path: path.into(), source })?;
    // Reading allocates what the header claims, and an allocation that fails ends the process.
    check_claim(&bytes, size_of::<T>()).map_err(content_error)?;
    let array =
        Array::<T, D>::read_npy(bytes.as_slice()).map_err(|error| content_error(error.to_string()))?;
    drop(bytes);
    Ok(array.as_standard_layout().into_owned())
}

/// Checks that the header of a `.npy` file claims no more elements, of `element_bytes` bytes each, than
/// follow it.
fn check_claim(bytes: &[u8], element_bytes: usize) -> Result<(), String> {
    let header = header(bytes).ok_or("it does not begin with the header of a .npy file")?;
    let shapes: Vec<_> = header.split("shape").skip(1).collect();
    let [shape] = shapes[..] else {
        return Err(format!("its header names {} shapes, not one", shapes.len()));
    };
    let not_understood = || format!("the shape in its header is not understood: {}", header.trim_end());
    let shape =
        shape.split_once('(').and_then(|(_, rest)| rest.split_once(')')).ok_or_else(not_understood)?.0;
    let mut claimed = element_bytes as u128;
    for extent in shape.split(',').map(str::trim).filter(|extent| !extent.is_empty()) {
        claimed = claimed.saturating_mul(extent.parse::<u64>().map_err(|_| not_understood())?.into());
    }
    if claimed > bytes.len() as u128 {
        let len = bytes.len();
        return Err(format!(
            "its header claims the shape ({shape}), {claimed} bytes, but the file has {len}"
        ));
    }
    Ok(())
}

/// The text of the header, a Python dictionary, behind magic, version and length.
fn header(bytes: &[u8]) -> Option<&str> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (len, text) = match rest {
        [1, _, a, b, text @ ..] => (u16::from_le_bytes([*a, *b]).into(), text),
        [_, _, a, b, c, d, text @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]), text),
        _ => return None,
    };
    str::from_utf8(text.get(..len as usize)?).ok()
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
