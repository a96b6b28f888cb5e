//! `cosched fidelity`: the same streams live and in the emulated device, and how far the two are apart.

use super::profile::{measure, open};
use super::run::stop_on_ctrl_c;
use super::{Outcome, check_policies, print_json, usage};
use cosched::experiments::about::About;
use cosched::experiments::app::{App, read_plan};
use cosched::experiments::table::table;
use cosched::fidelity::{Fidelity, Launches, Row, pair};
use cosched::session::{RunOptions, SessionError};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

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
    /// Seed of the first repeat's arrivals; that of the file when absent.
    #[arg(long)]
    seed: Option<u64>,
    /// How often everything is repeated, each time with the next seed; medians are reported.
    #[arg(long, default_value_t = 3)]
    repeats: u64,
    /// Use this plan instead of profiling afresh before each repeat.
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Print as JSON, with every repeat, the resolved config, commit and devices.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    about: &'a About,
    #[serde(flatten)]
    fidelity: &'a Fidelity,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    check_policies(std::slice::from_ref(&args.policy))?;
    if args.seconds.is_some_and(|s| !(s > 0.0 && s <= 1e6)) {
        return Err(usage("--seconds: expected a number above 0 and at most 1000000"));
    }
    if !(1..=1000).contains(&args.repeats) {
        return Err(usage("--repeats: expected a number from 1 to 1000"));
    }
    let mut app = App::read(&args.app)?;
    app.seconds = args.seconds.unwrap_or(app.seconds);
    app.seed = args.seed.unwrap_or(app.seed);
    let given = args.plan.as_ref().map(|path| read_plan(path)).transpose()?;
    let session = open(&app)?;
    if let (Some(plan), Some(path)) = (&given, &args.plan) {
        let file = path.display().to_string();
        session.fits(plan).map_err(|problem| SessionError::StalePlan { file, problem })?;
    }
    let stop = stop_on_ctrl_c()?;
    let (mut pairs, mut about) = (Vec::new(), None);
    for repeat in 0..args.repeats {
        let plan = match &given {
            Some(plan) => plan.clone(),
            None => measure(&session, &app)?,
        };
        let case = app.case_of(plan)?;
        eprintln!(
            "repeat {} of {}: {} s live under {} ...",
            repeat + 1,
            args.repeats,
            app.seconds,
            args.policy
        );
        let seed = Some(app.seed.wrapping_add(repeat));
        let options = RunOptions { seed, stop: stop.clone(), ..RunOptions::default() };
        let one = pair(&session, &app, &case, &args.policy, options)?;
        // A run that was cut short is no twin of the emulated one.
        if stop.load(Ordering::Relaxed) {
            break;
        }
        pairs.push(one);
        about.get_or_insert_with(|| About::now(&app, &case));
    }
    let fidelity = Fidelity::of(&app.name, &args.policy, app.seconds, pairs);
    let (Some(fidelity), Some(mut about)) = (fidelity, about) else {
        return Err("stopped before the first repeat was over".into());
    };
    if args.plan.is_none() {
        about.plan = "profiled afresh before each repeat".into();
    }
    if args.json {
        return print_json(&Printed { about: &about, fidelity: &fidelity });
    }
    print(&fidelity);
    Ok(())
}

fn print(fidelity: &Fidelity) {
    let repeats = fidelity.pairs.len();
    let of = if repeats == 1 { "1 run".into() } else { format!("medians of {repeats} runs") };
    println!(
        "{} under {}, {} s, {of}; errors are emulated against live",
        fidelity.scenario, fidelity.policy, fidelity.seconds
    );
    let header = [
        "task", "requests", "mean ms", "emulated", "error", "p95 ms", "emulated", "error", "on time",
        "emulated", "error",
    ];
    println!("{}", table(&header, 1, fidelity.rows.iter().map(cells).collect()));
    let launch = |l: &Launches| {
        format!(
            "{:.2} launches a request, {:.0} us to begin, {:.0} us to run",
            l.per_request, l.begin_us, l.run_us
        )
    };
    println!("live:     {}; {:.1} us a decision", launch(&fidelity.live), fidelity.decision_us);
    println!("emulated: {}", launch(&fidelity.emulated));
}

fn cells(row: &Row) -> Vec<String> {
    let ms = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.3}"));
    let percent = |v: Option<f64>| v.map_or("-".into(), |v| format!("{:+.1} %", 100.0 * v));
    let share = |v: f64| format!("{:.1} %", 100.0 * v);
    vec![
        row.name.clone(),
        row.live.requests.to_string(),
        ms(row.live.mean_ms),
        ms(row.emulated.mean_ms),
        percent(row.mean_error),
        ms(row.live.p95_ms),
        ms(row.emulated.p95_ms),
        percent(row.p95_error),
        share(row.live.on_time_share),
        share(row.emulated.on_time_share),
        format!("{:+.1} pp", 100.0 * row.on_time_error),
    ]
}
