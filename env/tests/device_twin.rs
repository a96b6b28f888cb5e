//! The emulated device against a slow, obvious twin that integrates everything in small fixed steps, on random devices with
//! contention, bandwidth, heat, links, loading, hangs and deaths. A twin with one thing wrong must be rejected.
//! It refuses to be exact: what hangs on less than its step or on a hair's breadth of temperature is not compared.

mod common;

use common::exact;
use common::rig::{case_on, completions, die, drain, flat_plan, hang, launch, named};
use cosched_env::case::Case;
use cosched_env::device::{Bandwidth, Device, Frequency, Link, LinkPhase, ProcessorModel, Thermal};
use cosched_env::emulator::{Config, Emulator, Fault, FaultKind};
use cosched_env::event::{Event, Launch};
use cosched_env::plan::Plan;
use cosched_env::streams::rng;
use cosched_env::time::Time;
use cosched_env::world::{Decision, World};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::sync::Arc;

/// The twin's step; everything that is known beforehand happens at a multiple of it.
const STEP_NS: u64 = 100;
const STEP_MS: f64 = STEP_NS as f64 / 1e6;
const DECISION_STEPS: u64 = 100;
const JOBS: usize = 8;
const PROCESSORS: usize = 4;
/// The twin may be late by this many steps.
const LATE: u64 = 40;

/// A launch: when it is handed over and when the decider is done with it, in steps.
struct Job {
    handed: u64,
    begins: u64,
    launch: Launch,
}

struct Trial {
    case: Arc<Case>,
    /// By processor.
    models: Vec<ProcessorModel>,
    thermal: Thermal,
    /// With the index of the processor.
    faults: Vec<(usize, Fault)>,
    jobs: Vec<Job>,
}

/// What is compared.
#[derive(Debug, Default)]
struct Results {
    /// Per job: end in steps, millijoules, whether it failed.
    jobs: Vec<(u64, f64, bool)>,
    /// Per processor: busy steps, busy and idle millijoules.
    meters: Vec<(u64, f64, f64)>,
    celsius: f64,
    /// Something hangs on a hair's breadth.
    close: bool,
}

/// One thing that a twin does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    NeverRetimed,
    NoBandwidth,
    BandwidthAdds,
    NoSteps,
    FullPower,
    IdleIsCold,
    LinkIsSlowed,
    LinkIsFree,
    FirstPhaseOnly,
    NothingIsLoaded,
    HangsGoOn,
    HangsAreNotNoticed,
}

fn random_model(rng: &mut Pcg64Mcg, remote: bool) -> ProcessorModel {
    let mut speed = 1.0;
    let steps = rng.random_range(1..=4usize);
    let frequencies = (0..steps).map(|s| {
        if s > 0 {
            speed *= rng.random_range(0.6..0.9);
        }
        Frequency { mhz: 1000.0 * speed, speed, power: f64::powi(speed, 2) }
    });
    let frequencies = frequencies.collect();
    let phase = |rng: &mut Pcg64Mcg, from_ms| LinkPhase {
        from_ms,
        round_trip_ms: rng.random_range(0.02..0.3),
        mbps: rng.random_range(50.0..500.0),
        loss: if rng.random_bool(0.2) { 1.0 } else { 0.0 },
    };
    let link = remote.then(|| Link {
        phases: vec![phase(rng, 0.0), phase(rng, 0.4), phase(rng, 1.0)],
        sigma: 0.7,
        resend_ms: 0.15,
        tries: 2,
    });
    ProcessorModel {
        frequencies,
        peak_gbps: [0.0, 10.0, 30.0][rng.random_range(0..3usize)],
        memory_mb: 0.0,
        load_gbps: 5.0,
        load_us: 10.0,
        link,
    }
}

