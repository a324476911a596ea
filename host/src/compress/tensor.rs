//! Arrays of one to three dimensions in device memory.

use std::fmt;

use crate::compress::NumberType;
use crate::{Buffer, Device, Element, Error, Owner};

/// The type of the elements of a [`Tensor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// `f32`.
    F32,
    /// `half::bf16`.
    Bf16,
    /// FP8 with 4 bits of exponent and 3 of fraction, without infinities: bytes on the host.
    F8E4M3,
    /// `i32`.
    I32,
}

impl ElementType {
    /// Bytes of an element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::Bf16 => 2,
            Self::F8E4M3 => 1,
        }
    }
}

impl From<NumberType> for ElementType {
    fn from(number: NumberType) -> Self {
        match number {
            NumberType::F32 => Self::F32,
            NumberType::Bf16 => Self::Bf16,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F8E4M3 => "f8e4m3",
            Self::I32 => "i32",
        })
    }
}

/// An element of a [`Buffer`] that a [`Tensor`] may view: f32, bf16, i32, and u8 as [`ElementType::F8E4M3`].
pub trait TensorElement: Element + sealed::Sealed {
    /// Its type.
    const TYPE: ElementType;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($element:ty = $type:ident),+) => {$(
        impl sealed::Sealed for $element {}
        impl TensorElement for $element {
            const TYPE: ElementType = ElementType::$type;
        }
    )+};
}
elements!(f32 = F32, half::bf16 = Bf16, u8 = F8E4M3, i32 = I32);

/// An array of `N` dimensions in device memory, dense but for a pitch between the entries of the first dimension.
///
/// Views of a [`Buffer`] ([`of`](Self::of)) are checked against its size, and graphs that capture a launch with them
/// keep its memory alive. What is behind a [`raw`](Self::raw) address is the caller's promise.
#[derive(Clone, Debug)]
pub struct Tensor<const N: usize> {
    /// Device address of the first element.
    pub address: u64,
    /// The type of the elements.
    pub ty: ElementType,
    /// Entries of each dimension.
    pub shape: [u64; N],
    /// Distance between consecutive entries of the first dimension, in elements.
    pub pitch: u64,
    memory: Option<Memory>,
}

/// The buffer that a tensor views.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) owner: Owner,
    pub(crate) device: Device,
    start: u64,
    bytes: u64,
}

impl<const N: usize> Tensor<N> {
    /// The first elements of a buffer, dense.
    ///
    /// # Errors
    /// [`Error::Argument`] when the buffer is smaller than the shape.
    pub fn of<T: TensorElement>(buffer: &Buffer<T>, shape: [u64; N]) -> Result<Self, Error> {
        let memory = Memory {
            owner: buffer.owner(),
            device: buffer.device().clone(),
            start: buffer.address(),
            bytes: buffer.bytes() as u64,
        };
        let tensor = Self { memory: Some(memory), ..Self::raw(buffer.address(), T::TYPE, shape) };
        tensor.check_memory("shape")?;
        Ok(tensor)
    }

    /// Device memory from anywhere, dense.
    pub fn raw(address: u64, ty: ElementType, shape: [u64; N]) -> Self {
        const { assert!(N > 0) };
        Self { address, ty, shape, pitch: dense_pitch(&shape), memory: None }
    }

    /// With so many elements between consecutive entries of the first dimension.
    ///
    /// # Errors
    /// [`Error::Argument`] when entries would overlap, or not be in the buffer.
    pub fn with_pitch(self, pitch: u64) -> Result<Self, Error> {
        let tensor = Self { pitch, ..self };
        tensor.check_pitch("pitch")?;
        tensor.check_memory("pitch")?;
        Ok(tensor)
    }

