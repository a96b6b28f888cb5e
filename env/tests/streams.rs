//! Streams by hand: traces, requests that depend on answers, windows in which a stream is open, queues that keep only the latest
//! frame, least accuracy. It refuses statistics of the other kinds; `arrivals.rs` has those.

mod common;
#[path = "common/hand.rs"]
mod hand;

use common::{Item, case, ends, exact, ms, plan, processor, run_in, stream, variant};
use cosched_env::case::Case;
use cosched_env::emulator::{Config, Emulator};
use cosched_env::event::{Event, Outcome, Request};
use cosched_env::observation::Observation;
use cosched_env::plan::Plan;
use cosched_env::scenario::{ArrivalKind, Queue, Scenario, Stream};
use cosched_env::scheduler::Options;
use cosched_env::streams::Arrivals;
use cosched_env::time::Time;
use cosched_env::world::{Decision, Policy};
use hand::Hand;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One processor; a good variant of 2 ms in two segments and a poor one of 1 ms.
fn one_plan() -> Plan {
    let good = variant("good", "t", 0.9, &[&[Some(1000.0)], &[Some(1000.0)]]);
    let poor = variant("poor", "t", 0.5, &[&[Some(1000.0)]]);
    plan(vec![processor("p")], 1.0, vec![good, poor])
}

fn trace(times_ms: &[f64]) -> Stream {
    Stream { kind: ArrivalKind::Trace, times_ms: times_ms.to_vec(), ..stream("t", 1.0, 50.0) }
}

fn named(name: &str, stream: Stream) -> Stream {
    Stream { name: name.to_owned(), ..stream }
}

fn after(parent: &str, probability: f64) -> Stream {
    let kind = ArrivalKind::Dependent;
    Stream { kind, after: parent.to_owned(), probability, ..stream("t", 1.0, 50.0) }
}

/// Arrivals in milliseconds of a case that nobody answers.
fn arrivals(streams: Vec<Stream>, horizon_ms: f64) -> Vec<f64> {
    let all = Arrivals::new(case(one_plan(), streams), 1, ms(horizon_ms));
    all.map(|r| r.arrival.0 as f64 / 1e6).collect()
}

struct First;

impl Policy for First {
    fn decide(&mut self, _: &Observation<'_>) -> Decision {
        Decision(0)
    }
}

/// Gives up whatever comes.
struct Drops;

impl Policy for Drops {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        Decision(observation.candidates.len() - 2)
    }
}

fn run(case: &Arc<Case>, config: Config, seed: u64, policy: &mut dyn Policy) -> Vec<Item> {
    let mut emulator = Emulator::new(case.clone(), config, seed, ms(2000.0));
    run_in(&mut emulator, case, Options::default(), policy).expect("the rules hold")
}

/// The requests of a stream in a log.
fn of_stream(log: &[Item], stream: u16) -> Vec<&Request> {
    let requests = log.iter().filter_map(|item| match item {
        Item::Event(_, Event::Arrived(r)) if r.stream.0 == stream => Some(r),
        _ => None,
    });
    requests.collect()
}

fn refused(streams: Vec<Stream>) -> (String, String) {
    let scenario = Scenario { name: "test".to_owned(), streams, objective: Default::default() };
    let error = Case::new(one_plan(), scenario).expect_err("refused");
    (error.key, error.problem)
}

// ---- traces ----

#[test]
fn a_trace_comes_at_its_times_and_no_more() {
    let times = [0.0, 1.5, 1.5, 7.25, 40.0];
    assert_eq!(arrivals(vec![trace(&times)], 100.0), times);
    // Requests before the horizon only.
    assert_eq!(arrivals(vec![trace(&times)], 40.0), times[..4]);
    // Ties go in the order of streams, each in its own order.
    assert_eq!(arrivals(vec![trace(&[1.0, 3.0]), trace(&[2.0, 3.0])], 9.0), [1.0, 2.0, 3.0, 3.0]);
}

#[test]
fn wrong_traces_are_refused() {
    assert_eq!(refused(vec![trace(&[])]).0, "stream[0].times_ms");
    assert_eq!(refused(vec![trace(&[3.0, 2.0])]).0, "stream[0].times_ms[1]");
    assert_eq!(refused(vec![trace(&[-1.0])]).0, "stream[0].times_ms[0]");
    let periodic = Stream { times_ms: vec![1.0], ..stream("t", 1.0, 50.0) };
    assert_eq!(refused(vec![periodic]).0, "stream[0].times_ms");
}

// ---- dependent streams ----

