//! `cosched profile`: measures every segment of an app's models on every processor, and writes the plan.

use super::{Outcome, bar, plan_table, print_json, show};
use cosched::agent::file::write_whole;
use cosched::env::plan::Plan;
use cosched::executors::profile::Update;
use cosched::experiments::app::{App, read_plan};
use cosched::session::{Session, SessionOptions};
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// The app file.
    app: PathBuf,
    /// Where to write the plan; the app file's `plan` when absent.
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Keep what the plan that is there says of the same models on the same devices, and measure only the rest.
    #[arg(short, long)]
    update: bool,
    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    let app = App::read(&args.app)?;
    let out = match &args.out {
        Some(out) => out.clone(),
        // A device file tells of another machine; its plan must not become a measurement of this one.
        None if app.device.is_some() => {
            let problem = "the app names a device file, whose plan is not made here; say where with --out";
            return Err(format!("{}: device: {problem}", args.app.display()).into());
        }
        None => app.plan_path()?,
    };
    if out.is_dir() {
        return Err(format!("{}: expected a file to write the plan to, it is a folder", out.display()).into());
    }
    // A plan that cannot be read is said before anything is prepared.
    let previous = if args.update && out.exists() { Some(read_plan(&out)?) } else { None };
    let session = open(&app)?;
    let progress = bar("profiling");
    let Update { plan, measured, kept } = session.update(&app, previous.as_ref(), &mut show(&progress))?;
    progress.finish_and_clear();
    let changed = previous.as_ref() != Some(&plan);
    if changed {
        write_plan(&plan, &out)?;
    }
    if args.update {
        tell(previous.is_some().then_some(&out), &measured, &kept);
    }
    if args.json {
        return print_json(&plan);
    }
    print!("{}", plan_table::table(&plan));
    println!("plan {} {}", if changed { "written to" } else { "as it was:" }, out.display());
    Ok(())
}

/// What was kept and what was measured. It goes beside the output, which may be JSON.
fn tell(previous: Option<&PathBuf>, measured: &[String], kept: &[String]) {
    if previous.is_none() {
        eprintln!("there is no plan yet: everything is measured");
    }
    kept.iter().for_each(|what| eprintln!("kept: {what}"));
    measured.iter().for_each(|what| eprintln!("measured: {what}"));
    if measured.is_empty() {
        eprintln!("nothing has changed: nothing was measured");
    }
}

/// Opens a session with a progress bar and says loudly what is not there.
pub fn open(app: &App) -> Result<Session, Box<dyn std::error::Error>> {
    let progress = bar("preparing");
    let session = Session::open(app, &SessionOptions::default(), &mut show(&progress))?;
    progress.finish_and_clear();
    for (name, reason) in &session.absent {
        eprintln!("note: running without `{name}`: {reason}");
    }
    let variants = &session.deployment.variants;
    // Who takes whole models only has variants of its own.
    let whole = |p: usize| variants.iter().any(|v| v.whole_on == Some(p));
    for variant in variants.iter().filter(|v| v.whole_on.is_none()) {
        for (p, processor) in session.deployment.processors.iter().enumerate().filter(|(p, _)| !whole(*p)) {
            let refused: Vec<_> = variant
                .prepared
                .iter()
                .enumerate()
                .filter_map(|(s, row)| Some((s, row[p].as_ref().err()?)))
                .collect();
            if let Some((_, reason)) = refused.first() {
                let segments: Vec<_> = refused.iter().map(|(s, _)| s.to_string()).collect();
                let (name, all) = (&variant.model.name, variant.segments.len());
                eprintln!(
                    "note: {name}: segments {} of {all} fall back from {}: {reason}",
                    segments.join(", "),
                    processor.name()
                );
            }
        }
    }
    Ok(session)
}

/// Profiles with a progress bar.
pub fn measure(session: &Session, app: &App) -> Result<Plan, Box<dyn std::error::Error>> {
    let progress = bar("profiling");
    let plan = session.profile(app, &mut show(&progress))?;
    progress.finish_and_clear();
    Ok(plan)
}

/// Writes a plan, and makes its folder where there is none.
pub fn write_plan(plan: &Plan, path: &Path) -> Outcome {
    let named = |e: std::io::Error| format!("{}: {e}", path.display());
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(named)?;
    }
    Ok(write_whole(path, serde_json::to_string_pretty(plan)?.as_bytes()).map_err(named)?)
}
