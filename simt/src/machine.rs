//! The primitives a backend provides. Everything else in this crate is written in terms of them.
//!
//! Kernels do not call this trait; they call the modules [`thread`](crate::thread),
//! [`block`](crate::block), [`warp`](crate::warp), [`cluster`](crate::cluster), [`grid`](crate::grid) and
//! the memory types [`Global`](crate::Global) and [`Shared`](crate::Shared), which forward to
//! [`Active`](crate::Active).
//! A new backend is one implementation of this trait: the compiler lists what is missing.
//!
//! All memory is accessed as 32-bit words, alone or four at a time; in device memory there are also half-words,
//! alone, for arrays of 16-bit elements. Shared memory is addressed with
//! 32 bits, as the hardware does: that keeps every access in the shared address space, where a generic
//! pointer would become a slower generic access.

/// Which threads an atomic access or a fence synchronises with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The threads of this block.
    Block,
    /// The threads of this cluster (needs compute capability 9.0).
    Cluster,
    /// All threads on the device.
    Device,
}

/// Memory order of an atomic access.
///
/// A load takes `Relaxed` or `Acquire`, a store `Relaxed` or `Release`; a read-modify-write takes all four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Atomic, but orders nothing else.
    Relaxed,
    /// What was written before a matching release is visible after this access.
    Acquire,
    /// What this thread wrote before is visible to whoever acquires this access.
    Release,
    /// Both; for read-modify-write only.
    AcqRel,
}

/// A read-modify-write operation on an unsigned 32-bit word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    /// Wrapping addition.
    Add,
    /// Unsigned maximum.
    Max,
    /// Unsigned minimum.
    Min,
    /// Bitwise or.
    Or,
    /// Replace.
    Exchange,
}

/// Where a lane takes its value from in a shuffle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// From the lane whose number is the operand.
    Index,
    /// From the lane that many below; lanes without one keep their own value.
    Up,
    /// From the lane that many above; lanes without one keep their own value.
    Down,
    /// From the lane whose number is this lane's exclusive-or the operand.
    Xor,
}

/// The primitives of the machine.
///
/// # Safety of the memory primitives
/// An address passed to a memory primitive must be valid for the access (allocated, aligned to the
/// access size) and the access must not race with another one, in the CUDA memory model. The GPU backends
/// check nothing; the emulator checks all of it and reports the first violation.
///
/// # Collectives
/// Primitives named barrier, shuffle, vote, match or reduce are collectives: every thread they name must
/// reach the *same call* (same source location), or the launch is undefined. The emulator reports it.
pub trait Machine {
    /// Index of the thread in its block (x dimension; blocks are one-dimensional).
    fn thread_id() -> u32;
    /// Number of threads of a block.
    fn block_threads() -> u32;
    /// Index of the block in the grid.
    fn block_id() -> u32;
    /// Number of blocks of the grid.
    fn grid_blocks() -> u32;
    /// Index of the thread in its warp, `0..32`.
    fn lane_id() -> u32;
    /// Index of the block in its cluster. Cluster primitives are for kernels of compute capability 9.0.
    fn cluster_rank() -> u32;
    /// Number of blocks of a cluster.
    fn cluster_size() -> u32;

    /// Waits until the launches that this one overlaps have completed and what they wrote is visible to this
    /// thread. Nothing where launches do not overlap.
    fn wait_for_earlier_launches();
    /// Allows the next launch to start, once every block of this one has said so or ended.
    fn let_later_launches_start();

    /// Waits for all threads of the block; orders their shared and global accesses among them.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn block_barrier();
    /// [`block_barrier`](Self::block_barrier), and counts the threads that passed `true`.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn block_barrier_count(predicate: bool) -> u32;
    /// [`block_barrier`](Self::block_barrier), and tells whether any thread passed `true`.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn block_barrier_or(predicate: bool) -> bool;
    /// Waits for all threads of the cluster, with release and acquire at cluster scope.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn cluster_barrier();
    /// The first half of a [`cluster_barrier`](Self::cluster_barrier), with release only for what each block has written to
    /// its own shared memory. Nobody has written to that of another block since the last `cluster_barrier`.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn cluster_arrive_own();
    /// The second half. Between the two, nobody accesses the shared memory of other blocks.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn cluster_wait_own();
    /// Says that the thread has done with the shared memory of other blocks: every value it has read there has been
    /// used. Once per thread, in all of them; afterwards only
    /// [`cluster_wait_until_left`](Self::cluster_wait_until_left) follows of what is the cluster's.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn cluster_leave();
    /// Waits until all threads of the cluster have left. Orders no memory.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn cluster_wait_until_left();

