//! Events: points in a stream, and the time between them.

use crate::runtime::{Handle, refuse_during_capture};
use crate::{Device, Error, Stream};

/// A point in a stream's work.
#[derive(Debug)]
pub struct Event {
    device: Device,
    handle: Handle,
}

impl Event {
    /// An event that has not been recorded.
    ///
    /// # Errors
    /// [`Error::DuringCapture`], [`Error::Driver`].
    pub fn new(device: &Device) -> Result<Self, Error> {
        refuse_during_capture("creating an event")?;
        Ok(Self { device: device.clone(), handle: device.runtime().create_event()? })
    }

    /// Marks the point after everything enqueued on `stream` so far.
    ///
    /// # Errors
    /// [`Error::WrongDevice`], [`Error::DuringCapture`] (a captured event has no time), [`Error::Driver`].
    pub fn record(&self, stream: &Stream) -> Result<(), Error> {
        self.device.same_as(stream.device(), "stream")?;
        if stream.is_capturing()? {
            return Err(Error::DuringCapture { operation: "recording a timing event" });
        }
        self.device.runtime().record(&self.handle, stream.handle())
    }

    /// Waits until the stream has passed the point.
    ///
    /// # Errors
    /// [`Error::DuringCapture`]; [`Error::Driver`] with the error of an earlier launch, too.
    pub fn synchronize(&self) -> Result<(), Error> {
        refuse_during_capture("waiting for an event")?;
        self.device.runtime().wait(&self.handle)
    }

    /// Microseconds from `start` to this event; waits for this event. A GPU resolves about 0.5 us; on the
    /// emulator this is the time that the emulation took.
    ///
    /// # Errors
    /// [`Error::WrongDevice`], [`Error::DuringCapture`], [`Error::Driver`]. When one of the events was never
    /// recorded: [`Error::Driver`] on a GPU, [`Error::Argument`] on the emulator.
    pub fn elapsed_us(&self, start: &Self) -> Result<f64, Error> {
        self.device.same_as(&start.device, "start")?;
        self.synchronize()?;
        self.device.runtime().elapsed_us(&start.handle, &self.handle)
    }
}
