//! `cosched report`: a sweep's results as one page, with its pictures.
//! It refuses to run anything: what is not in the results is not in the page.

use super::Outcome;
use cosched::experiments::report::{Report, write};
use cosched::experiments::sweep::results;
use std::path::PathBuf;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// The folder that `cosched sweep` wrote.
    results: PathBuf,
    /// Where to write the page; report.html in the folder when absent. Pictures go beside it.
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Show the timeline of this cell first: the first digits of its hash.
    #[arg(long, value_name = "HASH")]
    gantt: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    let results = results::read(&args.results)?;
    let out = args.out.clone().unwrap_or_else(|| args.results.join("report.html"));
    let pictures = write(&Report::of(&results), args.gantt.as_deref(), &out)?;
    println!("{} and {pictures} pictures beside it", out.display());
    Ok(())
}
