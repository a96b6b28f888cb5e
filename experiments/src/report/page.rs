//! The page of a sweep. Everything is drawn before it is written; its script only hides, sorts and chooses.
//! It refuses outside resources, and every name from a file is escaped before it stands in the page.

use super::Report;
use super::chart::{paint, red};
use super::figures::{self, Figure};
use super::groups::{Contender, Group, METRICS, Metric};
use crate::bound;
use crate::config::ConfigError;
use crate::html::{escape, head};
use crate::stats::Estimate;
use crate::sweep::apps::short;
use crate::sweep::estimate::duration;
use crate::sweep::store::Record;
use std::fmt::Write;

/// At most so many timelines are in a page: each is about 30 kB.
const TIMELINES: usize = 40;

/// The page. `gantt` names a cell by the first digits of its hash whose timeline is shown first.
///
/// # Errors
/// When there is no such cell, or it has no timeline.
pub fn page(report: &Report<'_>, gantt: Option<&str>) -> Result<String, ConfigError> {
    let meta = &report.results.meta;
    let title = format!("{}: {} cells", meta.name, meta.cells.len());
    let style = concat!(include_str!("../html/style.css"), include_str!("report.css"));
    let mut page = String::new();
    head(&mut page, &title, &lead(report), style);
    bar(&mut page, report);
    failures(&mut page, report);
    let over = "Each dot is the mean over seeds, the bar its 95 % interval.";
    figures(&mut page, "Over what was swept", over, &report.over, report);
    table(&mut page, report);
    misses(&mut page, report);
    let latency = "Share of all requests that were answered within so many milliseconds, over all streams and seeds. \
        A curve that ends below 100 % lost the rest: dropped, expired or failed.";
    figures(&mut page, "Latency", latency, &report.latency, report);
    let fronts = "Numbers are ranks in the table. Filled: no other policy of the group is at least as good in energy, \
        latency and accuracy, and better in one. Dropping hard requests looks good here: see the misses.";
    figures(&mut page, "Energy, latency and accuracy", fronts, &report.fronts, report);
    let learning = "Mean over training seeds with its 95 % interval.";
    figures(&mut page, "Learning curves", learning, &report.learning, report);
    let adaptation = "Mean over seeds with its 95 % interval; what changes, changes in the middle.";
    figures(&mut page, "Adaptation", adaptation, &report.adaptation, report);
    timelines(&mut page, report, gantt)?;
    made(&mut page, report);
    // Writing to a string cannot fail, here and below.
    let _ = write!(
        page,
        "</main>\n<footer></footer>\n<script>\n{}</script>\n</body></html>\n",
        include_str!("report.js")
    );
    Ok(page)
}

fn lead(report: &Report<'_>) -> String {
    let meta = &report.results.meta;
    let about = if meta.about.is_empty() { String::new() } else { format!("{} ", meta.about) };
    let commit = meta.commit.get(..12).unwrap_or(&meta.commit);
    let subset = meta.subset.as_ref().map_or(String::new(), |s| format!(", subset {s}"));
    format!(
        "{about}Kind {}{subset}; {} of computing; commit {commit}.",
        meta.kind,
        duration(meta.cell_seconds)
    )
}

/// The bar that stays in sight: the group, and the contenders with their colours.
fn bar(page: &mut String, report: &Report<'_>) {
    page.push_str("<section class=\"choose\">");
    if report.groups.len() > 1 {
        page.push_str(
            "<label>Group <select id=\"group\"><option value=\"\">all (figures: the first)</option>",
        );
        for (i, group) in report.groups.iter().enumerate() {
            let _ = write!(page, "<option value=\"{i}\">{}</option>", escape(&group.name));
        }
        page.push_str("</select></label>");
    }
    page.push_str("<div id=\"chips\">");
    for (i, name) in report.names.iter().enumerate() {
        let (colour, dash) = paint(i);
        let _ = write!(
            page,
            "<button aria-pressed=\"true\" data-chip=\"{i}\"><svg viewBox=\"0 0 18 8\" aria-hidden=\"true\"><path d=\"M0 4h18\" stroke=\"{colour}\" stroke-width=\"3\"{dash}/></svg>{}</button>",
            escape(name)
        );
    }
    page.push_str("<button id=\"every\">all</button></div></section>\n");
}

