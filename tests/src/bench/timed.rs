//! The cells on a GPU: exactness, then times, hot and cold, against the floors and the rivals of the same run.

use std::collections::HashMap;
use std::fs::File;

use dsa_kernels::topk::ScoreType;
use dsa_kernels::{Buffer, Device, Error, Kernel, LaunchConfig, Stream};
use dsa_kernels_probe::FLOOR_THREADS;

use super::chain::{Chain, Rotation};
use super::inputs;
use super::measure::measure;
use super::operator::{CaseError, Operator, Variation};
use super::report::{CaseRecord, RivalRecord};
use super::rival::{Rival, SCRATCH_BYTES};
use super::rivalry::{Ground, compete, without_options};
use super::shapes::{Batch, Case};
use crate::backend;
use crate::distribution::Distribution;
use crate::scores::{rounded, to_bytes};

/// Blocks of the floor kernel per multiprocessor: all that are resident.
const FLOOR_BLOCKS: u32 = 2;

/// Runs cells on one device.
pub struct Timed {
    device: Device,
    stream: Stream,
    cold: bool,
    unproven: bool,
    variation: Variation,
    log: File,
    pool: Pool,
    null: Kernel,
    read_all: Kernel,
    sums: Buffer<u32>,
    /// Times of the floor kernel, by bytes and number of inputs.
    floors: HashMap<(u64, usize), f64>,
    rivals: Vec<Rival>,
    /// Scratch memory of the rivals; empty when there are none.
    scratch: Buffer<u8>,
}

impl Timed {
    /// Loads the floor kernels and fills the pool that `cases` take their scores from; `cold` says
    /// whether cold times are taken, too; criterion's own output goes to `log`. `rivals` run on every cell.
    pub fn new(
        device: &Device,
        cases: &[Case],
        cold: bool,
        variation: Variation,
        log: File,
        rivals: Vec<Rival>,
    ) -> Result<Self, CaseError> {
        let module = backend::probe();
        let grid = FLOOR_BLOCKS * device.properties().multiprocessors;
        let l2_bytes = device.properties().l2_bytes as u64;
        let elements = cases.iter().map(|case| pool_elements(case, cold, l2_bytes)).max().unwrap_or(0);
        Ok(Self {
            device: device.clone(),
            stream: device.stream()?,
            cold,
            unproven: false,
            variation,
            log,
            pool: Pool::new(device, elements)?,
            null: device.load_kernel(&module, "null")?,
            read_all: device.load_kernel(&module, "read_all")?,
            sums: device.alloc((grid * FLOOR_THREADS / 32) as usize)?,
            floors: HashMap::new(),
            scratch: device.alloc(if rivals.is_empty() { 0 } else { SCRATCH_BYTES })?,
            rivals,
        })
    }

    /// The same, but if `unproven`, cells with wrong answers are timed, too.
    #[must_use]
    pub fn with_unproven(self, unproven: bool) -> Self {
        Self { unproven, ..self }
    }

    /// Microseconds per launch of a kernel that does nothing.
    pub fn null_us(&self) -> Result<f64, CaseError> {
        let config = LaunchConfig::new(1, 32);
        let mut chain = Chain::capture(&self.device, &self.stream, &Rotation::HOT, |stream, _| {
            // SAFETY: the kernel has no parameters and touches nothing.
            unsafe { self.null.launch(stream, &config, &[]) }
        })?;
        Ok(measure("floor/null", &mut chain, Some(&self.log))?.median)
    }

    /// Runs one cell; `progress` is told when its answer has been proven, before it is timed.
    pub fn run(&mut self, case: &Case, progress: impl FnOnce(&CaseRecord)) -> CaseRecord {
        let mut record = CaseRecord::of(case);
        if let Err(error) = self.try_run(case, &mut record, progress) {
            record.exact = false;
            record.error = Some(error.to_string());
        }
        record
    }

