//! The parameters of the kernels.

use dsa_kernels_gpu::compress::post;
use dsa_simt::Slot;

use crate::check::check_address;
use crate::compress::check::{WORD, narrow};
use crate::compress::{CompressArgs, ElementType, NumberType, Plan, PostArgs, Store};
use crate::{Error, Slots};

impl Plan {
    /// The parameters of [`decode_entry`](Self::decode_entry), one slot each in order, for
    /// [`Kernel::launch`](crate::Kernel::launch) or any other binding: `kernelParams[i]` is the address of slot `i`. A
    /// request may have up to `next_n` new tokens. `report` is the address of
    /// [`Report::WORDS`](crate::compress::Report::WORDS) words that were zeroed once.
    ///
    /// # Errors
    /// Those of [`check_decode`](Self::check_decode), and [`Error::Argument`] for the address of the report.
    pub fn decode_slots(&self, next_n: u32, args: &CompressArgs, report: u64) -> Result<Slots, Error> {
        self.check_decode(next_n, args)?;
        check_address("report", report, WORD)?;
        let batch = narrow(args.kv_lens.shape[0]);
        let parts = self.decode_parts(self.decode(batch), batch);
        let mut slots = Slots::new();
        slots.extend(words(&self.compress_parameters(args, next_n, parts, report)));
        Ok(slots)
    }

    /// The parameters of [`decode_store_entry`](Self::decode_store_entry), as [`decode_slots`](Self::decode_slots), if
    /// there is that kernel. `arrived` is the address of [`decode_store_words`](Self::decode_store_words) words that were
    /// zeroed once; launches that have them in common do not run at the same time.
    ///
    /// # Errors
    /// Those of [`check_decode_store`](Self::check_decode_store), and [`Error::Argument`] for the other two addresses.
    pub fn decode_store_slots(
        &self,
        next_n: u32,
        args: &CompressArgs,
        post: &PostArgs,
        report: u64,
        arrived: u64,
    ) -> Result<Option<Slots>, Error> {
        self.check_decode_store(next_n, args, post)?;
        check_address("report", report, WORD)?;
        let Some(kernel) = self.decode_store() else { return Ok(None) };
        check_address("arrived", arrived, WORD)?;
        let parts = self.decode_parts(kernel, narrow(args.kv_lens.shape[0]));
        let mut slots = Slots::new();
        slots.extend(words(&self.compress_parameters(args, next_n, parts, report)));
        slots.extend(words(&Self::store_parameters(post)));
        slots.extend([arrived]);
        Ok(Some(slots))
    }

    /// The parameters of [`prefill_entry`](Self::prefill_entry), as [`decode_slots`](Self::decode_slots).
    ///
    /// # Errors
    /// Those of [`check_prefill`](Self::check_prefill), and [`Error::Argument`] for the address of the report.
    pub fn prefill_slots(&self, args: &CompressArgs, report: u64) -> Result<Slots, Error> {
        self.check_prefill(args)?;
        check_address("report", report, WORD)?;
        let [batch, tokens] = [args.kv_lens.shape[0], args.kv_score.shape[0]].map(narrow);
        let parts = self.prefill_parts(batch, tokens);
        let mut slots = Slots::new();
        slots.extend(words(&self.compress_parameters(args, tokens, parts, report)));
        Ok(slots)
    }

    /// The parameters of [`post_entry`](Self::post_entry), as [`decode_slots`](Self::decode_slots).
    ///
    /// # Errors
    /// Those of [`check_post`](Self::check_post), and [`Error::Argument`] for the address of the report.
    pub fn post_slots(&self, args: &PostArgs, report: u64) -> Result<Slots, Error> {
        self.check_post(args)?;
        check_address("report", report, WORD)?;
        let (before, after) = self.post_parameters(args, report);
        let mut slots = Slots::new();
        slots.extend(words(&before));
        slots.extend(words(&Self::store_parameters(args)));
        slots.extend(words(&after));
        Ok(slots)
    }

