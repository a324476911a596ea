//! A rival on the inputs of a cell: its answer is checked, then it is timed, as the operator is.

use std::ffi::c_int;
use std::fs::File;

use dsa_kernels::{Buffer, Device, Error, Stream};

use super::chain::{Chain, Rotation};
use super::measure::{Timing, measure};
use super::operator::{CaseError, POISON, prove};
use super::report::RivalRecord;
use super::rival::RivalMemory;
use super::shapes::Case;

/// What a rival competes on: one cell, with the buffers that the operator uses.
pub struct Ground<'a> {
    /// The device.
    pub device: &'a Device,
    /// The stream that launches are captured on.
    pub stream: &'a Stream,
    /// The cell.
    pub case: &'a Case,
    /// Device addresses of the inputs.
    pub inputs: &'a [u64],
    /// Device address of the length of each row.
    pub lengths: u64,
    /// The first input as the host has it.
    pub host: &'a [f32],
    /// Scratch memory, zeroed for each rival.
    pub scratch: &'a Buffer<u8>,
    /// Which inputs cold launches read; `None` for hot times only.
    pub cold: Option<Rotation>,
    /// Where criterion's own output goes.
    pub log: Option<&'a File>,
}

/// Why a rival has no times.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// It returned something other than 0.
    #[error("bench_topk returned {0}: this shape is not supported, or failed")]
    Refused(c_int),
    /// It launched, but not once more while the stream was captured.
    #[error("bench_topk launched, but returned {0} while the stream was captured")]
    RefusedCapture(c_int),
    /// Something else.
    #[error(transparent)]
    Case(#[from] CaseError),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Case(error.into())
    }
}

/// Runs one rival on one cell. `launch` enqueues a launch and returns 0, or what is wrong; whatever goes wrong
/// is in the record.
pub fn compete(
    name: &str,
    ground: &Ground<'_>,
    mut launch: impl FnMut(&Stream, &RivalMemory) -> c_int,
) -> RivalRecord {
    let mut record = RivalRecord { name: name.to_owned(), ..RivalRecord::default() };
    if let Err(trouble) = try_compete(name, ground, &mut launch, &mut record) {
        record.exact = false;
        record.error = Some(trouble.to_string());
        if let Trouble::Refused(code) = trouble {
            record.refused = Some(code);
        }
    }
    record
}

/// The record of a rival on a cell with options, where it does not run.
pub fn without_options(name: &str) -> RivalRecord {
    RivalRecord {
        name: name.to_owned(),
        without_options: true,
        error: Some("not run: bench_topk knows no score types, ties and orders".to_owned()),
        ..RivalRecord::default()
    }
}

