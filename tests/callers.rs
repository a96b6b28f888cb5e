//! Requests of callers to a live world: exactly one reply each, with the answer that onnxruntime gives for the whole model; wrong ones
//! are refused without harm to others; nobody waits for a world that is gone.

mod bench;

use bench::{Bench, PATIENCE};
use cosched::env::case::StreamId;
use cosched::env::event::Outcome;
use cosched::env::scheduler::Scheduler;
use cosched::env::time::Time;
use cosched::env::world::drive;
use cosched::executors::cpu;
use cosched::executors::deploy::sample_inputs;
use cosched::executors::live::LiveWorld;
use cosched::executors::submit::Submitter;
use cosched::executors::tensor::Tensor;
use cosched::experiments::log::RunLog;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// A world without streams' requests, driven by a thread of its own until the last submitter is gone.
fn serve<T>(bench: &Bench, policy: &str, callers: impl FnOnce(Submitter) -> T) -> (T, RunLog) {
    let (deployment, case) = (bench.session.deployment.clone(), bench.case.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let (mut world, submitter) = LiveWorld::new(deployment, case.clone(), 0, Time::ZERO, stop).unwrap();
    let mut decider = cosched::policies::make(policy, &case).unwrap();
    let mut log = RunLog::new(policy);
    let result = std::thread::scope(|scope| {
        let log = &mut log;
        let driver = scope.spawn(move || {
            let mut scheduler = Scheduler::new(case, Default::default());
            drive(&mut scheduler, &mut world, decider.as_mut(), log)
        });
        let result = callers(submitter);
        driver.join().unwrap().unwrap();
        result
    });
    (result, log)
}

#[test]
fn every_caller_gets_one_reply_with_onnxruntimes_answer() {
    let bench = Bench::new("callers");
    let graphs: Vec<_> = bench.session.deployment.variants.iter().map(|v| &v.model.graph).collect();
    let want = |variant: usize, inputs: &[Tensor]| {
        let mut whole = cpu::reference(graphs[variant]).unwrap();
        whole.run(&inputs.iter().collect::<Vec<_>>()).unwrap()
    };
    let (outcomes, log) = serve(&bench, "fixed:cpu", |submitter| {
        let ask = |caller: u64| {
            let submitter = submitter.clone();
            let mut outcomes = Vec::new();
            for i in 0..20 {
                let inputs = sample_inputs(graphs[0], 1000 + caller * 100 + i);
                let stream = StreamId((i % 2) as u16);
                let receiver = submitter.submit(stream, inputs.clone());
                let reply = receiver.recv_timeout(PATIENCE).unwrap();
                assert!(receiver.recv_timeout(PATIENCE).is_err(), "a second reply");
                assert_eq!(reply.ended.request.stream, stream);
                let answered = matches!(reply.ended.outcome, Outcome::Answered | Outcome::Late);
                assert_eq!(reply.outputs.is_some(), answered, "{:?}", reply.ended.outcome);
                if let (Some(outputs), Some(variant)) = (&reply.outputs, reply.ended.variant) {
                    let (got, want) = (&outputs[0], &want(variant.0 as usize, &inputs)[0]);
                    assert_eq!(got.shape, want.shape);
                    let pairs = got.as_f32().unwrap().iter().zip(want.as_f32().unwrap());
                    let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(off < 1e-4, "caller {caller}, request {i}: off by {off}");
                }
                outcomes.push(answered);
            }
            outcomes
        };
        let all = std::thread::scope(|scope| {
            let ask = &ask;
            let callers: Vec<_> = (0..3).map(|c| scope.spawn(move || ask(c))).collect();
            callers.into_iter().flat_map(|c| c.join().unwrap()).collect::<Vec<_>>()
        });
        drop(submitter);
        all
    });
    assert_eq!((outcomes.len(), log.ended.len()), (60, 60));
    assert!(outcomes.contains(&true), "not one answer");
}

#[test]
fn wrong_callers_are_refused_and_others_go_on() {
    let bench = Bench::new("wrong");
    let good = || sample_inputs(&bench.session.deployment.variants[0].model.graph, 5);
    let (_, log) = serve(&bench, "eft", |submitter| {
        let shape = submitter.submit(StreamId(1), vec![Tensor::f32(&[1, 1, 10, 49], vec![0.0; 490])]);
        let reply = shape.recv_timeout(PATIENCE).unwrap();
        match &reply.ended.outcome {
            Outcome::Failed(reason) => {
                assert!(reason.contains("expected f32[1, 1, 49, 10], got f32[1, 1, 10, 49]"), "{reason}");
            }
            other => panic!("a wrong shape: {other:?}"),
        }
        assert!(reply.outputs.is_none());
        let none = submitter.submit(StreamId(1), Vec::new()).recv_timeout(PATIENCE).unwrap();
        assert!(matches!(none.ended.outcome, Outcome::Failed(_)), "{:?}", none.ended.outcome);
        // No such stream: refused, and only this caller hears of it.
        let before = Instant::now();
        assert!(submitter.submit(StreamId(2), good()).recv_timeout(PATIENCE).is_err());
        assert!(submitter.submit(StreamId(u16::MAX), good()).recv_timeout(PATIENCE).is_err());
        assert!(before.elapsed() < PATIENCE, "a hang");
        assert!(submitter.submit(StreamId(0), good()).recv_timeout(PATIENCE).is_ok());
        // A caller that goes away is not missed.
        drop(submitter.submit(StreamId(0), good()));
    });
    assert_eq!(log.ended.len(), 4);
}

#[test]
fn a_world_that_is_gone_disconnects_its_callers() {
    let bench = Bench::new("gone");
    let (deployment, case) = (bench.session.deployment.clone(), bench.case.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let (world, submitter) = LiveWorld::new(deployment.clone(), case, 0, Time::ZERO, stop).unwrap();
    let inputs = sample_inputs(&deployment.variants[0].model.graph, 5);
    let waiting = submitter.submit(StreamId(0), inputs.clone());
    drop(world);
    let late = submitter.submit(StreamId(0), inputs);
    let before = Instant::now();
    assert!(waiting.recv_timeout(PATIENCE).is_err() && late.recv_timeout(PATIENCE).is_err());
    assert!(before.elapsed() < PATIENCE, "a hang");
}
