//! From a file or bytes to a [`Graph`]: decode, make shapes static, let onnxruntime fold and infer, assemble.
//! It refuses a model as soon as a step cannot be done exactly, with the file and the node or tensor named.

use super::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto, attribute_proto::AttributeType};
use super::{LoadError, convert, external, inputs};
use crate::fold;
use crate::graph::{Graph, Node, Value, ValueId};
use crate::runtime::{self, SessionError};
use crate::tensor::DType;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::ValueType;
use prost::Message;
use prost::bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Loads the model at `path`, with external weights from files beside it. `dims` sets dynamic dimensions, by the symbol's name or
/// as `input[axis]`; leading ones that it does not name become 1, with a warning.
///
/// # Errors
/// [`LoadError`], whose message begins with the path.
pub fn load(path: &Path, dims: &BTreeMap<String, usize>) -> Result<Graph, LoadError> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| LoadError::Read { file: file.clone(), source })?;
    let name = path.file_stem().map_or_else(|| file.clone(), |stem| stem.to_string_lossy().into_owned());
    let folder = path.parent().unwrap_or(Path::new("."));
    build(&file, &name, bytes.into(), Some(folder), dims)
}

/// Loads a model from bytes; `name` stands for the file in messages. See [`load`].
///
/// # Errors
/// [`LoadError`], whose message begins with `name`. Models with external weights must be loaded from their path.
pub fn from_bytes(name: &str, bytes: &[u8], dims: &BTreeMap<String, usize>) -> Result<Graph, LoadError> {
    build(name, name, Bytes::copy_from_slice(bytes), None, dims)
}

/// All the steps.
fn build(
    file: &str,
    name: &str,
    bytes: Bytes,
    folder: Option<&Path>,
    dims: &BTreeMap<String, usize>,
) -> Result<Graph, LoadError> {
    let mut model = decode(file, bytes)?;
    external::inline(file, &mut model, folder)?;
    if let Some(graph) = &mut model.graph {
        inputs::make_static(file, graph, dims)?;
        name_nodes(graph);
    }
    let mut model = optimised(file, &model)?;
    if let Some(graph) = &mut model.graph {
        name_nodes(graph);
        refuse_subgraphs(file, graph)?;
    }
    let types = types(file, &mut model)?;
    let graph = assemble(file, name, &model, &types)?;
    fold::tidy(graph).map_err(|reason| LoadError::Invalid { file: file.to_owned(), reason })
}

/// Decodes the message and checks that its main parts are there.
fn decode(file: &str, bytes: Bytes) -> Result<ModelProto, LoadError> {
    let wrong = |reason: String| LoadError::NotOnnx { file: file.to_owned(), reason };
    if bytes.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    let len = bytes.len();
    let model = ModelProto::decode(bytes).map_err(|e| wrong(format!("{e} ({len} bytes)")))?;
    let graph = model.graph.as_ref().ok_or_else(|| wrong(format!("it holds no graph ({len} bytes)")))?;
    if graph.node.is_empty() || graph.output.is_empty() {
        return Err(wrong(format!(
            "its graph has {} nodes and {} outputs",
            graph.node.len(),
            graph.output.len()
        )));
    }
    if model.ir_version.is_none() || model.opset_import.is_empty() {
        return Err(wrong("it states no format version or operator set".to_owned()));
    }
    if !graph.sparse_initializer.is_empty() {
        let (what, hint) = ("a sparse weight".to_owned(), "export it dense".to_owned());
        return Err(LoadError::Unsupported { file: file.to_owned(), what, hint });
    }
    Ok(model)
}

/// Gives every node a name of its own.
fn name_nodes(graph: &mut GraphProto) {
    let mut taken = BTreeSet::new();
    for (i, node) in graph.node.iter_mut().enumerate() {
        let mut name = node.name.clone().unwrap_or_default();
        if name.is_empty() {
            name = format!("{}_{i}", node.op_type());
        }
        while !taken.insert(name.clone()) {
            name = format!("{name}_{i}");
        }
        node.name = Some(name);
    }
}

