//! The scheduler in emulated worlds under a policy that chooses at random: every rule of `common::books` holds on every random case.
//! Worlds that break the protocol, and logs with something missing, must be rejected.

mod common;

use common::{
    Item, RandomPolicy, Setup, case, check, ends, exact, ms, plan, processor, random_setup, run, run_in,
};
use common::{stream, variant};
use cosched_env::case::{ProcessorId, StreamId};
use cosched_env::emulator::{Config, Emulator, Fault};
use cosched_env::episode::{End, Episode};
use cosched_env::event::{Ended, Event, Launch, Outcome};
use cosched_env::observation::{Action, Observation};
use cosched_env::scheduler::{Next, Options, ProtocolError, Scheduler};
use cosched_env::streams::{Arrivals, rng};
use cosched_env::time::Time;
use cosched_env::world::{Decision, Policy, World};
use std::collections::VecDeque;

const SEEDS: u64 = 400;

fn random_policy(seed: u64) -> RandomPolicy {
    RandomPolicy(rng(seed, "policy", 0))
}

/// Always the first candidate: launches whatever can be launched.
struct First;

impl Policy for First {
    fn decide(&mut self, _: &Observation<'_>) -> Decision {
        Decision(0)
    }
}

#[test]
fn every_rule_holds_on_random_cases() {
    let (mut answered, mut late, mut dropped, mut expired, mut replaced, mut failed) = (0, 0, 0, 0, 0, 0);
    for seed in 0..SEEDS {
        let setup = random_setup(seed);
        for policy in [&mut random_policy(seed) as &mut dyn Policy, &mut First] {
            let log = run(&setup, policy).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            check(&setup.case, &log).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            let due = Arrivals::new(setup.case.clone(), setup.seed, setup.horizon).count();
            // Those that follow others' answers are counted by the books.
            let of_itself = |e: &&Ended| setup.case.stream(e.request.stream).after.is_none();
            assert_eq!(ends(&log).filter(of_itself).count(), due, "seed {seed}: arrived and ended");
            for end in ends(&log) {
                match end.outcome {
                    Outcome::Answered => answered += 1,
                    Outcome::Late => late += 1,
                    Outcome::Dropped => dropped += 1,
                    Outcome::Expired => expired += 1,
                    Outcome::Replaced => replaced += 1,
                    Outcome::Failed(_) => failed += 1,
                }
            }
        }
    }
    // The generator has to reach every way to end.
    assert!([answered, late, dropped, expired, replaced, failed].iter().all(|&n| n > 100));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let mut differ = 0;
    for seed in 0..50 {
        let setup = random_setup(seed);
        let logs = [0, 1].map(|_| run(&setup, &mut random_policy(seed)).expect("the rules hold"));
        assert!(logs[0] == logs[1], "seed {seed}");
        let other =
            run(&Setup { seed: 99, ..setup.clone() }, &mut random_policy(seed)).expect("the rules hold");
        differ += usize::from(logs[0] != other);
    }
    // Some cases have nothing random in them.
    assert!(differ > 40, "another seed, the same run: {differ} of 50 differ");
}

#[test]
fn an_episode_is_the_same_run() {
    for seed in 0..100 {
        let Setup { case, options, config, seed: run_seed, horizon } = random_setup(seed);
        let setup = random_setup(seed);
        let log = run(&setup, &mut random_policy(seed)).expect("the rules hold");
        let mut episode = Episode::new(case, options, config, run_seed, horizon, Time::NEVER);
        let mut policy = random_policy(seed);
        let mut reward = 0.0;
        let end = loop {
            let step = episode.advance().expect("the emulator keeps the protocol");
            reward += step.reward;
            if let Some(end) = step.end {
                break end;
            }
            let observation = episode.observation().expect("not over");
            let (decision, of) = (policy.decide(&observation), observation.candidates.len());
            episode.decide(decision, of).expect("legal");
        };
        assert_eq!(end, End::Finished, "seed {seed}");
        let ended: Vec<_> = episode.take_ended().collect();
        assert!(ended.iter().eq(ends(&log)), "seed {seed}: an episode differs from a driven run");
        let utility: f64 = ended.iter().map(|e| e.utility).sum();
        assert!((utility - reward).abs() < 1e-9, "seed {seed}: rewards {reward}, utilities {utility}");
    }
}

