//! Live against emulated: the same streams, seed, policy and plan in both worlds, and how far the numbers are apart.
//! It refuses to fit: the emulator gets the plan and the app's settings as they are, and nothing of the live run.

use crate::session::{LiveRun, RunOptions, Session, SessionError};
use cosched_env::case::Case;
use cosched_experiments::app::App;
use cosched_experiments::compare::{Setup, emulate};
use cosched_experiments::log::RunLog;
use cosched_experiments::stats::mean;
use cosched_experiments::summary::{Group, Requests, Summary};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is compared, in one world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Requests that arrived.
    pub requests: u64,
    /// Mean milliseconds from arrival to answer; `None` when nothing was answered.
    pub mean_ms: Option<f64>,
    /// Likewise, 95th percentile.
    pub p95_ms: Option<f64>,
    /// Share of requests answered by their deadline, 0 to 1.
    pub on_time_share: f64,
}

impl Side {
    fn of(r: &Requests) -> Side {
        Side { requests: r.requests, mean_ms: r.mean_ms, p95_ms: r.p95_ms, on_time_share: r.on_time_share() }
    }
}

/// A task in both worlds, or all of them (`all`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The task.
    pub name: String,
    /// On the processors of this machine.
    pub live: Side,
    /// In the emulated device.
    pub emulated: Side,
    /// Emulated by live mean, less 1; `None` when a world answered nothing.
    pub mean_error: Option<f64>,
    /// Likewise of the 95th percentile.
    pub p95_error: Option<f64>,
    /// Emulated less live on-time share.
    pub on_time_error: f64,
}

impl Row {
    fn new(name: &str, live: Side, emulated: Side) -> Row {
        let error = |live: Option<f64>, emulated: Option<f64>| match (live, emulated) {
            (Some(l), Some(e)) if l > 0.0 => Some(e / l - 1.0),
            _ => None,
        };
        Row {
            name: name.to_owned(),
            mean_error: error(live.mean_ms, emulated.mean_ms),
            p95_error: error(live.p95_ms, emulated.p95_ms),
            on_time_error: emulated.on_time_share - live.on_time_share,
            live,
            emulated,
        }
    }
}

/// Each task of two runs of the same streams, and all together at the end.
pub fn rows(live: &Summary, emulated: &Summary) -> Vec<Row> {
    let named = |name: &str| emulated.tasks.iter().find(|g| g.name == name);
    let task =
        |g: &Group| Some(Row::new(&g.name, Side::of(&g.requests), Side::of(&named(&g.name)?.requests)));
    let mut rows: Vec<Row> = live.tasks.iter().filter_map(task).collect();
    rows.push(Row::new("all", Side::of(&live.total), Side::of(&emulated.total)));
    rows
}

/// What a launch is made of, on average over the launches that went well: it says where an error comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Launches {
    /// Launches per request that arrived.
    pub per_request: f64,
    /// Microseconds from the event that led to the decision until the processor begins.
    pub begin_us: f64,
    /// Microseconds on the processor.
    pub run_us: f64,
}

impl Launches {
    /// Of a log.
    pub fn of(log: &RunLog) -> Launches {
        let good = log.launches.iter().filter_map(|l| {
            let c = l.completion.as_ref().filter(|c| c.failure.is_none())?;
            Some((c.started.since(l.at).0 as f64 / 1e3, c.finished.since(c.started).0 as f64 / 1e3))
        });
        let (begin, run): (Vec<f64>, Vec<f64>) = good.unzip();
        let per_request = begin.len() as f64 / log.arrived().max(1) as f64;
        Launches { per_request, begin_us: mean(&begin), run_us: mean(&run) }
    }
}

/// One live run and its emulated twin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Seed of both.
    pub seed: u64,
    /// One row a task, then all.
    pub rows: Vec<Row>,
    /// Launches of the live run.
    pub live: Launches,
    /// Launches of the emulated run.
    pub emulated: Launches,
    /// Mean microseconds of a live decision.
    pub decision_us: f64,
}

