//! Devices: a GPU or the emulator.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use dsa_simt::emu::{Preemption, Statistics};

use crate::runtime::emulator::EmulatorRuntime;
use crate::runtime::{Handle, Runtime, refuse_during_capture};
use crate::stream::State;
use crate::{Buffer, Element, Error, Kernel, Module, Stream};

/// A GPU, or the emulator. Clones are the same device.
///
/// Any thread may use it. On a GPU it shares the device's primary context with everything else in the
/// process (PyTorch, cudarc, ...), and leaves the calling thread's current context as it was.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Box<dyn Runtime>,
    /// The device's own streams, for blocking copies to wait for.
    streams: Mutex<Vec<Weak<State>>>,
    /// For blocking fills.
    fill_stream: Handle,
}

/// What runs the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// An NVIDIA GPU.
    Cuda,
    /// The emulator on the CPU.
    Emulator,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cuda => "cuda",
            Self::Emulator => "emulator",
        })
    }
}

/// Facts about a device.
#[derive(Clone, Debug)]
pub struct DeviceProperties {
    /// What runs the kernels.
    pub backend: Backend,
    /// The device's name.
    pub name: String,
    /// Highest CUDA version that the driver supports, as in `13.0`; empty on the emulator.
    pub driver_version: String,
    /// Compute capability, major and minor.
    pub compute_capability: (u32, u32),
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Most threads of a block.
    pub max_threads_per_block: u32,
    /// Most resident threads of a multiprocessor.
    pub max_threads_per_multiprocessor: u32,
    /// Most resident blocks of a multiprocessor.
    pub max_blocks_per_multiprocessor: u32,
    /// Most bytes of shared memory that a block can have when its kernel opts in.
    pub shared_bytes_per_block: u32,
    /// Bytes of shared memory of a multiprocessor.
    pub shared_bytes_per_multiprocessor: u32,
    /// Bytes of the last-level cache; 0 on the emulator.
    pub l2_bytes: usize,
    /// Whether cooperative launches are possible.
    pub cooperative_launch: bool,
    /// Most blocks of a cluster; 1 where there are none, or the binding that launches has no means of asking for them.
    pub max_cluster: u32,
}

/// Most blocks of a cluster of a kernel that is allowed all there are, on a device of this compute capability.
pub(crate) fn max_cluster(compute_capability: (u32, u32)) -> u32 {
    match compute_capability {
        // The large chips, with 16 multiprocessors or more in each cluster of theirs.
        (9 | 10, _) => 16,
        (11.., _) => 8,
        _ => 1,
    }
}

/// What the emulator pretends to be, and how it schedules.
#[derive(Clone, Debug)]
pub struct EmulatorOptions {
    /// Chooses the order of blocks and threads. The first launch uses exactly this seed; each further
    /// launch another one, derived from it.
    pub seed: u64,
    /// Most blocks that run at a time; `None` for what fits by threads and shared memory.
    pub resident_blocks: Option<u32>,
    /// How often a thread loses its turn at an atomic access to global memory.
    pub preemption: Preemption,
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Compute capability, major and minor.
    pub compute_capability: (u32, u32),
    /// Most bytes of dynamic shared memory of a block.
    pub shared_bytes_per_block: u32,
}

impl Default for EmulatorOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            resident_blocks: None,
            preemption: Preemption::OneIn(16),
            multiprocessors: 4,
            compute_capability: (9, 0),
            shared_bytes_per_block: 227 * 1024,
        }
    }
}

impl Device {
    /// The emulator with its default options.
    pub fn emulator() -> Self {
        Self::emulator_with(EmulatorOptions::default())
    }

    /// The emulator. Two emulators have separate memories.
    pub fn emulator_with(options: EmulatorOptions) -> Self {
        let runtime = EmulatorRuntime::new(options);
        let fill_stream = EmulatorRuntime::new_stream();
        Self::with_runtime(Box::new(runtime), fill_stream)
    }

    /// GPU number `ordinal`, as the driver counts (`CUDA_VISIBLE_DEVICES` applies).
    ///
    /// # Errors
    /// [`Error::NoDriver`], [`Error::NoDevice`], [`Error::DeviceTooOld`] (below 8.0), [`Error::Driver`].
    #[cfg(feature = "cust")]
    pub fn cuda(ordinal: u32) -> Result<Self, Error> {
        /// The devices that are open: all users of one share its compiled modules.
        static OPEN: Mutex<Vec<(u32, Weak<Shared>)>> = Mutex::new(Vec::new());

        refuse_during_capture("opening a device")?;
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let found = open.iter().find(|(number, _)| *number == ordinal);
        if let Some(shared) = found.and_then(|(_, shared)| shared.upgrade()) {
            return Ok(Self { shared });
        }
        let runtime = crate::runtime::cuda::CudaRuntime::open(ordinal)?;
        let fill_stream = runtime.create_stream()?;
        let device = Self::with_runtime(Box::new(runtime), fill_stream);
        open.retain(|(_, shared)| shared.strong_count() > 0);
        open.push((ordinal, Arc::downgrade(&device.shared)));
        Ok(device)
    }