#[test]
fn what_depends_comes_with_the_answer_and_counts_from_its_origin() {
    let first = named("a", Stream { deadline_ms: 3.0, ..trace(&[1.0, 10.0]) });
    let second = named("b", Stream { deadline_ms: 6.0, expire_ms: 9.0, ..after("a", 1.0) });
    let third = named("c", Stream { deadline_ms: 6.5, ..after("b", 1.0) });
    let case = case(one_plan(), vec![first, second, third]);
    let log = run(&case, exact(), 1, &mut First);
    let told = |stream| -> Vec<[f64; 4]> {
        let all = of_stream(&log, stream);
        all.iter().map(|r| [r.arrival, r.origin, r.deadline, r.expires].map(|t| t.0 as f64 / 1e6)).collect()
    };
    assert_eq!(told(0), [[1.0, 1.0, 4.0, 7.0], [10.0, 10.0, 13.0, 16.0]]);
    // Each link takes 2 ms; deadline and expiry count from the start of the chain.
    assert_eq!(told(1), [[3.0, 1.0, 7.0, 10.0], [12.0, 10.0, 16.0, 19.0]]);
    assert_eq!(told(2), [[5.0, 1.0, 7.5, 14.0], [14.0, 10.0, 16.5, 23.0]]);
    assert!(ends(&log).all(|e| e.outcome == Outcome::Answered));
}

#[test]
fn late_answers_are_followed_and_misses_are_not() {
    let parent =
        |deadline_ms, expire_ms| named("a", Stream { deadline_ms, expire_ms, ..trace(&[1.0, 1.0, 1.0]) });
    let follow = |parent: Stream, config: Config, policy: &mut dyn Policy| {
        let case = case(one_plan(), vec![parent, after("a", 1.0)]);
        of_stream(&run(&case, config, 1, policy), 1).len()
    };
    // All three late, after 2, 4 and 6 ms.
    assert_eq!(follow(parent(1.0, 50.0), exact(), &mut First), 3);
    // The third expires after 3 ms: the second, which runs then, is answered all the same.
    assert_eq!(follow(parent(1.0, 3.0), exact(), &mut First), 2);
    assert_eq!(follow(parent(1.0, 50.0), exact(), &mut Drops), 0);
    let failing = Config { failure_rate: 1.0, ..exact() };
    assert_eq!(follow(parent(1.0, 50.0), failing, &mut First), 0);
}

#[test]
fn what_depends_is_not_lost_behind_the_horizon() {
    let parent = named("a", stream("t", 1.0, 50.0));
    let case = case(one_plan(), vec![parent, after("a", 1.0)]);
    let mut emulator = Emulator::new(case.clone(), exact(), 1, ms(0.5));
    let log = run_in(&mut emulator, &case, Options::default(), &mut First).expect("the rules hold");
    // The stream's own next request, at 1 ms, is past the horizon; the answer is followed at 2 ms.
    let arrivals: Vec<_> = of_stream(&log, 1).iter().map(|r| r.arrival).collect();
    assert_eq!(arrivals, [ms(2.0)]);
}

/// Origins of what followed a parent every 3 ms for two seconds.
fn followed(probability: f64, seed: u64, config: Config) -> BTreeSet<Time> {
    let parent = named("a", Stream { deadline_ms: 500.0, expire_ms: 1e4, ..stream("t", 3.0, 500.0) });
    let child = Stream { deadline_ms: 900.0, expire_ms: 1e4, ..after("a", probability) };
    let case = case(one_plan(), vec![parent, child]);
    let log = run(&case, config, seed, &mut First);
    let answered = ends(&log).filter(|e| e.request.stream.0 == 0).count();
    assert_eq!(answered, 667);
    of_stream(&log, 1).iter().map(|r| r.origin).collect()
}

/// Whether so many of 20 x 667 are within four standard deviations of half.
fn about_half(followed: usize) -> bool {
    let n = 20.0 * 667.0f64;
    (followed as f64 - n / 2.0).abs() < 4.0 * (n / 4.0).sqrt()
}

#[test]
fn the_probability_is_how_often_something_follows() {
    assert_eq!(followed(0.0, 1, exact()).len(), 0);
    assert_eq!(followed(1.0, 1, exact()).len(), 667);
    let halves: Vec<_> = (0..20).map(|seed| followed(0.5, seed, exact())).collect();
    let all: usize = halves.iter().map(BTreeSet::len).sum();
    assert!(about_half(all), "{all} of {}", 20 * 667);
    assert!(!about_half((0.45 * 20.0 * 667.0) as usize), "a wrong probability would not show");
    assert!(halves.windows(2).all(|w| w[0] != w[1]), "seeds are alike");
}

