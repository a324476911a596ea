//! Helpers of the emulator's tests.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses a part of it")]

use dsa_simt::emu::{Fault, Launch, Memory, Statistics, run_closure};
use dsa_simt::{Carve, Global, Shared, block, thread};

/// Words in emulated memory.
pub(crate) struct Words<'a> {
    memory: &'a Memory,
    address: u64,
    len: usize,
}

impl<'a> Words<'a> {
    /// An allocation that nobody has written.
    pub(crate) fn undefined(memory: &'a Memory, len: usize, label: &str) -> Self {
        let address = memory.allocate(len * 4, label).expect("memory for a test");
        Self { memory, address, len }
    }

    pub(crate) fn filled(memory: &'a Memory, words: &[u32], label: &str) -> Self {
        let new = Self::undefined(memory, words.len(), label);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        memory.write(new.address, &bytes).expect("in bounds");
        new
    }

    pub(crate) fn zeroed(memory: &'a Memory, len: usize, label: &str) -> Self {
        Self::filled(memory, &vec![0; len], label)
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// The array as a kernel sees it.
    pub(crate) fn global(&self) -> Global<u32> {
        // SAFETY: the emulator checks every access.
        unsafe { Global::from_raw(self.address as *const u32, self.len) }
    }

    pub(crate) fn to_vec(&self) -> Vec<u32> {
        let mut bytes = vec![0; self.len * 4];
        self.memory.read(self.address, &mut bytes).expect("in bounds");
        bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("4 bytes"))).collect()
    }
}

/// Index of the thread in the grid.
pub(crate) fn global_index() -> usize {
    (block::index() * block::threads() + thread::index()) as usize
}

/// Runs `value` in every thread and returns what each thread got, by global index.
pub(crate) fn per_thread(launch: &Launch, value: impl Fn() -> u32) -> Vec<u32> {
    let memory = Memory::new();
    let out = Words::undefined(&memory, (launch.grid * launch.block) as usize, "out");
    let result = run_closure(&memory, "per_thread", launch, || out.global().set(global_index(), value()));
    if let Err(fault) = result {
        panic!("{fault}");
    }
    out.to_vec()
}

/// Runs a kernel under many seeds and expects no report.
pub(crate) fn always_clean(launch: &Launch, kernel: impl Fn(&Memory, &Launch) -> Result<Statistics, Fault>) {
    for seed in 0..64 {
        let memory = Memory::new();
        if let Err(fault) = kernel(&memory, &launch.clone().with_seed(seed)) {
            panic!("seed {seed}: {fault}");
        }
    }
}

/// Runs a faulty kernel under many seeds; returns a report for each, having checked that the seed replays it.
pub(crate) fn always_faulty(
    launch: &Launch,
    kernel: impl Fn(&Memory, &Launch) -> Result<Statistics, Fault>,
) -> Vec<Fault> {
    (0..16)
        .map(|seed| {
            let launch = launch.clone().with_seed(seed);
            let run = || match kernel(&Memory::new(), &launch) {
                Ok(_) => panic!("seed {seed}: no report"),
                Err(fault) => fault,
            };
            let fault = run();
            assert_eq!(fault, run(), "seed {seed} does not replay its fault");
            assert_eq!(fault.seed, seed);
            fault
        })
        .collect()
}

/// Marks a line of a planted bug: evaluates its expression, which is on the same line, and notes the line.
macro_rules! here {
    ($line:expr, $call:expr) => {{
        $line.set(line!());
        $call
    }};
}
pub(crate) use here;

/// A line of this test file.
pub(crate) type Line = std::cell::Cell<u32>;

/// The first `len` words of dynamic shared memory.
pub(crate) fn shared(len: u32) -> Shared<u32> {
    // SAFETY: the emulator checks every access.
    unsafe { Carve::dynamic().array(len) }
}

/// The source lines of both sides, which are in a test file, not in the crate.
pub(crate) fn lines(fault: &Fault) -> (u32, Option<u32>) {
    let location = fault.location.expect("a location");
    let other = fault.other.as_ref().and_then(|site| site.location);
    for location in std::iter::once(location).chain(other) {
        assert!(location.file().contains("tests"), "{location}");
    }
    (location.line(), other.map(|location| location.line()))
}

/// Checks that the two sides are at these lines, in either order.
pub(crate) fn both_lines(fault: &Fault, a: &Line, b: &Line) {
    let (this, other) = lines(fault);
    let found = [this, other.expect("two locations")];
    assert!(found == [a.get(), b.get()] || found == [b.get(), a.get()], "lines {found:?}: {fault}");
}
