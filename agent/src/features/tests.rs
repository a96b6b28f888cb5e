//! The encoding as text, for a reviewer to read: what a network was trained on must not change unnoticed.

use super::*;
use crate::online::hand::two_processors;
use cosched_env::case::Case;
use cosched_env::emulator::Config;
use cosched_env::episode::Episode;
use cosched_env::objective::Objective;
use cosched_env::scenario::{Scenario, Stream};
use cosched_env::scheduler::Options;
use cosched_env::time::Span;
use cosched_env::world::Decision;
use std::fmt::Write;
use std::sync::Arc;

/// Three streams of unlike urgency on the two processors made by hand.
fn case() -> Arc<Case> {
    let stream = |period_ms, deadline_ms, priority, kind| Stream {
        task: "t".into(),
        kind,
        period_ms,
        deadline_ms,
        priority,
        ..Stream::default()
    };
    let streams = vec![
        stream(8.0, 12.0, 1.0, ArrivalKind::Periodic),
        stream(20.0, 60.0, 2.0, ArrivalKind::Poisson),
        Stream { min_accuracy: 0.85, ..stream(35.0, 9.0, 0.5, ArrivalKind::Poisson) },
    ];
    let objective = Objective {
        energy_weight: 10.0,
        accuracy_weight: 1.0,
        continuity_weight: 0.3,
        ..Objective::default()
    };
    let scenario = Scenario { name: "features".into(), streams, objective };
    Arc::new(Case::new(two_processors().plan.clone(), scenario).expect("it is well-formed"))
}

fn numbers(values: &[f32]) -> String {
    values.iter().map(|x| format!(" {x:.4}")).collect()
}

#[test]
fn three_moments_of_a_run() {
    let (far, never) = (Time::ZERO + Span::from_ms(1e3), Time::NEVER);
    let mut episode = Episode::new(case(), Options::default(), Config::default(), 7, far, never);
    let (mut encoder, mut text, mut moments) = (Encoder::new(), String::new(), 0);
    for moment in 0..400 {
        episode.advance().expect("the emulator keeps to the protocol");
        let Some(observation) = episode.observation() else { break };
        let n = observation.candidates.len();
        if moment % 3 == 1 && observation.requests.len() > 1 && moments < 3 {
            moments += 1;
            let votes = [Vote { choice: n / 2, score: 0.9 }, Vote { choice: n - 1, score: 0.85 }];
            encoder.encode(&observation, &votes);
            let _ = writeln!(text, "moment {moment}, {n} candidates\ncontext{}", numbers(&encoder.context));
            for (candidate, row) in
                observation.candidates.iter().zip(encoder.candidates.chunks(CANDIDATE_FEATURES))
            {
                let _ = writeln!(text, "{:?}\n {}", candidate.action, numbers(row));
            }
        }
        // Waiting two times in three fills the queues.
        let choice = if moment % 3 == 0 { moment * 7 % n } else { n - 1 };
        episode.decide(Decision(choice), n).expect("it is a candidate");
    }
    insta::assert_snapshot!("features", text);
}
