//! Device memory.

use core::marker::PhantomData;

use crate::{Active, AtomicOp, Machine, Order, Scope, Shared, Space, Word};

/// An array of words in device memory.
///
/// The one `unsafe` step is [`Global::from_raw`]: whoever calls it promises that *every* later access
/// through this value (and through slices of it) is inside the array and free of data races in the CUDA
/// memory model. The emulator checks both; the GPU does not.
#[derive(Clone, Copy)]
pub struct Global<T> {
    start: *mut u32,
    len: usize,
    element: PhantomData<*mut T>,
}

impl<T: Word> Global<T> {
    /// The array of `len` words at `start`.
    ///
    /// # Safety
    /// `start` is aligned to 4 and valid for `len` words during the launch, for writes too if the kernel
    /// writes through this value. All accesses stay below `len` and do not race.
    #[inline(always)]
    pub unsafe fn from_raw(start: *const T, len: usize) -> Self {
        Self { start: start.cast_mut().cast(), len, element: PhantomData }
    }

    /// Number of words.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> usize {
        self.len
    }

    /// Byte address of the first word.
    #[inline(always)]
    pub fn address(self) -> usize {
        self.start as usize
    }

    /// The same array, whose address is computed here and not where it is used ([`opaque`](crate::opaque)).
    #[inline(always)]
    pub fn computed(self) -> Self {
        Self { start: Active::opaque_address(self.start), ..self }
    }

    /// The `len` words from word `start` on.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn slice(self, start: usize, len: usize) -> Self {
        Active::check_index(Space::Global, start, len, self.len);
        // SAFETY: `start` is at most the length of the array (the caller's promise to `from_raw`).
        let start = unsafe { self.start.add(start) };
        Self { start, len, element: PhantomData }
    }

    /// Reads word `index`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn get(self, index: usize) -> T {
        // SAFETY: in bounds and free of races by the promise given to `from_raw`.
        T::from_bits(unsafe { Active::global_load(self.at(index, 1)) })
    }

    /// Reads the four words from `index` on, in one 16-byte access; their address is aligned to 16.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn get4(self, index: usize) -> [T; 4] {
        // SAFETY: in bounds, aligned and free of races by the promise given to `from_raw`.
        unsafe { Active::global_load4(self.at(index, 4)) }.map(T::from_bits)
    }

    /// Reads word `index`, which no thread writes during the launch.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn get_readonly(self, index: usize) -> T {
        // SAFETY: in bounds and not written during the launch by the promise given to `from_raw`.
        T::from_bits(unsafe { Active::global_load_readonly(self.at(index, 1)) })
    }

    /// Reads the four words from `index` on in one 16-byte access; aligned, and not written during the launch.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn get4_readonly(self, index: usize) -> [T; 4] {
        // SAFETY: in bounds, aligned and not written during the launch by the promise given to `from_raw`.
        unsafe { Active::global_load4_readonly(self.at(index, 4)) }.map(T::from_bits)
    }

    /// As [`get4_readonly`](Self::get4_readonly), of words that may never have been written: such a word has any value.
    /// For reading ahead of knowing how many words there are.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn get4_speculative(self, index: usize) -> [T; 4] {
        // SAFETY: in bounds, aligned and not written during the launch by the promise given to `from_raw`.
        unsafe { Active::global_load4_speculative(self.at(index, 4)) }.map(T::from_bits)
    }

    /// Begins to copy the four words from `index` on, which no thread writes during the launch, to the four from
    /// `place` on of `to`, both aligned to 16 bytes. They are there when the thread has waited
    /// ([`copies`](crate::copies)).
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn copy4(self, index: usize, to: Shared<u32>, place: u32) {
        // SAFETY: in bounds, aligned, not written during the launch and free of races by the promises given to
        // `from_raw` and `Carve::array`.
        unsafe { Active::copy_async(to.at(place, 4), self.at(index, 4)) }
    }

    /// Begins to bring word `index` to the second-level cache, with the cache line that it is in. A hint.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn prefetch(self, index: usize) {
        // SAFETY: in bounds by the promise given to `from_raw`.
        unsafe { Active::global_prefetch(self.at(index, 1).cast()) }
    }

    /// Writes word `index`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn set(self, index: usize, value: T) {
        // SAFETY: in bounds and free of races by the promise given to `from_raw`.
        unsafe { Active::global_store(self.at(index, 1), value.to_bits()) }
    }

    /// Writes the four words from `index` on in one 16-byte access; their address is aligned to 16.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn set4(self, index: usize, value: [T; 4]) {
        // SAFETY: in bounds, aligned and free of races by the promise given to `from_raw`.
        unsafe { Active::global_store4(self.at(index, 4), value.map(T::to_bits)) }
    }

    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn at(self, index: usize, count: usize) -> *mut u32 {
        Active::check_index(Space::Global, index, count, self.len);
        // SAFETY: `index + count` is at most `len`, by the promise given to `from_raw`.
        unsafe { self.start.add(index) }
    }
}

