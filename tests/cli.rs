//! The built binary with bad input, as a user meets it: every row is one clear error that names what and where, with exit code 2 for
//! usage and 1 for failures, never a panic or a hang.

mod support;

use cosched::agent::checkpoint::{self, About};
use cosched::agent::features::FEATURE_VERSION;
use cosched::agent::network::{Linear, Weights};
use std::time::Duration;
use support::{Folder, LIMIT, Ran, Row, app, judge, repository, rk3588};

#[test]
fn wrong_verdicts_are_noticed() {
    // The saboteur of this suite: what `judge` and `run` must not let pass.
    let folder = Folder::new("saboteur");
    let ran = |code, err: &str| Ran { code: Some(code), out: String::new(), err: err.into() };
    let row: Row = ("x", 1, &["model.onnx"]);
    assert!(judge(&row, &ran(1, "error: model.onnx: cut\n")).is_ok());
    for (code, err) in [
        (0, "error: model.onnx: cut\n"),
        (2, "error: model.onnx: cut\n"),
        (1, "error: cut\n"),
        (1, "model.onnx: cut\n"),
        (1, "error: model.onnx: cut\nand more\n"),
        (1, "thread 'main' panicked at model.onnx\nerror: model.onnx\n"),
    ] {
        assert!(judge(&row, &ran(code, err)).is_err(), "{code} {err}");
    }
    let version = folder.good("--version", &[]);
    assert!(version.out.starts_with("cosched "), "{}", version.out);
    assert!(judge(&("--version", 1, &[]), &version).is_err());
    // A run of a minute is a hang for whoever waits a second.
    folder.app("long.toml", "seconds = 0.3", "seconds = 60");
    let error = folder.run("run long.toml -p edf", &[], Duration::from_secs(1)).err().unwrap();
    assert!(error.contains("hangs"), "{error}");
}

#[test]
fn bad_models_are_refused() {
    let folder = Folder::new("models");
    folder.good("zoo kws_small --out .", &[]);
    let whole = folder.read("kws_small.onnx");
    folder.write("cut.onnx", &whole[..whole.len() / 2]);
    folder.write("tail.onnx", &whole[..whole.len() - 1]);
    folder.write("empty.onnx", "");
    let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
    folder.write("random.onnx", (0..5000).map(noise).collect::<Vec<_>>());
    folder.app("gone.toml", "zoo:kws_small", "gone.onnx");
    folder.app("cut.toml", "zoo:kws_small", "cut.onnx");
    folder.app("zoo.toml", "zoo:kws_small", "zoo:kws_smal");
    let odd =
        |name: &str| format!("inspect {}", repository(&format!("executors/tests/data/odd/{name}.onnx")));
    folder.refuses(&[
        ("inspect missing.onnx", 1, &["missing.onnx", "No such file"]),
        ("inspect cut.onnx", 1, &["cut.onnx", "truncated"]),
        ("inspect tail.onnx", 1, &["tail.onnx", "truncated"]),
        ("inspect empty.onnx", 1, &["empty.onnx", "empty"]),
        ("inspect random.onnx", 1, &["random.onnx", "not an ONNX model"]),
        ("inspect .", 1, &["Is a directory"]),
        ("inspect zoo:nope", 2, &["the zoo has no model `nope`", "kws_small"]),
        (&odd("foreign"), 1, &["foreign.onnx", "unknown operator `Fancy`", "fancy_one"]),
        (&odd("misfit"), 1, &["misfit.onnx", "sum", "Incompatible dimensions"]),
        (&odd("strings"), 1, &["strings.onnx", "element type string of input `x`"]),
        (&odd("sequence"), 1, &["sequence.onnx", "`s`"]),
        ("run gone.toml -p edf", 1, &["gone.onnx", "No such file"]),
        ("profile cut.toml", 1, &["cut.onnx", "truncated"]),
        ("run zoo.toml -p edf", 1, &["zoo.toml", "task[0].variant[0].model", "did you mean `kws_small`?"]),
    ]);
}