    /// The GPU whose primary context is current on the calling thread: the one that the CUDA runtime, PyTorch
    /// and others use there.
    ///
    /// # Errors
    /// [`Error::Argument`] when no context is current, or one that is not a primary context; those of
    /// [`cuda`](Self::cuda).
    #[cfg(feature = "cust")]
    pub fn cuda_current() -> Result<Self, Error> {
        Self::cuda(crate::runtime::cuda::current_ordinal()?)
    }

    /// The first GPU if this build and this machine have one that works, else the emulator and the reason.
    pub fn best() -> (Self, Option<Error>) {
        #[cfg(feature = "cust")]
        let reason = match Self::cuda(0) {
            Ok(device) => return (device, None),
            Err(reason) => reason,
        };
        #[cfg(not(feature = "cust"))]
        let reason = Error::NotBuilt;
        (Self::emulator(), Some(reason))
    }

    fn with_runtime(runtime: Box<dyn Runtime>, fill_stream: Handle) -> Self {
        Self { shared: Arc::new(Shared { runtime, streams: Mutex::default(), fill_stream }) }
    }

    /// Facts about the device.
    pub fn properties(&self) -> &DeviceProperties {
        self.shared.runtime.properties()
    }

    /// A new stream that does not wait for the default stream.
    ///
    /// # Errors
    /// [`Error::DuringCapture`], [`Error::Driver`].
    pub fn stream(&self) -> Result<Stream, Error> {
        refuse_during_capture("creating a stream")?;
        let stream = Stream::new(self.clone(), self.shared.runtime.create_stream()?);
        let mut streams = self.lock_streams();
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(stream.state()));
        Ok(stream)
    }

    /// Somebody else's stream: a `CUstream` of the device's primary context (0 is the default stream).
    /// It is never destroyed. The emulator ignores `raw`.
    ///
    /// # Safety
    /// The stream is valid as long as the returned value and its clones. If somebody else captures it,
    /// everything enqueued here meanwhile must outlive that graph.
    pub unsafe fn borrow_stream(&self, raw: u64) -> Stream {
        Stream::new(self.clone(), self.shared.runtime.borrow_stream(raw))
    }

    /// `len` elements of device memory, contents undefined.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DuringCapture`], [`Error::Driver`].
    pub fn alloc<T: Element>(&self, len: usize) -> Result<Buffer<T>, Error> {
        Buffer::new(self, len)
    }

    /// Device memory that holds `values`.
    ///
    /// # Errors
    /// Those of [`alloc`](Self::alloc).
    pub fn upload<T: Element>(&self, values: &[T]) -> Result<Buffer<T>, Error> {
        let buffer = self.alloc(values.len())?;
        buffer.upload(values)?;
        Ok(buffer)
    }

    /// Loads kernel `name` of `module`. A kernel is compiled once per device, and alone if it can be
    /// ([`Ptx::text_of`](crate::Ptx::text_of)).
    ///
    /// # Errors
    /// [`Error::UnknownKernel`], [`Error::NoPtx`], [`Error::DeviceTooOld`], [`Error::Compile`] with the
    /// driver's log, [`Error::DuringCapture`], [`Error::Driver`].
    pub fn load_kernel(&self, module: &Module, name: &str) -> Result<Kernel, Error> {
        Kernel::load(self, module, name)
    }

    /// What the emulator's launches did since the last call; `None` on a GPU.
    pub fn emulator_statistics(&self) -> Option<Statistics> {
        self.shared.runtime.take_statistics()
    }

    pub(crate) fn runtime(&self) -> &dyn Runtime {
        &*self.shared.runtime
    }

    pub(crate) fn same_as(&self, other: &Self, argument: &'static str) -> Result<(), Error> {
        let same = Arc::ptr_eq(&self.shared, &other.shared);
        if same { Ok(()) } else { Err(Error::WrongDevice { argument }) }
    }

    /// Waits for the device's own streams, but for those being captured. Those that are gone were waited for
    /// when their owner was dropped.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        let streams: Vec<_> = self.lock_streams().iter().filter_map(Weak::upgrade).collect();
        streams.iter().try_for_each(|stream| stream.settle())
    }

    pub(crate) fn fill_blocking(&self, address: u64, byte: u8, len: usize) -> Result<(), Error> {
        if len == 0 {
            return Ok(());
        }
        let stream = &self.shared.fill_stream;
        self.shared.runtime.fill(stream, address, byte, len)?;
        self.shared.runtime.synchronize(stream)
    }

    fn lock_streams(&self) -> std::sync::MutexGuard<'_, Vec<Weak<State>>> {
        // A panic while the lock was held leaves a valid list.
        self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Device").field(&self.properties().name).finish()
    }
}
