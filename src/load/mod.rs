//! A load for any server of the Open Inference Protocol v2 over HTTP: requests go out at their own times whatever the server does
//! (open loop), and each is timed from when it should have gone out, so that a server that stalls cannot hide it (coordinated omission).
//! Callers that ask again as soon as they have an answer (closed loop) tell how much a server can do.
//! It refuses to look at answers beyond their status: whether they are right is for tests.

mod question;

use cosched_env::streams::rng;
use hdrhistogram::Histogram;
use rand_distr::{Distribution, Exp1};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

pub use cosched_executors::remote::client::{Client, ClientError};
pub use question::Question;
use question::Refused;

/// How requests come.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrivals {
    /// Exponential gaps.
    Poisson,
    /// Equal gaps.
    Periodic,
    /// So many at a time, with exponential gaps between the bursts.
    Bursts(u32),
    /// At these times, from the start; the rate has no meaning then.
    Trace(Arc<[Duration]>),
    /// Each of so many callers asks again as soon as it has its answer; the rate has no meaning then.
    Closed(u32),
}

/// What is sent, and how often.
#[derive(Clone, Debug)]
pub struct Load {
    /// How requests come.
    pub arrivals: Arrivals,
    /// Requests per second. At 0 only the first is sent.
    pub rate: f64,
    /// How long requests are sent, the time to warm up included.
    pub length: Duration,
    /// Requests that should go out before this do not count.
    pub warm_up: Duration,
    /// Seed of the gaps.
    pub seed: u64,
    /// A request without an answer after this counts as refused.
    pub patience: Duration,
}

impl Load {
    /// When each request goes out, from the start; nothing is known of that in a closed loop.
    pub fn times(&self) -> impl Iterator<Item = Duration> + use<> {
        let Load { arrivals, rate, length, seed, .. } = self.clone();
        let (mut random, mut at, mut number) = (rng(seed, "load", 0), 0.0, 0);
        std::iter::from_fn(move || {
            let time = match &arrivals {
                Arrivals::Trace(times) => *times.get(number)?,
                Arrivals::Closed(_) => return None,
                // What is too far away for a `Duration` never comes.
                _ => Duration::try_from_secs_f64(at).ok()?,
            };
            number += 1;
            let mut exponential = || -> f64 { Exp1.sample(&mut random) };
            let gap = match arrivals {
                Arrivals::Poisson => exponential(),
                Arrivals::Periodic => 1.0,
                Arrivals::Bursts(size) if number % size as usize == 0 => exponential() * f64::from(size),
                Arrivals::Bursts(_) | Arrivals::Trace(_) | Arrivals::Closed(_) => 0.0,
            };
            at += gap / rate;
            (time < length).then_some(time)
        })
    }

