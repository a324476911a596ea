//! Criterion over GPU events: how often to replay, and what the replays say.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Criterion, Throughput};
use dsa_kernels::Error;
use serde::Deserialize;

use super::chain::Chain;
use super::diversion::Diversion;

/// Samples of a measurement: the fewest that criterion takes.
const SAMPLES: usize = 10;

/// Resamples of the bootstrap: enough for a 95 % interval of ten samples.
const RESAMPLES: usize = 2000;

/// Replays before the samples: the clock is up and the caches are as they will be.
const WARM_UP: Duration = Duration::from_millis(20);

/// Time that the samples of a measurement take together, roughly.
const SAMPLING: Duration = Duration::from_millis(150);

/// Replays that ten samples take at least, each sample one more than the one before.
const FEWEST_REPLAYS: f64 = 55.0;

/// Microseconds per launch: the median, and its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Median of the samples.
    pub median: f64,
    /// Lower and upper bound.
    pub range: [f64; 2],
}

/// A time could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The device reported an error.
    #[error(transparent)]
    Device(#[from] Error),
    /// Criterion's output could not be sent to the log.
    #[error("cannot write criterion's output to the log: {0}")]
    Log(#[source] io::Error),
    /// Criterion's result is not where it should be.
    #[error("cannot read criterion's estimates in {folder}: {reason}")]
    Estimates {
        /// The folder.
        folder: String,
        /// Why.
        reason: String,
    },
}

/// Measures `chain`. What criterion prints, under `name`, goes to `log` if there is one; its own files go
/// into a folder that is removed afterwards.
pub fn measure(name: &str, chain: &mut Chain, log: Option<&File>) -> Result<Timing, MeasureError> {
    let folder = tempfile::tempdir().map_err(|error| estimates_error(&std::env::temp_dir(), error))?;
    // The first replay loads the graph; the second says how long one takes.
    chain.replay(1)?;
    let replay_us = chain.replay(1)? * chain.launches_per_graph() as f64;
    let sampling = SAMPLING.max(Duration::from_secs_f64(1.3e-6 * FEWEST_REPLAYS * replay_us));
    let mut failure = None;
    let mut criterion = Criterion::default()
        .without_plots()
        .with_output_color(false)
        .output_directory(folder.path())
        .sample_size(SAMPLES)
        .nresamples(RESAMPLES)
        .warm_up_time(WARM_UP)
        .measurement_time(sampling)
        .with_measurement(Launches);
    let diversion = log.map(Diversion::to).transpose().map_err(MeasureError::Log)?;
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|replays| {
            if failure.is_none() {
                match chain.replay(replays) {
                    Ok(us) => return us,
                    Err(error) => failure = Some(error),
                }
            }
            // Criterion cannot be stopped: give it something to finish with, quickly.
            replays as f64
        });
    });
    drop(diversion);
    match failure {
        Some(error) => Err(error.into()),
        None => read_estimates(folder.path()),
    }
}

/// Reads the one result in criterion's output folder.
fn read_estimates(folder: &Path) -> Result<Timing, MeasureError> {
    let fail = |reason: &dyn std::fmt::Display| estimates_error(folder, reason);
    let entries = fs::read_dir(folder).map_err(|error| fail(&error))?;
    let file = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("new").join("estimates.json"))
        .find(|file| file.is_file())
        .ok_or_else(|| fail(&io::Error::from(io::ErrorKind::NotFound)))?;
    let text = fs::read_to_string(file).map_err(|error| fail(&error))?;
    let Estimates { median } = serde_json::from_str(&text).map_err(|error| fail(&error))?;
    let Interval { lower_bound, upper_bound } = median.confidence_interval;
    Ok(Timing { median: median.point_estimate, range: [lower_bound, upper_bound] })
}

fn estimates_error(folder: &Path, reason: impl std::fmt::Display) -> MeasureError {
    MeasureError::Estimates { folder: folder.display().to_string(), reason: reason.to_string() }
}

/// The part of criterion's `estimates.json` that is used.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    confidence_interval: Interval,
    point_estimate: f64,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

/// Values are microseconds per launch, measured by events within the routine.
struct Launches;

impl Measurement for Launches {
    type Intermediate = ();
    type Value = f64;

    fn start(&self) {}

    fn end(&self, (): ()) -> f64 {
        0.0
    }

    fn add(&self, a: &f64, b: &f64) -> f64 {
        a + b
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for Launches {
    fn scale_values(&self, _typical: f64, _values: &mut [f64]) -> &'static str {
        "us"
    }

    fn scale_throughputs(&self, _typical: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        let (amount, unit) = match *throughput {
            Throughput::Bytes(amount) | Throughput::BytesDecimal(amount) => (amount, "B/us"),
            Throughput::Elements(amount) => (amount, "elements/us"),
            _ => (1, "launches/us"),
        };
        values.iter_mut().for_each(|value| *value = amount as f64 / *value);
        unit
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "us"
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::Rotation;
    use super::*;
    use dsa_kernels::Device;

    #[test]
    fn a_chain_is_measured_and_the_median_lies_in_its_interval() {
        let device = Device::emulator();
        let stream = device.stream().unwrap();
        let buffer = device.alloc::<u8>(1 << 16).unwrap();
        let mut chain =
            Chain::capture(&device, &stream, &Rotation::HOT, |stream, _| buffer.fill_async(stream, 1))
                .unwrap();
        let timing = measure("test/fill", &mut chain, None).unwrap();
        assert!(timing.median > 0.0, "{timing:?}");
        assert!(timing.range[0] <= timing.median && timing.median <= timing.range[1], "{timing:?}");
    }

    #[test]
    fn missing_estimates_name_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let error = read_estimates(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
    }

    #[test]
    fn estimates_are_read_wherever_criterion_puts_them() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("any_name").join("new");
        fs::create_dir_all(&new).unwrap();
        let interval =
            r#""confidence_interval":{"confidence_level":0.95,"lower_bound":1.5,"upper_bound":2.5}"#;
        let json =
            format!(r#"{{"median":{{{interval},"point_estimate":2.0,"standard_error":0.1}},"slope":null}}"#);
        fs::write(new.join("estimates.json"), json).unwrap();
        assert_eq!(read_estimates(folder.path()).unwrap(), Timing { median: 2.0, range: [1.5, 2.5] });
    }
}
