//! The guard of online learning: decides which weights act, from numbers alone. It refuses to run anything and to know the time but
//! from whoever asks; it never waits for certainty where waiting costs more than the mistake.
//!
//! Scores are utility by priority: 1 is everything on time in the best variant. What it weighs:
//! - the **live** score of what acts now, over a sliding window, with its standard error;
//! - **shadow** scores of the last good weights, of those on trial and of the best baseline, played on the same seeds of an emulator
//!   that was seeded with the profile and the arrivals as they are observed now;
//! - the **bias** of that emulator: how much less the last good weights got live than in it, while nothing was wrong.
//!
//! New weights are published on trial when they are no worse in the shadow than the last good ones, and not behind the baseline. A
//! trial ends well after so many requests, and badly (the last good ones act again) when the live score crashes, when it falls short of
//! what the emulator promised, or when the shadow turns against it. The last good weights hand over to the baseline when they stay behind
//! it, and get another chance after a rest that doubles each time.

use cosched_env::time::{Span, Time};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Limits of the guard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Requests in the sliding window.
    pub window: usize,
    /// Requests before a window says anything.
    pub least: usize,
    /// How far behind is behind, in score.
    pub tolerance: f64,
    /// A fall of the live score that is not waited out.
    pub crash: f64,
    /// Requests after which a trial has ended well.
    pub proof: usize,
    /// Checks in a row that must say the same before the baseline takes over.
    pub checks: u32,
    /// First rest before the learned policy gets another chance, in seconds, and the longest.
    pub rest_s: f64,
    /// See `rest_s`.
    pub longest_rest_s: f64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            window: 300,
            least: 80,
            tolerance: 0.02,
            crash: 0.15,
            proof: 300,
            checks: 2,
            rest_s: 5.0,
            longest_rest_s: 600.0,
        }
    }
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acting {
    /// The last good weights.
    Good,
    /// New weights on trial.
    Trial,
    /// The best baseline.
    Baseline,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Nothing.
    Stay,
    /// The weights on trial are the last good ones from now on.
    Proven,
    /// The last good weights act again, and why.
    RollBack(String),
    /// The baseline acts, and why.
    HandOver(String),
    /// The last good weights get another chance, and why.
    TryAgain(String),
}

/// Scores on the same seeds of the emulator as it is seeded now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    /// Of the weights on trial; of the last good ones when none are.
    pub trial: f64,
    /// Of the last good weights.
    pub good: f64,
    /// Of the best baseline.
    pub baseline: f64,
    /// Share of live decisions in which the network and the baseline would do the same.
    pub agreement: f64,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counts {
    /// Weights that went on trial.
    pub published: u32,
    /// Weights that were worse in the shadow.
    pub refused: u32,
    /// Trials that ended well.
    pub proven: u32,
    /// Trials that ended badly.
    pub rolled_back: u32,
    /// Times that the baseline took over.
    pub handed_over: u32,
    /// Times that the learned policy got another chance.
    pub tried_again: u32,
}

/// What is kept of a guard between runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Live score of the last good weights.
    pub reference: Option<f64>,
    /// See the module's text.
    pub bias: Option<f64>,
    /// Seconds of the next rest.
    pub rest_s: f64,
    /// Whether the baseline acts.
    pub baseline_acts: bool,
    /// How often what happened.
    pub counts: Counts,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Guard {
    rules: Rules,
    acting: Acting,
    /// (utility, priority) of the last requests since something else began to act.
    window: VecDeque<(f64, f64)>,
    /// Requests since then, and when that was.
    requests: usize,
    since: Time,
    reference: Option<f64>,
    bias: Option<f64>,
    /// Checks in a row that found the acting weights behind.
    behind: u32,
    rest_s: f64,
    retry_at: Time,
    counts: Counts,
}

/// Weight of the newest check in the bias.
const BIAS_WEIGHT: f64 = 0.3;
/// From here on the network does what the baseline does, so that it cannot be to blame.
const SAME: f64 = 0.98;
/// Standard errors that count as chance.
const ERRORS: f64 = 2.0;

impl Guard {
    /// The last good weights act, nothing is known.
    pub fn new(rules: Rules) -> Guard {
        Guard {
            rules,
            acting: Acting::Good,
            window: VecDeque::with_capacity(rules.window + 1),
            requests: 0,
            since: Time::ZERO,
            reference: None,
            bias: None,
            behind: 0,
            rest_s: rules.rest_s,
            retry_at: Time::ZERO,
            counts: Counts::default(),
        }
    }

