//! `cosched sweep`: many experiments from one file. What is done is kept, so that the same command goes on where a kill stopped it.
//! It refuses to hide failures: a cell that fails is in the table with its error, and the exit code says so.

#[cfg(feature = "train")]
mod adapt;
mod engine;
mod live;
#[cfg(feature = "train")]
mod train;

use self::engine::Engine;
use super::compare::maker;
use super::run::stop_on_ctrl_c;
use super::{Outcome, bar, check_policies, print_json, usage};
use cosched::experiments::sweep::emulated::Emulated;
use cosched::experiments::sweep::kind::Kind;
use cosched::experiments::sweep::results;
use cosched::experiments::sweep::run::{Options, Ran, run as run_all, run_cell};
use cosched::experiments::sweep::store::{Record, Store};
use cosched::experiments::sweep::xr::Xr;
use cosched::experiments::sweep::{Sweep, commit, hash, table};
use cosched::experiments::xrbench::from_table;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = super::policy_help())]
pub struct Args {
    /// The sweep file; experiments/sweeps/README.md has its keys.
    file: PathBuf,
    /// A subset that the file names, e.g. quick.
    #[arg(long)]
    subset: Option<String>,
    /// Folder for the table and the settings; runs/NAME (of a subset runs/NAME-SUBSET) when absent.
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Folder for the results of single cells, which several sweeps may share; `cells` in OUT when absent.
    #[arg(long)]
    store: Option<PathBuf>,
    /// Only list the cells, and about how long they take.
    #[arg(long)]
    dry_run: bool,
    /// Run only this cell (its hash or the first digits of it) and write no table.
    #[arg(long, value_name = "HASH")]
    cell: Option<String>,
    /// Who runs the cells.
    #[arg(long, value_enum, default_value = "local")]
    engine: Engine,
    /// The Ray cluster, as Ray names it.
    #[arg(long, default_value = "auto")]
    ray_address: String,
    /// Results that other builds of cosched made count too.
    #[arg(long)]
    any_code: bool,
    /// Cells at once; 0: as many as the machine runs at once. The results do not depend on it.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print the table as JSON: one object a line of it.
    #[arg(long)]
    json: bool,
}

impl Args {
    fn out(&self, name: &str) -> PathBuf {
        let subset = self.subset.as_ref().map_or(String::new(), |s| format!("-{s}"));
        self.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("{name}{subset}")))
    }

    fn store(&self, name: &str) -> PathBuf {
        self.store.clone().unwrap_or_else(|| self.out(name).join("cells"))
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    let (emulated, xrbench) = (Emulated { make: &maker }, Xr { make: &from_table });
    // A kind is a file and a word here.
    let kinds: &[&dyn Kind] = &[
        &emulated,
        #[cfg(feature = "train")]
        &train::Train,
        #[cfg(feature = "train")]
        &adapt::Adapt,
        &live::Run,
        &live::Fidelity,
        &xrbench,
    ];
    let sweep = Sweep::read(&args.file, args.subset.as_deref(), kinds)?;
    check_policies(sweep.part.policies.as_deref().unwrap_or_default())?;
    let (out, store) = (args.out(&sweep.name), args.store(&sweep.name));
    if args.dry_run {
        print!("{}", sweep.dry_run(&store, args.threads, args.any_code)?);
        return Ok(());
    }
    results::check_folder(&out, &sweep.name, args.subset.as_deref())?;
    std::fs::create_dir_all(&out).map_err(|e| format!("{}: cannot be written: {e}", out.display()))?;
    let store = Store::open(&store)?;
    if let Some(hash) = &args.cell {
        return one(&sweep, hash, &store);
    }
    let ran = match args.engine {
        Engine::Slurm => return engine::slurm(&sweep, &store, &out, args),
        Engine::Ray => {
            let (records, kept) = engine::ray(&sweep, &store, &out, args)?;
            Ran { records, kept, notes: Vec::new() }
        }
        Engine::Local => all(&sweep, &store, args)?,
    };
    let missing = sweep.cells.len() - ran.records.len();
    if missing > 0 {
        let done = ran.records.len();
        return Err(
            format!("stopped after {done} of {} cells; the same command goes on", sweep.cells.len()).into()
        );
    }
    results::write(&sweep, &ran.records, &store, &out)?;
    show(&ran, &out, args.json)
}

/// One cell, for whoever hands out cells to many machines. A failed cell is a failure here too.
fn one(sweep: &Sweep<'_>, hash: &str, store: &Store) -> Outcome {
    let cells: Vec<_> = sweep.cells.iter().filter(|c| c.hash.starts_with(hash)).collect();
    let [cell] = cells.as_slice() else {
        let found = cells.len();
        return Err(usage(format!(
            "--cell {hash}: {found} cells of {} begin so, expected one",
            sweep.file.display()
        )));
    };
    let code = hash::code()?;
    if store.path(&cell.hash, &code).exists() {
        return Ok(());
    }
    let stop = stop_on_ctrl_c()?;
    let record = run_cell(sweep.kind, cell, &code, &commit(), &stop);
    store.put(&record)?;
    match record.outcome {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("cell {} ({}): {error}", cell.hash, cell.title()).into()),
    }
}

/// All cells that are missing, with a progress bar.
fn all(sweep: &Sweep<'_>, store: &Store, args: &Args) -> Result<Ran, Box<dyn std::error::Error>> {
    let stop = stop_on_ctrl_c()?;
    let progress = bar("sweeping");
    let shown = |done: usize, of: usize, what: &str| {
        if progress.length() == Some(0) {
            progress.set_position(done as u64);
            // What was there already says nothing about the speed.
            progress.reset_eta();
        }
        progress.set_length(of as u64);
        progress.set_position(done as u64);
        progress.set_message(what.to_owned());
    };
    let options = Options { threads: args.threads, any_code: args.any_code, stop: &stop, progress: &shown };
    let ran = run_all(sweep, store, &options);
    progress.finish_and_clear();
    Ok(ran?)
}

fn show(ran: &Ran, out: &Path, json: bool) -> Outcome {
    ran.notes.iter().for_each(|note| eprintln!("note: {note}"));
    let table = table::table(&ran.records);
    if json {
        print_json(&table.objects())?;
    } else {
        print!("{}", table.csv());
    }
    let all = ran.records.len();
    eprintln!(
        "{all} cells, {} of them done before; results are in {}; `cosched report {}` makes a page of them",
        ran.kept,
        out.display(),
        out.display()
    );
    let failed: Vec<(usize, &Record)> =
        ran.records.iter().enumerate().filter(|(_, r)| r.outcome.is_err()).collect();
    match failed.first().and_then(|(cell, r)| Some((cell, r.outcome.as_ref().err()?))) {
        Some((cell, error)) => {
            Err(format!("{} of {all} cells failed; the first is cell {cell}: {error}", failed.len()).into())
        }
        None => Ok(()),
    }
}
