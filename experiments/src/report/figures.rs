//! Which figures a sweep's results give: utility over a swept number, latency curves, misses by device, fronts, learning curves, adaptations, timelines.
//! It refuses to draw and to compute statistics; a figure whose numbers are not there is not there either.

use super::chart::{Axis, Chart, Heat, Series};
use super::groups::{self, Group};
use crate::sweep::apps;
use crate::sweep::kind::ALL;
use crate::sweep::store::Record;
use std::collections::BTreeMap;

/// A chart and the group that it shows; one without a group is always shown.
pub struct Figure {
    /// Its group.
    pub group: Option<String>,
    /// For file names: letters, digits and dashes.
    pub name: String,
    /// What is drawn.
    pub chart: Chart,
}

/// Lower-case letters and digits of a text, the rest as single dashes.
pub fn slug(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    out.trim_end_matches('-').to_owned()
}

/// All contenders of all groups, in the order of the cells: their place gives the colour.
pub fn contenders(records: &[Record]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for row in records.iter().filter_map(|r| r.outcome.as_ref().ok()).flat_map(|o| &o.rows) {
        if !names.contains(&row.contender) {
            names.push(row.contender.clone());
        }
    }
    names
}

fn place(names: &[String], name: &str) -> usize {
    names.iter().position(|n| n == name).unwrap_or(0)
}

/// The swept keys with at least two different numbers, `load` first.
fn numeric_axes(records: &[Record]) -> Vec<String> {
    let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (key, value) in records.iter().flat_map(|r| &r.spec.settings) {
        let of = values.entry(key).or_default();
        match value.as_f64() {
            Some(v) if !of.contains(&v) => of.push(v),
            Some(_) => {}
            // Not a number: no axis.
            None => of.push(f64::NAN),
        }
    }
    let mut axes: Vec<String> = values
        .into_iter()
        .filter(|(_, v)| v.len() > 1 && v.iter().all(|v| v.is_finite()))
        .map(|(key, _)| key.to_owned())
        .collect();
    axes.sort_by_key(|key| key != "load");
    axes
}

/// Of one chart: contender -> (value of the axis, group).
type Lines<'a> = BTreeMap<usize, Vec<(f64, &'a Group)>>;

/// The main metric over each swept number, one chart for each combination of the other settings; `title_of` says what a key is called.
pub fn over_axes(
    records: &[Record],
    all: &[Group],
    names: &[String],
    title_of: &dyn Fn(&str) -> String,
) -> Vec<Figure> {
    let mut figures = Vec::new();
    for axis in numeric_axes(records) {
        let mut charts: BTreeMap<String, Lines<'_>> = BTreeMap::new();
        for record in records {
            let Ok(outcome) = &record.outcome else { continue };
            let at = record.spec.settings.iter().find(|(k, _)| *k == axis).and_then(|(_, v)| v.as_f64());
            let (Some(at), Some(row)) = (at, outcome.rows.iter().find(|r| r.stream == ALL)) else { continue };
            let rest: Vec<_> = record.spec.settings.iter().filter(|(k, _)| *k != axis).cloned().collect();
            let title = apps::group(&row.scenario, &rest);
            let Some(group) = all.iter().find(|g| g.name == row.group) else { continue };
            let line = charts.entry(title).or_default().entry(place(names, &row.contender)).or_default();
            if line.iter().all(|(x, _)| *x != at) {
                line.push((at, group));
            }
        }
        for (title, lines) in charts {
            let Some(main) = lines.values().flatten().next().map(|(_, g)| g.main) else { continue };
            let series = lines.into_iter().map(|(index, mut line)| {
                line.sort_by(|a, b| a.0.total_cmp(&b.0));
                let point = |(x, group): &(f64, &Group)| {
                    let contender = group.contenders.iter().find(|c| c.name == names[index])?;
                    let estimate = contender.numbers.get(main.key)?;
                    let half = estimate.half95.unwrap_or(0.0) * main.scale;
                    Some((*x, estimate.mean * main.scale, half))
                };
                let line = line.iter().filter_map(point).collect();
                Series { name: names[index].clone(), index, line, marks: true, ..Series::default() }
            });
            let series: Vec<Series> = series.collect();
            let xs = || series.iter().flat_map(|s| s.line.iter().map(|p| p.0));
            let log =
                xs().all(|x| x > 0.0) && xs().fold(0.0, f64::max) > 20.0 * xs().fold(f64::INFINITY, f64::min);
            let chart = Chart {
                title: title.clone(),
                x: Axis { title: title_of(&axis), log, ..Axis::default() },
                y: Axis { title: main.title.into(), ..Axis::default() },
                series,
                front: Vec::new(),
            };
            figures.push(Figure {
                group: None,
                name: format!("over-{}-{}", slug(&axis), slug(&title)),
                chart,
            });
        }
    }
    figures
}

