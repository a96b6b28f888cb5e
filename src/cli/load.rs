//! `cosched load`: sends requests to any server of the Open Inference Protocol v2 at a given rate, and tells how it fared.

use super::{Outcome, client, print_json, usage};
use cosched::experiments::app::read_trace;
use cosched::load::{Arrivals, Load, Outcome as Told, Percentiles, Question, run as send};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Duration;

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = super::TOKEN_HELP)]
pub struct Args {
    /// The server, as host:port, http://host:port or https://host:port.
    #[arg(default_value = "127.0.0.1:8000")]
    address: String,
    /// PEM file of the certificates that are trusted with https.
    #[arg(long)]
    trusted: Option<PathBuf>,
    /// The model.
    #[arg(short, long)]
    model: String,
    /// Requests per second; else give --clients or --trace.
    #[arg(short, long, required_unless_present_any = ["trace", "clients"])]
    rate: Option<f64>,
    /// How requests come.
    #[arg(short, long, default_value = "poisson")]
    arrivals: Kind,
    /// Requests of a burst.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    burst: u32,
    /// A file of arrivals, one time in milliseconds a line, in place of a rate.
    #[arg(long, conflicts_with_all = ["rate", "arrivals"])]
    trace: Option<PathBuf>,
    /// So many callers, each of which asks again as soon as it has its answer (closed loop), in place of a rate: what a server can do.
    #[arg(long, conflicts_with_all = ["rate", "arrivals", "trace"], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: Option<u32>,
    /// Seconds for which requests are sent and counted.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before that, which are not counted.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds after which a request without an answer counts as refused.
    #[arg(long, default_value_t = 30.0)]
    timeout: f64,
    /// Seed of the gaps and the tensors.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A parameter of every request, e.g. deadline_ms=20; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    parameter: Vec<String>,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Exponential gaps.
    Poisson,
    /// Equal gaps.
    Periodic,
    /// Several at a time, with exponential gaps between the bursts.
    Bursts,
}

impl Args {
    fn arrivals(&self) -> Result<Arrivals, Box<dyn std::error::Error>> {
        if let Some(clients) = self.clients {
            return Ok(Arrivals::Closed(clients));
        }
        if let Some(path) = &self.trace {
            let times = read_trace(path)?.into_iter().map(|ms| Duration::from_secs_f64(ms / 1e3));
            return Ok(Arrivals::Trace(times.collect()));
        }
        Ok(match self.arrivals {
            Kind::Poisson => Arrivals::Poisson,
            Kind::Periodic => Arrivals::Periodic,
            Kind::Bursts => Arrivals::Bursts(self.burst),
        })
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    let rate = args.rate.unwrap_or(1.0);
    if !(rate > 0.0 && rate <= 1e6) {
        return Err(usage("--rate: expected a number above 0 and at most 1000000"));
    }
    for (name, seconds) in [("--seconds", args.seconds), ("--warm-up", args.warm_up)] {
        if !(0.0..=1e6).contains(&seconds) {
            return Err(usage(format!("{name}: expected a number from 0 to 1000000")));
        }
    }
    if !(args.timeout > 0.0 && args.timeout <= 1e6) {
        return Err(usage("--timeout: expected a number above 0 and at most 1000000"));
    }
    let mut parameters = Map::new();
    for given in &args.parameter {
        let (key, value) = given
            .split_once('=')
            .ok_or_else(|| usage(format!("--parameter: expected KEY=VALUE, got `{given}`")))?;
        // A number or a truth value where it reads as one, else a text.
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        parameters.insert(key.to_owned(), value);
    }
    let arrivals = args.arrivals()?;
    let client = client(&args.address, args.trusted.as_deref())?;
    let question = Question::prepare(&client, &args.model, &Value::Object(parameters), args.seed)?;
    let warm_up = Duration::from_secs_f64(args.warm_up);
    let length = warm_up + Duration::from_secs_f64(args.seconds);
    let patience = Duration::from_secs_f64(args.timeout);
    let load = Load { arrivals, rate, length, warm_up, seed: args.seed, patience };
    let outcome = send(client, question, &load)?;
    if args.json {
        print_json(&outcome)?;
        return judge(&outcome);
    }
    println!(
        "{} requests at {:.1}/s: {} answered, {:.1}/s",
        outcome.requests, outcome.rate, outcome.answered, outcome.achieved
    );
    for (what, count) in &outcome.refused {
        println!("  {count} x {}", outcome.words.get(what).unwrap_or(what));
    }
    judge(&outcome)?;
    println!("{:30} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}", "ms", "mean", "p50", "p90", "p99", "p99.9", "max");
    let line = |name: &str, p: &Percentiles| {
        let Percentiles { mean_ms, p50_ms, p90_ms, p99_ms, p999_ms, max_ms } = p;
        println!(
            "{name:30} {mean_ms:>9.3} {p50_ms:>9.3} {p90_ms:>9.3} {p99_ms:>9.3} {p999_ms:>9.3} {max_ms:>9.3}"
        );
    };
    line("from when it was due", &outcome.latency);
    line("from when it was sent", &outcome.uncorrected);
    Ok(())
}

/// A load of which nothing is answered has failed: scripts must not take its zeros for latencies.
fn judge(outcome: &Told) -> Outcome {
    if outcome.answered > 0 || outcome.requests == 0 {
        return Ok(());
    }
    let words = outcome.words.values().next().map_or("", String::as_str);
    Err(format!("none of {} requests was answered: {words}", outcome.requests).into())
}