    /// Waits for the lanes of `mask`; orders their memory accesses among them.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn warp_barrier(mask: u32);
    /// Exchanges a word between lanes. Orders no memory.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn warp_shuffle(mask: u32, kind: Shuffle, value: u32, operand: u32) -> u32;
    /// Wrapping sum of `value` and that of the lane `delta` below, if there is one. A shuffle.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn warp_add_up(mask: u32, value: u32, delta: u32) -> u32 {
        let below = Self::warp_shuffle(mask, Shuffle::Up, value, delta);
        if Self::lane_id() >= delta { value.wrapping_add(below) } else { value }
    }
    /// The lanes of `mask` that passed `true`, as bits.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn warp_ballot(mask: u32, predicate: bool) -> u32;
    /// Whether any lane of `mask` passed `true`.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn warp_any(mask: u32, predicate: bool) -> bool;
    /// Whether all lanes of `mask` passed `true`.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn warp_all(mask: u32, predicate: bool) -> bool;
    /// The lanes of `mask` that passed the same value as this lane, as bits.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn warp_match_any(mask: u32, value: u32) -> u32;
    /// Wrapping sum over the lanes of `mask`.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn warp_reduce_add(mask: u32, value: u32) -> u32;
    /// Unsigned maximum over the lanes of `mask`.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn warp_reduce_max(mask: u32, value: u32) -> u32;

    /// Address of the first byte of the block's dynamic shared memory, aligned to 16.
    fn shared_base() -> u32;
    /// Bytes of dynamic shared memory of the launch.
    fn shared_bytes() -> u32;
    /// The address that names, in block `rank` of the cluster, what `address` names in this block.
    /// Only the `shared_remote_*` primitives take such an address.
    fn shared_at_rank(address: u32, rank: u32) -> u32;

    /// Reads a word of shared memory.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn shared_load(address: u32) -> u32;
    /// Reads four words of shared memory; `address` is aligned to 16.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn shared_load4(address: u32) -> [u32; 4];
    /// Writes a word of shared memory.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn shared_store(address: u32, value: u32);
    /// Writes four words of shared memory; `address` is aligned to 16.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn shared_store4(address: u32, value: [u32; 4]);
    /// Atomic read of a word of shared memory.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn shared_atomic_load(order: Order, scope: Scope, address: u32) -> u32;
    /// Atomic write of a word of shared memory.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn shared_atomic_store(order: Order, scope: Scope, address: u32, value: u32);
    /// Relaxed read-modify-write of a word of shared memory at block scope; returns the old value.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn shared_atomic(op: AtomicOp, address: u32, value: u32) -> u32;
    /// [`shared_atomic`](Self::shared_atomic) without the old value, which the hardware does faster.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn shared_reduce(op: AtomicOp, address: u32, value: u32);
    /// Reads a word of another block's shared memory.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives); the other block must not have exited.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn shared_remote_load(address: u32) -> u32;
    /// Writes a word of another block's shared memory.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives); the other block must not have exited.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn shared_remote_store(address: u32, value: u32);
    /// Relaxed read-modify-write of a word of another block's shared memory at cluster scope.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives); the other block must not have exited.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn shared_remote_atomic(op: AtomicOp, address: u32, value: u32) -> u32;

    /// Reads a word of global memory.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_load(address: *const u32) -> u32;
    /// Reads four words of global memory; `address` is aligned to 16.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_load4(address: *const u32) -> [u32; 4];
    /// Reads a word of global memory that no thread writes during the launch, or, if it overlaps, once it has waited (read-only path).
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_load_readonly(address: *const u32) -> u32;
    /// Reads four words of global memory that no thread writes during the launch; aligned to 16.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_load4_readonly(address: *const u32) -> [u32; 4];
    /// The same; words that were never written have any value.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_load4_speculative(address: *const u32) -> [u32; 4];
    /// Reads two words of global memory that no thread writes during the launch; aligned to 8.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_load2_readonly(address: *const u32) -> [u32; 2];
    /// Reads a half-word of global memory that no thread writes during the launch; `address` is aligned to 2.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_load_half_readonly(address: *const u16) -> u16;
    /// Begins to bring the cache line of an address in global memory to the second-level cache. A hint: nothing is read, so
    /// that it races with nothing.
    /// # Safety
    /// `address` is allocated.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_prefetch(address: *const u8);
    /// Begins to copy 16 bytes from global memory, which no thread writes during the launch, to shared memory; both
    /// aligned to 16.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives); a write of `to` that ends when the thread has waited for
    /// the copy.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn copy_async(to: u32, from: *const u32);
    /// Makes a group of the copies that the thread has begun since it last did.
    fn copy_async_group();
    /// Waits until the copies of all but the latest `PENDING` groups of the thread are made.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn copy_async_wait<const PENDING: u32>();
    /// Writes a half-word of global memory; `address` is aligned to 2.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_store_half(address: *mut u16, value: u16);
    /// Writes a word of global memory.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_store(address: *mut u32, value: u32);
    /// Writes two words of global memory; `address` is aligned to 8.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_store2(address: *mut u32, value: [u32; 2]);
    /// Writes four words of global memory; `address` is aligned to 16.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_store4(address: *mut u32, value: [u32; 4]);
    /// Atomic read of a word of global memory.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_atomic_load(order: Order, scope: Scope, address: *const u32) -> u32;
    /// Atomic write of a word of global memory.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_atomic_store(order: Order, scope: Scope, address: *mut u32, value: u32);
    /// Atomic read-modify-write of a word of global memory; returns the old value.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_atomic(op: AtomicOp, order: Order, scope: Scope, address: *mut u32, value: u32) -> u32;
    /// Relaxed device-scope [`global_atomic`](Self::global_atomic) without the old value.
    /// # Safety
    /// See [the trait](Self#safety-of-the-memory-primitives).
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    unsafe fn global_reduce(op: AtomicOp, address: *mut u32, value: u32);

    /// Orders this thread's accesses before the fence and after it, acquire and release, for `scope`.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn fence(scope: Scope);
    /// Rounds to the nearest half-precision number (ties to even) and returns its bits.
    fn f32_to_f16(value: f32) -> u16;
    /// The half-precision number with these bits.
    fn f16_to_f32(bits: u16) -> f32;
    /// Rounds both to the nearest half-precision numbers (ties to even); `low` in the low half of the word.
    /// NaN becomes the negative infinity, and what rounds to -0.0 becomes +0.0.
    fn half_pair(low: f32, high: f32) -> u32;
    /// All ones in each half of the word whose half-precision number in `pair` is at least that in `bounds`.
    fn half_pair_at_least(pair: u32, bounds: u32) -> u32;
    /// Rounds both to the nearest bf16 numbers (ties to even); `low` in the low half of the word. NaN becomes 0x7fff.
    fn bf16_pair(low: f32, high: f32) -> u32;
    /// All ones in each half of the word whose bf16 number in `pair` is at least that in `bounds`.
    fn bf16_pair_at_least(pair: u32, bounds: u32) -> u32;
    /// `a * b + c`, rounded once.
    fn fma(a: f32, b: f32, c: f32) -> f32;
    /// 2 to the power of `value`, within 2 units in the last place; what is below the smallest normal number is 0.
    fn exp2(value: f32) -> f32;
    /// The logarithm of `value` to base 2, within 2^-22 of it near 1 and relative to it elsewhere.
    fn log2(value: f32) -> f32;
    /// One over the square root of `value`, within 2^-22 relative to it.
    fn rsqrt(value: f32) -> f32;
    /// One over `value`, within 2^-22 relative to it; of a number too small to be normal, infinity.
    fn reciprocal(value: f32) -> f32;
    /// `value as u32`: without its fraction, or the nearest number there is; NaN gives 0.
    fn truncate(value: f32) -> u32;
    /// The value itself, which the optimiser must take for a new one.
    fn opaque(value: u32) -> u32;
    /// The same for an address.
    fn opaque_address(address: *mut u32) -> *mut u32;
    /// Tells the machine that the thread waits for another block: it may run others first.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn spin_hint();
    /// Checks an index against the length of an array: the emulator reports a violation, the GPU
    /// backends trust the kernel.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn check_index(space: Space, index: usize, count: usize, length: usize);
}

/// A memory space, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Memory of the device, visible to all blocks.
    Global,
    /// Memory of one block.
    Shared,
}
