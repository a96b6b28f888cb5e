//! Power of processors: what the app file says, or what counters of energy tell while a processor is kept busy and while it is not, or an
//! assumption. It refuses to leave open which of the three it is.

use super::kept::Kept;
use super::together::Load;
use super::{Options, Steps};
use crate::energy::{Counter, Supply, counter, watts};
use crate::processor::ExecError;

/// Watts while running and while idle.
pub type Watts = (f64, f64);

/// Assumed power of a processor when nobody says anything: the order of magnitude of a phone-class device.
pub fn assumed_watts(processor: &str) -> Watts {
    match processor {
        "cpu" => (4.0, 0.4),
        "dsp" => (1.0, 0.1),
        _ => (3.0, 0.3),
    }
}

/// What is known of a processor's power before anything is measured.
#[derive(Clone, Copy, Debug)]
pub struct Power {
    /// Watts while running that the user gives: they win over what is measured.
    pub active: Option<f64>,
    /// Likewise while idle.
    pub idle: Option<f64>,
    /// What to assume where nothing can be measured.
    pub assumed: Watts,
}

impl Power {
    /// Power that the user gives.
    pub fn given((active, idle): Watts) -> Power {
        Power { active: Some(active), idle: Some(idle), assumed: (active, idle) }
    }
}

/// Power as it goes into the plan.
pub(super) struct Drawn {
    pub watts: Watts,
    /// Which of the three it is.
    pub source: String,
    /// When it was measured, if it was.
    when: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Now,
    Before,
    Never,
}

/// Says in words whose power was measured now, and whose was kept.
pub(super) fn tell(drawn: &[Drawn], names: &[&str], measured: &mut Vec<String>, kept: &mut Vec<String>) {
    for (to, when) in [(measured, When::Now), (kept, When::Before)] {
        let of = names.iter().zip(drawn).filter(|(_, drawn)| drawn.when == when).map(|(name, _)| *name);
        let of: Vec<&str> = of.collect();
        if !of.is_empty() {
            to.push(format!("power of {}", of.join(", ")));
        }
    }
}

/// The key of the provenance that says where a processor's power comes from.
pub(super) fn key(processor: &str) -> String {
    format!("power {processor}")
}

const GIVEN: &str = "app file";
const MEASURED: &str = "measured by ";

/// The power of all processors; what is neither given nor kept is measured where a counter can be read.
pub(super) fn all(
    kept: &Kept<'_>,
    options: &Options,
    known: &dyn Fn(&str) -> Power,
    steps: &mut Steps<'_>,
) -> Result<Vec<Drawn>, ExecError> {
    let processors = &kept.deployment.processors;
    let known: Vec<Power> = processors.iter().map(|p| known(p.name())).collect();
    let mut found: Vec<Option<Drawn>> = (0..known.len()).map(|p| earlier(kept, p, &known[p])).collect();
    let missing = |p: usize, found: &[Option<Drawn>]| {
        found[p].is_none() && (known[p].active.is_none() || known[p].idle.is_none())
    };
    let supplies: Vec<Supply> = processors.iter().map(|p| p.supply()).collect();
    for p in 0..known.len() {
        if !missing(p, &found) {
            continue;
        }
        let group: Vec<usize> =
            (p..known.len()).filter(|&q| supplies[q] == supplies[p] && missing(q, &found)).collect();
        steps.show(0, "power");
        let measured = match counter(&supplies[p], &options.powercap) {
            Ok(mut counter) => together(kept, &group, counter.as_mut(), options)?,
            Err(why) => Err(why),
        };
        let assumed = |q: usize, why: &str| Drawn {
            watts: known[q].assumed,
            source: format!("assumed ({why})"),
            when: When::Never,
        };
        for (at, &q) in group.iter().enumerate() {
            found[q] = Some(match &measured {
                Ok((name, watts)) => Drawn {
                    watts: watts[at],
                    source: format!("{MEASURED}{name} beside idle"),
                    when: When::Now,
                },
                Err(why) => assumed(q, why),
            });
        }
    }
    Ok(known.iter().zip(found).map(|(known, found)| chosen(known, found)).collect())
}

