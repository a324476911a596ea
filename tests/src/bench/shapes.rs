//! The cells of the benchmark, in lists that have names.
//!
//! A cell is a batch shape, a `k`, a distribution of scores, and what the operator is asked for beyond the
//! right set. Its name is unique and is what `--filter` looks at: `single/1x8192/k2048/normal`.

use std::fmt;

use dsa_kernels::topk::{Order, ScoreType, Ties};

use crate::distribution::Distribution;

/// The rows of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batch {
    /// `rows` rows of `len` scores each, stored without padding.
    Even {
        /// Rows of the batch.
        rows: u32,
        /// Scores of each row.
        len: u32,
    },
    /// Rows of different lengths in a buffer that is `pitch` scores wide.
    Mixed {
        /// What tells this mixture from the others, as a part of the cell's name.
        label: &'static str,
        /// Distance of two rows, in scores.
        pitch: u32,
        /// The operator's limit on a row's length.
        max_len: u32,
        /// Scores of each row.
        lengths: Vec<u32>,
    },
}

/// Options of the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The type of the scores.
    pub scores: ScoreType,
    /// Which of several equal scores are selected.
    pub ties: Ties,
    /// The order of the indices.
    pub order: Order,
}

impl Options {
    /// The lowest indices among equal scores, in ascending order.
    pub const ORDERED: Self =
        Self { scores: ScoreType::F32, ties: Ties::LowestIndex, order: Order::AscendingIndex };
}

/// One cell of the benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Name of the list it belongs to.
    pub list: &'static str,
    /// Its rows.
    pub batch: Batch,
    /// Scores to select from each row.
    pub k: u32,
    /// What the scores are.
    pub distribution: Distribution,
    /// What the operator is asked for.
    pub options: Options,
    /// Time of the origin (vLLM PR 37421) on an H200 in microseconds, hot, where it was measured:
    /// no cell may be slower.
    pub origin_us: Option<f64>,
}

impl Case {
    /// `rows` rows of `len` scores.
    fn even(list: &'static str, rows: u32, len: u32, k: u32, distribution: Distribution) -> Self {
        let standard = k == 2048 && distribution == Distribution::Normal;
        let origin_us =
            ORIGIN_US.iter().find(|&&(r, l, _)| standard && (r, l) == (rows, len)).map(|&(_, _, us)| us);
        let options = Options::default();
        Case { list, batch: Batch::Even { rows, len }, k, distribution, options, origin_us }
    }

    /// `rows` rows of `len` normal scores, with options, which the origin did not have.
    fn with_options(list: &'static str, rows: u32, len: u32, options: Options) -> Self {
        Case { options, origin_us: None, ..Self::even(list, rows, len, 2048, Distribution::Normal) }
    }

    /// Rows of different lengths in one wide buffer, for an operator that takes rows as long as it is wide.
    fn mixed(list: &'static str, label: &'static str, pitch: u32, lengths: Vec<u32>) -> Self {
        Case {
            list,
            batch: Batch::Mixed { label, pitch, max_len: pitch, lengths },
            k: 2048,
            distribution: Distribution::Normal,
            options: Options::default(),
            origin_us: None,
        }
    }

    /// The unique name: list, shape, `k` and distribution, or the type of the scores if it is not f32.
    pub fn name(&self) -> String {
        self.to_string()
    }

    /// Rows of the batch.
    pub fn rows(&self) -> u32 {
        match &self.batch {
            Batch::Even { rows, .. } => *rows,
            Batch::Mixed { lengths, .. } => lengths.len() as u32,
        }
    }

    /// Scores of each row.
    pub fn lengths(&self) -> Vec<u32> {
        match &self.batch {
            Batch::Even { rows, len } => vec![*len; *rows as usize],
            Batch::Mixed { lengths, .. } => lengths.clone(),
        }
    }

    /// Scores of the longest row.
    pub fn longest(&self) -> u32 {
        self.lengths().into_iter().max().unwrap_or(0)
    }

    /// Distance of two rows, in scores.
    pub fn pitch(&self) -> u32 {
        match &self.batch {
            Batch::Even { len, .. } => *len,
            Batch::Mixed { pitch, .. } => *pitch,
        }
    }

    /// The operator's limit on a row's length.
    pub fn max_len(&self) -> u32 {
        match &self.batch {
            Batch::Even { len, .. } => *len,
            Batch::Mixed { max_len, .. } => *max_len,
        }
    }

    /// Scores of all rows together: what has to be read.
    pub fn elements(&self) -> u64 {
        self.lengths().into_iter().map(u64::from).sum()
    }

