//! What is tied is not done, and nothing else is. It refuses to judge what a search finds.

use super::*;
use crate::board::wait;
use crate::short_run::short_run;
use cosched_env::observation::{Action, Observation};
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{Scenario, Stream};
use cosched_env::time::{Span, Time};
use cosched_env::world::Decision;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Two processors; each of two tasks has two variants of two segments, the second of which is faster and less accurate.
fn case() -> Case {
    let processor = |name: &str| ProcessorSpec {
        name: name.to_owned(),
        device: String::new(),
        slots: 1,
        active_watts: 1.0,
        idle_watts: 0.0,
        copy_us: 0.0,
        copy_gbps: 0.0,
        launch_us: 0.0,
        crowd: None,
    };
    let variant = |task: &str, name: &str, accuracy: f64, mean_us: f64| {
        let cost = Cost { mean_us, p50_us: mean_us, p95_us: mean_us, energy_mj: 1.0 };
        let segment = SegmentSpec { costs: vec![Some(cost); 2], ..SegmentSpec::default() };
        let (name, task) = (format!("{task}-{name}"), task.to_owned());
        Variant { name, task, accuracy, segments: vec![segment; 2], ..Variant::default() }
    };
    let variants = ["a", "b"].map(|t| [variant(t, "exact", 0.9, 900.0), variant(t, "quick", 0.6, 400.0)]);
    let plan = Plan {
        format: PLAN_FORMAT,
        provenance: BTreeMap::new(),
        processors: vec![processor("p"), processor("q")],
        contention: vec![vec![1.0; 2]; 2],
        variants: variants.into_iter().flatten().collect(),
    };
    let stream = |task: &str| Stream {
        task: task.to_owned(),
        period_ms: 4.0,
        deadline_ms: 4.0,
        dwell_ms: 1.0,
        ..Stream::default()
    };
    let scenario = Scenario {
        name: "ties".into(),
        streams: vec![stream("a"), stream("b")],
        objective: Default::default(),
    };
    Case::new(plan, scenario).expect("the case is well-formed")
}

/// Notes what a policy does: (request's stream, variant, processor); drops have no variant.
type Notes = Arc<Mutex<Vec<(u16, Option<(u16, u16)>)>>>;
struct Noted(Box<dyn Policy>, Notes);

impl Policy for Noted {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let decision = self.0.decide(observation);
        let candidate = &observation.candidates[decision.0];
        let stream = observation.request_of(candidate).map(|r| r.stream.0);
        let on = match candidate.action {
            Action::Launch { variant, processor, .. } => Some((variant.0, processor.0)),
            _ => None,
        };
        self.1.lock().expect("nobody panicked").extend(stream.map(|s| (s, on)));
        decision
    }
}

fn notes(restraint: &Restraint) -> Vec<(u16, Option<(u16, u16)>)> {
    notes_of(restraint, &case())
}

fn notes_of(restraint: &Restraint, case: &Case) -> Vec<(u16, Option<(u16, u16)>)> {
    let (case, notes) = (Arc::new(case.clone()), Notes::default());
    let mut policy = Noted(restraint.policy(&case), notes.clone());
    short_run(&case, &mut policy, 1, Time::ZERO + Span::from_ms(200.0)).expect("requests arrive");
    let noted = notes.lock().expect("nobody panicked");
    noted.clone()
}

#[test]
fn what_is_tied_is_not_done() {
    let free = Restraint::none(&case(), "eft");
    let all = notes(&free);
    assert!(all.contains(&(0, Some((0, 0)))), "untied, stream 0 is served: {all:?}");
    assert!(all.contains(&(1, Some((2, 1)))), "untied, variant 2 uses processor 1: {all:?}");

    let tied = notes(&Restraint { served: vec![false, true], allowed: vec![3, 3, 0b01, 0], ..free });
    assert!(tied.iter().all(|&(stream, on)| (stream == 0) == on.is_none()), "{tied:?}");
    assert!(tied.iter().filter_map(|n| n.1).all(|on| on == (2, 0)), "{tied:?}");
    assert!(tied.iter().any(|n| n.1.is_some()));
}

