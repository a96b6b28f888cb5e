//! `cosched policy`: what a checkpoint says about itself, and its network as an ONNX file. It refuses to train and to run it.

use super::{Outcome, print_json};
use clap::Subcommand;
use cosched::agent::checkpoint::{self, About};
use cosched::agent::features::FEATURE_VERSION;
use cosched::agent::file::write_whole;
use cosched::agent::network::layers;
use cosched::executors::bare::BareError;
use cosched::export;
use cosched::policies::learned::SHIPPED;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Subcommand)]
enum Deed {
    /// Print what a checkpoint says about itself.
    Show {
        /// The checkpoint; `shipped` is the one in this program.
        checkpoint: PathBuf,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write a checkpoint's network as an ONNX file, and compare the two in onnxruntime.
    Export {
        /// The checkpoint; `shipped` is the one in this program.
        checkpoint: PathBuf,
        /// The file to write.
        #[arg(short, long, default_value = "policy.onnx")]
        out: PathBuf,
    },
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    match &args.deed {
        Deed::Show { checkpoint, json } => {
            let (name, bytes) = read(checkpoint)?;
            let about = checkpoint::about(&name, &bytes)?;
            if *json {
                return print_json(&about);
            }
            print!("{}", words(&about));
            Ok(())
        }
        Deed::Export { checkpoint, out } => {
            let (name, bytes) = read(checkpoint)?;
            let (weights, about) = checkpoint::from_bytes(&name, &bytes)?;
            let onnx = export::to_onnx(&weights, &about);
            write_whole(out, &onnx).map_err(|e| format!("{}: {e}", out.display()))?;
            match export::check(&onnx, &weights) {
                Ok(n) => println!("{}: the same choices in onnxruntime on {n} observations", out.display()),
                Err(BareError::Absent(e)) => {
                    eprintln!("note: not compared with the checkpoint: {e}");
                    println!("{}", out.display());
                }
                Err(e) => return Err(format!("{}: not as the checkpoint: {e}", out.display()).into()),
            }
            Ok(())
        }
    }
}

/// Name for messages, and bytes.
fn read(path: &Path) -> Result<(String, Vec<u8>), String> {
    if path == Path::new("shipped") && !path.exists() {
        return Ok(("(shipped)".to_owned(), SHIPPED.to_vec()));
    }
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| format!("checkpoint {name}: {e}"))?;
    Ok((name, bytes))
}

/// The checkpoint in plain words, a line a fact.
fn words(about: &About) -> String {
    let weights: usize =
        layers(about.hidden).iter().map(|(_, i, o, bias)| i * o + if *bias { *o } else { 0 }).sum();
    let fit = match about.feature_version {
        FEATURE_VERSION => "that of this build".to_owned(),
        _ => format!("this build has {FEATURE_VERSION} and refuses it; train it again"),
    };
    let size = match about.feature_version {
        FEATURE_VERSION => format!(", {weights} weights"),
        _ => String::new(),
    };
    let mut lines = vec![
        ("feature version", format!("{} ({fit})", about.feature_version)),
        ("network", format!("hidden width {}{size}", about.hidden)),
        ("trained on", about.scenarios.join(", ")),
        ("learned from", format!("{} decisions", about.decisions)),
        ("seed", about.seed.to_string()),
        ("commit", about.commit.clone()),
        ("made by", about.command.clone()),
    ];
    let score = |(name, utility): &(String, f64)| ("utility", format!("{utility:.4} per request in {name}"));
    lines.extend(about.scores.iter().map(score));
    lines.iter().map(|(what, text)| format!("{what:16} {text}\n")).collect()
}
