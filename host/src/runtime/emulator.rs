//! The emulator as a runtime: streams run work when it is enqueued, captures record it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dsa_simt::Entry;
use dsa_simt::emu::{self, Launch, Memory, MemoryError, Statistics};

use super::{Handle, Runtime};
use crate::device::max_cluster;
use crate::{Backend, DeviceProperties, EmulatorOptions, Error, LaunchConfig, Module};

/// Shared memory that the hardware takes for itself from every block, in bytes.
const RESERVED_SHARED_BYTES: u32 = 1024;

pub(crate) struct EmulatorRuntime {
    machine: Arc<Machine>,
}

struct Machine {
    properties: DeviceProperties,
    options: EmulatorOptions,
    memory: Memory,
    launches: AtomicU64,
    statistics: Mutex<Statistics>,
}

/// The work of a stream that is being captured; `None` when it runs.
struct Stream(Mutex<Option<Vec<Work>>>);

struct Event(Mutex<Option<Instant>>);

struct Kernel(&'static Entry);

struct Graph(Vec<Work>);

struct Allocation {
    machine: Arc<Machine>,
    address: u64,
}

#[derive(Clone)]
enum Work {
    Fill { address: u64, byte: u8, len: usize },
    Launch { entry: &'static Entry, config: LaunchConfig, slots: Vec<u64> },
}

impl EmulatorRuntime {
    pub(crate) fn new(options: EmulatorOptions) -> Self {
        let properties = DeviceProperties {
            backend: Backend::Emulator,
            name: "emulator".into(),
            driver_version: String::new(),
            compute_capability: options.compute_capability,
            multiprocessors: options.multiprocessors,
            max_threads_per_block: 1024,
            max_threads_per_multiprocessor: 2048,
            max_blocks_per_multiprocessor: 32,
            shared_bytes_per_block: options.shared_bytes_per_block,
            shared_bytes_per_multiprocessor: options
                .shared_bytes_per_block
                .saturating_add(RESERVED_SHARED_BYTES),
            l2_bytes: 0,
            cooperative_launch: true,
            max_cluster: max_cluster(options.compute_capability),
        };
        let machine = Machine {
            properties,
            options,
            memory: Memory::new(),
            launches: AtomicU64::new(0),
            statistics: Mutex::default(),
        };
        Self { machine: Arc::new(machine) }
    }

    pub(crate) fn new_stream() -> Handle {
        Handle::new(Stream(Mutex::new(None)))
    }

    fn enqueue(&self, stream: &Handle, work: Work) -> Result<(), Error> {
        // The lock is held while the work runs: a stream runs one thing after the other.
        match &mut *lock(&stream.get::<Stream>().0) {
            Some(captured) => captured.push(work),
            None => self.machine.execute(&work)?,
        }
        Ok(())
    }
}

impl Machine {
    fn execute(&self, work: &Work) -> Result<(), Error> {
        match work {
            Work::Fill { address, byte, len } => Ok(self.memory.fill(*address, *byte, *len)?),
            Work::Launch { entry, config, slots } => self.run(entry, config, slots),
        }
    }

    fn run(&self, entry: &'static Entry, config: &LaunchConfig, slots: &[u64]) -> Result<(), Error> {
        let resident = self.resident_blocks(config);
        if config.cooperative && config.grid > resident {
            return Err(Error::CooperativeTooLarge {
                kernel: entry.name,
                grid: config.grid,
                limit: resident,
                driver: None,
            });
        }
        let nth = self.launches.fetch_add(1, Ordering::Relaxed);
        // The golden ratio's bits spread consecutive numbers over all seeds.
        let seed = self.options.seed.wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let launch = Launch::new(config.grid, config.block)
            .with_cluster(config.cluster)
            .with_shared_bytes(config.shared_bytes)
            .with_cooperative(config.cooperative)
            // A cooperative launch does not overlap on a GPU either.
            .with_overlap(config.overlap && !config.cooperative)
            .with_seed(seed)
            .with_resident_blocks(resident)
            .with_preemption(self.options.preemption);
        let statistics = emu::run(&self.memory, entry, &launch, slots)?;
        *lock(&self.statistics) += statistics;
        Ok(())
    }

    fn resident_blocks(&self, config: &LaunchConfig) -> u32 {
        let fitting = self.occupancy(config.block, config.shared_bytes);
        let fitting = fitting.saturating_mul(self.properties.multiprocessors);
        // At least one cluster must be able to run.
        self.options.resident_blocks.unwrap_or(fitting).max(config.cluster)
    }

    fn occupancy(&self, block: u32, shared_bytes: u32) -> u32 {
        let properties = &self.properties;
        let threads = block.next_multiple_of(32);
        let by_threads = properties.max_threads_per_multiprocessor / threads;
        let by_shared =
            properties.shared_bytes_per_multiprocessor / shared_bytes.saturating_add(RESERVED_SHARED_BYTES);
        by_threads.min(by_shared).min(properties.max_blocks_per_multiprocessor)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // An address that `allocate` returned and that is freed once: nothing to report.
        let _ = self.machine.memory.free(self.address);
    }
}

impl Runtime for EmulatorRuntime {
    fn properties(&self) -> &DeviceProperties {
        &self.machine.properties
    }

    fn allocate(&self, bytes: usize, label: &str) -> Result<(u64, Handle), Error> {
        let address = match self.machine.memory.allocate(bytes, label) {
            Err(MemoryError::OutOfMemory { bytes, .. }) => {
                return Err(Error::OutOfMemory { bytes, driver: None });
            }
            address => address?,
        };
        Ok((address, Handle::new(Allocation { machine: self.machine.clone(), address })))
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.machine.memory.write(address, bytes)?)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        Ok(self.machine.memory.read(address, bytes)?)
    }

    fn create_stream(&self) -> Result<Handle, Error> {
        Ok(Self::new_stream())
    }

    fn borrow_stream(&self, _raw: u64) -> Handle {
        Self::new_stream()
    }

    fn raw_stream(&self, _stream: &Handle) -> u64 {
        0
    }

    fn synchronize(&self, _stream: &Handle) -> Result<(), Error> {
        Ok(())
    }

    fn is_capturing(&self, stream: &Handle) -> Result<bool, Error> {
        Ok(lock(&stream.get::<Stream>().0).is_some())
    }

    fn fill(&self, stream: &Handle, address: u64, byte: u8, len: usize) -> Result<(), Error> {
        self.enqueue(stream, Work::Fill { address, byte, len })
    }

    fn create_event(&self) -> Result<Handle, Error> {
        Ok(Handle::new(Event(Mutex::new(None))))
    }

    fn record(&self, event: &Handle, _stream: &Handle) -> Result<(), Error> {
        *lock(&event.get::<Event>().0) = Some(Instant::now());
        Ok(())
    }

    fn wait(&self, _event: &Handle) -> Result<(), Error> {
        Ok(())
    }

    fn elapsed_us(&self, start: &Handle, end: &Handle) -> Result<f64, Error> {
        let time = |event: &Handle, argument| {
            lock(&event.get::<Event>().0)
                .ok_or_else(|| Error::argument(argument, "an event never recorded", "recorded", "record it"))
        };
        let (start, end) = (time(start, "start")?, time(end, "event")?);
        let forwards = end.saturating_duration_since(start).as_secs_f64();
        let backwards = start.saturating_duration_since(end).as_secs_f64();
        Ok((forwards - backwards) * 1e6)
    }

    fn load(&self, _module: &Module, entry: &'static Entry) -> Result<Handle, Error> {
        Ok(Handle::new(Kernel(entry)))
    }

    fn occupancy(&self, _kernel: &Handle, block: u32, shared_bytes: u32) -> Result<u32, Error> {
        Ok(self.machine.occupancy(block, shared_bytes))
    }

    unsafe fn launch(
        &self,
        stream: &Handle,
        kernel: &Handle,
        config: &LaunchConfig,
        slots: &[u64],
    ) -> Result<(), Error> {
        let entry = kernel.get::<Kernel>().0;
        self.enqueue(stream, Work::Launch { entry, config: *config, slots: slots.to_vec() })
    }

    fn begin_capture(&self, stream: &Handle) -> Result<(), Error> {
        *lock(&stream.get::<Stream>().0) = Some(Vec::new());
        Ok(())
    }

    fn end_capture(&self, stream: &Handle) -> Result<Handle, Error> {
        let work = lock(&stream.get::<Stream>().0).take();
        Ok(Handle::new(Graph(work.unwrap_or_default())))
    }

    fn replay(&self, graph: &Handle, stream: &Handle) -> Result<(), Error> {
        graph.get::<Graph>().0.iter().try_for_each(|work| self.enqueue(stream, work.clone()))
    }

    fn take_statistics(&self) -> Option<Statistics> {
        Some(std::mem::take(&mut *lock(&self.machine.statistics)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every value behind these locks is valid at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
