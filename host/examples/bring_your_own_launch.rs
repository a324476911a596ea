//! Launching top-k through another CUDA binding: the plan, the PTX and the parameters come from this crate,
//! everything that touches the device is the caller's own.
//!
//! The other binding is [`driver`], the few driver functions that a launch needs, found in `libcuda.so.1` at
//! run time; cudarc, or an engine's own, takes their place. Where there is no GPU, the same plan and
//! parameters go to the emulator. Needs no feature and no CUDA toolkit:
//!
//! ```text
//! cargo run --example bring_your_own_launch
//! ```

use std::error::Error;

use dsa_kernels::topk::{Limits, Plan, TopKArgs};
use dsa_kernels::{DeviceProperties, LaunchConfig, Module};

#[path = "bring_your_own_launch/driver.rs"]
mod driver;
#[path = "bring_your_own_launch/emulated.rs"]
mod emulated;

/// What a launch needs of a binding.
trait Binding {
    /// Facts about the device; the plan depends on nothing else.
    fn properties(&self) -> &DeviceProperties;
    /// Device memory that holds `bytes`; its address.
    fn upload(&self, bytes: &[u8]) -> Result<u64, Box<dyn Error>>;
    /// The first `len` bytes at an address, after everything launched so far.
    fn download(&self, address: u64, len: usize) -> Result<Vec<u8>, Box<dyn Error>>;
    /// Launches kernel `entry` of `module`. Each slot is one parameter: `kernelParams[i] = &slots[i]`.
    fn launch(
        &self,
        module: &Module,
        entry: &str,
        config: LaunchConfig,
        slots: &[u64],
    ) -> Result<(), Box<dyn Error>>;
}

const K: u32 = 4;
const MAX_LEN: u32 = 50_000;

fn main() -> Result<(), Box<dyn Error>> {
    match driver::Driver::open() {
        Ok(driver) => select(&driver),
        Err(reason) => {
            eprintln!("no GPU ({reason}): using the emulator");
            select(&emulated::Emulated::new())
        }
    }
}

fn select(binding: &dyn Binding) -> Result<(), Box<dyn Error>> {
    // Three rows: a full one, one shorter than k, and an empty one of a padded batch.
    let lengths = [MAX_LEN as i32, 3, -1];
    let rows = lengths.len() as u32;
    let scores: Vec<f32> =
        (0..rows * MAX_LEN).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 * 1e-6).collect();

    // 1. Limits and the device's properties give the plan.
    let limits = Limits { max_rows: rows, max_len: MAX_LEN, ..Limits::of(K) };
    let plan = Plan::new(limits, binding.properties())?;

    // 2. The caller's own memory. The state is zero before the first launch; every launch leaves it zero.
    let state = binding.upload(&vec![0; plan.state_bytes()])?;
    let out = binding.upload(&vec![0xff; (rows * K * 4) as usize])?;
    let args = TopKArgs {
        scores: binding.upload(&bytes(&scores.iter().map(|score| score.to_bits()).collect::<Vec<_>>()))?,
        pitch: u64::from(MAX_LEN),
        rows,
        lengths: binding.upload(&bytes(&lengths.map(i32::cast_unsigned)))?,
        out,
        values: 0,
    };

    // 3. Checked parameters, the launch, and the module with the PTX for this device.
    let workspace = binding.upload(&vec![0xff; plan.workspace_bytes().max(1)])?;
    let slots = plan.slots(&args, state, workspace)?;
    let config = plan.launch_config(rows);
    println!(
        "{}: {} with {} blocks x {} threads, {} bytes of shared memory{}",
        binding.properties().name,
        plan.entry(),
        config.grid,
        config.block,
        config.shared_bytes,
        if config.cooperative { ", cooperative" } else { "" },
    );
    binding.launch(&Module::topk(), plan.entry(), config, &slots)?;

    // 4. Right? The order of the indices is free.
    let found = binding.download(out, (rows * K * 4) as usize)?;
    let found: Vec<i32> =
        found.chunks_exact(4).map(|word| i32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
    for (row, &length) in lengths.iter().enumerate() {
        let scores = &scores[row * MAX_LEN as usize..][..length.max(0) as usize];
        let mut expected: Vec<i32> = (0..length.max(0)).collect();
        expected.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        expected.resize(K as usize, -1);
        let mut indices = found[row * K as usize..][..K as usize].to_vec();
        println!("row {row}, length {length}: {indices:?}");
        indices.sort_unstable();
        expected.sort_unstable();
        if indices != expected {
            return Err(format!("row {row}: expected {expected:?}").into());
        }
    }
    println!("exact");
    Ok(())
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
