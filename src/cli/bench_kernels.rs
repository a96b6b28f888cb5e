//! `cosched bench kernels`: the zoo's networks on every processor that computes in f32, and on plain onnxruntime, in alternating order.
//! It refuses int8 (the dsp), whose answers are others.

use super::{Outcome, print_json};
use cosched::executors::measure::{Contest, PLAIN, Timed};
use cosched::executors::processor::{self, ExecError, Options, Processor, StepTime, Storage};
use cosched::executors::{onnx, zoo};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The networks that are timed when none are named.
const NETWORKS: &[&str] = &[
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "efficientnet_b0",
    "shufflenet_v2",
    "unet",
    "vit_tiny",
    "bert_mini",
];

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Zoo models; the nine of the published table when absent.
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,
    /// Processors.
    #[arg(long, value_delimiter = ',', default_value = "cpu,wgpu,opencl")]
    processors: Vec<String>,
    /// Rounds in which every engine runs once.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Seconds for each network, after which no further round begins.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Run each network on each processor in so many segments too, beside the whole: what cutting costs.
    #[arg(long, default_value_t = 1)]
    segments: usize,
    /// Show so many of the slowest steps of each network on each GPU processor.
    #[arg(long, default_value_t = 0)]
    steps: usize,
    /// First measure which kernels are best where that is not known yet; remembered for every later use of this device.
    #[arg(long)]
    tune: bool,
    /// How GPU processors store tensors and weights: f32 or f16.
    #[arg(long, default_value = "f32")]
    storage: Storage,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    model: String,
    #[serde(flatten)]
    timed: Timed,
    /// CPU time as a multiple of plain onnxruntime's.
    cpu_ratio: f64,
    /// Wall time as a multiple of plain onnxruntime's.
    wall_ratio: f64,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    if args.rounds < 3 || !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(super::usage("--rounds must be at least 3 and --seconds above 0"));
    }
    let models: Vec<&str> = match args.models.is_empty() {
        true => NETWORKS.to_vec(),
        false => args.models.iter().map(String::as_str).collect(),
    };
    models.iter().try_for_each(|model| super::check_zoo(model))?;
    let processors = open(args)?;
    let mut rows = Vec::new();
    for model in models {
        let graph = onnx::from_bytes(model, &zoo::bytes(model, &zoo::Options::default())?, &BTreeMap::new())?;
        let mut contest = Contest::new(&graph, &processors, 1)?;
        if args.segments > 1 {
            contest.add_cut(&graph, &processors, args.segments)?;
        }
        let timed = contest.time(args.rounds, Duration::from_secs_f64(args.seconds))?;
        let base = timed[0].clone();
        let row = |timed: Timed| Row {
            model: model.to_owned(),
            cpu_ratio: timed.cpu_ms / base.cpu_ms,
            wall_ratio: timed.wall_ms / base.wall_ms,
            timed,
        };
        let fresh: Vec<Row> = timed.into_iter().map(row).collect();
        if !args.json {
            fresh.iter().for_each(print_row);
            if args.steps > 0 {
                contest.steps()?.into_iter().for_each(|(name, steps)| print_steps(&name, steps, args.steps));
            }
        }
        rows.extend(fresh);
    }
    if args.json {
        return print_json(&rows);
    }
    println!("Geometric means over {PLAIN}, one thread (below 1: faster):");
    means(&processors, &rows);
    Ok(())
}

/// The geometric means of each processor, and what cutting costs it.
fn means(processors: &[Arc<dyn Processor>], rows: &[Row]) {
    for processor in processors {
        let of: Vec<&Row> = rows.iter().filter(|r| r.timed.engine == processor.name()).collect();
        let mean = |f: fn(&Row) -> f64| (of.iter().map(|r| f(r).ln()).sum::<f64>() / of.len() as f64).exp();
        if !of.is_empty() {
            let (cpu, wall) = (mean(|r| r.cpu_ratio), mean(|r| r.wall_ratio));
            println!(
                "  {:12} CPU time x{cpu:.2}, wall time x{wall:.2}; {}",
                processor.name(),
                processor.device()
            );
        }
        // The cut run of a network against its whole run.
        let cut = |r: &&Row| {
            let name = r.timed.engine.strip_prefix(processor.name())?.strip_prefix('/')?;
            let whole = of.iter().find(|whole| whole.model == r.model)?;
            Some((name.to_owned(), r.timed.cpu_ms / whole.timed.cpu_ms))
        };
        for (row, (segments, ratio)) in rows.iter().filter_map(|r| cut(&r).map(|c| (r, c))) {
            println!("    {} in {segments} segments: x{ratio:.3} of its CPU time whole", row.model);
        }
    }
}

/// Opens the processors that are here; those that are not are said.
fn open(args: &Args) -> Result<Vec<Arc<dyn Processor>>, Box<dyn std::error::Error>> {
    let storage = args.processors.iter().map(|name| (name.clone(), args.storage)).collect();
    let options = Options { tune: args.tune, storage, ..Options::default() };
    let (mut open, mut absent): (Vec<Arc<dyn Processor>>, Vec<ExecError>) = (Vec::new(), Vec::new());
    for name in &args.processors {
        let row = processor::row(name).filter(|row| row.name != "dsp").ok_or_else(|| {
            let known: Vec<_> = processor::rows().map(|r| r.name).filter(|n| *n != "dsp").collect();
            super::usage(format!("--processors: unknown `{name}`; known: {}", known.join(", ")))
        })?;
        match (row.open)(&options) {
            Ok(processor) => open.push(processor),
            Err(error @ ExecError::Absent { .. }) => absent.push(error),
            Err(error) => return Err(error.into()),
        }
    }
    match absent.len() {
        n if open.is_empty() && n > 0 => Err(absent.remove(0).into()),
        _ => {
            absent.iter().for_each(|error| eprintln!("note: {error}"));
            Ok(open)
        }
    }
}

fn print_row(row: &Row) {
    let t = &row.timed;
    println!(
        "{:20} {:12} wall {:9.2} ms, CPU {:9.2} ms (x{:.2}), prepared in {:.1} s, off by {:.1e}",
        row.model,
        t.engine,
        t.wall_ms,
        t.cpu_ms,
        row.cpu_ratio,
        t.prepare_ms / 1e3,
        t.error
    );
}

fn print_steps(engine: &str, mut steps: Vec<StepTime>, most: usize) {
    steps.sort_by(|a, b| b.us.total_cmp(&a.us));
    let sum = steps.iter().map(|s| s.us).sum::<f64>() / 1e3;
    println!("  {engine}: {} steps, {sum:.2} ms one by one; the slowest:", steps.len());
    for step in steps.iter().take(most) {
        let rate = step.flops as f64 / step.us / 1e3;
        println!("  {:9.0} us {rate:7.1} GFLOP/s  {}: {}", step.us, step.node, step.kernel);
    }
}
