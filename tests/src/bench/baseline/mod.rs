//! A run compared with an older one: `--baseline report.json`.
//!
//! Cells are matched by their names. On a GPU their times are compared, hot and cold; on the emulator, which has no
//! times, the work that it counts. A report of other circumstances is refused ([`ReportFile::check`]); another driver
//! is told. What only one of the two has is listed, and never makes a run fail.
//!
//! | module | what |
//! |---|---|
//! | this one | reading the older report, refusing it, and comparing cell by cell |
//! | `text` | the table and the verdict |
//! | [`plot`] | the SVG |

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::{fs, io};

use serde_json::Value;

use super::report::{Report, SCHEMA, Times, WorkRecord};

pub mod plot;
mod text;

/// A report that an earlier run has written.
#[derive(Clone, Debug)]
pub struct ReportFile {
    /// What it was named with on the command line: `--baseline FILE`.
    origin: String,
    /// What it says.
    pub report: Report,
}

/// The older report cannot be compared with.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// There is no such file, or it may not be read.
    #[error("{origin}: cannot read it: {source}; expected the report.json of an earlier run")]
    Read {
        /// Option and file.
        origin: String,
        /// Why.
        source: io::Error,
    },
    /// It is no JSON, or JSON of something else.
    #[error("{origin}: not a report of this benchmark: {source}; expected the report.json of an earlier run")]
    Json {
        /// Option and file.
        origin: String,
        /// Why.
        source: serde_json::Error,
    },
    /// It is JSON without the number of its layout.
    #[error(
        "{origin}: not a report of this benchmark: expected `\"schema\": {SCHEMA}`, found no number of that name"
    )]
    NoSchema {
        /// Option and file.
        origin: String,
    },
    /// Its layout is another.
    #[error(
        "{origin}: expected schema {SCHEMA}, found {found}: another version of the benchmark wrote it; measure \
         the baseline anew with this one"
    )]
    Schema {
        /// Option and file.
        origin: String,
        /// Its number.
        found: u64,
    },
    /// It was made under circumstances that make its numbers incomparable.
    #[error(
        "{origin}: {what}: expected {expected}, as in this run, found {found}: the numbers cannot be compared"
    )]
    Circumstances {
        /// Option and file.
        origin: String,
        /// What differs.
        what: &'static str,
        /// What this run has.
        expected: String,
        /// What the older one has.
        found: String,
    },
    /// Not one number is in both.
    #[error("{origin}: expected cells that this run has, too, found none: {hint}")]
    NothingInCommon {
        /// Option and file.
        origin: String,
        /// What to look at.
        hint: &'static str,
    },
}

impl ReportFile {
    /// Reads the report that `option` names.
    ///
    /// # Errors
    /// When it cannot be read, is something else, or has another [`SCHEMA`].
    pub fn read(option: &str, file: &Path) -> Result<Self, BaselineError> {
        let origin = format!("{option} {}", file.display());
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(origin, &text),
            Err(source) => Err(BaselineError::Read { origin, source }),
        }
    }

    fn parse(origin: String, text: &str) -> Result<Self, BaselineError> {
        let json = |source| BaselineError::Json { origin: origin.clone(), source };
        let value: Value = serde_json::from_str(text).map_err(json)?;
        // The number first: with another one, other fields may be missing.
        match value.get("schema").and_then(Value::as_u64) {
            None => return Err(BaselineError::NoSchema { origin }),
            Some(found) if found != u64::from(SCHEMA) => return Err(BaselineError::Schema { origin, found }),
            Some(_) => {}
        }
        let report = serde_json::from_value(value).map_err(json)?;
        Ok(Self { origin, report })
    }

    /// Refuses to be the baseline of `now`, whose cells need not have run, if the circumstances differ: backend, device,
    /// options of the kernels, launches behind each time.
    ///
    /// # Errors
    /// [`BaselineError::Circumstances`] with the first that differs.
    pub fn check(&self, now: &Report) -> Result<(), BaselineError> {
        let before = &self.report;
        let pairs = [
            ("backend", now.backend.clone(), before.backend.clone()),
            ("device", device(now), device(before)),
            ("launches per replay", now.chain.to_string(), before.chain.to_string()),
        ];
        // Where the older report does not say them, a note does.
        let options = match (&now.options, &before.options) {
            (Some(now), Some(before)) => Some(("options", now.to_string(), before.to_string())),
            _ => None,
        };
        match pairs.into_iter().chain(options).find(|(_, now, before)| now != before) {
            None => Ok(()),
            Some((what, expected, found)) => {
                Err(BaselineError::Circumstances { origin: self.origin.clone(), what, expected, found })
            }
        }
    }

    /// Compares a run with this one, its baseline.
    ///
    /// # Errors
    /// Those of [`Self::check`], and when there is nothing to compare.
    pub fn compare(&self, now: &Report, threshold: Threshold) -> Result<Comparison, BaselineError> {
        self.check(now)?;
        let comparison = Comparison::new(&self.origin, &self.report, now, threshold);
        if comparison.cells.is_empty() {
            let hint = match now.backend.as_str() {
                "emulator" => "only cells of top-k have counts of work; look at --filter",
                _ => "look at --quick, --hot and --filter",
            };
            return Err(BaselineError::NothingInCommon { origin: self.origin.clone(), hint });
        }
        Ok(comparison)
    }
}

