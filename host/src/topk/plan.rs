//! From limits and device properties to a launch: pure, so that it can be tested without a GPU and used with
//! any CUDA binding.

use std::fmt::Display;

use dsa_kernels_gpu::topk::{self as kernels, auto, bins, origin, short, slab, state, stream};
use dsa_simt::Slot;

use super::clusters::{Cluster, Clusters};
use crate::check::{check_address, check_multiprocessors, check_range, check_shared_bytes};
use crate::topk::{Limits, Order, Path, ScoreType, Ties, TopKArgs};
use crate::workspace::ALIGNMENT as WORKSPACE_ALIGNMENT;
use crate::{DeviceProperties, Error, LaunchConfig, Slots};

/// More elements than the shared memory of any device holds: keeps the bytes for them in 32 bits.
const MOST_KEPT: u32 = 1 << 20;
/// Longest row at all: indices are `i32`.
const MAX_LEN: u32 = i32::MAX as u32;

/// A launch that fits the limits, for every number of rows and every content.
///
/// ```
/// use dsa_kernels::{Device, topk::{Limits, Path, Plan}};
///
/// let limits = Limits {
///     max_rows: 64, max_len: 131_072, ..Limits::of(2048)
/// };
/// let plan = Plan::new(limits, Device::emulator().properties())?;
/// assert_eq!(plan.entry(64), "topk_f32");
/// assert_eq!(plan.launch_config(64).block, 512);
/// # Ok::<(), dsa_kernels::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    limits: Limits,
    kernel: Variant,
    multiprocessors: u32,
    /// How launches of few rows are made, at most one to a block, and how those of more are.
    few: Shape,
    many: Shape,
}

/// The blocks of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Bytes of shared memory of each.
    shared_bytes: u32,
    /// How many of them run at the same time, or fewer.
    resident_blocks: u32,
}

impl Shape {
    /// As many blocks as the device has room for, if they take `shared_bytes`.
    fn of(shared_bytes: u32, limits: &Limits, device: &DeviceProperties) -> Self {
        let fitting = device.shared_bytes_per_multiprocessor / (shared_bytes + DRIVER_SHARED_BYTES);
        let resident_blocks = device
            .multiprocessors
            .saturating_mul(fitting.clamp(1, BLOCKS_PER_MULTIPROCESSOR))
            .min(slab::MAX_SLICES)
            // The device spreads blocks over as many multiprocessors as it can: one for each.
            .min(limits.max_sms.unwrap_or(u32::MAX));
        Self { shared_bytes, resident_blocks }
    }

    /// The blocks of `topk_f32` and its like, `blocks` to a multiprocessor if there is room: as many tiles of a row
    /// as possible are on their way to each, but that short rows leave their memory to the first-level cache.
    fn of_auto(blocks: u32, limits: &Limits, device: &DeviceProperties) -> Self {
        let least = stream::DEPTHS[0];
        let most = device.shared_bytes_per_block;
        let share = shared_bytes_beside(blocks, device.shared_bytes_per_multiprocessor);
        let depth = |bytes| most_tiles(bytes, |tiles| auto::shared_bytes(limits.max_len, tiles));
        let tiles = if limits.max_len <= kernels::RESIDENT_PLACES {
            least
        } else {
            depth(share.min(most)).or_else(|| depth(most)).unwrap_or(least)
        };
        Self::of(auto::shared_bytes(limits.max_len, tiles), limits, device)
    }
}

/// The kernel that is launched, and what only it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// `topk_f32` or its like.
    Auto,
    /// `topk_f32_short` or its like.
    Short,
    /// `topk_f32_cluster` or `topk_f32_cluster_streamed` or their like.
    Cluster(Clusters),
    /// `topk_f32_block` or `topk_f32_grid`: the paths of the origin.
    Origin { teams: bool, decode_max_len: u32, medium_max_len: u32 },
}

/// The kernels for all types of scores, each with those of both orders, that end so.
macro_rules! kernels_of {
    ($suffix:literal) => {
        [
            [concat!("topk_f32", $suffix), concat!("topk_f32", $suffix, "_ordered")],
            [concat!("topk_f16", $suffix), concat!("topk_f16", $suffix, "_ordered")],
            [concat!("topk_bf16", $suffix), concat!("topk_bf16", $suffix, "_ordered")],
        ]
    };
}

