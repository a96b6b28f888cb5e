//! How a failing draft is printed: one short line a thing, and only what departs from the ordinary. It refuses to be complete where a
//! default says the same.

use crate::draft::{Draft, Kind, Proc, Seg, Source, Var};
use std::fmt::{Debug, Formatter, Result};

impl Debug for Draft {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(
            f,
            "until {} ms, seed {}, window {}, {} failures at most, chooser {:?}",
            f64::from(self.horizon) / 10.0,
            self.seed,
            self.window,
            self.max_failures,
            self.chooser
        )?;
        let numbers = [
            ("decision_us", self.decision_us),
            ("candidate_us", self.candidate_us),
            ("failure_percent", self.failure_percent),
            ("spread", self.spread),
            ("fairness", self.fairness),
        ];
        for (name, number) in numbers.iter().filter(|n| n.1 > 0) {
            writeln!(f, "{name} {number}")?;
        }
        if let Some(knee) = self.bandwidth {
            writeln!(f, "bandwidth from {knee} GB/s")?;
        }
        if let Some(heat) = &self.heat {
            writeln!(f, "{heat:?}")?;
        }
        if self.processors.len() > 1 {
            writeln!(f, "contention {:?}", self.contention)?;
        }
        for (p, processor) in self.processors.iter().enumerate() {
            show_processor(f, p, processor)?;
        }
        for (v, variant) in self.variants.iter().enumerate() {
            show_variant(f, v, variant, self.processors.len())?;
        }
        for (s, stream) in self.streams.iter().enumerate() {
            show_stream(f, s, stream, self)?;
        }
        for o in &self.faults {
            let (from, to) =
                (f64::from(o.from) / 10.0, f64::from(i32::from(o.from) + i32::from(o.length)) / 10.0);
            let what = if o.hangs { "hangs" } else { "dies" };
            let p = o.processor as usize % self.processors.len();
            write!(f, "p{p} {what} {from} to {to} ms")?;
            let noticed = if o.hangs && o.noticed > 0 {
                format!(", noticed after {}", o.noticed)
            } else {
                String::new()
            };
            writeln!(f, "{noticed}")?;
        }
        Ok(())
    }
}

fn show_processor(f: &mut Formatter<'_>, p: usize, processor: &Proc) -> Result {
    write!(f, "p{p}: {} slots", processor.slots)?;
    if processor.copy != (0, 0) {
        write!(f, ", copy {} us, {} GB/s", 10 * u32::from(processor.copy.0), processor.copy.1)?;
    }
    if let Some(memory) = &processor.memory {
        write!(f, ", {memory:?}")?;
    }
    if !processor.steps.is_empty() {
        write!(f, ", steps {:?}", processor.steps)?;
    }
    if processor.peak_gbps > 0 {
        write!(f, ", peak {} GB/s", processor.peak_gbps)?;
    }
    if let Some(net) = &processor.net {
        write!(f, ", {net:?}")?;
    }
    writeln!(f)
}

fn show_variant(f: &mut Formatter<'_>, v: usize, variant: &Var, processors: usize) -> Result {
    write!(f, "v{v}: t{} {}%", variant.task, variant.accuracy)?;
    if variant.memory_mb > 0 {
        write!(f, ", {} MB", variant.memory_mb)?;
    }
    if let Some(weights) = variant.weights {
        write!(f, " (w{weights})")?;
    }
    for segment in &variant.segments {
        write!(f, " {}", show_segment(segment, processors))?;
    }
    writeln!(f)
}

/// Its cost on each processor in tenths of a millisecond.
fn show_segment(segment: &Seg, processors: usize) -> String {
    let home = segment.home as usize % processors;
    let cost = |p: usize| match segment.costs[p].or((p == home).then_some(10)) {
        Some(tenths) => tenths.to_string(),
        None => "-".to_owned(),
    };
    let costs: Vec<_> = (0..processors).map(cost).collect();
    let mut text = format!("[{}", costs.join(" "));
    if segment.kb > 0 {
        text += &format!(", {} kB", segment.kb);
    }
    if segment.traffic_mb > 0 {
        text += &format!(", moves {} MB", segment.traffic_mb);
    }
    text + "]"
}

fn show_stream(f: &mut Formatter<'_>, s: usize, stream: &Source, draft: &Draft) -> Result {
    let task = draft.variants[stream.task as usize % draft.variants.len()].task;
    write!(f, "s{s}: t{task} ")?;
    match &stream.kind {
        Kind::After { stream, percent } if s > 0 => {
            write!(f, "after s{} in {percent} %", *stream as usize % s)?;
        }
        Kind::After { .. } => write!(f, "Periodic {{ period: 100 }}")?,
        kind => write!(f, "{kind:?}")?,
    }
    write!(f, " due {}", stream.deadline)?;
    if let Some(patience) = stream.patience {
        write!(f, " + {patience}")?;
    }
    if stream.offset > 0 {
        write!(f, ", offset {}", stream.offset)?;
    }
    if stream.halves_of_priority != 2 {
        write!(f, ", priority {}", f64::from(stream.halves_of_priority) / 2.0)?;
    }
    for (says, word) in [(stream.best_only, ", best only"), (stream.latest, ", latest")] {
        write!(f, "{}", if says { word } else { "" })?;
    }
    if !stream.open.is_empty() {
        write!(f, ", closed-open {:?}", stream.open)?;
    }
    writeln!(f)
}
