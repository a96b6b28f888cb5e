//! Processors that run at once: how much each slows while another runs, and while two others do. It refuses to measure all triples of many
//! processors: of each one those with the partners that slow it most.

use super::kept::Kept;
use super::{Options, Steps, instance, run_once};
use crate::deploy::{Deployed, Deployment};
use crate::processor::{ExecError, Instance};
use cosched_env::crowd::{Crowd, Triple};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Most triples that are measured of one processor.
const MOST_TRIPLES: usize = 6;

/// Slow-downs of a deployment.
pub(super) struct Together {
    /// As in the plan.
    pub contention: Vec<Vec<f64>>,
    /// Of each processor; `None` where fewer than two others are there.
    pub crowds: Vec<Option<Crowd>>,
    pub counts: Counts,
}

/// Pairs and triples, those that were measured and those that were kept.
#[derive(Default)]
pub(super) struct Counts {
    measured: [usize; 2],
    kept: [usize; 2],
}

impl Counts {
    /// Says it in words.
    pub fn tell(&self, measured: &mut Vec<String>, kept: &mut Vec<String>) {
        for (to, counts) in [(measured, self.measured), (kept, self.kept)] {
            for (count, what) in counts.into_iter().zip(["pairs", "triples"]).filter(|(count, _)| *count > 0)
            {
                to.push(format!("slow-downs of {count} {what} of processors"));
            }
        }
    }
}

/// Other processors than `i`.
fn others(i: usize, n: usize) -> impl Iterator<Item = usize> + Clone {
    (0..n).filter(move |&j| j != i)
}

/// Two others than `i`, in all ways.
fn partners(i: usize, n: usize) -> impl Iterator<Item = [usize; 2]> {
    others(i, n).flat_map(move |j| others(i, n).filter(move |&k| k > j).map(move |k| [j, k]))
}

/// How many pairs and triples are measured, as far as that is known beforehand.
pub(super) fn steps(kept: &Kept<'_>, n: usize) -> usize {
    let of = |i: usize| {
        let pairs = others(i, n).filter(|&j| kept.pair(i, j).is_none()).count();
        let triples = partners(i, n).take(MOST_TRIPLES).filter(|&both| kept.triple(i, both).is_none());
        pairs + triples.count()
    };
    (0..n).map(of).sum()
}

/// Measures what is not kept.
pub(super) fn measure(
    kept: &Kept<'_>,
    options: &Options,
    steps: &mut Steps<'_>,
) -> Result<Together, ExecError> {
    let deployment = kept.deployment;
    let n = deployment.processors.len();
    let name = |p: usize| deployment.processors[p].name();
    let mut counts = Counts::default();
    let mut contention = vec![vec![1.0; n]; n];
    for (i, row) in contention.iter_mut().enumerate() {
        for j in others(i, n) {
            row[j] = match kept.pair(i, j) {
                Some(factor) => {
                    counts.kept[0] += 1;
                    factor
                }
                None => {
                    steps.step(&format!("{} while {} runs", name(i), name(j)));
                    counts.measured[0] += 1;
                    slowdown(deployment, i, &[j], options)?.unwrap_or(1.0)
                }
            };
        }
    }
    let mut crowds = Vec::new();
    for (i, row) in contention.iter().enumerate() {
        let mut triples = Vec::new();
        for both @ [j, k] in heaviest(partners(i, n).collect(), row) {
            let factor = match kept.triple(i, both) {
                Some(factor) => {
                    counts.kept[1] += 1;
                    Some(factor)
                }
                None => {
                    steps.step(&format!("{} while {} and {} run", name(i), name(j), name(k)));
                    counts.measured[1] += 1;
                    slowdown(deployment, i, &both, options)?
                }
            };
            let with = [name(j).to_owned(), name(k).to_owned()];
            triples.extend(factor.map(|factor| Triple { with, factor }));
        }
        let pair = |other: &str| others(i, n).find(|&j| name(j) == other).map(|j| row[j]);
        crowds.push(Crowd::fit(triples, pair));
    }
    Ok(Together { contention, crowds, counts })
}

/// The partners that slow most, one by one, at most [`MOST_TRIPLES`].
fn heaviest(mut all: Vec<[usize; 2]>, row: &[f64]) -> Vec<[usize; 2]> {
    let weight = |both: &[usize; 2]| both.iter().map(|&j| row[j]).sum::<f64>();
    all.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    all.truncate(MOST_TRIPLES);
    all
}

