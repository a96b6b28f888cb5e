//! The built binary where it must go on: absent drivers are said loudly and left out, the commands that need no device do what they
//! say, help and completions are made from the tables.

mod support;

use serde_json::Value;
use std::path::Path;
use support::{Folder, LIMIT, NO_GPU, Ran, app, judge, rk3588};

#[test]
fn absent_drivers_are_said_loudly() {
    let folder = Folder::new("drivers");
    folder.app("all.toml", "[\"cpu\"]", "\"all\"");
    folder.app("gpu.toml", "[\"cpu\"]", "[\"wgpu\", \"opencl\"]");
    let ran = folder.good("run all.toml -p edf", NO_GPU);
    for part in [
        "note: running without `wgpu`",
        "mesa-vulkan-drivers",
        "note: running without `opencl`",
        "pocl-opencl-icd",
    ] {
        assert!(ran.err.contains(part), "`{part}` is not in: {}", ran.err);
    }
    assert!(ran.out.contains("dsp") && !ran.out.contains("wgpu"), "{}", ran.out);
    let ran = folder.run("run gpu.toml -p edf", NO_GPU, LIMIT).unwrap();
    judge(&("run gpu.toml", 1, &["no processor is available", "mesa-vulkan-drivers", "pocl"]), &ran).unwrap();
    let ran = folder.good("inspect zoo:kws_small", NO_GPU);
    assert!(ran.err.contains("note: processor `wgpu` is not available"), "{}", ran.err);
    // The saboteur: where the drivers are, nothing is said.
    assert!(!folder.good("inspect zoo:kws_small", &[]).err.contains("note: processor `wgpu`"));
    for library in ["/nowhere/libonnxruntime.so", "/etc/passwd"] {
        let environment = [("COSCHED_ONNXRUNTIME", library)];
        for args in ["inspect zoo:kws_small", "run all.toml -p edf"] {
            let ran = folder.run(args, &environment, LIMIT).unwrap();
            judge(&(args, 1, &[library, "make setup", "COSCHED_ONNXRUNTIME"]), &ran).unwrap();
        }
    }
}

/// A result without what was measured on the clock of this machine.
fn untimed(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.remove("decision_us");
            map.values_mut().for_each(|v| *v = untimed(v.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| *v = untimed(v.take())),
        _ => {}
    }
    value
}

#[test]
fn zoo_inspect_compare_and_sweep_do_what_they_say() {
    let folder = Folder::new("good");
    folder.good("zoo --out models", &[]);
    for row in cosched::executors::zoo::TABLE {
        assert!(folder.0.join("models").join(format!("{}.onnx", row.name)).is_file(), "{}", row.name);
    }
    let report: Value =
        serde_json::from_str(&folder.good("inspect models/kws.onnx --json", &[]).out).unwrap();
    assert_eq!(report["operators"]["Conv"], 9);
    assert_eq!(report["inputs"][0]["shape"], serde_json::json!([1, 1, 49, 10]));
    let short = "--seeds 2 --seconds 5 --json";
    let compare =
        |threads: u32| folder.good(&format!("compare {} {short} --threads {threads}", rk3588()), &[]);
    let table = |ran: Ran| untimed(serde_json::from_str(&ran.out).unwrap());
    let one = table(compare(1));
    let names: Vec<_> = one["rows"].as_array().unwrap().iter().map(|r| r["policy"].clone()).collect();
    // Searches run when they are asked for.
    let quick = cosched::policies::TABLE.iter().filter(|row| !row.searches);
    let known: Vec<_> = quick.map(|row| row.name).collect();
    assert_eq!(names, known);
    assert!(table(compare(2)) == one, "the result depends on the threads");
    let page =
        folder.good(&format!("compare {} -p edf,eft --seeds 2 --seconds 2 --html page.html", rk3588()), &[]);
    assert!(page.out.contains("edf") && folder.read("page.html").starts_with(b"<!doctype html>"));
    assert_eq!(one["about"]["config"]["seconds"], 5.0);
    folder.write(
        "sweep.toml",
        format!(
            "base = \"{}\"\npolicies = [\"edf\", \"eft\"]\nseeds = 2\nseconds = 2\n[grid]\nload = [1.0, 2.0]\n",
            rk3588()
        ),
    );
    let dry = folder.good("sweep sweep.toml --dry-run", &[]).out;
    assert!(dry.contains("8 cells of kind compare, 0 of them done; 8 to run, about "), "{dry}");
    let swept = folder.good("sweep sweep.toml --out out", &[]).out;
    let all = swept.lines().filter(|l| l.contains(",all,")).count();
    let header = swept.starts_with("cell,kind,policy,seed,load,group,");
    assert!(all == 8 && header, "{swept}");
    assert!(Path::read_dir(&folder.0.join("out")).unwrap().count() >= 3);
}

