//! The weights of a convolution in the order in which a kernel reads them, with a folded batch normalisation.
//! It refuses to know which kernel that is: a caller says how many lanes are filled at once.

use super::product::pack;
use crate::tensor::Tensor;
use std::sync::Arc;

/// Weights and bias with a folded batch normalisation, for all groups.
#[derive(Clone)]
pub(super) struct Packing {
    pub weights: Arc<Tensor>,
    pub bias: Option<Arc<Tensor>>,
    pub groups: usize,
    /// Output channels of one group.
    pub outs: usize,
    /// A slice of the channels of the only group begins here, of so many in all; else 0 and `outs`.
    pub first: usize,
    pub all: usize,
    /// Input channels of one group.
    pub ins: usize,
    pub taps: usize,
    pub transposed: bool,
    pub scale: Option<Vec<f32>>,
    pub shift: Option<Vec<f32>>,
}

impl Packing {
    /// The weight of output channel `o` and input channel `c` of group `g` at window position `tap`.
    pub(super) fn at(&self, g: usize, o: usize, c: usize, tap: usize) -> f32 {
        let o = self.first + o;
        let at = match self.transposed {
            true => ((g * self.ins + c) * self.all + o) * self.taps + tap,
            false => ((g * self.all + o) * self.ins + c) * self.taps + tap,
        };
        let scale = self.scale.as_ref().map_or(1.0, |s| s[g * self.all + o]);
        self.weights.as_f32().map_or(0.0, |w| w[at] * scale)
    }

    /// The bias of output channel `o` of group `g`.
    pub(super) fn bias(&self, g: usize, o: usize) -> f32 {
        let o = g * self.all + self.first + o;
        let bias = self.bias.as_ref().and_then(|b| b.as_f32()).map_or(0.0, |b| b[o]);
        bias * self.scale.as_ref().map_or(1.0, |s| s[o]) + self.shift.as_ref().map_or(0.0, |s| s[o])
    }

    /// `[group][tile][tap][in][lane]`; left-over lanes repeat the last channel.
    pub(super) fn window(&self, lanes: usize) -> Vec<f32> {
        let each = |g| {
            pack(self.outs, self.taps * self.ins, lanes, false, move |k, o| {
                self.at(g, o, k % self.ins, k / self.ins)
            })
        };
        (0..self.groups).flat_map(each).collect()
    }

    /// `[group][tile][in][tap][lane]`.
    pub(super) fn strips(&self, lanes: usize) -> Vec<f32> {
        let each = |g| {
            pack(self.outs, self.taps * self.ins, lanes, false, move |k, o| {
                self.at(g, o, k / self.taps, k % self.taps)
            })
        };
        (0..self.groups).flat_map(each).collect()
    }

    /// `[group][tile][lane]`.
    pub(super) fn biases(&self, lanes: usize) -> Vec<f32> {
        (0..self.groups).flat_map(|g| pack(self.outs, 1, lanes, false, move |_, o| self.bias(g, o))).collect()
    }
}
