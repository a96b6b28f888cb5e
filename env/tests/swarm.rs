//! Property tests over whole setups drawn by proptest: plan, device, scenario, faults and decisions (`swarm/strategy.rs`). Every rule
//! holds on every draft, and every canary (`swarm/deeds.rs`: something done wrong on purpose) is found by the rule that is for it.
//!
//! Each rule is tried on [`CASES`] drafts; the variable `COSCHED_SWARM_CASES` tries more, as in
//! `COSCHED_SWARM_CASES=20000 cargo test -p cosched-env --test swarm`. Drafts are new each time unless `PROPTEST_RNG_SEED` is set (as
//! `make test` does). A failing draft is shrunk and printed as a few lines. It refuses to test what needs numbers by hand:
//! `emulator.rs`, `streams.rs`, `memory.rs` and `fairness.rs` do that.

mod common;

#[path = "swarm/deeds.rs"]
mod deeds;
#[path = "swarm/draft.rs"]
mod draft;
#[path = "swarm/follows.rs"]
mod follows;
#[path = "swarm/ledger.rs"]
mod ledger;
#[path = "swarm/memory.rs"]
mod memory;
#[path = "swarm/patience.rs"]
mod patience;
#[path = "swarm/rules.rs"]
mod rules;
#[path = "swarm/show.rs"]
mod show;
#[path = "swarm/strategy.rs"]
mod strategy;
#[path = "swarm/twins.rs"]
mod twins;
#[path = "swarm/world.rs"]
mod world;

use deeds::Deed;
use draft::{Draft, Setup};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError, TestError, TestRunner};
use std::cell::RefCell;
use twins::Spoil;
use world::{Run, Stepper, run};

/// Drafts that each rule is tried on.
const CASES: u32 = 256;

fn config() -> ProptestConfig {
    let cases = std::env::var("COSCHED_SWARM_CASES").map_or(CASES, |text| {
        text.parse().unwrap_or_else(|_| panic!("COSCHED_SWARM_CASES: expected a number, got `{text}`"))
    });
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 3000, ..ProptestConfig::default() }
}

/// Tries a rule on drawn values; the shrunk one that breaks it, with the reason.
fn search<S: Strategy>(
    config: ProptestConfig,
    strategy: S,
    rule: impl Fn(&S::Value) -> Result<(), String>,
) -> Result<(), (String, S::Value)> {
    let mut runner = TestRunner::new(config);
    let found = runner.run(&strategy, |value| rule(&value).map_err(TestCaseError::fail));
    match found {
        Ok(()) => Ok(()),
        Err(TestError::Fail(why, value)) => Err((why.to_string(), value)),
        Err(TestError::Abort(why)) => panic!("the swarm could not draw: {why}"),
    }
}

/// A rule that has to hold for all that is drawn.
fn holds<S: Strategy>(strategy: S, rule: impl Fn(&S::Value) -> Result<(), String>) {
    if let Err((why, value)) = search(config(), strategy, rule) {
        panic!("broken by\n{value:?}\nbecause {why}");
    }
}

/// A rule about the log of a sound run.
fn holds_in_every_run(rule: fn(&Run) -> Result<(), String>) {
    holds(strategy::draft(), |draft| rule(&run(&draft.build(), Deed::Nothing)?));
}

/// One test for each rule over the log.
macro_rules! rules {
    ($($module:ident :: $rule:ident,)*) => {$(
        #[test]
        fn $rule() {
            holds_in_every_run($module::$rule);
        }
    )*};
}

rules! {
    rules::each_request_ends_exactly_once,
    rules::only_the_latest_waits,
    rules::slots_are_never_exceeded,
    rules::energy_adds_up,
    rules::time_never_goes_back,
    rules::utility_is_the_formula,
    patience::nothing_starves,
    patience::all_is_heard_before_deciding,
    patience::launches_are_bounded,
    memory::memory_is_never_over_capacity,
    follows::arrivals_do_not_depend_on_decisions,
    follows::dependent_requests_follow_answers_only,
}

#[test]
fn the_same_seed_gives_the_same_log() {
    holds(strategy::draft(), |d| twins::the_same_seed_gives_the_same_log(&d.build(), Deed::Nothing));
}

#[test]
fn an_episode_is_the_driven_run() {
    holds(strategy::draft(), |d| twins::an_episode_is_the_driven_run(&d.build(), Deed::Nothing));
}

#[test]
fn a_clone_goes_on_as_the_original() {
    holds((strategy::draft(), 0usize..60), |(d, at)| {
        twins::a_clone_goes_on_as_the_original(&d.build(), *at)?;
        twins::a_clone_of_an_episode_goes_on(&d.build(), *at)
    });
}

#[test]
fn looking_ahead_disturbs_nothing() {
    holds(strategy::draft(), |d| twins::looking_ahead_disturbs_nothing(&d.build(), false));
}

