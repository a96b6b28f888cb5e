//! What happens at one moment is heard before anything is decided, under `drive` and in an episode.
//! It refuses to care in which order things of one moment are told.

mod common;

use common::{case, exact, ms, plan, processor, stream, variant};
use cosched_env::case::Case;
use cosched_env::device::{Device, Thermal};
use cosched_env::emulator::{Config, Emulator, Fault};
use cosched_env::episode::Episode;
use cosched_env::event::{Ended, Event, Launch};
use cosched_env::observation::Observation;
use cosched_env::scenario::{ArrivalKind, Stream};
use cosched_env::scheduler::{Options, Scheduler};
use cosched_env::time::Time;
use cosched_env::world::{Decision, Policy, World, drive};
use std::sync::Arc;

/// When it was asked, for how many requests, with how many processors free. Takes the first candidate.
#[derive(Default)]
struct Noting(Vec<(f64, usize, u32)>);

fn picture(observation: &Observation<'_>) -> (f64, usize, u32) {
    let free = observation.processors.iter().map(|p| p.free).sum();
    (observation.now.0 as f64 / 1e6, observation.requests.len(), free)
}

impl Policy for Noting {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        self.0.push(picture(observation));
        Decision(0)
    }
}

/// A world that tells one thing at a time, as if nothing else had happened yet.
struct OneByOne(Emulator);

impl World for OneByOne {
    fn launch(&mut self, launch: &Launch) {
        self.0.launch(launch);
    }
    fn wait(&mut self, until: Option<Time>) -> Option<(Time, Event)> {
        self.0.wait(until)
    }
    fn ended(&mut self, ended: &Ended) {
        self.0.ended(ended);
    }
    fn decided(&mut self, decision: Decision, candidates: usize) {
        self.0.decided(decision, candidates);
    }
}

fn driven(case: &Arc<Case>, config: Config, one_by_one: bool) -> Vec<(f64, usize, u32)> {
    let emulator = Emulator::new(case.clone(), config, 1, ms(100.0));
    let mut world: Box<dyn World> =
        if one_by_one { Box::new(OneByOne(emulator)) } else { Box::new(emulator) };
    let (mut core, mut policy) = (Scheduler::new(case.clone(), Options::default()), Noting::default());
    drive(&mut core, &mut *world, &mut policy, &mut ()).expect("the protocol is kept");
    policy.0
}

fn stepped(case: &Arc<Case>, config: Config) -> Vec<(f64, usize, u32)> {
    let mut episode = Episode::new(case.clone(), Options::default(), config, 1, ms(100.0), Time::NEVER);
    let mut seen = Vec::new();
    while episode.advance().expect("the protocol is kept").end.is_none() {
        let observation = episode.observation().expect("not over");
        seen.push(picture(&observation));
        let of = observation.candidates.len();
        episode.decide(Decision(0), of).expect("the first candidate");
    }
    seen
}

fn at(times_ms: &[f64]) -> Stream {
    Stream { kind: ArrivalKind::Trace, times_ms: times_ms.to_vec(), ..stream("t", 1.0, 50.0) }
}

/// One processor; each request takes 2 ms.
fn one_processor(streams: Vec<Stream>) -> Arc<Case> {
    case(plan(vec![processor("p")], 1.0, vec![variant("v", "t", 0.9, &[&[Some(2000.0)]])]), streams)
}

#[test]
fn requests_of_one_moment_are_all_there_at_the_first_decision() {
    let case = one_processor(vec![at(&[1.0]), at(&[1.0]), at(&[1.0, 9.0])]);
    // 2 ms each, one after another: three to choose from, then two, then one.
    let expected = [(1.0, 3, 1), (3.0, 2, 1), (5.0, 1, 1), (9.0, 1, 1)];
    assert_eq!(driven(&case, exact(), false), expected);
    assert_eq!(stepped(&case, exact()), expected);
    // A world that tells one thing at a time makes the first decision blind.
    assert_eq!(driven(&case, exact(), true)[0], (1.0, 1, 1));
}

