//! `cosched run`: launches the scheduler live on an app's streams.

use super::profile::{measure, open, write_plan};
use super::{Outcome, check_policies, print_json};
use cosched::agent::online::learner::Report;
use cosched::env::case::Case;
use cosched::experiments::app::{App, read_plan};
use cosched::experiments::html::report;
use cosched::experiments::summary::Summary;
use cosched::experiments::trace::chrome_trace;
use cosched::session::{LiveRun, RunOptions, Session, SessionError};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde::Serialize;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = super::policy_help())]
pub struct Args {
    /// The app file.
    app: PathBuf,
    /// The policy, e.g. learned, edf, fixed:cpu.
    #[arg(short, long, default_value = "learned")]
    policy: String,
    /// Seconds for which requests arrive; those of the file when absent.
    #[arg(long, allow_negative_numbers = true)]
    seconds: Option<f64>,
    /// Seed of the arrivals; that of the file when absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Record the run to this file, for `cosched replay`.
    #[arg(long, conflicts_with = "online")]
    record: Option<PathBuf>,
    /// Write an HTML report to this file.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Write a Chrome trace to this file; it opens in Perfetto (ui.perfetto.dev).
    #[arg(long)]
    trace: Option<PathBuf>,
    #[command(flatten)]
    learning: super::learning::Args,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    check_policies(std::slice::from_ref(&args.policy))?;
    if args.seconds.is_some_and(|s| !(s > 0.0 && s <= 1e6)) {
        return Err(super::usage("--seconds: expected a number above 0 and at most 1000000"));
    }
    args.learning.check(&args.policy)?;
    let app = App::read(&args.app)?;
    let create = |path: &Option<PathBuf>| -> Result<Option<File>, String> {
        path.as_ref().map(|p| File::create(p).map_err(|e| format!("{}: {e}", p.display()))).transpose()
    };
    // What cannot be written is found out before anything costly.
    let (record, _, _) = (create(&args.record)?, create(&args.report)?, create(&args.trace)?);
    let session = open(&app)?;
    let case = planned_case(&session, &app)?;
    let stop = stop_on_ctrl_c()?;
    let options = RunOptions {
        seed: args.seed,
        seconds: args.seconds,
        record: record.map(|f| Box::new(BufWriter::new(f)) as Box<dyn std::io::Write>),
        stop,
        online: args.learning.options(),
    };
    let live = watched(&session, &app, &case, &args.policy, options)?;
    let summary = Summary::of(&live.log, &case);
    if let Some(path) = &args.report {
        std::fs::write(path, report(&app.name, &case, std::slice::from_ref(&live.log), &notes(&session)))?;
    }
    if let Some(path) = &args.trace {
        std::fs::write(path, chrome_trace(&live.log, &case).to_string())?;
    }
    if args.json {
        return match &live.online {
            None => print_json(&summary),
            Some(online) => print_json(&Printed { summary: &summary, online }),
        };
    }
    println!("{summary}");
    println!("{}", decision_line(&live));
    if let Some(report) = &live.online {
        println!("{}", online_lines(report));
    }
    Ok(())
}

/// What `--json` prints of a run that learned.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    online: &'a Report,
}

/// What came of online learning, for people.
fn online_lines(report: &Report) -> String {
    let c = report.counts;
    let slowness: Vec<_> = report.slowness.iter().map(|(name, s)| format!("{name} {s:.2}")).collect();
    let mut lines = vec![format!(
        "online: {} decisions heard of, {} lessons, {} dropped; weights published {}, refused {}, rolled back {}; baseline took over {}; latency by the plan's: {}",
        report.decisions,
        report.lessons,
        report.dropped,
        c.published,
        c.refused,
        c.rolled_back,
        c.handed_over,
        slowness.join(", ")
    )];
    lines.extend(report.story.iter().map(|line| format!("  {line}")));
    lines.join("\n")
}

/// The app's case from its plan; when there is no plan, the session is profiled first and the plan is kept.
///
/// # Errors
/// A plan that is not of this session.
pub fn planned_case(session: &Session, app: &App) -> Result<Arc<Case>, Box<dyn std::error::Error>> {
    let path = app.plan_path()?;
    // The plan of a device file is not for this machine to make.
    if !path.exists() && app.device.is_none() {
        let plan = measure(session, app)?;
        write_plan(&plan, &path)?;
    }
    let plan = read_plan(&path)?;
    let stale = |problem| SessionError::StalePlan { file: path.display().to_string(), problem };
    session.fits(&plan).map_err(stale)?;
    Ok(app.case_of(plan)?)
}

/// Becomes true at the first ctrl-c; the second one kills.
pub fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>, ctrlc::Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let heard = stop.clone();
    ctrlc::set_handler(move || {
        if heard.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping: no new requests; those that are there still end (ctrl-c again to give up)");
    })?;
    Ok(stop)
}

/// A live run with a bar that shows the time.
pub fn watched(
    session: &Session,
    app: &App,
    case: &Arc<Case>,
    policy: &str,
    options: RunOptions,
) -> Result<LiveRun, SessionError> {
    let seconds = options.seconds.unwrap_or(app.seconds);
    let bar = clock(policy, seconds);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let begun = Instant::now();
            while !over.load(Ordering::Relaxed) {
                bar.set_position(begun.elapsed().as_millis().min((seconds * 1e3) as u128) as u64);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let live = session.run(app, case.clone(), policy, options);
        over.store(true, Ordering::Relaxed);
        bar.finish_and_clear();
        live
    })
}

fn clock(policy: &str, seconds: f64) -> ProgressBar {
    let bar = super::bar("live");
    bar.set_length((seconds * 1e3) as u64);
    bar.set_message(format!("ms under {policy}"));
    bar
}

/// What a report says about the machine.
pub fn notes(session: &Session) -> Vec<String> {
    let here = session.deployment.processors.iter().map(|p| format!("{}: {}", p.name(), p.device()));
    let absent = session.absent.iter().map(|(name, reason)| format!("{name}: absent ({reason})"));
    here.chain(absent).collect()
}

/// How long decisions took.
pub fn decision_line(live: &LiveRun) -> String {
    let mut histogram: Histogram<u64> =
        Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are allowed");
    live.decision_ns.iter().for_each(|&ns| histogram.saturating_record(ns));
    let us = |q: f64| histogram.value_at_quantile(q) as f64 / 1e3;
    format!("{} decisions, p50 {:.1} us, p99 {:.1} us", histogram.len(), us(0.5), us(0.99))
}

/// Where a file of a run goes.
pub fn beside(folder: &Path, policy: &str, ending: &str) -> PathBuf {
    let name: String = policy.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    folder.join(format!("{name}.{ending}"))
}