#[test]
fn a_recording_replays() {
    holds(strategy::draft(), |d| twins::a_recording_replays(&d.build(), Deed::Nothing));
}

#[test]
fn a_spoilt_recording_is_refused() {
    let spoil = prop_oneof![
        Just(Spoil::Remove),
        Just(Spoil::Double),
        Just(Spoil::Swap),
        Just(Spoil::Digit),
        Just(Spoil::Forge)
    ];
    holds((strategy::draft(), spoil, 0.0..1.0), |(d, spoil, place)| {
        twins::a_spoilt_recording_is_refused(&d.build(), *spoil, *place)
    });
}

/// Seed of the searches whose outcome must not be a matter of luck.
const SEED: u64 = 20_261_122;

/// A fixed search over as many drafts as a rule is tried on by default.
fn fixed() -> ProptestConfig {
    ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 1500,
        rng_seed: RngSeed::Fixed(SEED),
        ..ProptestConfig::default()
    }
}

/// How often what matters comes up in a run: (name, times).
fn sights(run: &Run) -> Vec<(&'static str, usize)> {
    use cosched_env::event::{Event, Outcome};
    let ended = |is: fn(&Outcome) -> bool| common::ends(&run.log).filter(|e| is(&e.outcome)).count();
    let events = |is: fn(&Event) -> bool| {
        run.log.iter().filter(|i| matches!(i, common::Item::Event(_, event) if is(event))).count()
    };
    let launched = |is: &dyn Fn(&cosched_env::event::Launch) -> bool| {
        run.log.iter().filter(|i| matches!(i, common::Item::Launched(_, l) if is(l))).count()
    };
    let remote = |l: &cosched_env::event::Launch| {
        run.setup.case.processors[l.processor.0 as usize].model.link.is_some()
    };
    vec![
        ("answered", ended(|o| *o == Outcome::Answered)),
        ("late", ended(|o| *o == Outcome::Late)),
        ("dropped", ended(|o| *o == Outcome::Dropped)),
        ("expired", ended(|o| *o == Outcome::Expired)),
        ("replaced", ended(|o| *o == Outcome::Replaced)),
        ("failed", ended(|o| matches!(o, Outcome::Failed(_)))),
        ("failed launch", events(|e| matches!(e, Event::Completed(c) if c.failure.is_some()))),
        ("dead processor", events(|e| matches!(e, Event::Health { up: false, .. }))),
        ("alarm", events(|e| *e == Event::Alarm)),
        ("dependent request", events(|e| matches!(e, Event::Arrived(r) if r.origin != r.arrival))),
        ("later segments", launched(&|l| l.first > 0)),
        ("inputs from elsewhere", launched(&|l| l.inputs_on.is_some_and(|p| p != l.processor))),
        ("weights loaded", launched(&|l| l.load_bytes > 0)),
        ("over a link", launched(&remote)),
    ]
}

#[test]
fn the_swarm_goes_everywhere() {
    let seen = RefCell::new(std::collections::BTreeMap::new());
    let noted = search(fixed(), strategy::draft(), |draft| {
        for (name, times) in sights(&run(&draft.build(), Deed::Nothing)?) {
            *seen.borrow_mut().entry(name).or_insert(0) += times;
        }
        Ok(())
    });
    noted.unwrap_or_else(|(why, draft)| panic!("{why}:\n{draft:?}"));
    let rare: Vec<_> = seen.into_inner().into_iter().filter(|(_, times)| *times < 50).collect();
    assert!(rare.is_empty(), "hardly ever in {CASES} drafts: {rare:?}");
}

/// What followed, over all drafts of a fixed search.
fn followings(deed: Deed) -> Vec<(f64, bool)> {
    let all = RefCell::new(Vec::new());
    let runner = ProptestConfig { cases: 12 * CASES, ..fixed() };
    let noted = search(runner, strategy::draft(), |draft| {
        all.borrow_mut().extend(follows::followings(&run(&draft.build(), deed)?));
        Ok(())
    });
    noted.unwrap_or_else(|(why, draft)| panic!("{why}:\n{draft:?}"));
    all.into_inner()
}

#[test]
fn dependent_requests_follow_as_often_as_the_probability_says() {
    let all = followings(Deed::Nothing);
    let deviation = follows::deviation(&all);
    let drawn = all.iter().filter(|(p, _)| *p > 0.0 && *p < 1.0).count();
    assert!(drawn > 500, "only {drawn} draws");
    assert!(deviation.abs() < 4.0, "{deviation} standard deviations off in {drawn} draws");
    let never = follows::deviation(&followings(Deed::FollowsNever));
    assert!(never < -4.0, "nobody misses requests that never follow: {never}");
}

