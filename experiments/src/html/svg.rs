//! A still picture of a stretch of a run as SVG, for documents. It needs no script and reads on light and dark ground.
//! It refuses to leave anything out: what does not fit a lane gets another.

use super::{COLOURS, escape};
use crate::log::RunLog;
use crate::timeline::{Life, Timeline, stream_name};
use cosched_env::case::Case;
use cosched_env::event::Outcome;
use cosched_env::time::Time;
use std::fmt::Write;

const WIDTH: f64 = 1000.0;
const LABEL: f64 = 96.0;
const BAR: f64 = 24.0;
const LIFE: f64 = 9.0;
const GAP: f64 = 8.0;
const TOP: f64 = 30.0;

const STYLE: &str = "text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:#1d2329}.soft{fill:#66717c}.ground{fill:#fff}.lane{fill:#f0f2f3}\
.tick{stroke:#dfe3e6}.in{fill:#fff}.late{fill:#c77700}.lost{fill:#c93434}.x{stroke:#c93434;stroke-width:2}\
@media(prefers-color-scheme:dark){text{fill:#e4e8eb}.soft{fill:#97a3ae}.ground{fill:#1b2126}.lane{fill:#222a30}.tick{stroke:#323b43}\
.late{fill:#f0a63a}.lost{fill:#ff6b6b}.x{stroke:#ff6b6b}.in{fill:#fff}}";

struct Picture<'a> {
    out: String,
    log: &'a RunLog,
    case: &'a Case,
    timeline: Timeline,
    from: Time,
    to: Time,
}

/// The stretch `from..to` of a run: processors with their launches, streams with their requests, a legend. `to` must be after `from`,
/// otherwise a millisecond is drawn.
pub fn timeline_svg(log: &RunLog, case: &Case, from: Time, to: Time) -> String {
    let to = to.max(Time(from.0 + 1_000_000));
    let mut picture = Picture { out: String::new(), log, case, timeline: Timeline::of(log, case), from, to };
    let mut y = TOP;
    let mut rows = Vec::new();
    for (p, spec) in case.plan.processors.iter().enumerate() {
        // Lanes that only other stretches of the run need would be empty here.
        let here = picture.timeline.bars.iter().filter(|b| b.processor == p && picture.visible(b.from, b.to));
        let height = here.map(|b| b.lane + 1).max().unwrap_or(1) as f64 * BAR;
        rows.push((spec.name.clone(), y, height));
        y += height + GAP;
    }
    y += 6.0;
    for s in 0..case.streams.len() {
        let of_stream =
            |l: &&Life| l.request.stream.0 as usize == s && picture.visible(l.request.arrival, l.to);
        let lanes = picture.timeline.lives.iter().filter(of_stream).map(|l| l.lane + 1).max();
        let height = lanes.unwrap_or(1).max(2) as f64 * LIFE;
        rows.push((stream_name(case, s), y, height));
        y += height + GAP;
    }
    picture.ground(&rows, y);
    picture.launches(&rows);
    picture.requests(&rows[case.processor_count()..]);
    let height = picture.legend(y + 16.0);
    let head = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\"><title>{}</title><style>{STYLE}</style>\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\n",
        escape(&format!("{}: launches by processor, requests by stream", log.name))
    );
    head + &picture.out + "</svg>\n"
}

