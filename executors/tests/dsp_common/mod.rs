//! What the DSP's tests share: a small graph builder, seeded tensors, the worker's command and its end, and the measure of error.
//! It holds no test.
#![allow(dead_code)]

use cosched_executors::dsp::{Dsp, Limits};
use cosched_executors::graph::{Attr, Graph, Node, Value, ValueId};
use cosched_executors::processor::Options;
use cosched_executors::tensor::{DType, Tensor};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The options that start the test worker.
pub fn options() -> Options {
    Options { dsp_command: vec![env!("CARGO_BIN_EXE_cosched-dsp").into()], ..Options::default() }
}

/// A fresh processor with a worker of its own.
pub fn dsp() -> Dsp {
    Dsp::open(&options(), Limits::default()).unwrap()
}

/// Whether a process is there and no zombie.
pub fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| s.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

/// How long a busy machine may take for what is done at once on another.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a process ends.
pub fn gone(pid: u32) -> bool {
    let start = Instant::now();
    while lives(pid) && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    !lives(pid)
}

/// Seeded numbers.
pub struct Rng(pub Pcg64Mcg);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// From `low` to `high`, both included.
    pub fn pick(&mut self, low: usize, high: usize) -> usize {
        self.0.random_range(low..=high)
    }

    /// About normal (a sum of uniform numbers), with standard deviation `sd`.
    pub fn normal(&mut self, sd: f32) -> f32 {
        (0..6).map(|_| self.0.random_range(-1.0f32..1.0)).sum::<f32>() * sd / 2f32.sqrt()
    }

    pub fn tensor(&mut self, shape: &[usize], sd: f32) -> Tensor {
        let n = shape.iter().product();
        Tensor::f32(shape, (0..n).map(|_| self.normal(sd)).collect())
    }
}

/// A graph under construction. Shapes of outputs are given by the caller.
#[derive(Default)]
pub struct Build {
    pub graph: Graph,
}

impl Build {
    pub fn new(name: &str) -> Self {
        let graph = Graph { name: name.into(), opset: 17, ..Graph::default() };
        Self { graph }
    }

    fn value(&mut self, name: String, dtype: DType, shape: &[usize]) -> ValueId {
        self.graph.values.push(Value { name, dtype, shape: shape.to_vec() });
        ValueId(self.graph.values.len() as u32 - 1)
    }

