//! The operator.

use crate::topk::{Limits, Order, Path, Plan, Score, ScoreType, Ties, TopKArgs};
use crate::{Buffer, Device, Error, Kernel, Module, Stream, Workspace};

/// Selects the indices of the k largest scores of each row, in one launch whose shape never depends on device
/// data: captured in a graph, it stays right when lengths and contents change.
///
/// # Contract
/// | argument | meaning |
/// |---|---|
/// | scores | f32, f16 or bf16, row `r` at `scores + r * pitch` elements, aligned to one; `max_len` elements of each row are readable, and none behind its length is ever selected |
/// | lengths | i32 per row (or per sequence, see [`TopKBuilder::next_n`]); below 1 is an empty row, above `max_len` is clamped |
/// | out | i32 `[rows, k]`: `min(k, len)` distinct indices into the row, then -1 |
/// | values, on request | `[rows, k]` of the scores' type: the score at each index, bit for bit, then -inf |
///
/// The selected values are exactly the k largest, for every input. NaN ranks below every number, -inf included;
/// -0.0 equals +0.0. The order of the indices, and which of several equal scores are taken, may differ from
/// launch to launch, unless [`TopKBuilder::order`] and [`TopKBuilder::ties`] ask for more. With both, the output
/// is the same in every run, whatever the other rows and the device.
///
/// # State
/// The operator owns [`Plan::state_bytes`] bytes of device memory that every launch leaves zero. Launches of
/// one operator, replays of graphs included, must not overlap in time: use it on one stream, or one operator
/// per stream. Launches of different operators may overlap.
///
/// A launch that the emulator stops with a fault leaves the state as it was then; the next `enqueue` zeroes
/// it first. After a fault in a *replay*, build the operator anew.
///
/// ```
/// use dsa_kernels::{Device, TopK, Workspace};
///
/// let device = Device::emulator(); // or Device::best().0
/// let stream = device.stream()?;
/// let mut workspace = Workspace::new(&device);
/// let mut topk = TopK::builder(2).max_rows(2).max_len(4).build(&device)?;
///
/// let scores = device.upload(&[0.5f32, 3.0, 2.0, -1.0, /* row 1: */ 7.0, 8.0, 9.0, 9.5])?;
/// let lengths = device.upload(&[4i32, 1])?;
/// let mut out = device.alloc::<i32>(2 * 2)?;
/// // SAFETY: one stream; nothing else writes the inputs.
/// unsafe { topk.enqueue_buffers(&stream, &mut workspace, &scores, 4, &lengths, 2, &mut out)? };
///
/// let out = out.download()?;
/// assert_eq!(std::collections::BTreeSet::from([out[0], out[1]]), [1, 2].into());
/// assert_eq!(out[2..], [0, -1]);
/// # Ok::<(), dsa_kernels::Error>(())
/// ```
///
/// The kernels' own documentation (`dsa_kernels_gpu::topk`) describes the algorithms and where their ideas come
/// from.
#[derive(Debug)]
pub struct TopK {
    plan: Plan,
    /// Those of [`Plan::entries`].
    kernels: Vec<Kernel>,
    state: Buffer<u32>,
    /// The emulator stopped the last launch: the state may not be zero.
    faulted: bool,
}

/// Builds a [`TopK`].
#[derive(Clone, Copy, Debug)]
pub struct TopKBuilder {
    limits: Limits,
}

impl From<Limits> for TopKBuilder {
    fn from(limits: Limits) -> Self {
        Self { limits }
    }
}

impl TopKBuilder {
    /// Most rows of a launch; 1 unless set.
    #[must_use]
    pub fn max_rows(mut self, rows: u32) -> Self {
        self.limits.max_rows = rows;
        self
    }

    /// Longest valid prefix of a row in elements; 131,072 unless set.
    #[must_use]
    pub fn max_len(mut self, elements: u32) -> Self {
        self.limits.max_len = elements;
        self
    }

    /// Rows per sequence (multi-token prediction); 1 unless set. Lengths are then given per sequence: row
    /// `s * next_n + j` has `(lengths[s] - next_n + 1 + j) / compress_ratio` elements.
    #[must_use]
    pub fn next_n(mut self, rows: u32) -> Self {
        self.limits.next_n = rows;
        self
    }

