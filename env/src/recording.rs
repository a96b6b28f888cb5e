//! Recording and exact replay. A recorder wraps any world and writes what crosses the boundary; a replayed world gives the same
//! events back and insists on the same decisions and launches. It refuses a recording with anything missing, changed or added.

use crate::case::{Case, CaseError};
use crate::device::Device;
use crate::event::{Ended, Event, Launch};
use crate::fnv::fnv1a;
use crate::plan::Plan;
use crate::scenario::Scenario;
use crate::scheduler::Options;
use crate::time::Time;
use crate::world::{Decision, World};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};

/// Version of the format; another one is refused.
pub const RECORDING_FORMAT: u32 = 2;

/// The first line: everything that a replay needs besides the events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`RECORDING_FORMAT`].
    pub format: u32,
    /// Name of the policy in the table of policies, with its parameter if it has one.
    pub policy: String,
    /// The plan of the run.
    pub plan: Plan,
    /// What the device does beyond its plan.
    pub device: Device,
    /// The scenario of the run.
    pub scenario: Scenario,
    /// Limits of the scheduler.
    pub options: Options,
}

impl Header {
    /// The header of a run of `case` under the policy of that name.
    pub fn new(policy: &str, case: &Case, options: Options) -> Header {
        Header {
            format: RECORDING_FORMAT,
            policy: policy.to_owned(),
            plan: case.plan.clone(),
            device: case.device.clone(),
            scenario: case.scenario.clone(),
            options,
        }
    }

    /// The case of the recorded run.
    ///
    /// # Errors
    /// [`CaseError`]: the recording was written by hand.
    pub fn case(&self) -> Result<Case, CaseError> {
        Case::on(self.plan.clone(), self.device.clone(), self.scenario.clone())
    }
}

/// A line between the first and the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Entry {
    /// The policy chose this candidate of so many.
    Decided { choice: usize, of: usize },
    /// This launch went out.
    Launched(Launch),
    /// The world said this; `more`: without being waited for, at the moment of the event before.
    Event { at: Time, event: Event, more: bool },
    /// The world said that nothing will ever happen again.
    Over,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    n: u64,
    entry: Entry,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    entries: u64,
    hash: String,
}

/// Why a recording cannot be written, read or replayed.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Reading or writing failed.
    #[error("recording: {0}")]
    Io(#[from] std::io::Error),
    /// A line is not what it should be.
    #[error("recording, line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// The replay does something else than the recorded run.
    #[error("replay differs from the recording at line {line}: recorded {recorded}, replayed {replayed}")]
    Differs {
        /// Counted from 1.
        line: u64,
        /// What stands there.
        recorded: String,
        /// What happened now.
        replayed: String,
    },
}

/// The check sum of a recording after one more line: it shows a lost, changed or doubled one. That of nothing is 0.
fn hash(state: u64, line: &str) -> u64 {
    fnv1a(state, line.bytes())
}

/// Wraps a world and records what crosses its boundary, one JSON line each.
pub struct Recorder<W, S: Write> {
    world: W,
    sink: S,
    entries: u64,
    hash: u64,
    error: Option<std::io::Error>,
}

impl<W: World, S: Write> Recorder<W, S> {
    /// Begins a recording.
    ///
    /// # Errors
    /// When the sink cannot be written.
    pub fn new(world: W, mut sink: S, header: &Header) -> Result<Self, RecordingError> {
        let line = serde_json::to_string(header).map_err(std::io::Error::from)?;
        writeln!(sink, "{line}")?;
        Ok(Recorder { world, sink, entries: 0, hash: hash(0, &line), error: None })
    }

    /// Closes the recording and gives the world back. A recording that was not closed is refused by the replay.
    ///
    /// # Errors
    /// The first error of writing, which the run itself did not stop for.
    pub fn finish(mut self) -> Result<W, RecordingError> {
        if let Some(error) = self.error.take() {
            return Err(error.into());
        }
        let footer = Footer { entries: self.entries, hash: format!("{:016x}", self.hash) };
        writeln!(self.sink, "{}", serde_json::to_string(&footer).map_err(std::io::Error::from)?)?;
        self.sink.flush()?;
        Ok(self.world)
    }

    fn write(&mut self, entry: Entry) {
        let line = serde_json::to_string(&Line { n: self.entries, entry });
        let written = line.map_err(std::io::Error::from).and_then(|line| {
            self.hash = hash(self.hash, &line);
            writeln!(self.sink, "{line}")
        });
        self.entries += 1;
        if let Err(error) = written {
            self.error.get_or_insert(error);
        }
    }
}

impl<W: World, S: Write> World for Recorder<W, S> {
    fn launch(&mut self, launch: &Launch) {
        self.world.launch(launch);
        self.write(Entry::Launched(*launch));
    }

    fn wait(&mut self, until: Option<Time>) -> Option<(Time, Event)> {
        let answer = self.world.wait(until);
        self.write(match &answer {
            Some((at, event)) => Entry::Event { at: *at, event: event.clone(), more: false },
            None => Entry::Over,
        });
        answer
    }

    fn ready(&mut self, now: Time) -> Option<Event> {
        let event = self.world.ready(now)?;
        self.write(Entry::Event { at: now, event: event.clone(), more: true });
        Some(event)
    }

    fn deciding(&mut self) {
        self.world.deciding();
    }

