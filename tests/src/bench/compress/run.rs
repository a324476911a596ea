//! Runs cells: on a GPU they are proven, then timed; on the emulator they are proven.

use std::fs::File;

use dsa_kernels::{Device, LaunchConfig, Stream};
use dsa_kernels_probe::FLOOR_THREADS;

use super::super::chain::{Chain, Rotation};
use super::super::measure::measure;
use super::super::operator::CaseError;
use super::super::report::CompressRecord;
use super::cells::{Cell, Work};
use super::operator::Operator;
use super::sets::{Pattern, Sets};
use crate::backend;

/// Bytes that the copy reads, and as many that it writes: far more than any cache.
const COPIED: usize = 256 << 20;
/// Blocks of the copy per multiprocessor: all that are resident.
const COPY_BLOCKS: u32 = 2;

/// Runs cells on one GPU.
pub struct Timed {
    device: Device,
    stream: Stream,
    is_cold: bool,
    overlap: bool,
    log: File,
    pattern: Pattern,
    /// Bytes that a copy reads and writes in a microsecond.
    copy: f64,
}

impl Timed {
    /// Measures the copy. Cold times are taken if `is_cold`; launches overlap if `overlap`; criterion's own output goes
    /// to `log`.
    ///
    /// # Errors
    /// Those of the library.
    pub fn new(device: &Device, is_cold: bool, overlap: bool, log: File) -> Result<Self, CaseError> {
        let stream = device.stream()?;
        let copy = copy_bandwidth(device, &stream, &log)?;
        Ok(Self { device: device.clone(), stream, is_cold, overlap, log, pattern: Pattern::new(), copy })
    }

    /// Bytes that a copy reads and writes in a microsecond.
    pub fn copy(&self) -> f64 {
        self.copy
    }

    /// Runs one cell.
    pub fn run(&self, cell: &Cell) -> CompressRecord {
        let mut record = CompressRecord::of(cell);
        if let Err(error) = self.try_run(cell, &mut record) {
            record.exact = false;
            record.error = Some(error.to_string());
        }
        let fraction = |us: f64| cell.bytes() as f64 / us / self.copy;
        record.copy_hot = record.times.us_hot.map(fraction);
        record.copy_cold = record.times.us_cold.map(fraction);
        record
    }

    fn try_run(&self, cell: &Cell, record: &mut CompressRecord) -> Result<(), CaseError> {
        let cold = Rotation::cold(cell.bytes(), self.device.properties().l2_bytes as u64);
        // Rows alone are so few that they are in the cache: a launch behind a decode finds them there.
        let is_cold = self.is_cold && cell.work != Work::Post;
        // A prompt is never in the cache.
        let is_hot = cell.work != Work::Prefill || !is_cold;
        let sets = Sets::new(&self.device, *cell, &self.pattern, if is_cold { cold.inputs } else { 1 })?;
        let mut operator = Operator::new(&self.device, *cell, self.overlap)?;
        record.entry = operator.entries();
        prove(&mut operator, &self.stream, &sets)?;
        record.exact = true;
        let rotations = [("hot", is_hot, Rotation::HOT), ("cold", is_cold, cold)];
        for (kind, _, rotation) in rotations.into_iter().filter(|(_, is_wanted, _)| *is_wanted) {
            let mut chain = Chain::capture(&self.device, &self.stream, &rotation, |stream, set| {
                // SAFETY: `sets` lives until this function ends, longer than the chain, whose replays it waits for.
                unsafe { operator.enqueue(stream, &sets, set) }
            })?;
            let timing = measure(&format!("{kind}/{cell}"), &mut chain, Some(&self.log))?;
            match kind {
                "hot" => record.times.set_hot(&timing),
                _ => record.times.set_cold(&timing),
            }
        }
        // Thousands of launches later the answer is still right.
        prove(&mut operator, &self.stream, &sets)
    }
}

/// Runs one cell on the emulator.
pub fn emulate(device: &Device, cell: &Cell, pattern: &Pattern, overlap: bool) -> CompressRecord {
    let mut record = CompressRecord::of(cell);
    let mut try_run = || -> Result<(), CaseError> {
        let sets = Sets::new(device, *cell, pattern, 2)?;
        let mut operator = Operator::new(device, *cell, overlap)?;
        record.entry = operator.entries();
        prove(&mut operator, &device.stream()?, &sets)
    };
    match try_run() {
        Ok(()) => record.exact = true,
        Err(error) => record.error = Some(error.to_string()),
    }
    record
}

/// Launches on the first and on the last set, over poisoned outputs, and proves the answers.
fn prove(operator: &mut Operator, stream: &Stream, sets: &Sets<'_>) -> Result<(), CaseError> {
    sets.poison()?;
    let last = sets.count() - 1;
    for set in [0, last] {
        // SAFETY: `sets` lives until the stream has been waited for, below.
        let enqueued = unsafe { operator.enqueue(stream, sets, set) };
        stream.synchronize()?;
        enqueued?;
        operator.prove(sets, set)?;
    }
    Ok(())
}

/// Bytes that a copy of more than fits any cache reads and writes in a microsecond.
fn copy_bandwidth(device: &Device, stream: &Stream, log: &File) -> Result<f64, CaseError> {
    let kernel = device.load_kernel(&backend::probe(), "copy_all")?;
    let (from, to) = (device.alloc::<u8>(COPIED)?, device.alloc::<u8>(COPIED)?);
    from.fill_bytes(1)?;
    let config = LaunchConfig::new(COPY_BLOCKS * device.properties().multiprocessors, FLOOR_THREADS);
    let slots = [from.address(), COPIED as u64 / 4, to.address()];
    let mut chain = Chain::capture(device, stream, &Rotation::HOT, |stream, _| {
        // SAFETY: both buffers have `COPIED` bytes and outlive the chain, whose replays are waited for.
        unsafe { kernel.launch(stream, &config, &slots) }
    })?;
    Ok(2.0 * COPIED as f64 / measure("floor/copy", &mut chain, Some(log))?.median)
}

#[cfg(test)]
mod tests {
    use super::super::cells;
    use super::*;

    #[test]
    fn small_cells_of_all_kinds_are_proven_on_the_emulator() {
        let (device, pattern) = (Device::emulator(), Pattern::new());
        for cell in cells::emulated() {
            let record = emulate(&device, &cell, &pattern, true);
            assert!(record.exact, "{cell}: {record:?}");
        }
    }
}
