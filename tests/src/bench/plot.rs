//! The plot: time against length, one line per batch size, the floors dashed, the rivals dotted.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::report::{CaseRecord, Report};

/// Width and height of the plot in pixels.
pub(super) const SIZE: (u32, u32) = (960, 640);

/// One colour per batch size, in the order of the table.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xff, 0x7f, 0x0e),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0x8c, 0x56, 0x4b),
];

/// Gaps between the dots of the rivals' lines, in the order of the command line: each rival has its own.
const GAPS: [u32; 4] = [3, 7, 12, 18];

/// Length of a dot.
const DOT: u32 = 2;

/// Points of a line: length and time.
type Points = Vec<(f64, f64)>;

/// One batch size: its times and floors, by length.
#[derive(Default)]
struct Line {
    rows: u32,
    hot: Points,
    floor: Points,
    /// One line for each rival, in the order of the report.
    rivals: Vec<Points>,
}

/// The plot of a run as SVG; `None` when no cell of the main table was timed.
///
/// Text is SVG text in a generic font family: no font of this machine is looked at.
pub fn to_svg(report: &Report) -> Result<Option<String>, PlotError> {
    let rivals: Vec<_> = report.rivals.iter().map(|rival| rival.name.as_str()).collect();
    let lines = lines(&report.cases, &rivals);
    if lines.is_empty() {
        return Ok(None);
    }
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    let title = format!("Top-2048 of normal scores, {}", report.device.name);
    draw(&area, &title, &lines, &rivals).map_err(PlotError::of)?;
    drop(area);
    Ok(Some(svg))
}

/// The plot could not be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot draw the plot: {0}")]
pub struct PlotError(String);

impl PlotError {
    pub(super) fn of(error: Box<dyn std::error::Error>) -> Self {
        Self(error.to_string())
    }
}

/// The lines of the main table, by batch size, each by length.
fn lines(cases: &[CaseRecord], rivals: &[&str]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for case in cases.iter().filter(|case| matches!(case.list.as_str(), "single" | "batch")) {
        let Some(hot) = case.times.us_hot else { continue };
        let line = match lines.iter_mut().position(|line| line.rows == case.rows) {
            Some(at) => &mut lines[at],
            None => {
                let rivals = vec![Points::new(); rivals.len()];
                lines.push(Line { rows: case.rows, rivals, ..Line::default() });
                let last = lines.len() - 1;
                &mut lines[last]
            }
        };
        line.hot.push((f64::from(case.len), hot));
        if let Some(floor) = case.floor_us {
            line.floor.push((f64::from(case.len), floor));
        }
        for (points, name) in line.rivals.iter_mut().zip(rivals) {
            if let Some(us) = case.rival(name).and_then(|rival| rival.times.us_hot) {
                points.push((f64::from(case.len), us));
            }
        }
    }
    lines.sort_by_key(|line| line.rows);
    for line in &mut lines {
        for points in [&mut line.hot, &mut line.floor].into_iter().chain(&mut line.rivals) {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
    }
    lines
}

/// Smallest and largest of `values`, with a margin that suits logarithmic axes.
fn range(values: impl Iterator<Item = f64> + Clone) -> std::ops::Range<f64> {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let most = values.fold(0.0, f64::max);
    least / 1.3..most * 1.3
}

fn draw<B>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    lines: &[Line],
    rivals: &[&str],
) -> Result<(), Box<dyn std::error::Error>>
where
    B: DrawingBackend,
    B::ErrorType: 'static,
{
    let points =
        lines.iter().flat_map(|line| line.hot.iter().chain(&line.floor).chain(line.rivals.iter().flatten()));
    let lengths = range(points.clone().map(|point| point.0));
    let times = range(points.map(|point| point.1));
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(lengths.log_scale().base(2.0), times.log_scale().base(2.0))?;
    chart
        .configure_mesh()
        .x_desc("scores per row")
        .y_desc("microseconds per launch (dashed: a kernel that only reads the scores)")
        .x_label_formatter(&|length| label(*length))
        .y_label_formatter(&|us| format!("{us:.1}"))
        .light_line_style(WHITE)
        .label_style(("sans-serif", 14))
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
        let name = if line.rows == 1 { "1 row".to_owned() } else { format!("{} rows", line.rows) };
        chart
            .draw_series(LineSeries::new(line.hot.iter().copied(), colour.stroke_width(2)).point_size(3))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        chart.draw_series(DashedLineSeries::new(line.floor.iter().copied(), 6, 4, colour.stroke_width(1)))?;
        for (points, gap) in line.rivals.iter().zip(GAPS.into_iter().cycle()) {
            chart.draw_series(dotted(points, gap, colour))?;
        }
    }
    for (name, gap) in rivals.iter().zip(GAPS.into_iter().cycle()) {
        let nowhere: [(f64, f64); 0] = [];
        chart
            .draw_series(LineSeries::new(nowhere, BLACK.stroke_width(2)))?
            .label(format!("{name} (dotted)"))
            .legend(move |(x, y)| {
                let path = [(x, y), (x + 20, y)];
                DashedPathElement::new(path, DOT, gap, BLACK.stroke_width(2))
            });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}

