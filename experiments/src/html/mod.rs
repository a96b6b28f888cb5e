//! Self-contained HTML reports: one or several runs side by side (tables, an interactive timeline, latency curves), and comparisons.
//! It refuses outside resources, and every name from a file is escaped before it stands in the page.

mod comparison;
pub(crate) mod plot;
mod svg;

pub use comparison::comparison_page;
pub use svg::timeline_svg;

use crate::log::RunLog;
use crate::summary::{Group, Requests, Summary};
use crate::timeline::{Timeline, outcome_word, stream_name};
use cosched_env::case::Case;
use cosched_env::time::Time;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;

/// Colours of tasks: none is near the orange of late or the red of lost requests, on light or dark ground; they repeat after eight.
pub(crate) const COLOURS: [&str; 8] =
    ["#4477d6", "#2aa37a", "#9a62cf", "#3aa6c4", "#8f9a1f", "#c07fb8", "#8a6d5a", "#7d8b99"];

/// `text` with what HTML and SVG would take for markup escaped; fit for text and quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The report. `runs` are logs of the same case, usually one a policy with the same arrivals; `notes` are lines of plain text for the
/// foot (device, commit, command).
pub fn report(title: &str, case: &Arc<Case>, runs: &[RunLog], notes: &[String]) -> String {
    let summaries: Vec<Summary> = runs.iter().map(|log| Summary::of(log, case)).collect();
    let data = json!({
        "tasks": case.tasks.iter().enumerate().map(|(i, t)| json!({"name": t.name, "colour": COLOURS[i % COLOURS.len()]})).collect::<Vec<_>>(),
        "processors": case.plan.processors.iter().map(|p| &p.name).collect::<Vec<_>>(),
        "variants": case.variants.iter().map(|v| json!({"name": v.name, "task": v.task, "accuracy": v.accuracy, "best": v.relative_accuracy >= 1.0, "segments": v.segments})).collect::<Vec<_>>(),
        "streams": case.streams.iter().enumerate().map(|(i, s)| json!({"name": stream_name(case, i), "task": s.task, "deadline": s.deadline.ms()})).collect::<Vec<_>>(),
        "runs": runs.iter().map(|log| run_data(log, case)).collect::<Vec<_>>(),
    });
    // In a script element only `<` could end the element or begin a comment; in JSON it may be written as an escape.
    let data = data
        .to_string()
        .replace('<', "\\u003c")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029");
    let mut page = String::new();
    head(&mut page, title, &lead(case, runs), include_str!("style.css"));
    cards(&mut page, &summaries);
    page.push_str(include_str!("timeline.html"));
    task_tables(&mut page, case, &summaries);
    processor_table(&mut page, &summaries);
    page.push_str("<section><h2>Latency</h2>\n<p class=\"hint\">Share of each task's requests that were answered within so many milliseconds of arriving. \
        A curve that ends below 100 % lost the rest: dropped, expired or failed. The dashed line is the deadline.</p>\n<div id=\"curves\"></div></section>\n");
    page.push_str("</main>\n<footer>");
    for note in notes {
        let _ = write!(page, "<p>{}</p>", escape(note));
    }
    let _ = write!(
        page,
        "</footer>\n<script>\nconst DATA = {data};\n{}</script>\n</body></html>\n",
        include_str!("script.js")
    );
    page
}

/// Everything up to the first section. `title` and `lead` are plain text.
pub(crate) fn head(page: &mut String, title: &str, lead: &str, style: &str) {
    let (title, lead) = (escape(title), escape(lead));
    page.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n");
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(page, "<title>{title}</title>\n<style>\n{style}</style></head>\n<body>");
    let _ = writeln!(page, "<header><h1>{title}</h1><p class=\"lead\">{lead}</p></header>\n<main>");
}

