//! From limits and device properties to launches: pure, so that it can be tested without a GPU and used with
//! any CUDA binding.

use std::fmt::Display;

use dsa_kernels_gpu::compress::configuration::{Configuration, Mode};
use dsa_kernels_gpu::compress::then::MOST_ROWS;
use dsa_kernels_gpu::compress::{self as kernels, post, prefill};

use crate::check::{check_multiprocessors, check_range, check_shared_bytes};
use crate::compress::{Limits, NumberType};
use crate::{DeviceProperties, Error, LaunchConfig};

/// Most of anything that device words count or that makes a grid: those are `i32`.
pub(crate) const MOST: u32 = i32::MAX as u32;
/// Name of the kernel that stores rows.
const POST: &str = "post";

/// The launches that fit the limits, for every batch and every content.
///
/// ```
/// use dsa_kernels::{Device, compress::{Limits, Plan}};
///
/// let plan = Plan::new(Limits::of(128, 512), Device::emulator().properties())?;
/// assert_eq!(plan.decode_entry(1), "decode_bf16_f32_r128_w8");
/// assert_eq!(plan.decode_launch(1)?.block, 8 * 32);
/// # Ok::<(), dsa_kernels::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    limits: Limits,
    decode: &'static Configuration,
    /// That for so many requests that they fill the device.
    decode_many: &'static Configuration,
    /// The one that also stores the rows, unless the limits ask for something that there is none for.
    decode_store: Option<&'static Configuration>,
    prefill: &'static Configuration,
    multiprocessors: u32,
}

impl Plan {
    /// The plan for `limits` on a device with these properties.
    ///
    /// # Errors
    /// [`Error::UnlistedConfiguration`] when no kernel is compiled for the limits; [`Error::Argument`], naming the
    /// limit that cannot be met.
    pub fn new(limits: Limits, device: &DeviceProperties) -> Result<Self, Error> {
        let best = best_warps(limits.ratio, limits.state);
        let [warps, warps_of_many] = limits.warps.map_or(best, |warps| [warps; 2]);
        let is_listed = kernels::HEAD_DIMS.contains(&limits.head_dim);
        let listed = |mode, state, warps: Option<u32>| {
            kernels::CONFIGURATIONS.iter().find(|configuration| {
                is_listed
                    && (configuration.mode, configuration.kv, configuration.state) == (mode, limits.kv, state)
                    && configuration.ratio == limits.ratio
                    && warps.is_none_or(|warps| configuration.warps == warps)
            })
        };
        let unlisted = || Error::UnlistedConfiguration {
            head_dim: limits.head_dim,
            kv: limits.kv,
            state: limits.state,
            ratio: limits.ratio,
            warps,
            listed: listed_configurations(),
        };
        let one_step = |warps| listed(Mode::Decode, limits.state, Some(warps)).ok_or_else(unlisted);
        let (decode, decode_many) = (one_step(warps)?, one_step(warps_of_many)?);
        let (decode, decode_many, prefill) = if limits.running {
            check_running(&limits)?;
            // The one kernel that writes such a state takes any number of tokens.
            let running = listed(Mode::Running, limits.state, None).ok_or_else(unlisted)?;
            (running, running, running)
        } else {
            (decode, decode_many, listed(Mode::Prefill, limits.state, None).ok_or_else(unlisted)?)
        };
        let is_free = limits.warps.is_none() && !limits.running;
        let decode_store = listed(Mode::DecodeStore, limits.state, None).filter(|_| is_free);
        check_range("max_batch", limits.max_batch, 1, MOST, "pass the most requests of a launch")?;
        for kernel in [decode, decode_many, prefill].iter().chain(&decode_store) {
            check_shared_bytes(device, kernel.shared_bytes)?;
        }
        check_multiprocessors(device)?;
        let plan = Self {
            limits,
            decode,
            decode_many,
            decode_store,
            prefill,
            multiprocessors: device.multiprocessors,
        };
        for kernel in [plan.decode(limits.max_batch)].iter().chain(&decode_store) {
            let blocks = plan.decode_blocks(kernel, limits.max_batch);
            check_grid("max_batch", limits.max_batch, blocks)?;
            if limits.ratio == kernels::OVERLAPPING {
                check_warps(limits.max_batch, blocks * u64::from(kernel.warps))?;
            }
        }
        Ok(plan)
    }