/// The device, by all that decides about times.
fn device(report: &Report) -> String {
    let device = &report.device;
    format!(
        "{} ({} multiprocessors, compute capability {}, L2 {} bytes)",
        device.name, device.multiprocessors, device.compute_capability, device.l2_bytes
    )
}

/// By how many percent a number may grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    percent: f64,
}

impl Threshold {
    /// The largest ratio that is still allowed.
    pub fn ratio(self) -> f64 {
        1.0 + self.percent / 100.0
    }
}

impl Default for Threshold {
    fn default() -> Self {
        Self { percent: 10.0 }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.percent.fmt(f)
    }
}

/// A text that is no [`Threshold`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected percent: a finite number that is not negative, such as 10 or 2.5")]
pub struct NoThreshold;

impl FromStr for Threshold {
    type Err = NoThreshold;

    fn from_str(text: &str) -> Result<Self, NoThreshold> {
        let percent: f64 = text.strip_suffix('%').unwrap_or(text).trim().parse().map_err(|_| NoThreshold)?;
        if percent.is_finite() && percent >= 0.0 { Ok(Self { percent }) } else { Err(NoThreshold) }
    }
}

/// What is compared of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Time with memory that stays in the cache.
    Hot,
    /// Time with memory that does not.
    Cold,
    /// Barriers of blocks, counted by the emulator.
    BlockBarriers,
    /// Barriers of clusters.
    ClusterBarriers,
    /// Bytes read from global memory.
    Read,
    /// Bytes written to global memory.
    Written,
    /// Atomic operations on global memory.
    GlobalAtomics,
    /// Atomic operations on shared memory.
    SharedAtomics,
}

impl Measure {
    /// Those of a GPU.
    const TIMES: [Self; 2] = [Self::Hot, Self::Cold];
    /// Those of the emulator.
    const WORK: [Self; 6] = [
        Self::BlockBarriers,
        Self::ClusterBarriers,
        Self::Read,
        Self::Written,
        Self::GlobalAtomics,
        Self::SharedAtomics,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
            Self::BlockBarriers => "barriers",
            Self::ClusterBarriers => "cluster barriers",
            Self::Read => "read",
            Self::Written => "written",
            Self::GlobalAtomics => "global atomics",
            Self::SharedAtomics => "shared atomics",
        }
    }

    fn is_time(self) -> bool {
        Self::TIMES.contains(&self)
    }

    /// What it is to have more of it.
    fn worse(self) -> &'static str {
        if self.is_time() { "SLOWER" } else { "MORE WORK" }
    }

    /// One value with its unit.
    fn say(self, value: f64) -> String {
        match self {
            Self::Hot | Self::Cold => format!("{value:.2} us"),
            Self::Read | Self::Written => format!("{value} bytes"),
            _ => format!("{value}"),
        }
    }
}

/// One number of one cell, in both runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// What it is.
    pub measure: Measure,
    /// In the older run.
    pub before: f64,
    /// In this one.
    pub now: f64,
}

impl Pair {
    /// `now` over `before`: above 1 it became worse. Infinite where there was nothing.
    pub fn ratio(&self) -> f64 {
        if self.now == self.before { 1.0 } else { self.now / self.before }
    }
}

/// A cell that both runs have numbers of.
#[derive(Clone, Debug, PartialEq)]
pub struct CellPair {
    /// Its name.
    pub name: String,
    /// Whether it belongs to the compressor.
    pub is_compress: bool,
    /// Its numbers.
    pub pairs: Vec<Pair>,
}

/// Two runs, cell by cell.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The option and the file of the baseline.
    pub origin: String,
    /// The date of the baseline.
    pub date: String,
    /// What runs the kernels: `gpu` or `emulator`.
    pub backend: String,
    /// The device of both.
    pub device: String,
    /// How much is allowed.
    pub threshold: Threshold,
    /// What differs and does not forbid the comparison.
    pub notes: Vec<String>,
    /// What is in both, in the order of this run.
    pub cells: Vec<CellPair>,
    /// What is not compared, with the reason, one line each.
    pub left_out: Vec<String>,
}

