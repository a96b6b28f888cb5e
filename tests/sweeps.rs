//! Sweeps as people run them: killed and gone on with, on a store that is full, the shipped files, and the report. It holds no sweep of
//! its own that takes more than seconds.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Folder, LIMIT};

fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

/// 200 cells of a moment each.
fn two_hundred() -> String {
    let base = repository("experiments/scenarios/rk3588.toml");
    format!(
        "base = \"{base}\"\npolicies = [\"edf\", \"eft\", \"heft\", \"round-robin\"]\nseeds = 25\nseconds = 0.3\n[grid]\nload = [0.8, 1.2]\n"
    )
}

fn results(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.file_name());
    names.filter(|n| n.to_string_lossy().ends_with(".json")).count()
}

/// Cells that were done when the sweep was killed, which has at least `least` of them.
fn killed_after(folder: &Folder, least: usize) -> usize {
    let killed = folder.0.join("killed");
    let _ = std::fs::remove_dir_all(&killed);
    let cells = killed.join("cells");
    let mut child = folder.start("sweep many.toml --out killed");
    let begun = Instant::now();
    while results(&cells) < least {
        assert!(begun.elapsed() < LIMIT, "only {} cells in {LIMIT:?}", results(&cells));
        std::thread::sleep(Duration::from_millis(2));
    }
    // On Unix this is SIGKILL: nothing is said, nothing is tidied.
    child.kill().unwrap();
    child.wait().unwrap();
    results(&cells)
}

#[test]
fn a_sweep_killed_in_the_middle_gives_the_same_table_byte_for_byte() {
    let folder = Folder::new("sweep-kill");
    folder.write("many.toml", two_hundred());
    let whole = folder.good("sweep many.toml --out whole", &[]);
    assert!(whole.err.contains("200 cells, 0 of them done before"), "{}", whole.err);
    // On a busy machine the kill may come when all is done: then it shows nothing, and is tried again.
    let done =
        (0..10).map(|_| killed_after(&folder, 60)).find(|done| *done < 200).expect("a kill in the middle");
    assert!(!folder.0.join("killed/table.csv").exists());
    let again = folder.good("sweep many.toml --out killed", &[]);
    assert!(again.err.contains(&format!("200 cells, {done} of them done before")), "{}", again.err);
    for name in ["table.csv", "table.parquet"] {
        assert_eq!(folder.read(&format!("whole/{name}")), folder.read(&format!("killed/{name}")), "{name}");
    }
    assert_eq!(whole.out, again.out);
    // The saboteur: another seed is another table.
    folder.write("other.toml", two_hundred().replace("seeds = 25", "seeds = [26]"));
    folder.good("sweep other.toml --out other", &[]);
    assert_ne!(folder.read("whole/table.csv"), folder.read("other/table.csv"));
}

#[test]
fn a_full_store_is_told_and_loses_nothing() {
    let folder = Folder::new("sweep-full");
    folder.write("many.toml", two_hundred().replace("seeds = 25", "seeds = 1"));
    // No file may grow beyond 4 KiB, and the process is not killed for trying: as on a full disk, writing fails in the middle.
    let limited = "trap '' XFSZ; ulimit -f 8; exec \"$0\" sweep many.toml --out out";
    let ran = Command::new("sh")
        .args(["-c", limited, env!("CARGO_BIN_EXE_cosched")])
        .current_dir(&folder.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains(".json: cannot be written: File too large"), "{said}");
    let cells = folder.0.join("out/cells");
    assert_eq!(std::fs::read_dir(&cells).unwrap().count(), 0, "something half written is left");
    assert!(!folder.0.join("out/table.csv").exists());
    folder.good("sweep many.toml --out out", &[]);
    assert_eq!(results(&cells), 8);
}