    fn decided(&mut self, decision: Decision, candidates: usize) {
        self.world.decided(decision, candidates);
        self.write(Entry::Decided { choice: decision.0, of: candidates });
    }

    fn ended(&mut self, ended: &Ended) {
        self.world.ended(ended);
    }
}

/// A recording in memory, checked to be whole.
#[derive(Debug)]
pub struct Recording {
    /// The first line.
    pub header: Header,
    entries: Vec<Entry>,
}

impl Recording {
    /// Reads and checks a recording.
    ///
    /// # Errors
    /// [`RecordingError`] names the line where something is missing, changed, doubled or unreadable.
    pub fn read(source: impl BufRead) -> Result<Recording, RecordingError> {
        let bad = |line: u64, problem: String| RecordingError::Line { line, problem };
        let mut lines = source.lines();
        let mut closed = None;
        let first = lines.next().ok_or_else(|| bad(1, "the file is empty".into()))??;
        let header: Header = serde_json::from_str(&first)
            .map_err(|e| bad(1, format!("not the header of a recording: {e}")))?;
        if header.format != RECORDING_FORMAT {
            return Err(bad(1, format!("expected format {RECORDING_FORMAT}, got {}", header.format)));
        }
        let mut state = hash(0, &first);
        let mut entries = Vec::new();
        for (index, text) in lines.enumerate() {
            let (text, number) = (text?, index as u64 + 2);
            if closed.is_some() {
                return Err(bad(number, "expected nothing after the closing line".into()));
            }
            if let Ok(footer) = serde_json::from_str::<Footer>(&text) {
                if footer.entries != entries.len() as u64 {
                    let problem = format!("expected {} entries, found {}", footer.entries, entries.len());
                    return Err(bad(number, problem));
                }
                if footer.hash != format!("{state:016x}") {
                    return Err(bad(number, "the check sum does not fit: a line was changed".into()));
                }
                closed = Some(footer);
                continue;
            }
            let line: Line = serde_json::from_str(&text).map_err(|e| bad(number, e.to_string()))?;
            if line.n != entries.len() as u64 {
                let problem =
                    format!("expected entry {}, found entry {}: lines are missing", entries.len(), line.n);
                return Err(bad(number, problem));
            }
            state = hash(state, &text);
            entries.push(line.entry);
        }
        match closed {
            Some(_) => Ok(Recording { header, entries }),
            None => {
                Err(bad(entries.len() as u64 + 2, "the closing line is missing: the run was cut off".into()))
            }
        }
    }

    /// Number of decisions recorded.
    pub fn decisions(&self) -> usize {
        self.entries.iter().filter(|e| matches!(e, Entry::Decided { .. })).count()
    }

    /// A world that gives the recorded events back.
    pub fn replay(&self) -> Replay<'_> {
        Replay { entries: &self.entries, at: 0, difference: None }
    }
}

/// A world made of a recording. After the first difference it says that nothing happens any more.
pub struct Replay<'a> {
    entries: &'a [Entry],
    at: usize,
    difference: Option<RecordingError>,
}

impl Replay<'_> {
    /// Whether the run was the same to the end.
    ///
    /// # Errors
    /// [`RecordingError::Differs`] at the first difference.
    pub fn finish(self) -> Result<(), RecordingError> {
        match self.difference {
            Some(difference) => Err(difference),
            None if self.at < self.entries.len() => Err(RecordingError::Differs {
                line: self.at as u64 + 2,
                recorded: format!("{:?}", self.entries[self.at]),
                replayed: "the end".into(),
            }),
            None => Ok(()),
        }
    }

    fn expect(&mut self, replayed: &Entry) {
        if self.difference.is_some() {
            return;
        }
        match self.entries.get(self.at) {
            Some(recorded) if recorded == replayed => self.at += 1,
            recorded => {
                self.difference = Some(RecordingError::Differs {
                    line: self.at as u64 + 2,
                    recorded: recorded.map_or("the end".into(), |r| format!("{r:?}")),
                    replayed: format!("{replayed:?}"),
                });
            }
        }
    }
}

impl World for Replay<'_> {
    fn launch(&mut self, launch: &Launch) {
        self.expect(&Entry::Launched(*launch));
    }

    fn wait(&mut self, _: Option<Time>) -> Option<(Time, Event)> {
        if self.difference.is_some() {
            return None;
        }
        match self.entries.get(self.at) {
            Some(Entry::Event { at, event, more: false }) => {
                self.at += 1;
                Some((*at, event.clone()))
            }
            Some(Entry::Over) => {
                self.at += 1;
                None
            }
            recorded => {
                self.difference = Some(RecordingError::Differs {
                    line: self.at as u64 + 2,
                    recorded: recorded.map_or("the end".into(), |r| format!("{r:?}")),
                    replayed: "waiting for an event".into(),
                });
                None
            }
        }
    }

    fn ready(&mut self, now: Time) -> Option<Event> {
        match self.entries.get(self.at) {
            Some(Entry::Event { at, event, more: true }) if *at == now && self.difference.is_none() => {
                self.at += 1;
                Some(event.clone())
            }
            _ => None,
        }
    }

    fn decided(&mut self, decision: Decision, candidates: usize) {
        self.expect(&Entry::Decided { choice: decision.0, of: candidates });
    }
}