/// What was measured for an earlier plan of the same processors. Half of it may have been given, as it is now.
fn earlier(kept: &Kept<'_>, p: usize, known: &Power) -> Option<Drawn> {
    let spec = kept.spec(p)?;
    let source = kept.same_processors()?.provenance.get(&key(&spec.name))?;
    let source = half(known).and_then(|half| source.strip_prefix(&half)).unwrap_or(source);
    let measured = source.starts_with(MEASURED);
    let watts = (spec.active_watts, spec.idle_watts);
    measured.then(|| Drawn { watts, source: source.into(), when: When::Before })
}

/// What is given, and what was found for the rest.
fn chosen(known: &Power, found: Option<Drawn>) -> Drawn {
    let nothing = || Drawn { watts: known.assumed, source: "assumed".into(), when: When::Never };
    match (known.active, known.idle) {
        (None, None) => found.unwrap_or_else(nothing),
        (Some(active), Some(idle)) => Drawn { watts: (active, idle), source: GIVEN.into(), ..nothing() },
        (active, idle) => {
            let Drawn { watts, source, when } = found.unwrap_or_else(nothing);
            let watts = (active.unwrap_or(watts.0), idle.unwrap_or(watts.1));
            let given = half(known).unwrap_or_default();
            Drawn { watts, source: given + &source, when }
        }
    }
}

/// How the source begins where one of the two numbers is given and the other is not.
fn half(known: &Power) -> Option<String> {
    let word = match (known.active, known.idle) {
        (Some(_), None) => "active",
        (None, Some(_)) => "idle",
        _ => return None,
    };
    Some(format!("{GIVEN} ({word}), "))
}

/// Name of the counter, and the power of each of a group.
type Shared = (String, Vec<Watts>);

/// The power of processors that one counter sees. What the counter sees while none of them works is shared out evenly, so that the
/// processors' power adds up to the counter's whatever runs. `Ok(Err(why))`: the counter cannot be read any more.
fn together(
    kept: &Kept<'_>,
    group: &[usize],
    counter: &mut dyn Counter,
    options: &Options,
) -> Result<Result<Shared, String>, ExecError> {
    let time = options.power;
    let idle = watts(counter, || {
        std::thread::sleep(time);
        Ok::<(), Trouble>(())
    });
    let idle = match idle {
        Ok(idle) => idle,
        Err(trouble) => return trouble.sort(),
    };
    let share = idle / group.len() as f64;
    let mut all = Vec::new();
    for &p in group {
        let busy = match Load::new(kept.deployment, p)? {
            None => Ok(idle),
            Some(mut load) => {
                // The first runs are not what is to be measured.
                load.mean(time / 10)?;
                watts(counter, || load.mean(time).map(|_| ()).map_err(Trouble::Exec))
            }
        };
        match busy {
            Ok(busy) => all.push((share + (busy - idle).max(0.0), share)),
            Err(trouble) => return trouble.sort(),
        }
    }
    Ok(Ok((counter.name().to_owned(), all)))
}

/// What can go wrong while watts are measured.
enum Trouble {
    Exec(ExecError),
    Counter(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Trouble {
        Trouble::Counter(why)
    }
}

impl Trouble {
    /// A failed processor is an error; a failed counter is a reason to assume.
    fn sort<T>(self) -> Result<Result<T, String>, ExecError> {
        match self {
            Trouble::Exec(error) => Err(error),
            Trouble::Counter(why) => Ok(Err(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_wins_and_the_rest_is_said() {
        let found = |watts, source: String| Some(Drawn { watts, source, when: When::Never });
        let measured = || found((9.0, 2.0), format!("{MEASURED}RAPL package-0"));
        let of = |active, idle, found| {
            let drawn = chosen(&Power { active, idle, assumed: (4.0, 0.4) }, found);
            (drawn.watts, drawn.source)
        };
        assert_eq!(of(None, None, measured()), ((9.0, 2.0), "measured by RAPL package-0".into()));
        assert_eq!(of(Some(5.0), None, measured()).0, (5.0, 2.0));
        assert_eq!(of(Some(5.0), None, measured()).1, "app file (active), measured by RAPL package-0");
        assert_eq!(of(Some(5.0), Some(1.0), measured()), ((5.0, 1.0), "app file".into()));
        let assumed = found((4.0, 0.4), "assumed (no counter)".into());
        assert_eq!(
            of(None, Some(1.0), assumed),
            ((4.0, 1.0), "app file (idle), assumed (no counter)".into())
        );
    }
}
