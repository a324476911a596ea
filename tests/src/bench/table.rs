//! Tables, for the terminal and in Markdown.

use std::fmt::Write as _;

/// One column of the tables.
pub(super) struct Column<'a, R> {
    title: String,
    left: bool,
    cell: Say<'a, R>,
}

/// What a record says in a column.
type Say<'a, R> = Box<dyn Fn(&R) -> String + 'a>;

impl<'a, R> Column<'a, R> {
    /// A column of words.
    pub(super) fn left(title: impl Into<String>, cell: impl Fn(&R) -> String + 'a) -> Self {
        Column { title: title.into(), left: true, cell: Box::new(cell) }
    }

    /// A column of numbers.
    pub(super) fn right(title: impl Into<String>, cell: impl Fn(&R) -> String + 'a) -> Self {
        Column { title: title.into(), left: false, cell: Box::new(cell) }
    }
}

/// A table in Markdown.
pub(super) fn markdown<R>(columns: &[Column<'_, R>], records: &[&R]) -> String {
    let titles: Vec<_> = columns.iter().map(|column| column.title.as_str()).collect();
    let mut text = format!("| {} |\n|", titles.join(" | "));
    for column in columns {
        text += if column.left { "---|" } else { "--:|" };
    }
    text += "\n";
    for record in records {
        let cells: Vec<_> = columns.iter().map(|column| (column.cell)(record)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// A table for the terminal.
pub(super) fn terminal<R>(columns: &[Column<'_, R>], records: &[&R]) -> String {
    let mut lines = vec![columns.iter().map(|c| c.title.clone()).collect::<Vec<_>>()];
    lines.extend(records.iter().map(|record| columns.iter().map(|c| (c.cell)(record)).collect()));
    let widths: Vec<_> = (0..columns.len())
        .map(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for ((cell, &width), column) in line.iter().zip(&widths).zip(columns) {
            let _ = match column.left {
                true => write!(row, "{cell:<width$}  "),
                false => write!(row, "{cell:>width$}  "),
            };
        }
        text += row.trim_end();
        text += "\n";
    }
    text
}

/// A number with two digits, or nothing.
pub(super) fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.2}"))
}
