//! How a run goes through its steps: in one submission, or in portions where the last run took long, so that a launch that nobody wants
//! any more frees the device at the end of a portion. It refuses to know any driver.

use super::device::Fault;
use super::lower::Step;
use crate::stop::Stop;
use std::ops::Range;
use std::time::Duration;

/// About what a portion takes. Two of them are on the device at a time, so that it never waits for the next, and a submission costs a
/// tenth of a millisecond: less than a hundredth of this.
const PORTION: Duration = Duration::from_millis(20);

/// What devices ask for the next steps.
pub struct Course<'a> {
    /// Of all steps up to each and with it.
    work: &'a [u64],
    portions: u64,
    begun: usize,
    stop: &'a Stop,
    waits: bool,
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
    /// Of a run that will take about `spent`, which `stop` may end early; `work` as [`work`] says. `waits`: until all is done.
    pub(super) fn new(work: &'a [u64], spent: Duration, stop: &'a Stop, waits: bool) -> Course<'a> {
        let portions = (spent.as_nanos() / PORTION.as_nanos()) as u64 + 1;
        Course { work, portions, begun: 0, stop, waits }
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

    /// Whether the run is waited for.
    pub fn waits(&self) -> bool {
        self.waits
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

#[cfg(test)]
mod tests {
    use super::*;

    fn portions(work: &[u64], ms: u64, stop_after: Option<usize>) -> Vec<Range<usize>> {
        let stop = Stop::default();
        let mut course = Course::new(work, Duration::from_millis(ms), &stop, true);
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
        let mut course = Course::new(&even, Duration::ZERO, &stop, true);
        assert!(course.next_portion().is_none() && matches!(course.end(), Err(Fault::Stopped)));
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
