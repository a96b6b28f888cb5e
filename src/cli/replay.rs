//! `cosched replay`: runs a recording again and insists on the same decisions and launches.

use super::{Outcome, print_json};
use cosched::env::recording::Recording;
use cosched::env::scheduler::Scheduler;
use cosched::env::world::drive;
use cosched::experiments::log::RunLog;
use cosched::experiments::summary::Summary;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = super::policy_help())]
pub struct Args {
    /// A recording made with `cosched run --record`.
    recording: PathBuf,
    /// Replay under another policy than the recorded one: the first difference is reported.
    #[arg(long)]
    policy: Option<String>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    super::check_policies(args.policy.as_slice())?;
    let name = args.recording.display();
    let file = File::open(&args.recording).map_err(|e| format!("{name}: {e}"))?;
    let recording = Recording::read(BufReader::new(file)).map_err(|e| format!("{name}: {e}"))?;
    let header = &recording.header;
    let case = Arc::new(header.case()?);
    let spec = args.policy.as_ref().unwrap_or(&header.policy);
    let mut policy = cosched::policies::make(spec, &case)?;
    let mut scheduler = Scheduler::new(case.clone(), header.options);
    let mut world = recording.replay();
    let mut log = RunLog::new(spec.as_str());
    let end = drive(&mut scheduler, &mut world, policy.as_mut(), &mut log)?;
    world.finish().map_err(|e| format!("{name}: {e}"))?;
    let summary = Summary::of(&log.finish(end), &case);
    if args.json {
        return print_json(&summary);
    }
    println!("{summary}");
    println!("{name}: all {} decisions are the same", recording.decisions());
    Ok(())
}
