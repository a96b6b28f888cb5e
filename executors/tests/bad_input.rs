//! Everything that can be wrong with a model or an input is one clear error that names what and where; never a panic.

mod support;

use cosched_executors::graph::Attr;
use cosched_executors::onnx::{self, LoadError};
use cosched_executors::processor::{ExecError, Options};
use cosched_executors::tensor::{Data, Tensor};
use cosched_executors::{chain::Chain, cpu, segment, zoo};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use support::{FIXTURES, data, fixture};

fn bytes(file: &str) -> Vec<u8> {
    std::fs::read(data(file)).unwrap()
}

fn refused(bytes: &[u8]) -> LoadError {
    onnx::from_bytes("some.onnx", bytes, &BTreeMap::new()).expect_err("it must be refused")
}

/// Replaces a string in the file by another of the same length, as a vandal would.
fn replaced(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut bytes = bytes.to_vec();
    let mut found = 0;
    for i in 0..=bytes.len() - old.len() {
        if &bytes[i..i + old.len()] == old.as_bytes() {
            bytes[i..i + old.len()].copy_from_slice(new.as_bytes());
            found += 1;
        }
    }
    assert!(found > 0, "`{old}` is not in the file");
    bytes
}

#[test]
fn a_missing_file_is_named() {
    let error = onnx::load(Path::new("/nowhere/net.onnx"), &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }));
    assert!(error.to_string().starts_with("/nowhere/net.onnx: cannot read: No such file"), "{error}");
    let error = onnx::load(&data(""), &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }), "a folder: {error}");
}

#[test]
fn every_truncation_is_refused() {
    for name in FIXTURES.iter().filter(|name| !name.ends_with("external")) {
        let whole = bytes(&format!("{name}.onnx"));
        assert!(onnx::from_bytes(name, &whole, &BTreeMap::new()).is_ok());
        for tenth in 0..10 {
            let error = refused(&whole[..whole.len() * tenth / 10]).to_string();
            assert!(
                error.starts_with("some.onnx: not an ONNX model, or a truncated one"),
                "{name} {tenth}/10: {error}"
            );
        }
        // The last bytes are the operator sets, or a part of them.
        for cut in 1..12 {
            assert!(!refused(&whole[..whole.len() - cut]).to_string().is_empty());
        }
    }
}

