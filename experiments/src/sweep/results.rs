//! The folder of a sweep's results: the table as CSV and Parquet, and `meta.json` with all it takes to make it again.
//! It refuses a folder that holds the results of another sweep, and leaves no file half written.

use super::store::{Found, Record, Store};
use super::{Sweep, hash, table};
use crate::about::commit;
use crate::config::{ConfigError, read_json, write_whole};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What `meta.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Name of the sweep.
    pub name: String,
    /// The question that it answers.
    pub about: String,
    /// Kind of its cells.
    pub kind: String,
    /// The sweep file.
    pub file: String,
    /// The subset that was run.
    pub subset: Option<String>,
    /// The sweep as resolved, includes and subset laid over each other.
    pub sweep: Value,
    /// The policy that differences are taken to, if the file names one.
    pub reference: Option<String>,
    /// Hash and code of each cell, in order; a cell that failed has its error.
    pub cells: Vec<(String, String, Option<String>)>,
    /// Where the cells are, relative to this folder if they are in it.
    pub store: PathBuf,
    /// Commit of the working folder.
    pub commit: String,
    /// Version of cosched.
    pub version: String,
    /// The code that ran; see [`hash::code`].
    pub code: String,
    /// Architecture, system and processor of the machine that wrote this.
    pub machine: String,
    /// Plans, processors and provenance of all cells.
    pub devices: BTreeMap<String, String>,
    /// Seconds that all cells took together, on one core each.
    pub cell_seconds: f64,
    /// When it was written, in seconds since 1970.
    pub written_unix_s: u64,
}

/// What there is to report on.
pub struct Results {
    /// See [`Meta`].
    pub meta: Meta,
    /// Records of the cells, failed ones included.
    pub records: Vec<Record>,
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = model.map_or("unknown processor", |(_, name)| name.trim());
    format!("{}-{}, {model}, {cores} cores", std::env::consts::ARCH, std::env::consts::OS)
}

/// Refuses a folder of another sweep, or of another subset, before anything costly is done.
///
/// # Errors
/// Says whose results are there.
pub fn check_folder(folder: &Path, name: &str, subset: Option<&str>) -> Result<(), ConfigError> {
    let path = folder.join("meta.json");
    if !path.exists() {
        return Ok(());
    }
    let there = read_json::<Value>(&path)?;
    let called = |name: &str, subset: Option<&str>| match subset {
        Some(subset) => format!("`{name}`, subset `{subset}`"),
        None => format!("`{name}`"),
    };
    let Some(other) = there["name"].as_str() else {
        return Err(ConfigError::new(path, "is no file of a sweep; expected another --out"));
    };
    let (there, here) = (called(other, there["subset"].as_str()), called(name, subset));
    if there == here {
        return Ok(());
    }
    let problem = format!("holds the results of the sweep {there}, not of {here}; expected another --out");
    Err(ConfigError::new(folder, problem))
}

/// Writes the table and `meta.json`, each through a temporary file.
///
/// # Errors
/// When a file cannot be written; what was there is as it was.
pub fn write(sweep: &Sweep<'_>, records: &[Record], store: &Store, folder: &Path) -> Result<(), ConfigError> {
    std::fs::create_dir_all(folder)
        .map_err(|e| ConfigError::new(folder, format!("cannot be written: {e}")))?;
    let devices = records.iter().filter_map(|r| r.outcome.as_ref().ok()).flat_map(|o| o.about.clone());
    let inside = store.folder().strip_prefix(folder).map(Path::to_owned);
    let absolute = || std::path::absolute(store.folder()).unwrap_or_else(|_| store.folder().to_owned());
    let meta = Meta {
        name: sweep.name.clone(),
        about: sweep.part.about.clone().unwrap_or_default(),
        kind: sweep.kind.name().to_owned(),
        file: sweep.file.display().to_string(),
        subset: sweep.subset.clone(),
        sweep: json!(sweep.part),
        reference: sweep.part.reference.clone(),
        cells: records
            .iter()
            .map(|r| (r.hash.clone(), r.code.clone(), r.outcome.as_ref().err().cloned()))
            .collect(),
        store: inside.unwrap_or_else(|_| absolute()),
        commit: commit(),
        version: env!("CARGO_PKG_VERSION").into(),
        code: hash::code()?,
        machine: machine(),
        devices: devices.collect(),
        cell_seconds: records.iter().map(|r| r.wall_s).sum(),
        written_unix_s: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
    };
    let table = table::table(records);
    let meta = serde_json::to_string_pretty(&meta).unwrap_or_default() + "\n";
    let mut files = vec![("table.csv", table.csv().into_bytes())];
    #[cfg(feature = "report")]
    files.push(("table.parquet", super::parquet::bytes(&table).map_err(|e| ConfigError::new(folder, e))?));
    files.push(("meta.json", meta.into_bytes()));
    for (name, bytes) in files {
        write_whole(&folder.join(name), &bytes)?;
    }
    Ok(())
}

/// Reads a folder that [`write`] wrote.
///
/// # Errors
/// A folder without results, or cells that are no longer in the store.
pub fn read(folder: &Path) -> Result<Results, ConfigError> {
    let path = folder.join("meta.json");
    if !path.exists() {
        return Err(ConfigError::new(
            folder,
            "holds no results: expected meta.json, as `cosched sweep` writes it",
        ));
    }
    let meta: Meta = read_json(&path)?;
    let store = Store::at(&folder.join(&meta.store));
    let mut records = Vec::new();
    let mut lost = 0;
    for (hash, code, _) in &meta.cells {
        match store.get(hash, code)? {
            Found::Done(record) | Found::Failed(record) => records.push(*record),
            Found::Broken(..) | Found::Nothing => lost += 1,
        }
    }
    if lost > 0 {
        let problem =
            format!("lacks {lost} of {} cells; `cosched sweep {}` makes them", meta.cells.len(), meta.file);
        return Err(ConfigError::new(store.folder(), problem));
    }
    Ok(Results { meta, records })
}
