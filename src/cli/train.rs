//! `cosched train`: trains a policy in the emulated device and writes a checkpoint, its learning curve and its scores. The whole training
//! is saved every few minutes, so that one that was killed can go on. It refuses to begin anew where a stopped one could go on.

use super::compare::maker;
use super::curve::Curve;
use super::{Outcome, bar, check_policies, print_json, usage};
use cosched::agent::checkpoint::{self, About};
use cosched::agent::features::FEATURE_VERSION;
use cosched::agent::file::write_whole;
use cosched::agent::guide::{Guides, Squad, alone};
use cosched::agent::network::Weights;
use cosched::agent::train::recipe::Recipe;
use cosched::agent::train::rollout::{Guidance, Lead, Source};
use cosched::agent::train::state::State;
use cosched::agent::train::{Start, Training};
use cosched::env::case::Case;
use cosched::env::world::Policy;
use cosched::experiments::app::App;
use cosched::experiments::compare::{Comparison, Plan, Setup, compare};
use cosched::experiments::config::read_toml;
use cosched::experiments::sweep::commit;
use cosched::policies::learned::Learned;
use cosched::policies::tournament::{Budget, scout};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
    /// Minutes between saves of the whole training, beside the checkpoint as OUT.state.
    #[arg(long, default_value_t = 5.0)]
    save_minutes: f64,
    /// Go on from OUT.state, where a training was stopped or killed.
    #[arg(long)]
    resume: bool,
    /// Print the scores as JSON.
    #[arg(long)]
    json: bool,
}

/// A train file. Paths are relative to it.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrainFile {
    /// The checkpoint to write; the curve goes beside it as CSV.
    pub out: PathBuf,
    /// App or case files to learn on; their plans must be there.
    pub cases: Vec<PathBuf>,
    /// The policy to imitate first; by default the best guide of each case.
    #[serde(default)]
    pub teacher: Option<String>,
    /// How guides are found in training.
    #[serde(default)]
    pub guides: GuideBudget,
    /// A checkpoint to start from instead of random weights.
    #[serde(default)]
    pub start: Option<PathBuf>,
    /// How to learn.
    #[serde(default)]
    pub recipe: Recipe,
    /// How to score the result.
    #[serde(default)]
    evaluation: Evaluation,
}

/// How long the heuristics of a training case play against each other for the place of a guide.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuideBudget {
    /// Emulated runs of each; 0: no guides.
    runs: u64,
    /// Emulated runs of the search behind `static`, and of each attempt at a restraint; 0: neither plays.
    placement_runs: usize,
    /// Attempts at a restraint.
    attempts: usize,
}

impl Default for GuideBudget {
    fn default() -> Self {
        Self { runs: 2, placement_runs: 60, attempts: 1 }
    }
}

impl GuideBudget {
    pub fn scout(self) -> impl Fn(&Case) -> Squad + Sync {
        let GuideBudget { runs, placement_runs, attempts } = self;
        let budget = Budget { runs, requests: 300.0, placement_runs, attempts };
        move |case: &Case| if runs == 0 { alone(case) } else { scout(case, &budget) }
    }

    /// How the state of a training calls its teacher and its guides.
    fn words(self, teacher: Option<&str>) -> String {
        let teacher = teacher.unwrap_or("guide");
        let GuideBudget { runs, placement_runs, attempts } = self;
        format!("{teacher}, guides of {runs} runs, {placement_runs} placements and {attempts} attempts")
    }
}

/// How a trained policy is scored: on the cases as they are, with seeds that training never uses.
#[derive(Deserialize, Serialize)]
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
    let setups = setups(&file, &args.file)?;
    file.recipe.check()?;
    let every = Duration::try_from_secs_f64(args.save_minutes * 60.0)
        .map_err(|e| usage(format!("--save-minutes {}: {e}", args.save_minutes)))?;
    let files = Files::open(&file, args, &out, &sources(&setups))?;
    let Trained { weights, decisions, state } = learn(&file, &setups, start.as_ref(), files, every)?;
    let mut policies = super::compare::all_policies();
    policies.retain(|p| p != "learned");
    policies.push(TRAINED.to_owned());
    let comparisons = score(&file, &setups, &weights, policies)?;
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
    match &state {
        Some(path) => eprintln!("stopped; `--resume` goes on from {}", path.display()),
        None => remove(&state_of(&out))?,
    }
    if args.json {
        return print_json(&comparisons);
    }
    for ((name, _), comparison) in setups.iter().zip(&comparisons) {
        println!("{name}, seeds that training never used:\n{comparison}");
    }
    println!("checkpoint written to {}", out.display());
    Ok(())
}

