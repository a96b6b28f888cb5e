//! A model of another server in the words of the protocol: what it is asked, what it answers, and whether it is ours at all. It refuses
//! answers that do not fit, and to speak to anybody.

use super::{datatype, numbers};
use crate::graph::Value;
use crate::tensor::{Data, Tensor};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// A model there, and what goes in and out.
pub(super) struct Whole {
    pub path: Box<str>,
    pub variant: Option<String>,
    pub inputs: Vec<Value>,
    pub outputs: Vec<Value>,
    pub graph: String,
    pub binary: bool,
}

/// A tensor of an answer.
#[derive(Deserialize)]
struct Output<'a> {
    name: String,
    datatype: String,
    shape: Vec<usize>,
    #[serde(default)]
    parameters: OfOutput,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OfOutput {
    binary_data_size: Option<usize>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    outputs: Vec<Output<'a>>,
}

impl Whole {
    /// The body, and how many bytes of it are JSON where binary data follows.
    pub fn question(&self, inputs: &[&Tensor]) -> Result<(Vec<u8>, Option<usize>), String> {
        let head = |v: &Value, rest: String| {
            format!(
                "{{\"name\":{},\"datatype\":\"{}\",\"shape\":{:?},{rest}}}",
                json!(v.name),
                datatype(v.dtype),
                v.shape
            )
        };
        let mut tensors = Vec::new();
        for (value, tensor) in self.inputs.iter().zip(inputs) {
            let rest = if self.binary {
                format!("\"parameters\":{{\"binary_data_size\":{}}}", tensor.bytes())
            } else {
                let mut data = b"\"data\":".to_vec();
                numbers::write(&tensor.data, &mut data)?;
                String::from_utf8(data).map_err(|e| e.to_string())?
            };
            tensors.push(head(value, rest));
        }
        let output = |v: &Value| json!({ "name": v.name, "parameters": { "binary_data": self.binary } });
        let outputs: Json = self.outputs.iter().map(output).collect();
        let parameters = self.variant.as_ref().map_or(json!({}), |v| json!({ "variant": v }));
        let inputs_json = tensors.join(",");
        let mut body =
            format!("{{\"parameters\":{parameters},\"inputs\":[{inputs_json}],\"outputs\":{outputs}}}")
                .into_bytes();
        if !self.binary {
            return Ok((body, None));
        }
        let json_bytes = body.len();
        inputs.iter().for_each(|tensor| body.extend_from_slice(tensor.data.bytes()));
        Ok((body, Some(json_bytes)))
    }

    /// The tensors of an answer, in the order of our outputs.
    pub fn answer(&self, body: &[u8], json_bytes: Option<usize>) -> Result<Vec<Tensor>, String> {
        let (json, mut blobs) = body
            .split_at_checked(json_bytes.unwrap_or(body.len()))
            .ok_or("the answer is shorter than its JSON")?;
        let answer: Answer<'_> =
            serde_json::from_slice(json).map_err(|e| format!("expected an answer of the protocol: {e}"))?;
        let mut got = BTreeMap::new();
        for output in answer.outputs {
            let blob = match output.parameters.binary_data_size {
                None => None,
                Some(size) => {
                    let (blob, rest) =
                        blobs.split_at_checked(size).ok_or("the answer is shorter than its tensors")?;
                    blobs = rest;
                    Some(blob)
                }
            };
            got.insert(output.name.clone(), (output, blob));
        }
        let tensor = |value: &Value| {
            let (output, blob) =
                got.get(&value.name).ok_or_else(|| format!("the answer has no output `{}`", value.name))?;
            tensor(value, output, *blob).map_err(|problem| format!("output `{}`: {problem}", value.name))
        };
        self.outputs.iter().map(tensor).collect()
    }
}

fn tensor(value: &Value, output: &Output<'_>, blob: Option<&[u8]>) -> Result<Tensor, String> {
    if output.datatype != datatype(value.dtype) || output.shape != value.shape {
        let (wanted, shape) = (datatype(value.dtype), &value.shape);
        return Err(format!("expected {wanted}{shape:?}, got {}{:?}", output.datatype, output.shape));
    }
    let data = match (blob, output.data) {
        (Some(blob), None) if blob.len() == value.bytes() => Data::from_bytes(value.dtype, blob),
        (None, Some(text)) => numbers::parse(value.dtype, text.get(), value.shape.iter().product())?,
        (blob, _) => {
            let got = blob.map_or("no data".to_owned(), |b| format!("{} bytes", b.len()));
            return Err(format!("expected {} bytes, got {got}", value.bytes()));
        }
    };
    Ok(Tensor { shape: value.shape.clone(), data })
}

/// Whether a tensor of the server's metadata is what `value` is; an extent of -1 is any.
fn same(value: &Value, tensor: &Json) -> bool {
    let dims = tensor["shape"].as_array().map(Vec::as_slice).unwrap_or_default();
    let fits =
        |(&ours, theirs): (&usize, &Json)| theirs.as_i64().is_some_and(|d| d == -1 || d == ours as i64);
    tensor["name"] == value.name.as_str()
        && tensor["datatype"] == datatype(value.dtype)
        && dims.len() == value.shape.len()
        && value.shape.iter().zip(dims).all(fits)
}

