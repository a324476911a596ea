//! The plot of a comparison: for each time, how many times as long it takes now, against how long it took.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::super::plot::{PlotError, SIZE};
use super::{Comparison, Measure};

/// Colours of hot and cold times.
const COLOURS: [RGBColor; 2] = [RGBColor(0x1f, 0x77, 0xb4), RGBColor(0xff, 0x7f, 0x0e)];
/// Colour of what is slower than allowed, and of the limit.
const SLOWER: RGBColor = RGBColor(0xd6, 0x27, 0x28);
/// The axis of ratios shows at least 1 plus and minus this.
const LEAST_RANGE: f64 = 0.2;

/// One time of one cell.
struct Point {
    name: String,
    measure: Measure,
    is_compress: bool,
    /// Microseconds in the older run, and the ratio.
    place: (f64, f64),
}

/// The plot as SVG; `None` where there are no times: on the emulator.
///
/// # Errors
/// When it cannot be drawn.
pub fn to_svg(comparison: &Comparison) -> Result<Option<String>, PlotError> {
    let points = points(comparison);
    if points.is_empty() {
        return Ok(None);
    }
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    draw(&area, comparison, &points).map_err(PlotError::of)?;
    drop(area);
    Ok(Some(svg))
}

fn points(comparison: &Comparison) -> Vec<Point> {
    let mut points = Vec::new();
    for cell in &comparison.cells {
        for pair in cell.pairs.iter().filter(|pair| pair.measure.is_time() && pair.before > 0.0) {
            points.push(Point {
                name: cell.name.clone(),
                measure: pair.measure,
                is_compress: cell.is_compress,
                place: (pair.before, pair.ratio()),
            });
        }
    }
    points
}

fn draw<B>(
    area: &DrawingArea<B, Shift>,
    comparison: &Comparison,
    points: &[Point],
) -> Result<(), Box<dyn std::error::Error>>
where
    B: DrawingBackend,
    B::ErrorType: 'static,
{
    let limit = comparison.threshold.ratio();
    let over = |value: fn(&Point) -> f64| points.iter().map(value);
    let (least, most) =
        (over(|p| p.place.0).fold(f64::INFINITY, f64::min), over(|p| p.place.0).fold(0.0, f64::max));
    let times = least / 1.3..most * 1.3;
    let low = over(|p| p.place.1).fold(1.0 - LEAST_RANGE, f64::min);
    let high = over(|p| p.place.1).fold(limit.max(1.0 + LEAST_RANGE), f64::max);
    let ends = (times.start, times.end);
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("Now against {}, {}", comparison.date, comparison.device), ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(times.log_scale().base(2.0), low - 0.02..high + 0.02)?;
    chart
        .configure_mesh()
        .x_desc("microseconds per launch before")
        .y_desc("time now / time before (below 1: faster; dashed: the limit)")
        .x_label_formatter(&|us| format!("{us:.1}"))
        .y_label_formatter(&|ratio| format!("{ratio:.2}"))
        .light_line_style(WHITE)
        .label_style(("sans-serif", 14))
        .draw()?;
    let across = |ratio: f64| [(ends.0, ratio), (ends.1, ratio)];
    chart.draw_series(LineSeries::new(across(1.0), BLACK.stroke_width(1)))?;
    chart.draw_series([DashedPathElement::new(across(limit), 6, 4, SLOWER.stroke_width(1))])?;
    for (measure, colour) in Measure::TIMES.into_iter().zip(COLOURS) {
        for (is_compress, operator) in [(false, "top-k"), (true, "compressor")] {
            let own = |point: &&Point| (point.measure, point.is_compress) == (measure, is_compress);
            let marks = points.iter().filter(own).map(|point| {
                let colour = if point.place.1 > limit { SLOWER } else { colour };
                mark(point.place, is_compress, colour)
            });
            if points.iter().any(|point| own(&point)) {
                chart
                    .draw_series(marks)?
                    .label(format!("{operator}, {}", measure.name()))
                    .legend(move |(x, y)| mark((x + 10, y), is_compress, colour));
            }
        }
    }
    // The name of a point goes where there is more room.
    let middle = (ends.0 * ends.1).sqrt();
    let named = points.iter().filter(|point| point.place.1 > limit);
    chart.draw_series(named.map(|point| {
        let (side, offset) = if point.place.0 < middle { (HPos::Left, 7) } else { (HPos::Right, -7) };
        let style = ("sans-serif", 11).into_font().color(&SLOWER).pos(Pos::new(side, VPos::Center));
        let text = format!("{} {}", point.name, point.measure.name());
        EmptyElement::at(point.place) + Text::new(text, (offset, 0), style)
    }))?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}

/// The mark of a time: a disc for top-k, a ring for the compressor.
fn mark<C>(place: C, is_compress: bool, colour: RGBColor) -> Circle<C, i32> {
    Circle::new(place, 3, if is_compress { colour.stroke_width(1) } else { colour.filled() })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{case, compare, compress, report};
    use super::*;

    #[test]
    fn the_svg_is_whole_and_names_what_is_slower() {
        let before =
            report(vec![case("a", 10.0, Some(12.0)), case("b", 20.0, None)], vec![compress("c", 5.0)]);
        let now = report(vec![case("a", 10.1, Some(13.9)), case("b", 19.0, None)], vec![compress("c", 5.0)]);
        let svg = to_svg(&compare(&before, &now).unwrap()).unwrap().unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("a cold\n") && !svg.contains("b hot\n"), "{svg}");
        for name in ["top-k, hot\n", "top-k, cold\n", "compressor, hot\n"] {
            assert!(svg.contains(name), "no {name:?} in {svg}");
        }
        assert!(!svg.contains("compressor, cold"), "{svg}");
    }
}
