//! The compressor.

use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dsa_kernels::compress::{
    CompressArgs, Compressor, CompressorBuilder, ElementType, Limits, NumberType, PagedTensor, PostArgs,
    Report, Store, Tensor,
};
use dsa_kernels::{Device, Error, Stream};

use crate::argument::{self, check_pointer};
use crate::config::{FLAGS, meaning};
use crate::device::{CDevice, address_of, borrow_stream};
use crate::status::Failure;
use crate::status::{Status, catch};
use crate::versioned::{self, Versioned};

/// `dsa_compressor`.
pub struct CCompressor {
    device: Device,
    compressor: Mutex<Compressor>,
}

impl CCompressor {
    fn lock(&self) -> MutexGuard<'_, Compressor> {
        // A panic while the lock was held leaves a valid operator: launches change nothing in it.
        self.compressor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `dsa_compressor_config`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CCompressorConfig {
    /// Bytes of the caller's struct.
    pub size: u32,
    /// Tokens of a window.
    pub ratio: u32,
    /// Channels of an output row.
    pub head_dim: u32,
    /// `dsa_number_type` of the rows of new tokens.
    pub kv_type: u32,
    /// `dsa_number_type` of the state.
    pub state_type: u32,
    /// `dsa_number_type` of the output.
    pub output_type: u32,
    /// Warps of a block of the decode kernel; 0 is the best.
    pub warps: u32,
    /// Whether the state are running softmaxes.
    pub running: u32,
    /// Most requests of a launch; 0 is 4096.
    pub max_batch: u32,
    /// Whether launches start only after the launch before them on the stream has ended.
    pub no_overlap: u32,
}

// SAFETY: numbers only, the size first.
unsafe impl Versioned for CCompressorConfig {
    const ARGUMENT: &'static str = "config";
    const SIZE_ARGUMENT: &'static str = "config->size";
    const SIZE_HELP: &'static str = "set it to sizeof(dsa_compressor_config)";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// The numbers of `dsa_number_type`; none is the default of the field.
const NUMBER_TYPES: &[(u32, Option<NumberType>)] =
    &[(0, None), (1, Some(NumberType::F32)), (2, Some(NumberType::Bf16))];

impl CCompressorConfig {
    /// The limits that these numbers mean.
    ///
    /// # Errors
    /// [`Failure::Library`] for a number that means nothing. What the limits must keep is checked when the
    /// operator is built.
    pub fn limits(&self) -> Result<Limits, Failure> {
        let default = Limits::of(self.ratio, self.head_dim);
        Ok(Limits {
            kv: meaning("config->kv_type", self.kv_type, NUMBER_TYPES)?.unwrap_or(default.kv),
            state: meaning("config->state_type", self.state_type, NUMBER_TYPES)?.unwrap_or(default.state),
            output: meaning("config->output_type", self.output_type, NUMBER_TYPES)?.unwrap_or(default.output),
            warps: Some(self.warps).filter(|&warps| warps > 0),
            running: meaning("config->running", self.running, FLAGS)?,
            max_batch: if self.max_batch == 0 { default.max_batch } else { self.max_batch },
            overlap: !meaning("config->no_overlap", self.no_overlap, FLAGS)?,
            ..default
        })
    }
}

/// `dsa_pages`: paged memory, and the table that says which pages a request has.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CPages {
    /// `[pages, page, columns]`.
    pub pool: *mut c_void,
    /// Elements between pages; 0 is dense.
    pub pitch: u64,
    /// `int32_t[batch, max_blocks]`.
    pub blocks: *const i32,
    /// Elements between its rows; 0 is dense.
    pub blocks_pitch: u64,
    /// Physical pages.
    pub pages: u32,
    /// Entries of a page.
    pub page: u32,
    /// Logical pages of a request.
    pub max_blocks: u32,
}

impl CPages {
    fn tensor(&self, ty: ElementType, columns: u64, batch: u64) -> PagedTensor {
        let shape = [self.pages.into(), self.page.into(), columns];
        PagedTensor {
            pool: tensor(self.pool, self.pitch, ty, shape),
            blocks: tensor(self.blocks, self.blocks_pitch, ElementType::I32, [batch, self.max_blocks.into()]),
        }
    }
}

/// `dsa_compress_args`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CCompressArgs {
    /// Bytes of the caller's struct.
    pub size: u32,
    /// Requests.
    pub batch: u32,
    /// Rows of `kv_score`.
    pub tokens: u32,
    /// Rows of `output`.
    pub rows: u32,
    /// `[tokens, 2 W]`.
    pub kv_score: *const c_void,
    /// Elements between its rows; 0 is dense.
    pub kv_score_pitch: u64,
    /// `float[ratio, W]`.
    pub ape: *const f32,
    /// The first half of the state.
    pub kv: CPages,
    /// The second half of the state.
    pub score: CPages,
    /// `int32_t[batch]`.
    pub kv_lens: *const i32,
    /// `int32_t[batch + 1]`.
    pub cu_new: *const i32,
    /// `int32_t[batch + 1]`.
    pub cu_out: *const i32,
    /// `[rows, head_dim]`.
    pub output: *mut c_void,
    /// Elements between its rows; 0 is dense.
    pub output_pitch: u64,
}

