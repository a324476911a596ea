//! What can be checked of a launch's arguments without reading device memory.

use std::fmt::{self, Display};

use dsa_kernels_gpu::compress::{self as kernels, post};

use crate::Error;
use crate::check::{check_address, check_range};
use crate::compress::plan::MOST;
use crate::compress::{CompressArgs, ElementType, NumberType, PagedTensor, Plan, PostArgs, Store, Tensor};

/// What arrays that kernels read and write as vectors are aligned to, in bytes.
const VECTOR: u64 = 16;
/// What arrays are aligned to whose elements of 4 bytes are read or written one by one, in bytes.
pub(crate) const WORD: u64 = 4;
impl Plan {
    /// Checks what can be checked of a compression of a few new tokens without reading device memory.
    ///
    /// # Errors
    /// [`Error::Argument`], naming the argument: `next_n` outside `1..=8`, more requests than the limit, a type, shape
    /// or pitch that is not as [`CompressArgs`] says, a null or misaligned address. Without requests, addresses are not
    /// looked at.
    pub fn check_decode(&self, next_n: u32, args: &CompressArgs) -> Result<(), Error> {
        let help = "compress more tokens than that with the prefill kernel";
        check_range("next_n", next_n, 1, kernels::MAX_NEXT_N, help)?;
        self.check_compress(args)
    }

    /// Checks what can be checked of a compression of any number of new tokens without reading device memory.
    ///
    /// # Errors
    /// As for [`check_decode`](Self::check_decode); and [`Error::Argument`] for a grid beyond what a device has.
    pub fn check_prefill(&self, args: &CompressArgs) -> Result<(), Error> {
        self.check_compress(args)?;
        self.prefill_launch(narrow(args.kv_lens.shape[0]), narrow(args.kv_score.shape[0]))?;
        Ok(())
    }

    fn check_compress(&self, args: &CompressArgs) -> Result<(), Error> {
        let limits = self.limits();
        let (state, width) = (limits.state.into(), u64::from(self.width()));
        let batch = self.check_offsets(&args.kv_lens, &args.cu_new, &args.cu_out)?;
        let tokens = Wanted::of(limits.kv, [Named("tokens", 0), Exactly(2 * width)]);
        tokens.check("kv_score", &args.kv_score, batch)?;
        let ape = [Exactly(u64::from(limits.ratio)), Exactly(width)];
        Wanted::of(NumberType::F32, ape).dense().check("ape", &args.ape, batch)?;
        let [page, max_blocks] = [Named("page", 1), Named("max_blocks", 1)];
        check_paged(["kv.pool", "kv.blocks"], &args.kv, state, [page, Exactly(width), max_blocks], batch)?;
        // Both halves of a token's row are found by one number of a page and one place in it.
        let [page, max_blocks] = [args.kv.pool.shape[1], args.kv.blocks.shape[1]].map(Exactly);
        check_paged(
            ["score.pool", "score.blocks"],
            &args.score,
            state,
            [page, Exactly(width), max_blocks],
            batch,
        )?;
        let output = Wanted::of(limits.output, [Named("rows", 0), Exactly(u64::from(limits.head_dim))]);
        output.check("output", &args.output, batch)
    }

    /// Checks what can be checked of a compression of a few new tokens whose rows are stored, without reading device memory.
    ///
    /// # Errors
    /// Those of [`check_decode`](Self::check_decode) and [`check_post`](Self::check_post); and [`Error::Argument`] if what
    /// the two have in common is not the same memory: `compressed` and the output, `kv_lens`, `cu_new`, `cu_out`.
    pub fn check_decode_store(&self, next_n: u32, args: &CompressArgs, post: &PostArgs) -> Result<(), Error> {
        self.check_decode(next_n, args)?;
        self.check_post(post)?;
        check_same("compressed", &post.compressed, "output", &args.output)?;
        check_same("kv_lens", &post.kv_lens, "kv_lens", &args.kv_lens)?;
        check_same("cu_new", &post.cu_new, "cu_new", &args.cu_new)?;
        check_same("cu_out", &post.cu_out, "cu_out", &args.cu_out)
    }