fn failures(page: &mut String, report: &Report<'_>) {
    let failed: Vec<(&Record, &String)> =
        report.results.records.iter().filter_map(|r| Some((r, r.outcome.as_ref().err()?))).collect();
    if failed.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<section><h2>Cells that failed: {} of {}</h2><ul class=\"failed\">",
        failed.len(),
        report.results.records.len()
    );
    // Cells that fail together mostly fail alike.
    let mut alike: Vec<(&String, Vec<&Record>)> = Vec::new();
    for (record, error) in &failed {
        match alike.iter_mut().find(|(e, _)| e == error) {
            Some((_, records)) => records.push(record),
            None => alike.push((error, vec![record])),
        }
    }
    for (error, records) in &alike {
        let first = records[0];
        let mut words: Vec<String> =
            first.spec.settings.iter().map(|(k, v)| format!("{k} {}", short(v))).collect();
        words.push(first.spec.policy.clone());
        let others = match records.len() {
            1 => String::new(),
            n => format!("{n} cells, the first of them "),
        };
        let _ = write!(
            page,
            "<li>{}<br><span class=\"hint\">{others}{}, seed {}, <code>{}</code></span></li>",
            escape(error),
            escape(&words.join(", ")),
            first.spec.seed,
            &first.hash[..first.hash.len().min(8)]
        );
    }
    page.push_str("</ul></section>\n");
}

/// Place of a figure's group among all, for the script.
fn group_attribute(group: Option<&String>, report: &Report<'_>) -> String {
    let place = group.and_then(|name| report.groups.iter().position(|g| g.name == *name));
    match place {
        // Without a script, only the first group is seen.
        Some(i) => format!(" data-g=\"{i}\"{}", if i > 0 { " hidden" } else { "" }),
        None => String::new(),
    }
}

fn figures(page: &mut String, title: &str, hint: &str, all: &[Figure], report: &Report<'_>) {
    if all.is_empty() {
        return;
    }
    let _ =
        writeln!(page, "<section><h2>{title}</h2>\n<p class=\"hint\">{hint}</p>\n<div class=\"figures\">");
    for figure in all {
        let _ = writeln!(
            page,
            "<figure{}><figcaption>{}</figcaption>{}</figure>",
            group_attribute(figure.group.as_ref(), report),
            escape(&figure.chart.title),
            figure.chart.inline()
        );
    }
    page.push_str("</div></section>\n");
}

fn shown(estimate: &Estimate, metric: &Metric) -> String {
    let (digits, scale) = (metric.digits, metric.scale);
    let half = estimate.half95.map_or(String::new(), |h| format!(" <s>±{:.digits$}</s>", h * scale));
    // Adding zero turns a negative zero into zero.
    format!("{:.digits$}{half}", estimate.mean * scale + 0.0)
}

