//! `cosched quantize`: writes a model in int8 (QDQ form) and says what it loses on samples.

use super::{Outcome, print_json, usage};
use cosched::agent::file::write_whole;
use cosched::executors::deploy::sample_inputs;
use cosched::executors::dsp::calibrate::Method;
use cosched::executors::dsp::loss::{Loss, losses};
use cosched::executors::dsp::model::{Calibrated, Left};
use cosched::executors::dsp::numbers::{limit_of_bits, weight_bits};
use cosched::executors::graph::Graph;
use cosched::executors::tensor::Tensor;
use cosched::executors::{onnx, samples};
use cosched::experiments::table::table;
use serde::Serialize;
use std::path::PathBuf;

/// Samples that are made where the user has none.
const RANDOM: u64 = 16;
/// From so many samples on, every fourth is held out of calibration.
const ENOUGH: usize = 8;

/// Inputs of a model, each in the order of its inputs.
type Samples = Vec<Vec<Tensor>>;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// An ONNX file, or zoo:NAME.
    model: PathBuf,
    /// Example inputs: an .npz with an array [samples, ...] for each input by its name, an .npy for a model with one input, or a folder of
    /// such files; random numbers when absent.
    #[arg(long)]
    samples: Option<PathBuf>,
    /// Most samples, spread evenly over those that are there.
    #[arg(long, default_value_t = 256)]
    limit: usize,
    /// How ranges are chosen: min-max, percentile or entropy.
    #[arg(long, default_value = "min-max")]
    method: String,
    /// For the method percentile: how many percent of all numbers the range holds [default: 99.99]
    #[arg(long)]
    percentile: Option<f64>,
    /// Report what every method would lose, not only the one that is written.
    #[arg(long)]
    compare: bool,
    /// Bits of the weights, 7 or 8; as this machine multiplies exactly when absent (7 on x86 processors without VNNI).
    #[arg(long)]
    weight_bits: Option<u32>,
    /// Extent of a symbolic dimension, as NAME=N; may be given several times.
    #[arg(long = "dim", value_parser = super::inspect::dimension)]
    dims: Vec<(String, usize)>,
    /// The ONNX file to write; nothing is written when absent.
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// What was done.
#[derive(Serialize)]
struct Report {
    model: String,
    /// Where the samples come from.
    samples: String,
    /// How many calibrated, and on how many the losses were measured.
    calibrated_on: usize,
    measured_on: usize,
    /// Whether the latter were unknown to calibration.
    held_out: bool,
    method: String,
    weight_bits: u32,
    nodes: usize,
    int8_nodes: usize,
    left_f32: Vec<Left>,
    bytes_before: usize,
    bytes_after: usize,
    written: Option<PathBuf>,
    losses: Vec<OfMethod>,
}

/// The losses of one method, an entry an output.
#[derive(Serialize)]
struct OfMethod {
    method: String,
    outputs: Vec<Loss>,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    let method = Method::named(&args.method, args.percentile).map_err(|e| usage(format!("--method: {e}")))?;
    let bits = args.weight_bits.unwrap_or(weight_bits());
    let limit = limit_of_bits(bits).map_err(|e| usage(format!("--weight-bits: {e}")))?;
    if args.limit == 0 {
        return Err(usage("--limit must be at least 1"));
    }
    let graph = super::inspect::load(&args.model, &args.dims)?;
    let (all, source) = example_inputs(args, &graph)?;
    let (calibrating, judging, held_out) = hold_out(all);
    let calibrated = Calibrated::new(&graph, &calibrating)?;
    let mut methods = vec![method];
    if args.compare {
        let other = |m: &Method| std::mem::discriminant(m) != std::mem::discriminant(&method);
        methods.extend(Method::ALL.into_iter().filter(other));
    }
    let forms = methods.iter().map(|m| calibrated.quantise(*m, limit)).collect::<Result<Vec<_>, _>>()?;
    let lost = losses(&graph, &forms.iter().collect::<Vec<_>>(), &judging)?;
    let (before, after) = (onnx::to_onnx(&graph), onnx::to_onnx(&forms[0]));
    if let Some(out) = &args.out {
        write_whole(out, &after).map_err(|e| format!("{}: {e}", out.display()))?;
    }
    let (nodes, int8_nodes) = calibrated.nodes();
    let named = |(m, outputs): (&Method, Vec<Loss>)| OfMethod { method: m.to_string(), outputs };
    let report = Report {
        model: graph.name.clone(),
        samples: source,
        calibrated_on: calibrating.len(),
        measured_on: judging.len(),
        held_out,
        method: method.to_string(),
        weight_bits: bits,
        nodes,
        int8_nodes,
        left_f32: calibrated.left(),
        bytes_before: before.len(),
        bytes_after: after.len(),
        written: args.out.clone(),
        losses: methods.iter().zip(lost).map(named).collect(),
    };
    if args.json { print_json(&report) } else { print(&report) }
}