#[test]
fn kernels_are_timed_beside_plain_onnxruntime_and_tuned_once() {
    let folder = Folder::new("kernels");
    let tuned = folder.0.join("tuned");
    let environment = [("COSCHED_TUNE_DIR", tuned.to_str().unwrap())];
    let args = "bench kernels --models kws_small --processors cpu,opencl --rounds 3 --seconds 1 --json";
    // Drivers compile many kernels: on a busy machine that takes its time.
    let run = |args: &str| folder.run(args, &environment, 4 * LIMIT).unwrap();
    let timed = |args: &str| -> Value {
        let ran = run(args);
        assert_eq!(ran.code, Some(0), "{args}: {}", ran.err);
        serde_json::from_str(&ran.out).unwrap()
    };
    let rows = timed(args);
    let engines: Vec<_> = rows.as_array().unwrap().iter().map(|r| r["engine"].clone()).collect();
    assert_eq!(engines, ["onnxruntime", "cpu", "opencl"]);
    for row in rows.as_array().unwrap() {
        assert!(row["error"].as_f64().unwrap() < 1e-4 && row["cpu_ms"].as_f64().unwrap() > 0.0, "{row}");
    }
    // Nothing was measured unasked. What is measured when asked is there for every later use, and still right.
    assert!(!tuned.exists());
    assert!(timed(&format!("{args} --tune"))[2]["error"].as_f64().unwrap() < 1e-4);
    let only = std::fs::read_dir(&tuned).unwrap().map(|f| f.unwrap().path()).collect::<Vec<_>>();
    let [file] = &only[..] else { panic!("{only:?}") };
    let text = std::fs::read_to_string(file).unwrap();
    let choices: Value = serde_json::from_str(&text).unwrap();
    assert!(choices["choices"].as_object().unwrap().len() >= 3, "{text}");
    let begun = std::fs::metadata(file).unwrap().modified().unwrap();
    assert!(timed(&format!("{args} --tune"))[2]["error"].as_f64().unwrap() < 1e-4);
    assert_eq!(std::fs::metadata(file).unwrap().modified().unwrap(), begun, "it was measured again");
    // A spoilt file is said and not believed.
    std::fs::write(file, "{").unwrap();
    let ran = run(args);
    assert!(ran.err.contains("no tuning file") && ran.err.contains(file.to_str().unwrap()), "{}", ran.err);
}

#[test]
fn fidelity_says_what_it_found() {
    let folder = Folder::new("fidelity");
    folder.write("app.toml", app());
    let table = folder.good("fidelity app.toml -p edf --repeats 2", &[]).out;
    for word in ["keyword", "all", "medians of 2 runs", "to begin"] {
        assert!(table.contains(word), "`{word}` is not in: {table}");
    }
    folder.good("profile app.toml", &[]);
    let json = folder.good("fidelity app.toml -p edf --repeats 1 --plan plan.json --json", &[]).out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["rows"][0]["name"], json["pairs"].as_array().unwrap().len()), (&"keyword".into(), 1));
    assert_eq!(json["about"]["config"]["seed"], 1);
}

#[test]
fn help_and_completions_are_made_from_the_tables() {
    let folder = Folder::new("help");
    let main = folder.good("--help", &[]).out;
    let commands: Vec<&str> = main
        .lines()
        .skip_while(|l| *l != "Commands:")
        .skip(1)
        .take_while(|l| !l.is_empty())
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    for command in
        ["demo", "zoo", "inspect", "profile", "run", "compare", "sweep", "replay", "bench", "fidelity"]
    {
        assert!(commands.contains(&command), "{command} is not in {commands:?}");
    }
    let script = folder.good("completions bash", &[]).out;
    for command in commands {
        let help = folder.good(&format!("help {command}"), &[]).out;
        assert!(help.contains("Usage:"), "{help}");
        assert!(script.contains(command), "{command} is not completed");
        if ["run", "compare", "replay"].contains(&command) {
            for row in cosched::policies::TABLE {
                let listed = help.lines().any(|l| l.split_whitespace().next() == Some(row.name));
                assert!(listed, "{command}: {} is not in {help}", row.name);
            }
        }
        if command == "zoo" {
            assert!(cosched::executors::zoo::TABLE.iter().all(|r| help.contains(r.name)), "{help}");
        }
    }
}