fn random_trial(seed: u64) -> Trial {
    let rng = &mut rng(seed, "twin", 0);
    let works: Vec<f64> = (0..JOBS).map(|_| rng.random_range(50.0..400.0)).collect();
    let mut plan: Plan = flat_plan(named(PROCESSORS), 1.0, &works);
    plan.contention.iter_mut().for_each(|row| row.fill_with(|| rng.random_range(1.0..1.8)));
    for p in &mut plan.processors {
        p.slots = 2;
        p.active_watts = rng.random_range(1.0..8.0);
        p.idle_watts = rng.random_range(0.1..3.0);
        p.copy_us = rng.random_range(0.0..20.0);
    }
    for variant in &mut plan.variants {
        let segment = &mut variant.segments[0];
        segment.traffic_bytes = rng.random_range(0..4_000_000);
        for cost in segment.costs.iter_mut().flatten() {
            cost.energy_mj = cost.mean_us * rng.random_range(1e-3..8e-3);
        }
    }
    let remote = rng.random_range(0..PROCESSORS);
    let models: Vec<_> = (0..PROCESSORS).map(|p| random_model(rng, p == remote)).collect();
    let processors = models.iter().enumerate().map(|(p, model)| (format!("p{p}"), model.clone())).collect();
    let bandwidth =
        rng.random_bool(0.7).then(|| Bandwidth { curve: vec![[8.0, 8.0], [16.0, 11.0], [40.0, 14.0]] });
    let thermal = Thermal {
        ambient_c: 25.0,
        kelvin_per_watt: 5.0,
        time_constant_s: rng.random_range(2e-4..1e-3),
        start_c: None,
        trip_c: rng.random_range(35.0..70.0),
        hysteresis_c: rng.random_range(1.0..10.0),
        poll_ms: 0.05,
        base_watts: rng.random_range(0.0..2.0),
    };
    let case = case_on(plan, Device { bandwidth, thermal: Some(thermal), processors });
    let faults = (0..rng.random_range(0..=3usize)).map(|_| {
        let p = rng.random_range(0..PROCESSORS);
        let name = format!("p{p}");
        let from_ms = f64::from(rng.random_range(0..10u32)) * 0.1;
        let to_ms = from_ms + f64::from(rng.random_range(1..5u32)) * 0.1;
        let noticed_ms = [0.0, 0.05, 0.15][rng.random_range(0..3usize)];
        let dies = rng.random_bool(0.3);
        let hangs = hang(&name, from_ms, to_ms, noticed_ms);
        (p, if dies { die(&name, from_ms, to_ms) } else { hangs })
    });
    let faults = faults.collect();
    let mut handed: Vec<u64> = (0..JOBS).map(|_| rng.random_range(0..8_000)).collect();
    handed.sort_unstable();
    let mut free = 0;
    let jobs = handed.into_iter().enumerate().map(|(v, handed)| {
        free = free.max(handed) + DECISION_STEPS;
        let mut launch = launch(v as u64, v as u16, rng.random_range(0..PROCESSORS as u16));
        launch.load_bytes = if rng.random_bool(0.3) { rng.random_range(1..500_000) } else { 0 };
        launch.inputs_on = rng.random_bool(0.5).then_some(launch.processor);
        Job { handed, begins: free, launch }
    });
    Trial { case, models, thermal, faults, jobs: jobs.collect() }
}

/// What the emulator says, up to so many steps after the last end.
fn emulate(trial: &Trial) -> (Results, u64) {
    let config = Config {
        decision_us: DECISION_STEPS as f64 * STEP_MS * 1e3,
        faults: trial.faults.iter().map(|f| f.1.clone()).collect(),
        ..exact()
    };
    let mut d = Emulator::new(trial.case.clone(), config, 1, Time::ZERO);
    let mut results = Results { jobs: vec![(0, 0.0, false); trial.jobs.len()], ..Results::default() };
    let mut hear = |d: &mut Emulator, until: Time| {
        while let Some((_, event)) = d.wait(Some(until)) {
            match event {
                Event::Completed(c) => {
                    let end = c.finished.0.div_ceil(STEP_NS);
                    results.jobs[c.launch.0 as usize] = (end, c.energy_mj, c.failure.is_some());
                }
                Event::Alarm => return,
                _ => {}
            }
        }
    };
    for job in &trial.jobs {
        hear(&mut d, Time(job.handed * STEP_NS));
        d.decided(Decision(0), 1);
        d.launch(&job.launch);
    }
    let ends = completions(&drain(&mut d.clone())).into_iter().map(|c| c.finished.0 / STEP_NS);
    let until = ends.max().unwrap_or(0).max(20_000) + 1000;
    hear(&mut d, Time(until * STEP_NS));
    let meters = d.meters();
    results.meters = meters.iter().map(|m| (m.busy.0 / STEP_NS, m.busy_mj, m.idle_mj)).collect();
    results.celsius = d.celsius().expect("modelled");
    (results, until)
}

/// A launch of the twin that has been handed over and has not ended.
struct Going<'a> {
    index: usize,
    job: &'a Job,
    link_left_ns: f64,
    lost: bool,
    work_left_ns: f64,
    total_ns: f64,
    alone_ns: f64,
    gbps: f64,
    mj: f64,
    frozen: Option<f64>,
}

