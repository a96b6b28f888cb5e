//! Online learning on an emulated device: it is back after a slow-down, what is spoiled is rolled back within a bound, and its state goes
//! on in the next run. It refuses to need libtorch: trainers are made by hand, the network follows its first guide.

use cosched_agent::features::{CANDIDATE_FEATURES, FIRST_VOTE};
use cosched_agent::network::{Linear, Weights};
use cosched_agent::online::Trainer;
use cosched_agent::online::learner::{Report, Settings};
use cosched_env::case::Case;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{ArrivalKind, Scenario, Stream};
use cosched_experiments::adapt::{Adaptation, Contest, FROZEN, Line, Pupil, SlowDown, Spoiled, Still, adapt};
use cosched_experiments::compare::Setup;
use cosched_experiments::stats::mean;
use cosched_policies::online::arena;
use cosched_policies::tournament::Budget;
use std::sync::Arc;

const SEEDS: [u64; 2] = [7, 8];
const BUDGET: Budget = Budget { runs: 2, requests: 150.0, placement_runs: 0, attempts: 0 };

/// A network whose logit is what the first guide says: it goes up a lane of the first hidden unit.
fn follower() -> Weights {
    let made = Weights::build(2, |name, inputs, outputs, bias| {
        let mut weight = vec![0.0; inputs * outputs];
        match name {
            "candidate1" => weight[FIRST_VOTE] = 1.0,
            "candidate2" => weight[0] = 1.0,
            "logit" => weight[0] = 8.0,
            _ => {}
        }
        Ok::<_, std::convert::Infallible>(Linear {
            weight,
            bias: vec![0.0; if bias { outputs } else { 0 }],
            inputs,
            outputs,
        })
    });
    let Ok(weights) = made;
    assert_eq!(weights.candidate1.inputs, CANDIDATE_FEATURES);
    weights
}

/// A CPU and a GPU with a slot each and two tasks with a small and a large variant: with the GPU at full speed the large ones are on time.
fn setup(seconds: f64) -> Setup {
    let processor = |name: &str, watts| ProcessorSpec {
        name: name.into(),
        slots: 1,
        active_watts: watts,
        idle_watts: 0.5,
        ..ProcessorSpec::default()
    };
    let cost =
        |ms: f64| Some(Cost { mean_us: ms * 1e3, p50_us: ms * 1e3, p95_us: ms * 1.1e3, energy_mj: 3.0 * ms });
    let variant = |name: &str, task: &str, accuracy, cpu_ms: f64, gpu_ms: f64| {
        let half = |i: u32| SegmentSpec {
            name: format!("half {i}"),
            input_bytes: 1000,
            output_bytes: 1000,
            costs: vec![cost(cpu_ms / 2.0), cost(gpu_ms / 2.0)],
            ..SegmentSpec::default()
        };
        let segments = vec![half(0), half(1)];
        Variant { name: name.into(), task: task.into(), accuracy, segments, ..Variant::default() }
    };
    let plan = Plan {
        format: PLAN_FORMAT,
        provenance: Default::default(),
        processors: vec![processor("cpu", 3.0), processor("gpu", 5.0)],
        contention: vec![vec![1.0, 1.1], vec![1.1, 1.0]],
        variants: vec![
            variant("see-large", "see", 0.80, 24.0, 8.0),
            variant("see-small", "see", 0.70, 9.0, 4.0),
            variant("hear-large", "hear", 0.90, 16.0, 6.0),
            variant("hear-small", "hear", 0.75, 6.0, 3.0),
        ],
    };
    let stream = |task: &str, period_ms, deadline_ms, kind| Stream {
        task: task.into(),
        kind,
        period_ms,
        deadline_ms,
        jitter_ms: if kind == ArrivalKind::Periodic { 1.0 } else { 0.0 },
        ..Stream::default()
    };
    let streams = vec![
        stream("see", 16.0, 25.0, ArrivalKind::Periodic),
        stream("hear", 20.0, 30.0, ArrivalKind::Poisson),
    ];
    let scenario = Scenario { name: "adapt".into(), streams, objective: Default::default() };
    let case = Arc::new(Case::new(plan, scenario).expect("it is well-formed"));
    Setup { case, options: Default::default(), emulator: Default::default(), seconds }
}

fn slow_down() -> SlowDown {
    SlowDown { processor: "gpu".into(), factor: 3.0, window_s: 1.0 }
}

fn settings() -> Settings {
    // The network is heard whatever it is worth: it is the guard that is looked at.
    Settings { shadow_runs: 2, shadow_requests: 120.0, batch: 400, margins: vec![0.0], ..Settings::default() }
}

