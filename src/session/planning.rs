//! A session and its plan: measuring it, bringing it up to date, and telling whether it is this deployment's. It refuses to run with a plan of
//! anything else.

use super::{Progress, Session, SessionError};
use cosched_env::plan::{Plan, Variant};
use cosched_executors::deploy::Deployed;
use cosched_executors::profile::{self, Options, Power, Update, assumed_watts, same_model, same_segments};
use cosched_executors::remote;
use cosched_experiments::app::App;

impl Session {
    /// Measures every segment on every processor.
    ///
    /// # Errors
    /// When a segment fails while it is measured.
    pub fn profile(&self, app: &App, progress: Progress<'_>) -> Result<Plan, SessionError> {
        Ok(self.update(app, None, progress)?.plan)
    }

    /// As [`Session::profile`], but measures only what `previous` does not say of these models on these processors.
    ///
    /// # Errors
    /// As [`Session::profile`].
    pub fn update(
        &self,
        app: &App,
        previous: Option<&Plan>,
        progress: Progress<'_>,
    ) -> Result<Update, SessionError> {
        let power = |name: &str| {
            let server = app.remotes.iter().any(|r| r.name == name);
            let kind = app.parts.iter().find(|p| p.name == name).map_or(name, |p| &p.kind);
            let assumed = if server { remote::RADIO_WATTS } else { assumed_watts(kind) };
            let set = app.power.get(name).copied().unwrap_or_default();
            Power { active: set.active_watts, idle: set.idle_watts, assumed }
        };
        Ok(profile::update(&self.deployment, previous, &Options::default(), &power, progress)?)
    }

    /// Measures what a plan of these processors lacks, and adds it: models that are new or have changed. Those that are not loaded at
    /// present stay in the plan. Gives whether anything was measured; a plan of other processors is left as it is, for
    /// [`Session::fits`] to refuse.
    ///
    /// # Errors
    /// As [`Session::profile`].
    pub fn complete(&self, app: &App, plan: &mut Plan, progress: Progress<'_>) -> Result<bool, SessionError> {
        if self.same_processors(plan).is_err() {
            return Ok(false);
        }
        let mut update = self.update(app, Some(plan), progress)?;
        if update.measured.is_empty() {
            return Ok(false);
        }
        let here = |v: &Variant| self.deployment.variants.iter().any(|d| d.model.name == v.name);
        update.plan.variants.extend(plan.variants.iter().filter(|v| !here(v)).cloned());
        *plan = update.plan;
        Ok(true)
    }

    /// Whether `plan` describes this deployment: the same processors, devices, variants with the same weights, and segments.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn fits(&self, plan: &Plan) -> Result<(), String> {
        let d = &self.deployment;
        self.same_processors(plan)?;
        // What is offloaded is numbered after the models themselves, so there must be no more of it than here.
        let offloaded =
            |v: &&Variant| d.processors.iter().any(|p| v.name.ends_with(&format!("@{}", p.name())));
        let here = |v: &Variant| d.variants.iter().any(|d| d.model.name == v.name);
        if let Some(gone) = plan.variants.iter().filter(offloaded).find(|v| !here(v)) {
            return Err(format!("`{}` is not offloaded any more", gone.name));
        }
        d.variants.iter().try_for_each(|variant| {
            let name = &variant.model.name;
            let planned = plan.variants.iter().find(|v| v.name == *name);
            let planned = planned.ok_or_else(|| format!("variant `{name}` is not in it"))?;
            same_variant(planned, variant).map_err(|why| format!("variant `{name}`: {why}"))
        })
    }

    fn same_processors(&self, plan: &Plan) -> Result<(), String> {
        let d = &self.deployment;
        let names = |it: &mut dyn Iterator<Item = String>| it.collect::<Vec<_>>().join(", ");
        let here = names(&mut d.processors.iter().map(|p| format!("{} ({})", p.name(), p.device())));
        let there = names(&mut plan.processors.iter().map(|p| format!("{} ({})", p.name, p.device)));
        if here != there {
            return Err(format!("it was made for the processors {there}, here are {here}"));
        }
        for ((there, here), p) in plan.processors.iter().zip(&d.slots).zip(&d.processors) {
            if there.slots != *here {
                let (name, there) = (p.name(), there.slots);
                return Err(format!("it was made for {there} launches at a time on {name}, here are {here}"));
            }
        }
        Ok(())
    }
}

fn same_variant(planned: &Variant, here: &Deployed) -> Result<(), String> {
    same_model(planned, here)?;
    same_segments(planned, here)?;
    let runs = |s: usize| here.prepared[s].iter().map(Result::is_ok);
    let same =
        planned.segments.iter().enumerate().all(|(s, p)| p.costs.iter().map(Option::is_some).eq(runs(s)));
    if same { Ok(()) } else { Err("its segments run on other processors".into()) }
}
