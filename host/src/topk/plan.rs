//! From limits and device properties to a launch: pure, so that it can be tested without a GPU and used with
//! any CUDA binding.

use std::fmt;
use std::str::FromStr;

use dsa_kernels_gpu::topk::{self as kernels, state};
use dsa_simt::Slot;

use crate::{DeviceProperties, Error, LaunchConfig};

/// Longest row of the medium path under [`Path::Auto`].
const MEDIUM_MAX_LEN: u32 = 32_768;
/// More elements than the shared memory of any device holds: keeps the bytes for them in 32 bits.
const MOST_KEPT: u32 = 1 << 20;
/// Longest row at all: indices are `i32`.
const MAX_LEN: u32 = i32::MAX as u32;

/// How rows are selected.
///
/// Under `Auto` each row takes the path for its own length, on the device. The others force one path, for
/// study; rows with at most k elements are always trivial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Path {
    /// By length: trivial up to k, decode up to 8,192, medium up to 32,768, large above. On a device
    /// without cooperative launches, medium above, too.
    #[default]
    Auto,
    /// All elements of the row; needs `max_len <= k`.
    Trivial,
    /// One block, the row in registers; needs `max_len <= 8192`.
    Decode,
    /// One block, the row read twice; any length.
    Medium,
    /// Several blocks per row, which wait for each other; needs cooperative launches. Any length.
    Large,
}

impl Path {
    /// All paths.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Trivial, Self::Decode, Self::Medium, Self::Large];

    /// The path's name, which [`FromStr`] takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Trivial => "trivial",
            Self::Decode => "decode",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Path {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|path| path.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::argument("path", name, format!("one of {names}"), "choose one of them")
        })
    }
}

/// What an operator is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Elements wanted of each row, `1..=4096`.
    pub k: u32,
    /// Most rows of a launch.
    pub max_rows: u32,
    /// Longest valid prefix of a row, in elements; longer lengths are clamped to it.
    pub max_len: u32,
    /// Rows per sequence (multi-token prediction), at least 1.
    ///
    /// Row `s * next_n + j` has the length `(lengths[s] - next_n + 1 + j) / compress_ratio`, rounded down.
    pub next_n: u32,
    /// What lengths are divided by, at least 1.
    pub compress_ratio: u32,
    /// How rows are selected.
    pub path: Path,
    /// Most multiprocessors that a launch may take; `None` for all.
    pub max_sms: Option<u32>,
}

/// The arguments of one launch, as device addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopKArgs {
    /// `f32[rows, pitch]`, aligned to 4 bytes. Of row `r`, at least `max_len` elements from
    /// `scores + 4 * r * pitch` on are readable.
    pub scores: u64,
    /// Distance between rows in elements, at least `max_len`.
    pub pitch: u64,
    /// Number of rows, a multiple of `next_n`.
    pub rows: u32,
    /// `i32[rows / next_n]`, aligned to 4 bytes.
    pub lengths: u64,
    /// `i32[rows, k]`, aligned to 4 bytes.
    pub out: u64,
}

/// A launch that fits the limits, for every number of rows and every content.
///
/// ```
/// use dsa_kernels::{Device, topk::{Limits, Path, Plan}};
///
/// let limits = Limits {
///     k: 2048, max_rows: 64, max_len: 131_072, next_n: 1, compress_ratio: 1, path: Path::Auto, max_sms: None,
/// };
/// let plan = Plan::new(limits, Device::emulator().properties())?;
/// assert_eq!(plan.entry(), "topk_f32_grid");
/// assert!(plan.launch_config(64).cooperative);
/// # Ok::<(), dsa_kernels::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    limits: Limits,
    entry: &'static str,
    max_grid: u32,
    shared_bytes: u32,
    cooperative: bool,
    decode_max_len: u32,
    medium_max_len: u32,
}

