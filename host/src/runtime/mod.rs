//! What a backend provides. Everything above this trait is the same code for GPUs and the emulator.

pub(crate) mod emulator;

#[cfg(feature = "cust")]
pub(crate) mod cuda;

mod handle;

use dsa_simt::Entry;
use dsa_simt::emu::Statistics;

use crate::{DeviceProperties, Error, LaunchConfig, Module};

pub(crate) use handle::{CaptureScope, Handle, refuse_during_capture};

/// A device, seen through raw addresses and handles.
///
/// Callers pass only handles that the same runtime made. No method checks for captures: the layer above
/// refuses what a capture does not allow.
pub(crate) trait Runtime: Send + Sync {
    fn properties(&self) -> &DeviceProperties;

    /// The address and the owner of a new allocation of at least one byte, aligned to 256; contents
    /// undefined. Dropping the owner waits for launches that use the memory. Faults name the label.
    fn allocate(&self, bytes: usize, label: &str) -> Result<(u64, Handle), Error>;
    /// Copies to the device and waits for it.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error>;
    /// Copies from the device.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Error>;

    /// A stream of the device's own. Dropping its owner waits for it unless it is being captured.
    fn create_stream(&self) -> Result<Handle, Error>;
    /// A stream that belongs to somebody else.
    fn borrow_stream(&self, raw: u64) -> Handle;
    /// The stream's `CUstream`; 0 on the emulator.
    fn raw_stream(&self, stream: &Handle) -> u64;
    fn synchronize(&self, stream: &Handle) -> Result<(), Error>;
    /// Whether the stream is being captured, by whomever.
    fn is_capturing(&self, stream: &Handle) -> Result<bool, Error>;
    /// Enqueues writing `byte` to `len` bytes.
    fn fill(&self, stream: &Handle, address: u64, byte: u8, len: usize) -> Result<(), Error>;

    fn create_event(&self) -> Result<Handle, Error>;
    fn record(&self, event: &Handle, stream: &Handle) -> Result<(), Error>;
    /// Waits until what was enqueued before the event has run.
    fn wait(&self, event: &Handle) -> Result<(), Error>;
    /// Microseconds between two events that have passed.
    fn elapsed_us(&self, start: &Handle, end: &Handle) -> Result<f64, Error>;

    fn load(&self, module: &Module, entry: &'static Entry) -> Result<Handle, Error>;
    /// Blocks that fit on one multiprocessor at a time.
    fn occupancy(&self, kernel: &Handle, block: u32, shared_bytes: u32) -> Result<u32, Error>;
    /// Enqueues a launch whose configuration was checked.
    ///
    /// # Safety
    /// The slots satisfy the kernel's documentation until the launch (and every replay of it) has run.
    unsafe fn launch(
        &self,
        stream: &Handle,
        kernel: &Handle,
        config: &LaunchConfig,
        slots: &[u64],
    ) -> Result<(), Error>;

    fn begin_capture(&self, stream: &Handle) -> Result<(), Error>;
    /// Ends the capture in any case and instantiates the graph if it was captured whole.
    fn end_capture(&self, stream: &Handle) -> Result<Handle, Error>;
    /// Enqueues a replay.
    fn replay(&self, graph: &Handle, stream: &Handle) -> Result<(), Error>;

    /// What the emulated launches did since the last call; nothing on a GPU.
    fn take_statistics(&self) -> Option<Statistics> {
        None
    }
}
