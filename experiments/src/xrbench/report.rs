//! Scores beside the published ones, with the reasons of what differs, as data and as text.
//! It refuses to call scores reproduced that are not within the tolerance.

use super::score::{Columns, Frame, ModelScores, score};
use super::{Job, Mode, PUBLISHED_POLICY, Settings};
use crate::table::table;
use serde::Serialize;
use std::fmt;

/// How far a score may be from the published one: the figures were read to about 1e-4.
pub const TOLERANCE: f64 = 1e-3;

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseReport {
    /// Scenario.
    pub scenario: String,
    /// Chip.
    pub chip: String,
    /// Whether chance decides which frames come, so that one run does not tell the published mean.
    pub random: bool,
    /// The scores.
    pub scores: Columns,
    /// The published scores, where there are any.
    pub published: Option<Columns>,
    /// The models that logged a frame.
    pub models: Vec<ModelScores>,
    /// Why columns differ from the published ones, where they should not.
    pub notes: Vec<String>,
}

/// All cases.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Mode.
    pub mode: Mode,
    /// Policy.
    pub policy: String,
    /// Seed of the random scenarios.
    pub seed: u64,
    /// The cases, in order of the file.
    pub cases: Vec<CaseReport>,
    /// Means over the cases.
    pub mean: Columns,
    /// Means of the published scores; `None`: there are none.
    pub published_mean: Option<Columns>,
    /// Overall scores that are further than [`TOLERANCE`] from the published ones.
    pub differing: usize,
    /// Whether the published scores came out; `None` when another policy or mode was run than theirs.
    pub reproduced: Option<bool>,
}

impl CaseReport {
    pub(crate) fn new(job: &Job, frames: &[Frame], judged: bool) -> CaseReport {
        let (scores, models) = score(&job.workload.case, frames);
        let published = job.published.scores;
        let mut case = CaseReport {
            scenario: job.published.scenario.clone(),
            chip: job.published.chip.clone(),
            random: job.usage.is_random(),
            scores,
            published,
            models,
            notes: Vec::new(),
        };
        if let Some(published) = published.filter(|_| judged) {
            let names = Columns::NAMES.iter().zip(scores.values().into_iter().zip(published.values()));
            case.notes = names
                .enumerate()
                .filter(|(_, (_, (ours, theirs)))| (ours - theirs).abs() > TOLERANCE)
                .map(|(i, (name, (ours, theirs)))| {
                    format!("{name} is {ours:.4}, published {theirs:.4}: {}", case.reason(i, &published))
                })
                .collect();
        }
        case
    }

    /// Whether the overall score is the published one; `None` where none was published.
    pub fn is_close(&self) -> Option<bool> {
        Some(self.off()? <= TOLERANCE)
    }

    /// How far the overall score is from the published one.
    fn off(&self) -> Option<f64> {
        Some((self.scores.overall - self.published?.overall).abs())
    }

    /// Models no frame of which was executed.
    pub fn idle(&self) -> Vec<&str> {
        self.models.iter().filter(|m| m.is_idle()).map(|m| m.model.as_str()).collect()
    }

    /// Why a column, by its index, may differ.
    fn reason(&self, column: usize, published: &Columns) -> String {
        if self.random {
            return "frames of this scenario come by chance, and this is one run".into();
        }
        let executed = self.models.iter().filter(|m| !m.is_idle()).map(|m| &m.scores);
        let without = Columns::mean(executed).values()[column];
        let idle = self.idle();
        if !idle.is_empty() && (without - published.values()[column]).abs() <= TOLERANCE {
            return format!(
                "the published mean leaves out {}, of which no frame was executed",
                idle.join(", ")
            );
        }
        if column < 3 && self.is_close() == Some(true) {
            return "no known reason, though the overall score is the published one".into();
        }
        "no known reason; were the costs made for this table?".into()
    }
}

impl Report {
    pub(super) fn new(settings: &Settings<'_>, cases: Vec<CaseReport>) -> Report {
        let compared = cases.iter().filter(|c| c.published.is_some()).count();
        let differing = cases.iter().filter(|c| c.is_close() == Some(false)).count();
        Report {
            mode: settings.mode,
            policy: settings.policy.to_owned(),
            seed: settings.seed,
            mean: Columns::mean(cases.iter().map(|c| &c.scores)),
            published_mean: (compared > 0)
                .then(|| Columns::mean(cases.iter().filter_map(|c| c.published.as_ref()))),
            differing,
            reproduced: (settings.is_published() && compared > 0).then_some(differing == 0),
            cases,
        }
    }

    /// What is wrong when the published scores should have come out and did not.
    pub fn complaint(&self) -> Option<String> {
        if self.reproduced != Some(false) {
            return None;
        }
        let off = |c: &CaseReport| c.off().unwrap_or(0.0);
        let worst = self.cases.iter().max_by(|a, b| off(a).total_cmp(&off(b)))?;
        Some(format!(
            "{} of {} overall scores differ from the published ones by more than {TOLERANCE}; the furthest is {} on {}: {:.4}, published {:.4}",
            self.differing,
            self.cases.len(),
            worst.scenario,
            worst.chip,
            worst.scores.overall,
            worst.published?.overall,
        ))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.4}"));
        let cells = |names: [&str; 2], ours: &Columns, theirs: &Option<Columns>| {
            // The overall score first.
            let columns = [3, 0, 1, 2].into_iter();
            let scores =
                columns.flat_map(|c| [Some(ours.values()[c]), theirs.map(|t| t.values()[c])].map(number));
            names.into_iter().map(str::to_owned).chain(scores).collect::<Vec<String>>()
        };
        let mut rows: Vec<_> =
            self.cases.iter().map(|c| cells([&c.scenario, &c.chip], &c.scores, &c.published)).collect();
        rows.push(cells(["mean", ""], &self.mean, &self.published_mean));
        let header = [
            "scenario",
            "chip",
            "overall",
            "published",
            "realtime",
            "published",
            "energy",
            "published",
            "experience",
            "published",
        ];
        writeln!(f, "{}", table(&header, 2, rows))?;
        for case in &self.cases {
            let idle = case.idle();
            if !idle.is_empty() {
                let (scenario, chip) = (&case.scenario, &case.chip);
                writeln!(f, "{scenario} on {chip}: no frame executed of {}", idle.join(", "))?;
            }
            for note in &case.notes {
                writeln!(f, "{} on {}: {note}", case.scenario, case.chip)?;
            }
        }
        if self.cases.iter().any(|c| !c.idle().is_empty()) {
            writeln!(
                f,
                "A model of which no frame was executed counts 0 in the means of realtime and energy."
            )?;
        }
        match self.reproduced {
            None => write!(
                f,
                "The published scores are those of `{PUBLISHED_POLICY}` in mode compat: here they are a yardstick."
            ),
            Some(_) => {
                let compared = self.cases.iter().filter(|c| c.published.is_some()).count();
                let close = compared - self.differing;
                write!(f, "{close} of {compared} overall scores are the published ones within {TOLERANCE}.")
            }
        }
    }
}
