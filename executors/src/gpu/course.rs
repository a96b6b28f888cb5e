//! How a run goes through its steps: in one submission, or in portions where a run takes long, so that a launch that nobody wants
//! any more frees the device at the end of a portion; and how much may be queued, runs of several segments together. It refuses to know
//! any driver.

use super::device::Fault;
use super::lower::Step;
use crate::stop::Stop;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// About what a portion takes. Two of them are on the device at a time, so that it never waits for the next, and a submission costs a
/// tenth of a millisecond: less than a hundredth of this.
const PORTION: Duration = Duration::from_millis(20);

/// What devices ask for the next steps.
pub struct Course<'a> {
    /// Of all steps up to each and with it.
    work: &'a [u64],
    portions: u32,
    /// What a portion takes.
    took: Duration,
    begun: usize,
    stop: &'a Stop,
}

/// About how much work each step is, with those before it: iterations of all invocations.
pub(super) fn work(steps: &[Step]) -> Vec<u64> {
    let mut sum = 0u64;
    let each = steps.iter().map(|step| (step.total as u64).saturating_mul(step.loops.max(1)));
    each.map(|work| {
        sum = sum.saturating_add(work);
        sum
    })
    .collect()
}

impl<'a> Course<'a> {
    /// Of a run that will take about `spent`, which `stop` may end early; `work` as [`work`] says.
    pub(super) fn new(work: &'a [u64], spent: Duration, stop: &'a Stop) -> Course<'a> {
        let portions = (spent.as_nanos() / PORTION.as_nanos()) as u32 + 1;
        Course { work, portions, took: spent / portions, begun: 0, stop }
    }

    /// The steps that go out next, at least one; `None`: all have gone, or the run was stopped.
    pub fn next_portion(&mut self) -> Option<Range<usize>> {
        if self.all_begun() || self.stop.stopped() {
            return None;
        }
        let (first, total) = (self.begun, u128::from(*self.work.last()?));
        let done = |step: usize| u128::from(if step == 0 { 0 } else { self.work[step - 1] });
        // The end of the portion in which the first step begins.
        let share = |work: u128| work * u128::from(self.portions) / total.max(1);
        let full = share(done(first)) + 1;
        let more = (first + 1..self.work.len()).take_while(|&step| share(done(step)) < full).count();
        self.begun = first + 1 + more;
        Some(first..self.begun)
    }

    /// Whether every step has gone out.
    pub fn all_begun(&self) -> bool {
        self.begun == self.work.len()
    }

    /// About what a portion takes.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// How many steps have gone out.
    pub fn begun(&self) -> usize {
        self.begun
    }

    /// After the last portion.
    ///
    /// # Errors
    /// [`Fault::Stopped`] where steps are left.
    pub fn end(&self) -> Result<(), Fault> {
        if self.all_begun() { Ok(()) } else { Err(Fault::Stopped) }
    }
}

/// What went out to a device and may not have ended yet, run after run: never more than about two portions, so that a launch that is
/// stopped frees the device soon, however many segments were queued. `M` tells when all before it has ended.
pub struct Line<M>(Mutex<Queued<M>>);

struct Queued<M> {
    /// The end of the last full portion.
    before: Option<M>,
    /// What went out after it.
    since: Duration,
}

impl<M> Default for Line<M> {
    fn default() -> Self {
        Line(Mutex::new(Queued { before: None, since: Duration::ZERO }))
    }
}

impl<M> Line<M> {
    fn lock(&self) -> MutexGuard<'_, Queued<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that takes so long went out, and `mark` is its end. Gives what must end before more goes out, if anything.
    pub fn sent(&self, took: Duration, mark: M) -> Option<M> {
        let mut line = self.lock();
        line.since += took;
        if line.since + took / 2 < PORTION {
            return None;
        }
        line.since = Duration::ZERO;
        line.before.replace(mark)
    }

    /// All that went out has ended.
    pub fn ended(&self) {
        *self.lock() = Queued { before: None, since: Duration::ZERO };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portions(work: &[u64], ms: u64, stop_after: Option<usize>) -> Vec<Range<usize>> {
        let stop = Stop::default();
        let mut course = Course::new(work, Duration::from_millis(ms), &stop);
        let mut all = Vec::new();
        while let Some(steps) = course.next_portion() {
            all.push(steps);
            if stop_after == Some(all.len()) {
                stop.stop();
            }
        }
        assert_eq!(course.end().is_ok(), course.begun() == work.len());
        all
    }

    #[test]
    fn a_short_run_is_one_portion_and_a_long_one_several_of_about_the_same_work() {
        let even: Vec<u64> = (1..=100).collect();
        assert_eq!(portions(&even, 0, None), vec![0..100]);
        assert_eq!(portions(&even, 19, None), vec![0..100]);
        assert_eq!(portions(&even, 90, None), vec![0..20, 20..40, 40..60, 60..80, 80..100]);
        // Never more portions than steps, and none is empty.
        assert_eq!(portions(&[1, 2, 3], 10_000, None), vec![0..1, 1..2, 2..3]);
        // One step is most of the work.
        assert_eq!(portions(&[1, 2, 1002, 1003, 1004], 90, None), vec![0..3, 3..5]);
        // Whatever the work, all steps go out once, in order.
        for ms in [0, 30, 500] {
            let all = portions(&[0, 0, 5, 5, 9, u64::MAX, u64::MAX], ms, None);
            assert_eq!(all.concat_steps(), (0..7).collect::<Vec<_>>());
        }
        assert!(portions(&[], 100, None).is_empty());
    }

    #[test]
    fn a_stopped_run_sends_out_no_further_portion() {
        let even: Vec<u64> = (1..=100).collect();
        assert_eq!(portions(&even, 90, Some(2)), vec![0..20, 20..40]);
        let stop = Stop::default();
        stop.stop();
        let mut course = Course::new(&even, Duration::ZERO, &stop);
        assert!(course.next_portion().is_none() && matches!(course.end(), Err(Fault::Stopped)));
    }

    /// The most that is out at a time, of so many submissions of `ms` each.
    fn most_out(ms: u64, submissions: u64, line: &Line<u64>) -> u64 {
        let mut ended = 0;
        let out = (1..=submissions).map(|sent| {
            let most = sent - ended;
            ended = line.sent(Duration::from_millis(ms), sent).unwrap_or(ended);
            most * ms
        });
        out.max().unwrap_or(0)
    }

    #[test]
    fn what_is_out_takes_about_two_portions_however_short_each_is() {
        for ms in [1, 3, 7, 11, 14, 19, 20] {
            let line = Line::default();
            let most = most_out(ms, 100, &line);
            assert!((40..=60).contains(&most) || ms > 10 && most == 2 * ms, "{ms}: {most}");
            line.ended();
            // Nothing is left to wait for.
            assert_eq!(line.sent(Duration::from_millis(40), 1), None);
            assert_eq!(line.sent(Duration::from_millis(40), 2), Some(1));
        }
        // What takes no time is never waited for.
        assert_eq!(most_out(0, 1000, &Line::default()), 0);
    }

    trait Steps {
        fn concat_steps(&self) -> Vec<usize>;
    }

    impl Steps for Vec<Range<usize>> {
        fn concat_steps(&self) -> Vec<usize> {
            self.iter().cloned().flatten().collect()
        }
    }
}