/// The line of a rival.
fn dotted(
    points: &Points,
    gap: u32,
    colour: RGBColor,
) -> DashedLineSeries<std::vec::IntoIter<(f64, f64)>, u32> {
    DashedLineSeries::new(points.clone(), DOT, gap, colour.stroke_width(2))
}

/// A length in binary thousands.
fn label(length: f64) -> String {
    let length = length.round() as u64;
    match length {
        0..1024 => length.to_string(),
        1024..1_048_576 => format!("{}K", length >> 10),
        _ => format!("{}M", length >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{DeviceRecord, RivalLibrary, RivalRecord, SCHEMA, Times};
    use super::*;

    fn case(list: &str, rows: u32, len: u32, us: Option<f64>) -> CaseRecord {
        CaseRecord {
            list: list.to_owned(),
            rows,
            len,
            times: Times { us_hot: us, ..Times::default() },
            floor_us: us.map(|us| us / 2.0),
            ..CaseRecord::default()
        }
    }

    fn report(cases: Vec<CaseRecord>) -> Report {
        Report {
            schema: SCHEMA,
            backend: "gpu".to_owned(),
            backend_reason: String::new(),
            device: DeviceRecord {
                name: "Test <GPU>".to_owned(),
                driver: String::new(),
                compute_capability: "9.0".to_owned(),
                multiprocessors: 132,
                l2_bytes: 0,
            },
            date: String::new(),
            command: String::new(),
            ptx: String::new(),
            options: None,
            quick: false,
            chain: 40,
            null_us: None,
            rivals: Vec::new(),
            cases,
            copy_bytes_per_us: None,
            compress: Vec::new(),
        }
    }

    #[test]
    fn each_batch_size_is_one_line_sorted_by_length() {
        let cases = [
            case("batch", 8, 8192, Some(3.0)),
            case("single", 1, 8192, Some(2.0)),
            case("single", 1, 3072, Some(1.0)),
            case("mixed", 64, 8192, Some(9.0)),
            case("single", 1, 16384, None),
        ];
        let lines = lines(&cases, &[]);
        let shape: Vec<_> = lines.iter().map(|line| (line.rows, line.hot.clone())).collect();
        assert_eq!(shape, [(1, vec![(3072.0, 1.0), (8192.0, 2.0)]), (8, vec![(8192.0, 3.0)])]);
        assert_eq!(lines[0].floor, [(3072.0, 0.5), (8192.0, 1.0)]);
    }

    #[test]
    fn the_svg_is_whole_names_each_batch_and_needs_no_font_file() {
        let svg = to_svg(&report(vec![
            case("single", 1, 3072, Some(2.5)),
            case("single", 1, 1 << 20, Some(21.0)),
            case("batch", 64, 8192, Some(4.0)),
            case("batch", 64, 131_072, Some(30.0)),
        ]))
        .unwrap()
        .unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("1 row\n") && svg.contains("64 rows\n"), "{svg}");
        assert!(svg.contains("Test &lt;GPU&gt;"), "{svg}");
        assert!(!svg.contains("@font-face"), "{svg}");
    }

    #[test]
    fn each_rival_has_a_line_for_each_batch_size_and_a_name_in_the_legend() {
        let with = |rows, len, times: &[(&str, Option<f64>)]| {
            let rival = |&(name, us_hot): &(&str, _)| RivalRecord {
                name: name.to_owned(),
                times: Times { us_hot, ..Times::default() },
                ..RivalRecord::default()
            };
            CaseRecord { rivals: times.iter().map(rival).collect(), ..case("batch", rows, len, Some(4.0)) }
        };
        let cases = vec![
            with(8, 16_384, &[("alpha", Some(9.0)), ("beta", None)]),
            with(8, 8192, &[("alpha", Some(7.0)), ("beta", Some(6.0))]),
            with(64, 8192, &[("beta", Some(5.0))]),
        ];
        let lines = lines(&cases, &["alpha", "beta"]);
        assert_eq!(lines[0].rivals, [vec![(8192.0, 7.0), (16_384.0, 9.0)], vec![(8192.0, 6.0)]]);
        assert_eq!(lines[1].rivals, [vec![], vec![(8192.0, 5.0)]]);
        let mut report = report(cases);
        let without = to_svg(&report).unwrap().unwrap();
        let library = |name: &str| RivalLibrary { name: name.to_owned(), library: String::new() };
        report.rivals = vec![library("alpha"), library("beta")];
        let svg = to_svg(&report).unwrap().unwrap();
        assert!(svg.contains("alpha (dotted)\n") && svg.contains("beta (dotted)\n"), "{svg}");
        let elements = |svg: &str| svg.matches("<polyline").count();
        assert!(elements(&svg) > elements(&without), "{svg}");
    }

    #[test]
    fn a_single_point_can_be_plotted() {
        let svg = to_svg(&report(vec![case("single", 1, 8192, Some(2.5))])).unwrap();
        assert!(svg.is_some());
    }

    #[test]
    fn without_times_there_is_no_plot() {
        assert_eq!(to_svg(&report(vec![case("emulated", 4, 8192, None)])).unwrap(), None);
    }

    #[test]
    fn lengths_are_labelled_in_binary_thousands() {
        assert_eq!([512.0, 8192.0, 1_048_576.0].map(label), ["512", "8K", "1M"]);
    }
}