    /// What lengths are divided by, rounding down; 1 unless set.
    #[must_use]
    pub fn compress_ratio(mut self, ratio: u32) -> Self {
        self.limits.compress_ratio = ratio;
        self
    }

    /// The type of the scores; f32 unless set.
    #[must_use]
    pub fn scores(mut self, scores: ScoreType) -> Self {
        self.limits.scores = scores;
        self
    }

    /// Which of several equal scores are selected; any unless set.
    #[must_use]
    pub fn ties(mut self, ties: Ties) -> Self {
        self.limits.ties = ties;
        self
    }

    /// The order of the output; any unless set.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.limits.order = order;
        self
    }

    /// Whether launches also write the selected scores ([`TopKArgs::values`]); not unless set.
    #[must_use]
    pub fn values(mut self, values: bool) -> Self {
        self.limits.values = values;
        self
    }

    /// How rows are selected; [`Path::Auto`] unless set.
    #[must_use]
    pub fn path(mut self, path: Path) -> Self {
        self.limits.path = path;
        self
    }

    /// Most multiprocessors that a launch may take; all unless set.
    #[must_use]
    pub fn max_sms(mut self, multiprocessors: u32) -> Self {
        self.limits.max_sms = Some(multiprocessors);
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

    /// Checks the limits, loads the kernels and allocates the operator's state. Blocks; not during a capture.
    ///
    /// # Errors
    /// Those of [`Plan::new`], [`Device::load_kernel`] and [`Device::alloc`].
    pub fn build(self, device: &Device) -> Result<TopK, Error> {
        self.build_with(device, &Module::topk())
    }

    /// [`build`](Self::build) with other PTX of the kernels: `module` is [`Module::topk`] after
    /// [`Module::with_ptx_from`].
    ///
    /// # Errors
    /// Those of [`build`](Self::build).
    pub fn build_with(self, device: &Device, module: &Module) -> Result<TopK, Error> {
        let plan = Plan::new(self.limits, device.properties())?;
        let load = |entry| device.load_kernel(module, entry);
        let kernels = plan.entries().into_iter().map(load).collect::<Result<_, _>>()?;
        let state = device.alloc(plan.state_bytes() / 4)?;
        state.fill_bytes(0)?;
        Ok(TopK { plan, kernels, state, faulted: false })
    }
}

impl TopK {
    /// A builder for an operator that selects `k` elements of each row, `1..=4096`.
    pub fn builder(k: u32) -> TopKBuilder {
        Limits::of(k).into()
    }

    /// The launch that was chosen.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of workspace that [`enqueue`](Self::enqueue) asks for.
    pub fn workspace_bytes(&self) -> usize {
        self.plan.workspace_bytes()
    }

    /// Enqueues the selection. Neither allocates device memory nor waits; can be captured.
    ///
    /// With no rows, nothing is launched, and addresses may be null.
    ///
    /// # Safety
    /// The addresses are valid on the operator's device for what [`TopKArgs`] says, until the launch (or the
    /// last replay of a graph that captured it) has run; meanwhile nothing writes scores or lengths, and `out`
    /// does not overlap them. Launches of this operator, replays included, do not overlap in time.
    ///
    /// # Errors
    /// Those of [`Plan::check`], [`Workspace::get_simultaneous`] and [`Kernel::launch`]. Nothing is launched
    /// then.
    pub unsafe fn enqueue(
        &mut self,
        stream: &Stream,
        workspace: &mut Workspace,
        args: &TopKArgs,
    ) -> Result<(), Error> {
        self.plan.check(args)?;
        self.state.device().same_as(workspace.device(), "workspace")?;
        let scratch = match self.plan.workspace_bytes() {
            0 => 0,
            bytes => workspace.get_simultaneous("TopK", &[bytes])?[0],
        };
        let slots = self.plan.slots(args, self.state.address(), scratch)?;
        if args.rows == 0 {
            return Ok(());
        }
        stream.keep_alive(|| self.state.owner());
        if let Some(owner) = workspace.owner() {
            stream.keep_alive(|| owner);
        }
        if self.faulted {
            self.state.fill_async(stream, 0)?;
        }
        let entry = self.plan.entry(args.rows);
        let kernel = self.kernels.iter().find(|kernel| kernel.entry().name == entry);
        let kernel = kernel.expect("the plan's entries are those of all launches");
        // SAFETY: the slots are the plan's for arguments that the caller vouches for; the state is this
        // operator's, zero, and not in use by another launch.
        let launched = unsafe { kernel.launch(stream, &self.plan.launch_config(args.rows), &slots) };
        self.faulted = matches!(launched, Err(Error::Emulator(_)));
        launched
    }

