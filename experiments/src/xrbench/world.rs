//! The runtime behind XRBench's published scores as a [`World`]: a discrete-event loop with quirks of its own, kept so that the scores
//! come out. It looks up only at base ticks and at completions; a frame comes at the first such moment at or after its time; a dependent
//! frame is held back until its parent has been answered often enough, whichever of its frames were. It refuses to wake for an alarm:
//! what the scheduler waits for is seen at the next moment.

use super::score::Frame;
use cosched_env::case::{Case, StreamId};
use cosched_env::event::{Completion, Ended, Event, Launch, Outcome, RequestId};
use cosched_env::streams::follows;
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, World};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The quirks. The default is what was published; anything else shows what a quirk is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// A launch counts as done so long before its end.
    pub slack: Span,
    /// A dependent frame `f` is ready when more than `f` frames of its parent were answered; otherwise when frame `f` was.
    pub ready_by_count: bool,
    /// Waiting frames are dropped once their deadline has passed.
    pub drops_overdue: bool,
    /// Frames come at base ticks and completions only; otherwise at their times.
    pub comes_late: bool,
    /// The run ends when the last frame has come; otherwise when all have ended.
    pub stops_at_last_frame: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            slack: Span(10_000),
            ready_by_count: true,
            drops_overdue: true,
            comes_late: true,
            stops_at_last_frame: true,
        }
    }
}

/// The frames of one model.
#[derive(Default)]
struct Source {
    interval: Span,
    frames: u32,
    /// The next frame to come.
    next: u32,
    /// Frames that have come and are not ready, in order.
    held: VecDeque<u32>,
    answered: BTreeSet<u32>,
}

impl Source {
    fn time(&self, frame: u32) -> Time {
        Time(u64::from(frame) * self.interval.0)
    }
}

struct Running {
    launch: Launch,
    started: Time,
    end: Time,
}

/// The runtime; see the module's text. It keeps the log of frames itself, since it drops some that the scheduler never sees.
pub struct Runtime {
    case: Arc<Case>,
    rules: Rules,
    seed: u64,
    tick: Span,
    now: Option<Time>,
    sources: Vec<Source>,
    running: Vec<Running>,
    /// Model and frame of each request that has not ended.
    requests: BTreeMap<RequestId, (usize, u32)>,
    next_id: u64,
    events: VecDeque<Event>,
    /// Whether the last moment has come.
    over: bool,
    /// Whether something was decided at the last moment: what follows is not logged.
    closed: bool,
    log: Vec<Frame>,
}

impl Runtime {
    /// A run of a case that [`super::workload::case`] made: the deadline of a stream is its interval, `frames` counts its frames.
    pub fn new(case: Arc<Case>, frames: &[u32], rules: Rules, seed: u64) -> Runtime {
        let source = |(stream, &frames): (&cosched_env::case::StreamTable, &u32)| Source {
            interval: stream.deadline,
            frames,
            ..Source::default()
        };
        let sources: Vec<Source> = case.streams.iter().zip(frames).map(source).collect();
        Runtime {
            rules,
            seed,
            // The tick of the fastest model.
            tick: sources.iter().map(|s| s.interval).min().unwrap_or(Span(1_000_000)),
            now: None,
            sources,
            running: Vec::new(),
            requests: BTreeMap::new(),
            next_id: 0,
            events: VecDeque::new(),
            over: false,
            closed: false,
            log: Vec::new(),
            case,
        }
    }

    /// The frames that were logged, in order of their ends.
    pub fn log(self) -> Vec<Frame> {
        self.log
    }

    /// The next base tick or completion.
    fn next_moment(&self) -> Time {
        let Some(now) = self.now else { return Time::ZERO };
        let tick = Time((now.0 / self.tick.0 + 1) * self.tick.0);
        let ends = self.running.iter().map(|r| r.end);
        let arrivals = self.sources.iter().filter(|s| !self.rules.comes_late && s.next < s.frames);
        ends.chain(arrivals.map(|s| s.time(s.next))).fold(tick, Time::min)
    }

