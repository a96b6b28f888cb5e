//! Runs that have to be equal: recorded and replayed, driven and stepped, original and clone, watched and left alone.
//! They refuse to judge whether a run is right; the rules do.

use crate::common::{Item, ends};
use crate::deeds::Deed;
use crate::draft::Setup;
use crate::ledger::ensure;
use crate::world::{Choose, Run, Stepper, core, run, run_under, stack};
use cosched_env::emulator::{Config, Emulator};
use cosched_env::episode::Episode;
use cosched_env::fnv::fnv1a;
use cosched_env::observation::Observation;
use cosched_env::recording::{Header, Recorder, Recording};
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, Policy, drive};

/// The first difference of two logs, in few words.
fn same(a: &[Item], b: &[Item]) -> Result<(), String> {
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(at) => Err(format!("item {at}: {:?}, then {:?}", a[at], b[at])),
        None if a.len() != b.len() => Err(format!("{} items, then {}", a.len(), b.len())),
        None => Ok(()),
    }
}

/// The same seed gives the same log, to the byte.
pub fn the_same_seed_gives_the_same_log(setup: &Setup, deed: Deed) -> Result<(), String> {
    let logs = (run(setup, deed)?.log, run(setup, deed)?.log);
    same(&logs.0, &logs.1)?;
    ensure!(format!("{:?}", logs.0) == format!("{:?}", logs.1), "equal, but not in print");
    Ok(())
}

/// An episode decided from outside is the same run: the same observations, ends and reward.
pub fn an_episode_is_the_driven_run(setup: &Setup, deed: Deed) -> Result<(), String> {
    struct Noting(Choose, Vec<(Time, usize)>);
    impl Policy for Noting {
        fn decide(&mut self, observation: &Observation<'_>) -> Decision {
            self.1.push((observation.now, observation.candidates.len()));
            self.0.decide(observation)
        }
    }
    let mut noting = Noting(Choose::new(&setup.chooser), Vec::new());
    let Run { log, .. } = run_under(setup, deed, &mut noting)?;
    let Setup { case, options, config, seed, horizon, chooser } = setup.clone();
    let mut episode = Episode::new(case, options, config, seed, horizon, Time::NEVER);
    let (mut policy, mut seen, mut reward) = (Choose::new(&chooser), Vec::new(), 0.0);
    loop {
        let step = episode.advance().map_err(|e| e.to_string())?;
        reward += step.reward;
        if step.end.is_some() {
            break;
        }
        let observation = episode.observation().ok_or("no observation, and not over")?;
        let of = observation.candidates.len();
        seen.push((observation.now, of));
        let decision = policy.decide(&observation);
        episode.decide(decision, of).map_err(|e| e.to_string())?;
    }
    ensure!(seen == noting.1, "an episode is asked {seen:?}, a driven policy {:?}", noting.1);
    let ended: Vec<_> = episode.take_ended().collect();
    ensure!(ended.iter().eq(ends(&log)), "an episode ends {ended:?}");
    let utility: f64 = ended.iter().map(|e| e.utility).sum();
    ensure!((utility - reward).abs() < 1e-6, "rewards {reward}, utilities {utility}");
    Ok(())
}

/// Scheduler, emulator and policy cloned at a decision go on as the original does, and neither disturbs the other.
pub fn a_clone_goes_on_as_the_original(setup: &Setup, at: usize) -> Result<(), String> {
    clone_at(setup, at, |_| {})
}

/// As above; `spoil` is what a bad clone does.
pub fn clone_at(setup: &Setup, at: usize, spoil: impl Fn(&mut Stepper)) -> Result<(), String> {
    let whole = run(setup, Deed::Nothing)?;
    let mut original = Stepper::new(setup);
    for _ in 0..at {
        if !original.step()? {
            break;
        }
    }
    let mut clone = original.clone();
    spoil(&mut clone);
    // Turn by turn, so that anything shared would show.
    while original.step()? {
        clone.step()?;
    }
    same(&whole.log, original.log())?;
    same(&whole.log, &clone.finish()?.log)
}

/// A clone of an episode goes on as the original.
pub fn a_clone_of_an_episode_goes_on(setup: &Setup, at: usize) -> Result<(), String> {
    let Setup { case, options, config, seed, horizon, chooser } = setup.clone();
    let mut episode = Episode::new(case, options, config, seed, horizon, Time::NEVER);
    let mut policy = Choose::new(&chooser);
    for _ in 0..at {
        take(&mut episode, &mut policy)?;
    }
    let mut twin = (episode.clone(), policy.clone());
    while take(&mut episode, &mut policy)? {
        take(&mut twin.0, &mut twin.1)?;
    }
    while take(&mut twin.0, &mut twin.1)? {}
    let (a, b): (Vec<_>, Vec<_>) = (episode.take_ended().collect(), twin.0.take_ended().collect());
    ensure!(a == b, "the original ends {a:?}, the clone {b:?}");
    Ok(())
}

fn take(episode: &mut Episode, policy: &mut Choose) -> Result<bool, String> {
    if episode.advance().map_err(|e| e.to_string())?.end.is_some() {
        return Ok(false);
    }
    let of = episode.observation().ok_or("no observation, and not over")?.candidates.len();
    episode.decide(policy.choose(of), of).map_err(|e| e.to_string())?;
    Ok(true)
}

/// Looks ahead before each of its first decisions: forks the core, takes each choice, and runs it to the end in a world of its own.
struct LooksAhead {
    inner: Choose,
    config: Config,
    left: usize,
    /// A canary: what looks ahead uses up the policy's own random numbers.
    careless: bool,
    broken: Option<String>,
}

