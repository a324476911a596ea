//! From limits and device properties to launches: pure, so that it can be tested without a GPU and used with
//! any CUDA binding.

use std::fmt::Display;

use dsa_kernels_gpu::compress::configuration::{Configuration, Mode};
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
/// assert_eq!(plan.decode_entry(), "decode_bf16_f32_r128_w16");
/// assert_eq!(plan.decode_launch(64)?.block, 16 * 32);
/// # Ok::<(), dsa_kernels::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    limits: Limits,
    decode: &'static Configuration,
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
        let warps = limits.warps.unwrap_or_else(|| best_warps(limits.ratio));
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
        let one_step = listed(Mode::Decode, limits.state, Some(warps)).ok_or_else(unlisted)?;
        let (decode, prefill) = if limits.running {
            check_running(&limits)?;
            // The one kernel that writes such a state takes any number of tokens.
            let running = listed(Mode::Running, limits.state, None).ok_or_else(unlisted)?;
            (running, running)
        } else {
            (one_step, listed(Mode::Prefill, limits.state, None).ok_or_else(unlisted)?)
        };
        check_range("max_batch", limits.max_batch, 1, MOST, "pass the most requests of a launch")?;
        check_shared_bytes(device, decode.shared_bytes.max(prefill.shared_bytes))?;
        check_multiprocessors(device)?;
        let plan = Self { limits, decode, prefill, multiprocessors: device.multiprocessors };
        let blocks = plan.decode.blocks(limits.head_dim, limits.max_batch, 0, 1);
        check_grid("max_batch", limits.max_batch, blocks)?;
        Ok(plan)
    }

    /// What the plan is for.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Name of the kernel for a few new tokens in the module [`Module::compress`](crate::Module::compress).
    pub fn decode_entry(&self) -> &'static str {
        self.decode.entry
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
        self.launch(self.decode, batch, 0, 1)
    }

    /// The launch of [`prefill_entry`](Self::prefill_entry) for `batch` requests with `tokens` new tokens together.
    ///
    /// # Errors
    /// [`Error::Argument`] for more requests than the limit, and for a grid beyond what a device has.
    pub fn prefill_launch(&self, batch: u32, tokens: u32) -> Result<LaunchConfig, Error> {
        self.launch(self.prefill, batch, tokens, self.parts(batch, tokens))
    }

    /// The launch of [`post_entry`](Self::post_entry) for `rows` rows.
    pub fn post_launch(&self, rows: u32) -> LaunchConfig {
        LaunchConfig::new(rows.max(1).div_ceil(post::WARPS), post::WARPS * 32)
            .with_overlap(self.limits.overlap)
    }

    fn launch(
        &self,
        configuration: &Configuration,
        batch: u32,
        tokens: u32,
        parts: u32,
    ) -> Result<LaunchConfig, Error> {
        self.check_batch(batch.into())?;
        let blocks = configuration.blocks(self.limits.head_dim, batch.max(1), tokens, parts);
        let grid = check_grid("tokens", format_args!("{tokens} in {batch} requests"), blocks)?;
        Ok(LaunchConfig::new(grid, configuration.warps * 32)
            .with_shared_bytes(configuration.shared_bytes)
            .with_overlap(self.limits.overlap))
    }

    pub(crate) fn check_batch(&self, batch: u64) -> Result<(), Error> {
        if batch <= u64::from(self.limits.max_batch) {
            return Ok(());
        }
        let limit = format!("at most max_batch = {}", self.limits.max_batch);
        let help = "build the operator for more requests (entries of kv_lens)";
        Err(Error::argument("batch", batch, limit, help))
    }

    /// Blocks that share the channels of a chunk of tokens: a power of two, so many that the device has two blocks for
    /// each multiprocessor if there are tiles enough. More would only read the same offsets more often. With running
    /// softmaxes there are no chunks, and this is 1.
    pub(crate) fn parts(&self, batch: u32, tokens: u32) -> u32 {
        if self.prefill.mode != Mode::Prefill {
            return 1;
        }
        let chunks = prefill::chunks(tokens, batch.max(1));
        let wanted = (2 * u64::from(self.multiprocessors)).div_ceil(chunks).next_power_of_two();
        let most = prefill_tiles(self.prefill, self.limits.head_dim);
        u64::from(most).min(wanted) as u32
    }
}

