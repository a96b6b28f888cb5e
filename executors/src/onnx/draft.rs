//! Writes a small ONNX file node by node, with extents that only the caller of the model will know (`n` candidates) and notes in its
//! metadata. It refuses to check what it writes: onnxruntime does when the file is opened.

use super::convert;
use super::proto::tensor_shape_proto::{Dimension, dimension};
use super::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto};
use super::proto::{TensorShapeProto, TypeProto, ValueInfoProto, type_proto};
use super::save::IR_VERSION;
use crate::graph::Attr;
use crate::tensor::{DType, Tensor};
use prost::Message;

/// The operator set that nodes are of.
const OPSET: i64 = 17;

/// How long an axis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So long.
    Fixed(usize),
    /// As long as the input is; the same name is the same length everywhere.
    Named(&'static str),
}

/// A file in the making.
pub struct Draft {
    graph: GraphProto,
    notes: Vec<StringStringEntryProto>,
}

impl Draft {
    /// An empty graph.
    pub fn new(name: &str) -> Draft {
        Draft { graph: GraphProto { name: Some(name.to_owned()), ..Default::default() }, notes: Vec::new() }
    }

    /// An f32 input.
    pub fn input(&mut self, name: &str, shape: &[Extent]) {
        self.graph.input.push(value(name, shape));
    }

    /// An f32 output, made by a node of that name.
    pub fn output(&mut self, name: &str, shape: &[Extent]) {
        self.graph.output.push(value(name, shape));
    }

    /// A constant.
    pub fn constant(&mut self, name: &str, tensor: &Tensor) {
        self.graph.initializer.push(convert::tensor_message(name, tensor));
    }

    /// A node of the standard operator set with one output, which also names it.
    pub fn node(&mut self, op: &str, inputs: &[&str], output: &str, attrs: &[(&str, Attr)]) {
        self.graph.node.push(NodeProto {
            name: Some(output.to_owned()),
            op_type: Some(op.to_owned()),
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attrs.iter().map(|(name, attr)| convert::attribute_message(name, attr)).collect(),
            ..Default::default()
        });
    }

    /// A note in the metadata of the file.
    pub fn note(&mut self, key: &str, text: String) {
        self.notes.push(StringStringEntryProto { key: Some(key.to_owned()), value: Some(text) });
    }

    /// The file.
    pub fn to_bytes(self) -> Vec<u8> {
        let model = ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some("cosched".to_owned()),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
            graph: Some(self.graph),
            metadata_props: self.notes,
            ..Default::default()
        };
        model.encode_to_vec()
    }
}

fn value(name: &str, shape: &[Extent]) -> ValueInfoProto {
    let dim = |extent: &Extent| {
        let value = match extent {
            Extent::Fixed(n) => dimension::Value::DimValue(*n as i64),
            Extent::Named(name) => dimension::Value::DimParam((*name).to_owned()),
        };
        Dimension { value: Some(value), ..Default::default() }
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(convert::onnx_type(DType::F32)), shape: Some(shape) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    }
}
