//! The emulated device without a device file against numbers worked out by hand: latency, pairwise contention, cost of deciding,
//! energy, deaths, spread. It refuses to go into device files; for those there are the `device_*` suites.

mod common;

use common::rig::{alarm, completions, device, die, drain, finished, flat_plan, health, launch, named, us};
use common::{case, cost, exact, ms, plan, processor, stream, variant};
use cosched_env::case::{ProcessorId, StreamId};
use cosched_env::crowd::Crowd;
use cosched_env::emulator::{Config, Emulator};
use cosched_env::event::{Event, Launch, LaunchId, RequestId};
use cosched_env::plan::ProcessorSpec;
use cosched_env::scheduler::{Next, Options, Scheduler};
use cosched_env::time::Time;
use cosched_env::world::{Decision, World};

#[test]
fn launches_alone_take_what_the_plan_says() {
    let mut d = device(named(2), 2.0, &[1000.0], exact());
    d.launch(&launch(0, 0, 0));
    assert_eq!(finished(&mut d), [(0, 1000.0)]);
}

#[test]
fn two_launches_at_once_slow_each_other() {
    let mut d = device(named(2), 2.0, &[1000.0], exact());
    d.launch(&launch(0, 0, 0));
    d.launch(&launch(1, 0, 1));
    assert_eq!(finished(&mut d), [(0, 2000.0), (1, 2000.0)]);
}

#[test]
fn partly_overlapping_launches_are_retimed() {
    // 0 runs alone until 400. Both run at half speed until 1 has done its 300, at 1000. 0 has 300 left, alone.
    let mut d = device(named(2), 2.0, &[1000.0, 300.0], exact());
    d.launch(&launch(0, 0, 0));
    alarm(&mut d, us(400.0));
    d.launch(&launch(1, 1, 1));
    assert_eq!(finished(&mut d), [(1, 1000.0), (0, 1300.0)]);
}

#[test]
fn three_launches_add_up_their_slowdowns() {
    // All at a third of the speed until 1 is done at 900. Then 0 and 2 at half: 2 has 300 left, done at 1500; 0 has 700 - 300 left.
    let mut d = device(named(3), 2.0, &[1000.0, 300.0, 600.0], exact());
    for (id, v) in [(0, 0), (1, 1), (2, 2)] {
        d.launch(&launch(id, v, id as u16));
    }
    assert_eq!(finished(&mut d), [(1, 900.0), (2, 1500.0), (0, 1900.0)]);
}

#[test]
fn a_crowd_slows_more_than_its_pairs_do() {
    // Pairs halve the speed. Of three, each goes at a quarter instead of a third, until 1 is done at 1200; then 0 and 2 at half: 2 has
    // 300 left, done at 1800; 0 has 700 - 300 left.
    let crowd = Some(Crowd { added: 1.0, triples: Vec::new() });
    let crowded = named(3).into_iter().map(|p| ProcessorSpec { crowd: crowd.clone(), ..p }).collect();
    let mut d = device(crowded, 2.0, &[1000.0, 300.0, 600.0], exact());
    for (id, v) in [(0, 0), (1, 1), (2, 2)] {
        d.launch(&launch(id, v, id as u16));
    }
    assert_eq!(finished(&mut d), [(1, 1200.0), (2, 1800.0), (0, 2200.0)]);
}