#[test]
fn a_completion_and_an_arrival_of_one_moment_are_both_heard() {
    // The second stream's request comes when the first one's is done and another of the first one waits.
    let case = one_processor(vec![at(&[1.0, 2.0]), at(&[3.0])]);
    let expected = [(1.0, 1, 1), (3.0, 2, 1), (5.0, 1, 1)];
    assert_eq!(driven(&case, exact(), false), expected);
    assert_eq!(stepped(&case, exact()), expected);
    assert_eq!(driven(&case, exact(), true)[1], (3.0, 1, 1));
}

#[test]
fn what_follows_an_answer_is_there_at_once() {
    let first = Stream { name: "first".to_owned(), ..at(&[1.0, 1.5]) };
    let second = Stream { kind: ArrivalKind::Dependent, after: "first".to_owned(), ..stream("t", 1.0, 50.0) };
    let case = one_processor(vec![first, second]);
    // At 3 ms: the second request of the first stream and what follows its first one. The first stream's goes first.
    let expected = [(1.0, 1, 1), (3.0, 2, 1), (5.0, 1, 1), (7.0, 1, 1)];
    assert_eq!(driven(&case, exact(), false), expected);
    assert_eq!(stepped(&case, exact()), expected);
}

#[test]
fn a_busy_decider_hears_all_that_happened_meanwhile() {
    // Deciding takes 3 ms: asked at 1 ms with one request, it is free again at 4 ms, when two more are there.
    let case = case(
        plan(
            vec![processor("p"), processor("q")],
            1.0,
            vec![variant("v", "t", 0.9, &[&[Some(2000.0), Some(2000.0)]])],
        ),
        vec![at(&[1.0]), at(&[2.0]), at(&[3.5])],
    );
    let config = Config { decision_us: 3000.0, ..exact() };
    let expected = [(1.0, 1, 2), (4.0, 2, 1)];
    assert_eq!(driven(&case, config.clone(), false)[..2], expected);
    assert_eq!(stepped(&case, config.clone())[..2], expected);
    assert_eq!(driven(&case, config, true)[1], (4.0, 1, 1));
}

#[test]
fn what_expires_at_the_moment_of_a_completion_is_not_offered() {
    let impatient = Stream { deadline_ms: 1.0, expire_ms: 2.0, ..at(&[1.0]) };
    let case = one_processor(vec![at(&[1.0]), impatient, at(&[2.5])]);
    // At 3 ms the processor is free; the second request is over at that moment, the third waits.
    assert_eq!(driven(&case, exact(), false), [(1.0, 2, 1), (3.0, 1, 1)]);
}

#[test]
fn an_outage_within_another_brings_nothing_forward() {
    // Both begin at 1 ms: the second is no event, and what comes after it (a request at 5 ms) has not happened yet.
    let fault = |to_ms| Fault { processor: "p".to_owned(), from_ms: 1.0, to_ms, ..Fault::default() };
    let config = Config { faults: vec![fault(2.0), fault(3.0)], ..exact() };
    let case = one_processor(vec![at(&[5.0])]);
    assert_eq!(driven(&case, config.clone(), false), [(5.0, 1, 1)]);
    assert_eq!(stepped(&case, config), [(5.0, 1, 1)]);
}

#[test]
fn a_governor_that_never_stops_looking_is_refused() {
    let thermal = |poll_ms| Thermal {
        ambient_c: 25.0,
        kelvin_per_watt: 1.0,
        time_constant_s: 1.0,
        start_c: None,
        trip_c: 80.0,
        hysteresis_c: 5.0,
        poll_ms,
        base_watts: 0.0,
    };
    let whole = one_processor(vec![at(&[5.0])]);
    let with = |poll_ms| {
        let device = Device { thermal: Some(thermal(poll_ms)), ..Device::default() };
        Case::on(whole.plan.clone(), device, whole.scenario.clone())
    };
    assert!(with(1e-3).is_ok());
    let error = with(1e-7).expect_err("it rounds to no time");
    assert_eq!(error.key, "device.thermal.poll_ms");
}
