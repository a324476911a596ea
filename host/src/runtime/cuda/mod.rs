//! A GPU as a runtime, over the driver API of `cust`.

mod context;
mod driver;
mod extended;
mod kernel;

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use cust::sys::{CUevent, CUgraphExec, CUstream, CUstream_flags, CUstreamCaptureMode, CUstreamCaptureStatus};
use dsa_simt::Entry;

pub(crate) use self::context::current_ordinal;

use self::context::Context;
use self::driver::{
    COOPERATIVE_LAUNCH_TOO_LARGE, Failure, OUT_OF_MEMORY, cuEventCreate, cuEventDestroy_v2,
    cuEventElapsedTime, cuEventRecord, cuEventSynchronize, cuGraphDestroy, cuGraphExecDestroy,
    cuGraphInstantiateWithFlags, cuGraphLaunch, cuLaunchCooperativeKernel, cuLaunchKernel, cuMemAlloc_v2,
    cuMemFree_v2, cuMemcpyDtoHAsync_v2, cuMemcpyHtoDAsync_v2, cuMemsetD8Async,
    cuOccupancyMaxActiveBlocksPerMultiprocessor, cuStreamBeginCapture_v2, cuStreamCreate, cuStreamDestroy_v2,
    cuStreamEndCapture, cuStreamIsCapturing, cuStreamSynchronize,
};
use self::extended::LaunchExtended;
use self::kernel::{LoadedKernel, Modules};
use super::{Handle, Runtime};
use crate::{DeviceProperties, Error, LaunchConfig, Module};

/// Parameters that a launch passes without allocating.
const FEW_PARAMETERS: usize = 32;

pub(crate) struct CudaRuntime {
    properties: DeviceProperties,
    modules: Modules,
    /// `None` where launches have neither clusters nor overlap.
    launch_extended: Option<LaunchExtended>,
    /// Copies run here: the default stream would wait for, and break, captures of other streams.
    copies: Handle,
    context: Arc<Context>,
}

/// A driver object that belongs to the context; `destroy` is `None` for somebody else's.
struct Object<T: Copy> {
    context: Arc<Context>,
    raw: T,
    destroy: Option<unsafe fn(T) -> Result<(), Failure>>,
}

// SAFETY: the driver's handles may be used on any thread.
unsafe impl<T: Copy> Send for Object<T> {}
// SAFETY: the driver's functions synchronise themselves; graphs are launched under a lock.
unsafe impl<T: Copy> Sync for Object<T> {}

impl<T: Copy> Drop for Object<T> {
    fn drop(&mut self) {
        if let Some(destroy) = self.destroy
            && let Ok(_current) = self.context.enter()
        {
            // SAFETY: created once, by this runtime, and this is the last owner. A failure reports an
            // earlier launch, or a driver that shuts down: nothing is left to release.
            let _ = unsafe { destroy(self.raw) };
        }
    }
}

type Stream = Object<CUstream>;
type Event = Object<CUevent>;
type Graph = Object<CUgraphExec>;
type Allocation = Object<u64>;

impl CudaRuntime {
    pub(crate) fn open(ordinal: u32) -> Result<Self, Error> {
        let (context, properties) = Context::open(ordinal)?;
        let context = Arc::new(context);
        let copies = create_stream(&context)?;
        let launch_extended = LaunchExtended::find(properties.compute_capability);
        Ok(Self { properties, modules: Modules::default(), launch_extended, copies, context })
    }

    fn handle<T: Copy + 'static>(&self, raw: T, destroy: unsafe fn(T) -> Result<(), Failure>) -> Handle {
        Handle::new(Object { context: self.context.clone(), raw, destroy: Some(destroy) })
    }
}

fn create_stream(context: &Arc<Context>) -> Result<Handle, Error> {
    let _current = context.enter()?;
    let mut raw: CUstream = null_mut();
    // SAFETY: the context is current; the driver writes one handle.
    unsafe { cuStreamCreate(&mut raw, CUstream_flags::CU_STREAM_NON_BLOCKING as u32) }?;
    Ok(Handle::new(Object { context: context.clone(), raw, destroy: Some(settle_and_destroy) }))
}

/// Waits for the stream, then destroys it: `cuStreamDestroy` itself does not wait, and blocking copies, which
/// run on another stream, find only live streams to wait for. A stream that somebody else captures cannot be
/// waited for.
///
/// # Safety
/// A live stream of the current context, not used again.
unsafe fn settle_and_destroy(stream: CUstream) -> Result<(), Failure> {
    // A stream whose state is unknown is only destroyed.
    let settled = match is_capturing(stream) {
        // SAFETY: the caller's promise.
        Ok(false) => unsafe { cuStreamSynchronize(stream) },
        other => other.map(|_| ()),
    };
    // SAFETY: the caller's promise.
    unsafe { cuStreamDestroy_v2(stream) }.and(settled)
}

