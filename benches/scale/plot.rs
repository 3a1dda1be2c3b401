//! A plot of several curves, each in a panel of its own with logarithmic axes: an SVG that needs nothing else.

use std::fmt::Write;

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 190.0;
const MARGIN: f64 = 42.0;
const COLUMNS: usize = 3;

/// One curve.
pub struct Panel {
    /// What its x axis is.
    pub name: &'static str,
    /// Where it goes through; all above 0.
    pub points: Vec<(f64, f64)>,
}

/// All panels; `title` is what their y axes are.
pub fn svg(title: &str, panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS as f64, HEIGHT * rows as f64 + 30.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"10\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"10\" y=\"18\" font-size=\"13\">{title}</text>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        let (x, y) = ((index % COLUMNS) as f64 * WIDTH, (index / COLUMNS) as f64 * HEIGHT + 30.0);
        let _ = writeln!(out, "<g transform=\"translate({x} {y})\">\n{}</g>", panel.drawn());
    }
    out + "</svg>\n"
}

impl Panel {
    fn drawn(&self) -> String {
        let xs = Axis::of(self.points.iter().map(|point| point.0), MARGIN, WIDTH - 12.0);
        let ys = Axis::of(self.points.iter().map(|point| point.1), HEIGHT - MARGIN, 16.0);
        let mut out = format!("<text x=\"{}\" y=\"12\" text-anchor=\"middle\">{}</text>\n", WIDTH / 2.0, self.name);
        for (at, label) in xs.ticks() {
            let (top, bottom) = (16.0, HEIGHT - MARGIN);
            let _ = writeln!(
                out,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                bottom + 13.0
            );
        }
        for (at, label) in ys.ticks() {
            let _ = writeln!(
                out,
                "<line x1=\"{MARGIN}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - 12.0,
                MARGIN - 4.0,
                at + 3.0
            );
        }
        let places: Vec<(f64, f64)> = self.points.iter().map(|&(x, y)| (xs.place(x), ys.place(y))).collect();
        let line: String = places.iter().map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
        let _ = writeln!(out, "<polyline points=\"{line}\" fill=\"none\" stroke=\"#0b62a4\" stroke-width=\"1.5\"/>");
        for ((x, y), (_, value)) in places.iter().zip(&self.points) {
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"#0b62a4\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#0b62a4\">{}</text>",
                y - 5.0,
                short(*value)
            );
        }
        out
    }
}

/// A logarithmic axis, by whole powers of ten.
struct Axis {
    first: i32,
    last: i32,
    from: f64,
    to: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Axis {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::MIN_POSITIVE, f64::max);
        let first = least.log10().floor() as i32;
        Axis { first, last: (most.log10().ceil() as i32).max(first + 1), from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value.log10() - f64::from(self.first)) / f64::from(self.last - self.first);
        self.from + part * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = (f64, String)> + '_ {
        (self.first..=self.last).map(|power| {
            let value = 10f64.powi(power);
            (self.place(value), short(value))
        })
    }
}

/// A number in few letters.
fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{:.0}M", value / 1e6),
        1e4.. => format!("{:.0}k", value / 1e3),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{}", (value * 100.0).round() / 100.0),
    }
}