/// Warps of a block that decode fastest.
///
/// With windows of 128 tokens, 16 warps have 8 rows each, all of which they load before they use the first, and leave
/// the merge of 16 partial softmaxes; with fewer warps, loads follow each other. A window of 4 tokens is the work of
/// one warp: 4 of them make a block only so that a multiprocessor holds enough.
fn best_warps(ratio: u32) -> u32 {
    if ratio == kernels::OVERLAPPING { 4 } else { 16 }
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
                let chosen =
                    if listed.mode == Mode::Prefill { plan.prefill_entry() } else { plan.decode_entry() };
                assert_eq!(chosen, listed.entry);
                assert_eq!(plan.prefill_entry().starts_with("running"), running);
                let launch = if listed.mode == Mode::Prefill {
                    plan.prefill_launch(3, 1000)
                } else {
                    plan.decode_launch(3)
                };
                let launch = launch.unwrap();
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
    fn the_number_of_warps_is_chosen_by_the_window() {
        for (ratio, warps, entry) in [
            (128, None, "decode_bf16_f32_r128_w16"),
            (128, Some(1), "decode_bf16_f32_r128_w1"),
            (128, Some(4), "decode_bf16_f32_r128_w4"),
            (4, None, "decode_bf16_f32_r4_w4"),
            (4, Some(1), "decode_bf16_f32_r4_w1"),
        ] {
            for head_dim in kernels::HEAD_DIMS {
                let plan = plan(Limits { warps, ..Limits::of(ratio, head_dim) }).unwrap();
                assert_eq!(plan.decode_entry(), entry);
                assert_eq!(plan.width(), if ratio == 4 { 2 * head_dim } else { head_dim });
            }
        }
    }

    #[test]
    fn an_unlisted_configuration_is_printed_with_those_that_are_listed() {
        let limits = Limits::of(128, 512);
        for (bad, tuple) in [
            (Limits { head_dim: 256, ..limits }, "(head_dim 256, kv bf16, state f32, ratio 128, warps 16)"),
            (Limits { ratio: 8, ..limits }, "(head_dim 512, kv bf16, state f32, ratio 8, warps 16)"),
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
        assert_eq!(plan(limits).unwrap().decode_entry(), "running_bf16_r4");
        assert_eq!(plan(limits).unwrap().prefill_entry(), "running_bf16_r4");
        let error = plan(Limits { state: NumberType::Bf16, ..limits }).unwrap_err().to_string();
        assert!(error.contains("running is true, but must be false with state = bf16"), "{error}");
    }

    #[test]
    fn the_grid_of_decode_depends_on_the_batch_alone() {
        let grid = |limits: Limits, batch| plan(limits).unwrap().decode_launch(batch).unwrap().grid;
        let tiles = |limits: Limits| plan(limits).unwrap().decode.tiles(limits.head_dim);
        for head_dim in kernels::HEAD_DIMS {
            for warps in [None, Some(1), Some(4)] {
                let limits = Limits { warps, ..Limits::of(128, head_dim) };
                assert_eq!(grid(limits, 16), 16 * tiles(limits));
                assert_eq!(grid(limits, 0), tiles(limits), "a launch has at least one request");
                // Three windows can be touched; a warp for each tile of them.
                let limits = Limits { warps, ..Limits::of(4, head_dim) };
                assert_eq!(grid(limits, 16), 16 * 3 * tiles(limits) / warps.unwrap_or(4));
            }
        }
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
            assert_eq!(plan.parts(batch, tokens), parts, "{batch} requests, {tokens} tokens");
            assert_eq!(plan.prefill_launch(batch, tokens).unwrap().grid, parts * chunks);
        }
        let narrow = self::plan(Limits::of(4, 128)).unwrap();
        assert_eq!(narrow.parts(1, 1), 1, "one tile");
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
                    assert_eq!(plan.parts(batch, tokens), 1);
                    assert_eq!(launch, plan.decode_launch(batch).unwrap());
                }
            }
        }
    }

    #[test]
    fn a_grid_beyond_the_device_is_refused() {
        let limits = Limits::of(128, 512);
        let most = MOST / plan(limits).unwrap().decode.tiles(512);
        let large = plan(Limits { max_batch: most, ..limits }).unwrap();
        assert!(large.decode_launch(most).unwrap().grid <= MOST);
        let error = large.decode_launch(most + 1).unwrap_err().to_string();
        let words = format!("batch is {}, but must be at most max_batch = {most}", most + 1);
        assert!(error.contains(&words), "{error}");
        let error = plan(Limits { max_batch: most + 1, ..limits }).unwrap_err().to_string();
        assert!(
            error.contains(&format!("max_batch is {}", most + 1)) && error.contains("1..=2147483647"),
            "{error}"
        );
        let error = plan(Limits { max_batch: 0, ..limits }).unwrap_err().to_string();
        assert!(error.contains("max_batch is 0, but must be 1..=2147483647"), "{error}");

        let narrow = Limits { max_batch: MOST, ..Limits::of(4, 128) };
        let error = plan(narrow).unwrap().prefill_launch(MOST, MOST).unwrap_err().to_string();
        assert!(
            error.contains("tokens is 2147483647 in 2147483647 requests") && error.contains("grid"),
            "{error}"
        );
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