fn lead(case: &Case, runs: &[RunLog]) -> String {
    let processors: Vec<_> = case.plan.processors.iter().map(|p| p.name.as_str()).collect();
    let plural = |n: usize, word: &str| if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") };
    format!(
        "Scenario {}: {} on {} ({}); {}.",
        case.scenario.name,
        plural(case.streams.len(), "stream"),
        plural(processors.len(), "processor"),
        processors.join(", "),
        plural(runs.len(), "run")
    )
}

/// Times in milliseconds with microseconds' precision: half the size of the page, and finer than any pixel.
fn ms(time: Time) -> f64 {
    (time.0 as f64 / 1e3).round() / 1e3
}

/// Arrays instead of objects keep a page of ten thousand launches small; `script.js` names the places.
fn run_data(log: &RunLog, case: &Case) -> Value {
    let timeline = Timeline::of(log, case);
    let launches = timeline.bars.iter().map(|bar| {
        let record = &log.launches[bar.launch];
        let l = &record.launch;
        let life = timeline.by_request.get(&l.request);
        let failure = match &record.completion {
            Some(c) => c.failure.clone(),
            None => Some("not ended".to_owned()),
        };
        let energy = record.completion.as_ref().map_or(0.0, |c| (c.energy_mj * 1e3).round() / 1e3);
        json!([
            bar.processor,
            bar.lane,
            ms(bar.from),
            ms(bar.to),
            life,
            l.variant,
            l.first,
            l.last,
            energy,
            failure
        ])
    });
    let requests = timeline.lives.iter().map(|life| {
        let r = &life.request;
        let ended = life.ended.map(|e| &log.ended[e]);
        let outcome = ended.map_or("open", |e| outcome_word(&e.outcome));
        let utility = ended.map(|e| (e.utility * 1e4).round() / 1e4);
        let variant = ended.and_then(|e| e.variant);
        json!([
            r.id,
            r.stream,
            life.lane,
            ms(r.arrival),
            ms(r.deadline),
            ms(life.to),
            outcome,
            variant,
            utility
        ])
    });
    json!({
        "name": log.name,
        "end": ms(log.end),
        "processorLanes": timeline.processor_lanes,
        "streamLanes": timeline.stream_lanes,
        "launches": launches.collect::<Vec<_>>(),
        "requests": requests.collect::<Vec<_>>(),
        "health": log.health.iter().map(|h| json!([h.processor, ms(h.at), h.up])).collect::<Vec<_>>(),
    })
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// One card a run: what a reader wants to know first. The best utility is marked.
fn cards(page: &mut String, summaries: &[Summary]) {
    page.push_str("<section class=\"cards\">\n");
    let best = summaries.iter().map(|s| s.total.utility).fold(f64::NEG_INFINITY, f64::max);
    for s in summaries {
        let t = &s.total;
        let mark = if summaries.len() > 1 && t.utility == best { " best" } else { "" };
        let _ = writeln!(
            page,
            "<article class=\"card{mark}\"><h3>{}</h3><p class=\"big\">{}</p><p>on time, of {} requests</p>\
             <dl><div><dt>utility</dt><dd>{:.3}</dd></div><div><dt>late</dt><dd>{}</dd></div><div><dt>dropped</dt><dd>{}</dd></div>\
             <div><dt>failed</dt><dd>{}</dd></div><div><dt>p95</dt><dd>{}</dd></div><div><dt>energy</dt><dd>{:.0} mJ</dd></div></dl></article>",
            escape(&s.name),
            percent(t.on_time_share()),
            t.requests,
            t.utility,
            t.late,
            t.dropped + t.expired,
            t.failed,
            t.p95_ms.map_or("-".into(), |v| format!("{v:.0} ms")),
            t.energy_mj,
        );
    }
    page.push_str("</section>\n");
}

fn request_cells(page: &mut String, r: &Requests) {
    let ms = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.1}"));
    let class = |bad: u64, class: &str| if bad > 0 { format!(" class=\"{class}\"") } else { String::new() };
    let lost = r.dropped + r.expired;
    let _ = writeln!(
        page,
        "<td>{}</td><td>{}</td><td>{}</td><td{}>{}</td><td{}>{lost}</td><td{}>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.3}</td><td>{}</td><td>{:.1}</td></tr>",
        r.requests,
        r.on_time,
        percent(r.on_time_share()),
        class(r.late, "late"),
        r.late,
        class(lost, "lost"),
        class(r.failed, "lost"),
        r.failed,
        ms(r.p50_ms),
        ms(r.p95_ms),
        ms(r.p99_ms),
        r.utility,
        r.accuracy.map_or("-".into(), |a| format!("{a:.3}")),
        r.energy_mj,
    );
}

