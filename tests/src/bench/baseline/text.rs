//! The comparison for people: `baseline.md`, and the table on the terminal.

use std::fmt::Write as _;

use super::super::table::{Column, markdown, number, terminal};
use super::{CellPair, Comparison, Measure, Pair};

/// Most lines on the terminal about what is not compared: a short run against a long one leaves hundreds out.
const MOST_LEFT_OUT: usize = 10;

impl Comparison {
    /// `baseline.md`.
    pub fn to_markdown(&self) -> String {
        let cells: Vec<_> = self.cells.iter().collect();
        let table = markdown(&self.columns(), &cells);
        let verdict = self.verdict("- ", usize::MAX);
        format!("# Against the baseline\n\n{}\n{table}\n{verdict}", self.header("- "))
    }

    /// The table for the terminal, with the verdict below.
    pub fn to_terminal(&self) -> String {
        let cells: Vec<_> = self.cells.iter().collect();
        format!(
            "{}\n{}\n{}",
            self.header(""),
            terminal(&self.columns(), &cells),
            self.verdict("", MOST_LEFT_OUT)
        )
    }

    fn header(&self, bullet: &str) -> String {
        let mut text = format!("{bullet}{} of {}\n", self.origin, self.date);
        for note in &self.notes {
            let _ = writeln!(text, "{bullet}{note}");
        }
        text
    }

    /// What is left out, `most` of it, and what is slower, and the sum of it last.
    fn verdict(&self, bullet: &str, most: usize) -> String {
        let mut text = String::new();
        for line in self.left_out.iter().take(most) {
            let _ = writeln!(text, "{bullet}{line}");
        }
        if let Some(more @ 1..) = self.left_out.len().checked_sub(most) {
            let _ = writeln!(text, "{bullet}and {more} more that only one of the two has: baseline.md");
        }
        let limit = self.threshold.ratio();
        let mut slower = 0;
        for (name, pair) in self.slower() {
            let Pair { measure, before, now } = *pair;
            let ratio = pair.ratio();
            let word = measure.worse();
            let (kind, now, before) = (measure.name(), measure.say(now), measure.say(before));
            let _ = writeln!(text, "{bullet}{word} {name} {kind}: {now}, was {before}: {ratio:.2} times");
            slower += 1;
        }
        let ratios: Vec<f64> = self.cells.iter().flat_map(|cell| &cell.pairs).map(Pair::ratio).collect();
        let finite: Vec<f64> =
            ratios.iter().copied().filter(|ratio| ratio.is_finite() && *ratio > 0.0).collect();
        let mean = (finite.iter().map(|ratio| ratio.ln()).sum::<f64>() / finite.len().max(1) as f64).exp();
        let what = if self.backend == "emulator" { "counts" } else { "times" };
        let _ = writeln!(
            text,
            "{bullet}{} {what} of {} cells compared, geometric mean of the ratios {mean:.3}; {slower} above {limit:.2} \
             (--threshold {})",
            ratios.len(),
            self.cells.len(),
            self.threshold,
        );
        text
    }

    /// Times are shown with their ratios, counts by their ratios alone.
    fn columns(&self) -> Vec<Column<'_, CellPair>> {
        type Of<'a> = Column<'a, CellPair>;
        let mut columns = vec![Of::left("cell", |cell| cell.name.clone())];
        let of = |measure: Measure, value: fn(&Pair) -> f64| {
            move |cell: &CellPair| number(cell.pairs.iter().find(|pair| pair.measure == measure).map(value))
        };
        if self.backend == "emulator" {
            columns.extend(Measure::WORK.map(|measure| Of::right(measure.name(), of(measure, Pair::ratio))));
        } else {
            for measure in Measure::TIMES {
                columns
                    .push(Of::right(format!("{} before", measure.name()), of(measure, |pair| pair.before)));
                columns.push(Of::right("now", of(measure, |pair| pair.now)));
                columns.push(Of::right("ratio", of(measure, Pair::ratio)));
            }
        }
        columns.push(Of::left("", |cell| {
            let limit = self.threshold.ratio();
            let worse = cell.pairs.iter().find(|pair| pair.ratio() > limit);
            worse.map_or("", |pair| pair.measure.worse()).to_owned()
        }));
        columns
    }
}
