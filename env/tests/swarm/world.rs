//! A run of a draft with a tap between scheduler and world, and the two places where it can be broken on purpose: what the tap
//! writes down is what a sound scheduler and a sound world would both have agreed to. It refuses to judge.

use crate::common::Item;
use crate::deeds::{BrokenCore, BrokenWorld, Deed};
use crate::draft::{Chooser, Setup};
use cosched_env::case::Case;
use cosched_env::emulator::Emulator;
use cosched_env::event::{Ended, Event, Launch};
use cosched_env::observation::Observation;
use cosched_env::scenario::Queue;
use cosched_env::scheduler::{Next, Scheduler};
use cosched_env::streams::rng;
use cosched_env::time::Time;
use cosched_env::world::{Decision, Policy, World, drive};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::sync::Arc;

/// A run with more events has gone astray.
const MOST_EVENTS: usize = 100_000;
const MOST_DECISIONS: usize = 10_000;

/// Decides as a draft says.
#[derive(Clone)]
pub struct Choose {
    chooser: Chooser,
    rng: Pcg64Mcg,
    made: usize,
}

impl Choose {
    pub fn new(chooser: &Chooser) -> Choose {
        let seed = if let Chooser::Random(seed) = chooser { *seed } else { 0 };
        Choose { chooser: chooser.clone(), rng: rng(seed.into(), "chooser", 0), made: 0 }
    }

    pub fn choose(&mut self, candidates: usize) -> Decision {
        self.made += 1;
        Decision(match &self.chooser {
            Chooser::First => 0,
            Chooser::Turns(turns) => turns[(self.made - 1) % turns.len()] as usize * candidates / 256,
            Chooser::Random(_) => self.rng.random_range(0..candidates),
        })
    }
}

impl Policy for Choose {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        self.choose(observation.candidates.len())
    }
}

/// Writes down what crosses it.
#[derive(Clone)]
pub struct Tap<W> {
    world: W,
    pub log: Vec<Item>,
    now: Time,
    events: usize,
    decisions: usize,
}

impl<W> Tap<W> {
    fn new(world: W) -> Tap<W> {
        Tap { world, log: Vec::new(), now: Time::ZERO, events: 0, decisions: 0 }
    }

    /// Whether it was cut off.
    fn endless(&self) -> bool {
        self.events > MOST_EVENTS || self.decisions > MOST_DECISIONS
    }

    fn event(&mut self, now: Time, event: &Event) {
        self.now = now;
        self.events += 1;
        self.decisions = 0;
        self.log.push(Item::Event(now, event.clone()));
    }
}

impl<W: World> World for Tap<W> {
    fn launch(&mut self, launch: &Launch) {
        self.log.push(Item::Launched(self.now, *launch));
        self.world.launch(launch);
    }
    fn wait(&mut self, until: Option<Time>) -> Option<(Time, Event)> {
        if self.endless() {
            return None;
        }
        let (now, event) = self.world.wait(until)?;
        self.event(now, &event);
        Some((now, event))
    }
    fn ready(&mut self, now: Time) -> Option<Event> {
        if self.endless() {
            return None;
        }
        let event = self.world.ready(now)?;
        self.event(now, &event);
        Some(event)
    }
    fn decided(&mut self, decision: Decision, candidates: usize) {
        self.decisions += 1;
        self.log.push(Item::Decided(decision.0, candidates));
        self.world.decided(decision, candidates);
    }
    fn ended(&mut self, ended: &Ended) {
        self.log.push(Item::Ended(ended.clone()));
        self.world.ended(ended);
    }
}

pub type Stack = BrokenCore<Tap<BrokenWorld<Emulator>>>;

/// The world of a setup, tapped, with what is wrong with it.
pub fn stack(setup: &Setup, deed: Deed) -> Stack {
    let emulator = Emulator::new(setup.case.clone(), setup.config.clone(), setup.seed, setup.horizon);
    BrokenCore::new(Tap::new(BrokenWorld::new(emulator, deed)), deed)
}

