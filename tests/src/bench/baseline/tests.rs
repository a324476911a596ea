use super::super::report::{CaseRecord, CompressRecord, DeviceRecord, OptionsRecord};
use super::*;

/// A cell of top-k.
pub(super) fn case(name: &str, us_hot: f64, us_cold: Option<f64>) -> CaseRecord {
    CaseRecord {
        name: name.to_owned(),
        rows: 1,
        k: 2048,
        elements: 8192,
        exact: true,
        times: Times { us_hot: Some(us_hot), us_cold, ..Times::default() },
        ..CaseRecord::default()
    }
}

/// A cell of the compressor.
pub(super) fn compress(name: &str, us_hot: f64) -> CompressRecord {
    CompressRecord {
        name: name.to_owned(),
        exact: true,
        times: Times { us_hot: Some(us_hot), ..Times::default() },
        ..CompressRecord::default()
    }
}

/// A report of a GPU.
pub(super) fn report(cases: Vec<CaseRecord>, compress: Vec<CompressRecord>) -> Report {
    Report {
        schema: SCHEMA,
        backend: "gpu".to_owned(),
        backend_reason: "there is one".to_owned(),
        device: DeviceRecord {
            name: "Test GPU".to_owned(),
            driver: "580.1".to_owned(),
            compute_capability: "9.0".to_owned(),
            multiprocessors: 132,
            l2_bytes: 50 << 20,
        },
        date: "2026-01-02T03:04:05Z".to_owned(),
        command: "topk".to_owned(),
        ptx: String::new(),
        options: Some(OptionsRecord { path: "auto".to_owned(), overlap: true }),
        quick: false,
        chain: 40,
        null_us: Some(0.68),
        rivals: Vec::new(),
        cases,
        copy_bytes_per_us: None,
        compress,
    }
}

/// Two cells of top-k, one of them with a cold time, and one of the compressor.
fn usual() -> Report {
    report(
        vec![case("batch/a", 10.0, Some(20.0)), case("batch/b", 4.0, None)],
        vec![compress("compress/c", 7.0)],
    )
}

fn emulated(barriers: u64, atomics: u64) -> Report {
    let work = WorkRecord { block_barriers: barriers, shared_atomics: atomics, ..WorkRecord::default() };
    let record = CaseRecord { times: Times::default(), work: Some(work), ..case("emulated/a", 0.0, None) };
    Report {
        backend: "emulator".to_owned(),
        chain: 0,
        null_us: None,
        ..report(
            vec![record],
            vec![CompressRecord { times: Times::default(), ..compress("compress/c", 0.0) }],
        )
    }
}

/// The comparison, the older report having gone through its file.
pub(super) fn compare(before: &Report, now: &Report) -> Result<Comparison, BaselineError> {
    let file = ReportFile::parse("--baseline old.json".to_owned(), &before.to_json().unwrap())?;
    file.compare(now, Threshold::default())
}

fn error(before: &Report, now: &Report) -> String {
    compare(before, now).unwrap_err().to_string()
}

fn read(text: &str) -> String {
    ReportFile::parse("--baseline old.json".to_owned(), text).unwrap_err().to_string()
}

#[test]
fn a_run_against_itself_is_good_and_every_ratio_is_one() {
    let comparison = compare(&usual(), &usual()).unwrap();
    assert!(comparison.is_good() && comparison.left_out.is_empty(), "{comparison:?}");
    let pairs: Vec<_> = comparison.cells.iter().flat_map(|cell| &cell.pairs).collect();
    assert_eq!(pairs.len(), 4);
    assert!(pairs.iter().all(|pair| pair.ratio() == 1.0), "{pairs:?}");
    for text in [comparison.to_terminal(), comparison.to_markdown()] {
        assert_eq!(text.split_whitespace().filter(|word| *word == "1.00").count(), 4, "{text}");
        assert!(text.contains("4 times of 3 cells compared"), "{text}");
        assert!(text.contains("mean of the ratios 1.000; 0 above 1.10"), "{text}");
        assert!(!text.contains("SLOWER"), "{text}");
    }
}

