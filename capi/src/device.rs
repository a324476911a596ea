//! Devices, and their memory for programs that have no allocator of their own.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dsa_kernels::{Backend, Buffer, Device, Stream};

use crate::argument::{self, check_pointer};
use crate::status::{Failure, Status, catch};

/// `dsa_device`: a device, and the memory that was allocated through it.
pub struct CDevice {
    device: Device,
    /// By address.
    allocations: Mutex<BTreeMap<u64, Buffer<u8>>>,
}

/// `DSA_CURRENT_CONTEXT`.
const CURRENT_CONTEXT: i32 = -1;

impl CDevice {
    fn new(device: Device) -> Self {
        Self { device, allocations: Mutex::default() }
    }

    /// The device itself.
    pub fn device(&self) -> &Device {
        &self.device
    }

    fn allocations(&self) -> MutexGuard<'_, BTreeMap<u64, Buffer<u8>>> {
        // A panic while the lock was held leaves a valid map.
        self.allocations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `copy` on the allocation that holds `bytes` bytes from `address` on, from there on.
    fn with_range(
        &self,
        argument: &'static str,
        address: u64,
        bytes: usize,
        copy: impl FnOnce(&Buffer<u8>, usize) -> Result<(), dsa_kernels::Error>,
    ) -> Result<(), Failure> {
        if bytes == 0 {
            return Ok(());
        }
        let allocations = self.allocations();
        let found = allocations.range(..=address).next_back().and_then(|(start, buffer)| {
            let first = usize::try_from(address - start).ok()?;
            (bytes <= buffer.len().checked_sub(first)?).then_some((buffer, first))
        });
        let Some((buffer, first)) = found else {
            let value = format!("{bytes} bytes at {address:#x}");
            let help = "pass memory of this device that was not freed, and its size";
            return Err(Failure::argument(
                argument,
                value,
                "inside one dsa_buffer_alloc of the device",
                help,
            ));
        };
        Ok(copy(buffer, first)?)
    }
}

/// The caller's stream: a `CUstream` on a GPU, NULL on the emulator.
///
/// # Safety
/// Those of [`Device::borrow_stream`].
///
/// # Errors
/// [`Failure::Library`] for a stream on the emulator, which has none.
pub unsafe fn borrow_stream(device: &Device, stream: *mut c_void) -> Result<Stream, Failure> {
    if device.properties().backend == Backend::Emulator && !stream.is_null() {
        let value = format!("{stream:p}");
        let help = "pass NULL: work runs while it is enqueued";
        return Err(Failure::argument("stream", value, "NULL on the emulator", help));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { device.borrow_stream(address_of(stream)) })
}

/// A pointer of C as a device address.
pub fn address_of<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// Opens a GPU: number `ordinal`, or that of the current context.
///
/// # Safety
/// `device` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_device_open_cuda(ordinal: i32, device: *mut *mut CDevice) -> Status {
    catch(|| {
        check_pointer("device", device)?;
        let opened = Box::new(CDevice::new(cuda(ordinal)?));
        // SAFETY: checked; the caller vouches for it.
        unsafe { argument::store(device, Box::into_raw(opened)) };
        Ok(())
    })
}

/// Opens an emulator with memory of its own.
///
/// # Safety
/// `device` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_device_open_emulator(device: *mut *mut CDevice) -> Status {
    catch(|| {
        check_pointer("device", device)?;
        let opened = Box::new(CDevice::new(Device::emulator()));
        // SAFETY: checked; the caller vouches for it.
        unsafe { argument::store(device, Box::into_raw(opened)) };
        Ok(())
    })
}

/// Closes a device and frees what is left of its memory. NULL does nothing.
///
/// # Safety
/// `device` is null or was opened here and not closed, and no other call uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_device_close(device: *mut CDevice) -> Status {
    catch(|| {
        if !device.is_null() {
            check_pointer("device", device)?;
            // SAFETY: made by `Box::into_raw` and, the caller promises, not closed before.
            drop(unsafe { Box::from_raw(device) });
        }
        Ok(())
    })
}

