//! Buffers: what is written is read, limits are refused.

mod common;

use common::devices;
use dsa_kernels::{Device, Error};

#[test]
fn what_is_uploaded_is_downloaded() {
    for device in devices() {
        let values: Vec<u32> = (0..100_000).map(|i: u32| i.wrapping_mul(0x9e37_79b9)).collect();
        assert_eq!(device.upload(&values).unwrap().download().unwrap(), values);
        let floats = [f32::NAN, -0.0, f32::INFINITY, 1.5];
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&device.upload(&floats).unwrap().download().unwrap()), bits(&floats));
        assert_eq!(device.upload(&[i64::MIN, -1]).unwrap().download().unwrap(), [i64::MIN, -1]);
    }
}

#[test]
fn an_upload_replaces_the_front_and_leaves_the_rest() {
    for device in devices() {
        let buffer = device.upload(&[1u8, 2, 3, 4, 5]).unwrap();
        buffer.upload(&[9, 8]).unwrap();
        assert_eq!(buffer.download().unwrap(), [9, 8, 3, 4, 5]);
    }
}

#[test]
fn more_values_than_elements_are_refused_and_nothing_is_written() {
    for device in devices() {
        let buffer = device.upload(&[1i32, 2]).unwrap();
        let error = buffer.upload(&[7, 8, 9]).unwrap_err();
        assert!(matches!(error, Error::Argument { argument: "values.len()", .. }), "{error}");
        assert!(error.to_string().contains('3') && error.to_string().contains("at most 2"), "{error}");
        assert_eq!(buffer.download().unwrap(), [1, 2]);
    }
}

#[test]
fn parts_are_uploaded_and_downloaded_where_they_are() {
    for device in devices() {
        let buffer = device.upload(&[1u16, 2, 3, 4, 5]).unwrap();
        buffer.upload_at(2, &[9, 8]).unwrap();
        let mut part = [0; 3];
        buffer.download_at(1, &mut part).unwrap();
        assert_eq!(part, [2, 9, 8]);
        buffer.download_at(5, &mut []).unwrap();
        for (first, len, limit) in [(3, 3, "at most 2 from element 3"), (6, 1, "at most 0 from element 6")] {
            let error = buffer.download_at(first, &mut vec![0; len]).unwrap_err().to_string();
            assert!(error.contains(limit), "{error}");
            let error = buffer.upload_at(first, &vec![7; len]).unwrap_err().to_string();
            assert!(error.contains(limit), "{error}");
        }
        assert_eq!(buffer.download().unwrap(), [1, 2, 9, 8, 5]);
    }
}

#[test]
fn a_fill_reaches_every_byte() {
    for device in devices() {
        let buffer = device.alloc::<u16>(1001).unwrap();
        buffer.fill_bytes(0xa5).unwrap();
        assert_eq!(buffer.download().unwrap(), [0xa5a5; 1001]);
        let stream = device.stream().unwrap();
        buffer.fill_async(&stream, 0x11).unwrap();
        // A download waits for the device's own streams.
        assert_eq!(buffer.download().unwrap(), [0x1111; 1001]);
    }
}

#[test]
fn copies_come_after_the_work_of_a_stream_that_was_dropped() {
    for device in devices() {
        let buffer = device.upload(&vec![0u8; 1 << 20]).unwrap();
        let stream = device.stream().unwrap();
        for byte in 1..=100 {
            buffer.fill_async(&stream, byte).unwrap();
        }
        drop(stream);
        assert!(buffer.download().unwrap().iter().all(|&byte| byte == 100));
    }
}

#[test]
fn an_empty_buffer_is_a_buffer() {
    for device in devices() {
        let buffer = device.alloc::<f32>(0).unwrap();
        assert!(buffer.is_empty());
        assert_ne!(buffer.address(), 0);
        buffer.upload(&[]).unwrap();
        buffer.fill_bytes(1).unwrap();
        assert!(buffer.download().unwrap().is_empty());
    }
}

#[test]
fn buffers_are_aligned_and_apart() {
    for device in devices() {
        let buffers: Vec<_> = [1usize, 255, 256, 257].map(|len| device.alloc::<u8>(len).unwrap()).into();
        for (i, buffer) in buffers.iter().enumerate() {
            assert_eq!(buffer.address() % 256, 0);
            for other in &buffers[..i] {
                let apart = buffer.address() + buffer.bytes() as u64 <= other.address()
                    || other.address() + other.bytes() as u64 <= buffer.address();
                assert!(apart);
            }
        }
    }
}

#[test]
fn more_memory_than_there_is_is_refused_with_its_size() {
    for device in devices() {
        for len in [1usize << 50, usize::MAX / 2] {
            let Err(error) = device.alloc::<u64>(len) else { panic!("{len} elements were allocated") };
            assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
        }
        // The device still works.
        assert_eq!(device.upload(&[3u8]).unwrap().download().unwrap(), [3]);
    }
}

#[test]
fn another_device_is_refused() {
    let (one, other) = (Device::emulator(), Device::emulator());
    let buffer = one.alloc::<u8>(4).unwrap();
    let error = buffer.fill_async(&other.stream().unwrap(), 0).unwrap_err();
    assert!(matches!(error, Error::WrongDevice { argument: "stream" }), "{error}");
}