/// Blocks of `topk_f32` and its like that their launch bounds promise registers for on one multiprocessor.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 2;
/// Bytes of shared memory that the driver takes for each block.
const DRIVER_SHARED_BYTES: u32 = 1024;

/// Bytes of shared memory of each of `blocks` blocks on a multiprocessor, which has `all`.
pub(super) fn shared_bytes_beside(blocks: u32, all: u32) -> u32 {
    (all / blocks).saturating_sub(DRIVER_SHARED_BYTES)
}

/// The most tiles that a stream may have in a block of up to `bytes` bytes of shared memory, which needs `bytes_with` so
/// many tiles; if it may have any.
pub(super) fn most_tiles(bytes: u32, bytes_with: impl Fn(u32) -> u32) -> Option<u32> {
    stream::DEPTHS.into_iter().rfind(|&tiles| bytes_with(tiles) <= bytes)
}

impl Plan {
    /// The plan for `limits` on a device with these properties.
    ///
    /// # Errors
    /// [`Error::Argument`], naming the limit that cannot be met.
    pub fn new(limits: Limits, device: &DeviceProperties) -> Result<Self, Error> {
        check_limits(&limits)?;
        if limits.path == Path::Large && !device.cooperative_launch {
            let limit = format!("a path without cooperative launches on {}", device.name);
            return Err(Error::argument("path", limits.path, limit, "use Path::Auto"));
        }
        if limits.path == Path::Cluster && device.max_cluster < 2 {
            let limit = format!("a path without clusters on {}", device.name);
            return Err(Error::argument("path", limits.path, limit, "use Path::Auto"));
        }
        let origin =
            |teams, decode_max_len, medium_max_len| Variant::Origin { teams, decode_max_len, medium_max_len };
        let clusters = Clusters::new(&limits, device);
        let kernel = match limits.path {
            // A cluster cannot be kept to some multiprocessors.
            Path::Auto if limits.max_sms.is_none() && clusters.are_best(limits.max_rows) => {
                Variant::Cluster(clusters)
            }
            Path::Cluster => Variant::Cluster(clusters),
            Path::Auto | Path::Trivial | Path::Resident | Path::Sampled
                // It has a block for each row, wherever they run.
                if limits.max_sms.is_none() && limits.max_len <= kernels::RESIDENT_PLACES =>
            {
                Variant::Short
            }
            Path::Auto | Path::Trivial | Path::Resident | Path::Sampled => Variant::Auto,
            Path::Decode => origin(false, origin::DECODE_MAX_LEN, u32::MAX),
            Path::Medium => origin(false, 0, u32::MAX),
            Path::Large => origin(true, 0, 0),
        };
        let alike = |shared_bytes| {
            let shape = Shape::of(shared_bytes, &limits, device);
            (shape, shape)
        };
        let (needed, (few, many)) = match kernel {
            Variant::Auto => {
                let shape = |blocks| Shape::of_auto(blocks, &limits, device);
                (
                    auto::shared_bytes(limits.max_len, stream::DEPTHS[0]),
                    (shape(1), shape(BLOCKS_PER_MULTIPROCESSOR)),
                )
            }
            Variant::Short => (short::SHARED_BYTES, alike(short::SHARED_BYTES)),
            Variant::Cluster(clusters) => {
                let most = clusters.of(limits.max_rows).shared_bytes;
                (most, alike(most))
            }
            Variant::Origin { teams: false, .. } => {
                (origin::BLOCK_SHARED_BYTES, alike(origin::BLOCK_SHARED_BYTES))
            }
            Variant::Origin { teams: true, .. } => {
                let most = origin::grid_shared_bytes(limits.max_len.min(MOST_KEPT).next_multiple_of(4));
                (origin::grid_shared_bytes(0), alike(most.min(device.shared_bytes_per_block / 16 * 16)))
            }
        };
        check_shared_bytes(device, needed)?;
        check_multiprocessors(device)?;
        let multiprocessors = device.multiprocessors.min(limits.max_sms.unwrap_or(u32::MAX));
        Ok(Self { limits, kernel, multiprocessors, few, many })
    }