#[test]
fn bad_apps_are_refused() {
    let folder = Folder::new("apps");
    folder.write("app.toml", app());
    folder.write("noise.toml", "name = \n = [");
    folder.write("latin.toml", b"name = \"\xe9\"");
    for (name, old, new) in [
        ("key.toml", "seconds = 0.3", "secnods = 3"),
        ("nested.toml", "deadline_ms = 20", "deadlin_ms = 20"),
        ("zero.toml", "deadline_ms = 20", "deadline_ms = 0"),
        ("negative.toml", "deadline_ms = 20", "deadline_ms = -1"),
        ("word.toml", "deadline_ms = 20", "deadline_ms = \"soon\""),
        ("period.toml", "period_ms = 20", "period_ms = 0"),
        ("processor.toml", "[\"cpu\"]", "[\"cpu\", \"wgp\"]"),
        ("none.toml", "[\"cpu\"]", "[]"),
        ("accuracy.toml", "accuracy = 0.9", "accuracy = 90"),
        ("task.toml", "task = \"keyword\"", "task = \"keywrd\""),
        ("cuda.toml", "[\"cpu\"]", "[\"ort:cuda\"]"),
        ("provider.toml", "[\"cpu\"]", "[\"ort:cud\"]"),
    ] {
        folder.app(name, old, new);
    }
    folder.refuses(&[
        ("run missing.toml", 1, &["missing.toml", "no such file"]),
        ("run .", 1, &["folder"]),
        ("run noise.toml", 1, &["noise.toml:2:", "expected `]`"]),
        ("run latin.toml", 1, &["latin.toml", "UTF-8"]),
        ("run key.toml", 1, &["key.toml:3:1", "secnods", "did you mean `seconds`?"]),
        ("compare nested.toml", 1, &["nested.toml:13:1", "[[stream]]", "did you mean `deadline_ms`?"]),
        ("run zero.toml", 1, &["zero.toml:13:1", "stream[0].deadline_ms", "above 0"]),
        ("profile negative.toml", 1, &["stream[0].deadline_ms", "above 0"]),
        ("run word.toml", 1, &["word.toml:13:", "deadline_ms", "string \"soon\""]),
        ("run period.toml", 1, &["stream[0].period_ms"]),
        ("run processor.toml", 1, &["processor.toml:2:", "unknown processor `wgp`", "did you mean `wgpu`?"]),
        (
            "run cuda.toml",
            1,
            &["no processor is available", "`ort:cuda`", "was built without CUDAExecutionProvider"],
        ),
        (
            "run provider.toml",
            1,
            &["provider.toml:2:", "unknown processor `ort:cud`", "did you mean `ort:cuda`?"],
        ),
        ("run none.toml", 1, &["processors", "at least one"]),
        ("run accuracy.toml", 1, &["task[0].variant[0].accuracy"]),
        ("run task.toml", 1, &["unknown task `keywrd`", "did you mean `keyword`?"]),
        ("run app.toml -p fixed:dsp", 1, &["no processor `dsp`", "cpu"]),
        ("run app.toml -p learned:gone.safetensors", 1, &["gone.safetensors", "No such file"]),
        (&format!("run {}", rk3588()), 1, &["rk3588.toml", "[[task]]"]),
    ]);
}

