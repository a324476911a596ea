//! Launches: arguments are checked, kernels run, faults are reported.

mod common;

use common::{ENTRIES, PTX, devices, enqueue_increment, module};
use dsa_kernels::{Backend, Device, EmulatorOptions, Error, LaunchConfig, Module};
use dsa_simt::Slot;

#[test]
fn a_kernel_computes_on_every_device() {
    for device in devices() {
        let kernel = device.load_kernel(&module(), "increment").unwrap();
        let stream = device.stream().unwrap();
        let data = device.upload(&(0..1000).collect::<Vec<u32>>()).unwrap();
        enqueue_increment(&kernel, &stream, &data, 5).unwrap();
        stream.synchronize().unwrap();
        assert_eq!(data.download().unwrap(), (5..1005).collect::<Vec<u32>>());
    }
}

#[test]
fn the_ptx_of_these_tests_has_their_kernels() {
    assert_eq!(PTX.matches(".entry ").count(), ENTRIES.len());
    for entry in ENTRIES {
        let parameter = |p: &dsa_simt::Parameter| {
            let bits = if p.ty.starts_with('*') { 64 } else { 32 };
            format!(".param .u{bits} {}", p.name)
        };
        let parameters: Vec<_> = entry.parameters.iter().map(parameter).collect();
        let head = format!(
            ".visible .entry {}({})\n.maxntid {}, 1, 1\n",
            entry.name,
            parameters.join(", "),
            entry.max_threads
        );
        assert!(PTX.contains(&head), "no {head}");
    }
}

#[test]
fn a_block_can_have_all_the_shared_memory_of_the_device() {
    for device in devices() {
        let kernel = device.load_kernel(&module(), "reverse").unwrap();
        let stream = device.stream().unwrap();
        let words = device.properties().shared_bytes_per_block / 4;
        assert!(words * 4 > 48 * 1024);
        let values: Vec<u32> = (0..words).collect();
        let data = device.upload(&values).unwrap();
        let config = LaunchConfig::new(1, 256).with_shared_bytes(words * 4);
        // SAFETY: `data` holds `words` words and lives until the download has waited for the launch.
        unsafe { kernel.launch(&stream, &config, &[data.address(), words.to_slot()]) }.unwrap();
        assert_eq!(data.download().unwrap(), values.into_iter().rev().collect::<Vec<_>>());
    }
}

#[test]
fn blocks_of_a_cooperative_launch_meet() {
    for device in devices() {
        let kernel = device.load_kernel(&module(), "meet").unwrap();
        let stream = device.stream().unwrap();
        let resident = kernel.occupancy(32, 0).unwrap() * device.properties().multiprocessors;
        let grid = resident.min(16);
        let arrived = device.upload(&[0u32]).unwrap();
        let out = device.upload(&vec![0u32; grid as usize]).unwrap();
        let slots = [arrived.address(), out.address()];
        let config = LaunchConfig::new(grid, 32).with_cooperative(true);
        // SAFETY: one word, and one for each block; both live until the download has waited.
        unsafe { kernel.launch(&stream, &config, &slots) }.unwrap();
        assert_eq!(out.download().unwrap(), vec![1; grid as usize]);
    }
}

#[test]
fn a_cooperative_launch_that_does_not_fit_is_refused_with_the_limit() {
    for device in devices() {
        let kernel = device.load_kernel(&module(), "meet").unwrap();
        let stream = device.stream().unwrap();
        let resident = kernel.occupancy(32, 0).unwrap() * device.properties().multiprocessors;
        let arrived = device.upload(&[0u32]).unwrap();
        let out = device.alloc::<u32>(resident as usize + 1).unwrap();
        let config = LaunchConfig::new(resident + 1, 32).with_cooperative(true);
        // SAFETY: one word, and one for each block; the launch is refused anyway.
        let error =
            unsafe { kernel.launch(&stream, &config, &[arrived.address(), out.address()]) }.unwrap_err();
        let Error::CooperativeTooLarge { kernel: "meet", grid, limit, driver } = error else {
            panic!("{error}")
        };
        assert_eq!((grid, limit), (resident + 1, resident));
        let code = (device.properties().backend == Backend::Cuda).then_some(720);
        assert_eq!(driver.map(|driver| driver.code), code);
        assert_eq!(arrived.download().unwrap(), [0], "nothing ran");
    }
}

