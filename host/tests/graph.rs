//! Graphs: captured once, replayed with other contents; captures end cleanly and keep what they need.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{devices, enqueue_increment, module};
use dsa_kernels::{Error, Event, Graph, Workspace};

#[test]
fn a_capture_runs_nothing_and_each_replay_runs_all_of_it() {
    for device in devices() {
        let kernel = device.load_kernel(&module(), "increment").unwrap();
        let stream = device.stream().unwrap();
        let data = device.upload(&[0u32; 300]).unwrap();
        let graph = Graph::capture(&stream, |stream| {
            enqueue_increment(&kernel, stream, &data, 1)?;
            enqueue_increment(&kernel, stream, &data, 10)
        })
        .unwrap();
        assert_eq!(data.download().unwrap(), [0; 300]);
        for _ in 0..5 {
            graph.launch(&stream).unwrap();
        }
        stream.synchronize().unwrap();
        assert_eq!(data.download().unwrap(), [55; 300]);
        data.upload(&[1000; 300]).unwrap();
        graph.launch(&stream).unwrap();
        assert_eq!(data.download().unwrap(), [1011; 300]);
    }
}

#[test]
fn fills_are_captured_in_their_order() {
    for device in devices() {
        let kernel = device.load_kernel(&module(), "increment").unwrap();
        let stream = device.stream().unwrap();
        let data = device.upload(&[7u32; 10]).unwrap();
        let graph = Graph::capture(&stream, |stream| {
            enqueue_increment(&kernel, stream, &data, 1)?;
            data.fill_async(stream, 0)?;
            enqueue_increment(&kernel, stream, &data, 2)
        })
        .unwrap();
        for _ in 0..2 {
            graph.launch(&stream).unwrap();
        }
        assert_eq!(data.download().unwrap(), [2; 10]);
    }
}

#[test]
fn what_would_break_a_capture_is_refused_and_does_not_break_it() {
    for device in devices() {
        let kernel = device.load_kernel(&module(), "increment").unwrap();
        let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
        let data = device.upload(&[0u32; 10]).unwrap();
        let event = Event::new(&device).unwrap();
        let mut workspace = Workspace::new(&device);
        let replayed = Graph::capture(&stream, |_| Ok(())).unwrap();
        let graph = Graph::capture(&stream, |stream| {
            let attempts: [(&str, Option<Error>); 13] = [
                ("alloc", device.alloc::<u8>(1).err()),
                ("upload", data.upload(&[1]).err()),
                ("download", data.download().err()),
                ("fill", data.fill_bytes(1).err()),
                ("stream", device.stream().err()),
                ("synchronize", stream.synchronize().err()),
                ("synchronize another", other.synchronize().err()),
                ("event", Event::new(&device).err()),
                ("record", event.record(stream).err()),
                ("load", device.load_kernel(&module(), "meet").err()),
                ("workspace", workspace.get_simultaneous("test", &[1]).err()),
                ("capture", Graph::capture(stream, |_| Ok(())).err()),
                ("replay", replayed.launch(&other).err()),
            ];
            for (what, error) in attempts {
                assert!(matches!(error, Some(Error::DuringCapture { .. })), "{what}: {error:?}");
            }
            enqueue_increment(&kernel, stream, &data, 3)
        })
        .unwrap();
        graph.launch(&stream).unwrap();
        assert_eq!(data.download().unwrap(), [3; 10]);
    }
}

#[test]
fn a_stream_dropped_during_a_capture_has_run_when_the_capture_is_over() {
    for device in devices() {
        let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
        let data = device.upload(&vec![0u8; 1 << 20]).unwrap();
        let graph = Graph::capture(&stream, |stream| {
            for byte in 1..=20 {
                data.fill_async(&other, byte)?;
            }
            drop(other);
            data.fill_async(stream, 100)
        })
        .unwrap();
        assert!(data.download().unwrap().iter().all(|&byte| byte == 20));
        graph.launch(&stream).unwrap();
        drop(stream);
        assert!(data.download().unwrap().iter().all(|&byte| byte == 100));
    }
}

#[test]
fn an_error_in_a_capture_is_reported_and_the_stream_is_usable() {
    for device in devices() {
        let kernel = device.load_kernel(&module(), "increment").unwrap();
        let stream = device.stream().unwrap();
        let data = device.upload(&[0u32; 10]).unwrap();
        let result = Graph::capture(&stream, |stream| {
            enqueue_increment(&kernel, stream, &data, 1)?;
            Err(Error::argument("rows", 9, "at most 8", "build for more rows"))
        });
        assert!(matches!(result.err(), Some(Error::Argument { argument: "rows", .. })));
        assert!(!stream.is_capturing().unwrap());
        enqueue_increment(&kernel, &stream, &data, 4).unwrap();
        assert_eq!(data.download().unwrap(), [4; 10], "what was captured before the error never runs");
    }
}

