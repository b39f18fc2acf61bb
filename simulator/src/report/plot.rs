//! Line charts as SVG: axes with units, a legend, a light background.

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

const SIZE: (u32, u32) = (760, 460);
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
    fn range(&self, values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
        let shown = values.filter(|value| self.can_show(*value));
        let (low, high) = shown.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        match (low <= high, self.logarithmic) {
            (false, true) => 1.0..10.0,
            (false, false) => 0.0..1.0,
            (true, true) => low / 1.2..high * 1.2,
            (true, false) => 0.0..(high * 1.05).max(f64::MIN_POSITIVE),
        }
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

fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
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
    let x = chart.x.range(points().map(|point| point.0));
    let y = chart.y.range(points().map(|point| point.1));
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(&chart.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64);
    // The library has a type for each combination.
    match (chart.x.logarithmic, chart.y.logarithmic) {
        (false, false) => lines(builder.build_cartesian_2d(x, y)?, chart),
        (true, false) => lines(builder.build_cartesian_2d(x.log_scale(), y)?, chart),
        (false, true) => lines(builder.build_cartesian_2d(x, y.log_scale())?, chart),
        (true, true) => lines(builder.build_cartesian_2d(x.log_scale(), y.log_scale())?, chart),
    }
}

fn lines<'a, X, Y>(
    mut context: ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    chart: &Chart,
) -> Result<(), DrawingError>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    context
        .configure_mesh()
        .x_desc(&chart.x.label)
        .y_desc(&chart.y.label)
        .x_label_formatter(&|value| chart.x.tick(*value))
        .y_label_formatter(&|value| chart.y.tick(*value))
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .light_line_style(RGBColor(240, 240, 240))
        .bold_line_style(RGBColor(215, 215, 215))
        .draw()?;
    for (at, series) in chart.series.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let style = colour.stroke_width(2);
        let shown = |&&(x, y): &&(f64, f64)| chart.x.can_show(x) && chart.y.can_show(y);
        let points: Vec<(f64, f64)> = series.points.iter().filter(shown).copied().collect();
        if series.dashed {
            context
                .draw_series(DashedLineSeries::new(points, 7, 5, style))?
                .label(&series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 8, y)], style));
        } else {
            let dots = points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
            context.draw_series(dots)?;
            context
                .draw_series(LineSeries::new(points, style))?
                .label(&series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
    }
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(190, 190, 190))
        .label_font(("sans-serif", 13))
        .draw()?;
    Ok(())
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
    fn ticks_are_short() {
        let axis = Axis::linear("");
        assert_eq!([0.5, 20.0, 5000.0, 2.5e6].map(|v| axis.tick(v)), ["0.5", "20", "5k", "2.5M"]);
    }
}