fn try_compete(
    name: &str,
    ground: &Ground<'_>,
    launch: &mut impl FnMut(&Stream, &RivalMemory) -> c_int,
    record: &mut RivalRecord,
) -> Result<(), Trouble> {
    let Ground { device, stream, case, .. } = *ground;
    let out = device.alloc::<i32>((case.rows() * case.k) as usize)?;
    ground.scratch.fill_bytes(0)?;
    out.fill_bytes(POISON)?;
    let memory = |input: usize| RivalMemory {
        scores: ground.inputs[input],
        lengths: ground.lengths,
        out: out.address(),
        scratch: ground.scratch.address(),
    };
    // First without a capture: the library may have kernels to load, which a capture does not allow.
    match launch(stream, &memory(0)) {
        0 => {}
        code => return Err(Trouble::Refused(code)),
    }
    stream.synchronize()?;
    let first = prove(case, ground.host, &out.download()?);

    let mut capture = |rotation: &Rotation| {
        let mut refused = None;
        let chain =
            Chain::capture(device, stream, rotation, |stream, input| match launch(stream, &memory(input)) {
                0 => Ok(()),
                code => {
                    refused = Some(code);
                    Err(Error::argument("bench_topk", code, "0 while captured", "enqueue only"))
                }
            });
        match (chain, refused) {
            (Err(_), Some(code)) => Err(Trouble::RefusedCapture(code)),
            (chain, _) => Ok(chain?),
        }
    };
    let time = |kind: &str, chain: &mut Chain| -> Result<Timing, Trouble> {
        let timed = measure(&format!("{kind}/{name}/{}", case.name()), chain, ground.log);
        Ok(timed.map_err(CaseError::from)?)
    };
    let mut chain = capture(&Rotation::HOT)?;
    let hot = time("hot", &mut chain)?;
    record.times.set_hot(&hot);
    if let Some(rotation) = &ground.cold {
        let cold = time("cold", &mut capture(rotation)?)?;
        record.times.set_cold(&cold);
    }
    // A wrong answer is no reason not to say how long it took. The last one comes after thousands of others.
    out.fill_bytes(POISON)?;
    chain.replay(1)?;
    let last = prove(case, ground.host, &out.download()?);
    first.and(last)?;
    record.exact = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use dsa_kernels::{Kernel, LaunchConfig};

    use super::super::inputs;
    use super::super::shapes::{Batch, Options};
    use super::*;
    use crate::backend;
    use crate::distribution::Distribution;

    /// One row on the emulator whose first score is the largest, and a rival that is cheap to emulate: one
    /// warp that writes the sum of as many words of the row as it is told to. The sum of none is 0, the right
    /// index.
    struct Setting {
        device: Device,
        stream: Stream,
        case: Case,
        host: Vec<f32>,
        scores: Buffer<f32>,
        lengths: Buffer<i32>,
        scratch: Buffer<u8>,
        sum: Kernel,
    }

    impl Setting {
        fn new() -> Self {
            let device = Device::emulator();
            let case = Case {
                list: "test",
                batch: Batch::Even { rows: 1, len: 40 },
                k: 1,
                distribution: Distribution::SortedDown,
                options: Options::default(),
                origin_us: None,
            };
            let host = inputs::scores(&case).unwrap();
            Self {
                stream: device.stream().unwrap(),
                scores: device.upload(&host).unwrap(),
                lengths: device.upload(&[40]).unwrap(),
                scratch: device.upload(&[9; 256]).unwrap(),
                sum: device.load_kernel(&backend::probe(), "read_all").unwrap(),
                device,
                case,
                host,
            }
        }

        /// Lets the rival compete: it sums `words` words and returns what `code` says of the number of calls.
        fn compete(&self, words: u64, code: impl Fn(usize) -> c_int) -> RivalRecord {
            let inputs = [self.scores.address()];
            let ground = Ground {
                device: &self.device,
                stream: &self.stream,
                case: &self.case,
                inputs: &inputs,
                lengths: self.lengths.address(),
                host: &self.host,
                scratch: &self.scratch,
                cold: None,
                log: None,
            };
            let mut calls = 0;
            compete("cheap", &ground, |stream, memory| {
                calls += 1;
                assert_eq!((memory.lengths, memory.scratch), (ground.lengths, self.scratch.address()));
                let slots = [memory.scores, words, memory.out];
                // SAFETY: the row has 40 words, and the output one for the only warp; both outlive the chain.
                let launched = unsafe { self.sum.launch(stream, &LaunchConfig::new(1, 32), &slots) };
                launched.map_or(99, |()| code(calls))
            })
        }
    }

    #[test]
    fn a_right_rival_is_exact_and_timed_and_finds_its_scratch_zeroed() {
        let setting = Setting::new();
        let record = setting.compete(0, |_| 0);
        assert!(record.exact && record.error.is_none() && record.refused.is_none(), "{record:?}");
        assert!(record.times.us_hot.unwrap() > 0.0 && record.times.us_cold.is_none(), "{record:?}");
        assert_eq!(setting.scratch.download().unwrap(), [0; 256]);
    }

    #[test]
    fn a_rival_that_refuses_a_shape_is_shown_with_its_code() {
        let record = Setting::new().compete(0, |_| -7);
        assert_eq!((record.exact, record.refused, record.times.us_hot), (false, Some(-7), None));
        assert!(record.error.unwrap().contains("bench_topk returned -7"));
    }

    #[test]
    fn a_rival_that_cannot_be_captured_is_told_from_one_that_refuses() {
        let record = Setting::new().compete(0, |calls| c_int::from(calls > 5));
        assert_eq!((record.exact, record.refused, record.times.us_hot), (false, None, None));
        assert!(record.error.unwrap().contains("returned 1 while the stream was captured"));
    }

    #[test]
    fn a_wrong_rival_is_timed_and_what_is_wrong_is_named() {
        let record = Setting::new().compete(1, |_| 0);
        assert!(!record.exact && record.times.us_hot.is_some(), "{record:?}");
        assert!(record.error.as_ref().unwrap().contains("row 0 of length 40"), "{record:?}");
    }
}
