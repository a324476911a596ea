//! Emulated device memory.

use std::alloc::{self, Layout};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::emu::fault::Target;

/// Allocations start at multiples of this, as the driver's do.
const ALIGNMENT: usize = 256;
/// Bytes behind each allocation that belong to nobody, so that an access just past the end hits none.
const RED_ZONE: usize = 256;
/// What fresh memory is filled with.
const POISON: u8 = 0xa5;
/// Freed bytes that are kept, so that their addresses are not handed out again soon.
const QUARANTINE: usize = 16 << 20;
/// Freed allocations that are remembered at most.
const QUARANTINE_COUNT: usize = 256;

/// A word has been written since it was allocated.
pub(super) const INITIALISED: u16 = 1 << 15;
/// Launches are numbered `1..=MOST_STAMP` in the word states, which are swept when the numbers run out.
const MOST_STAMP: u16 = 127;

/// The memory of an emulated device: a registry of allocations. Addresses are addresses of this process.
///
/// A launch holds the lock of the memory from its begin to its end, so launches on one memory run one
/// after the other; those on different memories run at the same time.
pub struct Memory {
    registry: Mutex<Registry>,
}

/// A request about emulated memory that cannot be met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The host has not that much memory.
    #[error("cannot allocate {bytes} bytes for `{label}`")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// Label of the allocation.
        label: String,
    },
    /// The address is not the start of an allocation.
    #[error("{address:#x} is not the address of an allocation")]
    UnknownAllocation {
        /// The address.
        address: u64,
    },
    /// A range of bytes is not inside one allocation.
    #[error("{len} bytes at address {address:#x} are not inside one allocation: {near}")]
    OutOfBounds {
        /// First byte.
        address: u64,
        /// Number of bytes.
        len: usize,
        /// The address in terms of the nearest allocation.
        near: String,
    },
}

impl Memory {
    /// Memory without allocations.
    pub fn new() -> Self {
        Self {
            registry: Mutex::new(Registry {
                allocations: Vec::new(),
                freed: VecDeque::new(),
                freed_bytes: 0,
                stamp: 0,
            }),
        }
    }

    /// Allocates `bytes` bytes, aligned to 256. Their contents are undefined: a pattern, which a kernel may
    /// not read before it or the host has written something. `label` names the allocation in reports.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`].
    pub fn allocate(&self, bytes: usize, label: &str) -> Result<u64, MemoryError> {
        let out_of_memory = || MemoryError::OutOfMemory { bytes, label: label.to_owned() };
        let storage = Storage::new(bytes).ok_or_else(out_of_memory)?;
        let mut words = Vec::new();
        words.try_reserve_exact(bytes.div_ceil(4)).map_err(|_| out_of_memory())?;
        words.resize(bytes.div_ceil(4), 0);
        let allocation = Allocation { bytes, label: label.to_owned(), storage, words };
        let address = allocation.start();
        let mut registry = self.lock();
        let position = registry.allocations.partition_point(|other| other.start() < address);
        registry.allocations.insert(position, allocation);
        Ok(address as u64)
    }

    /// Frees an allocation.
    ///
    /// # Errors
    /// [`MemoryError::UnknownAllocation`] if `address` is not what [`allocate`](Self::allocate) returned.
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        let mut registry = self.lock();
        let position = registry
            .allocations
            .binary_search_by_key(&(address as usize), Allocation::start)
            .map_err(|_| MemoryError::UnknownAllocation { address })?;
        let mut allocation = registry.allocations.remove(position);
        allocation.words = Vec::new();
        registry.freed_bytes += allocation.bytes;
        registry.freed.push_back(allocation);
        while registry.freed_bytes > QUARANTINE || registry.freed.len() > QUARANTINE_COUNT {
            let Some(oldest) = registry.freed.pop_front() else {
                break;
            };
            registry.freed_bytes -= oldest.bytes;
        }
        Ok(())
    }

    /// Copies `bytes` to `address`; the words they touch count as initialised.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let mut registry = self.lock();
        let (allocation, range) = registry.find(address, bytes.len())?;
        allocation.storage.bytes_mut()[range.clone()].copy_from_slice(bytes);
        allocation.initialise(range);
        Ok(())
    }

    /// Sets `len` bytes from `address` on to `byte`; the words they touch count as initialised.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn fill(&self, address: u64, byte: u8, len: usize) -> Result<(), MemoryError> {
        let mut registry = self.lock();
        let (allocation, range) = registry.find(address, len)?;
        allocation.storage.bytes_mut()[range.clone()].fill(byte);
        allocation.initialise(range);
        Ok(())
    }

    /// Copies the bytes from `address` on to `out`, whether or not they are initialised.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        let mut registry = self.lock();
        let (allocation, range) = registry.find(address, out.len())?;
        out.copy_from_slice(&allocation.storage.bytes_mut()[range]);
        Ok(())
    }

    /// Bytes of all allocations together.
    pub fn allocated_bytes(&self) -> usize {
        self.lock().allocations.iter().map(|allocation| allocation.bytes).sum()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// All allocations, by address.
pub(super) struct Registry {
    allocations: Vec<Allocation>,
    freed: VecDeque<Allocation>,
    freed_bytes: usize,
    stamp: u16,
}

/// Where a kernel's access may go: an allocation, as the launch caches it.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) start: usize,
    pub(super) bytes: usize,
    /// State of each word: [`INITIALISED`], the launch that last wrote it (bits 7..14) and the launch that
    /// last read it through the read-only path (bits 0..7).
    pub(super) words: *mut u16,
}

