//! Plans from tables of others: numbers by hand, and refusals.

use crate::fixture::folder;
use cosched_experiments::app::App;
use cosched_experiments::import::ort::Profile;
use cosched_experiments::import::{Given, aihub, ncnn, ort};
use std::path::PathBuf;

fn write(name: &str, text: &str) -> PathBuf {
    let path = folder("import").join(name);
    std::fs::write(&path, text).unwrap();
    path
}

const NCNN: &str = "device,loop_count,num_threads,powersave,gpu_device,model,min_ms,max_ms,avg_ms
\"Board (A76, big)\",8,1,0,-1,net,9,12,10
\"Board (A76, big)\",8,4,0,-1,net,3,5,4
\"Board (A76, big)\",8,4,0,-1,net_int8,2,3,2.5
\"Board (A76, big)\",8,1,0,0,net,5,7,6
Phone,8,1,0,-1,net,1,1,1
";

#[test]
fn ncnn_by_hand() {
    let file = write("ncnn.csv", NCNN);
    let given = Given {
        watts: [("cpu".to_owned(), 2.0)].into(),
        accuracy: [("net_int8".to_owned(), 0.9)].into(),
        models: Vec::new(),
    };
    let plan = ncnn::import(&file, "board", &[], &given).unwrap();
    let names: Vec<_> = plan.processors.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["cpu", "gpu"]);
    let costs = |v: usize| plan.variants[v].segments[0].costs.clone();
    let net = costs(0)[0].unwrap();
    assert_eq!((net.mean_us, net.p50_us, net.p95_us, net.energy_mj), (4000.0, 4000.0, 5000.0, 8.0));
    assert_eq!(costs(0)[1].unwrap().mean_us, 6000.0);
    assert!(costs(1)[1].is_none(), "the GPU never ran it");
    assert_eq!((plan.variants[1].task.as_str(), plan.variants[1].accuracy), ("net", 0.9));
    // It is a plan that runs.
    std::fs::write(file.with_file_name("plan.json"), serde_json::to_string(&plan).unwrap()).unwrap();
    let app = "name = 'a'\nplan = 'plan.json'\n[[stream]]\ntask = 'net'\nperiod_ms = 20\ndeadline_ms = 20\n";
    let app = App::parse(app, &file.with_file_name("a.toml")).unwrap();
    assert_eq!(app.case().unwrap().processor_count(), 2);
    let one = ncnn::import(&file, "board", &[("little".into(), (1, 0, -1))], &Given::default()).unwrap();
    assert_eq!(one.variants[0].segments[0].costs[0].unwrap().mean_us, 10_000.0);
}

#[test]
fn aihub_by_hand() {
    let text = "model,component,precision,device,runtime,inference_ms,primary_compute_unit,layers_total
two,B,float,Phone 8,tflite,3,NPU,1
two,A,float,Phone 8,tflite,2,NPU,1
two,A,float,Phone 8,onnx,1.5,NPU,1
two,A,w8a8,Phone 8,onnx,1,NPU,1
one,A,float,Phone 8,tflite,5,CPU,1
one,A,float,Phone 9,tflite,4,NPU,1
";
    let file = write("hub.csv", text);
    let plan = aihub::import(&file, "Phone 8", &Given::default()).unwrap();
    let names: Vec<_> =
        plan.variants.iter().map(|v| (v.name.as_str(), v.task.as_str(), v.segments.len())).collect();
    assert_eq!(names, [("one", "one", 1), ("two-float", "two", 2), ("two-w8a8", "two", 1)]);
    let cost = plan.variants[1].segments[0].costs[1].unwrap();
    assert_eq!(cost.mean_us, 1500.0);
    assert!((cost.p95_us - 1650.0).abs() < 1e-9 && plan.variants[1].segments[0].costs[0].is_none());
}

