//! `cosched inspect`: what is in a model, how it is cut, and which processor supports which segment.

use super::{Outcome, print_json};
use cosched::executors::graph::Graph;
use cosched::executors::inspect::inspect;
use cosched::executors::processor::{Options, TABLE};
use cosched::executors::segment::CutOptions;
use cosched::executors::{onnx, zoo};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// An ONNX file, or zoo:NAME.
    model: PathBuf,
    /// Most segments.
    #[arg(long, default_value_t = CutOptions::default().max_segments)]
    max_segments: usize,
    /// Least share of the work that a segment holds, 0 to 1.
    #[arg(long, default_value_t = CutOptions::default().min_share)]
    min_share: f64,
    /// Extent of a symbolic dimension, as NAME=N; may be given several times.
    #[arg(long = "dim", value_parser = dimension)]
    dims: Vec<(String, usize)>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// NAME=N as a name and an extent.
pub(super) fn dimension(text: &str) -> Result<(String, usize), String> {
    let (name, n) = text.split_once('=').ok_or("expected NAME=N, e.g. batch=1")?;
    let n = n.parse().map_err(|_| format!("`{n}` is not a whole number"))?;
    Ok((name.to_owned(), n))
}

/// The graph of an ONNX file, or of zoo:NAME.
pub(super) fn load(model: &Path, dims: &[(String, usize)]) -> Result<Graph, Box<dyn std::error::Error>> {
    let dims: BTreeMap<_, _> = dims.iter().cloned().collect();
    Ok(match model.to_str().and_then(|m| m.strip_prefix("zoo:")) {
        Some(name) => {
            super::check_zoo(name)?;
            onnx::from_bytes(name, &zoo::bytes(name, &zoo::Options::default())?, &dims)?
        }
        None => onnx::load(model, &dims)?,
    })
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    if args.max_segments == 0 || !(0.0..=1.0).contains(&args.min_share) {
        return Err(super::usage("--max-segments must be at least 1 and --min-share between 0 and 1"));
    }
    let graph = load(&args.model, &args.dims)?;
    let mut processors = Vec::new();
    for row in TABLE {
        match (row.open)(&Options::default()) {
            Ok(processor) => processors.push(processor),
            Err(error) => eprintln!("note: {error}"),
        }
    }
    let options = CutOptions { max_segments: args.max_segments, min_share: args.min_share };
    let report = inspect(&graph, &processors, &options);
    if args.json {
        return print_json(&report);
    }
    use std::io::Write;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}
