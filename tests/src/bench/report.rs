//! The result of a run: `report.json`, `report.md` and the table on the terminal.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::compress::cells::Cell;
use super::measure::Timing;
use super::operator::Variation;
use super::shapes::Case;
use super::table::{Column, markdown, number, terminal};

/// Version of the layout of `report.json`; counts up when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// A run of the benchmark, as `report.json` has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `gpu` or `emulator`.
    pub backend: String,
    /// Why this backend and not the other.
    pub backend_reason: String,
    /// What it ran on.
    pub device: DeviceRecord,
    /// Start of the run, UTC, RFC 3339.
    pub date: String,
    /// The command line.
    pub command: String,
    /// The directory of the PTX; empty for the committed.
    #[serde(default)]
    pub ptx: String,
    /// What was asked of the kernels beyond what the cells say; `None` in reports from before it was written down.
    #[serde(default)]
    pub options: Option<OptionsRecord>,
    /// Whether only the short list was run.
    pub quick: bool,
    /// Launches per graph replay behind each time; 0 on the emulator.
    pub chain: u32,
    /// Microseconds per launch of a kernel that does nothing.
    pub null_us: Option<f64>,
    /// The libraries that were compared with, in the order of the command line.
    #[serde(default)]
    pub rivals: Vec<RivalLibrary>,
    /// One record per cell of top-k, in the order of the run.
    pub cases: Vec<CaseRecord>,
    /// Bytes per microsecond that a kernel reads and writes that copies more than fits the caches, if cells of the
    /// compressor were timed.
    #[serde(default)]
    pub copy_bytes_per_us: Option<f64>,
    /// One record per cell of the compressor, in the order of the run.
    #[serde(default)]
    pub compress: Vec<CompressRecord>,
}

/// What was asked of all kernels of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionsRecord {
    /// `--path`.
    pub path: String,
    /// Whether launches overlapped: not with `--no-overlap`.
    pub overlap: bool,
}

impl From<Variation> for OptionsRecord {
    fn from(variation: Variation) -> Self {
        Self { path: variation.path.to_string(), overlap: variation.overlap }
    }
}

impl fmt::Display for OptionsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--path {}", self.path)?;
        if self.overlap { Ok(()) } else { write!(f, " --no-overlap") }
    }
}

/// Times of a cell: microseconds per launch, medians over the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// With memory that stays in the cache, if it fits.
    pub us_hot: Option<f64>,
    /// Lower and upper bound of the 95 % confidence interval of `us_hot`.
    pub us_hot_range: Option<[f64; 2]>,
    /// With memory rotated through more than twice the second-level cache.
    pub us_cold: Option<f64>,
    /// Lower and upper bound of the 95 % confidence interval of `us_cold`.
    pub us_cold_range: Option<[f64; 2]>,
}

impl Times {
    /// Takes the hot time.
    pub fn set_hot(&mut self, timing: &Timing) {
        (self.us_hot, self.us_hot_range) = (Some(timing.median), Some(timing.range));
    }

    /// Takes the cold time.
    pub fn set_cold(&mut self, timing: &Timing) {
        (self.us_cold, self.us_cold_range) = (Some(timing.median), Some(timing.range));
    }
}

/// The result of one cell of the compressor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompressRecord {
    /// Unique name.
    pub name: String,
    /// Kernels that are launched, joined by `+`.
    pub entry: String,
    /// Tokens of a window.
    pub ratio: u32,
    /// Channels of a row.
    pub head_dim: u32,
    /// Requests.
    pub batch: u32,
    /// New tokens of each.
    pub tokens: u32,
    /// Rows that are written.
    pub rows: u32,
    /// Bytes that have to be read and written, each once.
    pub bytes: u64,
    /// Whether the answer was right, by samples.
    pub exact: bool,
    /// What was wrong, or why the cell could not run.
    pub error: Option<String>,
    /// How long it took.
    #[serde(flatten)]
    pub times: Times,
    /// `bytes / us_hot` over the bandwidth of the copy.
    pub copy_hot: Option<f64>,
    /// `bytes / us_cold` over the bandwidth of the copy.
    pub copy_cold: Option<f64>,
}

