//! The log of a run and the rules that every log has to keep.
//! It refuses to ask the scheduler whether it was right: all rules are checked from what crossed its boundary.

use cosched_env::case::{Case, ProcessorId, VariantId};
use cosched_env::event::{Ended, Event, Launch, LaunchId, Outcome, Request, RequestId};
use cosched_env::objective;
use cosched_env::observation::Observation;
use cosched_env::time::Time;
use cosched_env::world::{Decision, Observer};
use std::collections::BTreeMap;

/// One thing that crossed the scheduler's boundary.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Decided(usize, usize),
    Launched(Time, Launch),
    Event(Time, Event),
    Ended(Ended),
}

/// Writes the log.
#[derive(Default)]
pub struct Logger(pub Vec<Item>);

impl Observer for Logger {
    fn decided(&mut self, observation: &Observation<'_>, decision: Decision) {
        self.0.push(Item::Decided(decision.0, observation.candidates.len()));
    }
    fn launched(&mut self, now: Time, launch: &Launch) {
        self.0.push(Item::Launched(now, *launch));
    }
    fn event(&mut self, now: Time, event: &Event) {
        self.0.push(Item::Event(now, event.clone()));
    }
    fn ended(&mut self, ended: &Ended) {
        self.0.push(Item::Ended(ended.clone()));
    }
}

macro_rules! ensure {
    ($holds:expr, $($why:tt)*) => {{
        let holds: bool = $holds;
        if !holds {
            return Err(format!($($why)*));
        }
    }};
}

struct Progress {
    request: Request,
    running: Option<LaunchId>,
    variant: Option<VariantId>,
    next: u16,
    finished: Time,
    failures: u32,
    energy_mj: f64,
    launches: u32,
    ended: bool,
}

/// The books that are kept over a log.
struct Books<'a> {
    case: &'a Case,
    now: Time,
    requests: BTreeMap<RequestId, Progress>,
    running: BTreeMap<LaunchId, (Launch, Time)>,
    next_launch: u64,
    up: Vec<bool>,
    decisions_since_event: usize,
    launched_mj: f64,
    ended_mj: f64,
}

/// Checks every rule that a run has to keep; the text says which was broken.
pub fn check(case: &Case, log: &[Item]) -> Result<(), String> {
    let mut books = Books {
        case,
        now: Time::ZERO,
        requests: BTreeMap::new(),
        running: BTreeMap::new(),
        next_launch: 0,
        up: vec![true; case.processor_count()],
        decisions_since_event: 0,
        launched_mj: 0.0,
        ended_mj: 0.0,
    };
    for (index, item) in log.iter().enumerate() {
        books.enter(item).map_err(|why| format!("item {index}, {item:?}: {why}"))?;
    }
    books.close()
}