/// Waits for a stream and reports errors of its launches.
///
/// # Safety
/// `device` is null or an open device, `stream` a stream of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_stream_synchronize(device: *const CDevice, stream: *mut c_void) -> Status {
    catch(|| {
        // SAFETY: the caller's promise.
        let device = unsafe { argument::reference("device", device) }?;
        // SAFETY: the caller's promise; the value lives for this call only.
        Ok(unsafe { borrow_stream(&device.device, stream) }?.synchronize()?)
    })
}

/// Allocates device memory, aligned to 256 bytes, contents undefined.
///
/// # Safety
/// `device` is null or an open device, `address` null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_buffer_alloc(
    device: *const CDevice,
    bytes: usize,
    address: *mut *mut c_void,
) -> Status {
    catch(|| {
        // SAFETY: the caller's promise.
        let device = unsafe { argument::reference("device", device) }?;
        check_pointer("address", address)?;
        let buffer = device.device.alloc::<u8>(bytes)?;
        let at = buffer.address();
        device.allocations().insert(at, buffer);
        // SAFETY: checked; the caller vouches for it.
        unsafe { argument::store(address, std::ptr::with_exposed_provenance_mut(at as usize)) };
        Ok(())
    })
}

/// Frees what `dsa_buffer_alloc` returned, after waiting for launches that use it. NULL does nothing.
///
/// # Safety
/// `device` is null or an open device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_buffer_free(device: *const CDevice, address: *mut c_void) -> Status {
    catch(|| {
        // SAFETY: the caller's promise.
        let device = unsafe { argument::reference("device", device) }?;
        if address.is_null() {
            return Ok(());
        }
        // Dropped after the lock was released: freeing may wait.
        let freed = device.allocations().remove(&address_of(address));
        if freed.is_none() {
            let limit = "an address that dsa_buffer_alloc returned";
            let help = "free every allocation once, on its own device";
            return Err(Failure::argument("address", format!("{address:p}"), limit, help));
        }
        Ok(())
    })
}

/// Copies from the host to device memory and waits for it.
///
/// # Safety
/// `device` is null or an open device; `source` is null or has `bytes` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_buffer_upload(
    device: *const CDevice,
    destination: *mut c_void,
    source: *const c_void,
    bytes: usize,
) -> Status {
    catch(|| {
        // SAFETY: the caller's promise.
        let device = unsafe { argument::reference("device", device) }?;
        // SAFETY: the caller's promise.
        let source = unsafe { argument::bytes("source", source, bytes) }?;
        let address = address_of(destination);
        device.with_range("destination", address, bytes, |buffer, first| buffer.upload_at(first, source))
    })
}

/// Copies from device memory to the host.
///
/// # Safety
/// `device` is null or an open device; `destination` is null or has `bytes` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_buffer_download(
    device: *const CDevice,
    destination: *mut c_void,
    source: *const c_void,
    bytes: usize,
) -> Status {
    catch(|| {
        // SAFETY: the caller's promise.
        let device = unsafe { argument::reference("device", device) }?;
        check_download(device, source, bytes)?;
        // SAFETY: the caller's promise.
        let destination = unsafe { argument::bytes_mut("destination", destination, bytes) }?;
        let address = address_of(source);
        device.with_range("source", address, bytes, |buffer, first| buffer.download_at(first, destination))
    })
}

/// Refuses a bad source before the destination is touched.
fn check_download(device: &CDevice, source: *const c_void, bytes: usize) -> Result<(), Failure> {
    device.with_range("source", address_of(source), bytes, |_, _| Ok(()))
}

#[cfg(feature = "cust")]
fn cuda(ordinal: i32) -> Result<Device, Failure> {
    match u32::try_from(ordinal) {
        Ok(ordinal) => Ok(Device::cuda(ordinal)?),
        Err(_) if ordinal == CURRENT_CONTEXT => Ok(Device::cuda_current()?),
        Err(_) => Err(bad_ordinal(ordinal)),
    }
}

#[cfg(not(feature = "cust"))]
fn cuda(ordinal: i32) -> Result<Device, Failure> {
    if ordinal < CURRENT_CONTEXT {
        Err(bad_ordinal(ordinal))
    } else {
        Err(dsa_kernels::Error::NotBuilt.into())
    }
}

fn bad_ordinal(ordinal: i32) -> Failure {
    let limit = "a device's number, or DSA_CURRENT_CONTEXT (-1)";
    Failure::argument("ordinal", ordinal, limit, "pass 0 for the first device")
}
