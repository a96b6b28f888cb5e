//! `cosched xrbench`: the scores of XRBench under a policy, beside the published ones.

use super::{Outcome, bar, check_policies, print_json};
use cosched::experiments::xrbench::world::Rules;
use cosched::experiments::xrbench::{self, Mode, PUBLISHED_POLICY, Settings, read};
use std::path::PathBuf;

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = super::policy_help())]
pub struct Args {
    /// CSV of what each model costs on each accelerator (chip,num_pes,dataflow,model,latency_ms,energy_mj).
    #[arg(long)]
    costs: PathBuf,
    /// CSV of published scores (scenario,hw_dataflow,realtime,energy,user_experience,overall): its cases are run.
    #[arg(long)]
    published: PathBuf,
    /// How frames come and go.
    #[arg(long, value_enum, default_value = "compat")]
    mode: ModeName,
    /// The policy. With the published one in mode compat the command fails unless every overall score is within 0.001.
    #[arg(short, long, default_value = PUBLISHED_POLICY)]
    policy: String,
    /// Seed of the random scenarios.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Cases at once; 0: as many as the machine runs at once. The result does not depend on it.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ModeName {
    /// As in the published runtime, quirks included.
    Compat,
    /// As in the ordinary emulator: frames come at their times, dependent ones follow their own parent, and all end.
    Clean,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    check_policies(std::slice::from_ref(&args.policy))?;
    let costs = read::costs(&args.costs)?;
    let jobs = xrbench::jobs(&costs, &args.published, read::published(&args.published)?)?;
    let settings = Settings {
        mode: match args.mode {
            ModeName::Compat => Mode::Compat,
            ModeName::Clean => Mode::Clean,
        },
        policy: &args.policy,
        seed: args.seed,
        rules: Rules::default(),
        threads: args.threads,
    };
    let progress = bar("emulating");
    let shown = |done: usize, of: usize| {
        progress.set_length(of as u64);
        progress.set_position(done as u64);
    };
    let report = xrbench::run(&jobs, &settings, &xrbench::from_table, &shown)?;
    progress.finish_and_clear();
    if args.json {
        print_json(&report)?;
    } else {
        println!("{report}");
    }
    report.complaint().map_or(Ok(()), |complaint| Err(complaint.into()))
}
