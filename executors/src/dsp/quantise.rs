//! Rewrites an f32 segment into QDQ form, which onnxruntime fuses into int8 kernels: u8 activations, s8 weights per output channel, i32
//! bias. Operators of [`Kind::Float`], and those that [`super::ops`] refuses, stay f32 between a dequantise and a quantise. It takes ranges
//! from [`super::calibrate`] and never guesses one.

use super::numbers::{QParams, quantise_weights};
use super::ops::{Kind, clip_range, find, kind, supports};
use crate::graph::{Attr, Graph, Node, Value, ValueId};
use crate::tensor::{DType, Data, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is done with each node and value of a segment.
pub struct Plan {
    kinds: Vec<Kind>,
    int8: Vec<bool>,
    /// Clamps that the requantisation of their producer does for nothing, and the output that the producer takes over.
    dropped: BTreeMap<usize, usize>,
    quantised: BTreeSet<ValueId>,
    /// The value whose scale a quantised value has, where that is another.
    root: BTreeMap<ValueId, ValueId>,
}

impl Plan {
    /// Plans a graph. What the DSP does not run stays f32.
    pub fn new(graph: &Graph) -> Self {
        let treated =
            |n: &Node| find(n).filter(|_| supports(graph, n).is_ok()).map(|row| kind(graph, n, row));
        let kinds = graph.nodes.iter().map(|n| treated(n).unwrap_or(Kind::Float)).collect();
        let mut uses: BTreeMap<ValueId, usize> = BTreeMap::new();
        let read = graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten());
        read.chain(&graph.outputs).for_each(|id| *uses.entry(*id).or_default() += 1);
        let mut plan = Self {
            kinds,
            int8: Vec::new(),
            dropped: BTreeMap::new(),
            quantised: BTreeSet::new(),
            root: BTreeMap::new(),
        };
        let mut producer: BTreeMap<ValueId, usize> = BTreeMap::new();
        for (i, node) in graph.nodes.iter().enumerate() {
            let first = node.inputs.first().copied().flatten();
            let maker = first.and_then(|id| producer.get(&id).copied());
            let int8 = match plan.kinds[i] {
                Kind::Weighted | Kind::Quantised => true,
                Kind::Float => false,
                Kind::SameScale | Kind::Clamp => maker.is_none_or(|m| plan.int8[m]),
            };
            plan.int8.push(int8);
            producer.extend(node.outputs.iter().flatten().map(|id| (*id, i)));
            if let (Kind::Clamp, true, Some(maker), Some(id)) = (plan.kinds[i], int8, maker, first)
                && matches!(plan.kinds[maker], Kind::Weighted | Kind::Quantised)
                && uses.get(&id) == Some(&1)
                && clip_range(graph, node).is_some_and(|(lo, hi)| lo <= 0.0 && hi >= 0.0)
            {
                plan.dropped.insert(i, maker);
            }
            if let (Kind::SameScale, Some(id)) = (plan.kinds[i], first) {
                let root = plan.root.get(&id).copied().unwrap_or(id);
                plan.root.extend(node.outputs.iter().flatten().map(|out| (*out, root)));
            }
        }
        plan.choose_quantised(graph);
        plan
    }

    fn choose_quantised(&mut self, graph: &Graph) {
        for (i, node) in graph.nodes.iter().enumerate().filter(|(i, _)| self.int8[*i]) {
            let inputs = node.inputs.iter().filter(|_| !self.dropped.contains_key(&i));
            for id in inputs.chain(&node.outputs).flatten() {
                if graph.constant(*id).is_none() && graph.value(*id).dtype == DType::F32 {
                    self.quantised.insert(*id);
                }
            }
        }
        for i in self.dropped.keys() {
            // Its maker now gives the clamped value itself.
            if let Some(id) = graph.nodes[*i].inputs.first().copied().flatten() {
                self.quantised.remove(&id);
            }
        }
        let int8: BTreeSet<ValueId> = self.quantised.clone();
        self.root.retain(|id, _| int8.contains(id));
    }

    /// How node `i` is treated.
    pub fn kind(&self, i: usize) -> Kind {
        self.kinds[i]
    }

    /// Whether node `i` computes in int8, or moves int8 numbers.
    pub fn is_int8(&self, i: usize) -> bool {
        self.int8[i]
    }

    /// How many nodes compute in int8, or move int8 numbers.
    pub fn int8_nodes(&self) -> usize {
        self.int8.iter().filter(|int8| **int8).count()
    }

    /// The values whose range must be known.
    pub fn needed(&self) -> BTreeSet<ValueId> {
        self.quantised.iter().map(|id| self.scale_of(*id)).collect()
    }

    fn scale_of(&self, id: ValueId) -> ValueId {
        self.root.get(&id).copied().unwrap_or(id)
    }
}