    /// Bytes of these scores.
    pub fn bytes(&self) -> u64 {
        self.elements() * u64::from(self.options.scores.bytes())
    }

    /// Whether the operator is asked for something beyond the right set of f32 scores.
    pub fn has_options(&self) -> bool {
        self.options != Options::default()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (list, k, distribution) = (self.list, self.k, self.distribution.name());
        match &self.batch {
            Batch::Even { rows, len } => write!(f, "{list}/{rows}x{len}/k{k}/")?,
            Batch::Mixed { label, lengths, .. } => write!(f, "{list}/{}x{label}/k{k}/", lengths.len())?,
        }
        match (self.options.scores, self.distribution) {
            (ScoreType::F32, _) => f.write_str(distribution),
            (scores, Distribution::Normal) => f.write_str(scores.name()),
            (scores, _) => write!(f, "{distribution}-{scores}"),
        }
    }
}

/// Times of the origin on an H200: rows, length, microseconds (normal scores, k = 2048, hot).
const ORIGIN_US: [(u32, u32, f64); 10] = [
    (1, 8 << 10, 10.5),
    (1, 64 << 10, 20.7),
    (1, 128 << 10, 20.6),
    (1, 1 << 20, 21.7),
    (8, 128 << 10, 22.5),
    (64, 8 << 10, 10.2),
    (64, 64 << 10, 30.0),
    (64, 128 << 10, 47.7),
    (256, 8 << 10, 18.5),
    (256, 128 << 10, 124.0),
];

/// Lengths of the main table.
const LENGTHS: [u32; 9] =
    [3 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20];

/// Most scores of one cell of the main table: 256 MiB.
const MOST_SCORES: u64 = 64 << 20;

/// Width of the buffer in which mixed batches live.
const MIXED_PITCH: u32 = 163_840;

/// One row, every length of the main table.
pub fn single() -> Vec<Case> {
    LENGTHS.map(|len| Case::even("single", 1, len, 2048, Distribution::Normal)).into()
}

/// 8 to 256 rows, every length of the main table that stays within 256 MiB.
pub fn batch() -> Vec<Case> {
    let mut cases = Vec::new();
    for rows in [8, 32, 64, 128, 256] {
        for len in LENGTHS {
            if u64::from(rows) * u64::from(len) <= MOST_SCORES {
                cases.push(Case::even("batch", rows, len, 2048, Distribution::Normal));
            }
        }
    }
    cases
}

/// Smaller `k`.
pub fn k_sweep() -> Vec<Case> {
    let mut cases = Vec::new();
    for k in [512, 1024] {
        for rows in [1, 64] {
            for len in [8 << 10, 64 << 10, 128 << 10] {
                cases.push(Case::even("k_sweep", rows, len, k, Distribution::Normal));
            }
        }
    }
    cases
}

/// Rows of different lengths in one wide buffer, and short rows alone in the same buffer.
pub fn mixed() -> Vec<Case> {
    let cycle = [131_072, 1_500, 6_000, 30_000];
    let mixed = |label, lengths| Case::mixed("mixed", label, MIXED_PITCH, lengths);
    let mut outlier = vec![4_000; 128];
    outlier[64] = 160_000;
    let padded = mixed("padded4096", vec![4_096; 64]);
    // The same rows in the same buffer, where it is known that none is longer.
    let lengths = padded.lengths();
    let batch = Batch::Mixed { label: "pitched4096", pitch: MIXED_PITCH, max_len: 4_096, lengths };
    let pitched = Case { batch, ..padded.clone() };
    vec![
        mixed("cycle", cycle.into_iter().cycle().take(64).collect()),
        mixed("outlier", outlier),
        mixed("spread", spread(32, 512, MIXED_PITCH)),
        padded,
        pitched,
        // At their own pitch.
        Case::even("mixed", 64, 4_096, 2048, Distribution::Normal),
    ]
}

/// `rows` lengths in equal ratios from `first` to `last`, long and short ones taking turns.
fn spread(rows: u32, first: u32, last: u32) -> Vec<u32> {
    let ratio = f64::from(last) / f64::from(first);
    (0..rows)
        .map(|row| {
            let rank = if row % 2 == 0 { row / 2 } else { rows - 1 - row / 2 };
            let power = f64::from(rank) / f64::from(rows - 1);
            ((f64::from(first) * ratio.powf(power)).round() as u32).min(last)
        })
        .collect()
}

/// Scores on which top-k kernels are slow or wrong.
pub fn distributions() -> Vec<Case> {
    let mut cases = Vec::new();
    for distribution in [
        Distribution::Uniform,
        Distribution::Narrow,
        Distribution::AllEqual,
        Distribution::Quantised,
        Distribution::SortedUp,
        Distribution::SortedDown,
    ] {
        for rows in [1, 64] {
            for len in [8 << 10, 128 << 10] {
                cases.push(Case::even("distributions", rows, len, 2048, distribution));
            }
        }
    }
    cases
}