impl Global<u32> {
    /// Atomic read of word `index`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn atomic_load(self, index: usize, order: Order, scope: Scope) -> u32 {
        assert!(matches!(order, Order::Relaxed | Order::Acquire), "a load cannot release");
        // SAFETY: in bounds by the promise given to `from_raw`; atomics do not race with each other.
        unsafe { Active::global_atomic_load(order, scope, self.at(index, 1)) }
    }

    /// Atomic write of word `index`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn atomic_store(self, index: usize, value: u32, order: Order, scope: Scope) {
        assert!(matches!(order, Order::Relaxed | Order::Release), "a store cannot acquire");
        // SAFETY: in bounds by the promise given to `from_raw`; atomics do not race with each other.
        unsafe { Active::global_atomic_store(order, scope, self.at(index, 1), value) }
    }

    /// Atomic read-modify-write of word `index`; returns the old value.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn atomic(self, op: AtomicOp, index: usize, value: u32, order: Order, scope: Scope) -> u32 {
        // SAFETY: in bounds by the promise given to `from_raw`; atomics do not race with each other.
        unsafe { Active::global_atomic(op, order, scope, self.at(index, 1), value) }
    }

    /// Relaxed device-scope [`atomic`](Self::atomic) whose old value is not needed.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn reduce(self, op: AtomicOp, index: usize, value: u32) {
        // SAFETY: in bounds by the promise given to `from_raw`; atomics do not race with each other.
        unsafe { Active::global_reduce(op, self.at(index, 1), value) }
    }
}

/// An array of half-words in device memory. Promises: see [`Global`].
#[derive(Clone, Copy)]
pub struct Halves {
    start: *mut u16,
    len: usize,
}

impl Halves {
    /// The array of `len` half-words at `start`.
    ///
    /// # Safety
    /// As for [`Global::from_raw`], but that `start` is aligned to 2.
    #[inline(always)]
    pub unsafe fn from_raw(start: *const u16, len: usize) -> Self {
        Self { start: start.cast_mut(), len }
    }

    /// Number of half-words.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> usize {
        self.len
    }

    /// Byte address of the first half-word.
    #[inline(always)]
    pub fn address(self) -> usize {
        self.start as usize
    }

    /// Begins to bring half-word `index` to the second-level cache, with the cache line that it is in. A hint.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn prefetch(self, index: usize) {
        // SAFETY: in bounds by the promise given to `from_raw`.
        unsafe { Active::global_prefetch(self.at(index, 1).cast()) }
    }

    /// Reads half-word `index`, which no thread writes during the launch.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn get_readonly(self, index: usize) -> u16 {
        // SAFETY: in bounds and not written during the launch by the promise given to `from_raw`.
        unsafe { Active::global_load_half_readonly(self.at(index, 1)) }
    }

    /// Reads the four half-words from `index` on in one 8-byte access, the first in the low half of the first word;
    /// aligned, and not written during the launch.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn get4_readonly(self, index: usize) -> [u32; 2] {
        // SAFETY: in bounds, aligned and not written during the launch by the promise given to `from_raw`.
        unsafe { Active::global_load2_readonly(self.at(index, 4).cast()) }
    }

    /// Reads the eight half-words from `index` on in one 16-byte access, the first in the low half of the first
    /// word; aligned, and not written during the launch.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn get8_readonly(self, index: usize) -> [u32; 4] {
        // SAFETY: in bounds, aligned and not written during the launch by the promise given to `from_raw`.
        unsafe { Active::global_load4_readonly(self.at(index, 8).cast()) }
    }

    /// As [`get8_readonly`](Self::get8_readonly), of words that may never have been written: such a word has any value.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn get8_speculative(self, index: usize) -> [u32; 4] {
        // SAFETY: in bounds, aligned and not written during the launch by the promise given to `from_raw`.
        unsafe { Active::global_load4_speculative(self.at(index, 8).cast()) }
    }

    /// Begins to copy the eight half-words from `index` on, which no thread writes during the launch, to the four words from
    /// `place` on of `to`, both aligned to 16 bytes; as [`Global::copy4`].
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn copy8(self, index: usize, to: Shared<u32>, place: u32) {
        // SAFETY: in bounds, aligned, not written during the launch and free of races by the promises given to
        // `from_raw` and `Carve::array`.
        unsafe { Active::copy_async(to.at(place, 4), self.at(index, 8).cast()) }
    }

    /// Writes half-word `index`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn set(self, index: usize, value: u16) {
        // SAFETY: in bounds and free of races by the promise given to `from_raw`.
        unsafe { Active::global_store_half(self.at(index, 1), value) }
    }

    /// Writes the four half-words from `index` on in one 8-byte access, the first from the low half of the first word;
    /// aligned.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn set4(self, index: usize, values: [u32; 2]) {
        // SAFETY: in bounds, aligned and free of races by the promise given to `from_raw`.
        unsafe { Active::global_store2(self.at(index, 4).cast(), values) }
    }

    /// Writes the eight half-words from `index` on in one 16-byte access, the first from the low half of the first
    /// word; aligned.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn set8(self, index: usize, values: [u32; 4]) {
        // SAFETY: in bounds, aligned and free of races by the promise given to `from_raw`.
        unsafe { Active::global_store4(self.at(index, 8).cast(), values) }
    }

    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn at(self, index: usize, count: usize) -> *mut u16 {
        Active::check_index(Space::Global, index, count, self.len);
        // SAFETY: `index + count` is at most `len`, by the promise given to `from_raw`.
        unsafe { self.start.add(index) }
    }
}
