//! `/metrics` in Prometheus' text format (0.0.4), with Triton's names where it has such a number. Written by hand: the crate
//! `prometheus-client` appends `_total` to every counter, and dashboards for Triton know the names without it. It refuses to count
//! anything itself.

use super::core::Core;
use super::model::VERSION;
use super::stats::{BOUNDS_S, Counted, Spread};
use cosched_agent::online::guard::Acting;
use cosched_agent::online::learner::Report;
use std::fmt::Write;

/// A text that grows by families.
struct Page(String);

/// Labels of one number: pairs of a name and a value.
type Labels<'a> = &'a [(&'a str, &'a str)];

fn labels(labels: Labels<'_>) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn number(&mut self, name: &str, of: Labels<'_>, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{} {value}", labels(of));
    }

    /// A histogram in seconds.
    fn spread(&mut self, name: &str, of: Labels<'_>, spread: &Spread) {
        let mut below = 0;
        let bounds = BOUNDS_S.iter().map(|b| b.to_string()).chain(["+Inf".to_owned()]);
        for (count, bound) in spread.buckets.iter().zip(bounds) {
            below += count;
            let with_bound: Vec<_> = of.iter().copied().chain([("le", bound.as_str())]).collect();
            self.number(&format!("{name}_bucket"), &with_bound, below);
        }
        self.number(&format!("{name}_sum"), of, spread.all.ns as f64 / 1e9);
        self.number(&format!("{name}_count"), of, spread.all.count);
    }
}

/// The page.
pub fn text(core: &Core) -> String {
    let mut page = Page(String::with_capacity(16 << 10));
    let counted = core.stats.read();
    of_models(&mut page, &counted);
    of_processors(&mut page, &counted);
    page.family("cosched_decision_seconds", "histogram", "Time that the policy takes to decide");
    page.spread("cosched_decision_seconds", &[], &counted.decisions);
    page.family(
        "cosched_fallback_decisions_total",
        "counter",
        "Decisions of the fallback, by why the policy's was not taken",
    );
    for (reason, count) in &counted.fallbacks {
        page.number("cosched_fallback_decisions_total", &[("reason", reason)], count);
    }
    page.family("cosched_policy_info", "gauge", "The policy that decides");
    page.number("cosched_policy_info", &[("policy", &core.catalog().policy)], 1);
    if let Some(report) = &counted.online {
        of_learner(&mut page, report);
    }
    page.0
}

fn of_learner(page: &mut Page, report: &Report) {
    page.family(
        "cosched_online_acting",
        "gauge",
        "Who decides: the last good weights, new ones on trial, or the best baseline",
    );
    for (who, word) in [(Acting::Good, "good"), (Acting::Trial, "trial"), (Acting::Baseline, "baseline")] {
        page.number("cosched_online_acting", &[("who", word)], u8::from(report.acting == who));
    }
    let c = &report.counts;
    for (name, help, count) in [
        ("decisions", "Decisions that the learner heard of since it was started", report.decisions),
        ("lessons", "Lessons that it learned since it was started", report.lessons),
        ("dropped", "Transitions and news that came too fast for it", report.dropped),
        ("published", "Weights that went on trial: the version of the policy", c.published.into()),
        ("refused", "Weights that were worse in the emulator", c.refused.into()),
        ("proven", "Trials that ended well", c.proven.into()),
        ("rolled_back", "Trials that ended badly", c.rolled_back.into()),
        ("handed_over", "Times that the best baseline took over", c.handed_over.into()),
    ] {
        let name = format!("cosched_online_{name}_total");
        page.family(&name, "counter", help);
        page.number(&name, &[], count);
    }
    page.family("cosched_online_slowness", "gauge", "Latency of a processor by the plan's, as estimated");
    for (processor, factor) in &report.slowness {
        page.number("cosched_online_slowness", &[("processor", processor)], factor);
    }
}

