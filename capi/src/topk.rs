//! The top-k operator.

use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dsa_kernels::topk::{TopK, TopKArgs, TopKBuilder};
use dsa_kernels::{Device, Error, Workspace};

use crate::argument::{self, check_pointer};
use crate::config::CConfig;
use crate::device::{CDevice, address_of, borrow_stream};
use crate::status::{Failure, Status, catch};
use crate::versioned;

/// `dsa_topk`.
pub struct CTopK {
    device: Device,
    topk: Mutex<TopK>,
}

impl CTopK {
    fn lock(&self) -> MutexGuard<'_, TopK> {
        // A panic while the lock was held leaves an operator that zeroes its state when in doubt.
        self.topk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Builds an operator.
///
/// # Safety
/// `device` is null or an open device, `config` null or as [`versioned::read`] says, `topk` null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_topk_create(
    device: *const CDevice,
    config: *const CConfig,
    topk: *mut *mut CTopK,
) -> Status {
    catch(|| {
        // SAFETY: the caller's promise.
        let device = unsafe { argument::reference("device", device) }?;
        // SAFETY: the caller's promise.
        let limits = unsafe { versioned::read(config) }?.limits()?;
        check_pointer("topk", topk)?;
        let built = TopKBuilder::from(limits).build(device.device())?;
        let built = Box::new(CTopK { device: device.device().clone(), topk: Mutex::new(built) });
        // SAFETY: checked; the caller vouches for it.
        unsafe { argument::store(topk, Box::into_raw(built)) };
        Ok(())
    })
}

/// Frees an operator, after waiting for its launches. NULL does nothing.
///
/// # Safety
/// `topk` is null or was created here and not destroyed, and no other call uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_topk_destroy(topk: *mut CTopK) -> Status {
    catch(|| {
        if !topk.is_null() {
            check_pointer("topk", topk)?;
            // SAFETY: made by `Box::into_raw` and, the caller promises, not destroyed before.
            drop(unsafe { Box::from_raw(topk) });
        }
        Ok(())
    })
}

/// Bytes of workspace that launches use.
///
/// # Safety
/// `topk` is null or a live operator, `bytes` null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_topk_workspace_bytes(topk: *const CTopK, bytes: *mut usize) -> Status {
    catch(|| {
        // SAFETY: the caller's promise.
        let topk = unsafe { argument::reference("topk", topk) }?;
        check_pointer("bytes", bytes)?;
        // SAFETY: checked; the caller vouches for it.
        unsafe { argument::store(bytes, topk.lock().workspace_bytes()) };
        Ok(())
    })
}

/// Enqueues the selection.
///
/// # Safety
/// `topk` is null or a live operator; the rest is as `dsa_kernels.h` says, which is what
/// [`TopK::enqueue`], [`Workspace::borrow`] and [`Device::borrow_stream`] ask for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_topk_enqueue(
    topk: *const CTopK,
    scores: *const c_void,
    pitch: u64,
    rows: u32,
    lengths: *const i32,
    out: *mut i32,
    values: *mut c_void,
    workspace: *mut c_void,
    workspace_bytes: usize,
    stream: *mut c_void,
) -> Status {
    catch(|| {
        // SAFETY: the caller's promise.
        let topk = unsafe { argument::reference("topk", topk) }?;
        let mut operator = topk.lock();
        let args = TopKArgs {
            scores: address_of(scores),
            pitch,
            rows,
            lengths: address_of(lengths),
            out: address_of(out),
            values: address_of(values),
        };
        operator.plan().check(&args)?;
        if rows == 0 {
            return Ok(());
        }
        check_workspace(workspace_bytes, operator.workspace_bytes())?;
        // SAFETY: the caller's promise.
        let mut workspace =
            unsafe { Workspace::borrow(&topk.device, address_of(workspace), workspace_bytes) }?;
        // SAFETY: the caller's promise; the value lives for this call only.
        let stream = unsafe { borrow_stream(&topk.device, stream) }?;
        // SAFETY: the caller's promise.
        let enqueued = unsafe { operator.enqueue(&stream, &mut workspace, &args) };
        // The message for Rust names a method that C does not have.
        enqueued.map_err(|error| match error {
            Error::WorkspaceLocked { wanted, available, .. } => {
                Failure::WorkspaceTooSmall { passed: available, needed: wanted }
            }
            error => error.into(),
        })
    })
}

