//! Hangs and slow-downs of the emulated device and their overlaps, against numbers worked out by hand. Deaths are in `emulator.rs`.

mod common;

use common::rig::{
    alarm, completions, device, die, drain, finished, hang, health, launch, named, near, slow, us,
};
use common::{exact, ms};
use cosched_env::case::ProcessorId;
use cosched_env::emulator::{Config, Emulator, Fault};
use cosched_env::event::{Event, LaunchId};
use cosched_env::plan::ProcessorSpec;
use cosched_env::world::World;

/// Two processors with two slots each; launches take a millisecond alone.
fn with(faults: Vec<Fault>) -> Emulator {
    let two = named(2).into_iter().map(|p| ProcessorSpec { slots: 2, ..p });
    device(two.collect(), 1.0, &[1000.0], Config { faults, ..exact() })
}

#[test]
fn a_hang_is_not_told_and_passes() {
    let mut d = with(vec![hang("p0", 0.4, 0.8, 0.0)]);
    d.launch(&launch(0, 0, 0));
    d.launch(&launch(1, 0, 1));
    alarm(&mut d, us(500.0));
    // Put there meanwhile, it does not progress either.
    d.launch(&launch(2, 0, 0));
    let events = drain(&mut d);
    assert_eq!(events.len(), 3, "only completions: {events:?}");
    let done = completions(&events);
    let ends: Vec<_> = done.iter().map(|c| (c.launch.0, c.finished)).collect();
    assert_eq!(ends, [(1, us(1000.0)), (0, us(1400.0)), (2, us(1800.0))]);
    // Half of 2 W while it stands still.
    for (c, mj) in done.iter().zip([1.0, 1.4, 1.3]) {
        near(c.energy_mj, mj);
        assert_eq!(c.failure, None);
    }
    assert_eq!(done[2].started, us(500.0));
}

#[test]
fn a_hang_that_is_noticed_kills() {
    let mut d = with(vec![hang("p0", 0.4, 0.8, 0.2)]);
    d.launch(&launch(0, 0, 0));
    let down = Event::Health { processor: ProcessorId(0), up: false };
    assert_eq!(d.wait(None), Some((us(600.0), down)));
    let Some((at, Event::Completed(c))) = d.wait(None) else { panic!("expected the end of launch 0") };
    assert_eq!((at, c.launch, c.finished), (us(600.0), LaunchId(0), us(600.0)));
    assert_eq!(c.failure.as_deref(), Some("the emulated processor hung"));
    // It did 0.4 of its work and stood still for 0.2 ms at half of 2 W.
    near(c.energy_mj, 0.6);
    let up = Event::Health { processor: ProcessorId(0), up: true };
    assert_eq!(d.wait(None), Some((us(800.0), up)));
    d.launch(&launch(1, 0, 0));
    assert_eq!(finished(&mut d), [(1, 1800.0)]);
}

#[test]
fn a_hang_noticed_when_it_is_over_is_not_noticed() {
    for noticed_ms in [0.4, 7.0] {
        let mut d = with(vec![hang("p0", 0.4, 0.8, noticed_ms)]);
        d.launch(&launch(0, 0, 0));
        assert_eq!(finished(&mut d), [(0, 1400.0)]);
    }
}

#[test]
fn overlapping_hangs_are_one() {
    let mut d = with(vec![hang("p0", 0.2, 0.5, 0.0), hang("p0", 0.4, 0.9, 0.0), hang("p0", 0.9, 1.0, 0.0)]);
    d.launch(&launch(0, 0, 0));
    assert_eq!(finished(&mut d), [(0, 1800.0)]);
}

#[test]
fn a_death_in_a_hang_kills_and_the_hang_goes_on() {
    let mut d = with(vec![hang("p0", 1.0, 10.0, 0.0), die("p0", 2.0, 4.0)]);
    alarm(&mut d, us(900.0));
    d.launch(&launch(0, 0, 0));
    alarm(&mut d, us(1999.0));
    let Some((at, Event::Health { up: false, .. })) = d.wait(None) else { panic!("expected a death") };
    assert_eq!(at, ms(2.0));
    let Some((_, Event::Completed(c))) = d.wait(None) else { panic!("expected the end of launch 0") };
    assert_eq!(c.failure.as_deref(), Some("the emulated processor died"));
    near(c.energy_mj, 0.1 + 1.0);
    let Some((at, Event::Health { up: true, .. })) = d.wait(None) else { panic!("expected a return") };
    assert_eq!(at, ms(4.0));
    d.launch(&launch(1, 0, 0));
    assert_eq!(finished(&mut d), [(1, 11_000.0)]);
}

#[test]
fn a_noticed_hang_and_a_death_are_one_outage() {
    let mut d = with(vec![hang("p0", 1.0, 6.0, 1.0), die("p0", 4.0, 8.0), die("p1", 3.0, 3.0)]);
    assert_eq!(health(&mut d), [(ms(2.0), false), (ms(8.0), true)]);
}

#[test]
fn what_is_done_when_the_hang_begins_is_done() {
    let mut d = with(vec![hang("p0", 1.0, 6.0, 0.0)]);
    d.launch(&launch(0, 0, 0));
    assert_eq!(finished(&mut d), [(0, 1000.0)]);
}

#[test]
fn a_processor_that_never_comes_back_leaves_the_run_an_end() {
    let mut d = with(vec![die("p0", 1.0, f64::INFINITY)]);
    assert_eq!(health(&mut d), [(ms(1.0), false)]);
}

#[test]
fn a_slow_down_is_not_told_and_retimes_what_runs() {
    let mut d = with(vec![slow("p0", 0.4, 1.3, 1.0 / 3.0)]);
    d.launch(&launch(0, 0, 0));
    d.launch(&launch(1, 0, 1));
    alarm(&mut d, us(700.0));
    d.launch(&launch(2, 0, 0));
    let events = drain(&mut d);
    assert_eq!(events.len(), 3, "only completions: {events:?}");
    let done = completions(&events);
    let ends: Vec<_> = done.iter().map(|c| (c.launch.0, c.finished)).collect();
    // 0.4 ms of the first are done before, 0.3 ms of it while it is slow and 0.3 ms after; of the last 0.2 ms while it is slow.
    assert_eq!(ends, [(1, us(1000.0)), (0, us(1600.0)), (2, us(2100.0))]);
    // 1 W each, as long as it takes.
    for (c, mj) in done.iter().zip([1.0, 1.6, 1.4]) {
        near(c.energy_mj, mj);
    }
}

#[test]
fn overlapping_slow_downs_are_multiplied() {
    let faults = vec![slow("p0", 0.0, 1.0, 0.5), slow("p0", 0.5, f64::INFINITY, 0.4)];
    let mut d = with(faults);
    d.launch(&launch(0, 0, 0));
    // 0.25 ms of work by 0.5, 0.1 ms more by 1.0, the rest at 0.4.
    assert_eq!(finished(&mut d), [(0, 2625.0)]);
}