/// Waits, and notes for each launch whether it ends the request and what it would cost to hand over after it.
struct Handovers(Arc<Mutex<Vec<(bool, f64)>>>);

impl Policy for Handovers {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        for candidate in observation.candidates {
            if let Action::Launch { variant, last, .. } = candidate.action {
                let ends = last + 1 == observation.case.variant(variant).segments;
                self.0.lock().expect("nobody panicked").push((ends, candidate.handover_ns));
            }
        }
        wait(observation)
    }
}

#[test]
fn nothing_is_handed_over_to_a_processor_that_is_forbidden() {
    let seen = |processors: u64| {
        let (case, noted) = (Arc::new(case()), Arc::new(Mutex::new(Vec::new())));
        let restraint = Restraint { allowed: vec![processors; 4], ..Restraint::none(&case, "eft") };
        let mut policy = restraint.over(Box::new(Handovers(noted.clone())), &case);
        short_run(&case, &mut policy, 1, Time::ZERO + Span::from_ms(50.0)).expect("requests arrive");
        let noted = noted.lock().expect("nobody panicked");
        assert!(noted.iter().any(|n| n.0) && noted.iter().any(|n| !n.0), "{noted:?}");
        noted.clone()
    };
    for (ends, handover_ns) in seen(0b01) {
        assert_eq!(handover_ns, if ends { 0.0 } else { f64::INFINITY });
    }
    // Where nothing is forbidden it is possible, and costs nothing on these processors.
    assert!(seen(0b11).iter().all(|&(_, handover_ns)| handover_ns == 0.0));
}

/// Waits, and notes when each request of a stream seems to be due after its arrival, in milliseconds.
struct Due(Arc<Mutex<Vec<(u16, f64)>>>);

impl Policy for Due {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let due = observation.requests.iter().map(|r| (r.stream.0, r.deadline.ms_after(r.arrival)));
        self.0.lock().expect("nobody panicked").extend(due);
        wait(observation)
    }
}

#[test]
fn a_tie_of_one_stream_is_not_one_of_another() {
    // Both streams ask for task a.
    let mut scenario = case().scenario.clone();
    scenario.streams[1].task = "a".into();
    let shared = Case::new(case().plan, scenario).expect("the case is well-formed");
    let free = Restraint::none(&shared, "eft");
    let tied = Restraint { only: vec![None, Some(VariantId(1))], off: vec![0b01, 0], ..free.clone() };
    assert!(
        tied.is_possible(&shared) && !Restraint { off: vec![0b11, 0], ..free.clone() }.is_possible(&shared)
    );
    let launches = |restraint: &Restraint| -> Vec<(u16, (u16, u16))> {
        notes_of(restraint, &shared).into_iter().filter_map(|(s, on)| Some((s, on?))).collect()
    };
    let (all, some) = (launches(&free), launches(&tied));
    let count = |of: &[(u16, (u16, u16))], seen: &dyn Fn(u16, u16, u16) -> bool| {
        of.iter().filter(|&&(s, (v, p))| seen(s, v, p)).count()
    };
    assert!(
        count(&all, &|s, v, _| s == 1 && v != 1) > 0 && count(&all, &|s, _, p| s == 0 && p == 0) > 0,
        "{all:?}"
    );
    assert_eq!(count(&some, &|s, v, p| (s == 1 && v != 1) || (s == 0 && p == 0)), 0, "{some:?}");
    assert!(
        count(&some, &|s, _, p| s == 1 && p == 0) > 0 && count(&some, &|s, v, _| s == 0 && v == 0) > 0,
        "{some:?}"
    );
}