#[test]
fn what_follows_does_not_hang_on_how_it_was_served() {
    // The same requests follow on a device that decides slowly and answers at other times.
    let slow = Config { decision_us: 300.0, ..exact() };
    for seed in 0..5 {
        assert_eq!(followed(0.5, seed, exact()), followed(0.5, seed, slow.clone()), "seed {seed}");
    }
}

#[test]
fn wrong_chains_are_refused() {
    let parent = || named("a", trace(&[1.0]));
    assert_eq!(refused(vec![parent(), after("b", 1.0)]).0, "stream[1].after");
    assert_eq!(refused(vec![named("b", after("b", 1.0))]).0, "stream[0].after");
    assert_eq!(refused(vec![named("b", after("a", 1.0)), parent()]).0, "stream[0].after");
    assert_eq!(refused(vec![parent(), after("a", 1.5)]).0, "stream[1].probability");
    assert_eq!(refused(vec![parent(), after("a", f64::NAN)]).0, "stream[1].probability");
    assert_eq!(refused(vec![parent(), parent()]).0, "stream[1].name");
    let both = Stream { after: "a".to_owned(), ..trace(&[1.0]) };
    assert_eq!(refused(vec![parent(), both]).0, "stream[1].after");
}

// ---- open windows ----

fn open(stream: Stream, windows: &[[f64; 2]]) -> Stream {
    Stream { open_ms: windows.to_vec(), ..stream }
}

#[test]
fn requests_come_while_the_stream_is_open() {
    let every_ten = || stream("t", 10.0, 5.0);
    // From is within, to is not; the grid goes on while the stream is closed.
    assert_eq!(arrivals(vec![open(every_ten(), &[[10.0, 30.0], [55.0, 70.0]])], 200.0), [10.0, 20.0, 60.0]);
    assert_eq!(arrivals(vec![open(every_ten(), &[[11.0, 19.0]])], 200.0), [0.0; 0]);
    assert_eq!(arrivals(vec![open(trace(&[1.0, 5.0, 9.0]), &[[2.0, 9.0]])], 200.0), [5.0]);
    for kind in [ArrivalKind::Poisson, ArrivalKind::Bursty, ArrivalKind::Periodic] {
        let windows = [[100.0, 300.0], [700.0, 800.0]];
        let stream = Stream { kind, jitter_ms: 3.0, ..stream("t", 2.0, 5.0) };
        let within = arrivals(vec![open(stream.clone(), &windows)], 1000.0);
        let inside = |t: &f64| windows.iter().any(|w| (w[0]..w[1]).contains(t));
        assert!(within.iter().all(inside), "{kind:?}: {within:?}");
        assert!((100..210).contains(&within.len()), "{kind:?}: {} requests in 300 ms", within.len());
        // Without windows most are outside: the check can fail.
        assert!(arrivals(vec![stream], 1000.0).iter().filter(|t| !inside(t)).count() > 100);
    }
}

#[test]
fn what_depends_comes_only_while_its_own_stream_is_open() {
    let case =
        case(one_plan(), vec![named("a", trace(&[0.0, 10.0, 20.0])), open(after("a", 1.0), &[[3.0, 22.0]])]);
    // Answers at 2, 12 and 22 ms.
    let log = run(&case, exact(), 1, &mut First);
    let arrivals: Vec<_> = of_stream(&log, 1).iter().map(|r| r.arrival).collect();
    assert_eq!(arrivals, [ms(12.0)]);
}

#[test]
fn wrong_windows_are_refused() {
    assert_eq!(refused(vec![open(trace(&[1.0]), &[[5.0, 4.0]])]).0, "stream[0].open_ms[1]");
    assert_eq!(refused(vec![open(trace(&[1.0]), &[[0.0, 4.0], [3.0, 9.0]])]).0, "stream[0].open_ms[2]");
}

// ---- only the latest frame ----

fn latest(queue: Queue) -> Hand {
    let frames = Stream { queue, ..stream("t", 10.0, 50.0) };
    let other = stream("t", 10.0, 50.0);
    Hand::new(case(one_plan(), vec![frames, other]), Options { window: 3, max_failures: 3 })
}

fn outcomes(hand: &Hand) -> Vec<(u64, Outcome, Time)> {
    hand.ended.iter().map(|e| (e.request.id.0, e.outcome.clone(), e.at)).collect()
}

