//! `cosched train`: trains a policy in the emulated device and writes a checkpoint, its learning curve and its scores.

use super::compare::maker;
use super::{Outcome, bar, check_policies, print_json};
use cosched::agent::checkpoint::{self, About};
use cosched::agent::features::FEATURE_VERSION;
use cosched::agent::guide::{Guides, Squad, alone};
use cosched::agent::network::Weights;
use cosched::agent::train::recipe::Recipe;
use cosched::agent::train::rollout::{Lead, Source};
use cosched::agent::train::{Progress, train};
use cosched::env::case::Case;
use cosched::env::world::Policy;
use cosched::experiments::app::App;
use cosched::experiments::compare::{Comparison, Plan, Setup, compare};
use cosched::experiments::config::read_toml;
use cosched::experiments::sweep::commit;
use cosched::policies::learned::Learned;
use cosched::policies::tournament::{Budget, scout};
use serde::Deserialize;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// The train file.
    file: PathBuf,
    /// Seed instead of the file's.
    #[arg(long)]
    seed: Option<u64>,
    /// Decisions to learn from instead of the file's.
    #[arg(long)]
    decisions: Option<u64>,
    /// Checkpoint to write instead of the file's.
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Print the scores as JSON.
    #[arg(long)]
    json: bool,
}

/// A train file. Paths are relative to it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainFile {
    /// The checkpoint to write; the curve goes beside it as CSV.
    out: PathBuf,
    /// App or case files to learn on; their plans must be there.
    cases: Vec<PathBuf>,
    /// The policy to imitate first; by default the best guide of each case.
    #[serde(default)]
    teacher: Option<String>,
    /// How guides are found in training.
    #[serde(default)]
    guides: GuideBudget,
    /// A checkpoint to start from instead of random weights.
    #[serde(default)]
    start: Option<PathBuf>,
    /// How to learn.
    #[serde(default)]
    recipe: Recipe,
    /// How to score the result.
    #[serde(default)]
    evaluation: Evaluation,
}

/// How long the heuristics of a training case play against each other for the place of a guide.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GuideBudget {
    /// Emulated runs of each; 0: no guides.
    runs: u64,
    /// Emulated runs of the search behind `static`; 0: it does not play.
    placement_runs: usize,
}

impl Default for GuideBudget {
    fn default() -> Self {
        Self { runs: 2, placement_runs: 60 }
    }
}

/// How a trained policy is scored: on the cases as they are, with seeds that training never uses.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Evaluation {
    seeds: u64,
    first_seed: u64,
    seconds: f64,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self { seeds: 5, first_seed: 1000, seconds: 20.0 }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    let mut file: TrainFile = read_toml(&args.file)?;
    check_policies(file.teacher.as_slice())?;
    let folder = args.file.parent().unwrap_or(Path::new(""));
    let start = match &file.start {
        Some(path) => Some(checkpoint::load(&folder.join(path))?.0),
        None => None,
    };
    file.recipe.seed = args.seed.unwrap_or(file.recipe.seed);
    file.recipe.decisions = args.decisions.unwrap_or(file.recipe.decisions);
    let out = args.out.clone().unwrap_or_else(|| folder.join(&file.out));
    let mut setups = Vec::new();
    for path in &file.cases {
        let app = App::read(&folder.join(path))?;
        let setup = Setup { seconds: file.evaluation.seconds, ..Setup::of(&app)? };
        setups.push((app.name, setup));
    }
    if setups.is_empty() {
        return Err(format!("{}: cases: expected at least one", args.file.display()).into());
    }
    // A training takes minutes: what cannot be written is found out now.
    let curve = out.with_extension("csv");
    let curve = File::create(&curve).map_err(|e| format!("{}: {e}", curve.display()))?;
    let (weights, decisions) = learn(&file, &setups, start.as_ref(), curve)?;
    let comparisons = score(&file, &setups, &weights)?;
    let own =
        |c: &Comparison| c.rows.iter().find(|r| r.policy == TRAINED).map_or(f64::NAN, |r| r.utility.mean);
    let about = About {
        feature_version: FEATURE_VERSION,
        hidden: file.recipe.hidden,
        scenarios: setups.iter().map(|(name, _)| name.clone()).collect(),
        seed: file.recipe.seed,
        commit: commit(),
        command: format!("cosched train {} --seed {}", args.file.display(), file.recipe.seed),
        decisions,
        scores: setups.iter().zip(&comparisons).map(|((name, _), c)| (name.clone(), own(c))).collect(),
    };
    checkpoint::save(&out, &weights, &about)?;
    if args.json {
        return print_json(&comparisons);
    }
    for ((name, _), comparison) in setups.iter().zip(&comparisons) {
        println!("{name}, seeds that training never used:\n{comparison}");
    }
    println!("checkpoint written to {}", out.display());
    Ok(())
}