/// Where the whole training is saved.
fn state_of(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".state");
    PathBuf::from(name)
}

fn remove(path: &Path) -> Outcome {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {e}", path.display()).into()),
        _ => Ok(()),
    }
}

/// What a training writes while it runs, and what it goes on from.
struct Files {
    curve: Curve,
    path: PathBuf,
    state: Option<State>,
}

impl Files {
    /// A training takes minutes: what cannot be read or written, or does not belong to it, is found out now.
    fn open(file: &TrainFile, args: &Args, out: &Path, sources: &[Source]) -> Result<Files, Box<dyn Error>> {
        let (path, curve) = (state_of(out), out.with_extension("csv"));
        if !args.resume {
            if path.exists() {
                return Err(usage(format!(
                    "{}: a training was stopped here; go on with --resume, or delete the file to begin anew",
                    path.display()
                )));
            }
            return Ok(Files { curve: Curve::create(&curve)?, path, state: None });
        }
        let name = path.display().to_string();
        let bytes =
            std::fs::read(&path).map_err(|e| format!("{name}: {e}: there is nothing to go on from"))?;
        let state = State::from_bytes(&name, &bytes)?;
        state
            .check(&file.recipe, sources, Some(&file.guides.words(file.teacher.as_deref())))
            .map_err(|e| format!("{name}: {e}"))?;
        let curve = Curve::resume(&curve, state.account.decisions)?;
        Ok(Files { curve, path, state: Some(state) })
    }
}

pub fn sources(setups: &[(String, Setup)]) -> Vec<Source> {
    let source = |(name, setup): &(String, Setup)| Source {
        name: name.clone(),
        plan: setup.case.plan.clone(),
        device: setup.case.device.clone(),
        scenario: setup.case.scenario.clone(),
        emulator: setup.emulator.clone(),
        options: setup.options,
    };
    setups.iter().map(source).collect()
}

/// What came of a training.
struct Trained {
    weights: Weights,
    /// Decisions learned from.
    decisions: u64,
    /// Where its state is, if it was stopped before its end.
    state: Option<PathBuf>,
}

/// Saves the training every now and then.
struct Saver<'a> {
    path: &'a Path,
    teacher: &'a str,
    every: Duration,
    saved: Instant,
    /// When this run began, and the seconds of those before it.
    begun: Instant,
    before: f64,
}

impl Saver<'_> {
    fn seconds(&self) -> f64 {
        self.before + self.begun.elapsed().as_secs_f64()
    }

    fn save(&self, training: &Training<'_>) -> Outcome {
        let mut state = training.state();
        state.account.seconds = self.seconds();
        state.account.teacher = Some(self.teacher.to_owned());
        let problem = |e| format!("{}: {e}", self.path.display());
        Ok(write_whole(self.path, &state.to_bytes()?).map_err(problem)?)
    }

    fn save_when_due(&mut self, training: &Training<'_>, progress: &ProgressBar) {
        if self.saved.elapsed() < self.every {
            return;
        }
        self.saved = Instant::now();
        // A full disk must not cost the training.
        if let Err(e) = self.save(training) {
            progress.suspend(|| eprintln!("warning: the training could not be saved: {e}"));
        }
    }
}

/// Makes the teacher that the file names, which was checked.
pub fn teacher(file: &TrainFile) -> impl Fn(&Case) -> Box<dyn Policy> + Sync + use<> {
    let spec = file.teacher.clone();
    move |case: &Case| {
        let spec = spec.as_deref().unwrap_or("edf");
        cosched::policies::make(spec, case)
            .expect("the teacher's name was checked and takes no parameter that can fail")
    }
}

