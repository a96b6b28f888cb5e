//! Bytes of anybody into the parsers: whatever comes, they answer, and what they let through fits the model. Random bytes hardly get past
//! the first brace, so most inputs are good bodies with a few places changed; the suite counts that both ways out are taken.

use cosched::env::case::{StreamId, VariantId};
use cosched::env::time::Span;
use cosched::executors::remote::numbers;
use cosched::executors::tensor::DType;
use cosched::server::model::{Choice, Model, Port, Source};
use cosched::server::proto::inference::ModelInferRequest;
use cosched::server::shared_memory::Regions;
use cosched::server::{request, wire};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use prost::Message;
use serde_json::json;
use std::cell::Cell;

fn model() -> Model {
    let port = |name: &str, dtype, shape: &[usize]| Port { name: name.into(), dtype, shape: shape.to_vec() };
    Model {
        name: "m".into(),
        sources: vec![Source {
            name: "s".into(),
            id: StreamId(0),
            deadline: Span::from_ms(10.0),
            expire: Span::from_ms(20.0),
            min_accuracy: 0.0,
        }],
        variants: vec![Choice { name: "v".into(), id: VariantId(0), accuracy: 0.9 }],
        inputs: vec![
            port("a", DType::F32, &[2, 3]),
            port("b", DType::I64, &[2]),
            port("c", DType::Bool, &[]),
        ],
        outputs: vec![port("o", DType::F32, &[4])],
    }
}

/// A good body, in which binary data and JSON are mixed, and the length of its JSON.
fn good() -> (Vec<u8>, usize) {
    let json = json!({
        "id": "x", "parameters": {"timeout": 5, "priority": 1, "variant": "v", "binary_data_output": true},
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}},
            {"name": "b", "datatype": "INT64", "shape": [2], "data": [1, -2]},
            {"name": "c", "datatype": "BOOL", "shape": [], "parameters": {"binary_data_size": 1}},
        ],
        "outputs": [{"name": "o", "parameters": {"binary_data": false}}],
    });
    let mut bytes = json.to_string().into_bytes();
    let json_bytes = bytes.len();
    bytes.extend([7; 24]);
    bytes.push(1);
    (bytes, json_bytes)
}

/// All that becomes of a body; true when it is let through.
fn read(model: &Model, body: &[u8], json_bytes: Option<usize>) -> bool {
    let regions = Regions::new(true);
    let all = || {
        let asked = wire::parse(body, json_bytes)?;
        let wanted = asked.outputs(model, &regions)?;
        let tensors = request::tensors(model, &asked.inputs(&regions)?)?;
        for (tensor, port) in tensors.iter().zip(&model.inputs) {
            assert_eq!((tensor.dtype(), &tensor.shape), (port.dtype, &port.shape));
            assert_eq!(tensor.data.bytes().len(), port.bytes());
        }
        assert!(wanted.iter().all(|w| w.port < model.outputs.len()));
        asked.parameters().ask(model, tensors)
    };
    all().is_ok()
}

/// Changes: (place, byte) pairs, a cut, bytes put in.
fn changes() -> impl Strategy<Value = (Vec<(usize, u8)>, usize, Vec<u8>)> {
    let ascii =
        prop_oneof![Just(b'"'), Just(b'{'), Just(b']'), Just(b'-'), Just(b'9'), Just(b'e'), any::<u8>()];
    (
        prop::collection::vec((any::<usize>(), ascii), 0..4),
        0_usize..4,
        prop::collection::vec(any::<u8>(), 0..8),
    )
}

#[test]
fn no_body_brings_the_parser_down() {
    let (model, (good, json_bytes)) = (model(), good());
    assert!(read(&model, &good, Some(json_bytes)), "the saboteur: the good body is let through");
    let (through, refused) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 4000, failure_persistence: None, ..Config::default() });
    let count = |was: bool| if was { through.set(through.get() + 1) } else { refused.set(refused.get() + 1) };
    let strategy = (changes(), any::<prop::sample::Index>(), -2_isize..3);
    runner
        .run(&strategy, |((bytes, cut, more), at, shift)| {
            let mut body = good.clone();
            for (place, byte) in bytes {
                let place = place % body.len();
                body[place] = byte;
            }
            if cut == 3 {
                body.truncate(at.index(good.len()));
            } else if cut == 2 {
                let at = at.index(body.len());
                body.splice(at..at, more);
            }
            let length = (json_bytes as isize + if cut > 0 { shift } else { 0 }) as usize;
            count(read(&model, &body, Some(length)));
            count(read(&model, &body, None));
            Ok(())
        })
        .unwrap();
    assert!(
        through.get() > 50 && refused.get() > 1000,
        "{} through, {} refused",
        through.get(),
        refused.get()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_refused(body in prop::collection::vec(any::<u8>(), 0..200), json_bytes in prop::option::of(any::<usize>())) {
        prop_assert!(!read(&model(), &body, json_bytes));
    }

    #[test]
    fn random_texts_are_no_tensor_or_the_right_one(text in "[\\[\\]0-9,.eE+\\- truefalsn\"{}:]{0,40}", elements in 0_usize..6) {
        for dtype in [DType::F32, DType::F64, DType::I64, DType::I32, DType::I8, DType::U8, DType::Bool, DType::F16] {
            if let Ok(data) = numbers::parse(dtype, &text, elements) {
                prop_assert_eq!(data.bytes().len(), elements * dtype.size());
            }
        }
    }

    #[test]
    fn random_messages_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ModelInferRequest::decode(&bytes[..]);
    }
}

#[test]
fn a_deep_array_is_refused_and_not_followed() {
    let deep = "[".repeat(100_000);
    assert!(numbers::parse(DType::F32, &deep, 1).is_err());
    let body = format!(r#"{{"inputs":[{{"name":"a","datatype":"FP32","shape":[2,3],"data":{deep}}}]}}"#);
    assert!(!read(&model(), body.as_bytes(), None));
    let whole = format!(r#"{{"parameters":{{"x":{deep}{}}},"inputs":[]}}"#, "]".repeat(100_000));
    assert!(!read(&model(), whole.as_bytes(), None));
}