    /// Checks what can be checked of the storing of rows without reading device memory.
    ///
    /// # Errors
    /// [`Error::Argument`], naming the argument: more requests than the limit, a type, shape or pitch that is not as
    /// [`PostArgs`] says, an epsilon that is negative or not finite, a null or misaligned address. Without requests or
    /// rows, addresses are not looked at.
    pub fn check_post(&self, args: &PostArgs) -> Result<(), Error> {
        let head_dim = u64::from(self.limits().head_dim);
        let requests = self.check_offsets(&args.kv_lens, &args.cu_new, &args.cu_out)?;
        let batch = Batch { launched: requests.launched && args.compressed.shape[0] > 0, ..requests };
        if !matches!(args.compressed.ty, ElementType::F32 | ElementType::Bf16) {
            let value = format!("of {}", args.compressed.ty);
            return Err(Error::argument(
                "compressed",
                value,
                "of f32 or bf16",
                "pass the output of a compression",
            ));
        }
        Wanted::of(args.compressed.ty, [Named("rows", 0), Exactly(head_dim)]).check(
            "compressed",
            &args.compressed,
            batch,
        )?;
        Wanted::of(NumberType::F32, [Exactly(head_dim)]).dense().check("weight", &args.weight, batch)?;
        if !(args.epsilon.is_finite() && args.epsilon >= 0.0) {
            let help = "pass what is added to the mean square of a row";
            return Err(Error::argument("epsilon", args.epsilon, "a finite number of at least 0", help));
        }
        let rotations = [Named("positions", 0), Exactly(u64::from(post::ROTATED))];
        Wanted::of(NumberType::F32, rotations).dense().check("rotations", &args.rotations, batch)?;
        let stored = match args.store {
            Store::Bf16 => ElementType::Bf16,
            Store::Fp8PerTensor { .. } | Store::Fp8PerGroup { .. } => ElementType::F8E4M3,
        };
        let sizes = [Named("page", 1), Exactly(head_dim), Named("max_blocks", 1)];
        check_paged(["cache.pool", "cache.blocks"], &args.cache, stored, sizes, batch)?;
        let argument = args.store.argument();
        match &args.store {
            Store::Bf16 => Ok(()),
            Store::Fp8PerTensor { scale } => {
                let wanted = Wanted::of(NumberType::F32, [Exactly(1)]);
                wanted.aligned(WORD).dense().check(argument, scale, batch)
            }
            Store::Fp8PerGroup { scales } => {
                let [blocks, page, _] = args.cache.pool.shape.map(Exactly);
                let groups = Exactly(head_dim / u64::from(post::GROUP));
                let wanted = Wanted::of(NumberType::F32, [blocks, page, groups]);
                wanted.aligned(WORD).check(argument, scales, batch)
            }
        }
    }

    /// Checks the arrays that say which tokens and rows are whose.
    fn check_offsets(
        &self,
        kv_lens: &Tensor<1>,
        cu_new: &Tensor<1>,
        cu_out: &Tensor<1>,
    ) -> Result<Batch, Error> {
        let requests = kv_lens.shape[0];
        self.check_batch(requests)?;
        let batch = Batch { requests, launched: requests > 0 };
        Wanted::words([Exactly(requests)]).dense().check("kv_lens", kv_lens, batch)?;
        Wanted::words([Exactly(requests + 1)]).dense().check("cu_new", cu_new, batch)?;
        Wanted::words([Exactly(requests + 1)]).dense().check("cu_out", cu_out, batch)?;
        Ok(batch)
    }
}

/// A number of entries that was checked to be at most [`MOST`].
pub(crate) fn narrow(entries: u64) -> u32 {
    u32::try_from(entries).unwrap_or(u32::MAX)
}

/// What all arguments of a launch share.
#[derive(Clone, Copy)]
struct Batch {
    /// Entries of `kv_lens`.
    requests: u64,
    /// Whether there is anything to do, so that addresses matter.
    launched: bool,
}

/// What a dimension must be.
#[derive(Clone, Copy)]
enum Size {
    Exactly(u64),
    /// By name, from a lowest number to [`MOST`].
    Named(&'static str, u64),
}
use Size::{Exactly, Named};

impl Size {
    fn allows(self, entries: u64) -> bool {
        match self {
            Exactly(wanted) => entries == wanted,
            Named(_, lowest) => (lowest..=u64::from(MOST)).contains(&entries),
        }
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exactly(wanted) => write!(f, "{wanted}"),
            Named(name, lowest) => write!(f, "{name} in {lowest}..={MOST}"),
        }
    }
}