/// The first of our tensors that the server's model does not have as it is; `what` is `inputs` or `outputs`.
pub(super) fn differs(values: &[Value], metadata: &Json, what: &str) -> Option<String> {
    let theirs = metadata[what].as_array().map(Vec::as_slice).unwrap_or_default();
    let missing = values.iter().find(|v| !theirs.iter().any(|t| same(v, t)));
    let wrong = |v: &Value| format!("`{}` ({}{:?}) is not among its {what}", v.name, v.dtype, v.shape);
    let count = || format!("it has {} {what}, expected {}", theirs.len(), values.len());
    // Outputs that we do not ask for do no harm; inputs that we do not send do.
    missing.map(wrong).or_else(|| (what == "inputs" && theirs.len() != values.len()).then(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn whole(binary: bool) -> Whole {
        let value = |name: &str, n: usize| Value { name: name.into(), dtype: DType::F32, shape: vec![1, n] };
        let (inputs, outputs) = (vec![value("x", 2)], vec![value("y", 1), value("z", 2)]);
        Whole { path: "/".into(), variant: Some("v".into()), inputs, outputs, graph: "g".into(), binary }
    }

    #[test]
    fn questions_hold_what_was_asked() {
        let tensor = Tensor::f32(&[1, 2], vec![1.5, -2.0]);
        let (body, json_bytes) = whole(true).question(&[&tensor]).unwrap();
        let (json, blob) = body.split_at(json_bytes.unwrap());
        let json: Json = serde_json::from_slice(json).unwrap();
        assert_eq!(json["inputs"][0]["parameters"]["binary_data_size"], 8);
        assert_eq!((json["parameters"]["variant"].as_str(), blob), (Some("v"), tensor.data.bytes()));
        let (body, json_bytes) = whole(false).question(&[&tensor]).unwrap();
        let json: Json = serde_json::from_slice(&body).unwrap();
        assert_eq!((json_bytes, &json["inputs"][0]["data"]), (None, &json!([1.5, -2.0])));
        assert_eq!(json["outputs"][1]["name"], "z");
    }

    #[test]
    fn answers_come_in_any_order_and_lies_are_found() {
        let of = |name: &str, n: usize, rest: &str| {
            format!("{{\"name\":\"{name}\",\"datatype\":\"FP32\",\"shape\":[1,{n}],{rest}}}")
        };
        let y = of("y", 1, "\"parameters\":{\"binary_data_size\":4}");
        let z = of("z", 2, "\"data\":[2,[3]]");
        let text = format!("{{\"model_name\":\"m\",\"outputs\":[{z},{y}]}}");
        let mut body = text.clone().into_bytes();
        body.extend(7f32.to_le_bytes());
        let got = whole(true).answer(&body, Some(text.len())).unwrap();
        assert_eq!((got[0].as_f32().unwrap(), got[1].as_f32().unwrap()), (&[7.0][..], &[2.0, 3.0][..]));
        for (body, json_bytes, words) in [
            (body[..body.len() - 1].to_vec(), Some(text.len()), "shorter than its tensors"),
            (body.clone(), Some(body.len() + 1), "shorter than its JSON"),
            (b"{}".to_vec(), None, "expected an answer of the protocol"),
            (format!("{{\"outputs\":[{z}]}}").into_bytes(), None, "no output `y`"),
            (text.replace("[1,2]", "[2,1]").into_bytes(), None, "shorter than its tensors"),
            (
                format!("{{\"outputs\":[{z},{}]}}", of("y", 3, "\"data\":[1,2,3]")).into_bytes(),
                None,
                "expected FP32[1, 1]",
            ),
            (
                format!("{{\"outputs\":[{z},{}]}}", of("y", 1, "\"data\":[1,2]")).into_bytes(),
                None,
                "output `y`",
            ),
        ] {
            let problem = whole(true).answer(&body, json_bytes).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn models_that_differ_are_seen() {
        let Whole { inputs, .. } = whole(true);
        let there = |name: &str, datatype: &str, shape: Json| json!({ "inputs": [{ "name": name, "datatype": datatype, "shape": shape }] });
        assert_eq!(differs(&inputs, &there("x", "FP32", json!([-1, 2])), "inputs"), None);
        for other in [
            there("w", "FP32", json!([1, 2])),
            there("x", "FP16", json!([1, 2])),
            there("x", "FP32", json!([1, 3])),
            there("x", "FP32", json!([1, 2, 1])),
            json!({}),
            json!({ "inputs": [there("x", "FP32", json!([1, 2]))["inputs"][0], { "name": "more" }] }),
        ] {
            assert!(differs(&inputs, &other, "inputs").is_some(), "{other}");
        }
    }
}
