//! What the list policies are for, on cases small enough to work out by hand: the launches in order.
//! It refuses the policies that weigh more than time: see `behaviour_more.rs`.

#[path = "../../env/tests/common/mod.rs"]
mod common;

mod hand;

use common::{Setup, ms, variant};
use cosched_env::emulator::Fault;
use cosched_env::event::Outcome;
use cosched_env::scenario::Stream;
use hand::{all, launches, once, outcomes, queued, setup, task};

#[test]
fn fixed_stays_where_it_is_and_hands_over_what_it_must() {
    let tasks = || vec![task("a", &[Some(1e3), Some(2e3), None]), task("b", &[None, Some(5e3), Some(3e3)])];
    let s = setup(3, tasks(), vec![once("a", 50.0), once("a", 50.0), once("b", 50.0)]);
    assert_eq!(launches("fixed:p0", &s), all(&[("a", 0, 0.0), ("b", 2, 0.0), ("a", 0, 1.0)]));
    assert_eq!(launches("fixed:p1", &s), all(&[("a", 1, 0.0), ("a", 1, 2.0), ("b", 1, 4.0)]));
    // p1 is the only one that supports everything.
    assert_eq!(launches("fixed", &s), launches("fixed:p1", &s));
    // Home is dead for a while: elsewhere meanwhile.
    let mut s = setup(3, tasks(), vec![once("a", 50.0)]);
    s.config.faults = vec![Fault { processor: "p0".into(), to_ms: 9.0, ..Fault::default() }];
    assert_eq!(launches("fixed:p0", &s), all(&[("a", 1, 0.0)]));
}

#[test]
fn round_robin_takes_turns() {
    let tasks = vec![task("a", &[Some(1e3), Some(1e3)])];
    let s = setup(2, tasks, vec![Stream { period_ms: 5.0, ..once("a", 50.0) }]);
    let s = Setup { horizon: ms(18.0), ..s };
    let expected = [("a", 0, 0.0), ("a", 1, 5.0), ("a", 0, 10.0), ("a", 1, 15.0)];
    assert_eq!(launches("round-robin", &s), all(&expected));
}

#[test]
fn edf_takes_the_earliest_deadline_on_the_fastest_idle_processor() {
    let s = queued(
        vec![task("a", &[Some(1e3)]), task("b", &[Some(1e3)])],
        vec![once("a", 30.0), once("b", 20.0)],
    );
    assert_eq!(launches("edf", &s), all(&[("first", 0, 0.0), ("b", 0, 0.1), ("a", 0, 1.1)]));
    // It does not wait for p1, which would have `b` done at 2 ms.
    let tasks = vec![task("a", &[Some(2e3), Some(1e3)]), task("b", &[Some(9e3), Some(1e3)])];
    let s = setup(2, tasks, vec![once("a", 10.0), once("b", 20.0)]);
    assert_eq!(launches("edf", &s), all(&[("a", 1, 0.0), ("b", 0, 0.0)]));
}

#[test]
fn greedy_takes_streams_in_turn_by_name_where_they_are_fastest() {
    // `a` comes first whatever is due, and takes p1, where it is fastest; `b` does not wait for it.
    let tasks = vec![task("a", &[Some(3e3), Some(1e3)]), task("b", &[Some(9e3), Some(1e3)])];
    let s = setup(2, tasks, vec![once("b", 5.0), once("a", 50.0)]);
    assert_eq!(launches("greedy", &s), all(&[("a", 1, 0.0), ("b", 0, 0.0)]));
    // Both processors are free at 1 ms, when two of `a` wait and one of `b`: one of each, and only then the other.
    let same = [Some(1e3), Some(1e3)];
    let tasks = vec![task("a", &same), task("b", &same), task("z", &same)];
    let often = Stream { period_ms: 0.3, offset_ms: 0.1, ..once("a", 50.0) };
    let other = Stream { offset_ms: 0.1, ..once("b", 50.0) };
    let s = setup(2, tasks, vec![once("z", 50.0), once("z", 50.0), often, other]);
    let s = Setup { horizon: ms(0.5), ..s };
    let expected = [("z", 0, 0.0), ("z", 1, 0.0), ("a", 0, 1.0), ("b", 1, 1.0), ("a", 0, 2.0)];
    assert_eq!(launches("greedy", &s), all(&expected));
}

#[test]
fn eft_waits_for_a_busy_processor_when_that_is_earlier() {
    let tasks = vec![task("a", &[Some(2e3), Some(1e3)]), task("b", &[Some(9e3), Some(1e3)])];
    let s = setup(2, tasks, vec![once("a", 10.0), once("b", 20.0)]);
    assert_eq!(launches("eft", &s), all(&[("a", 1, 0.0), ("b", 1, 1.0)]));
}

