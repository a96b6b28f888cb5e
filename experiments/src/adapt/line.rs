//! What came of an adaptation, a line for each contestant, and how it is printed. It refuses to run anything.

use super::SlowDown;
use crate::stats::{Estimate, mean};
use cosched_agent::online::learner::Report;
use cosched_env::event::Ended;
use cosched_env::time::Time;
use serde::Serialize;
use std::fmt;

/// Share of the reference at which a contestant counts as back.
pub const BACK: f64 = 0.95;

/// How requests ended, of each seed.
pub(super) type Runs = Vec<Vec<Ended>>;

/// When a contestant was back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Back {
    /// Requests that arrived from the slow-down until then.
    pub requests: f64,
    /// Seconds until then.
    pub seconds: f64,
}

/// One contestant. Utility is per request; an entry for each seed.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Who.
    pub name: String,
    /// Mean over seeds, per window of time.
    pub windows: Vec<f64>,
    /// Before the slow-down.
    pub before: Vec<f64>,
    /// After it.
    pub after: Vec<f64>,
    /// In the last quarter of the run.
    pub settled: Vec<f64>,
    /// Utility of all requests of the run, summed.
    pub total: Vec<f64>,
    /// The beginning of the first window after the slow-down in which utility is at least 95 % of what the reference gets in the same
    /// window on the same seed, and stays so on the mean of the rest of the run; `None`: there is none.
    pub back: Vec<Option<Back>>,
    /// What the learner says, where one learned.
    pub reports: Vec<Report>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Adaptation {
    /// What happened.
    pub slow_down: SlowDown,
    /// Seconds of each run.
    pub seconds: f64,
    /// Seeds of the runs.
    pub seeds: Vec<u64>,
    /// Requests that arrive in a window, on average.
    pub window_requests: f64,
    /// Name of the line that the others are compared with: the best after the slow-down of those who knew of it.
    pub reference: String,
    /// Those who knew first, then those who learn, then the others.
    pub lines: Vec<Line>,
}

impl Adaptation {
    /// The line of this name.
    pub fn line(&self, name: &str) -> Option<&Line> {
        self.lines.iter().find(|l| l.name == name)
    }
}

/// Mean utility of the requests of a run that arrived in a span of seconds, and how many those are.
fn mean_in(run: &[Ended], from_s: f64, to_s: f64) -> (f64, f64) {
    let arrived = |e: &&Ended| {
        let at = e.request.arrival.ms_after(Time::ZERO) / 1e3;
        from_s <= at && at < to_s
    };
    let (sum, n) = run.iter().filter(arrived).fold((0.0, 0.0), |(s, n), e| (s + e.utility, n + 1.0));
    (sum / f64::max(n, 1.0), n)
}

/// See [`Line::back`]; windows begin every quarter of one.
fn back(run: &[Ended], reference: &[Ended], window: f64, end: f64) -> Option<Back> {
    let half = end / 2.0;
    let holds = |from: f64, to: f64| mean_in(run, from, to).0 >= BACK * mean_in(reference, from, to).0;
    (0..)
        .map(|quarter| half + 0.25 * window * f64::from(quarter))
        .take_while(|from| from + window <= end)
        .find(|&from| holds(from, from + window) && holds(from, end))
        .map(|from| Back { requests: mean_in(run, half, from).1, seconds: from - half })
}

pub(super) fn line(
    name: &str,
    runs: &Runs,
    reports: Vec<Report>,
    reference: &Runs,
    window: f64,
    end: f64,
) -> Line {
    let half = end / 2.0;
    let each = |from: f64, to: f64| runs.iter().map(|run| mean_in(run, from, to).0).collect::<Vec<_>>();
    let windows = (0..(end / window).floor() as usize).map(|w| w as f64 * window);
    Line {
        name: name.to_owned(),
        windows: windows.map(|from| mean(&each(from, from + window))).collect(),
        before: each(0.0, half),
        after: each(half, end),
        settled: each(0.75 * end, end),
        total: runs.iter().map(|run| run.iter().map(|e| e.utility).sum()).collect(),
        back: runs.iter().zip(reference).map(|(run, other)| back(run, other, window, end)).collect(),
        reports,
    }
}