#[test]
fn random_bytes_are_refused() {
    for seed in 0..200u64 {
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
        let noise: Vec<u8> = (0..rng.random_range(0..4000)).map(|_| rng.random()).collect();
        let error = refused(&noise);
        assert!(error.to_string().starts_with("some.onnx: "), "seed {seed}: {error}");
    }
    assert!(matches!(refused(b"<html><body>404 Not Found</body></html>"), LoadError::NotOnnx { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    /// A flipped byte may go unnoticed (a weight, a name); it must not bring us down.
    #[test]
    fn flipped_bytes_never_panic(which in 0usize..3, at in any::<prop::sample::Index>(), with in 1u8..255) {
        let mut whole = bytes(["residual.onnx", "mobile.onnx", "unet.onnx"][which]);
        // Weights fill most of the file; aim at the nodes, which come first, three times of four.
        let span = if with % 4 == 0 { whole.len() } else { whole.len().min(6000) };
        let i = at.index(span);
        whole[i] ^= with;
        if let Err(error) = onnx::from_bytes("some.onnx", &whole, &BTreeMap::new()) {
            prop_assert!(error.to_string().starts_with("some.onnx: "), "{}", error);
        }
    }
}

/// onnxruntime infers a negative extent here and lets it pass; its Rust crate then panicked.
#[test]
fn a_kernel_wider_than_its_input_is_refused() {
    let mut graph = onnx::from_bytes("residual", &bytes("residual.onnx"), &BTreeMap::new()).unwrap();
    let last = graph.nodes.iter().rposition(|node| node.op == "Conv").unwrap();
    graph.nodes[last].attrs.insert("dilations".to_owned(), Attr::Ints(vec![900, 900]));
    graph.outputs = graph.nodes[last].outputs.iter().flatten().copied().collect();
    graph.nodes.truncate(last + 1);
    let error = refused(&onnx::to_onnx(&graph));
    assert!(matches!(error, LoadError::Invalid { .. }));
    assert!(error.to_string().contains("wider than its padded input"), "{error}");
}

#[test]
fn an_unknown_operator_is_named_with_its_node() {
    let bad = replaced(&bytes("unet.onnx"), "LeakyRelu", "LeekyRelu");
    let error = refused(&bad);
    let LoadError::UnknownOp { node, op, domain, .. } = &error else { panic!("{error}") };
    assert_eq!((op.as_str(), domain.as_str()), ("LeekyRelu", "ai.onnx"));
    assert!(node.contains("LeekyRelu"), "{error}");
    // The same for a kind of attribute or shape that does not fit: refused with the node's name.
    let error = refused(&replaced(&bytes("unet.onnx"), "ConvTranspose", "GlobalMaxPool")).to_string();
    assert!(error.contains("GlobalMaxPool"), "{error}");
}

#[test]
fn dynamic_dimensions_are_set_or_refused() {
    let whole = bytes("encoder.onnx");
    let load = |dims: &[(&str, usize)]| {
        let dims = dims.iter().map(|&(name, n)| (name.to_owned(), n)).collect();
        onnx::from_bytes("encoder", &whole, &dims)
    };
    assert_eq!(load(&[]).unwrap().value(load(&[]).unwrap().inputs[0]).shape, [1, 3, 32, 32]);
    let three = load(&[("batch", 3)]).unwrap();
    assert_eq!(three.value(three.inputs[0]).shape, [3, 3, 32, 32]);
    assert_eq!(three.value(three.outputs[0]).shape, [3, 5]);
    let error = load(&[("batsch", 3)]).unwrap_err().to_string();
    assert!(error.contains("batsch"), "{error}");
    assert!(load(&[("batch", 0)]).unwrap_err().to_string().contains("set to 0"));
    // The third dimension becomes symbolic: a varint 32 in field 1 becomes the name "h" in field 2 (same length is 2 bytes).
    let fixed = [0x0a, 0x02, 0x08, 0x20, 0x0a, 0x02, 0x08, 0x20];
    let at = whole.windows(8).position(|w| w == fixed).expect("the shape of the input");
    let mut bad = whole.clone();
    bad[at..at + 4].copy_from_slice(&[0x0a, 0x02, 0x12, 0x00]);
    let error = refused(&bad);
    assert!(matches!(error, LoadError::Dynamic { .. }), "{error}");
    assert!(error.to_string().contains("`image[2]`"), "{error}");
    let dims = BTreeMap::from([("image[2]".to_owned(), 32)]);
    assert!(onnx::from_bytes("encoder", &bad, &dims).is_ok());
}

#[test]
fn external_weights_must_be_beside_the_model() {
    let whole = bytes("mobile_external.onnx");
    let error = refused(&whole);
    assert!(matches!(error, LoadError::External { .. }));
    assert!(error.to_string().contains("loaded from its path"), "{error}");
    let dir = std::env::temp_dir().join(format!("cosched-external-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("mobile_external.onnx");
    std::fs::write(&path, &whole).unwrap();
    let load = || onnx::load(&path, &BTreeMap::new());
    assert!(load().unwrap_err().to_string().contains("mobile_external.onnx.data`: No such file"));
    let weights = bytes("mobile_external.onnx.data");
    std::fs::write(dir.join("mobile_external.onnx.data"), &weights[..weights.len() / 2]).unwrap();
    assert!(load().unwrap_err().to_string().contains("past the end"));
    std::fs::write(dir.join("mobile_external.onnx.data"), &weights).unwrap();
    assert!(load().is_ok());
    std::fs::write(&path, replaced(&whole, "mobile_external.onnx.data", "../../../../../etc/passwd"))
        .unwrap();
    assert!(load().unwrap_err().to_string().contains("outside the model's folder"));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn wrong_inputs_are_refused_by_the_processor_and_the_chain() {
    let graph = fixture("residual");
    let mut instance = cpu::open(&Options::default()).unwrap().prepare(&graph, &[]).unwrap().spawn().unwrap();
    let chain = Chain::new(&graph, &segment::cut(&graph, &|_| 1, &Default::default()));
    let good = Tensor::f32(&[1, 3, 32, 32], vec![0.0; 3072]);
    assert!(instance.run(&[&good]).is_ok());
    let cases = [
        (vec![], "1 inputs"),
        (vec![good.clone(), good.clone()], "got 2"),
        (vec![Tensor::f32(&[1, 3, 16, 64], vec![0.0; 3072])], "f32[1, 3, 16, 64]"),
        (vec![Tensor::f32(&[3, 32, 32], vec![0.0; 3072])], "expected f32[1, 3, 32, 32]"),
        (
            vec![Tensor { shape: vec![1, 3, 32, 32], data: Data::F64(vec![0.0; 3072]) }],
            "got f64[1, 3, 32, 32]",
        ),
        (vec![Tensor { shape: vec![1, 3, 32, 32], data: Data::F32(vec![0.0; 3]) }], "12 bytes"),
    ];
    for (inputs, part) in cases {
        for error in [
            instance.run(&inputs.iter().collect::<Vec<_>>()).unwrap_err(),
            chain.start(inputs.iter().cloned().map(Arc::new).collect()).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(
                matches!(error, ExecError::Input { .. }) && text.contains(part) && text.contains("image"),
                "{text}"
            );
        }
    }
    assert!(instance.run(&[&good]).is_ok(), "a refusal leaves the instance usable");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let error = zoo::write("kws", &Default::default(), Path::new("/dev/null/x")).unwrap_err().to_string();
    assert!(error.starts_with("/dev/null/x/kws.onnx: cannot write"), "{error}");
}
