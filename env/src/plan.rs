//! The plan: all variants cut into segments and measured on all processors. Plain data as it stands in the file.
//! It refuses to interpret itself: [`crate::case::Case`] checks it and turns it into tables.

use crate::crowd::Crowd;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the file format; a plan of another version is refused.
pub const PLAN_FORMAT: u32 = 1;

/// Processors, and what every segment of every variant costs on each of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_FORMAT`].
    pub format: u32,
    /// Where the numbers come from: machine, library versions, model hashes, or the publication.
    pub provenance: BTreeMap<String, String>,
    /// The processors; their order is the order of `costs` and `contention`.
    pub processors: Vec<ProcessorSpec>,
    /// `contention[i][j]`: factor (>= 1) by which a launch on `i` slows while something runs on `j`. The diagonal is unused.
    pub contention: Vec<Vec<f64>>,
    /// All variants of all tasks.
    pub variants: Vec<Variant>,
}

/// One processor of the device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessorSpec {
    /// Name, unique in the plan (a row of the executors' table, or free in an emulated device).
    pub name: String,
    /// Device, driver and version, for people.
    pub device: String,
    /// Launches that may run at once.
    pub slots: u32,
    /// Power while running, in watts.
    pub active_watts: f64,
    /// Power while idle, in watts.
    pub idle_watts: f64,
    /// Fixed cost of bringing one tensor set in from elsewhere, in microseconds.
    pub copy_us: f64,
    /// Rate of such a copy in GB/s; 0 means that the fixed cost is all.
    pub copy_gbps: f64,
    /// What a launch costs beside its segments, in microseconds: handing it over and hearing of its end.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub launch_us: f64,
    /// How far its slow-down among several others is from what `contention` adds up to; `None`: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crowd: Option<Crowd>,
}

/// One way to serve a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name, unique in the plan.
    pub name: String,
    /// The task that it serves.
    pub task: String,
    /// Accuracy in (0, 1], by the task's own measure.
    pub accuracy: f64,
    /// Memory that it holds when loaded, in bytes.
    pub memory_bytes: u64,
    /// Variants that name the same weights share them (those of the smaller are part of the larger's, as in NestDNN): once the larger
    /// is loaded the smaller one needs no more memory and no loading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Digest of the model that was measured: its layers and its weights. `None` in plans that were not measured here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How it was measured on each processor, in the order of [`Plan::processors`]; `None` where no segment runs. Empty in plans that
    /// were not measured here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<Option<Measured>>,
    /// Segments in order.
    pub segments: Vec<SegmentSpec>,
}

/// How a variant was measured on one processor, and what it takes to have it there. For people: nothing is decided by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Timed runs of each segment.
    pub runs: u32,
    /// Half the width of the 95 % confidence interval of a segment's mean latency, by that mean: the worst of the segments.
    pub within: f64,
    /// Median, 95th and 99th percentile of the latency of all segments one after another, in microseconds; `None` where not all run there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantiles_us: Option<[f64; 3]>,
    /// Milliseconds to prepare its segments and to run each for the first time. Kernels that a driver has compiled before count little.
    pub load_ms: f64,
    /// Bytes that its segments hold there.
    pub memory_bytes: u64,
}

/// One segment of a variant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentSpec {
    /// Name for people, e.g. its first and last layer.
    pub name: String,
    /// Bytes that it reads from earlier segments or the request.
    pub input_bytes: u64,
    /// Bytes that it leaves for later segments or the answer.
    pub output_bytes: u64,
    /// Bytes that it moves between processor and memory; 0: unknown, it disturbs nobody. See [`crate::device::Bandwidth`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub traffic_bytes: u64,
    /// Cost on each processor, in the order of [`Plan::processors`]; `None` where it cannot run.
    pub costs: Vec<Option<Cost>>,
}

// serde hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

// Likewise.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_nothing(us: &f64) -> bool {
    *us == 0.0
}

/// What one segment costs on one processor when nothing else runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Mean latency in microseconds.
    pub mean_us: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 95th percentile in microseconds.
    pub p95_us: f64,
    /// Energy in millijoules.
    pub energy_mj: f64,
}

impl Cost {
    /// Shape parameter of a log-normal latency with this median and 95th percentile:
    /// `sigma = ln(p95 / p50) / 1.6449` (1.6449 is the standard normal's 95 % point).
    pub fn log_sigma(&self) -> f64 {
        if self.p95_us > self.p50_us && self.p50_us > 0.0 {
            (self.p95_us / self.p50_us).ln() / 1.6449
        } else {
            0.0
        }
    }
}
