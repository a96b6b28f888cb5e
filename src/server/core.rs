//! What stays while engines come and go: the numbers, the way in, the change from one engine to the next. A change loses no request: the
//! old engine ends when the last request that it took has. It refuses to change anything unless somebody gave it a way to.

use super::engine::{Catalog, Engine, Limits, Setup};
use super::refusal::{Kind, Refusal};
use super::stats::Stats;
use crate::session::SessionError;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use tokio::sync::watch;

/// What shall be served, as it was asked for while the server ran.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// The policy.
    pub policy: String,
    /// Tasks of the app that were unloaded.
    pub without: BTreeSet<String>,
}

/// Makes what is wanted, from whatever it knows: an app file that may have changed, models that are loaded already.
pub trait Maker: Send + Sync {
    /// Everything made ready. It may take its time: the server goes on meanwhile.
    ///
    /// # Errors
    /// Why it cannot be, in words; nothing changes then.
    fn make(&self, wanted: &Wanted) -> Result<Setup, String>;
}

struct Now {
    catalog: Arc<Catalog>,
    /// Gone as soon as no more requests are taken.
    engine: Option<Arc<Engine>>,
}

/// See the module's text.
pub struct Core {
    /// What is counted.
    pub stats: Arc<Stats>,
    now: RwLock<Now>,
    limits: Limits,
    maker: Option<Arc<dyn Maker>>,
    /// Held while something is changed, so that there is one change at a time.
    wanted: tokio::sync::Mutex<Wanted>,
    unloaded: Mutex<BTreeSet<String>>,
    /// True when nobody waits any longer.
    given_up: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What callers are told that come too late.
pub(super) fn closing() -> Refusal {
    Refusal::unavailable("the server is shutting down")
}

/// What load and unload are answered where nobody gave a way to change.
pub const NO_CHANGE: &str =
    "models cannot be loaded or unloaded while this server runs: start it with --control";

impl Core {
    /// Starts the first engine.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start(setup: &Setup, maker: Option<Arc<dyn Maker>>, limits: Limits) -> Result<Core, SessionError> {
        let stats = Arc::new(Stats::default());
        let given_up = watch::channel(false).0;
        let (engine, thread) = Engine::start(setup, &stats, &limits, given_up.subscribe())?;
        let catalog = engine.catalog.clone();
        let wanted = Wanted { policy: setup.policy.clone(), without: BTreeSet::new() };
        Ok(Core {
            stats,
            now: RwLock::new(Now { catalog, engine: Some(Arc::new(engine)) }),
            limits,
            maker,
            wanted: tokio::sync::Mutex::new(wanted),
            unloaded: Mutex::default(),
            given_up,
            threads: Mutex::new(vec![thread]),
        })
    }

