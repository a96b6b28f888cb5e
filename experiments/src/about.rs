//! What has to be known to make a result again: the resolved config, the plan and its devices, the commit, the version, the machine.
//! It refuses to guess: what cannot be found out is called unknown.

use crate::app::App;
use cosched_env::case::Case;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Kept with every result; see the module's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The app or case file.
    pub file: String,
    /// The plan's file.
    pub plan: String,
    /// Where the plan's numbers come from.
    pub provenance: BTreeMap<String, String>,
    /// Name and device of each processor of the plan.
    pub processors: Vec<(String, String)>,
    /// Commit of the working folder, `+` when it was changed, or `unknown`.
    pub commit: String,
    /// Version of cosched.
    pub version: String,
    /// Architecture and system of this machine.
    pub machine: String,
    /// The app with everything that was not given filled in.
    pub config: serde_json::Value,
}

impl About {
    /// Of a result that is being made now.
    pub fn now(app: &App, case: &Case) -> About {
        let processors = case.plan.processors.iter();
        About {
            file: app.file.display().to_string(),
            // The case was made of it, so it can be told.
            plan: app.plan_path().map_or_else(|e| e.to_string(), |path| path.display().to_string()),
            provenance: case.plan.provenance.clone(),
            processors: processors.map(|p| (p.name.clone(), p.device.clone())).collect(),
            commit: commit(),
            version: env!("CARGO_PKG_VERSION").into(),
            machine: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            config: serde_json::to_value(app).unwrap_or_default(),
        }
    }
}

/// The commit of the working folder's repository, with `+` when it has changes; `unknown` outside one.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match git(&["rev-parse", "HEAD"]) {
        Some(hash) => {
            let changed = git(&["status", "--porcelain"]).is_some_and(|s| !s.is_empty());
            if changed { hash + "+" } else { hash }
        }
        None => "unknown".into(),
    }
}
