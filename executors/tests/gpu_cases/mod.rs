//! The table of operators for the GPU suites: each row makes random small graphs and states how exactly they must be met.
//! It refuses to know results and result shapes: both come from onnxruntime.
#![allow(dead_code)]

mod pools;
mod rows_a;
mod rows_b;
mod wide;

use cosched_executors::graph::{Attr, Graph, Node, Value, ValueId};
use cosched_executors::onnx;
use cosched_executors::tensor::{DType, Data, Tensor};
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;

pub type Rng = rand_pcg::Pcg64Mcg;

/// One operator (or one way to use it).
pub struct Row {
    pub name: &'static str,
    /// Largest error: `absolute + relative * |wanted|`.
    pub relative: f32,
    pub absolute: f32,
    pub make: fn(&mut Net),
}

/// All rows.
pub fn rows() -> Vec<Row> {
    [rows_a::rows(), pools::rows(), rows_b::rows(), wide::rows()].into_iter().flatten().collect()
}

/// A random graph in the making, with its inputs.
pub struct Net {
    pub rng: Rng,
    pub graph: Graph,
    pub inputs: Vec<Tensor>,
}

/// A finished case.
pub struct Case {
    pub graph: Graph,
    pub inputs: Vec<Tensor>,
}

impl Row {
    /// Case number `seed` of this row; the same each time.
    pub fn case(&self, seed: u64) -> Case {
        let own = self.name.bytes().fold(seed, |h, b| h.wrapping_mul(1_000_003).wrapping_add(b.into()));
        let mut net = Net { rng: Rng::seed_from_u64(own), graph: Graph::default(), inputs: Vec::new() };
        net.graph.name = format!("{} {seed}", self.name);
        net.graph.opset = [13, 17, 20][net.below(3)];
        (self.make)(&mut net);
        net.finish()
    }

    /// Where `got` is farther from `want` than this row allows; NaN must meet NaN, infinity the same infinity.
    pub fn differs(&self, got: &[Tensor], want: &[Tensor]) -> Option<String> {
        if got.len() != want.len() {
            return Some(format!("{} outputs, wanted {}", got.len(), want.len()));
        }
        for (o, (g, w)) in got.iter().zip(want).enumerate() {
            if g.shape != w.shape || g.dtype() != w.dtype() {
                return Some(format!("output {o}: shape {:?}, wanted {:?}", g.shape, w.shape));
            }
            let (g, w) = (g.as_f32().unwrap(), w.as_f32().unwrap());
            for (i, (g, w)) in g.iter().zip(w).enumerate() {
                let same = g == w || (g.is_nan() && w.is_nan());
                let near = w.is_finite() && (g - w).abs() <= self.absolute + self.relative * w.abs();
                if !(same || near) {
                    return Some(format!("output {o} element {i}: {g}, wanted {w}"));
                }
            }
        }
        None
    }
}