fn check_workspace(passed: usize, needed: usize) -> Result<(), Failure> {
    if passed < needed { Err(Failure::WorkspaceTooSmall { passed, needed }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::ptr::{null, null_mut};

    use super::*;
    use crate::device::{
        dsa_buffer_alloc, dsa_buffer_download, dsa_buffer_upload, dsa_device_close, dsa_device_open_emulator,
    };
    use crate::status::tests::last_error;

    #[test]
    fn a_workspace_must_be_as_large_as_the_operator_says() {
        check_workspace(0, 0).unwrap();
        check_workspace(512, 512).unwrap();
        let failure = check_workspace(511, 512).unwrap_err();
        assert_eq!(failure.status(), Status::WorkspaceTooSmall);
        assert!(
            failure.to_string().contains("workspace_bytes is 511, but must be at least 512"),
            "{failure}"
        );
    }

    #[test]
    fn a_row_is_selected_through_the_c_functions_and_outlives_the_device_handle() {
        let (mut device, mut topk) = (null_mut(), null_mut());
        let config = CConfig {
            size: size_of::<CConfig>() as u32,
            k: 2,
            max_rows: 1,
            max_len: 4,
            ..CConfig::default()
        };
        let (scores, length, mut found) = ([0.5f32, 3.0, 2.0, -1.0], 4i32, [0i32; 2]);
        let (mut scores_at, mut length_at, mut out_at) = (null_mut(), null_mut(), null_mut());
        // SAFETY: pointers to live values of the right types and sizes; each handle is closed once.
        unsafe {
            assert_eq!(dsa_device_open_emulator(&mut device), Status::Ok);
            assert_eq!(dsa_topk_create(device, &config, &mut topk), Status::Ok);
            for (bytes, at) in [(16, &mut scores_at), (4, &mut length_at), (8, &mut out_at)] {
                assert_eq!(dsa_buffer_alloc(device, bytes, at), Status::Ok);
            }
            assert_eq!(dsa_buffer_upload(device, scores_at, scores.as_ptr().cast(), 16), Status::Ok);
            assert_eq!(dsa_buffer_upload(device, length_at, (&raw const length).cast(), 4), Status::Ok);
            let status = dsa_topk_enqueue(
                topk,
                scores_at,
                4,
                1,
                length_at.cast(),
                out_at.cast(),
                null_mut(),
                null_mut(),
                0,
                null_mut(),
            );
            assert_eq!(status, Status::Ok, "{}", last_error());
            assert_eq!(dsa_buffer_download(device, found.as_mut_ptr().cast(), out_at, 8), Status::Ok);
            assert_eq!(dsa_device_close(device), Status::Ok);
            let mut bytes = 1;
            assert_eq!(dsa_topk_workspace_bytes(topk, &mut bytes), Status::Ok);
            assert_eq!(dsa_topk_destroy(topk), Status::Ok);
        }
        found.sort_unstable();
        assert_eq!(found, [1, 2]);
    }

    #[test]
    fn operators_and_devices_that_are_null_are_refused_and_destroying_null_is_nothing() {
        let mut topk = null_mut();
        // SAFETY: null pointers are refused.
        unsafe {
            assert_eq!(dsa_topk_create(null(), null(), &mut topk), Status::InvalidArgument);
            assert!(last_error().contains("device is NULL"), "{}", last_error());
            assert_eq!(dsa_topk_destroy(null_mut()), Status::Ok);
            assert_eq!(dsa_device_close(null_mut()), Status::Ok);
        }
    }
}