#[test]
fn bad_plans_and_recordings_are_refused() {
    let folder = Folder::new("plans");
    folder.write("app.toml", app());
    folder.refuses(&[("compare app.toml", 1, &["plan.json", "no such plan", "cosched profile app.toml"])]);
    let recorded = folder.good("run app.toml -p edf --record run.jsonl", &[]);
    assert!(recorded.out.contains("keyword"), "{}", recorded.out);
    let plan = String::from_utf8(folder.read("plan.json")).unwrap();
    for (name, text) in [
        ("half.json", plan[..plan.len() / 2].to_owned()),
        ("other.json", plan.replace("onnxruntime", "onnxruntimes")),
        ("format.json", plan.replace("\"format\": 1", "\"format\": 99")),
        ("key.json", plan.replace("\"contention\"", "\"contentions\"")),
    ] {
        assert_ne!(text, plan, "{name}");
        folder.write(name, text);
        folder.app(&name.replace("json", "toml"), "plan.json", name);
    }
    let whole = String::from_utf8(folder.read("run.jsonl")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let spoil = |edit: &dyn Fn(&mut Vec<&str>)| {
        let mut lines = lines.clone();
        edit(&mut lines);
        lines.join("\n")
    };
    folder.write("less.jsonl", spoil(&|l| _ = l.remove(l.len() / 2)));
    folder.write("head.jsonl", spoil(&|l| _ = l.remove(0)));
    folder.write("tail.jsonl", spoil(&|l| l.truncate(l.len() - 1)));
    folder.write("half.jsonl", &whole[..whole.len() * 2 / 3]);
    let moved = lines[4].replacen("\"at\":", "\"at\":1", 1);
    assert_ne!(moved, lines[4], "an event was to be changed");
    let changed = whole.replace(lines[4], &moved);
    folder.write("changed.jsonl", changed);
    folder.write("empty.jsonl", "");
    folder.refuses(&[
        ("compare half.toml", 1, &["half.json"]),
        ("run half.toml", 1, &["half.json"]),
        ("run other.toml", 1, &["other.json", "not of this deployment", "cosched profile"]),
        ("compare format.toml", 1, &["99"]),
        ("compare key.toml", 1, &["key.json", "did you mean `contention`?"]),
        ("replay missing.jsonl", 1, &["missing.jsonl", "No such file"]),
        ("replay empty.jsonl", 1, &["empty.jsonl", "line 1", "empty"]),
        ("replay app.toml", 1, &["app.toml", "not the header of a recording"]),
        ("replay less.jsonl", 1, &["less.jsonl", "lines are missing"]),
        ("replay head.jsonl", 1, &["head.jsonl", "line 1"]),
        ("replay tail.jsonl", 1, &["tail.jsonl", "cut off"]),
        ("replay half.jsonl", 1, &["half.jsonl", "line"]),
        ("replay changed.jsonl", 1, &["changed.jsonl", "check sum"]),
    ]);
    let replayed = folder.good("replay run.jsonl", &[]);
    assert!(replayed.out.contains("decisions are the same"), "{}", replayed.out);
}

#[test]
fn bad_checkpoints_and_sweeps_are_refused() {
    let folder = Folder::new("checkpoints");
    let weights = Weights::build(8, |_, inputs, outputs, bias| {
        let bias = vec![0.0; if bias { outputs } else { 0 }];
        Ok::<_, ()>(Linear { weight: vec![0.1; inputs * outputs], bias, inputs, outputs })
    });
    let about = About {
        feature_version: FEATURE_VERSION + 1,
        hidden: 8,
        scenarios: Vec::new(),
        seed: 1,
        commit: "none".into(),
        command: "cosched train other.toml".into(),
        decisions: 1,
        scores: Vec::new(),
    };
    folder.write("other.safetensors", checkpoint::to_bytes(&weights.unwrap(), &about).unwrap());
    let shipped = std::fs::read(repository("policies/trained/shipped.safetensors")).unwrap();
    folder.write("cut.safetensors", &shipped[..shipped.len() / 2]);
    folder.write("empty.safetensors", "");
    let compare = |name: &str| format!("compare {} --seeds 1 --seconds 1 -p learned:{name}", rk3588());
    let versions = [format!("version {}", FEATURE_VERSION + 1), format!("version {FEATURE_VERSION};")];
    let sweep = |name: &str, old: &str, new: &str| {
        let text =
            format!("base = \"{}\"\npolicies = [\"edf\"]\nseeds = 2\n[grid]\nload = [1.0]\n", rk3588());
        assert!(text.contains(old), "{old}");
        folder.write(name, text.replace(old, new));
    };
    sweep("key.toml", "seeds", "seedz");
    sweep("grid.toml", "load", "\"emulator.failure_rat\"");
    sweep("empty.toml", "[1.0]", "[]");
    sweep("policy.toml", "\"edf\"", "\"edff\"");
    sweep("base.toml", "rk3588.toml", "rk3589.toml");
    sweep("good.toml", "seeds = 2", "seeds = 1");
    folder.refuses(&[
        (
            &compare("other.safetensors"),
            1,
            &["other.safetensors", &versions[0], &versions[1], "cosched train other.toml"],
        ),
        (&compare("cut.safetensors"), 1, &["cut.safetensors"]),
        (&compare("empty.safetensors"), 1, &["empty.safetensors", "not a safetensors file"]),
        (&compare("good.toml"), 1, &["good.toml", "not a safetensors file"]),
        ("sweep missing.toml", 1, &["missing.toml", "no such file"]),
        ("sweep key.toml", 1, &["key.toml:3:1", "did you mean `seeds`?"]),
        ("sweep grid.toml", 1, &["grid.toml:5:1", "failure_rat", "did you mean `failure_rate`?"]),
        ("sweep empty.toml", 1, &["empty.toml:5:1", "`load`", "at least one value"]),
        ("sweep policy.toml", 2, &["edff", "did you mean `edf`?"]),
        ("sweep base.toml", 1, &["rk3589.toml", "no such file"]),
        // /dev/null is a file, so no folder can be in it, whoever asks.
        ("sweep good.toml --out /dev/null/x", 1, &["/dev/null/x", "cannot be written"]),
    ]);
}

#[test]
fn bad_tables_of_scores_are_refused() {
    let folder = Folder::new("xrbench");
    let data = |name: &str| repository(&format!("experiments/data/xrbench_{name}_4k.csv"));
    let text = |name: &str| std::fs::read_to_string(data(name)).unwrap();
    folder.write("costs.csv", text("costs").replacen("150.995", "soon", 1));
    folder.write("chips.csv", text("published").replacen("Quad_4K__", "Quad_4096__", 1));
    folder.write("scores.csv", text("published").replacen("1.0,0.8647", "1.0,0.8747", 1));
    let run = |costs: &str, published: &str, rest: &str| {
        format!("xrbench --costs {costs} --published {published} {rest}")
    };
    let (costs, published) = (data("costs"), data("published"));
    let good = folder.good(&run(&costs, &published, ""), &[]);
    assert!(good.out.contains("52 of 52 overall scores"), "{}", good.out);
    // Another policy or mode is shown beside the published scores and not judged by them.
    folder.good(&run(&costs, &published, "--policy edf"), &[]);
    let json = folder.good(&run(&costs, "scores.csv", "--mode clean --json"), &[]);
    assert!(json.out.contains("\"mode\": \"clean\""), "{}", json.out);
    folder.refuses(&[
        (
            &run("costs.csv", &published, ""),
            1,
            &["costs.csv:2:32: latency_ms: expected milliseconds", "`soon`"],
        ),
        (
            &run(&costs, "chips.csv", ""),
            1,
            &["chips.csv:8:13: hw_dataflow", "`4096` is no size", "Quad_4K__"],
        ),
        (
            &run(&costs, "scores.csv", ""),
            1,
            &["1 of 52 overall scores", "VR_gaming on Single_4K__WS: 0.8647"],
        ),
        (&run(&published, &published, ""), 1, &["published_4k.csv:1:1", "no column `chip`"]),
        (&run("gone.csv", &published, ""), 1, &["gone.csv: no such file"]),
        (&run(&costs, &published, "--policy fixed:npu"), 1, &["fixed", "no processor `npu`"]),
        (&run(&costs, &published, "--policy greddy"), 2, &["did you mean `greedy`?"]),
        (&run(&costs, &published, "--mode exact"), 2, &["exact", "compat", "clean"]),
        ("xrbench --costs costs.csv", 2, &["--published"]),
    ]);
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let folder = Folder::new("outputs");
    folder.write("app.toml", app());
    let compare = format!("compare {} -p edf --seeds 1 --seconds 1 --csv /dev/null/x.csv", rk3588());
    let page = format!("compare {} -p edf --seeds 1 --seconds 1 --html /dev/null/x.html", rk3588());
    folder.refuses(&[
        ("zoo kws_small --out /dev/null/x", 1, &["/dev/null/x/kws_small.onnx", "cannot write"]),
        ("profile app.toml --out /dev/null/x/plan.json", 1, &["/dev/null/x/plan.json"]),
        ("run app.toml -p edf --record /dev/null/x", 1, &["/dev/null/x"]),
        ("run app.toml -p edf --report /dev/null/x", 1, &["/dev/null/x"]),
        ("run app.toml -p edf --trace /dev/null/x", 1, &["/dev/null/x"]),
        ("demo --out /dev/null/x", 1, &["/dev/null/x"]),
        (&compare, 1, &["/dev/null/x.csv"]),
        (&page, 1, &["/dev/null/x.html"]),
    ]);
}

#[test]
fn wrong_usage_is_code_two() {
    let folder = Folder::new("usage");
    folder.write("app.toml", app());
    folder.refuses(&[
        ("frobnicate", 2, &["frobnicate", "--help"]),
        ("run", 2, &["<APP>"]),
        ("run app.toml --polcy edf", 2, &["--polcy", "--policy"]),
        ("run app.toml -p edff", 2, &["unknown policy `edff`", "did you mean `edf`?"]),
        ("compare app.toml -p edf,lerned", 2, &["lerned", "did you mean `learned`?"]),
        ("demo -p roundrobin", 2, &["did you mean `round-robin`?"]),
        ("replay x --policy hefd", 2, &["did you mean `heft`?"]),
        ("run app.toml --seconds 0", 2, &["--seconds", "above 0"]),
        ("run app.toml --seconds nan", 2, &["--seconds"]),
        ("run app.toml --seed minus", 2, &["--seed"]),
        ("compare app.toml --seeds 0", 2, &["--seeds"]),
        ("fidelity app.toml --repeats 0", 2, &["--repeats", "1 to 1000"]),
        ("fidelity app.toml --seconds nan", 2, &["--seconds"]),
        ("fidelity app.toml -p edff", 2, &["did you mean `edf`?"]),
        ("zoo kwz", 2, &["no model `kwz`", "did you mean `kws`?"]),
        ("inspect zoo:kws --min-share 2", 2, &["--min-share"]),
        ("inspect zoo:kws --dim batch", 2, &["NAME=N"]),
        ("bench --requests 0", 2, &["--requests"]),
        ("bench kernels --rounds 2", 2, &["--rounds"]),
        ("bench kernels --processors dps", 2, &["--processors", "`dps`", "opencl"]),
        ("bench kernels --models kws --beside no-such-program", 1, &["no-such-program"]),
        ("bench kernels --processors ort:cuda", 1, &["`ort:cuda`", "CUDAExecutionProvider"]),
        ("bench kernels --models nope", 2, &["no model `nope`", "kws_small"]),
        ("completions bsh", 2, &["bash"]),
    ]);
    let nothing = folder.run("", &[], LIMIT).unwrap();
    assert!(nothing.code == Some(2) && nothing.err.contains("Usage:"), "{}", nothing.err);
}