#[test]
fn an_episode_is_truncated_at_its_limit() {
    let Setup { case, options, config, seed, horizon } = random_setup(3);
    let mut episode = Episode::new(case, options, config, seed, horizon, ms(50.0));
    loop {
        let step = episode.advance().expect("the emulator keeps the protocol");
        if step.end.is_some() {
            assert_eq!(step.end, Some(End::Truncated));
            // What was cut off had a future: a learner sees where.
            assert!(episode.observation().is_some_and(|o| o.now >= ms(50.0)));
            return;
        }
        assert!(episode.observation().is_some_and(|o| o.now < ms(50.0)));
        episode.decide(Decision(0), 1).expect("legal");
    }
}

#[test]
fn a_request_of_a_dead_processor_is_retried_elsewhere() {
    let fast = variant("fast", "t", 0.9, &[&[Some(1000.0), None], &[Some(1000.0), Some(9000.0)]]);
    let slow = variant("slow", "t", 0.8, &[&[None, Some(3000.0)]]);
    let plan = plan(vec![processor("a"), processor("b")], 1.0, vec![fast, slow]);
    let fault = |from_ms| Fault { processor: "a".into(), from_ms, to_ms: 1000.0, ..Fault::default() };
    let at = |from_ms: f64| Setup {
        case: case(plan.clone(), vec![common::stream("t", 100.0, 50.0)]),
        options: Options::default(),
        config: Config { faults: vec![fault(from_ms)], ..exact() },
        seed: 1,
        horizon: ms(50.0),
    };
    // It dies in the first segments: another variant may serve the request.
    let log = run(&at(0.5), &mut First).expect("the rules hold");
    let end = ends(&log).next().expect("one request");
    assert_eq!((end.outcome.clone(), end.launches, end.at), (Outcome::Answered, 2, ms(3.5)));
    // It dies in the second segment, when the first is done: the rest runs elsewhere, in the same variant.
    struct OneByOne;
    impl Policy for OneByOne {
        fn decide(&mut self, observation: &Observation<'_>) -> Decision {
            let single = observation.candidates.iter().position(|c| match c.action {
                Action::Launch { variant, first, last, .. } => variant.0 == 0 && first == last,
                _ => false,
            });
            Decision(single.expect("a launch of one segment"))
        }
    }
    let log = run(&at(1.5), &mut OneByOne).expect("the rules hold");
    let launches = log.iter().filter_map(|i| match i {
        Item::Launched(_, l) => Some((l.variant.0, l.first, l.processor.0)),
        _ => None,
    });
    assert_eq!(launches.collect::<Vec<_>>(), [(0, 0, 0), (0, 1, 0), (0, 1, 1)]);
    let end = ends(&log).next().expect("one request");
    assert_eq!((end.outcome.clone(), end.at), (Outcome::Answered, ms(10.5)));
}

#[test]
fn failures_are_bounded() {
    let v = variant("v", "t", 0.9, &[&[Some(1000.0)]]);
    for max_failures in 1..=4 {
        let setup = Setup {
            case: case(plan(vec![processor("a")], 1.0, vec![v.clone()]), vec![stream("t", 100.0, 50.0)]),
            options: Options { window: 1, max_failures },
            config: Config { failure_rate: 1.0, ..exact() },
            seed: 1,
            horizon: ms(50.0),
        };
        let log = run(&setup, &mut First).expect("the rules hold");
        let end = ends(&log).next().expect("one request");
        assert_eq!(end.launches, max_failures);
        assert_eq!(end.outcome, Outcome::Failed("the emulated launch failed".to_owned()));
    }
}

