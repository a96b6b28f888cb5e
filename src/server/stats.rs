//! What is counted while a server runs: per model, per processor, and of the scheduler. Written by whoever knows, read by `/metrics` and
//! the statistics of both protocols. It refuses to wait: every lock is held for a few numbers only.

use cosched_agent::online::learner::Report;
use cosched_env::case::Case;
use cosched_env::event::Outcome;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timed {
    /// How often.
    pub count: u64,
    /// Nanoseconds of all together.
    pub ns: u64,
}

impl Timed {
    /// Once more.
    pub fn add(&mut self, ns: u64) {
        self.count += 1;
        self.ns += ns;
    }
}

/// Upper ends of the buckets of a [`Spread`], in seconds.
pub const BOUNDS_S: [f64; 15] =
    [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.5, 2.0];

/// How times are spread over buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    /// Times in each bucket of [`BOUNDS_S`]; the last one holds those above all of them.
    pub buckets: [u64; BOUNDS_S.len() + 1],
    /// All together.
    pub all: Timed,
}

impl Spread {
    /// One time more.
    pub fn add(&mut self, ns: u64) {
        let seconds = ns as f64 / 1e9;
        let bucket = BOUNDS_S.iter().position(|&bound| seconds <= bound).unwrap_or(BOUNDS_S.len());
        self.buckets[bucket] += 1;
        self.all.add(ns);
    }
}

/// What is counted of a model.
#[derive(Clone, Debug, Default)]
pub struct OfModel {
    /// Its name.
    pub name: String,
    /// Answered, from arrival at the scheduler to the answer.
    pub success: Timed,
    /// Not answered: why, in a word, and from arrival to the end.
    pub failures: BTreeMap<&'static str, Timed>,
    /// Answers after their deadline.
    pub late: u64,
    /// Of answered ones: time without a launch.
    pub queue: Timed,
    /// Of answered ones: time from body to tensors.
    pub compute_input: Timed,
    /// Of answered ones: time of their launches.
    pub compute_infer: Timed,
    /// Of answered ones: time from tensors to body.
    pub compute_output: Timed,
    /// When the last one was answered, in milliseconds since 1970.
    pub last_ms: u64,
    /// Answers of each variant.
    pub variants: BTreeMap<String, u64>,
    /// How the times of the answered ones are spread.
    pub latency: Spread,
    /// Requests that have not ended.
    pub pending: u64,
}

/// What is counted of a processor.
#[derive(Clone, Debug, Default)]
pub struct OfProcessor {
    /// Its name.
    pub name: String,
    /// Whether it takes launches.
    pub up: bool,
    /// Launches that went well.
    pub good: u64,
    /// Launches that failed.
    pub failed: u64,
    /// Launches that were stopped because their caller had gone.
    pub stopped: u64,
    /// Nanoseconds in which it ran something, per slot.
    pub busy_ns: u64,
    /// Energy in millijoules, as the plan's power has it.
    pub energy_mj: f64,
    /// How long launches took.
    pub launches: Spread,
}

/// Everything that is counted.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Every model that was ever served, in the order in which they came.
    pub models: Vec<OfModel>,
    /// Every processor that was ever used.
    pub processors: Vec<OfProcessor>,
    /// Decisions, and how long they took.
    pub decisions: Spread,
    /// Choices of the fallback, by what was wrong with the policy's.
    pub fallbacks: BTreeMap<&'static str, u64>,
    /// What the learner says, where the policy learns.
    pub online: Option<Report>,
}

/// How an answered request spent its time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// From arrival to the end.
    pub total: u64,
    /// In launches.
    pub compute: u64,
    /// From body to tensors, before it arrived.
    pub input: u64,
}

/// Where the models and processors of a case stand in [`Counted`].
#[derive(Clone, Debug, Default)]
pub struct Slots {
    /// In the order of the case's tasks.
    pub models: Vec<usize>,
    /// In the order of the plan.
    pub processors: Vec<usize>,
}

/// See the module's text.
#[derive(Default)]
pub struct Stats(Mutex<Counted>);

impl Stats {
    /// Where a case is counted: what had the same name before is counted on. Its processors are taken to be up.
    pub fn slots(&self, case: &Case) -> Slots {
        let mut counted = self.lock();
        let model = |name: &String| {
            counted.models.iter().position(|m| m.name == *name).unwrap_or_else(|| {
                counted.models.push(OfModel { name: name.clone(), ..OfModel::default() });
                counted.models.len() - 1
            })
        };
        let models = case.tasks.iter().map(|t| &t.name).map(model).collect();
        let processor = |name: &String| {
            let known = counted.processors.iter().position(|p| p.name == *name);
            let slot = known.unwrap_or_else(|| {
                counted.processors.push(OfProcessor { name: name.clone(), ..OfProcessor::default() });
                counted.processors.len() - 1
            });
            counted.processors[slot].up = true;
            slot
        };
        let processors = case.plan.processors.iter().map(|p| &p.name).map(processor).collect();
        Slots { models, processors }
    }

    /// The numbers, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Counted> {
        // Numbers are whole after each statement, whoever panicked between two.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of all numbers.
    pub fn read(&self) -> Counted {
        self.lock().clone()
    }

    /// A request of a model was answered by a variant.
    pub fn answered(&self, model: usize, variant: &str, late: bool, spent: Spent) {
        let mut counted = self.lock();
        let m = &mut counted.models[model];
        m.success.add(spent.total);
        m.late += u64::from(late);
        m.queue.add(spent.total.saturating_sub(spent.compute));
        m.compute_input.add(spent.input);
        m.compute_infer.add(spent.compute);
        // Its time is added when the body is written; the counts of the three agree at any moment.
        m.compute_output.add(0);
        m.latency.add(spent.total);
        m.last_ms = now_ms();
        match m.variants.get_mut(variant) {
            Some(count) => *count += 1,
            None => drop(m.variants.insert(variant.to_owned(), 1)),
        }
    }

    /// The body of an answer was written.
    pub fn written(&self, model: usize, took: Duration) {
        self.lock().models[model].compute_output.ns += took.as_nanos() as u64;
    }

    /// A request of a model ended without an answer.
    pub fn failed(&self, model: usize, reason: &'static str, ns: u64) {
        self.lock().models[model].failures.entry(reason).or_default().add(ns);
    }

    /// A request of a model began (`true`) or ended.
    pub fn pending(&self, model: usize, begins: bool) {
        let pending = &mut self.lock().models[model].pending;
        *pending = if begins { *pending + 1 } else { pending.saturating_sub(1) };
    }
}

/// Why a request was not answered, in the words of Triton's metric where it has one.
pub fn reason(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered | Outcome::Late => "OTHER",
        Outcome::Dropped => "DROPPED",
        Outcome::Expired => "EXPIRED",
        Outcome::Replaced => "REPLACED",
        Outcome::Failed(_) => "BACKEND",
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
