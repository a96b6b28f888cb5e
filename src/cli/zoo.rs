//! `cosched zoo`: writes ONNX files of standard networks with seeded weights, so that nobody needs a download to begin.

use super::{Outcome, print_json};
use cosched::executors::zoo::{self, Options, TABLE};
use std::path::PathBuf;

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = help())]
pub struct Args {
    /// Models to write; all when none is named.
    models: Vec<String>,
    /// Folder to write to.
    #[arg(short, long, default_value = "models")]
    out: PathBuf,
    /// Seed of the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Height and width of image inputs in pixels; the network's own when absent.
    #[arg(long)]
    resolution: Option<usize>,
    /// Print the files as JSON.
    #[arg(long)]
    json: bool,
}

fn help() -> String {
    let rows = TABLE.iter().map(|r| format!("  {:18} {}\n", r.name, r.about));
    format!("Models:\n{}", rows.collect::<String>())
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    // A resolution concerns only those whose input is an image.
    let fits = |r: &&zoo::Row| args.resolution.is_none() || r.resolution > 0;
    let all = || TABLE.iter().filter(fits).map(|r| r.name.to_owned()).collect();
    let names: Vec<String> = if args.models.is_empty() { all() } else { args.models.clone() };
    for name in &names {
        super::check_zoo(name)?;
    }
    let options = Options { seed: args.seed, resolution: args.resolution };
    let mut files = Vec::new();
    for name in &names {
        let path = zoo::write(name, &options, &args.out)?;
        if !args.json {
            let size = std::fs::metadata(&path)?.len() as f64 / 1e6;
            println!("{:7.1} MB  {}", size, path.display());
        }
        files.push(path);
    }
    if args.json { print_json(&files) } else { Ok(()) }
}
