//! `cosched adapt`: emulated runs in which a processor slows down half way; how far the learned policy falls and how fast it is back when
//! it learns online, beside itself frozen and the best baselines.

use super::{Outcome, check_policies, print_json, usage};
use cosched::agent::network::Weights;
use cosched::agent::online::Trainer;
use cosched::agent::online::learner::Settings;
use cosched::agent::online::ppo::{Ppo, Recipe};
use cosched::agent::online::state::load;
use cosched::experiments::adapt::{Adaptation, Contest, SlowDown, Spoiled, Still, adapt};
use cosched::experiments::app::App;
use cosched::experiments::compare::Setup;
use cosched::policies::learned::prepare;
use cosched::policies::online::{LIVE, arena};
use std::path::PathBuf;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// An app or case file; its plan must be there.
    app: PathBuf,
    /// A checkpoint; the shipped one when absent.
    #[arg(long)]
    checkpoint: Option<String>,
    /// The processor that slows down.
    #[arg(long, default_value = "gpu")]
    processor: String,
    /// How many times as long its launches take from the middle of the run on.
    #[arg(long, default_value_t = 3.0)]
    factor: f64,
    /// Emulated seconds of each run.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Seconds of a window in which utility is averaged.
    #[arg(long, default_value_t = 1.0)]
    window: f64,
    /// Number of seeds.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1000)]
    first_seed: u64,
    /// Baselines, separated by commas.
    #[arg(short, long, value_delimiter = ',', default_value = "edf-skip,eft,dream,static")]
    baselines: Vec<String>,
    /// Let this lesson come out with its signs turned round, and go on trial unseen, to show that the guard rolls it back.
    #[arg(long, value_name = "LESSON")]
    spoil: Option<u32>,
    /// Leave the weights as they are: only guides adapt.
    #[arg(long)]
    still: bool,
    /// Go on from this state in every run (it is not changed).
    #[arg(long)]
    learn_state: Option<PathBuf>,
    /// Print as JSON, with the utility of each window.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    check_policies(&args.baselines)?;
    if !(args.seconds > 0.0 && args.seconds <= 1e5) {
        return Err(usage("--seconds: expected a number above 0 and at most 100000"));
    }
    if args.seeds == 0 {
        return Err(usage("--seeds: expected at least 1"));
    }
    let app = App::read(&args.app)?;
    let setup = Setup { seconds: args.seconds, ..Setup::of(&app)? };
    let (weights, _) = prepare("learned", args.checkpoint.as_deref())?;
    let state = match &args.learn_state {
        Some(path) => load(path, &setup.case)?,
        None => None,
    };
    let contest = Contest {
        weights: &weights,
        baselines: &args.baselines,
        budget: LIVE,
        settings: Settings { admission: args.spoil.is_none(), ..Settings::default() },
        trainer: &|| trainer(args, &weights),
        arena: &|| arena(LIVE),
        state,
    };
    let slow_down =
        SlowDown { processor: args.processor.clone(), factor: args.factor, window_s: args.window };
    let seeds: Vec<u64> = (args.first_seed..args.first_seed + args.seeds).collect();
    let shown: Adaptation = adapt(&setup, &slow_down, &seeds, &contest)?;
    if args.json {
        return print_json(&shown);
    }
    print!("{shown}");
    for (report, seed) in shown.reports.iter().zip(&seeds) {
        report.story.iter().for_each(|line| println!("seed {seed}, {line}"));
    }
    Ok(())
}

fn trainer(args: &Args, weights: &Weights) -> Result<Box<dyn Trainer>, String> {
    let trainer: Box<dyn Trainer> = if args.still {
        Box::new(Still(weights.clone()))
    } else {
        Box::new(Ppo::new(weights, Recipe::default()).map_err(|e| format!("libtorch: {e}"))?)
    };
    Ok(match args.spoil {
        Some(left) => Box::new(Spoiled { trainer, left }),
        None => trainer,
    })
}