/// Why an address has no window.
pub(super) enum Miss {
    Freed(Target),
    Outside(Target),
}

impl Registry {
    /// Begins a launch and returns its number, which no word state carries yet.
    pub(super) fn begin_launch(&mut self) -> u16 {
        if self.stamp == MOST_STAMP {
            for allocation in &mut self.allocations {
                for word in &mut allocation.words {
                    *word &= INITIALISED;
                }
            }
            self.stamp = 0;
        }
        self.stamp += 1;
        self.stamp
    }

    /// The allocation that holds `bytes` bytes at `address`.
    pub(super) fn window(&mut self, address: usize, bytes: usize) -> Result<Window, Miss> {
        if let Some(allocation) = self.containing(address)
            && bytes <= allocation.bytes - (address - allocation.start())
        {
            let start = allocation.start();
            return Ok(Window { start, bytes: allocation.bytes, words: allocation.words.as_mut_ptr() });
        }
        let inside = |allocation: &&Allocation| address.wrapping_sub(allocation.start()) < allocation.bytes;
        Err(match self.freed.iter().rev().find(inside) {
            Some(freed) => Miss::Freed(freed.target(address)),
            None => Miss::Outside(self.target(address)),
        })
    }

    /// `address` in terms of the nearest allocation.
    pub(super) fn target(&self, address: usize) -> Target {
        const NEAR: usize = 1 << 20;
        let after = self.allocations.partition_point(|allocation| allocation.start() <= address);
        let before = after.checked_sub(1).map(|index| &self.allocations[index]);
        let behind = |allocation: &Allocation| address.saturating_sub(allocation.start() + allocation.bytes);
        let candidates = before.into_iter().map(|allocation| (behind(allocation), allocation));
        let next = self.allocations.get(after).map(|allocation| (allocation.start() - address, allocation));
        match candidates.chain(next).min_by_key(|(distance, _)| *distance) {
            Some((distance, allocation)) if distance < NEAR => allocation.target(address),
            _ => Target::Nowhere { address: address as u64 },
        }
    }

    fn containing(&mut self, address: usize) -> Option<&mut Allocation> {
        let after = self.allocations.partition_point(|allocation| allocation.start() <= address);
        let allocation = &mut self.allocations[after.checked_sub(1)?];
        (address - allocation.start() < allocation.bytes).then_some(allocation)
    }

    fn find(&mut self, address: u64, len: usize) -> Result<(&mut Allocation, Range<usize>), MemoryError> {
        let at = address as usize;
        let after = self.allocations.partition_point(|allocation| allocation.start() <= at);
        let holder = after.checked_sub(1).filter(|&index| {
            let allocation = &self.allocations[index];
            let offset = at - allocation.start();
            offset <= allocation.bytes && len <= allocation.bytes - offset
        });
        let Some(index) = holder else {
            return Err(MemoryError::OutOfBounds { address, len, near: self.target(at).to_string() });
        };
        let allocation = &mut self.allocations[index];
        let offset = at - allocation.start();
        Ok((allocation, offset..offset + len))
    }
}

struct Allocation {
    bytes: usize,
    label: String,
    storage: Storage,
    words: Vec<u16>,
}

impl Allocation {
    fn start(&self) -> usize {
        self.storage.start.expose_provenance()
    }

    fn target(&self, address: usize) -> Target {
        let offset = (address as i64).wrapping_sub(self.start() as i64);
        Target::Global { label: self.label.clone(), offset, bytes: self.bytes }
    }

    fn initialise(&mut self, range: Range<usize>) {
        for word in &mut self.words[range.start / 4..range.end.div_ceil(4)] {
            *word |= INITIALISED;
        }
    }
}

/// Aligned bytes with a red zone behind them.
struct Storage {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: the bytes are owned by this value; access to them goes through the lock of `Memory`.
unsafe impl Send for Storage {}

impl Storage {
    fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.checked_add(RED_ZONE)?, ALIGNMENT).ok()?;
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc::alloc(layout) };
        if start.is_null() {
            return None;
        }
        // SAFETY: `start` is valid for the layout's size.
        unsafe { start.write_bytes(POISON, layout.size()) };
        Some(Self { start, layout })
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: valid for the layout's size and initialised by `new`; kernels, which write through the
        // exposed address, do not run while somebody else holds the registry.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.layout.size()) }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { alloc::dealloc(self.start, self.layout) };
    }
}
