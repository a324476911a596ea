//! The cells on the emulator: exactness, and the work that a launch does.

use dsa_kernels::Device;

use super::inputs;
use super::operator::{CaseError, Operator, Variation};
use super::report::{CaseRecord, WorkRecord};
use super::shapes::Case;
use crate::scores::to_bytes;

/// Runs one cell.
pub fn run(device: &Device, case: &Case, variation: Variation) -> CaseRecord {
    let mut record = CaseRecord::of(case);
    match try_run(device, case, variation, &mut record) {
        Ok(()) => record.exact = true,
        Err(error) => record.error = Some(error.to_string()),
    }
    record
}

fn try_run(
    device: &Device,
    case: &Case,
    variation: Variation,
    record: &mut CaseRecord,
) -> Result<(), CaseError> {
    let scores = inputs::scores(case)?;
    let input = device.upload(&to_bytes(case.options.scores, &scores))?;
    let stream = device.stream()?;
    let mut operator = Operator::new(device, case, variation)?;
    record.path = operator.path();
    operator.poison()?;
    device.emulator_statistics();
    // SAFETY: the input has `rows * pitch` scores; it and the operator live until the stream is done.
    unsafe { operator.enqueue(&stream, input.address()) }?;
    stream.synchronize()?;
    if let Some(statistics) = device.emulator_statistics() {
        let per_element = |count: u64| count as f64 / case.elements() as f64;
        record.work = Some(WorkRecord {
            block_barriers: statistics.block_barriers,
            cluster_barriers: statistics.cluster_barriers,
            global_read_bytes: statistics.global_read_bytes,
            global_written_bytes: statistics.global_written_bytes,
            global_atomics: statistics.global_atomics,
            shared_atomics: statistics.shared_atomics,
            read_bytes_per_element: per_element(statistics.global_read_bytes),
            atomics_per_element: per_element(statistics.global_atomics + statistics.shared_atomics),
        });
    }
    operator.prove(&scores)
}

#[cfg(test)]
mod tests {
    use super::super::shapes;
    use super::*;

    #[test]
    fn a_small_cell_is_exact_and_its_work_is_counted() {
        let case = &shapes::select(shapes::emulated(), Some("4x3072/k2048/normal")).unwrap()[0];
        let record = run(&Device::emulator(), case, Variation::default());
        assert!(record.exact, "{record:?}");
        let work = record.work.unwrap();
        // Each row is read at least once, and 4 x 2048 indices are written.
        assert!(work.read_bytes_per_element >= 4.0, "{work:?}");
        assert!(work.global_written_bytes >= 4 * 2048 * 4, "{work:?}");
        assert!(work.block_barriers > 0, "{work:?}");
    }
}
