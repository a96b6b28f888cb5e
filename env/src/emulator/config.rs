//! How an emulated device departs from its plan: plain data as it stands in a file. What the device is like stands in
//! [`crate::device::Device`]. It refuses to check itself: a fault of a processor that the plan does not have is none.

use serde::{Deserialize, Serialize};

/// How the emulated device departs from its plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether latencies and round trips spread (log-normal) or are always the mean.
    pub spread: bool,
    /// What one decision costs, in microseconds: charged to the clock.
    pub decision_us: f64,
    /// What each candidate of a decision costs on top, in microseconds.
    pub candidate_us: f64,
    /// Probability that a launch fails.
    pub failure_rate: f64,
    /// Processors that die, hang or slow down, and come back; one that ends before it begins is none.
    pub faults: Vec<Fault>,
}

impl Default for Config {
    fn default() -> Self {
        Self { spread: true, decision_us: 5.0, candidate_us: 0.2, failure_rate: 0.0, faults: Vec::new() }
    }
}

/// A processor does not work as it should for a while. Faults of one processor may overlap: it is down as long as any death or noticed
/// hang lasts, stands still as long as any hang lasts, and is as slow as all slow-downs that last make it together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Name of the processor.
    pub processor: String,
    /// What happens to it.
    #[serde(default)]
    pub kind: FaultKind,
    /// When it begins, in milliseconds.
    pub from_ms: f64,
    /// When the processor is back, in milliseconds.
    pub to_ms: f64,
    /// A hang is noticed so many milliseconds after it began, which kills what runs; 0, or not before it is over: never, everything
    /// goes on when it is over.
    #[serde(default)]
    pub noticed_ms: f64,
    /// The share of its speed at which a slowed processor works, above 0 and below 1; only for [`FaultKind::Slow`].
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub speed: f64,
}

// serde hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_nothing(speed: &f64) -> bool {
    *speed == 0.0
}

/// What happens to a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It dies: its running launches fail, and everybody knows.
    #[default]
    Die,
    /// It stands still: its running launches make no progress, and nobody is told.
    Hang,
    /// It works at `speed` times its speed, and nobody is told. Its power stays as it is, so that a launch takes as much more energy as
    /// it takes longer; links are as fast as before.
    Slow,
}
