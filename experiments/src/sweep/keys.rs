//! Configs as data: read from a base that stands in the sweep file itself, and changed by dotted keys, which name one value by its path:
//! `stream.0.period_ms` or `stream.*.deadline_ms`. It refuses keys that the config does not have, with the nearest that it has; what the
//! values mean is the config's own affair.

use super::file::Base;
use crate::config::{ConfigError, suggestion, unknown_key};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// A config from data.
///
/// # Errors
/// An unknown key with the nearest known one, a key that is missing, or a value of a wrong type.
pub fn parse<T: DeserializeOwned>(config: Value) -> Result<T, String> {
    serde_json::from_value(config)
        .map_err(|e| unknown_key(&e.to_string(), "").unwrap_or_else(|| e.to_string()))
}

/// The config of a base that stands in the sweep file itself. `looks` shows what it looks like, for errors.
///
/// # Errors
/// A base that is a file; as [`parse`].
pub fn inline<T: DeserializeOwned>(base: &Base, folder: &Path, looks: &str) -> Result<T, ConfigError> {
    let wrong = |problem: String| ConfigError::new(folder, format!("base: {problem}"));
    match base {
        Base::Inline(table) => parse(Value::Object(table.clone())).map_err(wrong),
        Base::File(_) => Err(wrong(format!("expected a table {looks}"))),
    }
}

/// A base with some keys set.
///
/// # Errors
/// As [`set`] and [`parse`].
pub fn changed<T: DeserializeOwned>(base: &Value, settings: &[(String, Value)]) -> Result<T, String> {
    let mut config = base.clone();
    settings.iter().try_for_each(|(key, value)| set(&mut config, key, value))?;
    parse(config)
}

/// Sets what `key` names.
///
/// # Errors
/// A part of the key that is not there, with the nearest that is.
pub fn set(config: &mut Value, key: &str, new: &Value) -> Result<(), String> {
    let parts: Vec<&str> = key.split('.').collect();
    descend(config, &parts, new)
}

fn descend(value: &mut Value, path: &[&str], new: &Value) -> Result<(), String> {
    let Some((&part, rest)) = path.split_first() else {
        *value = new.clone();
        return Ok(());
    };
    match value {
        Value::Object(map) => {
            let known: Vec<String> = map.keys().cloned().collect();
            let Some(inner) = map.get_mut(part) else {
                return Err(format!("no key `{part}`{}", suggestion(part, known.iter().map(String::as_str))));
            };
            descend(inner, rest, new)
        }
        Value::Array(items) if part == "*" => items.iter_mut().try_for_each(|item| descend(item, rest, new)),
        Value::Array(items) => {
            let count = items.len();
            let item = part.parse::<usize>().ok().and_then(|i| items.get_mut(i));
            descend(item.ok_or(format!("expected an index below {count} or `*`, got `{part}`"))?, rest, new)
        }
        _ => Err(format!("`{part}` is looked for in what is a plain value")),
    }
}

/// A value as a person would write it in a table: text without quotes.
pub fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        costs: u64,
        #[serde(default)]
        mode: u64,
    }

    #[test]
    fn a_base_in_the_sweep_file_is_read_changed_and_refused_by_its_keys() {
        let table = |value: Value| Base::Inline(value.as_object().unwrap().clone());
        let read = |base: Base| inline::<Config>(&base, Path::new("folder"), "{ costs = ... }");
        let good = read(table(json!({ "costs": 1 }))).unwrap();
        assert_eq!((good.costs, good.mode), (1, 0));
        for (base, words) in [
            (table(json!({ "costs": 1, "moode": 2 })), "base: unknown key `moode`; did you mean `mode`?"),
            (table(json!({ "costs": 1, "price": 2 })), "base: unknown key `price`; known: costs, mode"),
            (table(json!({ "mode": 2 })), "base: missing field `costs`"),
            (Base::File("x.toml".into()), "base: expected a table { costs = ... }"),
        ] {
            let error = read(base).unwrap_err().to_string();
            assert!(error.contains("folder") && error.ends_with(words), "{error}");
        }
        let base = json!({ "costs": 1, "mode": 0 });
        let with = |key: &str, value: Value| changed::<Config>(&base, &[(key.to_owned(), value)]);
        assert_eq!(with("mode", json!(3)).unwrap().mode, 3);
        assert!(with("moode", json!(3)).unwrap_err().contains("did you mean `mode`?"));
        assert!(with("mode", json!("three")).unwrap_err().contains("invalid type"));
    }
}
