//! The operator.

use crate::compress::check::narrow;
use crate::compress::plan::MOST;
use crate::compress::tensor::Memory;
use crate::compress::{CompressArgs, Limits, NumberType, Plan, PostArgs, Report};
use crate::{Buffer, Device, Error, Kernel, LaunchConfig, Module, Stream};

/// Pools windows of tokens into one row each, by a softmax per channel: the KV compressor of DeepSeek-V4. Every launch
/// has a shape that never depends on device data: captured in a graph, it stays right when lengths, tables and contents
/// change.
///
/// # Contract
/// The row of a new token is `[kv | score]`, and `s = score + ape[t mod R]` for the token at position `t`. A window of
/// `R` tokens closes with its last one, and is then written to the output, once: with `D = head_dim`, for each channel
/// `d`, and the softmax over the positions of the window,
///
/// - `R = 128`: `out[c, d] = sum over r of softmax(s[128 c + r, d]) kv[128 c + r, d]`.
/// - `R = 4`: the same over eight entries: positions `4 c - 4 .. 4 c` with columns `0 .. D`, then `4 c .. 4 c + 4` with
///   columns `D .. 2 D`. Window 0 has the second half only.
///
/// kv and s of every token are kept in two paged pools, by its absolute position, rounded to the type of the state. A
/// launch that starts at an earlier length than the last one ended at overwrites what it finds there: rejected draft
/// tokens need no other undoing. A request that closes no window still stores its tokens.
///
/// Of `n` new tokens and a length of `len` after them, a request closes `len / R - (len - n) / R` windows, in the
/// output rows from `cu_out[request]` on. Other rows are not touched. The output is within 4e-6 of exact arithmetic,
/// relative to the largest kv of the window, before it is rounded to its type; kernels with different numbers of warps
/// add in different orders and are not bit-identical.
///
/// | launch | what |
/// |---|---|
/// | [`enqueue_decode`](Self::enqueue_decode) | up to 8 new tokens for each request |
/// | [`enqueue_decode_store`](Self::enqueue_decode_store) | the same, and the rows are stored |
/// | [`enqueue_prefill`](Self::enqueue_prefill) | any number of new tokens for each request |
/// | [`enqueue_post`](Self::enqueue_post) | normalises, rotates, quantises and stores the rows that one of them wrote |
///
/// # Bad requests
/// Lengths, offsets and pages lie in device memory and are not trusted. A request with a bad one is left out whole,
/// nothing of it is stored, the others are compressed, and [`take_report`](Self::take_report) says so.
///
/// # State
/// The operator owns the two words of device memory that launches report in, and counters for the launches that store what
/// they write, which leave them zero. Launches of one operator may overlap in time if they write different memory
/// otherwise, but for two of [`enqueue_decode_store`](Self::enqueue_decode_store).
///
/// ```
/// use dsa_kernels::compress::{CompressArgs, Compressor, NumberType, PagedTensor, Tensor};
/// use dsa_kernels::Device;
///
/// let device = Device::emulator(); // or Device::best().0
/// let stream = device.stream()?;
/// // Windows of 4 tokens, rows of 128 channels: W = 256.
/// let mut compressor =
///     Compressor::builder(4, 128).kv(NumberType::F32).output(NumberType::F32).max_batch(1).build(&device)?;
///
/// // Four new tokens with kv 0, 1, 2, 3 in all channels, and equal scores.
/// let rows: Vec<f32> = (0..4).flat_map(|token| [[token as f32; 256], [0.5; 256]].concat()).collect();
/// let (rows, ape) = (device.upload(&rows)?, device.upload(&[0.0f32; 4 * 256])?);
/// // Three pages of 8 tokens in each pool. The request has page 2 of one and page 0 of the other.
/// let (kv_pool, score_pool) = (device.alloc::<f32>(3 * 8 * 256)?, device.alloc::<f32>(3 * 8 * 256)?);
/// let (kv_blocks, score_blocks) = (device.upload(&[2i32])?, device.upload(&[0i32])?);
/// let (kv_lens, cu_new, cu_out) = (device.upload(&[4i32])?, device.upload(&[0i32, 4])?, device.upload(&[0i32, 1])?);
/// let output = device.alloc::<f32>(128)?;
///
/// let args = CompressArgs {
///     kv_score: Tensor::of(&rows, [4, 512])?,
///     ape: Tensor::of(&ape, [4, 256])?,
///     kv: PagedTensor { pool: Tensor::of(&kv_pool, [3, 8, 256])?, blocks: Tensor::of(&kv_blocks, [1, 1])? },
///     score: PagedTensor { pool: Tensor::of(&score_pool, [3, 8, 256])?, blocks: Tensor::of(&score_blocks, [1, 1])? },
///     kv_lens: Tensor::of(&kv_lens, [1])?,
///     cu_new: Tensor::of(&cu_new, [2])?,
///     cu_out: Tensor::of(&cu_out, [2])?,
///     output: Tensor::of(&output, [1, 128])?,
/// };
/// // SAFETY: one stream; nothing else uses the buffers, and they do not overlap.
/// unsafe { compressor.enqueue_decode(&stream, 4, &args)? };
/// assert_eq!(compressor.take_report()?, None);
///
/// // The softmax of equal scores is the mean.
/// assert!(output.download()?.iter().all(|channel| (channel - 1.5).abs() < 1e-5));
/// # Ok::<(), dsa_kernels::Error>(())
/// ```
///
/// The mathematics is that of DeepSeek-V4; the contract of decode follows TensorRT-LLM's `pagedKvCompressKernel`
/// (PR 14124). The kernels' own documentation (`dsa_kernels_gpu::compress`) describes the algorithms.
#[derive(Debug)]
pub struct Compressor {
    plan: Plan,
    decode: Kernel,
    /// That for so many requests that they fill the device.
    decode_many: Kernel,
    decode_store: Option<Kernel>,
    prefill: Kernel,
    post: Kernel,
    report: Buffer<u32>,
    /// Where the parts of rows arrive that a decode stores.
    arrived: Option<Buffer<u32>>,
}