impl LooksAhead {
    fn look(&mut self, observation: &Observation<'_>, choice: usize) -> Result<(), String> {
        let mut core = observation.fork();
        let horizon = observation.now + Span::from_ms(20.0);
        let mut world = Emulator::resume(&core, self.config.clone(), 77, horizon);
        core.decide(Decision(choice)).map_err(|e| e.to_string())?;
        let mut policy = self.inner.clone();
        drive(&mut core, &mut world, &mut policy, &mut ()).map_err(|e| e.to_string())?;
        if self.careless {
            self.inner = policy;
        }
        let (left, now) = (core.active(), observation.now);
        ensure!(left == 0, "looking ahead from {now} with choice {choice}: {left} requests never end");
        ensure!(core.running().count() == 0, "looking ahead from {now}: something still runs");
        Ok(())
    }
}

impl Policy for LooksAhead {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        if self.left > 0 {
            self.left -= 1;
            let last = observation.candidates.len() - 1;
            for choice in [0, last / 2, last] {
                let looked = self.look(observation, choice);
                self.broken = self.broken.take().or(looked.err());
            }
        }
        self.inner.decide(observation)
    }
}

/// A search on forks of the core disturbs nothing, and its worlds come to an end.
pub fn looking_ahead_disturbs_nothing(setup: &Setup, careless: bool) -> Result<(), String> {
    let (inner, config) = (Choose::new(&setup.chooser), setup.config.clone());
    let mut policy = LooksAhead { inner, config, left: 6, careless, broken: None };
    let watched = run_under(setup, Deed::Nothing, &mut policy)?;
    policy.broken.map_or(Ok(()), Err)?;
    same(&run(setup, Deed::Nothing)?.log, &watched.log)
}

/// The run with its recording.
pub fn record(setup: &Setup, deed: Deed) -> Result<(Vec<Item>, String), String> {
    let text = |e: cosched_env::recording::RecordingError| e.to_string();
    let header = Header::new("drafted", &setup.case, setup.options);
    let mut sink = Vec::new();
    let mut recorder = Recorder::new(stack(setup, deed), &mut sink, &header).map_err(text)?;
    let mut policy = Choose::new(&setup.chooser);
    drive(&mut core(setup, deed), &mut recorder, &mut policy, &mut ()).map_err(|e| e.to_string())?;
    let log = recorder.finish().map_err(text)?.world.log;
    Ok((log, String::from_utf8(sink).map_err(|e| e.to_string())?))
}

/// Plays a recording under a policy.
pub fn replay(text: &str, setup: &Setup) -> Result<Vec<Item>, String> {
    let recording = Recording::read(text.as_bytes()).map_err(|e| e.to_string())?;
    let case = std::sync::Arc::new(recording.header.case().map_err(|e| e.to_string())?);
    ensure!(format!("{:?}", case.device) == format!("{:?}", setup.case.device), "the device changed");
    let mut core = cosched_env::scheduler::Scheduler::new(case, recording.header.options);
    let mut log = crate::common::Logger::default();
    let mut world = recording.replay();
    let mut policy = Choose::new(&setup.chooser);
    let driven = drive(&mut core, &mut world, &mut policy, &mut log);
    world.finish().map_err(|e| e.to_string())?;
    driven.map_err(|e| e.to_string())?;
    Ok(log.0)
}

/// A recorded run replays to the identical run.
pub fn a_recording_replays(setup: &Setup, deed: Deed) -> Result<(), String> {
    let (log, text) = record(setup, deed)?;
    same(&log, &replay(&text, setup)?)
}

/// What is done to a recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spoil {
    Remove,
    Double,
    Swap,
    Digit,
    /// A launch is changed and the check sum made to fit: only the replay itself can tell.
    Forge,
}

/// A recording with something wrong at `place` (a share of it) is refused.
pub fn a_spoilt_recording_is_refused(setup: &Setup, spoil: Spoil, place: f64) -> Result<(), String> {
    let (_, text) = record(setup, Deed::Nothing)?;
    let Some(spoilt) = spoilt(&text, spoil, place) else { return Ok(()) };
    match replay(&spoilt, setup) {
        Ok(_) => Err(format!("{spoil:?} at {place} was not noticed")),
        Err(_) => Ok(()),
    }
}

/// `None`: there is nothing of that kind to spoil.
fn spoilt(text: &str, spoil: Spoil, place: f64) -> Option<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = ((lines.len() as f64 * place) as usize).min(lines.len() - 1);
    match spoil {
        Spoil::Remove => drop(lines.remove(at)),
        Spoil::Double => lines.insert(at, lines[at].clone()),
        Spoil::Swap => {
            let with = if at + 1 < lines.len() { at + 1 } else { at - 1 };
            lines.swap(at, with);
        }
        Spoil::Digit => {
            let digits: Vec<_> = lines[at].char_indices().filter(|(_, c)| c.is_ascii_digit()).collect();
            let &(byte, digit) = digits.get((digits.len() as f64 * place) as usize)?;
            let other = if digit == '7' { "3" } else { "7" };
            lines[at].replace_range(byte..=byte, other);
        }
        Spoil::Forge => {
            let launches: Vec<_> = (0..lines.len()).filter(|&i| lines[i].contains("\"launched\"")).collect();
            let &at = launches.get((launches.len() as f64 * place) as usize)?;
            lines[at] = lines[at].replacen("\"load_bytes\":", "\"load_bytes\":1", 1);
            let last = lines.len() - 1;
            let sum = lines[..last].iter().fold(0, |state, line| fnv1a(state, line.bytes()));
            lines[last] = format!("{{\"entries\":{},\"hash\":\"{sum:016x}\"}}", last - 1);
        }
    }
    Some(lines.join("\n") + "\n")
}
