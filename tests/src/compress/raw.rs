//! Launches of the compressor's kernels with raw arguments.

use dsa_kernels::{Device, Error, LaunchConfig};

use crate::backend;
use crate::random::Random;

/// Launches the kernel `name` with parameters by name, and waits for it. Pointers are passed as addresses, an f32 as
/// its bits.
///
/// # Errors
/// Those of the library.
///
/// # Panics
/// If `named` is not what the kernel takes.
///
/// # Safety
/// The parameters keep the promises of the kernel's documentation.
pub unsafe fn launch(
    device: &Device,
    name: &str,
    config: LaunchConfig,
    named: &[(&str, u64)],
) -> Result<(), Error> {
    let kernel = device.load_kernel(&backend::compress()?, name)?;
    let parameters = kernel.entry().parameters;
    let slots: Vec<u64> = parameters
        .iter()
        .map(|parameter| {
            let mut values = named.iter().filter(|(name, _)| *name == parameter.name);
            let value = values.next().unwrap_or_else(|| panic!("{name}: no value for {}", parameter.name));
            assert!(values.next().is_none(), "{name}: two values for {}", parameter.name);
            value.1
        })
        .collect();
    assert_eq!(slots.len(), named.len(), "{name}: values for parameters that it has not");
    let stream = device.stream()?;
    // SAFETY: one slot per parameter; the rest is passed on to the caller.
    unsafe { kernel.launch(&stream, &config, &slots) }?;
    stream.synchronize()
}

/// Tables of `max_blocks` pages for each of `batch` requests, in rows of `pitch` entries: all different, in random
/// order, out of `pages`, which are that many at least. Entries beyond `max_blocks` are -1.
///
/// # Panics
/// If there are too few pages.
pub fn tables(random: &mut Random, batch: usize, max_blocks: usize, pitch: usize, pages: usize) -> Vec<i32> {
    assert!(batch * max_blocks <= pages, "{batch} requests with {max_blocks} pages need more than {pages}");
    let mut order: Vec<i32> = (0..pages as i32).collect();
    for i in (1..pages).rev() {
        order.swap(i, random.below(i + 1));
    }
    let mut tables = vec![-1; batch * pitch];
    for (i, page) in order.into_iter().take(batch * max_blocks).enumerate() {
        tables[i / max_blocks * pitch + i % max_blocks] = page;
    }
    tables
}

/// The running sums of `counts`, from 0 on.
pub fn running_sums(counts: impl IntoIterator<Item = i32>) -> Vec<i32> {
    let mut sums = vec![0];
    for count in counts {
        sums.push(sums.last().copied().unwrap_or(0) + count);
    }
    sums
}