    /// What the plan is for.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Name of the kernel for a few new tokens of each of `batch` requests in the module
    /// [`Module::compress`](crate::Module::compress).
    pub fn decode_entry(&self, batch: u32) -> &'static str {
        self.decode(batch).entry
    }

    /// Name of the kernel for a few new tokens that also stores the rows that are written; `None` with running softmaxes
    /// and with a number of warps that was asked for: then that takes two launches.
    pub fn decode_store_entry(&self) -> Option<&'static str> {
        self.decode_store.map(|kernel| kernel.entry)
    }

    /// Name of the kernel for any number of new tokens: with running softmaxes, that of
    /// [`decode_entry`](Self::decode_entry).
    pub fn prefill_entry(&self) -> &'static str {
        self.prefill.entry
    }

    /// Name of the kernel that stores the rows that were written.
    pub fn post_entry(&self) -> &'static str {
        POST
    }

    /// Columns of a row of the state, `W`: `head_dim` for windows of 128 tokens, twice that for windows of 4.
    pub fn width(&self) -> u32 {
        kernels::width(self.limits.head_dim, self.limits.ratio)
    }

    /// The launch of [`decode_entry`](Self::decode_entry) for `batch` requests. It depends on nothing that lies in
    /// device memory.
    ///
    /// # Errors
    /// [`Error::Argument`] for more requests than the limit.
    pub fn decode_launch(&self, batch: u32) -> Result<LaunchConfig, Error> {
        self.decode_launch_of(self.decode(batch), batch)
    }

    /// The launch of [`decode_store_entry`](Self::decode_store_entry) for `batch` requests, if there is that kernel.
    ///
    /// # Errors
    /// As for [`decode_launch`](Self::decode_launch).
    pub fn decode_store_launch(&self, batch: u32) -> Result<Option<LaunchConfig>, Error> {
        self.decode_store.map(|kernel| self.decode_launch_of(kernel, batch)).transpose()
    }

    fn decode_launch_of(&self, kernel: &Configuration, batch: u32) -> Result<LaunchConfig, Error> {
        self.check_batch(batch.into())?;
        let grid = check_grid("batch", batch, self.decode_blocks(kernel, batch))?;
        Ok(self.launch(kernel, grid))
    }

    /// The launch of [`prefill_entry`](Self::prefill_entry) for `batch` requests with `tokens` new tokens together.
    ///
    /// # Errors
    /// [`Error::Argument`] for more requests than the limit, and for a grid beyond what a device has.
    pub fn prefill_launch(&self, batch: u32, tokens: u32) -> Result<LaunchConfig, Error> {
        self.check_batch(batch.into())?;
        let parts = self.prefill_parts(batch, tokens);
        let blocks = self.prefill.blocks(self.limits.head_dim, batch.max(1), tokens, parts);
        let grid = check_grid("tokens", format_args!("{tokens} in {batch} requests"), blocks)?;
        Ok(self.launch(self.prefill, grid))
    }

    /// The launch of [`post_entry`](Self::post_entry) for `rows` rows.
    pub fn post_launch(&self, rows: u32) -> LaunchConfig {
        LaunchConfig::new(rows.max(1).div_ceil(post::WARPS), post::WARPS * 32)
            .with_overlap(self.limits.overlap)
    }

    fn launch(&self, kernel: &Configuration, grid: u32) -> LaunchConfig {
        LaunchConfig::new(grid, kernel.warps * 32)
            .with_shared_bytes(kernel.shared_bytes)
            .with_overlap(self.limits.overlap)
    }

    pub(crate) fn check_batch(&self, batch: u64) -> Result<(), Error> {
        if batch <= u64::from(self.limits.max_batch) {
            return Ok(());
        }
        let limit = format!("at most max_batch = {}", self.limits.max_batch);
        let help = "build the operator for more requests (entries of kv_lens)";
        Err(Error::argument("batch", batch, limit, help))
    }

    /// The kernel for a few new tokens of each of `batch` requests.
    pub(crate) fn decode(&self, batch: u32) -> &'static Configuration {
        if self.is_many(batch) { self.decode_many } else { self.decode }
    }

    /// The kernel that also stores rows.
    pub(crate) fn decode_store(&self) -> Option<&'static Configuration> {
        self.decode_store
    }

    /// Words of device memory that launches of [`decode_store_entry`](Self::decode_store_entry) count in, two for each
    /// request of `max_batch`; 0 if there is no such kernel.
    pub fn decode_store_words(&self) -> usize {
        if self.decode_store.is_some() { (self.limits.max_batch * MOST_ROWS) as usize } else { 0 }
    }

    /// Whether so many requests fill five eighths of the device when each tile of them has a block of the kernel for many:
    /// from about there on it is the faster one, as measured.
    pub(crate) fn is_many(&self, batch: u32) -> bool {
        let tiles = u64::from(batch) * u64::from(self.decode_many.tiles(self.limits.head_dim));
        8 * tiles >= 5 * self.blocks_at_once(self.decode_many)
    }

    /// Blocks that the device holds at once.
    fn blocks_at_once(&self, kernel: &Configuration) -> u64 {
        u64::from(kernel.min_blocks) * u64::from(self.multiprocessors)
    }

    /// Blocks of a decode of `batch` requests.
    fn decode_blocks(&self, kernel: &Configuration, batch: u32) -> u64 {
        kernel.blocks(self.limits.head_dim, batch.max(1), 0, self.decode_parts(kernel, batch))
    }

    /// Blocks that share the tiles of a window in a decode: the power of two with which the launch takes the shortest time,
    /// if all blocks that the device holds run for as long as the tiles of one take, and one tile's time more to find the
    /// request and its pages. 1 for kernels whose windows are not shared.
    pub(crate) fn decode_parts(&self, kernel: &Configuration, batch: u32) -> u32 {
        if kernel.mode == Mode::Running || kernel.ratio != kernels::LONG {
            return 1;
        }
        let tiles = kernel.tiles(self.limits.head_dim);
        let time = |parts: u32| {
            let blocks = u64::from(batch.max(1)) * u64::from(parts);
            blocks.div_ceil(self.blocks_at_once(kernel)) * u64::from(1 + tiles / parts)
        };
        (0..=tiles.ilog2()).map(|power| 1 << power).min_by_key(|&parts| time(parts)).unwrap_or(1)
    }

    /// Blocks that share the channels of a chunk of tokens: a power of two, so many that the device has two blocks for
    /// each multiprocessor if there are tiles enough. More would only read the same offsets more often. With running
    /// softmaxes there are no chunks, and this is 1.
    pub(crate) fn prefill_parts(&self, batch: u32, tokens: u32) -> u32 {
        if self.prefill.mode != Mode::Prefill {
            return 1;
        }
        let chunks = prefill::chunks(tokens, batch.max(1));
        let wanted = (2 * u64::from(self.multiprocessors)).div_ceil(chunks).next_power_of_two();
        let most = prefill_tiles(self.prefill, self.limits.head_dim);
        u64::from(most).min(wanted) as u32
    }
}

