//! The suite that every row of the table has to pass, on random cases by seed; and policies made to fail it, which it must reject.

#[path = "../../env/tests/common/mod.rs"]
mod common;
mod quick;

use common::{Setup, case, check, ends, exact, ms, plan, processor, random_setup, run, stream, variant};
use cosched_agent::checkpoint;
use cosched_env::case::Case;
use cosched_env::emulator::Config;
use cosched_env::event::Outcome;
use cosched_env::objective::Objective;
use cosched_env::observation::{Action, Observation};
use cosched_env::scenario::{ArrivalKind, Queue, Stream};
use cosched_env::scheduler::Options;
use cosched_env::world::{Decision, Policy};
use cosched_policies::learned::SHIPPED;
use cosched_policies::{PolicyError, TABLE, make};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

type Maker<'a> = &'a dyn Fn(&Case) -> Box<dyn Policy>;

/// All rules on one random case.
fn random_case(seed: u64, maker: Maker<'_>) -> Result<(), String> {
    let setup = random_setup(seed);
    let at = |why: String| format!("seed {seed}: {why}");
    let log = run(&setup, &mut *maker(&setup.case)).map_err(at)?;
    check(&setup.case, &log).map_err(at)?;
    let again = run(&setup, &mut *maker(&setup.case)).map_err(at)?;
    match log.iter().zip(&again).find(|(a, b)| a != b) {
        Some((a, b)) => Err(at(format!("not deterministic: {a:?}, then {b:?}"))),
        None if log.len() != again.len() => Err(at("not deterministic: one run is longer".to_owned())),
        None => Ok(()),
    }
}

/// One processor, one task, little load: anything sensible has all requests on time, in the most accurate variant.
fn easy_case(maker: Maker<'_>) -> Result<(), String> {
    let fast = variant("fast", "t", 0.6, &[&[Some(500.0)], &[Some(500.0)]]);
    let good = variant("good", "t", 0.9, &[&[Some(1000.0)], &[Some(1000.0)]]);
    let setup = Setup {
        case: case(plan(vec![processor("only")], 1.0, vec![fast, good]), vec![stream("t", 20.0, 10.0)]),
        options: Options::default(),
        config: exact(),
        seed: 1,
        horizon: ms(1000.0),
    };
    let log = run(&setup, &mut *maker(&setup.case))?;
    check(&setup.case, &log)?;
    let missed = ends(&log).filter(|e| e.outcome != Outcome::Answered).count();
    let poor = ends(&log).filter(|e| e.utility < 0.9).count();
    match (ends(&log).count(), missed, poor) {
        (50, 0, 0) => Ok(()),
        (n, missed, poor) => {
            Err(format!("easy case: {n} of 50 ended, {missed} missed, {poor} in a poor variant"))
        }
    }
}

fn random_cases(count: u64, maker: Maker<'_>) -> Result<(), String> {
    (0..count).try_for_each(|seed| random_case(seed, maker))
}

fn suite(maker: Maker<'_>) -> Result<(), String> {
    easy_case(maker)?;
    random_cases(150, maker)
}

/// Whether the shipped checkpoint is a placeholder with random weights, which learned from nothing.
fn shipped_is_untrained() -> bool {
    let (_, about) = checkpoint::from_bytes("(shipped)", SHIPPED).expect("the shipped checkpoint is whole");
    about.decisions == 0
}

#[test]
fn every_row_passes() {
    for row in TABLE {
        let maker =
            |case: &Case| make(&quick::spec(row.name), case).unwrap_or_else(|e| panic!("{}: {e}", row.name));
        // Searches take milliseconds a decision.
        random_cases(if row.searches { 5 } else { 150 }, &maker)
            .unwrap_or_else(|why| panic!("policy {}: {why}", row.name));
        let easy = easy_case(&maker);
        if row.name == "learned" && shipped_is_untrained() {
            assert!(easy.is_err(), "random weights cannot have learned this");
        } else {
            easy.unwrap_or_else(|why| panic!("policy {}: {why}", row.name));
        }
    }
}

#[test]
fn fixed_passes_on_every_processor() {
    for seed in 0..60 {
        let count = random_setup(seed).case.processor_count();
        for p in 0..count {
            let maker = |case: &Case| make(&format!("fixed:p{p}"), case).expect("the processor is there");
            random_case(seed, &maker).unwrap_or_else(|why| panic!("fixed:p{p}: {why}"));
        }
    }
}