#[test]
fn haste_moves_what_seems_due_and_nothing_else() {
    let (case, noted) = (Arc::new(case()), Arc::new(Mutex::new(Vec::new())));
    let restraint = Restraint { haste: vec![2, -4], ..Restraint::none(&case, "eft") };
    assert!(restraint != Restraint::none(&case, "eft"));
    let mut policy = restraint.over(Box::new(Due(noted.clone())), &case);
    short_run(&case, &mut policy, 1, Time::ZERO + Span::from_ms(50.0)).expect("requests arrive");
    let noted = noted.lock().expect("nobody panicked");
    // 4 ms less two eighths, and more by four.
    assert!(noted.contains(&(0, 3.0)) && noted.contains(&(1, 6.0)), "{noted:?}");
    assert!(noted.iter().all(|&n| n == (0, 3.0) || n == (1, 6.0)), "{noted:?}");
}

/// Notes what another stream launches on processor 0: when it begins, and by how much it is expected to end after stream 1's next
/// request comes, both in milliseconds.
struct Ends(Box<dyn Policy>, Arc<Mutex<Vec<(f64, f64)>>>);

impl Policy for Ends {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let decision = self.0.decide(observation);
        let candidate = &observation.candidates[decision.0];
        if let Action::Launch { request: 0, processor: ProcessorId(0), .. } = candidate.action
            && observation.requests[0].stream == StreamId(0)
        {
            let (last, now) = (observation.streams[1].last_arrival, observation.now.ms_after(Time::ZERO));
            let next = last.map_or(0.0, |last| last.ms_after(Time::ZERO) + 4.0);
            let seen = (now, now + candidate.expected_ns / 1e6 - next);
            self.1.lock().expect("nobody panicked").push(seen);
        }
        decision
    }
}

#[test]
fn a_kept_processor_is_free_when_the_next_request_comes() {
    // Stream 1 comes 1 ms after stream 0, which takes 1.8 ms in its better variant; it stops in the middle.
    let mut scenario = case().scenario.clone();
    scenario.streams[1].offset_ms = 1.0;
    scenario.streams[1].open_ms = vec![[0.0, 100.0]];
    let case = Arc::new(Case::new(case().plan, scenario).expect("the case is well-formed"));
    let ends = |keeps: Vec<Option<Keep>>| {
        let noted = Arc::new(Mutex::new(Vec::new()));
        let restraint = Restraint { keeps, ..Restraint::none(&case, "eft") };
        let mut policy = Ends(restraint.policy(&case), noted.clone());
        short_run(&case, &mut policy, 1, Time::ZERO + Span::from_ms(200.0)).expect("requests arrive");
        let noted = noted.lock().expect("nobody panicked");
        noted.clone()
    };
    let late = |ends: &[(f64, f64)], by: f64| ends.iter().any(|&(at, end)| at < 95.0 && end > by);
    let keep = |eighths: u8| vec![None, Some(Keep { processor: ProcessorId(0), eighths })];
    let free = ends(vec![None, None]);
    assert!(late(&free, 0.5), "{free:?}");
    assert!(!late(&ends(keep(0)), 0.0), "{:?}", ends(keep(0)));
    // Four eighths of 4 ms.
    assert!(late(&ends(keep(4)), 0.5) && !late(&ends(keep(4)), 2.0), "{:?}", ends(keep(4)));
    // Who comes no more is not waited for.
    assert!(ends(keep(0)).iter().any(|&(at, _)| at > 110.0), "{:?}", ends(keep(0)));
}

#[test]
fn impossible_ties_are_not_searched() {
    let case = case();
    let free = Restraint::none(&case, "eft");
    assert!(free.is_possible(&case));
    let none = Restraint { allowed: vec![0, 0, 3, 3], ..free.clone() };
    assert!(!none.is_possible(&case), "task a has no variant");
    let unserved = Restraint { served: vec![false, true], ..none };
    assert!(unserved.is_possible(&case), "nobody needs task a");
}
