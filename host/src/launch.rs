//! Kernels and launches with raw arguments.

use std::ops::Deref;

use dsa_simt::Entry;

use crate::module::compute_capability;
use crate::runtime::{Handle, refuse_during_capture};
use crate::{Device, Error, Module, Owner, Stream};

/// The shape of a launch. It never depends on device data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks.
    pub grid: u32,
    /// Threads of a block.
    pub block: u32,
    /// Blocks of a cluster, 1 for none: the kernel's own number, if it was compiled for one.
    pub cluster: u32,
    /// Bytes of dynamic shared memory of each block.
    pub shared_bytes: u32,
    /// Launch only if all blocks are resident at once, so that they may wait for each other.
    pub cooperative: bool,
    /// May start while the launch before it on the stream is still running; only for kernels that call wait
    /// (`dsa_simt::grid::wait_for_earlier`) before they touch global memory.
    ///
    /// A permission: the launch overlaps on devices of compute capability 9.0 and later with a driver for
    /// CUDA 12.3 or later, if its PTX is for `sm_90` or later and waits (older PTX cannot) and it is not
    /// cooperative. Otherwise it starts when the launch before it has ended. The emulator runs one launch
    /// after the other, but reports a thread that does not wait.
    pub overlap: bool,
}

impl LaunchConfig {
    /// `grid` blocks of `block` threads, without clusters, shared memory, cooperation and overlap.
    pub const fn new(grid: u32, block: u32) -> Self {
        Self { grid, block, cluster: 1, shared_bytes: 0, cooperative: false, overlap: false }
    }

    /// With `shared_bytes` bytes of dynamic shared memory for each block.
    #[must_use]
    pub const fn with_shared_bytes(self, shared_bytes: u32) -> Self {
        Self { shared_bytes, ..self }
    }

    /// With clusters of `cluster` blocks.
    #[must_use]
    pub const fn with_cluster(self, cluster: u32) -> Self {
        Self { cluster, ..self }
    }

    /// As a cooperative launch.
    #[must_use]
    pub const fn with_cooperative(self, cooperative: bool) -> Self {
        Self { cooperative, ..self }
    }

    /// As a launch that may start while the launch before it on the stream is still running: only for
    /// kernels that wait before they touch global memory, see [`overlap`](Self::overlap).
    #[must_use]
    pub const fn with_overlap(self, overlap: bool) -> Self {
        Self { overlap, ..self }
    }
}

/// A kernel, loaded on a device.
#[derive(Clone, Debug)]
pub struct Kernel {
    device: Device,
    handle: Handle,
    entry: &'static Entry,
}

impl Kernel {
    pub(crate) fn load(device: &Device, module: &Module, name: &str) -> Result<Self, Error> {
        refuse_during_capture("loading a module")?;
        let entry = module.entry(name)?;
        let found = device.properties().compute_capability;
        let needed = compute_capability(entry.min_arch);
        if found < needed {
            return Err(Error::DeviceTooOld { name: device.properties().name.clone(), found, needed });
        }
        let handle = device.runtime().load(module, entry)?;
        Ok(Self { device: device.clone(), handle, entry })
    }

