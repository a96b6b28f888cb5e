//! Which policies are best on a case: the cheap ones of the table play a few short emulated runs of it against each other. What comes out
//! guides the learned policy. Choosing an algorithm by the instance is an old idea (Rice,
//! "The algorithm selection problem", 1976); here the emulator of the very case is the predictor.
//! It refuses to know what happens later: what follows a timetable (traces, apps that open and close, phases of a link) begins somewhere
//! in the middle of it, elsewhere in each run.

use crate::TABLE;
use crate::placement_search::search;
use crate::short_run::{horizon, short_run};
use crate::static_placement::{Follower, RUNS, Route};
use cosched_agent::guide::{Guides, Squad};
use cosched_env::case::Case;
use cosched_env::scenario::{ArrivalKind, Scenario};
use cosched_env::streams::rng;
use cosched_env::time::Time;
use cosched_env::world::Policy;
use rand::RngExt;
use std::sync::Arc;

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
    /// Requests that a run should have.
    pub requests: f64,
    /// Emulated runs of the search behind `static`; 0: it does not play.
    pub placement_runs: usize,
}

impl Budget {
    /// In proportion to the search behind `static`: as many emulated runs of that as said.
    pub fn of(placement_runs: usize) -> Budget {
        let share = placement_runs as f64 / RUNS as f64;
        Budget {
            runs: if placement_runs < 100 { 2 } else { 6 },
            requests: (1000.0 * share).clamp(50.0, 2000.0),
            placement_runs,
        }
    }
}

impl Default for Budget {
    /// About twice as long as the search behind `static` takes by itself, around a second.
    fn default() -> Budget {
        Budget::of(RUNS)
    }
}

/// The first seed of the arrivals: not those that `static` is searched on.
const FIRST_SEED: u64 = 1 << 40;
/// After the first run only so many of the best go on.
const FINALISTS: usize = 6;

/// A contestant and how it did.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its name in the table.
    pub name: &'static str,
    /// Mean utility of a request by mean priority: 1 is all on time in the best variant.
    pub score: f64,
    /// What `static` follows.
    routes: Option<Vec<Route>>,
}

impl Standing {
    /// The policy itself, fresh.
    ///
    /// # Panics
    /// Never: contestants take no parameter.
    pub fn policy(&self, case: &Case) -> Box<dyn Policy> {
        match &self.routes {
            Some(routes) => Box::new(Follower::new(routes.clone())),
            None => crate::make(self.name, case).expect("a contestant needs no parameter"),
        }
    }
}

/// All contestants, best first; of equals the first of the table.
pub fn tournament(case: &Case, budget: &Budget) -> Vec<Standing> {
    let random = &mut rng(1, "tournament", 0);
    let mut standings: Vec<Standing> = TABLE
        .iter()
        .filter(|row| CONTESTANTS.contains(&row.name))
        .map(|row| Standing { name: row.name, score: 0.0, routes: None })
        .collect();
    if budget.placement_runs > 0 {
        let routes = Some(search(case, budget.placement_runs));
        standings.push(Standing { name: crate::static_placement::ROW.name, score: 0.0, routes });
    }
    let mut playing = standings.len();
    for run in 0..budget.runs {
        let shifted = Arc::new(shifted(case, random.random()));
        let horizon = horizon(&shifted, budget.requests);
        for standing in &mut standings[..playing] {
            standing.score += play(&shifted, standing.policy(&shifted), FIRST_SEED + run, horizon);
        }
        standings[..playing].sort_by(|a, b| b.score.total_cmp(&a.score));
        if run == 0 {
            playing = playing.min(FINALISTS);
        }
    }
    for standing in &mut standings[..playing] {
        standing.score /= budget.runs.max(1) as f64;
    }
    standings
}

/// The best of a tournament as guides.
pub fn scout(case: &Case, budget: &Budget) -> Squad {
    let mut standings = tournament(case, budget);
    standings.truncate(cosched_agent::guide::GUIDES);
    Box::new(move |case| Guides::new(standings.iter().map(|s| (s.policy(case), s.score as f32)).collect()))
}

/// Of several ways to make a policy the one that is best on a case, by runs that no tournament has seen; of equals the first.
pub(crate) fn trial(
    case: &Case,
    budget: &Budget,
    ways: usize,
    make: impl Fn(usize) -> Box<dyn Policy>,
) -> usize {
    let random = &mut rng(1, "trial", 0);
    let mut scores = vec![0.0; ways];
    for run in 0..budget.runs {
        let shifted = Arc::new(shifted(case, random.random()));
        let horizon = horizon(&shifted, budget.requests);
        for (way, score) in scores.iter_mut().enumerate() {
            *score += play(&shifted, make(way), FIRST_SEED + budget.runs + run, horizon);
        }
    }
    (1..ways).fold(0, |best, way| if scores[way] > scores[best] { way } else { best })
}

fn play(case: &Arc<Case>, mut policy: Box<dyn Policy>, seed: u64, horizon: Time) -> f64 {
    match short_run(case, policy.as_mut(), seed, horizon) {
        Some(sums) if sums.priority > 0.0 => sums.utility / sums.priority,
        _ => f64::NEG_INFINITY,
    }
}

/// The case when its timetable begins at this share of its length.
fn shifted(case: &Case, share: f64) -> Case {
    let length = timetable_ms(case);
    if length == 0.0 {
        return case.clone();
    }
    let by = share * length;
    let mut streams = case.scenario.streams.clone();
    for stream in &mut streams {
        if stream.kind == ArrivalKind::Trace {
            stream.times_ms.iter_mut().for_each(|t| *t = (*t - by).rem_euclid(length));
            stream.times_ms.sort_by(f64::total_cmp);
        }
        let open = std::mem::take(&mut stream.open_ms);
        let around = open.iter().flat_map(|&[from, to]| {
            let (from, to) = (from - by, to.min(2.0 * length) - by);
            // What begins before the start comes at the end.
            [[from.max(0.0), to], [from + length, (to + length).min(length)]]
        });
        stream.open_ms = around.filter(|[from, to]| from < to).collect();
        stream.open_ms.sort_by(|a, b| a[0].total_cmp(&b[0]));
    }
    let mut device = case.device.clone();
    for link in device.processors.values_mut().filter_map(|p| p.link.as_mut()) {
        let last_before = link.phases.iter().rposition(|p| p.from_ms <= by).unwrap_or(0);
        link.phases.rotate_left(last_before);
        for phase in &mut link.phases {
            phase.from_ms = (phase.from_ms - by).rem_euclid(length);
        }
        link.phases[0].from_ms = 0.0;
    }
    let scenario = Scenario { streams, ..case.scenario.clone() };
    Case::on(case.plan.clone(), device, scenario).unwrap_or_else(|_| case.clone())
}

/// Milliseconds until nothing changes any more, a bit over the last change; 0: there is no timetable.
fn timetable_ms(case: &Case) -> f64 {
    let streams = case.scenario.streams.iter().flat_map(|s| {
        let ends = s.open_ms.iter().flatten().copied().filter(|t| t.is_finite());
        s.times_ms.last().copied().into_iter().chain(ends)
    });
    let links = case.device.processors.values().filter_map(|p| p.link.as_ref());
    let phases = links.flat_map(|l| l.phases.iter().map(|p| p.from_ms));
    1.2 * streams.chain(phases).fold(0.0, f64::max)
}