#[test]
fn the_report_and_its_refusals() {
    let folder = Folder::new("sweep-report");
    folder.write("many.toml", two_hundred().replace("seeds = 25", "seeds = 2"));
    folder.write("bad.toml", two_hundred().replace("\"edf\"", "\"fixed:cpu\"").replace("25", "1"));
    folder.good("sweep many.toml --out out", &[]);
    let said = folder.good("report out", &[]).out;
    assert!(said.contains("out/report.html and 8 pictures beside it"), "{said}");
    let page = String::from_utf8(folder.read("out/report.html")).unwrap();
    for words in [
        "<!doctype html>",
        "Over what was swept",
        "Missed deadlines",
        "Timeline of a cell",
        "rk3588, load 0.8",
    ] {
        assert!(page.contains(words), "{words}");
    }
    for outside in [" src=", " href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(folder.read("out/pictures/misses.png").starts_with(b"\x89PNG"));
    let dry = folder.good("sweep many.toml --out out --dry-run", &[]).out;
    assert!(dry.ends_with("16 cells of kind compare, 16 of them done; 0 to run\n"), "{dry}");
    folder.good("sweep many.toml --out array --engine slurm", &[]);
    assert_eq!(String::from_utf8(folder.read("array/slurm/cells.txt")).unwrap().lines().count(), 16);
    folder.refuses(&[
        ("report nowhere", 1, &["nowhere: holds no results: expected meta.json"]),
        ("report out --gantt zz", 1, &["cell zz: there is none whose hash begins so"]),
        ("sweep bad.toml --out bad", 1, &["2 of 8 cells failed; the first is cell 0", "no processor `cpu`"]),
        ("sweep bad.toml --out out", 1, &["out: holds the results of the sweep `many`, not of `bad`"]),
        ("sweep many.toml --cell 0123456789", 2, &["--cell 0123456789: 0 cells of many.toml begin so"]),
        ("sweep many.toml --out /proc/x", 1, &["/proc/x: cannot be written"]),
    ]);
}

#[cfg(feature = "train")]
#[test]
fn an_adaptation_has_everybody_in_its_table_and_refuses_what_makes_no_sense() {
    let folder = Folder::new("sweep-adapt");
    let app = repository("experiments/scenarios/robot-orin.toml");
    let text = |change: (&str, &str)| {
        let base =
            format!("app = \"{app}\", seconds = 8.0, baselines = [\"edf-skip\"]").replace(change.0, change.1);
        format!("kind = \"adapt\"\nbase = {{ {base} }}\nseeds = [7]\n")
    };
    folder.write("adapt.toml", text(("", "")));
    let ran = folder.good("sweep adapt.toml --out done", &[]);
    for name in ["knows: learned", "knows: heuristic", "online", "frozen", "edf-skip"] {
        assert!(ran.out.contains(&format!(",{name},")), "{name}: {}", ran.out);
    }
    let again = folder.good("sweep adapt.toml --out again", &[]);
    assert_eq!(ran.out, again.out, "one seed, two results");
    let refused = [
        (("seconds", "secons"), "base: unknown key `secons`; did you mean `seconds`?"),
        (("8.0", "-8.0"), "seconds: expected a number above 0"),
        (("edf-skip", "edf-skp"), "baselines: "),
        (("robot-orin.toml", "robot-onir.toml"), "robot-onir.toml"),
        (("seconds = 8.0", "processor = \"npu\""), "no processor `npu`; processors: "),
        (("seconds = 8.0", "factor = 0.5"), "expected a factor above 1"),
    ];
    for (change, words) in refused {
        folder.write("wrong.toml", text(change));
        let ran = folder.run("sweep wrong.toml --out wrong", &[], LIMIT).unwrap();
        assert!(ran.code != Some(0) && ran.err.contains(words), "{change:?}: {}", ran.err);
    }
}

/// `make experiments QUICK=1` in small: every shipped file is read, listed, and run in its subset `quick`.
#[test]
fn the_shipped_sweeps_run_in_their_quick_form() {
    let folder = Folder::new("sweep-shipped");
    let files = std::fs::read_dir(repository("experiments/sweeps")).unwrap().flatten().map(|e| e.path());
    let mut files: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        if !cfg!(feature = "train") && ["ablation", "adapt"].contains(&&*name) {
            continue;
        }
        let ran = folder.good(&format!("sweep {} --subset quick --out {name}", file.display()), &[]);
        assert!(ran.out.lines().count() > 1, "{name}: {}", ran.err);
        folder.good(&format!("report {name}"), &[]);
    }
    // Under the published policy, every score is the published one.
    let table = String::from_utf8(folder.read("xrbench/table.csv")).unwrap();
    let column = table.lines().next().unwrap().split(',').position(|c| c == "as_published").unwrap();
    let greedy: Vec<&str> = table.lines().filter(|l| l.contains(",greedy,")).collect();
    assert_eq!(greedy.len(), 52);
    // What stands in quotes has commas and is not looked for.
    let plain = |line: &str| line.split('"').step_by(2).collect::<String>();
    assert!(greedy.iter().all(|l| plain(l).split(',').nth(column) == Some("1")), "{table}");
}
