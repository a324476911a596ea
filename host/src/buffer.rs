//! Arrays in device memory.

use std::marker::PhantomData;

use crate::runtime::{Handle, refuse_during_capture};
use crate::{Device, Error, Owner, Stream};

/// A plain number, as it lies in device memory.
///
/// # Safety
/// The type has no padding, every bit pattern is a valid value, and it is `Copy`.
pub unsafe trait Element: Copy + Send + Sync + 'static {}

macro_rules! elements {
    ($($ty:ty),*) => {$(
        // SAFETY: a primitive number: no padding, every bit pattern is a value.
        unsafe impl Element for $ty {}
    )*};
}
elements!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);
// SAFETY: a transparent `u16`.
unsafe impl Element for half::f16 {}
// SAFETY: a transparent `u16`.
unsafe impl Element for half::bf16 {}

/// An array of `len` elements in device memory, aligned to 256 bytes. Freed when dropped; a graph that
/// was captured with it through a safe call keeps the memory alive.
///
/// Copies are blocking: they wait for the work enqueued so far on the device's own streams (not on
/// borrowed ones: synchronise those), copy, and return when the copy is complete. A stream that was dropped
/// needs no waiting: dropping it waited.
#[derive(Debug)]
pub struct Buffer<T> {
    device: Device,
    address: u64,
    len: usize,
    owner: Handle,
    element: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    pub(crate) fn new(device: &Device, len: usize) -> Result<Self, Error> {
        refuse_during_capture("allocating device memory")?;
        let bytes = len
            .checked_mul(size_of::<T>())
            .filter(|&bytes| bytes <= isize::MAX as usize)
            .ok_or(Error::OutOfMemory { bytes: usize::MAX, driver: None })?;
        let label = format!("{}[{len}]", std::any::type_name::<T>());
        let (address, owner) = device.runtime().allocate(bytes.max(1), &label)?;
        Ok(Self { device: device.clone(), address, len, owner, element: PhantomData })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// Device address of the first element.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The device that the memory belongs to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What keeps the memory alive.
    pub fn owner(&self) -> Owner {
        Owner(self.owner.clone())
    }

    /// Replaces the first `values.len()` elements.
    ///
    /// # Errors
    /// [`Error::Argument`] when there are more values than elements; [`Error::DuringCapture`];
    /// [`Error::Driver`], of an earlier launch, too.
    pub fn upload(&self, values: &[T]) -> Result<(), Error> {
        self.upload_at(0, values)
    }

    /// Replaces `values.len()` elements from element `first` on.
    ///
    /// # Errors
    /// Those of [`upload`](Self::upload).
    pub fn upload_at(&self, first: usize, values: &[T]) -> Result<(), Error> {
        refuse_during_capture("copying to the device")?;
        let address = self.range("values.len()", first, values.len())?;
        self.device.settle()?;
        // SAFETY: `Element` promises that the values are plain bytes without padding.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        if bytes.is_empty() { Ok(()) } else { self.device.runtime().write(address, bytes) }
    }

    /// All elements.
    ///
    /// # Errors
    /// [`Error::DuringCapture`]; [`Error::Driver`], of an earlier launch, too.
    pub fn download(&self) -> Result<Vec<T>, Error> {
        let mut values = Vec::<T>::with_capacity(self.len);
        // SAFETY: the vector has room for `len` elements; zeroing makes them initialised, and every bit
        // pattern is a value of an `Element`.
        unsafe {
            values.as_mut_ptr().write_bytes(0, self.len);
            values.set_len(self.len);
        }
        self.download_at(0, &mut values)?;
        Ok(values)
    }

    /// Copies `values.len()` elements from element `first` on to `values`.
    ///
    /// # Errors
    /// [`Error::Argument`] when there are fewer elements; those of [`download`](Self::download).
    pub fn download_at(&self, first: usize, values: &mut [T]) -> Result<(), Error> {
        refuse_during_capture("copying from the device")?;
        let address = self.range("values.len()", first, values.len())?;
        self.device.settle()?;
        // SAFETY: `Element` promises that the values are plain bytes of which every pattern is a value.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), size_of_val(values)) };
        if bytes.is_empty() { Ok(()) } else { self.device.runtime().read(address, bytes) }
    }

    /// Writes `byte` to every byte, and waits for it.
    ///
    /// # Errors
    /// [`Error::DuringCapture`]; [`Error::Driver`], of an earlier launch, too.
    pub fn fill_bytes(&self, byte: u8) -> Result<(), Error> {
        refuse_during_capture("a blocking fill")?;
        self.device.settle()?;
        self.device.fill_blocking(self.address, byte, self.bytes())
    }

    /// Enqueues writing `byte` to every byte. Can be captured.
    ///
    /// # Errors
    /// [`Error::WrongDevice`], [`Error::Driver`].
    pub fn fill_async(&self, stream: &Stream, byte: u8) -> Result<(), Error> {
        self.device.same_as(stream.device(), "stream")?;
        stream.keep_alive(|| self.owner());
        if self.is_empty() {
            return Ok(());
        }
        self.device.runtime().fill(stream.handle(), self.address, byte, self.bytes())
    }

    /// The address of element `first`, which `len` elements start at.
    fn range(&self, argument: &'static str, first: usize, len: usize) -> Result<u64, Error> {
        match self.len.checked_sub(first) {
            Some(room) if len <= room => Ok(self.address + (first * size_of::<T>()) as u64),
            room => {
                let limit = match first {
                    0 => format!("at most {}", self.len),
                    _ => format!("at most {} from element {first} on", room.unwrap_or(0)),
                };
                Err(Error::argument(argument, len, limit, "allocate a larger buffer"))
            }
        }
    }
}