#[test]
fn a_launch_outside_the_limits_is_refused_by_the_name_of_the_argument() {
    for device in devices() {
        let kernel = device.load_kernel(&module(), "increment").unwrap();
        let stream = device.stream().unwrap();
        let data = device.upload(&[1u32]).unwrap();
        let slots = [data.address(), 1, 1];
        let too_much = device.properties().shared_bytes_per_block + 1;
        let cases: [(&str, LaunchConfig, &[u64]); 8] = [
            ("grid", LaunchConfig::new(0, 32), &slots),
            ("grid", LaunchConfig::new(u32::MAX, 32), &slots),
            ("block", LaunchConfig::new(1, 0), &slots),
            ("block", LaunchConfig::new(1, 257), &slots),
            ("cluster", LaunchConfig::new(2, 32).with_cluster(2), &slots),
            ("shared_bytes", LaunchConfig::new(1, 32).with_shared_bytes(too_much), &slots),
            ("slots.len()", LaunchConfig::new(1, 32), &slots[..2]),
            ("slots.len()", LaunchConfig::new(1, 32), &[0; 4]),
        ];
        for (name, config, slots) in cases {
            // SAFETY: the launch is refused before it reads a slot.
            let error = unsafe { kernel.launch(&stream, &config, slots) }.unwrap_err();
            assert!(matches!(error, Error::Argument { argument, .. } if argument == name), "{name}: {error}");
        }
        assert_eq!(data.download().unwrap(), [1], "nothing ran");
    }
}

#[test]
fn a_stream_of_another_device_is_refused() {
    let (one, other) = (Device::emulator(), Device::emulator());
    let kernel = one.load_kernel(&module(), "increment").unwrap();
    let data = one.upload(&[1u32]).unwrap();
    let error = enqueue_increment(&kernel, &other.stream().unwrap(), &data, 1).unwrap_err();
    assert!(matches!(error, Error::WrongDevice { argument: "stream" }), "{error}");
}

#[test]
fn occupancy_falls_with_shared_memory() {
    for device in devices() {
        let kernel = device.load_kernel(&module(), "increment").unwrap();
        let most = device.properties().shared_bytes_per_block;
        let (none, all) = (kernel.occupancy(256, 0).unwrap(), kernel.occupancy(256, most).unwrap());
        assert!(none > 1, "{none}");
        assert_eq!(all, 1);
        assert!(matches!(kernel.occupancy(512, 0), Err(Error::Argument { argument: "block", .. })));
    }
}

#[test]
fn a_kernel_for_newer_devices_is_refused_on_an_older_one() {
    static NEWER: [dsa_simt::Entry; 1] = [dsa_simt::Entry { min_arch: 90, ..ENTRIES[0] }];
    let options = EmulatorOptions { compute_capability: (8, 9), ..EmulatorOptions::default() };
    let device = Device::emulator_with(options);
    let module = Module::from_ptx("newer", vec![], &NEWER);
    let Err(error) = device.load_kernel(&module, "increment") else { panic!("it loaded") };
    assert!(matches!(error, Error::DeviceTooOld { found: (8, 9), needed: (9, 0), .. }), "{error}");
}

#[test]
fn a_kernel_loads_on_the_newest_device_there_can_be() {
    for compute_capability in [(u32::MAX, 0), (u32::MAX, u32::MAX)] {
        let device =
            Device::emulator_with(EmulatorOptions { compute_capability, ..EmulatorOptions::default() });
        device.load_kernel(&module(), "increment").unwrap();
    }
}

#[test]
fn the_drivers_compiler_log_is_part_of_the_error() {
    for device in devices().into_iter().filter(|device| device.properties().backend == Backend::Cuda) {
        let text = ".version 7.0\n.target sm_80\n.address_size 64\nnonsense_token;\n";
        let module = Module::from_ptx("broken", vec![dsa_kernels::Ptx::embedded(80, text)], ENTRIES);
        let Err(error) = device.load_kernel(&module, "increment") else { panic!("it loaded") };
        let Error::Compile { code, log, .. } = &error else { panic!("{error}") };
        assert_ne!(*code, 0);
        assert!(log.contains("line 4"), "{error}");
    }
}

