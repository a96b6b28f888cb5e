//! `cosched bench kernels`: the zoo's networks on every processor, on plain onnxruntime, and on engines of another program, in alternating
//! order. It refuses single numbers: medians of interleaved rounds, and ratios within them.

use super::bench_table::{self, Row};
use super::{Outcome, print_json};
use cosched::executors::beside::Beside;
use cosched::executors::measure::{Contest, Timed};
use cosched::executors::processor::{self, ExecError, Options, Processor, StepTime, Storage};
use cosched::executors::{dsp, onnx, zoo};
use std::collections::BTreeMap;
use std::path::PathBuf;
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
    /// Processors; `dsp` brings plain onnxruntime on its int8 network along.
    #[arg(long, value_delimiter = ',', default_value = "cpu,wgpu,opencl")]
    processors: Vec<String>,
    /// A program whose engines are timed in the same rounds, e.g. `scripts/bench-ncnn`.
    #[arg(long)]
    beside: Option<String>,
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
    /// Keep the rows in this file: networks of earlier calls count in the table and the means too, those timed again are replaced.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
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
    let mut rows = args.keep.as_deref().map_or(Ok(Vec::new()), bench_table::kept)?;
    let processors = open(args)?;
    let beside = args.beside.as_deref().map(Beside::start).transpose()?;
    for model in models {
        let fresh = time(model, args, &processors, beside.as_ref())?;
        rows.retain(|row: &Row| row.model != model);
        rows.extend(fresh);
        if let Some(file) = &args.keep {
            bench_table::keep(file, &rows)?;
        }
    }
    if args.json {
        return print_json(&rows);
    }
    bench_table::print(&rows);
    Ok(())
}

/// Times one network everywhere and says so.
fn time(
    model: &str,
    args: &Args,
    processors: &[Arc<dyn Processor>],
    beside: Option<&Arc<Beside>>,
) -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let graph = onnx::from_bytes(model, &zoo::bytes(model, &zoo::Options::default())?, &BTreeMap::new())?;
    let mut contest = Contest::new(&graph, processors, 1)?;
    if args.segments > 1 {
        // Ranges are measured on samples of each segment, which are not made here.
        let cut = processors.iter().filter(|p| p.name() != dsp::ROW.name).cloned().collect::<Vec<_>>();
        contest.add_cut(&graph, &cut, args.segments)?;
    }
    if let Some(beside) = beside
        && let Some(reason) = contest.add_beside(&graph, beside)?
    {
        eprintln!("note: {model}: the program beside refuses it: {reason}");
    }
    let timed = contest.time(args.rounds, Duration::from_secs_f64(args.seconds))?;
    let base = timed[0].clone();
    let row = |timed: Timed| Row {
        model: model.to_owned(),
        cpu_ratio: timed.cpu_ms / base.cpu_ms,
        wall_ratio: timed.wall_ms / base.wall_ms,
        timed,
    };
    let rows: Vec<Row> = timed.into_iter().map(row).collect();
    if !args.json {
        rows.iter().for_each(bench_table::print_row);
        if args.steps > 0 {
            contest.steps()?.into_iter().for_each(|(name, steps)| print_steps(&name, steps, args.steps));
        }
    }
    Ok(rows)
}

/// Opens the processors that are here; those that are not are said.
fn open(args: &Args) -> Result<Vec<Arc<dyn Processor>>, Box<dyn std::error::Error>> {
    let storage = args.processors.iter().map(|name| (name.clone(), args.storage)).collect();
    let options = Options { tune: args.tune, storage, ..Options::default() };
    let (mut open, mut absent): (Vec<Arc<dyn Processor>>, Vec<ExecError>) = (Vec::new(), Vec::new());
    for name in &args.processors {
        let row = processor::row(name).ok_or_else(|| {
            let known: Vec<_> = processor::rows().map(|r| r.name).collect();
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

fn print_steps(engine: &str, mut steps: Vec<StepTime>, most: usize) {
    steps.sort_by(|a, b| b.us.total_cmp(&a.us));
    let sum = steps.iter().map(|s| s.us).sum::<f64>() / 1e3;
    println!("  {engine}: {} steps, {sum:.2} ms one by one; the slowest:", steps.len());
    for step in steps.iter().take(most) {
        let rate = step.flops as f64 / step.us / 1e3;
        println!("  {:9.0} us {rate:7.1} GFLOP/s  {}: {}", step.us, step.node, step.kernel);
    }
}
