//! Which policies are best on a case: the cheap ones of the table play a few short emulated runs of it against each other, and against
//! the best of them under restraints that a search has found (`restraint.rs`). What comes out guides the learned policy. Choosing an algorithm by the instance is an old idea (Rice,
//! "The algorithm selection problem", 1976); here the emulator of the very case is the predictor.
//! It refuses to know what happens later: what follows a timetable begins somewhere in the middle of it, elsewhere in each run.

use crate::TABLE;
use crate::placement_search;
use crate::restraint::{self, Restraint};
use crate::stage::Stage;
use crate::static_placement::{Follower, RUNS, Route};
use cosched_agent::guide::{Guides, Squad};
use cosched_agent::network::highest;
use cosched_env::case::Case;
use cosched_env::world::Policy;

/// Policies that play; `static` plays too.
const CONTESTANTS: &[&str] = &[
    "greedy",
    "edf-skip",
    "eft",
    "least-slack",
    "heft",
    "heft-reserve",
    "shortest-latency",
    "energy-greedy",
    "dream",
    "min-total-cost",
    "min-max-cost",
    "mdinference",
];

/// How long they play.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Runs with other arrivals.
    pub runs: u64,
    /// Requests that a run should have; infinite: whole runs of 15, 30 and 60 s, in which a device heats up as it does and rare things happen.
    pub requests: f64,
    /// Emulated runs of the search behind `static`, and of each attempt at a restraint; 0: neither plays.
    pub placement_runs: usize,
    /// Attempts at a restraint; half as many more where streams share a task, and where it is known when requests come.
    pub attempts: usize,
}

impl Budget {
    /// In proportion to the search behind `static`: as many emulated runs of that as said.
    pub fn of(placement_runs: usize) -> Budget {
        let share = placement_runs as f64 / RUNS as f64;
        Budget {
            runs: if placement_runs < 100 { 2 } else { 6 },
            requests: if share < 1.0 { (1000.0 * share).max(50.0) } else { f64::INFINITY },
            placement_runs,
            attempts: match placement_runs {
                0..100 => 1,
                100..RUNS => 3,
                _ => 6,
            },
        }
    }
}

impl Default for Budget {
    /// Two to ten seconds on one core, a fifth of it for the search behind `static`.
    fn default() -> Budget {
        Budget::of(RUNS)
    }
}

/// The first seed of the arrivals: not those that `static` is searched on.
const FIRST_SEED: u64 = 1 << 40;
/// So many of the best heuristics are tried under restraints.
const BASES: usize = 3;

/// A contestant and how it did.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its name in the table.
    pub name: &'static str,
    /// Mean utility of a request by mean priority: 1 is all on time in the best variant.
    pub score: f64,
    way: Way,
}

/// What makes a contestant more than its name.
#[derive(Clone, Debug, PartialEq)]
enum Way {
    Plain,
    /// What `static` follows.
    Routes(Vec<Route>),
    Restrained(Restraint),
}

impl Standing {
    fn new(name: &'static str, way: Way) -> Standing {
        Standing { name, score: 0.0, way }
    }

    /// Whether it is the same contestant, however it did.
    pub(crate) fn same_as(&self, other: &Standing) -> bool {
        self.name == other.name && self.way == other.way
    }

    /// The policy itself, fresh.
    ///
    /// # Panics
    /// Never: contestants take no parameter.
    pub fn policy(&self, case: &Case) -> Box<dyn Policy> {
        match &self.way {
            Way::Plain => crate::make(self.name, case).expect("a contestant needs no parameter"),
            Way::Routes(routes) => Box::new(Follower::new(routes.clone())),
            Way::Restrained(restraint) => restraint.policy(case),
        }
    }
}

/// All that played, best first; of equals the first of the table, restraints last.
pub fn tournament(stage: &dyn Stage, budget: &Budget) -> Vec<Standing> {
    rematch(stage, budget, &[])
}

/// As [`tournament`]; the `veterans`, which played elsewhere before, play too.
fn rematch(stage: &dyn Stage, budget: &Budget, veterans: &[Standing]) -> Vec<Standing> {
    let mut standings: Vec<Standing> = TABLE
        .iter()
        .filter(|row| CONTESTANTS.contains(&row.name))
        .map(|row| Standing::new(row.name, Way::Plain))
        .collect();
    if budget.placement_runs > 0 {
        let routes = placement_search::search(stage, budget.placement_runs);
        standings.push(Standing::new(crate::static_placement::ROW.name, Way::Routes(routes)));
    }
    let runs = stage.runs("tournament", FIRST_SEED, budget.runs, budget.requests);
    // All play all runs: a device that heats up, or a burst, makes one run say little, and the searches take far longer than this.
    for standing in &mut standings {
        standing.score = runs.iter().map(|run| run.worth(&|case| standing.policy(case))).sum();
    }
    rank(&mut standings);
    if budget.placement_runs > 0 {
        let plain = standings.iter().filter(|s| matches!(s.way, Way::Plain)).map(|s| s.name);
        let bases: Vec<&'static str> = plain.take(BASES).collect();
        let found = restraint::search(stage, &bases, budget.placement_runs, budget.attempts);
        let found =
            found.into_iter().map(|restraint| Standing::new("restrained", Way::Restrained(restraint)));
        for mut standing in found.chain(veterans.iter().filter(|v| v.way != Way::Plain).cloned()) {
            standing.score = runs.iter().map(|run| run.worth(&|case| standing.policy(case))).sum();
            standings.push(standing);
        }
        rank(&mut standings);
    }
    standings.iter_mut().for_each(|s| s.score /= runs.len().max(1) as f64);
    standings
}

fn rank(standings: &mut [Standing]) {
    standings.sort_by(|a, b| b.score.total_cmp(&a.score));
}

/// The best of a tournament as guides.
pub fn scout(stage: &dyn Stage, budget: &Budget) -> Squad {
    squad(finalists(stage, budget, &[]))
}

/// As many of the best of a tournament as there are guides; the `veterans` of others play too.
pub(crate) fn finalists(stage: &dyn Stage, budget: &Budget, veterans: &[Standing]) -> Vec<Standing> {
    let mut standings = rematch(stage, budget, veterans);
    standings.truncate(cosched_agent::guide::GUIDES);
    standings
}

/// These as guides.
pub(crate) fn squad(standings: Vec<Standing>) -> Squad {
    Box::new(move |case| Guides::new(standings.iter().map(|s| (s.policy(case), s.score as f32)).collect()))
}

/// Of several ways to make a policy the one that is best on a case, by runs that no tournament has seen; of equals the first.
pub(crate) fn trial(
    stage: &dyn Stage,
    budget: &Budget,
    ways: usize,
    make: impl Fn(usize) -> Box<dyn Policy>,
) -> usize {
    let mut scores = vec![0.0; ways];
    for run in stage.runs("trial", FIRST_SEED + budget.runs, budget.runs, budget.requests) {
        for (way, score) in scores.iter_mut().enumerate() {
            *score += run.worth(&|_| make(way));
        }
    }
    highest(&scores)
}