#[test]
fn a_kernel_missing_from_the_ptx_is_named() {
    for device in devices().into_iter().filter(|device| device.properties().backend == Backend::Cuda) {
        let text = ".version 7.0\n.target sm_80\n.address_size 64\n";
        let module = Module::from_ptx("stale", vec![dsa_kernels::Ptx::embedded(80, text)], ENTRIES);
        let Err(error) = device.load_kernel(&module, "increment") else { panic!("it loaded") };
        assert!(matches!(&error, Error::UnknownKernel { kernel, .. } if kernel == "increment"), "{error}");
    }
}

#[test]
fn the_emulator_reports_what_a_kernel_does_wrong() {
    let device = Device::emulator();
    let kernel = device.load_kernel(&module(), "increment").unwrap();
    let stream = device.stream().unwrap();
    let data = device.upload(&[1u32; 8]).unwrap();
    let slots = [data.address(), 9u32.to_slot(), 1];
    // SAFETY: the emulator checks every access: the ninth word is reported, not touched.
    let error = unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 32), &slots) }.unwrap_err();
    let Error::Emulator(fault) = &error else { panic!("{error}") };
    assert_eq!((fault.kernel.as_str(), fault.thread), ("increment", 8));
    assert!(error.to_string().contains("increment"), "{error}");
}

#[test]
fn statistics_add_up_until_they_are_taken() {
    let device = Device::emulator();
    let kernel = device.load_kernel(&module(), "increment").unwrap();
    let stream = device.stream().unwrap();
    let data = device.upload(&[0u32; 100]).unwrap();
    for _ in 0..3 {
        enqueue_increment(&kernel, &stream, &data, 1).unwrap();
    }
    let statistics = device.emulator_statistics().unwrap();
    assert_eq!(statistics.global_read_bytes, 3 * 400);
    assert_eq!(statistics.global_written_bytes, 3 * 400);
    assert_eq!(device.emulator_statistics().unwrap().global_read_bytes, 0);
}

#[test]
fn a_kernel_that_does_not_wait_is_reported_by_the_emulator_and_does_not_overlap_on_a_gpu() {
    for device in devices() {
        let kernel = device.load_kernel(&module(), "increment").unwrap();
        let stream = device.stream().unwrap();
        let data = device.upload(&[0u32; 256]).unwrap();
        let config = LaunchConfig::new(1, 256).with_overlap(true);
        for launch in 1..=100 {
            // SAFETY: `data` holds 256 words and lives until the download has waited for the launch. The kernel
            // does not wait for earlier launches, which the emulator reports; the PTX is for an architecture
            // that cannot, so that no GPU runs them at the same time.
            let launched = unsafe {
                kernel.launch(&stream, &config, &[data.address(), 256u32.to_slot(), 1u32.to_slot()])
            };
            if device.properties().backend == Backend::Emulator {
                let report = launched.unwrap_err().to_string();
                assert!(report.contains("plain read before `grid::wait_for_earlier`"), "{report}");
                break;
            }
            launched.unwrap_or_else(|error| panic!("launch {launch}: {error}"));
        }
        let launches = if device.properties().backend == Backend::Emulator { 0 } else { 100 };
        assert_eq!(data.download().unwrap(), [launches; 256]);
    }
}

#[test]
fn a_kernel_for_clusters_of_any_size_takes_what_the_device_has() {
    let device = Device::emulator();
    let stream = device.stream().unwrap();
    let kernel = device.load_kernel(&Module::topk(), "topk_f32_cluster").unwrap();
    for (config, words) in [
        (LaunchConfig::new(32, 512).with_cluster(32), "cluster is 32, but must be 1..=16"),
        (LaunchConfig::new(32, 512).with_cluster(0), "cluster is 0, but must be 1..=16"),
        (
            LaunchConfig::new(9, 512).with_cluster(2),
            "grid is 9, but must be a multiple of the cluster's 2 blocks",
        ),
    ] {
        // SAFETY: refused before anything runs.
        let error = unsafe { kernel.launch(&stream, &config, &[0; 11]) }.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