/// What a tensor must be.
#[derive(Clone, Copy)]
struct Wanted<const N: usize> {
    ty: ElementType,
    shape: [Size; N],
    /// Of the address and of the pitch, in bytes.
    alignment: u64,
    dense: bool,
}

impl<const N: usize> Wanted<N> {
    /// Numbers that are read or written as vectors.
    fn of(ty: impl Into<ElementType>, shape: [Size; N]) -> Self {
        Self { ty: ty.into(), shape, alignment: VECTOR, dense: false }
    }

    /// Words that are read one by one.
    fn words(shape: [Size; N]) -> Self {
        Self { alignment: WORD, ..Self::of(ElementType::I32, shape) }
    }

    fn aligned(self, alignment: u64) -> Self {
        Self { alignment, ..self }
    }

    /// Without a pitch that the kernel would know.
    fn dense(self) -> Self {
        Self { dense: true, ..self }
    }

    fn check(&self, argument: &'static str, tensor: &Tensor<N>, batch: Batch) -> Result<(), Error> {
        if tensor.ty != self.ty {
            let (value, limit) = (format!("of {}", tensor.ty), format!("of {}", self.ty));
            return Err(Error::argument(
                argument,
                value,
                limit,
                "build the operator for the types that you have",
            ));
        }
        if !self.shape.iter().zip(tensor.shape).all(|(size, entries)| size.allows(entries)) {
            let wanted = self.shape.map(|size| size.to_string()).join(", ");
            let (value, limit) = (format!("of shape {:?}", tensor.shape), format!("of shape [{wanted}]"));
            return Err(Error::argument(argument, value, limit, "pass the shape in elements"));
        }
        self.check_pitch(argument, tensor)?;
        if batch.launched && !tensor.is_empty() {
            check_address(argument, tensor.address, self.alignment)?;
            tensor.check_memory(argument)?;
        }
        Ok(())
    }

    fn check_pitch(&self, argument: &'static str, tensor: &Tensor<N>) -> Result<(), Error> {
        tensor.check_pitch(argument)?;
        let value = format!("of pitch {}", tensor.pitch);
        if self.dense && tensor.pitch != tensor.dense_pitch() {
            let limit = format!("dense, of pitch {}", tensor.dense_pitch());
            return Err(Error::argument(argument, value, limit, "copy it without gaps"));
        }
        let elements = self.alignment / self.ty.bytes();
        if !self.dense && !tensor.pitch.is_multiple_of(elements) {
            let limit =
                format!("of a pitch that is a multiple of {elements} elements ({} bytes)", self.alignment);
            return Err(Error::argument(argument, value, limit, "pad to a multiple of that"));
        }
        Ok(())
    }
}

