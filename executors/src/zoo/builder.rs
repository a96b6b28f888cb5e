//! Writes a network layer by layer as an ONNX message. It refuses to know shapes beyond channel counts: onnxruntime infers them at load.

use crate::graph::{Attr, Value};
use crate::onnx::convert;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto};
use crate::tensor::{DType, Data, Tensor};
use prost::Message;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Normal};
use rand_pcg::Pcg64;

/// Name of a tensor in the file.
pub(super) type Name = String;

/// Geometry of a convolution.
#[derive(Clone, Copy)]
pub(super) struct Conv {
    pub cin: usize,
    pub cout: usize,
    pub kernel: [usize; 2],
    pub stride: usize,
    /// Rows and columns of zeros on each side.
    pub pad: [usize; 2],
    pub groups: usize,
    pub bias: bool,
}

impl Conv {
    /// A square kernel with "same" padding, no bias (a batch normalisation follows).
    pub(super) fn square(cin: usize, cout: usize, kernel: usize, stride: usize) -> Self {
        let pad = kernel / 2;
        Self { cin, cout, kernel: [kernel; 2], stride, pad: [pad; 2], groups: 1, bias: false }
    }

    /// One filter a channel, 3x3.
    pub(super) fn depthwise(channels: usize, stride: usize) -> Self {
        Self::filters(channels, 3, stride)
    }

    /// One filter a channel.
    pub(super) fn filters(channels: usize, kernel: usize, stride: usize) -> Self {
        Self { groups: channels, ..Self::square(channels, channels, kernel, stride) }
    }
}

/// A network in the making.
pub(super) struct Net {
    graph: GraphProto,
    rng: Pcg64,
    /// The newest tensor: where the next layer of a chain goes on.
    pub(super) at: Name,
}

impl Net {
    pub(super) fn new(name: &str, seed: u64, input: &[usize]) -> Self {
        let value = Value { name: "input".to_owned(), dtype: DType::F32, shape: input.to_vec() };
        let graph = GraphProto {
            name: Some(name.to_owned()),
            input: vec![convert::value_message(&value)],
            ..Default::default()
        };
        // The name goes into the seed, so that two variants of one seed have unlike weights.
        let seed = name.bytes().fold(seed, |s, b| s.wrapping_mul(0x100_0000_01b3) ^ u64::from(b));
        Self { graph, rng: Pcg64::seed_from_u64(seed), at: "input".to_owned() }
    }

