//! Holds the layout of ARCHITECTURE.md: who may depend on whom, what every file begins with, what `env` never touches.
//! It reads the tree as text; it refuses to build, run or judge anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A crate, and the crates of ours that it may know. A new crate is a new row.
const ALLOWED: &[(&str, &[&str])] = &[
    ("cosched-env", &[]),
    ("cosched-agent", &["cosched-env"]),
    ("cosched-policies", &["cosched-env", "cosched-agent"]),
    ("cosched-executors", &["cosched-env"]),
    ("cosched-experiments", &["cosched-env", "cosched-agent", "cosched-policies", "cosched-executors"]),
    ("cosched-fuzz", &["cosched"]),
    (
        "cosched",
        &["cosched-env", "cosched-agent", "cosched-policies", "cosched-executors", "cosched-experiments"],
    ),
];

/// What `env` may not name: it has no file, network, thread or clock.
const FORBIDDEN_IN_ENV: &[&str] =
    &["std::fs", "std::net", "std::thread", "std::process", "std::time::Instant", "std::time::SystemTime"];

/// Words of unfinished work, in halves so that this file does not contain them.
const UNFINISHED: &[(&str, &str)] = &[("FIX", "ME"), ("todo", "!"), ("unimplemented", "!"), ("#[ig", "nore")];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` whose name ends so, as (path relative to the root, text), sorted.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(folder)];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("a folder entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() {
                let ours =
                    !matches!(name.as_str(), "target" | "third_party" | "runs") && !name.starts_with('.');
                if ours && !path.is_symlink() {
                    waiting.push(path);
                }
            } else if name.ends_with(ending) {
                let text =
                    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                found.push((relative(&path), text));
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/")
}

// ---- who may depend on whom ----

/// Every table of dependencies in a manifest: normal, dev, build, and those of a target.
fn dependency_names(manifest: &toml::Table) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (key, value) in manifest {
        let Some(table) = value.as_table() else { continue };
        match key.as_str() {
            "dependencies" | "dev-dependencies" | "build-dependencies" => {
                for (name, entry) in table {
                    let renamed = entry.get("package").and_then(toml::Value::as_str);
                    names.insert(renamed.unwrap_or(name).to_owned());
                }
            }
            "target" => {
                names.extend(table.values().filter_map(toml::Value::as_table).flat_map(dependency_names))
            }
            _ => {}
        }
    }
    names
}

/// Package name -> text of its Cargo.toml; the errors found, empty when all is well.
fn judge_manifests(manifests: &BTreeMap<String, String>) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut errors = Vec::new();
    for name in allowed.keys().filter(|name| !manifests.contains_key(**name)) {
        errors.push(format!("{name}: its Cargo.toml is missing"));
    }
    for (name, text) in manifests {
        let Some(may) = allowed.get(name.as_str()) else {
            errors.push(format!("{name}: a crate without a row in tests/layout.rs"));
            continue;
        };
        let manifest: toml::Table = text.parse().unwrap_or_else(|e| panic!("Cargo.toml of {name}: {e}"));
        for dependency in dependency_names(&manifest) {
            let ours = dependency == "cosched" || dependency.starts_with("cosched-");
            if ours && !may.contains(&dependency.as_str()) {
                errors.push(format!("{name} depends on {dependency}; it may depend on {may:?} only"));
            }
        }
    }
    errors
}

fn manifests() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (path, text) in files("", "Cargo.toml") {
        let manifest: toml::Table = text.parse().unwrap_or_else(|e| panic!("{path}: {e}"));
        let name = manifest["package"]["name"].as_str().unwrap_or_else(|| panic!("{path}: no package.name"));
        assert!(found.insert(name.to_owned(), text).is_none(), "{path}: a second package {name}");
    }
    found
}

#[test]
fn dependencies_point_one_way() {
    let errors = judge_manifests(&manifests());
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
fn a_forbidden_dependency_is_seen() {
    let edges = [
        ("cosched-env", "[dependencies]\ncosched-agent.workspace = true", "cosched-agent"),
        (
            "cosched-agent",
            "[dev-dependencies]\ncosched-policies = { path = \"../policies\" }",
            "cosched-policies",
        ),
        ("cosched-policies", "[dependencies.cosched-executors]\nworkspace = true", "cosched-executors"),
        (
            "cosched-executors",
            "[build-dependencies]\np = { package = \"cosched-policies\" }",
            "cosched-policies",
        ),
        ("cosched-executors", "[target.'cfg(unix)'.dependencies]\ncosched-agent = \"0.1\"", "cosched-agent"),
        ("cosched-experiments", "[dependencies]\ncosched.workspace = true", "cosched"),
    ];
    for (name, table, wanted) in edges {
        let mut manifests: BTreeMap<String, String> =
            ALLOWED.iter().map(|(name, _)| ((*name).to_owned(), String::new())).collect();
        assert!(judge_manifests(&manifests).is_empty());
        manifests.insert(name.to_owned(), table.to_owned());
        let errors = judge_manifests(&manifests);
        assert!(
            matches!(errors.as_slice(), [one] if one.starts_with(&format!("{name} depends on {wanted};"))),
            "{name} -> {wanted} gave {errors:?}"
        );
    }
    let stranger = BTreeMap::from([("cosched-server".to_owned(), String::new())]);
    assert!(
        judge_manifests(&stranger).iter().any(|e| e.starts_with("cosched-server: a crate without a row"))
    );
}

// ---- what every file begins with, and what none contains ----

fn judge_beginning(path: &str, text: &str) -> Option<String> {
    (!text.starts_with("//!"))
        .then(|| format!("{path} does not begin with `//!`: say what it is and what it refuses to do"))
}

