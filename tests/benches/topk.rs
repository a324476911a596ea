//! The benchmark of top-k and of the compressor: `cargo xtask bench`, or this binary alone on a machine with a GPU.
//!
//! Its first job is the top 2048 of the real score rows in `tests/data`, in one launch, proven exact.
//! On a GPU every cell is proven, then timed; without one, small cells are proven on the emulator and
//! their work is counted. Exit status: 0 when every answer was exact, 1 when one was not, 2 when the
//! benchmark could not run, 3 when a cell is slower than `--baseline` allows.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use clap::Parser;
use dsa_kernels::topk::Path as SelectionPath;
use dsa_kernels::{Backend, Device, Error};
use dsa_kernels_tests::backend::{self, Wanted};
use dsa_kernels_tests::bench::baseline::{self, BaselineError, Comparison, ReportFile, Threshold};
use dsa_kernels_tests::bench::chain::CHAIN;
use dsa_kernels_tests::bench::compress::cells::{self, Cell};
use dsa_kernels_tests::bench::compress::run as compress;
use dsa_kernels_tests::bench::compress::sets::Pattern;
use dsa_kernels_tests::bench::operator::{CaseError, Variation};
use dsa_kernels_tests::bench::report::{
    CaseRecord, CompressRecord, DeviceRecord, Report, RivalLibrary, SCHEMA,
};
use dsa_kernels_tests::bench::rival::{self, Rival, RivalError, RivalSpec};
use dsa_kernels_tests::bench::shapes::{self, Case};
use dsa_kernels_tests::bench::timed::Timed;
use dsa_kernels_tests::bench::{emulated, inputs, plot};