    /// The file's bytes; the newest tensor is the output.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if let Some(node) = self.graph.node.last_mut() {
            node.output = vec!["output".to_owned()];
        }
        self.graph.output = vec![ValueInfoProto {
            name: Some("output".to_owned()),
            r#type: self.graph.input[0].r#type.clone().map(|mut t| {
                use crate::onnx::proto::type_proto::Value::TensorType;
                if let Some(TensorType(tensor)) = &mut t.value {
                    tensor.shape = None;
                }
                t
            }),
            ..Default::default()
        }];
        let model = ModelProto {
            ir_version: Some(8),
            producer_name: Some("cosched zoo".to_owned()),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
            graph: Some(self.graph),
            ..Default::default()
        };
        model.encode_to_vec()
    }

    /// Adds a node with one output.
    pub(super) fn op(&mut self, op: &str, inputs: &[&Name], attrs: &[(&str, Attr)]) -> Name {
        self.ops(op, inputs, attrs, 1).remove(0)
    }

    /// Adds a node with `outputs` outputs; the first becomes the newest tensor.
    pub(super) fn ops(
        &mut self,
        op: &str,
        inputs: &[&Name],
        attrs: &[(&str, Attr)],
        outputs: usize,
    ) -> Vec<Name> {
        let name = format!("{op}_{}", self.graph.node.len());
        let outputs: Vec<Name> = (0..outputs).map(|i| format!("{name}_{i}")).collect();
        self.graph.node.push(NodeProto {
            op_type: Some(op.to_owned()),
            input: inputs.iter().map(|n| n.to_string()).collect(),
            output: outputs.clone(),
            attribute: attrs.iter().map(|(key, attr)| convert::attribute_message(key, attr)).collect(),
            name: Some(name),
            ..Default::default()
        });
        self.at = outputs[0].clone();
        outputs
    }

    /// Adds a constant.
    pub(super) fn constant(&mut self, shape: &[usize], data: Data) -> Name {
        let name = format!("weight_{}", self.graph.initializer.len());
        let tensor = Tensor { shape: shape.to_vec(), data };
        self.graph.initializer.push(convert::tensor_message(&name, &tensor));
        name
    }

    /// A list of integers, as Reshape and Split want them.
    pub(super) fn ints(&mut self, values: &[i64]) -> Name {
        self.constant(&[values.len()], Data::I64(values.to_vec()))
    }

    /// A scalar.
    pub(super) fn scalar(&mut self, value: f32) -> Name {
        self.constant(&[], Data::F32(vec![value]))
    }

    /// Normally distributed weights.
    pub(super) fn normal(&mut self, shape: &[usize], deviation: f32) -> Name {
        let n = shape.iter().product();
        // A deviation of our own layers is finite and positive, which is all that Normal asks for.
        let data = match Normal::new(0.0, deviation) {
            Ok(normal) => normal.sample_iter(&mut self.rng).take(n).collect(),
            Err(_) => vec![0.0; n],
        };
        self.constant(shape, Data::F32(data))
    }

    /// Evenly distributed weights.
    fn uniform(&mut self, n: usize, low: f32, high: f32) -> Name {
        let data = (0..n).map(|_| self.rng.random_range(low..high)).collect();
        self.constant(&[n], Data::F32(data))
    }

    /// A convolution with He's initialisation, so that activations keep their size.
    pub(super) fn conv(&mut self, c: Conv) -> &mut Self {
        let fan_in = c.cin / c.groups * c.kernel[0] * c.kernel[1];
        let deviation = (2.0 / fan_in as f32).sqrt();
        let w = self.normal(&[c.cout, c.cin / c.groups, c.kernel[0], c.kernel[1]], deviation);
        let bias = c.bias.then(|| self.normal(&[c.cout], 0.05));
        let int = |v: usize| v as i64;
        let attrs = [
            ("dilations", Attr::Ints(vec![1, 1])),
            ("group", Attr::Int(int(c.groups))),
            ("kernel_shape", Attr::Ints(c.kernel.map(int).to_vec())),
            ("pads", Attr::Ints([c.pad, c.pad].concat().into_iter().map(int).collect())),
            ("strides", Attr::Ints(vec![int(c.stride); 2])),
        ];
        let x = self.at.clone();
        let mut inputs = vec![&x, &w];
        inputs.extend(bias.as_ref());
        self.op("Conv", &inputs, &attrs);
        self
    }

    /// A transposed convolution, 2x2, that doubles height and width.
    pub(super) fn double(&mut self, cin: usize, cout: usize) -> &mut Self {
        let w = self.normal(&[cin, cout, 2, 2], (1.0 / cin as f32).sqrt());
        let (x, bias) = (self.at.clone(), self.normal(&[cout], 0.05));
        let square = || Attr::Ints(vec![2; 2]);
        self.op("ConvTranspose", &[&x, &w, &bias], &[("kernel_shape", square()), ("strides", square())]);
        self
    }

    /// Batch normalisation with made-up statistics near the identity; `gain` scales its output (below 1 where a residual is added).
    pub(super) fn batch_norm(&mut self, channels: usize, gain: f32) -> &mut Self {
        let x = self.at.clone();
        let scale = self.uniform(channels, 0.8 * gain, 1.2 * gain);
        let bias = self.normal(&[channels], 0.1);
        let mean = self.normal(&[channels], 0.1);
        let var = self.uniform(channels, 0.8, 1.2);
        self.op("BatchNormalization", &[&x, &scale, &bias, &mean, &var], &[("epsilon", Attr::Float(1e-5))]);
        self
    }

    /// An operator of one input and no attributes.
    pub(super) fn unary(&mut self, op: &str) -> &mut Self {
        let x = self.at.clone();
        self.op(op, &[&x], &[]);
        self
    }

    /// ReLU capped at 6, as PyTorch exports it.
    pub(super) fn relu6(&mut self) -> &mut Self {
        let (x, low, high) = (self.at.clone(), self.scalar(0.0), self.scalar(6.0));
        self.op("Clip", &[&x, &low, &high], &[]);
        self
    }

    /// Max pooling, 3x3, stride 2.
    pub(super) fn max_pool(&mut self, pad: i64) -> &mut Self {
        let x = self.at.clone();
        let attrs = [
            ("kernel_shape", Attr::Ints(vec![3, 3])),
            ("pads", Attr::Ints(vec![pad; 4])),
            ("strides", Attr::Ints(vec![2, 2])),
        ];
        self.op("MaxPool", &[&x], &attrs);
        self
    }

    /// Global average pooling, flattening and a linear layer.
    pub(super) fn head(&mut self, channels: usize, classes: usize) -> &mut Self {
        self.unary("GlobalAveragePool");
        let x = self.at.clone();
        self.op("Flatten", &[&x], &[("axis", Attr::Int(1))]);
        self.gemm(channels, classes)
    }

    /// A linear layer on a matrix, as PyTorch exports it: weights `[out, in]`.
    pub(super) fn gemm(&mut self, from: usize, to: usize) -> &mut Self {
        let x = self.at.clone();
        let w = self.normal(&[to, from], (1.0 / from as f32).sqrt());
        let b = self.normal(&[to], 0.05);
        self.op("Gemm", &[&x, &w, &b], &[("transB", Attr::Int(1))]);
        self
    }

    /// A linear layer on `[batch, tokens, from]`, as PyTorch exports it: weights `[in, out]`, bias added.
    pub(super) fn linear(&mut self, from: usize, to: usize, gain: f32) -> &mut Self {
        let x = self.at.clone();
        let w = self.normal(&[from, to], gain * (1.0 / from as f32).sqrt());
        let y = self.op("MatMul", &[&x, &w], &[]);
        let b = self.normal(&[to], 0.02);
        self.op("Add", &[&b, &y], &[]);
        self
    }

    /// Layer normalisation over the last axis.
    pub(super) fn layer_norm(&mut self, width: usize) -> &mut Self {
        let x = self.at.clone();
        let scale = self.uniform(width, 0.8, 1.2);
        let bias = self.normal(&[width], 0.05);
        let attrs = [("axis", Attr::Int(-1)), ("epsilon", Attr::Float(1e-5))];
        self.op("LayerNormalization", &[&x, &scale, &bias], &attrs);
        self
    }

    /// GELU through the error function, as PyTorch exports it.
    pub(super) fn gelu(&mut self) -> &mut Self {
        let x = self.at.clone();
        let (root, one, half) = (self.scalar(std::f32::consts::SQRT_2), self.scalar(1.0), self.scalar(0.5));
        let y = self.op("Div", &[&x, &root], &[]);
        let y = self.op("Erf", &[&y], &[]);
        let y = self.op("Add", &[&y, &one], &[]);
        let y = self.op("Mul", &[&x, &y], &[]);
        self.op("Mul", &[&y, &half], &[]);
        self
    }

    /// Adds `other` to the newest tensor.
    pub(super) fn add(&mut self, other: &Name) -> &mut Self {
        let x = self.at.clone();
        self.op("Add", &[other, &x], &[]);
        self
    }

    /// `x * sigmoid(x)`, as PyTorch exports it.
    pub(super) fn silu(&mut self) -> &mut Self {
        let x = self.at.clone();
        let gate = self.op("Sigmoid", &[&x], &[]);
        self.op("Mul", &[&x, &gate], &[]);
        self
    }

    /// Squeeze and excitation: the channels are scaled by what two 1x1 convolutions, with `act` between them and `gate` behind, make of their means.
    pub(super) fn excite(
        &mut self,
        channels: usize,
        inner: usize,
        act: fn(&mut Net),
        gate: &str,
    ) -> &mut Self {
        let x = self.at.clone();
        self.unary("GlobalAveragePool").conv(Conv { bias: true, ..Conv::square(channels, inner, 1, 1) });
        act(self);
        self.conv(Conv { bias: true, ..Conv::square(inner, channels, 1, 1) }).unary(gate);
        let scale = self.at.clone();
        self.op("Mul", &[&x, &scale], &[]);
        self
    }

    /// Reshapes the newest tensor.
    pub(super) fn reshape(&mut self, shape: &[i64]) -> &mut Self {
        let x = self.at.clone();
        let shape = self.ints(shape);
        self.op("Reshape", &[&x, &shape], &[]);
        self
    }

    /// Permutes the axes of the newest tensor.
    pub(super) fn transpose(&mut self, order: &[i64]) -> &mut Self {
        let x = self.at.clone();
        self.op("Transpose", &[&x], &[("perm", Attr::Ints(order.to_vec()))]);
        self
    }
}