/// Two kernels in three runs; the first run is cold.
fn profile(second: &str) -> String {
    let mut events = vec![r#"{"cat":"Session","name":"session_initialization","ts":0,"dur":9}"#.to_owned()];
    for (run, (a, b)) in [(900, 900), (1000, 3000), (2000, 4000)].into_iter().enumerate() {
        let ts = 10_000 * (run + 1);
        events.push(format!(r#"{{"cat":"Session","name":"model_run","ts":{ts},"dur":9000}}"#));
        events.push(format!(r#"{{"cat":"Node","name":"conv_kernel_time","ts":{},"dur":{a}}}"#, ts + 1));
        events
            .push(format!(r#"{{"cat":"Node","name":"{second}_kernel_time","ts":{},"dur":{b}}}"#, ts + 5000));
        events.push(format!(r#"{{"cat":"Node","name":"conv_fence_before","ts":{},"dur":1}}"#, ts + 1));
    }
    format!("[{}]", events.join(","))
}

#[test]
fn onnxruntime_by_hand() {
    let of = |processor: &str, name: &str, second: &str| Profile {
        variant: "net".into(),
        processor: processor.into(),
        file: write(name, &profile(second)),
    };
    let (a, b, c) = (of("cpu", "a.json", "gemm"), of("gpu", "b.json", "gemm"), of("gpu", "c.json", "fused"));
    let plan = ort::import(&[a.clone(), b], 2, &Given::default()).unwrap();
    let segments = &plan.variants[0].segments;
    assert_eq!(
        segments.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["conv..gemm"],
        "gemm alone is over half"
    );
    let cost = segments[0].costs[1].unwrap();
    assert_eq!((cost.mean_us, cost.p50_us, cost.p95_us), (5000.0, 4000.0, 6000.0));
    let three = ort::import(std::slice::from_ref(&a), 8, &Given::default()).unwrap();
    assert_eq!(three.variants[0].segments.len(), 2);
    // Other kernels on the other processor: one segment.
    assert_eq!(ort::import(&[a.clone(), c], 8, &Given::default()).unwrap().variants[0].segments.len(), 1);
    let error = ort::import(&[a.clone(), a], 8, &Given::default()).unwrap_err().to_string();
    assert!(error.ends_with("a.json: net on cpu is there twice"), "{error}");
}

#[test]
fn bad_tables_are_refused() {
    let ncnn = |text: &str, device: &str, models: &[&str]| {
        let given = Given { models: models.iter().map(|m| (*m).to_owned()).collect(), ..Given::default() };
        ncnn::import(&write("bad.csv", text), device, &[], &given).unwrap_err().to_string()
    };
    let table = [
        (ncnn("", "x", &[]), "is empty, expected a header with the columns device,"),
        (ncnn(&NCNN.replace("avg_ms", "mean"), "x", &[]), "1:1: no column `avg_ms`"),
        (ncnn(NCNN, "tablet", &[]), "no device has `tablet` in its name (2 devices)"),
        (ncnn(NCNN, "o", &[]), "2 devices have `o` in their names: "),
        (
            ncnn(&NCNN.replace("5,7,6", "5,7,fast"), "board", &[]),
            "5:1: avg_ms: expected milliseconds above 0, got `fast`",
        ),
        (ncnn(&NCNN.replace("1,1,1\n", "1,1\n"), "board", &[]), "6:1: expected 9 fields, got 8"),
        (ncnn(NCNN, "board", &["nat"]), "no model `nat`; did you mean `net`?"),
    ];
    for (error, expected) in table {
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
    let ort = |text: &str| {
        let profile = Profile { variant: "v".into(), processor: "cpu".into(), file: write("bad.json", text) };
        ort::import(&[profile], 3, &Given::default()).unwrap_err().to_string()
    };
    assert!(ort("[]").ends_with("expected events `model_run`, as ONNX Runtime's profiles have"));
    assert!(ort("[{\"name\":\"model_run\",\"ts\":1,\"dur\":2}]").contains("_kernel_time"));
    assert!(ort("{}").contains("bad.json:1:"));
}
