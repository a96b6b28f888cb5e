//! A log laid out in time: bars on lanes for processors and for streams. The Chrome trace, the HTML report and the picture draw from it.
//! It refuses to draw, and never puts two bars that overlap on one lane.

use crate::log::RunLog;
use cosched_env::case::Case;
use cosched_env::event::{Outcome, Request, RequestId};
use cosched_env::time::Time;
use std::collections::BTreeMap;

/// A launch as a bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Index into [`RunLog::launches`].
    pub launch: usize,
    /// Processor's index.
    pub processor: usize,
    /// Lane within the processor, from 0.
    pub lane: usize,
    /// When it began to run.
    pub from: Time,
    /// When it ended; the end of the run if it never did.
    pub to: Time,
    /// Whether it failed or never ended.
    pub failed: bool,
}

/// A request as a bar from its arrival to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    /// The request.
    pub request: Request,
    /// Index into [`RunLog::ended`]; `None` when it had not ended.
    pub ended: Option<usize>,
    /// Lane within the stream, from 0.
    pub lane: usize,
    /// When it ended; the end of the run if it never did.
    pub to: Time,
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// Launches in order of going out.
    pub bars: Vec<Bar>,
    /// Lanes of each processor: at least one, more than its slots only if launches overlap more.
    pub processor_lanes: Vec<usize>,
    /// Requests in order of arrival.
    pub lives: Vec<Life>,
    /// Lanes of each stream: at least one.
    pub stream_lanes: Vec<usize>,
    /// Request number to index into `lives`.
    pub by_request: BTreeMap<RequestId, usize>,
}

/// Gives each interval of `items` (index, from, to) the lowest lane that is free; returns lanes by index and their number.
fn lanes(mut items: Vec<(usize, Time, Time)>) -> (BTreeMap<usize, usize>, usize) {
    items.sort_by_key(|&(index, from, to)| (from, to, index));
    let mut free_at: Vec<Time> = Vec::new();
    let mut lane_of = BTreeMap::new();
    for (index, from, to) in items {
        let lane = free_at.iter().position(|&free| free <= from).unwrap_or(free_at.len());
        if lane == free_at.len() {
            free_at.push(to);
        }
        free_at[lane] = to;
        lane_of.insert(index, lane);
    }
    (lane_of, free_at.len().max(1))
}

impl Timeline {
    /// Lays a log out.
    pub fn of(log: &RunLog, case: &Case) -> Timeline {
        let mut timeline = Timeline::default();
        timeline.add_bars(log, case);
        timeline.add_lives(log, case);
        timeline
    }

    fn add_bars(&mut self, log: &RunLog, case: &Case) {
        for (launch, record) in log.launches.iter().enumerate() {
            let (from, to, failed) = match &record.completion {
                Some(c) => (c.started, c.finished.max(c.started), c.failure.is_some()),
                None => (record.at, log.end.max(record.at), true),
            };
            let processor = record.launch.processor.0 as usize;
            self.bars.push(Bar { launch, processor, lane: 0, from, to, failed });
        }
        for p in 0..case.processor_count() {
            let here = self.bars.iter().enumerate().filter(|(_, b)| b.processor == p);
            let (lane_of, count) = lanes(here.map(|(i, b)| (i, b.from, b.to)).collect());
            lane_of.into_iter().for_each(|(i, lane)| self.bars[i].lane = lane);
            self.processor_lanes.push(count);
        }
    }

    fn add_lives(&mut self, log: &RunLog, case: &Case) {
        for (index, ended) in log.ended.iter().enumerate() {
            let to = ended.at.max(ended.request.arrival);
            self.lives.push(Life { request: ended.request.clone(), ended: Some(index), lane: 0, to });
        }
        for request in log.unended.values() {
            let to = log.end.max(request.arrival);
            self.lives.push(Life { request: request.clone(), ended: None, lane: 0, to });
        }
        self.lives.sort_by_key(|l| (l.request.arrival, l.request.id));
        for s in 0..case.streams.len() {
            let here = self.lives.iter().enumerate().filter(|(_, l)| l.request.stream.0 as usize == s);
            let (lane_of, count) = lanes(here.map(|(i, l)| (i, l.request.arrival, l.to)).collect());
            lane_of.into_iter().for_each(|(i, lane)| self.lives[i].lane = lane);
            self.stream_lanes.push(count);
        }
        self.by_request = self.lives.iter().enumerate().map(|(i, l)| (l.request.id, i)).collect();
    }
}

/// One word for how a request ended.
pub fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered => "on time",
        Outcome::Late => "late",
        Outcome::Dropped => "dropped",
        Outcome::Expired => "expired",
        Outcome::Replaced => "replaced",
        Outcome::Failed(_) => "failed",
    }
}

/// Name of a stream: its task's, followed by `#` and its number when several streams ask for the task.
pub fn stream_name(case: &Case, stream: usize) -> String {
    let task = case.streams[stream].task;
    let name = &case.tasks[task.0 as usize].name;
    let alone = case.streams.iter().filter(|s| s.task == task).count() == 1;
    if alone { name.clone() } else { format!("{name}#{stream}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether two intervals on one lane overlap.
    fn overlap(items: &[(usize, Time, Time)], lane_of: &BTreeMap<usize, usize>) -> bool {
        let on_one_lane = |a: usize, b: usize| a != b && lane_of[&a] == lane_of[&b];
        items.iter().any(|a| items.iter().any(|b| on_one_lane(a.0, b.0) && a.1 < b.2 && b.1 < a.2))
    }

    proptest! {
        #[test]
        fn lanes_are_few_and_free_of_overlap(spans in prop::collection::vec((0_u64..200, 0_u64..40), 0..60)) {
            let items: Vec<_> =
                spans.iter().enumerate().map(|(i, &(from, long))| (i, Time(from), Time(from + long))).collect();
            let (lane_of, count) = lanes(items.clone());
            prop_assert_eq!(lane_of.len(), items.len());
            prop_assert!(!overlap(&items, &lane_of));
            // As many lanes as run at once at the worst moment, and at least one.
            let at_once = |t: u64| items.iter().filter(|i| i.1.0 <= t && t < i.2.0).count();
            let worst = (0..240).map(at_once).max().unwrap_or(0).max(1);
            prop_assert!(count <= worst + usize::from(spans.iter().any(|s| s.1 == 0)));
            // The saboteur: everything on one lane is found out whenever two run at once.
            let one_lane = (0..items.len()).map(|i| (i, 0)).collect();
            prop_assert_eq!(overlap(&items, &one_lane) || worst <= 1, true);
        }
    }
}