fn of_models(page: &mut Page, counted: &Counted) {
    let models: Vec<_> = counted.models.iter().map(|m| (m.name.as_str(), m)).collect();
    type Number = fn(&super::stats::OfModel) -> u64;
    let numbers: [(&str, &str, &str, Number); 9] = [
        ("nv_inference_request_success", "counter", "Requests that were answered", |m| m.success.count),
        ("nv_inference_count", "counter", "Inferences; there are no batches", |m| m.success.count),
        ("nv_inference_exec_count", "counter", "Executions; there are no batches", |m| m.success.count),
        ("nv_inference_request_duration_us", "counter", "Microseconds from arrival to answer", |m| {
            m.success.ns / 1000
        }),
        ("nv_inference_queue_duration_us", "counter", "Microseconds without a launch", |m| m.queue.ns / 1000),
        ("nv_inference_compute_input_duration_us", "counter", "Microseconds from body to tensors", |m| {
            m.compute_input.ns / 1000
        }),
        ("nv_inference_compute_infer_duration_us", "counter", "Microseconds of launches", |m| {
            m.compute_infer.ns / 1000
        }),
        ("nv_inference_compute_output_duration_us", "counter", "Microseconds from tensors to body", |m| {
            m.compute_output.ns / 1000
        }),
        ("nv_inference_pending_request_count", "gauge", "Requests that have not ended", |m| m.pending),
    ];
    for (name, kind, help, number) in numbers {
        page.family(name, kind, help);
        for (model, m) in &models {
            page.number(name, &[("model", model), ("version", VERSION)], number(m));
        }
    }
    page.family("nv_inference_request_failure", "counter", "Requests that were not answered, by reason");
    for (model, m) in &models {
        for (reason, t) in &m.failures {
            page.number(
                "nv_inference_request_failure",
                &[("model", model), ("version", VERSION), ("reason", reason)],
                t.count,
            );
        }
    }
    page.family("cosched_late_answers_total", "counter", "Answers after their deadline");
    for (model, m) in &models {
        page.number("cosched_late_answers_total", &[("model", model)], m.late);
    }
    page.family("cosched_variant_answers_total", "counter", "Answers of each variant");
    for (model, m) in &models {
        for (variant, count) in &m.variants {
            page.number("cosched_variant_answers_total", &[("model", model), ("variant", variant)], count);
        }
    }
    page.family(
        "cosched_failed_request_seconds_total",
        "counter",
        "Time from arrival to an end without answer",
    );
    for (model, m) in &models {
        let ns: u64 = m.failures.values().map(|t| t.ns).sum();
        page.number("cosched_failed_request_seconds_total", &[("model", model)], ns as f64 / 1e9);
    }
    page.family("cosched_request_seconds", "histogram", "Time from arrival to answer");
    for (model, m) in &models {
        page.spread("cosched_request_seconds", &[("model", model)], &m.latency);
    }
}

fn of_processors(page: &mut Page, counted: &Counted) {
    let processors: Vec<_> = counted.processors.iter().map(|p| (p.name.as_str(), p)).collect();
    page.family("nv_energy_consumption", "counter", "Joules of launches, by the plan's power");
    for (name, p) in &processors {
        page.number("nv_energy_consumption", &[("processor", name)], p.energy_mj / 1e3);
    }
    page.family("cosched_processor_up", "gauge", "Whether the processor takes launches");
    for (name, p) in &processors {
        page.number("cosched_processor_up", &[("processor", name)], u8::from(p.up));
    }
    page.family(
        "cosched_processor_busy_seconds_total",
        "counter",
        "Time in which it ran launches; its rate is the utilisation",
    );
    for (name, p) in &processors {
        page.number("cosched_processor_busy_seconds_total", &[("processor", name)], p.busy_ns as f64 / 1e9);
    }
    page.family("cosched_launches_total", "counter", "Launches, by how they ended");
    for (name, p) in &processors {
        for (outcome, count) in [("good", p.good), ("failed", p.failed), ("stopped", p.stopped)] {
            page.number("cosched_launches_total", &[("processor", name), ("outcome", outcome)], count);
        }
    }
    page.family("cosched_launch_seconds", "histogram", "Time of a launch on its processor");
    for (name, p) in &processors {
        page.spread("cosched_launch_seconds", &[("processor", name)], &p.launches);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_buckets_add_up() {
        assert_eq!(labels(&[("a", "x\"y\\z\n"), ("b", "1")]), r#"{a="x\"y\\z\n",b="1"}"#);
        let mut spread = Spread::default();
        for ns in [5_000, 10_000, 15_000, 3_000_000_000] {
            spread.add(ns);
        }
        let mut page = Page(String::new());
        page.spread("t", &[], &spread);
        for line in [
            "t_bucket{le=\"0.00001\"} 2\n",
            "t_bucket{le=\"0.00002\"} 3\n",
            "t_bucket{le=\"2\"} 3\n",
            "t_bucket{le=\"+Inf\"} 4\n",
            "t_count 4\n",
        ] {
            assert!(page.0.contains(line), "{line} is not in {}", page.0);
        }
    }
}