    fn try_run(
        &mut self,
        case: &Case,
        record: &mut CaseRecord,
        progress: impl FnOnce(&CaseRecord),
    ) -> Result<(), CaseError> {
        let bytes = case.bytes();
        let cold = Rotation::cold(bytes, self.device.properties().l2_bytes as u64);
        let mut operator = Operator::new(&self.device, case, self.variation)?;
        record.path = operator.path();
        let inputs = Inputs::new(&self.device, &self.pool, case, if self.cold { cold.inputs } else { 1 })?;
        let mut hot_chain = self.capture(&mut operator, &inputs, &Rotation::HOT)?;
        let proof = prove(&operator, &mut hot_chain, inputs.host(&self.pool));
        record.exact = proof.is_ok();
        match proof {
            Err(error @ CaseError::Wrong { .. }) if self.unproven => record.error = Some(error.to_string()),
            other => other?,
        }
        progress(record);

        let name = case.name();
        let hot = measure(&format!("hot/{name}"), &mut hot_chain, Some(&self.log))?;
        record.times.set_hot(&hot);
        record.floor_us = Some(self.floor(bytes, &Rotation::HOT)?);
        if self.cold {
            let mut chain = self.capture(&mut operator, &inputs, &cold)?;
            let timed = measure(&format!("cold/{name}"), &mut chain, Some(&self.log))?;
            record.times.set_cold(&timed);
            record.floor_cold_us = Some(self.floor(bytes, &cold)?);
        }
        if record.exact {
            // Thousands of launches later the operator's own state must still be clean.
            prove(&operator, &mut hot_chain, inputs.host(&self.pool))?;
        }
        // Last: a rival that faults takes the device with it.
        record.rivals = self.compete(case, &operator, &inputs, cold);
        Ok(())
    }

    /// The rivals on the cell, with the buffers that the operator was timed with; none runs on a cell with
    /// options.
    fn compete(&self, case: &Case, operator: &Operator, inputs: &Inputs, cold: Rotation) -> Vec<RivalRecord> {
        if case.has_options() {
            return self.rivals.iter().map(|rival| without_options(&rival.name)).collect();
        }
        let ground = Ground {
            device: &self.device,
            stream: &self.stream,
            case,
            inputs: &inputs.addresses,
            lengths: operator.lengths_address(),
            host: inputs.host(&self.pool),
            scratch: &self.scratch,
            cold: self.cold.then_some(cold),
            log: Some(&self.log),
        };
        let run = |rival: &Rival| {
            compete(&rival.name, &ground, |stream, memory| {
                // SAFETY: `compete` passes the addresses of buffers as large as the case says, which outlive
                // its chains; one rival runs at a time.
                unsafe { rival.launch(stream, case, memory) }
            })
        };
        self.rivals.iter().map(run).collect()
    }

    fn capture(&self, operator: &mut Operator, inputs: &Inputs, rotation: &Rotation) -> Result<Chain, Error> {
        Chain::capture(&self.device, &self.stream, rotation, |stream, input| {
            // SAFETY: operator and inputs live until `try_run` ends, longer than the chain, whose
            // replays it waits for.
            unsafe { operator.enqueue(stream, inputs.addresses[input]) }
        })
    }

    /// Microseconds per launch of a kernel that reads as many bytes, measured once.
    fn floor(&mut self, bytes: u64, rotation: &Rotation) -> Result<f64, CaseError> {
        if let Some(&us) = self.floors.get(&(bytes, rotation.inputs)) {
            return Ok(us);
        }
        let elements = words(bytes) as u64;
        let config =
            LaunchConfig::new(FLOOR_BLOCKS * self.device.properties().multiprocessors, FLOOR_THREADS);
        let mut chain = Chain::capture(&self.device, &self.stream, rotation, |stream, input| {
            let slots = [self.pool.window(elements as usize, input), elements, self.sums.address()];
            // SAFETY: the pool holds every window (`pool_elements`), and `sums` a word per warp of the
            // grid; both live as long as `self`.
            unsafe { self.read_all.launch(stream, &config, &slots) }
        })?;
        let kind = if rotation.inputs == 1 { "hot" } else { "cold" };
        let us = measure(&format!("floor/{kind}/{bytes}B"), &mut chain, Some(&self.log))?.median;
        self.floors.insert((bytes, rotation.inputs), us);
        Ok(us)
    }
}

/// Replays the chain over a poisoned output, and proves the answer.
fn prove(operator: &Operator, chain: &mut Chain, scores: &[f32]) -> Result<(), CaseError> {
    operator.poison()?;
    chain.replay(1)?;
    operator.prove(scores)
}

/// Elements of the pool that have so many bytes.
fn words(bytes: u64) -> usize {
    bytes as usize / size_of::<f32>()
}

/// Normal scores on the host and on the device. Windows of it are inputs.
struct Pool {
    host: Vec<f32>,
    device: Buffer<f32>,
}

impl Pool {
    fn new(device: &Device, elements: usize) -> Result<Self, CaseError> {
        let host = inputs::normal_pool(elements)?;
        Ok(Self { device: device.upload(&host)?, host })
    }

    /// Address of window number `input` of `elements` scores; windows do not overlap.
    fn window(&self, elements: usize, input: usize) -> u64 {
        self.device.address() + (input * window_pitch(elements) * size_of::<f32>()) as u64
    }
}

/// Distance of two windows of `elements` scores: every window is aligned to 16 bytes.
fn window_pitch(elements: usize) -> usize {
    elements.next_multiple_of(4)
}

