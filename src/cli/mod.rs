//! The commands, one file each, and what they share: progress bars, logging, exit codes (2 for usage, 1 for failures).

#[cfg(feature = "train")]
mod adapt;
mod bench;
mod bench_kernels;
mod bench_table;
mod compare;
mod completions;
#[cfg(feature = "train")]
mod curve;
mod demo;
mod fidelity;
mod import;
mod inspect;
mod learning;
mod load;
mod plan_table;
mod policy;
mod profile;
mod quantize;
mod replay;
mod report;
mod run;
mod serve;
mod sweep;
mod top;
#[cfg(feature = "train")]
mod train;
mod xrbench;
mod zoo;

use clap::{Parser, Subcommand};
use cosched::experiments::config::nearest;
use cosched::load::Client;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::error::Error;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// What a command gives back.
type Outcome = Result<(), Box<dyn Error>>;

/// Co-scheduler for deep-learning inference on one device with several unlike processors.
///
/// It runs several ONNX models on the CPU, GPUs and an int8 DSP shim at once; a policy, learned or not, decides which segment of
/// which request runs next on which processor. Begin with `cosched demo`.
#[derive(Parser)]
#[command(name = "cosched", version, arg_required_else_help = true)]
struct Cli {
    /// Say more (-v: what happens, -vv: why).
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run four models live under the trained policy and two baselines, and write a report.
    Demo(demo::Args),
    /// Write ONNX files of standard networks with seeded weights.
    Zoo(zoo::Args),
    /// Show a model's inputs, operators and segments, and which processor supports what.
    Inspect(inspect::Args),
    /// Write a model in int8, and report what it loses on samples.
    Quantize(quantize::Args),
    /// Measure every segment of an app's models on every processor, and write the plan.
    Profile(profile::Args),
    /// Make a plan of measurements of others: ncnn, AI Hub, ONNX Runtime.
    Import(import::Args),
    /// Train a policy in the emulated device.
    #[cfg(feature = "train")]
    Train(train::Args),
    /// Show how fast online learning is back after a processor of the emulated device slows down.
    #[cfg(feature = "train")]
    Adapt(adapt::Args),
    /// Show a trained policy's checkpoint, or export it as an ONNX file.
    Policy(policy::Args),
    /// Run an app's streams live under a policy.
    Run(run::Args),
    /// Answer requests from outside over HTTP and gRPC (Open Inference Protocol v2).
    Serve(serve::Args),
    /// Send requests to an inference server at a given rate, and report its latency.
    Load(load::Args),
    /// Watch what a server does: processors, models, the last decisions.
    Top(top::Args),
    /// Compare policies side by side in the emulated device.
    Compare(compare::Args),
    /// Run an app's streams live and emulated, and report how far the two are apart.
    Fidelity(fidelity::Args),
    /// Run many experiments from one file, and go on where a killed run stopped.
    Sweep(sweep::Args),
    /// Make a page with tables and pictures of a sweep's results.
    Report(report::Args),
    /// Score a policy on XRBench, beside the published scores.
    Xrbench(xrbench::Args),
    /// Replay a recorded run and check that every decision is the same.
    Replay(replay::Args),
    /// Measure the scheduler itself: overhead, decision latency, emulator speed.
    Bench(bench::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let level =
        ["warn", "cosched=info,cosched_executors=info,warn", "cosched=debug,cosched_executors=debug,info"];
    let quiet = "wgpu_hal=off,wgpu_core=error,naga=error,ort=error";
    let default = format!("{},{quiet}", level[usize::from(cli.verbose.min(2))]);
    let filter = EnvFilter::try_from_env("COSCHED_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .without_time()
        .init();
    let outcome = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Zoo(args) => zoo::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Import(args) => import::run(&args),
        #[cfg(feature = "train")]
        Command::Train(args) => train::run(&args),
        #[cfg(feature = "train")]
        Command::Adapt(args) => adapt::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Fidelity(args) => fidelity::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Xrbench(args) => xrbench::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Completions(args) => completions::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

fn broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The command line asked for something that cannot be: exit code 2.
#[derive(Debug)]
struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for UsageError {}

/// A wrong argument.
fn usage(problem: impl std::fmt::Display) -> Box<dyn Error> {
    Box::new(UsageError(problem.to_string()))
}

/// What is said of tokens by those who ask a server.
const TOKEN_HELP: &str =
    "A token that the server wants is taken from the environment variable COSCHED_TOKEN.";

/// Who asks the server at an address that a user gave.
fn client(address: &str, trusted: Option<&Path>) -> Result<Client, String> {
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    Ok(Client::open(&url, trusted)?.with_token(std::env::var("COSCHED_TOKEN").ok()))
}

/// A progress bar on standard error: rate, time left, and what is being done. Hidden where standard error is no terminal.
fn bar(title: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8));
    let template = "{prefix:>12} [{bar:30}] {pos}/{len} {per_sec:>9} {eta:>4} left  {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(title.to_owned());
    bar
}

/// Shows (done, of, what) on a bar.
fn show(bar: &ProgressBar) -> impl FnMut(usize, usize, &str) + '_ {
    |done, of, what| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        bar.set_message(what.to_owned());
    }
}

/// A wrong zoo model, with the nearest name.
fn check_zoo(name: &str) -> Outcome {
    let known: Vec<_> = cosched::executors::zoo::TABLE.iter().map(|r| r.name).collect();
    if known.contains(&name) {
        return Ok(());
    }
    let hint =
        nearest(name, known.iter().copied()).map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
    Err(usage(format!("the zoo has no model `{name}`{hint} (models: {})", known.join(", "))))
}

/// Prints a value as JSON on standard output.
fn print_json(value: &impl serde::Serialize) -> Outcome {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(())
}

/// Checks the specs of policies before anything costly is done.
fn check_policies(specs: &[String]) -> Outcome {
    for spec in specs {
        let name = spec.split(':').next().unwrap_or(spec);
        if !cosched::policies::TABLE.iter().any(|row| row.name == name) {
            let known: Vec<_> = cosched::policies::TABLE.iter().map(|row| row.name).collect();
            let hint = nearest(name, known.iter().copied())
                .map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
            return Err(usage(format!("unknown policy `{name}`{hint} (policies: {})", known.join(", "))));
        }
    }
    Ok(())
}

/// The policies for `--help`, made from the table.
fn policy_help() -> String {
    let width = cosched::policies::TABLE.iter().map(|r| r.name.len()).max().unwrap_or(0);
    let rows = cosched::policies::TABLE.iter().map(|r| format!("  {:width$}  {}\n", r.name, r.about));
    format!("Policies:\n{}", rows.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    /// A release build would not say so, and no command of a development build would start.
    #[test]
    fn arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
