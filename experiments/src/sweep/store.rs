//! The store: a folder with one file a cell, called by the hash of its content and of the code that made it. A file is written
//! beside its place and then renamed, and ends with its check sum, so that there is a whole result or none.
//! It refuses to overwrite a result, and to delete one that is broken: that is put aside.

use super::Cell;
use super::hash;
use super::kind::{Outcome, Spec};
use crate::config::{ConfigError, unwritten};
use cosched_agent::file::write_through;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Version of the format.
const FORMAT: u32 = 1;
/// What stands before the check sum.
const SEAL: &str = "\n# sha256 ";

/// What is kept of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the format.
    pub format: u32,
    /// Hash of the cell.
    pub hash: String,
    /// The code that ran it; see [`hash::code`].
    pub code: String,
    /// Commit of the working folder then.
    pub commit: String,
    /// What the cell was.
    pub spec: Spec,
    /// Seconds that it took.
    pub wall_s: f64,
    /// What came of it, or why nothing did.
    pub outcome: Result<Outcome, String>,
}

impl Record {
    /// A record that is being made now.
    pub fn new(
        cell: &Cell,
        code: &str,
        commit: &str,
        wall_s: f64,
        outcome: Result<Outcome, String>,
    ) -> Record {
        Record {
            format: FORMAT,
            hash: cell.hash.clone(),
            code: code.to_owned(),
            commit: commit.to_owned(),
            spec: cell.spec.clone(),
            wall_s,
            outcome,
        }
    }
}

/// What a store knows of a cell.
#[derive(Debug)]
pub enum Found {
    /// A whole result.
    Done(Box<Record>),
    /// A run that failed; it is worth another try.
    Failed(Box<Record>),
    /// A file that is no whole result; it was put aside under this name.
    Broken(PathBuf, String),
    /// Nothing.
    Nothing,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens a store and makes sure that it can be written, before anything costly is done.
    ///
    /// # Errors
    /// A folder that cannot be made or written.
    pub fn open(folder: &Path) -> Result<Store, ConfigError> {
        let fail = |e| unwritten(folder, &e);
        std::fs::create_dir_all(folder).map_err(fail)?;
        let store = Store { folder: folder.to_owned() };
        let probe = store.temporary("probe");
        std::fs::write(&probe, b"can it be written?").map_err(fail)?;
        std::fs::remove_file(&probe).map_err(fail)?;
        store.tidy();
        Ok(store)
    }

    /// A store that is only read.
    pub fn at(folder: &Path) -> Store {
        Store { folder: folder.to_owned() }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes what killed runs left unfinished more than a day ago. Whoever is at work now is left alone.
    fn tidy(&self) {
        let old = |path: &Path| {
            let written = std::fs::metadata(path).and_then(|m| m.modified()).ok();
            let age = written.and_then(|w| SystemTime::now().duration_since(w).ok());
            age.is_some_and(|age| age > Duration::from_secs(24 * 3600))
        };
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') && name.ends_with(".unfinished") && old(&entry.path()) {
                // It is in nobody's way if it stays.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn temporary(&self, name: &str) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!(".{name}.{}.{count}.unfinished", std::process::id()))
    }

    /// Where a result is, or would be.
    pub fn path(&self, hash: &str, code: &str) -> PathBuf {
        self.folder.join(format!("{hash}-{code}.json"))
    }

    fn failed(&self, hash: &str, code: &str) -> PathBuf {
        self.folder.join(format!("{hash}-{code}.failed.json"))
    }

    /// What is known of a cell under this code. A broken file is put aside.
    ///
    /// # Errors
    /// A file that is there and cannot be read or put aside.
    pub fn get(&self, hash: &str, code: &str) -> Result<Found, ConfigError> {
        let path = self.path(hash, code);
        for (path, done) in [(path, true), (self.failed(hash, code), false)] {
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(ConfigError::new(path, format!("cannot be read: {e}"))),
            };
            return match unseal(&bytes, hash) {
                Ok(record) if done => Ok(Found::Done(Box::new(record))),
                Ok(record) => Ok(Found::Failed(Box::new(record))),
                Err(problem) => self.put_aside(&path, problem),
            };
        }
        Ok(Found::Nothing)
    }

    fn put_aside(&self, path: &Path, problem: String) -> Result<Found, ConfigError> {
        let mut n = 0;
        let aside = loop {
            let aside = path.with_extension(if n == 0 { "broken".into() } else { format!("broken{n}") });
            if !aside.exists() {
                break aside;
            }
            n += 1;
        };
        std::fs::rename(path, &aside)
            .map_err(|e| ConfigError::new(path, format!("{problem}, and cannot be put aside: {e}")))?;
        Ok(Found::Broken(aside, problem))
    }

    /// The code under which a result of this cell is there, if there is one: the least in alphabetical order.
    pub fn any_code(&self, hash: &str) -> Option<String> {
        let names = std::fs::read_dir(&self.folder).ok()?.flatten();
        let names = names.map(|e| e.file_name().to_string_lossy().into_owned());
        let code = |name: String| {
            let code = name.strip_prefix(hash)?.strip_prefix('-')?.strip_suffix(".json")?;
            (!code.contains('.')).then(|| code.to_owned())
        };
        names.filter_map(code).min()
    }

    /// Keeps a record. A failed one stays only until the cell succeeds.
    ///
    /// # Errors
    /// A store that is full or cannot be written; what was there is as it was.
    pub fn put(&self, record: &Record) -> Result<(), ConfigError> {
        let (done, failed) = (self.path(&record.hash, &record.code), self.failed(&record.hash, &record.code));
        let path = if record.outcome.is_ok() { &done } else { &failed };
        let json = serde_json::to_string(record).map_err(|e| ConfigError::new(path, e.to_string()))?;
        let text = format!("{json}{SEAL}{}\n", hash::of(json.as_bytes()));
        write_through(&self.temporary(&record.hash), path, text.as_bytes())
            .map_err(|e| unwritten(path, &e))?;
        if record.outcome.is_ok() && failed.exists() {
            // It is only a note by now.
            let _ = std::fs::remove_file(failed);
        }
        Ok(())
    }
}

fn unseal(bytes: &[u8], hash: &str) -> Result<Record, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8 text")?;
    let (json, seal) = text.rsplit_once(SEAL).ok_or("is cut off: it has no check sum")?;
    if seal.trim_end() != hash::of(json.as_bytes()) {
        return Err("is not what was written: its check sum differs".into());
    }
    let record: Record = serde_json::from_str(json).map_err(|e| format!("is no result: {e}"))?;
    if record.format != FORMAT || record.hash != hash {
        let (format, of) = (record.format, &record.hash);
        return Err(format!("is of format {format} and cell {of}; expected format {FORMAT} and cell {hash}"));
    }
    Ok(record)
}
