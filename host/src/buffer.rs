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
        refuse_during_capture("copying to the device")?;
        self.check_len("values.len()", values.len())?;
        self.device.settle()?;
        // SAFETY: `Element` promises that the values are plain bytes without padding.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        if bytes.is_empty() { Ok(()) } else { self.device.runtime().write(self.address, bytes) }
    }

    /// All elements.
    ///
    /// # Errors
    /// [`Error::DuringCapture`]; [`Error::Driver`], of an earlier launch, too.
    pub fn download(&self) -> Result<Vec<T>, Error> {
        refuse_during_capture("copying from the device")?;
        self.device.settle()?;
        let mut values = Vec::<T>::with_capacity(self.len);
        let bytes = self.bytes();
        if bytes > 0 {
            // SAFETY: the vector has room for `len` elements; zeroing makes their bytes initialised.
            let destination = unsafe {
                values.as_mut_ptr().write_bytes(0, self.len);
                std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), bytes)
            };
            self.device.runtime().read(self.address, destination)?;
        }
        // SAFETY: all `len` elements are initialised, and every bit pattern is a value of an `Element`.
        unsafe { values.set_len(self.len) };
        Ok(values)
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

    fn check_len(&self, argument: &'static str, len: usize) -> Result<(), Error> {
        if len <= self.len {
            return Ok(());
        }
        Err(Error::argument(argument, len, format!("at most {}", self.len), "allocate a larger buffer"))
    }
}
