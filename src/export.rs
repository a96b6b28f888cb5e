//! A trained policy as an ONNX file: the candidate-scoring network with standard operators, for whoever decides in another runtime.
//! It refuses to hold the features: how an observation becomes numbers stands in `agent/src/features.rs`, and the file names its version.

use cosched_agent::checkpoint::About;
use cosched_agent::features::{CANDIDATE_FEATURES, CONTEXT_FEATURES, FEATURE_VERSION};
use cosched_agent::network::{Forward, Linear, Weights, highest};
use cosched_executors::bare::{Bare, BareError};
use cosched_executors::graph::Attr;
use cosched_executors::onnx::draft::{Draft, Extent};
use cosched_executors::tensor::Tensor;

/// How far a logit in onnxruntime may be from ours.
pub const TOLERANCE: f32 = 1e-4;

/// The network as an ONNX file. Inputs: `candidates` `[n, CANDIDATE_FEATURES]` for any n > 0, `context` `[1, CONTEXT_FEATURES]`; outputs:
/// `logits` `[n]` (the choice is the first highest) and `value` `[1]`. The metadata has `feature_version`, and `about` as JSON.
pub fn to_onnx(weights: &Weights, about: &About) -> Vec<u8> {
    let mut draft = Draft::new("cosched policy");
    let (n, one) = (Extent::Named("n"), Extent::Fixed(1));
    draft.input("candidates", &[n, Extent::Fixed(CANDIDATE_FEATURES)]);
    draft.input("context", &[one, Extent::Fixed(CONTEXT_FEATURES)]);
    layer(&mut draft, "candidate1", &weights.candidate1, "candidates");
    draft.node("Relu", &["candidate1"], "h1", &[]);
    let over_candidates = [("axes", Attr::Ints(vec![0])), ("keepdims", Attr::Int(1))];
    draft.node("ReduceMean", &["h1"], "mean", &over_candidates);
    draft.node("ReduceMax", &["h1"], "max", &over_candidates);
    draft.node("Concat", &["mean", "max", "context"], "pooled", &[("axis", Attr::Int(1))]);
    layer(&mut draft, "context1", &weights.context1, "pooled");
    draft.node("Relu", &["context1"], "c", &[]);
    layer(&mut draft, "candidate2", &weights.candidate2, "h1");
    layer(&mut draft, "mix", &weights.mix, "c");
    draft.node("Add", &["candidate2", "mix"], "mixed", &[]);
    draft.node("Relu", &["mixed"], "z", &[]);
    row(&mut draft, "logits", &weights.logit, "z");
    layer(&mut draft, "value1", &weights.value1, "c");
    draft.node("Relu", &["value1"], "v", &[]);
    row(&mut draft, "value", &weights.value2, "v");
    draft.output("logits", &[n]);
    draft.output("value", &[one]);
    draft.note("feature_version", FEATURE_VERSION.to_string());
    draft.note("about", serde_json::to_string(about).unwrap_or_default());
    draft.to_bytes()
}

/// `name = x W^T + b`.
fn layer(draft: &mut Draft, name: &str, linear: &Linear, x: &str) {
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    draft.constant(&weight, &Tensor::f32(&[linear.outputs, linear.inputs], linear.weight.clone()));
    let mut inputs = vec![x, &weight];
    if !linear.bias.is_empty() {
        draft.constant(&bias, &Tensor::f32(&[linear.outputs], linear.bias.clone()));
        inputs.push(&bias);
    }
    draft.node("Gemm", &inputs, name, &[("transB", Attr::Int(1))]);
}

/// A layer with one output, which is no axis of its own: `name[i] = x[i] w + b`.
fn row(draft: &mut Draft, name: &str, linear: &Linear, x: &str) {
    let (weight, bias, product) =
        (format!("{name}.weight"), format!("{name}.bias"), format!("{name}.product"));
    draft.constant(&weight, &Tensor::f32(&[linear.inputs], linear.weight.clone()));
    draft.constant(&bias, &Tensor::f32(&[1], linear.bias.clone()));
    draft.node("MatMul", &[x, &weight], &product, &[]);
    draft.node("Add", &[&product, &bias], name, &[]);
}

/// An exported file beside the weights that it was made from.
pub struct Twin {
    model: Bare,
    forward: Forward,
}

impl Twin {
    /// Opens the file in onnxruntime.
    ///
    /// # Errors
    /// [`BareError`].
    pub fn open(bytes: &[u8], weights: &Weights) -> Result<Twin, BareError> {
        Ok(Twin { model: Bare::open(bytes)?, forward: Forward::new(weights) })
    }

    /// Scores an observation in both and gives the choice, if it is the same and no number is further apart than [`TOLERANCE`].
    ///
    /// # Errors
    /// Says what differs.
    pub fn choose(&mut self, candidates: &[f32], context: &[f32]) -> Result<usize, String> {
        let n = candidates.len() / CANDIDATE_FEATURES;
        let value = self.forward.run_on(candidates, context);
        let candidates = Tensor::f32(&[n, CANDIDATE_FEATURES], candidates.to_vec());
        let context = Tensor::f32(&[1, CONTEXT_FEATURES], context.to_vec());
        let inputs = [("candidates", &candidates), ("context", &context)];
        let made = self.model.run(&inputs, &["logits", "value"]).map_err(|e| e.to_string())?;
        let floats = |i: usize, shape: &[usize]| {
            let floats = made[i].as_f32().filter(|_| made[i].shape == shape);
            floats.ok_or_else(|| format!("expected f32{shape:?}, got {}{:?}", made[i].dtype(), made[i].shape))
        };
        let (logits, other) = (floats(0, &[n])?, floats(1, &[1])?[0]);
        for (i, (a, b)) in logits.iter().zip(&self.forward.logits).enumerate() {
            if apart(*a, *b) {
                return Err(format!("candidate {i} of {n}: onnxruntime says {a}, the checkpoint {b}"));
            }
        }
        if apart(value, other) {
            return Err(format!("the value: onnxruntime says {other}, the checkpoint {value}"));
        }
        let best = highest(logits);
        let own = self.forward.best();
        // Twins of a candidate score the same but for rounding; then either is the same choice.
        let same = best == own || self.forward.logits[own] - self.forward.logits[best] <= 1e-6;
        if same { Ok(own) } else { Err(format!("onnxruntime chooses {best}, the checkpoint {own}")) }
    }
}

/// Whether two numbers are further apart than they may be; NaN is, from everything.
fn apart(a: f32, b: f32) -> bool {
    let difference = (a - b).abs();
    difference.is_nan() || difference > TOLERANCE
}

/// Compares an exported file with its weights on observations of 1 to 64 candidates, filled with numbers between -1 and 1; gives their
/// number.
///
/// # Errors
/// Says what differs; [`BareError::Absent`] where there is no onnxruntime.
pub fn check(bytes: &[u8], weights: &Weights) -> Result<usize, BareError> {
    let mut twin = Twin::open(bytes, weights)?;
    let mut state = 1_u64;
    let mut number = || {
        // The multiplier and increment of Knuth's MMIX; the high bits are good enough to fill a table.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    for n in 1..=64 {
        let candidates: Vec<f32> = (0..n * CANDIDATE_FEATURES).map(|_| number()).collect();
        let context: Vec<f32> = (0..CONTEXT_FEATURES).map(|_| number()).collect();
        twin.choose(&candidates, &context).map_err(BareError::Refused)?;
    }
    Ok(64)
}
