//! What callers may ask of the core beyond what streams do, by hand: a variant of their choice, and to withdraw a request.

mod common;

use common::{case, ms, plan, processor, stream, variant};
use cosched_env::case::{StreamId, VariantId};
use cosched_env::event::{Completion, Ended, Event, Launch, Outcome, Request, RequestId};
use cosched_env::observation::Action;
use cosched_env::scheduler::{Next, Options, Scheduler};
use cosched_env::time::Time;
use cosched_env::world::Decision;

/// One processor, two variants of one task, a queue in order of arrival.
fn scheduler() -> Scheduler {
    let slow = variant("slow", "t", 1.0, &[&[Some(1000.0)], &[Some(1000.0)]]);
    let fast = variant("fast", "t", 0.5, &[&[Some(100.0)]]);
    let case = case(plan(vec![processor("p")], 1.0, vec![slow, fast]), vec![stream("t", 1000.0, 50.0)]);
    Scheduler::new(case, Options::default())
}

fn request(scheduler: &Scheduler, id: u64, at: Time) -> Request {
    scheduler.case().streams[0].request(RequestId(id), StreamId(0), at, at)
}

fn arrive(scheduler: &mut Scheduler, id: u64, at: Time) {
    let request = request(scheduler, id, at);
    scheduler.handle(at, Event::Arrived(request)).unwrap();
}

/// Takes the first candidate, which must be a launch.
fn launch(scheduler: &mut Scheduler) -> Launch {
    match scheduler.poll() {
        Next::Decide(_) => {}
        other => panic!("nothing to decide: {other:?}"),
    }
    scheduler.decide(Decision(0)).unwrap();
    match scheduler.poll() {
        Next::Launch(launch) => launch,
        other => panic!("no launch: {other:?}"),
    }
}

fn complete(scheduler: &mut Scheduler, launch: &Launch, at: Time) {
    let done = Completion { launch: launch.id, started: at, finished: at, energy_mj: 0.0, failure: None };
    scheduler.handle(at, Event::Completed(done)).unwrap();
}

fn ends(scheduler: &mut Scheduler) -> Vec<(u64, Outcome, Time)> {
    let of = |e: Ended| (e.request.id.0, e.outcome, e.at);
    std::iter::from_fn(|| scheduler.take_ended().map(of)).collect()
}

#[test]
fn a_request_is_offered_in_the_variant_that_it_names_only() {
    for (named, expected) in [(None, vec![0, 1]), (Some(0), vec![0]), (Some(1), vec![1])] {
        let mut scheduler = scheduler();
        let mut request = request(&scheduler, 0, ms(0.0));
        request.variant = named.map(VariantId);
        scheduler.handle(ms(0.0), Event::Arrived(request)).unwrap();
        let Next::Decide(observation) = scheduler.poll() else { panic!("nothing to decide") };
        let offered = observation.candidates.iter().filter_map(|c| match c.action {
            Action::Launch { variant, .. } => Some(variant.0),
            _ => None,
        });
        let offered: std::collections::BTreeSet<_> = offered.collect();
        assert_eq!(offered.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(observation.requests[0].variant, named.map(VariantId));
    }
}

#[test]
fn a_withdrawn_request_expires_at_once_or_with_its_launch() {
    let mut scheduler = scheduler();
    arrive(&mut scheduler, 0, ms(0.0));
    arrive(&mut scheduler, 1, ms(0.0));
    arrive(&mut scheduler, 2, ms(0.0));
    // The first candidate goes as far as the processor can; two segments make one that ends in the middle.
    let running = launch(&mut scheduler);
    let withdraw = |scheduler: &mut Scheduler, id: u64, at: Time| {
        scheduler.handle(at, Event::Withdrawn { request: RequestId(id) }).unwrap();
    };
    // One that waits.
    withdraw(&mut scheduler, 1, ms(1.0));
    assert_eq!(ends(&mut scheduler), [(1, Outcome::Expired, ms(1.0))]);
    // One that runs: nothing yet, and its answer counts if the launch gives it.
    withdraw(&mut scheduler, 0, ms(2.0));
    assert_eq!((ends(&mut scheduler), scheduler.active()), (vec![], 2));
    complete(&mut scheduler, &running, ms(3.0));
    assert_eq!(ends(&mut scheduler), [(0, Outcome::Answered, ms(3.0))]);
    // One that has ended, and one that never was: nothing.
    withdraw(&mut scheduler, 0, ms(4.0));
    withdraw(&mut scheduler, 99, ms(4.0));
    assert_eq!((ends(&mut scheduler), scheduler.active()), (vec![], 1));
    // One in the middle of its segments ends when its launch does.
    let Next::Decide(observation) = scheduler.poll() else { panic!("nothing to decide") };
    let half = observation
        .candidates
        .iter()
        .position(|c| matches!(c.action, Action::Launch { variant: VariantId(0), first: 0, last: 0, .. }));
    let half = half.expect("one segment is a choice");
    scheduler.decide(Decision(half)).unwrap();
    let Next::Launch(running) = scheduler.poll() else { panic!("no launch") };
    withdraw(&mut scheduler, 2, ms(5.0));
    complete(&mut scheduler, &running, ms(6.0));
    assert_eq!(ends(&mut scheduler), [(2, Outcome::Expired, ms(6.0))]);
    assert_eq!(scheduler.active(), 0);
}

#[test]
fn a_launch_that_is_stopped_for_its_withdrawal_is_an_expiry_and_no_failure() {
    for (withdrawn, expected) in [(true, Outcome::Expired), (false, Outcome::Failed("stopped".to_owned()))] {
        let options = Options { max_failures: 1, ..Options::default() };
        let mut scheduler = Scheduler::new(scheduler().case().clone(), options);
        arrive(&mut scheduler, 0, ms(0.0));
        let running = launch(&mut scheduler);
        if withdrawn {
            scheduler.handle(ms(2.0), Event::Withdrawn { request: RequestId(0) }).unwrap();
        }
        // It ended a moment before the news of the withdrawal was heard, and is heard of after it.
        let finished = ms(1.5);
        let failure = Some("stopped".to_owned());
        let stopped = Completion { launch: running.id, started: ms(1.0), finished, energy_mj: 0.0, failure };
        scheduler.handle(ms(3.0), Event::Completed(stopped)).unwrap();
        let ended: Vec<_> = ends(&mut scheduler).into_iter().map(|(id, outcome, _)| (id, outcome)).collect();
        assert_eq!((ended, scheduler.active()), (vec![(0, expected)], 0));
    }
}
