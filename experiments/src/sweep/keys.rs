//! Dotted keys: one value of a resolved config is set by its path, `stream.0.period_ms` or `stream.*.deadline_ms`.
//! It refuses keys that the config does not have; what the values mean is the config's own affair.

use crate::config::suggestion;
use serde_json::Value;

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