/// Builds a [`Compressor`].
#[derive(Clone, Copy, Debug)]
pub struct CompressorBuilder {
    limits: Limits,
}

impl From<Limits> for CompressorBuilder {
    fn from(limits: Limits) -> Self {
        Self { limits }
    }
}

impl CompressorBuilder {
    /// The type of the rows of new tokens; bf16 unless set.
    #[must_use]
    pub fn kv(mut self, kv: NumberType) -> Self {
        self.limits.kv = kv;
        self
    }

    /// The type of the state, both pools; f32 unless set.
    #[must_use]
    pub fn state(mut self, state: NumberType) -> Self {
        self.limits.state = state;
        self
    }

    /// The type of the output; bf16 unless set.
    #[must_use]
    pub fn output(mut self, output: NumberType) -> Self {
        self.limits.output = output;
        self
    }

    /// Warps of a block of the decode kernel; the best number unless set. Only for study.
    #[must_use]
    pub fn warps(mut self, warps: u32) -> Self {
        self.limits.warps = Some(warps);
        self
    }

    /// Whether the state are running softmaxes ([`Limits::running`]); not unless set.
    #[must_use]
    pub fn running(mut self, running: bool) -> Self {
        self.limits.running = running;
        self
    }

    /// Most requests of a launch; 4,096 unless set.
    #[must_use]
    pub fn max_batch(mut self, requests: u32) -> Self {
        self.limits.max_batch = requests;
        self
    }

    /// Whether launches may start while the launch before them on the stream is still running; they may unless
    /// set. They wait for its end before they touch device memory.
    #[must_use]
    pub fn overlap(mut self, overlap: bool) -> Self {
        self.limits.overlap = overlap;
        self
    }

    /// The limits as they are.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Checks the limits, loads the kernels and allocates the words that launches report in. Blocks; not during a
    /// capture.
    ///
    /// # Errors
    /// Those of [`Plan::new`], [`Device::load_kernel`] and [`Device::alloc`].
    pub fn build(self, device: &Device) -> Result<Compressor, Error> {
        self.build_with(device, &Module::compress())
    }

