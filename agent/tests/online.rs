//! The online learner on a trivial world, end to end: it begins with weights that prefer the wrong processor, and decisions of its actor
//! teach it the right one. No guide and no profile helps it. It refuses to judge the guard, whose tests are beside it.
#![cfg(feature = "train")]

#[path = "learning/worlds.rs"]
#[allow(dead_code)]
mod worlds;

use cosched_agent::experience::Experience;
use cosched_agent::network::Weights;
use cosched_agent::online::explore::Exploration;
use cosched_agent::online::learner::{Classroom, Report, Settings, Subject, start};
use cosched_agent::online::link::Actor;
use cosched_agent::online::ppo::{Ppo, live};
use cosched_agent::online::{Arena, Rival, Trainer};
use cosched_agent::train::model::Model;
use cosched_agent::train::recipe::Recipe;
use cosched_env::case::Case;
use cosched_env::emulator::{Config, Emulator};
use cosched_env::event::Ended;
use cosched_env::observation::{Action, Observation};
use cosched_env::scheduler::{Options, Scheduler};
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, Observer, Policy, drive};
use std::sync::Arc;
use worlds::trivial;

/// Utility per request in the first and the last quarter of a run.
#[derive(Default)]
struct Quarters {
    seconds: f64,
    first: (f64, f64),
    last: (f64, f64),
}

impl Observer for Quarters {
    fn ended(&mut self, ended: &Ended) {
        let at = ended.at.ms_after(Time::ZERO) / 1e3 / self.seconds;
        for (sum, within) in [(&mut self.first, at < 0.25), (&mut self.last, at >= 0.75)] {
            if within {
                (sum.0, sum.1) = (sum.0 + ended.utility, sum.1 + 1.0);
            }
        }
    }
}

fn recipe() -> Recipe {
    Recipe { learning_rate: 3e-3, entropy: 0.0, anchor: 0.0, max_divergence: 0.1, ..live() }
}

/// Nothing helps but what is learned: no guide, and a guard that lets weights act which nobody has looked at.
fn run(trainer: &dyn Fn(&Weights) -> Box<dyn Trainer>) -> (f64, f64, Report) {
    let alone: Arena = Box::new(|_: &Case| Vec::new());
    let mut settings = Settings {
        exploration: Exploration { comparison: 0.0, share: 1.0, seed: 5 },
        batch: 256,
        margins: vec![0.0],
        admission: false,
        ..Settings::default()
    };
    (settings.rules.proof, settings.rules.least) = (30, 20);
    (settings.rules.crash, settings.rules.tolerance) = (f64::INFINITY, f64::INFINITY);
    a_minute(trainer, alone, settings)
}

/// A run of a minute: (utility in its first quarter, in its last, what the learner says).
fn a_minute(
    trainer: &dyn Fn(&Weights) -> Box<dyn Trainer>,
    arena: Arena,
    settings: Settings,
) -> (f64, f64, Report) {
    let source = trivial();
    let case = Arc::new(Case::new(source.plan, source.scenario).unwrap());
    let subject = Subject { case: case.clone(), options: Options::default(), emulator: Config::default() };
    let weights = Model::new(16, 4).weights();
    let (mut actor, ear, learner) = start(subject, &weights, None, settings, trainer(&weights), arena);
    let mut quarters = Quarters { seconds: 60.0, ..Quarters::default() };
    let mut room =
        Classroom { ear, learner, every: Span::from_ms(100.0), next: Time::ZERO, log: &mut quarters };
    let mut emulator =
        Emulator::new(case.clone(), Config::default(), 3, Time::ZERO + Span::from_ms(60_000.0));
    let mut scheduler = Scheduler::new(case, Options::default());
    let actor: &mut Actor = &mut actor;
    drive(&mut scheduler, &mut emulator, actor, &mut room).unwrap();
    room.learner.step();
    let report = room.learner.report();
    let share = |(sum, n): (f64, f64)| sum / n;
    (share(quarters.first), share(quarters.last), report)
}

/// Teaches the opposite of what was earned.
struct Liar(Ppo);

impl Trainer for Liar {
    fn set(&mut self, weights: &Weights) {
        self.0.set(weights);
    }

    fn learn(&mut self, mut lesson: Experience) -> Weights {
        lesson.reward.iter_mut().for_each(|r| *r = -*r);
        self.0.learn(lesson)
    }
}

#[test]
fn live_decisions_teach_the_network() {
    let (first, last, report) = run(&|w| Box::new(Ppo::new(w, recipe())));
    assert!(report.lessons >= 10 && report.dropped == 0, "{report:?}");
    assert!(last > first + 0.1 && last > 0.9, "from {first} to {last}: {report:?}");
    // Saboteurs: one that does not learn, and one whose rewards have the wrong sign.
    let (_, lazy, report) = run(&|w| Box::new(Ppo::new(w, Recipe { learning_rate: 0.0, ..recipe() })));
    assert!(
        report.lessons >= 10 && lazy < 0.8,
        "without learning the utility is {lazy}: the bound shows nothing"
    );
    let (_, lied, _) = run(&|w| Box::new(Liar(Ppo::new(w, recipe()))));
    assert!(lied < 0.8, "wrong rewards teach as well: {lied}");
}

/// Learns nothing.
struct Idle(Weights);

impl Trainer for Idle {
    fn set(&mut self, weights: &Weights) {
        self.0 = weights.clone();
    }

    fn learn(&mut self, _: Experience) -> Weights {
        self.0.clone()
    }
}

/// The launch that takes the least time, or nothing but giving up.
enum Rule {
    Fastest,
    GiveUp,
}

impl Policy for Rule {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let rule = &*self;
        let cost = |action, expected_ns| match (rule, action) {
            (Rule::Fastest, Action::Launch { .. }) => expected_ns,
            (Rule::GiveUp, Action::Drop { .. }) => 0.0,
            _ => f64::INFINITY,
        };
        let costs = observation.candidates.iter().map(move |c| cost(c.action, c.expected_ns)).enumerate();
        let best = costs.filter(|(_, cost)| cost.is_finite()).min_by(|a, b| a.1.total_cmp(&b.1));
        Decision(best.map_or(observation.candidates.len() - 1, |(i, _)| i))
    }
}

#[test]
fn live_decisions_alone_tell_who_is_better() {
    // The emulator says nothing, and weights that prefer the wrong processor act.
    let beside = |fastest, comparison| {
        let rival = move |_: &Case| {
            let rule = if fastest { Rule::Fastest } else { Rule::GiveUp };
            Box::new(rule) as Box<dyn Policy>
        };
        let arena: Arena =
            Box::new(move |_: &Case| vec![Rival { name: "rule".into(), score: 0.5, make: Box::new(rival) }]);
        let settings = Settings {
            exploration: Exploration { comparison, share: 0.0, seed: 5 },
            batch: 256,
            margins: vec![0.0],
            shadow_runs: 0,
            ..Settings::default()
        };
        a_minute(&|w| Box::new(Idle(w.clone())), arena, settings).2
    };
    let report = beside(true, 0.1);
    let told =
        report.story.iter().any(|line| line.contains("rule decides") && line.contains("give the baseline +"));
    assert!(report.counts.handed_over > 0 && told, "{report:?}");
    let report = beside(false, 0.1);
    assert_eq!(report.counts.handed_over, 0, "to a worse one: {report:?}");
    // Saboteur: one that never compares.
    let report = beside(true, 0.0);
    assert_eq!(report.counts.handed_over, 0, "{report:?}");
}
