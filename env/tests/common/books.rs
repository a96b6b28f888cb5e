//! The log of a run and the rules that every log has to keep.
//! It refuses to ask the scheduler whether it was right: all rules are checked from what crossed its boundary.

use cosched_env::case::{Case, ProcessorId, StreamId, VariantId};
use cosched_env::event::{Ended, Event, Launch, LaunchId, Outcome, Request, RequestId};
use cosched_env::objective;
use cosched_env::observation::Observation;
use cosched_env::scenario::{ArrivalKind, Queue};
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
    /// Where its tensors are.
    location: Option<ProcessorId>,
    finished: Time,
    failures: u32,
    energy_mj: f64,
    launches: u32,
    ended: bool,
}

/// Weights on a processor with a limit, the ones used longest ago first: (what is shared, bytes).
type Loaded = Vec<(String, u64)>;

/// The books that are kept over a log.
struct Books<'a> {
    case: &'a Case,
    now: Time,
    requests: BTreeMap<RequestId, Progress>,
    running: BTreeMap<LaunchId, (Launch, Time)>,
    next_launch: u64,
    up: Vec<bool>,
    /// By processor.
    loaded: Vec<Loaded>,
    /// By stream: moving average of what was on time.
    shares: Vec<f64>,
    /// By stream: its last request and when it arrived.
    newest: Vec<Option<(RequestId, Time)>>,
    /// (stream, time, origin) of answers, and of the requests that followed each.
    answers: Vec<(StreamId, Time, Time)>,
    followers: Vec<(StreamId, Time, Time)>,
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
        loaded: vec![Vec::new(); case.processor_count()],
        shares: vec![1.0; case.streams.len()],
        newest: vec![None; case.streams.len()],
        answers: Vec::new(),
        followers: Vec::new(),
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
        ensure!(launch.inputs_on == request.location, "its tensors are on {:?}", request.location);
        request.running = Some(launch.id);
        request.launches += 1;
        self.running.insert(launch.id, (*launch, now));
        self.load(launch)?;
        let here = self.running.values().filter(|r| r.0.processor == launch.processor).count();
        ensure!(here <= self.case.processor(launch.processor).slots as usize, "{here} launches run there");
        Ok(())
    }

    /// What variants that share their weights have in common.
    fn weights(&self, variant: VariantId) -> String {
        let spec = &self.case.plan.variants[variant.0 as usize];
        spec.weights.clone().map_or_else(|| format!("own {}", variant.0), |name| format!("shared {name}"))
    }

    /// Whether a launch (one of those running) loads what is missing, and has room beside what runs.
    fn load(&mut self, launch: &Launch) -> Result<(), String> {
        let p = launch.processor.0 as usize;
        let name = &self.case.plan.processors[p].name;
        let memory_mb = self.case.device.processors.get(name).map_or(0.0, |model| model.memory_mb);
        if memory_mb == 0.0 {
            ensure!(launch.load_bytes == 0, "it loads, but everything is there");
            return Ok(());
        }
        let mine = self.weights(launch.variant);
        let bytes = self.case.plan.variants[launch.variant.0 as usize].memory_bytes;
        let here = self.running.values().map(|r| &r.0).filter(|l| l.processor == launch.processor);
        let in_use: Vec<String> = here.map(|l| self.weights(l.variant)).collect();
        let loaded = &mut self.loaded[p];
        let place = loaded.iter().position(|l| l.0 == mine);
        let before = place.map_or(0, |place| loaded.remove(place).1);
        let missing = bytes.saturating_sub(before);
        ensure!(launch.load_bytes == missing, "expected to load {missing} bytes");
        loaded.push((mine, before.max(bytes)));
        while loaded.iter().map(|l| l.1).sum::<u64>() > (memory_mb * 1e6) as u64 {
            let Some(oldest) = loaded.iter().position(|l| !in_use.contains(&l.0)) else {
                return Err("there is no room beside what runs".to_owned());
            };
            loaded.remove(oldest);
        }
        Ok(())
    }

    /// Whether a request may come as it does.
    fn arrived(&mut self, request: &Request) -> Result<(), String> {
        let spec = &self.case.scenario.streams[request.stream.0 as usize];
        let at = request.arrival.ms_after(Time::ZERO);
        let open = |w: &[f64; 2]| w[0] <= at + 1e-6 && at < w[1] + 1e-6;
        ensure!(spec.open_ms.is_empty() || spec.open_ms.iter().any(open), "the stream is closed");
        let due_ms = request.deadline.ms_after(request.origin);
        ensure!((due_ms - spec.deadline_ms).abs() < 1e-5, "it is due {due_ms} ms after its origin");
        if spec.kind == ArrivalKind::Trace {
            ensure!(spec.times_ms.iter().any(|t| (t - at).abs() < 1e-5), "the trace has no such time");
        }
        if spec.kind != ArrivalKind::Dependent {
            ensure!(request.origin == request.arrival, "it follows nothing");
            return Ok(());
        }
        let parent = self.case.scenario.streams.iter().position(|s| s.name == spec.after);
        let cause = (StreamId(parent.unwrap_or(0) as u16), request.arrival, request.origin);
        let this = (request.stream, request.arrival, request.origin);
        let answers = self.answers.iter().filter(|&&a| a == cause).count();
        self.followers.push(this);
        let followers = self.followers.iter().filter(|&&f| f == this).count();
        ensure!(followers <= answers, "it follows no answer of `{}`", spec.after);
        Ok(())
    }

    fn event(&mut self, now: Time, event: &Event) -> Result<(), String> {
        ensure!(now >= self.now, "time went back from {}", self.now);
        self.now = now;
        self.decisions_since_event = 0;
        match event {
            Event::Arrived(request) => {
                ensure!(request.arrival <= now, "it comes from the future");
                ensure!(!self.requests.contains_key(&request.id), "the number was used before");
                self.arrived(request)?;
                self.newest[request.stream.0 as usize] = Some((request.id, request.arrival));
                let progress = Progress {
                    request: request.clone(),
                    running: None,
                    variant: None,
                    next: 0,
                    location: None,
                    finished: Time::ZERO,
                    failures: 0,
                    energy_mj: 0.0,
                    launches: 0,
                    ended: false,
                };
                self.requests.insert(request.id, progress);
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
                    // What is behind a link sends everything back.
                    let name = &self.case.processor(launch.processor).name;
                    let remote = self.case.device.processors.get(name).is_some_and(|m| m.link.is_some());
                    request.location = (!remote).then_some(launch.processor);
                }
            }
            Event::Health { processor: ProcessorId(p), up } => {
                self.up[*p as usize] = *up;
                if !up {
                    self.loaded[*p as usize].clear();
                }
            }
            Event::Withdrawn { .. } | Event::Alarm => {}
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
        let (stream, origin) = (request.request.stream, request.request.origin);
        let spec = &self.case.scenario.streams[stream.0 as usize];
        if ended.outcome == Outcome::Replaced {
            ensure!(spec.queue == Queue::Latest, "nothing replaces requests of this stream");
            ensure!(request.next == 0, "it has started");
            let newer = |&(id, at): &(RequestId, Time)| id != ended.request.id && at == ended.at;
            ensure!(self.newest[stream.0 as usize].as_ref().is_some_and(newer), "nothing newer came then");
            ensure!(ended.at >= request.request.arrival, "it was replaced before it came");
        }
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
        let best = self.shares.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let share = &mut self.shares[stream.0 as usize];
        let service = objective::Service { share: *share, gap: best - *share };
        *share = 0.95 * *share + if ended.outcome == Outcome::Answered { 0.05 } else { 0.0 };
        let utility =
            self.case.objective().utility(result, request.request.priority, request.energy_mj, service);
        ensure!((ended.utility - utility).abs() < 1e-9, "expected a utility of {utility}");
        if answered {
            self.answers.push((stream, ended.at, origin));
        }
        Ok(())
    }

    fn close(self) -> Result<(), String> {
        let open = self.requests.values().filter(|r| !r.ended).count();
        ensure!(open == 0, "{open} of {} requests never ended", self.requests.len());
        ensure!(self.running.is_empty(), "{} launches never completed", self.running.len());
        let (a, b) = (self.launched_mj, self.ended_mj);
        ensure!((a - b).abs() <= 1e-9 * (1.0 + a), "launches took {a} mJ, requests {b}");
        self.all_followed()
    }

    /// Whether each answer was followed where that is certain.
    fn all_followed(&self) -> Result<(), String> {
        let streams = &self.case.scenario.streams;
        for (s, spec) in streams.iter().enumerate().filter(|(_, s)| s.kind == ArrivalKind::Dependent) {
            if spec.probability < 1.0 || !spec.open_ms.is_empty() {
                continue;
            }
            let cause = |a: &&(StreamId, Time, Time)| streams[a.0.0 as usize].name == spec.after;
            let answers = self.answers.iter().filter(cause).count();
            let followers = self.followers.iter().filter(|f| f.0.0 as usize == s).count();
            ensure!(answers == followers, "{followers} requests of `{}` followed {answers}", spec.name);
        }
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
