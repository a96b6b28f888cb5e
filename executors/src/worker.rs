//! One thread per slot of a processor: runs launches one after the other and reports how each ended. A panic below it is a failed launch;
//! a processor that died is probed until it is back, and one that makes NaN of numbers counts as dead. It refuses to hold anything of a
//! request after its report.

use crate::affinity::Pinned;
use crate::chain::{Room, Values};
use crate::deploy::Deployment;
use crate::held::Held;
use crate::inject::{How, Striker};
use crate::processor::{ExecError, Instance};
use crate::runtime::panic_text;
use crate::stop::Stop;
use crate::tensor::{Data, Tensor};
use cosched_env::event::Launch;
use crossbeam::channel::{Receiver, Sender};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A launch with the values that it reads.
pub(crate) struct Job {
    pub launch: Launch,
    /// Where the request stands, or its inputs when it has not been started.
    pub input: Input,
    /// Ends it early.
    pub stop: Arc<Stop>,
}

/// What a launch starts from.
pub(crate) enum Input {
    Values(Values),
    Fresh(Vec<Arc<Tensor>>),
}

/// How a launch ended.
pub(crate) struct Report {
    pub launch: Launch,
    pub started: Instant,
    pub finished: Instant,
    pub result: Result<Values, ExecError>,
}

/// What a worker says.
pub(crate) enum Said {
    Done(Report),
    Health { processor: usize, up: bool },
}

/// Waits between probes of a dead processor: doubled each time, from the first to the last.
const PROBE_FIRST: Duration = Duration::from_millis(50);
const PROBE_LAST: Duration = Duration::from_secs(2);

/// The state of a worker thread.
pub(crate) struct Worker {
    pub deployment: Arc<Deployment>,
    pub processor: usize,
    pub instances: BTreeMap<(usize, usize), Box<dyn Instance>>,
    pub said: Sender<Said>,
    /// Segments that make no NaN of their samples: whatever holds NaN after them is the processor's fault, unless it was sent.
    clean: BTreeSet<(usize, usize)>,
    striker: Striker,
    room: Room,
    /// Where the running launch started from.
    before: Values,
}

impl Worker {
    /// Makes the working memory of every segment that is prepared here.
    ///
    /// # Errors
    /// When the processor cannot give it.
    pub fn new(
        deployment: Arc<Deployment>,
        processor: usize,
        said: Sender<Said>,
        striker: Striker,
    ) -> Result<Worker, ExecError> {
        let mut instances = BTreeMap::new();
        for (v, variant) in deployment.variants.iter().enumerate() {
            for (s, row) in variant.prepared.iter().enumerate() {
                if let Ok(prepared) = &row[processor] {
                    instances.insert((v, s), prepared.spawn()?);
                }
            }
        }
        Ok(Worker {
            deployment,
            processor,
            instances,
            said,
            clean: BTreeSet::new(),
            striker,
            room: Room::default(),
            before: Values::default(),
        })
    }

