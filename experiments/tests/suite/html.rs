//! HTML reports and pictures: self-contained, every name escaped, the numbers those of the log.

use crate::fixture::{APP, folder, log, plan, setup};
use cosched_env::time::Time;
use cosched_experiments::app::App;
use cosched_experiments::compare::{Setup, emulate, from_table};
use cosched_experiments::html::{escape, report, timeline_svg};
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

#[test]
fn nothing_is_fetched_from_outside() {
    let setup = setup();
    let page = report("Small", &setup.case, &[log(&setup, "edf", 1)], &[]);
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
    std::fs::write(folder.join("edf.svg"), timeline_svg(&logs[1], &setup.case, Time(0), Time(400_000_000)))
        .unwrap();
    std::fs::write(folder.join("fixed.svg"), timeline_svg(&logs[2], &setup.case, Time(0), Time(400_000_000)))
        .unwrap();
}
