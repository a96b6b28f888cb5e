//! The f32 node tests of the ONNX project (`data/onnx_nodes.bin`, made by `data/onnx_nodes.py`) on every f32 processor. What passes, is refused
//! or is wrong stands in `data/onnx_nodes.txt`, and the list must be true both ways: `UPDATE=1` writes it. It refuses int8 (the dsp).

mod support;

use cosched_executors::onnx;
use cosched_executors::processor::{Options, Processor, TABLE};
use cosched_executors::tensor::{DType, Data, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::data;

struct Case {
    name: String,
    model: Vec<u8>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

/// Reads the fixture; a broken one is a broken test.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, n: usize) -> &'b [u8] {
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        head
    }
    fn number(&mut self) -> usize {
        u32::from_le_bytes(self.take(4).try_into().unwrap()) as usize
    }
    fn blob(&mut self) -> &'b [u8] {
        let n = self.number();
        self.take(n)
    }
    fn tensor(&mut self) -> Tensor {
        let dtype = match self.number() {
            1 => DType::F32,
            2 => DType::U8,
            3 => DType::I8,
            6 => DType::I32,
            7 => DType::I64,
            9 => DType::Bool,
            11 => DType::F64,
            other => panic!("type {other}"),
        };
        let shape = (0..self.number()).map(|_| self.number()).collect();
        Tensor { shape, data: Data::from_bytes(dtype, self.blob()) }
    }
    fn tensors(&mut self) -> Vec<Tensor> {
        (0..self.number()).map(|_| self.tensor()).collect()
    }
}

fn cases() -> Vec<Case> {
    let bytes = std::fs::read(data("onnx_nodes.bin")).unwrap();
    let mut r = Reader(&bytes);
    (0..r.number())
        .map(|_| Case {
            name: String::from_utf8(r.blob().to_vec()).unwrap(),
            model: r.blob().to_vec(),
            inputs: r.tensors(),
            outputs: r.tensors(),
        })
        .collect()
}

/// The tolerance of the ONNX project's own runner, and a little for sums in another order.
fn agrees(got: &[Tensor], want: &[Tensor]) -> bool {
    let near =
        |(g, w): (&f32, &f32)| g == w || g.is_nan() && w.is_nan() || (g - w).abs() <= 1e-5 + 1e-3 * w.abs();
    got.len() == want.len()
        && got.iter().zip(want).all(|(got, want)| {
            got.shape == want.shape
                && match (got.as_f32(), want.as_f32()) {
                    (Some(g), Some(w)) => g.iter().zip(w).all(near),
                    _ => got == want,
                }
        })
}

fn outcome(processor: &dyn Processor, case: &Case) -> &'static str {
    let Ok(graph) = onnx::from_bytes(&case.name, &case.model, &BTreeMap::new()) else { return "not-loaded" };
    if graph.nodes.iter().any(|n| processor.supports(&graph, n).is_err()) {
        return "refused";
    }
    let inputs: Vec<_> = case.inputs.iter().take(graph.inputs.len()).collect();
    let run = processor.prepare(&graph, &[]).and_then(|p| p.spawn()).and_then(|mut i| i.run(&inputs));
    match run {
        Ok(got) if agrees(&got, &case.outputs) => "pass",
        Ok(_) => "wrong",
        Err(_) => "failed",
    }
}

/// Lines that are in one list and not in the other.
fn differences(stated: &str, seen: &str) -> Vec<String> {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let (stated, seen) = (lines(stated), lines(seen));
    let gone = stated.difference(&seen).map(|l| format!("stated, not seen: {l}"));
    gone.chain(seen.difference(&stated).map(|l| format!("seen, not stated: {l}"))).collect()
}

#[test]
fn the_node_tests_of_onnx_end_as_stated() {
    let rows = TABLE.iter().filter(|r| r.name != "dsp");
    let processors: Vec<Arc<dyn Processor>> =
        rows.map(|r| (r.open)(&Options::default()).unwrap_or_else(|e| panic!("{e}"))).collect();
    let mut seen = String::new();
    for case in cases() {
        let ends: Vec<String> =
            processors.iter().map(|p| format!("{}={}", p.name(), outcome(&**p, &case))).collect();
        seen.push_str(&format!("{}: {}\n", case.name, ends.join(" ")));
    }
    let count = |what: &str| seen.matches(what).count();
    for word in ["pass", "refused", "not-loaded", "wrong", "failed"] {
        let of =
            processors.iter().map(|p| format!("{} {}", p.name(), count(&format!("{}={word}", p.name()))));
        println!("{word}: {}", of.collect::<Vec<_>>().join(", "));
    }
    let list = data("onnx_nodes.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&list, &seen).unwrap();
    }
    let wrong = differences(&std::fs::read_to_string(&list).unwrap(), &seen);
    assert!(wrong.is_empty(), "the list is not true (UPDATE=1 writes it):\n{}", wrong.join("\n"));
    // The saboteur: a list in which one test passes that does not, and the other way round.
    assert_eq!(differences(&seen.replacen("=pass", "=refused", 1), &seen).len(), 2);
}

#[test]
fn a_wrong_number_does_not_pass() {
    let case = cases().into_iter().find(|c| c.name == "test_relu").unwrap();
    let mut wrong = case.outputs.clone();
    assert!(agrees(&wrong, &case.outputs));
    let Data::F32(values) = &mut wrong[0].data else { panic!("f32") };
    values[0] += 0.01 + values[0].abs();
    assert!(!agrees(&wrong, &case.outputs));
    assert!(!agrees(&[], &case.outputs));
}