/// Scores of another type.
pub fn types() -> Vec<Case> {
    let bf16 = Options { scores: ScoreType::Bf16, ..Options::default() };
    [(256, 128 << 10), (64, 128 << 10)].map(|(rows, len)| Case::with_options("types", rows, len, bf16)).into()
}

/// Output that depends on the scores alone: every cell of the main table, to be compared with it.
pub fn ordered() -> Vec<Case> {
    [single(), batch()]
        .concat()
        .into_iter()
        .map(|case| Case { list: "ordered", options: Options::ORDERED, origin_us: None, ..case })
        .collect()
}

/// The rows of `tests/data`, of the given lengths: the benchmark's main job.
pub fn real(pitch: u32, lengths: Vec<u32>) -> Case {
    Case { distribution: Distribution::Real, ..Case::mixed("real", "indexer", pitch, lengths) }
}

/// Everything that a GPU runs by default, after the real rows.
pub fn full() -> Vec<Case> {
    [single(), batch(), k_sweep(), mixed(), distributions(), types(), ordered()].concat()
}

/// The cells with a time of the origin to hold, and one of each other kind.
pub fn quick() -> Vec<Case> {
    let chosen = [
        "single/1x3072/k2048/normal",
        "k_sweep/1x8192/k512/normal",
        "k_sweep/64x65536/k1024/normal",
        "mixed/64xcycle/k2048/normal",
        "mixed/128xoutlier/k2048/normal",
        "distributions/64x8192/k2048/uniform",
        "distributions/1x131072/k2048/all-equal",
        "types/64x131072/k2048/bf16",
        "ordered/64x8192/k2048/normal",
    ];
    full()
        .into_iter()
        .filter(|case| case.origin_us.is_some() || chosen.contains(&case.name().as_str()))
        .collect()
}

/// Small cells that visit every path, with every distribution, within seconds on the emulator.
pub fn emulated() -> Vec<Case> {
    let even = |rows, len, k, distribution| Case::even("emulated", rows, len, k, distribution);
    let mut cases = Vec::new();
    for (rows, len) in [
        (4, 1500),
        (4, 3 << 10),
        (4, 8 << 10),
        (16, 8 << 10),
        (2, 16 << 10),
        (1, 40_000),
        (2, 64 << 10),
        (1, 256 << 10),
    ] {
        cases.push(even(rows, len, 2048, Distribution::Normal));
    }
    for k in [512, 1024] {
        cases.push(even(4, 8 << 10, k, Distribution::Normal));
    }
    for &distribution in Distribution::ALL {
        if !matches!(distribution, Distribution::Normal | Distribution::Real) {
            cases.push(even(2, 8 << 10, 2048, distribution));
            cases.push(even(1, 20_000, 2048, distribution));
            cases.push(even(1, 40_000, 2048, distribution));
        }
    }
    let cycle = vec![40_000, 1_500, 6_000, 20_000];
    cases.push(Case::mixed("emulated", "cycle", 49_152, cycle));
    for (rows, len) in [(2, 8 << 10), (1, 40_000)] {
        for scores in [ScoreType::F16, ScoreType::Bf16] {
            cases.push(Case::with_options("types", rows, len, Options { scores, ..Options::default() }));
        }
        cases.push(Case::with_options("ordered", rows, len, Options::ORDERED));
    }
    cases
}

/// The cells of [`emulated`] with at most 32,768 scores.
pub fn emulated_quick() -> Vec<Case> {
    emulated().into_iter().filter(|case| case.elements() <= 32 << 10).collect()
}

/// The cells whose name contains `filter`; an error that lists all names when none does.
pub fn select(cases: Vec<Case>, filter: Option<&str>) -> Result<Vec<Case>, NoSuchCase> {
    let Some(filter) = filter else { return Ok(cases) };
    let (chosen, others): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.name().contains(filter));
    if chosen.is_empty() {
        return Err(NoSuchCase { filter: filter.to_owned(), names: others.iter().map(Case::name).collect() });
    }
    Ok(chosen)
}

/// A filter that no name of a cell contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchCase {
    /// The filter.
    pub filter: String,
    /// The names there are.
    pub names: Vec<String>,
}