// SAFETY: numbers and raw pointers only, the size first.
unsafe impl Versioned for CCompressArgs {
    const ARGUMENT: &'static str = "args";
    const SIZE_ARGUMENT: &'static str = "args->size";
    const SIZE_HELP: &'static str = "set it to sizeof(dsa_compress_args)";
    const FIRST_SIZE: usize = size_of::<Self>();
}

impl CCompressArgs {
    fn tensors(&self, compressor: &Compressor) -> CompressArgs {
        let (limits, width) = (compressor.plan().limits(), u64::from(compressor.plan().width()));
        let batch = u64::from(self.batch);
        let state = limits.state.into();
        CompressArgs {
            kv_score: tensor(
                self.kv_score,
                self.kv_score_pitch,
                limits.kv.into(),
                [self.tokens.into(), 2 * width],
            ),
            ape: tensor(self.ape, 0, ElementType::F32, [limits.ratio.into(), width]),
            kv: self.kv.tensor(state, width, batch),
            score: self.score.tensor(state, width, batch),
            kv_lens: tensor(self.kv_lens, 0, ElementType::I32, [batch]),
            cu_new: tensor(self.cu_new, 0, ElementType::I32, [batch + 1]),
            cu_out: tensor(self.cu_out, 0, ElementType::I32, [batch + 1]),
            output: tensor(
                self.output,
                self.output_pitch,
                limits.output.into(),
                [self.rows.into(), limits.head_dim.into()],
            ),
        }
    }
}

/// `dsa_post_args`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CPostArgs {
    /// Bytes of the caller's struct.
    pub size: u32,
    /// Requests.
    pub batch: u32,
    /// Rows of `compressed`.
    pub rows: u32,
    /// Rows of `rotations`.
    pub positions: u32,
    /// `dsa_store`.
    pub store: u32,
    /// Whether a Walsh-Hadamard transform comes before the storing.
    pub hadamard: u32,
    /// What is added to the mean square of a row.
    pub epsilon: f32,
    /// `[rows, head_dim]` of the operator's output type.
    pub compressed: *const c_void,
    /// Elements between its rows; 0 is dense.
    pub compressed_pitch: u64,
    /// `float[head_dim]`.
    pub weight: *const f32,
    /// `float[positions, 64]`.
    pub rotations: *const f32,
    /// `[pages, page, head_dim]`.
    pub cache: CPages,
    /// `float[1]`, with one scale for all rows.
    pub scale: *const f32,
    /// `float[pages, page, head_dim / 128]`, with scales of groups.
    pub scales: *mut f32,
    /// Elements between its pages; 0 is dense.
    pub scales_pitch: u64,
    /// `int32_t[batch]`.
    pub kv_lens: *const i32,
    /// `int32_t[batch + 1]`.
    pub cu_new: *const i32,
    /// `int32_t[batch + 1]`.
    pub cu_out: *const i32,
}

