//! Measures the ways to compute each convolution and matrix product on this device, once, and remembers the best in a file of the user's cache
//! folder, one for each device and driver. It refuses a file that it does not understand: that is said, and measured again.

use super::device::{Device, Fault, time_step};
use super::lower::choice::{Choice, Met};
use super::lower::{self, Target, fuse};
use crate::file::write_whole;
use crate::graph::{Graph, ValueId};
use cosched_env::fnv::{START, fnv1a};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Environment variable that names the folder of the files; empty: nothing is kept.
pub const VARIABLE: &str = "COSCHED_TUNE_DIR";

/// Version of the kernels: choices of another one are not looked at.
const VERSION: u32 = 2;

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    device: String,
    choices: BTreeMap<String, Choice>,
}

/// The folder for the files: the variable, else `cosched` in the user's cache folder.
pub fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    if let Some(folder) = set(VARIABLE) {
        return Some(folder).filter(|f| !f.as_os_str().is_empty());
    }
    let absolute = |p: &PathBuf| p.is_absolute();
    let cache = set("XDG_CACHE_HOME").filter(absolute).or_else(|| set("LOCALAPPDATA").filter(absolute));
    cache.or_else(|| set("HOME").filter(absolute).map(|home| home.join(".cache"))).map(|c| c.join("cosched"))
}

/// The file of a device in `folder`: named by a hash of what the device says of itself.
pub fn file(folder: &Path, processor: &str, device: &str) -> PathBuf {
    let hash = fnv1a(START, device.bytes());
    folder.join(format!("tune-{processor}-{hash:016x}.json"))
}

/// The choices in `file`, none where there is no such file.
///
/// # Errors
/// What is wrong with the file.
pub fn read(file: &Path, device: &str) -> Result<BTreeMap<String, Choice>, String> {
    let wrong = |what: String| format!("{}: {what}; kernels are measured anew", file.display());
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(wrong(e.to_string())),
    };
    let known: File = serde_json::from_str(&text).map_err(|e| wrong(format!("no tuning file: {e}")))?;
    if known.version != VERSION {
        return Ok(BTreeMap::new());
    }
    if known.device != device {
        return Err(wrong(format!("device: expected `{device}`, it says `{}`", known.device)));
    }
    Ok(known.choices)
}

/// Writes the choices by a rename. Those that another process wrote meanwhile are kept.
///
/// # Errors
/// Naming the file, when it cannot be written.
pub fn write(file: &Path, device: &str, choices: &BTreeMap<String, Choice>) -> Result<(), String> {
    let wrong = |e: std::io::Error| format!("{}: cannot write: {e}", file.display());
    let mut all = read(file, device).unwrap_or_default();
    all.extend(choices.iter().map(|(k, c)| (k.clone(), *c)));
    let known = File { version: VERSION, device: device.to_owned(), choices: all };
    let text = serde_json::to_string_pretty(&known).map_err(|e| wrong(e.into()))?;
    write_whole(file, text.as_bytes()).map_err(wrong)
}

/// The choices of this device that were measured before; a file that is no good is warned of.
pub fn known(processor: &str, device: &str) -> BTreeMap<String, Choice> {
    let Some(folder) = folder() else { return BTreeMap::new() };
    read(&file(&folder, processor, device), device).unwrap_or_else(|problem| {
        tracing::warn!("{problem}");
        BTreeMap::new()
    })
}

/// The group of `node` as a graph of its own.
fn alone(graph: &Graph, node: &str) -> Option<Graph> {
    let group = fuse::groups(graph).into_iter().find(|g| g.node.name == node)?;
    let made: BTreeSet<ValueId> =
        group.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
    let mut inputs = Vec::new();
    for id in group.nodes.iter().flat_map(|n| n.inputs.iter().flatten()) {
        if !made.contains(id) && graph.constant(*id).is_none() && !inputs.contains(id) {
            inputs.push(*id);
        }
    }
    let nodes = group.nodes.into_iter().cloned().collect();
    Some(Graph { nodes, inputs, outputs: vec![group.out], ..graph.clone() })
}

/// Seconds of `graph` with `choice`.
fn seconds<D: Device>(
    device: &D,
    graph: &Graph,
    target: &Target,
    met: &Met,
    choice: Choice,
) -> Result<f64, Fault> {
    let forced = Target { tuned: BTreeMap::from([(met.key.clone(), choice)]).into(), ..target.clone() };
    let plan = lower::lower(graph, &forced).map_err(|(_, _, why)| Fault::Failed(why))?;
    let segment = device.prepare(&plan)?;
    let mut memory = device.spawn(&segment, true)?;
    (0..plan.steps.len()).map(|step| time_step(device, &segment, &mut memory, step)).sum()
}

/// Measures every problem of `graph` that is not settled yet; returns what is new. `progress` hears each problem.
///
/// # Errors
/// When the device dies; a candidate that fails is only not chosen.
pub fn tune<D: Device>(
    device: &D,
    graph: &Graph,
    target: &Target,
    met: &[Met],
    progress: &mut dyn FnMut(&str),
) -> Result<BTreeMap<String, Choice>, Fault> {
    let mut fresh = BTreeMap::new();
    for met in met {
        let settled = target.tuned.get(&met.key).is_some_and(|choice| met.candidates.contains(choice));
        if settled || met.candidates.len() < 2 || fresh.contains_key(&met.key) {
            continue;
        }
        progress(&met.key);
        let Some(part) = alone(graph, &met.node) else { continue };
        let mut best: Option<(f64, Choice)> = None;
        for &choice in &met.candidates {
            match seconds(device, &part, target, met, choice) {
                Ok(time) => {
                    tracing::debug!("{}: {choice:?}: {:.1} us", met.key, time * 1e6);
                    if best.is_none_or(|(least, _)| time < least) {
                        best = Some((time, choice));
                    }
                }
                Err(Fault::Died(why)) => return Err(Fault::Died(why)),
                // Nothing stops a measurement.
                Err(Fault::Stopped) => {}
                Err(Fault::Failed(why)) => tracing::debug!("{}: {choice:?} fails: {why}", met.key),
            }
        }
        if let Some((_, choice)) = best {
            fresh.insert(met.key.clone(), choice);
        }
    }
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_a_broken_file_is_named() {
        let folder = std::env::temp_dir().join(format!("cosched-tune-{}", std::process::id()));
        let path = file(&folder, "opencl", "a device");
        assert_ne!(path, file(&folder, "opencl", "a device, other driver"));
        let strip = Choice::Strip { width: 16, across: 1, rows: 4, outs: 1 };
        let one = BTreeMap::from([("conv a".to_owned(), strip)]);
        assert_eq!(read(&path, "a device"), Ok(BTreeMap::new()));
        write(&path, "a device", &one).unwrap();
        // A second writer keeps what the first one found.
        write(&path, "a device", &BTreeMap::from([("conv b".to_owned(), strip)])).unwrap();
        assert_eq!(read(&path, "a device").unwrap().len(), 2);
        let other = read(&path, "another").unwrap_err();
        assert!(other.contains("expected `another`, it says `a device`"), "{other}");
        for broken in ["", "{", r#"{"version":1,"device":"a device","choices":{"x":{"strip":{"width":1}}}}"#]
        {
            std::fs::write(&path, broken).unwrap();
            let problem = read(&path, "a device").unwrap_err();
            assert!(problem.contains("no tuning file") && problem.contains("anew"), "{problem}");
        }
        // It is repaired by the next writer.
        write(&path, "a device", &one).unwrap();
        assert_eq!(read(&path, "a device"), Ok(one));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
