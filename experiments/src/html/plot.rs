//! Plots of plain HTML: places are percentages, so a plot is as wide as its page, its text stays text, and its colours are the page's.
//! It refuses to choose what is shown; a value that is no number stands at the left end.

use std::fmt::Write;

/// Where values stand on an axis.
pub(crate) struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

impl Scale {
    /// A straight axis around all values, ending at round numbers.
    pub fn straight(values: impl Iterator<Item = f64>) -> Scale {
        let (low, high) = ends(values);
        // Of values that hardly differ the ticks would be all digits.
        let missing = (1e-3 * low.abs().max(high.abs()) - (high - low)).max(0.0) / 2.0;
        let (low, high) = (low - missing, high + missing);
        let margin = (high - low).max(1e-9) * 0.04;
        Scale { low: low - margin, high: high + margin, log: false }
    }

    /// A logarithmic axis around all values above 0.
    pub fn log(values: impl Iterator<Item = f64>) -> Scale {
        let (low, high) = ends(values.filter(|&v| v > 0.0).map(f64::log10));
        Scale { low: low - 0.05, high: high + 0.05, log: true }
    }

    /// Percent of the axis, 0 to 100.
    pub fn at(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        let share = (value - self.low) / (self.high - self.low);
        if share.is_finite() { (100.0 * share).clamp(0.0, 100.0) } else { 0.0 }
    }

    /// Round values on the axis, about four, with their text.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        if self.log {
            return self.log_ticks();
        }
        let rough = (self.high - self.low) / 4.0;
        let ten = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|f| f * ten).into_iter().find(|s| *s >= rough).unwrap_or(rough);
        let digits = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        let value = |k: i64| k as f64 * step;
        // Adding zero turns a negative zero into zero.
        (first..=last).map(|k| (value(k), format!("{:.digits$}", value(k) + 0.0))).collect()
    }

    fn log_ticks(&self) -> Vec<(f64, String)> {
        // Every power of ten, and 2 and 5 between them where there are few.
        let within = if self.high - self.low < 2.2 { [1.0, 2.0, 5.0].as_slice() } else { &[1.0] };
        let powers = self.low.floor() as i32..=self.high.ceil() as i32;
        let values = powers.flat_map(|p| within.iter().map(move |f| f * 10_f64.powi(p)));
        let shown = values.filter(|v| (self.low..=self.high).contains(&v.log10()));
        shown.map(|v| (v, if v >= 1.0 { format!("{v:.0}") } else { format!("{v}") })).collect()
    }
}

/// Least and largest; 0 and 1 of nothing.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let reach = values.filter(|v| v.is_finite()).fold(None, |reach: Option<(f64, f64)>, v| {
        Some(reach.map_or((v, v), |(low, high)| (low.min(v), high.max(v))))
    });
    reach.unwrap_or((0.0, 1.0))
}

/// One line of a [`rows`] plot.
pub(super) struct Line {
    /// What stands to the left, as HTML.
    pub name: String,
    /// What stands to the right, as text without markup.
    pub value: String,
    /// Class of the line.
    pub class: &'static str,
    /// A bar from one value to another.
    pub bar: Option<(f64, f64)>,
    /// Points on it, with their classes.
    pub points: Vec<(f64, &'static str)>,
}

/// Lines below each other on one axis.
pub(super) fn rows(page: &mut String, scale: &Scale, unit: &str, lines: &[Line]) {
    let ticks = scale.ticks();
    let grid: String = ticks
        .iter()
        .fold(String::new(), |all, (v, _)| all + &format!("<i style=\"left:{:.2}%\"></i>", scale.at(*v)));
    page.push_str("<div class=\"plot\">\n");
    // Writing to a string cannot fail, here and below.
    for line in lines {
        let _ = write!(
            page,
            "<div class=\"line {}\"><span class=\"name\">{}</span><div class=\"track\">{grid}",
            line.class, line.name
        );
        if let Some((from, to)) = line.bar {
            let (left, right) = (scale.at(from), scale.at(to));
            let _ = write!(page, "<u style=\"left:{left:.2}%;width:{:.2}%\"></u>", right - left);
        }
        for (value, class) in &line.points {
            let _ = write!(page, "<b class=\"{class}\" style=\"left:{:.2}%\"></b>", scale.at(*value));
        }
        let _ = writeln!(page, "</div><span class=\"value\">{}</span></div>", line.value);
    }
    page.push_str("<div class=\"line axis\"><span class=\"name\"></span><div class=\"track\">");
    for (value, text) in &ticks {
        let _ = write!(page, "<em style=\"left:{:.2}%\">{text}</em>", scale.at(*value));
    }
    let _ = writeln!(page, "</div><span class=\"value\">{unit}</span></div>\n</div>");
}

/// A point of a [`scatter`] plot: x, y, what stands in it, what it says when pointed at (escaped), class.
pub(super) type Point<'a> = (f64, f64, String, String, &'a str);

