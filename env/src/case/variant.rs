//! The cost tables of one variant: what each launch of its segments costs on each processor when it is alone there.
//! It refuses to know what runs: contention, drift and loading are added by whoever knows them.

use super::{ProcessorId, ProcessorTable, Task, TaskId};
use crate::plan::{Plan, SegmentSpec};

/// What a segment costs on a processor: sums over all segments before it (unsupported ones count nothing), so that a span costs one
/// subtraction, and what bringing its inputs costs. Side by side because a decision reads them together.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    latency_ns: f64,
    energy_mj: f64,
    traffic_bytes: f64,
    /// Log-normal sigma weighted by latency.
    sigma_ns: f64,
    /// Nanoseconds to bring the inputs of this segment here from elsewhere.
    fetch_ns: f64,
    /// Nanoseconds of any launch beside its segments.
    launch_ns: f64,
}

/// In place of a segment: there is none.
const NO_SEGMENT: u16 = u16::MAX;

/// Cost tables of one variant.
#[derive(Clone, Debug)]
pub struct VariantTable {
    /// Name.
    pub name: String,
    /// Task that it serves.
    pub task: TaskId,
    /// Accuracy in (0, 1].
    pub accuracy: f64,
    /// Accuracy divided by that of the task's best variant.
    pub relative_accuracy: f64,
    /// Number of segments.
    pub segments: u16,
    /// Bytes that each segment reads.
    pub input_bytes: Vec<u64>,
    /// Bytes that each segment leaves.
    pub output_bytes: Vec<u64>,
    /// Bytes of its weights.
    pub memory_bytes: u64,
    /// Variants of the same number share weights ([`crate::plan::Variant::weights`]).
    pub weights: u16,
    /// `[processor * (segments + 1) + segment]`.
    rows: Vec<Row>,
    /// Same index: last segment of the supported run that holds this one, or [`NO_SEGMENT`].
    run_end: Vec<u16>,
    /// `[segment]`: nanoseconds from this segment to the end when each runs where it is fastest.
    best_rest: Vec<f64>,
    processors: u16,
    /// Index as in `rows`: ways for a launch to end, and how many of them count.
    endings: Vec<([Ending; 3], u8)>,
    /// Same index: see [`VariantTable::handover_ns`].
    handover: Vec<f64>,
}

/// One way for a launch to end, and what it costs alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ending {
    /// Its last segment, inclusive.
    pub last: u16,
    /// [`VariantTable::latency_ns`].
    pub latency_ns: f64,
    /// [`VariantTable::energy_mj`].
    pub energy_mj: f64,
    /// [`VariantTable::demand_gbps`].
    pub demand_gbps: f64,
    /// [`VariantTable::best_rest_ns`] after it.
    pub rest_ns: f64,
    /// [`VariantTable::handover_ns`] after it.
    pub handover_ns: f64,
}

/// Where a launch from `first` may end: as far as the processor can go, half way, and after one segment.
/// Three choices keep the number of candidates linear in requests x processors and still allow to hand over or to preempt.
fn ends(first: u16, reach: u16) -> impl Iterator<Item = u16> {
    let half = first + (reach - first) / 2;
    [Some(reach), (half < reach && half > first).then_some(half), (first < reach).then_some(first)]
        .into_iter()
        .flatten()
}

impl Ending {
    const NONE: Ending =
        Ending { last: 0, latency_ns: 0.0, energy_mj: 0.0, demand_gbps: 0.0, rest_ns: 0.0, handover_ns: 0.0 };
}

impl VariantTable {
    pub(super) fn new(
        plan: &Plan,
        processors: &[ProcessorTable],
        index: usize,
        tasks: &[Task],
    ) -> VariantTable {
        let variant = &plan.variants[index];
        let same = |v: &crate::plan::Variant| v.weights.is_some() && v.weights == variant.weights;
        let weights = plan.variants.iter().position(same).unwrap_or(index) as u16;
        let task = tasks.iter().position(|t| t.name == variant.task).unwrap_or(0);
        let mut table = VariantTable {
            name: variant.name.clone(),
            task: TaskId(task as u16),
            accuracy: variant.accuracy,
            relative_accuracy: variant.accuracy / tasks[task].best_accuracy,
            segments: variant.segments.len() as u16,
            input_bytes: variant.segments.iter().map(|s| s.input_bytes).collect(),
            output_bytes: variant.segments.iter().map(|s| s.output_bytes).collect(),
            memory_bytes: variant.memory_bytes,
            weights,
            processors: plan.processors.len() as u16,
            rows: Vec::new(),
            run_end: Vec::new(),
            best_rest: Vec::new(),
            endings: Vec::new(),
            handover: Vec::new(),
        };
        table.add_rows(plan, processors, &variant.segments);
        table.add_runs(processors, &variant.segments);
        table.add_links(processors);
        table.add_handovers();
        table.add_endings();
        table
    }