/// Scores that the pool needs for `case` and its floors.
fn pool_elements(case: &Case, cold: bool, l2_bytes: u64) -> usize {
    let inputs = if cold { Rotation::cold(case.bytes(), l2_bytes).inputs } else { 1 };
    let windows = inputs * window_pitch(words(case.bytes()));
    if case.distribution == Distribution::Normal { windows.max(footprint(case)) } else { windows }
}

/// Scores from the first of the first row to the end of the last row's pitch.
fn footprint(case: &Case) -> usize {
    case.rows() as usize * case.pitch() as usize
}

/// The inputs of one cell: windows of the pool where rows are normal, unpadded and f32, else buffers of
/// their own with the same contents.
struct Inputs {
    /// One address per input.
    addresses: Vec<u64>,
    /// The contents, where they are not a prefix of the pool.
    own: Option<Vec<f32>>,
    footprint: usize,
    _buffers: Vec<Buffer<u8>>,
}

impl Inputs {
    fn new(device: &Device, pool: &Pool, case: &Case, count: usize) -> Result<Self, CaseError> {
        let footprint = footprint(case);
        let normal = case.distribution == Distribution::Normal;
        let kind = case.options.scores;
        if normal && kind == ScoreType::F32 && matches!(case.batch, Batch::Even { .. }) {
            let addresses = (0..count).map(|input| pool.window(footprint, input)).collect();
            return Ok(Self { addresses, own: None, footprint, _buffers: Vec::new() });
        }
        let own = match (normal, kind) {
            (true, ScoreType::F32) => None,
            (true, _) => Some(pool.host[..footprint].iter().map(|&score| rounded(kind, score)).collect()),
            (false, _) => Some(inputs::scores(case)?),
        };
        let bytes = to_bytes(kind, own.as_deref().unwrap_or_else(|| &pool.host[..footprint]));
        let buffers = (0..count).map(|_| device.upload(&bytes)).collect::<Result<Vec<_>, _>>()?;
        let addresses = buffers.iter().map(Buffer::address).collect();
        Ok(Self { addresses, own, footprint, _buffers: buffers })
    }

    /// The first input as the host has it.
    fn host<'a>(&'a self, pool: &'a Pool) -> &'a [f32] {
        self.own.as_deref().unwrap_or_else(|| &pool.host[..self.footprint])
    }
}

#[cfg(test)]
mod tests {
    use super::super::shapes;
    use super::*;

    #[test]
    fn the_pool_holds_every_window_of_every_cell() {
        let l2_bytes = 60 << 20;
        for case in shapes::full() {
            let inputs = Rotation::cold(case.bytes(), l2_bytes).inputs;
            let window = words(case.bytes());
            let last_end = (inputs - 1) * window_pitch(window) + window;
            assert!(pool_elements(&case, true, l2_bytes) >= last_end, "{case}");
            assert!(pool_elements(&case, false, l2_bytes) >= case.elements() as usize, "{case}");
        }
    }

    #[test]
    fn inputs_of_other_types_are_the_rounded_pool_in_buffers_of_their_own() {
        let device = Device::emulator();
        let case = Case { batch: Batch::Even { rows: 2, len: 1_001 }, ..shapes::types().remove(0) };
        let pool = Pool::new(&device, pool_elements(&case, false, 0)).unwrap();
        let inputs = Inputs::new(&device, &pool, &case, 3).unwrap();
        let expected: Vec<_> =
            pool.host[..2_002].iter().map(|&score| rounded(ScoreType::Bf16, score)).collect();
        assert_eq!(inputs.host(&pool), expected);
        assert_eq!(inputs.addresses.len(), 3);
        for buffer in &inputs._buffers {
            assert_eq!(buffer.download().unwrap(), to_bytes(ScoreType::Bf16, &expected));
        }
    }

    #[test]
    fn inputs_of_other_distributions_need_no_pool() {
        let device = Device::emulator();
        let batch = Batch::Mixed { label: "padded", pitch: 4_096, max_len: 4_096, lengths: vec![100; 3] };
        let case = Case { distribution: Distribution::Uniform, batch, ..shapes::types().remove(0) };
        let pool = Pool::new(&device, pool_elements(&case, false, 0)).unwrap();
        let inputs = Inputs::new(&device, &pool, &case, 1).unwrap();
        assert_eq!(inputs.host(&pool).len(), footprint(&case), "{case}");
    }

    #[test]
    fn the_pool_of_the_whole_benchmark_stays_within_half_a_gibibyte() {
        let most = shapes::full().iter().map(|case| pool_elements(case, true, 60 << 20)).max().unwrap();
        assert!(most * size_of::<f32>() <= 512 << 20, "{most} scores");
    }
}
