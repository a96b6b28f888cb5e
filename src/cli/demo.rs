//! `cosched demo`: four zoo models live on all processors found, under the shipped policy and two baselines with the same arrivals.

use super::Outcome;
use super::profile::{measure, open, write_plan};
use super::run::{beside, decision_line, notes, stop_on_ctrl_c, watched};
use cosched::env::time::{Span, Time};
use cosched::experiments::app::{App, read_plan};
use cosched::experiments::html::{report, timeline_svg};
use cosched::experiments::summary::Summary;
use cosched::experiments::table;
use cosched::experiments::trace::chrome_trace;
use cosched::session::RunOptions;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// The app file of the demo is part of the binary.
const APP: &str = include_str!("../../experiments/scenarios/demo.toml");

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = super::policy_help())]
pub struct Args {
    /// Folder for the plan (kept for the next time), the report and the traces.
    #[arg(short, long, default_value = "runs/demo")]
    out: PathBuf,
    /// Seconds for which requests arrive, for each policy.
    #[arg(long, default_value_t = 20.0, allow_negative_numbers = true)]
    seconds: f64,
    /// Policies, separated by commas.
    #[arg(short, long, value_delimiter = ',', default_value = "learned,least-slack,edf")]
    policies: Vec<String>,
    /// Profile again even if there is a plan.
    #[arg(long)]
    fresh: bool,
    /// Print the summaries as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    super::check_policies(&args.policies)?;
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(super::usage("--seconds: expected a number above 0 and at most 3600"));
    }
    std::fs::create_dir_all(&args.out).map_err(|e| format!("{}: {e}", args.out.display()))?;
    let mut app = App::parse(APP, &args.out.join("demo.toml"))?;
    app.seconds = args.seconds;
    // The plan that the file names is another machine's.
    app.plan = Some("plan.json".into());
    eprintln!(
        "Making the models and preparing them on every processor (the first time compiles GPU kernels) ..."
    );
    let session = open(&app)?;
    for processor in &session.deployment.processors {
        eprintln!("processor {:7} {}", processor.name(), processor.device());
    }
    let path = app.plan_path()?;
    let kept = if args.fresh || !path.exists() {
        None
    } else {
        read_plan(&path).ok().filter(|p| session.fits(p).is_ok())
    };
    let plan = match kept {
        Some(plan) => plan,
        None => {
            let plan = measure(&session, &app)?;
            write_plan(&plan, &path)?;
            plan
        }
    };
    let case = app.case_of(plan)?;
    let stop = stop_on_ctrl_c()?;
    let (mut logs, mut summaries) = (Vec::new(), Vec::new());
    for policy in &args.policies {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        eprintln!("{} s live under {policy} ...", args.seconds);
        let options = RunOptions { stop: stop.clone(), ..RunOptions::default() };
        let live = watched(&session, &app, &case, policy, options)?;
        eprintln!("{policy}: {}", decision_line(&live));
        std::fs::write(beside(&args.out, policy, "trace.json"), chrome_trace(&live.log, &case).to_string())?;
        summaries.push(Summary::of(&live.log, &case));
        logs.push(live.log);
    }
    let page = args.out.join("report.html");
    std::fs::write(&page, report("cosched demo", &case, &logs, &notes(&session)))?;
    if let Some(log) = logs.first() {
        let (from, to) = (Time::ZERO + Span::from_ms(2000.0), Time::ZERO + Span::from_ms(4000.0));
        std::fs::write(args.out.join("timeline.svg"), timeline_svg(log, &case, from, to))?;
    }
    if args.json {
        return super::print_json(&summaries);
    }
    println!("{}", table::side_by_side(&summaries));
    println!("{}", table::processors_side_by_side(&summaries));
    println!("report:  {}", page.display());
    for policy in &args.policies {
        println!("trace:   {} (opens in ui.perfetto.dev)", beside(&args.out, policy, "trace.json").display());
    }
    Ok(())
}