    /// [`build`](Self::build) with other PTX of the kernels: `module` is [`Module::compress`] after
    /// [`Module::with_ptx_from`].
    ///
    /// # Errors
    /// Those of [`build`](Self::build).
    pub fn build_with(self, device: &Device, module: &Module) -> Result<Compressor, Error> {
        let plan = Plan::new(self.limits, device.properties())?;
        let load = |entry| device.load_kernel(module, entry);
        let (decode, decode_many) = (load(plan.decode_entry(0))?, load(plan.decode_entry(MOST))?);
        let (prefill, post) = (load(plan.prefill_entry())?, load(plan.post_entry())?);
        let decode_store = plan.decode_store_entry().map(load).transpose()?;
        let zeroed = |words| -> Result<Buffer<u32>, Error> {
            let words = device.alloc(words)?;
            words.fill_bytes(0)?;
            Ok(words)
        };
        let report = zeroed(Report::WORDS)?;
        let arrived = decode_store.as_ref().map(|_| zeroed(plan.decode_store_words())).transpose()?;
        Ok(Compressor { plan, decode, decode_many, decode_store, prefill, post, report, arrived })
    }
}

impl Compressor {
    /// A builder for an operator with windows of `ratio` tokens, 4 or 128, and output rows of `head_dim` channels, 128
    /// or 512.
    pub fn builder(ratio: u32, head_dim: u32) -> CompressorBuilder {
        Limits::of(ratio, head_dim).into()
    }

    /// The launches that were chosen.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Enqueues the compression of up to `next_n` new tokens of each request, `1..=8`. Neither allocates device memory
    /// nor waits; can be captured, and then keeps the buffers that are viewed alive as long as the graph.
    ///
    /// How many new tokens a request has is what `cu_new` says; more than `next_n` make it a bad request. Without
    /// requests, nothing is launched, and addresses may be null.
    ///
    /// # Safety
    /// The tensors that are not views of buffers are valid on the operator's device for what they say, until the launch
    /// (or the last replay of a graph that captured it) has run. Meanwhile nothing else writes what it reads, or uses
    /// what it writes: both pools and the output, which overlap each other and the other arguments nowhere. No two
    /// requests that have new tokens share a page that they are written to.
    ///
    /// # Errors
    /// Those of [`Plan::check_decode`] and [`Kernel::launch`]; [`Error::WrongDevice`]. Nothing is launched then.
    pub unsafe fn enqueue_decode(
        &mut self,
        stream: &Stream,
        next_n: u32,
        args: &CompressArgs,
    ) -> Result<(), Error> {
        let slots = self.plan.decode_slots(next_n, args, self.report.address())?;
        let batch = narrow(args.kv_lens.shape[0]);
        let config = (batch > 0).then(|| self.plan.decode_launch(batch)).transpose()?;
        let kernel = if self.plan.is_many(batch) { &self.decode_many } else { &self.decode };
        // SAFETY: the slots are the plan's for arguments that the caller vouches for.
        unsafe { self.launch(stream, kernel, config, &slots, args.memories()) }
    }

    /// [`enqueue_decode`](Self::enqueue_decode), then [`enqueue_post`](Self::enqueue_post) of the same requests and rows:
    /// in one launch, which is faster, or, where [`Plan::decode_store_entry`] says that there is none, in two. The results
    /// are the same to the bit. In one launch, a request whose length is beyond the cache's table is reported when it
    /// closes a window, and its rows are not stored.
    ///
    /// # Safety
    /// As for both; and two such launches of one operator do not run at the same time.
    ///
    /// # Errors
    /// Those of [`Plan::check_decode_store`] and [`Kernel::launch`]; [`Error::WrongDevice`]. Nothing is launched then.
    pub unsafe fn enqueue_decode_store(
        &mut self,
        stream: &Stream,
        next_n: u32,
        args: &CompressArgs,
        post: &PostArgs,
    ) -> Result<(), Error> {
        let address = self.arrived.as_ref().map_or(0, Buffer::address);
        let slots = self.plan.decode_store_slots(next_n, args, post, self.report.address(), address)?;
        let (Some(slots), Some(kernel), Some(arrived)) = (slots, &self.decode_store, &self.arrived) else {
            // SAFETY: passed on to the caller.
            return unsafe {
                self.enqueue_decode(stream, next_n, args)?;
                self.enqueue_post(stream, post)
            };
        };
        let batch = narrow(args.kv_lens.shape[0]);
        let config = if batch > 0 { self.plan.decode_store_launch(batch)? } else { None };
        if config.is_some() {
            stream.keep_alive(|| arrived.owner());
        }
        let memories = args.memories().chain(post.memories());
        // SAFETY: the slots are the plan's for arguments that the caller vouches for.
        unsafe { self.launch(stream, kernel, config, &slots, memories) }
    }

