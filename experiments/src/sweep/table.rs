//! The final table: one line a cell and stream, and one for a cell that failed, the same for CSV and Parquet.
//! It refuses measured times of this machine: the same cells give the same bytes.

use super::apps::short;
use super::axes::Settings;
use super::store::Record;
use crate::compare::csv_word;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Text.
    Text(Vec<String>),
    /// Whole numbers.
    Whole(Vec<i64>),
    /// Numbers; `None` where there is none.
    Number(Vec<Option<f64>>),
}

/// Columns by name, in order, all equally long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Name and values.
    pub columns: Vec<(String, Column)>,
    /// How many lines.
    pub lines: usize,
}

/// Numbers that come first, in this order; others follow by the alphabet.
const FIRST: [&str; 16] = [
    "utility",
    "on_time_share",
    "mean_ms",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "accuracy",
    "energy_mj",
    "requests",
    "on_time",
    "late",
    "dropped",
    "expired",
    "failed",
    "open",
    "fairness",
];

/// A line before columns are made of it.
struct Line<'a> {
    record: &'a Record,
    text: [&'a str; 6],
    numbers: Option<&'a BTreeMap<String, f64>>,
    error: &'a str,
}

fn lines(record: &Record) -> Vec<Line<'_>> {
    match &record.outcome {
        Ok(outcome) => outcome
            .rows
            .iter()
            .map(|r| Line {
                record,
                text: [&r.group, &r.contender, &r.scenario, &r.device, &r.unit, &r.stream],
                numbers: Some(&r.numbers),
                error: "",
            })
            .collect(),
        Err(error) => {
            vec![Line { record, text: ["", &record.spec.policy, "", "", "", ""], numbers: None, error }]
        }
    }
}

fn setting(settings: &Settings, key: &str) -> String {
    settings.iter().find(|(k, _)| k == key).map_or(String::new(), |(_, v)| short(v))
}

/// The table of some records, in their order.
pub fn table(records: &[Record]) -> Table {
    let lines: Vec<Line<'_>> = records.iter().flat_map(lines).collect();
    let text = |f: &dyn Fn(&Line<'_>) -> String| Column::Text(lines.iter().map(f).collect());
    let mut columns = vec![
        ("cell".to_owned(), text(&|l| l.record.hash.clone())),
        ("kind".to_owned(), text(&|l| l.record.spec.kind.clone())),
        ("policy".to_owned(), text(&|l| l.record.spec.policy.clone())),
        ("seed".to_owned(), Column::Whole(lines.iter().map(|l| l.record.spec.seed as i64).collect())),
    ];
    let keys: BTreeSet<&String> =
        records.iter().flat_map(|r| r.spec.settings.iter().map(|(k, _)| k)).collect();
    for key in keys {
        columns.push((key.clone(), text(&|l| setting(&l.record.spec.settings, key))));
    }
    for (i, name) in ["group", "contender", "scenario", "device", "unit", "stream"].into_iter().enumerate() {
        columns.push((name.to_owned(), text(&|l| l.text[i].to_owned())));
    }
    let known: BTreeSet<&str> =
        lines.iter().filter_map(|l| l.numbers).flat_map(|n| n.keys().map(String::as_str)).collect();
    let first = FIRST.into_iter().filter(|name| known.contains(name));
    let rest = known.iter().copied().filter(|name| !FIRST.contains(name));
    for name in first.chain(rest) {
        let value = |l: &Line<'_>| l.numbers.and_then(|n| n.get(name)).copied();
        columns.push((name.to_owned(), Column::Number(lines.iter().map(value).collect())));
    }
    columns.push(("error".to_owned(), text(&|l| l.error.to_owned())));
    Table { columns, lines: lines.len() }
}

impl Table {
    /// As one JSON object a line; what is not known is left out.
    pub fn objects(&self) -> Vec<serde_json::Map<String, Value>> {
        let cell = |line: usize, column: &Column| match column {
            Column::Text(v) => Some(Value::from(v[line].as_str())),
            Column::Whole(v) => Some(Value::from(v[line])),
            Column::Number(v) => v[line].map(Value::from),
        };
        let object = |line: usize| {
            self.columns
                .iter()
                .filter_map(|(name, column)| Some((name.clone(), cell(line, column)?)))
                .collect()
        };
        (0..self.lines).map(object).collect()
    }

    /// As CSV, every digit kept; what is not known is empty.
    pub fn csv(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|(name, _)| csv_word(name)).collect();
        let mut out = names.join(",") + "\n";
        for line in 0..self.lines {
            let cell = |(_, column): &(String, Column)| match column {
                Column::Text(v) => csv_word(&v[line]),
                Column::Whole(v) => v[line].to_string(),
                Column::Number(v) => v[line].map_or(String::new(), |x| x.to_string()),
            };
            let cells: Vec<String> = self.columns.iter().map(cell).collect();
            out += &(cells.join(",") + "\n");
        }
        out
    }
}