/// Several pairs and the medians over them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// Name of the scenario.
    pub scenario: String,
    /// The policy.
    pub policy: String,
    /// Seconds for which requests arrived in each run.
    pub seconds: f64,
    /// Medians over the pairs, number by number: the median of the errors is not the error of the medians.
    pub rows: Vec<Row>,
    /// Launches of the live runs, medians.
    pub live: Launches,
    /// Launches of the emulated runs, medians.
    pub emulated: Launches,
    /// Mean microseconds of a live decision, median.
    pub decision_us: f64,
    /// The pairs.
    pub pairs: Vec<Pair>,
}

/// Runs the app live and then emulated with the same seed and length. The length and the seed are those of `options`, or else of the app.
///
/// # Errors
/// [`SessionError`].
pub fn pair(
    session: &Session,
    app: &App,
    case: &Arc<Case>,
    policy: &str,
    options: RunOptions,
) -> Result<Pair, SessionError> {
    let (seed, seconds) = (options.seed.unwrap_or(app.seed), options.seconds.unwrap_or(app.seconds));
    let live = session.run(app, case.clone(), policy, options)?;
    let setup = Setup { case: case.clone(), options: app.scheduler, emulator: app.emulator.clone(), seconds };
    let mut log = RunLog::new(policy);
    let end = emulate(&setup, cosched_policies::make(policy, case)?.as_mut(), seed, &mut log)?;
    Ok(judge(seed, case, &live, &log.finish(end)))
}

/// The two runs side by side.
fn judge(seed: u64, case: &Arc<Case>, live: &LiveRun, emulated: &RunLog) -> Pair {
    let decisions: Vec<f64> = live.decision_ns.iter().map(|&ns| ns as f64 / 1e3).collect();
    Pair {
        seed,
        rows: rows(&Summary::of(&live.log, case), &Summary::of(emulated, case)),
        live: Launches::of(&live.log),
        emulated: Launches::of(emulated),
        decision_us: mean(&decisions),
    }
}

impl Fidelity {
    /// Medians over pairs of the same app and policy; `None` of no pairs.
    pub fn of(scenario: &str, policy: &str, seconds: f64, pairs: Vec<Pair>) -> Option<Fidelity> {
        let first = pairs.first()?;
        let over = |f: &dyn Fn(&Pair) -> f64| median(pairs.iter().map(f).collect()).unwrap_or(0.0);
        let launches = |f: &dyn Fn(&Pair) -> Launches| Launches {
            per_request: over(&|p| f(p).per_request),
            begin_us: over(&|p| f(p).begin_us),
            run_us: over(&|p| f(p).run_us),
        };
        let row = |(i, row): (usize, &Row)| {
            let some = |f: &dyn Fn(&Row) -> Option<f64>| {
                median(pairs.iter().filter_map(|p| f(&p.rows[i])).collect())
            };
            let all = |f: &dyn Fn(&Row) -> f64| some(&|r| Some(f(r))).unwrap_or(0.0);
            let side = |f: &dyn Fn(&Row) -> Side| Side {
                requests: all(&|r| f(r).requests as f64) as u64,
                mean_ms: some(&|r| f(r).mean_ms),
                p95_ms: some(&|r| f(r).p95_ms),
                on_time_share: all(&|r| f(r).on_time_share),
            };
            Row {
                name: row.name.clone(),
                live: side(&|r| r.live),
                emulated: side(&|r| r.emulated),
                mean_error: some(&|r| r.mean_error),
                p95_error: some(&|r| r.p95_error),
                on_time_error: all(&|r| r.on_time_error),
            }
        };
        Some(Fidelity {
            scenario: scenario.into(),
            policy: policy.into(),
            seconds,
            rows: first.rows.iter().enumerate().map(row).collect(),
            live: launches(&|p| p.live),
            emulated: launches(&|p| p.emulated),
            decision_us: over(&|p| p.decision_us),
            pairs,
        })
    }
}

/// The middle value, or the mean of the two middle ones; `None` of nothing.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n == 0 { None } else { Some(0.5 * (values[(n - 1) / 2] + values[n / 2])) }
}
