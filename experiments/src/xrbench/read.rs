//! Reads XRBench's two tables, costs and published scores, from CSV. An error names the file, the line, the column and what was expected.
//! It refuses quoted fields and what is there twice; columns that it does not need it passes over.

use super::score::Columns;
use crate::config::{ConfigError, read_text};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Cost of a whole model on an accelerator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Milliseconds.
    pub latency_ms: f64,
    /// Millijoules.
    pub energy_mj: f64,
}

/// Chip key, processing elements, dataflow, model.
type Key = (String, u32, String, String);

/// A table of costs.
#[derive(Clone, Debug)]
pub struct Costs {
    /// The file.
    pub file: PathBuf,
    rows: BTreeMap<Key, Cost>,
}

impl Costs {
    /// The cost of `model` on an accelerator of a chip.
    pub fn get(&self, chip: &str, elements: u32, dataflow: &str, model: &str) -> Option<Cost> {
        self.rows.get(&(chip.to_owned(), elements, dataflow.to_owned(), model.to_owned())).copied()
    }
}

/// A case of a file of scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// Scenario.
    pub scenario: String,
    /// Chip, as [`super::chips::parse`] reads it.
    pub chip: String,
    /// The published scores; `None`: all four are empty, since the case was not published.
    pub scores: Option<Columns>,
    /// Where it stands: line, and columns of scenario and chip, from 1.
    pub place: (usize, [usize; 2]),
}

/// A row with what errors need to know.
struct Row<'a> {
    file: &'a Path,
    line: usize,
    /// (column of the first character from 1, text), in the order of the wanted columns.
    fields: Vec<(usize, &'a str)>,
    names: &'a [&'static str],
}

impl Row<'_> {
    fn error(&self, index: usize, problem: &str) -> ConfigError {
        let problem = format!("{}: {problem}", self.names[index]);
        ConfigError { file: self.file.into(), place: Some((self.line, self.fields[index].0)), problem }
    }

    fn text(&self, index: usize) -> Result<String, ConfigError> {
        match self.fields[index].1 {
            "" => Err(self.error(index, "expected a name, it is empty")),
            text => Ok(text.to_owned()),
        }
    }

    fn number(&self, index: usize, what: &str, fits: fn(f64) -> bool) -> Result<f64, ConfigError> {
        let text = self.fields[index].1;
        let number = text.parse::<f64>().ok().filter(|n| n.is_finite() && fits(*n));
        number.ok_or_else(|| self.error(index, &format!("expected {what}, got `{text}`")))
    }
}

/// Fields of a line with the columns at which they begin.
fn split(line: &str) -> Vec<(usize, &str)> {
    let mut column = 1;
    let fields = line.split(',').map(|field| {
        let spaces = field.chars().take_while(|c| c.is_whitespace()).count();
        let begin = column + spaces;
        column += field.chars().count() + 1;
        (begin, field.trim())
    });
    fields.collect()
}

/// Calls `each` with the rows of a file, their fields picked by the header.
fn rows(
    file: &Path,
    names: &'static [&'static str],
    mut each: impl FnMut(Row<'_>) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    let text = read_text(file)?;
    let text = text.trim_start_matches('\u{feff}');
    let at = |line: usize, column: usize, problem: String| ConfigError {
        file: file.into(),
        place: Some((line, column)),
        problem,
    };
    let mut lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    let header = lines.next().ok_or_else(|| {
        ConfigError::new(file, format!("is empty, expected a header with the columns {}", names.join(",")))
    })?;
    let titles = split(header.1);
    let mut places = Vec::new();
    for name in names {
        let found = titles.iter().position(|(_, title)| title == name).ok_or_else(|| {
            at(header.0 + 1, 1, format!("no column `{name}`; expected a header with {}", names.join(",")))
        })?;
        places.push(found);
    }
    let mut any = false;
    for (index, line) in lines {
        let fields = split(line);
        if fields.len() != titles.len() {
            let problem = format!("expected {} fields, got {}", titles.len(), fields.len());
            return Err(at(index + 1, 1, problem));
        }
        any = true;
        each(Row { file, line: index + 1, fields: places.iter().map(|&p| fields[p]).collect(), names })?;
    }
    if any { Ok(()) } else { Err(ConfigError::new(file, "expected at least one row below the header")) }
}

/// Reads a table of costs with the columns `chip,num_pes,dataflow,model,latency_ms,energy_mj`.
///
/// # Errors
/// [`ConfigError`]; see the module's text.
pub fn costs(file: &Path) -> Result<Costs, ConfigError> {
    const NAMES: &[&str] = &["chip", "num_pes", "dataflow", "model", "latency_ms", "energy_mj"];
    let mut table = BTreeMap::new();
    rows(file, NAMES, |row| {
        let elements = row.number(1, "a whole number from 1 to 1048576", |n| {
            n.fract() == 0.0 && (1.0..=1_048_576.0).contains(&n)
        })?;
        let key = (row.text(0)?, elements as u32, row.text(2)?, row.text(3)?);
        let cost = Cost {
            // The clock counts nanoseconds.
            latency_ms: row.number(4, "milliseconds from 1e-6 to 1e6", |n| (1e-6..=1e6).contains(&n))?,
            energy_mj: row.number(5, "millijoules, 0 or more", |n| n >= 0.0)?,
        };
        if table.insert(key, cost).is_some() {
            return Err(row.error(3, "this model is there twice for its chip, num_pes and dataflow"));
        }
        Ok(())
    })?;
    Ok(Costs { file: file.to_owned(), rows: table })
}

/// Reads published scores with the columns `scenario,hw_dataflow,realtime,energy,user_experience,overall`, in order of the file. Where all
/// scores of a row are empty it was not published.
///
/// # Errors
/// [`ConfigError`]; see the module's text.
pub fn published(file: &Path) -> Result<Vec<Published>, ConfigError> {
    const NAMES: &[&str] = &["scenario", "hw_dataflow", "realtime", "energy", "user_experience", "overall"];
    let mut cases: Vec<Published> = Vec::new();
    rows(file, NAMES, |row| {
        let score = |index| row.number(index, "a score of at most 1", |n| n <= 1.0);
        let case = Published {
            scenario: row.text(0)?,
            chip: row.text(1)?,
            scores: match (2..6).all(|index| row.fields[index].1.is_empty()) {
                true => None,
                false => Some(Columns {
                    realtime: score(2)?,
                    energy: score(3)?,
                    user_experience: score(4)?,
                    overall: score(5)?,
                }),
            },
            place: (row.line, [row.fields[0].0, row.fields[1].0]),
        };
        if let Some(twin) = cases.iter().find(|c| c.scenario == case.scenario && c.chip == case.chip) {
            return Err(row.error(1, &format!("this case is there twice, first in line {}", twin.place.0)));
        }
        cases.push(case);
        Ok(())
    })?;
    Ok(cases)
}
