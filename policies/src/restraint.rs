//! A heuristic with its hands tied and its clock wrong: some streams are not served at all, some variants do not run on some processors,
//! and some requests seem to be due earlier or later than they are. Giving up a stream that overload would spoil for all, keeping a long
//! model off the processor that short ones need, one variant instead of another, which of two streams comes first and what is too late to
//! be worth a launch, a processor that is better left idle because somebody needs it in a moment: list schedulers see none of that in one
//! decision, but a search on the case's own stage does (`anneal.rs`).
//! It refuses to tie anything while a processor is down.

mod restrained;
#[cfg(test)]
mod tests;

use crate::anneal::{ALL_SEEDS, Space, anneal};
use crate::stage::{Run, Stage};
use cosched_env::case::{Case, ProcessorId, StreamId, StreamTable, VariantId};
use cosched_env::scenario::ArrivalKind;
use cosched_env::world::Policy;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use restrained::{Kept, Restrained};

/// What is tied, and what decides under it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Restraint {
    /// Name of the heuristic.
    base: &'static str,
    /// Per stream: whether it is served.
    served: Vec<bool>,
    /// Per variant: a bit for each processor that it may use.
    allowed: Vec<u64>,
    /// Per stream: by how many eighths of its deadline its requests seem to be due earlier; below 0: later.
    haste: Vec<i8>,
    /// Per stream: the one variant in which it is served.
    only: Vec<Option<VariantId>>,
    /// Per stream: a bit for each processor that it stays off.
    off: Vec<u64>,
    /// Per stream: the processor that is kept free for its next request.
    keeps: Vec<Option<Keep>>,
}

/// A processor that is kept free for the next request of a stream: launches of others have to end in time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Keep {
    processor: ProcessorId,
    /// So many eighths of its deadline after its arrival they may end.
    eighths: u8,
}

impl Restraint {
    fn none(case: &Case, base: &'static str) -> Restraint {
        Restraint {
            base,
            served: vec![true; case.streams.len()],
            allowed: vec![u64::MAX; case.variants.len()],
            haste: vec![0; case.streams.len()],
            only: vec![None; case.streams.len()],
            off: vec![0; case.streams.len()],
            keeps: vec![None; case.streams.len()],
        }
    }

    /// The heuristic under this restraint.
    pub(crate) fn policy(&self, case: &Case) -> Box<dyn Policy> {
        let inner = crate::make(self.base, case).expect("a base policy needs no parameter");
        if *self == Restraint::none(case, self.base) {
            return inner;
        }
        Box::new(self.over(inner, case))
    }

    fn over(&self, inner: Box<dyn Policy>, case: &Case) -> Restrained {
        let eighths = self.haste.iter().zip(&case.streams);
        let streams = (0..case.streams.len()).map(|s| StreamId(s as u16));
        let able = |s| (0..case.variants.len()).map(move |v| self.can_serve(case, s, VariantId(v as u16)));
        Restrained {
            inner,
            case: case.restricted(|v, p| self.allows(v, p)),
            served: self.served.clone(),
            able: streams.map(|s| able(s).collect()).collect(),
            only: self.only.clone(),
            off: self.off.clone(),
            kept: (0_u16..)
                .zip(&self.keeps)
                .filter_map(|(s, keep)| Some(Kept::new(case, StreamId(s), (*keep)?)))
                .collect(),
            haste_ns: eighths.map(|(&haste, s)| i64::from(haste) * (s.deadline.0 / 8) as i64).collect(),
            requests: Vec::new(),
            candidates: Vec::new(),
            original: Vec::new(),
        }
    }

    fn allows(&self, variant: VariantId, processor: ProcessorId) -> bool {
        self.allowed[variant.0 as usize] >> processor.0 & 1 == 1
    }

    /// Whether a stream may run a variant from its first to its last segment.
    fn can_serve(&self, case: &Case, stream: StreamId, v: VariantId) -> bool {
        let (table, off) = (case.variant(v), self.off[stream.0 as usize]);
        self.only[stream.0 as usize].is_none_or(|only| only == v)
            && (0..table.segments).all(|s| {
                let mut processors = (0..case.processor_count() as u16).map(ProcessorId);
                processors.any(|p| self.allows(v, p) && off >> p.0 & 1 == 0 && table.reach(p, s).is_some())
            })
    }

    /// Whether every stream that is served has a variant that can serve it.
    fn is_possible(&self, case: &Case) -> bool {
        (0_u16..).zip(&case.streams).zip(&self.served).all(|((s, stream), &served)| {
            let mut variants = case.tasks[stream.task.0 as usize].variants.iter();
            !served
                || variants.any(|&v| {
                    case.variant(v).accuracy >= stream.min_accuracy && self.can_serve(case, StreamId(s), v)
                })
        })
    }
}

/// A change of one restraint.
#[derive(Clone, Copy)]
enum Change {
    /// A stream is served or not.
    Serve,
    /// A variant may use a processor or not.
    Allow,
    /// A variant may use one processor only.
    Alone,
    /// A variant may use all of them.
    Anywhere,
    /// A variant may use none of them.
    Nowhere,
    /// Another heuristic.
    Base,
    /// A stream's deadline moves.
    Haste,
    /// A stream is served in one variant only, or in any.
    Only,
    /// A stream stays off a processor or not.
    Off,
    /// A processor is kept free for the next request of a stream, or is not.
    Keep,
}

/// Changes that are drawn from, each as often as it stands here.
const CHANGES: [Change; 10] = {
    use Change::*;
    [Serve, Serve, Serve, Allow, Allow, Allow, Alone, Anywhere, Nowhere, Base]
};
/// More of them, where deadlines may move.
const MOVES: [Change; 3] = [Change::Haste; 3];
/// More of them, where streams share a task: to forbid its variants something would forbid it to all of them.
const APART: [Change; 3] = [Change::Only, Change::Only, Change::Off];
/// More of them, where it is known when requests come.
const KEEPS: [Change; 3] = [Change::Keep; 3];

