//! Threads that onnxruntime starts for a part of the CPU stay on its cores, and a run moves its caller there for as long as it takes.
//! It refuses to time anything. One test, because it looks at all threads of this process.
#![cfg(target_os = "linux")]

mod support;

use cosched_executors::affinity::allowed;
use cosched_executors::cpu::{Settings, open_as};
use std::collections::BTreeMap;
use support::{fixture, random};

/// Cores of each thread of this process, as the system has them.
fn threads() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let Ok(status) = std::fs::read_to_string(task.path().join("status")) else { continue };
        let cores = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        found.insert(task.file_name().to_string_lossy().into_owned(), cores.trim().to_owned());
    }
    found
}

#[test]
fn threads_of_onnxruntime_stay_on_the_cores_of_their_part() {
    let all = allowed();
    let last = all[all.len() - 1];
    let graph = fixture("residual");
    let inputs: Vec<_> = graph.inputs.iter().map(|&id| random(graph.value(id), 1)).collect();
    let inputs: Vec<_> = inputs.iter().collect();
    let mut wants = Vec::new();
    for cores in [vec![last], Vec::new()] {
        let before = threads();
        let settings = Settings { name: "part".into(), threads: 2, cores: cores.clone() };
        let processor = open_as(settings).unwrap();
        assert_eq!((processor.name(), processor.cores()), ("part", &cores[..]));
        let prepared = processor.prepare(&graph, &[]).unwrap();
        let mut instance = prepared.spawn().unwrap();
        wants.push(instance.run(&inputs).unwrap());
        assert_eq!(allowed(), all, "the caller stays where a run put it");
        let fresh: Vec<String> =
            threads().into_iter().filter(|(n, _)| !before.contains_key(n)).map(|(_, cores)| cores).collect();
        assert!(!fresh.is_empty(), "two threads need one beside the caller's");
        // The saboteur: without cores the threads are where the process may be.
        let there = fresh.iter().all(|on| *on == last.to_string());
        assert_eq!(there, !cores.is_empty() || all.len() == 1, "{fresh:?}");
    }
    assert_eq!(wants[0], wants[1], "cores change no numbers");
    let error =
        open_as(Settings { name: "part".into(), threads: 1, cores: vec![1000] }).map(drop).unwrap_err();
    assert!(error.to_string().contains("no core 1000 for this process"), "{error}");
}