#[test]
fn a_time_that_grew_by_more_than_the_threshold_fails_the_run_and_its_cell_is_named() {
    for (index, (kind, line)) in [
        ("hot", "SLOWER batch/a hot: 11.10 us, was 10.00 us: 1.11 times"),
        ("cold", "SLOWER batch/a cold: 22.20 us, was 20.00 us: 1.11 times"),
        ("hot", "SLOWER compress/c hot: 7.77 us, was 7.00 us: 1.11 times"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut now = usual();
        match index {
            0 => now.cases[0].times.us_hot = Some(11.1),
            1 => now.cases[0].times.us_cold = Some(22.2),
            _ => now.compress[0].times.us_hot = Some(7.77),
        }
        let comparison = compare(&usual(), &now).unwrap();
        let slower: Vec<_> = comparison.slower().collect();
        assert!(slower.len() == 1 && slower[0].1.measure.name() == kind, "{slower:?}");
        assert!(!comparison.is_good());
        let text = comparison.to_terminal();
        assert!(text.lines().any(|found| found == line), "no {line:?} in {text}");
        assert!(text.contains("1 above 1.10 (--threshold 10)"), "{text}");
        assert!(comparison.to_markdown().contains(line));
    }
}

#[test]
fn what_grew_by_less_or_became_faster_is_good() {
    let now = report(
        vec![case("batch/a", 10.9, Some(5.0)), case("batch/b", 4.4, None)],
        vec![compress("compress/c", 0.7)],
    );
    assert!(compare(&usual(), &now).unwrap().is_good());
}

#[test]
fn the_threshold_can_be_chosen_and_nonsense_is_refused() {
    let mut now = usual();
    now.cases[1].times.us_hot = Some(4.1);
    let file = ReportFile::parse("x".to_owned(), &usual().to_json().unwrap()).unwrap();
    let is_good = |percent: &str| file.compare(&now, percent.parse().unwrap()).unwrap().is_good();
    assert_eq!(["2", "2.5%", "3"].map(is_good), [false, true, true]);
    for text in ["", "ten", "-1", "inf", "NaN"] {
        assert_eq!(text.parse::<Threshold>(), Err(NoThreshold), "{text}");
    }
    assert_eq!(Threshold::default().to_string(), "10");
}

#[test]
fn another_device_is_refused_with_what_was_expected_and_found() {
    for change in [
        (|report| report.device.name = "Other GPU".to_owned()) as fn(&mut Report),
        |report| report.device.multiprocessors = 114,
        |report| report.device.l2_bytes = 1,
    ] {
        let mut before = usual();
        change(&mut before);
        let message = error(&before, &usual());
        assert!(message.starts_with("--baseline old.json: device: expected Test GPU (132 "), "{message}");
        assert!(message.contains(", found "), "{message}");
    }
}

#[test]
fn another_driver_is_told_and_compared() {
    let mut before = usual();
    before.device.driver = "570.9".to_owned();
    let comparison = compare(&before, &usual()).unwrap();
    assert!(comparison.is_good());
    assert!(comparison.to_terminal().contains("another driver: 580.1, was 570.9"));
}

#[test]
fn other_options_another_backend_and_another_chain_are_refused() {
    let mut before = usual();
    before.options = Some(OptionsRecord { path: "large".to_owned(), overlap: false });
    let message = error(&before, &usual());
    assert!(
        message.contains("options: expected --path auto, as in this run, found --path large --no-overlap")
    );
    before = usual();
    before.chain = 80;
    assert!(error(&before, &usual()).contains("launches per replay: expected 40, as in this run, found 80"));
    assert!(
        error(&usual(), &emulated(1, 1)).contains("backend: expected emulator, as in this run, found gpu")
    );
}

#[test]
fn a_baseline_that_does_not_say_its_options_is_compared_with_a_note() {
    let before = Report { options: None, ..usual() };
    let comparison = compare(&before, &usual()).unwrap();
    assert!(comparison.to_terminal().contains("does not say with which options"), "{comparison:?}");
}

#[test]
fn another_schema_is_refused_even_if_other_fields_are_gone() {
    let message = read(r#"{"schema": 7}"#);
    assert!(message.starts_with("--baseline old.json: expected schema 1, found 7:"), "{message}");
}

#[test]
fn what_is_no_report_is_refused_with_the_place_of_the_fault() {
    assert!(read("{").contains("not a report of this benchmark: EOF while parsing"), "{}", read("{"));
    assert!(read("[1]").contains("found no number of that name"), "{}", read("[1]"));
    assert!(read(r#"{"schema": "1"}"#).contains("expected `\"schema\": 1`"));
    let message = read(r#"{"schema": 1}"#);
    assert!(message.contains("missing field `backend`"), "{message}");
}

#[test]
fn a_file_that_is_not_there_is_named_with_what_was_expected() {
    let message = ReportFile::read("--baseline", Path::new("/no/such.json")).unwrap_err().to_string();
    assert!(message.starts_with("--baseline /no/such.json: cannot read it: No such file"), "{message}");
    assert!(message.ends_with("expected the report.json of an earlier run"), "{message}");
}

#[test]
fn cells_and_times_that_one_run_lacks_are_listed_and_fail_nothing() {
    let mut before = usual();
    before.cases.push(case("batch/gone", 1.0, None));
    let mut now = usual();
    now.cases.push(case("batch/new", 99.0, None));
    now.cases[0].times.us_cold = None;
    now.cases[1].times.us_cold = Some(3.0);
    let comparison = compare(&before, &now).unwrap();
    assert!(comparison.is_good());
    let text = comparison.to_terminal();
    for line in [
        "new, not in the baseline: batch/new",
        "not in this run: batch/gone",
        "only in the baseline: batch/a cold",
        "not in the baseline: batch/b cold",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line:?} in {text}");
    }
}

#[test]
fn cells_that_are_other_work_or_were_wrong_are_not_compared() {
    let mut before = usual();
    before.cases[0].elements = 4096;
    before.cases[1].exact = false;
    before.cases[1].times.us_hot = Some(1.0);
    let comparison = compare(&before, &usual()).unwrap();
    assert_eq!(comparison.cells.len(), 1);
    let text = comparison.left_out.join("\n");
    assert!(text.contains("other work than in the baseline: batch/a: top 2048 of 8192 scores"), "{text}");
    assert!(text.contains("not exact in the baseline: batch/b"), "{text}");
}

#[test]
fn options_of_a_cell_that_an_old_report_does_not_have_are_those_that_there_were() {
    let mut now = usual();
    for case in &mut now.cases {
        (case.scores, case.ties, case.order) = ("f32".to_owned(), "any".to_owned(), "any".to_owned());
    }
    assert_eq!(compare(&usual(), &now).unwrap().cells.len(), 3);
}

#[test]
fn two_runs_without_a_cell_in_common_are_refused() {
    let now = report(vec![case("other", 1.0, None)], Vec::new());
    let message = error(&usual(), &now);
    assert!(message.contains("expected cells that this run has, too, found none"), "{message}");
}

#[test]
fn on_the_emulator_work_is_compared_and_more_of_it_fails_the_run() {
    let comparison = compare(&emulated(100, 50), &emulated(100, 50)).unwrap();
    assert!(comparison.is_good());
    let text = comparison.to_terminal();
    assert!(text.contains("the emulator has no times: counts of emulated work are compared"), "{text}");
    assert!(text.contains("6 counts of 1 cells compared"), "{text}");
    assert!(plot::to_svg(&comparison).unwrap().is_none());
    let comparison = compare(&emulated(100, 50), &emulated(112, 50)).unwrap();
    assert!(!comparison.is_good());
    let line = "MORE WORK emulated/a barriers: 112, was 100: 1.12 times";
    assert!(comparison.to_terminal().lines().any(|found| found == line), "{}", comparison.to_terminal());
    // Some where there was none is more than any threshold allows.
    assert!(!compare(&emulated(100, 0), &emulated(100, 1)).unwrap().is_good());
}

#[test]
fn ptx_of_another_compiler_is_said() {
    let (before, mut now) = (usual(), usual());
    now.ptx = "ptx/rust-cuda".to_owned();
    let notes = compare(&before, &now).unwrap().notes;
    assert!(notes.iter().any(|note| note == "PTX of ptx/rust-cuda, was the committed"), "{notes:?}");
}

#[test]
fn a_short_run_against_a_long_one_says_how_many_cells_it_has_not() {
    let cells = |count: usize| (0..count).map(|i| case(&format!("batch/{i}"), 10.0, None)).collect();
    let comparison = compare(&report(cells(30), vec![]), &report(cells(2), vec![])).unwrap();
    let text = comparison.to_terminal();
    assert_eq!(text.matches("not in this run").count(), 10, "{text}");
    assert!(text.contains("and 18 more that only one of the two has"), "{text}");
    assert_eq!(comparison.to_markdown().matches("not in this run").count(), 28);
}
