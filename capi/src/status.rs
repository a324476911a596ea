//! What a call returns: a status, and for a failure a message that the thread keeps.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use dsa_kernels::Error;

/// `dsa_status`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The call did what it was asked for.
    Ok = 0,
    /// An argument is outside its limits.
    InvalidArgument = 1,
    /// There is no such device, no driver, or no GPU support in this build.
    NoDevice = 2,
    /// The device has not enough free memory.
    OutOfMemory = 3,
    /// The workspace is smaller than the operator needs.
    WorkspaceTooSmall = 4,
    /// The call would break a stream capture that is going on.
    DuringCapture = 5,
    /// The device runs none of the kernels, or the driver cannot compile them.
    NoKernel = 6,
    /// The driver or the emulator reported an error, possibly of an earlier launch.
    DeviceFailed = 7,
    /// A mistake of this library.
    Internal = 8,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The library refused.
    #[error(transparent)]
    Library(#[from] Error),
    /// The workspace that was passed is too small.
    #[error(
        "workspace_bytes is {passed}, but must be at least {needed}; \
         pass as many bytes as dsa_topk_workspace_bytes says"
    )]
    WorkspaceTooSmall {
        /// Bytes that were passed.
        passed: usize,
        /// Bytes that are needed.
        needed: usize,
    },
    /// A panic, which is a mistake of the library.
    #[error("internal error, please report it: {0}")]
    Panic(String),
}

impl Failure {
    /// An argument outside its limits.
    pub fn argument(
        argument: &'static str,
        value: impl std::fmt::Display,
        limit: impl std::fmt::Display,
        help: &'static str,
    ) -> Self {
        Self::Library(Error::argument(argument, value, limit, help))
    }

    /// The code of this failure.
    pub fn status(&self) -> Status {
        match self {
            Self::WorkspaceTooSmall { .. } | Self::Library(Error::WorkspaceLocked { .. }) => {
                Status::WorkspaceTooSmall
            }
            Self::Panic(_) => Status::Internal,
            Self::Library(error) => match error {
                Error::Argument { .. } | Error::UnlistedConfiguration { .. } | Error::WrongDevice { .. } => {
                    Status::InvalidArgument
                }
                Error::NoDriver | Error::NotBuilt | Error::NoDevice { .. } | Error::DeviceTooOld { .. } => {
                    Status::NoDevice
                }
                Error::OutOfMemory { .. } => Status::OutOfMemory,
                Error::DuringCapture { .. } => Status::DuringCapture,
                Error::NoPtx { .. }
                | Error::PtxFile { .. }
                | Error::UnknownKernel { .. }
                | Error::Compile { .. } => Status::NoKernel,
                // Driver, Emulator, CooperativeTooLarge, and what later versions add.
                _ => Status::DeviceFailed,
            },
        }
    }
}

thread_local! {
    /// The message of this thread's last failure.
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs the body of a function of the C ABI: a failure becomes the thread's last error, and a panic becomes
/// a failure.
pub fn catch(body: impl FnOnce() -> Result<(), Failure>) -> Status {
    // A body that panics leaves its objects behind locks, which are taken also when poisoned, and whose
    // contents are valid at any time.
    let result = catch_unwind(AssertUnwindSafe(body));
    match result.unwrap_or_else(|panic| Err(Failure::Panic(text_of(&*panic)))) {
        Ok(()) => Status::Ok,
        Err(failure) => {
            remember(&failure.to_string());
            failure.status()
        }
    }
}

/// The message of the last call on this thread that failed; empty if there was none. Valid until the next
/// call on this thread that fails.
#[unsafe(no_mangle)]
pub extern "C" fn dsa_last_error() -> *const c_char {
    // While a thread ends, its message may be gone.
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

fn remember(message: &str) {
    let message = CString::new(message.replace('\0', "?")).unwrap_or_default();
    // While a thread ends, there may be no place for it.
    let _ = LAST.try_with(|last| *last.borrow_mut() = message);
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::ffi::CStr;

    use super::*;

    /// The last error of this thread.
    pub(crate) fn last_error() -> String {
        // SAFETY: a NUL-terminated text that lives until the next failure on this thread.
        unsafe { CStr::from_ptr(dsa_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_failure_leaves_its_message_and_a_success_leaves_the_message_alone() {
        assert_eq!(last_error(), "");
        let status = catch(|| Err(Failure::argument("rows", 7, "at most 4", "pass fewer")));
        assert_eq!(status, Status::InvalidArgument);
        assert_eq!(last_error(), "rows is 7, but must be at most 4; pass fewer");
        assert_eq!(catch(|| Ok(())), Status::Ok);
        assert!(last_error().starts_with("rows is 7"));
        std::thread::spawn(|| assert_eq!(last_error(), "")).join().unwrap();
    }

    #[test]
    fn a_panic_becomes_a_status() {
        let panics: [fn(); 3] =
            [|| panic!("plain"), || panic!("number {}", 3), || std::panic::panic_any(17u8)];
        for (panic, text) in panics.into_iter().zip(["plain", "number 3", "no message"]) {
            let status = catch(|| {
                panic();
                Ok(())
            });
            assert_eq!(status, Status::Internal);
            assert!(last_error().contains(text), "{}", last_error());
        }
    }

    #[test]
    fn a_message_with_a_nul_is_kept() {
        catch(|| Err(Failure::Panic("a\0b".to_owned())));
        assert!(last_error().ends_with("a?b"), "{}", last_error());
    }

    #[test]
    fn every_kind_of_error_has_its_status() {
        let status = |error: Error| Failure::from(error).status();
        assert_eq!(status(Error::NotBuilt), Status::NoDevice);
        assert_eq!(status(Error::NoDevice { ordinal: 3, count: 1 }), Status::NoDevice);
        assert_eq!(status(Error::OutOfMemory { bytes: 1, driver: None }), Status::OutOfMemory);
        assert_eq!(status(Error::DuringCapture { operation: "x" }), Status::DuringCapture);
        assert_eq!(status(Error::WrongDevice { argument: "x" }), Status::InvalidArgument);
        let (module, kernel, available) = (String::new(), String::new(), String::new());
        assert_eq!(status(Error::UnknownKernel { module, kernel, available }), Status::NoKernel);
        let driver = Error::Driver { operation: "cuX", code: 700, name: String::new() };
        assert_eq!(status(driver), Status::DeviceFailed);
        let locked = Error::WorkspaceLocked { requester: String::new(), wanted: 2, available: 1 };
        assert_eq!(status(locked), Status::WorkspaceTooSmall);
        let small = Failure::WorkspaceTooSmall { passed: 1, needed: 2 };
        assert_eq!(small.status(), Status::WorkspaceTooSmall);
        assert!(small.to_string().contains("workspace_bytes is 1, but must be at least 2"), "{small}");
    }
}
