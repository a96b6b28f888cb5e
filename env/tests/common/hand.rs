//! A scheduler led by hand: the test is world and policy at once and says what happens when. It refuses to let anything be told or
//! decided that the test did not say.
#![allow(dead_code)]

use cosched_env::case::{Case, ProcessorId, StreamId};
use cosched_env::event::{Completion, Ended, Event, Launch, RequestId};
use cosched_env::observation::{Action, Candidate};
use cosched_env::scheduler::{Next, Options, Scheduler};
use cosched_env::time::Time;
use cosched_env::world::Decision;
use std::sync::Arc;

pub struct Hand {
    pub core: Scheduler,
    /// The requests that ended, in order.
    pub ended: Vec<Ended>,
    next_request: u64,
}

impl Hand {
    pub fn new(case: Arc<Case>, options: Options) -> Hand {
        Hand { core: Scheduler::new(case, options), ended: Vec::new(), next_request: 0 }
    }

    fn tell(&mut self, at: Time, event: Event) {
        self.core.handle(at, event).expect("the test keeps the protocol");
        self.ended.extend(std::iter::from_fn(|| self.core.take_ended()));
    }

    /// A request comes, with what its stream says by default; its number.
    pub fn arrive(&mut self, stream: u16, at: Time) -> u64 {
        let id = self.next_request;
        self.next_request += 1;
        let request =
            self.core.case().streams[stream as usize].request(RequestId(id), StreamId(stream), at, at);
        self.tell(at, Event::Arrived(request));
        id
    }

    pub fn done(&mut self, launch: &Launch, at: Time) {
        self.end(launch, at, None);
    }

    pub fn fail(&mut self, launch: &Launch, at: Time) {
        self.end(launch, at, Some("by hand".to_owned()));
    }

    fn end(&mut self, launch: &Launch, at: Time, failure: Option<String>) {
        let (started, finished) = (self.core.now(), at);
        let done = Completion { launch: launch.id, started, finished, energy_mj: 0.0, failure };
        self.tell(at, Event::Completed(done));
    }

    pub fn health(&mut self, processor: u16, up: bool, at: Time) {
        self.tell(at, Event::Health { processor: ProcessorId(processor), up });
    }

    pub fn alarm(&mut self, at: Time) {
        self.tell(at, Event::Alarm);
    }

    /// What may be chosen from now; empty when nothing can start.
    pub fn candidates(&mut self) -> Vec<Candidate> {
        match self.core.poll() {
            Next::Decide(observation) => observation.candidates.to_vec(),
            Next::Wait(_) => Vec::new(),
            other => panic!("the test has not taken {other:?}"),
        }
    }

    /// (variant, processor) of the launches that may be chosen, each once.
    pub fn choices(&mut self) -> Vec<(u16, u16)> {
        let launches = self.candidates().into_iter().filter_map(|c| match c.action {
            Action::Launch { variant, processor, .. } => Some((variant.0, processor.0)),
            _ => None,
        });
        let mut launches: Vec<_> = launches.collect();
        launches.dedup();
        launches
    }

    /// The first launch candidate of a variant on a processor: as far as it goes, of the oldest request that it may serve.
    pub fn find(&mut self, variant: u16, processor: u16) -> (usize, Candidate) {
        let candidates = self.candidates();
        let wanted = |c: &Candidate| match c.action {
            Action::Launch { variant: v, processor: p, .. } => (v.0, p.0) == (variant, processor),
            _ => false,
        };
        let at = candidates.iter().position(wanted);
        let at = at.unwrap_or_else(|| panic!("variant {variant} cannot be launched on {processor} now"));
        (at, candidates[at])
    }

    /// Launches a variant on a processor.
    pub fn launch(&mut self, variant: u16, processor: u16) -> Launch {
        let (at, _) = self.find(variant, processor);
        self.decide(at).expect("a launch")
    }

    /// Gives up the first request that is on offer.
    pub fn drop_first(&mut self) {
        let candidates = self.candidates();
        let at = candidates.iter().position(|c| matches!(c.action, Action::Drop { request: 0 }));
        self.decide(at.expect("something waits"));
    }

    pub fn decide(&mut self, choice: usize) -> Option<Launch> {
        self.core.decide(Decision(choice)).expect("a candidate");
        self.ended.extend(std::iter::from_fn(|| self.core.take_ended()));
        match self.core.poll() {
            Next::Launch(launch) => Some(launch),
            _ => None,
        }
    }
}