#[test]
fn a_panic_in_a_capture_ends_it() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let data = device.upload(&[1u8; 10]).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| {
            Graph::capture(&stream, |stream| {
                data.fill_async(stream, 2)?;
                panic!("planted")
            })
        }));
        assert!(result.is_err());
        assert!(!stream.is_capturing().unwrap());
        assert_eq!(data.download().unwrap(), [1; 10]);
        let graph = Graph::capture(&stream, |stream| data.fill_async(stream, 3)).unwrap();
        graph.launch(&stream).unwrap();
        assert_eq!(data.download().unwrap(), [3; 10]);
    }
}

#[test]
fn a_graph_keeps_kernels_and_buffers_alive() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let data = device.upload(&[0u32; 10]).unwrap();
        let graph = {
            let kernel = device.load_kernel(&module(), "increment").unwrap();
            let scratch = device.upload(&[1u32; 10]).unwrap();
            Graph::capture(&stream, |stream| {
                enqueue_increment(&kernel, stream, &scratch, 1)?;
                enqueue_increment(&kernel, stream, &data, 1)
            })
            .unwrap()
        };
        assert_eq!(graph.resources(), 4, "a kernel and a buffer for each launch");
        // Memory that was freed would be handed out again, or reported by the emulator.
        let others: Vec<_> = (0..8).map(|_| device.upload(&[100u32; 10]).unwrap()).collect();
        graph.launch(&stream).unwrap();
        assert_eq!(data.download().unwrap(), [1; 10]);
        for other in others {
            assert_eq!(other.download().unwrap(), [100; 10]);
        }
    }
}

#[test]
fn a_graph_keeps_what_it_is_given_until_it_is_dropped() {
    for device in devices() {
        let kept = std::sync::Arc::new(());
        let mut graph = Graph::capture(&device.stream().unwrap(), |_| Ok(())).unwrap();
        graph.keep(kept.clone());
        assert_eq!(std::sync::Arc::strong_count(&kept), 2);
        drop(graph);
        assert_eq!(std::sync::Arc::strong_count(&kept), 1);
    }
}

#[test]
fn a_buffer_dropped_during_a_capture_does_not_break_it() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let data = device.upload(&[0u8; 16]).unwrap();
        let dropped = device.alloc::<u8>(1 << 20).unwrap();
        let graph = Graph::capture(&stream, move |stream| {
            drop(dropped);
            data.fill_async(stream, 5)?;
            drop(data);
            Ok(())
        })
        .unwrap();
        graph.launch(&stream).unwrap();
        stream.synchronize().unwrap();
    }
}

#[test]
fn other_threads_work_while_one_captures() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let data = device.upload(&[0u8; 16]).unwrap();
        let graph = Graph::capture(&stream, |stream| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let buffer = device.upload(&[1u32, 2, 3]).unwrap();
                    buffer.fill_async(&device.stream().unwrap(), 0).unwrap();
                    assert_eq!(buffer.download().unwrap(), [0; 3]);
                });
            });
            data.fill_async(stream, 9)
        })
        .unwrap();
        graph.launch(&stream).unwrap();
        assert_eq!(data.download().unwrap(), [9; 16]);
    }
}

#[test]
fn threads_capture_at_the_same_time() {
    for device in devices() {
        let kernel = device.load_kernel(&module(), "increment").unwrap();
        let both_capture = std::sync::Barrier::new(2);
        let capture_and_replay = |by: u32| {
            let stream = device.stream().unwrap();
            let data = device.upload(&[0u32; 10]).unwrap();
            let graph = Graph::capture(&stream, |stream| {
                both_capture.wait();
                enqueue_increment(&kernel, stream, &data, by)?;
                both_capture.wait();
                Ok(())
            })
            .unwrap();
            graph.launch(&stream).unwrap();
            assert_eq!(data.download().unwrap(), [by; 10]);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| capture_and_replay(1));
            scope.spawn(|| capture_and_replay(2));
        });
    }
}

#[test]
fn another_capture_on_the_same_thread_is_refused() {
    for device in devices() {
        let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
        let data = device.upload(&[0u8; 16]).unwrap();
        let graph = Graph::capture(&stream, |stream| {
            let error = Graph::capture(&other, |_| Ok(())).unwrap_err();
            assert!(matches!(error, Error::DuringCapture { .. }), "{error}");
            data.fill_async(stream, 4)
        })
        .unwrap();
        graph.launch(&other).unwrap();
        assert_eq!(data.download().unwrap(), [4; 16]);
    }
}

#[test]
fn a_graph_is_replayed_on_any_stream_of_its_device() {
    for device in devices() {
        let kernel = device.load_kernel(&module(), "increment").unwrap();
        let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
        let data = device.upload(&[0u32; 10]).unwrap();
        let graph = Graph::capture(&stream, |stream| enqueue_increment(&kernel, stream, &data, 1)).unwrap();
        graph.launch(&other).unwrap();
        other.synchronize().unwrap();
        graph.launch(&stream).unwrap();
        assert_eq!(data.download().unwrap(), [2; 10]);
        let elsewhere = dsa_kernels::Device::emulator().stream().unwrap();
        assert!(matches!(graph.launch(&elsewhere), Err(Error::WrongDevice { argument: "stream" })));
    }
}
