//! What is no worker, or no good one: of another version, another program, one that lies; and inputs that fit no segment. Each is named.
#![cfg(target_os = "linux")]

mod dsp_common;

use cosched_executors::dsp::queue::{Control, PAYLOAD, Side, VERSION, shared_dir};
use cosched_executors::dsp::wire::{Reply, Request};
use cosched_executors::dsp::{Dsp, EXIT_VERSION, Limits};
use cosched_executors::processor::{ExecError, Options, Processor};
use cosched_executors::tensor::Tensor;
use dsp_common::*;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn a_worker_of_another_version_says_so() {
    let control = Control::create(&shared_dir(), VERSION + 1).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_cosched-dsp")).arg(control.path()).output().unwrap();
    control.unlink();
    assert_eq!(out.status.code(), Some(i32::from(EXIT_VERSION)));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("version mismatch") && said.contains("same build"), "{said}");
    assert!(control.refusal().is_some());
}

#[test]
fn a_command_that_is_no_worker_is_an_absent_processor() {
    let limits = Limits { start: Duration::from_secs(2), ..Limits::default() };
    for (command, part) in
        [("/nowhere/dsp", "No such file"), ("/bin/false", "exit status: 1"), ("/bin/cat", "exit status: 1")]
    {
        let options = Options { dsp_command: vec![command.into()], ..Options::default() };
        let start = Instant::now();
        let error = Dsp::open(&options, limits.clone()).err();
        // `cat` copies the queue to its output, a byte stream that means nothing to us, and ends.
        let error = error.unwrap_or_else(|| panic!("{command} was taken for a worker"));
        assert!(matches!(error, ExecError::Absent { .. }), "{command}: {error}");
        assert!(error.to_string().contains(command), "{error}");
        assert!(command == "/bin/cat" || error.to_string().contains(part), "{command}: {error}");
        assert!(start.elapsed() < PATIENCE, "{command} took {:?}", start.elapsed());
    }
    // One that neither ends nor answers.
    let options = Options {
        dsp_command: vec!["/bin/sh".into(), "-c".into(), "exec sleep 600".into()],
        ..Options::default()
    };
    let error = Dsp::open(&options, limits).err().unwrap();
    assert!(error.to_string().contains("did not answer"), "{error}");
}

#[test]
fn wrong_inputs_are_named() {
    let dsp = dsp();
    let graph = tiny_graph(11);
    let samples = samples(&mut Rng::new(11), &graph, 1);
    let error = dsp.prepare(&graph, &[]).err().unwrap().to_string();
    assert!(error.contains("calibration samples are needed"), "{error}");
    let short = Tensor::f32(&[1, 4, 4, 3], vec![0.0; 48]);
    let error = dsp.prepare(&graph, &[vec![short.clone()]]).err().unwrap().to_string();
    assert!(error.contains("in0") && error.contains("[1, 4, 4, 4]"), "{error}");
    let mut instance = dsp.prepare(&graph, &samples).unwrap().spawn().unwrap();
    let error = instance.run(&[&short]).unwrap_err();
    assert!(matches!(error, ExecError::Input { .. }), "{error}");
    assert!(matches!(instance.run(&[]), Err(ExecError::Input { .. })));
    let nan = Tensor::f32(&[1, 4, 4, 4], vec![f32::NAN; 64]);
    let error = dsp.prepare(&graph, &[vec![nan]]).err().unwrap().to_string();
    assert!(error.contains("not finite"), "{error}");
    // A model that the worker cannot compile is its error, not its death.
    let mut broken = graph.clone();
    broken.nodes[0].op = "NoSuchOperator".into();
    let error = dsp.prepare_quantised(&graph, &broken).err().unwrap();
    assert!(
        matches!(error, ExecError::Failed { .. }) && error.to_string().contains("NoSuchOperator"),
        "{error}"
    );
    assert_eq!(dsp.restarts(), 0);
}

/// Not a test by itself: a worker that answers the first request well and then lies, for `a_lying_worker_is_put_down`.
#[test]
fn role_of_a_liar() {
    let Ok(lie) = std::env::var("COSCHED_TEST_LIE") else { return };
    let path = std::env::args().next_back().unwrap();
    let control = Control::open(path.as_ref()).unwrap();
    let (done, fine) = Reply::Done { busy_ns: 1 }.encode();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        control.beat();
        let Ok(Some(message)) = control.pop(Side::Requests) else {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        };
        let request = Request::decode(message.kind, &message.payload).unwrap();
        let pushed = match (lie.as_str(), request) {
            // Every worker must answer the first greeting, or it is no worker at all.
            (_, Request::Ping) | ("none", _) => control.push(Side::Replies, message.seq, done, &fine),
            ("kind", _) => control.push(Side::Replies, message.seq, 4711, &fine),
            ("length", _) => control.push(Side::Replies, message.seq, done, &[1; 3]),
            ("long", _) => control.push(Side::Replies, message.seq, done, &[1; PAYLOAD]),
            ("other", _) => control.push(Side::Replies, message.seq + 1000, done, &fine),
            ("text", _) => control.push(Side::Replies, message.seq, 102, &[0xff, 0xfe, b'x']),
            _ => Ok(()),
        };
        pushed.unwrap();
        // The last line wakes sleepers too: bytes on the pipe mean nothing else.
        println!("wake");
    }
}

#[test]
fn a_lying_worker_is_put_down() {
    let limits = Limits { load: Duration::from_millis(500), ..Limits::default() };
    let graph = tiny_graph(12);
    let samples = samples(&mut Rng::new(12), &graph, 1);
    let exe = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    let expected = [
        ("kind", "malformed"),
        ("length", "malformed"),
        ("long", "malformed"),
        ("other", "did not answer"),
        ("silent", "did not answer"),
        ("text", "failed on"),
    ];
    for (lie, part) in expected {
        let words =
            ["env", &format!("COSCHED_TEST_LIE={lie}"), &exe, "--exact", "role_of_a_liar", "--nocapture"];
        let options = Options { dsp_command: words.map(str::to_owned).to_vec(), ..Options::default() };
        let dsp = Dsp::open(&options, limits.clone()).unwrap();
        let pid = dsp.worker_pid().unwrap();
        let error = dsp.prepare(&graph, &samples).err().unwrap();
        assert!(error.to_string().contains(part), "{lie}: {error}");
        if lie == "text" {
            assert!(matches!(error, ExecError::Failed { .. }) && error.to_string().contains('x'), "{error}");
        } else {
            assert!(matches!(error, ExecError::Died { .. }), "{lie}: {error}");
            assert!(gone(pid), "{lie}");
        }
    }
    // One that says "done" and computes nothing: the suite's own measure must see it.
    let words = ["env", "COSCHED_TEST_LIE=none", &exe, "--exact", "role_of_a_liar", "--nocapture"];
    let options = Options { dsp_command: words.map(str::to_owned).to_vec(), ..Options::default() };
    let dsp = Dsp::open(&options, limits).unwrap();
    let mut idle = dsp.prepare(&graph, &samples).unwrap().spawn().unwrap();
    let got = idle.run(&[&samples[0][0]]).unwrap();
    assert!(sqnr(&reference(&graph, &samples[0]), &got) < 1.0);
}