    /// Enqueues the compression of any number of new tokens of each request. Otherwise as
    /// [`enqueue_decode`](Self::enqueue_decode): the state and the output are the same as after as many launches of
    /// that, but for the order of additions.
    ///
    /// With [`Limits::running`] a token's state needs that of the token before it, and the launch is serial in the
    /// tokens of a request: a warp for each 128 channels of each request walks all of them, so that the launch takes a
    /// time proportional to the new tokens of its longest request, however empty the device is. Requests and channels
    /// are done in parallel. A long prompt alone is much slower than without running softmaxes.
    ///
    /// # Safety
    /// As for [`enqueue_decode`](Self::enqueue_decode).
    ///
    /// # Errors
    /// Those of [`Plan::check_prefill`] and [`Kernel::launch`]; [`Error::WrongDevice`]. Nothing is launched then.
    pub unsafe fn enqueue_prefill(&mut self, stream: &Stream, args: &CompressArgs) -> Result<(), Error> {
        let slots = self.plan.prefill_slots(args, self.report.address())?;
        let [batch, tokens] = [args.kv_lens.shape[0], args.kv_score.shape[0]].map(narrow);
        let config = (batch > 0).then(|| self.plan.prefill_launch(batch, tokens)).transpose()?;
        // SAFETY: the slots are the plan's for arguments that the caller vouches for.
        unsafe { self.launch(stream, &self.prefill, config, &slots, args.memories()) }
    }

    /// Enqueues what comes after a compression of the same requests: the rows that it wrote are normalised, rotated,
    /// quantised and stored in a paged cache. Neither allocates device memory nor waits; can be captured, and then
    /// keeps the buffers that are viewed alive as long as the graph.
    ///
    /// Without requests or without rows, nothing is launched, and addresses may be null.
    ///
    /// # Safety
    /// The tensors that are not views of buffers are valid on the operator's device for what they say, until the launch
    /// (or the last replay of a graph that captured it) has run. Meanwhile nothing else writes what it reads, or uses
    /// what it writes: the cache and the scales of groups, which overlap each other and the other arguments nowhere. No
    /// two requests share a page of the cache that rows are written to.
    ///
    /// # Errors
    /// Those of [`Plan::check_post`] and [`Kernel::launch`]; [`Error::WrongDevice`]. Nothing is launched then.
    pub unsafe fn enqueue_post(&mut self, stream: &Stream, args: &PostArgs) -> Result<(), Error> {
        let slots = self.plan.post_slots(args, self.report.address())?;
        let [batch, rows] = [args.kv_lens.shape[0], args.compressed.shape[0]].map(narrow);
        let config = (batch > 0 && rows > 0).then(|| self.plan.post_launch(rows));
        // SAFETY: the slots are the plan's for arguments that the caller vouches for.
        unsafe { self.launch(stream, &self.post, config, &slots, args.memories()) }
    }

    /// What the launches since the last call left out, or `None` if they left out nothing. Waits for the work enqueued
    /// so far on the device's own streams (not on borrowed ones: synchronise those); not during a capture.
    ///
    /// A launch that runs meanwhile on another stream may be reported now, later or, between the reading and the
    /// clearing, never.
    ///
    /// # Errors
    /// [`Error::DuringCapture`]; [`Error::Driver`], of an earlier launch, too.
    pub fn take_report(&mut self) -> Result<Option<Report>, Error> {
        let mut words = [0; Report::WORDS];
        self.report.download_at(0, &mut words)?;
        let report = Report::from_words(words);
        if report.is_some() {
            self.report.fill_bytes(0)?;
        }
        Ok(report)
    }

    /// Device address of the words that launches report in, `u32[`[`Report::WORDS`]`]`, for those who read and zero
    /// them on their own; see [`Report::from_words`].
    pub fn report_address(&self) -> u64 {
        self.report.address()
    }