/// Rewrites `graph` after `plan`. `ranges` holds least and greatest number of each value of [`Plan::needed`]; `limit` is the largest
/// weight magnitude, see [`super::numbers::weight_limit`].
///
/// # Errors
/// The name of a value without a range, or with one that is not finite.
pub fn rewrite(
    graph: &Graph,
    plan: &Plan,
    ranges: &BTreeMap<ValueId, (f32, f32)>,
    limit: f32,
) -> Result<Graph, String> {
    let mut params = BTreeMap::new();
    for id in plan.needed() {
        let name = &graph.value(id).name;
        let (min, max) = *ranges.get(&id).ok_or(format!("no range for `{name}`"))?;
        if !(min.is_finite() && max.is_finite()) {
            return Err(format!(
                "calibration found {min}..{max} in `{name}`: the samples or the weights are not finite"
            ));
        }
        params.insert(id, QParams::covering(min, max));
    }
    // Before opset 13 only onnxruntime's own operators have scales per channel.
    let domain = if graph.opset >= 13 { "" } else { "com.microsoft" };
    let mut out = Graph { nodes: Vec::new(), ..graph.clone() };
    if !domain.is_empty() {
        out.other_opsets.entry(domain.into()).or_insert(1);
    }
    let mut writer = Writer { graph, plan, params, limit, domain, out, bytes: BTreeMap::new() };
    for id in graph.inputs.iter().filter(|id| plan.quantised.contains(id)) {
        writer.quantise(*id, *id);
    }
    for (i, node) in graph.nodes.iter().enumerate().filter(|(i, _)| !plan.dropped.contains_key(i)) {
        writer.node(i, node)?;
    }
    Ok(writer.out)
}

struct Writer<'g> {
    graph: &'g Graph,
    plan: &'g Plan,
    params: BTreeMap<ValueId, QParams>,
    limit: f32,
    domain: &'static str,
    out: Graph,
    /// The u8 twin of each quantised value.
    bytes: BTreeMap<ValueId, ValueId>,
}