    /// What is served now.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).catalog.clone()
    }

    /// What takes requests now. Whoever holds it is answered by it, whatever changes meanwhile.
    ///
    /// # Errors
    /// When no more requests are taken.
    pub fn engine(&self) -> Result<Arc<Engine>, Refusal> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).engine.clone().ok_or_else(closing)
    }

    /// Whether the scheduler is there.
    pub fn live(&self) -> bool {
        self.catalog().live()
    }

    /// Whether requests are taken.
    pub fn ready(&self) -> bool {
        self.live() && self.engine().is_ok()
    }

    /// Name, state and reason of every model that is or was served, in Triton's words.
    pub fn index(&self) -> Vec<(String, &'static str, &'static str)> {
        let loaded = self.catalog();
        let loaded = loaded.models.iter().map(|m| (m.name.clone(), "READY", ""));
        let unloaded = self.unloaded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        loaded.chain(unloaded.into_iter().map(|name| (name, "UNAVAILABLE", "unloaded"))).collect()
    }

    /// Loads a task again, with all that changed in the files; a task that is loaded is read again too.
    ///
    /// # Errors
    /// When it cannot be changed, there is no such task, or the models are wrong. Nothing has changed then.
    pub async fn load(self: &Arc<Core>, task: &str) -> Result<(), Refusal> {
        let name = task.to_owned();
        let there = move |catalog: &Catalog| catalog.model(&name, "").map(drop);
        let edit = |wanted: &mut Wanted| {
            wanted.without.remove(task);
        };
        self.change(edit, there).await
    }

    /// Takes a task out of service; requests that are there are still answered.
    ///
    /// # Errors
    /// As [`Core::load`].
    pub async fn unload(self: &Arc<Core>, task: &str) -> Result<(), Refusal> {
        self.check_control()?;
        self.catalog().model(task, "")?;
        let edit = |wanted: &mut Wanted| {
            wanted.without.insert(task.to_owned());
        };
        self.change(edit, |_| Ok(())).await
    }

    /// Lets another policy decide.
    ///
    /// # Errors
    /// As [`Core::load`].
    pub async fn choose(self: &Arc<Core>, policy: &str) -> Result<(), Refusal> {
        self.change(|wanted| policy.clone_into(&mut wanted.policy), |_| Ok(())).await
    }

    /// Takes over what changed in the files: models, deadlines, weights of the objective, limits.
    ///
    /// # Errors
    /// As [`Core::load`].
    pub async fn reload(self: &Arc<Core>) -> Result<(), Refusal> {
        self.change(|_| {}, |_| Ok(())).await
    }

    fn check_control(&self) -> Result<&Arc<dyn Maker>, Refusal> {
        self.maker.as_ref().ok_or_else(|| Refusal::new(Kind::NotBuilt, NO_CHANGE))
    }

    /// Makes what `edit` wants and puts it to work if it is what `check` expects.
    async fn change(
        self: &Arc<Core>,
        edit: impl FnOnce(&mut Wanted),
        check: impl FnOnce(&Catalog) -> Result<(), Refusal> + Send + 'static,
    ) -> Result<(), Refusal> {
        let maker = self.check_control()?.clone();
        let mut wanted = self.wanted.lock().await;
        let mut next = wanted.clone();
        edit(&mut next);
        let (core, made) = (self.clone(), next.clone());
        let change = move || core.install(maker.as_ref(), &made, check);
        let changed = tokio::task::spawn_blocking(change).await;
        changed.map_err(|e| Refusal::new(Kind::Failed, format!("the change failed: {e}")))??;
        self.unloaded.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&next.without);
        *wanted = next;
        Ok(())
    }

    fn install(
        &self,
        maker: &dyn Maker,
        wanted: &Wanted,
        check: impl FnOnce(&Catalog) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let setup = maker.make(wanted).map_err(Refusal::invalid)?;
        // The next learner goes on from what this one has learned.
        let before = self.engine()?.learning.clone();
        if let Some(Err(error)) = before.as_ref().map(|l| l.save()) {
            return Err(Refusal::new(Kind::Failed, format!("what was learned cannot be kept: {error}")));
        }
        let started = Engine::start(&setup, &self.stats, &self.limits, self.given_up.subscribe());
        let (engine, thread) = started.map_err(|e| Refusal::invalid(e.to_string()))?;
        self.keep(thread);
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let refused = match now.engine {
            None => Some(closing()),
            Some(_) => check(&engine.catalog).err(),
        };
        if let Some(refusal) = refused {
            // It never decided anything: it ends here, and what the old one learns is what counts.
            engine.learning.iter().for_each(|l| l.succeed(true));
            return Err(refusal);
        }
        before.iter().for_each(|l| l.succeed(true));
        tracing::info!(policy = setup.policy, models = engine.catalog.models.len(), "changed");
        let catalog = engine.catalog.clone();
        *now = Now { catalog, engine: Some(Arc::new(engine)) };
        Ok(())
    }

    fn keep(&self, thread: JoinHandle<()>) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|t| !t.is_finished());
        threads.push(thread);
    }

    /// Takes no more requests; those that are there still end.
    pub fn close(&self) {
        let engine = self.now.write().unwrap_or_else(PoisonError::into_inner).engine.take();
        drop(engine);
    }

    /// Whoever still waits is told that the server is shutting down; what they wait for is withdrawn.
    pub fn give_up(&self) {
        self.given_up.send_replace(true);
    }

    /// Waits until the last request has ended, after [`Core::close`]. Blocks.
    pub fn join(&self) {
        loop {
            let thread = self.threads.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(thread) = thread else { return };
            if thread.join().is_err() {
                tracing::error!("the scheduler's thread panicked");
            }
        }
    }
}
