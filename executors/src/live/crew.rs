//! The workers of a live world: a thread per slot of each processor, made, warmed up, and joined at the end. It refuses to hand out work.

use crate::deploy::Deployment;
use crate::inject::{Injection, Striker};
use crate::processor::ExecError;
use crate::worker::{Job, Said, Worker};
use crossbeam::channel::{Receiver, Sender, bounded, never, unbounded};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;

/// See the module's text.
pub(super) struct Crew {
    /// One a processor.
    pub(super) jobs: Vec<Sender<Job>>,
    pub(super) said: Receiver<Said>,
    /// With their processors.
    threads: Vec<(usize, JoinHandle<()>)>,
}

impl Crew {
    /// Starts all; every segment has run once on each.
    ///
    /// # Errors
    /// When a processor cannot run what was prepared on it, or the system gives no thread.
    pub(super) fn new(deployment: &Arc<Deployment>, injections: &[Injection]) -> Result<Crew, ExecError> {
        let (say, said) = unbounded();
        let mut crew = Crew { jobs: Vec::new(), said, threads: Vec::new() };
        for (p, processor) in deployment.processors.iter().enumerate() {
            let slots = deployment.slots[p];
            let (job, queue) = bounded::<Job>(slots as usize + 3);
            crew.jobs.push(job);
            for _ in 0..slots {
                let striker = Striker::new(injections, processor.name());
                let mut worker = Worker::new(deployment.clone(), p, say.clone(), striker)?;
                worker.warm_up()?;
                let queue = queue.clone();
                let named = std::thread::Builder::new().name(format!("processor {}", processor.name()));
                let thread = named.spawn(move || worker.work(&queue)).map_err(|e| ExecError::Failed {
                    processor: processor.name().into(),
                    graph: "all".into(),
                    reason: format!("no thread for it: {e}"),
                })?;
                crew.threads.push((p, thread));
            }
        }
        Ok(crew)
    }

    /// Sends all home and waits for them, except for those of processors that hang: they go when their processor comes back, if it
    /// ever does.
    pub(super) fn dismiss(&mut self, hung: &BTreeSet<usize>) {
        self.jobs.clear();
        // Workers that probe a dead processor notice that nobody listens.
        self.said = never();
        for (processor, thread) in self.threads.drain(..) {
            if !hung.contains(&processor) && thread.join().is_err() {
                tracing::error!("a worker thread panicked outside a launch");
            }
        }
    }
}
