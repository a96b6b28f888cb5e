//! Results in groups: within one, contenders are compared in pairs (the same seed, the same case), with intervals and corrected tests.
//! It refuses to compare what stands in different groups, and to test what has no pairs.

use crate::bound;
use crate::stats::{Estimate, holm, mean, paired_p, stars};
use crate::sweep::kind::ALL;
use crate::sweep::store::Record;
use std::collections::BTreeMap;

/// A number of the table, and how people read it.
#[derive(Debug)]
pub struct Metric {
    /// Its name in the table.
    pub key: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What it is, in a sentence.
    pub about: &'static str,
    /// Digits behind the point.
    pub digits: usize,
    /// What it is multiplied with to be read.
    pub scale: f64,
}

const fn metric(
    key: &'static str,
    title: &'static str,
    about: &'static str,
    digits: usize,
    scale: f64,
) -> Metric {
    Metric { key, title, about, digits, scale }
}

/// The share of the way from the reference to the bound, where a group has one.
const CLOSED: &str = "closed";

/// What the page shows, in this order, where the results have it.
pub const METRICS: &[Metric] = &[
    metric("utility", "utility", "mean utility of a request; of XRBench the overall score", 4, 1.0),
    metric(
        CLOSED,
        "to bound %",
        "share of the way from the reference to the bound, the best run found by a search that knows the future",
        0,
        100.0,
    ),
    metric("mean_error", "mean error %", "emulated by live mean latency, less 1", 1, 100.0),
    metric("p95_error", "p95 error %", "emulated by live 95th percentile, less 1", 1, 100.0),
    metric("on_time_error", "on time error", "emulated less live on-time share, in points", 1, 100.0),
    metric("on_time_share", "on time %", "answered by the deadline", 1, 100.0),
    metric("p50_ms", "p50 ms", "median latency of answers", 1, 1.0),
    metric("p95_ms", "p95 ms", "95th percentile of latency", 1, 1.0),
    metric("p99_ms", "p99 ms", "99th percentile of latency", 1, 1.0),
    metric("accuracy", "accuracy", "mean accuracy of the variants that answered", 3, 1.0),
    metric("energy_mj", "mJ", "millijoules of launches a request", 1, 1.0),
    metric("fairness", "fairness", "Jain's index of the streams' on-time shares", 3, 1.0),
    metric("realtime", "realtime", "XRBench's real-time score", 4, 1.0),
    metric("energy_score", "energy score", "XRBench's energy score", 4, 1.0),
    metric("user_experience", "experience", "XRBench's score of user experience", 4, 1.0),
    metric("published_utility", "published", "the published overall score of the same cases", 4, 1.0),
    metric("as_published", "as published %", "cases within 0.001 of the published overall score", 1, 100.0),
    metric("live_mean_ms", "live mean ms", "mean latency live", 2, 1.0),
    metric("emulated_mean_ms", "emulated mean ms", "mean latency in the emulated device", 2, 1.0),
];

/// A contender's difference to the reference of its group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Mean of the differences of the pairs.
    pub estimate: Estimate,
    /// Two-sided p of the paired t-test, corrected by Holm within the group; `None` below two pairs.
    pub p: Option<f64>,
}

impl Difference {
    /// [`stars`] of its p.
    pub fn stars(&self) -> &'static str {
        stars(self.p)
    }
}

/// One contender of a group.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its name.
    pub name: String,
    /// Over how many units its numbers are means.
    pub units: usize,
    /// Means with intervals, by metric.
    pub numbers: BTreeMap<String, Estimate>,
    /// Against the reference; `None` for the reference itself, and without pairs.
    pub difference: Option<Difference>,
}

impl Contender {
    /// The mean of a metric.
    pub fn mean(&self, key: &str) -> Option<f64> {
        self.numbers.get(key).map(|e| e.mean)
    }
}

/// What is compared with each other.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The scenario of its rows, if it is one.
    pub scenario: String,
    /// The device of its rows, if it is one.
    pub device: String,
    /// The metric that ranks: the first of [`METRICS`] that its rows have.
    pub main: &'static Metric,
    /// Best first.
    pub contenders: Vec<Contender>,
    /// The contender that differences are taken to.
    pub reference: String,
}

