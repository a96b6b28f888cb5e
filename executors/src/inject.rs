//! Faults on purpose, for tests and drills: at a share of launches (or decisions) something goes wrong as it would by itself. Seeded, so
//! the same order of launches meets the same faults. It refuses to act anywhere but where it was asked for: preparing, measuring and
//! probing are never hit.

use cosched_env::streams::rng;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The launch fails.
    Fail,
    /// The processor dies under the launch.
    Die,
    /// The launch does not end for this long, then goes on.
    Hang(Duration),
    /// The outputs hold NaN.
    Nan,
    /// The policy panics.
    Panic,
    /// The policy takes this much longer.
    Slow(Duration),
}

/// A fault and where it strikes: `WHAT:HOW[=MS]:SHARE`, e.g. `cpu:die:0.01`, `dsp:hang=2000:0.001`, `policy:panic:0.1`.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// A processor, or `policy`.
    pub what: String,
    /// What goes wrong there.
    pub how: How,
    /// At which share of launches or decisions, 0 to 1.
    pub share: f64,
}

/// The word for the policy in place of a processor.
pub const POLICY: &str = "policy";

/// Why a text is no [`Injection`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected WHAT:HOW:SHARE, WHAT a processor (fail, die, nan, hang=MS) or `policy` (panic, slow=MS), SHARE from 0 to 1; got `{0}`"
)]
pub struct NoInjection(String);

impl FromStr for Injection {
    type Err = NoInjection;

    fn from_str(text: &str) -> Result<Injection, NoInjection> {
        let wrong = || NoInjection(text.to_owned());
        let parts: Vec<_> = text.split(':').collect();
        let &[what, how, share] = parts.as_slice() else { return Err(wrong()) };
        let (word, ms) = how.split_once('=').map_or((how, None), |(word, ms)| (word, ms.parse().ok()));
        let long = ms.map(Duration::from_millis);
        let how = match (what == POLICY, word, long) {
            (false, "fail", None) => How::Fail,
            (false, "die", None) => How::Die,
            (false, "nan", None) => How::Nan,
            (false, "hang", Some(long)) => How::Hang(long),
            (true, "panic", None) => How::Panic,
            (true, "slow", Some(long)) => How::Slow(long),
            _ => return Err(wrong()),
        };
        let share = share.parse().ok().filter(|s| (0.0..=1.0).contains(s)).ok_or_else(wrong)?;
        Ok(Injection { what: what.to_owned(), how, share })
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Injection { what, how, share } = self;
        match how {
            How::Fail => write!(f, "{what}:fail:{share}"),
            How::Die => write!(f, "{what}:die:{share}"),
            How::Nan => write!(f, "{what}:nan:{share}"),
            How::Panic => write!(f, "{what}:panic:{share}"),
            How::Hang(long) => write!(f, "{what}:hang={}:{share}", long.as_millis()),
            How::Slow(long) => write!(f, "{what}:slow={}:{share}", long.as_millis()),
        }
    }
}

/// Decides when a fault strikes at one place.
#[derive(Clone, Debug)]
pub struct Striker {
    faults: Vec<(How, f64)>,
    random: Pcg64Mcg,
}

impl Striker {
    /// Of those faults that strike at `what`.
    pub fn new(injections: &[Injection], what: &str) -> Striker {
        let here = injections.iter().filter(|i| i.what == what);
        Striker {
            faults: here.map(|i| (i.how, i.share)).collect(),
            random: rng(1, &format!("faults of {what}"), 0),
        }
    }

    /// What goes wrong this time.
    pub fn strike(&mut self) -> Option<How> {
        let Striker { faults, random } = self;
        faults.iter().find(|(_, share)| random.random_bool(*share)).map(|&(how, _)| how)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injections_are_read_as_they_are_written() {
        for text in [
            "cpu:die:0.01",
            "dsp:hang=2000:0.001",
            "wgpu:nan:1",
            "cpu:fail:0",
            "policy:panic:0.5",
            "policy:slow=20:0.1",
        ] {
            assert_eq!(text.parse::<Injection>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "cpu",
            "cpu:die",
            "cpu:die:2",
            "cpu:die:-0.1",
            "cpu:die:NaN",
            "cpu:hang:0.1",
            "cpu:hang=x:0.1",
            "cpu:panic:0.1",
            "policy:die:0.1",
            "cpu:die=3:0.1",
            "cpu:die:0.1:0",
        ] {
            assert!(
                text.parse::<Injection>().unwrap_err().to_string().contains("expected WHAT:HOW:SHARE"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_share_is_met() {
        let injections = ["cpu:fail:0.25", "cpu:die:0.5", "dsp:nan:1"].map(|text| text.parse().unwrap());
        let mut striker = Striker::new(&injections, "cpu");
        let seen: Vec<_> = (0..4000).map(|_| striker.strike()).collect();
        let share = |how| seen.iter().filter(|s| **s == how).count() as f64 / 4000.0;
        // A quarter; half of what is left; the rest.
        for (how, wanted) in [(Some(How::Fail), 0.25), (Some(How::Die), 0.375), (None, 0.375)] {
            assert!((share(how) - wanted).abs() < 0.03, "{how:?}: {}", share(how));
        }
        assert_eq!(Striker::new(&injections, "wgpu").strike(), None);
    }
}
