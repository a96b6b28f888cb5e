//! What `cosched bench kernels` says of its rows: one by one, as a table of networks by engines, and as geometric means of ratios. Rows
//! may be kept in a file between calls. It refuses a file that it did not write.

use cosched::executors::measure::{PLAIN, PLAIN_INT8, Timed};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One network on one engine.
#[derive(Serialize, Deserialize)]
pub struct Row {
    /// The network.
    pub model: String,
    /// Its times.
    #[serde(flatten)]
    pub timed: Timed,
    /// CPU time as a multiple of plain onnxruntime's.
    pub cpu_ratio: f64,
    /// Wall time as a multiple of plain onnxruntime's.
    pub wall_ratio: f64,
}

/// Pairs of engines on the same device whose ratio says something: ours, theirs.
const PAIRS: &[(&str, &str)] = &[
    ("cpu", PLAIN),
    ("opencl", PLAIN),
    ("opencl", "ncnn cpu"),
    ("opencl", "ncnn cpu winograd"),
    ("wgpu", "ncnn vulkan"),
    ("dsp", PLAIN_INT8),
];

/// The rows in `file`; none where it does not exist yet.
pub fn kept(file: &Path) -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(format!("{}: {e}", file.display()).into()),
    };
    serde_json::from_str(&text)
        .map_err(|e| format!("{}: no rows of `bench kernels --keep`: {e}", file.display()).into())
}

/// Writes the rows to `file`.
pub fn keep(file: &Path, rows: &[Row]) -> Result<(), Box<dyn std::error::Error>> {
    let text = serde_json::to_string_pretty(rows)? + "\n";
    std::fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()).into())
}

/// One line for one row.
pub fn print_row(row: &Row) {
    let t = &row.timed;
    let queue = t.busy_ms.map_or(String::new(), |b| format!(", behind the queue {b:.2} ms"));
    println!(
        "{:20} {:18} wall {:9.2} ms, CPU {:9.2} ms (x{:.2}), prepared in {:.1} s, off by {:.1e}{queue}",
        row.model,
        t.engine,
        t.wall_ms,
        t.cpu_ms,
        row.cpu_ratio,
        t.prepare_ms / 1e3,
        t.error
    );
}

/// The table and the means.
pub fn print(rows: &[Row]) {
    let (mut models, mut engines): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for row in rows {
        for (list, name) in [(&mut models, row.model.as_str()), (&mut engines, row.timed.engine.as_str())] {
            if !list.contains(&name) {
                list.push(name);
            }
        }
    }
    println!("\nCPU ms, medians:\n\n| network | {} |", engines.join(" | "));
    println!("| --- |{}", " --- |".repeat(engines.len()));
    for model in &models {
        let cell = |engine: &&str| {
            find(rows, model, engine).map_or("-".to_owned(), |r| format!("{:.2}", r.timed.cpu_ms))
        };
        println!("| {model} | {} |", engines.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
    println!("\nGeometric means of one engine's time as a share of another's (below 1: faster):");
    for (ours, theirs) in PAIRS {
        print_pair(rows, &models, ours, theirs);
    }
    for engine in engines.iter().filter(|e| e.contains('/')) {
        let whole = engine.split('/').next().unwrap_or_default();
        print_pair(rows, &models, engine, whole);
    }
    let queues = rows.iter().filter_map(|r| Some((&r.model, r.timed.wall_ms - r.timed.busy_ms?)));
    let queues: Vec<String> = queues.map(|(model, ms)| format!("{model} {:.0}", 1e3 * ms)).collect();
    if !queues.is_empty() {
        println!("  price of the dsp's queue, us: {}", queues.join(", "));
    }
}

fn find<'r>(rows: &'r [Row], model: &str, engine: &str) -> Option<&'r Row> {
    rows.iter().find(|r| r.model == model && r.timed.engine == engine)
}

/// The ratios of two engines where both were timed, and their means. What lies behind a queue is compared without the queue's price.
fn print_pair(rows: &[Row], models: &[&str], ours: &str, theirs: &str) {
    let both = models.iter().filter_map(|m| Some((*m, find(rows, m, ours)?, find(rows, m, theirs)?)));
    let ratios = both.map(|(m, a, b)| (m, a.timed.cpu_ms / b.timed.cpu_ms, a.wall_beside(b)));
    let ratios: Vec<(&str, f64, f64)> = ratios.collect();
    if ratios.is_empty() {
        return;
    }
    let each: Vec<String> = ratios.iter().map(|(m, cpu, _)| format!("{m} {cpu:.3}")).collect();
    let cpu = mean(ratios.iter().map(|r| r.1));
    let wall = mean(ratios.iter().map(|r| r.2));
    println!("  {ours} / {theirs}: CPU x{cpu:.3}, wall x{wall:.3} ({})", each.join(", "));
}

impl Row {
    fn wall_beside(&self, other: &Row) -> f64 {
        self.timed.busy_ms.unwrap_or(self.timed.wall_ms) / other.timed.wall_ms
    }
}

/// The geometric mean.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    (values.map(f64::ln).sum::<f64>() / n).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_by_hand_and_a_file_that_comes_back() {
        assert!((mean([1.0, 4.0].into_iter()) - 2.0).abs() < 1e-12);
        let timed = Timed {
            engine: "dsp".into(),
            wall_ms: 3.0,
            cpu_ms: 2.0,
            busy_ms: Some(2.0),
            prepare_ms: 1.0,
            error: 0.0,
        };
        let row = Row { model: "kws".into(), timed, cpu_ratio: 1.0, wall_ratio: 1.0 };
        assert_eq!(row.wall_beside(&row), 2.0 / 3.0);
        let file = std::env::temp_dir().join(format!("cosched-bench-{}.json", std::process::id()));
        assert!(kept(&file).unwrap().is_empty());
        keep(&file, &[row]).unwrap();
        let back = kept(&file).unwrap();
        assert!(back.len() == 1 && back[0].timed.busy_ms == Some(2.0) && back[0].model == "kws");
        std::fs::write(&file, "{}").unwrap();
        assert!(kept(&file).is_err());
        std::fs::remove_file(&file).unwrap();
    }
}
