//! Summaries and comparisons as tables of text for a terminal or a README.
//! It refuses to compute: it only lays out numbers that are there.

use crate::compare::{Comparison, Row};
use crate::stats::Estimate;
use crate::summary::{Group, Requests, Summary};
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

/// A line under the header and nothing else: it copies well into text files.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A table whose first `left` columns are aligned left, the others right.
pub fn table(header: &[&str], left: usize, rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for index in left..header.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn ms(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(v) if v < 10.0 => format!("{v:.2}"),
        Some(v) if v < 100.0 => format!("{v:.1}"),
        Some(v) => format!("{v:.0}"),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn request_cells(name: &str, r: &Requests) -> Vec<String> {
    vec![
        name.to_owned(),
        r.requests.to_string(),
        r.on_time.to_string(),
        percent(r.on_time_share()),
        r.late.to_string(),
        (r.dropped + r.expired).to_string(),
        r.failed.to_string(),
        ms(r.p50_ms),
        ms(r.p95_ms),
        ms(r.p99_ms),
        format!("{:.3}", r.utility),
        r.accuracy.map_or("-".into(), |a| format!("{a:.3}")),
        format!("{:.1}", r.energy_mj),
    ]
}

const REQUESTS: [&str; 13] = [
    "task", "requests", "on time", "share", "late", "dropped", "failed", "p50 ms", "p95 ms", "p99 ms",
    "utility", "accuracy", "mJ each",
];

/// Requests by task, with a last row for all.
pub fn requests(summary: &Summary) -> Table {
    let mut rows: Vec<_> =
        summary.tasks.iter().map(|Group { name, requests }| request_cells(name, requests)).collect();
    rows.push(request_cells("all", &summary.total));
    table(&REQUESTS, 1, rows)
}

/// Processors.
pub fn processors(summary: &Summary) -> Table {
    let rows = summary.processors.iter().map(|p| {
        vec![
            p.name.clone(),
            percent(p.utilisation),
            p.launches.to_string(),
            p.failures.to_string(),
            format!("{:.2}", p.energy_j),
            format!("{:.2}", p.idle_j),
        ]
    });
    table(&["processor", "busy", "launches", "failed", "J running", "J idle"], 1, rows.collect())
}

/// Several runs side by side: one row a run and task, so that runs of one task stand together.
pub fn side_by_side(summaries: &[Summary]) -> Table {
    let mut header = REQUESTS.to_vec();
    header.insert(1, "policy");
    let mut rows = Vec::new();
    let tasks = summaries.first().map_or(0, |s| s.tasks.len());
    for task in 0..=tasks {
        for (index, summary) in summaries.iter().enumerate() {
            let (name, requests) = match summary.tasks.get(task).filter(|_| task < tasks) {
                Some(group) => (group.name.as_str(), &group.requests),
                None => ("all", &summary.total),
            };
            let mut cells = request_cells(if index == 0 { name } else { "" }, requests);
            cells.insert(1, summary.name.clone());
            rows.push(cells);
        }
    }
    table(&header, 2, rows)
}

/// Processors of several runs side by side: busy share and launches.
pub fn processors_side_by_side(summaries: &[Summary]) -> Table {
    let names =
        summaries.first().map_or(Vec::new(), |s| s.processors.iter().map(|p| p.name.as_str()).collect());
    let mut header = vec!["policy"];
    header.extend(&names);
    header.extend(["J running", "J idle"]);
    let rows = summaries.iter().map(|s| {
        let mut row = vec![s.name.clone()];
        row.extend(s.processors.iter().map(|p| format!("{} ({})", percent(p.utilisation), p.launches)));
        row.push(format!("{:.2}", s.processors.iter().map(|p| p.energy_j).sum::<f64>()));
        row.push(format!("{:.2}", s.processors.iter().map(|p| p.idle_j).sum::<f64>()));
        row
    });
    table(&header, 1, rows.collect())
}

fn estimate(e: &Estimate, digits: usize, scale: f64) -> String {
    match e.half95 {
        Some(half) => format!("{:.digits$} ±{:.digits$}", e.mean * scale, half * scale),
        None => format!("{:.digits$}", e.mean * scale),
    }
}

fn comparison_cells(row: &Row, reference: &str) -> Vec<String> {
    let or_dash = |e: &Option<Estimate>| e.as_ref().map_or("-".into(), |e| estimate(e, 1, 1.0));
    let difference = match &row.difference {
        None => format!("({reference})"),
        Some(d) => {
            let sign = if d.utility.mean >= 0.0 { "+" } else { "" };
            format!("{sign}{}{}", estimate(&d.utility, 4, 1.0), d.stars())
        }
    };
    vec![
        row.policy.clone(),
        estimate(&row.utility, 4, 1.0),
        difference,
        format!("{} %", estimate(&row.on_time_share, 1, 100.0)),
        format!("{} %", estimate(&row.drop_share, 1, 100.0)),
        or_dash(&row.p50_ms),
        or_dash(&row.p95_ms),
        or_dash(&row.p99_ms),
        estimate(&row.energy_mj, 1, 1.0),
        format!("{:.3}", row.fairness.mean),
        format!("{:.1}", row.decision_us),
    ]
}

/// A comparison, best utility first.
pub fn comparison(comparison: &Comparison) -> Table {
    let mut rows: Vec<&Row> = comparison.rows.iter().collect();
    rows.sort_by(|a, b| b.utility.mean.total_cmp(&a.utility.mean));
    let cells = rows.into_iter().map(|row| comparison_cells(row, "reference"));
    let header = [
        "policy",
        "utility",
        "against reference",
        "on time",
        "dropped",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "mJ each",
        "fairness",
        "decide us",
    ];
    table(&header, 1, cells.collect())
}