    /// The parameters of a kernel that takes a batch, in order, with their names. The arguments were checked.
    fn compress_parameters(&self, args: &CompressArgs, max_new: u32, parts: u32, report: u64) -> [Named; 28] {
        use Word::{Address, Number, Pitch};
        let limits = self.limits();
        let count = |entries: u64| Number(narrow(entries));
        [
            ("kv_score", Address(args.kv_score.address)),
            ("kv_score_pitch", Pitch(args.kv_score.pitch)),
            ("ape", Address(args.ape.address)),
            ("kv_pool", Address(args.kv.pool.address)),
            ("kv_page_pitch", Pitch(args.kv.pool.pitch)),
            ("kv_pages", count(args.kv.pool.shape[0])),
            ("kv_blocks", Address(args.kv.blocks.address)),
            ("kv_blocks_pitch", Pitch(args.kv.blocks.pitch)),
            ("score_pool", Address(args.score.pool.address)),
            ("score_page_pitch", Pitch(args.score.pool.pitch)),
            ("score_pages", count(args.score.pool.shape[0])),
            ("score_blocks", Address(args.score.blocks.address)),
            ("score_blocks_pitch", Pitch(args.score.blocks.pitch)),
            ("page", count(args.kv.pool.shape[1])),
            ("max_blocks", count(args.kv.blocks.shape[1])),
            ("kv_lens", Address(args.kv_lens.address)),
            ("cu_new", Address(args.cu_new.address)),
            ("cu_out", Address(args.cu_out.address)),
            ("out", Address(args.output.address)),
            ("out_pitch", Pitch(args.output.pitch)),
            ("out_bf16", Number(u32::from(limits.output == NumberType::Bf16))),
            ("report", Address(report)),
            ("batch", count(args.kv_lens.shape[0])),
            ("tokens", count(args.kv_score.shape[0])),
            ("rows", count(args.output.shape[0])),
            ("head_dim", Number(limits.head_dim)),
            ("max_new", Number(max_new)),
            ("parts", Number(parts)),
        ]
    }

    /// The parameters of the kernel that stores rows, in order, with their names: these, those of
    /// [`store_parameters`](Self::store_parameters), then these. The arguments were checked.
    fn post_parameters(&self, args: &PostArgs, report: u64) -> ([Named; 3], [Named; 8]) {
        use Word::{Address, Number, Pitch};
        let count = |entries: u64| Number(narrow(entries));
        let before = [
            ("compressed", Address(args.compressed.address)),
            ("compressed_pitch", Pitch(args.compressed.pitch)),
            ("compressed_bf16", Number(u32::from(args.compressed.ty == ElementType::Bf16))),
        ];
        let after = [
            ("kv_lens", Address(args.kv_lens.address)),
            ("cu_new", Address(args.cu_new.address)),
            ("cu_out", Address(args.cu_out.address)),
            ("report", Address(report)),
            ("batch", count(args.kv_lens.shape[0])),
            ("rows", count(args.compressed.shape[0])),
            ("head_dim", Number(self.limits().head_dim)),
            ("ratio", Number(self.limits().ratio)),
        ];
        (before, after)
    }

    /// The parameters that say how rows are stored.
    fn store_parameters(args: &PostArgs) -> [Named; 15] {
        use Word::{Address, Number, Pitch, Real};
        use post::Options;
        let count = |entries: u64| Number(narrow(entries));
        let (format, scales, scales_pitch, scale) = match &args.store {
            Store::Bf16 => (0, 0, 0, 0),
            Store::Fp8PerTensor { scale } => (Options::FP8_TENSOR, 0, 0, scale.address),
            Store::Fp8PerGroup { scales } => (Options::FP8_GROUPS, scales.address, scales.pitch, 0),
        };
        let options = format | if args.hadamard { Options::HADAMARD } else { 0 };
        [
            ("weight", Address(args.weight.address)),
            ("epsilon", Real(args.epsilon)),
            ("rotations", Address(args.rotations.address)),
            ("positions", count(args.rotations.shape[0])),
            ("cache", Address(args.cache.pool.address)),
            ("cache_page_pitch", Pitch(args.cache.pool.pitch)),
            ("cache_pages", count(args.cache.pool.shape[0])),
            ("cache_blocks", Address(args.cache.blocks.address)),
            ("cache_blocks_pitch", Pitch(args.cache.blocks.pitch)),
            ("cache_page", count(args.cache.pool.shape[1])),
            ("cache_max_blocks", count(args.cache.blocks.shape[1])),
            ("scales", Address(scales)),
            ("scales_page_pitch", Pitch(scales_pitch)),
            ("scale", Address(scale)),
            ("options", Number(options)),
        ]
    }
}