    /// How a launch for `rows` rows is made. With one block to a row and to a multiprocessor, more of a row is on its
    /// way to each.
    fn shape(&self, rows: u32) -> Shape {
        if rows <= self.few.resident_blocks { self.few } else { self.many }
    }

    /// What the plan is for.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Name of the kernel for launches of `rows` rows in the module [`Module::topk`](crate::Module::topk).
    pub fn entry(&self, rows: u32) -> &'static str {
        match self.kernel {
            Variant::Cluster(clusters) if clusters.are_held(rows.max(1)) => {
                self.entry_of(kernels_of!("_cluster"))
            }
            Variant::Cluster(_) => self.entry_of(kernels_of!("_cluster_streamed")),
            Variant::Auto => self.entry_of(kernels_of!("")),
            Variant::Short => self.entry_of(kernels_of!("_short")),
            Variant::Origin { teams: false, .. } => "topk_f32_block",
            Variant::Origin { teams: true, .. } => "topk_f32_grid",
        }
    }

    /// Names of all kernels that launches have, each once.
    pub fn entries(&self) -> Vec<&'static str> {
        let most = match self.kernel {
            // The kernel depends on the rows only as far as all their clusters run at once.
            Variant::Cluster(clusters) => clusters.most_at_once().saturating_add(1),
            _ => 1,
        };
        let rows = 1..=most.min(self.limits.max_rows);
        let mut entries: Vec<_> = rows.map(|rows| self.entry(rows)).collect();
        entries.sort_unstable();
        entries.dedup();
        entries
    }

    /// Of kernels for all types of scores and both orders, the one for the limits.
    fn entry_of(&self, [f32, f16, bf16]: [[&'static str; 2]; 3]) -> &'static str {
        let [any, ascending] = match self.limits.scores {
            ScoreType::F32 => f32,
            ScoreType::F16 => f16,
            ScoreType::Bf16 => bf16,
        };
        match self.limits.order {
            Order::Any => any,
            Order::AscendingIndex => ascending,
        }
    }

    /// The path that a row of `len` elements takes.
    ///
    /// Rows of 16,378 to 16,384 elements are resident, too, if they start at a multiple of 16 bytes.
    pub fn path_of(&self, len: u32) -> Path {
        let len = len.min(self.limits.max_len);
        if len <= self.limits.k {
            return Path::Trivial;
        }
        match self.kernel {
            Variant::Short => Path::Resident,
            Variant::Auto if len <= kernels::RESIDENT_MAX_LEN => Path::Resident,
            Variant::Auto => Path::Sampled,
            Variant::Cluster(_) => Path::Cluster,
            Variant::Origin { medium_max_len, .. } if len > medium_max_len => Path::Large,
            Variant::Origin { decode_max_len, .. } if len <= decode_max_len => Path::Decode,
            Variant::Origin { .. } => Path::Medium,
        }
    }

    /// Slices that each of `rows` rows is cut into if all have `max_len` elements. The device divides the blocks
    /// among the rows that really are long, by their lengths; but with clusters, every row has one.
    pub fn slices(&self, rows: u32) -> u32 {
        let rows = rows.max(1);
        if let Variant::Cluster(clusters) = self.kernel {
            return clusters.of(rows).size;
        }
        let blocks = self.launch_config(rows).grid;
        if self.kernel != Variant::Auto || rows >= blocks {
            return 1;
        }
        (blocks / rows).min(self.pieces())
    }

    /// Most slices of a row: one for each block, as long as each is worth it.
    fn pieces(&self) -> u32 {
        if self.limits.max_len <= kernels::RESIDENT_PLACES.max(self.limits.k) {
            return 1;
        }
        self.limits.max_len.div_ceil(kernels::MIN_SLICE)
    }

    /// Most rows of a launch that has more blocks than rows because its rows are cut into slices.
    fn sliced_rows(&self) -> u32 {
        if self.kernel == Variant::Auto && self.pieces() > 1 {
            (self.many.resident_blocks - 1).min(self.limits.max_rows)
        } else {
            0
        }
    }

    /// The launch for `rows` rows. It depends on nothing that lies in device memory.
    ///
    /// It overlaps the one before if the limits say so and the kernel waits for that, which those of `Path::Auto` do.
    /// A binding of the caller's own may launch it without overlap; with overlap, only from PTX for `sm_90`
    /// or later, as [`LaunchConfig::overlap`] says.
    pub fn launch_config(&self, rows: u32) -> LaunchConfig {
        let Shape { shared_bytes, resident_blocks } = self.shape(rows);
        let rows = rows.max(1);
        let (grid, block, cooperative) = match self.kernel {
            Variant::Auto => (resident_blocks.min(rows.saturating_mul(self.pieces())), bins::THREADS, false),
            Variant::Short => (rows, bins::THREADS, false),
            Variant::Cluster(clusters) => {
                let Cluster { size, shared_bytes } = clusters.of(rows);
                return LaunchConfig::new(rows.saturating_mul(size), bins::THREADS)
                    .with_cluster(size)
                    .with_shared_bytes(shared_bytes)
                    .with_overlap(self.limits.overlap);
            }
            // Without teams a block has no use for more than one row at a time.
            Variant::Origin { teams: false, .. } => (self.multiprocessors.min(rows), origin::THREADS, false),
            // The launch bounds promise one block per multiprocessor; more would depend on the compiler.
            Variant::Origin { teams: true, .. } => (self.multiprocessors, origin::THREADS, true),
        };
        LaunchConfig::new(grid, block)
            .with_shared_bytes(shared_bytes)
            .with_cooperative(cooperative)
            .with_overlap(self.limits.overlap && !matches!(self.kernel, Variant::Origin { .. }))
    }

    /// Bytes of device memory that must be zero before the first launch. Each launch leaves them zero. One
    /// launch at a time may use them.
    pub fn state_bytes(&self) -> usize {
        let words = match self.kernel {
            Variant::Auto | Variant::Short | Variant::Cluster(_) => state::row_words(self.sliced_rows()),
            Variant::Origin { teams, .. } => state::words(if teams { self.multiprocessors } else { 0 }),
        };
        4 * words as usize
    }

    /// Bytes of scratch memory, with any content, that a launch uses: a multiple of 256, aligned to 256 bytes.
    pub fn workspace_bytes(&self) -> usize {
        (4 * slab::ROW_WORDS as usize * self.sliced_rows() as usize).next_multiple_of(WORKSPACE_ALIGNMENT)
    }

    /// The kernel's parameters, one slot each in order, for
    /// [`Kernel::launch`](crate::Kernel::launch) or any other binding: `kernelParams[i]` is the address of
    /// slot `i`. `state` and `workspace` are the addresses of [`state_bytes`](Self::state_bytes) and
    /// [`workspace_bytes`](Self::workspace_bytes) bytes.
    ///
    /// # Errors
    /// Those of [`check`](Self::check), and [`Error::Argument`] for the addresses of state and workspace; that
    /// of a workspace of no bytes may be anything.
    pub fn slots(&self, args: &TopKArgs, state: u64, workspace: u64) -> Result<Slots, Error> {
        self.check(args)?;
        check_address("state", state, 4)?;
        if self.workspace_bytes() > 0 {
            check_address("workspace", workspace, WORKSPACE_ALIGNMENT as u64)?;
        }
        let limits = &self.limits;
        let mut slots = Slots::new();
        slots.extend([args.scores, args.pitch, args.lengths, args.out]);
        match self.kernel {
            Variant::Auto => slots.extend([args.values, state, workspace]),
            Variant::Short | Variant::Cluster(_) => slots.extend([args.values]),
            Variant::Origin { .. } => slots.extend([state]),
        }
        let numbers = [args.rows, limits.max_len, limits.k, limits.next_n, limits.compress_ratio];
        slots.extend(numbers.map(Slot::to_slot));
        match self.kernel {
            Variant::Auto | Variant::Short | Variant::Cluster(_) => slots.extend([options(limits).to_slot()]),
            Variant::Origin { decode_max_len, medium_max_len, .. } => {
                slots.extend([decode_max_len.to_slot(), medium_max_len.to_slot()]);
            }
        }
        Ok(slots)
    }

    /// Checks what can be checked without reading device memory.
    ///
    /// # Errors
    /// [`Error::Argument`]: more rows than the limit or not a multiple of `next_n`, a pitch below `max_len`
    /// or beyond the address space, a null or misaligned address, values that the operator does not write.
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
        let bytes_per_score = u64::from(limits.scores.bytes());
        let bytes = args.pitch.checked_mul(bytes_per_score * u64::from(args.rows.max(1)));
        if bytes.and_then(|bytes| bytes.checked_add(args.scores)).is_none() {
            let limit = format!("small enough for {} rows in 64-bit addresses", args.rows);
            return Err(Error::argument("pitch", args.pitch, limit, "pass the pitch in elements"));
        }
        if args.rows == 0 {
            return Ok(());
        }
        check_address("scores", args.scores, bytes_per_score)?;
        check_address("lengths", args.lengths, 4)?;
        check_address("out", args.out, 4)?;
        if limits.values {
            check_address("values", args.values, bytes_per_score)
        } else if args.values != 0 {
            let value = format!("{:#x}", args.values);
            let limit = "0 for an operator without values";
            Err(Error::argument("values", value, limit, "build the operator with values"))
        } else {
            Ok(())
        }
    }
}

fn check_limits(limits: &Limits) -> Result<(), Error> {
    check_range("k", limits.k, 1, kernels::MAX_K, "select in several steps, or ask for fewer elements")?;
    check_range("max_rows", limits.max_rows, 1, MAX_LEN, "pass the most rows of a launch")?;
    check_range("max_len", limits.max_len, 1, MAX_LEN, "pass the longest valid prefix of a row in elements")?;
    check_range("next_n", limits.next_n, 1, MAX_LEN, "pass 1 when every row has its own length")?;
    check_range("compress_ratio", limits.compress_ratio, 1, MAX_LEN, "pass 1 for uncompressed lengths")?;
    if let Some(sms) = limits.max_sms {
        check_range("max_sms", sms, 1, MAX_LEN, "pass None to use all multiprocessors")?;
    }
    if matches!(limits.path, Path::Decode | Path::Medium | Path::Large) {
        check_defaults(limits)?;
    }
    let longest = match limits.path {
        Path::Trivial => limits.k,
        Path::Resident => kernels::RESIDENT_MAX_LEN.max(limits.k),
        Path::Decode => origin::DECODE_MAX_LEN.max(limits.k),
        Path::Auto | Path::Sampled | Path::Cluster | Path::Medium | Path::Large => MAX_LEN,
    };
    if limits.max_len > longest {
        let limit = format!("at most {longest} on the path {}", limits.path);
        return Err(Error::argument("max_len", limits.max_len, limit, "use Path::Auto"));
    }
    Ok(())
}

/// The paths of the origin have no options.
fn check_defaults(limits: &Limits) -> Result<(), Error> {
    let defaults = Limits::of(limits.k);
    check_default("scores", limits.scores, defaults.scores, limits.path)?;
    check_default("ties", limits.ties, defaults.ties, limits.path)?;
    check_default("order", limits.order, defaults.order, limits.path)?;
    check_default("values", limits.values, defaults.values, limits.path)
}

fn check_default<T: PartialEq + Display>(
    argument: &'static str,
    value: T,
    default: T,
    path: Path,
) -> Result<(), Error> {
    if value == default {
        return Ok(());
    }
    Err(Error::argument(argument, value, format!("{default} on the path {path}"), "use Path::Auto"))
}

/// The bits of the kernel's options.
fn options(limits: &Limits) -> u32 {
    if limits.ties == Ties::LowestIndex { kernels::Options::LOWEST_INDICES } else { 0 }
}

#[cfg(test)]
mod tests {
    use dsa_kernels_gpu::topk::cluster;

    use super::*;
    use crate::Device;

    fn limits() -> Limits {
        Limits { max_rows: 64, ..Limits::of(2048) }
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
    fn rows_are_cut_into_as_many_slices_as_the_device_has_room_for() {
        let plan = plan(Limits { path: Path::Sampled, ..limits() }).unwrap();
        for (rows, slices, grid) in [
            (1, 32, 32),
            (4, 32, 128),
            (8, 16, 132),
            (16, 8, 132),
            (64, 2, 132),
            (132, 1, 132),
            (133, 1, 264),
            (10_000, 1, 264),
        ] {
            assert_eq!(plan.slices(rows), slices, "{rows} rows");
            assert_eq!(plan.launch_config(rows).grid, grid, "{rows} rows");
        }
        let short = self::plan(Limits { max_len: 16_384, path: Path::Sampled, ..limits() }).unwrap();
        assert_eq!((short.slices(1), short.launch_config(64).grid, short.workspace_bytes()), (1, 64, 0));
    }

    #[test]
    fn a_cluster_has_the_blocks_that_its_rows_need() {
        // On 132 multiprocessors. The same size with twice as many elements or blocks follows where there is none.
        for (max_rows, max_len, size) in [
            (1, 16_384, 1),
            (1, 16_385, 4),
            (29, 32_768, 4),
            (30, 32_768, 2),
            (66, 32_768, 2),
            (132, 32_768, 2),
            (133, 32_768, 1),
            (14, 65_536, 8),
            (15, 65_536, 4),
            (30, 65_536, 4),
            (62, 65_536, 4),
            (7, 131_072, 16),
            (8, 131_072, 8),
            (29, 131_072, 8),
            (14, 262_144, 16),
            (15, 262_144, 1),
            (1, 262_145, 1),
            // Too long for registers.
            (63, 65_536, 2),
            (30, 131_072, 1),
            (49, 131_072, 1),
            (50, 131_072, 2),
            (66, 131_072, 2),
            (66, 163_840, 2),
            (66, 163_841, 1),
            (67, 131_072, 1),
            (25, 327_680, 4),
            (25, 327_681, 1),
        ] {
            let limits = Limits { max_rows, max_len, ..limits() };
            let plan = self::plan(limits).unwrap();
            let config = plan.launch_config(max_rows);
            assert_eq!(config.cluster, size, "{max_rows} x {max_len}");
            if size > 1 {
                let found = (config.grid, plan.slices(max_rows));
                assert_eq!(found, (max_rows * size, size), "{max_rows} x {max_len}");
                let is_held = cluster::is_held(max_len, size);
                let entry = if is_held { "topk_f32_cluster" } else { "topk_f32_cluster_streamed" };
                assert_eq!((plan.entry(max_rows), plan.workspace_bytes()), (entry, 0));
            }
            for device in [
                DeviceProperties { max_cluster: 1, ..h200() },
                DeviceProperties {
                    shared_bytes_per_block: cluster::shared_bytes(16_000, 2, 1) - 4,
                    ..h200()
                },
            ] {
                let without = Plan::new(Limits { max_len: max_len.min(16_000), ..limits }, &device).unwrap();
                assert_eq!(without.launch_config(max_rows).cluster, 1, "{max_rows} x {max_len}");
            }
            let limited = self::plan(Limits { max_sms: Some(100), ..limits }).unwrap();
            assert_eq!(limited.launch_config(max_rows).cluster, 1, "{max_rows} x {max_len}");
        }
        // Fewer rows than there may be have more blocks each.
        let plan = self::plan(Limits { max_rows: 66, max_len: 131_072, ..limits() }).unwrap();
        for (rows, size) in [(66, 2), (30, 2), (29, 8), (8, 8), (7, 16), (1, 16), (0, 16)] {
            let config = plan.launch_config(rows);
            assert_eq!((config.cluster, config.grid), (size, rows.max(1) * size), "{rows} rows");
            let shared_bytes = |tiles| cluster::shared_bytes(plan.limits().max_len, size, tiles);
            assert_eq!(config.shared_bytes, shared_bytes(8), "{rows} rows");
            assert_eq!(shared_bytes(8) == shared_bytes(1), cluster::is_held(131_072, size));
            assert_eq!(plan.entry(rows) == "topk_f32_cluster", cluster::is_held(131_072, size));
        }
        assert_eq!(plan.entries(), ["topk_f32_cluster", "topk_f32_cluster_streamed"]);
        let small = DeviceProperties { max_cluster: 8, ..h200() };
        let forced = Limits { path: Path::Cluster, max_len: MAX_LEN, ..limits() };
        assert_eq!(Plan::new(forced, &small).unwrap().launch_config(1).cluster, 8);
        let none = DeviceProperties { max_cluster: 1, ..h200() };
        let error = Plan::new(forced, &none).unwrap_err().to_string();
        assert!(error.contains("path is cluster"), "{error}");
    }

    #[test]
    fn state_and_workspace_are_enough_for_every_number_of_rows_with_slices() {
        for max_rows in [1, 5, 132, 133, 263, 264, 100_000] {
            let plan = plan(Limits { max_rows, max_len: 400_000, ..limits() }).unwrap();
            assert!(plan.workspace_bytes().is_multiple_of(WORKSPACE_ALIGNMENT), "{max_rows} rows");
            let sliced = |rows: &u32| plan.launch_config(*rows).grid > *rows;
            for rows in (1..=max_rows.min(1000)).filter(sliced) {
                assert!(plan.workspace_bytes() >= 4 * (slab::ROW_WORDS * rows) as usize, "{rows} rows");
                assert!(plan.state_bytes() >= 4 * state::row_words(rows) as usize, "{rows} rows");
            }
        }
    }

    #[test]
    fn only_the_large_path_needs_a_cooperative_launch() {
        for path in Path::ALL.iter().copied() {
            let plan = plan(Limits { path, max_len: 2048, ..limits() }).unwrap();
            assert_eq!(plan.launch_config(1).cooperative, path == Path::Large, "{path}");
        }
        let device = DeviceProperties { cooperative_launch: false, ..h200() };
        assert!(Plan::new(limits(), &device).is_ok());
        let error = Plan::new(Limits { path: Path::Large, ..limits() }, &device).unwrap_err().to_string();
        assert!(error.contains("path is large"), "{error}");
    }

    #[test]
    fn only_launches_of_the_kernel_that_waits_overlap_and_only_if_they_may() {
        for path in Path::ALL.iter().copied() {
            let waits = !matches!(path, Path::Decode | Path::Medium | Path::Large);
            for overlap in [true, false] {
                let plan = plan(Limits { path, overlap, max_len: 2048, ..limits() }).unwrap();
                assert_eq!(plan.launch_config(1).overlap, overlap && waits, "{path}, overlap {overlap}");
            }
        }
        assert!(limits().overlap);
    }

    #[test]
    fn rows_take_the_path_for_their_length() {
        let auto = plan(Limits { max_rows: 1000, ..limits() }).unwrap();
        let paths = [0, 2048, 2049, 16_377, 16_378, u32::MAX].map(|len| auto.path_of(len));
        let [trivial, resident, sampled] = [Path::Trivial, Path::Resident, Path::Sampled];
        assert_eq!(paths, [trivial, trivial, resident, resident, sampled, sampled]);
        for path in [Path::Cluster, Path::Medium, Path::Large] {
            let forced = plan(Limits { path, ..limits() }).unwrap();
            assert_eq!((forced.path_of(2048), forced.path_of(2049)), (Path::Trivial, path));
        }
    }

    #[test]
    fn the_number_of_multiprocessors_can_be_limited() {
        for max_len in [131_072, 8192] {
            let plan = plan(Limits { max_sms: Some(7), max_len, ..limits() }).unwrap();
            assert_eq!(plan.launch_config(64).grid, 7, "{max_len}");
        }
    }

    #[test]
    fn long_rows_have_as_many_blocks_and_tiles_as_the_shared_memory_of_the_device_has_room_for() {
        let device = |per_multiprocessor: u32, per_block: u32| DeviceProperties {
            shared_bytes_per_multiprocessor: per_multiprocessor << 10,
            shared_bytes_per_block: per_block << 10,
            ..h200()
        };
        let limits = Limits { max_rows: 1000, ..limits() };
        // The devices are those of compute capability 9.0, 8.0 and 12.0; blocks and tiles of few rows, then of many.
        for (device, few, many) in [
            (device(228, 227), (132, 8), (264, 2)),
            (device(164, 163), (132, 2), (132, 2)),
            (device(100, 99), (132, 1), (132, 1)),
        ] {
            let plan = Plan::new(limits, &device).unwrap();
            for (rows, (blocks, tiles)) in [(132, few), (133, many), (1000, many)] {
                let config = plan.launch_config(rows);
                let expected = (blocks, auto::shared_bytes(limits.max_len, tiles));
                assert_eq!((config.grid, config.shared_bytes), expected, "{rows} rows");
            }
            let short = Plan::new(Limits { max_len: 8192, ..limits }, &device).unwrap();
            assert_eq!((short.launch_config(1000).grid, short.entry(1000)), (1000, "topk_f32_short"));
        }
    }

    #[test]
    fn shared_memory_stays_within_the_device() {
        for max_len in [1, 8192, 40_000, 131_072, MAX_LEN] {
            for path in [Path::Auto, Path::Sampled, Path::Medium, Path::Large] {
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
        let good = TopKArgs { scores: 4096, pitch: 131_072, rows: 4, lengths: 4096, out: 4096, values: 0 };
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
            (
                TopKArgs { values: 4096, ..good },
                "values is 0x1000, but must be 0 for an operator without values",
            ),
        ] {
            let error = plan.check(&bad).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn scores_and_values_are_aligned_to_their_type() {
        let plan = plan(Limits { scores: ScoreType::Bf16, values: true, ..limits() }).unwrap();
        let good = TopKArgs { scores: 4098, pitch: 131_072, rows: 4, lengths: 4096, out: 4096, values: 4098 };
        plan.check(&good).unwrap();
        for (bad, words) in [
            (TopKArgs { scores: 4097, ..good }, "scores is 0x1001, but must be aligned to 2 bytes"),
            (TopKArgs { values: 4097, ..good }, "values is 0x1001, but must be aligned to 2 bytes"),
            (TopKArgs { values: 0, ..good }, "values is null"),
        ] {
            let error = plan.check(&bad).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn options_that_a_path_does_not_have_are_refused_with_the_path() {
        for path in [Path::Decode, Path::Medium, Path::Large] {
            let limits = Limits { path, max_len: 5000, ..limits() };
            for (bad, words) in [
                (Limits { scores: ScoreType::F16, ..limits }, "scores is f16, but must be f32"),
                (Limits { ties: Ties::LowestIndex, ..limits }, "ties is lowest-index, but must be any"),
                (
                    Limits { order: Order::AscendingIndex, ..limits },
                    "order is ascending-index, but must be any",
                ),
                (Limits { values: true, ..limits }, "values is true, but must be false"),
            ] {
                let error = plan(bad).unwrap_err().to_string();
                assert!(error.contains(words) && error.contains(path.name()), "{error}");
            }
        }
    }

    #[test]
    fn every_launch_has_one_of_the_kernels_of_the_plan_for_its_scores_and_order() {
        for max_len in [3000, 8192, 40_000, 131_072, 262_145, 1 << 20] {
            for path in [Path::Auto, Path::Cluster] {
                for scores in [ScoreType::F32, ScoreType::F16, ScoreType::Bf16] {
                    for order in [Order::Any, Order::AscendingIndex] {
                        let limits = Limits { max_rows: 300, max_len, path, scores, order, ..limits() };
                        let plan = plan(limits).unwrap();
                        let entries = plan.entries();
                        let mut used: Vec<_> = (0..=300).map(|rows| plan.entry(rows)).collect();
                        used.sort_unstable();
                        used.dedup();
                        assert_eq!(used, entries, "{limits:?}");
                        for entry in entries {
                            crate::Module::topk().entry(entry).unwrap();
                            assert!(entry.starts_with(&format!("topk_{scores}")), "{entry}");
                            assert_eq!(
                                entry.ends_with("_ordered"),
                                order == Order::AscendingIndex,
                                "{entry}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn there_is_one_slot_for_each_parameter() {
        let args = TopKArgs { scores: 4096, pitch: 131_072, rows: 4, lengths: 4096, out: 4096, values: 0 };
        for path in [Path::Auto, Path::Medium, Path::Large] {
            let plan = plan(Limits { path, ..limits() }).unwrap();
            let entry = crate::Module::topk().entry(plan.entry(args.rows)).unwrap();
            assert_eq!(plan.slots(&args, 4096, 4096).unwrap().len(), entry.parameters.len());
        }
    }
}
