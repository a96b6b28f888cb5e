//! The queue, the data areas and the messages without a worker: every message and byte arrives as it was sent, and nothing that the
//! other side may write makes this side panic.

use cosched_executors::dsp::area::Area;
use cosched_executors::dsp::queue::{Control, PAYLOAD, QueueError, SLOTS, Side, VERSION, shared_dir};
use cosched_executors::dsp::wire::{Reply, Request};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::os::unix::fs::FileExt;

fn request() -> impl Strategy<Value = Request> {
    let path = "/dev/shm/[a-zA-Z0-9/_ .é-]{1,60}".prop_map(std::path::PathBuf::from);
    prop_oneof![
        Just(Request::Ping),
        (any::<u64>(), path.clone()).prop_map(|(segment, path)| Request::Load { segment, path }),
        (any::<u64>(), any::<u64>(), path).prop_map(|(instance, segment, path)| Request::Spawn {
            instance,
            segment,
            path
        }),
        any::<u64>().prop_map(|instance| Request::Run { instance }),
        any::<u64>().prop_map(|instance| Request::Free { instance }),
        any::<u64>().prop_map(|segment| Request::Unload { segment }),
    ]
}

proptest! {
    #[test]
    fn messages_survive_the_wire(request in request(), busy_ns: u64, reason in ".{0,3000}") {
        let (kind, bytes) = request.encode();
        prop_assert_eq!(Request::decode(kind, &bytes), Ok(request));
        let (kind, bytes) = Reply::Done { busy_ns }.encode();
        prop_assert_eq!(Reply::decode(kind, &bytes), Ok(Reply::Done { busy_ns }));
        let (kind, bytes) = Reply::Failed { reason: reason.clone() }.encode();
        prop_assert!(bytes.len() <= PAYLOAD);
        match Reply::decode(kind, &bytes) {
            Ok(Reply::Failed { reason: got }) => prop_assert!(reason.starts_with(&got) && (got.len() > PAYLOAD - 4 || got == reason)),
            other => prop_assert!(false, "{other:?}"),
        }
        let (kind, bytes) = Reply::Here { name: reason.clone() }.encode();
        match Reply::decode(kind, &bytes) {
            Ok(Reply::Here { name }) => prop_assert!(reason.starts_with(&name)),
            other => prop_assert!(false, "{other:?}"),
        }
        let (kind, bytes) = Reply::Stopped.encode();
        prop_assert_eq!(Reply::decode(kind, &bytes), Ok(Reply::Stopped));
        prop_assert!(Reply::decode(kind, &[0]).is_err());
    }

    #[test]
    fn malformed_messages_are_errors(kind in prop_oneof![0u32..8, 99u32..104, any::<u32>()], bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        // Decoding must return; where it succeeds, it must have understood all of it.
        if let Ok(request) = Request::decode(kind, &bytes) {
            prop_assert_eq!(request.encode(), (kind, bytes.clone()));
        }
        if let Ok(Reply::Done { busy_ns }) = Reply::decode(kind, &bytes) {
            prop_assert_eq!(Reply::Done { busy_ns }.encode(), (kind, bytes));
        }
    }

    /// Pushes and pops in any order, through two mappings of one file, against a plain queue.
    #[test]
    fn the_ring_is_a_queue(steps in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..PAYLOAD)), 0..300)) {
        let here = Control::create(&shared_dir(), VERSION).unwrap();
        let there = Control::open(here.path()).unwrap();
        here.unlink();
        let mut model: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
        for (i, (push, bytes)) in steps.into_iter().enumerate() {
            if push {
                match here.push(Side::Requests, i as u64, 7, &bytes) {
                    Ok(()) => model.push_back((i as u64, bytes)),
                    Err(QueueError::Full) => prop_assert_eq!(model.len(), SLOTS),
                    Err(e) => prop_assert!(false, "{e}"),
                }
            } else {
                let got = there.pop(Side::Requests).unwrap().map(|m| (m.seq, m.payload));
                prop_assert_eq!(got, model.pop_front());
            }
        }
        prop_assert!(!there.pending(Side::Replies));
    }

    #[test]
    fn tensors_survive_an_area(blobs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..8)) {
        let here = Area::create(&blobs.iter().map(Vec::len).collect::<Vec<_>>()).unwrap();
        for (i, blob) in blobs.iter().enumerate() {
            here.write(i, blob).unwrap();
        }
        let there = Area::open(here.path()).unwrap();
        prop_assert_eq!(there.len(), blobs.len());
        for (i, blob) in blobs.iter().enumerate() {
            let mut got = vec![0; there.blob_len(i)];
            there.read(i, &mut got).unwrap();
            prop_assert_eq!(&got, blob);
            prop_assert!(there.read(i, &mut vec![0; blob.len() + 1]).is_err());
        }
    }

    /// Wild bytes over the whole control segment, then over an area: errors or harmless answers, no panic, no fault.
    #[test]
    fn a_wild_writer_is_survived(bytes in prop::collection::vec(any::<u8>(), 1..2000), at in 0u64..3000) {
        let control = Control::create(&shared_dir(), VERSION).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(control.path()).unwrap();
        file.write_all_at(&bytes, at).unwrap();
        for side in [Side::Requests, Side::Replies] {
            for _ in 0..2 * SLOTS {
                if control.pop(side).is_err() { break }
            }
            let _ = control.push(side, 1, 1, &[1, 2, 3]);
        }
        control.unlink();
        let area = Area::create(&[100, 200]).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(area.path()).unwrap();
        file.write_all_at(&bytes[..bytes.len().min(48)], at % 48).unwrap();
        if let Ok(area) = Area::open(area.path()) {
            for i in 0..area.len() {
                let _ = area.read(i, &mut vec![0; area.blob_len(i)]);
            }
        }
    }
}