/// The samples, and where they come from in words.
fn example_inputs(args: &Args, graph: &Graph) -> Result<(Samples, String), Box<dyn std::error::Error>> {
    match &args.samples {
        Some(path) => Ok((samples::read(path, graph, args.limit)?, path.display().to_string())),
        None => {
            eprintln!(
                "note: no --samples: ranges and losses are those of random inputs (standard normal), not those of your data"
            );
            let random = RANDOM.min(args.limit as u64);
            Ok((
                (0..random).map(|i| sample_inputs(graph, i)).collect(),
                "random (standard normal)".to_owned(),
            ))
        }
    }
}

/// Those that calibrate, those that the losses are measured on, and whether the latter are others than the former.
fn hold_out(all: Samples) -> (Samples, Samples, bool) {
    if all.len() < ENOUGH {
        return (all.clone(), all, false);
    }
    let (mut calibrating, mut judging) = (Vec::new(), Vec::new());
    for (i, sample) in all.into_iter().enumerate() {
        if i % 4 == 3 { &mut judging } else { &mut calibrating }.push(sample);
    }
    (calibrating, judging, true)
}

fn print(report: &Report) -> Outcome {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    writeln!(
        out,
        "{}: {} of {} nodes in int8 (u8 activations, s8 weights of {} bits), {:.2} MB instead of {:.2} MB",
        report.model,
        report.int8_nodes,
        report.nodes,
        report.weight_bits,
        megabytes(report.bytes_after),
        megabytes(report.bytes_before)
    )?;
    for Left { op, nodes, reason } in &report.left_f32 {
        writeln!(out, "  stays f32: {nodes} {op} ({reason})")?;
    }
    let on = if report.held_out { "others" } else { "the same: too few to hold any out" };
    writeln!(
        out,
        "samples: {}; {} calibrated, losses on {} ({on})",
        report.samples, report.calibrated_on, report.measured_on
    )?;
    let row = |method: &str, loss: &Loss| {
        vec![
            method.to_owned(),
            loss.output.clone(),
            loss.sqnr_db.map_or("exact".into(), |db| format!("{db:.1}")),
            format!("{:.3e}", loss.largest),
            format!("{:.3e}", loss.mean),
            format!("{:.5}", loss.cosine),
            loss.top1.map_or("-".into(), |[same, of]| format!("{same}/{of}")),
        ]
    };
    let rows = report.losses.iter().flat_map(|l| l.outputs.iter().map(|o| row(&l.method, o))).collect();
    let header = ["method", "output", "SQNR dB", "largest", "mean", "cosine", "same top-1"];
    writeln!(out, "{}", table(&header, 2, rows))?;
    match &report.written {
        Some(path) => writeln!(out, "{} written to {}", report.method, path.display())?,
        None => writeln!(out, "nothing written: say where with --out")?,
    }
    Ok(())
}
