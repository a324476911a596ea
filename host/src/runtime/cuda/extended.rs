//! Launches with attributes: clusters, and launches that may start while the launch before them on the stream is
//! still running (programmatic dependent launch).
//!
//! The function is newer than the bindings of `cust`, and than some drivers: it is asked for by name, and its
//! structs are declared here as in `cuda.h`.

use std::ffi::{c_int, c_uint, c_void};
use std::mem::transmute;
use std::ptr::null_mut;

use cust::sys::{CUfunction, CUstream};

use super::driver::{Failure, cuDriverGetVersion, cuGetProcAddress};

/// The first architecture whose PTX can wait for earlier launches.
const FIRST_ARCH: u32 = 90;
/// The first compute capability with clusters, and whose launches can overlap.
const FIRST_COMPUTE_CAPABILITY: (u32, u32) = (9, 0);
/// CUDA 12.7: the first version that takes our PTX with clusters, PTX 8.6.
pub(super) const FIRST_VERSION: c_int = 12_070;
/// CUDA 12.3: the first version whose graphs keep the overlap of the launches that they capture.
const FIRST_OVERLAPPING_VERSION: c_int = 12_030;

/// `CU_GET_PROC_ADDRESS_LEGACY_STREAM`: stream 0 is the legacy default stream, as in every other call here.
const LEGACY_STREAM: u64 = 1;
/// `CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION`.
const CLUSTER_DIMENSION: c_uint = 4;
/// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`.
const PROGRAMMATIC_STREAM_SERIALIZATION: c_uint = 6;

/// Whether kernels of this PTX can wait for earlier launches. Where it is for an older architecture, or was
/// compiled without the feature `sm_90` of `dsa-simt`, their call of wait has become nothing.
pub(super) fn can_wait(arch: u32, text: &str) -> bool {
    arch >= FIRST_ARCH && text.contains("griddepcontrol.wait")
}

/// `CUlaunchConfig`.
#[repr(C)]
struct Config {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: CUstream,
    attributes: *mut Attribute,
    attribute_count: c_uint,
}

/// `CUlaunchAttribute`.
#[repr(C)]
struct Attribute {
    id: c_uint,
    padding: [u8; 4],
    value: Value,
}

/// `CUlaunchAttributeValue`, a union of 64 bytes: the value in use is one integer at its start, or three.
#[repr(C, align(8))]
struct Value {
    numbers: [c_uint; 3],
    rest: [u8; 52],
}

impl Attribute {
    const fn new(id: c_uint, numbers: [c_uint; 3]) -> Self {
        Self { id, padding: [0; 4], value: Value { numbers, rest: [0; 52] } }
    }
}

type Function = unsafe extern "C" fn(*const Config, CUfunction, *mut *mut c_void, *mut *mut c_void) -> c_uint;

/// `cuLaunchKernelEx`.
#[derive(Clone, Copy)]
pub(super) struct LaunchExtended {
    function: Function,
    /// Whether launches can overlap.
    pub(super) overlaps: bool,
}

impl LaunchExtended {
    /// `None` where there are no clusters, and launches cannot overlap: old devices and old drivers. The driver is
    /// initialised.
    pub(super) fn find(compute_capability: (u32, u32)) -> Option<Self> {
        if compute_capability < FIRST_COMPUTE_CAPABILITY {
            return None;
        }
        let mut version = 0;
        // SAFETY: the driver writes one integer.
        unsafe { cuDriverGetVersion(&mut version) }.ok()?;
        if version < FIRST_VERSION {
            return None;
        }
        let mut function = null_mut();
        // SAFETY: a NUL-terminated name; the driver writes one address. This version of the function takes
        // four arguments in every driver: the one with five has another symbol.
        unsafe {
            cuGetProcAddress(c"cuLaunchKernelEx".as_ptr(), &mut function, FIRST_VERSION, LEGACY_STREAM)
        }
        .ok()?;
        if function.is_null() {
            return None;
        }
        // SAFETY: not null, and the address of a C function of this signature; CUresult is an unsigned int.
        let function = unsafe { transmute::<*mut c_void, Function>(function) };
        Some(Self { function, overlaps: version >= FIRST_OVERLAPPING_VERSION })
    }

