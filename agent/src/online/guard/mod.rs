//! The guard of online learning: decides which weights act, from numbers alone. It refuses to run anything and to know the time but
//! from whoever asks; it never waits for certainty where waiting costs more than the mistake.
//!
//! Scores are utility by priority: 1 is everything on time in the best variant. What it weighs:
//! - the **live** score of what acts now, over a sliding window, with its standard error;
//! - **shadow** scores of the last good weights, of those on trial and of the best baseline, played on the same seeds of an emulator
//!   that was seeded with the profile and the arrivals as they are observed now;
//! - the **bias** of that emulator: how much less the last good weights got live than in it, while nothing was wrong;
//! - the baseline's **gain** over what acts, estimated off-policy from live decisions alone (`off_policy`), with its standard error: it holds
//!   where the emulator is wrong.
//!
//! New weights are published on trial when they are no worse in the shadow than the last good ones, and not behind the baseline. A
//! trial ends well after so many requests, and badly (the last good ones act again) when the live score crashes, when it falls short of
//! what the emulator promised, when the shadow turns against it, or when live decisions show that the baseline would do better. The last good weights hand over to the baseline when they stay behind
//! it, and get another chance after a rest that doubles each time.

mod terms;
#[cfg(test)]
mod tests;

pub use terms::{Acting, Counts, Memory, Order, Rules, Shadow};

use cosched_env::time::{Span, Time};
use std::collections::VecDeque;

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
        if !falls_short && !emulated_behind && !shadow.outdone(self.rules.tolerance) {
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
            "in the emulator the learned policy gets {:.3}, the baseline {:.3}; live {live_text}; live decisions {}; next chance in {rest_s} s",
            shadow.good,
            shadow.baseline,
            shadow.live_text()
        ))
    }

    fn check_trial(&mut self, now: Time, shadow: &Shadow) -> Order {
        let best = shadow.good.max(shadow.baseline);
        if shadow.trial < best - self.rules.tolerance {
            let why = format!("in the emulator as it is now they get {:.3}, others {best:.3}", shadow.trial);
            return self.roll_back(now, why);
        }
        if shadow.outdone(self.rules.tolerance) {
            return self.roll_back(now, format!("live decisions {}", shadow.live_text()));
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
        let requests = self.requests as u32;
        self.counts.rolled_back += 1;
        self.counts.longest_bad_trial = self.counts.longest_bad_trial.max(requests);
        self.turn(Acting::Good, now);
        Order::RollBack(format!("after {requests} requests: {why}"))
    }

    fn turn(&mut self, acting: Acting, now: Time) {
        self.acting = acting;
        self.window.clear();
        self.requests = 0;
        self.behind = 0;
        self.since = now;
    }
}
