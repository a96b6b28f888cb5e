//! A plan that is measured in no time. It holds no test.

use cosched::env::plan::Plan;
use cosched::executors::deploy::Deployment;
use cosched::executors::profile::{Options, Power, profile};
use std::time::Duration;

/// Latencies are rough, power is given.
pub fn quick_plan(deployment: &Deployment) -> Plan {
    let ms = Duration::from_millis;
    let quick = Options {
        warm_up: 1,
        least_runs: 3,
        most_runs: 10,
        budget: ms(20),
        pair: ms(20),
        ..Options::default()
    };
    profile(deployment, &quick, &|_| Power::given((1.0, 0.1)), &mut |_, _, _| {}).unwrap()
}