/// Share of requests answered within a time, one chart a group.
pub fn latency(records: &[Record], all: &[Group], names: &[String]) -> Vec<Figure> {
    let curves = groups::curves(records, "latency", Some(ALL));
    let chart = |group: &Group| {
        let of = |name: &String| curves.get(&(group.name.clone(), name.clone()));
        let last = names.iter().filter_map(of).flatten().map(|p| p.0).fold(0.0, f64::max);
        let series: Vec<Series> = (0..names.len())
            .filter_map(|index| {
                let line = of(&names[index])?;
                // Bands of fifteen stairs would hide each other. What is reached stays reached, up to the edge.
                let edge = line.last().map(|p| (last, p.1, p.2));
                let line = line.iter().copied().chain(edge).map(|p| (p.0, 100.0 * p.1, 0.0)).collect();
                Some(Series { name: names[index].clone(), index, line, stair: true, ..Series::default() })
            })
            .collect();
        let chart = Chart {
            title: group.name.clone(),
            x: Axis { title: "milliseconds from arrival to answer".into(), log: true, ..Axis::default() },
            y: Axis { title: "% of requests".into(), reach: vec![0.0, 100.0], ..Axis::default() },
            series,
            front: Vec::new(),
        };
        let name = format!("latency-{}", slug(&group.name));
        (!chart.series.is_empty()).then_some(Figure { group: Some(group.name.clone()), name, chart })
    };
    all.iter().filter_map(chart).collect()
}

/// Utility (or what else is trained for) over decisions, with bands over seeds.
pub fn learning(records: &[Record], names: &[String]) -> Vec<Figure> {
    lines(records, names, "learning", ["decisions learned from", "utility of a request while learning"])
}

/// Utility over the seconds of a run in which something changes, with bands over seeds.
pub fn adaptation(records: &[Record], names: &[String]) -> Vec<Figure> {
    lines(records, names, "adaptation", ["seconds of the run", "utility of a request"])
}

/// A chart a group of one kind of curves, with bands.
fn lines(records: &[Record], names: &[String], what: &str, [x, y]: [&str; 2]) -> Vec<Figure> {
    let mut charts: BTreeMap<String, Vec<Series>> = BTreeMap::new();
    for ((group, contender), line) in groups::curves(records, what, None) {
        let index = place(names, &contender);
        charts.entry(group).or_default().push(Series { name: contender, index, line, ..Series::default() });
    }
    let figure = |(group, series): (String, Vec<Series>)| {
        let name = format!("{what}-{}", slug(&group));
        let chart = Chart {
            title: group,
            x: Axis { title: x.into(), ..Axis::default() },
            y: Axis { title: y.into(), ..Axis::default() },
            series,
            front: Vec::new(),
        };
        Figure { group: None, name, chart }
    };
    charts.into_iter().map(figure).collect()
}

