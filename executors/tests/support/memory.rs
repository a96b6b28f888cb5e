//! Whether memory stays flat. It refuses growth, not size.

/// Megabytes that a process has in memory (Linux).
pub fn resident_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1024.0
}

/// The first third teaches allocators and drivers what they need; from there on memory may grow by so much.
pub fn flat(samples: &[f64]) -> Result<(f64, f64), String> {
    let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let (early, late) = samples.split_at(samples.len() / 3);
    let (before, after) = (most(early), most(late));
    let grown = after - before;
    let allowed = 8.0 + 0.03 * before;
    if grown <= allowed { Ok((before, after)) } else { Err(format!("{before:.0} MB, then {after:.0} MB")) }
}
