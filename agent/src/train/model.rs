//! The network in tch, for learning: the same layers and names as `network`, on a ragged batch of candidates.
//! It refuses padding: the rows of all observations lie one after the other, so no work is spent on candidates that are not there.

use crate::features::{CANDIDATE_FEATURES, CONTEXT_FEATURES, FIRST_VOTE};
use crate::network::{Linear, Weights, layers};
use cosched_env::streams::rng;
use rand::RngExt;
use std::collections::BTreeMap;
use std::convert::Infallible;
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

/// Weights and biases as tch variables.
pub struct Model {
    /// Owns the variables.
    pub store: VarStore,
    parts: BTreeMap<&'static str, (Tensor, Option<Tensor>)>,
    hidden: usize,
}

/// A ragged batch of `b` observations with `m` candidates in all.
pub struct Input {
    /// `[m, CANDIDATE_FEATURES]`.
    pub rows: Tensor,
    /// `[m]`, i64: the observation that each row belongs to.
    pub owner: Tensor,
    /// `[m]`, i64: `observation * widest + place among its candidates`.
    pub place: Tensor,
    /// `[b]`: candidates of each observation.
    pub counts: Tensor,
    /// `[b, CONTEXT_FEATURES]`.
    pub context: Tensor,
    /// Most candidates of any observation.
    pub widest: i64,
}

impl Input {
    /// Gathers observations given as (rows, context) slices.
    pub fn new<'a>(observations: impl Iterator<Item = (&'a [f32], &'a [f32])> + Clone) -> Input {
        let widest = observations.clone().map(|(r, _)| r.len() / CANDIDATE_FEATURES).max().unwrap_or(1);
        let (mut rows, mut context, mut owner, mut place, mut counts) =
            (vec![], vec![], vec![], vec![], vec![]);
        for (b, (r, c)) in observations.enumerate() {
            let n = r.len() / CANDIDATE_FEATURES;
            rows.extend_from_slice(r);
            context.extend_from_slice(c);
            counts.push(n as f32);
            owner.extend(std::iter::repeat_n(b as i64, n));
            place.extend((0..n).map(|i| (b * widest + i) as i64));
        }
        let b = counts.len() as i64;
        Input {
            rows: Tensor::from_slice(&rows).view([-1, CANDIDATE_FEATURES as i64]),
            owner: Tensor::from_slice(&owner),
            place: Tensor::from_slice(&place),
            counts: Tensor::from_slice(&counts),
            context: Tensor::from_slice(&context).view([b, CONTEXT_FEATURES as i64]),
            widest: widest as i64,
        }
    }
}

impl Input {
    /// Log-probabilities `[b, widest]` of a policy that follows the first guide but for a share `smoothing`, spread evenly; an even
    /// policy where there is no guide.
    pub fn log_guide(&self, smoothing: f64) -> Tensor {
        let b = self.counts.size()[0];
        let votes = self.rows.select(1, FIRST_VOTE as i64);
        let zeros = Tensor::zeros([b], (Kind::Float, Device::Cpu));
        let heard = zeros.index_add(0, &self.owner, &votes).index_select(0, &self.owner);
        let even = self.counts.index_select(0, &self.owner).reciprocal();
        let p: Tensor = votes * (1.0 - smoothing) + even * (1.0 - heard * (1.0 - smoothing));
        let blank = Tensor::zeros([b * self.widest], (Kind::Float, Device::Cpu));
        blank.index_put(&[Some(&self.place)], &p.clamp_min(1e-6).log(), false).view([b, self.widest])
    }

    /// Mean of a table `[b, widest]` over the candidates of each observation: `[b]`.
    pub fn mean_over_candidates(&self, table: &Tensor) -> Tensor {
        let values = table.view([-1]).index_select(0, &self.place);
        let zeros = Tensor::zeros([self.counts.size()[0]], (Kind::Float, Device::Cpu));
        zeros.index_add(0, &self.owner, &values) / &self.counts
    }
}

