//! Everything on one processor (the fixed mapping of Band, MobiSys 2022, and what applications do today): requests in order of arrival,
//! each as far as the processor goes; what it cannot run goes to the processor with the least expected latency. The variant is the most
//! accurate one that is on time there, else the fastest. It refuses to use another processor because this one is busy.

use crate::board::{Place, better, later, launches, variants, wait};
use crate::{Make, PolicyError, Row, nearest};
use cosched_env::case::{Case, ProcessorId, VariantId};
use cosched_env::observation::{Action, Observation, RequestView};
use cosched_env::world::{Decision, Policy};

pub(crate) const ROW: Row = Row {
    name: "fixed",
    about: "all on one processor, e.g. fixed:cpu; without a name on the one that supports most and takes least time",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, case: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    let names = || case.plan.processors.iter().map(|p| p.name.as_str());
    let home = match parameter {
        None => best(case),
        Some(name) => match names().position(|n| n == name) {
            Some(p) => ProcessorId(p as u16),
            None => {
                return Err(PolicyError::Parameter {
                    policy: ROW.name.to_owned(),
                    what: "processor",
                    parameter: name.to_owned(),
                    nearest: nearest(name, names()),
                    known: names().map(str::to_owned).collect(),
                });
            }
        },
    };
    Ok(Box::new(Fixed { home, order: Vec::new() }))
}

/// The processor that supports most segments of all variants; of several the one with the least total latency.
fn best(case: &Case) -> ProcessorId {
    let score = |p: ProcessorId| {
        let mut unsupported = 0;
        let mut total_ns = 0.0;
        for table in &case.variants {
            unsupported += (0..table.segments).filter(|&s| table.reach(p, s).is_none()).count();
            // Unsupported segments count nothing here.
            total_ns += table.latency_ns(p, 0, table.segments - 1);
        }
        (unsupported, total_ns)
    };
    let all = (0..case.processor_count() as u16).map(|p| (score(ProcessorId(p)), ProcessorId(p)));
    let least = all.min_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    least.map_or(ProcessorId(0), |(_, p)| p)
}

struct Fixed {
    home: ProcessorId,
    order: Vec<usize>,
}

impl Policy for Fixed {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let requests = observation.requests;
        self.order.clear();
        self.order.extend(0..requests.len());
        self.order.sort_unstable_by_key(|&i| (requests[i].arrival, i));
        let start = self.order.iter().find_map(|&i| self.start(observation, i));
        start.map_or_else(|| wait(observation), Decision)
    }
}

impl Fixed {
    /// The launch of a request if its processor is idle.
    fn start(&self, observation: &Observation<'_>, index: usize) -> Option<usize> {
        let request = &observation.requests[index];
        let mut best: Option<(Place, VariantId)> = None;
        for variant in variants(observation, request) {
            let Some(place) = self.place(observation, request, variant) else { continue };
            let kept = better(request.deadline.0 as f64, best.map(|b| b.0), place);
            if best.is_none_or(|b| b.0 != kept) {
                best = Some((kept, variant));
            }
        }
        let (place, wanted) = best?;
        let mut all = launches(observation, index);
        all.find_map(|(choice, c)| match c.action {
            // The first launch of a variant on a processor goes as far as the processor can.
            Action::Launch { variant, processor, .. }
                if variant == wanted && processor == place.processor =>
            {
                Some(choice)
            }
            _ => None,
        })
    }

    /// Where a variant runs: at home, or where the next segments take least time if home cannot run them or is down.
    fn place(
        &self,
        observation: &Observation<'_>,
        request: &RequestView,
        variant: VariantId,
    ) -> Option<Place> {
        let on = |p: ProcessorId| {
            let view = &observation.processors[p.0 as usize];
            let start = view.expected_free.max(observation.now).0 as f64;
            if view.up { Some((later(observation, request, variant, p, start)?, start)) } else { None }
        };
        if let Some((place, _)) = on(self.home) {
            return Some(place);
        }
        let others = (0..observation.processors.len() as u16).filter_map(|p| on(ProcessorId(p)));
        let least = others.min_by(|(a, s), (b, t)| (a.answer_ns - s).total_cmp(&(b.answer_ns - t)));
        least.map(|(place, _)| place)
    }
}
