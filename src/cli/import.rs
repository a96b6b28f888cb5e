//! `cosched import`: plans from measurements of others.
//! It refuses to overwrite a plan, and to invent what a source does not say.

use super::profile::write_plan;
use super::{Outcome, usage};
use cosched::experiments::import::{Given, aihub, ncnn, ort};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    source: Source,
}

#[derive(clap::Subcommand)]
enum Source {
    /// ncnn's benchmark table as CSV (device,num_threads,powersave,gpu_device,model,max_ms,avg_ms).
    Ncnn {
        /// The table.
        table: PathBuf,
        /// The device, or a part of its name that no other has.
        #[arg(short, long)]
        device: String,
        /// A processor: NAME=THREADS/POWERSAVE/GPU, GPU -1 for the CPU; the fastest of each kind when absent.
        #[arg(long = "processor", value_name = "SETTING")]
        processors: Vec<String>,
        #[command(flatten)]
        rest: Rest,
    },
    /// Qualcomm AI Hub's table as CSV (model,component,precision,device,inference_ms,primary_compute_unit).
    Aihub {
        /// The table.
        table: PathBuf,
        /// The device, or a part of its name that no other has.
        #[arg(short, long)]
        device: String,
        #[command(flatten)]
        rest: Rest,
    },
    /// Profiles that ONNX Runtime wrote (`enable_profiling`).
    Ort {
        /// VARIANT@PROCESSOR=FILE, one for each.
        #[arg(required = true, value_name = "PROFILE")]
        profiles: Vec<String>,
        /// Most segments of a variant.
        #[arg(long, default_value_t = 6)]
        segments: usize,
        #[command(flatten)]
        rest: Rest,
    },
}

/// What no source says.
#[derive(clap::Args)]
struct Rest {
    /// Only these models, separated by commas.
    #[arg(short, long, value_delimiter = ',')]
    models: Vec<String>,
    /// Watts of a processor while it runs: NAME=WATTS.
    #[arg(long)]
    watts: Vec<String>,
    /// Accuracy of a variant: NAME=SHARE, above 0 and at most 1.
    #[arg(long)]
    accuracy: Vec<String>,
    /// Where to write the plan.
    #[arg(short, long, default_value = "plan.json")]
    out: PathBuf,
}

fn numbers(
    flag: &str,
    words: &[String],
    fits: fn(f64) -> bool,
) -> Result<BTreeMap<String, f64>, Box<dyn Error>> {
    let one = |word: &String| {
        let (name, value) = word.split_once('=')?;
        Some((name.to_owned(), value.parse::<f64>().ok().filter(|v| v.is_finite() && fits(*v))?))
    };
    let bad = |word: &String| {
        usage(format!("{flag} {word}: expected NAME=NUMBER in the range that the help names"))
    };
    words.iter().map(|word| one(word).ok_or_else(|| bad(word))).collect()
}

impl Rest {
    fn given(&self) -> Result<Given, Box<dyn Error>> {
        Ok(Given {
            watts: numbers("--watts", &self.watts, |w| w >= 0.0)?,
            accuracy: numbers("--accuracy", &self.accuracy, |a| a > 0.0 && a <= 1.0)?,
            models: self.models.clone(),
        })
    }
}

fn setting(word: &String) -> Result<(String, ncnn::Setting), Box<dyn Error>> {
    let read = || {
        let (name, rest) = word.split_once('=')?;
        let mut parts = rest.split('/');
        let setting = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        (parts.next().is_none() && !name.is_empty()).then(|| (name.to_owned(), setting))
    };
    read().ok_or_else(|| {
        usage(format!("--processor {word}: expected NAME=THREADS/POWERSAVE/GPU, e.g. cpu=4/2/-1"))
    })
}

fn profile(word: &String) -> Result<ort::Profile, Box<dyn Error>> {
    let read = || {
        let (head, file) = word.split_once('=')?;
        let (variant, processor) = head.split_once('@')?;
        let (variant, processor) = (variant.to_owned(), processor.to_owned());
        Some(ort::Profile { variant, processor, file: file.into() })
    };
    read().ok_or_else(|| usage(format!("{word}: expected VARIANT@PROCESSOR=FILE")))
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    let rest = match &args.source {
        Source::Ncnn { rest, .. } | Source::Aihub { rest, .. } | Source::Ort { rest, .. } => rest,
    };
    if rest.out.exists() {
        return Err(format!("{}: is there already; expected another --out", rest.out.display()).into());
    }
    let given = rest.given()?;
    let plan = match &args.source {
        Source::Ncnn { table, device, processors, .. } => {
            let processors = processors.iter().map(setting).collect::<Result<Vec<_>, _>>()?;
            ncnn::import(table, device, &processors, &given)?
        }
        Source::Aihub { table, device, .. } => aihub::import(table, device, &given)?,
        Source::Ort { profiles, segments, .. } => {
            let profiles = profiles.iter().map(profile).collect::<Result<Vec<_>, _>>()?;
            ort::import(&profiles, *segments, &given)?
        }
    };
    write_plan(&plan, &rest.out)?;
    for processor in &plan.processors {
        println!("{}: {}", processor.name, processor.device);
    }
    println!("plan of {} variants written to {}", plan.variants.len(), rest.out.display());
    Ok(())
}
