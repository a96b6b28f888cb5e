//! What arrives: streams of their own come at the same times under every policy, dependent requests after answers only.

use crate::common::Item;
use crate::deeds::Deed;
use crate::draft::Chooser;
use crate::ledger::ensure;
use crate::world::{Choose, Run, run_under};
use cosched_env::event::{Ended, Event, Outcome, Request};
use cosched_env::streams::Arrivals;
use std::collections::BTreeSet;

fn arrivals(log: &[Item]) -> impl Iterator<Item = &Request> {
    log.iter().filter_map(|item| match item {
        Item::Event(_, Event::Arrived(r)) => Some(r),
        _ => None,
    })
}

fn answers(log: &[Item]) -> impl Iterator<Item = &Ended> {
    let answered = |e: &&Ended| matches!(e.outcome, Outcome::Answered | Outcome::Late);
    crate::common::ends(log).filter(answered)
}

/// (stream, arrival) of the requests that do not follow others.
fn own(run: &Run) -> Vec<(u16, u64)> {
    let case = &run.setup.case;
    let own = arrivals(&run.log).filter(|r| case.stream(r.stream).after.is_none());
    own.map(|r| (r.stream.0, r.arrival.0)).collect()
}

/// Common random numbers: what comes by itself comes when the seed says, whatever is decided.
pub fn arrivals_do_not_depend_on_decisions(run: &Run) -> Result<(), String> {
    let Run { setup, .. } = run;
    let alone = Arrivals::new(setup.case.clone(), setup.seed, setup.horizon);
    let alone: Vec<_> = alone.map(|r| (r.stream.0, r.arrival.0)).collect();
    ensure!(own(run) == alone, "expected {alone:?}, got {:?}", own(run));
    // A policy that waits and drops at random.
    let other = run_under(setup, Deed::Nothing, &mut Choose::new(&Chooser::Random(1)))?;
    ensure!(own(&other) == alone, "under another policy: expected {alone:?}, got {:?}", own(&other));
    for r in arrivals(&run.log) {
        let stream = setup.case.stream(r.stream);
        ensure!(stream.is_open(r.arrival), "{r:?} came while its stream was closed");
        ensure!(
            r.deadline == r.origin + stream.deadline,
            "{r:?}: its deadline does not count from its origin"
        );
        ensure!(r.expires == r.origin + stream.expire, "{r:?}: its expiry does not count from its origin");
        ensure!(stream.after.is_some() || r.origin == r.arrival, "{r:?} has no origin but itself");
    }
    Ok(())
}

/// A dependent request comes at the moment of an answer of its parent, with the parent's origin, at most one for each answer; at
/// certainty just one while the stream is open, and none at no probability.
pub fn dependent_requests_follow_answers_only(run: &Run) -> Result<(), String> {
    let case = &run.setup.case;
    for (s, stream) in case.streams.iter().enumerate() {
        let Some(parent) = stream.after else { continue };
        let moment = |e: &Ended| (e.at, e.request.origin);
        let mut left: Vec<_> = answers(&run.log).filter(|e| e.request.stream == parent).map(moment).collect();
        for r in arrivals(&run.log).filter(|r| r.stream.0 as usize == s) {
            let cause = left.iter().position(|l| *l == (r.arrival, r.origin));
            let Some(cause) = cause else { return Err(format!("{r:?} follows no answer of s{}", parent.0)) };
            left.swap_remove(cause);
            ensure!(stream.probability > 0.0, "{r:?}: its stream never follows");
        }
        let missing = left.iter().find(|l| stream.is_open(l.0));
        ensure!(stream.probability < 1.0 || missing.is_none(), "nothing of s{s} followed at {missing:?}");
    }
    Ok(())
}

/// Whether requests followed: (probability, followed) for each answer whose dependent stream was open. The draw hangs on the origin
/// alone, so that each origin counts once.
pub fn followings(run: &Run) -> Vec<(f64, bool)> {
    let case = &run.setup.case;
    let mut all = Vec::new();
    for (s, stream) in case.streams.iter().enumerate() {
        let Some(parent) = stream.after else { continue };
        let of_stream = |r: &&Request| r.stream.0 as usize == s;
        let followed: BTreeSet<_> = arrivals(&run.log).filter(of_stream).map(|r| r.origin).collect();
        let open = answers(&run.log).filter(|e| e.request.stream == parent && stream.is_open(e.at));
        let origins: BTreeSet<_> = open.map(|e| e.request.origin).collect();
        all.extend(origins.iter().map(|o| (stream.probability, followed.contains(o))));
    }
    all
}

/// How many standard deviations the number of requests that followed is off what the probabilities say.
pub fn deviation(followings: &[(f64, bool)]) -> f64 {
    let sure = |p: f64| p == 0.0 || p == 1.0;
    let drawn = || followings.iter().filter(|(p, _)| !sure(*p));
    let expected: f64 = drawn().map(|(p, _)| p).sum();
    let variance: f64 = drawn().map(|(p, _)| p * (1.0 - p)).sum();
    let followed = drawn().filter(|(_, f)| *f).count() as f64;
    (followed - expected) / variance.max(1e-9).sqrt()
}
