//! The little statistics that reports need: means with 95 % intervals (Student), paired tests, Holm's correction, Jain's fairness.
//! It refuses to give an interval or a test where the sample is too small for one: that is `None`, not zero.

use serde::{Deserialize, Serialize};

/// A mean over seeds and half the width of its 95 % confidence interval (`None` below two samples).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Arithmetic mean.
    pub mean: f64,
    /// The interval is `mean - half95 ..= mean + half95`.
    pub half95: Option<f64>,
}

impl Estimate {
    /// Of a sample; `None` when it is empty.
    pub fn of(sample: &[f64]) -> Option<Estimate> {
        let n = sample.len();
        if n == 0 {
            return None;
        }
        let mean = mean(sample);
        let half95 =
            (n > 1).then(|| t_quantile(0.975, (n - 1) as f64) * deviation(sample) / (n as f64).sqrt());
        Some(Estimate { mean, half95 })
    }
}

/// Arithmetic mean; 0 of nothing.
pub fn mean(sample: &[f64]) -> f64 {
    if sample.is_empty() { 0.0 } else { sample.iter().sum::<f64>() / sample.len() as f64 }
}

/// Sample standard deviation (divisor n - 1); 0 below two samples.
pub fn deviation(sample: &[f64]) -> f64 {
    let n = sample.len();
    if n < 2 {
        return 0.0;
    }
    let mean = mean(sample);
    (sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1) as f64).sqrt()
}

/// Two-sided p-value of the paired t-test that `differences` have mean 0. `None` below two samples. Differences that are all the
/// same give 1 when they are 0, else 0.
pub fn paired_p(differences: &[f64]) -> Option<f64> {
    let n = differences.len();
    if n < 2 {
        return None;
    }
    let (m, s) = (mean(differences), deviation(differences));
    if s == 0.0 {
        return Some(if m == 0.0 { 1.0 } else { 0.0 });
    }
    let t = m / (s / (n as f64).sqrt());
    Some(2.0 * t_cdf(-t.abs(), (n - 1) as f64))
}

/// Holm's step-down correction of p-values of one family, in the given order.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut least = 0.0_f64;
    for (rank, &i) in order.iter().enumerate() {
        least = least.max((p[i] * (p.len() - rank) as f64).min(1.0));
        adjusted[i] = least;
    }
    adjusted
}

/// Jain's fairness index `(sum x)^2 / (n sum x^2)`, from 1/n (one has all) to 1 (all have the same, nothing included).
pub fn jain(shares: &[f64]) -> f64 {
    let squares: f64 = shares.iter().map(|x| x * x).sum();
    if squares == 0.0 {
        return 1.0;
    }
    shares.iter().sum::<f64>().powi(2) / (shares.len() as f64 * squares)
}