impl CompressRecord {
    /// The record of a cell that has not run.
    pub fn of(cell: &Cell) -> Self {
        Self {
            name: cell.name(),
            ratio: cell.ratio,
            head_dim: cell.head_dim,
            batch: cell.batch,
            tokens: cell.tokens,
            rows: cell.rows(),
            bytes: cell.bytes(),
            ..Self::default()
        }
    }
}

/// A library of `--compare`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RivalLibrary {
    /// Its name.
    pub name: String,
    /// The file.
    pub library: String,
}

/// The device of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// As the driver names it.
    pub name: String,
    /// Version of the driver, and of CUDA, that it has; empty on the emulator.
    pub driver: String,
    /// As in `9.0`.
    pub compute_capability: String,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of the second-level cache.
    pub l2_bytes: u64,
}

/// The result of one cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CaseRecord {
    /// Unique name.
    pub name: String,
    /// List of shapes it belongs to.
    pub list: String,
    /// Rows of the batch.
    pub rows: u32,
    /// Scores of the longest row.
    pub len: u32,
    /// Distance of two rows in scores.
    pub pitch: u32,
    /// Scores of all rows together.
    pub elements: u64,
    /// Scores selected from each row.
    pub k: u32,
    /// Distribution of the scores.
    pub distribution: String,
    /// Type of the scores; empty in reports from before there were others than f32.
    #[serde(default)]
    pub scores: String,
    /// Which of several equal scores were asked for; empty in reports from before that could be asked.
    #[serde(default)]
    pub ties: String,
    /// The order that was asked for; empty in reports from before that could be asked.
    #[serde(default)]
    pub order: String,
    /// The paths that the rows take, shortest rows first, joined by `+`.
    pub path: String,
    /// Whether the answer was right for every row.
    pub exact: bool,
    /// What was wrong, or why the cell could not run.
    pub error: Option<String>,
    /// How long it took.
    #[serde(flatten)]
    pub times: Times,
    /// Hot time of a kernel that reads as many bytes.
    pub floor_us: Option<f64>,
    /// Cold time of a kernel that reads as many bytes.
    pub floor_cold_us: Option<f64>,
    /// `us_hot / floor_us`.
    pub ratio_hot: Option<f64>,
    /// `us_cold / floor_cold_us`.
    pub ratio_cold: Option<f64>,
    /// `us_hot` over that of the same shape with normal f32 scores and no options.
    pub ratio_normal: Option<f64>,
    /// Hot time of the origin on an H200.
    pub origin_us: Option<f64>,
    /// Work counted by the emulator.
    pub work: Option<WorkRecord>,
    /// Other implementations on the same inputs.
    #[serde(default)]
    pub rivals: Vec<RivalRecord>,
}

/// The result of another implementation in one cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RivalRecord {
    /// Its name.
    pub name: String,
    /// Whether the answer was right for every row.
    pub exact: bool,
    /// What its function returned instead of 0: it does not support the shape, or failed.
    pub refused: Option<i32>,
    /// It was not run: its function has no arguments for the options of the cell.
    #[serde(default)]
    pub without_options: bool,
    /// What was wrong, or why there is no time.
    pub error: Option<String>,
    /// How long it took.
    #[serde(flatten)]
    pub times: Times,
    /// `us_hot` over that of this library: above 1, this library is faster.
    pub ratio_hot: Option<f64>,
    /// `us_cold` over that of this library.
    pub ratio_cold: Option<f64>,
}

impl RivalRecord {
    /// The cell of the tables that says whether the answer was right.
    fn verdict(&self) -> String {
        match (self.exact, self.refused) {
            (true, _) => "yes".to_owned(),
            (false, Some(code)) => format!("refused ({code})"),
            (false, None) if self.without_options => "refused (options)".to_owned(),
            (false, None) => "NO".to_owned(),
        }
    }

