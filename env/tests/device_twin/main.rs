//! The emulated device against a slow, obvious twin that integrates everything in small fixed steps, on random devices with
//! contention, bandwidth, heat, links, loading, hangs, slow-downs and deaths. A twin with one thing wrong must be rejected.
//! It refuses to be exact: what hangs on less than its step or on a hair's breadth of temperature is not compared.

#[path = "../common/mod.rs"]
mod common;
mod trial;
mod twin;

use common::exact;
use common::rig::{completions, drain};
use cosched_env::emulator::{Config, Emulator, FaultKind};
use cosched_env::event::Event;
use cosched_env::time::Time;
use cosched_env::world::{Decision, World};
use trial::{DECISION_STEPS, JOBS, Job, STEP_MS, STEP_NS, Trial, random_trial};
use twin::{Results, Wrong, twin};

/// The twin may be late by this many steps.
const LATE: u64 = 40;

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
        (Wrong::NothingSlows, 5),
        (Wrong::CrowdsAddUp, 8),
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
