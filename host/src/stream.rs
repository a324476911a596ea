//! Streams: queues of device work.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::runtime::{Handle, refuse_during_capture};
use crate::{Device, Error};

/// A queue of device work, executed in order. Clones are the same queue.
///
/// Dropping the last clone waits for what was enqueued, so that blocking copies never overtake it; errors of
/// launches are reported by [`synchronize`](Self::synchronize) only. A stream dropped while its thread
/// captures another one is waited for when the capture ends; one that another library is capturing, and a
/// borrowed one, are not waited for.
///
/// On the emulator, work runs while it is enqueued.
#[derive(Clone)]
pub struct Stream {
    state: Arc<State>,
}

/// Keeps a device resource (the memory of a [`Buffer`](crate::Buffer), a kernel, ...) alive.
#[derive(Clone, Debug)]
pub struct Owner(#[expect(dead_code, reason = "owning is all it does")] pub(crate) Handle);

pub(crate) struct State {
    handle: Handle,
    device: Device,
    /// Set while `Graph::capture` runs on this stream; spares launches the lock.
    capturing: AtomicBool,
    /// What the capture that is going on must keep alive. Its lock also keeps a capture from beginning
    /// while another thread synchronises the stream.
    kept: Mutex<Vec<Owner>>,
}

impl Stream {
    pub(crate) fn new(device: Device, handle: Handle) -> Self {
        Self {
            state: Arc::new(State {
                handle,
                device,
                capturing: AtomicBool::new(false),
                kept: Mutex::default(),
            }),
        }
    }

    /// The device whose work this stream queues.
    pub fn device(&self) -> &Device {
        &self.state.device
    }

    /// The stream as a `CUstream`, for other bindings; 0 on the emulator.
    pub fn raw(&self) -> u64 {
        self.device().runtime().raw_stream(&self.state.handle)
    }

    /// Waits until everything enqueued so far has run, and reports errors of launches.
    ///
    /// # Errors
    /// [`Error::DuringCapture`]; [`Error::Driver`] with the error of an earlier launch, too.
    pub fn synchronize(&self) -> Result<(), Error> {
        refuse_during_capture("synchronising a stream")?;
        if self.is_capturing()? {
            return Err(Error::DuringCapture { operation: "synchronising a stream" });
        }
        self.device().runtime().synchronize(&self.state.handle)
    }

    /// Whether the stream is being captured into a graph, by this library or by another.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn is_capturing(&self) -> Result<bool, Error> {
        self.device().runtime().is_capturing(&self.state.handle)
    }

    /// Keeps a resource alive as long as the graph that this stream is being captured into; does nothing
    /// when it is not being captured by [`Graph::capture`](crate::Graph::capture).
    ///
    /// An operator calls this for every buffer that it borrows safely.
    pub fn keep_alive(&self, owner: impl FnOnce() -> Owner) {
        if self.state.capturing.load(Ordering::Acquire) {
            self.state.lock().push(owner());
        }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.state.handle
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("device", self.device()).field("raw", &self.raw()).finish()
    }
}

impl State {
    /// Begins a capture.
    pub(crate) fn begin_capture(&self) -> Result<(), Error> {
        let mut kept = self.lock();
        if self.capturing.load(Ordering::Acquire) {
            return Err(Error::DuringCapture { operation: "capturing a stream again" });
        }
        self.device.runtime().begin_capture(&self.handle)?;
        kept.clear();
        self.capturing.store(true, Ordering::Release);
        Ok(())
    }

    /// Ends a capture: the graph, and what it must keep alive.
    pub(crate) fn end_capture(&self) -> Result<(Handle, Vec<Owner>), Error> {
        let graph = self.device.runtime().end_capture(&self.handle);
        self.capturing.store(false, Ordering::Release);
        let kept = std::mem::take(&mut *self.lock());
        Ok((graph?, kept))
    }

    /// Waits for the stream unless it is being captured.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        let _no_capture_begins = self.lock();
        if self.device.runtime().is_capturing(&self.handle)? {
            return Ok(());
        }
        self.device.runtime().synchronize(&self.handle)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Owner>> {
        // A panic while the lock was held leaves a valid list.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