/// Mean utility per unit of priority over random cases with three times the load, without faults and device files.
fn under_overload(spec: &str) -> f64 {
    let utility = |seed: u64| {
        let mut setup = random_setup(seed);
        let mut scenario = setup.case.scenario.clone();
        for s in &mut scenario.streams {
            // All streams come by themselves and all the time, so that there is three times the load.
            if matches!(s.kind, ArrivalKind::Trace | ArrivalKind::Dependent) {
                s.kind = ArrivalKind::Poisson;
            }
            *s = Stream {
                period_ms: s.period_ms / 3.0,
                times_ms: Vec::new(),
                after: String::new(),
                open_ms: Vec::new(),
                queue: Queue::Fifo,
                ..s.clone()
            };
        }
        scenario.objective = Objective::default();
        setup.case = Arc::new(Case::new(setup.case.plan.clone(), scenario).expect("still well-formed"));
        setup.config = Config { failure_rate: 0.0, faults: Vec::new(), ..setup.config };
        setup.options = Options::default();
        setup.horizon = ms(1000.0);
        let mut policy = make(spec, &setup.case).expect("a row of the table");
        let log = run(&setup, &mut *policy).expect("the rules hold");
        let weight: f64 = ends(&log).map(|e| e.request.priority).sum();
        ends(&log).map(|e| e.utility).sum::<f64>() / weight.max(1e-9)
    };
    (0..100).map(utility).sum::<f64>() / 100.0
}

#[test]
fn the_opponents_are_strong_under_overload() {
    let [fixed, edf, skip, slack, heft] =
        ["fixed", "edf", "edf-skip", "least-slack", "heft"].map(under_overload);
    println!("fixed {fixed:.3}, edf {edf:.3}, edf-skip {skip:.3}, least-slack {slack:.3}, heft {heft:.3}");
    assert!(edf > fixed + 0.03, "edf {edf}, fixed {fixed}");
    assert!(skip > edf + 0.03, "giving up the hopeless must pay: edf-skip {skip}, edf {edf}");
    assert!(slack > skip && heft > skip, "waiting for a better processor must pay: {slack}, {heft}, {skip}");
}

/// Policies that the suite has to reject.
struct Saboteur(fn(&Observation<'_>) -> usize);

impl Policy for Saboteur {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        Decision((self.0)(observation))
    }
}

fn rejected(choose: fn(&Observation<'_>) -> usize) -> String {
    let verdict = suite(&|_: &Case| Box::new(Saboteur(choose)));
    verdict.expect_err("the suite let a saboteur pass")
}

fn last(observation: &Observation<'_>) -> usize {
    observation.candidates.len() - 1
}

#[test]
fn one_that_always_waits_is_rejected() {
    assert!(rejected(last).contains("50 missed"));
}

#[test]
fn one_that_drops_everything_is_rejected() {
    let drop = |o: &Observation<'_>| {
        o.candidates.iter().position(|c| matches!(c.action, Action::Drop { .. })).unwrap_or(last(o))
    };
    assert!(rejected(drop).contains("50 missed"));
}

#[test]
fn one_that_takes_the_poorest_variant_is_rejected() {
    assert!(rejected(|_| 0).contains("50 in a poor variant"));
}

#[test]
fn one_that_chooses_what_is_not_there_is_rejected() {
    assert!(rejected(|o| o.candidates.len()).contains("the policy chose candidate"));
}

#[test]
fn one_that_remembers_the_last_run_is_rejected() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let choose = |o: &Observation<'_>| {
        if o.processors.len() == 1 && o.streams.len() == 1 && o.case.variants.len() == 2 {
            // Passes the easy case.
            let best = o.candidates.iter().position(
                |c| matches!(c.action, Action::Launch { variant, .. } if o.case.variant(variant).accuracy == 0.9),
            );
            return best.unwrap_or(last(o));
        }
        CALLS.fetch_add(7, Ordering::Relaxed) % o.candidates.len()
    };
    assert!(rejected(choose).contains("not deterministic"));
}

fn error(spec: &str) -> PolicyError {
    let setup = random_setup(1);
    make(spec, &setup.case).err().expect("the specification is wrong")
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    let text = error("edf-skp").to_string();
    assert!(
        text.starts_with("no policy `edf-skp`, did you mean `edf-skip`?; policies: fixed, round-robin"),
        "{text}"
    );
    let text = error("42").to_string();
    assert!(text.starts_with("no policy `42`; policies: fixed"), "{text}");
    assert!(matches!(error(""), PolicyError::Unknown { .. }));
}

#[test]
fn wrong_parameters_are_refused() {
    assert!(matches!(error("edf:cpu"), PolicyError::NoParameter { .. }));
    assert!(matches!(error("fixed:npu"), PolicyError::Parameter { .. }));
    let text = error("fixed:p00").to_string();
    assert!(text.contains("did you mean `p0`?"), "{text}");
}

#[test]
fn names_are_unique_and_simple() {
    for (i, row) in TABLE.iter().enumerate() {
        assert!(TABLE[..i].iter().all(|other| other.name != row.name), "{} is there twice", row.name);
        assert!(row.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", row.name);
        assert!(!row.about.is_empty());
    }
}