    /// [`enqueue`](Self::enqueue) on buffers of this library, whose sizes are checked. `pitch` is in elements.
    ///
    /// A graph that captures the launch keeps the buffers alive.
    ///
    /// # Safety
    /// Until the launch (or the last replay) has run, nothing writes scores or lengths. Launches of this
    /// operator, replays included, do not overlap in time. With one stream for all of that there is nothing
    /// to take care of.
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue); [`Error::Argument`] for a buffer that is too small or scores of
    /// another type than the operator's; [`Error::WrongDevice`].
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn enqueue_buffers<S: Score>(
        &mut self,
        stream: &Stream,
        workspace: &mut Workspace,
        scores: &Buffer<S>,
        pitch: u64,
        lengths: &Buffer<i32>,
        rows: u32,
        out: &mut Buffer<i32>,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.enqueue_checked(stream, workspace, scores, pitch, lengths, rows, out, None) }
    }

    /// [`enqueue_buffers`](Self::enqueue_buffers) for an operator with values.
    ///
    /// # Safety
    /// As for [`enqueue_buffers`](Self::enqueue_buffers).
    ///
    /// # Errors
    /// As for [`enqueue_buffers`](Self::enqueue_buffers).
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn enqueue_buffers_with_values<S: Score>(
        &mut self,
        stream: &Stream,
        workspace: &mut Workspace,
        scores: &Buffer<S>,
        pitch: u64,
        lengths: &Buffer<i32>,
        rows: u32,
        out: &mut Buffer<i32>,
        values: &mut Buffer<S>,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.enqueue_checked(stream, workspace, scores, pitch, lengths, rows, out, Some(values)) }
    }

    /// # Safety
    /// As for [`enqueue_buffers`](Self::enqueue_buffers).
    #[allow(clippy::too_many_arguments)]
    unsafe fn enqueue_checked<S: Score>(
        &mut self,
        stream: &Stream,
        workspace: &mut Workspace,
        scores: &Buffer<S>,
        pitch: u64,
        lengths: &Buffer<i32>,
        rows: u32,
        out: &mut Buffer<i32>,
        values: Option<&mut Buffer<S>>,
    ) -> Result<(), Error> {
        let device = self.state.device();
        device.same_as(scores.device(), "scores")?;
        device.same_as(lengths.device(), "lengths")?;
        device.same_as(out.device(), "out")?;
        let limits = self.plan.limits();
        if limits.scores != S::TYPE {
            let limit = format!("a buffer of {}, the type of the operator", limits.scores);
            let help = "build the operator for these scores";
            return Err(Error::argument("scores", format!("a buffer of {}", S::TYPE), limit, help));
        }
        let args = TopKArgs {
            scores: scores.address(),
            pitch,
            rows,
            lengths: lengths.address(),
            out: out.address(),
            values: values.as_ref().map_or(0, |values| values.address()),
        };
        self.plan.check(&args)?;
        let all_but_last = u64::from(rows.saturating_sub(1)) * pitch;
        let last = if rows > 0 { u64::from(limits.max_len) } else { 0 };
        let selected = u64::from(rows) * u64::from(limits.k);
        check_len("scores", scores.len(), all_but_last + last)?;
        check_len("lengths", lengths.len(), u64::from(rows / limits.next_n))?;
        check_len("out", out.len(), selected)?;
        if let Some(values) = values {
            device.same_as(values.device(), "values")?;
            check_len("values", values.len(), selected)?;
            stream.keep_alive(|| values.owner());
        }
        for owner in [scores.owner(), lengths.owner(), out.owner()] {
            stream.keep_alive(|| owner);
        }
        // SAFETY: the buffers are large enough, of the right types, do not overlap and live until the device
        // is done with them: freeing waits, and a graph keeps them. The caller vouches for the rest.
        unsafe { self.enqueue(stream, workspace, &args) }
    }
}

fn check_len(argument: &'static str, len: usize, needed: u64) -> Result<(), Error> {
    if len as u64 >= needed {
        return Ok(());
    }
    let limit = format!("at least {needed} elements");
    Err(Error::argument(argument, format!("a buffer of {len} elements"), limit, "allocate a larger buffer"))
}
