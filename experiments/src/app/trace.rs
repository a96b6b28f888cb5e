//! Reads the arrivals of trace streams: one time in milliseconds a line, `#` begins a comment, the first line may be a header.
//! It refuses to sort, to skip what it cannot read, and to guess units.

use super::App;
use crate::config::{ConfigError, read_text};
use cosched_env::scenario::ArrivalKind;
use std::path::Path;

/// Reads a trace file.
///
/// # Errors
/// [`ConfigError`] with the line: a line that is no number, or a time that is negative or before the one above it; a file without any.
pub fn read_trace(path: &Path) -> Result<Vec<f64>, ConfigError> {
    let text = read_text(path)?;
    let mut times: Vec<f64> = Vec::new();
    let mut header_allowed = true;
    for (number, line) in text.lines().enumerate() {
        let word = line.split('#').next().unwrap_or("").trim();
        if word.is_empty() {
            continue;
        }
        let fail = |problem: String| {
            Err(ConfigError { file: path.to_owned(), place: Some((number + 1, 1)), problem })
        };
        let is_header = header_allowed && word.starts_with(char::is_alphabetic);
        header_allowed = false;
        let last = times.last().copied().unwrap_or(0.0);
        match word.parse::<f64>() {
            Ok(time) if time.is_finite() && time >= last => times.push(time),
            Ok(time) if time.is_finite() && time >= 0.0 => {
                return fail(format!("expected ascending times, got {time} after {last}"));
            }
            Err(_) if is_header => {}
            _ => return fail(format!("expected one arrival in milliseconds, got `{word}`")),
        }
    }
    if times.is_empty() {
        return Err(ConfigError::new(path, "expected at least one arrival in milliseconds"));
    }
    Ok(times)
}

impl App {
    /// Fills [`cosched_env::scenario::Stream::times_ms`] of streams that name a trace file. `text` is that of the app file.
    pub(crate) fn read_traces(&mut self, text: &str) -> Result<(), ConfigError> {
        for i in 0..self.streams.len() {
            let stream = &self.streams[i];
            if stream.trace.is_empty() {
                continue;
            }
            let fail = |problem: &str| {
                Err(ConfigError::at_key(&self.file, text, &format!("stream[{i}].trace"), problem))
            };
            if stream.kind != ArrivalKind::Trace {
                return fail("only a stream of kind `trace` has a trace file");
            }
            let path = self.resolve(Path::new(&stream.trace));
            if !path.is_file() {
                return fail(&format!("no such file: {}", path.display()));
            }
            let times = read_trace(&path)?;
            // A file that was written with its times resolved holds both.
            if !stream.times_ms.is_empty() && stream.times_ms != times {
                return fail("times_ms says otherwise; expected one of the two");
            }
            self.streams[i].times_ms = times;
        }
        Ok(())
    }
}
