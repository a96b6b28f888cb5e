//! Axes to cells: the product of grid, samples, policies and seeds, less what is skipped, always in the same order.
//! It refuses to know what a key means; the same file gives the same cells on every machine.

use super::file::{Between, Draw, Match, Random};
use super::hash;
use super::keys::word;
use serde_json::Value;
use std::collections::BTreeMap;

/// Keys and values, in the order of the keys.
pub type Settings = Vec<(String, Value)>;

/// The product of the grid's values, the last key turning fastest.
pub(super) fn grid(axes: &BTreeMap<String, Vec<Value>>) -> Vec<Settings> {
    let mut all: Vec<Settings> = vec![Vec::new()];
    for (key, values) in axes {
        let with = |done: &Settings, value: &Value| {
            let mut next = done.clone();
            next.push((key.clone(), value.clone()));
            next
        };
        all = all.iter().flat_map(|done| values.iter().map(move |v| with(done, v))).collect();
    }
    all
}

/// The samples of random axes; one empty sample without any.
pub(super) fn samples(random: Option<&Random>) -> Vec<Settings> {
    let Some(random) = random else { return vec![Vec::new()] };
    let one =
        |sample: u64| random.keys.iter().map(|(k, d)| (k.clone(), draw(d, random.seed, sample, k))).collect();
    (0..random.samples).map(one).collect()
}

/// A number in [0, 1) that hangs on these three only.
fn chance(seed: u64, sample: u64, key: &str) -> f64 {
    let digest = hash::of(format!("{seed} {sample} {key}").as_bytes());
    let bits = u64::from_str_radix(&digest[..16], 16).unwrap_or(0);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

fn draw(draw: &Draw, seed: u64, sample: u64, key: &str) -> Value {
    let u = chance(seed, sample, key);
    if !draw.among.is_empty() {
        return draw.among[((u * draw.among.len() as f64) as usize).min(draw.among.len() - 1)].clone();
    }
    let (from, to) = (draw.from.unwrap_or(0.0), draw.to.unwrap_or(1.0));
    if draw.whole {
        return Value::from((from + (u * (to - from + 1.0)).floor()).min(to) as i64);
    }
    let value = if draw.log { (from.ln() + u * (to.ln() - from.ln())).exp() } else { from + u * (to - from) };
    // Six digits are plenty for an experiment, and read better in every table.
    Value::from(format!("{value:.6e}").parse::<f64>().unwrap_or(value))
}

/// What is wrong with a random axis.
pub(super) fn check_draw(draw: &Draw) -> Result<(), &'static str> {
    match (draw.from, draw.to) {
        _ if !draw.among.is_empty() => {
            if draw.from.is_some() || draw.to.is_some() || draw.log || draw.whole {
                return Err("expected either `among`, or `from` and `to`");
            }
        }
        (Some(from), Some(to)) if from.is_finite() && to.is_finite() && from < to => {
            if draw.log && from <= 0.0 {
                return Err("expected `from` above 0 with `log`");
            }
            if draw.whole && (from.fract() != 0.0 || to.fract() != 0.0 || draw.log) {
                return Err("expected whole `from` and `to` with `whole`, and no `log`");
            }
        }
        (Some(_), Some(_)) => return Err("expected `from` below `to`"),
        _ => return Err("expected `from` and `to`, or `among`"),
    }
    Ok(())
}

fn matches(condition: &Match, value: &Value) -> bool {
    let same = |a: &Value| match (a.as_f64(), value.as_f64()) {
        // 1 and 1.0 are one number, however they are written.
        (Some(a), Some(b)) => a == b,
        _ => a == value || word(value).rsplit('/').next() == a.as_str(),
    };
    match condition {
        Match::Between(Between { above, below }) => {
            value.as_f64().is_some_and(|v| above.is_none_or(|a| v > a) && below.is_none_or(|b| v < b))
        }
        Match::Among(values) => values.iter().any(same),
        Match::Is(one) => same(one),
    }
}

/// Whether a cell is left out: every key of one table matches.
pub(super) fn skipped(
    skip: &[BTreeMap<String, Match>],
    policy: &str,
    seed: u64,
    settings: &Settings,
) -> bool {
    let (policy, seed) = (Value::from(policy), Value::from(seed));
    let value = |key: &str| match key {
        "policy" => Some(&policy),
        "seed" => Some(&seed),
        _ => settings.iter().find(|(k, _)| k == key).map(|(_, v)| v),
    };
    skip.iter().any(|table| table.iter().all(|(key, m)| value(key).is_some_and(|v| matches(m, v))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn between(above: Option<f64>, below: Option<f64>) -> Match {
        Match::Between(Between { above, below })
    }

    #[test]
    fn conditions_by_hand() {
        let settings = vec![("load".to_owned(), json!(1.0)), ("base".to_owned(), json!("a/b.toml"))];
        let table = |rows: &[(&str, Match)]| {
            vec![rows.iter().map(|(k, m)| ((*k).to_owned(), m.clone())).collect::<BTreeMap<_, _>>()]
        };
        let is = |v: Value| Match::Is(v);
        let skip = |rows: &[(&str, Match)]| skipped(&table(rows), "edf", 3, &settings);
        assert!(skip(&[("load", is(json!(1)))]));
        assert!(skip(&[("load", is(json!(1))), ("policy", is(json!("edf")))]));
        // The saboteurs: one key of a table that does not match keeps the cell, as does a key that the cell has not.
        assert!(!skip(&[("load", is(json!(1))), ("policy", is(json!("eft")))]));
        assert!(!skip(&[("device", is(json!("x")))]));
        assert!(skip(&[("base", is(json!("b.toml")))]));
        assert!(skip(&[("seed", Match::Among(vec![json!(2), json!(3)]))]));
        assert!(skip(&[("load", between(Some(0.5), Some(1.5)))]));
        assert!(!skip(&[("load", between(Some(1.0), None))]));
        assert!(!skipped(&[], "edf", 3, &settings));
    }

    #[test]
    fn draws_are_even_and_hang_on_nothing_else() {
        let d = Draw { from: Some(10.0), to: Some(1000.0), log: true, whole: false, among: Vec::new() };
        let random =
            |samples| Random { samples, seed: 7, keys: BTreeMap::from([("a".to_owned(), d.clone())]) };
        let all = samples(Some(&random(4000)));
        assert_eq!(samples(Some(&random(10))), all[..10]);
        let values: Vec<f64> = all.iter().map(|s| s[0].1.as_f64().unwrap()).collect();
        assert!(values.iter().all(|v| (10.0..=1000.0).contains(v)));
        // Half of a logarithmic axis from 10 to 1000 lies below 100; a straight one (the saboteur) would have 9 % there.
        let below = values.iter().filter(|v| **v < 100.0).count() as f64 / 4000.0;
        assert!((below - 0.5).abs() < 0.04, "{below}");
        let dice = Draw { from: Some(1.0), to: Some(6.0), log: false, whole: true, among: Vec::new() };
        let rolls: Vec<i64> = (0..6000).map(|i| draw(&dice, 1, i, "d").as_i64().unwrap()).collect();
        for face in 1..=6 {
            let count = rolls.iter().filter(|r| **r == face).count();
            assert!((850..1150).contains(&count), "{face}: {count}");
        }
    }
}