    fn add_rows(&mut self, plan: &Plan, processors: &[ProcessorTable], segments: &[SegmentSpec]) {
        for (p, spec) in plan.processors.iter().enumerate() {
            let mut sum = Row { launch_ns: spec.launch_us * 1e3, ..Row::default() };
            for segment in segments {
                let copying_ns =
                    if spec.copy_gbps > 0.0 { segment.input_bytes as f64 / spec.copy_gbps } else { 0.0 };
                sum.fetch_ns = spec.copy_us * 1e3 + copying_ns;
                self.rows.push(sum);
                if let Some(cost) = &segment.costs[p] {
                    let ns = cost.mean_us * 1e3;
                    sum.latency_ns += ns;
                    sum.energy_mj += cost.energy_mj;
                    sum.sigma_ns += cost.log_sigma() * ns;
                    // What is behind a link has a memory of its own.
                    if processors[p].model.link.is_none() {
                        sum.traffic_bytes += segment.traffic_bytes as f64;
                    }
                }
            }
            self.rows.push(Row { fetch_ns: 0.0, ..sum });
        }
    }

    /// Which processor can run what, and the fastest rest.
    fn add_runs(&mut self, processors: &[ProcessorTable], segments: &[SegmentSpec]) {
        let n = segments.len();
        let fits = |p: usize| processors[p].capacity.is_none_or(|c| self.memory_bytes <= c);
        self.run_end = vec![NO_SEGMENT; processors.len() * (n + 1)];
        for p in 0..processors.len() {
            for s in (0..n).rev() {
                let at = p * (n + 1) + s;
                if segments[s].costs[p].is_some() && fits(p) {
                    let after = self.run_end[at + 1];
                    self.run_end[at] = if after == NO_SEGMENT { s as u16 } else { after };
                }
            }
        }
        self.best_rest = vec![0.0; n + 1];
        for s in (0..n).rev() {
            let costs = segments[s].costs.iter().enumerate();
            let best = costs.filter(|&(p, _)| fits(p)).filter_map(|(_, c)| c.map(|c| c.mean_us * 1e3));
            self.best_rest[s] = self.best_rest[s + 1] + best.fold(f64::INFINITY, f64::min);
        }
    }

    /// What bringing inputs to a processor behind a link costs: the way there and back.
    fn add_links(&mut self, processors: &[ProcessorTable]) {
        let n = self.segments as usize;
        for (p, table) in processors.iter().enumerate() {
            let Some(link) = &table.model.link else { continue };
            let phase = link.phases[0];
            for s in 0..n {
                let at = p * (n + 1) + s;
                let end = if self.run_end[at] == NO_SEGMENT { s } else { self.run_end[at] as usize };
                self.rows[at].fetch_ns = phase.transfer_ns(self.input_bytes[s] + self.output_bytes[end]);
            }
        }
    }

    fn add_endings(&mut self) {
        for (on, segment) in self.places() {
            let mut place = ([Ending::NONE; 3], 0);
            if let Some(reach) = self.reach(on, segment) {
                for last in ends(segment, reach) {
                    place.0[place.1 as usize] = Ending {
                        last,
                        latency_ns: self.latency_ns(on, segment, last),
                        energy_mj: self.energy_mj(on, segment, last),
                        demand_gbps: self.demand_gbps(on, segment, last),
                        rest_ns: self.best_rest_ns(last + 1),
                        handover_ns: self.handover_ns(on, last + 1),
                    };
                    place.1 += 1;
                }
            }
            self.endings.push(place);
        }
    }