    /// Whether it does not support the cell.
    fn is_refused(&self) -> bool {
        self.refused.is_some() || self.without_options
    }
}

impl CaseRecord {
    /// The record of a cell that has not run.
    pub fn of(case: &Case) -> Self {
        Self {
            name: case.name(),
            list: case.list.to_owned(),
            rows: case.rows(),
            len: case.longest(),
            pitch: case.pitch(),
            elements: case.elements(),
            k: case.k,
            distribution: case.distribution.name().to_owned(),
            scores: case.options.scores.name().to_owned(),
            ties: case.options.ties.name().to_owned(),
            order: case.options.order.name().to_owned(),
            origin_us: case.origin_us,
            ..Self::default()
        }
    }
}

impl CaseRecord {
    /// Whether it belongs to a list whose cells are compared with normal f32 scores without options.
    fn is_compared(&self) -> bool {
        matches!(self.list.as_str(), "distributions" | "types" | "ordered")
    }

    /// The result of the rival of this name, if it ran.
    pub fn rival(&self, name: &str) -> Option<&RivalRecord> {
        self.rivals.iter().find(|rival| rival.name == name)
    }
}

/// What one launch did on the emulator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkRecord {
    /// Barriers of one block, summed over the blocks.
    pub block_barriers: u64,
    /// Barriers of clusters, summed over the clusters.
    pub cluster_barriers: u64,
    /// Bytes read from global memory.
    pub global_read_bytes: u64,
    /// Bytes written to global memory.
    pub global_written_bytes: u64,
    /// Atomic operations on global memory.
    pub global_atomics: u64,
    /// Atomic operations on shared memory.
    pub shared_atomics: u64,
    /// Bytes read from global memory per score.
    pub read_bytes_per_element: f64,
    /// Atomic operations, shared and global, per score.
    pub atomics_per_element: f64,
}

impl Report {
    /// Whether every cell was exact.
    pub fn all_exact(&self) -> bool {
        self.cases.iter().all(|case| case.exact) && self.compress.iter().all(|cell| cell.exact)
    }

    /// Fills the ratios that compare one cell with another.
    pub fn relate(&mut self) {
        let normal: Vec<_> = self
            .cases
            .iter()
            .filter(|case| case.distribution == "normal" && case.list != "mixed" && !case.is_compared())
            .filter_map(|case| Some((case.rows, case.len, case.k, case.times.us_hot?)))
            .collect();
        for case in &mut self.cases {
            let reference = normal.iter().find(|n| (n.0, n.1, n.2) == (case.rows, case.len, case.k));
            case.ratio_hot = ratio(case.times.us_hot, case.floor_us);
            case.ratio_cold = ratio(case.times.us_cold, case.floor_cold_us);
            for rival in &mut case.rivals {
                rival.ratio_hot = ratio(rival.times.us_hot, case.times.us_hot);
                rival.ratio_cold = ratio(rival.times.us_cold, case.times.us_cold);
            }
            case.ratio_normal = match reference {
                Some(n) if case.is_compared() => ratio(case.times.us_hot, Some(n.3)),
                _ => None,
            };
        }
    }

