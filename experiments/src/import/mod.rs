//! Plans from measurements of others: tables of ncnn and Qualcomm AI Hub, and profiles of ONNX Runtime.
//! It refuses to guess what a table does not say: accuracy, energy and transfers are what the caller says, and the plan says so.

pub mod aihub;
pub mod ncnn;
pub mod ort;

use crate::config::{ConfigError, read_text, suggestion};
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use std::collections::BTreeMap;
use std::path::Path;

/// A model on all processors of a device.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    /// Name of the variant.
    pub name: String,
    /// The task that it serves.
    pub task: String,
    /// Segments in order, and for each the milliseconds (mean, median, 95th percentile) on each processor.
    pub segments: Vec<(String, Vec<Option<[f64; 3]>>)>,
}

/// Puts a plan together. Watts turn latency into energy; accuracies are those of the caller, else 1.
pub(crate) fn plan(
    processors: &[(String, String)],
    models: Vec<Measured>,
    given: &Given,
    source: &str,
) -> Result<Plan, String> {
    let known: Vec<&str> = processors.iter().map(|(name, _)| name.as_str()).collect();
    let names: Vec<String> = models.iter().map(|m| m.name.clone()).collect();
    let missing = |what: &str, name: &str, known: &[&str]| {
        format!("no {what} `{name}`{}", suggestion(name, known.iter().copied()))
    };
    if let Some(name) = given.watts.keys().find(|n| !known.contains(&n.as_str())) {
        return Err(missing("processor", name, &known));
    }
    if let Some(name) = given.accuracy.keys().find(|n| !names.contains(n)) {
        return Err(missing("variant", name, &names.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    let watts: Vec<f64> = known.iter().map(|n| given.watts.get(*n).copied().unwrap_or(0.0)).collect();
    let cost = |(p, ms): (usize, &Option<[f64; 3]>)| {
        ms.map(|[mean, p50, p95]| Cost {
            mean_us: mean * 1e3,
            p50_us: p50 * 1e3,
            p95_us: p95 * 1e3,
            // Milliseconds times watts are millijoules.
            energy_mj: mean * watts[p],
        })
    };
    let variant = |m: Measured| Variant {
        accuracy: given.accuracy.get(&m.name).copied().unwrap_or(1.0),
        segments: m
            .segments
            .iter()
            .map(|(name, row)| SegmentSpec {
                name: name.clone(),
                costs: row.iter().enumerate().map(cost).collect(),
                ..SegmentSpec::default()
            })
            .collect(),
        name: m.name,
        task: m.task,
        ..Variant::default()
    };
    let unsaid = "unknown, so 1 (accuracy), 0 (energy without --watts, sizes, transfers), no contention";
    Ok(Plan {
        format: PLAN_FORMAT,
        provenance: BTreeMap::from([
            ("source".to_owned(), source.to_owned()),
            ("what the source does not say".to_owned(), unsaid.to_owned()),
        ]),
        processors: processors
            .iter()
            .zip(&watts)
            .map(|((name, device), &active_watts)| ProcessorSpec {
                name: name.clone(),
                device: device.clone(),
                slots: 1,
                active_watts,
                idle_watts: 0.0,
                copy_us: 0.0,
                copy_gbps: 0.0,
                launch_us: 0.0,
                crowd: None,
            })
            .collect(),
        contention: vec![vec![1.0; known.len()]; known.len()],
        variants: models.into_iter().map(variant).collect(),
    })
}

/// What the caller says because no table does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// Watts of a processor while it runs, by its name.
    pub watts: BTreeMap<String, f64>,
    /// Accuracy of a variant, above 0 and at most 1, by its name.
    pub accuracy: BTreeMap<String, f64>,
    /// Models to take; all when empty.
    pub models: Vec<String>,
}

impl Given {
    /// Refuses models that the source does not have.
    fn check_models(&self, known: &[&str], file: &Path) -> Result<(), ConfigError> {
        let unknown = self.models.iter().find(|m| !known.contains(&m.as_str()));
        unknown.map_or(Ok(()), |name| {
            let near = suggestion(name, known.iter().copied());
            Err(ConfigError::new(file, format!("no model `{name}`{near}")))
        })
    }

    fn wants(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|m| m == model)
    }
}

/// A table whose fields may stand in quotes.
pub(crate) struct Csv {
    file: std::path::PathBuf,
    /// Line and the wanted fields.
    pub rows: Vec<(usize, Vec<String>)>,
}

impl Csv {
    /// Reads the named columns of a file.
    ///
    /// # Errors
    /// A missing file or column, or a line with another number of fields than the header.
    pub fn read(file: &Path, columns: &[&str]) -> Result<Csv, ConfigError> {
        let text = read_text(file)?;
        let at =
            |line: usize, problem: String| ConfigError { file: file.into(), place: Some((line, 1)), problem };
        let mut lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
        let expected = format!("expected a header with the columns {}", columns.join(","));
        let Some((_, header)) = lines.next() else {
            return Err(ConfigError::new(file, format!("is empty, {expected}")));
        };
        let titles = split(header);
        let place = |name: &&str| {
            let found = titles.iter().position(|t| t == name);
            found.ok_or_else(|| at(1, format!("no column `{name}`; {expected}")))
        };
        let places = columns.iter().map(place).collect::<Result<Vec<usize>, _>>()?;
        let mut rows = Vec::new();
        for (index, line) in lines {
            let fields = split(line);
            if fields.len() != titles.len() {
                return Err(at(index + 1, format!("expected {} fields, got {}", titles.len(), fields.len())));
            }
            rows.push((index + 1, places.iter().map(|&p| fields[p].clone()).collect()));
        }
        Ok(Csv { file: file.into(), rows })
    }

    /// A field as milliseconds.
    ///
    /// # Errors
    /// With the line, when it is no number above 0.
    pub fn ms(&self, line: usize, field: &str, column: &str) -> Result<f64, ConfigError> {
        let ms = field.trim().parse::<f64>().ok().filter(|ms| ms.is_finite() && *ms > 0.0);
        ms.ok_or_else(|| ConfigError {
            file: self.file.clone(),
            place: Some((line, 1)),
            problem: format!("{column}: expected milliseconds above 0, got `{field}`"),
        })
    }
}

/// Fields of a line; in quotes, commas are text and two quotes are one.
fn split(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    let mut signs = line.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(sign) = signs.next() {
        let last = fields.len() - 1;
        match sign {
            '"' if quoted && signs.peek() == Some(&'"') => {
                signs.next();
                fields[last].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            '\r' => {}
            sign => fields[last].push(sign),
        }
    }
    fields
}

/// The one of `all` that is `wanted` or holds it, whatever the case of letters.
pub(crate) fn choose<'a>(
    file: &Path,
    what: &str,
    wanted: &str,
    all: &[&'a str],
) -> Result<&'a str, ConfigError> {
    if let Some(exact) = all.iter().find(|a| **a == wanted) {
        return Ok(exact);
    }
    let lower = wanted.to_lowercase();
    let holding: Vec<&str> = all.iter().copied().filter(|a| a.to_lowercase().contains(&lower)).collect();
    match holding.as_slice() {
        [one] => Ok(one),
        [] => Err(ConfigError::new(
            file,
            format!("no {what} has `{wanted}` in its name ({} {what}s)", all.len()),
        )),
        many => Err(ConfigError::new(
            file,
            format!(
                "{} {what}s have `{wanted}` in their names: {}",
                many.len(),
                many[..many.len().min(5)].join("; ")
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn quoted_fields() {
        assert_eq!(super::split("a,\"b, \"\"c\"\"\",,d\r"), ["a", "b, \"c\"", "", "d"]);
    }
}
