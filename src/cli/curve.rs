//! The learning curve as CSV, a line an update: it is kept while a training runs, and goes on where a stopped training goes on.
//! It refuses to lose lines: what an older run wrote stays, up to the point from which the training goes on.

use cosched::agent::file::write_whole;
use cosched::agent::train::Progress;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

const HEADER: &str = "seconds,decisions,imitating,utility,policy_loss,value_loss,entropy,divergence,learning_rate,gradient_steps";

/// An open curve file.
pub struct Curve(File);

impl Curve {
    /// Begins a new curve.
    ///
    /// # Errors
    /// Names the file.
    pub fn create(path: &Path) -> Result<Curve, String> {
        let mut file = File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
        writeln!(file, "{HEADER}").map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Curve(file))
    }

    /// Goes on with the curve of a training that had learned from `decisions` when it was saved. Later lines, and one that was cut off,
    /// are dropped: they will come again.
    ///
    /// # Errors
    /// Names the file.
    pub fn resume(path: &Path, decisions: u64) -> Result<Curve, String> {
        let problem = |e: std::io::Error| format!("{}: {e}", path.display());
        if !path.exists() {
            return Curve::create(path);
        }
        let text = std::fs::read_to_string(path).map_err(problem)?;
        if text.lines().next() != Some(HEADER) {
            return Err(format!("{}: expected the first line to be `{HEADER}`", path.display()));
        }
        let earlier = |line: &&str| {
            let second = line.split(',').nth(1).and_then(|cell| cell.parse::<u64>().ok());
            line.ends_with('\n') && second.is_none_or(|d| d <= decisions)
        };
        let kept: String = text.split_inclusive('\n').filter(earlier).collect();
        write_whole(path, kept.as_bytes()).map_err(problem)?;
        OpenOptions::new().append(true).open(path).map(Curve).map_err(problem)
    }

    /// Adds a line. A number that there is none of is an empty cell. A full disk must not cost the training: then there is no line.
    pub fn add(&mut self, seconds: f64, p: &Progress) {
        let cell = |value: f64, digits: usize| {
            if value.is_nan() { String::new() } else { format!("{value:.digits$}") }
        };
        let l = &p.losses;
        let losses = [l.policy, l.value, l.entropy, l.divergence].map(|x| cell(x, 6)).join(",");
        let _ = writeln!(
            self.0,
            "{seconds:.1},{},{},{},{losses},{:e},{}",
            p.decisions,
            p.imitating,
            cell(p.utility, 5),
            l.learning_rate,
            l.steps
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cosched::agent::train::Losses;

    fn line(decisions: u64, utility: f64) -> Progress {
        let losses = Losses { divergence: f64::NAN, learning_rate: 5e-4, steps: 8, ..Losses::default() };
        Progress { imitating: false, decisions, total: 100, utility, losses }
    }

    #[test]
    fn a_resumed_curve_has_every_line_once() {
        let path = std::env::temp_dir().join(format!("cosched-curve-{}.csv", std::process::id()));
        let mut curve = Curve::create(&path).unwrap();
        for i in 1..=4 {
            curve.add(i as f64, &line(i * 10, f64::NAN));
        }
        // The training was saved after 20 decisions and killed while it wrote the line after 40.
        write!(curve.0, "4.5,5").unwrap();
        drop(curve);
        let mut curve = Curve::resume(&path, 20).unwrap();
        curve.add(2.5, &line(30, 0.5));
        drop(curve);
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = format!(
            "{HEADER}\n1.0,10,false,,0.000000,0.000000,0.000000,,5e-4,8\n2.0,20,false,,0.000000,0.000000,0.000000,,5e-4,8\n\
             2.5,30,false,0.50000,0.000000,0.000000,0.000000,,5e-4,8\n"
        );
        assert_eq!(text, expected);
        // Saboteurs: another file is not taken for a curve; a new training does begin anew.
        std::fs::write(&path, "a,b\n1,2\n").unwrap();
        let error = Curve::resume(&path, 20).err().unwrap();
        assert!(error.contains("expected the first line"), "{error}");
        drop(Curve::create(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{HEADER}\n"));
        std::fs::remove_file(&path).unwrap();
    }
}