/// Checks pages and their table: `[page, columns, max_blocks]` are what they must be.
fn check_paged(
    [pool, blocks]: [&'static str; 2],
    paged: &PagedTensor,
    ty: ElementType,
    [page, columns, max_blocks]: [Size; 3],
    batch: Batch,
) -> Result<(), Error> {
    Wanted::of(ty, [Named("blocks", 1), page, columns]).check(pool, &paged.pool, batch)?;
    Wanted::words([Exactly(batch.requests), max_blocks]).check(blocks, &paged.blocks, batch)
}

/// Requires that the argument of what comes after a compression is what it was given.
fn check_same<const N: usize>(
    argument: &'static str,
    tensor: &Tensor<N>,
    of: &'static str,
    compression: &Tensor<N>,
) -> Result<(), Error> {
    let is = |tensor: &Tensor<N>| (tensor.address, tensor.ty, tensor.shape, tensor.pitch);
    if is(tensor) == is(compression) {
        return Ok(());
    }
    let show = |tensor: &Tensor<N>| {
        format!("{}{:?} with pitch {} at {:#x}", tensor.ty, tensor.shape, tensor.pitch, tensor.address)
    };
    let limit = format!("the {of} of the compression, {}", show(compression));
    Err(Error::argument(argument, show(tensor), limit, "pass both the same, or use two launches"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Device;
    use crate::compress::Limits;

    /// Requests, new tokens, output rows, entries of a page, logical pages of a request.
    const BATCH: u64 = 3;
    const TOKENS: u64 = 7;
    const ROWS: u64 = 5;
    const PAGE: u64 = 16;
    const MAX_BLOCKS: u64 = 9;

    pub(crate) fn plan(limits: Limits) -> Plan {
        Plan::new(Limits { max_batch: 4, ..limits }, Device::emulator().properties()).unwrap()
    }

    fn words<const N: usize>(shape: [u64; N]) -> Tensor<N> {
        Tensor::raw(0x1004, ElementType::I32, shape)
    }

    fn paged(ty: ElementType, pages: u64, columns: u64) -> PagedTensor {
        let pool = Tensor::raw(0x1000, ty, [pages, PAGE, columns]);
        PagedTensor { pool, blocks: words([BATCH, MAX_BLOCKS]) }
    }

    /// Arguments that are right, at addresses that no kernel may be launched with.
    pub(crate) fn compress_args(plan: &Plan) -> CompressArgs {
        let limits = plan.limits();
        let width = u64::from(plan.width());
        CompressArgs {
            kv_score: Tensor::raw(0x1000, limits.kv.into(), [TOKENS, 2 * width]),
            ape: Tensor::raw(0x1000, ElementType::F32, [limits.ratio.into(), width]),
            kv: paged(limits.state.into(), 20, width),
            score: paged(limits.state.into(), 21, width),
            kv_lens: words([BATCH]),
            cu_new: words([BATCH + 1]),
            cu_out: words([BATCH + 1]),
            output: Tensor::raw(0x1000, limits.output.into(), [ROWS, limits.head_dim.into()]),
        }
    }

    /// Arguments that are right, at addresses that no kernel may be launched with.
    pub(crate) fn post_args(plan: &Plan, store: Store) -> PostArgs {
        let head_dim = plan.limits().head_dim.into();
        let ty = if matches!(store, Store::Bf16) { ElementType::Bf16 } else { ElementType::F8E4M3 };
        PostArgs {
            compressed: Tensor::raw(0x1000, plan.limits().output.into(), [ROWS, head_dim]),
            weight: Tensor::raw(0x1000, ElementType::F32, [head_dim]),
            epsilon: 1e-6,
            rotations: Tensor::raw(0x1000, ElementType::F32, [1000, 64]),
            cache: paged(ty, 22, head_dim),
            store,
            hadamard: false,
            kv_lens: words([BATCH]),
            cu_new: words([BATCH + 1]),
            cu_out: words([BATCH + 1]),
        }
    }

    pub(crate) fn per_tensor() -> Store {
        Store::Fp8PerTensor { scale: Tensor::raw(0x1004, ElementType::F32, [1]) }
    }

    pub(crate) fn per_group(plan: &Plan) -> Store {
        let groups = u64::from(plan.limits().head_dim) / 128;
        Store::Fp8PerGroup { scales: Tensor::raw(0x1004, ElementType::F32, [22, PAGE, groups]) }
    }

    /// All limits whose arguments differ.
    fn all_limits() -> impl Iterator<Item = Limits> {
        let types = [NumberType::F32, NumberType::Bf16];
        let shapes = [(4, 128), (4, 512), (128, 128), (128, 512)];
        shapes.into_iter().flat_map(move |(ratio, head_dim)| {
            types.into_iter().flat_map(move |kv| {
                types.into_iter().map(move |state| Limits {
                    kv,
                    state,
                    output: kv,
                    ..Limits::of(ratio, head_dim)
                })
            })
        })
    }

    /// Refused, with the argument, its value and the limit in the message.
    fn assert_refused(checked: Result<(), Error>, words: [&str; 2]) {
        let error = checked.expect_err(&format!("not refused: {words:?}"));
        assert!(matches!(error, Error::Argument { .. }), "{error:?}");
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text} lacks one of {words:?}");
    }

    #[test]
    fn right_arguments_are_taken() {
        for plan in all_limits().map(plan) {
            let args = compress_args(&plan);
            for next_n in 1..=8 {
                plan.check_decode(next_n, &args).unwrap();
            }
            plan.check_prefill(&args).unwrap();
            for store in [Store::Bf16, per_tensor(), per_group(&plan)] {
                plan.check_post(&post_args(&plan, store)).unwrap();
            }
        }
    }

    #[test]
    fn every_wrong_argument_of_a_compression_is_refused_by_name() {
        use ElementType::{Bf16, F8E4M3, F32, I32};
        type Case = (fn(&mut CompressArgs), [&'static str; 2]);
        // bf16 tokens, f32 state, bf16 output; W = 512.
        let plan = plan(Limits::of(128, 512));
        let cases: &[Case] = &[
            (|a| a.kv_score.ty = F32, ["kv_score is of f32,", "of bf16"]),
            (
                |a| a.kv_score.shape[1] = 512,
                ["kv_score is of shape [7, 512]", "tokens in 0..=2147483647, 1024]"],
            ),
            (
                |a| a.kv_score.shape[0] = 1 << 31,
                ["kv_score is of shape [2147483648, 1024]", "0..=2147483647"],
            ),
            (|a| a.kv_score.pitch = 1016, ["kv_score is of pitch 1016", "at least 1024 elements"]),
            (
                |a| a.kv_score.pitch = 1028,
                ["kv_score is of pitch 1028", "a multiple of 8 elements (16 bytes)"],
            ),
            (
                |a| a.kv_score.pitch = 1 << 62,
                ["kv_score is bf16 [7, 1024] of pitch 46", "within 64-bit addresses"],
            ),
            (|a| a.kv_score.address = 0, ["kv_score is null", "a device address"]),
            (|a| a.kv_score.address = 0x1008, ["kv_score is 0x1008", "aligned to 16 bytes"]),
            (|a| a.kv_score.address = u64::MAX - 15, ["kv_score is bf16", "within 64-bit addresses"]),
            (|a| a.ape.ty = Bf16, ["ape is of bf16,", "of f32"]),
            (|a| a.ape.shape[0] = 4, ["ape is of shape [4, 512]", "[128, 512]"]),
            (|a| a.ape.shape[1] = 1024, ["ape is of shape [128, 1024]", "[128, 512]"]),
            (|a| a.ape.pitch = 516, ["ape is of pitch 516", "dense, of pitch 512"]),
            (|a| a.ape.address = 0, ["ape is null", "a device address"]),
            (|a| a.ape.address = 0x1004, ["ape is 0x1004", "aligned to 16 bytes"]),
            (|a| a.kv.pool.ty = Bf16, ["kv.pool is of bf16,", "of f32"]),
            (|a| a.kv.pool.shape[0] = 0, ["kv.pool is of shape [0, 16, 512]", "blocks in 1..=2147483647"]),
            (
                |a| a.kv.pool.shape[1] = 0,
                ["kv.pool is of shape [20, 0, 512]", "page in 1..=2147483647, 512]"],
            ),
            (|a| a.kv.pool.shape[2] = 1024, ["kv.pool is of shape [20, 16, 1024]", ", 512]"]),
            (|a| a.kv.pool.pitch = 8188, ["kv.pool is of pitch 8188", "at least 8192 elements"]),
            (|a| a.kv.pool.pitch = 8194, ["kv.pool is of pitch 8194", "a multiple of 4 elements (16 bytes)"]),
            (|a| a.kv.pool.address = 0, ["kv.pool is null", "a device address"]),
            (|a| a.kv.pool.address = 0x1004, ["kv.pool is 0x1004", "aligned to 16 bytes"]),
            (|a| a.kv.blocks.ty = F32, ["kv.blocks is of f32,", "of i32"]),
            (
                |a| a.kv.blocks.shape[0] = 2,
                ["kv.blocks is of shape [2, 9]", "[3, max_blocks in 1..=2147483647]"],
            ),
            (|a| a.kv.blocks.shape[1] = 0, ["kv.blocks is of shape [3, 0]", "max_blocks in 1..=2147483647"]),
            (|a| a.kv.blocks.pitch = 8, ["kv.blocks is of pitch 8", "at least 9 elements"]),
            (|a| a.kv.blocks.address = 0, ["kv.blocks is null", "a device address"]),
            (|a| a.kv.blocks.address = 0x1002, ["kv.blocks is 0x1002", "aligned to 4 bytes"]),
            (|a| a.score.pool.ty = F8E4M3, ["score.pool is of f8e4m3,", "of f32"]),
            (|a| a.score.pool.shape[0] = 0, ["score.pool is of shape [0, 16, 512]", "blocks in 1..="]),
            (|a| a.score.pool.shape[1] = 8, ["score.pool is of shape [21, 8, 512]", "16, 512]"]),
            (|a| a.score.pool.shape[2] = 128, ["score.pool is of shape [21, 16, 128]", "16, 512]"]),
            (|a| a.score.pool.pitch = 0, ["score.pool is of pitch 0", "at least 8192 elements"]),
            (|a| a.score.pool.address = 0x1008, ["score.pool is 0x1008", "aligned to 16 bytes"]),
            (|a| a.score.blocks.ty = Bf16, ["score.blocks is of bf16,", "of i32"]),
            (|a| a.score.blocks.shape[1] = 10, ["score.blocks is of shape [3, 10]", "[3, 9]"]),
            (|a| a.score.blocks.shape[0] = 4, ["score.blocks is of shape [4, 9]", "[3, 9]"]),
            (|a| a.score.blocks.pitch = 5, ["score.blocks is of pitch 5", "at least 9 elements"]),
            (|a| a.score.blocks.address = 0x1001, ["score.blocks is 0x1001", "aligned to 4 bytes"]),
            (|a| a.kv_lens.ty = F32, ["kv_lens is of f32,", "of i32"]),
            (|a| a.kv_lens.shape[0] = 5, ["batch is 5", "at most max_batch = 4"]),
            (|a| a.kv_lens.shape[0] = 1 << 40, ["batch is 1099511627776", "at most max_batch = 4"]),
            (|a| a.kv_lens.pitch = 2, ["kv_lens is of pitch 2", "dense, of pitch 1"]),
            (|a| a.kv_lens.address = 0, ["kv_lens is null", "a device address"]),
            (|a| a.kv_lens.address = 0x1002, ["kv_lens is 0x1002", "aligned to 4 bytes"]),
            (|a| a.cu_new.ty = F32, ["cu_new is of f32,", "of i32"]),
            (|a| a.cu_new.shape[0] = 3, ["cu_new is of shape [3]", "[4]"]),
            (|a| a.cu_new.pitch = 0, ["cu_new is of pitch 0", "at least 1 elements"]),
            (|a| a.cu_new.address = 0x1006, ["cu_new is 0x1006", "aligned to 4 bytes"]),
            (|a| a.cu_out.ty = F32, ["cu_out is of f32,", "of i32"]),
            (|a| a.cu_out.shape[0] = 5, ["cu_out is of shape [5]", "[4]"]),
            (|a| a.cu_out.pitch = 3, ["cu_out is of pitch 3", "dense, of pitch 1"]),
            (|a| a.cu_out.address = 0, ["cu_out is null", "a device address"]),
            (|a| a.output.ty = I32, ["output is of i32,", "of bf16"]),
            (|a| a.output.shape[1] = 128, ["output is of shape [5, 128]", "[rows in 0..=2147483647, 512]"]),
            (
                |a| a.output.shape[0] = u64::MAX,
                ["output is of shape [18446744073709551615, 512]", "rows in 0..="],
            ),
            (|a| a.output.pitch = 504, ["output is of pitch 504", "at least 512 elements"]),
            (|a| a.output.pitch = 513, ["output is of pitch 513", "a multiple of 8 elements (16 bytes)"]),
            (|a| a.output.address = 0, ["output is null", "a device address"]),
            (|a| a.output.address = 0x1002, ["output is 0x1002", "aligned to 16 bytes"]),
        ];
        for (break_one, words) in cases {
            let mut args = compress_args(&plan);
            break_one(&mut args);
            assert_refused(plan.check_decode(4, &args), *words);
            assert_refused(plan.check_prefill(&args), *words);
            assert!(
                plan.decode_slots(4, &args, 0x1000).is_err() && plan.prefill_slots(&args, 0x1000).is_err()
            );
        }
        let args = compress_args(&plan);
        assert_refused(plan.check_decode(0, &args), ["next_n is 0", "1..=8"]);
        assert_refused(plan.check_decode(9, &args), ["next_n is 9", "1..=8"]);
        assert_refused(plan.decode_slots(4, &args, 0).map(drop), ["report is null", "a device address"]);
        assert_refused(
            plan.prefill_slots(&args, 0x1002).map(drop),
            ["report is 0x1002", "aligned to 4 bytes"],
        );
    }

    #[test]
    fn every_wrong_argument_of_the_storing_is_refused_by_name() {
        use ElementType::{Bf16, F8E4M3, F32, I32};
        type Case = (fn(&mut PostArgs), [&'static str; 2]);
        let plan = plan(Limits::of(4, 512));
        let cases: &[Case] = &[
            (|a| a.compressed.ty = I32, ["compressed is of i32", "of f32 or bf16"]),
            (
                |a| a.compressed.shape[1] = 128,
                ["compressed is of shape [5, 128]", "rows in 0..=2147483647, 512]"],
            ),
            (|a| a.compressed.pitch = 500, ["compressed is of pitch 500", "at least 512"]),
            (
                |a| a.compressed.pitch = 516,
                ["compressed is of pitch 516", "a multiple of 8 elements (16 bytes)"],
            ),
            (|a| a.compressed.address = 0, ["compressed is null", "a device address"]),
            (|a| a.compressed.address = 0x1008, ["compressed is 0x1008", "aligned to 16 bytes"]),
            (|a| a.weight.ty = Bf16, ["weight is of bf16", "of f32"]),
            (|a| a.weight.shape[0] = 128, ["weight is of shape [128]", "[512]"]),
            (|a| a.weight.pitch = 2, ["weight is of pitch 2", "dense, of pitch 1"]),
            (|a| a.weight.address = 0x1004, ["weight is 0x1004", "aligned to 16 bytes"]),
            (|a| a.epsilon = -1.0, ["epsilon is -1", "a finite number of at least 0"]),
            (|a| a.epsilon = f32::NAN, ["epsilon is NaN", "a finite number of at least 0"]),
            (|a| a.epsilon = f32::INFINITY, ["epsilon is inf", "a finite number of at least 0"]),
            (|a| a.rotations.ty = Bf16, ["rotations is of bf16", "of f32"]),
            (
                |a| a.rotations.shape[1] = 32,
                ["rotations is of shape [1000, 32]", "positions in 0..=2147483647, 64]"],
            ),
            (|a| a.rotations.pitch = 128, ["rotations is of pitch 128", "dense, of pitch 64"]),
            (|a| a.rotations.address = 0x1008, ["rotations is 0x1008", "aligned to 16 bytes"]),
            (|a| a.cache.pool.ty = F32, ["cache.pool is of f32", "of f8e4m3"]),
            (|a| a.cache.pool.ty = Bf16, ["cache.pool is of bf16", "of f8e4m3"]),
            (|a| a.cache.pool.shape[1] = 0, ["cache.pool is of shape [22, 0, 512]", "page in 1..="]),
            (|a| a.cache.pool.shape[2] = 513, ["cache.pool is of shape [22, 16, 513]", ", 512]"]),
            (
                |a| a.cache.pool.pitch = 8200,
                ["cache.pool is of pitch 8200", "a multiple of 16 elements (16 bytes)"],
            ),
            (|a| a.cache.pool.address = 0x1008, ["cache.pool is 0x1008", "aligned to 16 bytes"]),
            (|a| a.cache.blocks.ty = F8E4M3, ["cache.blocks is of f8e4m3", "of i32"]),
            (|a| a.cache.blocks.shape[0] = 1, ["cache.blocks is of shape [1, 9]", "[3, max_blocks in 1..="]),
            (|a| a.cache.blocks.address = 0, ["cache.blocks is null", "a device address"]),
            (|a| a.store = Store::Bf16, ["cache.pool is of f8e4m3", "of bf16"]),
            (|a| scales(a).ty = I32, ["store.scales is of i32", "of f32"]),
            (|a| scales(a).shape[0] = 21, ["store.scales is of shape [21, 16, 4]", "[22, 16, 4]"]),
            (|a| scales(a).shape[1] = 8, ["store.scales is of shape [22, 8, 4]", "[22, 16, 4]"]),
            (|a| scales(a).shape[2] = 1, ["store.scales is of shape [22, 16, 1]", "[22, 16, 4]"]),
            (|a| scales(a).pitch = 63, ["store.scales is of pitch 63", "at least 64 elements"]),
            (|a| scales(a).address = 0, ["store.scales is null", "a device address"]),
            (|a| scales(a).address = 0x1002, ["store.scales is 0x1002", "aligned to 4 bytes"]),
            (|a| scale(a).ty = Bf16, ["store.scale is of bf16", "of f32"]),
            (|a| scale(a).shape[0] = 2, ["store.scale is of shape [2]", "[1]"]),
            (|a| scale(a).address = 0x1001, ["store.scale is 0x1001", "aligned to 4 bytes"]),
            (|a| a.kv_lens.shape[0] = 5, ["batch is 5", "at most max_batch = 4"]),
            (|a| a.kv_lens.address = 0x1002, ["kv_lens is 0x1002", "aligned to 4 bytes"]),
            (|a| a.cu_new.shape[0] = 3, ["cu_new is of shape [3]", "[4]"]),
            (|a| a.cu_out.shape[0] = 3, ["cu_out is of shape [3]", "[4]"]),
        ];
        for (break_one, words) in cases {
            let mut args = post_args(&plan, per_group(&plan));
            break_one(&mut args);
            assert_refused(plan.check_post(&args), *words);
            assert!(plan.post_slots(&args, 0x1000).is_err());
        }
        let args = post_args(&plan, Store::Bf16);
        assert_refused(plan.post_slots(&args, 1).map(drop), ["report is 0x1", "aligned to 4 bytes"]);
    }

    fn scales(args: &mut PostArgs) -> &mut Tensor<3> {
        match &mut args.store {
            Store::Fp8PerGroup { scales } => scales,
            _ => unreachable!("built so"),
        }
    }

    fn scale(args: &mut PostArgs) -> &mut Tensor<1> {
        args.store = per_tensor();
        match &mut args.store {
            Store::Fp8PerTensor { scale } => scale,
            _ => unreachable!("built so"),
        }
    }

    #[test]
    fn without_requests_or_elements_addresses_may_be_null() {
        let plan = plan(Limits::of(4, 128));
        let mut args = compress_args(&plan);
        args.kv_score = Tensor::raw(0, ElementType::Bf16, [0, 512]);
        args.output = Tensor::raw(0, ElementType::Bf16, [0, 128]);
        plan.check_decode(1, &args).unwrap();
        let post = PostArgs { compressed: args.output.clone(), ..post_args(&plan, Store::Bf16) };
        plan.check_post(&PostArgs { weight: Tensor::raw(0, ElementType::F32, [128]), ..post }).unwrap();

        for table in [&mut args.kv.blocks, &mut args.score.blocks] {
            *table = Tensor::raw(0, ElementType::I32, [0, MAX_BLOCKS]);
        }
        (args.kv_lens, args.ape.address) = (Tensor::raw(0, ElementType::I32, [0]), 0);
        (args.cu_new, args.cu_out) =
            (Tensor::raw(0, ElementType::I32, [1]), Tensor::raw(0, ElementType::I32, [1]));
        plan.check_decode(1, &args).unwrap();
        plan.check_prefill(&args).unwrap();
        args.ape.ty = ElementType::Bf16;
        assert_refused(plan.check_decode(1, &args), ["ape is of bf16", "of f32"]);
    }

    #[test]
    fn what_a_decode_that_stores_has_in_common_must_be_the_same() {
        let plan = plan(Limits::of(4, 512));
        let args = compress_args(&plan);
        let post = PostArgs {
            compressed: args.output.clone(),
            kv_lens: args.kv_lens.clone(),
            cu_new: args.cu_new.clone(),
            cu_out: args.cu_out.clone(),
            ..post_args(&plan, Store::Bf16)
        };
        plan.check_decode_store(4, &args, &post).unwrap();
        let mut other = post.clone();
        other.compressed.address += 16;
        assert_refused(
            plan.check_decode_store(4, &args, &other),
            ["compressed", "the output of the compression"],
        );
        let mut other = post.clone();
        other.cu_out.address += 4;
        assert_refused(
            plan.check_decode_store(4, &args, &other),
            ["cu_out", "the cu_out of the compression"],
        );
        let mut other = post;
        other.epsilon = -1.0;
        assert_refused(plan.check_decode_store(4, &args, &other), ["epsilon", "-1"]);
        assert_refused(plan.check_decode_store(9, &args, &other), ["next_n", "1..=8"]);
    }
}
