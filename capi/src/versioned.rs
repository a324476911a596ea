//! Structs of the caller that may grow: they begin with their size, and later versions add fields at the end.

use std::mem::MaybeUninit;

use crate::argument::check_pointer;
use crate::status::Failure;

/// A struct that begins with its size. Fields that a caller's version does not have yet are zero, which is their
/// default.
///
/// # Safety
/// The type is `repr(C)`, its first field is a `u32`, and any bytes are a valid value.
pub unsafe trait Versioned: Copy {
    /// The argument that points to one.
    const ARGUMENT: &'static str;
    /// Its first field.
    const SIZE_ARGUMENT: &'static str;
    /// What to set that to.
    const SIZE_HELP: &'static str;
    /// Bytes of the first version's struct.
    const FIRST_SIZE: usize;
}

/// More than any version's struct: a larger size is a mistake.
const LARGEST_SIZE: usize = 4096;

/// Reads the caller's struct, of whatever version.
///
/// # Safety
/// Unless it is null or misaligned, the pointer is to a `uint32_t`, and as many bytes as that says are
/// readable.
///
/// # Errors
/// [`Failure::Library`] for a pointer that is null or misaligned, a size that no version has, and bytes that
/// only a later version knows and that are not zero.
pub unsafe fn read<T: Versioned>(pointer: *const T) -> Result<T, Failure> {
    check_pointer(T::ARGUMENT, pointer)?;
    let (first_size, known_size) = (T::FIRST_SIZE, size_of::<T>());
    // SAFETY: checked; the caller vouches for the first field, which the trait promises to be there.
    let size = unsafe { pointer.cast::<u32>().read() } as usize;
    if !(first_size..=LARGEST_SIZE).contains(&size) {
        let limit = format!("{first_size}..={LARGEST_SIZE}");
        return Err(Failure::argument(T::SIZE_ARGUMENT, size, limit, T::SIZE_HELP));
    }
    let mut known = MaybeUninit::<T>::zeroed();
    let copied = size.min(known_size);
    // SAFETY: the caller vouches for `size` bytes, and the trait for that any bytes are a value. Padding is copied as
    // it is, and not looked at.
    let (known, unknown) = unsafe {
        known.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(pointer.cast(), copied);
        let unknown = std::slice::from_raw_parts(pointer.cast::<u8>().add(copied), size - copied);
        (known.assume_init(), unknown)
    };
    if let Some(at) = unknown.iter().position(|&byte| byte != 0) {
        let value = format!("{:#x} at byte {}", unknown[at], known_size + at);
        let limit = format!("zero from byte {known_size} on, where this version's fields end");
        return Err(Failure::argument(T::ARGUMENT, value, limit, "use a later version of the library"));
    }
    Ok(known)
}
