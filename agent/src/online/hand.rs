//! A case and networks made by hand for the tests of this folder. It refuses to be used elsewhere.

use crate::network::{Linear, Weights};
use cosched_env::case::Case;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{Scenario, Stream};
use std::sync::Arc;

/// Two variants of one segment that take 10 ms on p0 and 5 ms on p1, which slow each other by half.
pub fn two_processors() -> Arc<Case> {
    let cost = |ms: f64| Some(Cost { mean_us: ms * 1e3, p50_us: ms * 1e3, p95_us: ms * 1e3, energy_mj: 1.0 });
    let processor = |name: &str| ProcessorSpec {
        name: name.into(),
        slots: 1,
        active_watts: 1.0,
        ..ProcessorSpec::default()
    };
    let segment = SegmentSpec { costs: vec![cost(10.0), cost(5.0)], ..SegmentSpec::default() };
    let variant = |name: &str, accuracy| Variant {
        name: name.into(),
        task: "t".into(),
        accuracy,
        segments: vec![segment.clone()],
        ..Variant::default()
    };
    let plan = Plan {
        format: PLAN_FORMAT,
        provenance: Default::default(),
        processors: vec![processor("p0"), processor("p1")],
        contention: vec![vec![1.0, 1.5], vec![1.5, 1.0]],
        variants: vec![variant("a", 0.8), variant("b", 0.9)],
    };
    let stream = Stream { task: "t".into(), period_ms: 8.0, deadline_ms: 12.0, ..Stream::default() };
    let scenario = Scenario { name: "hand".into(), streams: vec![stream], objective: Default::default() };
    Arc::new(Case::new(plan, scenario).expect("it is well-formed"))
}

/// A network all of whose weights are this.
pub fn even(value: f32) -> Weights {
    let made = Weights::build(4, |_, inputs, outputs, bias| {
        let bias = vec![0.0; if bias { outputs } else { 0 }];
        Ok::<_, std::convert::Infallible>(Linear {
            weight: vec![value; inputs * outputs],
            bias,
            inputs,
            outputs,
        })
    });
    let Ok(weights) = made;
    weights
}
