//! Which processors an app wants, and opening them: those of the table, onnxruntime's providers, parts of the CPU and remote servers.
//! It refuses unknown names; a processor that is not here is given back with the reason, and no error as long as another one is.

use super::SessionError;
use cosched_executors::dsp::calibrate::{Method, PERCENTILE};
use cosched_executors::dsp::pace;
use cosched_executors::processor::{self, Processor};
use cosched_executors::{cpu, providers, remote};
use cosched_experiments::app::{App, Calibration, Dsp, Pace, Part, Processors, Remote, Storage};
use cosched_experiments::config::ConfigError;
use std::sync::Arc;
use std::time::Duration;

/// Processors that are there, and those that are not with the reason.
pub type Opened = (Vec<Arc<dyn Processor>>, Vec<(String, String)>);

/// Opens the processors that an app asks for, in its order. Absent ones are given back with the reason.
///
/// # Errors
/// An unknown name, or no processor at all.
pub fn open_processors(app: &App, options: &processor::Options) -> Result<Opened, SessionError> {
    let mut options = options.clone();
    options.storage.extend(app.storage.iter().map(|(name, stored)| (name.clone(), storage(*stored))));
    let dsp = &app.dsp;
    options.calibration = method(dsp);
    options.pace = dsp.pace.map(|Pace { gops, rpc_us }| pace::Pace { gops, rpc_us });
    if !dsp.worker.is_empty() {
        options.dsp_command = app.dsp_worker();
    }
    let (mut open, mut absent) = (Vec::new(), Vec::new());
    for name in chosen(app)? {
        let opened = match processor::row(name) {
            Some(row) => (row.open)(&options),
            None => {
                let part = app.parts.iter().find(|p| p.name == name).map(part);
                let server = app.remotes.iter().find(|r| r.name == name);
                match (part, server) {
                    (Some(part), _) => cpu::open_as(part),
                    (None, Some(server)) => remote::open(&settings(app, server)),
                    (None, None) => continue,
                }
            }
        };
        match opened {
            Ok(p) => open.push(p),
            Err(error) => absent.push((name.to_owned(), error.to_string())),
        }
    }
    if open.is_empty() {
        let reasons: Vec<_> = absent.into_iter().map(|(_, reason)| reason).collect();
        return Err(SessionError::NoProcessor(reasons.join("; ")));
    }
    Ok((open, absent))
}

/// The processors that an app wants, in its order: without a list those of the table, its parts of the CPU and its remote servers.
/// onnxruntime's providers are used only where they are named, and so is the whole of what is divided into parts.
pub(super) fn chosen(app: &App) -> Result<Vec<&str>, ConfigError> {
    let mut names = app.choose_processors(&known(app)?)?;
    let named = matches!(app.processors, Processors::Named(_));
    let divided = |name: &str| app.parts.iter().any(|part| part.kind == name);
    names.retain(|name| named || !divided(name) && !providers::ROWS.iter().any(|row| row.name == *name));
    Ok(names)
}

/// Names of all processors that an app may ask for: those of the table, onnxruntime's providers, its parts of the CPU, and its remote servers.
fn known(app: &App) -> Result<Vec<&str>, ConfigError> {
    let mut known: Vec<_> = processor::rows().map(|r| r.name).collect();
    let parts = app.parts.iter().map(|p| ("processor", &p.name)).enumerate();
    for (i, (key, name)) in parts.chain(app.remotes.iter().map(|r| ("remote", &r.name)).enumerate()) {
        if known.contains(&name.as_str()) {
            let problem = format!("{key}[{i}].name: a processor of this machine is called `{name}`");
            return Err(ConfigError::new(&app.file, problem));
        }
        known.push(name);
    }
    Ok(known)
}

fn method(dsp: &Dsp) -> Method {
    match dsp.method {
        Calibration::MinMax => Method::MinMax,
        Calibration::Percentile => Method::Percentile(dsp.percentile.unwrap_or(PERCENTILE)),
        Calibration::Entropy => Method::Entropy,
    }
}

fn storage(stored: Storage) -> processor::Storage {
    match stored {
        Storage::F32 => processor::Storage::F32,
        Storage::F16 => processor::Storage::F16,
    }
}

fn part(part: &Part) -> cpu::Settings {
    cpu::Settings { name: part.name.clone(), threads: part.threads(), cores: part.cores.clone() }
}

fn settings(app: &App, server: &Remote) -> remote::Settings {
    let Remote { name, url, timeout_ms, trusted, token_variable, models } = server.clone();
    let patience = Duration::from_secs_f64(timeout_ms / 1e3);
    let trusted = trusted.map(|path| app.resolve(&path));
    remote::Settings { name, url, patience, trusted, token_variable, models }
}
