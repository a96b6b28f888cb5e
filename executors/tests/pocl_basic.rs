//! pocl's `basic` device, which `cosched` chooses on CPUs, computes in the thread that asks, and its driver (3.1) locks itself out when a second thread
//! asks meanwhile: a tensor is read by one thread while another one runs a segment, thousands of times. A process of its own, since
//! the driver reads its choice once, and a clock, since what is tested hangs when it is wrong.

mod support;

use cosched_executors::chain::{Chain, Room, Values};
use cosched_executors::in_segments::even;
use cosched_executors::processor::{Options, row};
use cosched_executors::stop::Stop;
use cosched_executors::tensor::Tensor;
use cosched_executors::{onnx, zoo};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use support::random_inputs;

const CHILD: &str = "COSCHED_TEST_BASIC";
const LAUNCHES: usize = 400;
const PATIENCE: Duration = Duration::from_secs(120);

/// What the child does: runs a network in segments here, while another thread reads what the first of them left on the device.
#[test]
fn child_reads_while_it_runs() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let processor = (row("opencl").unwrap().open)(&Options::default()).unwrap_or_else(|e| panic!("{e}"));
    println!("device {}", processor.device());
    let bytes = zoo::bytes("kws_small", &zoo::Options::default()).unwrap();
    let graph = onnx::from_bytes("kws_small", &bytes, &BTreeMap::new()).unwrap();
    let segments = even(&graph, 3);
    let chain = Chain::new(&graph, &segments);
    let mut instances: Vec<_> =
        segments.iter().map(|s| processor.prepare(&s.graph, &[]).unwrap().spawn().unwrap()).collect();
    let start = chain.start(random_inputs(&graph, 3).into_iter().map(Arc::new).collect()).unwrap();
    let mut advance = |values: &mut Values, s: usize| {
        chain.advance(values, s, &mut *instances[s], &mut Room::default(), &Stop::default()).unwrap();
    };
    let read =
        |values: &Values| -> Vec<Tensor> { chain.inputs(values, 1).unwrap().into_iter().cloned().collect() };
    let mut first = start.clone();
    advance(&mut first, 0);
    let want = read(&first);
    let (send, receive) = mpsc::channel::<Values>();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            receive.into_iter().map(|values| assert!(read(&values) == want, "other numbers")).count()
        });
        for _ in 0..LAUNCHES {
            let mut values = start.clone();
            advance(&mut values, 0);
            send.send(values.clone()).unwrap();
            (1..segments.len()).for_each(|s| advance(&mut values, s));
        }
        drop(send);
        assert_eq!(reader.join().unwrap(), LAUNCHES);
    });
}

#[test]
fn a_tensor_may_be_read_while_another_thread_runs() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_reads_while_it_runs", "--nocapture"]).env(CHILD, "1");
    let mut child = command.env("POCL_DEVICES", "basic").stdout(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("opencl hangs where one thread reads and another one runs");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
    assert!(status.success() && said.contains("device "), "{said}");
}