/// The value below which Student's t with `freedom` degrees of freedom lies with probability `p`, 0 < p < 1.
pub fn t_quantile(p: f64, freedom: f64) -> f64 {
    if p < 0.5 {
        return -t_quantile(1.0 - p, freedom);
    }
    let (mut low, mut high) = (0.0, 1.0);
    while t_cdf(high, freedom) < p && high < 1e12 {
        high *= 2.0;
    }
    // Each step halves the bracket: 80 steps reach the last bit from any start.
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if t_cdf(middle, freedom) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Probability that Student's t with `freedom` degrees of freedom is below `t`.
pub fn t_cdf(t: f64, freedom: f64) -> f64 {
    let tail = 0.5 * beta_share(freedom / (freedom + t * t), 0.5 * freedom, 0.5);
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// Regularised incomplete beta function I_x(a, b), by its continued fraction.
fn beta_share(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast on one side of the mean only; the other side is its mirror.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_share(1.0 - x, b, a);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp() / a;
    front / beta_fraction(x, a, b)
}

/// `1 + d1 / (1 + d2 / (1 + ...))`, evaluated forwards as the ratio of two continuants that are rescaled as they grow.
fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    let (mut num_old, mut num, mut den_old, mut den) = (1.0, 1.0, 0.0, 1.0);
    let mut last = 1.0_f64;
    for k in 1..1000 {
        let m = f64::from(k / 2);
        let d = if k % 2 == 0 {
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        } else {
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        };
        (num_old, num) = (num, num + d * num_old);
        (den_old, den) = (den, den + d * den_old);
        (num_old, num, den_old, den) = (num_old / den, num / den, den_old / den, 1.0);
        if k % 2 == 0 && (num - last).abs() <= 1e-15 * num.abs() {
            return num;
        }
        last = num;
    }
    last
}

/// Logarithm of the gamma function for x > 0: Stirling's series, after the recurrence has brought x above 12.
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 12.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    let series = (1.0 / 12.0 - y * (1.0 / 360.0 - y * (1.0 / 1260.0 - y / 1680.0))) / x;
    shift + (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

/// How a p-value is marked: `***` below 0.001, `**` below 0.01, `*` below 0.05, else nothing; each behind a space.
pub fn stars(p: Option<f64>) -> &'static str {
    match p {
        Some(p) if p < 0.001 => " ***",
        Some(p) if p < 0.01 => " **",
        Some(p) if p < 0.05 => " *",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance * b.abs().max(1e-3), "{a} is not {b}");
    }

    /// scipy 1.x: `[scipy.stats.t.ppf(p, df) for p, df in ...]`.
    #[test]
    fn quantiles_agree_with_scipy() {
        for (p, df, expected) in SCIPY_T {
            near(t_quantile(p, df), expected, 1e-9);
            near(t_cdf(expected, df), p, 1e-10);
        }
    }
    use crate::stats_values::{SCIPY_A, SCIPY_B, SCIPY_PAIRED_P, SCIPY_T};

    /// `scipy.stats.ttest_rel(a, b).pvalue` and `statsmodels.stats.multitest.multipletests(p, method='holm')[1]`.
    #[test]
    fn paired_tests_agree_with_scipy() {
        let differences: Vec<f64> = SCIPY_A.iter().zip(SCIPY_B).map(|(a, b)| a - b).collect();
        near(paired_p(&differences).unwrap(), SCIPY_PAIRED_P, 1e-9);
        assert_eq!(paired_p(&[0.3]), None);
        assert_eq!(paired_p(&[0.0, 0.0]), Some(1.0));
        assert_eq!(paired_p(&[0.1, 0.1]), Some(0.0));
        for (ours, theirs) in holm(&[0.01, 0.04, 0.03, 0.5]).into_iter().zip([0.04, 0.09, 0.09, 0.5]) {
            near(ours, theirs, 1e-12);
        }
    }

    #[test]
    fn estimates_by_hand() {
        // t(0.975, 2) = 4.302653; deviation 1; sqrt(3).
        let e = Estimate::of(&[1.0, 2.0, 3.0]).unwrap();
        near(e.mean, 2.0, 1e-12);
        near(e.half95.unwrap(), 4.302_652_729_911_275 / 3_f64.sqrt(), 1e-9);
        assert_eq!(Estimate::of(&[5.0]).unwrap().half95, None);
        assert_eq!(Estimate::of(&[]), None);
    }

    #[test]
    fn fairness_by_hand() {
        near(jain(&[1.0, 1.0, 1.0]), 1.0, 1e-12);
        near(jain(&[1.0, 0.0, 0.0, 0.0]), 0.25, 1e-12);
        near(jain(&[0.5, 1.0]), 0.9, 1e-12);
        near(jain(&[0.0, 0.0]), 1.0, 1e-12);
    }

    /// The saboteur: a normal quantile in place of Student's must not pass for five seeds.
    #[test]
    fn the_normal_quantile_is_told_apart() {
        assert!((t_quantile(0.975, 4.0) - 1.959_964).abs() > 0.5);
    }
}