/// Unit -> numbers, of each contender.
type Units = BTreeMap<String, BTreeMap<String, f64>>;

struct Gathered {
    name: String,
    scenario: String,
    device: String,
    contenders: Vec<(String, Units)>,
}

/// All groups in the order of the cells.
pub fn groups(records: &[Record], reference: Option<&str>) -> Vec<Group> {
    let mut all: Vec<Gathered> = Vec::new();
    for row in records.iter().filter_map(|r| r.outcome.as_ref().ok()).flat_map(|o| &o.rows) {
        if row.stream != ALL {
            continue;
        }
        let at = all.iter().position(|g| g.name == row.group).unwrap_or_else(|| {
            let (scenario, device) = (row.scenario.clone(), row.device.clone());
            all.push(Gathered { name: row.group.clone(), scenario, device, contenders: Vec::new() });
            all.len() - 1
        });
        let group = &mut all[at];
        let blank = |own: &mut String, other: &str| {
            if own != other {
                own.clear();
            }
        };
        blank(&mut group.scenario, &row.scenario);
        blank(&mut group.device, &row.device);
        let at = group.contenders.iter().position(|(name, _)| *name == row.contender).unwrap_or_else(|| {
            group.contenders.push((row.contender.clone(), Units::new()));
            group.contenders.len() - 1
        });
        group.contenders[at].1.insert(row.unit.clone(), row.numbers.clone());
    }
    all.into_iter().filter_map(|g| finish(g, reference)).collect()
}

fn finish(gathered: Gathered, wanted: Option<&str>) -> Option<Group> {
    let has =
        |key: &str| gathered.contenders.iter().any(|(_, units)| units.values().any(|n| n.contains_key(key)));
    let main = METRICS.iter().find(|m| has(m.key))?;
    let mut contenders: Vec<Contender> =
        gathered.contenders.iter().map(|(name, units)| contender(name, units)).collect();
    let value = |c: &Contender| c.mean(main.key).unwrap_or(f64::NEG_INFINITY);
    let best = |learned: bool| {
        // Nobody is asked to be as good as one who knows the future.
        let policies = contenders.iter().rev().filter(|c| c.name != bound::NAME);
        let among = policies.filter(|c| learned || !c.name.starts_with("learned"));
        among.max_by(|a, b| value(a).total_cmp(&value(b))).map(|c| c.name.clone())
    };
    let named = wanted.filter(|w| contenders.iter().any(|c| c.name == **w)).map(str::to_owned);
    let reference = named.or_else(|| best(false)).or_else(|| best(true))?;
    compare(&mut contenders, &gathered, &reference, main.key);
    close(&mut contenders, &reference, main.key);
    contenders.sort_by(|a, b| value(b).total_cmp(&value(a)));
    let Gathered { name, scenario, device, .. } = gathered;
    Some(Group { name, scenario, device, main, contenders, reference })
}

/// How far each goes from the reference to the bound, if there is one.
fn close(contenders: &mut [Contender], reference: &str, key: &str) {
    let of = |name: &str| contenders.iter().find(|c| c.name == name)?.mean(key);
    let (Some(from), Some(to)) = (of(reference), of(bound::NAME)) else { return };
    for contender in contenders {
        let share = contender.mean(key).and_then(|own| bound::closed(own, from, to));
        let numbers = share.map(|mean| (CLOSED.to_owned(), Estimate { mean, half95: None }));
        contender.numbers.extend(numbers);
    }
}

fn contender(name: &str, units: &Units) -> Contender {
    let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (key, value) in units.values().flatten() {
        samples.entry(key.clone()).or_default().push(*value);
    }
    let numbers = samples.into_iter().filter_map(|(key, sample)| Some((key, Estimate::of(&sample)?)));
    Contender { name: name.to_owned(), units: units.len(), numbers: numbers.collect(), difference: None }
}

