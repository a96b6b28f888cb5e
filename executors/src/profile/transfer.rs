//! What copies between the host and a processor that keeps tensors take: what segments in a row take less than one by one, told in the plan's
//! provenance. It refuses to take that out of the latencies: live runs are slower than the profile by more, for other reasons, so that
//! emulated rows would be further from live ones and not nearer (ARCHITECTURE.md has the numbers).

use super::latency::Timed;
use crate::deploy::Deployed;

/// The key of the provenance that tells it.
pub(super) fn key(processor: &str) -> String {
    format!("transfer {processor}")
}

/// Tells it, as far as rows were timed.
pub(super) fn told(variants: &[Deployed], timed: &Timed) -> String {
    let copies = |v: usize| variants[v].segments.len() - 1;
    let saved = timed.saved.iter().map(|(&v, &us)| (copies(v), us));
    match each(saved) {
        None => "part of the measured latencies".into(),
        Some(us) => format!(
            "part of the measured latencies; in a row each segment after the first takes {us:.0} us less"
        ),
    }
}

/// Microseconds that each copy takes, by least squares over (copies, microseconds that all of them take); `None` of none.
fn each(saved: impl Iterator<Item = (usize, f64)>) -> Option<f64> {
    let add = |(product, square), (copies, us): (usize, f64)| {
        let copies = copies as f64;
        (product + copies * us, square + copies * copies)
    };
    let (product, square) = saved.fold((0.0, 0.0), add);
    (square > 0.0).then(|| f64::max(product / square, 0.0))
}

#[cfg(test)]
mod tests {
    use super::each;

    #[test]
    fn a_copy_by_hand() {
        // 200 us each, exactly and with errors that cancel: 1 * 230 + 3 * 590 = 10 * 200.
        assert_eq!(each([(1, 200.0), (3, 600.0)].into_iter()), Some(200.0));
        assert_eq!(each([(1, 230.0), (3, 590.0)].into_iter()), Some(200.0));
        // The saboteur: the mean of the two ratios would be another number. Noise below 0 is no gain.
        assert_ne!((230.0 + 590.0 / 3.0) / 2.0, 200.0);
        assert_eq!(each([(3, -60.0)].into_iter()), Some(0.0));
        assert_eq!(each([].into_iter()), None);
    }
}
