//! Finds the ranges of a graph's inner tensors by running its f32 form in onnxruntime on the user's samples. What is remembered of a tensor is
//! its least and greatest number and a histogram of fixed size, so memory does not grow with the number of samples, and one pass
//! serves every [`Method`]. It refuses to work without samples: an invented range would give silently wrong numbers.

mod entropy;
mod histogram;

pub use histogram::Histogram;

use crate::graph::{Graph, ValueId};
use crate::processor::ExecError;
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How the range of a tensor is chosen from what the samples showed. What lies outside the range saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Method {
    /// All of it: nothing saturates, and one outlier makes every step coarser.
    #[default]
    MinMax,
    /// The middle so many percent of all numbers, half of the rest cut on each side.
    Percentile(f64),
    /// The range whose u8 form tells least apart from the original: least Kullback-Leibler divergence (S. Migacz, "8-bit inference
    /// with TensorRT", GTC 2017). It suits convolutional networks.
    Entropy,
}

/// The percentile where none is said.
pub const PERCENTILE: f64 = 99.99;

impl Method {
    /// The words that name a method.
    pub const NAMES: [&str; 3] = ["min-max", "percentile", "entropy"];

    /// All methods, each as it is by default.
    pub const ALL: [Method; 3] = [Method::MinMax, Method::Percentile(PERCENTILE), Method::Entropy];

    /// The method of that name; `percentile` is for the method of that name only.
    ///
    /// # Errors
    /// An unknown name, a percentile for another method, or one that is not above 50 and at most 100.
    pub fn named(name: &str, percentile: Option<f64>) -> Result<Method, String> {
        let method = match name {
            "min-max" => Method::MinMax,
            "percentile" => Method::Percentile(percentile.unwrap_or(PERCENTILE)),
            "entropy" => Method::Entropy,
            _ => return Err(format!("expected one of {}, got `{name}`", Method::NAMES.join(", "))),
        };
        match (method, percentile) {
            (Method::Percentile(p), _) if p > 50.0 && p <= 100.0 => Ok(method),
            (Method::Percentile(p), _) => {
                Err(format!("expected a percentile above 50 and at most 100, got {p}"))
            }
            (_, Some(p)) => Err(format!("the percentile {p} is for the method percentile, not for {name}")),
            (_, None) => Ok(method),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::MinMax => f.write_str("min-max"),
            Method::Percentile(p) => write!(f, "percentile {p}"),
            Method::Entropy => f.write_str("entropy"),
        }
    }
}

/// What the samples showed of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    min: f32,
    max: f32,
    histogram: Histogram,
}

impl Default for Seen {
    fn default() -> Self {
        Self { min: f32::INFINITY, max: f32::NEG_INFINITY, histogram: Histogram::default() }
    }
}

impl Seen {
    /// Adds numbers. What is not finite is kept as such in the range, which nothing can then be quantised with.
    pub fn see(&mut self, data: &[f32]) {
        for &x in data {
            // `min` and `max` of f32 skip NaN, which must not be missed.
            if x.is_nan() || self.min.is_nan() {
                (self.min, self.max) = (f32::NAN, f32::NAN);
            } else {
                (self.min, self.max) = (self.min.min(x), self.max.max(x));
            }
        }
        self.histogram.add(data);
    }

    /// Least and greatest number of the range that `method` chooses, never beyond those that were seen. They are not finite when one
    /// of the numbers was not, or there was none.
    pub fn range(&self, method: Method) -> (f32, f32) {
        if !(self.min.is_finite() && self.max.is_finite()) {
            return (self.min, self.max);
        }
        let inside = |low: f64, high: f64| ((low as f32).max(self.min), (high as f32).min(self.max));
        match method {
            Method::MinMax => (self.min, self.max),
            Method::Percentile(p) => {
                let cut = (100.0 - p) / 200.0;
                inside(self.histogram.quantile(cut), self.histogram.quantile(1.0 - cut))
            }
            Method::Entropy => {
                let reach = entropy::reach(&self.histogram);
                inside(-reach, reach)
            }
        }
    }
}