/// Whether a live stream of the current context is being captured.
fn is_capturing(stream: CUstream) -> Result<bool, Failure> {
    // Written as the integer that it is in C, so that no unknown value becomes a Rust enum.
    let mut status = 0u32;
    // SAFETY: a live stream; the driver writes an enum, four bytes.
    unsafe { cuStreamIsCapturing(stream, (&raw mut status).cast()) }?;
    Ok(status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE as u32)
}

fn raw_stream(stream: &Handle) -> CUstream {
    stream.get::<Stream>().raw
}

impl Runtime for CudaRuntime {
    fn properties(&self) -> &DeviceProperties {
        &self.properties
    }

    fn allocate(&self, bytes: usize, _label: &str) -> Result<(u64, Handle), Error> {
        let _current = self.context.enter()?;
        let mut address = 0;
        // SAFETY: the context is current; the driver writes one address.
        match unsafe { cuMemAlloc_v2(&mut address, bytes) } {
            Ok(()) => Ok((address, Handle::new(self.allocation(address)))),
            Err(failure) if failure.code == OUT_OF_MEMORY => {
                Err(Error::OutOfMemory { bytes, driver: Some(failure.into()) })
            }
            Err(failure) => Err(failure.into()),
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let _current = self.context.enter()?;
        let stream = raw_stream(&self.copies);
        // SAFETY: the source outlives the copy, which is waited for; the driver checks the device address.
        unsafe { cuMemcpyHtoDAsync_v2(address, bytes.as_ptr().cast(), bytes.len(), stream) }?;
        // SAFETY: the runtime's own stream.
        Ok(unsafe { cuStreamSynchronize(stream) }?)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let _current = self.context.enter()?;
        let stream = raw_stream(&self.copies);
        // SAFETY: the destination outlives the copy, which is waited for; the driver checks the address.
        unsafe { cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), address, bytes.len(), stream) }?;
        // SAFETY: the runtime's own stream.
        Ok(unsafe { cuStreamSynchronize(stream) }?)
    }

    fn create_stream(&self) -> Result<Handle, Error> {
        create_stream(&self.context)
    }

    fn borrow_stream(&self, raw: u64) -> Handle {
        let raw: CUstream = std::ptr::with_exposed_provenance_mut(raw as usize);
        Handle::new(Object { context: self.context.clone(), raw, destroy: None })
    }

    fn raw_stream(&self, stream: &Handle) -> u64 {
        raw_stream(stream).expose_provenance() as u64
    }

    fn synchronize(&self, stream: &Handle) -> Result<(), Error> {
        let _current = self.context.enter()?;
        // SAFETY: a live stream.
        Ok(unsafe { cuStreamSynchronize(raw_stream(stream)) }?)
    }

    fn is_capturing(&self, stream: &Handle) -> Result<bool, Error> {
        let _current = self.context.enter()?;
        Ok(is_capturing(raw_stream(stream))?)
    }

    fn fill(&self, stream: &Handle, address: u64, byte: u8, len: usize) -> Result<(), Error> {
        let _current = self.context.enter()?;
        // SAFETY: the layer above passes a range of a live allocation.
        Ok(unsafe { cuMemsetD8Async(address, byte, len, raw_stream(stream)) }?)
    }

    fn create_event(&self) -> Result<Handle, Error> {
        let _current = self.context.enter()?;
        let mut raw: CUevent = null_mut();
        // SAFETY: the context is current; flags 0: with timing.
        unsafe { cuEventCreate(&mut raw, 0) }?;
        Ok(self.handle(raw, cuEventDestroy_v2))
    }

    fn record(&self, event: &Handle, stream: &Handle) -> Result<(), Error> {
        let _current = self.context.enter()?;
        // SAFETY: a live event and a live stream of the same context.
        Ok(unsafe { cuEventRecord(event.get::<Event>().raw, raw_stream(stream)) }?)
    }

    fn wait(&self, event: &Handle) -> Result<(), Error> {
        let _current = self.context.enter()?;
        // SAFETY: a live event.
        Ok(unsafe { cuEventSynchronize(event.get::<Event>().raw) }?)
    }

    fn elapsed_us(&self, start: &Handle, end: &Handle) -> Result<f64, Error> {
        let _current = self.context.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: live events; the driver refuses those that were not recorded.
        unsafe { cuEventElapsedTime(&mut milliseconds, start.get::<Event>().raw, end.get::<Event>().raw) }?;
        Ok(f64::from(milliseconds) * 1e3)
    }

    fn load(&self, module: &Module, entry: &'static Entry) -> Result<Handle, Error> {
        let ptx = module.ptx_for(self.properties.compute_capability)?;
        let text = ptx.text_of(entry.name);
        let loaded = self.modules.load(&self.context, module.name(), ptx.arch, &text)?;
        Ok(Handle::new(loaded.kernel(module, entry, self.properties.shared_bytes_per_block)?))
    }

    fn occupancy(&self, kernel: &Handle, block: u32, shared_bytes: u32) -> Result<u32, Error> {
        let _current = self.context.enter()?;
        let function = kernel.get::<LoadedKernel>().function;
        let mut blocks = 0;
        // SAFETY: a function of a loaded module; the driver checks the numbers.
        unsafe {
            cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &mut blocks,
                function,
                block as c_int,
                shared_bytes as usize,
            )
        }?;
        Ok(blocks.max(0) as u32)
    }

    unsafe fn launch(
        &self,
        stream: &Handle,
        kernel: &Handle,
        config: &LaunchConfig,
        slots: &[u64],
    ) -> Result<(), Error> {
        let _current = self.context.enter()?;
        let kernel = kernel.get::<LoadedKernel>();
        // The driver copies the parameters, each from where its pointer shows, during the call.
        let pointer = |slot: &u64| std::ptr::from_ref(slot).cast_mut().cast::<c_void>();
        let (mut few, mut many) = ([null_mut(); FEW_PARAMETERS], Vec::new());
        let parameters: &mut [*mut c_void] = match few.get_mut(..slots.len()) {
            Some(few) => {
                few.iter_mut().zip(slots).for_each(|(to, slot)| *to = pointer(slot));
                few
            }
            None => {
                many.extend(slots.iter().map(pointer));
                &mut many
            }
        };
        let LaunchConfig { grid, block, shared_bytes, cooperative, overlap, cluster } = *config;
        // Compiled for one size, it has that without being told.
        let cluster = (cluster != kernel.entry.cluster).then_some(cluster);
        // Without a wait in the code, overlapping would be a race.
        let overlap = overlap
            && kernel.can_wait
            && !cooperative
            && self.launch_extended.is_some_and(|launch| launch.overlaps);
        let extended = self.launch_extended.filter(|_| overlap || cluster.is_some());
        let (function, stream, parameters) = (kernel.function, raw_stream(stream), parameters.as_mut_ptr());
        // SAFETY: one pointer for each parameter, each to eight readable bytes, the low ones first; the
        // caller promises that the values satisfy the kernel.
        let launched = unsafe {
            if let Some(launch) = extended {
                launch.call(function, grid, block, cluster, overlap, shared_bytes, stream, parameters)
            } else if cooperative {
                cuLaunchCooperativeKernel(function, grid, 1, 1, block, 1, 1, shared_bytes, stream, parameters)
            } else {
                cuLaunchKernel(
                    function,
                    grid,
                    1,
                    1,
                    block,
                    1,
                    1,
                    shared_bytes,
                    stream,
                    parameters,
                    null_mut(),
                )
            }
        };
        match launched {
            Err(failure) if failure.code == COOPERATIVE_LAUNCH_TOO_LARGE => {
                let mut blocks = 0;
                // SAFETY: as in `occupancy`.
                let counted = unsafe {
                    cuOccupancyMaxActiveBlocksPerMultiprocessor(
                        &mut blocks,
                        function,
                        block as c_int,
                        shared_bytes as usize,
                    )
                };
                if counted.is_err() {
                    // The limit is unknown: what the driver said about the launch is all there is to say.
                    return Err(failure.into());
                }
                let limit = (blocks.max(0) as u32).saturating_mul(self.properties.multiprocessors);
                let driver = Some(failure.into());
                Err(Error::CooperativeTooLarge { kernel: kernel.entry.name, grid, limit, driver })
            }
            result => Ok(result?),
        }
    }

    fn begin_capture(&self, stream: &Handle) -> Result<(), Error> {
        let _current = self.context.enter()?;
        // Thread-local: other threads may allocate and copy meanwhile.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: a live stream.
        Ok(unsafe { cuStreamBeginCapture_v2(raw_stream(stream), mode) }?)
    }

    fn end_capture(&self, stream: &Handle) -> Result<Handle, Error> {
        let _current = self.context.enter()?;
        let mut graph = null_mut();
        // SAFETY: a live stream; the driver writes one handle, null when the capture was broken.
        unsafe { cuStreamEndCapture(raw_stream(stream), &mut graph) }?;
        let mut executable: CUgraphExec = null_mut();
        // SAFETY: the graph that was just made.
        let instantiated = unsafe { cuGraphInstantiateWithFlags(&mut executable, graph, 0) };
        // SAFETY: the executable graph does not need the graph, which nobody else has.
        let destroyed = unsafe { cuGraphDestroy(graph) };
        instantiated?;
        let handle = self.handle(executable, cuGraphExecDestroy);
        destroyed?;
        Ok(handle)
    }

    fn replay(&self, graph: &Handle, stream: &Handle) -> Result<(), Error> {
        let _current = self.context.enter()?;
        // SAFETY: a live graph, launched under the lock of the layer above, and a live stream.
        Ok(unsafe { cuGraphLaunch(graph.get::<Graph>().raw, raw_stream(stream)) }?)
    }
}

impl CudaRuntime {
    /// The owner of an allocation: `cuMemFree` waits for launches that use it.
    fn allocation(&self, address: u64) -> Allocation {
        Object { context: self.context.clone(), raw: address, destroy: Some(cuMemFree_v2) }
    }
}
