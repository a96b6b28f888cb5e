//! `cosched top`: what a server does, in the terminal, turn by turn: processors, models, the last decisions.

use super::{Outcome, client, usage};
use cosched::server::live::State;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::time::Duration;

/// Arguments.
#[derive(clap::Args)]
#[command(after_help = super::TOKEN_HELP)]
pub struct Args {
    /// The server, as host:port, http://host:port or https://host:port.
    #[arg(default_value = "127.0.0.1:8000")]
    address: String,
    /// PEM file of the certificates that are trusted with https.
    #[arg(long)]
    trusted: Option<PathBuf>,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 1.0)]
    every: f64,
    /// Seconds that the numbers are about.
    #[arg(long, default_value_t = 10.0)]
    window: f64,
    /// Look once and end.
    #[arg(long)]
    once: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    if !(args.every >= 0.1 && args.every <= 3600.0) {
        return Err(usage("--every: expected 0.1 to 3600 seconds"));
    }
    if !(args.window > 0.0 && args.window <= 30.0) {
        return Err(usage("--window: expected above 0 and at most 30 seconds"));
    }
    let client = client(&args.address, args.trusted.as_deref())?;
    let address = client.address();
    let path = format!("/live/state?window_ms={}", args.window * 1e3);
    let mut out = std::io::stdout();
    loop {
        let state: State = serde_json::from_value(client.read(&path)?)
            .map_err(|e| format!("{address}: expected a cosched server: {e}"))?;
        // Home, the text, and whatever the last one left below it goes.
        let (before, after) =
            if out.is_terminal() && !args.once { ("\x1b[2J\x1b[H", "") } else { ("", "\n") };
        write!(out, "{before}{}{after}", text(address, &state))?;
        out.flush()?;
        if args.once {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs_f64(args.every));
    }
}

fn text(address: &str, state: &State) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |line: String| {
        let _ = writeln!(text, "{}", line.trim_end());
    };
    let (policy, seconds) = (&state.policy, state.window_ms / 1e3);
    let fallbacks = match state.fallbacks {
        0 => String::new(),
        n => format!(", {n} of the fallback"),
    };
    let learning = state.learning.as_ref().map_or_else(String::new, |told| format!(" ({told})"));
    line(format!(
        "{address}: policy {policy}{learning}, {} decisions{fallbacks}; the last {seconds} s:",
        state.decisions
    ));
    line(String::new());
    line(format!(
        "{:16} {:>6}  {:20} {:>9} {:>7} {:>10}",
        "processor", "busy", "", "launches", "failed", "energy mJ"
    ));
    for p in &state.processors {
        let bar = "#".repeat((p.busy.clamp(0.0, 1.0) * 20.0).round() as usize);
        let name = if p.up { p.name.clone() } else { format!("{} DOWN", p.name) };
        let busy = p.busy * 100.0;
        line(format!(
            "{name:16} {busy:>5.0}%  {bar:20} {:>9} {:>7} {:>10.1}",
            p.launches, p.failed, p.energy_mj
        ));
    }
    line(String::new());
    line(format!(
        "{:20} {:>8} {:>8} {:>6} {:>6} {:>9} {:>9}",
        "model", "waiting", "on time", "late", "lost", "p50 ms", "p99 ms"
    ));
    for m in &state.models {
        let of = |word: &str| m.outcomes.get(word).copied().unwrap_or(0);
        let (good, late) = (of("on time"), of("late"));
        let lost = m.outcomes.values().sum::<usize>() - good - late;
        line(format!(
            "{:20} {:>8} {good:>8} {late:>6} {lost:>6} {:>9.2} {:>9.2}",
            m.name, m.pending, m.p50_ms, m.p99_ms
        ));
    }
    line(String::new());
    line(format!("{:48} {:>8} {:>10} {:>8}", "the last decisions", "s ago", "candidates", "took us"));
    for d in state.recent.iter().take(10) {
        let what = match &d.fallback {
            None => d.what.clone(),
            Some(why) => format!("{} (fallback: {why})", d.what),
        };
        let ago = (state.now_ms - d.at_ms) / 1e3;
        line(format!("{what:48} {ago:>8.2} {:>10} {:>8.0}", d.candidates, d.took_us));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use cosched::server::live::{Brief, OfModel, OfProcessor};

    #[test]
    fn a_state_as_text() {
        let processor = OfProcessor {
            name: "dsp".into(),
            up: false,
            busy: 0.25,
            launches: 7,
            failed: 2,
            energy_mj: 3.25,
        };
        let outcomes =
            [("on time", 9), ("late", 2), ("dropped", 3), ("expired", 1)].map(|(w, n)| (w.to_owned(), n));
        let model = OfModel {
            name: "keyword".into(),
            pending: 4,
            outcomes: outcomes.into(),
            p50_ms: 1.5,
            p99_ms: 20.0,
        };
        let brief = Brief {
            number: 1,
            at_ms: 500.0,
            took_us: 12.0,
            candidates: 5,
            what: "kws 0-1 on dsp".into(),
            fallback: Some("it panicked".into()),
        };
        let state = State {
            policy: "edf".into(),
            now_ms: 1000.0,
            window_ms: 10_000.0,
            decisions: 12,
            fallbacks: 1,
            learning: Some("tries new weights".into()),
            processors: vec![processor],
            models: vec![model],
            launches: vec![],
            requests: vec![],
            recent: vec![brief],
        };
        let text = text("here:8000", &state);
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(
            lines[0].join(" "),
            "here:8000: policy edf (tries new weights), 12 decisions, 1 of the fallback; the last 10 s:"
        );
        assert_eq!(lines[3], ["dsp", "DOWN", "25%", "#####", "7", "2", "3.2"]);
        assert_eq!(lines[6], ["keyword", "4", "9", "2", "4", "1.50", "20.00"]);
        assert_eq!(lines[9].join(" "), "kws 0-1 on dsp (fallback: it panicked) 0.50 5 12");
    }
}