/// Runs `graph` on all `samples` (each in the order of `graph.inputs`, checked by the caller) and looks at the values of `needed`, which are f32.
///
/// # Errors
/// What onnxruntime said.
pub fn observe(
    graph: &Graph,
    needed: &BTreeSet<ValueId>,
    samples: &[Vec<Tensor>],
) -> Result<BTreeMap<ValueId, Seen>, ExecError> {
    let mut seen: BTreeMap<ValueId, Seen> = BTreeMap::new();
    let mut see = |id: ValueId, tensor: &Tensor| {
        if let Some(data) = tensor.as_f32() {
            seen.entry(id).or_default().see(data);
        }
    };
    for sample in samples {
        let inputs = graph.inputs.iter().zip(sample);
        inputs.filter(|(id, _)| needed.contains(id)).for_each(|(id, tensor)| see(*id, tensor));
    }
    let inner: Vec<ValueId> = needed.iter().copied().filter(|id| !graph.inputs.contains(id)).collect();
    if inner.is_empty() {
        return Ok(seen);
    }
    let mut open = crate::cpu::reference(&Graph { outputs: inner.clone(), ..graph.clone() })?;
    for sample in samples {
        let results = open.run(&sample.iter().collect::<Vec<_>>())?;
        inner.iter().zip(&results).for_each(|(id, tensor)| see(*id, tensor));
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};

    fn seen(data: &[f32]) -> Seen {
        let mut seen = Seen::default();
        seen.see(data);
        seen
    }

    #[test]
    fn names_and_percentiles_are_checked() {
        for (name, method) in Method::NAMES.into_iter().zip(Method::ALL) {
            assert_eq!(Method::named(name, None), Ok(method));
            assert!(method.to_string().starts_with(name));
        }
        assert_eq!(Method::named("percentile", Some(99.0)), Ok(Method::Percentile(99.0)));
        for (name, percentile) in [
            ("minmax", None),
            ("percentile", Some(50.0)),
            ("percentile", Some(100.5)),
            ("percentile", Some(f64::NAN)),
            ("entropy", Some(99.0)),
        ] {
            assert!(Method::named(name, percentile).is_err(), "{name} {percentile:?}");
        }
    }

    #[test]
    fn a_percentile_is_that_of_the_sorted_numbers() {
        let data: Vec<f32> = (1..=1000).map(|i| i as f32 / 100.0 - 2.0).collect();
        let seen = seen(&data);
        // 10 % on each side of 1000 numbers: the 100th and the 900th, -1 and 7, within a bin of 16 / 4096.
        let (low, high) = seen.range(Method::Percentile(80.0));
        assert!((low + 1.0).abs() < 0.02 && (high - 7.0).abs() < 0.02, "{low}..{high}");
        // The saboteur: the whole 20 % on one side, or on both.
        let other = seen.range(Method::Percentile(60.0));
        assert!((other.0 + 1.0).abs() > 0.5 && (other.1 - 7.0).abs() > 0.5, "{other:?}");
        assert_eq!(seen.range(Method::Percentile(100.0)), seen.range(Method::MinMax));
        assert_eq!(seen.range(Method::MinMax), (-1.99, 8.0));
    }

    #[test]
    fn outliers_move_min_max_only() {
        // 100,000 normal numbers, of which 10 are beyond 3.9, and one of 100.
        let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(1);
        let mut data: Vec<f32> = (0..100_000).map(|_| StandardNormal.sample(&mut random)).collect();
        data[777] = 100.0;
        let seen = seen(&data);
        assert_eq!(seen.range(Method::MinMax).1, 100.0);
        for method in [Method::Percentile(99.99), Method::Entropy] {
            let (low, high) = seen.range(method);
            assert!((-5.0..-3.0).contains(&low) && (3.0..6.0).contains(&high), "{method}: {low}..{high}");
        }
    }

    #[test]
    fn what_is_not_finite_stays_seen() {
        for method in Method::ALL {
            for (data, last) in [([1.0, f32::NAN], 2.0), ([1.0, f32::INFINITY], 2.0)] {
                let mut seen = seen(&data);
                seen.see(&[last]);
                let (low, high) = seen.range(method);
                assert!(!(low.is_finite() && high.is_finite()), "{method}: {low}..{high}");
            }
            assert_eq!(seen(&[0.0, -0.0]).range(method), (0.0, 0.0), "{method}");
            assert_eq!(seen(&[3.0; 9]).range(method).1, 3.0, "{method}");
        }
    }
}
