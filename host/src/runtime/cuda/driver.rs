//! The driver functions in use, with their results as integers.
//!
//! `cust::sys` declares the result as a Rust enum. Drivers return codes which that enum does not have, and
//! such a value in a Rust enum is undefined behaviour: so every function is called through a pointer type
//! that returns the integer which the C function really returns.

// The names and signatures are the driver's.
#![allow(non_snake_case, clippy::too_many_arguments)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::transmute;
use std::ptr::null;

use cust::sys::{
    self, CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction, CUfunction_attribute,
    CUgraph, CUgraphExec, CUjit_option, CUmodule, CUresult, CUstream, CUstreamCaptureMode,
    CUstreamCaptureStatus,
};

use crate::{DriverCode, Error};

pub(super) const OUT_OF_MEMORY: u32 = 2;
pub(super) const NOT_FOUND: u32 = 500;
pub(super) const COOPERATIVE_LAUNCH_TOO_LARGE: u32 = 720;
pub(super) const NO_DEVICE: u32 = 100;
/// What the link stub answers where there is no driver, and the toolkit's own stub everywhere.
pub(super) const STUB_LIBRARY: u32 = 34;

/// A driver error: the function and its raw code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) operation: &'static str,
    pub(super) code: u32,
}

impl Failure {
    /// What the driver answered to an operation.
    pub(super) fn check(operation: &'static str, code: c_uint) -> Result<(), Self> {
        if code == 0 { Ok(()) } else { Err(Self { operation, code }) }
    }

    /// The driver's name of the code.
    pub(super) fn name(self) -> String {
        type Function = unsafe extern "C" fn(CUresult, *mut *const c_char) -> CUresult;
        type Raw = unsafe extern "C" fn(c_uint, *mut *const c_char) -> c_uint;
        // SAFETY: both types describe the same C function; CUresult is an unsigned int in C.
        let function = unsafe { transmute::<Function, Raw>(sys::cuGetErrorName) };
        let mut name = null();
        // SAFETY: takes any code and writes the address of a static string, or null.
        unsafe { function(self.code, &mut name) };
        if name.is_null() {
            return "CUDA_ERROR_?".into();
        }
        // SAFETY: the driver's names are static NUL-terminated strings.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure { operation, code } = failure;
        Self::Driver { operation, code, name: failure.name() }
    }
}

impl From<Failure> for DriverCode {
    fn from(failure: Failure) -> Self {
        let Failure { operation, code } = failure;
        Self { operation, code, name: failure.name() }
    }
}

macro_rules! functions {
    ($($name:ident($($arg:ident: $ty:ty),* $(,)?);)*) => {$(
        /// # Safety
        /// That of the driver function of the same name.
        pub(super) unsafe fn $name($($arg: $ty),*) -> Result<(), Failure> {
            type Function = unsafe extern "C" fn($($ty),*) -> CUresult;
            type Raw = unsafe extern "C" fn($($ty),*) -> c_uint;
            // SAFETY: both types describe the same C function; CUresult is an unsigned int in C.
            let function = unsafe { transmute::<Function, Raw>(sys::$name) };
            // SAFETY: the caller's promise.
            Failure::check(stringify!($name), unsafe { function($($arg),*) })
        }
    )*};
}

functions! {
    cuInit(flags: c_uint);
    cuDriverGetVersion(version: *mut c_int);
    cuGetProcAddress(symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: u64);
    cuDeviceGetCount(count: *mut c_int);
    cuDeviceGet(device: *mut CUdevice, ordinal: c_int);
    cuDeviceGetName(name: *mut c_char, len: c_int, device: CUdevice);
    cuDeviceGetAttribute(value: *mut c_int, attribute: CUdevice_attribute, device: CUdevice);
    cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice);
    cuDevicePrimaryCtxRelease_v2(device: CUdevice);
    cuCtxGetCurrent(context: *mut CUcontext);
    cuCtxGetDevice(device: *mut CUdevice);
    cuCtxPushCurrent_v2(context: CUcontext);
    cuCtxPopCurrent_v2(context: *mut CUcontext);
    cuCtxSynchronize();

    cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize);
    cuMemFree_v2(address: CUdeviceptr);
    cuMemcpyHtoDAsync_v2(to: CUdeviceptr, from: *const c_void, bytes: usize, stream: CUstream);
    cuMemcpyDtoHAsync_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: CUstream);
    cuMemsetD8Async(address: CUdeviceptr, byte: u8, bytes: usize, stream: CUstream);

    cuStreamCreate(stream: *mut CUstream, flags: c_uint);
    cuStreamDestroy_v2(stream: CUstream);
    cuStreamSynchronize(stream: CUstream);
    cuStreamIsCapturing(stream: CUstream, status: *mut CUstreamCaptureStatus);
    cuStreamBeginCapture_v2(stream: CUstream, mode: CUstreamCaptureMode);
    cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph);

    cuGraphInstantiateWithFlags(executable: *mut CUgraphExec, graph: CUgraph, flags: u64);
    cuGraphDestroy(graph: CUgraph);
    cuGraphLaunch(executable: CUgraphExec, stream: CUstream);
    cuGraphExecDestroy(executable: CUgraphExec);

    cuEventCreate(event: *mut CUevent, flags: c_uint);
    cuEventDestroy_v2(event: CUevent);
    cuEventRecord(event: CUevent, stream: CUstream);
    cuEventSynchronize(event: CUevent);
    cuEventElapsedTime(milliseconds: *mut f32, start: CUevent, end: CUevent);

    cuModuleLoadDataEx(
        module: *mut CUmodule, image: *const c_void, count: c_uint, options: *mut CUjit_option,
        values: *mut *mut c_void,
    );
    cuModuleUnload(module: CUmodule);
    cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char);
    cuFuncGetAttribute(value: *mut c_int, attribute: CUfunction_attribute, function: CUfunction);
    cuFuncSetAttribute(function: CUfunction, attribute: CUfunction_attribute, value: c_int);
    cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int, function: CUfunction, block: c_int, shared_bytes: usize,
    );
    cuLaunchKernel(
        function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, shared_bytes: c_uint, stream: CUstream, parameters: *mut *mut c_void,
        extra: *mut *mut c_void,
    );
    cuLaunchCooperativeKernel(
        function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, shared_bytes: c_uint, stream: CUstream, parameters: *mut *mut c_void,
    );
}

/// `cuFuncSetAttribute` for an attribute that is newer than the bindings of `cust`: allows the function clusters of
/// more than 8 blocks.
///
/// # Safety
/// That of the driver function; the driver is for CUDA 12.7 or later.
pub(super) unsafe fn allow_large_clusters(function: CUfunction) -> Result<(), Failure> {
    type Typed = unsafe extern "C" fn(CUfunction, CUfunction_attribute, c_int) -> CUresult;
    type Raw = unsafe extern "C" fn(CUfunction, c_uint, c_int) -> c_uint;
    /// `CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED`.
    const ALLOWED: c_uint = 14;
    // SAFETY: both types describe the same C function; enumerations are unsigned ints in C.
    let set_attribute = unsafe { transmute::<Typed, Raw>(sys::cuFuncSetAttribute) };
    // SAFETY: the caller's promise.
    Failure::check("cuFuncSetAttribute", unsafe { set_attribute(function, ALLOWED, 1) })
}