// SAFETY: numbers and raw pointers only, the size first.
unsafe impl Versioned for CPostArgs {
    const ARGUMENT: &'static str = "args";
    const SIZE_ARGUMENT: &'static str = "args->size";
    const SIZE_HELP: &'static str = "set it to sizeof(dsa_post_args)";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// What `dsa_store` chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Bf16,
    Fp8PerTensor,
    Fp8PerGroup,
}

/// The numbers of `dsa_store`.
const STORES: &[(u32, Format)] = &[(0, Format::Bf16), (1, Format::Fp8PerTensor), (2, Format::Fp8PerGroup)];

impl CPostArgs {
    fn tensors(&self, compressor: &Compressor) -> Result<PostArgs, Failure> {
        let limits = compressor.plan().limits();
        let (batch, head_dim) = (u64::from(self.batch), u64::from(limits.head_dim));
        let format = meaning("args->store", self.store, STORES)?;
        let (ty, store) = match format {
            Format::Bf16 => (ElementType::Bf16, Store::Bf16),
            Format::Fp8PerTensor => {
                let scale = tensor(self.scale, 0, ElementType::F32, [1]);
                (ElementType::F8E4M3, Store::Fp8PerTensor { scale })
            }
            Format::Fp8PerGroup => {
                let shape = [self.cache.pages.into(), self.cache.page.into(), head_dim / 128];
                let scales = tensor(self.scales, self.scales_pitch, ElementType::F32, shape);
                (ElementType::F8E4M3, Store::Fp8PerGroup { scales })
            }
        };
        // What would not be used is a mistake.
        if format != Format::Fp8PerTensor && !self.scale.is_null() {
            let help = "choose DSA_STORE_FP8_PER_TENSOR to use it";
            return Err(Failure::argument("scale", format!("{:p}", self.scale), "NULL in this format", help));
        }
        if format != Format::Fp8PerGroup && !self.scales.is_null() {
            let help = "choose DSA_STORE_FP8_PER_GROUP to use them";
            return Err(Failure::argument(
                "scales",
                format!("{:p}", self.scales),
                "NULL in this format",
                help,
            ));
        }
        Ok(PostArgs {
            compressed: tensor(
                self.compressed,
                self.compressed_pitch,
                limits.output.into(),
                [self.rows.into(), head_dim],
            ),
            weight: tensor(self.weight, 0, ElementType::F32, [head_dim]),
            epsilon: self.epsilon,
            rotations: tensor(self.rotations, 0, ElementType::F32, [self.positions.into(), 64]),
            cache: self.cache.tensor(ty, head_dim, batch),
            store,
            hadamard: meaning("args->hadamard", self.hadamard, FLAGS)?,
            kv_lens: tensor(self.kv_lens, 0, ElementType::I32, [batch]),
            cu_new: tensor(self.cu_new, 0, ElementType::I32, [batch + 1]),
            cu_out: tensor(self.cu_out, 0, ElementType::I32, [batch + 1]),
        })
    }
}

/// Device memory of the caller. A pitch of 0 is dense.
fn tensor<const N: usize, T>(start: *const T, pitch: u64, ty: ElementType, shape: [u64; N]) -> Tensor<N> {
    let mut tensor = Tensor::raw(address_of(start), ty, shape);
    if pitch != 0 {
        // Checked with everything else before a launch.
        tensor.pitch = pitch;
    }
    tensor
}

/// `dsa_report`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CReport {
    /// Bits of `dsa_reason`; 0 if no request was left out.
    pub reasons: u32,
    /// The lowest request that was left out; 0 if none was.
    pub first_request: u32,
}

impl From<Option<Report>> for CReport {
    fn from(report: Option<Report>) -> Self {
        report.map_or(Self::default(), |report| Self {
            reasons: report.reasons.bits(),
            first_request: report.first_request,
        })
    }
}