/// Warps of a block that decode fastest, as measured: for few requests, and for so many that they fill the device.
///
/// With windows of 128 tokens, a thread of 8 warps loads all its tokens before it uses the first; with fewer warps, loads
/// follow each other. When the device is full that does not matter any more, and of a state of f32 four warps, which hold
/// half as many registers, read more. A window of 4 tokens is the work of one warp.
fn best_warps(ratio: u32, state: NumberType) -> [u32; 2] {
    match (ratio, state) {
        (kernels::OVERLAPPING, _) => [1, 1],
        (_, NumberType::F32) => [8, 4],
        (_, NumberType::Bf16) => [8, 8],
    }
}

/// The largest power of two that divides the channels of a row into whole tiles.
fn prefill_tiles(configuration: &Configuration, head_dim: u32) -> u32 {
    let tiles = configuration.tiles(head_dim).max(1);
    1 << tiles.ilog2()
}

/// The decode configurations that there are, one `kv/state/ratio` with its warps after the other.
fn listed_configurations() -> String {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for configuration in kernels::CONFIGURATIONS.iter().filter(|c| c.mode == Mode::Decode) {
        let Configuration { kv, state, ratio, warps, .. } = configuration;
        let group = format!("kv {kv}, state {state}, ratio {ratio}");
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, all)) => all.push(warps.to_string()),
            None => groups.push((group, vec![warps.to_string()])),
        }
    }
    let groups: Vec<_> =
        groups.iter().map(|(group, warps)| format!("{group}, warps {}", warps.join("|"))).collect();
    let head_dims = kernels::HEAD_DIMS.map(|head_dim| head_dim.to_string());
    format!("head_dim {} with {}", head_dims.join("|"), groups.join("; "))
}

