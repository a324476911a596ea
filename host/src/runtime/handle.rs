//! Owners of device resources, and what a stream capture means for them.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use crate::Error;

/// A shared owner of a resource of a backend: a stream, event, allocation, kernel or graph.
///
/// The resource is released with its last owner; if that is dropped during a stream capture on the same
/// thread, which a release would break, then when the capture ends.
#[derive(Clone)]
pub(crate) struct Handle {
    resource: Option<Arc<dyn Any + Send + Sync>>,
}

impl Handle {
    pub(crate) fn new(resource: impl Any + Send + Sync) -> Self {
        Self { resource: Some(Arc::new(resource)) }
    }

    /// The backend's own type.
    ///
    /// # Panics
    /// When the handle was made by another backend, which the layer above excludes.
    pub(crate) fn get<T: Any>(&self) -> &T {
        self.resource
            .as_deref()
            .and_then(|resource| resource.downcast_ref())
            .expect("handles are used with the runtime that made them")
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if CAPTURES.get() > 0
            && let Some(resource) = self.resource.take()
        {
            DEFERRED.with_borrow_mut(|deferred| deferred.push(resource));
        }
    }
}

thread_local! {
    /// Captures that this thread has begun and not ended.
    static CAPTURES: Cell<u32> = const { Cell::new(0) };
    /// What was dropped meanwhile.
    static DEFERRED: RefCell<Vec<Arc<dyn Any + Send + Sync>>> = const { RefCell::new(Vec::new()) };
}

/// Exists on a thread while it captures a stream.
pub(crate) struct CaptureScope(());

impl CaptureScope {
    pub(crate) fn enter() -> Self {
        CAPTURES.set(CAPTURES.get() + 1);
        Self(())
    }
}

impl Drop for CaptureScope {
    fn drop(&mut self) {
        CAPTURES.set(CAPTURES.get() - 1);
        if CAPTURES.get() == 0 {
            // Taken out first: releasing may drop further handles, which look at the list.
            let deferred = DEFERRED.take();
            drop(deferred);
        }
    }
}

/// Refuses an operation that would break a capture of this thread.
pub(crate) fn refuse_during_capture(operation: &'static str) -> Result<(), Error> {
    if CAPTURES.get() > 0 { Err(Error::DuringCapture { operation }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_during_a_capture_is_released_when_it_ends() {
        let resource = Arc::new(());
        let scope = CaptureScope::enter();
        let handle = Handle::new(resource.clone());
        drop(handle.clone());
        drop(handle);
        assert!(refuse_during_capture("test").is_err());
        assert_eq!(Arc::strong_count(&resource), 2, "released too early");
        drop(scope);
        assert!(refuse_during_capture("test").is_ok());
        assert_eq!(Arc::strong_count(&resource), 1, "not released");
    }

    #[test]
    fn outside_of_captures_release_is_immediate() {
        let resource = Arc::new(());
        let handle = Handle::new(resource.clone());
        let other = handle.clone();
        drop(handle);
        assert_eq!(Arc::strong_count(&resource), 2);
        drop(other);
        assert_eq!(Arc::strong_count(&resource), 1);
    }
}