impl fmt::Display for NoSuchCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "--filter {:?}: no case has this in its name; the cases are", self.filter)?;
        for name in &self.names {
            writeln!(f, "  {name}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NoSuchCase {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique() {
        for list in [full(), quick(), emulated(), emulated_quick()] {
            let names: HashSet<_> = list.iter().map(Case::name).collect();
            assert_eq!(names.len(), list.len());
        }
    }

    #[test]
    fn the_main_table_has_the_cells_of_the_published_one() {
        let cells =
            |rows| full().iter().filter(|c| matches!(c.list, "single" | "batch") && c.rows() == rows).count();
        assert_eq!([1, 8, 32, 64, 128, 256].map(cells), [9, 9, 9, 9, 8, 7]);
    }

    #[test]
    fn every_time_of_the_origin_belongs_to_exactly_one_cell_and_quick_has_them_all() {
        for list in [full(), quick()] {
            let held: Vec<_> = list.iter().filter_map(|c| c.origin_us).collect();
            assert_eq!(held.len(), ORIGIN_US.len());
            for (_, _, us) in ORIGIN_US {
                assert_eq!(held.iter().filter(|&&h| h == us).count(), 1, "{us} us");
            }
        }
    }

    #[test]
    fn quick_keeps_every_chosen_name() {
        // 10 cells of the origin and the 9 named ones: a misspelt name would be missing here.
        assert_eq!(quick().len(), ORIGIN_US.len() + 9);
    }

    #[test]
    fn cells_with_options_are_named_by_them_and_hold_no_time_of_the_origin() {
        let names: Vec<_> = types().iter().map(Case::name).collect();
        assert_eq!(names, ["types/256x131072/k2048/bf16", "types/64x131072/k2048/bf16"]);
        let names: Vec<_> = ordered().iter().map(Case::name).collect();
        assert_eq!(names[..2], ["ordered/1x3072/k2048/normal", "ordered/1x8192/k2048/normal"]);
        assert_eq!(names.len(), single().len() + batch().len());
        let with_options: Vec<_> = full().into_iter().filter(Case::has_options).collect();
        assert_eq!(with_options, [types(), ordered()].concat());
        assert!(with_options.iter().all(|case| case.origin_us.is_none()));
        let wide = select(ordered(), Some("/64x131072/")).unwrap().remove(0);
        let [wide, narrow] = [&wide, &types()[1]].map(|case| (case.elements(), case.bytes()));
        assert_eq!((wide, narrow), ((8 << 20, 32 << 20), (8 << 20, 16 << 20)));
    }

    #[test]
    fn mixed_rows_fit_their_buffer() {
        for case in mixed().iter().chain(&emulated()) {
            assert!(case.longest() <= case.max_len() && case.max_len() <= case.pitch(), "{case}");
            assert!(case.lengths().iter().all(|&len| len > 0), "{case}");
        }
        let cycle = &mixed()[0];
        assert_eq!((cycle.rows(), cycle.elements()), (64, 16 * (131_072 + 1_500 + 6_000 + 30_000)));
        let outlier = &mixed()[1];
        assert_eq!((outlier.rows(), outlier.elements()), (128, 127 * 4_000 + 160_000));
    }

    #[test]
    fn a_spread_holds_both_ends_and_alternates() {
        let lengths = spread(32, 512, MIXED_PITCH);
        assert_eq!(lengths.iter().min(), Some(&512));
        assert_eq!(lengths.iter().max(), Some(&MIXED_PITCH));
        assert!(lengths[1] > lengths[0] && lengths[2] < lengths[1] && lengths[3] > lengths[2]);
    }

    #[test]
    fn a_filter_selects_by_any_part_of_the_name() {
        let chosen = select(full(), Some("1x8192/k512")).unwrap();
        assert_eq!(chosen.iter().map(Case::name).collect::<Vec<_>>(), ["k_sweep/1x8192/k512/normal"]);
        assert_eq!(select(full(), Some("mixed/")).unwrap(), mixed());
        assert_eq!(select(full(), None).unwrap(), full());
    }

    #[test]
    fn a_filter_that_matches_nothing_lists_the_names() {
        let error = select(quick(), Some("7x7")).unwrap_err().to_string();
        assert!(error.contains("\"7x7\""), "{error}");
        for case in quick() {
            assert!(error.contains(&case.name()), "{error}");
        }
    }

    #[test]
    fn the_script_for_torch_times_the_same_shapes() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/torch_topk.py");
        if !std::path::Path::new(script).is_file() {
            return; // staged tests have no sources
        }
        let mut python = std::process::Command::new("python3");
        let Ok(output) = python.args(["-B", script, "--list"]).output() else {
            eprintln!("not compared: there is no python3");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let expected: Vec<_> = [single(), batch()]
            .concat()
            .iter()
            .map(|case| format!("{}x{}", case.rows(), case.longest()))
            .collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(), expected);
    }
}