/// Points between two axes, and a line through some places.
pub(super) fn scatter(page: &mut String, titles: [&str; 2], points: &[Point<'_>], line: &[(f64, f64)]) {
    let (x, y) = (Scale::straight(points.iter().map(|p| p.0)), Scale::straight(points.iter().map(|p| p.1)));
    let _ = write!(page, "<p class=\"hint\">{}</p>\n<div class=\"scatter\">", titles[1]);
    for (value, text) in x.ticks() {
        let _ = write!(page, "<i class=\"x\" style=\"left:{:.2}%\"><em>{text}</em></i>", x.at(value));
    }
    for (value, text) in y.ticks() {
        let _ = write!(page, "<i class=\"y\" style=\"bottom:{:.2}%\"><em>{text}</em></i>", y.at(value));
    }
    // The picture is stretched to the box; the line's width is not.
    page.push_str(
        "<svg viewBox=\"0 0 100 100\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><polyline points=\"",
    );
    for (px, py) in line {
        let _ = write!(page, "{:.2},{:.2} ", x.at(*px), 100.0 - y.at(*py));
    }
    page.push_str("\"/></svg>");
    for (px, py, text, title, class) in points {
        let _ = write!(
            page,
            "<b class=\"{class}\" style=\"left:{:.2}%;bottom:{:.2}%\" title=\"{title}\">{text}</b>",
            x.at(*px),
            y.at(*py)
        );
    }
    let _ = writeln!(page, "</div>\n<p class=\"hint axis-title\">{}</p>", titles[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_ticks_by_hand() {
        let s = Scale::straight([0.0, 1.0].into_iter());
        assert!((s.at(0.5) - 50.0).abs() < 1e-9 && s.at(-9.0) == 0.0 && s.at(9.0) == 100.0);
        assert_eq!(s.ticks().into_iter().map(|t| t.1).collect::<Vec<_>>(), ["0.0", "0.5", "1.0"]);
        let l = Scale::log([1.0, 100.0].into_iter());
        assert!((l.at(10.0) - 50.0).abs() < 1e-9);
        let texts: Vec<_> = l.ticks().into_iter().map(|t| t.1).collect();
        assert_eq!(texts, ["1", "2", "5", "10", "20", "50", "100"]);
        // A straight axis would put 10 of 1 to 100 far to the left: the saboteur.
        assert!(Scale::straight([1.0, 100.0].into_iter()).at(10.0) < 20.0);
    }

    #[test]
    fn nothing_and_one_value_have_places() {
        for values in [vec![], vec![0.0], vec![3.0], vec![-2e9], vec![f64::NAN]] {
            for scale in [Scale::straight(values.iter().copied()), Scale::log(values.iter().copied())] {
                let ticks = scale.ticks();
                let mut places = values.iter().chain(ticks.iter().map(|t| &t.0)).map(|&v| scale.at(v));
                assert!(places.all(|p| (0.0..=100.0).contains(&p)), "{values:?}");
                assert!(scale.ticks().len() < 12, "{values:?}: {:?}", scale.ticks());
            }
        }
    }
}
