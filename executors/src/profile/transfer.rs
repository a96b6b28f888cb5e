//! What it costs to bring a segment's tensors to a processor that keeps them: fitted to what segments in a row take less than one by one.
//! It refuses a fit that does not make such rows come out better.

use super::latency::Timed;
use crate::deploy::Deployed;
use cosched_env::plan::Cost;

/// The cost of a copy to a processor and, later, back: `us + bytes / gbps`, as in [`cosched_env::plan::ProcessorSpec`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Transfer {
    pub us: f64,
    /// 0: no matter how many bytes.
    pub gbps: f64,
    /// How it was found, in words.
    pub source: String,
}

/// Said where copies are part of the latencies.
const INSIDE: &str = "part of the measured latencies";

/// The key of the provenance that says where a processor's copies are.
pub(super) fn key(processor: &str) -> String {
    format!("transfer {processor}")
}

/// A model whose segments all run on one processor.
struct Row {
    /// Segments after the first: copies that are not made in a row.
    copies: f64,
    /// Bytes that those segments read, in millions.
    mb: f64,
    /// Microseconds that the segments take one by one, each from the host and back.
    apart_us: f64,
    /// Microseconds that they take in a row.
    row_us: f64,
}

/// At least this share of a measured latency is believed to be computing.
const COMPUTING: f64 = 0.2;

impl Transfer {
    fn inside() -> Transfer {
        Transfer { source: INSIDE.into(), ..Transfer::default() }
    }

    /// The transfer costs that a plan holds.
    pub fn of(us: f64, gbps: f64, source: &str) -> Transfer {
        Transfer { us, gbps, source: source.to_owned() }
    }

    /// Fits the rows that were timed, if there are any.
    pub fn fit(variants: &[Deployed], timed: &Timed) -> Transfer {
        let row = |(&v, saved_us): (&usize, &f64)| {
            let segments = &variants[v].segments;
            let bytes: usize = segments[1..].iter().map(|s| s.input_bytes).sum();
            let apart_us = (0..segments.len()).map(|s| timed.costs[&(v, s)].p50_us).sum::<f64>();
            let row_us = apart_us - saved_us;
            Row { copies: (segments.len() - 1) as f64, mb: bytes as f64 / 1e6, apart_us, row_us }
        };
        let rows: Vec<Row> = timed.saved.iter().map(row).collect();
        let (us, per_mb) = fit(&rows);
        let error = |taken: &dyn Fn(&Row) -> f64| {
            rows.iter().map(|r| (taken(r) / r.row_us - 1.0).abs()).sum::<f64>() / rows.len() as f64
        };
        let apart = error(&|r| r.apart_us);
        let fitted = error(&|r| r.apart_us - us * r.copies - per_mb * r.mb);
        if rows.is_empty() || us + per_mb <= 0.0 || fitted >= apart {
            return Transfer::inside();
        }
        // Microseconds a million bytes; GB/s are thousands of bytes a microsecond.
        let gbps = if per_mb > 0.0 { 1e3 / per_mb } else { 0.0 };
        let (count, apart, fitted) = (rows.len(), 100.0 * apart, 100.0 * fitted);
        let source = format!(
            "fitted: segments in a row come out {fitted:.0} % off instead of {apart:.0} %, mean of {count} model(s)"
        );
        Transfer { us, gbps, source }
    }

    /// A measured cost, which has the copies in it, without them.
    pub fn without(&self, cost: Cost, input_bytes: usize) -> Cost {
        let copying = if self.gbps > 0.0 { input_bytes as f64 / 1e3 / self.gbps } else { 0.0 };
        let less = |us: f64| (us - self.us - copying).max(COMPUTING * us);
        Cost { mean_us: less(cost.mean_us), p50_us: less(cost.p50_us), p95_us: less(cost.p95_us), ..cost }
    }
}

/// Microseconds a copy and microseconds a million bytes with the least squared error, neither below 0.
fn fit(rows: &[Row]) -> (f64, f64) {
    let sum = |of: &dyn Fn(&Row) -> f64| rows.iter().map(of).sum::<f64>();
    let excess = |r: &Row| r.apart_us - r.row_us;
    let (cc, cm, mm) = (sum(&|r| r.copies * r.copies), sum(&|r| r.copies * r.mb), sum(&|r| r.mb * r.mb));
    let (ce, me) = (sum(&|r| r.copies * excess(r)), sum(&|r| r.mb * excess(r)));
    let determinant = cc * mm - cm * cm;
    // Two numbers from fewer than three models would be guessed.
    if rows.len() >= 3 && determinant > 1e-6 * cc * mm {
        let both = ((ce * mm - me * cm) / determinant, (me * cc - ce * cm) / determinant);
        if both.0 >= 0.0 && both.1 >= 0.0 {
            return both;
        }
    }
    let alone = |product: f64, square: f64| if square > 0.0 { (product / square).max(0.0) } else { 0.0 };
    let (fixed, rate) = (alone(ce, cc), alone(me, mm));
    let error = |us: f64, per_mb: f64| sum(&|r| (excess(r) - us * r.copies - per_mb * r.mb).powi(2));
    if error(fixed, 0.0) <= error(0.0, rate) { (fixed, 0.0) } else { (0.0, rate) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(copies: f64, mb: f64, excess_us: f64) -> Row {
        Row { copies, mb, apart_us: 5000.0 + excess_us, row_us: 5000.0 }
    }

    #[test]
    fn fits_by_hand() {
        let near = |got: (f64, f64), want: (f64, f64)| {
            assert!((got.0 - want.0).abs() < 1e-6 && (got.1 - want.1).abs() < 1e-6, "{got:?}, not {want:?}");
        };
        // 200 us a copy and 50 us a million bytes.
        let rows = |us: f64, per_mb: f64| {
            [(1.0, 4.0), (3.0, 1.0), (7.0, 2.0)].map(|(c, mb)| row(c, mb, us * c + per_mb * mb))
        };
        near(fit(&rows(200.0, 50.0)), (200.0, 50.0));
        near(fit(&rows(0.0, 50.0)), (0.0, 50.0));
        // One model says what a copy costs, not of what that is made. Noise below 0 is no gain.
        near(fit(&[row(3.0, 1.0, 600.0)]), (200.0, 0.0));
        near(fit(&[row(3.0, 1.0, -60.0)]), (0.0, 0.0));
        near(fit(&[]), (0.0, 0.0));
    }

    #[test]
    fn a_launch_of_one_segment_still_takes_what_was_measured() {
        let transfer = Transfer { us: 200.0, gbps: 2.0, source: String::new() };
        let cost = Cost { mean_us: 1000.0, p50_us: 900.0, p95_us: 1500.0, energy_mj: 0.0 };
        // 200 us and 100,000 bytes at 2 GB/s: 250 us.
        let less = transfer.without(cost, 100_000);
        assert_eq!((less.mean_us, less.p50_us, less.p95_us), (750.0, 650.0, 1250.0));
        // Never all of it.
        assert_eq!(transfer.without(cost, 100_000_000).mean_us, 200.0);
    }
}
