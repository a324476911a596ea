//! What the tests of decisions from lengths share.

use dsa_kernels_gpu::topk::Batch;
use dsa_kernels_gpu::topk::element::F32;
use dsa_simt::emu::Memory;

/// Rows of these lengths, of which nothing but the lengths may be touched.
pub(crate) fn batch(memory: &Memory, lengths: &[i32]) -> Batch<F32> {
    let address = memory.allocate(lengths.len() * 4, "lengths").unwrap();
    let bytes: Vec<u8> = lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
    memory.write(address, &bytes).unwrap();
    Batch {
        scores: std::ptr::null(),
        pitch: i32::MAX as u64,
        lengths: address as *const i32,
        out: std::ptr::null_mut(),
        values: std::ptr::null_mut(),
        rows: lengths.len() as u32,
        max_len: i32::MAX as u32,
        k: 2048,
        next_n: 1,
        compress_ratio: 1,
    }
}