/// Control flow that folding has not removed.
fn refuse_subgraphs(file: &str, graph: &GraphProto) -> Result<(), LoadError> {
    let inner = |n: &&NodeProto| {
        n.attribute.iter().any(|a| {
            matches!(
                AttributeType::try_from(a.r#type.unwrap_or(0)),
                Ok(AttributeType::Graph | AttributeType::Graphs)
            )
        })
    };
    match graph.node.iter().find(inner) {
        None => Ok(()),
        Some(node) => Err(LoadError::Unsupported {
            file: file.to_owned(),
            what: format!("control flow (node `{}`, operator `{}`)", node.name(), node.op_type()),
            hint: "export the model with the branch or the number of loops fixed".to_owned(),
        }),
    }
}

/// A file that is removed when it goes out of scope.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("cosched-{}-{count}.onnx", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It may not have been written at all.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The model after onnxruntime's level 1: constants folded, no-ops gone, functions inlined, batch normalisation folded.
fn optimised(file: &str, model: &ModelProto) -> Result<ModelProto, LoadError> {
    let temporary = Temporary::new();
    session(file, model, Some(&temporary.0))?;
    let read = |e: std::io::Error| LoadError::Invalid {
        file: file.to_owned(),
        reason: format!("onnxruntime's optimised copy in {} cannot be read: {e}", temporary.0.display()),
    };
    let bytes = std::fs::read(&temporary.0).map_err(read)?;
    let mut model = decode(file, bytes.into())?;
    let folder = temporary.0.parent().map(Path::to_path_buf);
    external::inline(file, &mut model, folder.as_deref())?;
    Ok(model)
}

/// A session that is never run: with `out`, to optimise the model into that file; without, to learn types.
fn session(file: &str, model: &ModelProto, out: Option<&Path>) -> Result<ort::session::Session, LoadError> {
    let level = if out.is_some() { GraphOptimizationLevel::Level1 } else { GraphOptimizationLevel::Disable };
    let tune = |builder: SessionBuilder| {
        let builder = builder.with_prepacking(false)?;
        match out {
            Some(path) => Ok(builder.with_optimized_model_path(path)?),
            None => Ok(builder),
        }
    };
    runtime::session(&model.encode_to_vec(), 1, level, tune).map_err(|error| match error {
        SessionError::Absent(source) => LoadError::Runtime { file: file.to_owned(), source },
        SessionError::Refused(reason) => explain(file, model, &reason),
    })
}

/// onnxruntime's refusal as our error: an unknown operator is found by its name in the message.
fn explain(file: &str, model: &ModelProto, message: &str) -> LoadError {
    let unknown = |node: &&NodeProto| {
        let (op, domain) = (node.op_type(), node.domain());
        message.contains(&format!("No Op registered for {op} "))
            || message.contains(&format!("{domain}:{op}("))
            || (message.contains(&format!("implementation for {op}("))
                && message.contains(&format!("'{}'", node.name())))
    };
    let file = file.to_owned();
    match model.graph.as_ref().and_then(|g| g.node.iter().find(unknown)) {
        Some(node) => LoadError::UnknownOp {
            file,
            node: node.name().to_owned(),
            op: node.op_type().to_owned(),
            domain: if node.domain().is_empty() { "ai.onnx".to_owned() } else { node.domain().to_owned() },
            reason: message.to_owned(),
        },
        None => LoadError::Invalid { file, reason: message.to_owned() },
    }
}

/// Type and shape of every node output, as onnxruntime infers them.
type Types = BTreeMap<String, (DType, Vec<usize>)>;

/// Asks onnxruntime by adding each node output as an untyped graph output; takes them away again.
fn types(file: &str, model: &mut ModelProto) -> Result<Types, LoadError> {
    let Some(graph) = &mut model.graph else { return Ok(Types::new()) };
    let outputs = graph.output.clone();
    let present: BTreeSet<&str> = outputs.iter().map(|o| o.name()).collect();
    let inner = graph
        .node
        .iter()
        .flat_map(|n| &n.output)
        .filter(|name| !name.is_empty() && !present.contains(name.as_str()));
    let inner = inner.map(|name| ValueInfoProto { name: Some(name.clone()), ..Default::default() });
    graph.output.extend(inner.collect::<Vec<_>>());
    let session = session(file, model, None)?;
    if let Some(graph) = &mut model.graph {
        graph.output = outputs;
    }
    session
        .outputs()
        .iter()
        .map(|o| outlet(file, o.name(), o.dtype()).map(|t| (o.name().to_owned(), t)))
        .collect()
}

/// One of onnxruntime's types as ours.
fn outlet(file: &str, name: &str, kind: &ValueType) -> Result<(DType, Vec<usize>), LoadError> {
    let refused = |what: String| LoadError::Unsupported {
        file: file.to_owned(),
        what,
        hint: "cosched carries dense tensors of f32, f16, f64, i64, i32, u8, i8 and bool".to_owned(),
    };
    let ValueType::Tensor { ty, shape, .. } = kind else {
        return Err(refused(format!("tensor `{name}`, a sequence, map or optional,")));
    };
    let unknown = || refused(format!("element type {ty} of tensor `{name}`"));
    let dtype = crate::runtime::dtype(*ty).ok_or_else(unknown)?;
    if shape.iter().any(|&d| d < -1) {
        let reason = format!(
            "tensor `{name}` would have the shape {:?}: some window before it is wider than its padded input",
            &shape[..]
        );
        return Err(LoadError::Invalid { file: file.to_owned(), reason });
    }
    let extents: Option<Vec<usize>> = shape.iter().map(|&d| usize::try_from(d).ok()).collect();
    extents.map(|shape| (dtype, shape)).ok_or_else(|| LoadError::Dynamic {
        file: file.to_owned(),
        value: name.to_owned(),
        shape: format!("{:?}", &shape[..]),
        hint: "shapes that depend on the data (NonZero, NonMaxSuppression, ...) cannot be planned; cut that part off".to_owned(),
    })
}

/// Builds the graph from the folded model.
fn assemble(file: &str, name: &str, model: &ModelProto, types: &Types) -> Result<Graph, LoadError> {
    let invalid = |reason: String| LoadError::Invalid { file: file.to_owned(), reason };
    let Some(body) = &model.graph else { return Err(invalid("no graph".to_owned())) };
    let mut graph = Graph { name: name.to_owned(), ..Default::default() };
    for set in &model.opset_import {
        match set.domain() {
            "" | "ai.onnx" => graph.opset = set.version(),
            other => drop(graph.other_opsets.insert(other.to_owned(), set.version())),
        }
    }
    let mut ids: BTreeMap<&str, ValueId> = BTreeMap::new();
    for weight in &body.initializer {
        let tensor =
            convert::tensor(weight).map_err(|e| invalid(format!("weight `{}`: {e}", weight.name())))?;
        let id = push(&mut graph, weight.name(), tensor.dtype(), tensor.shape.clone());
        graph.constants.insert(id, Arc::new(tensor));
        ids.insert(weight.name(), id);
    }
    for input in &body.input {
        if ids.contains_key(input.name()) {
            continue; // A weight that is listed among the inputs.
        }
        let (dtype, shape) =
            input_type(input).ok_or_else(|| invalid(format!("input `{}` has no type", input.name())))?;
        let id = push(&mut graph, input.name(), dtype, shape);
        graph.inputs.push(id);
        ids.insert(input.name(), id);
    }
    for output in body.node.iter().flat_map(|n| &n.output).filter(|o| !o.is_empty()) {
        let (dtype, shape) =
            types.get(output).ok_or_else(|| invalid(format!("tensor `{output}` has no type")))?;
        ids.insert(output, push(&mut graph, output, *dtype, shape.clone()));
    }
    let find = |name: &String| match name.as_str() {
        "" => Ok(None),
        name => ids
            .get(name)
            .copied()
            .map(Some)
            .ok_or_else(|| invalid(format!("nothing produces tensor `{name}`"))),
    };
    for message in &body.node {
        let mut node = Node {
            name: message.name().to_owned(),
            op: message.op_type().to_owned(),
            domain: if message.domain() == "ai.onnx" { String::new() } else { message.domain().to_owned() },
            inputs: message.input.iter().map(find).collect::<Result<_, _>>()?,
            outputs: message.output.iter().map(find).collect::<Result<_, _>>()?,
            attrs: BTreeMap::new(),
        };
        for attr in &message.attribute {
            let value = convert::attribute(attr).map_err(|what| LoadError::Unsupported {
                file: file.to_owned(),
                what: format!("attribute `{}` of node `{}` ({}): {what}", attr.name(), node.name, node.op),
                hint: "cosched carries numbers, strings, lists of them and dense tensors".to_owned(),
            })?;
            node.attrs.insert(attr.name().to_owned(), value);
        }
        graph.nodes.push(node);
    }
    for output in &body.output {
        let id = ids
            .get(output.name())
            .ok_or_else(|| invalid(format!("nothing produces output `{}`", output.name())))?;
        graph.outputs.push(*id);
    }
    Ok(graph)
}

/// Adds a value.
fn push(graph: &mut Graph, name: &str, dtype: DType, shape: Vec<usize>) -> ValueId {
    graph.values.push(Value { name: name.to_owned(), dtype, shape });
    ValueId(graph.values.len() as u32 - 1)
}

/// Type and shape of a graph input; `make_static` has seen to the shape.
fn input_type(input: &ValueInfoProto) -> Option<(DType, Vec<usize>)> {
    use super::proto::{tensor_shape_proto::dimension::Value as Dim, type_proto};
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_ref()?.value.as_ref() else {
        return None;
    };
    let extent = |dim: Option<&Dim>| match dim {
        Some(Dim::DimValue(extent)) => usize::try_from(*extent).ok(),
        _ => None,
    };
    let shape = tensor.shape.as_ref()?.dim.iter().map(|d| extent(d.value.as_ref())).collect::<Option<_>>()?;
    Some((convert::dtype(tensor.elem_type?).ok()?, shape))
}
