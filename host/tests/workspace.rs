//! The workspace: sub-buffers, growing, the lock.

mod common;

use common::devices;
use dsa_kernels::workspace::{ALIGNMENT, simultaneous_bytes};
use dsa_kernels::{Device, Error, Workspace};

#[test]
fn simultaneous_sub_buffers_are_aligned_and_apart() {
    for device in devices() {
        let mut workspace = Workspace::new(&device);
        let sizes = [1, 0, 256, 257, 1000];
        let addresses = workspace.get_simultaneous("test", &sizes).unwrap();
        assert_eq!(addresses.len(), sizes.len());
        for (i, (&address, &size)) in addresses.iter().zip(&sizes).enumerate() {
            assert_eq!(address % ALIGNMENT as u64, 0);
            if let Some(&next) = addresses.get(i + 1) {
                assert!(address + size as u64 <= next, "sub-buffer {i}");
            }
        }
        let end = addresses[4] + sizes[4] as u64;
        assert!(end <= addresses[0] + workspace.bytes() as u64);
    }
}

#[test]
fn it_grows_to_the_largest_request_and_then_stays() {
    for device in devices() {
        let mut workspace = Workspace::new(&device);
        assert_eq!(workspace.bytes(), 0);
        workspace.get_simultaneous("small", &[100]).unwrap();
        assert_eq!(workspace.bytes(), 256);
        let large = workspace.get_simultaneous("large", &[5000, 100]).unwrap();
        assert_eq!(workspace.bytes(), 5120 + 256);
        assert_eq!(workspace.get_simultaneous("small", &[100]).unwrap(), large[..1]);
        assert_eq!(workspace.bytes(), 5120 + 256);
    }
}

#[test]
fn a_locked_workspace_serves_what_fits_and_names_who_asks_for_more() {
    for device in devices() {
        let mut workspace = Workspace::with_bytes(&device, 1024).unwrap();
        let before = workspace.get_simultaneous("top-k", &[1024]).unwrap();
        workspace.lock();
        assert!(workspace.is_locked());
        assert_eq!(workspace.get_simultaneous("top-k", &[1024]).unwrap(), before);
        let error = workspace.get_simultaneous("compressor", &[1024, 1]).unwrap_err();
        match &error {
            Error::WorkspaceLocked { requester, wanted: 1280, available: 1024 } => {
                assert_eq!(requester, "compressor");
            }
            error => panic!("{error}"),
        }
        let message = error.to_string();
        assert!(["compressor", "1280", "1024"].iter().all(|part| message.contains(part)), "{message}");
        assert_eq!(workspace.get_simultaneous("top-k", &[1024]).unwrap(), before);
    }
}

#[test]
fn a_workspace_that_cannot_grow_keeps_what_it_has() {
    for device in devices() {
        let mut workspace = Workspace::with_bytes(&device, 512).unwrap();
        let before = workspace.get_simultaneous("test", &[512]).unwrap();
        let error = workspace.get_simultaneous("test", &[1 << 50]).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
        let error = workspace.get_simultaneous("test", &[usize::MAX, usize::MAX]).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
        assert_eq!(workspace.bytes(), 512);
        assert_eq!(workspace.get_simultaneous("test", &[512]).unwrap(), before);
    }
}

#[test]
fn no_sub_buffers_need_no_memory() {
    let mut workspace = Workspace::new(&Device::emulator());
    workspace.lock();
    assert!(workspace.get_simultaneous("test", &[]).unwrap().is_empty());
    assert!(workspace.owner().is_none());
}

#[test]
fn the_bytes_of_sub_buffers_are_known_in_advance() {
    assert_eq!(simultaneous_bytes(&[]), Some(0));
    assert_eq!(simultaneous_bytes(&[1, 256, 257]), Some(256 + 256 + 512));
    assert_eq!(simultaneous_bytes(&[usize::MAX]), None);
    assert_eq!(simultaneous_bytes(&[usize::MAX / 2, usize::MAX / 2]), None);
}

#[test]
fn borrowed_memory_serves_what_fits_and_does_not_grow() {
    for device in devices() {
        let memory = device.upload(&[1u8; 1024]).unwrap();
        // SAFETY: the memory outlives the workspace, and nothing else uses it.
        let mut workspace = unsafe { Workspace::borrow(&device, memory.address(), 1024) }.unwrap();
        assert_eq!((workspace.bytes(), workspace.is_locked()), (1024, true));
        assert!(workspace.owner().is_none());
        let addresses = workspace.get_simultaneous("test", &[100, 512]).unwrap();
        assert_eq!(addresses, [memory.address(), memory.address() + 256]);
        let error = workspace.get_simultaneous("test", &[1025]).unwrap_err();
        assert!(matches!(error, Error::WorkspaceLocked { wanted: 1280, available: 1024, .. }), "{error}");
        workspace.fill_bytes(7).unwrap();
        assert_eq!(memory.download().unwrap(), [7; 1024]);
    }
}

#[test]
fn borrowed_memory_that_cannot_be_a_workspace_is_refused() {
    let device = Device::emulator();
    for (address, bytes, words) in [
        (0, 1, "workspace is null"),
        (4096 + 4, 0, "workspace is 0x1004, but must be aligned to 256 bytes"),
        (4096, usize::MAX, "at 0x1000, but must be within 64-bit addresses"),
        (u64::MAX - 255, 256, "within 64-bit addresses"),
    ] {
        // SAFETY: refused, which is what this test requires.
        let error = unsafe { Workspace::borrow(&device, address, bytes) }.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    // SAFETY: no bytes, no memory.
    assert_eq!(unsafe { Workspace::borrow(&device, 0, 0) }.unwrap().bytes(), 0);
}