/// Selects the top k of real and generated score rows, and compresses KV rows, proves every answer and measures it.
///
/// DSA_PTX names a directory with PTX of another compiler, to be used in the place of the committed.
#[derive(Parser)]
#[command(name = "topk")]
struct Arguments {
    /// Only the cells with a time to hold and one of each other kind; hot times only.
    #[arg(long)]
    quick: bool,
    /// Hot times only.
    #[arg(long)]
    hot: bool,
    /// Launches wait until the one before them has ended, where they would otherwise start a little earlier.
    #[arg(long)]
    no_overlap: bool,
    /// Time selections with wrong answers, too, which are marked as not exact: to measure what a stage of a kernel
    /// costs by leaving it out (PTX in DSA_PTX).
    #[arg(long)]
    unproven: bool,
    /// How rows are selected (dsa_kernels::topk::Path); cells that the path cannot take are left out, and, with any
    /// other than auto, those of the compressor.
    #[arg(long, value_name = "PATH", default_value_t = SelectionPath::Auto)]
    path: SelectionPath,
    /// Only the cells whose name contains this text (see --list).
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Folder for report.json, report.md, time.svg and criterion.log, and for baseline.md and baseline.svg.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// What runs the kernels.
    #[arg(long, value_enum, default_value_t = Wanted::Auto)]
    backend: Wanted,
    /// Time another implementation beside this one, on the same buffers in the same graphs; repeatable.
    ///
    /// LIB.so is a shared library with the C function
    ///
    ///   int bench_topk(const float* scores, const int* lengths, int* out, void* scratch, int rows,
    ///                  int pitch, int k, int max_len, void* stream);
    ///
    /// which enqueues one selection on `stream` (a CUstream that may be being captured) and returns 0, or
    /// anything else for a shape that it does not support. All pointers are device memory: float[rows, pitch],
    /// int[rows], int[rows, k] (indices, then -1), and 64 MiB that are zeroed before each cell.
    /// tests/capi/bench_topk.h says it in full. Its answers are checked as this library's are; wrong ones are
    /// reported and do not change the exit status. It is not called for cells with options (lists types and
    /// ordered), nor for those of the compressor. Needs a GPU.
    #[arg(long, value_name = "[NAME=]LIB.so", verbatim_doc_comment)]
    compare: Vec<RivalSpec>,
    /// Compare with the report.json of an earlier run: a ratio for each time of each cell, in baseline.md and on stdout,
    /// and a plot, baseline.svg.
    ///
    /// The exit status is 3 if a time grew by more than --threshold; the cells are named. A report of another device,
    /// backend, schema or other options is refused before anything runs; another driver is told. Cells that only one
    /// run has are listed. On the emulator the counted work is compared, for there are no times. The file is read
    /// before anything is written: it may be the one in --out.
    #[arg(long, value_name = "REPORT.json")]
    baseline: Option<PathBuf>,
    /// By how many percent a time may grow over that of --baseline.
    #[arg(long, value_name = "PERCENT", default_value_t, requires = "baseline")]
    threshold: Threshold,
    /// Run nothing: compare this report with --baseline.
    #[arg(long, value_name = "REPORT.json", requires = "baseline")]
    report: Option<PathBuf>,
    /// Print the names of the cells and do nothing.
    #[arg(long)]
    list: bool,
    /// Passed by `cargo bench`; means nothing.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What runs the kernels.
/// The benchmark could not run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("--backend gpu: {0}")]
    NoGpu(Error),
    #[error(transparent)]
    NoSuchCase(#[from] shapes::NoSuchCase),
    #[error(transparent)]
    Rival(#[from] RivalError),
    #[error("--out {}: cannot write there: {source}; name a folder that can be written", folder.display())]
    Out { folder: PathBuf, source: io::Error },
    #[error("cannot prepare the run: {0}")]
    Prepare(#[from] CaseError),
    #[error("cannot write report.json: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Plot(#[from] plot::PlotError),
    #[error(transparent)]
    Baseline(#[from] BaselineError),
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::NotExact) => ExitCode::from(1),
        Ok(Outcome::Slower) => ExitCode::from(3),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(2)
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Every answer was exact, and no cell is slower than allowed.
    Good,
    /// An answer was not exact.
    NotExact,
    /// A cell is slower than the baseline allows.
    Slower,
}

/// Runs the benchmark.
fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let start = Instant::now();
    let baseline =
        arguments.baseline.as_deref().map(|file| ReportFile::read("--baseline", file)).transpose()?;
    if let (Some(baseline), Some(file)) = (&baseline, &arguments.report) {
        let report = ReportFile::read("--report", file)?.report;
        return conclude(arguments, &report, Some(baseline.compare(&report, arguments.threshold)?));
    }
    let (device, reason) = choose(arguments.backend)?;
    let on_gpu = device.properties().backend == Backend::Cuda;
    let variation = Variation { path: arguments.path, overlap: !arguments.no_overlap };
    let Chosen { mut cases, cells } = choose_cells(on_gpu, arguments)?;
    cases.retain(|case| variation.is_possible(&device, case));
    if arguments.list {
        cases.iter().for_each(|case| println!("{case}"));
        cells.iter().for_each(|cell| println!("{cell}"));
        return Ok(Outcome::Good);
    }
    let rivals = rival::load_all(&arguments.compare, &device)?;
    let mut report = Report {
        schema: SCHEMA,
        backend: if on_gpu { "gpu" } else { "emulator" }.to_owned(),
        backend_reason: reason,
        device: device_record(&device),
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        ptx: backend::ptx_directory().unwrap_or_default().display().to_string(),
        options: Some(variation.into()),
        quick: arguments.quick,
        chain: if on_gpu { CHAIN as u32 } else { 0 },
        null_us: None,
        rivals: rivals.iter().map(rival_library).collect(),
        cases: Vec::new(),
        copy_bytes_per_us: None,
        compress: Vec::new(),
    };
    if let Some(baseline) = &baseline {
        baseline.check(&report)?;
    }
    write(&arguments.out, "report.md", "The benchmark is running.\n")?;
    eprintln!("{} ({}): {}", report.backend, report.backend_reason, report.device.name);
    if on_gpu {
        run_timed(&device, &cases, arguments, variation, rivals, &mut report)?;
        if !cells.is_empty() {
            compress_timed(&device, &cells, arguments, &mut report)?;
        }
    } else {
        run_emulated(&device, &cases, variation, &mut report);
        compress_emulated(&device, &cells, variation, &mut report);
    }
    report.relate();
    let count = report.cases.len() + report.compress.len();
    eprintln!("{count} cases in {:.0} s\n", start.elapsed().as_secs_f64());
    print!("{}", report.to_terminal());
    write_all(&arguments.out, &report)?;
    let comparison = baseline.map(|baseline| baseline.compare(&report, arguments.threshold)).transpose()?;
    conclude(arguments, &report, comparison)
}

/// Tells the comparison, and how the run ended.
fn conclude(
    arguments: &Arguments,
    report: &Report,
    comparison: Option<Comparison>,
) -> Result<Outcome, Failure> {
    if let Some(comparison) = &comparison {
        print!("\n{}", comparison.to_terminal());
        write(&arguments.out, "baseline.md", &comparison.to_markdown())?;
        if let Some(svg) = baseline::plot::to_svg(comparison)? {
            write(&arguments.out, "baseline.svg", &svg)?;
        }
        eprintln!("the comparison is in {}", arguments.out.display());
    }
    Ok(match comparison {
        _ if !report.all_exact() => Outcome::NotExact,
        Some(comparison) if !comparison.is_good() => Outcome::Slower,
        _ => Outcome::Good,
    })
}

/// The device and why it was chosen.
fn choose(wanted: Wanted) -> Result<(Device, String), Failure> {
    let (device, reason) = wanted.open().map_err(Failure::NoGpu)?;
    let reason = match (wanted, reason) {
        (Wanted::Auto, None) => "there is one".to_owned(),
        (_, None) => "chosen with --backend".to_owned(),
        (_, Some(error)) => format!("no GPU was used: {error}"),
    };
    Ok((device, reason))
}

/// The cells to run.
struct Chosen {
    /// Those of top-k, the real rows first.
    cases: Vec<Case>,
    /// Those of the compressor.
    cells: Vec<Cell>,
}

/// The cells to run: an error if the filter leaves none.
fn choose_cells(on_gpu: bool, arguments: &Arguments) -> Result<Chosen, Failure> {
    let mut cases = vec![inputs::real_case().map_err(CaseError::from)?];
    let (others, mut cells) = match (on_gpu, arguments.quick) {
        (true, false) => (shapes::full(), cells::full()),
        (true, true) => (shapes::quick(), cells::quick()),
        (false, false) => (shapes::emulated(), cells::emulated()),
        (false, true) => (shapes::emulated_quick(), cells::emulated_quick()),
    };
    cases.extend(others);
    if arguments.path != SelectionPath::Auto {
        cells.clear();
    }
    let names: Vec<_> = cells.iter().map(Cell::name).collect();
    if let Some(filter) = &arguments.filter {
        cells.retain(|cell| cell.name().contains(filter));
    }
    let cases = match shapes::select(cases, arguments.filter.as_deref()) {
        Ok(cases) => cases,
        Err(_) if !cells.is_empty() => Vec::new(),
        Err(mut error) => {
            error.names.extend(names);
            return Err(error.into());
        }
    };
    Ok(Chosen { cases, cells })
}

fn run_timed(
    device: &Device,
    cases: &[Case],
    arguments: &Arguments,
    variation: Variation,
    rivals: Vec<Rival>,
    report: &mut Report,
) -> Result<(), Failure> {
    let log = log(arguments, false)?;
    let is_cold = !arguments.quick && !arguments.hot;
    let timed = Timed::new(device, cases, is_cold, variation, log, rivals)?;
    let mut timed = timed.with_unproven(arguments.unproven);
    report.null_us = Some(timed.null_us()?);
    for (number, case) in cases.iter().enumerate() {
        let record = timed.run(case, |record| {
            let verdict = if record.exact { "exact" } else { "NOT EXACT" };
            eprint!("[{}/{}] {case}: {verdict} ({})", number + 1, cases.len(), record.path);
        });
        let times = [("hot", record.times.us_hot), ("cold", record.times.us_cold)];
        for (name, us) in times.into_iter().filter_map(|(name, us)| Some((name, us?))) {
            eprint!(", {name} {us:.2} us");
        }
        for rival in &record.rivals {
            match (rival.times.us_hot, &rival.error) {
                (Some(us), None) => eprint!("; {} hot {us:.2} us", rival.name),
                (Some(us), Some(_)) => eprint!("; {} hot {us:.2} us, NOT EXACT", rival.name),
                (None, _) => eprint!("; {} no time", rival.name),
            }
        }
        eprintln!();
        say_if_wrong(&record);
        report.cases.push(record);
    }
    Ok(())
}

fn compress_timed(
    device: &Device,
    cells: &[Cell],
    arguments: &Arguments,
    report: &mut Report,
) -> Result<(), Failure> {
    let is_cold = !arguments.quick && !arguments.hot;
    let timed = compress::Timed::new(device, is_cold, !arguments.no_overlap, log(arguments, true)?)?;
    report.copy_bytes_per_us = Some(timed.copy());
    for (number, cell) in cells.iter().enumerate() {
        let record = timed.run(cell);
        let verdict = if record.exact { "exact" } else { "NOT EXACT" };
        eprint!("[{}/{}] {cell}: {verdict}", number + 1, cells.len());
        let times =
            [("hot", record.times.us_hot, record.copy_hot), ("cold", record.times.us_cold, record.copy_cold)];
        for (name, us, copy) in times {
            if let (Some(us), Some(copy)) = (us, copy) {
                eprint!(", {name} {us:.2} us ({:.0} % of the copy)", 100.0 * copy);
            }
        }
        eprintln!();
        say_why(&record);
        report.compress.push(record);
    }
    Ok(())
}

fn compress_emulated(device: &Device, cells: &[Cell], variation: Variation, report: &mut Report) {
    let pattern = Pattern::new();
    for (number, cell) in cells.iter().enumerate() {
        let start = Instant::now();
        let record = compress::emulate(device, cell, &pattern, variation.overlap);
        let verdict = if record.exact { "exact" } else { "NOT EXACT" };
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("[{}/{}] {cell}: {verdict}, {seconds:.1} s", number + 1, cells.len());
        say_why(&record);
        report.compress.push(record);
    }
}

fn say_why(record: &CompressRecord) {
    if let Some(error) = &record.error {
        eprintln!("{}: {error}", record.name);
    }
}

/// The file that criterion's own output goes to: a new one, or the same behind what is in it.
fn log(arguments: &Arguments, append: bool) -> Result<fs::File, Failure> {
    let folder = &arguments.out;
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).append(append).truncate(!append);
    let log = options.open(folder.join("criterion.log"));
    log.map_err(|source| Failure::Out { folder: folder.clone(), source })
}

fn run_emulated(device: &Device, cases: &[Case], variation: Variation, report: &mut Report) {
    for (number, case) in cases.iter().enumerate() {
        let start = Instant::now();
        if io::stderr().is_terminal() {
            eprint!("[{}/{}] {case} ...\r", number + 1, cases.len());
        }
        let record = emulated::run(device, case, variation);
        let verdict = if record.exact { "exact" } else { "NOT EXACT" };
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("[{}/{}] {case}: {verdict} ({}), {seconds:.1} s", number + 1, cases.len(), record.path);
        say_if_wrong(&record);
        report.cases.push(record);
    }
}

fn say_if_wrong(record: &CaseRecord) {
    if let Some(error) = &record.error {
        eprintln!("{}: {error}", record.name);
    }
    for rival in &record.rivals {
        if let Some(error) = &rival.error {
            eprintln!("{}: {}: {error}", record.name, rival.name);
        }
    }
}

fn rival_library(rival: &Rival) -> RivalLibrary {
    RivalLibrary { name: rival.name.clone(), library: rival.library.display().to_string() }
}

fn device_record(device: &Device) -> DeviceRecord {
    let properties = device.properties();
    let (major, minor) = properties.compute_capability;
    DeviceRecord {
        name: properties.name.clone(),
        driver: properties.driver_version.clone(),
        compute_capability: format!("{major}.{minor}"),
        multiprocessors: properties.multiprocessors,
        l2_bytes: properties.l2_bytes as u64,
    }
}

/// Writes the report's files, the plot only when there are times.
fn write_all(folder: &Path, report: &Report) -> Result<(), Failure> {
    write(folder, "report.json", &report.to_json()?)?;
    write(folder, "report.md", &report.to_markdown())?;
    if let Some(svg) = plot::to_svg(report)? {
        write(folder, "time.svg", &svg)?;
    }
    eprintln!("reports are in {}", folder.display());
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(folder.join(name), text));
    written.map_err(|source| Failure::Out { folder: folder.to_owned(), source })
}