/// The longest whole stretch that a processor can run: the variant with the most work there.
fn load_for(deployment: &Deployment, p: usize) -> Option<(&Deployed, Vec<usize>)> {
    let able = |v: &Deployed| (0..v.segments.len()).filter(|&s| v.prepared[s][p].is_ok()).collect::<Vec<_>>();
    let work = |v: &Deployed| able(v).iter().map(|&s| v.segments[s].flops).sum::<u64>();
    let variant = deployment.variants.iter().max_by_key(|v| work(v))?;
    let segments = able(variant);
    (!segments.is_empty()).then_some((variant, segments))
}

/// A repeatable piece of work for one processor.
pub(super) struct Load<'a> {
    variant: &'a Deployed,
    parts: Vec<(usize, Box<dyn Instance>)>,
}

impl<'a> Load<'a> {
    pub fn new(deployment: &'a Deployment, p: usize) -> Result<Option<Load<'a>>, ExecError> {
        let Some((variant, segments)) = load_for(deployment, p) else { return Ok(None) };
        let mut parts = Vec::new();
        for s in segments {
            if let Some(made) = instance(variant, s, p)? {
                parts.push((s, made));
            }
        }
        Ok(Some(Load { variant, parts }))
    }

    /// Microseconds for all parts once.
    fn once(&mut self) -> Result<f64, ExecError> {
        let mut sum = 0.0;
        for (s, instance) in &mut self.parts {
            sum += run_once(self.variant, *s, instance.as_mut(), 0)?;
        }
        Ok(sum)
    }

    /// Mean microseconds over `time`, at least two runs.
    pub fn mean(&mut self, time: Duration) -> Result<f64, ExecError> {
        let begun = Instant::now();
        let (mut sum, mut runs) = (0.0, 0);
        while runs < 2 || begun.elapsed() < time {
            sum += self.once()?;
            runs += 1;
        }
        Ok(sum / f64::from(runs))
    }
}

/// Factor (at least 1) by which work on `i` slows while `with` are kept busy; `None` where one of them runs nothing.
fn slowdown(
    deployment: &Deployment,
    i: usize,
    with: &[usize],
    options: &Options,
) -> Result<Option<f64>, ExecError> {
    let Some(mut mine) = Load::new(deployment, i)? else { return Ok(None) };
    let mut busy = Vec::new();
    for &j in with {
        let Some(load) = Load::new(deployment, j)? else { return Ok(None) };
        busy.push(load);
    }
    mine.once()?;
    for load in &mut busy {
        load.once()?;
    }
    // Alone and together in turn, and the middle of three ratios: whatever else the machine does falls on both.
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let alone = mine.mean(options.pair / 6)?;
        ratios.push(while_busy(&mut busy, || mine.mean(options.pair / 4))? / alone);
    }
    ratios.sort_by(f64::total_cmp);
    Ok(Some(ratios[1].max(1.0)))
}

/// Calls `measure` while other threads keep all of `busy` so.
fn while_busy<T>(
    busy: &mut [Load<'_>],
    measure: impl FnOnce() -> Result<T, ExecError>,
) -> Result<T, ExecError> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let work = |load: &mut Load<'_>| -> Result<(), ExecError> {
            while !stop.load(Ordering::Relaxed) {
                load.once()?;
            }
            Ok(())
        };
        let threads: Vec<_> = busy.iter_mut().map(|load| scope.spawn(move || work(load))).collect();
        let measured = measure();
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            match thread.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        measured
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triples_are_all_there_are_or_the_heaviest() {
        assert_eq!(partners(1, 4).collect::<Vec<_>>(), [[0, 2], [0, 3], [2, 3]]);
        assert_eq!(partners(0, 2).count(), 0);
        // Of five others ten triples: those with the three that slow most, and the best of the rest.
        let row = [1.0, 1.1, 1.5, 1.4, 1.3, 1.0];
        let chosen = heaviest(partners(0, 6).collect(), &row);
        assert_eq!(chosen, [[2, 3], [2, 4], [3, 4], [1, 2], [1, 3], [2, 5]]);
    }
}