#[test]
fn a_newer_frame_replaces_those_that_have_not_started() {
    let mut hand = latest(Queue::Latest);
    let running = hand.arrive(0, ms(0.0));
    let launch = hand.launch(0, 0);
    let second = hand.arrive(0, ms(1.0));
    let beside = hand.arrive(1, ms(1.5));
    assert_eq!(outcomes(&hand), [], "the running one is left alone, and so is the only one that waits");
    let third = hand.arrive(0, ms(2.0));
    assert_eq!(outcomes(&hand), [(second, Outcome::Replaced, ms(2.0))]);
    hand.done(&launch, ms(3.0));
    assert_eq!(outcomes(&hand)[1..], [(running, Outcome::Answered, ms(3.0))]);
    let waiting: Vec<_> = match hand.core.poll() {
        cosched_env::scheduler::Next::Decide(o) => o.requests.iter().map(|r| r.id.0).collect(),
        other => panic!("nothing to decide: {other:?}"),
    };
    assert_eq!(waiting, [third, beside]);
    // It costs what a dropped one costs.
    assert!((hand.ended[0].utility + 0.2).abs() < 1e-12);
}

#[test]
fn a_frame_that_has_started_is_not_replaced() {
    let mut hand = latest(Queue::Latest);
    let started = hand.arrive(0, ms(0.0));
    // The first of two segments.
    let one = hand.candidates().iter().position(|c| {
        matches!(c.action, cosched_env::observation::Action::Launch { first: 0, last: 0, variant, .. } if variant.0 == 0)
    });
    let launch = hand.decide(one.expect("one segment")).expect("a launch");
    hand.done(&launch, ms(1.0));
    hand.arrive(0, ms(2.0));
    assert_eq!(outcomes(&hand), []);
    // It goes on in its variant, and is answered.
    let rest = hand.launch(0, 0);
    assert_eq!((rest.request.0, rest.first), (started, 1));
    hand.done(&rest, ms(3.0));
    assert_eq!(outcomes(&hand), [(started, Outcome::Answered, ms(3.0))]);
}

#[test]
fn a_frame_whose_launch_failed_can_be_replaced() {
    let mut hand = latest(Queue::Latest);
    let failed = hand.arrive(0, ms(0.0));
    let launch = hand.launch(0, 0);
    hand.arrive(0, ms(1.0));
    hand.fail(&launch, ms(2.0));
    assert_eq!(outcomes(&hand), []);
    hand.arrive(0, ms(3.0));
    let both = [(failed, Outcome::Replaced, ms(3.0)), (failed + 1, Outcome::Replaced, ms(3.0))];
    assert_eq!(outcomes(&hand), both);
    assert_eq!(hand.ended[0].launches, 1);
}

#[test]
fn other_queues_keep_their_requests() {
    let mut hand = latest(Queue::Fifo);
    for at in 0..4 {
        hand.arrive(0, ms(f64::from(at)));
    }
    assert_eq!(outcomes(&hand), []);
    assert_eq!(hand.core.active(), 4);
}

// ---- least accuracy ----

#[test]
fn only_accurate_variants_are_offered() {
    for (min_accuracy, expected) in
        [(0.0, vec![(0, 0), (1, 0)]), (0.5, vec![(0, 0), (1, 0)]), (0.6, vec![(0, 0)])]
    {
        let picky = Stream { min_accuracy, ..stream("t", 10.0, 50.0) };
        let mut hand = Hand::new(case(one_plan(), vec![picky]), Options::default());
        hand.arrive(0, ms(0.0));
        assert_eq!(hand.choices(), expected, "at least {min_accuracy}");
    }
    let (key, problem) = refused(vec![Stream { min_accuracy: 0.95, ..stream("t", 10.0, 50.0) }]);
    assert_eq!(key, "stream[0].min_accuracy");
    assert!(problem.contains("0.9"), "{problem}");
    // What is no number is no accuracy either.
    for wrong in [f64::NAN, -0.1] {
        assert_eq!(
            refused(vec![Stream { min_accuracy: wrong, ..stream("t", 10.0, 50.0) }]).0,
            "stream[0].min_accuracy"
        );
    }
}

#[test]
fn a_request_may_ask_for_more_than_its_stream() {
    let mut hand = Hand::new(case(one_plan(), vec![stream("t", 10.0, 50.0)]), Options::default());
    let mut request = hand.core.case().streams[0].request(
        cosched_env::event::RequestId(0),
        cosched_env::case::StreamId(0),
        ms(0.0),
        ms(0.0),
    );
    request.min_accuracy = 0.8;
    hand.core.handle(ms(0.0), Event::Arrived(request)).expect("legal");
    assert_eq!(hand.choices(), [(0, 0)]);
}
