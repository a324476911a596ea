//! Checks of what C passes. What turns a pointer of the caller into a reference is
//! here, but for structs that may grow: [`versioned`](crate::versioned).

use std::ffi::c_void;

use crate::status::Failure;

/// The object behind a pointer that the caller passes to be read.
///
/// # Safety
/// Unless it is null or misaligned, the pointer is to a live `T` that nobody writes while the result lives.
///
/// # Errors
/// [`Failure::Library`] for a pointer that is null or misaligned.
pub unsafe fn reference<'a, T>(argument: &'static str, pointer: *const T) -> Result<&'a T, Failure> {
    check_pointer(argument, pointer)?;
    // SAFETY: neither null nor misaligned; the caller vouches for the rest.
    Ok(unsafe { &*pointer })
}

/// Writes a result to where the caller wants it.
///
/// # Safety
/// The pointer passed [`check_pointer`] and is valid for a write of a `T`.
pub unsafe fn store<T>(pointer: *mut T, value: T) {
    // SAFETY: the caller's promise.
    unsafe { pointer.write(value) }
}

/// Bytes of the host that the caller passes to be read.
///
/// # Safety
/// Unless the pointer is null, that many bytes are readable, and nobody writes them while the result lives.
///
/// # Errors
/// [`Failure::Library`] for a null pointer with a size, and for a size that no object has.
pub unsafe fn bytes<'a>(
    argument: &'static str,
    pointer: *const c_void,
    len: usize,
) -> Result<&'a [u8], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    check_pointer(argument, pointer.cast::<u8>())?;
    check_bytes(len)?;
    // SAFETY: not null, no alignment, a possible size; the caller vouches for the rest.
    Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), len) })
}

/// Bytes of the host that the caller passes to be written.
///
/// # Safety
/// Unless the pointer is null, that many bytes are writable, and nobody else touches them while the result
/// lives. They are initialised, or are only written.
///
/// # Errors
/// Those of [`bytes`].
pub unsafe fn bytes_mut<'a>(
    argument: &'static str,
    pointer: *mut c_void,
    len: usize,
) -> Result<&'a mut [u8], Failure> {
    if len == 0 {
        return Ok(&mut []);
    }
    check_pointer(argument, pointer.cast::<u8>())?;
    check_bytes(len)?;
    // SAFETY: not null, no alignment, a possible size; zeroing makes the bytes initialised. The caller vouches
    // for the rest.
    unsafe {
        pointer.cast::<u8>().write_bytes(0, len);
        Ok(std::slice::from_raw_parts_mut(pointer.cast(), len))
    }
}

/// Refuses a pointer that no `T` can be behind.
///
/// # Errors
/// [`Failure::Library`] for a pointer that is null or misaligned.
pub fn check_pointer<T>(argument: &'static str, pointer: *const T) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(Failure::argument(argument, "NULL", "a valid pointer", "pass the address of an object"));
    }
    if !pointer.is_aligned() {
        let limit = format!("aligned to {} bytes", align_of::<T>());
        let value = format!("{pointer:p}");
        return Err(Failure::argument(argument, value, limit, "pass the address of an object"));
    }
    Ok(())
}

fn check_bytes(len: usize) -> Result<(), Failure> {
    if len <= isize::MAX as usize {
        return Ok(());
    }
    let limit = format!("at most {}", isize::MAX);
    Err(Failure::argument("bytes", len, limit, "pass the size of the memory in bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_misaligned_pointers_are_refused_by_name() {
        let value = 7u32;
        // SAFETY: a live value.
        assert_eq!(*unsafe { reference("value", &raw const value) }.unwrap(), 7);
        // SAFETY: refused before it is read.
        let error = unsafe { reference::<u32>("value", std::ptr::null()) }.unwrap_err().to_string();
        assert!(error.contains("value is NULL, but must be a valid pointer"), "{error}");
        // SAFETY: refused before it is read.
        let error = unsafe { reference("value", (&raw const value).wrapping_byte_add(2)) };
        let error = error.unwrap_err().to_string();
        assert!(error.contains("value is 0x") && error.contains("aligned to 4 bytes"), "{error}");
    }

    #[test]
    fn no_bytes_may_have_a_null_pointer_and_others_may_not() {
        // SAFETY: no bytes.
        assert!(unsafe { bytes("source", std::ptr::null(), 0) }.unwrap().is_empty());
        // SAFETY: no bytes.
        assert!(unsafe { bytes_mut("destination", std::ptr::null_mut(), 0) }.unwrap().is_empty());
        // SAFETY: refused before it is read.
        let error = unsafe { bytes("source", std::ptr::null(), 1) }.unwrap_err().to_string();
        assert!(error.contains("source is NULL"), "{error}");
        let byte = 0u8;
        // SAFETY: refused before it is read.
        let error = unsafe { bytes("source", (&raw const byte).cast(), usize::MAX) }.unwrap_err();
        assert!(error.to_string().contains("bytes is 18446744073709551615"), "{error}");
    }
}