    /// Requests per second that it asks for.
    pub fn asked(&self) -> f64 {
        match &self.arrivals {
            Arrivals::Trace(_) => self.times().count() as f64 / self.length.as_secs_f64().max(1e-9),
            Arrivals::Closed(_) => 0.0,
            _ => self.rate,
        }
    }
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Percentiles {
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Percentiles {
        let at = |q: f64| histogram.value_at_quantile(q) as f64 / 1e6;
        Percentiles {
            mean_ms: histogram.mean() / 1e6,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: histogram.max() as f64 / 1e6,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Requests that count.
    pub requests: u64,
    /// Answered with status 200.
    pub answered: u64,
    /// Others, by status or by what went wrong with the connection.
    pub refused: BTreeMap<String, u64>,
    /// Of each of those what the server said to the first.
    pub words: BTreeMap<String, String>,
    /// Requests per second that should have gone out; 0 in a closed loop.
    pub rate: f64,
    /// Answers per second from the first request that counts to the last answer.
    pub achieved: f64,
    /// Of answers, from when the request should have gone out.
    pub latency: Percentiles,
    /// Of answers, from when it did go out: what a closed loop would tell.
    pub uncorrected: Percentiles,
}

/// How one request ended.
struct Ended {
    counts: bool,
    since_due: Duration,
    since_sent: Duration,
    outcome: Result<(), Refused>,
}

/// Sends the load and waits until every request has ended.
///
/// # Errors
/// When there is no thread to be had.
pub fn run(client: Client, question: Question, load: &Load) -> std::io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (tell, mut told) = mpsc::unbounded_channel();
    let (client, question) = (Arc::new(client), Arc::new(question));
    let (handle, sent, patience) = (runtime.handle().clone(), load.clone(), load.patience);
    let ask = move |client: Arc<Client>, question: Arc<Question>| async move {
        let answer = tokio::time::timeout(patience, question.ask(&client)).await;
        answer.unwrap_or_else(|_| {
            let what = format!("no answer in {} s", patience.as_secs_f64());
            Err(Refused { words: what.clone(), what })
        })
    };
    let begun = Instant::now() + Duration::from_millis(10);
    if let Arrivals::Closed(callers) = load.arrivals {
        for _ in 0..callers {
            let (client, question, tell, load) =
                (client.clone(), question.clone(), tell.clone(), load.clone());
            runtime.spawn(async move {
                while begun.elapsed() < load.length {
                    let went = Instant::now();
                    let outcome = ask(client.clone(), question.clone()).await;
                    let counts = went >= begun + load.warm_up;
                    let took = went.elapsed();
                    drop(tell.send(Ended { counts, since_due: took, since_sent: took, outcome }));
                }
            });
        }
    }
    // A thread of its own: tokio's clock is too coarse for gaps below a millisecond.
    let pacer = std::thread::Builder::new().name("pacer".into()).spawn(move || {
        for at in sent.times() {
            let due = begun + at;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (client, question, tell) = (client.clone(), question.clone(), tell.clone());
            handle.spawn(async move {
                let went = Instant::now();
                let outcome = ask(client, question).await;
                let counts = at >= sent.warm_up;
                let ended = Ended { counts, since_due: due.elapsed(), since_sent: went.elapsed(), outcome };
                drop(tell.send(ended));
            });
        }
    })?;
    let mut tally = Tally::new();
    runtime.block_on(async {
        while let Some(ended) = told.recv().await {
            tally.add(ended);
        }
    });
    let seconds = (begun + load.warm_up).elapsed().as_secs_f64();
    drop(pacer.join());
    Ok(tally.outcome(load.asked(), seconds))
}

struct Tally {
    requests: u64,
    refused: BTreeMap<String, u64>,
    words: BTreeMap<String, String>,
    latency: Histogram<u64>,
    uncorrected: Histogram<u64>,
}

impl Tally {
    fn new() -> Tally {
        // One nanosecond to an hour, three digits.
        let histogram =
            || Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("these bounds are allowed");
        let (refused, words) = (BTreeMap::new(), BTreeMap::new());
        Tally { requests: 0, refused, words, latency: histogram(), uncorrected: histogram() }
    }

    fn add(&mut self, ended: Ended) {
        if !ended.counts {
            return;
        }
        self.requests += 1;
        match ended.outcome {
            Ok(()) => {
                self.latency.saturating_record(ended.since_due.as_nanos() as u64);
                self.uncorrected.saturating_record(ended.since_sent.as_nanos() as u64);
            }
            Err(Refused { what, words }) => {
                self.words.entry(what.clone()).or_insert(words);
                *self.refused.entry(what).or_default() += 1;
            }
        }
    }

    fn outcome(self, rate: f64, seconds: f64) -> Outcome {
        let answered = self.latency.len();
        Outcome {
            requests: self.requests,
            answered,
            refused: self.refused,
            words: self.words,
            rate,
            achieved: answered as f64 / seconds.max(1e-9),
            latency: Percentiles::of(&self.latency),
            uncorrected: Percentiles::of(&self.uncorrected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(arrivals: Arrivals) -> Load {
        let (length, warm_up) = (Duration::from_secs(100), Duration::ZERO);
        Load { arrivals, rate: 50.0, length, warm_up, seed: 3, patience: length }
    }

    #[test]
    fn requests_come_at_the_asked_rate() {
        let periodic: Vec<_> = load(Arrivals::Periodic).times().collect();
        assert_eq!((periodic.len(), periodic[1]), (5000, Duration::from_millis(20)));
        let poisson: Vec<_> = load(Arrivals::Poisson).times().map(|t| t.as_secs_f64()).collect();
        // 5000 expected, standard deviation 71.
        assert!((4700..5300).contains(&poisson.len()), "{}", poisson.len());
        // The gaps of a Poisson process vary as much as they are long; those of a periodic one do not.
        let gaps: Vec<_> = poisson.windows(2).map(|w| w[1] - w[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.1, "{}", variance.sqrt() / mean);
        assert!(poisson == load(Arrivals::Poisson).times().map(|t| t.as_secs_f64()).collect::<Vec<_>>());
    }

    #[test]
    fn a_load_of_next_to_nothing_sends_the_first_and_ends() {
        for rate in [0.0, f64::MIN_POSITIVE, 1e-9] {
            for arrivals in [Arrivals::Periodic, Arrivals::Poisson, Arrivals::Bursts(1)] {
                let times: Vec<_> = Load { rate, ..load(arrivals) }.times().collect();
                assert_eq!(times, [Duration::ZERO], "at {rate}");
            }
        }
    }

    #[test]
    fn bursts_come_together_and_traces_as_they_are() {
        let bursts: Vec<_> = load(Arrivals::Bursts(8)).times().collect();
        assert!(bursts.chunks_exact(8).all(|b| b.iter().all(|t| *t == b[0])), "not together");
        assert!(bursts.chunks_exact(8).zip(bursts.chunks_exact(8).skip(1)).all(|(a, b)| a[0] < b[0]));
        // 625 bursts of eight are expected, standard deviation 25.
        assert!((4000..6000).contains(&bursts.len()), "{}", bursts.len());
        let times: Arc<[Duration]> = [0, 5, 5, 99_000, 100_000].map(Duration::from_millis).into();
        let trace = load(Arrivals::Trace(times.clone()));
        // The last one is beyond the length.
        assert_eq!((trace.times().collect::<Vec<_>>().as_slice(), trace.asked()), (&times[..4], 0.04));
    }

    #[test]
    fn a_stall_shows_in_the_corrected_times_only() {
        let mut tally = Tally::new();
        let ms = Duration::from_millis;
        for i in 0..100 {
            // The server stalls for 100 ms; requests that were due meanwhile go out when it is over.
            let since_due = ms(if i < 50 { 1 } else { 101 });
            tally.add(Ended { counts: true, since_due, since_sent: ms(1), outcome: Ok(()) });
        }
        tally.add(Ended { counts: false, since_due: ms(900), since_sent: ms(900), outcome: Ok(()) });
        for words in ["full", "closing"] {
            let outcome = Err(Refused { what: "503".into(), words: words.into() });
            tally.add(Ended { counts: true, since_due: ms(900), since_sent: ms(900), outcome });
        }
        let outcome = tally.outcome(10.0, 10.0);
        assert_eq!((outcome.requests, outcome.answered, outcome.refused["503"]), (102, 100, 2));
        assert_eq!(outcome.words["503"], "full");
        assert!(outcome.latency.p99_ms > 100.0 && outcome.uncorrected.p99_ms < 1.1, "{outcome:?}");
    }
}
