//! A CUDA binding of one page: `libcuda.so.1` through `dlopen`.

use std::error::Error;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

use dsa_kernels::{Backend, DeviceProperties, LaunchConfig, Module};

use crate::Binding;

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

const RTLD_NOW: c_int = 2;
const MAX_DYNAMIC_SHARED_SIZE_BYTES: c_int = 8;

/// `cuLaunchKernel`; `cuLaunchCooperativeKernel` is the same without the last argument.
type LaunchKernel = unsafe extern "C" fn(
    *mut c_void,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    *mut c_void,
    *mut *mut c_void,
    *mut *mut c_void,
) -> c_uint;
type LaunchCooperativeKernel = unsafe extern "C" fn(
    *mut c_void,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    *mut c_void,
    *mut *mut c_void,
) -> c_uint;

/// Device 0, with its primary context current on this thread. What it allocates lives as long as the process.
pub(crate) struct Driver {
    library: *mut c_void,
    properties: DeviceProperties,
}

/// Calls a driver function by name; an error names it and its code.
macro_rules! call {
    ($library:expr, $name:literal, fn($($ty:ty),*)($($argument:expr),*)) => {{
        let function = symbol($library, $name)?;
        // SAFETY: the driver's function of this name has this signature (cuda.h); the arguments are valid
        // for it: handles that the driver gave, and pointers to live values.
        let code = unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($ty),*) -> c_uint>(function)($($argument),*)
        };
        if code == 0 { Ok(()) } else { Err(format!("{} failed with code {code}", $name)) }
    }};
}

impl Driver {
    pub(crate) fn open() -> Result<Self, Box<dyn Error>> {
        // SAFETY: a NUL-terminated name; the driver's library may be loaded at any time.
        let library = unsafe { dlopen(c"libcuda.so.1".as_ptr(), RTLD_NOW) };
        if library.is_null() {
            return Err("libcuda.so.1 cannot be opened".into());
        }
        call!(library, "cuInit", fn(c_uint)(0))?;
        let (mut device, mut context) = (0, null_mut());
        call!(library, "cuDeviceGet", fn(*mut c_int, c_int)(&mut device, 0))?;
        let attribute = |attribute: c_int| -> Result<u32, Box<dyn Error>> {
            let mut value = 0;
            call!(library, "cuDeviceGetAttribute", fn(*mut c_int, c_int, c_int)(&mut value, attribute, device))?;
            Ok(value.try_into()?)
        };
        let mut name = [0; 128];
        call!(library, "cuDeviceGetName", fn(*mut c_char, c_int, c_int)(name.as_mut_ptr(), 128, device))?;
        // SAFETY: the driver writes a NUL-terminated name.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) };
        let properties = DeviceProperties {
            backend: Backend::Cuda,
            name: name.to_string_lossy().into_owned(),
            driver_version: String::new(),
            compute_capability: (attribute(75)?, attribute(76)?),
            multiprocessors: attribute(16)?,
            max_threads_per_block: attribute(1)?,
            max_threads_per_multiprocessor: attribute(39)?,
            max_blocks_per_multiprocessor: attribute(106)?,
            shared_bytes_per_block: attribute(97)?,
            shared_bytes_per_multiprocessor: attribute(81)?,
            l2_bytes: attribute(38)? as usize,
            cooperative_launch: attribute(95)? != 0,
            // `cuLaunchKernel` starts none: the plan is to do without.
            max_cluster: 1,
        };
        call!(library, "cuDevicePrimaryCtxRetain", fn(*mut *mut c_void, c_int)(&mut context, device))?;
        call!(library, "cuCtxSetCurrent", fn(*mut c_void)(context))?;
        Ok(Self { library, properties })
    }
}

impl Binding for Driver {
    fn properties(&self) -> &DeviceProperties {
        &self.properties
    }

    fn upload(&self, bytes: &[u8]) -> Result<u64, Box<dyn Error>> {
        let mut address = 0u64;
        call!(self.library, "cuMemAlloc_v2", fn(*mut u64, usize)(&mut address, bytes.len().max(1)))?;
        let from = bytes.as_ptr().cast();
        call!(self.library, "cuMemcpyHtoD_v2", fn(u64, *const c_void, usize)(address, from, bytes.len()))?;
        Ok(address)
    }

    fn download(&self, address: u64, len: usize) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut bytes = vec![0u8; len];
        let to = bytes.as_mut_ptr().cast();
        call!(self.library, "cuMemcpyDtoH_v2", fn(*mut c_void, u64, usize)(to, address, len))?;
        Ok(bytes)
    }

    fn launch(
        &self,
        module: &Module,
        entry: &str,
        config: LaunchConfig,
        slots: &[u64],
    ) -> Result<(), Box<dyn Error>> {
        let library = self.library;
        let text = CString::new(&*module.ptx_for(self.properties.compute_capability)?.text)?;
        let name = CString::new(entry)?;
        let (mut loaded, mut function) = (null_mut(), null_mut());
        let image = text.as_ptr().cast();
        call!(library, "cuModuleLoadData", fn(*mut *mut c_void, *const c_void)(&mut loaded, image))?;
        call!(
            library,
            "cuModuleGetFunction",
            fn(*mut *mut c_void, *mut c_void, *const c_char)(&mut function, loaded, name.as_ptr())
        )?;
        // Above 48 KiB a kernel has to be allowed its shared memory.
        let bytes = config.shared_bytes as c_int;
        call!(
            library,
            "cuFuncSetAttribute",
            fn(*mut c_void, c_int, c_int)(function, MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes)
        )?;
        let mut parameters: Vec<*mut c_void> =
            slots.iter().map(|slot| std::ptr::from_ref(slot).cast_mut().cast()).collect();
        let parameters = parameters.as_mut_ptr();
        let LaunchConfig { grid, block, shared_bytes, cooperative, .. } = config;
        // The default stream; an engine passes its own.
        let stream = null_mut();
        let code = if cooperative {
            let launch = symbol(library, "cuLaunchCooperativeKernel")?;
            // SAFETY: the signature is that of cuda.h.
            let launch = unsafe { std::mem::transmute::<*mut c_void, LaunchCooperativeKernel>(launch) };
            // SAFETY: a loaded function, and one pointer for each of its parameters, which the plan checked.
            unsafe { launch(function, grid, 1, 1, block, 1, 1, shared_bytes, stream, parameters) }
        } else {
            let launch = symbol(library, "cuLaunchKernel")?;
            // SAFETY: the signature is that of cuda.h.
            let launch = unsafe { std::mem::transmute::<*mut c_void, LaunchKernel>(launch) };
            // SAFETY: a loaded function, and one pointer for each of its parameters, which the plan checked.
            unsafe { launch(function, grid, 1, 1, block, 1, 1, shared_bytes, stream, parameters, null_mut()) }
        };
        if code == 0 { Ok(()) } else { Err(format!("the launch failed with code {code}").into()) }
    }
}

/// The address of a driver function.
fn symbol(library: *mut c_void, name: &str) -> Result<*mut c_void, Box<dyn Error>> {
    let name = CString::new(name)?;
    // SAFETY: an open library and a NUL-terminated name.
    let found = unsafe { dlsym(library, name.as_ptr()) };
    if found.is_null() {
        return Err(format!("the driver has no {}", name.to_string_lossy()).into());
    }
    Ok(found)
}
