//! The launches of a live world that run or hang: when each went out, until when it is waited for, and how it is stopped. It refuses to
//! speak with workers.

use crate::awake::Awake;
use crate::stop::Stop;
use cosched_env::event::{Launch, LaunchId, RequestId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many times as long as planned a launch may take before it counts as hanging.
pub const TIMES: f64 = 20.0;

/// A world looks for what hangs more often than this, unless it stands still itself.
const LOOK: Duration = Duration::from_millis(250);

/// A launch that runs.
struct Running {
    launch: Launch,
    started: Instant,
    /// It hangs from then on, by the clock of [`Launches`].
    until: Option<Duration>,
    stop: Arc<Stop>,
}

/// See the module's text.
pub(super) struct Launches {
    patience: Option<Duration>,
    running: BTreeMap<LaunchId, Running>,
    awake: Awake,
    /// Launches that were given up, with their processors: what still comes of them is not heard.
    hanging: BTreeMap<LaunchId, usize>,
}

impl Launches {
    /// None yet. A launch may take `patience`, and [`TIMES`] what is planned, before it hangs; for ever where there is none.
    pub(super) fn new(patience: Option<Duration>) -> Launches {
        let awake = Awake::new(Instant::now(), LOOK);
        Launches { patience, running: BTreeMap::new(), awake, hanging: BTreeMap::new() }
    }

    /// Whether none runs.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// One goes out, planned to take so many nanoseconds. Gives what stops it.
    pub(super) fn begin(&mut self, launch: Launch, planned_ns: f64) -> Arc<Stop> {
        let (started, least) = (Instant::now(), Duration::from_nanos((planned_ns * TIMES) as u64));
        let now = self.awake.look(started);
        let (until, stop) = (self.patience.map(|p| now + p.max(least)), Arc::new(Stop::default()));
        self.running.insert(launch.id, Running { launch, started, until, stop: stop.clone() });
        stop
    }

    /// One has ended.
    pub(super) fn end(&mut self, id: LaunchId) {
        self.running.remove(&id);
    }

    /// Nobody wants the answer to a request any more: its launch ends as soon as its processor can end it.
    pub(super) fn withdraw(&self, request: RequestId) {
        let of = |running: &&Running| running.launch.request == request;
        self.running.values().filter(of).for_each(|running| running.stop.stop());
    }

    /// The first that hangs, and when it began: it runs no more, and is told to stop, in case it hears that. Time in which nobody looked
    /// does not count.
    pub(super) fn give_up(&mut self, now: Instant) -> Option<(Launch, Instant)> {
        let now = self.awake.look(now);
        let late = |running: &&Running| running.until.is_some_and(|until| until < now);
        let id = self.running.values().find(late)?.launch.id;
        let Running { launch, started, stop, .. } = self.running.remove(&id)?;
        stop.stop();
        self.hanging.insert(id, launch.processor.0 as usize);
        Some((launch, started))
    }

    /// Something came of a launch after all. `None`: it was not given up; else its processor, and whether nothing else hangs there.
    pub(super) fn back(&mut self, id: LaunchId) -> Option<(usize, bool)> {
        let processor = self.hanging.remove(&id)?;
        Some((processor, !self.hanging.values().any(|&p| p == processor)))
    }

    /// Processors on which something hangs.
    pub(super) fn hung(&self) -> BTreeSet<usize> {
        self.hanging.values().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cosched_env::case::{ProcessorId, VariantId};

    /// A world in which one launch has just begun, with a second of patience.
    fn one() -> (Launches, Instant) {
        let mut launches = Launches::new(Some(Duration::from_secs(1)));
        let launch = Launch {
            id: LaunchId(1),
            request: RequestId(1),
            variant: VariantId(0),
            first: 0,
            last: 0,
            processor: ProcessorId(0),
            inputs_on: None,
            load_bytes: 0,
        };
        drop(launches.begin(launch, 0.0));
        (launches, Instant::now())
    }

    #[test]
    fn a_launch_hangs_after_a_second_of_looking() {
        let (mut launches, begun) = one();
        let ms = Duration::from_millis;
        // The machine sleeps for a minute; only what lies before and after it counts.
        assert!((1..6).all(|i| launches.give_up(begun + i * ms(100)).is_none()));
        let awake = begun + Duration::from_secs(60);
        assert!((0..4).all(|i| launches.give_up(awake + i * ms(50)).is_none()));
        assert!(launches.give_up(awake + ms(400)).is_some());
        assert_eq!((launches.is_empty(), launches.hung()), (true, BTreeSet::from([0])));
        // The saboteur: who looks all the time waits no longer than that second.
        let (mut launches, begun) = one();
        assert_eq!((1..100).find(|&i| launches.give_up(begun + i * ms(100)).is_some()), Some(10));
    }
}
