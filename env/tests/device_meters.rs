//! The meters of the emulated device: against numbers worked out by hand, and against the completions of random runs.
//! A meter with something missing must be rejected.

mod common;

use common::rig::{alarm, device, drain, launch, named, near, us};
use common::{Item, RandomPolicy, Setup, exact, random_setup, run_in};
use cosched_env::case::Case;
use cosched_env::emulator::{Emulator, Meter};
use cosched_env::event::Event;
use cosched_env::plan::ProcessorSpec;
use cosched_env::streams::rng;
use cosched_env::time::{Span, Time};
use cosched_env::world::World;

#[test]
fn busy_and_idle_by_hand() {
    // Two slots: 0 to 1000 and 400 to 1400; again from 3000 to 4000; then idle until 5000.
    let two = named(2).into_iter().map(|p| ProcessorSpec { slots: 2, ..p });
    let mut d = device(two.collect(), 1.0, &[1000.0], exact());
    d.launch(&launch(0, 0, 0));
    alarm(&mut d, us(400.0));
    d.launch(&launch(1, 0, 0));
    // Half way through, too.
    alarm(&mut d, us(500.0));
    let meter = d.meters()[0];
    assert_eq!((meter.busy, meter.idle), (Span(500_000), Span(0)));
    near(meter.busy_mj, 0.6);
    drain(&mut d);
    alarm(&mut d, us(3000.0));
    d.launch(&launch(2, 0, 0));
    drain(&mut d);
    alarm(&mut d, us(5000.0));
    let meters = d.meters();
    assert_eq!((meters[0].busy, meters[0].idle), (Span(2_400_000), Span(2_600_000)));
    near(meters[0].busy_mj, 3.0);
    near(meters[0].idle_mj, 1.3);
    assert_eq!((meters[1].busy, meters[1].idle), (Span(0), Span(5_000_000)));
    near(meters[1].idle_mj, 2.5);
}

/// A random run: its log and what the meters say after it.
fn metered(seed: u64) -> (Setup, Vec<Item>, Vec<Meter>) {
    let setup = random_setup(seed);
    let mut emulator = Emulator::new(setup.case.clone(), setup.config.clone(), setup.seed, setup.horizon);
    let mut policy = RandomPolicy(rng(seed, "policy", 0));
    let log = run_in(&mut emulator, &setup.case, setup.options, &mut policy).expect("the rules hold");
    let meters = emulator.meters();
    (setup, log, meters)
}

/// Whether meters fit the completions of a log.
fn check(case: &Case, log: &[Item], meters: &[Meter]) -> Result<(), String> {
    for (p, (meter, spec)) in meters.iter().zip(&case.plan.processors).enumerate() {
        let launched = |item: &Item| match item {
            Item::Launched(_, l) if l.processor.0 as usize == p => Some(l.id),
            _ => None,
        };
        let here: Vec<_> = log.iter().filter_map(launched).collect();
        let done = log.iter().filter_map(|item| match item {
            Item::Event(_, Event::Completed(c)) if here.contains(&c.launch) => Some(c),
            _ => None,
        });
        let (mut mj, mut spans) = (0.0, Vec::new());
        for c in done {
            mj += c.energy_mj;
            spans.push((c.started, c.finished));
        }
        if (mj - meter.busy_mj).abs() > 1e-6 * (1.0 + mj) {
            return Err(format!("{}: launches took {mj} mJ, the meter says {}", spec.name, meter.busy_mj));
        }
        spans.sort();
        let mut until = Time::ZERO;
        let mut busy = Span::ZERO;
        for (from, to) in spans {
            busy += to.since(from.max(until));
            until = until.max(to);
        }
        if busy != meter.busy {
            return Err(format!("{}: launches took {busy}, the meter says {}", spec.name, meter.busy));
        }
        let idle_mj = spec.idle_watts * meter.idle.ms();
        if (idle_mj - meter.idle_mj).abs() > 1e-6 {
            return Err(format!("{}: {idle_mj} mJ idle, the meter says {}", spec.name, meter.idle_mj));
        }
    }
    let mut wholes = meters.iter().map(|m| m.busy + m.idle);
    let whole = wholes.next();
    if !wholes.all(|w| Some(w) == whole) {
        return Err("busy and idle times do not add up to the same".to_owned());
    }
    Ok(())
}

#[test]
fn meters_are_the_sum_of_what_was_told() {
    for seed in 0..150 {
        let (setup, log, meters) = metered(seed);
        check(&setup.case, &log, &meters).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn a_meter_with_something_missing_is_rejected() {
    type Change = fn(&mut Meter);
    let changes: [(&str, Change); 4] = [
        ("energy is missing", |m| m.busy_mj *= 0.999),
        ("there is more idle energy", |m| m.idle_mj += 1e-3),
        ("busy time is missing", |m| m.busy = m.busy - Span(1)),
        ("there is more idle time", |m| m.idle += Span(1000)),
    ];
    for (what, change) in changes {
        let rejected = (0..20).filter(|&seed| {
            let (setup, log, mut meters) = metered(seed);
            meters.iter_mut().for_each(change);
            check(&setup.case, &log, &meters).is_err()
        });
        // Where nothing was launched nothing can be missing.
        let rejected = rejected.count();
        assert!(rejected >= 15, "{what}: rejected in only {rejected} of 20");
    }
}
