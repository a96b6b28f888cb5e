//! `cosched adapt`: emulated runs in which a processor slows down half way; how far the learned policy falls and how fast it is back when
//! it learns online, beside itself frozen and the best baselines.

use super::profile::write_plan;
use super::{Outcome, check_policies, print_json, usage};
use cosched::agent::network::Weights;
use cosched::agent::online::Trainer;
use cosched::agent::online::guard::Rules;
use cosched::agent::online::learner::Settings;
use cosched::agent::online::ppo::{Ppo, live};
use cosched::agent::online::state::load;
use cosched::experiments::adapt::{Adaptation, Contest, Pupil, SlowDown, Spoiled, Still, adapt, slowed_plan};
use cosched::experiments::app::App;
use cosched::experiments::compare::Setup;
use cosched::policies::learned::prepare;
use cosched::policies::online::{LIVE, arena};
use std::path::PathBuf;

/// The processor that slows down when none is said, here and in sweeps; the same goes for what follows.
pub(super) const PROCESSOR: &str = "gpu";
/// How many times as long its launches take.
pub(super) const FACTOR: f64 = 3.0;
/// Emulated seconds of a run.
pub(super) const SECONDS: f64 = 60.0;
/// Seconds of a window.
pub(super) const WINDOW_S: f64 = 1.0;
/// Baselines, separated by commas.
pub(super) const BASELINES: &str = "edf-skip,eft,dream,static";

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// An app or case file; its plan must be there.
    app: PathBuf,
    /// A checkpoint; the shipped one when absent.
    #[arg(long)]
    checkpoint: Option<String>,
    /// The processor that slows down.
    #[arg(long, default_value = PROCESSOR)]
    processor: String,
    /// How many times as long its launches take from the middle of the run on.
    #[arg(long, default_value_t = FACTOR)]
    factor: f64,
    /// Emulated seconds of each run.
    #[arg(long, default_value_t = SECONDS)]
    seconds: f64,
    /// Seconds of a window in which utility is averaged.
    #[arg(long, default_value_t = WINDOW_S)]
    window: f64,
    /// Number of seeds.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1000)]
    first_seed: u64,
    /// Baselines, separated by commas.
    #[arg(short, long, value_delimiter = ',', default_value = BASELINES)]
    baselines: Vec<String>,
    /// A checkpoint that was trained on the slowed device, to compare with.
    #[arg(long)]
    retrained: Option<String>,
    /// Write the plan of the slowed device to this file, to train on it, and run nothing.
    #[arg(long, value_name = "FILE")]
    write_plan: Option<PathBuf>,
    /// Let this lesson come out with its signs turned round, to show what the guard does: what is seen in the emulator is refused, what
    /// goes on trial unseen is rolled back.
    #[arg(long, value_name = "LESSON", value_parser = clap::value_parser!(u32).range(1..))]
    spoil: Option<u32>,
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
    let slow_down =
        SlowDown { processor: args.processor.clone(), factor: args.factor, window_s: args.window };
    if let Some(path) = &args.write_plan {
        return write_plan(&slowed_plan(&setup, &slow_down)?, path);
    }
    let retrained = match &args.retrained {
        Some(path) => Some(prepare("learned", Some(path))?.0),
        None => None,
    };
    let contest = Contest {
        weights: &weights,
        retrained: retrained.as_ref(),
        pupils: &pupils(&weights, args.spoil),
        baselines: &args.baselines,
        budget: LIVE,
        arena: &|| arena(LIVE, LIVE),
        state,
    };
    let seeds: Vec<u64> = (args.first_seed..args.first_seed + args.seeds).collect();
    let shown: Adaptation = adapt(&setup, &slow_down, &seeds, &contest)?;
    if args.json {
        return print_json(&shown);
    }
    print!("{shown}");
    for line in &shown.lines {
        for (report, seed) in line.reports.iter().zip(&seeds) {
            report.story.iter().for_each(|told| println!("{}, seed {seed}, {told}", line.name));
        }
    }
    Ok(())
}

/// Who learns: with the weights and without them; with a spoiled lesson behind the whole guard, behind half of it, and without one.
pub(super) fn pupils(weights: &Weights, spoil: Option<u32>) -> Vec<Pupil<'_>> {
    let ppo = || -> Result<Box<dyn Trainer>, String> { Ok(Box::new(Ppo::new(weights, live()))) };
    let online = Pupil { name: "online", settings: Settings::default(), trainer: Box::new(ppo) };
    let Some(left) = spoil else {
        let still = || -> Result<Box<dyn Trainer>, String> { Ok(Box::new(Still(weights.clone()))) };
        let profile =
            Pupil { name: "online, profile only", settings: Settings::default(), trainer: Box::new(still) };
        return vec![online, profile];
    };
    let spoiled = |name, settings| {
        let trainer =
            move || -> Result<Box<dyn Trainer>, String> { Ok(Box::new(Spoiled { trainer: ppo()?, left })) };
        Pupil { name, settings, trainer: Box::new(trainer) }
    };
    // The network is heard whatever it is worth: behind a guide that decides alone nothing could be spoiled.
    let heard = Settings { margins: vec![0.0], ..Settings::default() };
    let unseen = Settings { admission: false, ..heard.clone() };
    let never = Rules { crash: f64::INFINITY, tolerance: f64::INFINITY, ..Rules::default() };
    vec![
        Pupil { settings: heard.clone(), ..online },
        spoiled("spoiled", heard),
        spoiled("spoiled, unseen", unseen.clone()),
        spoiled("spoiled, no guard", Settings { rules: never, ..unseen }),
    ]
}