    /// Launches `kernel`, or nothing without a configuration.
    ///
    /// # Safety
    /// Apart from the memories, which are checked to be of this device, the slots satisfy the kernel's documentation
    /// until the launch or its last replay has run.
    unsafe fn launch<'a>(
        &self,
        stream: &Stream,
        kernel: &Kernel,
        config: Option<LaunchConfig>,
        slots: &[u64],
        memories: impl Iterator<Item = (&'static str, &'a Memory)> + Clone,
    ) -> Result<(), Error> {
        let device = kernel.device();
        device.same_as(stream.device(), "stream")?;
        memories.clone().try_for_each(|(argument, memory)| device.same_as(&memory.device, argument))?;
        let Some(config) = config else { return Ok(()) };
        for (_, memory) in memories {
            stream.keep_alive(|| memory.owner.clone());
        }
        stream.keep_alive(|| self.report.owner());
        // SAFETY: the caller vouches for the slots. Views are in their buffers, which live until the device is done
        // with them: freeing waits, and a graph keeps them. So do the words that the launch reports in, which are
        // accessed atomically. Every kernel of the table waits for earlier launches.
        unsafe { kernel.launch(stream, &config, slots) }
    }
}

#[cfg(test)]
mod tests {
    use dsa_kernels_gpu::compress::report as kernels;

    use super::*;
    use crate::Graph;
    use crate::compress::{PagedTensor, Reason, Store, Tensor, TensorElement};

    /// Two requests with one new token each, windows of 4, rows of 128.
    fn compressor(device: &Device) -> Compressor {
        Compressor::builder(4, 128).max_batch(2).build(device).unwrap()
    }

    fn zeros<T: TensorElement, const N: usize>(device: &Device, shape: [u64; N]) -> Tensor<N> {
        let buffer = device.alloc::<T>(shape.iter().product::<u64>() as usize).unwrap();
        buffer.fill_bytes(0).unwrap();
        // The tensor keeps the memory.
        Tensor::of(&buffer, shape).unwrap()
    }

    fn compress_args(device: &Device, batch: u64) -> CompressArgs {
        let paged = || PagedTensor {
            pool: zeros::<f32, 3>(device, [2, 8, 256]),
            blocks: zeros::<i32, 2>(device, [batch, 1]),
        };
        CompressArgs {
            kv_score: zeros::<half::bf16, 2>(device, [2, 512]),
            ape: zeros::<f32, 2>(device, [4, 256]),
            kv: paged(),
            score: paged(),
            kv_lens: zeros::<i32, 1>(device, [batch]),
            cu_new: zeros::<i32, 1>(device, [batch + 1]),
            cu_out: zeros::<i32, 1>(device, [batch + 1]),
            output: zeros::<half::bf16, 2>(device, [2, 128]),
        }
    }

    fn post_args(device: &Device, args: &CompressArgs) -> PostArgs {
        let batch = args.kv_lens.shape[0];
        PostArgs {
            compressed: args.output.clone(),
            weight: zeros::<f32, 1>(device, [128]),
            epsilon: 1e-6,
            rotations: zeros::<f32, 2>(device, [16, 64]),
            cache: PagedTensor {
                pool: zeros::<u8, 3>(device, [2, 8, 128]),
                blocks: zeros::<i32, 2>(device, [batch, 1]),
            },
            store: Store::Fp8PerGroup { scales: zeros::<f32, 3>(device, [2, 8, 1]) },
            hadamard: false,
            kv_lens: args.kv_lens.clone(),
            cu_new: args.cu_new.clone(),
            cu_out: args.cu_out.clone(),
        }
    }

    /// Blocks that ran on the emulator since the last call.
    fn blocks(device: &Device) -> u64 {
        device.emulator_statistics().unwrap().blocks
    }

