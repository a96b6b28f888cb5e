//! The numbers of the DSP: quantised segments against onnxruntime's f32 on random shapes, within stated bounds.
//!
//! Bounds. One operator with weights: no element is further from f32 than the worst case of its rounding steps (computed
//! here from f32 runs, independently of the quantiser's code), and the signal to noise ratio is at least 30 dB. Chains of up to four such operators: at
//! least 25 dB (5.6 % relative RMS error). Zoo models: see `zoo_models`. Saboteurs (a wrong zero point, scale, weight scale or bias) must
//! fall below.

mod dsp_common;

use cosched_executors::dsp::calibrate::Method;
use cosched_executors::dsp::{Dsp, quantise_segment};
use cosched_executors::graph::{Attr, Graph, ValueId};
use cosched_executors::processor::{Prepared, Processor};
use cosched_executors::tensor::{DType, Data, Tensor};
use dsp_common::*;
use std::sync::Arc;

const ONE_OP_DB: f64 = 30.0;
const CHAIN_DB: f64 = 25.0;

fn run(dsp: &Dsp, graph: &Graph, samples: &[Vec<Tensor>], input: &[Tensor]) -> Vec<Tensor> {
    for node in &graph.nodes {
        dsp.supports(graph, node).unwrap();
    }
    let mut instance = dsp.prepare(graph, samples).unwrap().spawn().unwrap();
    instance.run(&input.iter().collect::<Vec<_>>()).unwrap()
}

/// Step between neighbouring u8 numbers for all values of `tensors`.
fn step(tensors: &[&[f32]]) -> f32 {
    let (mut lo, mut hi) = (0f32, 0f32);
    tensors.iter().flat_map(|t| t.iter()).for_each(|x| (lo, hi) = (lo.min(*x), hi.max(*x)));
    (hi - lo) / 255.0
}

/// `graph` (one operator with weights) with other weights and no bias, run on `x`.
fn linear(graph: &Graph, x: &Tensor, weights: impl Fn(&Tensor) -> Vec<f32>) -> Vec<f32> {
    let mut graph = graph.clone();
    let id = graph.nodes[0].inputs[1].unwrap();
    let w = graph.constants[&id].clone();
    graph.constants.insert(id, Arc::new(Tensor::f32(&w.shape, weights(&w))));
    graph.nodes[0].inputs.truncate(2);
    reference(&graph, std::slice::from_ref(x))[0].as_f32().unwrap().to_vec()
}

/// The worst case that rounding allows, element by element, for a graph of one operator with weights.
fn worst_case(graph: &Graph, x: &Tensor, y: &Tensor) -> Vec<f32> {
    let limit = cosched_executors::dsp::numbers::weight_limit();
    let data = x.as_f32().unwrap();
    let sx = step(&[data]);
    let sy = step(&[y.as_f32().unwrap()]);
    // One scale a channel is at least as fine as one for all.
    let of = |w: &Tensor| w.as_f32().unwrap().iter().fold(0f32, |m, x| m.max(x.abs())) / limit;
    let id = graph.nodes[0].inputs[1].unwrap();
    let sw = of(&graph.constants[&id]);
    // The zero point is rounded, so the ends of the range may be a whole step off.
    let dx = Tensor::f32(&x.shape, vec![sx; data.len()]);
    let ax = Tensor::f32(&x.shape, data.iter().map(|v| v.abs() + sx).collect());
    let from_x = linear(graph, &dx, |w| w.as_f32().unwrap().iter().map(|v| v.abs()).collect());
    let from_w = linear(graph, &ax, |w| vec![sw / 2.0; w.len()]);
    from_x.iter().zip(from_w).map(|(a, b)| (a + b + sx * sw + sy) * 1.001 + 1e-6).collect()
}

