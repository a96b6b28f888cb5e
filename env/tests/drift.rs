//! What the scheduler learns of a processor's speed, by hand: a slow launch raises its drift, and time brings it back.

mod common;

use common::{case, ms, plan, processor, stream, variant};
use cosched_env::case::StreamId;
use cosched_env::event::{Completion, Event, RequestId};
use cosched_env::scheduler::{Next, Options, Scheduler};
use cosched_env::time::Time;
use cosched_env::world::Decision;

/// Lets a request arrive and gives the drift that the policy then sees.
fn drift_at(scheduler: &mut Scheduler, id: u64, now: Time) -> f64 {
    let request = scheduler.case().streams[0].request(RequestId(id), StreamId(0), now, now);
    scheduler.handle(now, Event::Arrived(request)).unwrap();
    loop {
        match scheduler.poll() {
            Next::Decide(observation) => return observation.processors[0].drift,
            Next::Ended(_) => {}
            other => panic!("nothing to decide: {other:?}"),
        }
    }
}

#[test]
fn drift_rises_with_a_slow_launch_and_is_forgotten() {
    let works = variant("v", "t", 1.0, &[&[Some(1000.0)]]);
    let case = case(plan(vec![processor("p")], 1.0, vec![works]), vec![stream("t", 1000.0, 1000.0)]);
    let mut scheduler = Scheduler::new(case, Options::default());
    assert_eq!(drift_at(&mut scheduler, 0, ms(0.0)), 1.0);
    scheduler.decide(Decision(0)).unwrap();
    let Next::Launch(launch) = scheduler.poll() else { panic!("the first candidate is a launch") };
    // Expected 1 ms, took 6 ms: 1 + 0.1 * (6 - 1).
    let done =
        Completion { launch: launch.id, started: ms(0.0), finished: ms(6.0), energy_mj: 0.0, failure: None };
    scheduler.handle(ms(6.0), Event::Completed(done)).unwrap();
    let now = drift_at(&mut scheduler, 1, ms(6.0));
    assert!((now - 1.5).abs() < 1e-12, "{now}");
    // Half a second later: 1 + 0.5 / e.
    let later = drift_at(&mut scheduler, 2, ms(506.0));
    assert!((later - (1.0 + 0.5 * (-1.0_f64).exp())).abs() < 1e-12, "{later}");
}