    #[test]
    fn every_launch_runs_with_requests_and_none_without() {
        let device = Device::emulator();
        let (stream, mut compressor) = (device.stream().unwrap(), compressor(&device));
        for (batch, ran) in [(0, [0, 0, 0]), (2, [6, 4, 1])] {
            let args = compress_args(&device, batch);
            let post = post_args(&device, &args);
            blocks(&device);
            // SAFETY: one stream, and buffers that nothing else uses.
            unsafe {
                compressor.enqueue_decode(&stream, 1, &args).unwrap();
                assert_eq!(blocks(&device), ran[0], "decode");
                compressor.enqueue_prefill(&stream, &args).unwrap();
                assert_eq!(blocks(&device), ran[1], "prefill");
                compressor.enqueue_post(&stream, &post).unwrap();
                assert_eq!(blocks(&device), ran[2], "post");
            }
            assert_eq!(compressor.take_report().unwrap(), None);
        }
    }

    #[test]
    fn a_refused_launch_does_not_run() {
        let device = Device::emulator();
        let (stream, mut compressor) = (device.stream().unwrap(), compressor(&device));
        let (args, elsewhere) = (compress_args(&device, 2), Device::emulator());
        let mut small = zeros::<half::bf16, 2>(&device, [1, 512]);
        small.shape = [2, 512];
        let other_stream = elsewhere.stream().unwrap();
        blocks(&device);
        for (broken, words) in [
            (
                CompressArgs { ape: zeros::<f32, 2>(&elsewhere, [4, 256]), ..args.clone() },
                "ape belongs to another device",
            ),
            (
                CompressArgs {
                    score: PagedTensor { blocks: zeros::<i32, 2>(&elsewhere, [2, 1]), ..args.score.clone() },
                    ..args.clone()
                },
                "score.blocks belongs to another device",
            ),
            (CompressArgs { kv_score: small, ..args.clone() }, "within 1024 bytes"),
        ] {
            // SAFETY: refused.
            let (decode, prefill) = unsafe {
                (compressor.enqueue_decode(&stream, 1, &broken), compressor.enqueue_prefill(&stream, &broken))
            };
            for error in [decode.unwrap_err(), prefill.unwrap_err()] {
                assert!(error.to_string().contains(words), "{error}");
            }
        }
        let post = post_args(&device, &args);
        let store = Store::Fp8PerGroup { scales: zeros::<f32, 3>(&elsewhere, [2, 8, 1]) };
        let broken = PostArgs { store, ..post.clone() };
        // SAFETY: refused.
        let errors = unsafe {
            [
                compressor.enqueue_post(&stream, &broken).unwrap_err(),
                compressor.enqueue_post(&other_stream, &post).unwrap_err(),
                compressor.enqueue_decode(&other_stream, 1, &args).unwrap_err(),
            ]
        };
        for (error, argument) in errors.iter().zip(["store.scales", "stream", "stream"]) {
            assert!(
                error.to_string().starts_with(&format!("{argument} belongs to another device")),
                "{error}"
            );
        }
        assert_eq!(blocks(&device), 0);
    }

    #[test]
    fn a_graph_keeps_the_buffers_and_the_report_of_its_launches() {
        let device = Device::emulator();
        let (stream, mut compressor) = (device.stream().unwrap(), compressor(&device));
        let graph = {
            let args = compress_args(&device, 2);
            let post = post_args(&device, &args);
            Graph::capture(&stream, |stream| {
                // SAFETY: one stream; the graph keeps the buffers, which nothing else uses.
                unsafe {
                    compressor.enqueue_decode(stream, 1, &args)?;
                    compressor.enqueue_post(stream, &post)
                }
            })
            .unwrap()
        };
        drop(compressor);
        // 10 and 9 arguments, and for each launch its kernel and the report.
        assert_eq!(graph.resources(), 10 + 9 + 2 * 2);
        graph.launch(&stream).unwrap();
        stream.synchronize().unwrap();
    }

    #[test]
    fn a_report_is_taken_once() {
        let device = Device::emulator();
        let mut compressor = compressor(&device);
        assert_eq!(compressor.report_address() % 4, 0);
        compressor.report.upload(&[kernels::PAGE, !1]).unwrap();
        let report = compressor.take_report().unwrap().unwrap();
        assert_eq!(
            (report.reasons.iter().collect::<Vec<_>>(), report.first_request),
            (vec![Reason::Page], 1)
        );
        assert_eq!(compressor.take_report().unwrap(), None);
        assert_eq!(compressor.report.download().unwrap(), [0, 0]);
    }
}