fn one_op(rng: &mut Rng, kind: usize) -> Graph {
    let kinds = ["conv", "1x1", "depthwise", "grouped", "gemm", "gemm transposed", "matmul", "matmul 3-D"];
    let mut b = Build::new(kinds[kind]);
    let (c, h, w) = (rng.pick(1, 6), rng.pick(5, 14), rng.pick(5, 14));
    let y = match kind {
        0..=3 => {
            let group = rng.pick(2, 4);
            let channels = if kind == 3 { group * c } else { 4 * c };
            let x = b.input(&[1, channels, h, w]);
            let stride = rng.pick(1, 2);
            match kind {
                0 => {
                    let (out, k) = (rng.pick(1, 40), [3, 5][rng.pick(0, 1)]);
                    b.conv(rng, x, out, k, stride, 1)
                }
                1 => {
                    let out = rng.pick(1, 60);
                    b.conv(rng, x, out, 1, stride, 1)
                }
                2 => b.conv(rng, x, channels, 3, stride, channels),
                _ => {
                    let out = group * rng.pick(1, 8);
                    b.conv(rng, x, out, 3, stride, group)
                }
            }
        }
        4 | 5 => {
            let (m, k, n) = (rng.pick(1, 9), rng.pick(4, 200), rng.pick(1, 60));
            let x = b.input(&[m, k]);
            b.gemm(rng, x, n, kind == 5)
        }
        _ => {
            let (m, k, n) = (rng.pick(2, 20), rng.pick(4, 120), rng.pick(1, 60));
            let shape = if kind == 6 { vec![m, k] } else { vec![2, m, k] };
            let x = b.input(&shape);
            b.matmul(rng, x, n)
        }
    };
    b.done(&[y])
}

#[test]
fn operators_with_weights_stay_within_the_worst_case_of_rounding() {
    let dsp = dsp();
    let mut least = [f64::INFINITY; 8];
    for seed in 0..64u64 {
        let kind = (seed % 8) as usize;
        let mut rng = Rng::new(1000 + seed);
        let graph = one_op(&mut rng, kind);
        let samples = samples(&mut rng, &graph, 1);
        let want = reference(&graph, &samples[0]);
        let got = run(&dsp, &graph, &samples, &samples[0]);
        let bound = worst_case(&graph, &samples[0][0], &want[0]);
        let pairs = want[0].as_f32().unwrap().iter().zip(got[0].as_f32().unwrap());
        for (i, ((w, g), bound)) in pairs.zip(bound).enumerate() {
            assert!(
                (w - g).abs() <= bound,
                "seed {seed} {}: [{i}] {w} became {g}, bound {bound}",
                graph.name
            );
        }
        let db = sqnr(&want, &got);
        least[kind] = least[kind].min(db);
        assert!(db >= ONE_OP_DB, "seed {seed}, {}: {db:.1} dB", graph.name);
    }
    println!("least SQNR of conv, 1x1, depthwise, grouped, gemm, gemm^T, matmul, matmul 3-D: {least:.1?} dB");
}

/// A random network: two to four operators with weights, and whatever stands between them in CNNs.
fn chain(rng: &mut Rng) -> Graph {
    let mut b = Build::new("chain");
    let channels = 4 * rng.pick(1, 6);
    let mut x = b.input(&[1, channels, 16, 16]);
    let mut skip = None;
    for _ in 0..rng.pick(1, 3) {
        let c = b.shape(x)[1];
        let grow = 4 * rng.pick(1, 8);
        x = match rng.pick(0, 3) {
            0 => b.conv(rng, x, c, 3, 1, c),
            1 => b.conv(rng, x, grow, 1, 1, 1),
            2 => b.conv(rng, x, c, 3, 1, 4),
            _ => b.conv(rng, x, c, 3, 1, 1),
        };
        x = activation(rng, &mut b, x);
        x = between(rng, &mut b, x, &mut skip);
    }
    if rng.pick(0, 1) == 1 && b.shape(x)[2] > 1 {
        x = if rng.pick(0, 1) == 0 { b.global_pool(x) } else { b.pool("AveragePool", x) };
    }
    x = b.flatten(x);
    let out = rng.pick(4, 40);
    let trans = rng.pick(0, 1) == 0;
    x = b.gemm(rng, x, out, trans);
    let mut outputs = vec![x];
    if rng.pick(0, 3) == 0 {
        outputs = vec![b.op("Softmax", &[x], &[1, out], &[("axis", Attr::Int(1))])];
    }
    b.done(&outputs)
}

