//! Devices to test on, and small kernels that are the same on each of them.
#![allow(dead_code, reason = "each test binary uses a part")]

use dsa_kernels::{Buffer, Device, Error, Kernel, LaunchConfig, Module, Ptx, Stream};
use dsa_simt::{AtomicOp, Carve, Global, Order, Scope, Shared, Slot, block, spin_hint, thread};

dsa_simt::kernels! {
    /// The kernels of these tests; `kernels.ptx` holds the same for GPUs.
    pub static ENTRIES;

    /// Adds `by` to each of the `len` words of `data`.
    #[launch(max_threads = 256, min_blocks = 1, cluster = 1, arch = 80)]
    kernel increment(data: *mut u32, len: u32, by: u32) {
        // SAFETY: `data` holds `len` words; each thread touches its own.
        let data = unsafe { Global::from_raw(data, len as usize) };
        let i = (block::index() * block::threads() + thread::index()) as usize;
        if i < data.len() {
            data.set(i, data.get(i).wrapping_add(by));
        }
    }

    /// Reverses the `words` words of `data` through the shared memory of one block.
    #[launch(max_threads = 256, min_blocks = 1, cluster = 1, arch = 80)]
    kernel reverse(data: *mut u32, words: u32) {
        // SAFETY: `data` holds `words` words; a barrier separates the threads' accesses.
        let data = unsafe { Global::from_raw(data, words as usize) };
        // SAFETY: the launch has `words` words of shared memory.
        let shared: Shared<u32> = unsafe { Carve::dynamic().array(words) };
        let mut i = thread::index();
        while i < words {
            shared.set(words - 1 - i, data.get(i as usize));
            i += block::threads();
        }
        block::sync();
        let mut i = thread::index();
        while i < words {
            data.set(i as usize, shared.get(i));
            i += block::threads();
        }
    }

    /// All blocks wait for each other; then each adds 1 to its word of `out`.
    #[launch(max_threads = 32, min_blocks = 1, cluster = 1, arch = 80)]
    kernel meet(arrived: *mut u32, out: *mut u32) {
        // SAFETY: one word, accessed by atomics only.
        let arrived = unsafe { Global::from_raw(arrived, 1) };
        // SAFETY: one word for each block, which alone touches it.
        let out = unsafe { Global::from_raw(out, block::count() as usize) };
        if thread::index() == 0 {
            arrived.atomic(AtomicOp::Add, 0, 1, Order::AcqRel, Scope::Device);
            while arrived.atomic_load(0, Order::Acquire, Scope::Device) < block::count() {
                spin_hint();
            }
            out.set(block::index() as usize, out.get(block::index() as usize) + 1);
        }
    }
}

/// Written by hand: the tests of launches compare its entry points with [`ENTRIES`].
pub(crate) const PTX: &str = include_str!("kernels.ptx");

/// The module of [`ENTRIES`].
pub(crate) fn module() -> Module {
    Module::from_ptx("test", vec![Ptx::embedded(80, PTX)], ENTRIES)
}

/// Every device that this build and this machine have: the emulator, and the first GPU.
pub(crate) fn devices() -> Vec<Device> {
    let devices = match Device::best() {
        (device, None) => vec![Device::emulator(), device],
        (device, Some(Error::NotBuilt | Error::NoDriver | Error::NoDevice { .. })) => vec![device],
        (_, Some(error)) => panic!("the GPU does not work: {error}"),
    };
    for device in &devices {
        println!("testing on {}", device.properties().name);
    }
    devices
}

/// Enqueues [`increment`] of all of `data` by `by`.
pub(crate) fn enqueue_increment(
    kernel: &Kernel,
    stream: &Stream,
    data: &Buffer<u32>,
    by: u32,
) -> Result<(), Error> {
    let config = LaunchConfig::new((data.len() as u32).div_ceil(256), 256);
    let slots = [data.address(), (data.len() as u32).to_slot(), by.to_slot()];
    stream.keep_alive(|| data.owner());
    // SAFETY: `data` holds `len` words and is kept alive by a graph; the tests synchronise before they drop it.
    unsafe { kernel.launch(stream, &config, &slots) }
}
