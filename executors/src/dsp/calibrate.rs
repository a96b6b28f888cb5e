//! Finds the ranges of a segment's inner tensors by running its f32 form in onnxruntime on the user's samples (min-max).
//! It refuses to work without samples: an invented range would give silently wrong numbers.

use crate::graph::{Graph, ValueId};
use crate::tensor::Tensor;
use ort::session::SessionInputValue;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use std::collections::{BTreeMap, BTreeSet};

/// Least and greatest number of each value of `needed` over all `samples` (each in the order of `graph.inputs`, checked by the caller).
///
/// # Errors
/// What onnxruntime said, or the name of a value that is not f32.
pub fn ranges(
    graph: &Graph,
    needed: &BTreeSet<ValueId>,
    samples: &[Vec<Tensor>],
) -> Result<BTreeMap<ValueId, (f32, f32)>, String> {
    let mut ranges = BTreeMap::new();
    let mut see = |id: ValueId, data: &[f32]| {
        let (min, max) = ranges.entry(id).or_insert((f32::INFINITY, f32::NEG_INFINITY));
        for x in data {
            // `min` and `max` of f32 skip NaN, which must not be missed.
            (*min, *max) =
                if x.is_nan() { (f32::NAN, f32::NAN) } else { (lesser(*min, *x), greater(*max, *x)) };
        }
    };
    for sample in samples {
        for (id, tensor) in graph.inputs.iter().zip(sample).filter(|(id, _)| needed.contains(id)) {
            see(*id, tensor.as_f32().ok_or(format!("`{}` is not f32", graph.value(*id).name))?);
        }
    }
    let outputs: Vec<ValueId> = needed.iter().copied().filter(|id| !graph.inputs.contains(id)).collect();
    if outputs.is_empty() {
        return Ok(ranges);
    }
    let open = Graph { outputs: outputs.clone(), ..graph.clone() };
    let onnx = crate::onnx::to_onnx(&open);
    let said = |e: ort::Error| e.to_string();
    let session = crate::runtime::session(&onnx, 1, GraphOptimizationLevel::All, Ok);
    let mut session = session.map_err(|e| e.to_string())?;
    for sample in samples {
        let mut inputs: Vec<SessionInputValue<'_>> = Vec::with_capacity(sample.len());
        for tensor in sample {
            let data = tensor.as_f32().ok_or("a sample is not f32")?;
            inputs.push(TensorRef::from_array_view((tensor.shape.as_slice(), data)).map_err(said)?.into());
        }
        let results = session.run(inputs.as_slice()).map_err(said)?;
        for (i, id) in outputs.iter().enumerate() {
            let (_, data) = results[i].try_extract_tensor::<f32>().map_err(said)?;
            see(*id, data);
        }
    }
    Ok(ranges)
}

fn lesser(a: f32, x: f32) -> f32 {
    if a.is_nan() { a } else { a.min(x) }
}

fn greater(a: f32, x: f32) -> f32 {
    if a.is_nan() { a } else { a.max(x) }
}
