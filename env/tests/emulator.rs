//! The emulated device against numbers worked out by hand, and against a slow twin that integrates in small steps.

mod common;

use common::{case, cost, exact, ms, plan, processor, stream, variant};
use cosched_env::case::{Case, ProcessorId, VariantId};
use cosched_env::emulator::{Config, Emulator, Fault};
use cosched_env::event::{Completion, Event, Launch, LaunchId, RequestId};
use cosched_env::plan::{Plan, ProcessorSpec};
use cosched_env::streams::rng;
use cosched_env::time::Time;
use cosched_env::world::{Decision, World};
use rand::RngExt;
use std::sync::Arc;

fn us(us: f64) -> Time {
    ms(us / 1e3)
}

/// An emulator without arrivals over variants of one segment; `works[v]` is the latency of variant `v` everywhere, in microseconds.
fn device(processors: Vec<ProcessorSpec>, contention: f64, works: &[f64], config: Config) -> Emulator {
    Emulator::new(flat_case(processors, contention, works), config, 7, Time::ZERO)
}

fn flat_case(processors: Vec<ProcessorSpec>, contention: f64, works: &[f64]) -> Arc<Case> {
    let row = |us: f64| vec![Some(us); processors.len()];
    let variants = works.iter().enumerate().map(|(v, &w)| variant(&format!("v{v}"), "t", 0.9, &[&row(w)]));
    let variants = variants.collect();
    case(plan(processors.clone(), contention, variants), vec![stream("t", 10.0, 10.0)])
}

fn named(n: usize) -> Vec<ProcessorSpec> {
    (0..n).map(|p| processor(&format!("p{p}"))).collect()
}

fn launch(id: u64, variant: u16, processor: u16) -> Launch {
    Launch {
        id: LaunchId(id),
        request: RequestId(id),
        variant: VariantId(variant),
        first: 0,
        last: 0,
        processor: ProcessorId(processor),
        inputs_on: None,
        load_bytes: 0,
    }
}

/// All events until nothing happens any more.
fn drain(world: &mut dyn World) -> Vec<(Time, Event)> {
    std::iter::from_fn(|| world.wait(None)).collect()
}

fn completions(events: &[(Time, Event)]) -> Vec<Completion> {
    let only = events.iter().filter_map(|(_, e)| match e {
        Event::Completed(c) => Some(c.clone()),
        _ => None,
    });
    only.collect()
}

/// (launch, finished in microseconds) in order of completion.
fn finished(world: &mut dyn World) -> Vec<(u64, f64)> {
    completions(&drain(world)).iter().map(|c| (c.launch.0, c.finished.0 as f64 / 1e3)).collect()
}

