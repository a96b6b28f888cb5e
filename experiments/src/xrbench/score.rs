//! The scores of XRBench (Kwon et al., MLSys 2023, section 3.7) of the frames of a run, the same in both modes.
//! It refuses to know how the frames came about.

use cosched_env::case::{Case, StreamId};
use cosched_env::event::{Ended, Outcome};
use cosched_env::time::Time;
use serde::Serialize;

/// How sharply the real-time score falls with lateness, per millisecond.
const STEEPNESS_PER_MS: f64 = 15.0;
/// Energy of a frame that scores nothing, in millijoules.
const ENERGY_BUDGET_MJ: f64 = 1500.0;

/// A frame that was logged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// Its model.
    pub stream: StreamId,
    /// When it was due.
    pub deadline: Time,
    /// When it was done; `None`: it was dropped.
    pub answer: Option<Time>,
    /// What it took, in millijoules.
    pub energy_mj: f64,
}

impl Frame {
    /// The frame of a request that ended.
    pub fn of(ended: &Ended) -> Frame {
        let answered = matches!(ended.outcome, Outcome::Answered | Outcome::Late);
        Frame {
            stream: ended.request.stream,
            deadline: ended.request.deadline,
            answer: answered.then_some(ended.at),
            energy_mj: ended.energy_mj,
        }
    }

    /// `RT = 1 / (1 + exp(15 (finish - deadline) / ms))`; `None` when it was dropped.
    fn realtime(&self) -> Option<f64> {
        Some(1.0 / (1.0 + (STEEPNESS_PER_MS * self.answer?.ms_after(self.deadline)).exp()))
    }

    /// `EN = (1500 mJ - E) / 1500 mJ`
    fn energy(&self) -> f64 {
        (ENERGY_BUDGET_MJ - self.energy_mj) / ENERGY_BUDGET_MJ
    }
}

/// The four columns of a table of scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Columns {
    pub realtime: f64,
    pub energy: f64,
    pub user_experience: f64,
    pub overall: f64,
}

impl Columns {
    /// Names, in the order of [`Columns::values`].
    pub const NAMES: [&'static str; 4] = ["realtime", "energy", "user_experience", "overall"];

    /// The columns in order.
    pub fn values(&self) -> [f64; 4] {
        [self.realtime, self.energy, self.user_experience, self.overall]
    }

    /// Means of the columns; zeros of none.
    pub fn mean<'a>(all: impl IntoIterator<Item = &'a Columns>) -> Columns {
        let (mut sum, mut n) = ([0.0; 4], 0.0_f64);
        for columns in all {
            n += 1.0;
            sum.iter_mut().zip(columns.values()).for_each(|(s, v)| *s += v);
        }
        let [realtime, energy, user_experience, overall] = sum.map(|s| s / n.max(1.0));
        Columns { realtime, energy, user_experience, overall }
    }
}

/// The scores of a model that logged a frame.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelScores {
    /// Its name.
    pub model: String,
    /// Frames that were logged, dropped ones included.
    pub logged: usize,
    /// Of those, dropped ones.
    pub dropped: usize,
    /// `realtime` and `energy` are means over executed frames (0 without any), `user_experience = 1 - dropped / logged`,
    /// `overall = sum of RT * EN over executed frames / logged * user_experience`.
    pub scores: Columns,
}

impl ModelScores {
    /// Whether no frame of it was executed.
    pub fn is_idle(&self) -> bool {
        self.dropped == self.logged
    }
}

/// The scores of a run: of each model that logged a frame, in order of streams, and their means.
pub fn score(case: &Case, frames: &[Frame]) -> (Columns, Vec<ModelScores>) {
    let mut models = Vec::new();
    for (s, stream) in case.streams.iter().enumerate() {
        let own: Vec<&Frame> = frames.iter().filter(|f| f.stream.0 as usize == s).collect();
        if own.is_empty() {
            continue;
        }
        let executed: Vec<(f64, f64)> =
            own.iter().filter_map(|f| Some((f.realtime()?, f.energy()))).collect();
        let (logged, done) = (own.len() as f64, executed.len() as f64);
        let user_experience = done / logged;
        let sum = |of: fn(&(f64, f64)) -> f64| executed.iter().map(of).sum::<f64>();
        models.push(ModelScores {
            model: case.tasks[stream.task.0 as usize].name.clone(),
            logged: own.len(),
            dropped: own.len() - executed.len(),
            scores: Columns {
                realtime: sum(|f| f.0) / done.max(1.0),
                energy: sum(|f| f.1) / done.max(1.0),
                user_experience,
                overall: sum(|f| f.0 * f.1) / logged * user_experience,
            },
        });
    }
    (Columns::mean(models.iter().map(|m| &m.scores)), models)
}