/// A parameter with its name.
type Named = (&'static str, Word);

/// A parameter of a kernel.
#[derive(Clone, Copy)]
enum Word {
    Address(u64),
    Pitch(u64),
    Number(u32),
    Real(f32),
}

/// The slots of some parameters.
fn words<const N: usize>(parameters: &[Named; N]) -> [u64; N] {
    parameters.map(|(_, word)| match word {
        Word::Address(word) | Word::Pitch(word) => word,
        Word::Number(number) => number.to_slot(),
        Word::Real(number) => number.to_slot(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Module;
    use crate::compress::Limits;
    use crate::compress::check::tests::{compress_args, per_group, per_tensor, plan, post_args};

    /// Requires names and types in the order of the kernel's.
    fn assert_parameters(entry: &str, parts: &[&[Named]]) {
        let entry = Module::compress().entry(entry).unwrap();
        let ours: Vec<_> = parts
            .concat()
            .into_iter()
            .map(|(name, word)| match word {
                Word::Address(_) => (name, "*"),
                Word::Pitch(_) => (name, "u64"),
                Word::Number(_) => (name, "u32"),
                Word::Real(_) => (name, "f32"),
            })
            .collect();
        let theirs: Vec<_> = entry
            .parameters
            .iter()
            .map(|parameter| (parameter.name, if parameter.ty.starts_with('*') { "*" } else { parameter.ty }))
            .collect();
        assert_eq!(ours, theirs, "{}", entry.name);
    }

    #[test]
    fn there_is_one_slot_for_each_parameter_in_the_kernels_order() {
        for ratio in [4, 128] {
            for running in [false, true] {
                let plan = plan(Limits { running, ..Limits::of(ratio, 512) });
                let args = compress_args(&plan);
                assert_parameters(plan.decode_entry(1), &[&plan.compress_parameters(&args, 4, 1, 0x1000)]);
                assert_parameters(plan.prefill_entry(), &[&plan.compress_parameters(&args, 7, 4, 0x1000)]);
                for store in [Store::Bf16, per_tensor(), per_group(&plan)] {
                    let post = post_args(&plan, store);
                    let ((before, after), how) =
                        (plan.post_parameters(&post, 0x1000), Plan::store_parameters(&post));
                    assert_parameters(plan.post_entry(), &[&before, &how, &after]);
                    if let Some(entry) = plan.decode_store_entry() {
                        let compress = plan.compress_parameters(&args, 4, 1, 0x1000);
                        let arrived = [("arrived", Word::Address(0x1000))];
                        assert_parameters(entry, &[&compress, &how, &arrived]);
                    }
                }
            }
        }
    }

    #[test]
    fn slots_hold_what_the_arguments_say() {
        let plan = plan(Limits::of(4, 512));
        let mut args = compress_args(&plan);
        args.kv_score = args.kv_score.with_pitch(2080).unwrap();
        let value = |slots: &Slots, entry: &str, name: &str| {
            let entry = Module::compress().entry(entry).unwrap();
            slots[entry.parameters.iter().position(|parameter| parameter.name == name).unwrap()]
        };
        let decode = plan.decode_slots(3, &args, 0x2000).unwrap();
        for (name, expected) in [
            ("kv_score_pitch", 2080),
            ("kv_page_pitch", 16 * 1024),
            ("kv_pages", 20),
            ("score_pages", 21),
            ("kv_blocks_pitch", 9),
            ("page", 16),
            ("max_blocks", 9),
            ("out_bf16", 1),
            ("report", 0x2000),
            ("batch", 3),
            ("tokens", 7),
            ("rows", 5),
            ("head_dim", 512),
            ("max_new", 3),
            ("parts", 1),
        ] {
            assert_eq!(value(&decode, plan.decode_entry(3), name), expected, "{name}");
        }
        // All new tokens may be one request's; 6 chunks in 2 parts are more than two for each of 4 multiprocessors.
        let prefill = plan.prefill_slots(&args, 0x2000).unwrap();
        for (name, expected) in [("max_new", 7), ("parts", 2)] {
            assert_eq!(value(&prefill, plan.prefill_entry(), name), expected, "{name}");
        }
        for (store, hadamard, options, [scale, scales, pitch]) in [
            (Store::Bf16, false, 0, [0, 0, 0]),
            (Store::Bf16, true, post::Options::HADAMARD, [0, 0, 0]),
            (per_tensor(), false, post::Options::FP8_TENSOR, [0x1004, 0, 0]),
            (per_group(&plan), true, post::Options::FP8_GROUPS | post::Options::HADAMARD, [0, 0x1004, 64]),
        ] {
            let args = PostArgs { hadamard, ..post_args(&plan, store) };
            let slots = plan.post_slots(&args, 0x2000).unwrap();
            for (name, expected) in [
                ("options", options.into()),
                ("scale", scale),
                ("scales", scales),
                ("scales_page_pitch", pitch),
                ("epsilon", u64::from(1e-6f32.to_bits())),
                ("positions", 1000),
                ("compressed_bf16", 1),
                ("ratio", 4),
            ] {
                assert_eq!(value(&slots, plan.post_entry(), name), expected, "{name}");
            }
        }
    }
}