impl Model {
    /// A network with uniform weights of variance `gain^2 / inputs` (He et al., 2015; gain sqrt 2, but 0.01 for the logit, so that
    /// learning starts from an even policy, and 1 for the value: Andrychowicz et al., ICLR 2021). The weights come from `seed`
    /// and not from libtorch's generator, which all models of a process share.
    pub fn new(hidden: usize, seed: u64) -> Model {
        let store = VarStore::new(Device::Cpu);
        let root = store.root();
        let zeros = Init::Const(0.0);
        let parts = layers(hidden).into_iter().map(|(name, inputs, outputs, bias)| {
            let path = &root / name;
            let weight = path.var("weight", &[outputs as i64, inputs as i64], zeros);
            (name, (weight, bias.then(|| path.var("bias", &[outputs as i64], zeros))))
        });
        let model = Model { parts: parts.collect(), store, hidden };
        let mut random = rng(seed, "weights", 0);
        let initial = Weights::build(hidden, |name, inputs, outputs, bias| {
            let gain = match name {
                "logit" => 0.01,
                "value2" => 1.0,
                _ => std::f32::consts::SQRT_2,
            };
            let bound = gain * (3.0 / inputs as f32).sqrt();
            let weight = (0..inputs * outputs).map(|_| random.random_range(-bound..bound)).collect();
            Ok::<_, Infallible>(Linear {
                weight,
                bias: vec![0.0; if bias { outputs } else { 0 }],
                inputs,
                outputs,
            })
        });
        let Ok(initial) = initial;
        model.set_weights(&initial);
        model
    }

    fn apply(&self, layer: &str, x: &Tensor) -> Tensor {
        let (weight, bias) = &self.parts[layer];
        x.linear(weight, bias.as_ref())
    }

    /// Log-probabilities `[b, widest]` (very negative where there is no candidate) and values `[b]`.
    pub fn forward(&self, input: &Input) -> (Tensor, Tensor) {
        let (scores, value) = self.scores(input);
        (scores.log_softmax(1, Kind::Float), value)
    }

    /// Logits `[b, widest]` (-1e9 where there is no candidate) and values `[b]`.
    pub fn scores(&self, input: &Input) -> (Tensor, Tensor) {
        let (b, h) = (input.context.size()[0], self.hidden as i64);
        let h1 = self.apply("candidate1", &input.rows).relu();
        let zeros = || Tensor::zeros([b, h], (Kind::Float, Device::Cpu));
        let mean = zeros().index_add(0, &input.owner, &h1) / input.counts.unsqueeze(1);
        // Zero is a neutral start for the maximum: everything is at least 0 behind a relu.
        let owner = input.owner.unsqueeze(1).expand([-1, h], false);
        let max = zeros().internal_scatter_reduce(0, &owner, &h1, "amax", true);
        let pooled = Tensor::cat(&[&mean, &max, &input.context], 1);
        let context = self.apply("context1", &pooled).relu();
        let mixed = self.apply("mix", &context).index_select(0, &input.owner);
        let h2 = (self.apply("candidate2", &h1) + mixed).relu();
        let logits = self.apply("logit", &h2).squeeze_dim(1);
        let blank = Tensor::full([b * input.widest], -1e9, (Kind::Float, Device::Cpu));
        let table = blank.index_put(&[Some(&input.place)], &logits, false).view([b, input.widest]);
        let value = self.apply("value2", &self.apply("value1", &context).relu()).squeeze_dim(1);
        (table, value)
    }

    /// The variables, layer by layer: its weight, then its bias if it has one.
    pub fn variables(&self) -> Vec<Tensor> {
        let of = |name| {
            let (weight, bias) = &self.parts[name];
            [Some(weight.shallow_clone()), bias.as_ref().map(Tensor::shallow_clone)]
        };
        layers(self.hidden).into_iter().flat_map(|(name, ..)| of(name)).flatten().collect()
    }

    /// A plain copy of the weights, for deciding.
    pub fn weights(&self) -> Weights {
        to_weights(self.hidden, &self.variables())
    }

    /// Takes over weights, e.g. those of a checkpoint.
    pub fn set_weights(&self, weights: &Weights) {
        set(&mut self.variables(), weights);
    }
}

/// A plain copy of tensors that are shaped like [`Model::variables`].
pub fn to_weights(hidden: usize, tensors: &[Tensor]) -> Weights {
    let mut tensors = tensors.iter();
    let mut floats = || {
        let next = tensors.next().expect("there is a tensor for each variable");
        Vec::<f32>::try_from(next.detach().contiguous().view([-1])).expect("float tensors on the CPU")
    };
    let Ok(made) = Weights::build(hidden, |_, inputs, outputs, bias| {
        let weight = floats();
        let bias = if bias { floats() } else { Vec::new() };
        Ok::<_, Infallible>(Linear { weight, bias, inputs, outputs })
    });
    made
}

/// Fills tensors that are shaped like [`Model::variables`].
pub fn set(tensors: &mut [Tensor], weights: &Weights) {
    let parts = weights.each().into_iter().flat_map(|l| [&l.weight, &l.bias]).filter(|p| !p.is_empty());
    tch::no_grad(|| {
        for (tensor, part) in tensors.iter_mut().zip(parts) {
            let filled = Tensor::from_slice(part).view_as(tensor);
            tensor.copy_(&filled);
        }
    });
}