struct Twin<'a> {
    trial: &'a Trial,
    wrong: Wrong,
    going: Vec<Going<'a>>,
    steps: [usize; PROCESSORS],
    celsius: f64,
    results: Results,
}

impl<'a> Twin<'a> {
    /// Whether a fault of this kind lasts at a step; a noticed hang is a death from then on.
    fn lasts(&self, kind: FaultKind, p: usize, step: u64) -> bool {
        let at = |ms: f64| (ms / STEP_MS).round() as u64;
        self.trial.faults.iter().filter(|f| f.0 == p).any(|(_, f)| {
            let noticed = f.noticed_ms > 0.0 && self.wrong != Wrong::HangsAreNotNoticed;
            let from_ms = match (f.kind, kind) {
                (FaultKind::Die, FaultKind::Die) => f.from_ms,
                (FaultKind::Hang, FaultKind::Hang) if self.wrong != Wrong::HangsGoOn => f.from_ms,
                (FaultKind::Hang, FaultKind::Die) if noticed => f.from_ms + f.noticed_ms,
                _ => return false,
            };
            at(from_ms) <= step && step < at(f.to_ms)
        })
    }

    fn begin(&self, index: usize, job: &'a Job) -> Going<'a> {
        let l = &job.launch;
        let variant = &self.trial.case.plan.variants[l.variant.0 as usize];
        let (segment, p) = (&variant.segments[0], l.processor.0 as usize);
        let spec = &self.trial.case.plan.processors[p];
        let model = &self.trial.models[p];
        let cost = segment.costs[p].expect("it runs everywhere");
        let alone_ns = cost.mean_us * 1e3;
        let mut bringing_ns = 0.0;
        if l.load_bytes > 0 && self.wrong != Wrong::NothingIsLoaded {
            bringing_ns += 10_000.0 + l.load_bytes as f64 / 5.0;
        }
        let (mut link_ns, mut lost, mut gbps) = (0.0, false, segment.traffic_bytes as f64 / alone_ns);
        if let Some(link) = &model.link {
            let begun = |p: &&LinkPhase| p.from_ms <= job.begins as f64 * STEP_MS;
            let phase = match self.wrong {
                Wrong::FirstPhaseOnly => &link.phases[0],
                _ => link.phases.iter().rfind(begun).expect("one begins at zero"),
            };
            lost = phase.loss == 1.0;
            let kilobits = (segment.input_bytes + segment.output_bytes) as f64 * 8.0 / 1e3;
            let crossing_ms = phase.round_trip_ms + kilobits / phase.mbps;
            link_ns = 1e6 * if lost { 2.0 * link.resend_ms } else { crossing_ms };
            gbps = 0.0;
        } else if l.inputs_on != Some(l.processor) {
            bringing_ns += spec.copy_us * 1e3;
        }
        let total_ns = alone_ns + bringing_ns;
        let work_left_ns = if lost { 0.0 } else { total_ns };
        let frozen = None;
        Going {
            index,
            job,
            link_left_ns: link_ns,
            lost,
            work_left_ns,
            total_ns,
            alone_ns,
            gbps,
            mj: 0.0,
            frozen,
        }
    }

    fn slowdown(&self, going: &Going<'_>) -> f64 {
        let p = going.job.launch.processor;
        let others = self.going.iter().map(|o| o.job.launch.processor).filter(|&o| o != p);
        let contention = &self.trial.case.plan.contention[p.0 as usize];
        let pairwise = 1.0 + others.map(|o| contention[o.0 as usize] - 1.0).sum::<f64>();
        let Some(curve) = &self.trial.case.device.bandwidth else { return pairwise };
        if going.gbps == 0.0 || self.wrong == Wrong::NoBandwidth {
            return pairwise;
        }
        let all: f64 = self.going.iter().map(|o| o.gbps).sum();
        let peak = self.trial.models[p.0 as usize].peak_gbps;
        let memory = if peak == 0.0 { 1.0 } else { (going.gbps / peak).min(1.0) };
        let stretch = (all / curve.achieved(all)) / (going.gbps / curve.achieved(going.gbps));
        let shared = memory * (stretch - 1.0).max(0.0);
        if self.wrong == Wrong::BandwidthAdds { pairwise + shared } else { pairwise * (1.0 + shared) }
    }

    fn end(&mut self, place: usize, step: u64, failed: bool) {
        let going = self.going.remove(place);
        self.results.jobs[going.index] = (step.max(going.job.begins), going.mj, failed || going.lost);
    }

    fn govern(&mut self) {
        let thermal = self.trial.thermal;
        let below = thermal.trip_c - thermal.hysteresis_c;
        self.results.close |= [thermal.trip_c, below].iter().any(|t| (t - self.celsius).abs() < 0.05);
        for (p, step) in self.steps.iter_mut().enumerate() {
            let last = self.trial.models[p].frequencies.len() - 1;
            if self.celsius > thermal.trip_c && self.wrong != Wrong::NoSteps {
                *step = (*step + 1).min(last);
            } else if self.celsius < below {
                *step = step.saturating_sub(1);
            }
        }
    }

    /// What happens at the beginning of a step.
    fn happen(&mut self, step: u64) {
        for (index, job) in self.trial.jobs.iter().enumerate().filter(|(_, j)| j.handed == step) {
            let going = self.begin(index, job);
            self.going.push(going);
        }
        for place in (0..self.going.len()).rev() {
            let p = self.going[place].job.launch.processor.0 as usize;
            if self.lasts(FaultKind::Die, p, step) {
                // One that would have ended a moment ago may have.
                let going = &self.going[place];
                self.results.close |= going.link_left_ns + going.work_left_ns < 20.0 * STEP_NS as f64;
                self.end(place, step, true);
            }
        }
        let poll = (self.trial.thermal.poll_ms / STEP_MS).round() as u64;
        if step > 0 && step.is_multiple_of(poll) {
            self.govern();
        }
    }

    /// A step passes.
    fn pass(&mut self, step: u64) {
        let mut watts = [0.0; PROCESSORS];
        let mut busy = [false; PROCESSORS];
        let mut ended = Vec::new();
        for place in 0..self.going.len() {
            if self.going[place].job.begins > step {
                continue;
            }
            let p = self.going[place].job.launch.processor.0 as usize;
            let spec = &self.trial.case.plan.processors[p];
            let frequency = self.trial.models[p].frequencies[self.steps[p]];
            let still = self.lasts(FaultKind::Hang, p, step);
            let mut slowdown = self.slowdown(&self.going[place]);
            let going = &mut self.going[place];
            if self.wrong == Wrong::NeverRetimed {
                slowdown = *going.frozen.get_or_insert(slowdown);
            }
            // Work at full speed in this step, and the share of the step in which segments are computed.
            let (mut work_ns, mut computing) = (0.0, 0.0);
            let on_link = going.link_left_ns > 0.0;
            if still {
            } else if on_link {
                let slowed = if self.wrong == Wrong::LinkIsSlowed { slowdown / frequency.speed } else { 1.0 };
                going.link_left_ns -= STEP_NS as f64 / slowed;
            } else {
                work_ns = STEP_NS as f64 * frequency.speed / slowdown;
                computing = going.alone_ns / going.total_ns / slowdown;
            }
            going.work_left_ns -= work_ns;
            let cost =
                self.trial.case.plan.variants[going.job.launch.variant.0 as usize].segments[0].costs[p];
            let computing_watts = cost.expect("it runs everywhere").energy_mj * 1e6 / going.alone_ns;
            let power = if self.wrong == Wrong::FullPower { 1.0 } else { frequency.power };
            let mut own = power * (computing * computing_watts + (1.0 - computing) * 0.5 * spec.active_watts);
            if on_link && self.wrong == Wrong::LinkIsFree {
                own = 0.0;
            }
            going.mj += own * STEP_MS;
            watts[p] += own;
            busy[p] = true;
            if going.link_left_ns <= 0.0 && going.work_left_ns <= 0.0 {
                ended.push(place);
            }
        }
        self.meter(&busy, &watts);
        for place in ended.into_iter().rev() {
            self.end(place, step + 1, false);
        }
    }

    fn meter(&mut self, busy: &[bool], watts: &[f64]) {
        let thermal = self.trial.thermal;
        let mut total = thermal.base_watts;
        for (p, meter) in self.results.meters.iter_mut().enumerate() {
            let idle_watts = self.trial.case.plan.processors[p].idle_watts;
            meter.0 += u64::from(busy[p]);
            meter.1 += watts[p] * STEP_MS;
            total += watts[p];
            if !busy[p] {
                meter.2 += idle_watts * STEP_MS;
                total += if self.wrong == Wrong::IdleIsCold { 0.0 } else { idle_watts };
            }
        }
        let settles_at = thermal.ambient_c + total * thermal.kelvin_per_watt;
        self.celsius += (settles_at - self.celsius) * STEP_MS / 1e3 / thermal.time_constant_s;
    }
}

/// What the twin says of the first so many steps; what has not ended then never ends.
fn twin(trial: &Trial, until: u64, wrong: Wrong) -> Results {
    let jobs = vec![(u64::MAX / 2, 0.0, false); trial.jobs.len()];
    let results = Results { jobs, meters: vec![(0, 0.0, 0.0); PROCESSORS], ..Results::default() };
    let celsius = trial.thermal.ambient_c;
    let mut twin = Twin { trial, wrong, going: Vec::new(), steps: [0; PROCESSORS], celsius, results };
    for step in 0..until {
        twin.happen(step);
        twin.pass(step);
    }
    Results { celsius: twin.celsius, ..twin.results }
}

/// Where emulator and twin differ; `Ok(false)`: they cannot be compared.
fn compare(seed: u64, wrong: Wrong) -> Result<bool, String> {
    let trial = random_trial(seed);
    let (fast, until) = emulate(&trial);
    let slow = twin(&trial, until, wrong);
    if slow.close {
        return Ok(false);
    }
    for (index, (a, b)) in fast.jobs.iter().zip(&slow.jobs).enumerate() {
        if a.0.abs_diff(b.0) > LATE || (a.1 - b.1).abs() > 0.05 || a.2 != b.2 {
            return Err(format!("seed {seed}, job {index}: (end, mJ, failed) is {a:?}, of the twin {b:?}"));
        }
    }
    for (p, (a, b)) in fast.meters.iter().zip(&slow.meters).enumerate() {
        if a.0.abs_diff(b.0) > 2 * LATE || (a.1 - b.1).abs() > 0.1 || (a.2 - b.2).abs() > 0.05 {
            return Err(format!("seed {seed}, p{p}: (busy, mJ, idle mJ) is {a:?}, of the twin {b:?}"));
        }
    }
    if (fast.celsius - slow.celsius).abs() > 0.2 {
        return Err(format!("seed {seed}: {} degrees, twin {}", fast.celsius, slow.celsius));
    }
    Ok(true)
}

#[test]
fn the_emulator_agrees_with_its_slow_twin() {
    let compared =
        (0..60).filter(|&seed| compare(seed, Wrong::Nothing).unwrap_or_else(|why| panic!("{why}")));
    let compared = compared.count();
    assert!(compared >= 40, "only {compared} of 60 could be compared");
}

#[test]
fn a_twin_with_one_thing_wrong_is_found_out() {
    // How many of 20 trials have what is wrong at all differs.
    let wrongs = [
        (Wrong::NeverRetimed, 15),
        (Wrong::NoBandwidth, 8),
        (Wrong::BandwidthAdds, 8),
        (Wrong::NoSteps, 8),
        (Wrong::FullPower, 8),
        (Wrong::IdleIsCold, 8),
        (Wrong::LinkIsSlowed, 8),
        (Wrong::LinkIsFree, 8),
        (Wrong::FirstPhaseOnly, 5),
        (Wrong::NothingIsLoaded, 8),
        (Wrong::HangsGoOn, 4),
        (Wrong::HangsAreNotNoticed, 2),
    ];
    for (wrong, least) in wrongs {
        let found = (0..20).filter(|&seed| compare(seed, wrong).is_err()).count();
        assert!(found >= least, "{wrong:?}: found out in only {found} of 20");
    }
}

#[test]
fn the_trials_reach_everything() {
    let results: Vec<_> = (0..60).map(|seed| (random_trial(seed), emulate(&random_trial(seed)).0)).collect();
    let failed = results.iter().flat_map(|(_, r)| &r.jobs).filter(|j| j.2).count();
    let jobs = 60 * JOBS;
    assert!(failed > jobs / 20 && failed < jobs / 2, "{failed} of {jobs} failed");
    let hangs = results.iter().flat_map(|(t, _)| &t.faults).filter(|f| f.1.kind == FaultKind::Hang).count();
    assert!(hangs > 20, "{hangs} hangs");
    let on_link = |t: &Trial, j: &Job| t.case.processors[j.launch.processor.0 as usize].model.link.is_some();
    let crossings = results.iter().flat_map(|(t, _)| t.jobs.iter().filter(|j| on_link(t, j))).count();
    assert!(crossings > 60, "{crossings} crossings");
}
