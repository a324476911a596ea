//! Devices: what they say about themselves, and what happens where there is no GPU.

mod common;

use common::devices;
use dsa_kernels::{Backend, Device, EmulatorOptions, Error, Event};

#[test]
fn properties_are_those_of_a_usable_device() {
    for device in devices() {
        let properties = device.properties();
        assert!(!properties.name.is_empty());
        assert!(properties.compute_capability >= (8, 0), "{properties:?}");
        assert!(properties.multiprocessors > 0);
        assert!(properties.max_threads_per_block >= 1024);
        assert!(properties.shared_bytes_per_block > 48 * 1024);
        assert!(properties.shared_bytes_per_multiprocessor >= properties.shared_bytes_per_block);
        assert_eq!(properties.driver_version.is_empty(), properties.backend == Backend::Emulator);
    }
}

#[test]
fn the_emulator_is_what_its_options_say() {
    let device = Device::emulator_with(EmulatorOptions {
        multiprocessors: 7,
        compute_capability: (8, 6),
        shared_bytes_per_block: 99 * 1024,
        ..EmulatorOptions::default()
    });
    let properties = device.properties();
    assert_eq!(properties.backend, Backend::Emulator);
    assert_eq!(properties.multiprocessors, 7);
    assert_eq!(properties.compute_capability, (8, 6));
    assert_eq!(properties.shared_bytes_per_block, 99 * 1024);
}

#[test]
fn the_best_device_is_a_gpu_or_comes_with_the_reason() {
    let (device, reason) = Device::best();
    match (device.properties().backend, reason) {
        (Backend::Cuda, None) => {}
        (Backend::Emulator, Some(reason)) => assert!(reason.to_string().contains("emulator"), "{reason}"),
        (backend, reason) => panic!("{backend} with {reason:?}"),
    }
    assert_eq!(device.upload(&[1u8]).unwrap().download().unwrap(), [1]);
}

#[cfg(feature = "cust")]
#[test]
fn a_gpu_that_is_not_there_is_a_typed_error() {
    match Device::cuda(4321).expect_err("no machine has that many") {
        Error::NoDriver => {}
        Error::NoDevice { ordinal, count } => assert!(ordinal == 4321 && count < 4321),
        error => panic!("{error}"),
    }
}

#[cfg(feature = "cust")]
#[test]
fn a_gpu_opened_twice_is_one_device() {
    let (Ok(one), Ok(other)) = (Device::cuda(0), Device::cuda(0)) else {
        return;
    };
    let buffer = one.alloc::<u8>(4).unwrap();
    buffer.fill_async(&other.stream().unwrap(), 7).unwrap();
    assert_eq!(buffer.download().unwrap(), [7; 4]);
}

#[cfg(feature = "cust")]
#[test]
fn the_current_context_must_be_there() {
    match Device::cuda_current() {
        Err(Error::NoDriver | Error::NoDevice { count: 0, .. }) => {}
        Err(Error::Argument { argument: "current context", value, .. }) => assert_eq!(value, "absent"),
        other => panic!("{other:?} without a current context"),
    }
}

#[cfg(not(feature = "cust"))]
#[test]
fn a_build_without_gpu_support_says_so() {
    assert!(matches!(Device::best().1, Some(Error::NotBuilt)));
}

#[test]
fn a_device_is_used_by_many_threads() {
    for device in devices() {
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let device = device.clone();
                scope.spawn(move || {
                    let buffer = device.upload(&vec![thread; 1000]).unwrap();
                    let stream = device.stream().unwrap();
                    stream.synchronize().unwrap();
                    assert_eq!(buffer.download().unwrap(), vec![thread; 1000]);
                });
            }
        });
    }
}

#[test]
fn events_measure_the_time_between_them() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let (start, end) = (Event::new(&device).unwrap(), Event::new(&device).unwrap());
        start.record(&stream).unwrap();
        let buffer = device.alloc::<u8>(1 << 20).unwrap();
        buffer.fill_async(&stream, 1).unwrap();
        end.record(&stream).unwrap();
        let microseconds = end.elapsed_us(&start).unwrap();
        assert!(microseconds > 0.0 && microseconds < 60e6, "{microseconds} us");
    }
}

#[test]
fn an_event_that_was_never_recorded_has_no_time() {
    for device in devices() {
        let (start, end) = (Event::new(&device).unwrap(), Event::new(&device).unwrap());
        end.record(&device.stream().unwrap()).unwrap();
        let error = end.elapsed_us(&start).unwrap_err();
        let expected = match device.properties().backend {
            Backend::Cuda => matches!(error, Error::Driver { .. }),
            Backend::Emulator => matches!(error, Error::Argument { argument: "start", .. }),
        };
        assert!(expected, "{error}");
    }
}

#[test]
fn a_borrowed_stream_queues_work_and_outlives_its_view() {
    for device in devices() {
        let owned = device.stream().unwrap();
        let buffer = device.upload(&[0u8; 64]).unwrap();
        for byte in [1, 2] {
            // SAFETY: `owned` lives longer than the view.
            let view = unsafe { device.borrow_stream(owned.raw()) };
            buffer.fill_async(&view, byte).unwrap();
            view.synchronize().unwrap();
            assert_eq!(buffer.download().unwrap(), [byte; 64]);
        }
        owned.synchronize().unwrap();
    }
}
