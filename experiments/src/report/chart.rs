//! Charts as SVG: lines with bands, points with bars, on straight or logarithmic axes. One drawing serves the page, where the page's
//! style colours it and its script hides series, and the picture file, which brings its own style and legend.
//! It refuses to choose what is shown; a value that is no number is left out.

use crate::html::plot::Scale;
use crate::html::{COLOURS, escape};
use std::fmt::Write;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

/// What a picture file brings along; in the page, `report.css` says the same with the page's colours.
pub(super) const STYLE: &str = "text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:#1d2329}.soft{fill:#66717c}.ground{fill:#fff}\
.tick{stroke:#dfe3e6}.frame{stroke:#97a3ae}.front{stroke:#66717c;fill:none;stroke-dasharray:4 3}.in{font-size:10px}.hollow{fill:#fff}.cell{font-size:11px}";

/// A series of a chart.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its name, that of a contender.
    pub name: String,
    /// Its number among all contenders, which gives the colour.
    pub index: usize,
    /// A line through these, with half the height of a band around it.
    pub line: Vec<(f64, f64, f64)>,
    /// Whether the line is a stair: a value lasts until the next.
    pub stair: bool,
    /// Whether the places of the line are marked, with a bar instead of a band.
    pub marks: bool,
    /// Single points: x, y, what stands in them, what they say when pointed at, whether they are filled.
    pub points: Vec<(f64, f64, String, String, bool)>,
}

/// An axis.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// What it shows, with its unit.
    pub title: String,
    /// Whether it is logarithmic.
    pub log: bool,
    /// Values that are to be on it in any case.
    pub reach: Vec<f64>,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// What it says to those who cannot see it, and as the caption.
    pub title: String,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// What is drawn, the last on top.
    pub series: Vec<Series>,
    /// A dashed line through some places, such as a front.
    pub front: Vec<(f64, f64)>,
}

/// Paint of a series: its colour, and dashes where colours come again.
pub(super) fn paint(index: usize) -> (&'static str, &'static str) {
    let dash = ["", " stroke-dasharray=\"6 3\"", " stroke-dasharray=\"2 3\""];
    (COLOURS[index % COLOURS.len()], dash[(index / COLOURS.len()) % dash.len()])
}

struct Drawing<'a> {
    chart: &'a Chart,
    x: Scale,
    y: Scale,
    out: String,
}

fn scale(axis: &Axis, values: impl Iterator<Item = f64>) -> Scale {
    let values: Vec<f64> = values.chain(axis.reach.iter().copied()).collect();
    let least = values.iter().copied().filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
    // Within less than a factor of four a logarithmic axis would have a tick or none.
    let wide = values.iter().copied().fold(0.0, f64::max) > 4.0 * least;
    if axis.log && wide { Scale::log(values.into_iter()) } else { Scale::straight(values.into_iter()) }
}

impl Chart {
    /// The drawing without style and legend, for a page.
    pub fn inline(&self) -> String {
        let label = escape(&self.title);
        format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">{}</svg>",
            self.body()
        )
    }

    /// The whole picture for a file.
    pub fn picture(&self) -> String {
        let (legend, height) = legend(&self.series, HEIGHT + 22.0);
        let title = escape(&self.title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 -24 {WIDTH} {0:.0}\" width=\"{WIDTH}\" height=\"{0:.0}\" role=\"img\">\
             <title>{title}</title><style>{STYLE}</style><rect class=\"ground\" y=\"-24\" width=\"{WIDTH}\" height=\"{0:.0}\"/>\
             <text x=\"12\" y=\"-6\" font-weight=\"bold\">{title}</text>{1}{legend}</svg>\n",
            height + 24.0,
            self.body()
        )
    }

    fn body(&self) -> String {
        let lines = || self.series.iter().flat_map(|s| &s.line);
        let points = || self.series.iter().flat_map(|s| &s.points);
        let x = scale(&self.x, lines().map(|p| p.0).chain(points().map(|p| p.0)));
        let ends = lines().flat_map(|p| [p.1 - p.2, p.1 + p.2]).chain(points().map(|p| p.1));
        let y = scale(&self.y, ends);
        let mut drawing = Drawing { chart: self, x, y, out: String::new() };
        drawing.ground();
        drawing.front();
        self.series.iter().for_each(|s| drawing.series(s));
        drawing.out
    }
}