    pub fn input(&mut self, shape: &[usize]) -> ValueId {
        let id = self.value(format!("in{}", self.graph.inputs.len()), DType::F32, shape);
        self.graph.inputs.push(id);
        id
    }

    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let id = self.value(format!("c{}", self.graph.values.len()), tensor.dtype(), &tensor.shape);
        self.graph.constants.insert(id, Arc::new(tensor));
        id
    }

    pub fn op(&mut self, op: &str, inputs: &[ValueId], shape: &[usize], attrs: &[(&str, Attr)]) -> ValueId {
        let out = self.value(format!("v{}", self.graph.values.len()), DType::F32, shape);
        self.graph.nodes.push(Node {
            name: format!("{op}_{}", self.graph.nodes.len()),
            op: op.into(),
            domain: String::new(),
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: vec![Some(out)],
            attrs: attrs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        });
        out
    }

    pub fn shape(&self, id: ValueId) -> Vec<usize> {
        self.graph.value(id).shape.clone()
    }

    /// A 2-D convolution of `x` with random weights and bias, `pad` on all sides.
    #[allow(clippy::too_many_arguments)]
    pub fn conv(
        &mut self,
        rng: &mut Rng,
        x: ValueId,
        out: usize,
        k: usize,
        stride: usize,
        group: usize,
    ) -> ValueId {
        let s = self.shape(x);
        let fan = (s[1] / group * k * k) as f32;
        let w = self.constant(rng.tensor(&[out, s[1] / group, k, k], (2.0 / fan).sqrt()));
        let b = self.constant(rng.tensor(&[out], 0.2));
        let pad = k / 2;
        let size = |n: usize| (n + 2 * pad - k) / stride + 1;
        let shape = [s[0], out, size(s[2]), size(s[3])];
        let two = |v: usize| Attr::Ints(vec![v as i64; 2]);
        let attrs = [
            ("kernel_shape", two(k)),
            ("strides", two(stride)),
            ("pads", Attr::Ints(vec![pad as i64; 4])),
            ("group", Attr::Int(group as i64)),
        ];
        self.op("Conv", &[x, w, b], &shape, &attrs)
    }

    pub fn gemm(&mut self, rng: &mut Rng, x: ValueId, out: usize, trans: bool) -> ValueId {
        let s = self.shape(x);
        let sd = (2.0 / s[1] as f32).sqrt();
        let w = if trans { rng.tensor(&[out, s[1]], sd) } else { rng.tensor(&[s[1], out], sd) };
        let (w, b) = (self.constant(w), self.constant(rng.tensor(&[out], 0.2)));
        self.op("Gemm", &[x, w, b], &[s[0], out], &[("transB", Attr::Int(i64::from(trans)))])
    }

    pub fn matmul(&mut self, rng: &mut Rng, x: ValueId, out: usize) -> ValueId {
        let mut s = self.shape(x);
        let k = s[s.len() - 1];
        let w = self.constant(rng.tensor(&[k, out], (2.0 / k as f32).sqrt()));
        *s.last_mut().unwrap() = out;
        self.op("MatMul", &[x, w], &s, &[])
    }

    /// An operator that keeps the shape of its first input.
    pub fn same(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        let shape = self.shape(inputs[0]);
        self.op(op, inputs, &shape, &[])
    }

    pub fn pool(&mut self, op: &str, x: ValueId) -> ValueId {
        let s = self.shape(x);
        let two = Attr::Ints(vec![2, 2]);
        self.op(
            op,
            &[x],
            &[s[0], s[1], s[2] / 2, s[3] / 2],
            &[("kernel_shape", two.clone()), ("strides", two)],
        )
    }

    pub fn global_pool(&mut self, x: ValueId) -> ValueId {
        let s = self.shape(x);
        self.op("GlobalAveragePool", &[x], &[s[0], s[1], 1, 1], &[])
    }

    pub fn flatten(&mut self, x: ValueId) -> ValueId {
        let s = self.shape(x);
        self.op("Flatten", &[x], &[s[0], s[1..].iter().product()], &[])
    }

    pub fn done(mut self, outputs: &[ValueId]) -> Graph {
        self.graph.outputs = outputs.to_vec();
        self.graph
    }
}

/// `n` seeded inputs of `graph`.
pub fn samples(rng: &mut Rng, graph: &Graph, n: usize) -> Vec<Vec<Tensor>> {
    (0..n).map(|_| graph.inputs.iter().map(|id| rng.tensor(&graph.value(*id).shape, 1.0)).collect()).collect()
}

/// The f32 outputs by onnxruntime.
pub fn reference(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    let mut instance = cosched_executors::cpu::reference(graph).unwrap();
    instance.run(&inputs.iter().collect::<Vec<_>>()).unwrap()
}

/// Signal to quantisation noise of `got` against `want`, in dB.
pub fn sqnr(want: &[Tensor], got: &[Tensor]) -> f64 {
    let (mut signal, mut noise) = (0f64, 1e-30f64);
    for (w, g) in want.iter().zip(got) {
        assert_eq!(w.shape, g.shape);
        for (w, g) in w.as_f32().unwrap().iter().zip(g.as_f32().unwrap()) {
            signal += f64::from(*w).powi(2);
            noise += (f64::from(*w) - f64::from(*g)).powi(2);
        }
    }
    10.0 * (signal / noise).log10()
}

/// A chain of convolutions, 90 GMAC: something to be interrupted in, also on a machine that does 300 GMAC/s.
pub fn long_graph() -> Graph {
    let mut rng = Rng::new(5);
    let mut b = Build::new("long");
    let mut x = b.input(&[1, 128, 160, 160]);
    for _ in 0..24 {
        x = b.conv(&mut rng, x, 128, 3, 1, 1);
        x = b.same("Relu", &[x]);
    }
    let x = b.global_pool(x);
    b.done(&[x])
}

/// A convolution of nearly no work.
pub fn tiny_graph(seed: u64) -> Graph {
    let mut b = Build::new("tiny");
    let x = b.input(&[1, 4, 4, 4]);
    let x = b.conv(&mut Rng::new(seed), x, 4, 1, 1, 1);
    b.done(&[x])
}