/// "0.9123 ± 0.0045".
fn estimate(sample: &[f64], digits: usize) -> String {
    match Estimate::of(sample) {
        Some(Estimate { mean, half95: Some(half) }) => format!("{mean:.digits$} ± {half:.digits$}"),
        Some(Estimate { mean, .. }) => format!("{mean:.digits$}"),
        None => String::new(),
    }
}

fn back_text(back: &[Option<Back>]) -> String {
    let there: Vec<f64> = back.iter().flatten().map(|b| b.requests).collect();
    let seconds: Vec<f64> = back.iter().flatten().map(|b| b.seconds).collect();
    if there.is_empty() {
        return "never".to_owned();
    }
    let worst = there.iter().copied().fold(0.0, f64::max);
    let (of, requests) = (back.len(), estimate(&there, 0));
    format!(
        "{} of {of}: after {requests} requests, at worst {worst:.0} ({:.1} s on average)",
        there.len(),
        mean(&seconds)
    )
}

impl fmt::Display for Adaptation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SlowDown { processor, factor, window_s } = &self.slow_down;
        writeln!(
            f,
            "{processor} {factor} times slower from {} s on, {} seeds; {:.0} requests in a window of {window_s} s",
            0.5 * self.seconds,
            self.seeds.len(),
            self.window_requests
        )?;
        let title = format!("back at {:.0} % of `{}`", 100.0 * BACK, self.reference);
        writeln!(
            f,
            "{:<22} {:<17} {:<17} {:<17} {title}",
            "utility per request", "before", "after", "settled"
        )?;
        for line in &self.lines {
            let [before, after, settled] =
                [&line.before, &line.after, &line.settled].map(|sample| estimate(sample, 4));
            let back = if line.name == self.reference { String::new() } else { back_text(&line.back) };
            writeln!(f, "{:<22} {before:<17} {after:<17} {settled:<17} {back}", line.name)?;
        }
        for line in &self.lines {
            for (report, seed) in line.reports.iter().zip(&self.seeds) {
                let c = report.counts;
                writeln!(
                    f,
                    "{}, seed {seed}: {} decisions heard of, {} lessons, {} published, {} refused, {} proven, {} rolled back (after at most {} requests), {} handed over; shadow {:.3}, {} {:.3}",
                    line.name,
                    report.decisions,
                    report.lessons,
                    c.published,
                    c.refused,
                    c.proven,
                    c.rolled_back,
                    c.longest_bad_trial,
                    c.handed_over,
                    report.shadow.good,
                    report.baseline,
                    report.shadow.baseline
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cosched_env::case::StreamId;
    use cosched_env::event::{Outcome, Request, RequestId};
    use cosched_env::time::Span;

    /// A request every 0.1 s for 8 s, whose utility is a function of its arrival.
    fn run(utility: impl Fn(f64) -> f64) -> Vec<Ended> {
        let ended = |i: u32| {
            let s = 0.1 * f64::from(i);
            let arrival = Time::ZERO + Span::from_ms(1e3 * s);
            let request = Request {
                id: RequestId(u64::from(i)),
                stream: StreamId(0),
                arrival,
                origin: arrival,
                deadline: arrival,
                expires: arrival,
                priority: 1.0,
                min_accuracy: 0.0,
                variant: None,
            };
            Ended {
                request,
                outcome: Outcome::Dropped,
                at: arrival,
                variant: None,
                energy_mj: 0.0,
                launches: 0,
                utility: utility(s),
            }
        };
        (0..80).map(ended).collect()
    }

    #[test]
    fn back_by_hand() {
        let reference = run(|_| 0.8);
        let at = |utility: &dyn Fn(f64) -> f64| back(&run(utility), &reference, 1.0, 8.0);
        // The slow-down is at 4 s; the window from 5.5 s on is the first without a bad request, and that from 5.25 s on has three of ten.
        let late = at(&|s| if (4.0..5.5).contains(&s) { 0.5 } else { 0.8 }).expect("it came back");
        assert_eq!((late.requests, late.seconds), (15.0, 1.5));
        assert_eq!(at(&|_| 0.77).expect("it is above 95 % at once").requests, 0.0);
        assert_eq!(at(&|s| if s < 4.0 { 0.8 } else { 0.75 }), None);
        // Saboteur: one good window, and then it falls for good.
        assert_eq!(at(&|s| if s < 5.2 { 0.8 } else { 0.5 }), None);
    }
}
