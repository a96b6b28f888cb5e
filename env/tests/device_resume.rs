//! An emulated device as a look-ahead sees it: it knows what the decision core knows and nothing of what the true one will do.

mod common;

use common::rig::{about, completions, drain, finished, flat_plan, launch, named, near};
use common::{exact, ms, stream};
use cosched_env::case::{Case, ProcessorId};
use cosched_env::device::{Device, Frequency, Link, LinkPhase, ProcessorModel, Thermal};
use cosched_env::emulator::{Config, Emulator};
use cosched_env::event::Event;
use cosched_env::observation::Action;
use cosched_env::scenario::Scenario;
use cosched_env::scheduler::{Next, Options, Scheduler};
use cosched_env::streams::Arrivals;
use cosched_env::time::Time;
use cosched_env::world::{Decision, World};
use std::sync::Arc;

/// p0 is too hot from the start, p1 is behind a link that loses everything and gets slower, p2 is plain.
fn wild() -> Arc<Case> {
    let step = |mhz, speed, power| Frequency { mhz, speed, power };
    let p0 =
        ProcessorModel { frequencies: vec![step(2.0, 1.0, 1.0), step(1.0, 0.5, 0.3)], ..Default::default() };
    let phase = |from_ms, round_trip_ms| LinkPhase { from_ms, round_trip_ms, mbps: 8.0, loss: 1.0 };
    let link =
        Link { phases: vec![phase(0.0, 10.0), phase(1.0, 90.0)], sigma: 0.0, resend_ms: 5.0, tries: 2 };
    let p1 = ProcessorModel { link: Some(link), ..Default::default() };
    let thermal = Thermal {
        ambient_c: 25.0,
        kelvin_per_watt: 1.0,
        time_constant_s: 1.0,
        start_c: None,
        trip_c: 0.0,
        hysteresis_c: 1.0,
        poll_ms: 0.1,
        base_watts: 0.0,
    };
    let device = Device { thermal: Some(thermal), ..about([("p0", p0), ("p1", p1)]) };
    let scenario = Scenario {
        name: "wild".into(),
        streams: vec![stream("t", 1000.0, 500.0)],
        objective: Default::default(),
    };
    Arc::new(Case::on(flat_plan(named(3), 2.0, &[10_000.0]), device, scenario).expect("well-formed"))
}

/// A core at 4 ms with a launch on p0 from 0 on.
fn core(case: &Arc<Case>) -> Scheduler {
    let mut core = Scheduler::new(case.clone(), Options::default());
    let request = Arrivals::new(case.clone(), 1, ms(1.0)).next().expect("one arrives");
    core.handle(request.arrival, Event::Arrived(request)).expect("legal");
    let Next::Decide(observation) = core.poll() else { panic!("expected a decision") };
    let there = |action: &Action| matches!(action, Action::Launch { processor: ProcessorId(0), .. });
    let choice = observation.candidates.iter().position(|c| there(&c.action)).expect("p0 is free");
    core.decide(Decision(choice)).expect("legal");
    assert!(matches!(core.poll(), Next::Launch(_)));
    core.handle(ms(4.0), Event::Alarm).expect("legal");
    core
}

fn resumed(core: &Scheduler) -> Emulator {
    let faults = vec![common::rig::die("p0", 5.0, 6.0), common::rig::hang("p2", 5.0, 50.0, 0.0)];
    Emulator::resume(core, Config { faults, failure_rate: 1.0, ..exact() }, 3, Time::ZERO)
}

#[test]
fn what_runs_ends_when_it_is_expected_to() {
    let case = wild();
    let mut d = resumed(&core(&case));
    assert_eq!(d.celsius(), None);
    let events = drain(&mut d);
    let done = completions(&events);
    assert_eq!((events.len(), done.len(), done[0].finished), (1, 1, ms(10.0)));
    // All of it counts, what was done before too.
    near(done[0].energy_mj, 1.0);
    assert_eq!(done[0].failure, None);
}

#[test]
fn what_is_launched_takes_what_the_core_expects() {
    // p0 has 6 ms left at 4 ms and goes at half speed beside p1: done at 16 ms. That is when the launch on p1 comes off the link, which
    // takes 10 ms and 2 ms for the bytes as at first; it works alone then.
    let case = wild();
    let mut d = resumed(&core(&case));
    d.launch(&launch(7, 0, 1));
    assert_eq!(finished(&mut d), [(0, 16_000.0), (7, 26_000.0)]);
    // No hang either.
    d.launch(&launch(8, 0, 2));
    assert_eq!(finished(&mut d), [(8, 36_000.0)]);
}

#[test]
fn the_true_device_is_another_one() {
    let mut d = Emulator::new(wild(), exact(), 3, Time::ZERO);
    d.launch(&launch(0, 0, 0));
    let done = completions(&drain(&mut d));
    assert!(done[0].finished > ms(19.0), "it is throttled");
    d.launch(&launch(7, 0, 1));
    assert_eq!(completions(&drain(&mut d))[0].failure.as_deref(), Some("the link lost it"));
}
