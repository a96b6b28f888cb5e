//! What a learner is given and what it says at the end. It refuses to learn; `learner` does.

use crate::guide::MARGINS;
use crate::online::explore::Exploration;
use crate::online::guard::{Acting, Counts, Rules, Shadow};
use crate::online::link::Bounds;
use cosched_env::case::Case;
use cosched_env::emulator::Config;
use cosched_env::scheduler::Options;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// How online learning goes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits of the guard.
    pub rules: Rules,
    /// How the actor explores.
    pub exploration: Exploration,
    /// Bounds of the channels.
    pub bounds: Bounds,
    /// Decisions of a lesson.
    pub batch: usize,
    /// Seconds between checks of the guard.
    pub check_s: f64,
    /// Seconds between tournaments of the baselines.
    pub scout_s: f64,
    /// Another tournament is held earlier when a processor's speed has moved by this factor since the last one, but not before
    /// `check_s` has passed.
    pub moved: f64,
    /// Emulated runs, on seeds of their own, that a shadow score is the mean of, and requests in each.
    pub shadow_runs: u64,
    /// See `shadow_runs`.
    pub shadow_requests: f64,
    /// Margins that are tried out after each tournament; see [`Brain::margin`].
    pub margins: Vec<f32>,
    /// Horizon of the discount, in mean deadlines: that of the training.
    pub horizon: f64,
    /// Whether new weights must do well in the emulator before they go on trial. Only tests of the guard turn it off.
    pub admission: bool,
    /// Where the state is kept, and after how many minutes again.
    pub keep: Option<(PathBuf, f64)>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            rules: Rules::default(),
            exploration: Exploration { comparison: 0.05, share: 0.02, seed: 1 },
            bounds: Bounds::default(),
            batch: 1024,
            check_s: 1.0,
            scout_s: 5.0,
            moved: 1.25,
            shadow_runs: 3,
            shadow_requests: 250.0,
            margins: MARGINS.to_vec(),
            horizon: 5.0,
            admission: true,
            keep: None,
        }
    }
}

/// What is to be learned about.
pub struct Subject {
    /// The case that the decision core knows.
    pub case: Arc<Case>,
    /// Limits of the decision core.
    pub options: Options,
    /// How emulated devices depart from their plan; faults are left out.
    pub emulator: Config,
}

/// What came of online learning, for the summary of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Decisions heard of, and lessons learned from them.
    pub decisions: u64,
    /// See `decisions`.
    pub lessons: u64,
    /// Transitions and news that were dropped because a channel was full.
    pub dropped: u64,
    /// What the guard did.
    pub counts: Counts,
    /// Who decided at the end.
    pub acting: Acting,
    /// Live score of that, utility by priority; `None`: too few requests since it began.
    pub live: Option<f64>,
    /// Shadow scores of the last check.
    pub shadow: Shadow,
    /// The best baseline of the last tournament.
    pub baseline: String,
    /// Latency by the plan's, per processor, as estimated last.
    pub slowness: Vec<(String, f64)>,
    /// What happened when, a line each.
    pub story: Vec<String>,
}