fn activation(rng: &mut Rng, b: &mut Build, x: ValueId) -> ValueId {
    let op = ["Relu", "Clip", "HardSwish", "Sigmoid", "none", "LeakyRelu"][rng.pick(0, 5)];
    match op {
        "none" => x,
        "Clip" => {
            let (lo, hi) = (b.constant(Tensor::f32(&[], vec![0.0])), b.constant(Tensor::f32(&[], vec![6.0])));
            b.same("Clip", &[x, lo, hi])
        }
        op => b.same(op, &[x]),
    }
}

fn between(rng: &mut Rng, b: &mut Build, x: ValueId, skip: &mut Option<ValueId>) -> ValueId {
    let s = b.shape(x);
    match rng.pick(0, 7) {
        0 if s[2] >= 4 => b.pool("MaxPool", x),
        1 if s[2] >= 4 => b.pool("AveragePool", x),
        2 => {
            let mut doubled = s.clone();
            doubled[1] *= 2;
            let other = skip.filter(|o| b.shape(*o) == s).unwrap_or(x);
            b.op("Concat", &[x, other], &doubled, &[("axis", Attr::Int(1))])
        }
        3 => match skip.replace(x).filter(|o| b.shape(*o) == s) {
            Some(other) => b.same("Add", &[x, other]),
            None => x,
        },
        4 => {
            let scale = b.constant(rng.tensor(&[1, s[1], 1, 1], 1.0));
            b.same("Mul", &[x, scale])
        }
        5 => {
            let p: Vec<Tensor> = (0..4)
                .map(|i| {
                    let t = rng.tensor(&[s[1]], 0.3);
                    // Variances are positive.
                    Tensor::f32(
                        &[s[1]],
                        t.as_f32()
                            .unwrap()
                            .iter()
                            .map(|v| if i == 3 { 0.5 + v.abs() } else { v + 0.5 })
                            .collect(),
                    )
                })
                .collect();
            let ids: Vec<ValueId> = p.into_iter().map(|t| b.constant(t)).collect();
            b.same("BatchNormalization", &[x, ids[0], ids[1], ids[2], ids[3]])
        }
        6 => {
            let shape = b.constant(Tensor {
                shape: vec![4],
                data: Data::I64(vec![1, s[1] as i64, s[3] as i64, s[2] as i64]),
            });
            b.op("Reshape", &[x, shape], &[1, s[1], s[3], s[2]], &[])
        }
        _ => {
            *skip = Some(x);
            x
        }
    }
}

#[test]
fn random_chains_keep_their_signal() {
    let dsp = dsp();
    let mut all = Vec::new();
    for seed in 0..60u64 {
        let mut rng = Rng::new(5000 + seed);
        let graph = chain(&mut rng);
        let samples = samples(&mut rng, &graph, 4);
        let ops: Vec<&str> = graph.nodes.iter().map(|n| n.op.as_str()).collect();
        let (mut want, mut got) = (Vec::new(), Vec::new());
        for input in &samples {
            want.extend(reference(&graph, input));
        }
        let mut instance = dsp.prepare(&graph, &samples).unwrap().spawn().unwrap();
        for input in &samples {
            got.extend(instance.run(&input.iter().collect::<Vec<_>>()).unwrap());
        }
        let db = sqnr(&want, &got);
        assert!(db >= CHAIN_DB, "seed {seed}: {db:.1} dB for {ops:?}");
        all.push(db);
    }
    all.sort_by(f64::total_cmp);
    println!("SQNR of 60 chains: least {:.1}, median {:.1}, most {:.1} dB", all[0], all[30], all[59]);
}

/// Changes constant number `which` of those of `dtype` and (optionally) rank in a quantised graph.
fn sabotage(graph: &Graph, dtype: DType, rank: usize, change: impl Fn(&Data) -> Data) -> Vec<Graph> {
    let hit = graph.constants.iter().filter(|(_, t)| t.dtype() == dtype && t.shape.len() == rank);
    hit.map(|(id, t)| {
        let mut bad = graph.clone();
        bad.constants.insert(*id, Arc::new(Tensor { shape: t.shape.clone(), data: change(&t.data) }));
        bad
    })
    .collect()
}

