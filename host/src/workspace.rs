//! Scratch memory that operators share.

use crate::runtime::refuse_during_capture;
use crate::{Buffer, Device, Error, Owner};

/// Alignment of every sub-buffer, in bytes: that of an allocation.
pub const ALIGNMENT: usize = 256;

/// One scratch buffer that many operators use, one after the other on one stream.
///
/// Each operator asks for all its sub-buffers at once; they do not overlap each other, but do overlap
/// those of the next operator. The buffer grows on demand until it is locked: size it in a warm-up, lock
/// it, then capture graphs. Contents are undefined. Two streams need two workspaces.
///
/// ```
/// # use dsa_kernels::{Device, Workspace};
/// let device = Device::emulator();
/// let mut workspace = Workspace::new(&device);
/// let [histogram, slab] = workspace.get_simultaneous("top-k", &[1000, 4096])?[..] else { unreachable!() };
/// assert_eq!(slab - histogram, 1024);
/// workspace.lock();
/// assert!(workspace.get_simultaneous("something larger", &[1 << 20]).is_err());
/// # Ok::<(), dsa_kernels::Error>(())
/// ```
#[derive(Debug)]
pub struct Workspace {
    device: Device,
    memory: Memory,
    locked: bool,
}

/// Where the memory of a workspace comes from.
#[derive(Debug)]
enum Memory {
    /// There is none yet.
    Absent,
    /// The workspace's own.
    Owned(Buffer<u8>),
    /// Somebody else's.
    Borrowed { address: u64, bytes: usize },
}

impl Workspace {
    /// An empty workspace, which grows.
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), memory: Memory::Absent, locked: false }
    }

    /// Somebody else's memory as a workspace: `bytes` bytes at the device address `address`, aligned to
    /// [`ALIGNMENT`]. It is locked. With no bytes, the address may be null.
    ///
    /// # Safety
    /// The memory is valid on the device, and used by nothing else, until everything that was enqueued with
    /// this workspace has run; if a stream was being captured, until the last replay.
    ///
    /// # Errors
    /// [`Error::Argument`] for an address that is null or misaligned, or a range beyond the address space.
    pub unsafe fn borrow(device: &Device, address: u64, bytes: usize) -> Result<Self, Error> {
        let refuse = |value: String, limit: &str, help| Err(Error::argument("workspace", value, limit, help));
        if address == 0 && bytes > 0 {
            return refuse("null".into(), "a device address", "pass allocated device memory");
        }
        if !address.is_multiple_of(ALIGNMENT as u64) {
            let limit = format!("aligned to {ALIGNMENT} bytes");
            return refuse(format!("{address:#x}"), &limit, "pass the address of an allocation");
        }
        if bytes > isize::MAX as usize || address.checked_add(bytes as u64).is_none() {
            let limit = "within 64-bit addresses";
            return refuse(format!("{bytes} bytes at {address:#x}"), limit, "pass the size in bytes");
        }
        Ok(Self { device: device.clone(), memory: Memory::Borrowed { address, bytes }, locked: true })
    }

    /// A workspace of `bytes` bytes, which grows.
    ///
    /// # Errors
    /// Those of [`Device::alloc`].
    pub fn with_bytes(device: &Device, bytes: usize) -> Result<Self, Error> {
        let mut workspace = Self::new(device);
        workspace.reserve("Workspace::with_bytes", bytes)?;
        Ok(workspace)
    }

    /// The device that the memory belongs to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes that there are.
    pub fn bytes(&self) -> usize {
        match &self.memory {
            Memory::Absent => 0,
            Memory::Owned(buffer) => buffer.len(),
            Memory::Borrowed { bytes, .. } => *bytes,
        }
    }

    /// Forbids growing from now on: addresses that graphs have captured stay right.
    pub fn lock(&mut self) {
        self.locked = true;
    }

    /// Whether growing is forbidden.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Makes the workspace at least `bytes` large, for `requester`, whom errors name.
    ///
    /// Growing moves the workspace: earlier addresses are for the work enqueued with them only. Graphs
    /// captured with the earlier memory through safe calls keep it alive.
    ///
    /// # Errors
    /// [`Error::WorkspaceLocked`] and those of [`Device::alloc`]; the workspace is unchanged then.
    pub fn reserve(&mut self, requester: &str, bytes: usize) -> Result<(), Error> {
        let available = self.bytes();
        if bytes <= available {
            return Ok(());
        }
        if self.locked {
            return Err(Error::WorkspaceLocked { requester: requester.into(), wanted: bytes, available });
        }
        self.memory = Memory::Owned(self.device.alloc(bytes)?);
        Ok(())
    }

    /// Device addresses of one sub-buffer for each of `sizes` (bytes), to be used at the same time:
    /// aligned to 256 bytes, not overlapping, in the order of `sizes`.
    ///
    /// # Errors
    /// Those of [`reserve`](Self::reserve).
    pub fn get_simultaneous(&mut self, requester: &str, sizes: &[usize]) -> Result<Vec<u64>, Error> {
        let total =
            simultaneous_bytes(sizes).ok_or(Error::OutOfMemory { bytes: usize::MAX, driver: None })?;
        self.reserve(requester, total)?;
        let mut next = match &self.memory {
            Memory::Absent => 0,
            Memory::Owned(buffer) => buffer.address(),
            Memory::Borrowed { address, .. } => *address,
        };
        let address_of = |&size: &usize| {
            let address = next;
            next += size.next_multiple_of(ALIGNMENT) as u64;
            address
        };
        Ok(sizes.iter().map(address_of).collect())
    }

    /// What keeps the memory alive; nothing while there is none, or when it is somebody else's.
    pub fn owner(&self) -> Option<Owner> {
        match &self.memory {
            Memory::Owned(buffer) => Some(buffer.owner()),
            Memory::Absent | Memory::Borrowed { .. } => None,
        }
    }

    /// Writes `byte` to every byte of the workspace, and waits for it: operators must not care.
    ///
    /// # Errors
    /// Those of [`Buffer::fill_bytes`].
    pub fn fill_bytes(&self, byte: u8) -> Result<(), Error> {
        match &self.memory {
            Memory::Absent => Ok(()),
            Memory::Owned(buffer) => buffer.fill_bytes(byte),
            Memory::Borrowed { address, bytes } => {
                refuse_during_capture("a blocking fill")?;
                self.device.settle()?;
                self.device.fill_blocking(*address, byte, *bytes)
            }
        }
    }
}

/// Bytes of workspace that sub-buffers of these sizes (bytes) take together; `None` beyond the address
/// space.
pub fn simultaneous_bytes(sizes: &[usize]) -> Option<usize> {
    sizes
        .iter()
        .try_fold(0usize, |total, size| total.checked_add(size.checked_next_multiple_of(ALIGNMENT)?))
        .filter(|&total| total <= isize::MAX as usize)
}