/// Requests that a run should have.
const REQUESTS: f64 = 250.0;

/// What an attempt may change beside what all may: with more to find there is more to get lost in, so none may do everything.
#[derive(Clone, Copy)]
enum Round {
    Plain,
    /// Deadlines move.
    Moves,
    /// Streams that share a task are told apart.
    Apart,
    /// Processors are kept free for requests to come.
    Keeps,
}

/// The rounds of so many attempts, with one heuristic after the other: plain ones and ones with moved deadlines in turn, and half as many
/// more where streams share a task, and where requests come regularly. Where others were `made` before, all kinds take turns.
fn rounds(case: &Case, bases: usize, attempts: usize, made: usize) -> Vec<Round> {
    let round =
        |attempt: usize| if (attempt / bases).is_multiple_of(2) { Round::Plain } else { Round::Moves };
    let shares = |(i, s): (usize, &StreamTable)| case.streams[..i].iter().any(|other| other.task == s.task);
    let apart = case.streams.iter().enumerate().any(shares);
    let keeps = case.streams.len() > 1 && case.streams.iter().any(|s| s.kind == ArrivalKind::Periodic);
    if made > 0 {
        let kinds =
            [(true, Round::Plain), (true, Round::Moves), (apart, Round::Apart), (keeps, Round::Keeps)];
        let kinds: Vec<_> = kinds.into_iter().filter(|(wanted, _)| *wanted).map(|(_, kind)| kind).collect();
        return (made..made + attempts).map(|attempt| kinds[attempt % kinds.len()]).collect();
    }
    let more = |wanted: bool, round| vec![round; if wanted { attempts / 2 } else { 0 }];
    let extra = [more(apart, Round::Apart), more(keeps, Round::Keeps)].concat();
    (0..attempts).map(round).chain(extra).collect()
}

/// What earlier searches for restraints left.
#[derive(Clone, Debug, Default)]
pub(crate) struct Made {
    /// How many attempts there were.
    pub attempts: usize,
    /// Restraints worth going on from.
    pub best: Vec<Restraint>,
}

/// The best restraints of these heuristics, each of an attempt of so many emulated runs. An attempt begins at one of them, or at what was
/// `made` before if that is better, and draws its own changes: what is found is a matter of luck.
pub(crate) fn search(
    stage: &dyn Stage,
    bases: &[&'static str],
    runs: usize,
    attempts: usize,
    made: &Made,
) -> Vec<Restraint> {
    let find = |(attempt, round): (usize, Round)| {
        let mut starts = vec![Restraint::none(stage.case(), bases[attempt % bases.len()])];
        starts.extend(made.best.iter().cloned());
        let pieces = stage.pieces(ALL_SEEDS, REQUESTS);
        let more: &[Change] = match round {
            Round::Plain => &[],
            Round::Moves => &MOVES,
            Round::Apart => &APART,
            Round::Keeps => &KEEPS,
        };
        let changes = [&CHANGES, more].concat();
        anneal(&Restraints { stage, pieces, bases, changes }, &starts, runs, attempt as u64)
    };
    (made.attempts..).zip(rounds(stage.case(), bases.len(), attempts, made.attempts)).map(find).collect()
}

/// All restraints of a case.
struct Restraints<'a> {
    stage: &'a dyn Stage,
    pieces: Vec<Box<dyn Run + 'a>>,
    bases: &'a [&'static str],
    /// What is drawn from.
    changes: Vec<Change>,
}

impl Space for Restraints<'_> {
    type Point = Restraint;

    fn worth(&self, point: &Restraint, seed: u64) -> f64 {
        self.pieces[seed as usize].worth(&|case| point.policy(case))
    }

    fn is_certain(&self) -> bool {
        self.stage.is_certain()
    }

    fn change(&self, point: &mut Restraint, rng: &mut Pcg64Mcg) {
        let (before, case) = (point.clone(), self.stage.case());
        let v = rng.random_range(0..point.allowed.len());
        let processor = 1_u64 << rng.random_range(0..case.processor_count());
        let change = self.changes[rng.random_range(0..self.changes.len() as u32) as usize];
        let stream = |rng: &mut Pcg64Mcg| rng.random_range(0..case.streams.len());
        match change {
            Change::Serve => {
                let served = &mut point.served[stream(rng)];
                *served = !*served;
            }
            Change::Allow => point.allowed[v] ^= processor,
            Change::Alone => point.allowed[v] = processor,
            Change::Anywhere => point.allowed[v] = u64::MAX,
            Change::Nowhere => point.allowed[v] = 0,
            Change::Base => point.base = self.bases[rng.random_range(0..self.bases.len())],
            Change::Haste => point.haste[stream(rng)] = rng.random_range(-8..=6),
            Change::Only => {
                let stream = stream(rng);
                let variants = &case.tasks[case.streams[stream].task.0 as usize].variants;
                // One more number than variants: none of them.
                point.only[stream] = variants.get(rng.random_range(0..=variants.len())).copied();
            }
            Change::Off => point.off[stream(rng)] ^= processor,
            Change::Keep => {
                let stream = stream(rng);
                let kept = case.streams[stream].kind == ArrivalKind::Periodic && rng.random_range(0..4) > 0;
                let processor = ProcessorId(rng.random_range(0..case.processor_count()) as u16);
                point.keeps[stream] = kept.then(|| Keep { processor, eighths: rng.random_range(0..=8) });
            }
        }
        if !point.is_possible(case) {
            *point = before;
        }
    }
}
