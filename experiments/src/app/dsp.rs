//! The table `[dsp]` of an app file: how int8 ranges are calibrated, whose worker computes, and the speed of a DSP that is only emulated.
//! It refuses values that make no sense; it opens nothing.

use super::App;
use super::check::{Problem, at_least_zero, bad};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How the `dsp` computes. Its power stands in `[power.dsp]` as for any processor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dsp {
    /// How the ranges of int8 numbers are chosen from the samples.
    pub method: Calibration,
    /// For the method `percentile`: how many percent of all numbers a range holds; 99.99 when absent.
    pub percentile: Option<f64>,
    /// The command that starts a vendor's worker, program first; cosched's own when empty. A program with a `/` is relative to the app file.
    pub worker: Vec<String>,
    /// The speed of the DSP that is emulated; as fast as this machine computes when absent.
    pub pace: Option<Pace>,
}

/// How ranges are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Calibration {
    /// From the least to the greatest number.
    #[default]
    MinMax,
    /// The middle so many percent.
    Percentile,
    /// The range that loses least information.
    Entropy,
}

/// The speed of a DSP that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Billions of int8 operations a second, a multiply-add counted as two.
    pub gops: f64,
    /// Microseconds that each call costs besides, on its way there and back.
    #[serde(default)]
    pub rpc_us: f64,
}

impl Dsp {
    pub(super) fn check(&self) -> Result<(), Problem> {
        if let Some(percentile) = self.percentile {
            if self.method != Calibration::Percentile {
                return bad("dsp.percentile", "expected none: only the method `percentile` has one");
            }
            if !(percentile > 50.0 && percentile <= 100.0) {
                let problem = format!("expected a number above 50 and at most 100, got {percentile}");
                return bad("dsp.percentile", problem);
            }
        }
        if self.worker.first().is_some_and(String::is_empty) {
            return bad("dsp.worker", "expected a program and its arguments, got an empty word");
        }
        let Some(pace) = self.pace else { return Ok(()) };
        if !(pace.gops > 0.0 && pace.gops <= 1e9) {
            let problem = format!("expected a number above 0 and at most 1e9, got {}", pace.gops);
            return bad("dsp.pace.gops", problem);
        }
        if pace.rpc_us > 1e6 {
            let problem = format!("expected at most 1000000, which is a second, got {}", pace.rpc_us);
            return bad("dsp.pace.rpc_us", problem);
        }
        at_least_zero("dsp.pace.rpc_us", pace.rpc_us)
    }
}

impl App {
    /// The command of the DSP's worker, found from the app file's folder; empty where it is cosched's own.
    pub fn dsp_worker(&self) -> Vec<String> {
        let mut words = self.dsp.worker.clone();
        if let Some(program) = words.first_mut()
            && program.contains('/')
        {
            *program = self.resolve(Path::new(program.as_str())).to_string_lossy().into_owned();
        }
        words
    }
}