    /// One that goes on from what was kept.
    pub fn resume(rules: Rules, memory: &Memory) -> Guard {
        let acting = if memory.baseline_acts { Acting::Baseline } else { Acting::Good };
        let retry_at = Time::ZERO + Span::from_ms(1e3 * memory.rest_s);
        let Memory { reference, bias, rest_s, counts, .. } = *memory;
        Guard { acting, reference, bias, rest_s, retry_at, counts, ..Guard::new(rules) }
    }

    /// What is to be kept.
    pub fn memory(&self) -> Memory {
        Memory {
            reference: self.reference,
            bias: self.bias,
            rest_s: self.rest_s,
            baseline_acts: self.acting == Acting::Baseline,
            counts: self.counts,
        }
    }

    /// Who decides now.
    pub fn acting(&self) -> Acting {
        self.acting
    }

    /// How often what happened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Live score of what acts now; `None` before there are enough requests.
    pub fn live(&self) -> Option<f64> {
        (self.window.len() >= self.rules.least).then(|| self.score().0)
    }

    /// Mean and standard error over the window: of `utility / mean priority`.
    fn score(&self) -> (f64, f64) {
        let n = self.window.len().max(1) as f64;
        let (utility, priority) =
            self.window.iter().fold((0.0, 0.0), |(u, p), (utility, priority)| (u + utility, p + priority));
        if priority <= 0.0 {
            return (0.0, 0.0);
        }
        let mean = utility / priority;
        // The error of a ratio of sums, to first order.
        let off = self.window.iter().map(|(u, p)| (u - mean * p).powi(2)).sum::<f64>() / n;
        (mean, (off / n).sqrt() / (priority / n))
    }

    /// A request ended live.
    pub fn ended(&mut self, utility: f64, priority: f64, at: Time) -> Order {
        self.window.push_back((utility, priority));
        if self.window.len() > self.rules.window {
            self.window.pop_front();
        }
        self.requests += 1;
        if self.requests < self.rules.least {
            return Order::Stay;
        }
        let (live, _) = self.score();
        match (self.acting, self.reference) {
            (Acting::Good, _) => self.reference = Some(live),
            (Acting::Trial, Some(reference)) if live < reference - self.rules.crash => {
                return self.roll_back(at, format!("the live score fell from {reference:.3} to {live:.3}"));
            }
            (Acting::Trial, _) if self.requests >= self.rules.proof => {
                self.counts.proven += 1;
                self.acting = Acting::Good;
                self.reference = Some(live);
                return Order::Proven;
            }
            _ => {}
        }
        Order::Stay
    }