fn task_tables(page: &mut String, case: &Case, summaries: &[Summary]) {
    page.push_str("<section><h2>Requests</h2>\n<div class=\"scroll\"><table><thead><tr><th>task</th><th>policy</th><th>requests</th><th>on time</th><th>share</th>\
        <th>late</th><th>dropped</th><th>failed</th><th>p50 ms</th><th>p95 ms</th><th>p99 ms</th><th>utility</th><th>accuracy</th><th>mJ each</th></tr></thead>\n");
    let Some(first) = summaries.first() else { return page.push_str("</table></div></section>\n") };
    for (index, Group { name, .. }) in first.tasks.iter().enumerate() {
        let colour =
            case.tasks.iter().position(|t| &t.name == name).map_or("", |t| COLOURS[t % COLOURS.len()]);
        page.push_str("<tbody>\n");
        for (i, s) in summaries.iter().enumerate() {
            page.push_str("<tr>");
            if i == 0 {
                let _ = write!(
                    page,
                    "<th rowspan=\"{}\"><i class=\"dot\" style=\"background:{colour}\"></i>{}</th>",
                    summaries.len(),
                    escape(name)
                );
            }
            let _ = write!(page, "<td>{}</td>", escape(&s.name));
            request_cells(page, &s.tasks[index].requests);
        }
        page.push_str("</tbody>\n");
    }
    page.push_str("<tbody class=\"all\">\n");
    for (i, s) in summaries.iter().enumerate() {
        page.push_str("<tr>");
        if i == 0 {
            let _ = write!(page, "<th rowspan=\"{}\">all</th>", summaries.len());
        }
        let _ = write!(page, "<td>{}</td>", escape(&s.name));
        request_cells(page, &s.total);
    }
    page.push_str("</tbody></table></div></section>\n");
}

fn processor_table(page: &mut String, summaries: &[Summary]) {
    page.push_str("<section><h2>Processors</h2>\n<div class=\"scroll\"><table><thead><tr><th>processor</th><th>policy</th><th>busy</th><th>launches</th>\
        <th>failed</th><th>J running</th><th>J idle</th></tr></thead>\n");
    let count = summaries.first().map_or(0, |s| s.processors.len());
    for p in 0..count {
        page.push_str("<tbody>\n");
        for (i, s) in summaries.iter().enumerate() {
            let processor = &s.processors[p];
            page.push_str("<tr>");
            if i == 0 {
                let _ = write!(page, "<th rowspan=\"{}\">{}</th>", summaries.len(), escape(&processor.name));
            }
            let failed = if processor.failures > 0 { " class=\"lost\"" } else { "" };
            let _ = writeln!(
                page,
                "<td>{}</td><td class=\"meter\"><i style=\"width:{:.1}%\"></i><span>{}</span></td><td>{}</td><td{failed}>{}</td><td>{:.2}</td><td>{:.2}</td></tr>",
                escape(&s.name),
                100.0 * processor.utilisation,
                percent(processor.utilisation),
                processor.launches,
                processor.failures,
                processor.energy_j,
                processor.idle_j,
            );
        }
        page.push_str("</tbody>\n");
    }
    page.push_str("</table></div></section>\n");
}
