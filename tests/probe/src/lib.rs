//! Device kernels that only the tests and the benchmark launch.
//!
//! One kernel per group of primitives of the SIMT machine: the tests launch the same kernel on the emulator
//! and on the GPU and compare both with what the documentation of the primitive promises. Each thread
//! writes what it saw to its own words of `out`. `null`, `read_all` and `copy_all` are the floors of the benchmark.
//!
//! Operations travel as numbers: see [`op`].
#![cfg_attr(target_arch = "nvptx64", no_std, feature(abi_ptx))]

use dsa_simt as simt;
use simt::{AtomicOp, Global, Halves};

mod atomics;
#[cfg(any(not(target_arch = "nvptx64"), feature = "sm_90"))]
mod clusters;
mod collectives;
mod floor;
mod memory;
mod messages;

/// Threads of a block in the kernels of warp primitives: two warps.
pub const WARP_THREADS: u32 = 64;
/// Threads of a block in the kernels of block primitives: three warps, not a power of two.
pub const BLOCK_THREADS: u32 = 96;
/// Threads of a block of `read_all` and of `copy_all`.
pub const FLOOR_THREADS: u32 = 1024;
/// Read-modify-write operations that a kernel parameter `op` selects, see [`op`].
pub const OPS: u32 = 5;
/// The operation of number `number`: add, max, min, or, exchange.
#[inline(always)]
pub fn op(number: u32) -> AtomicOp {
    match number {
        0 => AtomicOp::Add,
        1 => AtomicOp::Max,
        2 => AtomicOp::Min,
        3 => AtomicOp::Or,
        _ => AtomicOp::Exchange,
    }
}