pub fn guidance<'a>(
    file: &TrainFile,
    scout: &'a (dyn Fn(&Case) -> Squad + Sync + 'static),
    teacher: &'a (dyn Fn(&Case) -> Box<dyn Policy> + Sync + 'static),
) -> Guidance<'a> {
    let lead = if file.teacher.is_some() { Lead::Teacher(teacher) } else { Lead::Guide };
    Guidance { scout, lead }
}

/// The cases of the train file at `path`, with their names.
pub fn setups(file: &TrainFile, path: &Path) -> Result<Vec<(String, Setup)>, Box<dyn Error>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut setups = Vec::new();
    for case in &file.cases {
        let app = App::read(&folder.join(case))?;
        let setup = Setup { seconds: file.evaluation.seconds, ..Setup::of(&app)? };
        setups.push((app.name, setup));
    }
    if setups.is_empty() {
        return Err(format!("{}: cases: expected at least one", path.display()).into());
    }
    Ok(setups)
}

/// Trains; ctrl-c ends the training early and keeps what was learned.
fn learn(
    file: &TrainFile,
    setups: &[(String, Setup)],
    start: Option<&Weights>,
    mut files: Files,
    every: Duration,
) -> Result<Trained, Box<dyn Error>> {
    for (_, setup) in setups {
        if let Some(spec) = &file.teacher {
            maker(spec, &setup.case)?;
        }
    }
    let teacher = teacher(file);
    let scout = file.guides.scout();
    let guidance = guidance(file, &scout, &teacher);
    let stop = Arc::new(AtomicBool::new(false));
    let heard = stop.clone();
    ctrlc::set_handler(move || heard.store(true, Ordering::Relaxed))?;
    let sources = sources(setups);
    let start = match &files.state {
        Some(state) => Start::State(state),
        None => start.map_or(Start::Scratch, Start::Weights),
    };
    let mut training = Training::new(&sources, &file.recipe, guidance, start)?;
    let now = Instant::now();
    let words = file.guides.words(file.teacher.as_deref());
    let done = files.state.as_ref().map(|s| &s.account);
    let (mut decisions, before) = done.map_or((0, 0.0), |a| (a.decisions, a.seconds));
    let mut saver = Saver { path: &files.path, teacher: &words, every, saved: now, begun: now, before };
    let progress = bar("training");
    progress.set_position(decisions);
    // The time left is guessed from this run's speed.
    progress.reset_eta();
    let mut utility = f64::NAN;
    while let Some(p) = training.step()? {
        files.curve.add(saver.seconds(), &p);
        decisions = p.decisions;
        utility = if p.utility.is_nan() { utility } else { p.utility };
        progress.set_length(p.total);
        progress.set_position(p.decisions);
        progress.set_message(format!("utility {utility:.4}"));
        if stop.load(Ordering::Relaxed) {
            saver.save(&training)?;
            progress.finish_and_clear();
            let weights = training.weights().clone();
            return Ok(Trained { weights, decisions, state: Some(files.path) });
        }
        saver.save_when_due(&training, &progress);
    }
    progress.finish_and_clear();
    Ok(Trained { weights: training.weights().clone(), decisions, state: None })
}

/// How the new policy is called in its own comparison.
pub const TRAINED: &str = "learned:(this training)";

pub fn score(
    file: &TrainFile,
    setups: &[(String, Setup)],
    weights: &Weights,
    policies: Vec<String>,
) -> Result<Vec<Comparison>, Box<dyn std::error::Error>> {
    let make = |spec: &str, case: &Case| -> Result<Box<dyn Policy>, String> {
        if spec != TRAINED {
            return maker(spec, case);
        }
        if file.guides.runs == 0 {
            return Ok(Box::new(Learned::new(weights, Guides::default(), 0.0)));
        }
        Ok(Box::new(Learned::on(weights, case, &Budget::default())))
    };
    let e = &file.evaluation;
    let seeds: Vec<u64> = (e.first_seed..e.first_seed + e.seeds).collect();
    let plan = Plan { policies: &policies, seeds: &seeds, reference: None, threads: 0 };
    let mut comparisons = Vec::new();
    for (_, setup) in setups {
        comparisons.push(compare(setup, &plan, &make, &|_, _| {})?);
    }
    Ok(comparisons)
}