impl Comparison {
    fn new(origin: &str, before: &Report, now: &Report, threshold: Threshold) -> Self {
        let is_gpu = now.backend != "emulator";
        let measures: &[Measure] = if is_gpu { &Measure::TIMES } else { &Measure::WORK };
        let (older, newer) = (entries(before), entries(now));
        let by_name: HashMap<&str, &Entry<'_>> = older.iter().map(|entry| (entry.name, entry)).collect();
        let (mut cells, mut left_out) = (Vec::new(), Vec::new());
        for entry in &newer {
            let Some(old) = by_name.get(entry.name) else {
                left_out.push(format!("new, not in the baseline: {}", entry.name));
                continue;
            };
            if old.work_of_cell != entry.work_of_cell {
                left_out.push(format!(
                    "other work than in the baseline: {}: {}, was {}",
                    entry.name, entry.work_of_cell, old.work_of_cell
                ));
                continue;
            }
            if !old.exact {
                left_out.push(format!("not exact in the baseline: {}", entry.name));
                continue;
            }
            let mut pairs = Vec::new();
            for &measure in measures {
                match (old.value(measure), entry.value(measure)) {
                    (Some(before), Some(now)) => pairs.push(Pair { measure, before, now }),
                    (Some(_), None) => {
                        left_out.push(format!("only in the baseline: {} {}", entry.name, measure.name()));
                    }
                    (None, Some(_)) => {
                        left_out.push(format!("not in the baseline: {} {}", entry.name, measure.name()));
                    }
                    (None, None) => {}
                }
            }
            if !pairs.is_empty() {
                cells.push(CellPair { name: entry.name.to_owned(), is_compress: entry.is_compress, pairs });
            }
        }
        for old in &older {
            if !newer.iter().any(|entry| entry.name == old.name) {
                left_out.push(format!("not in this run: {}", old.name));
            }
        }
        Self {
            origin: origin.to_owned(),
            date: before.date.clone(),
            backend: now.backend.clone(),
            device: now.device.name.clone(),
            threshold,
            notes: notes(before, now),
            cells,
            left_out,
        }
    }

    /// All numbers that grew by more than is allowed, with the names of their cells.
    pub fn slower(&self) -> impl Iterator<Item = (&str, &Pair)> {
        let limit = self.threshold.ratio();
        let pairs =
            self.cells.iter().flat_map(|cell| cell.pairs.iter().map(|pair| (cell.name.as_str(), pair)));
        pairs.filter(move |(_, pair)| pair.ratio() > limit)
    }

    /// Whether no number grew by more than is allowed.
    pub fn is_good(&self) -> bool {
        self.slower().next().is_none()
    }
}

/// What the comparison needs of a cell of either kind.
struct Entry<'a> {
    name: &'a str,
    is_compress: bool,
    exact: bool,
    /// What decides how much there is to do: cells that differ in it are not the same.
    work_of_cell: String,
    times: Times,
    work: Option<WorkRecord>,
}

impl Entry<'_> {
    fn value(&self, measure: Measure) -> Option<f64> {
        let count = |count: fn(&WorkRecord) -> u64| self.work.as_ref().map(|work| count(work) as f64);
        match measure {
            Measure::Hot => self.times.us_hot,
            Measure::Cold => self.times.us_cold,
            Measure::BlockBarriers => count(|work| work.block_barriers),
            Measure::ClusterBarriers => count(|work| work.cluster_barriers),
            Measure::Read => count(|work| work.global_read_bytes),
            Measure::Written => count(|work| work.global_written_bytes),
            Measure::GlobalAtomics => count(|work| work.global_atomics),
            Measure::SharedAtomics => count(|work| work.shared_atomics),
        }
    }
}

/// The cells of a report, top-k first.
fn entries(report: &Report) -> Vec<Entry<'_>> {
    // Reports from before there were options have empty words in their place.
    let or = |word: &str, default: &str| if word.is_empty() { default.to_owned() } else { word.to_owned() };
    let cases = report.cases.iter().map(|case| Entry {
        name: &case.name,
        is_compress: false,
        exact: case.exact,
        work_of_cell: format!(
            "top {} of {} scores of type {} in {} rows, ties {}, order {}",
            case.k,
            case.elements,
            or(&case.scores, "f32"),
            case.rows,
            or(&case.ties, "any"),
            or(&case.order, "any"),
        ),
        times: case.times,
        work: case.work,
    });
    let cells = report.compress.iter().map(|cell| Entry {
        name: &cell.name,
        is_compress: true,
        exact: cell.exact,
        work_of_cell: format!("{} rows, {} bytes", cell.rows, cell.bytes),
        times: cell.times,
        work: None,
    });
    cases.chain(cells).collect()
}

fn notes(before: &Report, now: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if before.device.driver != now.device.driver {
        notes.push(format!("another driver: {}, was {}", now.device.driver, before.device.driver));
    }
    if before.ptx != now.ptx {
        let whose = |report: &Report| match report.ptx.as_str() {
            "" => "the committed".to_owned(),
            directory => directory.to_owned(),
        };
        notes.push(format!("PTX of {}, was {}", whose(now), whose(before)));
    }
    if before.options.is_none() {
        notes.push("the baseline does not say with which options it ran".to_owned());
    }
    if let (Some(before), Some(now)) = (before.null_us, now.null_us) {
        notes.push(format!("a kernel that does nothing: {now:.2} us, was {before:.2} us"));
    }
    if let (Some(before), Some(now)) = (before.copy_bytes_per_us, now.copy_bytes_per_us) {
        notes.push(format!("a copy: {:.0} GB/s, was {:.0} GB/s", now / 1e3, before / 1e3));
    }
    if now.backend == "emulator" {
        notes.push(
            "the emulator has no times: counts of emulated work are compared, of the cells of top-k; those of the \
             compressor have none"
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests;