    /// Launches, in clusters of so many blocks, if that is not the kernel's own affair, and with overlap allowed or
    /// not.
    ///
    /// # Safety
    /// That of `cuLaunchKernel`. With `overlap`, every thread of the kernel waits for earlier launches before it
    /// touches global memory.
    #[allow(clippy::too_many_arguments)]
    pub(super) unsafe fn call(
        self,
        function: CUfunction,
        grid: u32,
        block: u32,
        cluster: Option<u32>,
        overlap: bool,
        shared_bytes: u32,
        stream: CUstream,
        parameters: *mut *mut c_void,
    ) -> Result<(), Failure> {
        let overlapping = Attribute::new(PROGRAMMATIC_STREAM_SERIALIZATION, [1, 0, 0]);
        let clustered = Attribute::new(CLUSTER_DIMENSION, [cluster.unwrap_or(1), 1, 1]);
        // Those in use, from the start.
        let (mut attributes, attribute_count) = match (cluster, overlap) {
            (Some(_), overlap) => ([clustered, overlapping], 1 + c_uint::from(overlap)),
            (None, overlap) => ([overlapping, clustered], c_uint::from(overlap)),
        };
        let config = Config {
            grid: [grid, 1, 1],
            block: [block, 1, 1],
            shared_bytes,
            stream,
            attributes: attributes.as_mut_ptr(),
            attribute_count,
        };
        // SAFETY: the structs are those of the driver and outlive the call; the rest is the caller's promise.
        Failure::check("cuLaunchKernelEx", unsafe {
            (self.function)(&raw const config, function, parameters, null_mut())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{align_of, offset_of, size_of};
    use std::ptr::without_provenance_mut;

    use super::*;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn the_structs_have_the_layout_of_the_driver() {
        assert_eq!((size_of::<Config>(), align_of::<Config>()), (56, 8));
        assert_eq!([offset_of!(Config, grid), offset_of!(Config, block)], [0, 12]);
        assert_eq!([offset_of!(Config, shared_bytes), offset_of!(Config, stream)], [24, 32]);
        assert_eq!([offset_of!(Config, attributes), offset_of!(Config, attribute_count)], [40, 48]);
        assert_eq!((size_of::<Attribute>(), align_of::<Attribute>()), (72, 8));
        assert_eq!([offset_of!(Attribute, id), offset_of!(Attribute, value)], [0, 8]);
        assert_eq!((size_of::<Value>(), align_of::<Value>()), (64, 8));
        assert_eq!(offset_of!(Value, numbers), 0);
    }

    #[test]
    fn only_ptx_that_has_the_wait_can_wait() {
        assert!(can_wait(90, "griddepcontrol.wait;"));
        assert!(!can_wait(80, "griddepcontrol.wait;"));
        assert!(!can_wait(90, "griddepcontrol.launch_dependents;"));
        let module = crate::Module::topk();
        let topk = |device| {
            let ptx = module.ptx_for(device).unwrap();
            can_wait(ptx.arch, &ptx.text_of("topk_f32"))
        };
        assert_eq!([(8, 0), (8, 9), (9, 0), (12, 0)].map(topk), [false, false, true, true]);
    }

    #[test]
    fn the_function_is_not_asked_for_on_devices_without_clusters() {
        assert!(LaunchExtended::find((8, 9)).is_none());
    }

    #[test]
    fn the_answer_of_the_driver_is_passed_on() {
        /// Answers with what it was given, as far as that is wrong.
        unsafe extern "C" fn driver(
            config: *const Config,
            function: CUfunction,
            parameters: *mut *mut c_void,
            extra: *mut *mut c_void,
        ) -> c_uint {
            // SAFETY: `call` passes a live struct with live attributes.
            let (config, attributes) = unsafe {
                let config = &*config;
                (config, std::slice::from_raw_parts(config.attributes, config.attribute_count as usize))
            };
            let shape = (config.grid, config.block, config.shared_bytes);
            let attributes: Vec<_> =
                attributes.iter().map(|attribute| (attribute.id, attribute.value.numbers)).collect();
            let [clustered, overlapping] = [(4, [7, 1, 1]), (6, [1, 0, 0])];
            // The grid says which are expected.
            let expected = match config.grid[0] {
                7 => vec![],
                14 => vec![overlapping],
                21 => vec![clustered],
                _ => vec![clustered, overlapping],
            };
            let right = shape == ([config.grid[0], 1, 1], [96, 1, 1], 400)
                && attributes == expected
                && [config.stream.addr(), function.addr(), parameters.addr(), extra.addr()]
                    == [16, 32, 64, 0];
            if right { 0 } else { 1 }
        }
        let launch = |grid, cluster, overlap| {
            let [stream, function] = [16, 32].map(without_provenance_mut::<c_void>);
            // SAFETY: the function above follows no handle.
            unsafe {
                LaunchExtended { function: driver, overlaps: true }.call(
                    function.cast(),
                    grid,
                    96,
                    cluster,
                    overlap,
                    400,
                    stream.cast(),
                    without_provenance_mut(64),
                )
            }
        };
        assert!(launch(7, None, false).is_ok());
        assert!(launch(14, None, true).is_ok());
        assert!(launch(21, Some(7), false).is_ok());
        assert!(launch(28, Some(7), true).is_ok());
        let failure = launch(28, Some(8), true).unwrap_err();
        assert_eq!((failure.operation, failure.code), ("cuLaunchKernelEx", 1));
    }
}
