//! `cosched sweep`: a grid of emulated experiments from one file.

use super::compare::maker;
use super::{Outcome, bar, check_policies, print_json};
use cosched::experiments::sweep::Sweep;
use std::path::PathBuf;

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = super::policy_help())]
pub struct Args {
    /// The sweep file.
    file: PathBuf,
    /// Folder for the results (CSV, JSON and the resolved settings).
    #[arg(short, long, default_value = "runs/sweep")]
    out: PathBuf,
    /// Only list the cells.
    #[arg(long)]
    dry_run: bool,
    /// Cells at once; 0: as many as the machine runs at once. The results do not depend on it.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    let sweep = Sweep::read(&args.file)?;
    check_policies(&sweep.policies)?;
    if args.dry_run {
        println!("{}", sweep.dry_run()?);
        return Ok(());
    }
    let progress = bar("sweeping");
    let shown = |done: usize, of: usize| {
        progress.set_length(of as u64);
        progress.set_position(done as u64);
    };
    let results = sweep.run(&maker, args.threads, &shown)?;
    progress.finish_and_clear();
    sweep.write(&results, &args.out)?;
    if args.json {
        print_json(&results)?;
    } else {
        print!("{}", sweep.csv(&results));
    }
    eprintln!("results written to {}", args.out.display());
    let failed = results.iter().filter(|r| r.error.is_some()).count();
    match results.iter().find_map(|r| Some((r.cell, r.error.as_ref()?))) {
        Some((cell, error)) => {
            Err(format!("{failed} of {} cells failed; the first is cell {cell}: {error}", results.len())
                .into())
        }
        None => Ok(()),
    }
}