impl Books<'_> {
    fn enter(&mut self, item: &Item) -> Result<(), String> {
        match item {
            Item::Decided(choice, of) => self.decided(*choice, *of),
            Item::Launched(now, launch) => self.launched(*now, launch),
            Item::Event(now, event) => self.event(*now, event),
            Item::Ended(ended) => self.ended(ended),
        }
    }

    fn decided(&mut self, choice: usize, of: usize) -> Result<(), String> {
        ensure!(choice < of, "no such candidate");
        self.decisions_since_event += 1;
        let slots: u32 = self.case.plan.processors.iter().map(|p| p.slots).sum();
        let open = self.requests.values().filter(|r| !r.ended).count();
        // Each decision launches, drops or waits; a dropped request may have been reported as ended already.
        let most = slots as usize + self.requests.len().min(open + self.decisions_since_event) + 1;
        ensure!(self.decisions_since_event <= most, "more decisions than there is to decide");
        Ok(())
    }

    fn launched(&mut self, now: Time, launch: &Launch) -> Result<(), String> {
        ensure!(now == self.now, "launched at {now}, but it is {}", self.now);
        ensure!(launch.id.0 == self.next_launch, "expected launch {}", self.next_launch);
        self.next_launch += 1;
        let Some(request) = self.requests.get_mut(&launch.request) else {
            return Err("no such request".to_owned());
        };
        ensure!(!request.ended, "the request has ended");
        ensure!(request.running.is_none(), "the request is running");
        ensure!(launch.first == request.next, "expected segment {}", request.next);
        let table = self.case.variant(launch.variant);
        match request.variant {
            Some(variant) => ensure!(variant == launch.variant, "the variant changed half way"),
            None => ensure!(table.accuracy >= request.request.min_accuracy, "not accurate enough"),
        }
        ensure!(table.task == self.case.stream(request.request.stream).task, "another task's variant");
        let reach = table.reach(launch.processor, launch.first);
        ensure!(
            launch.last >= launch.first && reach.is_some_and(|r| launch.last <= r),
            "{:?} cannot run these segments",
            launch.processor
        );
        ensure!(self.up[launch.processor.0 as usize], "the processor is down");
        request.running = Some(launch.id);
        request.launches += 1;
        self.running.insert(launch.id, (*launch, now));
        let here = self.running.values().filter(|r| r.0.processor == launch.processor).count();
        ensure!(here <= self.case.processor(launch.processor).slots as usize, "{here} launches run there");
        Ok(())
    }

    fn event(&mut self, now: Time, event: &Event) -> Result<(), String> {
        ensure!(now >= self.now, "time went back from {}", self.now);
        self.now = now;
        self.decisions_since_event = 0;
        match event {
            Event::Arrived(request) => {
                ensure!(request.arrival <= now, "it comes from the future");
                let progress = Progress {
                    request: request.clone(),
                    running: None,
                    variant: None,
                    next: 0,
                    finished: Time::ZERO,
                    failures: 0,
                    energy_mj: 0.0,
                    launches: 0,
                    ended: false,
                };
                ensure!(self.requests.insert(request.id, progress).is_none(), "the number was used before");
            }
            Event::Completed(c) => {
                let Some((launch, at)) = self.running.remove(&c.launch) else {
                    return Err("the launch is not running".to_owned());
                };
                ensure!(
                    c.started >= at && c.finished >= c.started && c.finished <= now,
                    "wrong order of times"
                );
                ensure!(c.energy_mj >= 0.0 && c.energy_mj.is_finite(), "wrong energy");
                self.launched_mj += c.energy_mj;
                let Some(request) = self.requests.get_mut(&launch.request) else {
                    return Err("no such request".to_owned());
                };
                ensure!(request.running == Some(c.launch), "the request does not run this launch");
                request.running = None;
                request.energy_mj += c.energy_mj;
                request.finished = c.finished;
                if c.failure.is_some() {
                    request.failures += 1;
                } else {
                    request.variant = Some(launch.variant);
                    request.next = launch.last + 1;
                }
            }
            Event::Health { processor: ProcessorId(p), up } => self.up[*p as usize] = *up,
            Event::Alarm => {}
        }
        Ok(())
    }

    fn ended(&mut self, ended: &Ended) -> Result<(), String> {
        let Some(request) = self.requests.get_mut(&ended.request.id) else {
            return Err("it never arrived".to_owned());
        };
        ensure!(!request.ended, "it ended before");
        ensure!(request.running.is_none(), "it is running");
        request.ended = true;
        ensure!(ended.request == request.request, "the request changed");
        ensure!(ended.launches == request.launches, "expected {} launches", request.launches);
        ensure!((ended.energy_mj - request.energy_mj).abs() < 1e-9, "expected {} mJ", request.energy_mj);
        self.ended_mj += ended.energy_mj;
        let done = request.variant.is_some_and(|v| request.next == self.case.variant(v).segments);
        let answered = matches!(ended.outcome, Outcome::Answered | Outcome::Late);
        ensure!(done == answered, "answered and done must go together");
        let result = match (&ended.outcome, request.variant) {
            (Outcome::Answered | Outcome::Late, Some(variant)) => {
                ensure!(ended.at == request.finished, "answered at another time than the last launch");
                let on_time = ended.at <= request.request.deadline;
                ensure!(on_time == (ended.outcome == Outcome::Answered), "on time or late?");
                objective::Result::Answer {
                    lateness_ms: ended.at.ms_after(request.request.deadline),
                    relative_accuracy: self.case.variant(variant).relative_accuracy,
                }
            }
            (Outcome::Failed(_), _) => {
                ensure!(request.failures > 0, "nothing failed");
                objective::Result::Failed
            }
            (Outcome::Expired, _) => {
                ensure!(ended.at >= request.request.expires, "it was not over");
                objective::Result::Dropped
            }
            _ => objective::Result::Dropped,
        };
        let utility = self.case.objective().utility(result, request.request.priority, request.energy_mj, 0.0);
        ensure!((ended.utility - utility).abs() < 1e-9, "expected a utility of {utility}");
        Ok(())
    }

    fn close(self) -> Result<(), String> {
        let open = self.requests.values().filter(|r| !r.ended).count();
        ensure!(open == 0, "{open} of {} requests never ended", self.requests.len());
        ensure!(self.running.is_empty(), "{} launches never completed", self.running.len());
        let (a, b) = (self.launched_mj, self.ended_mj);
        ensure!((a - b).abs() <= 1e-9 * (1.0 + a), "launches took {a} mJ, requests {b}");
        Ok(())
    }
}

/// The requests' ends in a log.
pub fn ends(log: &[Item]) -> impl Iterator<Item = &Ended> {
    log.iter().filter_map(|item| match item {
        Item::Ended(ended) => Some(ended),
        _ => None,
    })
}