/// Builds an operator.
///
/// # Safety
/// `device` is null or an open device, `config` null or as [`versioned::read`] says, `compressor` null or
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_compressor_create(
    device: *const CDevice,
    config: *const CCompressorConfig,
    compressor: *mut *mut CCompressor,
) -> Status {
    catch(|| {
        // SAFETY: the caller's promise.
        let device = unsafe { argument::reference("device", device) }?;
        // SAFETY: the caller's promise.
        let limits = unsafe { versioned::read(config) }?.limits()?;
        check_pointer("compressor", compressor)?;
        let built = CompressorBuilder::from(limits).build(device.device())?;
        let built = Box::new(CCompressor { device: device.device().clone(), compressor: Mutex::new(built) });
        // SAFETY: checked; the caller vouches for it.
        unsafe { argument::store(compressor, Box::into_raw(built)) };
        Ok(())
    })
}

/// Frees an operator, after waiting for its launches. NULL does nothing.
///
/// # Safety
/// `compressor` is null or was created here and not destroyed, and no other call uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_compressor_destroy(compressor: *mut CCompressor) -> Status {
    catch(|| {
        if !compressor.is_null() {
            check_pointer("compressor", compressor)?;
            // SAFETY: made by `Box::into_raw` and, the caller promises, not destroyed before.
            drop(unsafe { Box::from_raw(compressor) });
        }
        Ok(())
    })
}

/// What the three launches have in common: reads the arguments, of which `tensors` makes the operator's, and has `launch`
/// enqueue them.
///
/// # Safety
/// As for [`dsa_compressor_enqueue_decode`].
unsafe fn enqueue<C: Versioned, T>(
    compressor: *const CCompressor,
    args: *const C,
    stream: *mut c_void,
    tensors: impl FnOnce(&C, &Compressor) -> Result<T, Failure>,
    launch: impl FnOnce(&mut Compressor, &Stream, &T) -> Result<(), Error>,
) -> Status {
    catch(|| {
        // SAFETY: the caller's promise.
        let compressor = unsafe { argument::reference("compressor", compressor) }?;
        // SAFETY: the caller's promise.
        let args = unsafe { versioned::read(args) }?;
        let mut operator = compressor.lock();
        let args = tensors(&args, &operator)?;
        // SAFETY: the caller's promise; the value lives for this call only.
        let stream = unsafe { borrow_stream(&compressor.device, stream) }?;
        Ok(launch(&mut operator, &stream, &args)?)
    })
}

/// Enqueues the compression of a few new tokens.
///
/// # Safety
/// `compressor` is null or a live operator, `args` null or as [`versioned::read`] says; the rest is as
/// `dsa_kernels.h` says, which is what [`Compressor::enqueue_decode`] and [`Device::borrow_stream`] ask for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_compressor_enqueue_decode(
    compressor: *const CCompressor,
    next_n: u32,
    args: *const CCompressArgs,
    stream: *mut c_void,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        enqueue(
            compressor,
            args,
            stream,
            |args, operator| Ok(args.tensors(operator)),
            |operator, stream, args| operator.enqueue_decode(stream, next_n, args),
        )
    }
}

/// Enqueues the compression of a few new tokens and the storing of the rows that are written.
///
/// # Safety
/// As for [`dsa_compressor_enqueue_decode`], of both arguments; and as [`Compressor::enqueue_decode_store`] says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_compressor_enqueue_decode_store(
    compressor: *const CCompressor,
    next_n: u32,
    args: *const CCompressArgs,
    post: *const CPostArgs,
    stream: *mut c_void,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        enqueue(
            compressor,
            args,
            stream,
            |args, operator| {
                check_pointer("post", post)?;
                let post = versioned::read(post)?.tensors(operator)?;
                Ok((args.tensors(operator), post))
            },
            |operator, stream, (args, post)| operator.enqueue_decode_store(stream, next_n, args, post),
        )
    }
}

/// Enqueues the compression of any number of new tokens.
///
/// # Safety
/// As for [`dsa_compressor_enqueue_decode`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_compressor_enqueue_prefill(
    compressor: *const CCompressor,
    args: *const CCompressArgs,
    stream: *mut c_void,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        enqueue(
            compressor,
            args,
            stream,
            |args, operator| Ok(args.tensors(operator)),
            |operator, stream, args| operator.enqueue_prefill(stream, args),
        )
    }
}