#[test]
fn the_scheduler_expects_what_a_crowd_costs() {
    let crowd = Some(Crowd { added: 0.25, triples: Vec::new() });
    let seen = |crowd: Option<Crowd>| {
        let processors = named(3).into_iter().map(|p| ProcessorSpec { crowd: crowd.clone(), ..p }).collect();
        let case = case(flat_plan(processors, 1.5, &[1000.0]), vec![stream("t", 1000.0, 1000.0)]);
        let mut scheduler = Scheduler::new(case.clone(), Options::default());
        for id in 0..3 {
            let request = case.streams[0].request(RequestId(id), StreamId(0), Time::ZERO, Time::ZERO);
            scheduler.handle(Time::ZERO, Event::Arrived(request)).unwrap();
            loop {
                match scheduler.poll() {
                    Next::Decide(observation) if id == 2 => return observation.processors[2].slowdown,
                    // The first candidate is a launch on the first processor that is free.
                    Next::Decide(_) => scheduler.decide(Decision(0)).unwrap(),
                    Next::Launch(_) => break,
                    other => panic!("nothing to decide: {other:?}"),
                }
            }
        }
        unreachable!()
    };
    assert_eq!(seen(None), 2.0);
    assert_eq!(seen(crowd), 2.25);
}

#[test]
fn contention_has_a_direction() {
    let mut p = flat_plan(named(2), 1.0, &[1000.0]);
    p.contention[0][1] = 3.0;
    let case = case(p, vec![stream("t", 10.0, 10.0)]);
    let mut d = Emulator::new(case, exact(), 7, Time::ZERO);
    d.launch(&launch(0, 0, 0));
    d.launch(&launch(1, 0, 1));
    // 1 is not disturbed; 0 goes at a third until 1000 and then has 667 left.
    let times = finished(&mut d);
    assert_eq!(times[0], (1, 1000.0));
    assert!(times[1].0 == 0 && (times[1].1 - 1666.667).abs() < 0.002, "{times:?}");
}

#[test]
fn slots_of_one_processor_do_not_disturb_each_other() {
    let two = ProcessorSpec { slots: 2, ..processor("two") };
    let mut d = device(vec![two], 2.0, &[1000.0], exact());
    d.launch(&launch(0, 0, 0));
    d.launch(&launch(1, 0, 0));
    assert_eq!(finished(&mut d), [(0, 1000.0), (1, 1000.0)]);
}

#[test]
fn deciding_and_copying_take_time() {
    let slow = ProcessorSpec { copy_us: 50.0, copy_gbps: 1.0, ..processor("far") };
    let config = Config { decision_us: 100.0, candidate_us: 2.0, ..exact() };
    let mut d = device(vec![slow, processor("near")], 1.0, &[1000.0], config);
    d.decided(Decision(0), 5);
    d.launch(&launch(0, 0, 0));
    // 100 + 5 x 2 to decide, 50 to begin the copy, 1 for 1000 bytes.
    let events = drain(&mut d);
    let done = &completions(&events)[0];
    assert_eq!((done.started, done.finished), (us(110.0), us(1161.0)));
    // Inputs that are there already cost nothing.
    let mut there = launch(1, 0, 0);
    there.inputs_on = Some(ProcessorId(0));
    d.launch(&there);
    assert_eq!(finished(&mut d), [(1, 2161.0)]);
}

#[test]
fn a_launch_costs_something_beside_its_segments_once() {
    let spec = ProcessorSpec { launch_us: 30.0, ..processor("p") };
    let row: &[Option<f64>] = &[Some(100.0)];
    let plan = plan(vec![spec], 1.0, vec![variant("v", "t", 0.9, &[row, row, row])]);
    let case = case(plan, vec![stream("t", 10.0, 10.0)]);
    // Expected and emulated are the same, and three segments in one launch cost it once.
    for (last, expected) in [(0, 130.0), (2, 330.0)] {
        assert_eq!(case.variants[0].latency_ns(ProcessorId(0), 0, last), expected * 1e3);
        let mut d = Emulator::new(case.clone(), exact(), 7, Time::ZERO);
        d.launch(&Launch { last, ..launch(0, 0, 0) });
        assert_eq!(finished(&mut d), [(0, expected)]);
    }
}

#[test]
fn an_event_while_the_decider_is_busy_is_heard_later() {
    let config = Config { decision_us: 500.0, ..exact() };
    let mut d = device(named(1), 1.0, &[100.0], config);
    d.launch(&launch(0, 0, 0));
    d.decided(Decision(0), 1);
    let (heard, event) = d.wait(None).expect("a completion");
    assert_eq!(heard, us(500.0));
    assert!(matches!(event, Event::Completed(c) if c.finished == us(100.0)));
}