impl Plan {
    /// The plan for `limits` on a device with these properties.
    ///
    /// # Errors
    /// [`Error::Argument`], naming the limit that cannot be met.
    pub fn new(limits: Limits, device: &DeviceProperties) -> Result<Self, Error> {
        check_limits(&limits)?;
        let wants_teams = match limits.path {
            Path::Auto => limits.max_len > MEDIUM_MAX_LEN.max(limits.k),
            Path::Large => true,
            _ => false,
        };
        if limits.path == Path::Large && !device.cooperative_launch {
            let limit = format!("a path without cooperative launches on {}", device.name);
            return Err(Error::argument("path", limits.path, limit, "use Path::Auto"));
        }
        let teams = wants_teams && device.cooperative_launch;
        let shared_bytes = if teams {
            // As much of a row as fits; no more than the longest row needs.
            let all = kernels::grid_shared_bytes(limits.max_len.next_multiple_of(4).min(MOST_KEPT));
            all.min(device.shared_bytes_per_block / 16 * 16)
        } else {
            kernels::BLOCK_SHARED_BYTES
        };
        let needed = if teams { kernels::grid_shared_bytes(0) } else { kernels::BLOCK_SHARED_BYTES };
        if device.shared_bytes_per_block < needed {
            let limit = format!("at least {needed} bytes");
            let value = device.shared_bytes_per_block;
            return Err(Error::argument("shared memory per block", value, limit, "use another device"));
        }
        if device.multiprocessors == 0 {
            let help = "use a device with multiprocessors, or set EmulatorOptions::multiprocessors";
            return Err(Error::argument("multiprocessors of the device", 0, "at least 1", help));
        }
        // The launch bounds promise one block per multiprocessor; more would depend on the compiler.
        let multiprocessors = device.multiprocessors.min(limits.max_sms.unwrap_or(u32::MAX));
        let (decode_max_len, medium_max_len) = match limits.path {
            Path::Auto if teams => (kernels::DECODE_MAX_LEN, MEDIUM_MAX_LEN),
            Path::Auto | Path::Trivial | Path::Decode => (kernels::DECODE_MAX_LEN, u32::MAX),
            Path::Medium => (0, u32::MAX),
            Path::Large => (0, 0),
        };
        Ok(Self {
            limits,
            entry: if teams { "topk_f32_grid" } else { "topk_f32_block" },
            max_grid: multiprocessors,
            shared_bytes,
            cooperative: teams,
            decode_max_len,
            medium_max_len,
        })
    }

    /// What the plan is for.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Name of the kernel in the module [`Module::topk`](crate::Module::topk).
    pub fn entry(&self) -> &'static str {
        self.entry
    }

    /// The path that a row of `len` elements takes.
    pub fn path_of(&self, len: u32) -> Path {
        match len.min(self.limits.max_len) {
            len if len <= self.limits.k => Path::Trivial,
            len if len > self.medium_max_len => Path::Large,
            len if len <= self.decode_max_len => Path::Decode,
            _ => Path::Medium,
        }
    }

    /// The launch for `rows` rows. It depends on nothing that lies in device memory.
    pub fn launch_config(&self, rows: u32) -> LaunchConfig {
        // Without teams a block has no use for more than one row at a time.
        let grid = if self.cooperative { self.max_grid } else { self.max_grid.min(rows.max(1)) };
        LaunchConfig::new(grid, kernels::THREADS)
            .with_shared_bytes(self.shared_bytes)
            .with_cooperative(self.cooperative)
    }

    /// Bytes of device memory that must be zero before the first launch. Each launch leaves them zero. One
    /// launch at a time may use them.
    pub fn state_bytes(&self) -> usize {
        let blocks = if self.cooperative { self.max_grid } else { 0 };
        4 * state::words(blocks) as usize
    }

    /// Bytes of scratch memory, with any content, that a launch uses. Aligned to 256 bytes.
    ///
    /// The paths that there are keep everything in registers, shared memory and the operator's state, so
    /// that this is zero.
    pub fn workspace_bytes(&self) -> usize {
        0
    }

    /// The kernel's parameters, one slot each in order, for
    /// [`Kernel::launch`](crate::Kernel::launch) or any other binding: `kernelParams[i]` is the address of
    /// slot `i`. `state` is the address of [`state_bytes`](Self::state_bytes) bytes.
    ///
    /// # Errors
    /// Those of [`check`](Self::check), and [`Error::Argument`] for the state's address.
    pub fn slots(&self, args: &TopKArgs, state: u64) -> Result<[u64; 12], Error> {
        self.check(args)?;
        check_address("state", state)?;
        Ok([
            args.scores,
            args.pitch,
            args.lengths,
            args.out,
            state,
            args.rows.to_slot(),
            self.limits.max_len.to_slot(),
            self.limits.k.to_slot(),
            self.limits.next_n.to_slot(),
            self.limits.compress_ratio.to_slot(),
            self.decode_max_len.to_slot(),
            self.medium_max_len.to_slot(),
        ])
    }

    /// Checks what can be checked without reading device memory.
    ///
    /// # Errors
    /// [`Error::Argument`]: more rows than the limit or not a multiple of `next_n`, a pitch below `max_len`
    /// or beyond the address space, a null or misaligned address.
    pub fn check(&self, args: &TopKArgs) -> Result<(), Error> {
        let limits = &self.limits;
        if args.rows > limits.max_rows {
            let limit = format!("at most max_rows = {}", limits.max_rows);
            return Err(Error::argument("rows", args.rows, limit, "build the operator for more rows"));
        }
        if !args.rows.is_multiple_of(limits.next_n) {
            let limit = format!("a multiple of next_n = {}", limits.next_n);
            return Err(Error::argument("rows", args.rows, limit, "pass next_n rows for each sequence"));
        }
        if args.pitch < u64::from(limits.max_len) {
            let limit = format!("at least max_len = {} elements", limits.max_len);
            let help = "pass the distance between rows in elements, or build the operator for shorter rows";
            return Err(Error::argument("pitch", args.pitch, limit, help));
        }
        let bytes = args.pitch.checked_mul(4 * u64::from(args.rows.max(1)));
        if bytes.and_then(|bytes| bytes.checked_add(args.scores)).is_none() {
            let limit = format!("small enough for {} rows in 64-bit addresses", args.rows);
            return Err(Error::argument("pitch", args.pitch, limit, "pass the pitch in elements"));
        }
        if args.rows == 0 {
            return Ok(());
        }
        check_address("scores", args.scores)?;
        check_address("lengths", args.lengths)?;
        check_address("out", args.out)
    }
}

