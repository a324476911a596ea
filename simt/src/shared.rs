//! A block's dynamic shared memory.

use core::marker::PhantomData;

use crate::{Active, AtomicOp, Machine, Order, Scope, Space, Word, opaque};

/// Hands out the block's dynamic shared memory piece by piece, in call order.
///
/// Every thread of the block carves the same pieces, so a piece is the same memory for all of them.
/// Two carvings that start from the same [`Carve`] value (it is `Copy`) overlap: that is how buffers
/// whose lifetimes do not meet share memory.
#[derive(Clone, Copy)]
pub struct Carve {
    next: u32,
    end: u32,
}

impl Carve {
    /// All dynamic shared memory of the launch.
    #[inline(always)]
    pub fn dynamic() -> Self {
        let start = Active::shared_base();
        Self { next: start, end: start + Active::shared_bytes() }
    }

    /// The next `len` words, aligned to 16 bytes.
    ///
    /// # Safety
    /// The launch has that much dynamic shared memory left. All accesses through the returned array stay
    /// below `len`; two arrays that overlap are not in use at the same time; accesses do not race.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub unsafe fn array<T: Word>(&mut self, len: u32) -> Shared<T> {
        let start = self.next;
        Active::check_index(Space::Shared, start as usize, len as usize * 4, self.end as usize);
        self.next = start + (len * 4).next_multiple_of(16);
        Shared { start, len, element: PhantomData }
    }

    /// Leaves out what lies before the next multiple of `bytes`, a power of two from 16 to 1024, if the launch has that
    /// much left.
    #[inline(always)]
    pub fn align(&mut self, bytes: u32) {
        self.next = self.next.next_multiple_of(bytes).min(self.end);
    }

    /// Cuts off the last `len` words of what is left, a multiple of 4; of what the launch has, if that is less.
    #[inline(always)]
    pub fn cut_end(&mut self, len: u32) -> Self {
        let start = self.next.max(self.end.saturating_sub(len * 4));
        Self { next: start, end: core::mem::replace(&mut self.end, start) }
    }

    /// The same memory, of which what is computed is computed here, and not held in registers from before a loop on
    /// ([`opaque`](crate::opaque)).
    #[inline(always)]
    pub fn anew(self) -> Self {
        Self { end: Active::opaque(self.end), ..self }
    }

    /// Words that are left.
    #[inline(always)]
    pub fn words_left(self) -> u32 {
        (self.end - self.next) / 4
    }
}

/// An array of words in the block's shared memory. Promises: see [`Carve::array`].
#[derive(Clone, Copy)]
pub struct Shared<T> {
    start: u32,
    len: u32,
    element: PhantomData<*mut T>,
}

impl<T: Word> Shared<T> {
    /// Number of words.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> u32 {
        self.len
    }

    /// The `len` words from `first` on, a multiple of 4.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn part(self, first: u32, len: u32) -> Self {
        Active::check_index(Space::Shared, first as usize, len as usize, self.len as usize);
        Self { start: self.start + first * 4, len, element: PhantomData }
    }

    /// Reads word `index`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn get(self, index: u32) -> T {
        // SAFETY: in bounds and free of races by the promise given to `Carve::array`.
        T::from_bits(unsafe { Active::shared_load(self.at(index, 1)) })
    }

    /// Reads the four words from `index` on, a multiple of 4, in one access.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn get4(self, index: u32) -> [T; 4] {
        // SAFETY: in bounds, aligned and free of races by the promise given to `Carve::array`.
        unsafe { Active::shared_load4(self.at(index, 4)) }.map(T::from_bits)
    }

    /// Writes word `index`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn set(self, index: u32, value: T) {
        // SAFETY: in bounds and free of races by the promise given to `Carve::array`.
        unsafe { Active::shared_store(self.at(index, 1), value.to_bits()) }
    }

    /// Writes the four words from `index` on, a multiple of 4, in one access.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn set4(self, index: u32, value: [T; 4]) {
        // SAFETY: in bounds, aligned and free of races by the promise given to `Carve::array`.
        unsafe { Active::shared_store4(self.at(index, 4), value.map(T::to_bits)) }
    }

    /// Where to write words one after the other, from word `first` on.
    #[inline(always)]
    pub fn cursor(self, first: u32) -> Cursor<T> {
        Cursor { array: self, next: self.start + first * 4 }
    }

    /// The same array in block `rank` of the cluster.
    #[inline(always)]
    pub fn at_rank(self, rank: u32) -> Remote<T> {
        Remote { start: self.start, len: self.len, rank, element: PhantomData }
    }

    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub(crate) fn at(self, index: u32, count: u32) -> u32 {
        Active::check_index(Space::Shared, index as usize, count as usize, self.len as usize);
        self.start + index * 4
    }
}