/// Misses of deadlines by contender and device; by group where there is only one device.
pub fn misses(all: &[Group], names: &[String]) -> Option<Heat> {
    let devices: Vec<&str> = all.iter().map(|g| g.device.as_str()).collect();
    let by_device = devices.iter().any(|d| *d != devices[0]) && devices.iter().all(|d| !d.is_empty());
    let column = |g: &Group| if by_device { g.device.clone() } else { g.name.clone() };
    let mut columns: Vec<String> = Vec::new();
    for group in all {
        if !columns.contains(&column(group)) {
            columns.push(column(group));
        }
    }
    let value = |name: &str, wanted: &str| {
        let of = all.iter().filter(|g| column(g) == wanted).flat_map(|g| &g.contenders);
        let shares: Vec<f64> =
            of.filter(|c| c.name == name).filter_map(|c| Some(1.0 - c.mean("on_time_share")?)).collect();
        (!shares.is_empty()).then(|| crate::stats::mean(&shares))
    };
    let rows = names
        .iter()
        .enumerate()
        .map(|(i, name)| (i, name.clone(), columns.iter().map(|c| value(name, c)).collect()));
    let rows: Vec<(usize, String, Vec<Option<f64>>)> =
        rows.filter(|r: &(_, _, Vec<Option<f64>>)| r.2.iter().any(Option::is_some)).collect();
    let what = if by_device { "device" } else { "group" };
    (!rows.is_empty()).then(|| Heat {
        title: format!("Missed deadlines by policy and {what}, %"),
        rows: rows.iter().map(|r| (r.0, r.1.clone())).collect(),
        values: rows.into_iter().map(|r| r.2).collect(),
        columns,
    })
}

/// Energy, latency and accuracy of a contender.
fn costs(c: &groups::Contender) -> Option<[f64; 3]> {
    Some([c.mean("energy_mj")?, c.mean("p95_ms")?, c.mean("accuracy")?])
}

/// Whether no other is at least as good in all three and better in one.
pub fn on_front(own: [f64; 3], all: &[[f64; 3]]) -> bool {
    let beats = |o: &[f64; 3]| {
        let (less, least) = (o[0] <= own[0] && o[1] <= own[1] && o[2] >= own[2], *o != own);
        less && least
    };
    !all.iter().any(beats)
}

/// Two charts a group: energy against latency and energy against accuracy; who is on the front of all three is filled.
pub fn fronts(all: &[Group], names: &[String]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for group in all {
        let values: Vec<(usize, usize, [f64; 3])> = group
            .contenders
            .iter()
            .enumerate()
            .filter_map(|(rank, c)| Some((rank, place(names, &c.name), costs(c)?)))
            .collect();
        let every: Vec<[f64; 3]> = values.iter().map(|v| v.2).collect();
        for (title, column, log) in [("p95 latency, ms", 1, true), ("mean accuracy", 2, false)] {
            let series = values.iter().map(|&(rank, index, v)| {
                let name = &names[index];
                let said = format!("{name}: {:.1} mJ, p95 {:.1} ms, accuracy {:.3}", v[0], v[1], v[2]);
                let point = (v[0], v[column], (rank + 1).to_string(), said, on_front(v, &every));
                Series { name: name.clone(), index, points: vec![point], ..Series::default() }
            });
            let chart = Chart {
                title: group.name.clone(),
                x: Axis { title: "millijoules a request".into(), ..Axis::default() },
                y: Axis { title: title.into(), log, ..Axis::default() },
                series: series.collect(),
                front: Vec::new(),
            };
            if values.len() > 1 {
                let name = format!("front-{}-{}", ["", "latency", "accuracy"][column], slug(&group.name));
                figures.push(Figure { group: Some(group.name.clone()), name, chart });
            }
        }
    }
    figures
}

/// Timelines of cells: the title, group and contender of each. At most `most`, one a group and contender, of its first seed.
pub fn gantts(records: &[Record], most: usize) -> Vec<(String, String, &str)> {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    let mut found = Vec::new();
    for record in records {
        let Some((outcome, svg)) = record.outcome.as_ref().ok().and_then(|o| Some((o, o.gantt.as_deref()?)))
        else {
            continue;
        };
        let Some(row) = outcome.rows.first() else { continue };
        if found.len() >= most || seen.contains(&(&row.group, &row.contender)) {
            continue;
        }
        seen.push((&row.group, &row.contender));
        found.push((row.group.clone(), format!("{}, {}", row.contender, row.unit), svg));
    }
    found
}
