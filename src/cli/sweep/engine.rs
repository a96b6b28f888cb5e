//! Engines: who runs the cells of a sweep beside this process. Ray and Slurm are there already; here are only the words to them.
//! It refuses to carry results: every cell keeps its own in the store, which all machines see.

use super::{Args, Outcome};
use cosched::experiments::config::write_whole;
use cosched::experiments::sweep::hash;
use cosched::experiments::sweep::run::look;
use cosched::experiments::sweep::store::{Found, Record, Store};
use cosched::experiments::sweep::{Cell, Sweep};
use serde_json::{Value, json};
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, Stdio};

/// Who runs the cells.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// Threads of this process.
    Local,
    /// An existing Ray cluster.
    Ray,
    /// A Slurm job array, which is only written.
    Slurm,
}

/// How often Ray tries a cell whose worker was lost.
const RETRIES: u32 = 5;
const ADAPTER: &str = include_str!("ray.py");

/// The cells that the store lacks.
fn missing<'a>(sweep: &'a Sweep<'_>, store: &Store, args: &Args) -> Result<Vec<&'a Cell>, Box<dyn Error>> {
    let (found, notes) = look(&sweep.cells, store, args.any_code)?;
    notes.iter().for_each(|note| eprintln!("note: {note}"));
    Ok(sweep.cells.iter().zip(found).filter(|(_, f)| f.is_none()).map(|(c, _)| c).collect())
}

/// The command that runs one cell, but for `--cell HASH`: it works in any folder.
fn command(sweep: &Sweep<'_>, store: &Store, out: &Path, args: &Args) -> Result<Vec<String>, Box<dyn Error>> {
    let path = |p: &Path| absolute(p).map(|p| p.display().to_string());
    let mut words = vec![path(&std::env::current_exe()?)?, "sweep".into(), path(&sweep.file)?];
    words.extend(["--out".into(), path(out)?, "--store".into(), path(store.folder())?]);
    if let Some(subset) = &args.subset {
        words.extend(["--subset".into(), subset.clone()]);
    }
    Ok(words)
}

/// Runs the missing cells on a Ray cluster, and returns all records in order of the cells.
///
/// # Errors
/// No Python with Ray, no cluster, or cells that came to nothing.
pub fn ray(
    sweep: &Sweep<'_>,
    store: &Store,
    out: &Path,
    args: &Args,
) -> Result<(Vec<Record>, usize), Box<dyn Error>> {
    let todo = missing(sweep, store, args)?;
    let kept = sweep.cells.len() - todo.len();
    if !todo.is_empty() {
        let job = json!({
            "address": args.ray_address,
            "cpus": 1,
            "retries": RETRIES,
            "folder": std::env::current_dir()?,
            "command": command(sweep, store, out, args)?,
            "cells": todo.iter().map(|c| &c.hash).collect::<Vec<_>>(),
        });
        adapter(&job, kept, sweep.cells.len())?;
    }
    let own = hash::code()?;
    let mut records = Vec::new();
    for cell in &sweep.cells {
        let other = || store.any_code(&cell.hash).filter(|_| args.any_code);
        let code =
            if store.path(&cell.hash, &own).exists() { own.clone() } else { other().unwrap_or(own.clone()) };
        match store.get(&cell.hash, &code)? {
            Found::Done(record) | Found::Failed(record) => records.push(*record),
            Found::Broken(..) | Found::Nothing => {}
        }
    }
    Ok((records, kept))
}

/// Runs the adapter and shows how far it is.
fn adapter(job: &Value, kept: usize, all: usize) -> Outcome {
    let python = std::env::var("COSCHED_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut child = Command::new(&python)
        .args(["-c", ADAPTER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| {
            format!("{python}: {e}; --engine ray needs Python with Ray (COSCHED_PYTHON names one)")
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A Python that ends at once says why itself.
        let _ = stdin.write_all(job.to_string().as_bytes());
    }
    let progress = crate::cli::bar("sweeping");
    progress.set_length(all as u64);
    progress.set_position(kept as u64);
    progress.reset_eta();
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let line = line?;
        let Ok(done) = serde_json::from_str::<Value>(&line) else { continue };
        progress.inc(1);
        if done["code"] != 0 {
            let said = done["said"].as_str().unwrap_or_default().trim();
            progress
                .suspend(|| eprintln!("note: cell {}: {said}", done["cell"].as_str().unwrap_or_default()));
        }
    }
    progress.finish_and_clear();
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    Err(format!(
        "{python} with Ray ended with {status}; what it said stands above, and what was done is kept"
    )
    .into())
}

/// Writes a job array for the missing cells.
///
/// # Errors
/// When it cannot be written.
pub fn slurm(sweep: &Sweep<'_>, store: &Store, out: &Path, args: &Args) -> Outcome {
    let todo = missing(sweep, store, args)?;
    if todo.is_empty() {
        println!("nothing to run: all {} cells are done", sweep.cells.len());
        return Ok(());
    }
    let folder = absolute(out.join("slurm"))?;
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: cannot be written: {e}", folder.display()))?;
    let list: String = todo.iter().map(|c| c.hash.clone() + "\n").collect();
    let script = script(&command(sweep, store, out, args)?, todo.len(), &sweep.name, &folder);
    let write = |name: &str, text: &str| -> Result<PathBuf, Box<dyn Error>> {
        let path = folder.join(name);
        write_whole(&path, text.as_bytes())?;
        Ok(path)
    };
    write("cells.txt", &list)?;
    let path = write("array.sh", &script)?;
    println!(
        "{} cells to run: `sbatch {}`, then the same sweep without --engine collects",
        todo.len(),
        path.display()
    );
    Ok(())
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn script(command: &[String], cells: usize, name: &str, folder: &Path) -> String {
    let words: Vec<String> = command.iter().map(|w| quoted(w)).collect();
    let list = quoted(&folder.join("cells.txt").display().to_string());
    format!(
        "#!/bin/bash\n#SBATCH --job-name=cosched-{name}\n#SBATCH --array=1-{cells}\n#SBATCH --cpus-per-task=1\n\
         #SBATCH --requeue\n#SBATCH --output={}/%a.log\n\
         # One cell a task; each keeps its own result, so tasks may be lost and begun again.\n\
         exec {} --cell \"$(sed -n \"${{SLURM_ARRAY_TASK_ID}}p\" {list})\"\n",
        folder.display(),
        words.join(" ")
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_shell_reads_the_words_as_they_are() {
        let words = ["/a b/cosched".to_owned(), "it's".to_owned(), "$HOME".to_owned()];
        let script = super::script(&words, 3, "n", "/x".as_ref());
        let last = script.lines().last().unwrap();
        assert_eq!(
            last,
            r#"exec '/a b/cosched' 'it'\''s' '$HOME' --cell "$(sed -n "${SLURM_ARRAY_TASK_ID}p" '/x/cells.txt')""#
        );
        assert!(script.contains("#SBATCH --array=1-3\n"));
    }
}
