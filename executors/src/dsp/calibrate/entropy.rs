//! Chooses a range by entropy: of all ranges it takes the one whose u8 form loses least information about the numbers, measured by the
//! Kullback-Leibler divergence between their distribution, saturated at the range's ends, and the distribution that is left when the range is
//! told by 256 levels (S. Migacz, "8-bit inference with TensorRT", GTC 2017, which does so for magnitudes and 128 levels; ours are
//! asymmetric as u8 is). It refuses to look at exact zeros, which cost nothing in any range.

use super::histogram::Histogram;

/// Steps of u8.
const LEVELS: usize = 255;
/// Ranges that are tried differ by so many bins.
const STRIDE: usize = 16;
/// The probability that stands for none, so that a number that the levels cannot tell costs much and not infinitely much.
const RARE: f64 = 1e-9;

/// The magnitude beyond which numbers may saturate: the range is from minus to plus this, as far as there are numbers.
pub fn reach(histogram: &Histogram) -> f64 {
    let (below, above) = (histogram.below(), histogram.above());
    let whole = below.len().max(above.len());
    let mut best = (whole, f64::INFINITY);
    let mut bins = whole;
    // From the widest on: of equal ones it saturates least.
    while below.len().min(bins) + above.len().min(bins) > LEVELS {
        let lost = divergence(below, above, bins);
        if lost < best.1 {
            best = (bins, lost);
        }
        bins = bins.saturating_sub(STRIDE);
    }
    best.0 as f64 * histogram.width()
}

/// What is lost when the range ends `bins` bins from zero on both sides.
fn divergence(below: &[u64], above: &[u64], bins: usize) -> f64 {
    let (low, high) = (below.len().min(bins), above.len().min(bins));
    let mut kept: Vec<f64> = below[..low].iter().rev().chain(&above[..high]).map(|&n| n as f64).collect();
    let told = tell(&kept);
    let beyond = |side: &[u64], from: usize| side[from..].iter().sum::<u64>() as f64;
    if let Some(first) = kept.first_mut() {
        *first += beyond(below, low);
    }
    if let Some(last) = kept.last_mut() {
        *last += beyond(above, high);
    }
    let (all, all_told): (f64, f64) = (kept.iter().sum(), told.iter().sum());
    if all_told == 0.0 {
        return f64::INFINITY;
    }
    let pairs = kept.iter().zip(&told).filter(|(p, _)| **p > 0.0);
    pairs.map(|(p, q)| (p / all) * ((p / all) / (q / all_told).max(RARE)).ln()).sum()
}

/// The distribution that is left of `kept` when neighbouring bins are told by [`LEVELS`] levels: each level's count is spread evenly over those of
/// its bins that had any.
fn tell(kept: &[f64]) -> Vec<f64> {
    let mut told = vec![0.0; kept.len()];
    let start = |level: usize| (level * kept.len()).div_ceil(LEVELS);
    for level in 0..LEVELS {
        let bins = start(level)..start(level + 1);
        let some = kept[bins.clone()].iter().filter(|n| **n > 0.0).count();
        let share = kept[bins.clone()].iter().sum::<f64>() / some.max(1) as f64;
        bins.filter(|&i| kept[i] > 0.0).for_each(|i| told[i] = share);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_share_out_what_they_cannot_tell() {
        // Twice as many bins as levels: pairs become their mean, where both have any.
        let mut kept = vec![0.0; 2 * LEVELS];
        (kept[0], kept[1], kept[2]) = (3.0, 1.0, 5.0);
        let told = tell(&kept);
        assert_eq!((told[0], told[1], told[2], told[3]), (2.0, 2.0, 5.0, 0.0));
        assert_eq!(told.iter().sum::<f64>(), kept.iter().sum::<f64>());
    }

    #[test]
    fn the_divergence_is_that_worked_out_by_hand() {
        // 510 positive bins, all counts in the first two: 3 and 1 are told as 2 and 2.
        let mut above = vec![0u64; 2 * LEVELS];
        (above[0], above[1], above[509]) = (3, 1, 0);
        let by_hand = 0.75 * (0.75f64 / 0.5).ln() + 0.25 * (0.25f64 / 0.5).ln();
        assert!((divergence(&[], &above, 510) - by_hand).abs() < 1e-12);
        // Saturation by hand: 4 numbers beyond the range join its last bin, which had none and is told as none.
        let mut far = above.clone();
        far.resize(1000, 0);
        far[900] = 4;
        let by_hand = 3.0 / 8.0 * (3.0f64 / 8.0 / 0.5).ln()
            + 1.0 / 8.0 * (1.0f64 / 8.0 / 0.5).ln()
            + 0.5 * (0.5 / RARE).ln();
        assert!((divergence(&[], &far, 510) - by_hand).abs() < 1e-9);
        // The saboteur: who forgets what saturates finds no difference.
        assert!((divergence(&[], &far[..510], 510) - by_hand).abs() > 1.0);
    }

    #[test]
    fn few_bins_are_told_exactly() {
        let mut histogram = Histogram::default();
        histogram.add(&[1.0, -1.0]);
        assert!(reach(&histogram) >= 1.0);
    }
}
