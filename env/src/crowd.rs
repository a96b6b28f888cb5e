//! What happens when three or more processors run together: how far a slow-down is from what the pairs add up to. A number of each
//! processor, fitted to measured triples. It refuses to guess: without measurements pairs add up.

use serde::{Deserialize, Serialize};

/// How much more or less a processor slows down among several others than [`crate::plan::Plan::contention`] adds up to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crowd {
    /// Added to the factor for each launch elsewhere beyond the first. Above 0 where one other is easily borne and two are not (cores or
    /// memory run out), below 0 where the others also take from each other what they would take from this one.
    pub added: f64,
    /// What it was fitted to.
    pub triples: Vec<Triple>,
}

/// How much a processor slowed down while two others ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Triple {
    /// Names of the two others.
    pub with: [String; 2],
    /// Factor, at least 1.
    pub factor: f64,
}

/// Three that share everything evenly take three times as long each. Who takes longer waits for its turn: a short launch of a process that
/// finds all cores taken sleeps for whole time slices, which is much by its own length and does not grow with the work.
const FAIR: f64 = 3.0;

/// What pairwise factors add up to: the linear superposition of slow-downs (as in PCCS, MICRO 2021, below saturation).
pub fn additive(factors: impl Iterator<Item = f64>) -> f64 {
    1.0 + factors.map(|factor| factor - 1.0).sum::<f64>()
}

impl Crowd {
    /// Factor by which a launch slows down that launches elsewhere would slow by these factors one by one: `1 + sum (factor - 1) +
    /// added * (launches - 1)`, and never less than the largest of them.
    pub fn slowdown(&self, factors: impl Iterator<Item = f64>) -> f64 {
        let (mut sum, mut worst, mut launches) = (0.0, 1.0_f64, 0_u32);
        for factor in factors {
            sum += factor - 1.0;
            worst = worst.max(factor);
            launches += 1;
        }
        let further = f64::from(launches.saturating_sub(1));
        (1.0 + sum + self.added * further).max(worst)
    }

    /// The number with the least squared error over `triples`: the mean of what was measured beyond the sum of pairs. Of a triple no more
    /// than [`FAIR`] counts, unless its pairs add up to more. `pair` gives the factor of one of the others by its name; a triple with
    /// somebody unknown is not counted. `None`: nothing was measured.
    pub fn fit(triples: Vec<Triple>, pair: impl Fn(&str) -> Option<f64>) -> Option<Crowd> {
        let beyond = |t: &Triple| {
            let [a, b] = &t.with;
            let pairs = additive([pair(a)?, pair(b)?].into_iter());
            Some(t.factor.min(FAIR.max(pairs)) - pairs)
        };
        let beyond: Vec<f64> = triples.iter().filter_map(beyond).collect();
        let added = beyond.iter().sum::<f64>() / beyond.len() as f64;
        (!beyond.is_empty()).then_some(Crowd { added, triples })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(added: f64) -> Crowd {
        Crowd { added, triples: Vec::new() }
    }

    #[test]
    fn slow_downs_by_hand() {
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got}, not {want}");
        near(additive([1.5, 1.25].into_iter()), 1.75);
        // One other or none is what was measured; each further one adds a quarter.
        near(crowd(0.25).slowdown([].into_iter()), 1.0);
        near(crowd(0.25).slowdown([1.5].into_iter()), 1.5);
        near(crowd(0.25).slowdown([1.5, 1.25].into_iter()), 2.0);
        near(crowd(0.25).slowdown([1.5, 1.25, 1.0].into_iter()), 2.25);
        // Whoever shares never gains by it.
        near(crowd(-0.1).slowdown([1.5, 1.25].into_iter()), 1.65);
        near(crowd(-0.7).slowdown([1.5, 1.25].into_iter()), 1.5);
    }

    #[test]
    fn the_fit_has_the_least_squared_error() {
        let pairs =
            |name: &str| [("a", 1.2), ("b", 1.1), ("c", 1.4)].iter().find(|p| p.0 == name).map(|p| p.1);
        let triple = |a: &str, b: &str, factor| Triple { with: [a.into(), b.into()], factor };
        let triples = vec![
            triple("a", "b", 1.6),
            triple("a", "c", 1.7),
            triple("b", "c", 1.7),
            triple("a", "gone", 9.0),
        ];
        // Beyond the pairs: 0.3, 0.1, 0.2.
        let fitted = Crowd::fit(triples, pairs).unwrap();
        assert!((fitted.added - 0.2).abs() < 1e-12 && fitted.triples.len() == 4, "{fitted:?}");
        let error = |added: f64| {
            let of = |t: &Triple| {
                let factors = t.with.iter().filter_map(|name| pairs(name));
                (t.factor - crowd(added).slowdown(factors)).powi(2)
            };
            fitted.triples[..3].iter().map(of).sum::<f64>()
        };
        // The saboteurs: no other number, that of plain addition among them, has less.
        for other in [0.0, 0.1, 0.19, 0.21, 0.3, -0.2] {
            assert!(error(other) > error(fitted.added), "{other}");
        }
        // Who waits for its turn: 3 counts, not 100. The measurement itself stays as it is.
        let waits = Crowd::fit(vec![triple("a", "b", 100.0)], pairs).unwrap();
        assert!((waits.added - 1.7).abs() < 1e-12 && waits.triples[0].factor == 100.0, "{waits:?}");
        assert_eq!(Crowd::fit(vec![triple("a", "gone", 2.0)], pairs), None);
        assert_eq!(Crowd::fit(Vec::new(), pairs), None);
    }
}
