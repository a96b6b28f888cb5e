//! HTML reports and pictures: self-contained, every name escaped, the numbers those of the log.

use crate::fixture::{APP, folder, log, plan, setup};
use cosched_env::time::Time;
use cosched_experiments::about::About;
use cosched_experiments::app::App;
use cosched_experiments::compare::{Comparison, Plan, Setup, compare, emulate, from_table};
use cosched_experiments::html::{comparison_page, escape, report, timeline_svg};
use cosched_experiments::log::RunLog;
use serde_json::Value;
use std::path::Path;

const EVIL: &str = "<script>alert('&\"')</script>";

/// A case in which every name is an attack, run under a policy with such a name.
fn evil() -> (Setup, RunLog) {
    let mut app = App::parse(APP, Path::new("evil.toml")).unwrap();
    let mut plan = plan();
    app.name = EVIL.into();
    plan.processors[0].name = format!("cpu{EVIL}");
    app.streams.iter_mut().for_each(|s| s.task += EVIL);
    plan.variants.iter_mut().for_each(|v| {
        v.task += EVIL;
        v.name += EVIL;
    });
    let setup = Setup { case: app.case_of(plan).unwrap(), seconds: 1.0, ..setup() };
    let mut log = RunLog::new(EVIL);
    let mut policy = from_table("eft", &setup.case).unwrap();
    let end = emulate(&setup, policy.as_mut(), 1, &mut log).unwrap();
    (setup, log.finish(end))
}

fn harmless(page: &str) -> bool {
    !page.contains("<script>alert")
        && page.matches("</script").count() <= 1
        && page.matches("<script").count() <= 1
}

#[test]
fn names_are_escaped() {
    let (setup, log) = evil();
    let page = report(EVIL, &setup.case, std::slice::from_ref(&log), &[EVIL.to_owned()]);
    assert!(harmless(&page));
    assert!(page.contains("&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;"));
    let picture = timeline_svg(&log, &setup.case, Time(0), Time(500_000_000));
    assert!(!picture.contains("<script") && picture.contains("&lt;script"));
    // The saboteur: the same names unescaped are found out.
    assert!(!harmless(&page.replace(&escape(EVIL), EVIL)));
}

/// A comparison of a few policies over three seeds, with what is said of how it was made.
fn comparison(setup: &Setup, about: impl FnOnce(&mut About)) -> (Comparison, About) {
    let policies = ["edf", "eft", "round-robin", "fixed:gpu", "least-slack"].map(String::from);
    let plan = Plan { policies: &policies, seeds: &[1, 2, 3], reference: None, threads: 2 };
    let comparison = compare(setup, &plan, &from_table, &|_, _| {}).unwrap();
    let mut made = About::now(&App::parse(APP, Path::new("small.toml")).unwrap(), &setup.case);
    about(&mut made);
    (comparison, made)
}

#[test]
fn a_comparison_shows_its_numbers() {
    let (comparison, about) = comparison(&setup(), |_| ());
    let page = comparison_page(&comparison, &about);
    for row in &comparison.rows {
        assert!(page.contains(&format!("data-v=\"{}\"", row.utility.mean)), "{}", row.policy);
        assert!(page.contains(&format!("data-v=\"{}\"", row.decision_us)), "{}", row.policy);
    }
    for part in ["see", "hear", "small.toml", "imagined", "period_ms", &about.commit[..7], "3 seeds (1 to 3)"]
    {
        assert!(page.contains(part), "`{part}` is not there");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"));
    // Sure differences are marked as the comparison has them, once in the plot and once in the table.
    let sure = |better: bool| {
        let differences = comparison.rows.iter().filter_map(|r| r.difference.as_ref());
        differences.filter(|d| !d.stars().is_empty() && (d.utility.mean > 0.0) == better).count()
    };
    let marked = |class: &str| {
        page.matches(&format!("<div class=\"line {class}\"")).count()
            + page.matches(&format!("<tr class=\"{class}\"")).count()
    };
    assert_eq!(
        (marked("better"), marked("worse"), marked("reference")),
        (2 * sure(true), 2 * sure(false), 2)
    );
    assert!(sure(false) > 0, "nothing is surely worse here: the test sees nothing");
    // One stream more is a column more.
    assert_eq!(page.matches("--red:").count(), comparison.rows.len() * 3);
}

#[test]
fn names_in_a_comparison_are_escaped() {
    let (setup, _) = evil();
    let (mut comparison, about) = comparison(&setup, |about| {
        about.file = EVIL.into();
        about.commit = EVIL.into();
        about.config = serde_json::json!({ "name": EVIL });
    });
    comparison.scenario = EVIL.into();
    comparison.reference = EVIL.into();
    comparison.rows[0].policy = EVIL.into();
    let page = comparison_page(&comparison, &about);
    assert!(harmless(&page));
    assert!(!harmless(&page.replace(&escape(EVIL), EVIL)));
}

#[test]
fn one_seed_and_one_policy_make_a_page() {
    let setup = setup();
    let policies = ["edf".to_owned()];
    let plan = Plan { policies: &policies, seeds: &[1], reference: None, threads: 1 };
    let comparison = compare(&setup, &plan, &from_table, &|_, _| {}).unwrap();
    let (_, about) = self::comparison(&setup, |_| ());
    let page = comparison_page(&comparison, &about);
    assert!(!page.contains("NaN") && !page.contains("±0"), "{page}");
}

#[test]
fn nothing_is_fetched_from_outside() {
    let setup = setup();
    let (comparison, about) = comparison(&setup, |_| ());
    let page =
        report("Small", &setup.case, &[log(&setup, "edf", 1)], &[]) + &comparison_page(&comparison, &about);
    for word in ["http:", "https:", "src=", "@import", "url(", "fetch(", "XMLHttpRequest", "import("] {
        // The namespace of SVG is a name, not an address that anyone asks.
        let rest = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!rest.contains(word), "the page contains {word}");
    }
}

