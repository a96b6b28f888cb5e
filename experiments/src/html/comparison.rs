//! A comparison as one self-contained page: utility, on-time shares, energy, latency, and a table of all numbers that sorts.
//! It refuses to compute what the comparison does not hold; every name from a file is escaped before it stands in the page.

use super::plot::{Line, Scale, rows, scatter};
use super::{escape, head};
use crate::about::About;
use crate::compare::{Comparison, Row};
use crate::stats::{Estimate, mean};
use std::fmt::Write;

/// The page of a comparison, and of what it takes to make it again.
pub fn comparison_page(comparison: &Comparison, about: &About) -> String {
    let mut ranked: Vec<&Row> = comparison.rows.iter().collect();
    ranked.sort_by(|a, b| b.utility.mean.total_cmp(&a.utility.mean));
    let title = format!("{}: {} policies compared", comparison.scenario, ranked.len());
    let mut page = String::new();
    let style = concat!(include_str!("style.css"), include_str!("comparison.css"));
    head(&mut page, &title, &lead(comparison, about), style);
    utility(&mut page, comparison, &ranked);
    streams(&mut page, comparison, &ranked);
    energy(&mut page, &ranked);
    latency(&mut page, &ranked);
    numbers(&mut page, &ranked);
    made(&mut page, about);
    // Writing to a string cannot fail, here and below.
    let _ = write!(
        page,
        "</main>\n<footer></footer>\n<script>\n{}</script>\n</body></html>\n",
        include_str!("comparison.js")
    );
    page
}

fn lead(c: &Comparison, about: &About) -> String {
    let processors: Vec<&str> = about.processors.iter().map(|p| p.0.as_str()).collect();
    let seeds = match c.seeds.as_slice() {
        [one] => format!("seed {one}"),
        [first, .., last] => format!("{} seeds ({first} to {last})", c.seeds.len()),
        [] => "no seed".into(),
    };
    format!(
        "Emulated on {} ({}): {} s of requests, {seeds}, the same arrivals for all. Commit {}.",
        about.plan,
        processors.join(", "),
        c.seconds,
        about.commit.get(..12).unwrap_or(&about.commit)
    )
}

/// Better or worse than the reference for sure, or neither.
fn verdict(row: &Row) -> &'static str {
    match &row.difference {
        None => "reference",
        Some(d) if d.stars().is_empty() => "same",
        Some(d) if d.utility.mean > 0.0 => "better",
        Some(_) => "worse",
    }
}

fn ranked_name(rank: usize, row: &Row) -> String {
    format!("<small>{}</small>{}", rank + 1, escape(&row.policy))
}

fn text(e: &Estimate, digits: usize, scale: f64) -> String {
    let half = e.half95.map_or(String::new(), |h| format!(" ±{:.digits$}", h * scale));
    format!("{:.digits$}{half}", e.mean * scale)
}

fn utility(page: &mut String, c: &Comparison, ranked: &[&Row]) {
    let _ = writeln!(
        page,
        "<section><h2>Utility</h2>\n<p class=\"hint\">Mean utility of a request with its 95 % interval over seeds, best first. \
         <span class=\"better\">Better</span> or <span class=\"worse\">worse</span> than {} (the reference) in paired tests by seed at \
         5 %, corrected for their number; grey: no sure difference.</p>",
        escape(&c.reference)
    );
    let ends = |r: &Row| {
        let half = r.utility.half95.unwrap_or(0.0);
        (r.utility.mean - half, r.utility.mean + half)
    };
    let scale = Scale::straight(ranked.iter().flat_map(|r| <[f64; 2]>::from(ends(r))));
    let line = |(rank, row): (usize, &&Row)| Line {
        name: ranked_name(rank, row),
        value: text(&row.utility, 3, 1.0),
        class: verdict(row),
        bar: Some(ends(row)),
        points: vec![(row.utility.mean, "")],
    };
    // What is no policy, such as a bound, belongs here as a line of its own.
    let lines: Vec<Line> = ranked.iter().enumerate().map(line).collect();
    rows(page, &scale, "", &lines);
    page.push_str("</section>\n");
}

/// Mean over seeds of each stream's on-time share, streams in scenario order.
fn shares(c: &Comparison, policy: &str) -> Vec<f64> {
    let runs: Vec<_> = c.runs.iter().filter(|r| r.policy == policy).collect();
    let streams = runs.first().map_or(0, |r| r.summary.streams.len());
    let share = |s: usize| {
        mean(&runs.iter().map(|r| r.summary.streams[s].requests.on_time_share()).collect::<Vec<_>>())
    };
    (0..streams).map(share).collect()
}