    /// Runs every segment once, so that nothing is compiled or paged in during the run.
    ///
    /// # Errors
    /// When a segment fails.
    pub fn warm_up(&mut self) -> Result<(), ExecError> {
        for (&(v, s), instance) in &mut self.instances {
            let inputs = self.deployment.variants[v].sample(s);
            if !instance.run(&inputs)?.iter().any(Tensor::has_nan) {
                self.clean.insert((v, s));
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.deployment.processors[self.processor].name().into()
    }

    /// Something that was asked to go wrong now.
    fn strike(&mut self) -> Result<Option<How>, ExecError> {
        let reason = || "injected".to_owned();
        match self.striker.strike() {
            Some(How::Die) => Err(ExecError::Died { processor: self.name(), reason: reason() }),
            Some(How::Fail) => {
                Err(ExecError::Failed { processor: self.name(), graph: "launch".into(), reason: reason() })
            }
            Some(How::Hang(long)) => {
                std::thread::sleep(long);
                Ok(None)
            }
            other => Ok(other),
        }
    }

    /// Works until the other side hangs up.
    pub fn work(mut self, jobs: &Receiver<Job>) {
        let processor = self.deployment.processors[self.processor].clone();
        let _pinned = Pinned::to(processor.cores()).unwrap_or_else(|problem| {
            tracing::warn!("{}: not on its cores: {problem}", processor.name());
            None
        });
        for Job { launch, input, stop } in jobs {
            let started = Instant::now();
            let result = self.guarded(|worker| worker.run(&launch, input, &stop));
            // Nothing of the request is held when the report goes out.
            self.before.clear();
            self.room.clear();
            let died = matches!(result, Err(ExecError::Died { .. }));
            let report = Report { launch, started, finished: Instant::now(), result };
            let mut heard = true;
            if died {
                heard &= self.said.send(Said::Health { processor: self.processor, up: false }).is_ok();
            }
            heard &= self.said.send(Said::Done(report)).is_ok();
            if !heard || (died && !self.revive()) {
                return;
            }
        }
    }

    fn run(&mut self, launch: &Launch, input: Input, stop: &Stop) -> Result<Values, ExecError> {
        let v = launch.variant.0 as usize;
        let strike = self.strike()?;
        let variant = &self.deployment.variants[v];
        let (chain, room) = (&variant.chain, &mut self.room);
        let mut values = match input {
            Input::Values(values) => values,
            Input::Fresh(inputs) => chain.start(inputs)?,
        };
        self.before.copy(&values);
        for s in launch.first..=launch.last {
            let s = s as usize;
            let instance = self.instances.get_mut(&(v, s)).ok_or_else(|| ExecError::Failed {
                processor: self.deployment.processors[self.processor].name().into(),
                graph: format!("{} segment {s}", variant.model.name),
                reason: "it is not prepared here: the plan is not of this deployment".into(),
            })?;
            chain.advance(&mut values, s, &mut **instance, room, stop)?;
            // Nobody looks at what is between the segments of a launch.
            if s == launch.last as usize {
                instance.finish()?;
            }
            if strike == Some(How::Nan) {
                chain.outputs_of(&mut values, s).try_for_each(spoil)?;
            }
            // Callers may send NaN; that must not take a processor out. What stays with the processor is looked at when it is brought.
            let judged = s == launch.last as usize && self.clean.contains(&(v, s));
            let nan = |held: &mut Held| held.seen().is_some_and(|tensor| tensor.has_nan());
            if judged && chain.outputs_of(&mut values, s).any(nan) && !self.before.has_nan() {
                return Err(self.nan());
            }
        }
        Ok(values)
    }

    fn nan(&self) -> ExecError {
        ExecError::Died { processor: self.name(), reason: "it makes NaN of numbers".into() }
    }

    /// Turns a panic into a failed launch.
    fn guarded<T>(&mut self, run: impl FnOnce(&mut Worker) -> Result<T, ExecError>) -> Result<T, ExecError> {
        catch_unwind(AssertUnwindSafe(|| run(self))).unwrap_or_else(|panic| {
            Err(ExecError::Failed {
                processor: self.deployment.processors[self.processor].name().into(),
                graph: "launch".into(),
                reason: format!("panic: {}", panic_text(&*panic)),
            })
        })
    }

    /// Runs what was prepared on something that is gone, so that it is prepared again now and not in a launch.
    fn renew(&mut self) -> Result<(), ExecError> {
        for (&(v, s), instance) in self.instances.iter_mut().filter(|(_, i)| i.stale()) {
            let inputs = self.deployment.variants[v].sample(s);
            instance.run(&inputs)?;
        }
        Ok(())
    }

    /// Probes a dead processor until it runs its smallest segment again, and prepares what was lost. `false`: nobody listens any more.
    fn revive(&mut self) -> bool {
        let work = |v: usize, s: usize| self.deployment.variants[v].segments[s].flops;
        let Some(probe) = self.instances.keys().copied().min_by_key(|&(v, s)| work(v, s)) else {
            return true;
        };
        let mut pause = PROBE_FIRST;
        loop {
            std::thread::sleep(pause);
            let alive = self.guarded(|worker| {
                let inputs = worker.deployment.variants[probe.0].sample(probe.1);
                let outputs = worker.instances.get_mut(&probe).map_or(Ok(Vec::new()), |i| i.run(&inputs))?;
                let spoilt = worker.clean.contains(&probe) && outputs.iter().any(Tensor::has_nan);
                if spoilt { Err(worker.nan()) } else { worker.renew() }
            });
            match alive {
                Ok(()) => {
                    return self.said.send(Said::Health { processor: self.processor, up: true }).is_ok();
                }
                Err(error) => {
                    tracing::debug!("processor {} is still dead: {error}", self.processor);
                    pause = (pause * 2).min(PROBE_LAST);
                    // Hearing the same news again does no harm and tells whether anybody listens.
                    if self.said.send(Said::Health { processor: self.processor, up: false }).is_err() {
                        return false;
                    }
                }
            }
        }
    }
}

/// Puts NaN into an f32 tensor.
fn spoil(held: &mut Held) -> Result<(), ExecError> {
    let mut tensor = Tensor::clone(held.host()?);
    if let Data::F32(values) = &mut tensor.data
        && let Some(first) = values.first_mut()
    {
        *first = f32::NAN;
        *held = tensor.into();
    }
    Ok(())
}
