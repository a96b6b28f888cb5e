//! What a policy earns in one short emulated run of a case: how searches judge what they find and a tournament its contestants.
//! It refuses to compare.

use crate::stage::Run;
use cosched_env::case::Case;
use cosched_env::emulator::{Config, Emulator};
use cosched_env::event::{Ended, Outcome};
use cosched_env::objective::Shares;
use cosched_env::scenario::{ArrivalKind, Scenario};
use cosched_env::scheduler::{Options, Scheduler};
use cosched_env::time::Time;
use cosched_env::world::{Earned, Observer, Policy, drive};
use std::sync::Arc;

/// Requests of the slowest stream that a run should have.
const LEAST_REQUESTS: f64 = 5.0;

/// For how long requests arrive in a run that should have so many of them; a slow stream may make it longer, up to four times.
pub(crate) fn horizon(case: &Case, requests: f64) -> Time {
    let rate: f64 = case.streams.iter().map(|s| 1.0 / s.period.0 as f64).sum();
    let slowest = case.streams.iter().map(|s| s.period.0).max().unwrap_or(1) as f64;
    Time((LEAST_REQUESTS * slowest).max(requests / rate).min(4.0 * requests / rate) as u64)
}

/// Runs a case until the last request has ended; `None`: the policy broke the rules, or there was no request.
pub(crate) fn short_run(
    case: &Arc<Case>,
    policy: &mut dyn Policy,
    seed: u64,
    horizon: Time,
) -> Option<Earned> {
    let mut earned = Earned::default();
    run(Scheduler::new(case.clone(), Options::default()), policy, seed, horizon, &mut earned)?;
    (earned.requests > 0.0).then_some(earned)
}

fn run(
    mut scheduler: Scheduler,
    policy: &mut dyn Policy,
    seed: u64,
    horizon: Time,
    observer: &mut dyn Observer,
) -> Option<()> {
    let mut emulator = Emulator::new(scheduler.case().clone(), Config::default(), seed, horizon);
    drive(&mut scheduler, &mut emulator, policy, observer).ok().map(drop)
}

/// A short run of a case as it mostly is: streams that open and close count as open, traces as periodic with full jitter.
pub(crate) struct Steady {
    case: Arc<Case>,
    horizon: Time,
    /// Mean over the streams.
    priority: f64,
    seed: u64,
}

impl Steady {
    /// So many runs of about so many requests, with seeds from 0 on.
    pub(crate) fn runs(case: &Case, count: usize, requests: f64) -> impl Iterator<Item = Steady> {
        let case = Arc::new(nominal(case));
        let priority = case.streams.iter().map(|s| s.priority).sum::<f64>() / case.streams.len() as f64;
        let horizon = horizon(&case, requests);
        (0..count as u64).map(move |seed| Steady { case: case.clone(), horizon, priority, seed })
    }
}

impl Run for Steady {
    fn worth(&self, make: &dyn Fn(&Case) -> Box<dyn Policy>) -> f64 {
        let mut policy = make(&self.case);
        let run = short_run(&self.case, policy.as_mut(), self.seed, self.horizon);
        run.map_or(f64::NEG_INFINITY, |earned| earned.utility / earned.requests / self.priority)
    }
}

/// The case as it mostly is.
fn nominal(case: &Case) -> Case {
    let mut streams = case.scenario.streams.clone();
    for (stream, table) in streams.iter_mut().zip(&case.streams) {
        stream.open_ms.clear();
        if stream.kind == ArrivalKind::Trace {
            stream.kind = ArrivalKind::Periodic;
            stream.period_ms = table.period.ms();
            stream.jitter_ms = stream.period_ms / 2.0;
            stream.times_ms.clear();
        }
        if stream.kind != ArrivalKind::Dependent {
            stream.offset_ms %= stream.period_ms;
        }
    }
    let scenario = Scenario { streams, ..case.scenario.clone() };
    Case::on(case.plan.clone(), case.device.clone(), scenario).unwrap_or_else(|_| case.clone())
}

/// Requests of each stream that were answered on time, and all of them.
struct Served(Vec<[f64; 2]>);

impl Observer for Served {
    fn ended(&mut self, ended: &Ended) {
        let [on_time, all] = &mut self.0[ended.request.stream.0 as usize];
        *on_time += f64::from(u8::from(ended.outcome == Outcome::Answered));
        *all += 1.0;
    }
}