// Writing to a string cannot fail, in all that follows.
impl Drawing<'_> {
    fn px(&self, x: f64) -> f64 {
        LEFT + self.x.at(x) / 100.0 * (WIDTH - LEFT - RIGHT)
    }

    fn py(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.at(y) / 100.0 * (HEIGHT - TOP - BOTTOM)
    }

    fn ground(&mut self) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, text) in self.x.ticks() {
            let x = self.px(value);
            let _ = write!(
                self.out,
                "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/><text class=\"soft\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                bottom + 15.0
            );
        }
        for (value, text) in self.y.ticks() {
            let y = self.py(value);
            let _ = write!(
                self.out,
                "<line class=\"tick\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 6.0,
                y + 4.0
            );
        }
        let middle = (TOP + bottom) / 2.0;
        let _ = write!(
            self.out,
            "<path class=\"frame\" d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\"/>\
             <text class=\"soft\" x=\"{:.0}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text class=\"soft\" transform=\"translate(12 {middle:.0}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 6.0,
            escape(&self.chart.x.title),
            escape(&self.chart.y.title)
        );
    }

    fn path(&self, points: &[(f64, f64)], stair: bool) -> String {
        let mut path = String::new();
        for (i, &(x, y)) in points.iter().enumerate() {
            let (x, y) = (self.px(x), self.py(y));
            let _ = match (i, stair) {
                (0, _) => write!(path, "M{x:.1} {y:.1}"),
                (_, true) => write!(path, "H{x:.1}V{y:.1}"),
                (_, false) => write!(path, "L{x:.1} {y:.1}"),
            };
        }
        path
    }

    fn front(&mut self) {
        if self.chart.front.len() > 1 {
            let path = self.path(&self.chart.front, true);
            let _ = write!(self.out, "<path class=\"front\" d=\"{path}\"/>");
        }
    }

    fn series(&mut self, s: &Series) {
        let (colour, dash) = paint(s.index);
        let _ = write!(self.out, "<g data-c=\"{}\"><title>{}</title>", s.index, escape(&s.name));
        let line: Vec<(f64, f64)> = s.line.iter().map(|p| (p.0, p.1)).collect();
        if !s.marks && s.line.iter().any(|p| p.2 > 0.0) {
            let up = s.line.iter().map(|p| (p.0, p.1 + p.2));
            let down = s.line.iter().rev().map(|p| (p.0, p.1 - p.2));
            let path = self.path(&up.chain(down).collect::<Vec<_>>(), false);
            let _ = write!(self.out, "<path d=\"{path}Z\" fill=\"{colour}\" opacity=\"0.16\"/>");
        }
        if line.len() > 1 {
            let path = self.path(&line, s.stair);
            let _ = write!(
                self.out,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"{dash}/>"
            );
        }
        for &(x, y, half) in s.line.iter().filter(|_| s.marks) {
            let (px, py) = (self.px(x), self.py(y));
            let (low, high) = (self.py(y - half), self.py(y + half));
            // A bar of no length cannot be drawn.
            if low - high > 0.1 {
                let _ = write!(self.out, "<path d=\"M{px:.1} {low:.1}V{high:.1}\" stroke=\"{colour}\"/>");
            }
            let _ = write!(self.out, "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.2\" fill=\"{colour}\"/>");
        }
        for (x, y, text, title, filled) in &s.points {
            let (px, py) = (self.px(*x), self.py(*y));
            let (class, fill, ink) = if *filled {
                ("", format!(" fill=\"{colour}\""), " style=\"fill:#fff\"")
            } else {
                ("hollow", String::new(), "")
            };
            let _ = write!(
                self.out,
                "<g><title>{}</title><circle class=\"{class}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"9\" stroke=\"{colour}\" stroke-width=\"2\"{fill}/>\
                 <text class=\"in\" x=\"{px:.1}\" y=\"{:.1}\" text-anchor=\"middle\"{ink}>{}</text></g>",
                escape(title),
                py + 3.6,
                escape(text)
            );
        }
        self.out.push_str("</g>\n");
    }
}