#[test]
fn energy_by_hand() {
    // 1 mJ as planned; twice as long as alone: 1000 us more at half of 2 W is 1 mJ.
    let mut d = device(named(2), 2.0, &[1000.0], exact());
    d.launch(&launch(0, 0, 0));
    d.launch(&launch(1, 0, 1));
    for c in completions(&drain(&mut d)) {
        assert!((c.energy_mj - 2.0).abs() < 1e-6, "{c:?}");
    }
}

#[test]
fn a_dead_processor_fails_its_launches() {
    let faults = vec![die("p0", 0.4, 0.8)];
    let mut d = device(named(2), 1.0, &[1000.0], Config { faults, ..exact() });
    d.launch(&launch(0, 0, 0));
    d.launch(&launch(1, 0, 1));
    let down = Event::Health { processor: ProcessorId(0), up: false };
    assert_eq!(d.wait(None), Some((us(400.0), down)));
    let Some((at, Event::Completed(c))) = d.wait(None) else { panic!("expected the end of launch 0") };
    assert_eq!((at, c.finished, c.launch), (us(400.0), us(400.0), LaunchId(0)));
    assert_eq!(c.failure.as_deref(), Some("the emulated processor died"));
    assert!((c.energy_mj - 0.4).abs() < 1e-6, "it did 0.4 of its work: {c:?}");
    // One that is launched all the same fails at once and takes nothing.
    d.launch(&launch(2, 0, 0));
    let Some((at, Event::Completed(c))) = d.wait(None) else { panic!("expected the end of launch 2") };
    assert_eq!((at, c.launch, c.energy_mj), (us(400.0), LaunchId(2), 0.0));
    assert!(c.failure.is_some());
    let up = Event::Health { processor: ProcessorId(0), up: true };
    assert_eq!(d.wait(None), Some((us(800.0), up)));
    assert_eq!(finished(&mut d), [(1, 1000.0)]);
}

#[test]
fn overlapping_deaths_are_one() {
    let faults = vec![die("p0", 1.0, 3.0), die("p0", 2.0, 5.0), die("p0", 5.0, 6.0), die("p0", 9.0, 8.0)];
    let mut d = device(named(1), 1.0, &[10.0], Config { faults, ..exact() });
    assert_eq!(health(&mut d), [(ms(1.0), false), (ms(6.0), true)]);
}

#[test]
fn spread_and_failures_have_the_planned_rates() {
    let mut spread = variant("v", "t", 0.9, &[&[Some(1000.0)]]);
    spread.segments[0].costs[0] =
        Some(cosched_env::plan::Cost { p50_us: 950.0, p95_us: 1400.0, ..cost(1000.0, 1.0) });
    let case = case(plan(named(1), 1.0, vec![spread]), vec![stream("t", 10.0, 10.0)]);
    let config = Config { spread: true, failure_rate: 0.2, ..exact() };
    let mut d = Emulator::new(case, config, 11, Time::ZERO);
    let mut times = Vec::new();
    let mut failures = 0;
    let n = 20_000;
    for id in 0..n {
        d.launch(&launch(id, 0, 0));
        let done = &completions(&drain(&mut d))[0];
        times.push(done.finished.since(done.started).0 as f64 / 1e3);
        failures += u32::from(done.failure.is_some());
    }
    let mean = times.iter().sum::<f64>() / n as f64;
    assert!((mean - 1000.0).abs() < 10.0, "mean {mean}");
    times.sort_by(f64::total_cmp);
    let ratio = times[n as usize * 95 / 100] / times[n as usize / 2];
    assert!((ratio - 1400.0 / 950.0).abs() < 0.03, "p95 / p50 is {ratio}");
    let rate = f64::from(failures) / n as f64;
    assert!((rate - 0.2).abs() < 0.01, "{rate} failed");
}
