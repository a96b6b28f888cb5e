//! What of an earlier plan still holds: the same model in the same segments on the same device. It refuses to compare numbers: what was
//! measured under the same conditions is as good as new.

use super::{segment_name, transfer};
use crate::deploy::{Deployed, Deployment};
use cosched_env::crowd::Triple;
use cosched_env::plan::{Cost, Measured, PLAN_FORMAT, Plan, ProcessorSpec, Variant};
use std::collections::BTreeMap;

/// Whether a variant of a plan was measured with this very model.
///
/// # Errors
/// What differs.
pub fn same_model(planned: &Variant, here: &Deployed) -> Result<(), String> {
    match &planned.model {
        Some(digest) if *digest == here.digest => Ok(()),
        Some(_) => Err("its layers or weights have changed since it was measured".into()),
        None => Err("the plan does not say of which model it was measured".into()),
    }
}

/// Whether a variant of a plan is cut as it is here.
///
/// # Errors
/// What differs.
pub fn same_segments(planned: &Variant, here: &Deployed) -> Result<(), String> {
    let same = planned.segments.len() == here.segments.len()
        && planned.segments.iter().zip(&here.segments).enumerate().all(|(s, (there, part))| {
            there.name == segment_name(here, s)
                && there.input_bytes == part.input_bytes as u64
                && there.output_bytes == part.output_bytes as u64
        });
    if same { Ok(()) } else { Err("it is cut in other places".into()) }
}

/// A deployment beside an earlier plan.
pub(super) struct Kept<'a> {
    pub deployment: &'a Deployment,
    previous: Option<&'a Plan>,
    /// Place of each processor in the earlier plan, or why what was measured there does not hold.
    processors: Vec<Result<usize, String>>,
    /// Likewise of each variant.
    variants: Vec<Result<&'a Variant, String>>,
}

impl<'a> Kept<'a> {
    pub fn new(deployment: &'a Deployment, previous: Option<&'a Plan>) -> Kept<'a> {
        let previous = previous.filter(|plan| plan.format == PLAN_FORMAT);
        let specs = previous.map_or(&[][..], |plan| &plan.processors);
        let processor = |name: &str, device: &str| match specs.iter().position(|spec| spec.name == name) {
            None => Err(format!("{name} is new")),
            Some(at) if specs[at].device == device => Ok(at),
            Some(at) => Err(format!("{name} was `{}`, is `{device}`", specs[at].device)),
        };
        let variant = |here: &Deployed| {
            let planned = previous.and_then(|plan| plan.variants.iter().find(|v| v.name == here.model.name));
            let planned = planned.ok_or("it is new")?;
            same_model(planned, here)?;
            same_segments(planned, here)?;
            Ok(planned)
        };
        let processors = deployment.processors.iter().map(|p| processor(p.name(), &p.device())).collect();
        let variants = deployment.variants.iter().map(variant).collect();
        Kept { deployment, previous, processors, variants }
    }

    /// The variant as it was measured on processor `p`, and the place of `p` in that plan.
    fn at(&self, v: usize, p: usize) -> Result<(&'a Variant, usize), String> {
        let (at, planned) = (self.processors[p].clone()?, self.variants[v].clone()?);
        let there = |s: usize| planned.segments[s].costs.get(at).copied().flatten();
        let rows = self.deployment.variants[v].prepared.iter().enumerate();
        let same = rows.into_iter().all(|(s, row)| row[p].is_ok() == there(s).is_some());
        if same { Ok((planned, at)) } else { Err("other segments run there than did".into()) }
    }

    /// Variants that must be measured on a processor.
    pub fn missing(&self, p: usize) -> impl Iterator<Item = usize> {
        (0..self.variants.len()).filter(move |&v| self.runs(v, p) && self.at(v, p).is_err())
    }

    /// Whether any segment of a variant runs on a processor.
    fn runs(&self, v: usize, p: usize) -> bool {
        self.deployment.variants[v].prepared.iter().any(|row| row[p].is_ok())
    }

    pub fn cost(&self, v: usize, s: usize, p: usize) -> Option<Cost> {
        let (planned, at) = self.at(v, p).ok()?;
        planned.segments[s].costs[at]
    }

    pub fn measured(&self, v: usize, p: usize) -> Option<Measured> {
        let (planned, at) = self.at(v, p).ok()?;
        planned.measured.get(at).copied().flatten()
    }

    /// The processor as it was, where it still is the same.
    pub fn spec(&self, p: usize) -> Option<&'a ProcessorSpec> {
        Some(&self.previous?.processors[*self.processors[p].as_ref().ok()?])
    }

    /// How much processor `i` slows while `j` runs.
    pub fn pair(&self, i: usize, j: usize) -> Option<f64> {
        let [i, j] = [*self.processors[i].as_ref().ok()?, *self.processors[j].as_ref().ok()?];
        self.previous?.contention.get(i)?.get(j).copied()
    }

    /// How much processor `i` slows while `j` and `k` run.
    pub fn triple(&self, i: usize, [j, k]: [usize; 2]) -> Option<f64> {
        let (spec, names) = (self.spec(i)?, [&self.spec(j)?.name, &self.spec(k)?.name]);
        let same = |t: &&Triple| names.iter().all(|name| t.with.contains(name));
        spec.crowd.as_ref()?.triples.iter().find(same).map(|t| t.factor)
    }

    /// The earlier plan, where it has the same processors and no others.
    pub fn same_processors(&self) -> Option<&'a Plan> {
        let plan = self.previous?;
        let all = self.processors.iter().all(Result::is_ok) && self.processors.len() == plan.processors.len();
        all.then_some(plan)
    }

    /// What was told of copies where any cost is kept.
    pub fn transfer(&self, p: usize) -> Option<String> {
        let any = (0..self.variants.len()).any(|v| self.runs(v, p) && self.at(v, p).is_ok());
        let told = self.previous?.provenance.get(&transfer::key(&self.spec(p)?.name))?;
        any.then(|| told.clone())
    }

    /// What a launch costs on this machine, where any processor still is the same.
    pub fn launch_us(&self) -> Option<f64> {
        (0..self.processors.len()).find_map(|p| Some(self.spec(p)?.launch_us)).filter(|&us| us > 0.0)
    }

    /// What had to be measured of each variant and why, and what was kept, in words.
    pub fn story(&self) -> (Vec<String>, Vec<String>) {
        let (mut measured, mut held) = (Vec::new(), Vec::new());
        for (v, variant) in self.deployment.variants.iter().enumerate() {
            let mut why: BTreeMap<Option<String>, Vec<&str>> = BTreeMap::new();
            for (p, processor) in
                self.deployment.processors.iter().enumerate().filter(|(p, _)| self.runs(v, *p))
            {
                // Without an earlier plan there is one reason for all.
                let reason = self.at(v, p).err().map(|why| self.previous.map_or(String::new(), |_| why));
                why.entry(reason).or_default().push(processor.name());
            }
            for (reason, names) in why {
                let what = format!("`{}` on {}", variant.model.name, names.join(", "));
                match reason {
                    None => held.push(what),
                    Some(reason) if reason.is_empty() => measured.push(what),
                    Some(reason) => measured.push(format!("{what}: {reason}")),
                }
            }
        }
        (measured, held)
    }
}
