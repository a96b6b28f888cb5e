//! What the suites of behaviour share: cases small enough to work out by hand, and what a policy does on them.
//! It refuses to judge; the tests do.
#![allow(dead_code)]

use crate::common::{Item, Setup, case, ends, exact, ms, plan, processor, run, stream, variant};
use cosched_env::event::Outcome;
use cosched_env::plan::Variant;
use cosched_env::scenario::Stream;
use cosched_env::scheduler::Options;
use cosched_policies::make;

pub fn setup(processors: usize, variants: Vec<Variant>, streams: Vec<Stream>) -> Setup {
    let processors = (0..processors).map(|p| processor(&format!("p{p}"))).collect();
    let case = case(plan(processors, 1.0, variants), streams);
    Setup { case, options: Options::default(), config: exact(), seed: 1, horizon: ms(1.0) }
}

/// One processor that is busy for a tenth of a millisecond at first, so that there is a choice among all others then.
pub fn queued(mut variants: Vec<Variant>, mut streams: Vec<Stream>) -> Setup {
    variants.push(task("first", &[Some(100.0)]));
    streams.iter_mut().for_each(|s| s.offset_ms = 0.05);
    streams.insert(0, once("first", 50.0));
    setup(1, variants, streams)
}

/// A task of one variant with one segment; `costs[processor]` in microseconds.
pub fn task(name: &str, costs: &[Option<f64>]) -> Variant {
    variant(name, name, 0.9, &[costs])
}

/// One request at the very beginning.
pub fn once(task: &str, deadline_ms: f64) -> Stream {
    Stream { expire_ms: 1000.0, ..stream(task, 1000.0, deadline_ms) }
}

/// (variant, processor, when in milliseconds) of each launch.
pub fn launches(spec: &str, setup: &Setup) -> Vec<(String, u16, f64)> {
    let mut policy = make(spec, &setup.case).expect("the table makes it");
    let log = run(setup, &mut *policy).expect("the rules hold");
    let all = log.iter().filter_map(|item| match item {
        Item::Launched(at, l) => {
            Some((setup.case.variant(l.variant).name.clone(), l.processor.0, at.0 as f64 / 1e6))
        }
        _ => None,
    });
    all.collect()
}

pub fn outcomes(spec: &str, setup: &Setup) -> Vec<Outcome> {
    let mut policy = make(spec, &setup.case).expect("the table makes it");
    let log = run(setup, &mut *policy).expect("the rules hold");
    ends(&log).map(|e| e.outcome.clone()).collect()
}

pub fn all(list: &[(&str, u16, f64)]) -> Vec<(String, u16, f64)> {
    list.iter().map(|&(name, p, at)| (name.to_owned(), p, at)).collect()
}