impl Writer<'_> {
    fn value(&mut self, like: &str, dtype: DType, shape: &[usize]) -> ValueId {
        let id = ValueId(self.out.values.len() as u32);
        self.out.values.push(Value { name: format!("{like}/dsp{}", id.0), dtype, shape: shape.to_vec() });
        id
    }

    fn constant(&mut self, like: &str, shape: &[usize], data: Data) -> ValueId {
        let tensor = Tensor { shape: shape.to_vec(), data };
        let id = self.value(like, tensor.dtype(), shape);
        self.out.constants.insert(id, Arc::new(tensor));
        id
    }

    fn push(&mut self, op: &str, inputs: &[ValueId], output: ValueId, axis: Option<usize>) {
        let node = Node {
            name: format!("{}/{op}", self.out.values[output.0 as usize].name),
            op: op.into(),
            domain: self.domain.into(),
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: vec![Some(output)],
            attrs: axis.map(|a| ("axis".to_owned(), Attr::Int(a as i64))).into_iter().collect(),
        };
        self.out.nodes.push(node);
    }

    fn params_of(&self, id: ValueId) -> QParams {
        self.params[&self.plan.scale_of(id)]
    }

    fn scale_and_zero(&mut self, like: &str, q: QParams) -> [ValueId; 2] {
        [self.constant(like, &[], Data::F32(vec![q.scale])), self.constant(like, &[], Data::U8(vec![q.zero]))]
    }

    /// Quantises `from`, the f32 contents of `id`.
    fn quantise(&mut self, from: ValueId, id: ValueId) {
        let Value { name, shape, .. } = self.graph.value(id).clone();
        let [scale, zero] = self.scale_and_zero(&name, self.params_of(id));
        let bytes = self.value(&name, DType::U8, &shape);
        self.push("QuantizeLinear", &[from, scale, zero], bytes, None);
        self.bytes.insert(id, bytes);
    }

    /// Dequantises `bytes` into `to`, or into a new value: each reader has its own, so that onnxruntime can fuse each.
    fn dequantise(&mut self, bytes: ValueId, q: QParams, to: Option<ValueId>) -> ValueId {
        let Value { name, shape, .. } = self.out.values[bytes.0 as usize].clone();
        let [scale, zero] = self.scale_and_zero(&name, q);
        let to = to.unwrap_or_else(|| self.value(&name, DType::F32, &shape));
        self.push("DequantizeLinear", &[bytes, scale, zero], to, None);
        to
    }

    fn node(&mut self, i: usize, node: &Node) -> Result<(), String> {
        let mut new = node.clone();
        let int8 = self.plan.int8[i];
        for (at, input) in node.inputs.iter().enumerate() {
            let Some(id) = *input else { continue };
            new.inputs[at] = Some(if let Some(bytes) = self.bytes.get(&id).copied() {
                // An f32 operator reads the f32 original where there is one.
                if int8 || self.written_as_int8(id) {
                    self.dequantise(bytes, self.params_of(id), None)
                } else {
                    id
                }
            } else if self.plan.kinds[i] == Kind::Quantised && self.graph.constant(id).is_some() {
                self.constant_operand(id)?
            } else {
                id
            });
        }
        if self.plan.kinds[i] == Kind::Weighted {
            self.weights(node, &mut new)?;
        }
        // A dropped clamp's maker writes the clamped value.
        let clamp = self.plan.dropped.iter().find(|(_, maker)| **maker == i).map(|(clamp, _)| *clamp);
        let outputs = clamp.map_or(&node.outputs, |c| &self.graph.nodes[c].outputs);
        let mut after = Vec::new();
        for (at, output) in outputs.iter().enumerate() {
            let Some(id) = *output else { continue };
            let mut raw = id;
            if self.plan.quantised.contains(&id) {
                if int8 {
                    let Value { name, shape, .. } = self.graph.value(id).clone();
                    raw = self.value(&name, DType::F32, &shape);
                }
                after.push((raw, id));
            }
            new.outputs[at] = Some(raw);
        }
        self.out.nodes.push(new);
        for (raw, id) in after {
            self.quantise(raw, id);
            if int8 && self.graph.outputs.contains(&id) {
                self.dequantise(self.bytes[&id], self.params_of(id), Some(id));
            }
        }
        Ok(())
    }

    /// Whether the f32 form of a quantised value is gone: its maker is an int8 operator.
    fn written_as_int8(&self, id: ValueId) -> bool {
        let made_here = |(_, n): &(usize, &Node)| n.outputs.contains(&Some(id));
        self.graph.nodes.iter().enumerate().find(made_here).is_some_and(|(i, _)| self.plan.int8[i])
    }

    /// A constant operand (of Add, Mul, Concat) as u8 with its own range.
    fn constant_operand(&mut self, id: ValueId) -> Result<ValueId, String> {
        let Value { name, shape, .. } = self.graph.value(id).clone();
        let Some(x) = self.graph.constant(id).and_then(|t| t.as_f32().map(<[f32]>::to_vec)) else {
            return Ok(id);
        };
        let (min, max) = x.iter().fold((0f32, 0f32), |(a, b), x| (a.min(*x), b.max(*x)));
        if x.iter().any(|x| !x.is_finite()) {
            return Err(format!("the constant `{name}` is not finite"));
        }
        let q = QParams::covering(min, max);
        let data = x.iter().map(|x| q.quantise(*x)).collect();
        let bytes = self.constant(&name, &shape, Data::U8(data));
        Ok(self.dequantise(bytes, q, None))
    }

    /// Replaces weights and bias of a [`Kind::Weighted`] node by dequantised int8 constants.
    fn weights(&mut self, node: &Node, new: &mut Node) -> Result<(), String> {
        let graph = self.graph;
        let wrong = |what: &str| format!("node `{}` ({}): {what}", node.name, node.op);
        let (w_id, w_value) = graph.input(node, 1).ok_or_else(|| wrong("no weights"))?;
        let w = graph
            .constant(w_id)
            .and_then(|t| t.as_f32())
            .ok_or_else(|| wrong("weights are not constant f32"))?;
        let axis = match node.op.as_str() {
            "Conv" => Some(0),
            "ConvTranspose" => Some(1),
            "Gemm" => Some(usize::from(node.int("transB", 0) == 0)),
            _ => (w_value.shape.len() == 2).then_some(1),
        };
        let (alpha, beta) = match node.op.as_str() {
            "Gemm" => (node.float("alpha", 1.0), node.float("beta", 1.0)),
            _ => (1.0, 1.0),
        };
        let channels = axis.map_or(1, |a| w_value.shape[a]);
        let bias = match graph.input(node, 2) {
            None => None,
            Some((id, _)) => {
                let b = graph
                    .constant(id)
                    .and_then(|t| t.as_f32())
                    .ok_or_else(|| wrong("bias is not constant f32"))?;
                Some((0..channels).map(|c| beta * b[if b.len() == 1 { 0 } else { c }]).collect::<Vec<f32>>())
            }
        };
        let w: Vec<f32> = w.iter().map(|x| alpha * x).collect();
        if w.iter().chain(bias.iter().flatten()).any(|x| !x.is_finite()) {
            return Err(wrong("its weights or its bias are not finite"));
        }
        if node.op == "Gemm" {
            new.attrs.remove("alpha");
            new.attrs.remove("beta");
        }
        let (x_id, _) = graph.input(node, 0).ok_or_else(|| wrong("no input"))?;
        let input_scale = self.params_of(x_id).scale;
        let q = quantise_weights(&w, &w_value.shape, axis, bias.as_deref(), input_scale, self.limit);

        let shape = if axis.is_some() { vec![channels] } else { Vec::new() };
        let name = &w_value.name;
        let data = self.constant(name, &w_value.shape, Data::I8(q.data));
        let scale = self.constant(name, &shape, Data::F32(q.scales.clone()));
        let zero = self.constant(name, &shape, Data::I8(vec![0; channels]));
        let real = self.value(name, DType::F32, &w_value.shape);
        self.push("DequantizeLinear", &[data, scale, zero], real, axis);
        new.inputs[1] = Some(real);
        if let Some(bias) = q.bias {
            let name = format!("{name}/bias");
            let scales = q.scales.iter().map(|s| s * input_scale).collect();
            let data = self.constant(&name, &[channels], Data::I32(bias));
            let scale = self.constant(&name, &[channels], Data::F32(scales));
            let zero = self.constant(&name, &[channels], Data::I32(vec![0; channels]));
            let real = self.value(&name, DType::F32, &[channels]);
            self.push("DequantizeLinear", &[data, scale, zero], real, Some(0));
            new.inputs[2] = Some(real);
        }
        Ok(())
    }
}
