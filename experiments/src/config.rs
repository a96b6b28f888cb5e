//! Reads TOML and JSON files into plain data, and writes files whole. An error names the file, the line, the key, and for an unknown key the nearest known one.
//! It refuses unknown keys wherever the type says `deny_unknown_fields`, and knows nothing of what the keys mean.

use cosched_agent::file;
use serde::de::DeserializeOwned;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Line and column, counted from 1, where they are known.
    pub place: Option<(usize, usize)>,
    /// What is wrong, with the key and what was expected.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// An error about a file as a whole.
    pub fn new(file: impl Into<PathBuf>, problem: impl Into<String>) -> ConfigError {
        ConfigError { file: file.into(), place: None, problem: problem.into() }
    }

    /// An error about `key` (such as `stream[2].deadline_ms`) of the TOML `text`; it points at the key's line where it stands there.
    pub fn at_key(file: impl Into<PathBuf>, text: &str, key: &str, problem: &str) -> ConfigError {
        let place = locate(text, key).map(|offset| line_column(text, offset));
        ConfigError { file: file.into(), place, problem: format!("{key}: {problem}") }
    }
}

/// Reads a whole text file.
///
/// # Errors
/// When the file is missing, is a folder, cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, ConfigError> {
    let bytes = std::fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => ConfigError::new(path, "no such file"),
        _ if path.is_dir() => ConfigError::new(path, "is a folder, expected a file"),
        _ => ConfigError::new(path, format!("cannot be read: {e}")),
    })?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        ConfigError::new(path, format!("is not UTF-8 text (first bad byte at offset {at})"))
    })
}

/// The error about a file or folder that cannot be written.
pub(crate) fn unwritten(path: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError::new(path, format!("cannot be written: {error}"))
}

/// Writes a file whole or not at all; see [`file::write_whole`].
///
/// # Errors
/// Names the file.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ConfigError> {
    file::write_whole(path, bytes).map_err(|e| unwritten(path, &e))
}

/// Reads a TOML file.
///
/// # Errors
/// [`ConfigError`] with line and key; see the module's text.
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    parse_toml(&read_text(path)?, path)
}

/// As [`read_toml`], from text; `path` is only named in errors.
///
/// # Errors
/// As [`read_toml`].
pub fn parse_toml<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|e| explain_toml(text, path, &e))
}

/// Reads a JSON file.
///
/// # Errors
/// [`ConfigError`] with line and column.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|e| {
        let full = e.to_string();
        let message = full.rsplit_once(" at line ").map_or(full.as_str(), |(message, _)| message);
        let problem = unknown_key(message, "").unwrap_or_else(|| message.to_owned());
        ConfigError { file: path.into(), place: (e.line() > 0).then_some((e.line(), e.column())), problem }
    })
}

/// The word of `known` that is nearest to `word`, if any is near enough to have been meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let best = known.into_iter().map(|k| (strsim::damerau_levenshtein(word, k), k)).min()?;
    // A third of the word may be wrong; beyond that a suggestion misleads.
    let allowed = (word.chars().count().max(best.1.chars().count()) / 3).max(1);
    (best.0 <= allowed).then_some(best.1)
}

/// `; did you mean ...?` for a near word, or the list of known words.
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => {
            let known: Vec<&str> = known.into_iter().collect();
            if known.is_empty() { String::new() } else { format!("; known: {}", known.join(", ")) }
        }
    }
}

/// Rewrites serde's message about an unknown field or variant; `None` for other messages.
pub(crate) fn unknown_key(message: &str, place: &str) -> Option<String> {
    let (what, rest) = if let Some(rest) = message.strip_prefix("unknown field `") {
        ("key", rest)
    } else {
        ("value", message.strip_prefix("unknown variant `")?)
    };
    let (word, rest) = rest.split_once('`')?;
    // What follows is either `, there are no fields` or a list of names in backquotes.
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    Some(format!("unknown {what} `{word}`{place}{}", suggestion(word, known.iter().copied())))
}

