//! Launch shapes, declared kernels and emulated memory.
#![allow(unexpected_cfgs, reason = "`kernels!` asks for a feature that crates of GPU kernels have")]

mod common;

use common::Words;
use dsa_simt as simt;
use dsa_simt::emu::{FaultKind, Launch, Memory, MemoryError, run, run_closure};
use dsa_simt::{Entry, Slot, block};

simt::kernels! {
    /// Kernels of this test.
    pub(crate) static ENTRIES;

    /// Adds `summand` to `len` words of `data`.
    #[launch(max_threads = 256, min_blocks = 1, cluster = 1, arch = 80)]
    kernel add_to_all(data: *mut i32, len: u32, summand: i32) {
        // SAFETY: the launcher promises that `data` holds `len` words.
        let data = unsafe { simt::Global::from_raw(data, len as usize) };
        let i = simt::block::index() * simt::block::threads() + simt::thread::index();
        if i < len {
            data.set(i as usize, data.get(i as usize) + summand);
        }
    }

    /// Stores each block's rank in its cluster of two.
    #[launch(max_threads = 32, min_blocks = 1, cluster = 2, arch = 90)]
    kernel ranks(out: *mut u32) {
        // SAFETY: the launcher promises one word per block.
        let out = unsafe { simt::Global::from_raw(out, simt::block::count() as usize) };
        if simt::thread::index() == 0 {
            out.set(simt::block::index() as usize, simt::cluster::rank());
        }
    }
}

fn entry(name: &str) -> &'static Entry {
    ENTRIES.iter().find(|entry| entry.name == name).expect("declared above")
}

#[test]
fn a_declared_kernel_runs_through_its_entry() {
    let memory = Memory::new();
    let words = Words::filled(&memory, &(0..1000).collect::<Vec<_>>(), "data");
    let slots = [words.address().to_slot(), 999_u32.to_slot(), (-7_i32).to_slot()];
    let statistics = run(&memory, entry("add_to_all"), &Launch::new(4, 256), &slots).unwrap();
    assert_eq!((statistics.blocks, statistics.global_written_bytes), (4, 999 * 4));
    let expected = (0..1000).map(|i: u32| if i < 999 { i.wrapping_sub(7) } else { i });
    assert_eq!(words.to_vec(), expected.collect::<Vec<_>>());
}

#[test]
fn a_declared_cluster_runs_through_its_entry() {
    let memory = Memory::new();
    let out = Words::undefined(&memory, 6, "out");
    run(&memory, entry("ranks"), &Launch::new(6, 32).with_cluster(2), &[out.address()]).unwrap();
    assert_eq!(out.to_vec(), [0, 1, 0, 1, 0, 1]);
}

#[test]
fn an_entry_refuses_what_it_was_not_compiled_for() {
    let memory = Memory::new();
    let refused = |name, launch: &Launch, slots: &[u64], expected: &[&str]| {
        let fault = run(&memory, entry(name), launch, slots).unwrap_err();
        let FaultKind::InvalidLaunch { reason } = &fault.kind else { panic!("{fault}") };
        assert_eq!(fault.kernel, name);
        for part in expected {
            assert!(reason.contains(part), "{reason}");
        }
    };
    refused("add_to_all", &Launch::new(1, 257), &[0; 3], &["257", "256"]);
    refused("add_to_all", &Launch::new(1, 32), &[0; 2], &["2 slots", "3 parameters"]);
    refused("add_to_all", &Launch::new(2, 32).with_cluster(2), &[0; 3], &["cluster is 2", "for 1"]);
    refused("ranks", &Launch::new(2, 32), &[0], &["cluster is 1", "for 2"]);
}

#[test]
fn impossible_shapes_are_refused_and_nothing_runs() {
    let memory = Memory::new();
    let cases = [
        (Launch::new(0, 32), "grid is 0"),
        (Launch::new(1, 0), "block is 0"),
        (Launch::new(1, 1025), "1024"),
        (Launch::new(3, 32).with_cluster(2), "multiple of the cluster"),
        (Launch::new(17, 32).with_cluster(17), "16"),
        (Launch::new(8, 32).with_cluster(8).with_resident_blocks(7), "7 can be resident"),
        (Launch::new(1, 32).with_shared_bytes(232_449), "232448"),
        (Launch::new(9, 32).with_cooperative(true), "8 can be resident"),
        (
            Launch::new(8, 32).with_cluster(4).with_cooperative(true).with_resident_blocks(7),
            "4 can be resident",
        ),
        (Launch::new(1, 32).with_resident_blocks(0), "0 can be resident"),
        (Launch::new(100, 1024).with_resident_blocks(100), "102400 resident threads"),
    ];
    for (launch, part) in cases {
        let fault = run_closure(&memory, "none", &launch, || panic!("ran")).unwrap_err();
        let FaultKind::InvalidLaunch { reason } = &fault.kind else { panic!("{fault}") };
        assert!(reason.contains(part), "{reason}");
    }
    let fault = run_closure(&memory, "outer", &Launch::new(1, 1), || {
        let inner = run_closure(&Memory::new(), "inner", &Launch::new(1, 1), || ()).unwrap_err();
        panic!("{}", inner.kind);
    })
    .unwrap_err();
    assert!(fault.to_string().contains("cannot launch a kernel"), "{fault}");
}