    /// Everything that happens at one moment, in the order of the published runtime.
    fn step(&mut self, now: Time) {
        self.now = Some(now);
        self.inject(now);
        self.retire(now);
        if self.rules.drops_overdue {
            self.drop_held(now);
        }
        self.release(now);
        let all_came = self.sources.iter().all(|s| s.next == s.frames);
        let all_ended = self.requests.is_empty() && self.sources.iter().all(|s| s.held.is_empty());
        self.over = all_came && (self.rules.stops_at_last_frame || all_ended);
    }

    /// At most one frame of each model comes.
    fn inject(&mut self, now: Time) {
        for s in 0..self.sources.len() {
            let source = &mut self.sources[s];
            let (frame, at) = (source.next, source.time(source.next));
            if frame == source.frames || at > now {
                continue;
            }
            source.next += 1;
            let (stream, id) = (&self.case.streams[s], StreamId(s as u16));
            match stream.after {
                None => self.arrive(s, frame, now),
                Some(_) if follows(self.seed, id, at, stream.probability) => source.held.push_back(frame),
                Some(_) => {}
            }
        }
    }

    fn arrive(&mut self, source: usize, frame: u32, now: Time) {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let stream = StreamId(source as u16);
        let origin = self.sources[source].time(frame);
        let mut request = self.case.stream(stream).request(id, stream, now, origin);
        if !self.rules.drops_overdue {
            request.expires = Time::NEVER;
        }
        self.requests.insert(id, (source, frame));
        self.events.push_back(Event::Arrived(request));
    }

    fn retire(&mut self, now: Time) {
        self.running.sort_by_key(|r| (r.end, r.launch.id));
        let due = self.running.partition_point(|r| now + self.rules.slack >= r.end);
        for Running { launch, started, end } in self.running.drain(..due) {
            if let Some(&(source, frame)) = self.requests.get(&launch.request) {
                self.sources[source].answered.insert(frame);
            }
            let table = self.case.variant(launch.variant);
            self.events.push_back(Event::Completed(Completion {
                launch: launch.id,
                started,
                finished: end,
                energy_mj: table.energy_mj(launch.processor, launch.first, launch.last),
                failure: None,
            }));
        }
    }

    /// Frames that wait for their parents are dropped here; the scheduler drops the others, which expire.
    fn drop_held(&mut self, now: Time) {
        for (s, source) in self.sources.iter_mut().enumerate() {
            while let Some(&frame) = source.held.front()
                && source.time(frame) + source.interval < now
            {
                source.held.pop_front();
                let deadline = source.time(frame) + source.interval;
                self.log.push(Frame { stream: StreamId(s as u16), deadline, answer: None, energy_mj: 0.0 });
            }
        }
    }

    /// Hands the held frames that are ready to the scheduler; only heads, so that frames stay in order.
    fn release(&mut self, now: Time) {
        for s in 0..self.sources.len() {
            let Some(parent) = self.case.streams[s].after else { continue };
            while let Some(&frame) = self.sources[s].held.front() {
                let answered = &self.sources[parent.0 as usize].answered;
                let ready = match self.rules.ready_by_count {
                    true => answered.len() > frame as usize,
                    false => answered.contains(&frame),
                };
                if !ready {
                    break;
                }
                self.sources[s].held.pop_front();
                self.arrive(s, frame, now);
            }
        }
    }
}

impl World for Runtime {
    fn launch(&mut self, launch: &Launch) {
        let started = self.now.unwrap_or(Time::ZERO);
        let table = self.case.variant(launch.variant);
        let end = started + Span::from_ns(table.latency_ns(launch.processor, launch.first, launch.last));
        self.running.push(Running { launch: *launch, started, end });
    }

    fn wait(&mut self, _: Option<Time>) -> Option<(Time, Event)> {
        if self.over {
            return None;
        }
        let now = self.next_moment();
        self.step(now);
        // A policy that waited is asked again at each moment.
        Some((now, self.events.pop_front().unwrap_or(Event::Alarm)))
    }

    fn ready(&mut self, _: Time) -> Option<Event> {
        self.events.pop_front()
    }

    fn decided(&mut self, _: Decision, _: usize) {
        self.closed |= self.over;
    }

    fn ended(&mut self, ended: &Ended) {
        self.requests.remove(&ended.request.id);
        if !self.closed {
            debug_assert!(!matches!(ended.outcome, Outcome::Failed(_)), "nothing fails here");
            self.log.push(Frame::of(ended));
        }
    }
}
