//! Launching through another CUDA binding, here cudarc: the plan, the PTX and the parameters come from this crate,
//! everything that touches the device is the other binding's. Needs neither the feature `cust` nor a CUDA toolkit.
//!
//! ```text
//! row 0, length 50000: [6765, 17711, 28657, 39603]
//! row 1, length 3: [0, 1, 2, -1]
//! row 2, length -1: [-1, -1, -1, -1]
//! ```
//!
//! `cargo run --package dsa-kernels --example 04_bring_your_own_driver`

use std::error::Error;

use cudarc::driver::sys::{CUdevice_attribute_enum::*, CUfunction_attribute_enum::*, is_culib_present};
use cudarc::driver::{CudaContext, DevicePtr, DevicePtrMut, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use dsa_kernels::topk::{Limits, Order, Plan, Ties, TopKArgs};
use dsa_kernels::{Backend, Device, DeviceProperties, Module};

const K: u32 = 4;
const MAX_LEN: u32 = 50_000;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    // A full row, one shorter than k, and an empty one of a padded batch.
    let lengths = [MAX_LEN as i32, 3, -1];
    let rows = lengths.len() as u32;
    let scores: Vec<f32> = (0..rows * MAX_LEN).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32).collect();
    let limits = Limits {
        max_rows: rows,
        max_len: MAX_LEN,
        ties: Ties::LowestIndex,
        order: Order::AscendingIndex,
        ..Limits::of(K)
    };

    // SAFETY: looks for the driver, and loads it if it is there.
    let has_gpu = unsafe { is_culib_present() } && CudaContext::device_count().is_ok_and(|count| count > 0);
    let indices = if has_gpu {
        with_cudarc(limits, &scores, &lengths)?
    } else {
        eprintln!("on the emulator: cudarc finds no GPU");
        on_the_emulator(limits, &scores, &lengths)?
    };
    for (row, indices) in indices.chunks(K as usize).enumerate() {
        println!("row {row}, length {}: {indices:?}", lengths[row]);
    }
    Ok(())
}

fn with_cudarc(limits: Limits, scores: &[f32], lengths: &[i32]) -> Result<Vec<i32>, Box<dyn Error>> {
    let context = CudaContext::new(0)?;
    let stream = context.default_stream();

    // 1. Limits and the device's properties give the plan.
    let properties = properties(&context)?;
    let plan = Plan::new(limits, &properties)?;

    // 2. Memory of the caller's. The state is zero before the first launch; every launch leaves it zero.
    let (device_scores, device_lengths) = (stream.clone_htod(scores)?, stream.clone_htod(lengths)?);
    let mut out = stream.alloc_zeros::<i32>((limits.max_rows * K) as usize)?;
    let mut state = stream.alloc_zeros::<u8>(plan.state_bytes())?;
    let mut workspace = stream.alloc_zeros::<u8>(plan.workspace_bytes().max(1))?;

    // 3. Checked parameters, one slot each.
    // (The guards that come with the addresses order streams; here is only one.)
    let (scores, lengths) = (device_scores.device_ptr(&stream).0, device_lengths.device_ptr(&stream).0);
    let args = arguments(scores, lengths, out.device_ptr_mut(&stream).0, limits.max_rows);
    let (state, workspace) = (state.device_ptr_mut(&stream).0, workspace.device_ptr_mut(&stream).0);
    let slots = plan.slots(&args, state, workspace)?;

    // 4. The PTX for this device. Above 48 KiB a kernel has to be allowed its shared memory.
    let ptx = Module::topk().ptx_for(properties.compute_capability)?.text.clone();
    let kernel = context.load_module(Ptx::from_src(ptx))?.load_function(plan.entry(limits.max_rows))?;
    let config = plan.launch_config(limits.max_rows);
    kernel.set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, config.shared_bytes as i32)?;

    // 5. The launch: `kernelParams[i]` is the address of slot i.
    let mut launch = stream.launch_builder(&kernel);
    for slot in slots.iter() {
        launch.arg(slot);
    }
    let config = LaunchConfig {
        grid_dim: (config.grid, 1, 1),
        block_dim: (config.block, 1, 1),
        shared_mem_bytes: config.shared_bytes,
    };
    // SAFETY: the slots are the plan's for memory of the sizes it asks for, which lives until the copy below is done.
    unsafe { launch.launch(config)? };
    Ok(stream.clone_dtoh(&out)?)
}

/// Device addresses; the rows are dense.
fn arguments(scores: u64, lengths: u64, out: u64, rows: u32) -> TopKArgs {
    TopKArgs { scores, pitch: u64::from(MAX_LEN), rows, lengths, out, values: 0 }
}

/// What the plan depends on: nothing else of the device matters.
fn properties(context: &CudaContext) -> Result<DeviceProperties, Box<dyn Error>> {
    let attribute =
        |attribute| -> Result<u32, Box<dyn Error>> { Ok(context.attribute(attribute)?.try_into()?) };
    let (major, minor) = context.compute_capability()?;
    Ok(DeviceProperties {
        backend: Backend::Cuda,
        name: context.name()?,
        driver_version: String::new(),
        compute_capability: (major.try_into()?, minor.try_into()?),
        multiprocessors: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        max_threads_per_block: attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
        max_threads_per_multiprocessor: attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
        max_blocks_per_multiprocessor: attribute(CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR)?,
        shared_bytes_per_block: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        shared_bytes_per_multiprocessor: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
        l2_bytes: attribute(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize,
        cooperative_launch: attribute(CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0,
        // The launch above starts no clusters: the plan is to do without.
        max_cluster: 1,
    })
}

/// The same plan and parameters, launched by this crate's own interface for kernels.
fn on_the_emulator(limits: Limits, scores: &[f32], lengths: &[i32]) -> Result<Vec<i32>, Box<dyn Error>> {
    let device = Device::emulator();
    let stream = device.stream()?;
    let plan = Plan::new(limits, device.properties())?;
    let (scores, lengths) = (device.upload(scores)?, device.upload(lengths)?);
    let out = device.alloc::<i32>((limits.max_rows * K) as usize)?;
    let state = device.upload(&vec![0u8; plan.state_bytes()])?;
    let workspace = device.alloc::<u8>(plan.workspace_bytes())?;
    let args = arguments(scores.address(), lengths.address(), out.address(), limits.max_rows);
    let slots = plan.slots(&args, state.address(), workspace.address())?;
    let kernel = device.load_kernel(&Module::topk(), plan.entry(limits.max_rows))?;
    // SAFETY: as with cudarc.
    unsafe { kernel.launch(&stream, &plan.launch_config(limits.max_rows), &slots)? };
    Ok(out.download()?)
}
