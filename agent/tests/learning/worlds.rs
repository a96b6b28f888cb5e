//! Worlds that are trivial to master, and a recipe that masters them in seconds. It refuses to test anything.

use cosched_agent::network::{Linear, Weights};
use cosched_agent::train::recipe::Recipe;
use cosched_agent::train::rollout::{Guidance, Source};
use cosched_agent::train::train;
use cosched_env::objective::Objective;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{ArrivalKind, Scenario, Stream};

/// One task on a fast and a slow processor; only the fast one meets the deadline.
pub fn trivial() -> Source {
    let cost = |ms: f64| Some(Cost { mean_us: ms * 1e3, p50_us: ms * 1e3, p95_us: ms * 1e3, energy_mj: 1.0 });
    let processor = |name: &str| ProcessorSpec {
        name: name.into(),
        device: String::new(),
        slots: 1,
        active_watts: 1.0,
        idle_watts: 0.0,
        copy_us: 0.0,
        copy_gbps: 0.0,
        launch_us: 0.0,
        crowd: None,
    };
    let segments = vec![SegmentSpec {
        name: "all".into(),
        input_bytes: 0,
        output_bytes: 0,
        costs: vec![cost(50.0), cost(5.0)],
        ..SegmentSpec::default()
    }];
    let variant =
        Variant { name: "v".into(), task: "t".into(), accuracy: 1.0, segments, ..Variant::default() };
    let stream = Stream {
        task: "t".into(),
        period_ms: 20.0,
        jitter_ms: 2.0,
        deadline_ms: 15.0,
        expire_ms: 30.0,
        ..Stream::default()
    };
    Source {
        name: "trivial".into(),
        plan: Plan {
            format: PLAN_FORMAT,
            provenance: Default::default(),
            processors: vec![processor("slow"), processor("fast")],
            contention: vec![vec![1.0; 2]; 2],
            variants: vec![variant],
        },
        device: Default::default(),
        scenario: Scenario { name: "trivial".into(), streams: vec![stream], objective: Objective::default() },
        emulator: Default::default(),
        options: Default::default(),
    }
}

pub fn quick() -> Recipe {
    Recipe {
        decisions: 20_000,
        imitation: 0,
        actors: 16,
        steps: 64,
        hidden: 16,
        learning_rate: 3e-3,
        repeats: 1,
        ..Recipe::default()
    }
}

/// The same, but after five requests there are no more: its episodes finish.
pub fn short() -> Source {
    let mut source = trivial();
    let stream = &mut source.scenario.streams[0];
    stream.kind = ArrivalKind::Trace;
    stream.times_ms = vec![10.0, 30.0, 50.0, 70.0, 90.0];
    source
}

/// Weights of 0, but for the value of every state.
pub fn constant(value: f32) -> Weights {
    let made = Weights::build(16, |name, inputs, outputs, bias| {
        let bias = vec![if name == "value2" { value } else { 0.0 }; if bias { outputs } else { 0 }];
        Ok::<_, std::convert::Infallible>(Linear {
            weight: vec![0.0; inputs * outputs],
            bias,
            inputs,
            outputs,
        })
    });
    let Ok(made) = made;
    made
}

/// Trains in the trivial world; gives the weights, and the mean utility per request at the start and at the end.
pub fn run(recipe: &Recipe) -> (Weights, f64, f64) {
    let (mut first, mut last) = (f64::NAN, f64::NAN);
    let weights = train(&[trivial()], recipe, Guidance::NONE, None, |p, _| {
        if first.is_nan() {
            first = p.utility;
        }
        last = if p.utility.is_nan() { last } else { p.utility };
        true
    });
    (weights.unwrap(), first, last)
}