fn check_limits(limits: &Limits) -> Result<(), Error> {
    let in_range = |argument, value: u32, low: u32, high: u32, help| {
        if (low..=high).contains(&value) {
            return Ok(());
        }
        Err(Error::argument(argument, value, format!("{low}..={high}"), help))
    };
    in_range("k", limits.k, 1, kernels::MAX_K, "select in several steps, or ask for fewer elements")?;
    in_range("max_rows", limits.max_rows, 1, MAX_LEN, "pass the most rows of a launch")?;
    in_range("max_len", limits.max_len, 1, MAX_LEN, "pass the longest valid prefix of a row in elements")?;
    in_range("next_n", limits.next_n, 1, MAX_LEN, "pass 1 when every row has its own length")?;
    in_range("compress_ratio", limits.compress_ratio, 1, MAX_LEN, "pass 1 for uncompressed lengths")?;
    if let Some(sms) = limits.max_sms {
        in_range("max_sms", sms, 1, MAX_LEN, "pass None to use all multiprocessors")?;
    }
    let longest = match limits.path {
        Path::Trivial => limits.k,
        Path::Decode => kernels::DECODE_MAX_LEN.max(limits.k),
        Path::Auto | Path::Medium | Path::Large => MAX_LEN,
    };
    if limits.max_len > longest {
        let limit = format!("at most {longest} on the path {}", limits.path);
        return Err(Error::argument("max_len", limits.max_len, limit, "use Path::Auto"));
    }
    Ok(())
}