fn alarm(world: &mut dyn World, at: Time) {
    assert_eq!(world.wait(Some(at)), Some((at, Event::Alarm)));
}

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
fn contention_has_a_direction() {
    let mut p: Plan = (*flat_case(named(2), 1.0, &[1000.0])).clone().plan;
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
    let fault = Fault { processor: "p0".into(), from_ms: 0.4, to_ms: 0.8, ..Fault::default() };
    let mut d = device(named(2), 1.0, &[1000.0], Config { faults: vec![fault], ..exact() });
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
    let fault = |from_ms, to_ms| Fault { processor: "p0".into(), from_ms, to_ms, ..Fault::default() };
    let faults = vec![fault(1.0, 3.0), fault(2.0, 5.0), fault(5.0, 6.0), fault(9.0, 8.0)];
    let mut d = device(named(1), 1.0, &[10.0], Config { faults, ..exact() });
    let health: Vec<_> = drain(&mut d)
        .into_iter()
        .map(|(at, e)| match e {
            Event::Health { up, .. } => (at, up),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(health, [(ms(1.0), false), (ms(6.0), true)]);
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

/// A launch of the twin: when it starts, where, and its work, all in steps.
struct Job {
    start: u64,
    processor: u16,
    work: f64,
}

const STEP_NS: u64 = 100;

/// The slow twin: in every small step each launch that has started and has work left makes progress by its present speed.
/// With `retime` off, speeds stay as they were at the start, which is wrong.
fn twin(case: &Case, jobs: &[Job], retime: bool) -> Vec<u64> {
    let mut left: Vec<f64> = jobs.iter().map(|j| j.work).collect();
    let mut ends = vec![0; jobs.len()];
    let mut first_speed = vec![0.0; jobs.len()];
    let mut step = 0;
    while left.iter().any(|&w| w > 0.0) {
        let runs = |i: usize, left: &[f64]| jobs[i].start <= step && left[i] > 0.0;
        let before = left.clone();
        for i in (0..jobs.len()).filter(|&i| runs(i, &before)) {
            let mut slowdown = 1.0;
            for o in (0..jobs.len()).filter(|&o| runs(o, &before)) {
                if jobs[o].processor != jobs[i].processor {
                    slowdown +=
                        case.plan.contention[jobs[i].processor as usize][jobs[o].processor as usize] - 1.0;
                }
            }
            if first_speed[i] == 0.0 {
                first_speed[i] = 1.0 / slowdown;
            }
            left[i] -= if retime { 1.0 / slowdown } else { first_speed[i] };
            if left[i] <= 0.0 {
                ends[i] = (step + 1) * STEP_NS;
            }
        }
        step += 1;
    }
    ends
}

/// Largest difference between emulator and twin, in nanoseconds.
fn difference(seed: u64, retime: bool) -> f64 {
    let rng = &mut rng(seed, "twin", 0);
    let works: Vec<f64> =
        (0..6).map(|_| f64::from(rng.random_range(500..20_000)) * STEP_NS as f64 / 1e3).collect();
    let mut plan = flat_case(named(4), 1.0, &works).plan.clone();
    for row in &mut plan.contention {
        row.fill_with(|| rng.random_range(1.0..2.5));
    }
    for p in &mut plan.processors {
        p.slots = 2;
    }
    let case = case(plan, vec![stream("t", 10.0, 10.0)]);
    let mut jobs: Vec<Job> = (0..6)
        .map(|v| Job {
            start: rng.random_range(0..20_000),
            processor: rng.random_range(0..4),
            work: works[v] * 1e3 / STEP_NS as f64,
        })
        .collect();
    let mut order: Vec<usize> = (0..6).collect();
    order.sort_by_key(|&v| jobs[v].start);
    let mut d = Emulator::new(case.clone(), exact(), seed, Time::ZERO);
    let mut ends = [0u64; 6];
    let mut note = |event: Event| match event {
        Event::Completed(c) => {
            ends[c.launch.0 as usize] = c.finished.0;
            true
        }
        _ => false,
    };
    for &v in &order {
        let at = Time(jobs[v].start * STEP_NS);
        while let Some((_, event)) = d.wait(Some(at)) {
            if !note(event) {
                break;
            }
        }
        d.launch(&launch(v as u64, v as u16, jobs[v].processor));
    }
    for (_, event) in drain(&mut d) {
        note(event);
    }
    let twins = twin(&case, &jobs, retime);
    jobs.clear();
    ends.iter().zip(twins).map(|(&a, b)| (a as f64 - b as f64).abs()).fold(0.0, f64::max)
}

#[test]
fn the_emulator_agrees_with_its_slow_twin() {
    for seed in 0..60 {
        let off = difference(seed, true);
        // Each end may be a step late in the twin, which shifts what overlaps it.
        assert!(off <= 20.0 * STEP_NS as f64, "seed {seed}: {off} ns apart");
    }
}

#[test]
fn a_twin_that_does_not_retime_is_found_out() {
    let wrong = (0..60).filter(|&seed| difference(seed, false) > 20.0 * STEP_NS as f64).count();
    assert!(wrong >= 50, "only {wrong} of 60");
}
