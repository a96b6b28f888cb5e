//! A heuristic with its hands tied and its clock wrong: some streams are not served at all, some variants do not run on some processors,
//! and some requests seem to be due earlier or later than they are. Giving up a stream that overload would spoil for all, keeping a long
//! model off the processor that short ones need, one variant instead of another, which of two streams comes first and what is too late to
//! be worth a launch: list schedulers see none of that in one decision, but a search on the case's own stage does (`anneal.rs`).
//! It refuses to tie anything while a processor is down.

use crate::anneal::{ALL_SEEDS, Space, anneal};
use crate::board::{drop_of, wait};
use crate::stage::{Run, Stage};
use cosched_env::case::{Case, ProcessorId, VariantId};
use cosched_env::observation::{Action, Candidate, Observation, RequestView};
use cosched_env::time::Time;
use cosched_env::world::{Decision, Policy};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

/// What is tied, and what decides under it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Restraint {
    /// Name of the heuristic.
    base: &'static str,
    /// Per stream: whether it is served.
    served: Vec<bool>,
    /// Per variant: a bit for each processor that it may use.
    allowed: Vec<u64>,
    /// Per stream: by how many eighths of its deadline its requests seem to be due earlier; below 0: later.
    haste: Vec<i8>,
}

impl Restraint {
    fn none(case: &Case, base: &'static str) -> Restraint {
        Restraint {
            base,
            served: vec![true; case.streams.len()],
            allowed: vec![u64::MAX; case.variants.len()],
            haste: vec![0; case.streams.len()],
        }
    }

    /// The heuristic under this restraint.
    pub(crate) fn policy(&self, case: &Case) -> Box<dyn Policy> {
        let inner = crate::make(self.base, case).expect("a base policy needs no parameter");
        if *self == Restraint::none(case, self.base) {
            return inner;
        }
        Box::new(self.over(inner, case))
    }

    fn over(&self, inner: Box<dyn Policy>, case: &Case) -> Restrained {
        let eighths = self.haste.iter().zip(&case.streams);
        Restrained {
            inner,
            case: case.restricted(|v, p| self.allows(v, p)),
            served: self.served.clone(),
            haste_ns: eighths.map(|(&haste, s)| i64::from(haste) * (s.deadline.0 / 8) as i64).collect(),
            requests: Vec::new(),
            candidates: Vec::new(),
            original: Vec::new(),
        }
    }

    fn allows(&self, variant: VariantId, processor: ProcessorId) -> bool {
        self.allowed[variant.0 as usize] >> processor.0 & 1 == 1
    }

    /// Whether every stream that is served has a variant that can run from its first to its last segment.
    fn is_possible(&self, case: &Case) -> bool {
        let able = |v: VariantId| {
            let table = case.variant(v);
            (0..table.segments).all(|s| {
                let mut processors = (0..case.processor_count() as u16).map(ProcessorId);
                processors.any(|p| self.allows(v, p) && table.reach(p, s).is_some())
            })
        };
        case.streams.iter().zip(&self.served).all(|(stream, &served)| {
            let mut variants = case.tasks[stream.task.0 as usize].variants.iter();
            !served || variants.any(|&v| case.variant(v).accuracy >= stream.min_accuracy && able(v))
        })
    }
}

/// Kinds of changes, and how many of them, the last ones, move a deadline.
const KINDS: u32 = 13;
const MOVES: u32 = 3;
/// Requests that a run should have.
const REQUESTS: f64 = 250.0;

