//! Comparisons as CSV: one line a policy, one column a number. It refuses to round: every digit is there for whoever computes on.

use super::{Comparison, Row};
use crate::stats::Estimate;
use std::fmt::Write;

/// Columns of [`Comparison::csv`] and [`Row::csv`]: each estimate is its mean and half the width of its 95 % interval.
pub const CSV_HEADER: &str = "policy,utility,utility_half95,difference,difference_half95,p,on_time_share,on_time_share_half95,\
drop_share,drop_share_half95,fail_share,fail_share_half95,p50_ms,p50_ms_half95,p95_ms,p95_ms_half95,p99_ms,p99_ms_half95,\
accuracy,accuracy_half95,energy_mj,energy_mj_half95,fairness,fairness_half95,decision_us";

impl Comparison {
    /// One line a policy, and one for the bound if there is one; see [`CSV_HEADER`].
    pub fn csv(&self) -> String {
        let mut text = format!("{CSV_HEADER}\n");
        for row in &self.rows {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", row.csv());
        }
        if let Some(bound) = &self.bound {
            let _ = writeln!(text, "{}", bound.csv());
        }
        text
    }
}

impl Row {
    /// The row's values in the order of [`CSV_HEADER`]; what is not known is empty.
    pub fn csv(&self) -> String {
        let number = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
        let pair = |e: Option<&Estimate>| {
            format!("{},{}", number(e.map(|e| e.mean)), number(e.and_then(|e| e.half95)))
        };
        let difference = self.difference.as_ref();
        [
            csv_word(&self.policy),
            pair(Some(&self.utility)),
            pair(difference.map(|d| &d.utility)),
            number(difference.and_then(|d| d.p)),
            pair(Some(&self.on_time_share)),
            pair(Some(&self.drop_share)),
            pair(Some(&self.fail_share)),
            pair(self.p50_ms.as_ref()),
            pair(self.p95_ms.as_ref()),
            pair(self.p99_ms.as_ref()),
            pair(self.accuracy.as_ref()),
            pair(Some(&self.energy_mj)),
            pair(Some(&self.fairness)),
            self.decision_us.to_string(),
        ]
        .join(",")
    }
}

/// A CSV field: quoted where it has to be.
pub(crate) fn csv_word(word: &str) -> String {
    if word.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", word.replace('"', "\"\""))
    } else {
        word.to_owned()
    }
}