/// Trains; ctrl-c ends the training early and keeps what was learned. Gives the weights and the decisions learned from.
fn learn(
    file: &TrainFile,
    setups: &[(String, Setup)],
    start: Option<&Weights>,
    mut curve: File,
) -> Result<(Weights, u64), Box<dyn std::error::Error>> {
    let sources: Vec<Source> = setups
        .iter()
        .map(|(name, setup)| Source {
            name: name.clone(),
            plan: setup.case.plan.clone(),
            device: setup.case.device.clone(),
            scenario: setup.case.scenario.clone(),
            emulator: setup.emulator.clone(),
            options: setup.options,
        })
        .collect();
    let spec = file.teacher.clone();
    let teacher = move |case: &Case| -> Box<dyn Policy> {
        let spec = spec.as_deref().unwrap_or("edf");
        cosched::policies::make(spec, case)
            .expect("the teacher's name was checked and takes no parameter that can fail")
    };
    for (_, setup) in setups {
        if let Some(spec) = &file.teacher {
            maker(spec, &setup.case)?;
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let heard = stop.clone();
    ctrlc::set_handler(move || heard.store(true, Ordering::Relaxed))?;
    let progress = bar("training");
    writeln!(curve, "decisions,imitating,utility,policy_loss,value_loss,entropy,divergence")?;
    let mut decisions = 0;
    let watch = |p: &Progress, _: &Weights| {
        decisions = p.decisions;
        let l = &p.losses;
        // A full disk must not cost the training.
        let _ = writeln!(
            curve,
            "{},{},{:.5},{:.6},{:.6},{:.5},{:.6}",
            p.decisions, p.imitating, p.utility, l.policy, l.value, l.entropy, l.divergence
        );
        progress.set_length(p.total);
        progress.set_position(p.decisions);
        progress.set_message(format!("utility {:.4}, entropy {:.3}", p.utility, l.entropy));
        !stop.load(Ordering::Relaxed)
    };
    let lead = if file.teacher.is_some() { Lead::Teacher(&teacher) } else { Lead::Guide };
    let weights = train(&sources, &file.recipe, &file.guides.scout(), lead, start, watch)?;
    progress.finish_and_clear();
    Ok((weights, decisions))
}

impl GuideBudget {
    fn scout(self) -> impl Fn(&Case) -> Squad + Sync {
        let budget = Budget { runs: self.runs, requests: 300.0, placement_runs: self.placement_runs };
        move |case: &Case| if budget.runs == 0 { alone(case) } else { scout(case, &budget) }
    }
}

/// How the new policy is called in its own comparison.
const TRAINED: &str = "learned:(this training)";

fn score(
    file: &TrainFile,
    setups: &[(String, Setup)],
    weights: &Weights,
) -> Result<Vec<Comparison>, Box<dyn std::error::Error>> {
    let make = |spec: &str, case: &Case| -> Result<Box<dyn Policy>, String> {
        if spec != TRAINED {
            return maker(spec, case);
        }
        if file.guides.runs == 0 {
            return Ok(Box::new(Learned::new(weights, Guides::default(), 0.0)));
        }
        Ok(Box::new(Learned::on(weights, case)))
    };
    let mut policies = super::compare::all_policies();
    policies.retain(|p| p != "learned");
    policies.push(TRAINED.to_owned());
    let e = &file.evaluation;
    let seeds: Vec<u64> = (e.first_seed..e.first_seed + e.seeds).collect();
    let plan = Plan { policies: &policies, seeds: &seeds, reference: None, threads: 0 };
    let mut comparisons = Vec::new();
    for (_, setup) in setups {
        comparisons.push(compare(setup, &plan, &make, &|_, _| {})?);
    }
    Ok(comparisons)
}
