//! Writes a [`Graph`] as ONNX bytes, for onnxruntime and for files. It refuses nothing: what a graph can hold, ONNX can.

use super::convert;
use super::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
use crate::graph::{Graph, Node, ValueId};
use prost::Message;
use std::collections::BTreeSet;

/// The file format version that we write: the one of opset 17's time, which every onnxruntime that we accept reads.
pub(super) const IR_VERSION: i64 = 8;

/// The graph as ONNX bytes. Only constants that some node reads, or that are outputs, are written.
pub fn to_onnx(graph: &Graph) -> Vec<u8> {
    message(graph).encode_to_vec()
}

/// The graph as an ONNX message.
pub(crate) fn message(graph: &Graph) -> ModelProto {
    let name = |id: ValueId| graph.value(id).name.clone();
    let node = |node: &Node| NodeProto {
        name: Some(node.name.clone()),
        op_type: Some(node.op.clone()),
        domain: Some(node.domain.clone()),
        input: node.inputs.iter().map(|v| v.map(name).unwrap_or_default()).collect(),
        output: node.outputs.iter().map(|v| v.map(name).unwrap_or_default()).collect(),
        attribute: node.attrs.iter().map(|(key, attr)| convert::attribute_message(key, attr)).collect(),
        ..Default::default()
    };
    let mut read: BTreeSet<ValueId> = graph.outputs.iter().copied().collect();
    read.extend(graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten()));
    let constants = graph.constants.iter().filter(|(id, _)| read.contains(id));
    let opset = |domain: &str, version: i64| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    let mut opsets = vec![opset("", graph.opset)];
    opsets.extend(graph.other_opsets.iter().map(|(domain, &version)| opset(domain, version)));
    let body = GraphProto {
        name: Some(graph.name.clone()),
        node: graph.nodes.iter().map(node).collect(),
        initializer: constants.map(|(&id, t)| convert::tensor_message(&graph.value(id).name, t)).collect(),
        input: graph.inputs.iter().map(|&id| convert::value_message(graph.value(id))).collect(),
        output: graph.outputs.iter().map(|&id| convert::value_message(graph.value(id))).collect(),
        ..Default::default()
    };
    ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("cosched".to_owned()),
        opset_import: opsets,
        graph: Some(body),
        ..Default::default()
    }
}