fn compare(contenders: &mut [Contender], gathered: &Gathered, reference: &str, key: &str) {
    let units = |name: &str| gathered.contenders.iter().find(|(n, _)| n == name).map(|(_, units)| units);
    let Some(base) = units(reference) else { return };
    let differences = |name: &str| -> Vec<f64> {
        let pair = |(unit, numbers): (&String, &BTreeMap<String, f64>)| {
            Some(numbers.get(key)? - base.get(unit)?.get(key)?)
        };
        units(name).into_iter().flatten().filter_map(pair).collect()
    };
    let others: Vec<usize> = (0..contenders.len()).filter(|&i| contenders[i].name != reference).collect();
    let samples: Vec<Vec<f64>> = others.iter().map(|&i| differences(&contenders[i].name)).collect();
    // The bound is above them by its making: testing that would only cost the others.
    let policy = |i: &usize| contenders[others[*i]].name != bound::NAME;
    let tested: Vec<(usize, f64)> =
        (0..others.len()).filter(policy).filter_map(|i| Some((i, paired_p(&samples[i])?))).collect();
    let corrected = holm(&tested.iter().map(|t| t.1).collect::<Vec<_>>());
    for (i, (&other, sample)) in others.iter().zip(&samples).enumerate() {
        let p = tested.iter().position(|t| t.0 == i).map(|at| corrected[at]);
        contenders[other].difference = Estimate::of(sample).map(|estimate| Difference { estimate, p });
    }
}

/// By group and contender.
type ByContender<T> = BTreeMap<(String, String), T>;

/// Mean curves of one kind, by group and contender: at each place the mean over those curves that reach so far, with half of its
/// 95 % interval where there are two.
pub fn curves(records: &[Record], what: &str, name: Option<&str>) -> ByContender<Vec<(f64, f64, f64)>> {
    let mut all: ByContender<Vec<&[(f64, f64)]>> = BTreeMap::new();
    for curve in records.iter().filter_map(|r| r.outcome.as_ref().ok()).flat_map(|o| &o.curves) {
        if curve.what == what && name.is_none_or(|n| curve.name == n) {
            all.entry((curve.group.clone(), curve.contender.clone())).or_default().push(&curve.points);
        }
    }
    all.into_iter().map(|(key, curves)| (key, average(&curves, what == "latency"))).collect()
}

/// `step`: the value lasts until the next place and after the last one, and is 0 before the first; else it is a straight line between
/// places and there is nothing outside.
fn average(curves: &[&[(f64, f64)]], step: bool) -> Vec<(f64, f64, f64)> {
    let mut places: Vec<f64> = curves.iter().flat_map(|c| c.iter().map(|p| p.0)).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let at = |curve: &[(f64, f64)], x: f64| {
        let after = curve.partition_point(|p| p.0 <= x);
        if step {
            return Some(if after == 0 { 0.0 } else { curve[after - 1].1 });
        }
        let before = curve.get(after.checked_sub(1)?)?;
        let Some(next) = curve.get(after) else { return (before.0 == x).then_some(before.1) };
        Some(before.1 + (next.1 - before.1) * (x - before.0) / (next.0 - before.0))
    };
    let point = |x: f64| {
        let sample: Vec<f64> = curves.iter().filter_map(|c| at(c, x)).collect();
        let half = Estimate::of(&sample).and_then(|e| e.half95).unwrap_or(0.0);
        (x, mean(&sample), half)
    };
    places.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_averaged_by_hand() {
        let (a, b) = ([(1.0, 0.2), (3.0, 0.6)], [(2.0, 0.4)]);
        let step = average(&[&a, &b], true);
        let values: Vec<(f64, f64)> = step.iter().map(|p| (p.0, p.1)).collect();
        assert_eq!(values, [(1.0, 0.1), (2.0, 0.30000000000000004), (3.0, 0.5)]);
        // Straight lines: at 2 the first curve is half way, and the second is only there.
        let line = average(&[&a, &b], false);
        assert_eq!(line.iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(), [(1.0, 0.2), (2.0, 0.4), (3.0, 0.6)]);
        assert!(line[1].2.abs() < 1e-9 && step[1].2 > 0.1);
    }
}