#[test]
fn a_promised_processor_counts_as_taken() {
    // a runs on p1. b waits for p1 (2 ms, not 9). c would be third there (3.5 ms): p0 has it done at 3 ms.
    let tasks = vec![
        task("a", &[Some(2e3), Some(1e3)]),
        task("b", &[Some(9e3), Some(1e3)]),
        task("c", &[Some(3e3), Some(1.5e3)]),
    ];
    let s = setup(2, tasks, vec![once("a", 10.0), once("b", 20.0), once("c", 30.0)]);
    assert_eq!(launches("eft", &s), all(&[("a", 1, 0.0), ("c", 0, 0.0), ("b", 1, 1.0)]));
}

#[test]
fn the_hopeless_are_dropped_only_by_those_that_say_so() {
    let dropping = [
        "edf-skip",
        "least-slack",
        "heft",
        "heft-reserve",
        "shortest-latency",
        "energy-greedy",
        "dream",
        "min-total-cost",
        "min-max-cost",
        "mdinference",
    ];
    let tasks = || vec![task("a", &[Some(5e3)]), task("b", &[Some(5e3)])];
    let s = queued(tasks(), vec![once("a", 2.0), once("b", 6.0)]);
    for spec in dropping {
        assert_eq!(outcomes(spec, &s), [Outcome::Answered, Outcome::Dropped, Outcome::Answered], "{spec}");
    }
    for spec in ["edf", "eft", "fixed", "round-robin"] {
        assert_eq!(outcomes(spec, &s), [Outcome::Answered, Outcome::Late, Outcome::Late], "{spec}");
    }
    // Nobody else waits: late is better than never.
    let s = setup(1, tasks(), vec![once("a", 2.0)]);
    for spec in dropping {
        assert_eq!(outcomes(spec, &s), [Outcome::Late], "{spec}");
    }
}

#[test]
fn least_slack_and_edf_differ_when_work_does() {
    // `a` is due first, but `b` has less time to spare: 0.5 ms against 5.
    let tasks = vec![task("a", &[Some(1e3)]), task("b", &[Some(11e3)])];
    let s = queued(tasks, vec![once("a", 6.0), once("b", 11.6)]);
    assert_eq!(launches("edf", &s)[1].0, "a");
    assert_eq!(launches("least-slack", &s)[1].0, "b");
}

#[test]
fn heft_puts_the_heavy_and_the_weighty_first() {
    let tasks = || vec![task("a", &[Some(1e3)]), task("b", &[Some(3e3)])];
    let s = queued(tasks(), vec![once("a", 20.0), once("b", 20.0)]);
    assert_eq!(launches("heft", &s)[1].0, "b");
    let weighty = Stream { priority: 10.0, ..once("a", 20.0) };
    let s = queued(tasks(), vec![weighty, once("b", 20.0)]);
    assert_eq!(launches("heft", &s)[1].0, "a");
}

#[test]
fn accuracy_gives_way_to_the_deadline() {
    let small = variant("small", "t", 0.5, &[&[Some(1e3)]]);
    let middle = variant("middle", "t", 0.7, &[&[Some(3e3)]]);
    let large = variant("large", "t", 0.9, &[&[Some(9e3)]]);
    for (deadline, expected) in [(20.0, "large"), (5.0, "middle"), (2.0, "small"), (0.5, "small")] {
        let variants = vec![middle.clone(), small.clone(), large.clone()];
        let s = setup(1, variants, vec![once("t", deadline)]);
        for row in cosched_policies::TABLE.iter().filter(|r| r.name != "learned" && !r.searches) {
            // By the objective an accurate answer that is a little late is worth more than a poor one: the search finds that.
            let expected = if row.name == "static" && deadline < 1.0 { "large" } else { expected };
            assert_eq!(launches(row.name, &s)[0].0, expected, "{}, {deadline} ms", row.name);
        }
    }
}

#[test]
fn a_model_is_split_only_when_that_is_clearly_better() {
    // p0 does everything; its second segment takes p1 a tenth of the time: handing over pays.
    let split = |on_p1: f64| {
        let v = variant("v", "v", 0.9, &[&[Some(1e3), None], &[Some(5e3), Some(on_p1)]]);
        setup(2, vec![v], vec![once("v", 50.0)])
    };
    let list = ["edf", "edf-skip", "eft", "least-slack", "heft", "heft-reserve", "shortest-latency"];
    let others = ["energy-greedy", "dream", "min-total-cost", "min-max-cost", "mdinference"];
    for spec in list.into_iter().chain(others) {
        assert_eq!(launches(spec, &split(500.0)), all(&[("v", 0, 0.0), ("v", 1, 1.0)]), "{spec}");
        assert_eq!(launches(spec, &split(4500.0)), all(&[("v", 0, 0.0)]), "{spec}");
    }
}