fn check_address(argument: &'static str, address: u64) -> Result<(), Error> {
    if address == 0 {
        return Err(Error::argument(argument, "null", "a device address", "pass allocated device memory"));
    }
    if !address.is_multiple_of(4) {
        let value = format!("{address:#x}");
        return Err(Error::argument(argument, value, "aligned to 4 bytes", "pass the address of an element"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    fn limits() -> Limits {
        Limits {
            k: 2048,
            max_rows: 64,
            max_len: 131_072,
            next_n: 1,
            compress_ratio: 1,
            path: Path::Auto,
            max_sms: None,
        }
    }

    fn h200() -> DeviceProperties {
        let mut properties = Device::emulator().properties().clone();
        properties.multiprocessors = 132;
        properties
    }

    fn plan(limits: Limits) -> Result<Plan, Error> {
        Plan::new(limits, &h200())
    }

    #[test]
    fn long_rows_need_a_cooperative_launch_and_short_ones_do_not() {
        let long = plan(limits()).unwrap();
        assert_eq!((long.entry(), long.launch_config(1).grid), ("topk_f32_grid", 132));
        assert!(long.launch_config(1).cooperative);
        let short = plan(Limits { max_len: 32_768, ..limits() }).unwrap();
        assert_eq!((short.entry(), short.launch_config(64).grid), ("topk_f32_block", 64));
        assert!(!short.launch_config(64).cooperative);
    }

    #[test]
    fn a_device_without_cooperative_launches_still_takes_long_rows() {
        let device = DeviceProperties { cooperative_launch: false, ..h200() };
        assert_eq!(Plan::new(limits(), &device).unwrap().entry(), "topk_f32_block");
        let error = Plan::new(Limits { path: Path::Large, ..limits() }, &device).unwrap_err().to_string();
        assert!(error.contains("path is large"), "{error}");
    }

    #[test]
    fn rows_take_the_path_for_their_length() {
        let auto = plan(limits()).unwrap();
        let paths = [0, 2048, 2049, 8192, 8193, 32_768, 32_769, u32::MAX].map(|len| auto.path_of(len));
        let [decode, medium, large] = [Path::Decode, Path::Medium, Path::Large];
        assert_eq!(paths, [Path::Trivial, Path::Trivial, decode, decode, medium, medium, large, large]);
        for path in [Path::Medium, Path::Large] {
            let forced = plan(Limits { path, ..limits() }).unwrap();
            assert_eq!((forced.path_of(2048), forced.path_of(2049)), (Path::Trivial, path));
        }
    }

    #[test]
    fn the_number_of_multiprocessors_can_be_limited() {
        let plan = plan(Limits { max_sms: Some(7), ..limits() }).unwrap();
        assert_eq!(plan.launch_config(64).grid, 7);
    }

    #[test]
    fn shared_memory_stays_within_the_device() {
        for max_len in [1, 8192, 40_000, 131_072, MAX_LEN] {
            for path in [Path::Auto, Path::Medium, Path::Large] {
                let plan = plan(Limits { max_len, path, ..limits() }).unwrap();
                assert!(plan.launch_config(1).shared_bytes <= h200().shared_bytes_per_block);
            }
        }
    }

    #[test]
    fn limits_outside_their_range_are_refused_by_name() {
        for (bad, words) in [
            (Limits { k: 0, ..limits() }, "k is 0, but must be 1..=4096"),
            (Limits { k: 5000, ..limits() }, "k is 5000, but must be 1..=4096"),
            (Limits { max_rows: 0, ..limits() }, "max_rows is 0"),
            (Limits { max_len: 0, ..limits() }, "max_len is 0"),
            (Limits { max_len: u32::MAX, ..limits() }, "max_len is 4294967295"),
            (Limits { next_n: 0, ..limits() }, "next_n is 0"),
            (Limits { compress_ratio: 0, ..limits() }, "compress_ratio is 0"),
            (Limits { max_sms: Some(0), ..limits() }, "max_sms is 0"),
            (Limits { path: Path::Decode, ..limits() }, "max_len is 131072, but must be at most 8192"),
            (Limits { path: Path::Trivial, ..limits() }, "max_len is 131072, but must be at most 2048"),
        ] {
            let error = plan(bad).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn arguments_outside_the_limits_are_refused_by_name() {
        let plan = plan(Limits { next_n: 2, ..limits() }).unwrap();
        let good = TopKArgs { scores: 4096, pitch: 131_072, rows: 4, lengths: 4096, out: 4096 };
        plan.check(&good).unwrap();
        plan.check(&TopKArgs { scores: 0, rows: 0, lengths: 0, out: 0, ..good }).unwrap();
        for (bad, words) in [
            (TopKArgs { rows: 66, ..good }, "rows is 66, but must be at most max_rows = 64"),
            (TopKArgs { rows: 3, ..good }, "rows is 3, but must be a multiple of next_n = 2"),
            (TopKArgs { pitch: 131_071, ..good }, "pitch is 131071, but must be at least max_len = 131072"),
            (TopKArgs { pitch: u64::MAX / 4, ..good }, "pitch is 4611686018427387903"),
            (TopKArgs { scores: 0, ..good }, "scores is null"),
            (TopKArgs { scores: 4098, ..good }, "scores is 0x1002, but must be aligned to 4 bytes"),
            (TopKArgs { lengths: 0, ..good }, "lengths is null"),
            (TopKArgs { out: 1, ..good }, "out is 0x1"),
        ] {
            let error = plan.check(&bad).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn there_is_one_slot_for_each_parameter() {
        let plan = plan(limits()).unwrap();
        let args = TopKArgs { scores: 4096, pitch: 131_072, rows: 4, lengths: 4096, out: 4096 };
        let entry = crate::Module::topk().entry(plan.entry()).unwrap();
        assert_eq!(plan.slots(&args, 4096).unwrap().len(), entry.parameters.len());
    }

    #[test]
    fn paths_are_found_by_their_names() {
        for path in Path::ALL {
            assert_eq!(path.name().parse::<Path>().unwrap(), path);
        }
        assert!("fast".parse::<Path>().unwrap_err().to_string().contains("auto, trivial"));
    }
}
