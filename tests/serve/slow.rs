//! Callers that send slowly, or a flood of them: others are served as ever.

use crate::http::{body, infer, receive};
use crate::rig::{Rig, inputs};
use serde_json::json;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The beginning of a request whose body of `length` bytes does not come.
fn slow(rig: &Rig, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(rig.http).unwrap();
    let head =
        format!("POST /v2/models/plain/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{{");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Ten requests, one after the other, in far less time than a slow caller is waited for.
fn served(rig: &Rig) {
    let begun = Instant::now();
    for seed in 0..10 {
        assert_eq!(infer(rig.http, "plain", &inputs(seed), json!({})).status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}: others wait for slow callers", begun.elapsed());
}

#[test]
fn slow_bodies_do_not_stop_others() {
    let rig = Rig::new("edf");
    // Many times the memory that large bodies may have together, and many small ones.
    let large: Vec<_> = (0..40).map(|_| slow(&rig, 60 << 20)).collect();
    let small: Vec<_> = (0..100).map(|_| slow(&rig, 10_000)).collect();
    served(&rig);
    drop((large, small));
    served(&rig);
}

#[test]
fn a_flood_is_answered_or_hung_up_on() {
    let rig = Rig::new("edf");
    // Time enough: what waits too long would be told so.
    let bytes = body(&inputs(1), json!({"deadline_ms": 30_000}));
    let head = format!(
        "POST /v2/models/plain/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    let whole = [head.as_bytes(), &bytes].concat();
    let flood: Vec<_> = (0..400)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(rig.http).ok()?;
            stream.set_read_timeout(Some(crate::rig::PATIENCE)).ok()?;
            stream.write_all(&whole).ok()?;
            Some(stream)
        })
        .collect();
    let mut seen = [0_u32; 2];
    for stream in flood {
        let answer = receive(stream);
        match answer.status {
            200 => seen[0] += 1,
            503 => {
                assert!(answer.error().contains("is full"), "{}", answer.error());
                seen[1] += 1;
            }
            other => panic!("{other}: {}", answer.error()),
        }
    }
    assert!(seen[0] >= 200, "{seen:?}");
    let counted = rig.server().core().stats.read();
    let rejected = rig.failures(1, "REJECTED");
    assert_eq!((counted.models[1].success.count, rejected), (seen[0].into(), seen[1].into()));
    served(&rig);
}
