//! Online learning on an emulated device: it is back after a slow-down, what is spoiled is rolled back within a bound, and its state goes
//! on in the next run. It refuses to need libtorch: trainers are made by hand, the network follows its first guide.

use cosched_agent::features::{CANDIDATE_FEATURES, FIRST_VOTE};
use cosched_agent::network::{Linear, Weights};
use cosched_agent::online::Trainer;
use cosched_agent::online::learner::Settings;
use cosched_env::case::Case;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{ArrivalKind, Scenario, Stream};
use cosched_experiments::adapt::{Adaptation, Contest, SlowDown, Spoiled, Still, adapt};
use cosched_experiments::compare::Setup;
use cosched_policies::online::arena;
use cosched_policies::tournament::Budget;
use std::sync::Arc;

const SEEDS: [u64; 2] = [7, 8];
const BUDGET: Budget = Budget { runs: 2, requests: 150.0, placement_runs: 0 };

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

fn run(seconds: f64, settings: Settings, trainer: &dyn Fn() -> Box<dyn Trainer>) -> Adaptation {
    let weights = follower();
    let contest = Contest {
        weights: &weights,
        baselines: &[],
        budget: BUDGET,
        settings,
        trainer: &|| Ok(trainer()),
        arena: &|| arena(BUDGET),
        state: None,
    };
    adapt(&setup(seconds), &slow_down(), &SEEDS, &contest).expect("it runs")
}

fn still() -> Box<dyn Trainer> {
    Box::new(Still(follower()))
}

#[test]
fn it_is_back_after_a_slow_down_that_is_noticed() {
    let shown = run(24.0, settings(), &still);
    let by = |name: &str| shown.lines.iter().find(|l| l.name == name).expect("it took part");
    let (reference, online, frozen) = (by("known beforehand"), by("online"), by("frozen"));
    assert!(online.before > reference.after + 0.03, "the slow-down costs nothing:\n{shown}");
    assert!(online.settled >= 0.95 * reference.after, "{shown}");
    assert!(online.settled >= frozen.settled - 0.01, "{shown}");
    let back = online.back_after.unwrap_or_else(|| panic!("it never came back:\n{shown}"));
    assert!(back <= 500.0, "{shown}");
    println!("{shown}");
    for report in &shown.reports {
        let gpu = report.slowness.iter().find(|s| s.0 == "gpu").expect("there is one").1;
        let cpu = report.slowness.iter().find(|s| s.0 == "cpu").expect("there is one").1;
        assert!((gpu - 3.0).abs() < 0.5 && (cpu - 1.0).abs() < 0.15, "gpu {gpu}, cpu {cpu}");
        assert_eq!(report.dropped, 0);
    }
}

#[test]
fn what_is_spoiled_is_not_published_and_if_it_is_it_is_rolled_back_within_a_bound() {
    let spoiled = || Box::new(Spoiled { trainer: still(), left: 1 }) as Box<dyn Trainer>;
    let quiet = run(12.0, settings(), &still);
    let refused = run(12.0, settings(), &spoiled);
    for report in &refused.reports {
        assert!(report.counts.refused >= 1, "{:?}", report.story);
    }
    let blind = Settings { admission: false, ..settings() };
    let rolled = run(12.0, blind.clone(), &spoiled);
    for report in &rolled.reports {
        assert!(report.counts.rolled_back >= 1, "{:?}", report.story);
    }
    // The bound: `least` requests, and those that arrive until the learner's next step and until what runs has ended.
    let loss = |shown: &Adaptation| {
        let online = shown.lines.iter().find(|l| l.name == "online").expect("it took part");
        online.before * shown.window_requests * 6.0
    };
    let lost = loss(&quiet) - loss(&refused);
    assert!(lost.abs() < 5.0, "{lost} utility was lost by weights that were not to be published");
    let lost = loss(&quiet) - loss(&rolled);
    println!("lost before the roll-back: {lost:.1} utility");
    let bound = 1.2 * (settings().rules.least as f64 + 40.0);
    assert!(lost <= bound, "{lost} utility was lost, the bound is {bound}");
    // Saboteur: a guard that never rolls back loses more.
    let mut lazy = blind;
    (lazy.rules.crash, lazy.rules.tolerance, lazy.rules.proof) = (f64::INFINITY, f64::INFINITY, usize::MAX);
    let never = run(12.0, lazy, &spoiled);
    assert!(never.reports.iter().all(|r| r.counts.rolled_back == 0));
    let lost = loss(&quiet) - loss(&never);
    println!("lost without roll-back: {lost:.1} utility, the bound is {bound:.1}");
    assert!(lost > bound, "without rolling back only {lost} was lost: the bound shows nothing");
}