#[test]
fn a_stop_is_heard_once_by_who_waits_and_is_of_one_request() {
    let control = Control::create(&shared_dir(), VERSION).unwrap();
    let other = Control::open(control.path()).unwrap();
    control.unlink();
    let seen = other.stops();
    let heard = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            while other.stops() == seen {
                other.hear(seen, std::time::Duration::from_secs(60));
            }
            other.stopped(7)
        });
        control.stop(7);
        waiting.join().unwrap()
    });
    assert!(heard && !other.stopped(7 + SLOTS as u64) && !other.stopped(8));
    // Its place goes to the next request that has it.
    control.stop(7 + SLOTS as u64);
    assert!(other.stopped(7 + SLOTS as u64) && !other.stopped(7));
}

#[test]
fn another_version_is_refused_and_seen_by_both_sides() {
    let control = Control::create(&shared_dir(), VERSION + 41).unwrap();
    assert!(control.refusal().is_none());
    let error = Control::open(control.path()).err().unwrap().to_string();
    let seen = control.refusal().unwrap().to_string();
    let (theirs, ours) = (format!("version {}", VERSION + 41), format!("version {VERSION}"));
    for text in [error, seen] {
        assert!(text.contains(&theirs) && text.contains(&ours) && text.contains("same build"), "{text}");
    }
    control.unlink();
}

#[test]
fn other_files_are_refused() {
    let dir = std::env::temp_dir().join(format!("dsp-foreign-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (name, bytes) in [("empty", 0), ("short", 40), ("zeros", 200_000)] {
        let path = dir.join(name);
        std::fs::write(&path, vec![0u8; bytes]).unwrap();
        for error in [Control::open(&path).err().unwrap(), Area::open(&path).err().unwrap()] {
            assert!(matches!(error, QueueError::Foreign { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    assert!(matches!(Area::open(&dir.join("absent")), Err(QueueError::Io { .. })));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// The saboteur: one byte changed under way must be seen by the comparison that the tests above rest on.
#[test]
fn a_changed_byte_is_seen() {
    let control = Control::create(&shared_dir(), VERSION).unwrap();
    control.push(Side::Requests, 9, 4, &[7; 100]).unwrap();
    let mut bytes = std::fs::read(control.path()).unwrap();
    let at = bytes.windows(100).position(|w| w == [7; 100]).unwrap();
    bytes[at + 50] = 8;
    let file = std::fs::OpenOptions::new().write(true).open(control.path()).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let there = Control::open(control.path()).unwrap();
    control.unlink();
    assert_ne!(there.pop(Side::Requests).unwrap().unwrap().payload, [7; 100]);
}
