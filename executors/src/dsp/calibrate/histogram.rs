//! A histogram of numbers whose range is not known before: it reaches to a power of two on both sides of zero and doubles when a greater
//! number comes, which merges its bins in pairs exactly. So it does not depend on the order in which the numbers come.
//! It refuses to count what is not finite.

/// Bins on each side of zero.
pub const HALF: usize = 4096;

/// How many numbers lie where. Exact zeros are counted apart: they are exact in every range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// The bins end at this power of two, on both sides; 0 while nothing but zeros came.
    reach: f64,
    /// By magnitude: bin `i` holds those from `i` to `i + 1` times the width.
    below: Vec<u64>,
    above: Vec<u64>,
    zeros: u64,
}

impl Histogram {
    /// Counts the finite ones of `data`.
    pub fn add(&mut self, data: &[f32]) {
        let finite = data.iter().copied().filter(|x| x.is_finite());
        let greatest = finite.clone().fold(0f32, |m, x| m.max(x.abs()));
        self.widen(f64::from(greatest));
        let bins = if self.reach > 0.0 { HALF as f64 / self.reach } else { 0.0 };
        for x in finite {
            let bin = (f64::from(x.abs()) * bins) as usize;
            match x {
                0.0 => self.zeros += 1,
                _ if x < 0.0 => self.below[bin] += 1,
                _ => self.above[bin] += 1,
            }
        }
    }

    /// Makes room for a number of this magnitude.
    fn widen(&mut self, greatest: f64) {
        if greatest == 0.0 {
            return;
        }
        if self.reach == 0.0 {
            self.reach = 1.0;
            while self.reach > greatest {
                self.reach /= 2.0;
            }
            (self.below, self.above) = (vec![0; HALF], vec![0; HALF]);
        }
        while self.reach <= greatest {
            self.reach *= 2.0;
            for side in [&mut self.below, &mut self.above] {
                for i in 0..HALF / 2 {
                    side[i] = side[2 * i] + side[2 * i + 1];
                }
                side[HALF / 2..].fill(0);
            }
        }
    }

    /// Width of a bin.
    pub fn width(&self) -> f64 {
        self.reach / HALF as f64
    }

    /// Counts of the negative numbers by magnitude, up to the last bin that has any.
    pub fn below(&self) -> &[u64] {
        used(&self.below)
    }

    /// Counts of the positive numbers, up to the last bin that has any.
    pub fn above(&self) -> &[u64] {
        used(&self.above)
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.zeros + self.below.iter().chain(&self.above).sum::<u64>()
    }

    /// The number below which a share (0 to 1) of all lies, interpolated within its bin; 0 when nothing was counted.
    pub fn quantile(&self, share: f64) -> f64 {
        let target = share * self.total() as f64;
        let width = self.width();
        let mut before = 0.0;
        for (i, &count) in self.below().iter().enumerate().rev() {
            let count = count as f64;
            if count > 0.0 && before + count >= target {
                return -((i + 1) as f64 - (target - before) / count) * width;
            }
            before += count;
        }
        before += self.zeros as f64;
        if self.zeros > 0 && before >= target {
            return 0.0;
        }
        for (i, &count) in self.above().iter().enumerate() {
            let count = count as f64;
            if count > 0.0 && before + count >= target {
                return (i as f64 + (target - before) / count) * width;
            }
            before += count;
        }
        self.above().len() as f64 * width
    }
}

fn used(side: &[u64]) -> &[u64] {
    let end = side.iter().rposition(|&n| n > 0).map_or(0, |last| last + 1);
    &side[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&[f32]]) -> Histogram {
        let mut histogram = Histogram::default();
        parts.iter().for_each(|part| histogram.add(part));
        histogram
    }

    #[test]
    fn the_order_does_not_matter() {
        let (small, large, zero): (&[f32], &[f32], &[f32]) =
            (&[1e-3, -2e-3, 5e-4], &[7.0, -300.0], &[0.0, 0.0]);
        let first = of(&[small, large, zero]);
        assert_eq!(first, of(&[zero, large, small]));
        assert_eq!(first, of(&[large, zero, small]));
        assert_eq!((first.total(), first.width()), (7, 512.0 / 4096.0));
        // The saboteur: one number less is another histogram.
        assert_ne!(first, of(&[small, &large[..1], zero]));
    }

    #[test]
    fn bins_are_where_they_say() {
        let histogram = of(&[&[1.0, 1.5, -0.5, 0.0, f32::NAN, f32::INFINITY]]);
        // It reaches to 2, so a bin is 1/2048 wide.
        assert_eq!((histogram.above().len(), histogram.below().len(), histogram.total()), (3073, 1025, 4));
        assert_eq!((histogram.above()[2048], histogram.above()[3072], histogram.below()[1024]), (1, 1, 1));
        assert_eq!(histogram.quantile(0.5), 0.0);
    }

    #[test]
    fn extremes_fit() {
        let histogram = of(&[&[1e-45, f32::MAX, -f32::MAX]]);
        assert_eq!(histogram.total(), 3);
        assert_eq!(of(&[]).quantile(0.5), 0.0);
    }
}