/// The best restraint of these heuristics that so many emulated runs find. An attempt begins at one of them and draws its own changes:
/// what is found is a matter of luck.
pub(crate) fn search(stage: &dyn Stage, bases: &[&'static str], runs: usize, attempt: usize) -> Restraint {
    let starts = [Restraint::none(stage.case(), bases[attempt % bases.len()])];
    let pieces = stage.pieces(ALL_SEEDS, REQUESTS);
    // Every other round goes without moved deadlines: there is more to find with them, and more to get lost in.
    let kinds = if (attempt / bases.len()) % 2 == 1 { KINDS } else { KINDS - MOVES };
    anneal(&Restraints { stage, pieces, bases, kinds }, &starts, runs, attempt as u64)
}

/// All restraints of a case.
struct Restraints<'a> {
    stage: &'a dyn Stage,
    pieces: Vec<Box<dyn Run + 'a>>,
    bases: &'a [&'static str],
    /// Of the [`KINDS`] of changes the first few.
    kinds: u32,
}

impl Space for Restraints<'_> {
    type Point = Restraint;

    fn worth(&self, point: &Restraint, seed: u64) -> f64 {
        self.pieces[seed as usize].worth(&|case| point.policy(case))
    }

    fn is_certain(&self) -> bool {
        self.stage.is_certain()
    }

    fn change(&self, point: &mut Restraint, rng: &mut Pcg64Mcg) {
        let (before, case) = (point.clone(), self.stage.case());
        let v = rng.random_range(0..point.allowed.len());
        let processor = 1_u64 << rng.random_range(0..case.processor_count());
        match rng.random_range(0..self.kinds) {
            0..=2 => {
                let served = &mut point.served[rng.random_range(0..case.streams.len())];
                *served = !*served;
            }
            3..=5 => point.allowed[v] ^= processor,
            6 => point.allowed[v] = processor,
            7 => point.allowed[v] = u64::MAX,
            8 => point.allowed[v] = 0,
            9 => point.base = self.bases[rng.random_range(0..self.bases.len())],
            _ => point.haste[rng.random_range(0..case.streams.len())] = rng.random_range(-8..=6),
        }
        if !point.is_possible(case) {
            *point = before;
        }
    }
}

struct Restrained {
    inner: Box<dyn Policy>,
    /// As the heuristic sees it.
    case: Case,
    served: Vec<bool>,
    /// Per stream: so much earlier its requests seem to be due.
    haste_ns: Vec<i64>,
    /// As the heuristic sees them.
    requests: Vec<RequestView>,
    /// What it may choose from, and where that stands among all candidates.
    candidates: Vec<Candidate>,
    original: Vec<usize>,
}

impl Policy for Restrained {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let unserved = observation.requests.iter().position(|r| !self.served[r.stream.0 as usize]);
        if let Some(index) = unserved {
            return drop_of(observation, index);
        }
        if observation.processors.iter().any(|p| !p.up) {
            return self.inner.decide(observation);
        }
        self.candidates.clear();
        self.original.clear();
        for (choice, candidate) in observation.candidates.iter().enumerate() {
            let mut seen = *candidate;
            if let Action::Launch { variant, first, last, processor, .. } = candidate.action {
                let table = self.case.variant(variant);
                if table.reach(processor, first).is_none() || table.best_rest_ns(0).is_infinite() {
                    continue;
                }
                seen.rest_ns = table.best_rest_ns(last + 1);
                seen.handover_ns = table.handover_ns(processor, last + 1);
            }
            self.candidates.push(seen);
            self.original.push(choice);
        }
        let can_launch = self.candidates.first().is_some_and(|c| matches!(c.action, Action::Launch { .. }));
        if !can_launch {
            return wait(observation);
        }
        self.requests.clear();
        self.requests.extend(observation.requests.iter().map(|request| {
            let due = request.deadline.0.saturating_add_signed(-self.haste_ns[request.stream.0 as usize]);
            RequestView { deadline: Time(due), ..*request }
        }));
        let seen = observation.narrowed(&self.case, &self.requests, &self.candidates);
        let choice = self.inner.decide(&seen);
        Decision(self.original[choice.0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::short_run::short_run;
    use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
    use cosched_env::scenario::{Scenario, Stream};
    use cosched_env::time::{Span, Time};
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
        let (case, notes) = (Arc::new(case()), Notes::default());
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
}