    /// `report.json`.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// `report.md`: where it ran, one table per list, and what is wrong or slower than the origin.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("# Benchmark\n\n{}\n", self.header("- "));
        let mut lists: Vec<&str> = Vec::new();
        for case in &self.cases {
            if !lists.contains(&case.list.as_str()) {
                lists.push(&case.list);
            }
        }
        let columns = self.columns();
        for list in lists {
            let cases: Vec<_> = self.cases.iter().filter(|case| case.list == list).collect();
            let _ = write!(text, "\n## {list}\n\n{}", markdown(&columns, &cases));
        }
        if !self.compress.is_empty() {
            let cells: Vec<_> = self.compress.iter().collect();
            let _ = write!(text, "\n## compress\n\n{}", markdown(&self.compress_columns(), &cells));
        }
        let _ = write!(text, "\n{}", self.verdict());
        text
    }

    /// The tables for the terminal, with the header above and the verdict below.
    pub fn to_terminal(&self) -> String {
        let mut text = self.header("") + "\n";
        if !self.cases.is_empty() {
            let cases: Vec<_> = self.cases.iter().collect();
            text += &terminal(&self.columns(), &cases);
            text += "\n";
        }
        if !self.compress.is_empty() {
            let cells: Vec<_> = self.compress.iter().collect();
            text += &terminal(&self.compress_columns(), &cells);
            text += "\n";
        }
        text + &self.verdict()
    }

    /// Where and how it ran, one fact per line.
    fn header(&self, bullet: &str) -> String {
        let device = &self.device;
        let mut text = format!(
            "{bullet}backend: {} ({})\n{bullet}device: {}, compute capability {}, {} multiprocessors, L2 {} MiB",
            self.backend,
            self.backend_reason,
            device.name,
            device.compute_capability,
            device.multiprocessors,
            device.l2_bytes >> 20,
        );
        if !device.driver.is_empty() {
            let _ = write!(text, ", driver {}", device.driver);
        }
        let _ = write!(text, "\n{bullet}date: {}\n{bullet}command: `{}`\n", self.date, self.command);
        if !self.ptx.is_empty() {
            let _ = writeln!(text, "{bullet}PTX: not the committed, but from {}", self.ptx);
        }
        for RivalLibrary { name, library } in &self.rivals {
            let _ = writeln!(
                text,
                "{bullet}compared with {name}: {library}; `x` is its time over the time of this library"
            );
        }
        if let Some(null) = self.null_us {
            let _ = writeln!(
                text,
                "{bullet}times: microseconds per launch in a graph of {} launches, median; \
                 a kernel that does nothing takes {null:.2}; floor: a kernel that only reads the same bytes",
                self.chain,
            );
            if let Some(copy) = self.copy_bytes_per_us {
                let _ = writeln!(
                    text,
                    "{bullet}copy: a kernel that copies more than fits the caches reads and writes {:.0} GB/s; \
                     of copy: the bandwidth of a cell's bytes over that",
                    copy / 1e3,
                );
            }
        } else if self.backend == "emulator" {
            let _ = writeln!(
                text,
                "{bullet}no times: the emulator shows exactness and counts work, it does not predict speed"
            );
        }
        text
    }

    /// How many cells are exact, which are not, which are slower than the origin; then the rivals.
    fn verdict(&self) -> String {
        let exact = self.cases.iter().filter(|case| case.exact).count()
            + self.compress.iter().filter(|cell| cell.exact).count();
        let mut text = format!("{exact} of {} cases exact\n", self.cases.len() + self.compress.len());
        for cell in self.compress.iter().filter(|cell| !cell.exact) {
            let why = cell.error.as_deref().unwrap_or("no reason given");
            let _ = writeln!(text, "NOT EXACT {}: {why}", cell.name);
        }
        for case in self.cases.iter().filter(|case| !case.exact) {
            let why = case.error.as_deref().unwrap_or("no reason given");
            let _ = writeln!(text, "NOT EXACT {}: {why}", case.name);
        }
        for case in &self.cases {
            if let (Some(us), Some(origin)) = (case.times.us_hot, case.origin_us)
                && us > origin
            {
                let _ =
                    writeln!(text, "SLOWER than the origin {}: {us:.2} us against {origin:.1} us", case.name);
            }
        }
        for rival in &self.rivals {
            text += &self.verdict_on(&rival.name);
        }
        text
    }

    /// In how many cells a rival is exact, in which it is not or has no time, and in which it is faster.
    fn verdict_on(&self, name: &str) -> String {
        let results: Vec<_> = self.cases.iter().filter_map(|case| Some((case, case.rival(name)?))).collect();
        let exact = results.iter().filter(|(_, rival)| rival.exact).count();
        let refused = results.iter().filter(|(_, rival)| rival.is_refused()).count();
        let mut text = format!("{name}: {exact} of {} cases exact, {refused} not supported\n", results.len());
        for (case, rival) in &results {
            if let (Some(error), false) = (&rival.error, rival.is_refused()) {
                let _ = writeln!(text, "{name} NOT EXACT {}: {error}", case.name);
            }
            if let (Some(us), Some(ours)) = (rival.times.us_hot, case.times.us_hot)
                && us < ours
            {
                let _ = writeln!(text, "{name} FASTER {}: {us:.2} us against {ours:.2} us", case.name);
            }
        }
        text
    }

    /// The columns of the compressor.
    fn compress_columns(&self) -> Vec<Column<'_, CompressRecord>> {
        type Of<'a> = Column<'a, CompressRecord>;
        let mut columns = vec![
            Of::left("case", |cell| cell.name.clone()),
            Of::left("kernels", |cell| cell.entry.clone()),
            Of::left("exact", |cell| if cell.exact { "yes" } else { "NO" }.to_owned()),
            Of::right("KiB", |cell| (cell.bytes >> 10).to_string()),
        ];
        if self.backend != "emulator" {
            columns.extend([
                Of::right("hot us", |cell| number(cell.times.us_hot)),
                Of::right("of copy", |cell| number(cell.copy_hot)),
                Of::right("cold us", |cell| number(cell.times.us_cold)),
                Of::right("of copy", |cell| number(cell.copy_cold)),
            ]);
        }
        columns
    }

    /// The columns that this run has something to say in.
    fn columns(&self) -> Vec<Column<'_, CaseRecord>> {
        type Of<'a> = Column<'a, CaseRecord>;
        let mut columns = vec![
            Of::left("case", |case| case.name.clone()),
            Of::left("path", |case| case.path.clone()),
            Of::left("exact", |case| if case.exact { "yes" } else { "NO" }.to_owned()),
        ];
        if self.backend == "emulator" {
            columns.extend([
                Of::right("barriers", |case| work(case, |w| w.block_barriers.to_string())),
                Of::right("read B/score", |case| work(case, |w| format!("{:.2}", w.read_bytes_per_element))),
                Of::right("written B", |case| work(case, |w| w.global_written_bytes.to_string())),
                Of::right("global atomics", |case| work(case, |w| w.global_atomics.to_string())),
                Of::right("shared atomics", |case| work(case, |w| w.shared_atomics.to_string())),
                Of::right("atomics/score", |case| work(case, |w| format!("{:.2}", w.atomics_per_element))),
            ]);
        } else {
            columns.extend([
                Of::right("hot us", |case| number(case.times.us_hot)),
                Of::right("floor", |case| number(case.floor_us)),
                Of::right("ratio", |case| number(case.ratio_hot)),
                Of::right("cold us", |case| number(case.times.us_cold)),
                Of::right("floor", |case| number(case.floor_cold_us)),
                Of::right("ratio", |case| number(case.ratio_cold)),
                Of::right("origin", |case| number(case.origin_us)),
                Of::right("/normal", |case| number(case.ratio_normal)),
            ]);
        }
        columns.extend(self.rivals.iter().flat_map(|rival| Column::of_rival(&rival.name)));
        columns
    }
}