fn streams(page: &mut String, c: &Comparison, ranked: &[&Row]) {
    let Some(first) = c.runs.first() else { return };
    page.push_str(
        "<section><h2>On time, by stream</h2>\n<p class=\"hint\">Percent of requests answered by their deadline. The redder, the more were not.</p>\n\
         <div class=\"scroll\"><table class=\"plain heat\"><thead><tr><th>policy</th>",
    );
    first.summary.streams.iter().for_each(|s| {
        let _ = write!(page, "<th>{}</th>", escape(&s.name));
    });
    page.push_str("<th>all</th></tr></thead><tbody>\n");
    for (rank, row) in ranked.iter().enumerate() {
        let _ = write!(page, "<tr><th>{}</th>", ranked_name(rank, row));
        for share in shares(c, &row.policy).into_iter().chain([row.on_time_share.mean]) {
            // The square root tells 99 from 97 % as well as 60 from 40 %.
            let red = 80.0 * (1.0 - share).max(0.0).sqrt();
            let _ = write!(page, "<td style=\"--red:{red:.1}%\">{:.1}</td>", 100.0 * share);
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div></section>\n");
}

/// Whether no other policy is at least as good in both, and better in one.
fn on_front(row: &Row, all: &[&Row]) -> bool {
    let (u, e) = (row.utility.mean, row.energy_mj.mean);
    let beats = |o: &&&Row| {
        let (ou, oe) = (o.utility.mean, o.energy_mj.mean);
        ou >= u && oe <= e && (ou > u || oe < e)
    };
    !all.iter().any(|o| beats(&o))
}

fn energy(page: &mut String, ranked: &[&Row]) {
    page.push_str(
        "<section><h2>Utility against energy</h2>\n<p class=\"hint\">Numbers are ranks by utility. Up and to the left is better: \
         the filled ones are those that no other beats in both.</p>\n",
    );
    let front: Vec<bool> = ranked.iter().map(|r| on_front(r, ranked)).collect();
    let points: Vec<_> = ranked
        .iter()
        .zip(&front)
        .enumerate()
        .map(|(rank, (row, &front))| {
            let (x, y) = (row.energy_mj.mean, row.utility.mean);
            let title = format!("{}: utility {y:.4}, {x:.1} mJ a request", escape(&row.policy));
            (x, y, (rank + 1).to_string(), title, if front { "front" } else { "" })
        })
        .collect();
    let mut corners: Vec<(f64, f64)> =
        points.iter().zip(&front).filter(|(_, front)| **front).map(|(p, _)| (p.0, p.1)).collect();
    corners.sort_by(|a, b| a.0.total_cmp(&b.0));
    // From one to the next: first across, then up.
    let steps: Vec<_> = corners.windows(2).flat_map(|w| [w[0], (w[1].0, w[0].1), w[1]]).collect();
    scatter(page, ["millijoules a request", "utility"], &points, &steps);
    page.push_str("<p class=\"key\">");
    for (rank, (row, front)) in ranked.iter().zip(&front).enumerate() {
        let class = if *front { "front" } else { "" };
        let _ = write!(page, "<span class=\"{class}\">{}</span> ", ranked_name(rank, row));
    }
    page.push_str("</p></section>\n");
}

fn latency(page: &mut String, ranked: &[&Row]) {
    page.push_str(
        "<section><h2>Latency</h2>\n<p class=\"hint\">From arrival to answer, of answered requests, in milliseconds on a logarithmic axis: \
         median (dot), 95 % (ring) and 99 % (bar). A policy that drops its slow requests looks good here.</p>\n",
    );
    let all = |r: &Row| [&r.p50_ms, &r.p95_ms, &r.p99_ms].map(|e| e.as_ref().map(|e| e.mean));
    let scale = Scale::log(ranked.iter().flat_map(|r| all(r)).flatten());
    let line = |(rank, row): (usize, &&Row)| {
        let at = all(row);
        let value = at
            .map(|v| v.map_or("-".into(), |v| if v < 9.95 { format!("{v:.1}") } else { format!("{v:.0}") }));
        let marks = at.into_iter().zip(["", "ring", "end"]);
        Line {
            name: ranked_name(rank, row),
            value: value.join(" / "),
            class: "plain",
            bar: at[0].zip(at[2]),
            points: marks.filter_map(|(v, class)| Some((v?, class))).collect(),
        }
    };
    let lines: Vec<Line> = ranked.iter().enumerate().map(line).collect();
    rows(page, &scale, "ms", &lines);
    page.push_str("</section>\n");
}

const COLUMNS: [(&str, &str); 14] = [
    ("policy", "name, with its parameter"),
    ("utility", "mean utility of a request"),
    (
        "difference",
        "mean utility less that of the reference, paired by seed; * ** ***: p below 0.05, 0.01, 0.001",
    ),
    ("p", "two-sided paired t-test, corrected by Holm"),
    ("on time %", "answered by the deadline"),
    ("dropped %", "dropped by the policy, or expired"),
    ("failed %", "given up because launches failed"),
    ("accuracy", "mean accuracy of the variants that answered"),
    ("p50 ms", "median latency of answers"),
    ("p95 ms", "95th percentile"),
    ("p99 ms", "99th percentile"),
    ("mJ", "millijoules of launches a request"),
    ("fairness", "Jain's index of the streams' on-time shares"),
    ("decide µs", "mean time of a decision, measured where this was made"),
];

fn numbers(page: &mut String, ranked: &[&Row]) {
    page.push_str("<section><h2>All numbers</h2>\n<p class=\"hint\">± half of the 95 % interval over seeds. A click on a column sorts by it.</p>\n<div class=\"scroll\"><table id=\"numbers\" class=\"plain\"><thead><tr>");
    for (name, title) in COLUMNS {
        let _ = write!(page, "<th title=\"{title}\"><button>{name}</button></th>");
    }
    page.push_str("</tr></thead><tbody>\n");
    for (rank, row) in ranked.iter().enumerate() {
        let _ = write!(
            page,
            "<tr class=\"{}\"><th data-v=\"{rank}\">{}</th>",
            verdict(row),
            ranked_name(rank, row)
        );
        let mut cell = |value: Option<f64>, shown: Option<String>| {
            let sort = value.map_or(String::new(), |v| format!(" data-v=\"{v}\""));
            let _ = write!(page, "<td{sort}>{}</td>", shown.unwrap_or("-".into()));
        };
        let difference = row.difference.as_ref();
        cell(Some(row.utility.mean), Some(text(&row.utility, 4, 1.0)));
        cell(
            Some(difference.map_or(0.0, |d| d.utility.mean)),
            Some(difference.map_or("reference".into(), |d| {
                let sign = if d.utility.mean >= 0.0 { "+" } else { "" };
                format!("{sign}{}{}", text(&d.utility, 4, 1.0), d.stars())
            })),
        );
        let p = difference.and_then(|d| d.p);
        cell(p, p.map(|p| if p < 1e-4 { "&lt; 0.0001".into() } else { format!("{p:.4}") }));
        for share in [&row.on_time_share, &row.drop_share, &row.fail_share] {
            cell(Some(share.mean), Some(text(share, 1, 100.0)));
        }
        for (some, digits) in [(&row.accuracy, 3), (&row.p50_ms, 1), (&row.p95_ms, 1), (&row.p99_ms, 1)] {
            cell(some.as_ref().map(|e| e.mean), some.as_ref().map(|e| text(e, digits, 1.0)));
        }
        cell(Some(row.energy_mj.mean), Some(text(&row.energy_mj, 1, 1.0)));
        cell(Some(row.fairness.mean), Some(text(&row.fairness, 3, 1.0)));
        cell(Some(row.decision_us), Some(format!("{:.1}", row.decision_us)));
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div></section>\n");
}

/// What it takes to make the page again.
fn made(page: &mut String, about: &About) {
    page.push_str("<section><h2>How this was made</h2>\n<dl class=\"made\">");
    let rows = [
        ("cosched", format!("{}, commit {}, on {}", about.version, about.commit, about.machine)),
        ("app", about.file.clone()),
        ("plan", about.plan.clone()),
    ];
    let processors = about.processors.iter().map(|(name, device)| (name.as_str(), device.clone()));
    let provenance = about.provenance.iter().map(|(key, value)| (key.as_str(), value.clone()));
    for (key, value) in rows.into_iter().chain(processors).chain(provenance) {
        let _ = write!(page, "<dt>{}</dt><dd>{}</dd>", escape(key), escape(&value));
    }
    let config = serde_json::to_string_pretty(&about.config).unwrap_or_default();
    let _ = writeln!(
        page,
        "</dl>\n<details><summary>The app as resolved</summary><pre>{}</pre></details></section>",
        escape(&config)
    );
}
