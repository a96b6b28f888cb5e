//! `cosched compare`: policies side by side in the emulated device, with the same arrivals for each seed.

use super::{Outcome, bar, check_policies, print_json};
use cosched::env::capacity::{Capacity, capacity};
use cosched::env::case::Case;
use cosched::env::time::Span;
use cosched::env::world::Policy;
use cosched::experiments::about::About;
use cosched::experiments::app::App;
use cosched::experiments::bound;
use cosched::experiments::compare::{Comparison, Plan, Setup, compare};
use cosched::experiments::html::comparison_page;
use serde::Serialize;
use std::fs::File;
use std::path::PathBuf;

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = super::policy_help())]
pub struct Args {
    /// An app or case file; its plan must be there.
    app: PathBuf,
    /// Policies, separated by commas; all but searches (rollout) when absent.
    #[arg(short, long, value_delimiter = ',')]
    policies: Vec<String>,
    /// Number of seeds, counted from the first one.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1000)]
    first_seed: u64,
    /// Emulated seconds of each run; those of the file when absent.
    #[arg(long, allow_negative_numbers = true)]
    seconds: Option<f64>,
    /// Also search each seed, with all known in advance, for the best there is to reach; by trying so many changes.
    #[arg(long, value_name = "EVALUATIONS", num_args = 0..=1, default_missing_value = "20000")]
    bound: Option<u64>,
    /// Threads; 0: as many as the machine runs at once. The result does not depend on it.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Also write the table as CSV to this file.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Also write a page with plots to this file; it needs no network.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Print as JSON, with the resolved config, commit and devices.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    about: &'a About,
    /// What the scenario asks for as a share of what the device can do.
    load_of_capacity: f64,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

/// Makes a policy, with the error as text.
pub fn maker(spec: &str, case: &Case) -> Result<Box<dyn Policy>, String> {
    cosched::policies::make(spec, case).map_err(|e| e.to_string())
}

/// Every policy of the table but searches, which take milliseconds a decision: those are run when they are asked for.
pub fn all_policies() -> Vec<String> {
    let quick = cosched::policies::TABLE.iter().filter(|row| !row.searches);
    quick.map(|row| row.name.to_owned()).collect()
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    check_policies(&args.policies)?;
    if args.seconds.is_some_and(|s| !(s > 0.0 && s <= 1e6)) {
        return Err(super::usage("--seconds: expected a number above 0 and at most 1000000"));
    }
    if args.seeds == 0 {
        return Err(super::usage("--seeds: expected at least 1"));
    }
    let mut app = App::read(&args.app)?;
    app.seconds = args.seconds.unwrap_or(app.seconds);
    let setup = Setup::of(&app)?;
    // What cannot be written is found out before anything costly.
    for path in [&args.csv, &args.html].into_iter().flatten() {
        File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let policies = if args.policies.is_empty() { all_policies() } else { args.policies.clone() };
    let seeds: Vec<u64> = (args.first_seed..args.first_seed + args.seeds).collect();
    let plan = Plan { policies: &policies, seeds: &seeds, reference: None, threads: args.threads };
    let progress = bar("emulating");
    let shown = |done: usize, of: usize| {
        progress.set_length(of as u64);
        progress.set_position(done as u64);
    };
    let mut comparison = compare(&setup, &plan, &maker, &shown)?;
    if let Some(evaluations) = args.bound {
        progress.set_message("searching");
        bound::add(&mut comparison, &setup, evaluations, &maker, args.threads, &shown)?;
    }
    progress.finish_and_clear();
    if let Some(path) = &args.csv {
        std::fs::write(path, comparison.csv())?;
    }
    let about = About::now(&app, &setup.case);
    let most = capacity(&setup.case, Span::from_ms(setup.seconds * 1e3));
    if let Some(path) = &args.html {
        std::fs::write(path, comparison_page(&comparison, &about))?;
    }
    if args.json {
        return print_json(&Printed {
            about: &about,
            load_of_capacity: most.load(),
            comparison: &comparison,
        });
    }
    println!(
        "{}: {} s, seeds {} to {}",
        app.name,
        app.seconds,
        args.first_seed,
        args.first_seed + args.seeds - 1
    );
    println!("{}", asked(&setup.case, &most));
    println!("{comparison}");
    Ok(())
}

/// What the scenario asks for, beside what the device can do.
fn asked(case: &Case, most: &Capacity) -> String {
    let shares = case.plan.processors.iter().zip(&most.shares);
    let shares: Vec<String> = shares.map(|(p, share)| format!("{} {share:.2}", p.name)).collect();
    format!("asks for {:.2} of the device's capacity ({})", most.load(), shares.join(", "))
}