    fn add_handovers(&mut self) {
        for (from, segment) in self.places() {
            let others = (0..self.processors).map(ProcessorId).filter(|&to| to != from);
            let able = others.filter(|&to| self.reach(to, segment).is_some());
            let least = able.map(|to| self.fetch_ns(to, segment)).fold(f64::INFINITY, f64::min);
            self.handover.push(if segment < self.segments { least } else { 0.0 });
        }
    }

    /// Every index of the tables, in order.
    fn places(&self) -> impl Iterator<Item = (ProcessorId, u16)> + use<> {
        let end = self.segments;
        (0..self.processors).flat_map(move |p| (0..=end).map(move |s| (ProcessorId(p), s)))
    }

    fn at(&self, on: ProcessorId, segment: usize) -> usize {
        on.0 as usize * (self.segments as usize + 1) + segment
    }

    /// The rows of `first` and of the segment after `last`.
    fn around(&self, on: ProcessorId, first: u16, last: u16) -> (&Row, &Row) {
        (&self.rows[self.at(on, first as usize)], &self.rows[self.at(on, last as usize + 1)])
    }

    /// Mean nanoseconds of a launch of segments `first..=last` on `on` alone, its own cost included; all must be supported there.
    pub fn latency_ns(&self, on: ProcessorId, first: u16, last: u16) -> f64 {
        let (before, after) = self.around(on, first, last);
        before.launch_ns + (after.latency_ns - before.latency_ns)
    }

    /// Millijoules of segments `first..=last` on `on`.
    pub fn energy_mj(&self, on: ProcessorId, first: u16, last: u16) -> f64 {
        let (before, after) = self.around(on, first, last);
        after.energy_mj - before.energy_mj
    }

    /// Memory bandwidth that segments `first..=last` ask for on `on` at full speed, in GB/s; 0 behind a link.
    pub fn demand_gbps(&self, on: ProcessorId, first: u16, last: u16) -> f64 {
        let (before, after) = self.around(on, first, last);
        let latency_ns = after.latency_ns - before.latency_ns;
        if latency_ns > 0.0 { (after.traffic_bytes - before.traffic_bytes) / latency_ns } else { 0.0 }
    }

    /// Log-normal sigma of the latency of `first..=last` on `on`: the latency-weighted mean of the segments'
    /// (segments of one launch share their disturbance).
    pub fn log_sigma(&self, on: ProcessorId, first: u16, last: u16) -> f64 {
        let (before, after) = self.around(on, first, last);
        let latency_ns = after.latency_ns - before.latency_ns;
        if latency_ns > 0.0 { (after.sigma_ns - before.sigma_ns) / latency_ns } else { 0.0 }
    }

    /// The last segment that `on` can reach in one launch from `first`; `None` when it cannot run `first`.
    pub fn reach(&self, on: ProcessorId, first: u16) -> Option<u16> {
        match self.run_end[self.at(on, first as usize)] {
            NO_SEGMENT => None,
            last => Some(last),
        }
    }

    /// Nanoseconds from segment `first` to the end when each segment runs where it is fastest, alone: a lower bound.
    /// `first` may equal the number of segments (then 0).
    pub fn best_rest_ns(&self, first: u16) -> f64 {
        self.best_rest[first as usize]
    }

    /// Where a launch from `first` on `on` may end, the farthest first; none when it cannot run `first`.
    pub fn endings(&self, on: ProcessorId, first: u16) -> &[Ending] {
        let (endings, count) = &self.endings[self.at(on, first as usize)];
        &endings[..*count as usize]
    }

    /// Nanoseconds to bring the inputs of `segment` to `to` from elsewhere.
    pub fn fetch_ns(&self, to: ProcessorId, segment: u16) -> f64 {
        self.rows[self.at(to, segment as usize)].fetch_ns
    }

    /// Least nanoseconds to bring the inputs of `segment` from `from` to another processor that can run it (infinite: there is
    /// none); 0 when `segment` is the number of segments.
    pub fn handover_ns(&self, from: ProcessorId, segment: u16) -> f64 {
        self.handover[self.at(from, segment as usize)]
    }
}

#[cfg(test)]
mod tests {
    use super::ends;

    #[test]
    fn ends_are_distinct_and_within_reach() {
        assert_eq!(ends(2, 2).collect::<Vec<_>>(), [2]);
        assert_eq!(ends(2, 3).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(ends(0, 5).collect::<Vec<_>>(), [5, 2, 0]);
    }
}
