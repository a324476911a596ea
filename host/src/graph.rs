//! CUDA graphs: work captured once, replayed many times.

use std::any::Any;
use std::sync::Mutex;

use crate::runtime::{CaptureScope, Handle, refuse_during_capture};
use crate::stream::State;
use crate::{Device, Error, Owner, Stream};

/// Captured work. A replay costs one call, whatever was captured.
///
/// The graph keeps alive the kernels that were captured, the buffers passed to safe calls, and what is
/// given to [`keep`](Self::keep). What was enqueued by `unsafe` calls with raw addresses must outlive it.
#[derive(Debug)]
pub struct Graph {
    /// Dropped before what the graph uses.
    handle: Handle,
    device: Device,
    /// A graph is launched by one thread at a time.
    launching: Mutex<()>,
    owners: Vec<Owner>,
    kept: Vec<Box<dyn Any + Send>>,
}

impl Graph {
    /// Captures what `enqueue` puts on `stream` instead of running it.
    ///
    /// During the capture this thread can neither allocate nor copy nor synchronise
    /// ([`Error::DuringCapture`]); memory that it drops is freed afterwards. An error or a panic of
    /// `enqueue` ends the capture and leaves the stream usable.
    ///
    /// # Errors
    /// That of `enqueue`; [`Error::DuringCapture`] when the stream is being captured, or this thread captures
    /// another; [`Error::Driver`].
    pub fn capture(
        stream: &Stream,
        enqueue: impl FnOnce(&Stream) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        refuse_during_capture("beginning another capture")?;
        let capture = Capture::begin(stream)?;
        enqueue(stream)?;
        let (handle, owners) = capture.finish()?;
        let device = stream.device().clone();
        Ok(Self { handle, device, launching: Mutex::new(()), owners, kept: Vec::new() })
    }

    /// Enqueues a replay on `stream`.
    ///
    /// # Errors
    /// [`Error::WrongDevice`], [`Error::DuringCapture`], [`Error::Driver`], [`Error::Emulator`].
    pub fn launch(&self, stream: &Stream) -> Result<(), Error> {
        self.device.same_as(stream.device(), "stream")?;
        refuse_during_capture("replaying a graph")?;
        // A poisoned lock guards no data.
        let _one_at_a_time = self.launching.lock();
        self.device.runtime().replay(&self.handle, stream.handle())
    }

    /// Keeps `resource` alive as long as the graph.
    pub fn keep(&mut self, resource: impl Send + 'static) {
        self.kept.push(Box::new(resource));
    }

    /// Number of device resources that the capture itself keeps alive.
    pub fn resources(&self) -> usize {
        self.owners.len()
    }
}

/// A capture that has begun; dropping it ends and discards it.
struct Capture<'a> {
    state: Option<&'a State>,
    _scope: CaptureScope,
}

impl<'a> Capture<'a> {
    fn begin(stream: &'a Stream) -> Result<Self, Error> {
        stream.state().begin_capture()?;
        Ok(Self { state: Some(stream.state()), _scope: CaptureScope::enter() })
    }

    fn finish(mut self) -> Result<(Handle, Vec<Owner>), Error> {
        self.state.take().expect("finished once").end_capture()
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            // The error that ended the capture is the one to report.
            let _ = state.end_capture();
        }
    }
}