simt::kernels! {
    /// The probe kernels.
    pub static ENTRIES;

    /// Does nothing: what a launch costs.
    #[launch(max_threads = 1024, min_blocks = 1, cluster = 1, arch = 80)]
    kernel null() {}

    /// Reads `len` words of `data` (aligned to 16 bytes) with 16-byte loads; each warp writes the wrapping
    /// sum of the words it read to its own of `sums` (one per warp of the grid). Blocks of 1024 threads.
    #[launch(max_threads = 1024, min_blocks = 2, cluster = 1, arch = 80)]
    kernel read_all(data: *const f32, len: u64, sums: *mut u32) {
        let warps = simt::block::count() * (FLOOR_THREADS / 32);
        // SAFETY: the launcher promises `len` words at `data`, aligned to 16 bytes, that nothing writes.
        let data = unsafe { Global::from_raw(data.cast::<u32>(), len as usize) };
        // SAFETY: the launcher promises one word per warp at `sums`; each warp writes its own.
        let sums = unsafe { Global::from_raw(sums, warps as usize) };
        floor::read_all(data, sums);
    }

    /// Copies `len` words, a multiple of 4, with 16-byte loads and stores; both arrays are aligned to 16 bytes. Blocks of
    /// 1024 threads.
    #[launch(max_threads = 1024, min_blocks = 2, cluster = 1, arch = 80)]
    kernel copy_all(from: *const u32, len: u64, to: *mut u32) {
        // SAFETY: the launcher promises `len` words at `from`, aligned to 16 bytes, that nothing writes.
        let from = unsafe { Global::from_raw(from, len as usize) };
        // SAFETY: the launcher promises `len` words at `to`, aligned to 16 bytes; each is written by one thread.
        let to = unsafe { Global::from_raw(to, len as usize) };
        floor::copy_all(from, to);
    }

    /// Who each thread is: 6 words per thread of the grid: thread, lane, warp, block, grid blocks, block threads.
    #[launch(max_threads = 1024, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_identity(out: *mut u32) {
        let threads = simt::block::count() * simt::block::threads();
        // SAFETY: the launcher promises 6 words per thread at `out`; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 6 * threads as usize) };
        collectives::identity(out);
    }

    /// The four shuffles with `operand`, of the words of `input`: first over the whole warp, then over the
    /// half warp. One block of 64 threads, 8 words per thread.
    #[launch(max_threads = 64, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_shuffle(input: *const u32, out: *mut u32, operand: u32) {
        // SAFETY: the launcher promises one word per thread.
        let input = unsafe { Global::from_raw(input, WARP_THREADS as usize) };
        // SAFETY: the launcher promises 8 words per thread; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 8 * WARP_THREADS as usize) };
        collectives::shuffle(input, out, operand);
    }

    /// Ballot, any and all of `input[thread] != 0`: over the warp, then over the half warp. One block of
    /// 64 threads, 6 words per thread.
    #[launch(max_threads = 64, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_vote(input: *const u32, out: *mut u32) {
        // SAFETY: the launcher promises one word per thread.
        let input = unsafe { Global::from_raw(input, WARP_THREADS as usize) };
        // SAFETY: the launcher promises 6 words per thread; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 6 * WARP_THREADS as usize) };
        collectives::vote(input, out);
    }

    /// Match, sum and maximum of the words of `input`: over the warp, then over the half warp. One block of
    /// 64 threads, 6 words per thread.
    #[launch(max_threads = 64, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_reduce(input: *const u32, out: *mut u32) {
        // SAFETY: the launcher promises one word per thread.
        let input = unsafe { Global::from_raw(input, WARP_THREADS as usize) };
        // SAFETY: the launcher promises 6 words per thread; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 6 * WARP_THREADS as usize) };
        collectives::reduce(input, out);
    }

    /// Block barriers: the word that the thread in the opposite place of the block put into shared memory,
    /// how many words are not zero, whether any is. One block of 96 threads, 3 words per thread, 384
    /// bytes of shared memory.
    #[launch(max_threads = 96, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_barrier(input: *const u32, out: *mut u32) {
        // SAFETY: the launcher promises one word per thread.
        let input = unsafe { Global::from_raw(input, BLOCK_THREADS as usize) };
        // SAFETY: the launcher promises 3 words per thread; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 3 * BLOCK_THREADS as usize) };
        collectives::barrier(input, out);
    }

    /// Warp barrier: the word that the neighbour lane put into shared or global memory. One block of 64
    /// threads, 2 words per thread, 256 bytes of shared memory, one word of scratch per thread.
    #[launch(max_threads = 64, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_warp_barrier(input: *const u32, scratch: *mut u32, out: *mut u32) {
        // SAFETY: the launcher promises one word per thread.
        let input = unsafe { Global::from_raw(input, WARP_THREADS as usize) };
        // SAFETY: the launcher promises one word per thread; a warp barrier orders writes and reads.
        let scratch = unsafe { Global::from_raw(scratch, WARP_THREADS as usize) };
        // SAFETY: the launcher promises 2 words per thread; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 2 * WARP_THREADS as usize) };
        collectives::warp_barrier(input, scratch, out);
    }

    /// Shared memory four words at a time, and how it is carved. One block of 64 threads and 2048 bytes of
    /// shared memory; 4 words per thread, then the words that are left.
    #[launch(max_threads = 64, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_shared_vector(input: *const u32, out: *mut u32) {
        // SAFETY: the launcher promises 4 words per thread.
        let input = unsafe { Global::from_raw(input, 4 * WARP_THREADS as usize) };
        // SAFETY: the launcher promises 4 words per thread and one; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 4 * WARP_THREADS as usize + 1) };
        memory::shared_vector(input, out);
    }

    /// Copies from device to shared memory: four words of each thread's, then eight half-words, in two groups. One block
    /// of 64 threads and 2048 bytes of shared memory; `input` of 4 words and `halves` of 8 half-words per thread, aligned
    /// to 16 bytes; 8 words per thread: its own four, then the other's of thread 63 - t.
    #[launch(max_threads = 64, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_copies(input: *const u32, halves: *const u16, out: *mut u32) {
        // SAFETY: the launcher promises 4 words per thread.
        let input = unsafe { Global::from_raw(input, 4 * WARP_THREADS as usize) };
        // SAFETY: the launcher promises 8 half-words per thread.
        let halves = unsafe { Halves::from_raw(halves, 8 * WARP_THREADS as usize) };
        // SAFETY: the launcher promises 8 words per thread; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 8 * WARP_THREADS as usize) };
        memory::copies(input, halves, out);
    }

    /// Loads of all kinds: plain, read-only, from a slice, then four words plain and read-only. One block
    /// of 64 threads, `input` of 4 words per thread aligned to 16 bytes, 11 words per thread.
    #[launch(max_threads = 64, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_load(input: *const u32, out: *mut u32) {
        // SAFETY: the launcher promises 4 words per thread.
        let input = unsafe { Global::from_raw(input, 4 * WARP_THREADS as usize) };
        // SAFETY: the launcher promises 11 words per thread; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 11 * WARP_THREADS as usize) };
        memory::load(input, out);
    }

    /// Copies 4 words per thread with one 16-byte store. One block of 64 threads.
    #[launch(max_threads = 64, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_store(input: *const u32, out: *mut u32) {
        // SAFETY: the launcher promises 4 words per thread.
        let input = unsafe { Global::from_raw(input, 4 * WARP_THREADS as usize) };
        // SAFETY: the launcher promises 4 words per thread; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 4 * WARP_THREADS as usize) };
        memory::store(input, out);
    }

    /// Word `i` of `to` becomes one more than word `len - 1 - i` of `from`, read plainly if `i` is even, else
    /// through the read-only path. May overlap the launch before it. Any grid.
    #[launch(max_threads = 1024, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_overlapping(from: *const u32, to: *mut u32, len: u32) {
        // SAFETY: the launcher promises `len` words, written by earlier launches only.
        let from = unsafe { Global::from_raw(from, len as usize) };
        // SAFETY: the launcher promises `len` words; each is written by one thread.
        let to = unsafe { Global::from_raw(to, len as usize) };
        memory::overlapping(from, to);
    }

    /// The half-precision bits of `len` words of `input`, any grid.
    #[launch(max_threads = 1024, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_half(input: *const f32, out: *mut u32, len: u32) {
        // SAFETY: the launcher promises `len` words.
        let input = unsafe { Global::from_raw(input, len as usize) };
        // SAFETY: the launcher promises `len` words; each thread writes its own.
        let out = unsafe { Global::from_raw(out, len as usize) };
        memory::half(input, out);
    }

    /// The half-words of `input`, one by one to `copy` and widened to `wide`, and eight at a time to `words`. Any
    /// grid; `input` is aligned to 16 bytes, `len` a multiple of 8.
    #[launch(max_threads = 1024, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_halves(input: *const u16, copy: *mut u16, wide: *mut f32, words: *mut u32, len: u32) {
        // SAFETY: the launcher promises `len` half-words of each; each thread writes its own.
        let (input, copy) =
            unsafe { (Halves::from_raw(input, len as usize), Halves::from_raw(copy, len as usize)) };
        // SAFETY: the launcher promises `len` words; each thread writes its own.
        let wide = unsafe { Global::from_raw(wide, len as usize) };
        // SAFETY: the launcher promises half as many words; each thread writes its own.
        let words = unsafe { Global::from_raw(words, len as usize / 2) };
        memory::halves(input, copy, wide, words);
    }

    /// Operation `op` on one shared word that starts as `start`, once by each thread with its word of
    /// `input`: old values, and the final word after them; then the same without old values, and the final
    /// word. One block of 96 threads, 16 bytes of shared memory, 98 words.
    #[launch(max_threads = 96, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_shared_atomic(input: *const u32, out: *mut u32, op: u32, start: u32) {
        // SAFETY: the launcher promises one word per thread.
        let input = unsafe { Global::from_raw(input, BLOCK_THREADS as usize) };
        // SAFETY: the launcher promises one word per thread and two; each is written by one thread.
        let out = unsafe { Global::from_raw(out, BLOCK_THREADS as usize + 2) };
        atomics::shared(input, out, op, start);
    }

    /// Operation `op` on words of `state` by each thread of the grid with its word of `input`, once for
    /// each order (relaxed, acquire, release, both) at device scope (`state[0..4]`, old values to
    /// `out[order * threads + i]`), once for each at block scope on the block's own words
    /// (`state[5 + 4 * block + order]`, old values after those), and once without old value (`state[4]`).
    /// Any grid.
    #[launch(max_threads = 1024, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_global_atomic(input: *const u32, state: *mut u32, out: *mut u32, op: u32) {
        let threads = (simt::block::count() * simt::block::threads()) as usize;
        // SAFETY: the launcher promises one word per thread.
        let input = unsafe { Global::from_raw(input, threads) };
        // SAFETY: the launcher promises 5 words and 4 per block; all accesses are atomic.
        let state = unsafe { Global::from_raw(state, 5 + 4 * simt::block::count() as usize) };
        // SAFETY: the launcher promises 8 words per thread; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 8 * threads) };
        atomics::global(input, state, out, op);
    }

    /// A message in `data` from each block to the next to arrive last: every block fills its `words` words,
    /// arrives at `arrivals` (zero at the start, zero at the end), and the last one to arrive copies all
    /// words to `out`. `mode` 0: a releasing and acquiring arrival; 1: fences around a relaxed one. Any grid.
    #[launch(max_threads = 1024, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_last_arriver(data: *mut u32, arrivals: *mut u32, out: *mut u32, words: u32, mode: u32) {
        let all = (simt::block::count() * words) as usize;
        // SAFETY: the launcher promises `words` words per block; the arrival orders writes and reads.
        let data = unsafe { Global::from_raw(data, all) };
        // SAFETY: the launcher promises one word, accessed atomically.
        let arrivals = unsafe { Global::from_raw(arrivals, 1) };
        // SAFETY: the launcher promises as many words as in `data`; only the last block writes them.
        let out = unsafe { Global::from_raw(out, all) };
        messages::last_arriver(data, arrivals, out, words, mode);
    }

    /// `rounds` messages from block 0 to block 1 and back through `mail` (2 words) with the flags in
    /// `flags` (2 words, zero at the start). Both blocks must run at once: two blocks, cooperative launch.
    /// `out[block]` counts the right messages.
    #[launch(max_threads = 32, min_blocks = 1, cluster = 1, arch = 80)]
    kernel probe_ping_pong(mail: *mut u32, flags: *mut u32, out: *mut u32, rounds: u32) {
        // SAFETY: the launcher promises 2 words; the flags order writes and reads.
        let mail = unsafe { Global::from_raw(mail, 2) };
        // SAFETY: the launcher promises 2 words, accessed atomically.
        let flags = unsafe { Global::from_raw(flags, 2) };
        // SAFETY: the launcher promises 2 words; each block writes its own.
        let out = unsafe { Global::from_raw(out, 2) };
        messages::ping_pong(mail, flags, out, rounds);
    }

    /// Remote shared memory in a cluster of 2: see `probe_cluster4`.
    #[launch(max_threads = 64, min_blocks = 1, cluster = 2, arch = 90)]
    kernel probe_cluster2(input: *const u32, out: *mut u32) {
        let threads = (simt::block::count() * WARP_THREADS) as usize;
        // SAFETY: the launcher promises one word per thread of the grid.
        let input = unsafe { Global::from_raw(input, threads) };
        // SAFETY: the launcher promises 6 words per thread; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 6 * threads) };
        clusters::exchange(input, out);
    }

    /// Remote shared memory in a cluster of 4. Blocks of 64 threads, 1040 bytes of shared memory; 6 words
    /// per thread: rank, size, word of the same thread in the next rank, word that the previous rank wrote
    /// here, and sum and maximum of the cluster's words through remote atomics on rank 0.
    #[launch(max_threads = 64, min_blocks = 1, cluster = 4, arch = 90)]
    kernel probe_cluster4(input: *const u32, out: *mut u32) {
        let threads = (simt::block::count() * WARP_THREADS) as usize;
        // SAFETY: the launcher promises one word per thread of the grid.
        let input = unsafe { Global::from_raw(input, threads) };
        // SAFETY: the launcher promises 6 words per thread; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 6 * threads) };
        clusters::exchange(input, out);
    }

    /// Global atomics at cluster scope: each thread of a cluster of 2 adds its word of `input` to the
    /// cluster's words of `state`, one for each order, and loads the four sums. Blocks
    /// of 64 threads; 4 words of `state` per cluster, 4 words per thread.
    #[launch(max_threads = 64, min_blocks = 1, cluster = 2, arch = 90)]
    kernel probe_cluster_atomic(input: *const u32, state: *mut u32, out: *mut u32) {
        let threads = (simt::block::count() * WARP_THREADS) as usize;
        // SAFETY: the launcher promises one word per thread of the grid.
        let input = unsafe { Global::from_raw(input, threads) };
        // SAFETY: the launcher promises 4 words per cluster; all accesses are atomic.
        let state = unsafe { Global::from_raw(state, 4 * (simt::block::count() / 2) as usize) };
        // SAFETY: the launcher promises 4 words per thread; each thread writes its own.
        let out = unsafe { Global::from_raw(out, 4 * threads) };
        clusters::atomics(input, state, out);
    }
}

simt::panic_handler!();