impl Net {
    pub fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        self.rng.random_range(low..=high)
    }
    pub fn coin(&mut self) -> bool {
        self.rng.random_bool(0.5)
    }
    pub fn floats(&mut self, n: usize, low: f32, high: f32) -> Vec<f32> {
        (0..n).map(|_| self.rng.random_range(low..high)).collect()
    }
    pub fn shape(&mut self, rank: usize, most: usize) -> Vec<usize> {
        (0..rank).map(|_| self.between(1, most)).collect()
    }

    pub fn value(&mut self, dtype: DType, shape: &[usize]) -> ValueId {
        let id = ValueId(self.graph.values.len() as u32);
        self.graph.values.push(Value { name: format!("v{}", id.0), dtype, shape: shape.to_vec() });
        id
    }
    pub fn input_of(&mut self, shape: &[usize], data: Vec<f32>) -> ValueId {
        let id = self.value(DType::F32, shape);
        self.graph.inputs.push(id);
        self.inputs.push(Tensor::f32(shape, data));
        id
    }
    pub fn input(&mut self, shape: &[usize]) -> ValueId {
        let data = self.floats(shape.iter().product(), -1.5, 1.5);
        self.input_of(shape, data)
    }
    pub fn constant_of(&mut self, shape: &[usize], data: Data) -> ValueId {
        let tensor = Tensor { shape: shape.to_vec(), data };
        let id = self.value(tensor.dtype(), shape);
        self.graph.constants.insert(id, Arc::new(tensor));
        id
    }
    pub fn constant(&mut self, shape: &[usize], low: f32, high: f32) -> ValueId {
        let data = self.floats(shape.iter().product(), low, high);
        self.constant_of(shape, Data::F32(data))
    }
    pub fn ints(&mut self, values: &[i64]) -> ValueId {
        self.constant_of(&[values.len()], Data::I64(values.to_vec()))
    }
    pub fn scalar(&mut self, v: f32) -> ValueId {
        self.constant_of(&[], Data::F32(vec![v]))
    }
    /// Opset at least `n`.
    pub fn opset(&mut self, n: i64) {
        self.graph.opset = self.graph.opset.max(n);
    }

    pub fn nodes(
        &mut self,
        op: &str,
        inputs: &[Option<ValueId>],
        attrs: &[(&str, Attr)],
        outputs: usize,
    ) -> Vec<ValueId> {
        let outputs: Vec<ValueId> = (0..outputs).map(|_| self.value(DType::F32, &[])).collect();
        self.graph.nodes.push(Node {
            name: format!("{op}{}", self.graph.nodes.len()),
            op: op.to_string(),
            domain: String::new(),
            inputs: inputs.to_vec(),
            outputs: outputs.iter().map(|o| Some(*o)).collect(),
            attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect::<BTreeMap<_, _>>(),
        });
        outputs
    }
    pub fn node(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        let inputs: Vec<_> = inputs.iter().map(|i| Some(*i)).collect();
        self.nodes(op, &inputs, attrs, 1)[0]
    }
    /// A node whose result is an output of the graph.
    pub fn out(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) {
        let out = self.node(op, inputs, attrs);
        self.graph.outputs.push(out);
    }

    /// Asks onnxruntime for the shapes of all results: each is summed to a scalar, whose shape is known beforehand.
    fn finish(mut self) -> Case {
        let mut probe = self.graph.clone();
        probe.name = "probe".into();
        let results: Vec<ValueId> =
            probe.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
        probe.outputs.clear();
        for id in &results {
            let sum = ValueId(probe.values.len() as u32);
            probe.values.push(Value { name: format!("sum{}", id.0), dtype: DType::F32, shape: Vec::new() });
            probe.nodes.push(Node {
                name: format!("sum{}", id.0),
                op: "ReduceSum".into(),
                domain: String::new(),
                inputs: vec![Some(*id)],
                outputs: vec![Some(sum)],
                attrs: BTreeMap::from([("keepdims".to_string(), Attr::Int(0))]),
            });
            probe.outputs.push(sum);
        }
        let bytes = onnx::to_onnx(&probe);
        let known = onnx::from_bytes("probe", &bytes, &BTreeMap::new()).unwrap_or_else(|e| {
            panic!("{}: onnxruntime refuses it: {e}\n{:?}", self.graph.name, self.graph.nodes)
        });
        for node in self.graph.nodes.clone() {
            for out in node.outputs.iter().flatten() {
                let name = &self.graph.values[out.0 as usize].name;
                let shape = match known.values.iter().find(|v| v.name == *name) {
                    Some(v) => v.shape.clone(),
                    // onnxruntime removed the node: the row said what it yields, or it does nothing.
                    None if !self.graph.value(*out).shape.is_empty() => self.graph.value(*out).shape.clone(),
                    None => self.graph.value(node.inputs[0].unwrap()).shape.clone(),
                };
                self.graph.values[out.0 as usize].shape = shape;
            }
        }
        Case { graph: self.graph, inputs: self.inputs }
    }
}