fn run(seconds: f64, pupils: &[Pupil<'_>]) -> Adaptation {
    let weights = follower();
    let contest = Contest {
        weights: &weights,
        retrained: None,
        pupils,
        baselines: &[],
        budget: BUDGET,
        arena: &|| arena(BUDGET, BUDGET),
        state: None,
    };
    adapt(&setup(seconds), &slow_down(), &SEEDS, &contest).expect("it runs")
}

fn still() -> Result<Box<dyn Trainer>, String> {
    Ok(Box::new(Still(follower())))
}

fn by<'a>(shown: &'a Adaptation, name: &str) -> &'a Line {
    shown.line(name).unwrap_or_else(|| panic!("`{name}` took no part:\n{shown}"))
}

#[test]
fn it_is_back_after_a_slow_down_that_is_noticed() {
    let online = Pupil { name: "online", settings: settings(), trainer: Box::new(still) };
    // The saboteur: one that looks at the device so seldom that it does not notice.
    let asleep = Settings { check_s: 1e6, scout_s: 1e6, ..settings() };
    let asleep = Pupil { name: "asleep", settings: asleep, trainer: Box::new(still) };
    let shown = run(24.0, &[online, asleep]);
    println!("{shown}");
    let (reference, online, asleep) =
        (by(&shown, &shown.reference), by(&shown, "online"), by(&shown, "asleep"));
    assert!(mean(&online.before) > mean(&reference.after) + 0.03, "the slow-down costs nothing:\n{shown}");
    assert!(mean(&online.settled) >= 0.95 * mean(&reference.settled), "{shown}");
    assert!(mean(&online.settled) >= mean(&by(&shown, FROZEN).settled) - 0.01, "{shown}");
    for back in &online.back {
        let back = back.unwrap_or_else(|| panic!("it never came back:\n{shown}"));
        assert!(back.requests <= 500.0, "{shown}");
    }
    assert!(mean(&asleep.settled) < mean(&online.settled) - 0.01, "who sleeps does as well:\n{shown}");
    for (report, sleeper) in online.reports.iter().zip(&asleep.reports) {
        let slowness = |name| report.slowness.iter().find(|s| s.0 == name).expect("there is one").1;
        let (gpu, cpu) = (slowness("gpu"), slowness("cpu"));
        assert!((gpu - 3.0).abs() < 0.5 && (cpu - 1.0).abs() < 0.15, "gpu {gpu}, cpu {cpu}");
        assert_eq!((report.dropped, sleeper.dropped), (0, 0));
    }
}

#[test]
fn what_is_spoiled_is_not_published_and_if_it_is_it_is_rolled_back_within_a_bound() {
    let pupil = |name, settings, spoiled: bool| {
        let trainer = move || -> Result<Box<dyn Trainer>, String> {
            if spoiled { Ok(Box::new(Spoiled { trainer: still()?, left: 1 })) } else { still() }
        };
        Pupil { name, settings, trainer: Box::new(trainer) }
    };
    let blind = Settings { admission: false, ..settings() };
    let mut lazy = blind.clone();
    (lazy.rules.crash, lazy.rules.tolerance, lazy.rules.proof) = (f64::INFINITY, f64::INFINITY, usize::MAX);
    let shown = run(
        12.0,
        &[
            pupil("quiet", settings(), false),
            pupil("refused", settings(), true),
            pupil("unseen", blind, true),
            pupil("no guard", lazy, true),
        ],
    );
    let lost = |name: &str| {
        let total = |name: &str| by(&shown, name).total.iter().sum::<f64>();
        (total("quiet") - total(name)) / SEEDS.len() as f64
    };
    let all = |name: &str, holds: &dyn Fn(&Report) -> bool| {
        by(&shown, name).reports.iter().for_each(|r| assert!(holds(r), "{name}: {:?}", r.story));
    };
    all("refused", &|r| r.counts.refused >= 1);
    assert!(
        lost("refused") < 10.0,
        "{} utility was lost by weights that were not to be published",
        lost("refused")
    );
    // The bound: `least` requests, and those that arrive until the learner's next step and until what runs has ended.
    let requests = settings().rules.least + 40;
    all("unseen", &|r| r.counts.rolled_back >= 1 && r.counts.longest_bad_trial as usize <= requests);
    let bound = 1.2 * requests as f64;
    println!("lost with a guard {:.1}, without {:.1}, bound {bound:.1}", lost("unseen"), lost("no guard"));
    assert!(lost("unseen") <= bound, "{} utility was lost, the bound is {bound}", lost("unseen"));
    // The saboteur: a guard that never rolls back loses more.
    all("no guard", &|r| r.counts.rolled_back == 0);
    assert!(lost("no guard") > bound, "without rolling back only {} was lost", lost("no guard"));
}
