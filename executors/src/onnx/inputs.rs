//! Makes the shapes of a model's inputs static before onnxruntime sees them. It refuses to guess anything but a leading batch of 1.

use super::LoadError;
use super::convert;
use super::proto::tensor_shape_proto::dimension::Value as Dim;
use super::proto::{GraphProto, ValueInfoProto, type_proto};
use std::collections::{BTreeMap, BTreeSet};

/// Sets every symbolic dimension: from `dims` (by the symbol's name, or `input[axis]`), else 1 where it is a leading one.
/// Drops shapes that the file states for inner tensors and outputs: they may hold the old symbols, and onnxruntime infers them anew.
pub(super) fn make_static(
    file: &str,
    graph: &mut GraphProto,
    dims: &BTreeMap<String, usize>,
) -> Result<(), LoadError> {
    let weights: BTreeSet<String> = graph.initializer.iter().map(|t| t.name().to_owned()).collect();
    // Files of the first format list weights among the inputs; as inputs they could be overridden, so they would not be folded.
    graph.input.retain(|input| !weights.contains(input.name()));
    let mut used = BTreeSet::new();
    let leading = leading_symbols(graph);
    for input in &mut graph.input {
        fix(file, input, dims, &leading, &mut used)?;
    }
    if let Some(unknown) = dims.keys().find(|key| !used.contains(*key)) {
        let reason = format!(
            "no input has a dynamic dimension called `{unknown}`; there are: {}",
            listed(graph, &used)
        );
        return Err(LoadError::Invalid { file: file.to_owned(), reason });
    }
    graph.value_info.clear();
    for output in &mut graph.output {
        if let Some(type_proto::Value::TensorType(tensor)) =
            output.r#type.as_mut().and_then(|t| t.value.as_mut())
        {
            tensor.shape = None;
        }
    }
    Ok(())
}

/// What could have been named.
fn listed(graph: &GraphProto, used: &BTreeSet<String>) -> String {
    let names: Vec<String> = graph.input.iter().map(|i| format!("input `{}`", i.name())).collect();
    format!("{} (dimensions set: {used:?})", names.join(", "))
}

/// Symbols that stand first in some input: the batch.
fn leading_symbols(graph: &GraphProto) -> BTreeSet<String> {
    let first = |input: &ValueInfoProto| match input.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => match tensor.shape.as_ref()?.dim.first()?.value.as_ref()? {
            Dim::DimParam(symbol) if !symbol.is_empty() => Some(symbol.clone()),
            _ => None,
        },
        _ => None,
    };
    graph.input.iter().filter_map(first).collect()
}

/// Sets the dimensions of one input.
fn fix(
    file: &str,
    input: &mut ValueInfoProto,
    dims: &BTreeMap<String, usize>,
    leading: &BTreeSet<String>,
    used: &mut BTreeSet<String>,
) -> Result<(), LoadError> {
    let name = input.name().to_owned();
    let refused = |what: String, hint: &str| LoadError::Unsupported {
        file: file.to_owned(),
        what,
        hint: hint.to_owned(),
    };
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_mut().and_then(|t| t.value.as_mut())
    else {
        return Err(refused(
            format!("input `{name}`"),
            "only dense tensors are, not sequences, maps or optionals",
        ));
    };
    if let Err(kind) = convert::dtype(tensor.elem_type.unwrap_or(0)) {
        return Err(refused(
            format!("{kind} of input `{name}`"),
            "use f32, f16, f64, i64, i32, u8, i8 or bool",
        ));
    }
    let Some(shape) = tensor.shape.as_mut() else {
        let hint = "export the model with the rank of its inputs".to_owned();
        return Err(LoadError::Dynamic {
            file: file.to_owned(),
            value: name,
            shape: "unknown rank".to_owned(),
            hint,
        });
    };
    let shown: Vec<String> = shape.dim.iter().map(|d| show(d.value.as_ref())).collect();
    for (axis, dim) in shape.dim.iter_mut().enumerate() {
        let symbol = match &dim.value {
            Some(Dim::DimValue(extent)) if *extent > 0 => continue,
            Some(Dim::DimParam(symbol)) if !symbol.is_empty() => Some(symbol.clone()),
            _ => None,
        };
        let place = format!("{name}[{axis}]");
        let key = symbol.clone().filter(|s| dims.contains_key(s)).unwrap_or_else(|| place.clone());
        let extent = match dims.get(&key) {
            Some(0) => {
                return Err(LoadError::Invalid {
                    file: file.to_owned(),
                    reason: format!("dimension `{key}` is set to 0"),
                });
            }
            Some(&extent) => {
                used.insert(key);
                extent
            }
            None if axis == 0 || symbol.as_ref().is_some_and(|s| leading.contains(s)) => {
                tracing::warn!(
                    "{file}: dimension {axis} of input `{name}` ({}) is dynamic: set to 1",
                    shown[axis]
                );
                1
            }
            None => {
                let key = symbol.unwrap_or(place);
                let hint = format!("only a leading batch may be dynamic; give dimension `{key}` a number");
                let shape = format!("[{}]", shown.join(", "));
                return Err(LoadError::Dynamic { file: file.to_owned(), value: name, shape, hint });
            }
        };
        dim.value = Some(Dim::DimValue(extent as i64));
    }
    Ok(())
}

/// A dimension for messages.
fn show(dim: Option<&Dim>) -> String {
    match dim {
        Some(Dim::DimValue(extent)) => extent.to_string(),
        Some(Dim::DimParam(symbol)) if !symbol.is_empty() => symbol.clone(),
        _ => "?".to_owned(),
    }
}