impl<'a> Column<'a, CaseRecord> {
    /// The columns of one rival.
    fn of_rival(name: &'a str) -> [Self; 5] {
        let cell = move |cell: fn(&RivalRecord) -> String| {
            move |case: &CaseRecord| case.rival(name).map_or_else(String::new, cell)
        };
        [
            Column::right(format!("{name} hot"), cell(|rival| number(rival.times.us_hot))),
            Column::right("x", cell(|rival| number(rival.ratio_hot))),
            Column::right(format!("{name} cold"), cell(|rival| number(rival.times.us_cold))),
            Column::right("x", cell(|rival| number(rival.ratio_cold))),
            Column::left(format!("{name} exact"), cell(RivalRecord::verdict)),
        ]
    }
}

fn work(case: &CaseRecord, cell: impl Fn(&WorkRecord) -> String) -> String {
    case.work.as_ref().map_or_else(String::new, cell)
}

fn ratio(numerator: Option<f64>, denominator: Option<f64>) -> Option<f64> {
    match (numerator?, denominator?) {
        (_, denominator) if denominator <= 0.0 => None,
        (numerator, denominator) => Some(numerator / denominator),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rivalry::without_options;
    use super::super::shapes;
    use super::*;

    fn hot(us_hot: Option<f64>) -> Times {
        Times { us_hot, ..Times::default() }
    }

    fn case(list: &str, distribution: &str, us_hot: f64) -> CaseRecord {
        CaseRecord {
            name: format!("{list}/1x8192/k2048/{distribution}"),
            list: list.to_owned(),
            rows: 1,
            len: 8192,
            pitch: 8192,
            elements: 8192,
            k: 2048,
            distribution: distribution.to_owned(),
            path: "decode".to_owned(),
            exact: true,
            times: hot(Some(us_hot)),
            floor_us: Some(1.25),
            ..CaseRecord::default()
        }
    }

    fn report(cases: Vec<CaseRecord>) -> Report {
        Report {
            schema: SCHEMA,
            backend: "gpu".to_owned(),
            backend_reason: "chosen by --backend".to_owned(),
            device: DeviceRecord {
                name: "Test GPU".to_owned(),
                driver: "13.0".to_owned(),
                compute_capability: "9.0".to_owned(),
                multiprocessors: 132,
                l2_bytes: 50 << 20,
            },
            date: "2026-01-02T03:04:05Z".to_owned(),
            command: "topk --quick".to_owned(),
            ptx: String::new(),
            options: None,
            quick: true,
            chain: 40,
            null_us: Some(0.68),
            rivals: Vec::new(),
            cases,
            copy_bytes_per_us: None,
            compress: Vec::new(),
        }
    }

    /// A report with two rivals: one that is faster, refuses and errs, and one that never ran.
    fn compared() -> Report {
        let rival = |us, exact, refused, error: Option<&str>| RivalRecord {
            name: "alpha".to_owned(),
            exact,
            refused,
            error: error.map(str::to_owned),
            times: hot(us),
            ..RivalRecord::default()
        };
        let with =
            |distribution, rival| CaseRecord { rivals: vec![rival], ..case("single", distribution, 10.0) };
        let mut result = report(vec![
            with("normal", rival(Some(15.0), true, None, None)),
            with("equal", rival(Some(8.0), false, None, Some("row 3 of length 9: twice"))),
            with("uniform", rival(None, false, Some(2), Some("bench_topk returned 2"))),
        ]);
        let library = |name: &str| RivalLibrary { name: name.to_owned(), library: format!("lib{name}.so") };
        result.rivals = vec![library("alpha"), library("beta")];
        result.relate();
        result
    }

    #[test]
    fn json_has_the_fields_that_readers_rely_on_and_reads_back() {
        let mut written = report(vec![case("single", "normal", 10.0)]);
        written.relate();
        let json = written.to_json().unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["backend"], "gpu");
        assert_eq!(value["device"]["multiprocessors"], 132);
        for field in
            ["name", "rows", "len", "k", "distribution", "path", "exact", "us_hot", "us_cold", "floor_us"]
        {
            assert!(value["cases"][0].get(field).is_some(), "no {field} in {json}");
        }
        assert_eq!(value["cases"][0]["ratio_hot"], 8.0);
        let records = [
            serde_json::to_value(CompressRecord::default()).unwrap(),
            serde_json::to_value(RivalRecord::default()).unwrap(),
        ];
        for field in ["us_hot", "us_hot_range", "us_cold", "us_cold_range"] {
            assert!(records.iter().all(|record| record.get(field).is_some()), "no {field} in {records:?}");
        }
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), written);
    }

    #[test]
    fn other_distributions_are_compared_with_normal_scores_of_the_same_shape() {
        let mut result = report(vec![
            case("distributions", "equal", 15.0),
            case("single", "normal", 10.0),
            CaseRecord { rows: 8, ..case("distributions", "uniform", 15.0) },
        ]);
        result.relate();
        let ratios: Vec<_> = result.cases.iter().map(|case| case.ratio_normal).collect();
        assert_eq!(ratios, [Some(1.5), None, None]);
    }

    #[test]
    fn cells_with_options_are_compared_with_those_without_and_never_the_reverse() {
        let mut result = report(vec![
            case("ordered", "normal", 12.0),
            case("types", "normal", 8.0),
            case("single", "normal", 10.0),
            case("distributions", "equal", 15.0),
        ]);
        result.relate();
        let ratios: Vec<_> = result.cases.iter().map(|case| case.ratio_normal).collect();
        assert_eq!(ratios, [Some(1.2), Some(0.8), None, Some(1.5)]);
        let markdown = result.to_markdown();
        assert!(markdown.contains("\n## ordered\n") && markdown.contains("\n## types\n"), "{markdown}");
    }

    #[test]
    fn a_record_says_what_the_operator_was_asked_for() {
        let ordered = CaseRecord::of(&shapes::ordered()[0]);
        assert_eq!(
            [&*ordered.scores, &ordered.ties, &ordered.order],
            ["f32", "lowest-index", "ascending-index"]
        );
        let narrow = CaseRecord::of(&shapes::types()[0]);
        assert_eq!([&*narrow.scores, &narrow.ties, &narrow.order], ["bf16", "any", "any"]);
    }

    #[test]
    fn a_rival_does_not_run_on_a_cell_with_options_and_is_not_called_wrong_there() {
        let mut result = compared();
        result.cases[0].rivals = vec![without_options("alpha")];
        let text = result.to_terminal();
        let line = text.lines().find(|line| line.starts_with("single/1x8192/k2048/normal")).unwrap();
        assert!(line.ends_with("refused (options)"), "{text}");
        assert!(text.contains("alpha: 0 of 3 cases exact, 2 not supported"), "{text}");
        assert!(!text.contains("alpha NOT EXACT single/1x8192/k2048/normal"), "{text}");
    }

    #[test]
    fn one_wrong_case_spoils_the_run_and_is_named_with_its_reason() {
        let wrong = CaseRecord {
            exact: false,
            error: Some("row 3: index 7 twice".to_owned()),
            ..case("single", "normal", 10.0)
        };
        let result = report(vec![case("distributions", "equal", 9.0), wrong]);
        assert!(!result.all_exact());
        for text in [result.to_markdown(), result.to_terminal()] {
            assert!(text.contains("1 of 2 cases exact"), "{text}");
            assert!(text.contains("NOT EXACT single/1x8192/k2048/normal: row 3: index 7 twice"), "{text}");
        }
    }

    #[test]
    fn a_case_slower_than_the_origin_is_named() {
        let slow = CaseRecord { origin_us: Some(9.5), ..case("single", "normal", 10.0) };
        let fast = CaseRecord { origin_us: Some(10.5), ..case("distributions", "equal", 10.0) };
        let text = report(vec![slow, fast]).to_terminal();
        assert_eq!(text.matches("SLOWER").count(), 1, "{text}");
        assert!(text.contains("SLOWER than the origin single/1x8192/k2048/normal: 10.00 us against 9.5 us"));
    }

    #[test]
    fn markdown_has_one_table_per_list_with_whole_rows() {
        let text = report(vec![
            case("single", "normal", 10.0),
            case("distributions", "equal", 9.0),
            case("single", "uniform", 11.0),
        ])
        .to_markdown();
        assert_eq!(text.matches("\n## single\n").count(), 1);
        assert_eq!(text.matches("\n## distributions\n").count(), 1);
        let bars: Vec<_> =
            text.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect();
        assert_eq!(bars.len(), 2 * 2 + 3);
        assert!(bars.iter().all(|&count| count == bars[0]), "{text}");
    }

    #[test]
    fn rivals_have_columns_and_ratios_in_every_table() {
        let result = compared();
        let text = result.to_terminal();
        let header = text.lines().find(|line| line.starts_with("case ")).unwrap();
        for title in ["alpha hot", "x", "alpha cold", "alpha exact", "beta hot", "beta exact"] {
            assert!(header.contains(title), "{header}");
        }
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(line("single/1x8192/k2048/normal").contains("15.00  1.50"), "{text}");
        assert!(line("single/1x8192/k2048/normal").ends_with("yes"), "{text}");
        assert!(line("single/1x8192/k2048/equal").contains("8.00  0.80"), "{text}");
        assert!(line("single/1x8192/k2048/equal").ends_with("NO"), "{text}");
        assert!(line("single/1x8192/k2048/uniform").ends_with("refused (2)"), "{text}");
        assert!(text.contains("compared with alpha: libalpha.so"), "{text}");
        let markdown = result.to_markdown();
        let bars = |line: &str| line.matches('|').count();
        let rows: Vec<_> = markdown.lines().filter(|line| line.starts_with('|')).map(bars).collect();
        assert!(rows.len() == 5 && rows.iter().all(|&count| count == rows[0]), "{markdown}");
    }

    #[test]
    fn what_rivals_get_wrong_and_where_they_are_faster_is_named_and_spoils_nothing() {
        let result = compared();
        assert!(result.all_exact());
        let text = result.to_terminal();
        for line in [
            "3 of 3 cases exact",
            "alpha: 1 of 3 cases exact, 1 not supported",
            "alpha NOT EXACT single/1x8192/k2048/equal: row 3 of length 9: twice",
            "alpha FASTER single/1x8192/k2048/equal: 8.00 us against 10.00 us",
            "beta: 0 of 0 cases exact, 0 not supported",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in {text}");
        }
        assert_eq!(text.matches("alpha FASTER").count(), 1, "{text}");
    }

    #[test]
    fn rivals_are_in_the_json_and_reports_without_them_or_options_are_read() {
        let written = compared();
        let json = written.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), written);
        let mut value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["rivals"][0]["library"], "libalpha.so");
        let rival = &value["cases"][0]["rivals"][0];
        assert_eq!((&rival["us_hot"], &rival["ratio_hot"]), (&15.0.into(), &1.5.into()));
        assert_eq!(value["cases"][2]["rivals"][0]["refused"], 2);
        value.as_object_mut().unwrap().remove("rivals");
        for case in value["cases"].as_array_mut().unwrap() {
            for later in ["rivals", "scores", "ties", "order"] {
                case.as_object_mut().unwrap().remove(later);
            }
        }
        assert!(serde_json::from_value::<Report>(value).unwrap().rivals.is_empty());
    }

    #[test]
    fn the_emulator_reports_work_and_no_times() {
        let mut result = report(vec![CaseRecord {
            times: hot(None),
            work: Some(WorkRecord { block_barriers: 77, atomics_per_element: 1.5, ..WorkRecord::default() }),
            ..case("emulated", "normal", 0.0)
        }]);
        result.backend = "emulator".to_owned();
        result.null_us = None;
        let text = result.to_terminal();
        assert!(text.contains("no times"), "{text}");
        assert!(text.contains("77") && text.contains("1.50"), "{text}");
        assert!(!text.contains("hot us"), "{text}");
    }
}