/// Enqueues the storing of the rows that were written.
///
/// # Safety
/// As for [`dsa_compressor_enqueue_decode`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_compressor_enqueue_post(
    compressor: *const CCompressor,
    args: *const CPostArgs,
    stream: *mut c_void,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        enqueue(compressor, args, stream, CPostArgs::tensors, |operator, stream, args| {
            operator.enqueue_post(stream, args)
        })
    }
}

/// Reads and clears what launches reported.
///
/// # Safety
/// `compressor` is null or a live operator, `report` null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsa_compressor_take_report(
    compressor: *const CCompressor,
    report: *mut CReport,
) -> Status {
    catch(|| {
        // SAFETY: the caller's promise.
        let compressor = unsafe { argument::reference("compressor", compressor) }?;
        check_pointer("report", report)?;
        let taken = compressor.lock().take_report()?;
        // SAFETY: checked; the caller vouches for it.
        unsafe { argument::store(report, taken.into()) };
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use dsa_kernels::compress::Reason;

    use super::*;
    use crate::header;

    const GOOD: CCompressorConfig = CCompressorConfig {
        size: size_of::<CCompressorConfig>() as u32,
        ratio: 4,
        head_dim: 512,
        kv_type: 0,
        state_type: 0,
        output_type: 0,
        warps: 0,
        running: 0,
        max_batch: 0,
        no_overlap: 0,
    };

    #[test]
    fn zeros_are_the_defaults_and_every_field_has_its_meaning() {
        assert_eq!(GOOD.limits().unwrap(), Limits::of(4, 512));
        let full = CCompressorConfig {
            kv_type: 1,
            state_type: 2,
            output_type: 1,
            warps: 4,
            running: 1,
            max_batch: 7,
            no_overlap: 1,
            ..GOOD
        };
        let expected = Limits {
            kv: NumberType::F32,
            state: NumberType::Bf16,
            output: NumberType::F32,
            warps: Some(4),
            running: true,
            max_batch: 7,
            overlap: false,
            ..Limits::of(4, 512)
        };
        assert_eq!(full.limits().unwrap(), expected);
    }

    #[test]
    fn numbers_without_a_meaning_are_refused_by_name() {
        for (bad, words) in [
            (CCompressorConfig { kv_type: 3, ..GOOD }, "config->kv_type is 3, but must be 0..=2"),
            (CCompressorConfig { state_type: 9, ..GOOD }, "config->state_type is 9"),
            (CCompressorConfig { output_type: 9, ..GOOD }, "config->output_type is 9"),
            (CCompressorConfig { running: 2, ..GOOD }, "config->running is 2, but must be 0..=1"),
            (CCompressorConfig { no_overlap: 2, ..GOOD }, "config->no_overlap is 2, but must be 0..=1"),
        ] {
            let error = bad.limits().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn the_header_gives_every_choice_the_same_number() {
        for (name, number) in [("DEFAULT", 0), ("F32", 1), ("BF16", 2)] {
            assert_eq!(header::constant(&format!("DSA_NUMBER_{name}")), Some(number), "{name}");
        }
        for (number, format) in STORES {
            let name = match format {
                Format::Bf16 => "DSA_STORE_BF16",
                Format::Fp8PerTensor => "DSA_STORE_FP8_PER_TENSOR",
                Format::Fp8PerGroup => "DSA_STORE_FP8_PER_GROUP",
            };
            assert_eq!(header::constant(name), Some(i64::from(*number)), "{name}");
        }
        for reason in Reason::ALL {
            let name = format!("DSA_REASON_{reason:?}").to_uppercase();
            let bit = header::constant(&name).unwrap_or_else(|| panic!("no {name}")) as u32;
            let report = Report::from_words([bit, !5]).unwrap();
            assert_eq!(report.reasons.iter().collect::<Vec<_>>(), [reason]);
            assert_eq!(CReport::from(Some(report)), CReport { reasons: bit, first_request: 5 });
        }
        assert_eq!(CReport::from(None), CReport { reasons: 0, first_request: 0 });
    }
}