impl Shared<u32> {
    /// Atomic read of word `index`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn atomic_load(self, index: u32, order: Order, scope: Scope) -> u32 {
        assert!(matches!(order, Order::Relaxed | Order::Acquire), "a load cannot release");
        // SAFETY: in bounds by the promise given to `Carve::array`; atomics do not race with each other.
        unsafe { Active::shared_atomic_load(order, scope, self.at(index, 1)) }
    }

    /// Atomic write of word `index`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn atomic_store(self, index: u32, value: u32, order: Order, scope: Scope) {
        assert!(matches!(order, Order::Relaxed | Order::Release), "a store cannot acquire");
        // SAFETY: in bounds by the promise given to `Carve::array`; atomics do not race with each other.
        unsafe { Active::shared_atomic_store(order, scope, self.at(index, 1), value) }
    }

    /// Relaxed block-scope read-modify-write of word `index`; returns the old value.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn atomic(self, op: AtomicOp, index: u32, value: u32) -> u32 {
        // SAFETY: in bounds by the promise given to `Carve::array`; atomics do not race with each other.
        unsafe { Active::shared_atomic(op, self.at(index, 1), value) }
    }

    /// [`atomic`](Self::atomic) whose old value is not needed, which is faster.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn reduce(self, op: AtomicOp, index: u32, value: u32) {
        // SAFETY: in bounds by the promise given to `Carve::array`; atomics do not race with each other.
        unsafe { Active::shared_reduce(op, self.at(index, 1), value) }
    }
}

/// A place in an array of words that are written one after the other: their addresses are counted, and not computed of an
/// index each.
#[derive(Clone, Copy)]
pub struct Cursor<T> {
    array: Shared<T>,
    next: u32,
}

impl<T: Word> Cursor<T> {
    /// Writes the next word.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn push(&mut self, value: T) {
        let Shared { start, len, .. } = self.array;
        Active::check_index(Space::Shared, (self.next.wrapping_sub(start) / 4) as usize, 1, len as usize);
        // SAFETY: in bounds and free of races by the promise given to `Carve::array`.
        unsafe { Active::shared_store(self.next, value.to_bits()) };
        // Opaque: otherwise the next address is computed whether or not this word is written.
        self.next = opaque(self.next) + 4;
    }
}

/// An array of words in the shared memory of a block of the same cluster.
///
/// That block must still run when the array is accessed: end a kernel that uses one with
/// [`cluster::sync`](crate::cluster::sync).
#[derive(Clone, Copy)]
pub struct Remote<T> {
    start: u32,
    len: u32,
    rank: u32,
    element: PhantomData<*mut T>,
}

impl<T: Word> Remote<T> {
    /// Reads word `index`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn get(self, index: u32) -> T {
        // SAFETY: in bounds and free of races by the promise given to `Carve::array`.
        T::from_bits(unsafe { Active::shared_remote_load(self.at(index)) })
    }

    /// Writes word `index`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn set(self, index: u32, value: T) {
        // SAFETY: in bounds and free of races by the promise given to `Carve::array`.
        unsafe { Active::shared_remote_store(self.at(index), value.to_bits()) }
    }

    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    fn at(self, index: u32) -> u32 {
        Active::check_index(Space::Shared, index as usize, 1, self.len as usize);
        // The word's own address, and then the same in the other block. `ptxas` reads it by a generic address of 64 bits
        // and may move a constant part of a sum from the address into the instruction: wrong, if what is left is below
        // zero in 32 bits, as that of `4096 - index` is.
        Active::shared_at_rank(self.start + index * 4, self.rank)
    }
}

impl Remote<u32> {
    /// Relaxed cluster-scope read-modify-write of word `index`; returns the old value.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    pub fn atomic(self, op: AtomicOp, index: u32, value: u32) -> u32 {
        // SAFETY: in bounds by the promise given to `Carve::array`; atomics do not race with each other.
        unsafe { Active::shared_remote_atomic(op, self.at(index), value) }
    }
}