    /// Elements from one entry of the first dimension to the next if there is nothing between them.
    pub fn dense_pitch(&self) -> u64 {
        dense_pitch(&self.shape)
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Bytes from the first element to the last, both included; `None` beyond the address space.
    pub fn bytes(&self) -> Option<u64> {
        if self.is_empty() {
            return Some(0);
        }
        let rest = self.shape[1..].iter().try_fold(1u64, |product, &entries| product.checked_mul(entries))?;
        let elements = (self.shape[0] - 1).checked_mul(self.pitch)?.checked_add(rest)?;
        elements.checked_mul(self.ty.bytes())
    }

    pub(crate) fn memory(&self) -> Option<&Memory> {
        self.memory.as_ref()
    }

    /// Refuses entries of the first dimension that overlap.
    pub(crate) fn check_pitch(&self, argument: &'static str) -> Result<(), Error> {
        if self.pitch >= self.dense_pitch() {
            return Ok(());
        }
        let limit =
            format!("of a pitch of at least {} elements for the shape {:?}", self.dense_pitch(), self.shape);
        let help = "pass the elements between consecutive entries of the first dimension";
        Err(Error::argument(argument, format!("of pitch {}", self.pitch), limit, help))
    }

    /// Refuses elements that are not in the buffer, or not in the address space.
    pub(crate) fn check_memory(&self, argument: &'static str) -> Result<(), Error> {
        let end = self.bytes().and_then(|bytes| self.address.checked_add(bytes));
        let fits = match (&self.memory, end) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(memory), Some(end)) => self.address >= memory.start && end - memory.start <= memory.bytes,
        };
        if fits {
            return Ok(());
        }
        let value = format!("{} {:?} of pitch {} at {:#x}", self.ty, self.shape, self.pitch, self.address);
        let (limit, help) = match &self.memory {
            Some(memory) => {
                (format!("within {} bytes at {:#x}", memory.bytes, memory.start), "allocate a larger buffer")
            }
            None => ("within 64-bit addresses".to_string(), "pass shape and pitch in elements"),
        };
        Err(Error::argument(argument, value, limit, help))
    }
}

/// Saturates: a shape beyond the address space is refused by its size.
fn dense_pitch(shape: &[u64]) -> u64 {
    shape[1..].iter().fold(1, |product: u64, &entries| product.saturating_mul(entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_must_be_in_its_buffer() {
        let device = Device::emulator();
        let buffer = device.alloc::<f32>(2 * 12 + 8).unwrap();
        let tensor = Tensor::of(&buffer, [3, 2, 4]).unwrap();
        assert_eq!((tensor.pitch, tensor.ty, tensor.bytes()), (8, ElementType::F32, Some(96)));
        assert_eq!(tensor.with_pitch(12).unwrap().bytes(), Some(128));

        for (error, words) in [
            (Tensor::of(&buffer, [33]).unwrap_err(), "shape is f32 [33] of pitch 1 at 0x"),
            (Tensor::of(&buffer, [3, 2, 4]).unwrap().with_pitch(13).unwrap_err(), "within 128 bytes at 0x"),
            (Tensor::of(&buffer, [3, 2, 4]).unwrap().with_pitch(7).unwrap_err(), "at least 8 elements"),
            (Tensor::of(&buffer, [2, u64::MAX]).unwrap_err(), "within 128 bytes"),
        ] {
            let error = error.to_string();
            assert!(error.contains(words), "{error}");
        }
        let raw = Tensor::raw(4096, ElementType::I32, [u64::MAX / 2, 4]);
        assert!(raw.check_memory("table").unwrap_err().to_string().contains("within 64-bit addresses"));
    }

    #[test]
    fn a_tensor_without_elements_fits_everywhere() {
        let device = Device::emulator();
        let buffer = device.alloc::<u8>(0).unwrap();
        let tensor = Tensor::of(&buffer, [0, 512]).unwrap();
        assert!(tensor.is_empty());
        assert_eq!((tensor.pitch, tensor.bytes(), tensor.ty), (512, Some(0), ElementType::F8E4M3));
        assert_eq!(Tensor::raw(0, ElementType::F32, [0]).bytes(), Some(0));
    }
}
