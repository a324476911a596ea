//! The device's primary context, shared with everything else in the process.

use std::ffi::c_int;
use std::ptr::null_mut;

use cust::sys::CUdevice_attribute as Attribute;
use cust::sys::{CUcontext, CUdevice};

use super::driver::{
    Failure, NO_DEVICE, STUB_LIBRARY, cuCtxGetCurrent, cuCtxGetDevice, cuCtxPopCurrent_v2,
    cuCtxPushCurrent_v2, cuDeviceGet, cuDeviceGetAttribute, cuDeviceGetCount, cuDeviceGetName,
    cuDevicePrimaryCtxRelease_v2, cuDevicePrimaryCtxRetain, cuDriverGetVersion, cuInit,
};
use super::extended;
use crate::device::max_cluster;
use crate::{Backend, DeviceProperties, Error};

/// The lowest compute capability that this crate has kernels for.
const OLDEST: (u32, u32) = (8, 0);

pub(super) struct Context {
    device: CUdevice,
    context: CUcontext,
}

// SAFETY: the driver's handles may be used on any thread.
unsafe impl Send for Context {}
// SAFETY: the driver's functions synchronise themselves.
unsafe impl Sync for Context {}

/// The context is the calling thread's current one as long as this lives; then the former one is again.
pub(super) struct Current {
    pushed: bool,
}

impl Context {
    pub(super) fn open(ordinal: u32) -> Result<(Self, DeviceProperties), Error> {
        let count = count(ordinal)?;
        let number = c_int::try_from(ordinal).ok().filter(|&number| number < count);
        let Some(number) = number else {
            return Err(Error::NoDevice { ordinal, count: count.max(0) as u32 });
        };
        let mut device = 0;
        // SAFETY: the driver is initialised, the number is in range.
        unsafe { cuDeviceGet(&mut device, number) }?;
        let properties = properties(device)?;
        if properties.compute_capability < OLDEST {
            let found = properties.compute_capability;
            return Err(Error::DeviceTooOld { name: properties.name, found, needed: OLDEST });
        }
        let mut context = null_mut();
        // SAFETY: a valid device; released when the context is dropped.
        unsafe { cuDevicePrimaryCtxRetain(&mut context, device) }?;
        Ok((Self { device, context }, properties))
    }

    /// Makes the context current on this thread for a while.
    pub(super) fn enter(&self) -> Result<Current, Failure> {
        let mut current = null_mut();
        // SAFETY: the driver is initialised and writes one handle.
        unsafe { cuCtxGetCurrent(&mut current) }?;
        let pushed = current != self.context;
        if pushed {
            // SAFETY: the context is retained as long as this value lives.
            unsafe { cuCtxPushCurrent_v2(self.context) }?;
        }
        Ok(Current { pushed })
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        if self.pushed {
            let mut popped = null_mut();
            // SAFETY: `enter` pushed the context on this thread (this value is not `Send`).
            // A failure leaves nothing to restore.
            let _ = unsafe { cuCtxPopCurrent_v2(&mut popped) };
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once by `open`. A failure means that the driver is shutting down.
        let _ = unsafe { cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// Initialises the driver; the number of devices that it shows. `ordinal` is what the caller wants to open.
fn count(ordinal: u32) -> Result<c_int, Error> {
    // Only here do these codes say that there is nothing to open; later ones report what went wrong.
    let nothing_there = |failure: Failure| match failure.code {
        STUB_LIBRARY => Error::NoDriver,
        NO_DEVICE => Error::NoDevice { ordinal, count: 0 },
        _ => failure.into(),
    };
    // SAFETY: may be called at any time, by any thread.
    unsafe { cuInit(0) }.map_err(nothing_there)?;
    let mut count = 0;
    // SAFETY: the driver is initialised and writes one integer.
    unsafe { cuDeviceGetCount(&mut count) }.map_err(nothing_there)?;
    Ok(count)
}

/// The number of the device whose primary context is the calling thread's current context.
pub(crate) fn current_ordinal() -> Result<u32, Error> {
    let count = count(0)?;
    let mut current = null_mut();
    // SAFETY: the driver is initialised and writes one handle.
    unsafe { cuCtxGetCurrent(&mut current) }?;
    let refuse = |value, help| Err(Error::argument("current context", value, "a device's primary one", help));
    if current.is_null() {
        return refuse("absent", "make one current on this thread first, or pass a device's number");
    }
    let mut wanted = 0;
    // SAFETY: there is a current context; the driver writes one integer.
    unsafe { cuCtxGetDevice(&mut wanted) }?;
    for number in 0..count {
        let mut device = 0;
        // SAFETY: the driver is initialised, the number is in range.
        unsafe { cuDeviceGet(&mut device, number) }?;
        if device != wanted {
            continue;
        }
        let mut primary = null_mut();
        // SAFETY: a valid device; released below.
        unsafe { cuDevicePrimaryCtxRetain(&mut primary, device) }?;
        // SAFETY: retained by the line before.
        unsafe { cuDevicePrimaryCtxRelease_v2(device) }?;
        if primary == current {
            return Ok(number as u32);
        }
    }
    refuse("one made with cuCtxCreate", "use the primary context, as the CUDA runtime does")
}

fn properties(device: CUdevice) -> Result<DeviceProperties, Failure> {
    let attribute = |attribute: Attribute| -> Result<u32, Failure> {
        let mut value = 0;
        // SAFETY: a valid device; the driver writes one integer.
        unsafe { cuDeviceGetAttribute(&mut value, attribute, device) }?;
        Ok(value.max(0) as u32)
    };
    let mut name = [0u8; 256];
    // SAFETY: the driver writes at most 255 bytes and a NUL.
    unsafe { cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, device) }?;
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    let mut version = 0;
    // SAFETY: the driver writes one integer.
    unsafe { cuDriverGetVersion(&mut version) }?;
    let cuda = format!("CUDA {}.{}", version / 1000, version % 1000 / 10);
    let compute_capability = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    Ok(DeviceProperties {
        backend: Backend::Cuda,
        name: String::from_utf8_lossy(&name[..length]).into_owned(),
        driver_version: match kernel_driver_version() {
            Some(driver) => format!("{driver} ({cuda})"),
            None => cuda,
        },
        compute_capability,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        max_threads_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
        max_threads_per_multiprocessor: attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR,
        )?,
        max_blocks_per_multiprocessor: attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR,
        )?,
        shared_bytes_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        shared_bytes_per_multiprocessor: attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
        )?,
        l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize,
        cooperative_launch: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0,
        max_cluster: if version < extended::FIRST_VERSION { 1 } else { max_cluster(compute_capability) },
    })
}

/// The version of the kernel driver, as in `580.95.05`, where the system shows it.
fn kernel_driver_version() -> Option<String> {
    let text = std::fs::read_to_string("/sys/module/nvidia/version").ok()?;
    Some(text.trim().to_string()).filter(|version| !version.is_empty())
}