/// A world that does wrong with some of the events of a right one.
struct Saboteur<W> {
    world: W,
    countdown: usize,
    deed: Deed,
    again: VecDeque<(Time, Event)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Deed {
    Nothing,
    LoseCompletion,
    DoubleCompletion,
    DoubleArrival,
    LateCompletion,
    StrangeLaunch,
    StrangeStream,
    TimeGoesBack,
    MoreEnergy,
}

impl<W: World> World for Saboteur<W> {
    fn launch(&mut self, launch: &Launch) {
        self.world.launch(launch);
    }

    fn ended(&mut self, ended: &Ended) {
        self.world.ended(ended);
    }

    fn wait(&mut self, until: Option<Time>) -> Option<(Time, Event)> {
        if let Some(again) = self.again.pop_front() {
            return Some(again);
        }
        let (mut now, mut event) = self.world.wait(until)?;
        let concerned = match self.deed {
            Deed::Nothing => false,
            Deed::DoubleArrival | Deed::StrangeStream => matches!(event, Event::Arrived(_)),
            _ => matches!(event, Event::Completed(_)),
        };
        if !concerned || self.countdown > 0 {
            self.countdown -= usize::from(concerned);
            return Some((now, event));
        }
        self.countdown = usize::MAX;
        match (self.deed, &mut event) {
            (Deed::LoseCompletion, _) => return self.wait(until),
            (Deed::DoubleCompletion | Deed::DoubleArrival, _) => self.again.push_back((now, event.clone())),
            (Deed::StrangeLaunch, Event::Completed(c)) => c.launch.0 += 1000,
            (Deed::StrangeStream, Event::Arrived(r)) => r.stream = StreamId(999),
            (Deed::TimeGoesBack, _) => now = Time(now.0.saturating_sub(1_000_000)),
            (Deed::LateCompletion, Event::Completed(c)) => c.finished = Time(c.finished.0 + 1_000_000_000),
            (Deed::MoreEnergy, Event::Completed(c)) => c.energy_mj = -1.0,
            _ => {}
        }
        Some((now, event))
    }
}

fn sabotaged(seed: u64, deed: Deed) -> Result<(), String> {
    let Setup { case, options, config, seed, horizon } = random_setup(seed);
    let world = Emulator::new(case.clone(), config, seed, horizon);
    let mut world = Saboteur { world, countdown: 5, deed, again: VecDeque::new() };
    let log = run_in(&mut world, &case, options, &mut First)?;
    check(&case, &log)
}

#[test]
fn wrong_worlds_are_caught() {
    let caught = |deed: Deed| {
        // Cases with too few events have nothing to spoil.
        let all: Vec<_> = (0..40).filter_map(|seed| sabotaged(seed, deed).err()).collect();
        assert!(all.len() >= 30, "{deed:?} was caught only {} times", all.len());
        all
    };
    assert_eq!((0..40).filter(|&seed| sabotaged(seed, Deed::Nothing).is_err()).count(), 0);
    assert!(caught(Deed::LoseCompletion).iter().all(|w| w.contains("never ended")));
    assert!(caught(Deed::DoubleCompletion).iter().all(|w| w.contains("which is not running")));
    assert!(caught(Deed::DoubleArrival).iter().all(|w| w.contains("the number was used before")));
    assert!(caught(Deed::StrangeLaunch).iter().all(|w| w.contains("which is not running")));
    assert!(caught(Deed::StrangeStream).iter().all(|w| w.contains("names stream 999")));
    assert!(caught(Deed::TimeGoesBack).iter().all(|w| w.contains("wrong order") || w.contains("went back")));
    assert!(caught(Deed::LateCompletion).iter().all(|w| w.contains("wrong order of times")));
    assert!(caught(Deed::MoreEnergy).iter().all(|w| w.contains("wrong energy")));
}

#[test]
fn a_log_with_something_missing_or_doubled_is_rejected() {
    for seed in 0..20 {
        let setup = random_setup(seed);
        let log = run(&setup, &mut random_policy(seed)).expect("the rules hold");
        for (index, item) in log.iter().enumerate() {
            let matters = match item {
                Item::Launched(..) | Item::Ended(_) => true,
                Item::Event(_, event) => matches!(event, Event::Arrived(_) | Event::Completed(_)),
                Item::Decided(..) => false,
            };
            if !matters {
                continue;
            }
            let mut missing = log.clone();
            missing.remove(index);
            assert!(check(&setup.case, &missing).is_err(), "seed {seed}: nobody misses {item:?}");
            let mut doubled = log.clone();
            doubled.insert(index, item.clone());
            assert!(check(&setup.case, &doubled).is_err(), "seed {seed}: nobody minds a second {item:?}");
        }
    }
}

#[test]
fn a_log_with_something_changed_is_rejected() {
    type Change = fn(&mut Item) -> bool;
    let changes: [(&str, Change); 6] = [
        ("less is loaded", |item| match item {
            Item::Launched(_, l) if l.load_bytes > 0 => {
                l.load_bytes -= 1;
                true
            }
            _ => false,
        }),
        ("more is loaded", |item| match item {
            Item::Launched(_, l) if l.load_bytes == 0 => {
                l.load_bytes = 1;
                true
            }
            _ => false,
        }),
        ("its tensors are elsewhere", |item| match item {
            Item::Launched(_, l) if l.inputs_on.is_some() => {
                l.inputs_on = None;
                true
            }
            _ => false,
        }),
        ("its chain began at another time", |item| match item {
            Item::Event(_, Event::Arrived(r)) if r.origin != r.arrival => {
                let due = r.deadline.since(r.origin);
                r.origin = r.arrival;
                r.deadline = r.origin + due;
                true
            }
            _ => false,
        }),
        ("it was replaced", |item| match item {
            Item::Ended(e) if e.outcome == Outcome::Dropped => {
                e.outcome = Outcome::Replaced;
                true
            }
            _ => false,
        }),
        ("it is worth more", |item| match item {
            Item::Ended(e) => {
                e.utility += 1e-3;
                true
            }
            _ => false,
        }),
    ];
    for (what, change) in changes {
        let mut changed = 0;
        for seed in 0..40 {
            let setup = random_setup(seed);
            let mut log = run(&setup, &mut random_policy(seed)).expect("the rules hold");
            if log.iter_mut().any(change) {
                changed += 1;
                assert!(check(&setup.case, &log).is_err(), "seed {seed}: nobody minds that {what}");
            }
        }
        assert!(changed >= 8, "only {changed} logs could be changed so that {what}");
    }
}

#[test]
fn refused_events_and_decisions_change_nothing() {
    let setup = random_setup(5);
    let mut scheduler = Scheduler::new(setup.case.clone(), Options::default());
    let mut request = Arrivals::new(setup.case.clone(), 1, setup.horizon).next().expect("an arrival");
    scheduler.handle(request.arrival, Event::Arrived(request.clone())).expect("legal");
    let candidates = match scheduler.poll() {
        Next::Decide(observation) => observation.candidates.len(),
        other => panic!("expected a decision, got {other:?}"),
    };
    let wrong = scheduler.decide(Decision(candidates));
    assert_eq!(wrong, Err(ProtocolError::NoSuchCandidate { chosen: candidates, candidates }));
    assert!(matches!(scheduler.poll(), Next::Decide(o) if o.candidates.len() == candidates));
    request.stream = StreamId(77);
    assert!(scheduler.handle(request.arrival, Event::Arrived(request)).is_err());
    assert_eq!(scheduler.active(), 1);
    scheduler.decide(Decision(candidates - 1)).expect("wait is legal");
    // A choice cannot be taken twice.
    assert!(scheduler.decide(Decision(0)).is_err());
    // A processor that the plan does not have is no harm.
    let strange = Event::Health { processor: ProcessorId(99), up: false };
    scheduler.handle(Time(0), strange).expect("ignored");
}
