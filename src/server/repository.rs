//! A model repository as Triton has it, `MODEL/VERSION/model.onnx`, read as an app: each model is a task with one variant, its highest
//! version. `config.pbtxt` may lie there and is not needed: names, types and shapes come from the ONNX file. It refuses folders without a
//! model and models of other formats.

use cosched_experiments::app::App;
use cosched_experiments::config::ConfigError;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The plan's file, in the repository's folder.
const PLAN: &str = "cosched-plan.json";

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, ConfigError> {
    let wrong = |e: std::io::Error| ConfigError::new(folder, e.to_string());
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let name = entry.file_name().into_string();
        let name =
            name.map_err(|n| ConfigError::new(folder, format!("expected names in UTF-8, got {n:?}")))?;
        all.push((name, entry.path()));
    }
    all.sort();
    Ok(all)
}

/// The model file of the highest version.
fn newest(model: &Path) -> Result<PathBuf, ConfigError> {
    let versions = entries(model)?.into_iter().filter(|(_, path)| path.is_dir());
    let newest = versions.filter_map(|(name, path)| Some((name.parse::<u64>().ok()?, path))).max();
    let expected = "expected a folder VERSION with model.onnx in it, VERSION a whole number";
    let file = newest.ok_or_else(|| ConfigError::new(model, expected.to_owned()))?.1.join("model.onnx");
    if !file.is_file() {
        let problem = "no such file: only ONNX models are served".to_owned();
        return Err(ConfigError::new(file, problem));
    }
    Ok(file)
}

/// Reads a repository.
///
/// # Errors
/// A folder that holds no models, or a model without a version; the first such thing.
pub fn read(folder: &Path) -> Result<App, ConfigError> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = format!("name = \"repository\"\nplan = {}\n", quoted(PLAN));
    let models = entries(folder)?.into_iter().filter(|(name, path)| path.is_dir() && !name.starts_with('.'));
    let mut any = false;
    for (name, path) in models {
        let file = newest(&path)?;
        let file = file.strip_prefix(folder).unwrap_or(&file).to_string_lossy().into_owned();
        let (name, file) = (quoted(&name), quoted(&file));
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "[[task]]\nname = {name}\n[[task.variant]]\nname = {name}\nmodel = {file}\naccuracy = 1.0\n\
             [[stream]]\ntask = {name}\nkind = \"poisson\"\nperiod_ms = 1000\ndeadline_ms = {:?}\n",
            super::model::DEADLINE_MS
        );
        any = true;
    }
    if !any {
        let problem = "expected folders MODEL/VERSION/model.onnx".to_owned();
        return Err(ConfigError::new(folder, problem));
    }
    App::parse(&text, &folder.join("cosched.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_highest_version_of_each_model_is_taken() {
        let folder = std::env::temp_dir().join(format!("cosched-repository-{}", std::process::id()));
        let put = |path: &str| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        fs::create_dir_all(&folder).unwrap();
        let refused = |words: &str| {
            let error = read(&folder).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused("expected folders");
        for file in [
            "b/1/model.onnx",
            "b/9/model.onnx",
            "b/10/model.onnx",
            "b/config.pbtxt",
            ".git/x",
            "a \"x\"/3/model.onnx",
        ] {
            put(file);
        }
        let app = read(&folder).unwrap();
        let of: Vec<_> = app.tasks.iter().map(|t| (t.name.as_str(), t.variants[0].model.as_str())).collect();
        assert_eq!(of, [("a \"x\"", "a \"x\"/3/model.onnx"), ("b", "b/10/model.onnx")]);
        assert_eq!(app.plan_path().unwrap(), folder.join(PLAN));
        put("c/one/model.onnx");
        refused("VERSION a whole number");
        put("c/1/model.plan");
        refused("only ONNX models");
        fs::remove_dir_all(&folder).unwrap();
    }
}