    /// The kernel's name, launch bounds and parameters.
    pub fn entry(&self) -> &'static Entry {
        self.entry
    }

    /// The device that it is loaded on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What keeps the kernel loaded.
    pub fn owner(&self) -> Owner {
        Owner(self.handle.clone())
    }

    /// How many blocks of `block` threads with `shared_bytes` bytes of dynamic shared memory fit on one
    /// multiprocessor at a time; 0 when not even one does.
    ///
    /// # Errors
    /// [`Error::Argument`], [`Error::Driver`].
    pub fn occupancy(&self, block: u32, shared_bytes: u32) -> Result<u32, Error> {
        self.check_block(block)?;
        self.device.runtime().occupancy(&self.handle, block, shared_bytes)
    }

    /// Enqueues a launch with one slot for each parameter, in order: addresses as they are, `u32`, `i32`
    /// and `f32` in the low half (`dsa_simt::Slot`).
    ///
    /// # Safety
    /// The slots satisfy the kernel's documentation, until the launch has run; if `stream` is being
    /// captured, until the last replay has run. With [`LaunchConfig::overlap`], every thread of the kernel
    /// waits for earlier launches before it touches global memory.
    ///
    /// # Errors
    /// [`Error::Argument`] when the configuration is outside the limits of the kernel or the device or
    /// the number of slots is wrong; [`Error::WrongDevice`], [`Error::CooperativeTooLarge`],
    /// [`Error::Driver`], [`Error::Emulator`].
    pub unsafe fn launch(&self, stream: &Stream, config: &LaunchConfig, slots: &[u64]) -> Result<(), Error> {
        self.device.same_as(stream.device(), "stream")?;
        self.check(config, slots)?;
        stream.keep_alive(|| self.owner());
        // SAFETY: the caller's promise about the slots; the configuration is checked.
        unsafe { self.device.runtime().launch(stream.handle(), &self.handle, config, slots) }
    }

    fn check(&self, config: &LaunchConfig, slots: &[u64]) -> Result<(), Error> {
        let entry = self.entry;
        self.check_block(config.block)?;
        if config.grid == 0 || config.grid > i32::MAX as u32 {
            return Err(Error::argument("grid", config.grid, "1..=2147483647", "launch at least one block"));
        }
        let properties = self.device.properties();
        if entry.cluster != 0 && config.cluster != entry.cluster {
            return Err(Error::argument(
                "cluster",
                config.cluster,
                format!("{}, as kernel {} is compiled", entry.cluster, entry.name),
                "use the kernel's own cluster size",
            ));
        }
        if !(1..=properties.max_cluster).contains(&config.cluster) {
            let limit = format!("1..={} on {}", properties.max_cluster, properties.name);
            return Err(Error::argument("cluster", config.cluster, limit, "use smaller clusters"));
        }
        if !config.grid.is_multiple_of(config.cluster) {
            let limit = format!("a multiple of the cluster's {} blocks", config.cluster);
            return Err(Error::argument("grid", config.grid, limit, "round the grid up"));
        }
        if config.shared_bytes > properties.shared_bytes_per_block {
            let limit = format!("at most {} on {}", properties.shared_bytes_per_block, properties.name);
            return Err(Error::argument("shared_bytes", config.shared_bytes, limit, "use smaller tiles"));
        }
        if config.cooperative && !properties.cooperative_launch {
            let limit = format!("false on {}", properties.name);
            return Err(Error::argument("cooperative", true, limit, "use a path without cooperation"));
        }
        if slots.len() != entry.parameters.len() {
            let names: Vec<_> = entry.parameters.iter().map(|parameter| parameter.name).collect();
            let limit = format!("{} for kernel {} ({})", names.len(), entry.name, names.join(", "));
            return Err(Error::argument("slots.len()", slots.len(), limit, "pass one slot per parameter"));
        }
        Ok(())
    }

    fn check_block(&self, block: u32) -> Result<(), Error> {
        let limit = self.entry.max_threads.min(self.device.properties().max_threads_per_block);
        if (1..=limit).contains(&block) {
            return Ok(());
        }
        let limit = format!("1..={limit} for kernel {}", self.entry.name);
        Err(Error::argument("block", block, limit, "launch blocks within the kernel's bounds"))
    }
}

/// The parameters of a launch, one 64-bit slot each, in the kernel's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    words: [u64; Slots::MOST],
    len: usize,
}

impl Slots {
    /// As many as the kernel of this crate with the most parameters has, and a few more.
    const MOST: usize = 48;

    pub(crate) fn new() -> Self {
        Self { words: [0; Self::MOST], len: 0 }
    }

    /// Adds parameters at the end.
    pub(crate) fn extend<const N: usize>(&mut self, words: [u64; N]) {
        self.words[self.len..self.len + N].copy_from_slice(&words);
        self.len += N;
    }
}

impl Deref for Slots {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.words[..self.len]
    }
}
