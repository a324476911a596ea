//! Modules compiled by the driver, and their kernels.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

use cust::sys::CUfunction_attribute as Attribute;
use cust::sys::CUjit_option as Option_;
use cust::sys::{CUfunction, CUmodule};
use dsa_simt::Entry;

use super::context::Context;
use super::driver::{
    NOT_FOUND, allow_large_clusters, cuCtxSynchronize, cuFuncGetAttribute, cuFuncSetAttribute,
    cuModuleGetFunction, cuModuleLoadDataEx, cuModuleUnload,
};
use super::extended;
use crate::{Error, Module};

/// Bytes of each of the driver compiler's logs that are kept.
const LOG_BYTES: usize = 16 * 1024;

/// The compiled kernels of a device, or modules of several that may share variables, by their PTX.
#[derive(Default)]
pub(super) struct Modules(Mutex<HashMap<String, Arc<LoadedModule>>>);

pub(super) struct LoadedModule {
    context: Arc<Context>,
    module: CUmodule,
    /// Whether its PTX has the instruction that waits for earlier launches.
    can_wait: bool,
}

// SAFETY: the driver's handles may be used on any thread.
unsafe impl Send for LoadedModule {}
// SAFETY: the driver's functions synchronise themselves.
unsafe impl Sync for LoadedModule {}

pub(super) struct LoadedKernel {
    pub(super) function: CUfunction,
    pub(super) entry: &'static Entry,
    /// Whether its module can wait for earlier launches.
    pub(super) can_wait: bool,
    /// Keeps the function's code.
    _module: Arc<LoadedModule>,
}

// SAFETY: the driver's handles may be used on any thread.
unsafe impl Send for LoadedKernel {}
// SAFETY: the driver's functions synchronise themselves.
unsafe impl Sync for LoadedKernel {}

impl Modules {
    pub(super) fn load(
        &self,
        context: &Arc<Context>,
        name: &str,
        arch: u32,
        text: &str,
    ) -> Result<Arc<LoadedModule>, Error> {
        // A panic while the lock was held leaves a valid map.
        let mut modules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(text) {
            return Ok(module.clone());
        }
        let module = Arc::new(LoadedModule::compile(context, name, arch, text)?);
        modules.insert(text.to_string(), module.clone());
        Ok(module)
    }
}

impl LoadedModule {
    fn compile(context: &Arc<Context>, name: &str, arch: u32, text: &str) -> Result<Self, Error> {
        let failed = |code, name_of_code: String, log: String| Error::Compile {
            module: format!("{name} for sm_{arch}"),
            code,
            name: name_of_code,
            log,
        };
        let ptx = CString::new(text).map_err(|error| {
            failed(0, "not passed to the driver".into(), format!("PTX with a NUL: {error}"))
        })?;
        let (mut errors, mut infos) = (vec![0u8; LOG_BYTES], vec![0u8; LOG_BYTES]);
        let mut options = [
            Option_::CU_JIT_ERROR_LOG_BUFFER,
            Option_::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
            Option_::CU_JIT_INFO_LOG_BUFFER,
            Option_::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
        ];
        // The driver takes integers in the place of pointers.
        let size = LOG_BYTES as *mut c_void;
        let mut values: [*mut c_void; 4] =
            [errors.as_mut_ptr().cast(), size, infos.as_mut_ptr().cast(), size];
        let mut module = null_mut();
        let _current = context.enter()?;
        // SAFETY: NUL-terminated PTX; one value for each option; the logs have the sizes that are passed
        // and outlive the call.
        let loaded = unsafe {
            cuModuleLoadDataEx(
                &mut module,
                ptx.as_ptr().cast(),
                options.len() as c_uint,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        match loaded {
            Ok(()) => {
                let can_wait = extended::can_wait(arch, text);
                Ok(Self { context: context.clone(), module, can_wait })
            }
            Err(failure) => {
                let log = [log_text(&errors), log_text(&infos)].join("\n");
                Err(failed(failure.code, failure.name(), log.trim().to_string()))
            }
        }
    }

    /// The kernel of `entry`, allowed to use as much shared memory as the device has for a block.
    pub(super) fn kernel(
        self: &Arc<Self>,
        module: &Module,
        entry: &'static Entry,
        shared_bytes: u32,
    ) -> Result<LoadedKernel, Error> {
        let name = CString::new(entry.name)
            .map_err(|_| Error::argument("kernel", entry.name, "a name without NUL", "rename the kernel"))?;
        let _current = self.context.enter()?;
        let mut function = null_mut();
        // SAFETY: a loaded module and a NUL-terminated name.
        let found =
            unsafe { cuModuleGetFunction(&mut function, self.module, name.as_ptr().cast::<c_char>()) };
        if let Err(failure) = found {
            return Err(match failure.code {
                NOT_FOUND => Error::UnknownKernel {
                    module: module.name().to_string(),
                    kernel: entry.name.to_string(),
                    available: "PTX without it, which is older than its table of kernels".into(),
                },
                _ => failure.into(),
            });
        }
        let mut static_bytes: c_int = 0;
        // SAFETY: a function of a loaded module; the driver writes one integer.
        unsafe {
            cuFuncGetAttribute(&mut static_bytes, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function)
        }?;
        let dynamic_bytes = shared_bytes.saturating_sub(static_bytes.max(0) as u32) as c_int;
        let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: a function of a loaded module; the driver checks the value.
        unsafe { cuFuncSetAttribute(function, attribute, dynamic_bytes) }?;
        if entry.cluster == 0 {
            // SAFETY: as above.
            unsafe { allow_large_clusters(function) }?;
        }
        Ok(LoadedKernel { function, entry, can_wait: self.can_wait, _module: self.clone() })
    }
}

impl Drop for LoadedModule {
    fn drop(&mut self) {
        let Ok(_current) = self.context.enter() else {
            return;
        };
        // Code that may still run is not unloaded. The wait fails when somebody else captures a stream of
        // the context, or after a fatal error: then the module stays until the context goes.
        // SAFETY: the context is current.
        if unsafe { cuCtxSynchronize() }.is_ok() {
            // SAFETY: loaded once, no kernel of it is left, nothing runs. A failure leaves it loaded.
            let _ = unsafe { cuModuleUnload(self.module) };
        }
    }
}

fn log_text(log: &[u8]) -> String {
    let length = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..length]).into_owned()
}
