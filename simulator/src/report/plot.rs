//! Line charts as SVG: axes with units, a legend, a light background.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;

/// Of one chart, in pixels.
const SIZE: (u32, u32) = (1000, 460);
const LEGEND_WIDTH: u32 = 260;
/// On one axis: their labels must not touch.
const MOST_TICKS: usize = 11;
const COLOURS: [RGBColor; 7] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(23, 150, 160),
    RGBColor(90, 90, 90),
];

/// One line of a chart.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
    /// Drawn with dashes: somebody else's figures, or a formula.
    pub dashed: bool,
}

impl Series {
    /// A measured line.
    pub fn measured(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, dashed: false }
    }

    /// A line from elsewhere.
    pub fn published(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, dashed: true }
    }
}

/// An axis.
#[derive(Clone, PartialEq, Debug)]
pub struct Axis {
    /// What it measures, with the unit.
    pub label: String,
    /// Equal distances are equal factors.
    pub logarithmic: bool,
}

impl Axis {
    /// Equal distances are equal differences.
    pub fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), logarithmic: false }
    }

    /// Equal distances are equal factors.
    pub fn logarithmic(label: impl Into<String>) -> Self {
        Self { label: label.into(), logarithmic: true }
    }

    /// A little more than what is to be shown.
    fn scale(&self, values: impl Iterator<Item = f64>) -> Scale {
        let shown = values.filter(|value| self.can_show(*value));
        let (low, high) = shown.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        let range = match (low <= high, self.logarithmic) {
            (false, true) => 1.0..10.0,
            (false, false) => 0.0..1.0,
            (true, true) => low / 1.2..high * 1.2,
            (true, false) => 0.0..(high * 1.05).max(f64::MIN_POSITIVE),
        };
        Scale { range, logarithmic: self.logarithmic }
    }

    fn can_show(&self, value: f64) -> bool {
        value.is_finite() && (!self.logarithmic || value > 0.0)
    }

    fn tick(&self, value: f64) -> String {
        match value.abs() {
            v if v >= 1_000_000.0 => format!("{}M", short(value / 1_000_000.0)),
            v if v >= 1000.0 => format!("{}k", short(value / 1000.0)),
            _ => short(value),
        }
    }
}