    /// Whether new weights may go on trial: scores on the same seeds of theirs, of the last good ones and of the baseline.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&mut self, new: &[f64], good: &[f64], baseline: &[f64]) -> Result<(), String> {
        let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len().max(1) as f64;
        let (new, good, baseline) = (mean(new), mean(good), mean(baseline));
        // No slack against the last good ones: slack would add up over updates.
        let problem = if new.is_nan() || new < good {
            format!("in the emulator they get {new:.3}, the last good ones {good:.3}")
        } else if new < baseline - self.rules.tolerance {
            format!("in the emulator they get {new:.3}, the baseline {baseline:.3}")
        } else {
            return Ok(());
        };
        self.counts.refused += 1;
        Err(problem)
    }

    /// New weights act on trial from now on.
    pub fn publish(&mut self, now: Time) {
        self.counts.published += 1;
        self.turn(Acting::Trial, now);
    }

    /// Shadow scores are known anew.
    pub fn check(&mut self, now: Time, shadow: &Shadow) -> Order {
        match self.acting {
            Acting::Good => self.check_good(now, shadow),
            Acting::Trial => self.check_trial(now, shadow),
            Acting::Baseline => {
                if now < self.retry_at || shadow.good < shadow.baseline - self.rules.tolerance {
                    return Order::Stay;
                }
                self.counts.tried_again += 1;
                self.turn(Acting::Good, now);
                Order::TryAgain(format!(
                    "in the emulator the learned policy gets {:.3}, the baseline {:.3}",
                    shadow.good, shadow.baseline
                ))
            }
        }
    }

    fn check_good(&mut self, now: Time, shadow: &Shadow) -> Order {
        let known = self.requests >= self.rules.window;
        let (live, error) = self.score();
        let least = live + ERRORS * error + self.rules.tolerance;
        let falls_short = known
            && shadow.agreement < SAME
            && self.bias.is_some_and(|bias| least < shadow.baseline - bias.max(0.0));
        let emulated_behind = shadow.good < shadow.baseline - self.rules.tolerance;
        if !falls_short && !emulated_behind {
            self.behind = 0;
            if known {
                let off = shadow.good - live;
                self.bias = Some(self.bias.map_or(off, |b| b + BIAS_WEIGHT * (off - b)));
            }
            if now.since(self.since).seconds() > 4.0 * self.rest_s {
                self.rest_s = self.rules.rest_s;
            }
            return Order::Stay;
        }
        self.behind += 1;
        if self.behind < self.rules.checks {
            return Order::Stay;
        }
        self.counts.handed_over += 1;
        self.retry_at = now + Span::from_ms(1e3 * self.rest_s);
        let (rest_s, live_text) = (self.rest_s, self.live().map_or("unknown".into(), |l| format!("{l:.3}")));
        self.rest_s = (2.0 * self.rest_s).min(self.rules.longest_rest_s);
        self.turn(Acting::Baseline, now);
        Order::HandOver(format!(
            "in the emulator the learned policy gets {:.3}, the baseline {:.3}; live {live_text}; next chance in {rest_s} s",
            shadow.good, shadow.baseline
        ))
    }

    fn check_trial(&mut self, now: Time, shadow: &Shadow) -> Order {
        let best = shadow.good.max(shadow.baseline);
        if shadow.trial < best - self.rules.tolerance {
            let why = format!("in the emulator as it is now they get {:.3}, others {best:.3}", shadow.trial);
            return self.roll_back(now, why);
        }
        let (live, error) = self.score();
        let promised = self.bias.map(|bias| shadow.trial - bias);
        match promised {
            Some(promised)
                if self.requests >= self.rules.least
                    && live + ERRORS * error + self.rules.tolerance < promised =>
            {
                self.roll_back(now, format!("{promised:.3} was to be expected, live it is {live:.3}"))
            }
            _ => Order::Stay,
        }
    }

    fn roll_back(&mut self, now: Time, why: String) -> Order {
        self.counts.rolled_back += 1;
        self.turn(Acting::Good, now);
        Order::RollBack(why)
    }

    fn turn(&mut self, acting: Acting, now: Time) {
        self.acting = acting;
        self.window.clear();
        self.requests = 0;
        self.behind = 0;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules { window: 20, least: 10, proof: 30, ..Rules::default() }
    }

    fn at(s: f64) -> Time {
        Time::ZERO + Span::from_ms(s * 1e3)
    }

    fn shadow(trial: f64, good: f64, baseline: f64) -> Shadow {
        Shadow { trial, good, baseline, agreement: 0.5 }
    }

    /// What a guard says to so many requests of this score; the first thing that is not `Stay`, and after how many.
    fn feed(guard: &mut Guard, n: usize, score: f64) -> Option<(usize, Order)> {
        (1..=n).find_map(|i| match guard.ended(2.0 * score, 2.0, at(1.0)) {
            Order::Stay => None,
            order => Some((i, order)),
        })
    }

    /// Publishes weights that get nothing live after good ones that got 0.9; after how many requests the good ones act again.
    fn loss_of(mut on_ended: impl FnMut(&mut Guard, f64) -> Order) -> Option<usize> {
        let mut guard = Guard::new(rules());
        (0..30).for_each(|_| drop(on_ended(&mut guard, 0.9)));
        guard.publish(at(1.0));
        (1..=100).find(|_| matches!(on_ended(&mut guard, 0.0), Order::RollBack(_)))
    }

    #[test]
    fn a_crash_is_rolled_back_after_the_least_number_of_requests() {
        let lost = loss_of(|guard, score| guard.ended(score, 1.0, at(2.0)));
        assert_eq!(lost, Some(10), "the bound is `least` requests");
        // Saboteur: a guard that never rolls back.
        let lost = loss_of(|guard, score| match guard.ended(score, 1.0, at(2.0)) {
            Order::RollBack(_) => Order::Stay,
            order => order,
        });
        assert_eq!(lost, None);
    }

    #[test]
    fn a_trial_that_holds_is_the_new_good() {
        let mut guard = Guard::new(rules());
        assert_eq!(feed(&mut guard, 30, 0.8), None);
        guard.publish(at(1.0));
        assert_eq!((guard.acting(), guard.live()), (Acting::Trial, None));
        assert_eq!(feed(&mut guard, 40, 0.78), Some((30, Order::Proven)));
        assert_eq!((guard.acting(), guard.counts().proven), (Acting::Good, 1));
        assert!((guard.live().expect("enough requests") - 0.78).abs() < 1e-12);
    }

    #[test]
    fn worse_weights_are_not_admitted() {
        let mut guard = Guard::new(rules());
        assert!(guard.admit(&[0.5, 0.7], &[0.6, 0.6], &[0.61, 0.61]).is_ok());
        assert!(guard.admit(&[0.5, 0.69], &[0.6, 0.6], &[0.1, 0.1]).unwrap_err().contains("last good"));
        assert!(guard.admit(&[0.7, 0.7], &[0.6, 0.6], &[0.8, 0.8]).unwrap_err().contains("baseline"));
        assert!(guard.admit(&[f64::NAN], &[0.6], &[0.6]).is_err());
        assert_eq!(guard.counts().refused, 3);
    }

    #[test]
    fn a_promise_that_is_not_kept_is_rolled_back_before_it_crashes() {
        let mut guard = Guard::new(rules());
        feed(&mut guard, 30, 0.8);
        // The emulator is optimistic by 0.1.
        assert_eq!(guard.check(at(1.0), &shadow(0.9, 0.9, 0.85)), Order::Stay);
        guard.publish(at(2.0));
        assert_eq!(feed(&mut guard, 15, 0.83), None);
        assert_eq!(guard.check(at(3.0), &shadow(0.93, 0.9, 0.85)), Order::Stay, "0.83 was promised");
        assert_eq!(feed(&mut guard, 14, 0.7), None, "no crash yet");
        let order = guard.check(at(4.0), &shadow(0.99, 0.9, 0.85));
        assert!(
            matches!(&order, Order::RollBack(why) if why.contains("0.890 was to be expected")),
            "{order:?}"
        );
    }

    #[test]
    fn a_trial_ends_when_the_emulator_turns_against_it() {
        let mut guard = Guard::new(rules());
        guard.publish(at(1.0));
        assert_eq!(guard.check(at(2.0), &shadow(0.69, 0.7, 0.7)), Order::Stay);
        assert!(matches!(guard.check(at(3.0), &shadow(0.6, 0.7, 0.5)), Order::RollBack(_)));
        guard.publish(at(4.0));
        assert!(matches!(guard.check(at(5.0), &shadow(0.6, 0.6, 0.7)), Order::RollBack(_)));
        assert_eq!(guard.counts().rolled_back, 2);
    }

    #[test]
    fn the_baseline_takes_over_and_gives_back_after_rests_that_double() {
        let mut guard = Guard::new(rules());
        let behind = shadow(0.5, 0.5, 0.7);
        assert_eq!(guard.check(at(1.0), &behind), Order::Stay, "once is chance");
        assert!(matches!(guard.check(at(2.0), &behind), Order::HandOver(_)));
        assert_eq!(guard.acting(), Acting::Baseline);
        let even = shadow(0.7, 0.7, 0.7);
        assert_eq!(guard.check(at(6.9), &even), Order::Stay, "it rests for 5 s");
        assert_eq!(guard.check(at(7.1), &behind), Order::Stay, "it is still behind");
        assert!(matches!(guard.check(at(8.0), &even), Order::TryAgain(_)));
        guard.check(at(9.0), &behind);
        assert!(matches!(guard.check(at(10.0), &behind), Order::HandOver(_)));
        assert_eq!(guard.check(at(19.0), &even), Order::Stay, "now it rests for 10 s");
        assert!(matches!(guard.check(at(20.5), &even), Order::TryAgain(_)));
        // Well for long enough: the next rest is short again.
        guard.check(at(200.0), &even);
        guard.check(at(201.0), &behind);
        assert!(matches!(guard.check(at(202.0), &behind), Order::HandOver(why) if why.contains("in 5 s")));
        assert_eq!((guard.counts().handed_over, guard.counts().tried_again), (3, 2));
    }

    #[test]
    fn good_weights_that_fall_short_live_hand_over_unless_they_do_what_the_baseline_does() {
        for (agreement, handed_over) in [(0.5, 1), (1.0, 0)] {
            let mut guard = Guard::new(rules());
            feed(&mut guard, 30, 0.9);
            let shadow = Shadow { agreement, ..shadow(0.95, 0.95, 0.9) };
            assert_eq!(guard.check(at(1.0), &shadow), Order::Stay);
            feed(&mut guard, 30, 0.5);
            guard.check(at(2.0), &shadow);
            guard.check(at(3.0), &shadow);
            assert_eq!(guard.counts().handed_over, handed_over, "agreement {agreement}");
        }
    }

    #[test]
    fn what_is_kept_comes_back() {
        let mut guard = Guard::new(rules());
        feed(&mut guard, 30, 0.9);
        let behind = shadow(0.5, 0.5, 0.7);
        guard.check(at(1.0), &behind);
        guard.check(at(2.0), &behind);
        let memory = guard.memory();
        let again = Guard::resume(rules(), &memory);
        assert_eq!((again.memory(), again.acting()), (memory, Acting::Baseline));
        assert!(memory.baseline_acts && memory.reference.is_some());
    }
}
