//! Everything that can decide: one file a policy, one row a policy in [`TABLE`]; help, suites and comparisons are made from the table.
//! It refuses to reach anything but the observation: a policy gets plain data and returns one choice.

mod anneal;
mod board;
mod dream;
mod edf;
mod edf_skip;
mod eft;
mod energy_greedy;
mod fixed;
mod greedy;
mod heft;
mod heft_reserve;
pub mod learned;
mod least_slack;
mod lookahead;
mod mdinference;
mod memo;
mod min_max_cost;
mod min_total_cost;
pub mod online;
mod placement_search;
mod restraint;
pub mod rollout;
mod round_robin;
mod shares;
mod short_run;
mod shortest_latency;
pub mod stage;
mod static_placement;
pub mod tournament;

use cosched_env::case::Case;
use cosched_env::world::Policy;
use stage::Stage;

/// One policy of the table.
#[derive(Clone, Copy)]
pub struct Row {
    /// What people type.
    pub name: &'static str,
    /// One line of help; says what the parameter is when there is one.
    pub about: &'static str,
    /// Makes the policy; the parameter is what stands after the colon of `name:parameter`.
    pub make: Make,
    /// Whether it searches at each decision: it is worth thousands of ordinary decisions in time and allocates, so nothing runs it unless
    /// it is asked for by name.
    pub searches: bool,
}

/// A policy, or why it cannot be made.
pub type Made = Result<Box<dyn Policy>, PolicyError>;

/// Makes a policy from its parameter.
#[derive(Clone, Copy)]
pub enum Make {
    /// By what a case says.
    For(fn(parameter: Option<&str>, case: &Case) -> Made),
    /// By what it is worth in runs of the case.
    On(fn(parameter: Option<&str>, stage: &dyn Stage) -> Made),
}

/// All policies, in the order in which help and tables show them.
pub const TABLE: &[Row] = &[
    fixed::ROW,
    round_robin::ROW,
    greedy::ROW,
    edf::ROW,
    edf_skip::ROW,
    eft::ROW,
    least_slack::ROW,
    heft::ROW,
    heft_reserve::ROW,
    shortest_latency::ROW,
    energy_greedy::ROW,
    dream::ROW,
    min_total_cost::ROW,
    min_max_cost::ROW,
    mdinference::ROW,
    static_placement::ROW,
    learned::ROW,
    lookahead::ROW,
    rollout::ROW,
];

/// Why a policy cannot be made.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// No row has this name.
    #[error("no policy `{name}`{}; policies: {}", hint(.nearest), .known.join(", "))]
    Unknown {
        /// The name as given.
        name: String,
        /// The nearest name of the table, if one is near.
        nearest: Option<String>,
        /// All names.
        known: Vec<String>,
    },
    /// The policy takes no parameter.
    #[error("policy `{policy}` takes no parameter, got `{parameter}`")]
    NoParameter {
        /// The policy.
        policy: String,
        /// What was given.
        parameter: String,
    },
    /// The parameter is not one that the policy knows.
    #[error("policy `{policy}`: no {what} `{parameter}`{}; expected one of: {}", hint(.nearest), .known.join(", "))]
    Parameter {
        /// The policy.
        policy: String,
        /// What the parameter names, e.g. `processor`.
        what: &'static str,
        /// What was given.
        parameter: String,
        /// The nearest that there is, if one is near.
        nearest: Option<String>,
        /// All that there are.
        known: Vec<String>,
    },
    /// The policy needs something that cannot be had, e.g. a checkpoint that cannot be read.
    #[error("policy `{policy}`: {problem}")]
    Unusable {
        /// The policy.
        policy: String,
        /// What is wrong and what was expected.
        problem: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |n| format!(", did you mean `{n}`?"))
}

/// The known name that is most like `name`, if any is like it at all.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let scored = known.into_iter().map(|k| (strsim::jaro_winkler(name, k), k));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)))?;
    (best.0 > 0.7).then(|| best.1.to_owned())
}

/// Makes the policy that `spec` names: `name` or `name:parameter`, e.g. `edf` or `fixed:cpu`. What rehearses does so in the emulator.
///
/// # Errors
/// [`PolicyError`]; for an unknown name it lists the known ones and points at the nearest.
pub fn make(spec: &str, case: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    make_on(spec, case)
}

/// The same; what rehearses does so on a stage.
///
/// # Errors
/// As [`make`].
pub fn make_on(spec: &str, stage: &dyn Stage) -> Result<Box<dyn Policy>, PolicyError> {
    let (name, parameter) = match spec.split_once(':') {
        Some((name, parameter)) => (name, Some(parameter)),
        None => (spec, None),
    };
    match TABLE.iter().find(|row| row.name == name) {
        Some(row) => match row.make {
            Make::For(make) => make(parameter, stage.case()),
            Make::On(make) => make(parameter, stage),
        },
        None => Err(PolicyError::Unknown {
            name: name.to_owned(),
            nearest: nearest(name, TABLE.iter().map(|row| row.name)),
            known: TABLE.iter().map(|row| row.name.to_owned()).collect(),
        }),
    }
}

/// For rows without a parameter.
pub(crate) fn no_parameter(policy: &str, parameter: Option<&str>) -> Result<(), PolicyError> {
    match parameter {
        None => Ok(()),
        Some(parameter) => {
            Err(PolicyError::NoParameter { policy: policy.to_owned(), parameter: parameter.to_owned() })
        }
    }
}
