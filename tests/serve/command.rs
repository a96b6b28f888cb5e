//! `cosched serve` as a process: it says where it listens, answers, and ends by SIGTERM with nothing lost.

use crate::apps::keyword_app;
use crate::http::{body, get, infer, receive, send};
use crate::rig::{PATIENCE, difference, inputs, reference};
use cosched::executors::zoo;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

fn app() -> String {
    let head = "name = \"served\"\nprocessors = [\"cpu\"]\nplan = \"plan.json\"\n";
    keyword_app(head, "period_ms = 20\ndeadline_ms = 20000\n")
}

pub fn spawn(folder: &std::path::Path, arguments: &[&str]) -> Child {
    spawn_with(folder, arguments, &[])
}

/// The same with variables of the environment.
pub fn spawn_with(folder: &std::path::Path, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cosched"));
    command.envs(variables.iter().copied());
    command.arg("serve").args(arguments).current_dir(folder).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn wait(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn the_command_serves_until_it_is_told_to_stop() {
    let folder = std::env::temp_dir().join(format!("cosched-serve-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("app.toml"), app()).unwrap();
    let mut child = spawn(&folder, &["app.toml", "-p", "edf", "--http-port", "0", "--grpc-port", "0"]);
    let http = address(&mut child);
    assert!(http.ip().is_loopback(), "{http}: others could reach it");
    assert_eq!(get(http, "/v2/health/ready").status, 200);
    assert_eq!(infer(http, "keyword", &inputs(1), json!({})).status, 200);
    // A task that is new in the file is there after SIGHUP, and measured; a file with a mistake changes nothing.
    let more = "[[task]]\nname = \"second\"\n[[task.variant]]\nmodel = \"zoo:kws\"\naccuracy = 0.9\n";
    std::fs::write(folder.join("app.toml"), format!("{}{more}", app())).unwrap();
    signal(&child, "-HUP");
    until(|| get(http, "/v2/models/second/ready").status == 200);
    assert_eq!(infer(http, "second", &inputs(1), json!({})).status, 200);
    std::fs::write(folder.join("app.toml"), "nonsense").unwrap();
    signal(&child, "-HUP");
    assert_eq!(infer(http, "second", &inputs(1), json!({})).status, 200);
    std::fs::write(folder.join("app.toml"), app()).unwrap();
    // The port is taken: the next one says so and ends.
    let port = http.port().to_string();
    let mut second = spawn(&folder, &["app.toml", "-p", "edf", "--http-port", &port, "--grpc-port", "0"]);
    assert_eq!(wait(&mut second), Some(1));
    let said = std::io::read_to_string(second.stderr.take().unwrap()).unwrap();
    assert!(said.contains(&format!("error: {http}: cannot listen")), "{said}");
    let last = send(http, "POST", "/v2/models/keyword/infer", &[], &body(&inputs(2), json!({})));
    let answer = receive(last);
    signal(&child, "-TERM");
    assert_eq!((answer.status, wait(&mut child)), (200, Some(0)));
    let _ = std::fs::remove_dir_all(&folder);
}

pub fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

fn until(mut true_now: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !true_now() {
        assert!(begun.elapsed() < PATIENCE, "never");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Where a server that was just started speaks HTTP.
pub fn address(child: &mut Child) -> SocketAddr {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let rest = line.strip_prefix("serving HTTP on http://").unwrap_or_else(|| panic!("{line}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_triton_repository_is_served_as_it_is_and_watched() {
    let folder = std::env::temp_dir().join(format!("cosched-triton-{}", std::process::id()));
    let version = folder.join("repository/keyword/3");
    std::fs::create_dir_all(&version).unwrap();
    let model = zoo::bytes("kws_small", &zoo::Options::default()).unwrap();
    std::fs::write(version.join("model.onnx"), model).unwrap();
    std::fs::write(folder.join("repository/keyword/config.pbtxt"), "platform: \"onnxruntime_onnx\"").unwrap();
    let mut child = spawn(&folder, &["repository", "-p", "edf", "--http-port", "0", "--grpc-port", "0"]);
    let http = address(&mut child);
    let answer = infer(http, "keyword", &inputs(1), json!({}));
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert!(difference(&answer.outputs()[0].1, &reference("kws_small", &inputs(1))) < 1e-4);
    let top = Command::new(env!("CARGO_BIN_EXE_cosched")).args(["top", "--once", &http.to_string()]).output();
    let top = top.unwrap();
    let text = String::from_utf8(top.stdout).unwrap();
    assert!(top.status.success() && text.contains("policy edf"), "{text}");
    let line = text.lines().find(|l| l.starts_with("keyword")).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(line.split_whitespace().collect::<Vec<_>>()[..5], ["keyword", "0", "1", "0", "0"]);
    signal(&child, "-TERM");
    assert_eq!(wait(&mut child), Some(0));
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn wrong_arguments_are_refused() {
    let folder = std::env::temp_dir();
    for (arguments, code, words) in [
        (vec!["missing.toml"], 1, "missing.toml"),
        (vec!["x.toml", "-p", "edff"], 2, "did you mean `edf`"),
        (vec!["x.toml", "--queue", "0"], 2, "--queue"),
        (vec!["x.toml", "--host", "everywhere"], 2, "--host"),
        (vec!["x.toml", "--max-body-mb", "99999"], 2, "--max-body-mb"),
        (vec!["x.toml", "--inject", "cpu:sing:0.1"], 2, "expected WHAT:HOW:SHARE"),
        (vec!["x.toml", "--tokens", "missing-tokens"], 1, "missing-tokens"),
    ] {
        let mut child = spawn(&folder, &arguments);
        assert_eq!(wait(&mut child), Some(code), "{arguments:?}");
        let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
