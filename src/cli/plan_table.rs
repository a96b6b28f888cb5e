//! A plan as tables: latencies and how well they are known, loading and memory, slow-downs, power. It refuses to measure.

use cosched::env::crowd::{Triple, additive};
use cosched::env::plan::{Measured, Plan, ProcessorSpec};
use cosched::executors::profile::Options;
use cosched::experiments::table;
use std::fmt::Write;

/// All tables, each under a line that says what it is.
pub fn table(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = latencies(&mut text, plan);
    let _ = measurements(&mut text, plan);
    let _ = slow_downs(&mut text, plan);
    let _ = triples(&mut text, plan);
    let _ = power(&mut text, plan);
    text
}

fn latencies(to: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(to, "Mean latency in ms when nothing else runs (- where some segments fall back):")?;
    write!(to, "{:20} {:>8}", "variant", "segments")?;
    plan.processors.iter().try_for_each(|p| write!(to, " {:>9}", p.name))?;
    writeln!(to)?;
    for variant in &plan.variants {
        write!(to, "{:20} {:>8}", variant.name, variant.segments.len())?;
        for p in 0..plan.processors.len() {
            let ms: Option<f64> = variant.segments.iter().map(|s| s.costs[p].map(|c| c.mean_us / 1e3)).sum();
            match ms {
                Some(ms) => write!(to, " {ms:>9.2}")?,
                None => write!(to, " {:>9}", "-")?,
            }
        }
        writeln!(to)?;
    }
    Ok(())
}

/// What is known of each measurement.
fn measurements(to: &mut String, plan: &Plan) -> std::fmt::Result {
    let wanted = Options::default().within;
    let mut rows = Vec::new();
    for variant in &plan.variants {
        for (spec, m) in plan.processors.iter().zip(&variant.measured) {
            rows.extend(m.as_ref().map(|m| cells(&variant.name, spec, m, wanted)));
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        to,
        "How it was measured (+/-: 95 % confidence interval of the mean of the segment that is known worst; ! where it is beyond {} %):",
        100.0 * wanted
    )?;
    let header = ["variant", "on", "runs", "+/-", "p50 ms", "p95 ms", "p99 ms", "load ms", "MB"];
    writeln!(to, "{}", table::table(&header, 2, rows))
}

fn cells(variant: &str, spec: &ProcessorSpec, m: &Measured, wanted: f64) -> Vec<String> {
    let mark = if m.within > wanted { " !" } else { "" };
    let quantile = |q: usize| m.quantiles_us.map_or("-".into(), |us| format!("{:.2}", us[q] / 1e3));
    vec![
        variant.into(),
        spec.name.clone(),
        m.runs.to_string(),
        format!("{:.1} %{mark}", 100.0 * m.within),
        quantile(0),
        quantile(1),
        quantile(2),
        format!("{:.0}", m.load_ms),
        format!("{:.1}", m.memory_bytes as f64 / 1e6),
    ]
}

fn slow_downs(to: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(to, "Slow-down of the row's processor while the column's runs:")?;
    for (processor, row) in plan.processors.iter().zip(&plan.contention) {
        write!(to, "{:29}", processor.name)?;
        row.iter().try_for_each(|factor| write!(to, " {factor:>9.2}"))?;
        writeln!(to)?;
    }
    Ok(())
}

/// Triples as they were measured, as pairs add up, and as they are fitted.
fn triples(to: &mut String, plan: &Plan) -> std::fmt::Result {
    let mut rows = Vec::new();
    let (mut added_up, mut fitted) = (Vec::new(), Vec::new());
    for (spec, row) in plan.processors.iter().zip(&plan.contention) {
        let Some(crowd) = &spec.crowd else { continue };
        let place = |name: &String| plan.processors.iter().position(|p| p.name == *name);
        for Triple { with, factor } in &crowd.triples {
            let pairs: Vec<f64> = with.iter().filter_map(place).map(|j| row[j]).collect();
            let (sum, fit) = (additive(pairs.iter().copied()), crowd.slowdown(pairs.into_iter()));
            added_up.push((sum - factor).abs());
            fitted.push((fit - factor).abs());
            let numbers = [*factor, sum, fit].map(|f| format!("{f:.2}"));
            rows.push([vec![spec.name.clone(), with.join(" and ")], numbers.to_vec()].concat());
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
    writeln!(
        to,
        "Slow-down while two others run (mean error {:.2} where pairs add up, {:.2} as fitted and planned with):",
        mean(&added_up),
        mean(&fitted)
    )?;
    writeln!(to, "{}", table::table(&["processor", "while", "measured", "pairs", "fitted"], 2, rows))
}

fn power(to: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(to, "Watts while running and while idle:")?;
    for p in &plan.processors {
        let source = plan.provenance.get(&format!("power {}", p.name)).map_or("", String::as_str);
        writeln!(to, "{:20} {:>8.2} {:>8.2}  {source}", p.name, p.active_watts, p.idle_watts)?;
    }
    Ok(())
}