/// A rule by the name of its test.
type Rule = (&'static str, fn(&Setup, Deed) -> Result<(), String>);

macro_rules! rule {
    ($module:ident :: $rule:ident) => {
        (stringify!($rule), |setup, deed| $module::$rule(&run(setup, deed)?))
    };
}

/// What is done wrong, and the rule that has to find it.
const CANARIES: &[(Deed, Rule)] = &[
    (Deed::LosesAnEnd, rule!(rules::each_request_ends_exactly_once)),
    (Deed::EndsTwice, rule!(rules::each_request_ends_exactly_once)),
    (Deed::CallsLateOnTime, rule!(rules::each_request_ends_exactly_once)),
    (Deed::CallsFailedAnswered, rule!(rules::each_request_ends_exactly_once)),
    (Deed::CompletesTwice, rule!(rules::each_request_ends_exactly_once)),
    (Deed::ForgetsTheDead, rule!(rules::each_request_ends_exactly_once)),
    (Deed::LetsOldWait, rule!(rules::only_the_latest_waits)),
    (Deed::MoreSlots, rule!(rules::slots_are_never_exceeded)),
    (Deed::DeafToHealth, rule!(rules::slots_are_never_exceeded)),
    (Deed::SurvivesDeath, rule!(rules::slots_are_never_exceeded)),
    (Deed::BeginsTooEarly, rule!(rules::slots_are_never_exceeded)),
    (Deed::ChargesTwice, rule!(rules::energy_adds_up)),
    (Deed::TimeGoesBack, rule!(rules::time_never_goes_back)),
    (Deed::BeginsTooEarly, rule!(rules::time_never_goes_back)),
    (Deed::Unfair, rule!(rules::utility_is_the_formula)),
    (Deed::KeepsExpired, rule!(patience::nothing_starves)),
    (Deed::NeverWakes, rule!(patience::nothing_starves)),
    (Deed::SleepsIn, rule!(patience::nothing_starves)),
    (Deed::ForgetsTheDead, rule!(patience::nothing_starves)),
    (Deed::HearsOneByOne, rule!(patience::all_is_heard_before_deciding)),
    (Deed::DragsOn, rule!(patience::launches_are_bounded)),
    (Deed::LoadsNothing, rule!(memory::memory_is_never_over_capacity)),
    (Deed::ForgetsMemory, rule!(memory::memory_is_never_over_capacity)),
    (Deed::ArrivesByDecisions, rule!(follows::arrivals_do_not_depend_on_decisions)),
    (Deed::LosesArrivals, rule!(follows::arrivals_do_not_depend_on_decisions)),
    (Deed::FollowsDropped, rule!(follows::dependent_requests_follow_answers_only)),
    (Deed::FollowsTwice, rule!(follows::dependent_requests_follow_answers_only)),
    (Deed::FollowsNever, rule!(follows::dependent_requests_follow_answers_only)),
    (Deed::HasMoods, ("the_same_seed_gives_the_same_log", twins::the_same_seed_gives_the_same_log)),
    (Deed::SleepsIn, ("an_episode_is_the_driven_run", twins::an_episode_is_the_driven_run)),
    (Deed::HasMoods, ("an_episode_is_the_driven_run", twins::an_episode_is_the_driven_run)),
    (Deed::ChargesTwice, ("a_recording_replays", twins::a_recording_replays)),
    (Deed::LoadsNothing, ("a_recording_replays", twins::a_recording_replays)),
];

/// Lines and characters that a shrunk draft may take: somebody has to read it.
const MOST_LINES: usize = 16;
const MOST_CHARACTERS: usize = 1000;

#[test]
fn every_canary_is_found() {
    for &(deed, (rule, check)) in CANARIES {
        let (why, draft) = search(fixed(), strategy::draft(), |draft| check(&draft.build(), deed))
            .expect_err(&format!("{deed:?} was not found by {rule}"));
        readable(&format!("{deed:?}, found by {rule}: {why}"), &draft);
    }
}

fn readable(what: &str, draft: &Draft) {
    let text = format!("{draft:?}");
    assert!(
        text.lines().count() <= MOST_LINES && text.len() <= MOST_CHARACTERS,
        "{what}, but is not shrunk to something readable:\n{text}"
    );
}

#[test]
fn canaries_of_clones_and_forks_are_found() {
    // A clone whose policy is one choice ahead, and a search that draws from the policy's random numbers.
    let ahead = |stepper: &mut Stepper| {
        stepper.policy.choose(1);
    };
    let found = search(fixed(), (strategy::draft(), 0usize..60), |(draft, at)| {
        twins::clone_at(&draft.build(), *at, ahead)
    });
    let (why, (draft, _)) = found.expect_err("a clone that runs ahead was not found");
    readable(&why, &draft);
    let found =
        search(fixed(), strategy::draft(), |d| twins::looking_ahead_disturbs_nothing(&d.build(), true));
    let (why, draft) = found.expect_err("a careless search was not found");
    readable(&why, &draft);
}