fn judge_unfinished(path: &str, text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (a, b) in UNFINISHED {
            if line.contains(&format!("{a}{b}")) {
                errors.push(format!("{path}:{}: has `{a}{b}`", number + 1));
            }
        }
    }
    errors
}

#[test]
fn every_file_says_what_it_is_and_is_finished() {
    let sources = files("", ".rs");
    assert!(
        sources.len() >= 10,
        "only {} Rust files found: this test looks in the wrong place",
        sources.len()
    );
    assert!(sources.iter().any(|(path, _)| path == "tests/layout.rs"));
    let mut errors: Vec<String> =
        sources.iter().filter_map(|(path, text)| judge_beginning(path, text)).collect();
    errors.extend(sources.iter().flat_map(|(path, text)| judge_unfinished(path, text)));
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
fn an_unfinished_or_unexplained_file_is_seen() {
    assert!(judge_beginning("env/src/a.rs", "// no\n").is_some());
    assert!(judge_beginning("env/src/a.rs", "\n//! late\n").is_some());
    assert!(judge_beginning("env/src/a.rs", "//! yes\n").is_none());
    for (a, b) in UNFINISHED {
        let text = format!("//! x\nfn f() {{}} // {a}{b}(later)\n");
        assert_eq!(judge_unfinished("a.rs", &text), [format!("a.rs:2: has `{a}{b}`")]);
    }
    assert!(judge_unfinished("a.rs", "//! a list of things to do; ignored requests are fixed\n").is_empty());
}

// ---- env has no file, network, thread or clock ----

/// Identifiers and single signs of a Rust text, without line comments.
fn tokens(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut inside_word = false;
        for sign in line.split("//").next().unwrap_or("").chars() {
            let word = sign.is_alphanumeric() || sign == '_';
            match found.last_mut() {
                Some(last) if word && inside_word => last.push(sign),
                _ if sign.is_whitespace() => {}
                _ => found.push(sign.to_string()),
            }
            inside_word = word;
        }
    }
    found
}

/// Reads the path that begins at `tokens[*at]` and pushes each full path in it: `std::{fs, time::Instant}` has two.
fn read_path(tokens: &[String], at: &mut usize, prefix: &str, found: &mut Vec<String>) {
    let is = |at: usize, sign: &str| tokens.get(at).is_some_and(|t| t == sign);
    if is(*at, "{") {
        while *at < tokens.len() && !is(*at, "}") {
            *at += 1;
            if *at < tokens.len() && !is(*at, "}") {
                read_path(tokens, at, prefix, found);
            }
            while *at < tokens.len() && !is(*at, ",") && !is(*at, "}") {
                *at += 1; // `as name`
            }
        }
        *at += 1;
        return;
    }
    let path = format!("{prefix}{}", tokens.get(*at).map_or("", String::as_str));
    *at += 1;
    if is(*at, ":") && is(*at + 1, ":") {
        *at += 2;
        read_path(tokens, at, &format!("{path}::"), found);
    } else {
        found.push(path);
    }
}

/// The paths into the standard library that a text names and `env` may not.
fn judge_env(path: &str, text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let mut named = Vec::new();
    for start in (0..tokens.len()).filter(|at| tokens[*at] == "std") {
        read_path(&tokens, &mut start.clone(), "", &mut named);
    }
    let forbidden = |named: &str| {
        // The whole of `std::time`, or of `std`, brings its clocks along.
        matches!(named, "std::time" | "std::time::*" | "std::time::self" | "std::*")
            || FORBIDDEN_IN_ENV.iter().any(|f| named == *f || named.starts_with(&format!("{f}::")))
    };
    named.retain(|name| forbidden(name));
    named
        .into_iter()
        .map(|name| format!("{path} names {name}: env has no file, network, thread or clock"))
        .collect()
}

#[test]
fn env_has_no_file_network_thread_or_clock() {
    let sources = files("env/src", ".rs");
    assert!(!sources.is_empty());
    let errors: Vec<String> = sources.iter().flat_map(|(path, text)| judge_env(path, text)).collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
fn a_clock_or_file_in_env_is_seen() {
    let bad = [
        ("use std::fs;", "std::fs"),
        ("use std::{collections::BTreeMap, fs::{self, File}};", "std::fs::self"),
        ("use std::{\n    fmt,\n    time::{Duration, Instant as I},\n};", "std::time::Instant"),
        ("let t = std::time::SystemTime::now();", "std::time::SystemTime::now"),
        ("use std::time;", "std::time"),
        ("use std::time::*;", "std::time::*"),
        ("fn f() { ::std::thread::spawn(|| {}); }", "std::thread::spawn"),
        ("let s = std :: net :: TcpStream::connect(a);", "std::net::TcpStream::connect"),
    ];
    for (text, wanted) in bad {
        let errors = judge_env("env/src/a.rs", text);
        assert!(errors.iter().any(|e| e.contains(&format!("names {wanted}:"))), "{text} gave {errors:?}");
    }
    let good = "//! no std::fs here\nuse std::{fmt, time::Duration};\nuse std::collections::{BTreeMap, BTreeSet};\n\
        struct Instant; fn thread(x: std::fmt::Result) {} // std::thread";
    assert_eq!(judge_env("env/src/a.rs", good), Vec::<String>::new());
}
