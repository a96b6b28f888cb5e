//! A heuristic with its hands tied: some streams are not served at all, and some variants do not run on some processors. Giving up a
//! stream that overload would spoil for all, keeping a long model off the processor that short ones need, one variant instead of
//! another: list schedulers see none of that in one decision, but a search on the case's own emulator does (`anneal.rs`).
//! It refuses to tie anything while a processor is down.

use crate::anneal::{ALL_SEEDS, Space, anneal};
use crate::board::{drop_of, wait};
use crate::short_run::Excerpt;
use cosched_env::case::{Case, ProcessorId, VariantId};
use cosched_env::observation::{Action, Candidate, Observation};
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
}

impl Restraint {
    fn none(case: &Case, base: &'static str) -> Restraint {
        Restraint {
            base,
            served: vec![true; case.streams.len()],
            allowed: vec![u64::MAX; case.variants.len()],
        }
    }

    /// The heuristic under this restraint.
    pub(crate) fn policy(&self, case: &Case) -> Box<dyn Policy> {
        let inner = crate::make(self.base, case).expect("a base policy needs no parameter");
        if *self == Restraint::none(case, self.base) {
            return inner;
        }
        Box::new(Restrained {
            inner,
            case: case.restricted(|v, p| self.allows(v, p)),
            served: self.served.clone(),
            candidates: Vec::new(),
            original: Vec::new(),
        })
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

/// Requests that a run should have.
const REQUESTS: f64 = 250.0;

/// The best restraint of these heuristics that so many emulated runs find. An attempt begins at one of them and draws its own changes:
/// what is found is a matter of luck.
pub(crate) fn search(case: &Case, bases: &[&'static str], runs: usize, attempt: usize) -> Restraint {
    let starts = [Restraint::none(case, bases[attempt % bases.len()])];
    // Spread evenly over the timetable, however many of them are used (the golden section).
    let share = |seed: usize| (0.618_034 * seed as f64).fract();
    let excerpts =
        (0..ALL_SEEDS).map(|seed| Excerpt::new(case, share(seed), REQUESTS, seed as u64)).collect();
    anneal(&Restraints { case, excerpts, bases }, &starts, runs, attempt as u64)
}

/// All restraints of a case.
struct Restraints<'a> {
    case: &'a Case,
    excerpts: Vec<Excerpt>,
    bases: &'a [&'static str],
}

impl Space for Restraints<'_> {
    type Point = Restraint;

    fn worth(&self, point: &Restraint, seed: u64) -> f64 {
        let excerpt = &self.excerpts[seed as usize];
        excerpt.worth(point.policy(&excerpt.case))
    }

    fn change(&self, point: &mut Restraint, rng: &mut Pcg64Mcg) {
        let before = point.clone();
        let v = rng.random_range(0..point.allowed.len());
        let processor = 1_u64 << rng.random_range(0..self.case.processor_count());
        match rng.random_range(0..10_u32) {
            0..=2 => {
                let served = &mut point.served[rng.random_range(0..self.case.streams.len())];
                *served = !*served;
            }
            3..=5 => point.allowed[v] ^= processor,
            6 => point.allowed[v] = processor,
            7 => point.allowed[v] = u64::MAX,
            8 => point.allowed[v] = 0,
            _ => point.base = self.bases[rng.random_range(0..self.bases.len())],
        }
        if !point.is_possible(self.case) {
            *point = before;
        }
    }
}

struct Restrained {
    inner: Box<dyn Policy>,
    /// As the heuristic sees it.
    case: Case,
    served: Vec<bool>,
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
        let choice = self.inner.decide(&observation.narrowed(&self.case, &self.candidates));
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
            let allowed = |_: VariantId, p: ProcessorId| processors >> p.0 & 1 == 1;
            let mut policy = Restrained {
                inner: Box::new(Handovers(noted.clone())),
                case: case.restricted(allowed),
                served: vec![true; 2],
                candidates: Vec::new(),
                original: Vec::new(),
            };
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