/// The metrics that the results have.
fn metrics(report: &Report<'_>) -> Vec<&'static Metric> {
    let has =
        |m: &&Metric| report.groups.iter().flat_map(|g| &g.contenders).any(|c| c.numbers.contains_key(m.key));
    METRICS.iter().filter(has).collect()
}

fn table(page: &mut String, report: &Report<'_>) {
    if report.groups.is_empty() {
        return;
    }
    let metrics = metrics(report);
    let bound = match report.names.iter().any(|name| name == bound::NAME) {
        true => " The bound is no policy: it is the best run that a search found which knows the future.",
        false => "",
    };
    let _ = write!(
        page,
        "<section><h2>Comparison</h2>\n<p class=\"hint\">Means over seeds, ± half of the 95 % interval. Difference: to the reference of the \
         group, paired by seed; * ** ***: p below 0.05, 0.01, 0.001 after Holm's correction.{bound} A click on a heading sorts.</p>\n\
         <p><input id=\"filter\" type=\"search\" placeholder=\"filter rows, e.g. edf\" aria-label=\"filter rows\"> <span id=\"count\" class=\"hint\"></span></p>\n\
         <div class=\"scroll tall\"><table id=\"numbers\" class=\"plain\"><thead><tr><th><button>contender</button></th><th class=\"left\"><button>group</button></th><th title=\"how many seeds or cases\"><button>n</button></th>",
    );
    for (i, m) in metrics.iter().enumerate() {
        let _ = write!(page, "<th title=\"{}\"><button>{}</button></th>", escape(m.about), m.title);
        if i == 0 {
            page.push_str("<th title=\"less the reference's, in pairs\"><button>difference</button></th><th title=\"two-sided paired t-test, corrected by Holm\"><button>p</button></th>");
        }
    }
    page.push_str("</tr></thead><tbody>\n");
    for (g, group) in report.groups.iter().enumerate() {
        for (rank, contender) in group.contenders.iter().enumerate() {
            line(page, report, (g, group), (rank, contender), &metrics);
        }
    }
    page.push_str("</tbody></table></div></section>\n");
}

fn line(
    page: &mut String,
    report: &Report<'_>,
    (g, group): (usize, &Group),
    (rank, c): (usize, &Contender),
    metrics: &[&Metric],
) {
    let index = report.names.iter().position(|n| *n == c.name).unwrap_or(0);
    let verdict = match &c.difference {
        _ if c.name == group.reference => "reference",
        Some(d) if d.stars().is_empty() => "same",
        Some(d) if d.estimate.mean > 0.0 => "better",
        Some(_) => "worse",
        None => "same",
    };
    let _ = write!(
        page,
        "<tr class=\"{verdict}\" data-c=\"{index}\" data-row=\"{g}\"><th data-v=\"{rank}\"><small>{}</small>{}</th><td class=\"left\" data-v=\"{g}\">{}</td><td data-v=\"{units}\">{units}</td>",
        rank + 1,
        escape(&c.name),
        escape(&group.name),
        units = c.units
    );
    let mut cell = |value: Option<f64>, text: Option<String>| {
        let sort = value.map_or(String::new(), |v| format!(" data-v=\"{v}\""));
        let _ = write!(page, "<td{sort}>{}</td>", text.unwrap_or_else(|| "-".into()));
    };
    for (i, m) in metrics.iter().enumerate() {
        let estimate = c.numbers.get(m.key);
        cell(estimate.map(|e| e.mean), estimate.map(|e| shown(e, m)));
        if i > 0 {
            continue;
        }
        let difference = c.difference.as_ref();
        let signed = |d: &super::groups::Difference| {
            let sign = if d.estimate.mean >= 0.0 { "+" } else { "" };
            format!("{sign}{}{}", shown(&d.estimate, group.main), d.stars())
        };
        let none = if verdict == "reference" { "reference" } else { "-" };
        cell(difference.map(|d| d.estimate.mean), Some(difference.map_or(none.into(), signed)));
        let p = difference.and_then(|d| d.p);
        cell(p, p.map(|p| if p < 1e-4 { "&lt; 0.0001".into() } else { format!("{p:.4}") }));
    }
    page.push_str("</tr>\n");
}

fn misses(page: &mut String, report: &Report<'_>) {
    let Some(heat) = &report.misses else { return };
    let _ = write!(
        page,
        "<section><h2>{}</h2>\n<p class=\"hint\">Percent of requests that were not answered by their deadline, over all groups of the column. The redder, the more.</p>\n\
         <div class=\"scroll\"><table class=\"plain heat\"><thead><tr><th>policy</th>",
        escape(&heat.title)
    );
    for column in &heat.columns {
        let _ = write!(page, "<th>{}</th>", escape(column));
    }
    page.push_str("</tr></thead><tbody>\n");
    for ((index, name), values) in heat.rows.iter().zip(&heat.values) {
        let _ = write!(page, "<tr data-c=\"{index}\"><th>{}</th>", escape(name));
        for value in values {
            let _ = match value {
                Some(v) => write!(page, "<td style=\"--red:{:.1}%\">{:.1}</td>", red(*v), 100.0 * v),
                None => write!(page, "<td>-</td>"),
            };
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div></section>\n");
}

fn timelines(page: &mut String, report: &Report<'_>, wanted: Option<&str>) -> Result<(), ConfigError> {
    let records = &report.results.records;
    let mut all: Vec<(String, &str)> = Vec::new();
    if let Some(hash) = wanted {
        let fail =
            |problem: &str| ConfigError::new(&report.results.meta.file, format!("cell {hash}: {problem}"));
        let record = records
            .iter()
            .find(|r| r.hash.starts_with(hash))
            .ok_or_else(|| fail("there is none whose hash begins so"))?;
        let outcome = record.outcome.as_ref().map_err(|e| fail(&format!("it failed: {e}")))?;
        let svg = outcome.gantt.as_deref().ok_or_else(|| fail("cells of this kind have no timeline"))?;
        let group = outcome.rows.first().map_or("", |r| r.group.as_str());
        all.push((format!("{group}: {}, seed {}", record.spec.policy, record.spec.seed), svg));
    }
    let others = figures::gantts(records, TIMELINES);
    all.extend(others.into_iter().map(|(group, title, svg)| (format!("{group}: {title}"), svg)));
    if all.is_empty() {
        return Ok(());
    }
    page.push_str("<section><h2>Timeline of a cell</h2>\n<p><label>Cell <select id=\"cell\">");
    for (i, (title, _)) in all.iter().enumerate() {
        let _ = write!(page, "<option value=\"{i}\">{}</option>", escape(title));
    }
    page.push_str("</select></label></p>\n<div class=\"scroll\">");
    for (i, (_, svg)) in all.iter().enumerate() {
        let hidden = if i > 0 { " hidden" } else { "" };
        // The first style counts for the whole page, so one is enough.
        let svg = if i > 0 { without_style(svg) } else { (*svg).to_owned() };
        let _ = writeln!(page, "<div class=\"gantt\" data-gantt=\"{i}\"{hidden}>{svg}</div>");
    }
    page.push_str("</div></section>\n");
    Ok(())
}

fn without_style(svg: &str) -> String {
    match (svg.find("<style>"), svg.find("</style>")) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &svg[..from], &svg[to + "</style>".len()..]),
        _ => svg.to_owned(),
    }
}

/// What it takes to make the page again.
fn made(page: &mut String, report: &Report<'_>) {
    let meta = &report.results.meta;
    page.push_str("<section><h2>How this was made</h2>\n<dl class=\"made\">");
    let subset = meta.subset.as_ref().map_or(String::new(), |s| format!(" --subset {s}"));
    let rows = [
        ("command", format!("cosched sweep {}{subset}", meta.file)),
        ("cosched", format!("{}, commit {}, code {}", meta.version, meta.commit, meta.code)),
        ("machine", meta.machine.clone()),
    ];
    let devices = meta.devices.iter().map(|(key, value)| (key.as_str(), value.clone()));
    for (key, value) in rows.into_iter().chain(devices) {
        let _ = write!(page, "<dt>{}</dt><dd>{}</dd>", escape(key), escape(&value));
    }
    let sweep = serde_json::to_string_pretty(&meta.sweep).unwrap_or_default();
    let _ = writeln!(
        page,
        "</dl>\n<details><summary>The sweep as resolved</summary><pre>{}</pre></details></section>",
        escape(&sweep)
    );
}