/// The scheduler of a setup. What some deeds do wrong is that it believes in another case.
pub fn core(setup: &Setup, deed: Deed) -> Scheduler {
    let Case { mut plan, mut device, mut scenario, .. } = (*setup.case).clone();
    match deed {
        Deed::MoreSlots => plan.processors.iter_mut().for_each(|p| p.slots += 1),
        Deed::ForgetsMemory => device.processors.values_mut().for_each(|m| m.memory_mb = 0.0),
        Deed::LetsOldWait => scenario.streams.iter_mut().for_each(|s| s.queue = Queue::Fifo),
        _ => return Scheduler::new(setup.case.clone(), setup.options),
    }
    let believed = Case::on(plan, device, scenario).expect("these are free to choose");
    Scheduler::new(Arc::new(believed), setup.options)
}

/// What came of a run.
#[derive(Clone)]
pub struct Run {
    pub setup: Setup,
    pub log: Vec<Item>,
}

/// Runs a setup under `policy`; an error when the run itself broke down.
pub fn run_under(setup: &Setup, deed: Deed, policy: &mut dyn Policy) -> Result<Run, String> {
    let (mut world, mut core) = (stack(setup, deed), core(setup, deed));
    drive(&mut core, &mut world, policy, &mut ()).map_err(|e| e.to_string())?;
    closed(setup, &world.world)
}

/// Runs a setup under its own chooser.
pub fn run(setup: &Setup, deed: Deed) -> Result<Run, String> {
    run_under(setup, deed, &mut Choose::new(&setup.chooser))
}

fn closed<W>(setup: &Setup, tap: &Tap<W>) -> Result<Run, String> {
    if tap.endless() {
        return Err(format!("the run did not end: {} events", tap.events));
    }
    Ok(Run { setup: setup.clone(), log: tap.log.clone() })
}

/// The same loop as `drive`, in pieces: it can stop at a decision and be cloned there.
#[derive(Clone)]
pub struct Stepper {
    setup: Setup,
    core: Scheduler,
    world: Stack,
    pub policy: Choose,
}

impl Stepper {
    pub fn new(setup: &Setup) -> Stepper {
        let (core, world) = (core(setup, Deed::Nothing), stack(setup, Deed::Nothing));
        Stepper { setup: setup.clone(), core, world, policy: Choose::new(&setup.chooser) }
    }

    /// Takes one decision and what follows up to the next one; false: the run is over.
    pub fn step(&mut self) -> Result<bool, String> {
        loop {
            match self.core.poll() {
                Next::Decide(observation) => {
                    let candidates = observation.candidates.len();
                    let decision = self.policy.choose(candidates);
                    self.world.decided(decision, candidates);
                    self.core.decide(decision).map_err(|e| e.to_string())?;
                    return Ok(true);
                }
                Next::Launch(launch) => self.world.launch(&launch),
                Next::Ended(ended) => self.world.ended(&ended),
                Next::Wait(until) => {
                    let Some((now, event)) = self.world.wait(until) else { return Ok(false) };
                    self.core.handle(now, event).map_err(|e| e.to_string())?;
                    self.hear_all(now)?;
                }
            }
        }
    }

    fn hear_all(&mut self, now: Time) -> Result<(), String> {
        loop {
            while let Some(ended) = self.core.take_ended() {
                self.world.ended(&ended);
            }
            let Some(event) = self.world.ready(now) else { return Ok(()) };
            self.core.handle(now, event).map_err(|e| e.to_string())?;
        }
    }

    /// Goes on to the end.
    pub fn finish(mut self) -> Result<Run, String> {
        while self.step()? {}
        closed(&self.setup, &self.world.world)
    }

    /// What has been written down so far.
    pub fn log(&self) -> &[Item] {
        &self.world.world.log
    }
}