fn explain_toml(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    let message = error.message().trim().replace('\n', ", ");
    let span = error.span();
    let spot = span.as_ref().and_then(|s| find(text, s));
    let place = spot.as_ref().map_or(String::new(), |s| format!(" in {}", s.table));
    let problem = if let Some(problem) = unknown_key(&message, &place) {
        problem
    } else if message.starts_with("missing field") {
        // The span covers the table that lacks it.
        let table = spot.as_ref().map_or("the file", |s| s.inner.as_str());
        format!("{} in {table}", message.replace("missing field", "missing key"))
    } else {
        match spot.as_ref().and_then(|s| s.key.as_ref()) {
            _ if message == "duplicate key" => {
                // The recovering parser forgets it, but its span is the key itself.
                let key = span.clone().and_then(|s| text.get(s)).unwrap_or_default();
                format!("key `{key}` is there twice")
            }
            Some(key) => format!("{key}: {message}"),
            None => message,
        }
    };
    ConfigError { file: path.into(), place: span.map(|s| line_column(text, s.start)), problem }
}

/// Line and column of a byte offset, counted from 1, the column in characters.
fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset.min(text.len()))];
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// Where in the document a span lies.
struct Spot {
    /// The table that holds it, as its header is written.
    table: String,
    /// The innermost table that is or holds it.
    inner: String,
    /// The key with its path, e.g. `stream[2].deadline_ms`.
    key: Option<String>,
}

fn header(names: &[String], array: bool) -> String {
    match (names.is_empty(), array) {
        (true, _) => "the top level".into(),
        (_, true) => format!("[[{}]]", names.join(".")),
        (_, false) => format!("[{}]", names.join(".")),
    }
}

fn holds(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Descends to the span. Tables' own spans cover only their header, so every branch is looked at.
fn find(text: &str, span: &Range<usize>) -> Option<Spot> {
    let (document, _) = DeTable::parse_recoverable(text);
    let mut search = Search { span, names: Vec::new(), found: None };
    search.table(document.get_ref(), "", false);
    search.found
}

struct Search<'a> {
    span: &'a Range<usize>,
    names: Vec<String>,
    found: Option<Spot>,
}

impl Search<'_> {
    fn table(&mut self, table: &DeTable<'_>, path: &str, array: bool) {
        for (name, value) in table.iter() {
            let key = if path.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{path}.{}", name.get_ref())
            };
            if holds(&name.span(), self.span) || holds(&value.span(), self.span) {
                let table = header(&self.names, array);
                let mut names = self.names.clone();
                names.push(name.get_ref().to_string());
                let inner = match value.get_ref() {
                    DeValue::Table(_) => header(&names, false),
                    DeValue::Array(_) => header(&names, true),
                    _ => table.clone(),
                };
                self.found = Some(Spot { table, inner, key: Some(key.clone()) });
            }
            self.names.push(name.get_ref().to_string());
            self.value(value.get_ref(), &key, false);
            self.names.pop();
        }
    }

    fn value(&mut self, value: &DeValue<'_>, path: &str, array: bool) {
        match value {
            DeValue::Table(table) => self.table(table, path, array),
            DeValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    let path = format!("{path}[{i}]");
                    if matches!(item.get_ref(), DeValue::Table(_)) && holds(&item.span(), self.span) {
                        let table = header(&self.names, true);
                        self.found = Some(Spot { inner: table.clone(), table, key: Some(path.clone()) });
                    }
                    self.value(item.get_ref(), &path, true);
                }
            }
            _ => {}
        }
    }
}

/// Byte offset of a key such as `task[1].variant[0].model`; of its longest part that is there, else `None`.
fn locate(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut offset = None;
    for part in key.split('.') {
        let (name, index) = match part.split_once('[') {
            Some((name, rest)) => (name, rest.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let Some((found, value)) = table.iter().find(|(k, _)| k.get_ref().as_ref() == name) else { break };
        offset = Some(found.span().start);
        let mut value = value.get_ref();
        if let (DeValue::Array(items), Some(i)) = (value, index) {
            let item = items.get(i)?;
            offset = Some(item.span().start);
            value = item.get_ref();
        }
        match value {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    offset
}
