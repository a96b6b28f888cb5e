//! What arrives, as it was observed: the mean time between the requests of each stream. It refuses to know when the next one comes.

use cosched_env::case::{Case, StreamId};
use cosched_env::scenario::{ArrivalKind, Scenario};
use cosched_env::time::Time;
use serde::{Deserialize, Serialize};

/// Weight of the newest gap.
const WEIGHT: f64 = 0.03;
/// A gap of so many mean gaps is no gap: the stream was closed.
const CLOSED: f64 = 20.0;
/// Up to this share off, the mean gap counts as what the scenario says: chance.
const CHANCE: f64 = 0.15;

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Per stream: mean milliseconds between requests, and when the last one came.
    streams: Vec<(f64, Option<Time>)>,
}

impl Traffic {
    /// As the scenario says.
    pub fn new(case: &Case) -> Traffic {
        Traffic { streams: case.streams.iter().map(|s| (s.period.ms(), None)).collect() }
    }

    /// Whether it is about as many streams.
    pub fn fits(&self, case: &Case) -> bool {
        self.streams.len() == case.streams.len()
    }

    /// A request arrived.
    pub fn note(&mut self, stream: StreamId, at: Time) {
        let Some((mean, last)) = self.streams.get_mut(stream.0 as usize) else { return };
        if let Some(before) = last.replace(at) {
            let gap = at.ms_after(before);
            if gap < CLOSED * *mean {
                *mean += WEIGHT * (gap - *mean);
            }
        }
    }

    /// Another run begins: its times are others.
    pub fn rewind(&mut self) {
        self.streams.iter_mut().for_each(|s| s.1 = None);
    }

    /// The scenario with the rates that were observed. Traces and what follows answers stay as they are.
    pub fn scenario(&self, scenario: &Scenario) -> Scenario {
        let mut scenario = scenario.clone();
        for (stream, &(mean, _)) in scenario.streams.iter_mut().zip(&self.streams) {
            let regular = !matches!(stream.kind, ArrivalKind::Trace | ArrivalKind::Dependent);
            let off = (mean / stream.period_ms).ln().abs();
            if regular && off > CHANCE && mean > 0.0 {
                stream.period_ms = mean;
            }
        }
        scenario
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::online::hand::two_processors;
    use cosched_env::time::Span;

    #[test]
    fn another_rate_is_observed_and_chance_is_not() {
        let case = two_processors();
        let period = case.scenario.streams[0].period_ms;
        let observed = |every: f64| {
            let mut traffic = Traffic::new(&case);
            for i in 0..200 {
                traffic.note(StreamId(0), Time::ZERO + Span::from_ms(f64::from(i) * every * period));
            }
            // A pause is no rate.
            traffic.note(StreamId(0), Time::ZERO + Span::from_ms(1e6));
            traffic.scenario(&case.scenario).streams[0].period_ms / period
        };
        assert!((observed(0.5) - 0.5).abs() < 0.01, "{}", observed(0.5));
        assert_eq!(observed(1.05), 1.0);
    }
}