/// Names and colours from `y` on, and the height of the whole picture.
fn legend(series: &[Series], mut y: f64) -> (String, f64) {
    let mut out = String::new();
    let mut x = 12.0;
    for s in series {
        let points = s.points.first().map_or(String::new(), |p| format!("{} ", p.2));
        let name = format!("{points}{}", s.name);
        let width = 40.0 + 7.2 * name.chars().count() as f64;
        if x + width > WIDTH && x > 12.0 {
            x = 12.0;
            y += 18.0;
        }
        let (colour, dash) = paint(s.index);
        let _ = write!(
            out,
            "<path d=\"M{x} {0}h16\" stroke=\"{colour}\" stroke-width=\"3\"{dash}/><text x=\"{1}\" y=\"{y}\">{2}</text>",
            y - 4.0,
            x + 21.0,
            escape(&name)
        );
        x += width;
    }
    (out, y + 10.0)
}

/// A table of shares, the redder the larger: rows (number of the contender, name), columns, values by row.
pub struct Heat {
    /// As of a chart.
    pub title: String,
    /// Names of the rows with their numbers among all contenders.
    pub rows: Vec<(usize, String)>,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Shares from 0 to 1; `None` where there is none.
    pub values: Vec<Vec<Option<f64>>>,
}

impl Heat {
    /// The whole picture for a file.
    pub fn picture(&self) -> String {
        let (cell, row) = (54.0, 22.0);
        let label = 12.0 + 7.4 * self.rows.iter().map(|r| r.1.chars().count()).max().unwrap_or(0) as f64;
        let head = 14.0 + 5.2 * self.columns.iter().map(|c| c.chars().count()).max().unwrap_or(0) as f64;
        let width = (label + cell * self.columns.len() as f64 + head * 0.5).max(320.0);
        let height = 30.0 + head + row * self.rows.len() as f64 + 8.0;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">\
             <title>{0}</title><style>{STYLE}</style><rect class=\"ground\" width=\"{width:.0}\" height=\"{height:.0}\"/>\
             <text x=\"12\" y=\"18\" font-weight=\"bold\">{0}</text>",
            escape(&self.title)
        );
        for (i, name) in self.columns.iter().enumerate() {
            let x = label + cell * (i as f64 + 0.5);
            let _ = write!(
                out,
                "<text class=\"soft\" transform=\"translate({x:.1} {:.1}) rotate(-40)\">{}</text>",
                26.0 + head,
                escape(name)
            );
        }
        for (r, (_, name)) in self.rows.iter().enumerate() {
            let y = 30.0 + head + row * r as f64;
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                label - 6.0,
                y + 15.0,
                escape(name)
            );
            for (c, value) in self.values[r].iter().enumerate() {
                let Some(value) = value else { continue };
                let x = label + cell * c as f64;
                let _ = write!(
                    out,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#c93434\" opacity=\"{:.3}\"/>\
                     <text class=\"cell\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.1}</text>",
                    cell - 1.0,
                    row - 1.0,
                    red(*value) / 100.0,
                    x + cell / 2.0,
                    y + 15.0,
                    100.0 * value
                );
            }
        }
        out + "</svg>\n"
    }
}

/// Percent of red of a share of misses: the square root tells 1 from 3 % as well as 40 from 60 %.
pub(super) fn red(share: f64) -> f64 {
    80.0 * share.clamp(0.0, 1.0).sqrt()
}
