//! The kind `compare`: one policy on one app in the emulated device, with one seed, or a search for the best run of that seed. Policies
//! are compared when the results are read. It refuses to run live.

use super::apps;
use super::kind::{Bound, Kind, Outcome, Spec};
use crate::bound;
use crate::compare::{Maker, Setup, Timed, emulate};
use crate::log::RunLog;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// See the module's text.
pub struct Emulated<'a> {
    /// Makes the policies.
    pub make: Maker<'a>,
}

impl Emulated<'_> {
    /// A search of a seed: the best run that it finds, as if a policy had made it.
    fn search(&self, spec: &Spec, wanted: &Bound) -> Result<Outcome, String> {
        let app = apps::app(spec)?;
        let setup = Setup::of(&app).map_err(|e| e.to_string())?;
        let (policies, evaluations) = (&wanted.policies, wanted.evaluations);
        let found = bound::best_of(&setup, policies, spec.seed, evaluations, self.make);
        let mut script = found.map_err(|e| e.to_string())?.script();
        let mut log = RunLog::new(&spec.policy);
        let end = emulate(&setup, &mut script, spec.seed, &mut log).map_err(|e| e.to_string())?;
        Ok(apps::outcome(spec, &app, &setup.case, &log.finish(end)))
    }
}

impl Kind for Emulated<'_> {
    fn name(&self) -> &'static str {
        "compare"
    }

    fn about(&self) -> &'static str {
        "a policy on an app in the emulated device"
    }

    fn has_bound(&self) -> bool {
        true
    }

    fn run(&self, spec: &Spec, _: &Arc<AtomicBool>) -> Result<Outcome, String> {
        if let Some(wanted) = &spec.bound {
            return self.search(spec, wanted);
        }
        let app = apps::app(spec)?;
        let setup = Setup::of(&app).map_err(|e| e.to_string())?;
        let begun = Instant::now();
        let mut policy = (self.make)(&spec.policy, &setup.case)?;
        let made_s = begun.elapsed().as_secs_f64();
        let mut timed = Timed::new(policy.as_mut());
        let mut log = RunLog::new(&spec.policy);
        let end = emulate(&setup, &mut timed, spec.seed, &mut log).map_err(|e| e.to_string())?;
        let decision_us = timed.mean_us();
        let mut outcome = apps::outcome(spec, &app, &setup.case, &log.finish(end));
        outcome.measured.insert("decision_us".into(), decision_us);
        outcome.measured.insert("make_s".into(), made_s);
        Ok(outcome)
    }

    fn estimate(&self, spec: &Spec) -> Option<f64> {
        let app = apps::app(spec).ok()?;
        let mut setup = Setup::of(&app).ok()?;
        if let Some(wanted) = &spec.bound {
            // Where the best policy loses nothing there is nothing to look for, and it takes less.
            let (policies, evaluations) = (&wanted.policies, wanted.evaluations);
            return bound::seconds(&setup, policies, spec.seed, evaluations, self.make).ok();
        }
        let begun = Instant::now();
        let mut policy = (self.make)(&spec.policy, &setup.case).ok()?;
        let made_s = begun.elapsed().as_secs_f64();
        let whole = setup.seconds;
        setup.seconds = (whole / 20.0).clamp(0.2_f64.min(whole), whole);
        let begun = Instant::now();
        emulate(&setup, policy.as_mut(), spec.seed, &mut RunLog::new("")).ok()?;
        Some(made_s + begun.elapsed().as_secs_f64() * whole / setup.seconds)
    }
}