impl Picture<'_> {
    /// Horizontal place of a time, kept within the picture.
    fn x(&self, time: Time) -> f64 {
        let time = time.clamp(self.from, self.to);
        let share = time.since(self.from).0 as f64 / self.to.since(self.from).0 as f64;
        LABEL + share * (WIDTH - LABEL - 10.0)
    }

    // Writing to a string cannot fail, in all that follows.

    fn ground(&mut self, rows: &[(String, f64, f64)], bottom: f64) {
        for (name, y, height) in rows {
            let (width, middle) = (WIDTH - LABEL - 10.0, y + height / 2.0 + 4.0);
            let short: String = if name.chars().count() > 13 {
                name.chars().take(12).chain(['…']).collect()
            } else {
                name.clone()
            };
            let _ = writeln!(
                self.out,
                "<rect class=\"lane\" x=\"{LABEL}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/><text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>",
                LABEL - 8.0,
                escape(&short)
            );
        }
        let span_ms = self.to.since(self.from).ms();
        let rough = span_ms / 10.0;
        let ten = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|f| f * ten).into_iter().find(|s| *s >= rough).unwrap_or(rough);
        let first = (self.from.0 as f64 / 1e6 / step).ceil() as u64;
        let last = (self.to.0 as f64 / 1e6 / step).floor() as u64;
        for k in first..=last {
            let ms = k as f64 * step;
            let x = self.x(Time((ms * 1e6) as u64));
            let _ = writeln!(
                self.out,
                "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{bottom}\"/><text class=\"soft\" x=\"{x:.1}\" y=\"16\" text-anchor=\"{}\">{}{}</text>",
                TOP - 8.0,
                if x > WIDTH - 40.0 { "end" } else { "middle" },
                (ms * 1e3).round() / 1e3,
                if k == last { " ms" } else { "" }
            );
        }
    }

    fn visible(&self, from: Time, to: Time) -> bool {
        from < self.to && to > self.from
    }

    fn missed(&self, life: Option<&Life>) -> Option<&'static str> {
        match &self.log.ended[life?.ended?].outcome {
            Outcome::Answered => None,
            Outcome::Late => Some("late"),
            _ => Some("lost"),
        }
    }

    fn launches(&mut self, rows: &[(String, f64, f64)]) {
        for bar in self.timeline.bars.clone() {
            if !self.visible(bar.from, bar.to) {
                continue;
            }
            let launch = self.log.launches[bar.launch].launch;
            let variant = self.case.variant(launch.variant);
            let (x, y) = (self.x(bar.from), rows[bar.processor].1 + bar.lane as f64 * BAR + 2.0);
            let (width, height) = ((self.x(bar.to) - x - 0.7).max(0.8), BAR - 4.0);
            let pale = if variant.relative_accuracy < 1.0 { " opacity=\"0.6\"" } else { "" };
            let colour = COLOURS[variant.task.0 as usize % COLOURS.len()];
            let _ = write!(
                self.out,
                "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" rx=\"2\" fill=\"{colour}\"{pale}/>"
            );
            let life = self.timeline.by_request.get(&launch.request).map(|&l| &self.timeline.lives[l]);
            if let Some(class) = self.missed(life) {
                let _ = write!(
                    self.out,
                    "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"4\"/>",
                    y + height - 4.0
                );
            }
            if bar.failed {
                self.cross(x + width / 2.0, y + height / 2.0, 6.0);
            }
            let whole = launch.first == 0 && launch.last + 1 == variant.segments;
            let segments = if whole { String::new() } else { format!(" {}–{}", launch.first, launch.last) };
            let text = format!("{}{segments}", variant.name);
            // About 6.6 units a letter: a name that would not fit is left to the legend.
            if text.chars().count() as f64 * 6.6 + 8.0 < width {
                let _ = write!(
                    self.out,
                    "<text class=\"in\" x=\"{:.1}\" y=\"{}\">{}</text>",
                    x + 4.0,
                    y + 14.5,
                    escape(&text)
                );
            }
            self.out.push('\n');
        }
    }

    fn requests(&mut self, rows: &[(String, f64, f64)]) {
        for life in self.timeline.lives.clone() {
            if !self.visible(life.request.arrival, life.to) {
                continue;
            }
            let stream = life.request.stream;
            let y = rows[stream.0 as usize].1 + life.lane as f64 * LIFE + 2.0;
            let (left, right) = (self.x(life.request.arrival), self.x(life.to));
            let due = self.x(life.request.deadline).clamp(left, right);
            let colour = COLOURS[self.case.stream(stream).task.0 as usize % COLOURS.len()];
            let height = LIFE - 4.0;
            let _ = write!(
                self.out,
                "<rect x=\"{left:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{height}\" fill=\"{colour}\" opacity=\"0.8\"/>",
                (due - left).max(0.8)
            );
            if let Some(class) = self.missed(Some(&life)) {
                let width = (right - due).max(0.8);
                let _ = write!(
                    self.out,
                    "<rect class=\"{class}\" x=\"{due:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\"/>"
                );
                if class == "lost" && life.to < self.to {
                    self.cross(right, y + height / 2.0, 4.0);
                }
            }
            self.out.push('\n');
        }
    }

    fn cross(&mut self, x: f64, y: f64, size: f64) {
        let (l, r, t, b) = (x - size, x + size, y - size, y + size);
        let _ = write!(
            self.out,
            "<path class=\"x\" d=\"M{l:.1} {t:.1}L{r:.1} {b:.1}M{r:.1} {t:.1}L{l:.1} {b:.1}\"/>"
        );
    }

    /// Draws the legend from `y` on and returns the height of the picture.
    fn legend(&mut self, mut y: f64) -> f64 {
        let mut items: Vec<(String, String)> = Vec::new();
        for (t, task) in self.case.tasks.iter().enumerate() {
            if self.case.streams.iter().any(|s| s.task.0 as usize == t) {
                items.push((format!("fill=\"{}\"", COLOURS[t % COLOURS.len()]), task.name.clone()));
            }
        }
        items.push(("class=\"late\"".into(), "late".into()));
        items.push(("class=\"lost\"".into(), "dropped, expired or failed (×)".into()));
        if self.case.variants.iter().any(|v| v.relative_accuracy < 1.0) {
            items.push(("class=\"soft\" opacity=\"0.6\"".into(), "pale: less accurate variant".into()));
        }
        let mut x = LABEL;
        for (paint, name) in items {
            let width = 34.0 + 7.0 * name.chars().count() as f64;
            if x + width > WIDTH && x > LABEL {
                x = LABEL;
                y += 20.0;
            }
            let _ = writeln!(
                self.out,
                "<rect x=\"{x}\" y=\"{}\" width=\"11\" height=\"11\" rx=\"3\" {paint}/><text x=\"{}\" y=\"{y}\">{}</text>",
                y - 10.0,
                x + 17.0,
                escape(&name)
            );
            x += width;
        }
        y + 14.0
    }
}