#[test]
fn the_data_is_that_of_the_log() {
    let setup = setup();
    let log = log(&setup, "fixed:gpu", 1);
    let page = report("Small", &setup.case, std::slice::from_ref(&log), &[]);
    let start = page.find("const DATA = ").unwrap() + "const DATA = ".len();
    let data: Value = serde_json::Deserializer::from_str(&page[start..]).into_iter().next().unwrap().unwrap();
    let run = &data["runs"][0];
    assert_eq!(run["launches"].as_array().unwrap().len(), log.launches.len());
    let requests = run["requests"].as_array().unwrap();
    assert_eq!(requests.len(), log.arrived());
    let late = |word: &str| requests.iter().filter(|r| r[6] == word).count();
    let summary = cosched_experiments::summary::Summary::of(&log, &setup.case);
    assert_eq!(late("late") as u64, summary.total.late);
    assert_eq!(late("on time") as u64, summary.total.on_time);
    assert!(summary.total.late > 0 && page.contains(&format!("class=\"late\">{}<", summary.total.late)));
}

#[test]
fn pictures_are_well_formed() {
    let setup = setup();
    let log = log(&setup, "fixed:gpu", 1);
    let picture = timeline_svg(&log, &setup.case, Time(0), Time(400_000_000));
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n") && !picture.contains("NaN"));
    // Every element is closed: by itself, or by its twin.
    for tag in ["text", "style", "title", "svg"] {
        assert_eq!(
            picture.matches(&format!("<{tag}")).count(),
            picture.matches(&format!("</{tag}>")).count(),
            "{tag}"
        );
    }
    // A stretch of no length and one after the end are drawn, empty.
    assert!(!timeline_svg(&log, &setup.case, Time(5), Time(5)).contains("NaN"));
    timeline_svg(&log, &setup.case, Time(u64::MAX / 2), Time(0));
}

/// Leaves pages for people (and a browser) to look at.
#[test]
fn pages_to_look_at() {
    let mut setup = setup();
    let folder = folder("pages");
    setup.emulator.failure_rate = 0.01;
    let logs: Vec<RunLog> = ["eft", "edf", "fixed:gpu"].iter().map(|spec| log(&setup, spec, 1)).collect();
    let notes = ["A page of the suite; numbers are of an imagined device.".to_owned()];
    std::fs::write(folder.join("report.html"), report("Small: three policies", &setup.case, &logs, &notes))
        .unwrap();
    let (comparison, about) = comparison(&setup, |_| ());
    std::fs::write(folder.join("comparison.html"), comparison_page(&comparison, &about)).unwrap();
    std::fs::write(folder.join("edf.svg"), timeline_svg(&logs[1], &setup.case, Time(0), Time(400_000_000)))
        .unwrap();
    std::fs::write(folder.join("fixed.svg"), timeline_svg(&logs[2], &setup.case, Time(0), Time(400_000_000)))
        .unwrap();
}