#[test]
fn saboteurs_are_rejected() {
    let dsp = dsp();
    let mut rng = Rng::new(77);
    let mut b = Build::new("sabotaged");
    let x = b.input(&[1, 8, 12, 12]);
    let y = b.conv(&mut rng, x, 16, 3, 1, 1);
    let graph = b.done(&[y]);
    let samples = samples(&mut rng, &graph, 1);
    let want = reference(&graph, &samples[0]);
    let right = quantise_segment(&graph, &samples, Method::MinMax).unwrap();
    let db = |quantised: &Graph| {
        let mut instance = dsp.prepare_quantised(&graph, quantised).unwrap().spawn().unwrap();
        sqnr(&want, &instance.run(&[&samples[0][0]]).unwrap())
    };
    assert!(db(&right) >= ONE_OP_DB);
    let zero = sabotage(&right, DType::U8, 0, |d| match d {
        Data::U8(v) => Data::U8(v.iter().map(|z| z.wrapping_add(6)).collect()),
        other => other.clone(),
    });
    let scale = sabotage(&right, DType::F32, 0, |d| match d {
        Data::F32(v) => Data::F32(v.iter().map(|s| s * 1.1).collect()),
        other => other.clone(),
    });
    let weight_scale = sabotage(&right, DType::F32, 1, |d| match d {
        Data::F32(v) => Data::F32(v.iter().rev().copied().collect()),
        other => other.clone(),
    });
    let bias = sabotage(&right, DType::I32, 1, |d| match d {
        Data::I32(v) => Data::I32(v.iter().map(|b| b.wrapping_add(b / 2)).collect()),
        other => other.clone(),
    });
    // The vector scales are those of the weights, of the bias and (all zero) the bias's zero point, which onnxruntime ignores.
    for (name, all, least) in
        [("zero point", zero, 4), ("scale", scale, 4), ("weight scale", weight_scale, 1), ("bias", bias, 1)]
    {
        let numbers: Vec<f64> = all.iter().map(db).collect();
        let rejected = numbers.iter().filter(|n| **n < ONE_OP_DB).count();
        assert!(
            rejected >= least,
            "wrong {name}: {numbers:.1?} dB, {rejected} rejected, expected at least {least}"
        );
    }
}

#[test]
fn an_old_opset_is_quantised_per_channel_too() {
    let dsp = dsp();
    let mut rng = Rng::new(78);
    let mut b = Build::new("old");
    let x = b.input(&[1, 8, 12, 12]);
    let y = b.conv(&mut rng, x, 16, 3, 1, 1);
    let y = b.same("Relu", &[y]);
    let mut graph = b.done(&[y]);
    graph.opset = 11;
    let samples = samples(&mut rng, &graph, 1);
    let got = run(&dsp, &graph, &samples, &samples[0]);
    let db = sqnr(&reference(&graph, &samples[0]), &got);
    assert!(db >= ONE_OP_DB, "{db:.1} dB");
}

#[test]
fn what_a_dsp_lacks_is_refused_with_a_reason() {
    let dsp = dsp();
    let mut rng = Rng::new(1);
    let mut b = Build::new("refused");
    let (x, y) = (b.input(&[4, 4]), b.input(&[4, 4]));
    let product = b.same("Gemm", &[x, y]);
    let sharp = b.same("Hardmax", &[product]);
    let sum = b.gemm(&mut rng, sharp, 4, false);
    let graph = b.done(&[sum]);
    let why = |i: usize| dsp.supports(&graph, &graph.nodes[i]);
    assert!(why(0).unwrap_err().contains("not constant"));
    assert!(why(1).unwrap_err().contains("Hardmax"));
    why(2).unwrap();
    let error = dsp.prepare(&graph, &[vec![]]).err().unwrap().to_string();
    assert!(error.contains("Gemm_0") && error.contains("not constant"), "{error}");
}