fn check_running(limits: &Limits) -> Result<(), Error> {
    if limits.state == NumberType::F32 {
        return Ok(());
    }
    let limit = format!("false with state = {}", limits.state);
    Err(Error::argument("running", true, limit, "set state to f32, or running to false"))
}

/// Requires that the warps of a launch have numbers: where windows overlap, each finds its work by its own.
fn check_warps(max_batch: u32, warps: u64) -> Result<(), Error> {
    if warps <= u64::from(u32::MAX) {
        return Ok(());
    }
    let limit = format!("few enough for {} warps instead of {warps}", u32::MAX);
    Err(Error::argument("max_batch", max_batch, limit, "use several launches"))
}

/// The blocks of a grid, if a device has so many.
fn check_grid(argument: &'static str, value: impl Display, blocks: u64) -> Result<u32, Error> {
    match u32::try_from(blocks) {
        Ok(grid @ 1..=MOST) => Ok(grid),
        _ => {
            let limit = format!("few enough for a grid of 1..={MOST} blocks instead of {blocks}");
            Err(Error::argument(argument, value, limit, "use several launches"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Module};

    fn h200() -> DeviceProperties {
        let mut properties = Device::emulator().properties().clone();
        properties.multiprocessors = 132;
        properties
    }

    fn plan(limits: Limits) -> Result<Plan, Error> {
        Plan::new(limits, &h200())
    }

    #[test]
    fn every_listed_configuration_has_a_plan_with_entries_that_exist() {
        let module = Module::compress();
        for listed in kernels::CONFIGURATIONS {
            let warps = Some(listed.warps).filter(|_| listed.mode == Mode::Decode);
            let stores = listed.mode == Mode::DecodeStore;
            let running = listed.mode == Mode::Running;
            for head_dim in kernels::HEAD_DIMS {
                let limits = Limits {
                    kv: listed.kv,
                    state: listed.state,
                    warps,
                    running,
                    ..Limits::of(listed.ratio, head_dim)
                };
                let plan = plan(limits).unwrap();
                let (chosen, launch) = match listed.mode {
                    Mode::Prefill => (plan.prefill_entry(), plan.prefill_launch(3, 1000)),
                    Mode::DecodeStore => (
                        plan.decode_store_entry().unwrap(),
                        plan.decode_store_launch(3).map(|launch| launch.expect("a launch of it")),
                    ),
                    Mode::Decode | Mode::Running => (plan.decode_entry(3), plan.decode_launch(3)),
                };
                let launch = launch.unwrap();
                assert_eq!(chosen, listed.entry);
                assert_eq!(plan.prefill_entry().starts_with("running"), running);
                assert_eq!(plan.decode_store_entry().is_some(), stores || listed.mode == Mode::Prefill);
                for (entry, launch) in [(chosen, launch), (plan.post_entry(), plan.post_launch(3))] {
                    let entry = module.entry(entry).unwrap();
                    assert!(
                        launch.block <= entry.max_threads && launch.cluster == entry.cluster,
                        "{entry:?}"
                    );
                }
                assert_eq!((launch.block, launch.shared_bytes), (32 * listed.warps, listed.shared_bytes));
            }
        }
    }

    #[test]
    fn the_number_of_warps_is_chosen_by_the_window_and_by_how_full_the_device_is() {
        let bf16 = NumberType::Bf16;
        for (limits, batch, entry) in [
            (Limits::of(128, 512), 1, "decode_bf16_f32_r128_w8"),
            // 165 requests have 660 tiles, and 132 multiprocessors hold 1,056 blocks of four warps.
            (Limits::of(128, 512), 164, "decode_bf16_f32_r128_w8"),
            (Limits::of(128, 512), 165, "decode_bf16_f32_r128_w4"),
            (Limits::of(128, 128), 659, "decode_bf16_f32_r128_w8"),
            (Limits::of(128, 128), 660, "decode_bf16_f32_r128_w4"),
            (Limits { state: bf16, ..Limits::of(128, 512) }, 4096, "decode_bf16_bf16_r128_w8"),
            (Limits { warps: Some(1), ..Limits::of(128, 512) }, 4096, "decode_bf16_f32_r128_w1"),
            (Limits { warps: Some(8), ..Limits::of(128, 512) }, 4096, "decode_bf16_f32_r128_w8"),
            (Limits::of(4, 512), 4096, "decode_bf16_f32_r4_w1"),
            (Limits { warps: Some(4), ..Limits::of(4, 128) }, 1, "decode_bf16_f32_r4_w4"),
        ] {
            let plan = plan(limits).unwrap();
            assert_eq!(plan.decode_entry(batch), entry, "{batch} requests");
            assert_eq!(plan.width(), if limits.ratio == 4 { 2 * limits.head_dim } else { limits.head_dim });
        }
    }

    #[test]
    fn an_unlisted_configuration_is_printed_with_those_that_are_listed() {
        let limits = Limits::of(128, 512);
        for (bad, tuple) in [
            (Limits { head_dim: 256, ..limits }, "(head_dim 256, kv bf16, state f32, ratio 128, warps 8)"),
            (Limits { ratio: 8, ..limits }, "(head_dim 512, kv bf16, state f32, ratio 8, warps 8)"),
            (Limits { warps: Some(5), ..limits }, "(head_dim 512, kv bf16, state f32, ratio 128, warps 5)"),
            (Limits { ratio: 0, ..limits }, "ratio 0"),
            (Limits { running: true, warps: Some(0), ..limits }, "warps 0)"),
        ] {
            let error = plan(bad).unwrap_err();
            assert!(matches!(error, Error::UnlistedConfiguration { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(tuple), "{text}");
            assert!(text.contains("head_dim 128|512 with kv f32, state f32, ratio 128, warps 1|4"), "{text}");
        }
    }

    #[test]
    fn running_softmaxes_need_a_state_of_f32() {
        let limits = Limits { running: true, ..Limits::of(4, 128) };
        assert_eq!(plan(limits).unwrap().decode_entry(1), "running_bf16_r4");
        assert_eq!(plan(limits).unwrap().prefill_entry(), "running_bf16_r4");
        let error = plan(Limits { state: NumberType::Bf16, ..limits }).unwrap_err().to_string();
        assert!(error.contains("running is true, but must be false with state = bf16"), "{error}");
    }

    #[test]
    fn the_grid_of_decode_depends_on_the_batch_alone() {
        let grid = |limits: Limits, batch| plan(limits).unwrap().decode_launch(batch).unwrap().grid;
        for (head_dim, tiles) in [(128, 1), (512, 4)] {
            for warps in [None, Some(1), Some(4)] {
                // Three windows can be touched; a warp for each tile of them.
                let limits = Limits { warps, ..Limits::of(4, head_dim) };
                assert_eq!(grid(limits, 16), 16 * 3 * tiles / warps.unwrap_or(1));
                assert_eq!(grid(limits, 0), grid(limits, 1), "a launch has at least one request");
            }
            let origin = Limits { warps: Some(4), ..Limits::of(128, head_dim) };
            assert_eq!(grid(origin, 16), 16 * tiles, "a block for each tile, as in the origin");
        }
    }

    #[test]
    fn decode_shares_the_tiles_of_a_window_until_the_device_is_full() {
        let eight = |state| Limits { state, warps: Some(8), ..Limits::of(128, 512) };
        // 16 tiles, or 8 of bf16, and 264 blocks at once.
        for (batch, f32_parts, bf16_parts) in [
            (0, 16, 8),
            (1, 16, 8),
            (16, 16, 8),
            (33, 8, 8),
            (64, 4, 4),
            (128, 2, 2),
            (132, 2, 2),
            (256, 1, 1),
        ] {
            for (state, parts) in [(NumberType::F32, f32_parts), (NumberType::Bf16, bf16_parts)] {
                let plan = plan(eight(state)).unwrap();
                assert_eq!(plan.decode_parts(plan.decode(batch), batch), parts, "{batch} requests, {state}");
                assert_eq!(plan.decode_launch(batch).unwrap().grid, batch.max(1) * parts);
            }
        }
        // One more request than half of what fits: two waves of 9 tiles' time are worse than three of 5.
        let plan = plan(eight(NumberType::F32)).unwrap();
        assert_eq!(plan.decode_parts(plan.decode(140), 140), 4);
    }

    #[test]
    fn prefill_shares_channels_until_the_device_is_full() {
        let plan = plan(Limits::of(128, 512)).unwrap();
        for (batch, tokens, parts) in [
            (1, 1, 4),
            (1, 8192, 4),
            // 64 chunks and 2 more leave room for four blocks of each, 128 for two, 264 for one.
            (1, 64 * 128, 4),
            (1, 131 * 128, 2),
            (1, 262 * 128, 1),
            (132, 132, 1),
            (66, 66, 2),
        ] {
            let chunks = tokens / 128 + 2 * batch;
            assert_eq!(plan.prefill_parts(batch, tokens), parts, "{batch} requests, {tokens} tokens");
            assert_eq!(plan.prefill_launch(batch, tokens).unwrap().grid, parts * chunks);
        }
        let narrow = self::plan(Limits::of(4, 128)).unwrap();
        assert_eq!(narrow.prefill_parts(1, 1), 1, "one tile");
    }

    #[test]
    fn a_prompt_for_running_softmaxes_has_a_warp_for_each_tile_of_each_request() {
        for ratio in [4, 128] {
            for head_dim in kernels::HEAD_DIMS {
                let max_batch = MOST / (head_dim / 128);
                let limits = Limits { running: true, max_batch, ..Limits::of(ratio, head_dim) };
                let plan = plan(limits).unwrap();
                for (batch, tokens) in [(0, 0), (1, 1), (3, 100_000), (limits.max_batch, MOST)] {
                    let launch = plan.prefill_launch(batch, tokens).unwrap();
                    assert_eq!((launch.grid, launch.block), (batch.max(1) * (head_dim / 128), 32));
                    assert_eq!(plan.prefill_parts(batch, tokens), 1);
                    assert_eq!(launch, plan.decode_launch(batch).unwrap());
                }
            }
        }
    }

    #[test]
    fn a_grid_beyond_the_device_is_refused() {
        let limits = Limits { max_batch: MOST, ..Limits::of(128, 512) };
        let large = plan(limits).unwrap();
        assert!(large.decode_launch(MOST).unwrap().grid <= MOST);
        let error = large.decode_launch(MOST + 1).unwrap_err().to_string();
        let words = format!("batch is {}, but must be at most max_batch = {MOST}", MOST + 1);
        assert!(error.contains(&words), "{error}");
        let error = large.prefill_launch(MOST, MOST).unwrap_err().to_string();
        assert!(
            error.contains("tokens is 2147483647 in 2147483647 requests") && error.contains("grid"),
            "{error}"
        );
        for max_batch in [0, MOST + 1] {
            let error = plan(Limits { max_batch, ..limits }).unwrap_err().to_string();
            let words = format!("max_batch is {max_batch}, but must be 1..=2147483647");
            assert!(error.contains(&words), "{error}");
        }

        // Windows that overlap: three warps for each tile, not shared.
        let narrow = Limits { max_batch: MOST / 3, ..Limits::of(4, 128) };
        assert_eq!(plan(narrow).unwrap().decode_launch(MOST / 3).unwrap().grid, MOST / 3 * 3);
        let error = plan(Limits { max_batch: MOST, ..narrow }).unwrap_err().to_string();
        assert!(error.contains("grid of 1..=2147483647 blocks instead of 6442450941"), "{error}");
        let error = plan(Limits { max_batch: MOST, warps: Some(4), ..narrow }).unwrap_err().to_string();
        assert!(error.contains("few enough for 4294967295 warps instead of 6442450944"), "{error}");
    }

    #[test]
    fn a_device_that_is_too_small_is_refused() {
        let small = DeviceProperties { shared_bytes_per_block: 1000, ..h200() };
        let error = Plan::new(Limits::of(128, 512), &small).unwrap_err().to_string();
        assert!(error.contains("shared memory per block is 1000"), "{error}");
        let none = DeviceProperties { multiprocessors: 0, ..h200() };
        let error = Plan::new(Limits::of(4, 512), &none).unwrap_err().to_string();
        assert!(error.contains("multiprocessors of the device is 0"), "{error}");
    }

    #[test]
    fn launches_overlap_if_the_limits_say_so() {
        for overlap in [false, true] {
            let plan = plan(Limits { overlap, ..Limits::of(4, 512) }).unwrap();
            let launches =
                [plan.decode_launch(2).unwrap(), plan.prefill_launch(2, 9).unwrap(), plan.post_launch(9)];
            assert!(launches.iter().all(|launch| launch.overlap == overlap && !launch.cooperative));
            assert_eq!((launches[2].grid, launches[2].block), (3, 128));
        }
    }
}