#[test]
fn a_cooperative_grid_that_fits_runs() {
    let launch = Launch::new(8, 64).with_cooperative(true);
    assert!(run_closure(&Memory::new(), "fits", &launch, block::sync).is_ok());
}

#[test]
fn more_blocks_than_are_resident_run_one_after_the_other() {
    let memory = Memory::new();
    for (grid, resident) in [(1000, 1), (1000, 3), (37, 64)] {
        let out = Words::zeroed(&memory, grid as usize, "out");
        let launch = Launch::new(grid, 40).with_resident_blocks(resident).with_seed(u64::from(grid));
        let statistics = run_closure(&memory, "many", &launch, || {
            block::sync();
            out.global().reduce(simt::AtomicOp::Add, block::index() as usize, 1);
        })
        .unwrap();
        assert_eq!((statistics.blocks, statistics.block_barriers), (u64::from(grid), u64::from(grid)));
        assert!(out.to_vec().iter().all(|&count| count == 40));
    }
}

#[test]
fn the_order_of_blocks_depends_on_the_seed_only() {
    let order = |seed| {
        let memory = Memory::new();
        let order = Words::zeroed(&memory, 33, "order");
        let launch = Launch::new(32, 1).with_resident_blocks(2).with_seed(seed);
        run_closure(&memory, "order", &launch, || {
            let ticket =
                order.global().atomic(simt::AtomicOp::Add, 32, 1, simt::Order::Relaxed, simt::Scope::Device);
            order.global().set(ticket as usize, block::index());
        })
        .unwrap();
        order.to_vec()
    };
    assert_eq!(order(5), order(5));
    assert_ne!(order(5), order(6));
    let mut sorted = order(7);
    sorted.truncate(32);
    sorted.sort_unstable();
    assert_eq!(sorted, (0..32).collect::<Vec<_>>());
}

#[test]
fn memory_refuses_bad_requests_and_names_the_allocation() {
    let memory = Memory::new();
    let address = memory.allocate(100, "lengths").unwrap();
    let other = memory.allocate(1, "flag").unwrap();
    assert_eq!((address % 256, other % 256, memory.allocated_bytes()), (0, 0, 101));
    memory.write(address, &[1; 100]).unwrap();
    memory.fill(address + 10, 2, 90).unwrap();
    let mut bytes = [0; 20];
    memory.read(address + 5, &mut bytes).unwrap();
    assert_eq!((&bytes[..5], &bytes[5..]), (&[1; 5][..], &[2; 15][..]));
    let error = memory.write(address + 1, &[0; 100]).unwrap_err();
    assert!(error.to_string().contains("lengths") && error.to_string().contains("100 bytes"), "{error}");
    assert!(memory.fill(address - 1, 0, 1).is_err());
    assert!(memory.read(address + 101, &mut []).is_err());
    assert!(memory.read(address + 100, &mut []).is_ok());
    assert_eq!(memory.free(address + 4), Err(MemoryError::UnknownAllocation { address: address + 4 }));
    memory.free(address).unwrap();
    assert_eq!(memory.free(address), Err(MemoryError::UnknownAllocation { address }));
    assert!(memory.read(address, &mut bytes).is_err());
    assert_eq!(memory.allocated_bytes(), 1);
    assert!(matches!(memory.allocate(usize::MAX / 2, "huge"), Err(MemoryError::OutOfMemory { .. })));
}

#[test]
fn launches_on_several_threads_do_not_disturb_each_other() {
    let shared = Memory::new();
    let counter = Words::zeroed(&shared, 1, "counter");
    let counter_address = counter.address();
    std::thread::scope(|scope| {
        for worker in 0..6 {
            let shared = &shared;
            scope.spawn(move || {
                let own = Memory::new();
                let out = Words::zeroed(&own, 2048, "out");
                for round in 0..10 {
                    let launch = Launch::new(2, 1024).with_seed(round);
                    run_closure(&own, "own", &launch, || {
                        block::sync();
                        out.global().set(common::global_index(), worker);
                    })
                    .unwrap();
                    run_closure(shared, "shared", &launch, || {
                        // SAFETY: the emulator checks every access.
                        let counter =
                            unsafe { simt::Global::<u32>::from_raw(counter_address as *const u32, 1) };
                        counter.reduce(simt::AtomicOp::Add, 0, 1);
                    })
                    .unwrap();
                }
                assert_eq!(out.to_vec(), [worker; 2048]);
            });
        }
    });
    assert_eq!(counter.to_vec(), [6 * 10 * 2048]);
}