/// A piece out of a long run of a case: what follows a timetable (traces, apps that open and close, phases of a link) begins in the
/// middle of it, and a device that heats up does so as far as it would in one of [`LONG_RUNS_S`]. Where a request's worth hangs on how its stream
/// was served before and the streams have no end, they were served before as in the piece itself: who gives one up does not live off its past.
pub(crate) struct Excerpt {
    case: Arc<Case>,
    /// Whether it has a past.
    remembers: bool,
    horizon: Time,
    seed: u64,
}

/// Seconds of long runs, in turn. Nobody says how long a run will be, and where a device heats up, what is best for a short one is not for a long one.
const LONG_RUNS_S: [f64; 3] = [30.0, 15.0, 60.0];

fn long_run_s(seed: u64) -> f64 {
    LONG_RUNS_S[seed as usize % LONG_RUNS_S.len()]
}

/// Requests of the longest run.
const MOST_REQUESTS: f64 = 30_000.0;

impl Excerpt {
    /// The timetable begins at a `share` of its length; about so many requests.
    pub(crate) fn new(case: &Case, share: f64, requests: f64, seed: u64) -> Excerpt {
        let horizon = horizon(case, requests);
        let remembers = remembers(case);
        let mut case = shifted(case, share);
        if case.device.thermal.is_some() {
            let mut device = case.device.clone();
            let condensed = (horizon.since(Time::ZERO).seconds() / long_run_s(seed)).min(1.0);
            if let Some(thermal) = &mut device.thermal {
                thermal.time_constant_s *= condensed;
                // The governor keeps up with it.
                thermal.poll_ms *= condensed;
            }
            case = Case::on(case.plan.clone(), device, case.scenario.clone()).unwrap_or(case);
        }
        Excerpt { case: Arc::new(case), remembers, horizon, seed }
    }

    /// A long run as it is: the timetable begins at a `share` of its length, and the device heats up as it does; where none does, the run ends
    /// with the timetable, so that its last phase counts no more than the others. Where there would be more than [`MOST_REQUESTS`], a piece
    /// of so many.
    pub(crate) fn whole(case: &Case, share: f64, seed: u64) -> Excerpt {
        let whole_s = match timetable_ms(case) / 1e3 {
            timetable_s if timetable_s > 0.0 && case.device.thermal.is_none() => timetable_s,
            _ => f64::INFINITY,
        };
        let horizon = Time((long_run_s(seed).min(whole_s) * 1e9) as u64);
        if self::horizon(case, MOST_REQUESTS) < horizon {
            return Excerpt::new(case, share, MOST_REQUESTS, seed);
        }
        Excerpt { case: Arc::new(shifted(case, share)), remembers: remembers(case), horizon, seed }
    }

    /// A scheduler as it stands at the beginning.
    fn past(&self, policy: &mut dyn Policy) -> Option<Scheduler> {
        let core = Scheduler::new(self.case.clone(), Options::default());
        if !self.remembers {
            return Some(core);
        }
        let mut served = Served(vec![[0.0; 2]; self.case.streams.len()]);
        run(core.clone(), policy, self.seed, self.horizon, &mut served)?;
        let share = |[on_time, all]: &[f64; 2]| if *all > 0.0 { on_time / all } else { 1.0 };
        Some(core.after(Shares::settled(served.0.iter().map(share).collect())))
    }
}

impl Run for Excerpt {
    fn worth(&self, make: &dyn Fn(&Case) -> Box<dyn Policy>) -> f64 {
        let mut policy = make(&self.case);
        let mut earned = Earned::default();
        let core = self.past(policy.as_mut());
        let ran = core.and_then(|core| run(core, policy.as_mut(), self.seed, self.horizon, &mut earned));
        ran.map_or(f64::NEG_INFINITY, |()| earned.by_priority())
    }
}

/// Whether a piece needs a past: a request's worth hangs on how its stream was served before, and the streams have no end.
fn remembers(case: &Case) -> bool {
    let objective = case.objective();
    (objective.fairness_weight > 0.0 || objective.continuity_weight > 0.0) && timetable_ms(case) == 0.0
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