/// With two digits that count at least.
fn short(value: f64) -> String {
    let magnitude = if value == 0.0 { 0 } else { libm::floor(libm::log10(value.abs())) as i32 };
    let decimals = usize::try_from(1 - magnitude).unwrap_or(0).clamp(2, 15);
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Where values lie on an axis. The library's own logarithmic one draws some ticks twice.
#[derive(Clone)]
struct Scale {
    range: Range<f64>,
    logarithmic: bool,
}

impl Scale {
    /// 1, 2 and 5 times the powers of ten, or less of them, so that there are at most so many.
    fn ticks(&self, most: usize) -> Vec<f64> {
        let (low, high) = (self.range.start, self.range.end);
        let tenfold = |power: i32| libm::pow(10.0, f64::from(power));
        if self.logarithmic {
            let powers = libm::floor(libm::log10(low)) as i32..=libm::log10(high) as i32;
            let of = |factors: &[f64]| -> Vec<f64> {
                let all = powers.clone().flat_map(|p| factors.iter().map(move |f| f * tenfold(p)));
                all.filter(|tick| self.range.contains(tick)).collect()
            };
            let fine = of(&[1.0, 2.0, 5.0]);
            match fine.len() {
                // None lies between: as on any other axis.
                0 => {}
                ticks if ticks <= most => return fine,
                _ => return of(&[1.0]),
            }
        }
        let power = libm::floor(libm::log10((high - low) / most.max(1) as f64)) as i32;
        let steps = (power..=power + 1).flat_map(|p| [1.0, 2.0, 5.0].map(|f| f * tenfold(p)));
        let few = |step: &f64| (high - low) / step < most.max(1) as f64;
        let step = steps.into_iter().find(few).unwrap_or(high - low);
        let from = libm::ceil(low / step);
        (0..=most).map(|at| (from + at as f64) * step).filter(|tick| *tick <= high).collect()
    }
}

impl Ranged for Scale {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let on = |value: f64| if self.logarithmic { libm::log10(value) } else { value };
        let (low, high) = (on(self.range.start), on(self.range.end));
        let share = (on(*value) - low) / (high - low);
        limit.0 + (share * f64::from(limit.1 - limit.0)) as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.ticks(hint.max_num_points().min(MOST_TICKS))
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// One chart.
#[derive(Clone, PartialEq, Debug)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
}

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawingError = Box<dyn std::error::Error + Send + Sync>;

/// Draws charts one below the other.
///
/// # Errors
/// If the drawing library cannot draw them.
pub fn svg(charts: &[Chart]) -> Result<String, DrawingError> {
    let mut out = String::new();
    let size = (SIZE.0, SIZE.1 * charts.len().max(1) as u32);
    {
        let whole = SVGBackend::with_string(&mut out, size).into_drawing_area();
        whole.fill(&WHITE)?;
        for (area, chart) in whole.split_evenly((charts.len().max(1), 1)).iter().zip(charts) {
            draw(area, chart)?;
        }
        whole.present()?;
    }
    Ok(out)
}

fn draw(area: &Drawing<'_>, chart: &Chart) -> Result<(), DrawingError> {
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let x = chart.x.scale(points().map(|point| point.0));
    let y = chart.y.scale(points().map(|point| point.1));
    let (plot, legend) = area.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    let mut context = ChartBuilder::on(&plot)
        .caption(&chart.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    context
        .configure_mesh()
        .x_desc(&chart.x.label)
        .y_desc(&chart.y.label)
        .x_label_formatter(&|value| chart.x.tick(*value))
        .y_label_formatter(&|value| chart.y.tick(*value))
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .draw()?;
    for (at, series) in chart.series.iter().enumerate() {
        let style = colour(at).stroke_width(2);
        let shown = |&&(x, y): &&(f64, f64)| chart.x.can_show(x) && chart.y.can_show(y);
        let points: Vec<(f64, f64)> = series.points.iter().filter(shown).copied().collect();
        if series.dashed {
            context.draw_series(DashedLineSeries::new(points, 7, 5, style))?;
        } else {
            let dots = points.iter().map(|point| Circle::new(*point, 3, colour(at).filled()));
            context.draw_series(dots)?;
            context.draw_series(LineSeries::new(points, style))?;
        }
    }
    draw_legend(&legend, &chart.series)
}

/// Beside the plot, where it hides no line.
fn draw_legend(area: &Drawing<'_>, series: &[Series]) -> Result<(), DrawingError> {
    for (at, series) in series.iter().enumerate() {
        let (style, y) = (colour(at).stroke_width(2), 52 + 20 * at as i32);
        let strokes: &[(i32, i32)] = if series.dashed { &[(0, 7), (12, 19)] } else { &[(0, 20)] };
        for &(from, to) in strokes {
            area.draw(&PathElement::new([(from, y), (to, y)], style))?;
        }
        area.draw(&Text::new(series.name.as_str(), (28, y - 6), ("sans-serif", 13)))?;
    }
    Ok(())
}

fn colour(series: usize) -> RGBColor {
    COLOURS[series % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_names_its_axes_and_lines() {
        let chart = Chart {
            title: "Load".to_owned(),
            x: Axis::logarithmic("members"),
            y: Axis::linear("packets/s"),
            series: vec![
                Series::measured("ours", vec![(8.0, 2.0), (1000.0, 2.0)]),
                Series::published("theirs", vec![(8.0, 2.1), (0.0, 3.0)]),
            ],
        };
        let drawing = svg(&[chart]).unwrap();
        for text in ["<svg", "Load", "members", "packets/s", "ours", "theirs"] {
            assert!(drawing.contains(text), "{text}");
        }
    }

    #[test]
    fn nothing_to_show_is_still_a_chart() {
        for axis in [Axis::linear("x"), Axis::logarithmic("x")] {
            let chart = Chart { title: "t".into(), x: axis.clone(), y: axis, series: vec![] };
            assert!(svg(&[chart]).is_ok());
        }
    }

    #[test]
    fn each_tick_is_there_once() {
        let scale = |low, high, logarithmic| Scale { range: low..high, logarithmic };
        let members = [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
        assert_eq!(scale(8.0 / 1.2, 1200.0, true).ticks(11), members);
        assert_eq!(scale(0.9, 1.1e5, true).ticks(8), [1.0, 10.0, 100.0, 1000.0, 1e4, 1e5]);
        assert_eq!(
            scale(0.0, 1.6, false).ticks(11),
            [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6]
                .map(|tick: f64| (tick / 0.2).round() * 0.2)
        );
        assert_eq!(scale(0.0, 42.0, false).ticks(10).len(), 9);
    }

    /// Where there is no 1, 2 or 5 times a power of ten.
    #[test]
    fn a_short_logarithmic_axis_has_ticks_too() {
        let axis = Axis::logarithmic("");
        let ticks = axis.scale([0.03, 0.035].into_iter()).ticks(4);
        let texts: Vec<_> = ticks.iter().map(|tick| axis.tick(*tick)).collect();
        assert_eq!(texts, ["0.025", "0.03", "0.035", "0.04"]);
    }

    #[test]
    fn ticks_are_short() {
        let axis = Axis::linear("");
        assert_eq!([0.5, 20.0, 5000.0, 2.5e6].map(|v| axis.tick(v)), ["0.5", "20", "5k", "2.5M"]);
        let small = [0.0, 0.001, 0.002, 0.005, 0.01, 0.05].map(|v| axis.tick(v));
        assert_eq!(small, ["0", "0.001", "0.002", "0.005", "0.01", "0.05"]);
    }
}
