//! Adam (Kingma and Ba, ICLR 2015) in a few tensor operations, because libtorch's own keeps its moments to itself and a training that
//! was stopped needs them to go on. It refuses to know what the variables mean.

use tch::Tensor;

/// Decay of the first moment.
const BETA1: f64 = 0.9;
/// Decay of the second moment.
const BETA2: f64 = 0.999;
/// Keeps steps finite where gradients vanish.
const EPSILON: f64 = 1e-5;

/// Variables with the moments of their gradients.
pub struct Adam {
    variables: Vec<Tensor>,
    /// Moving average of the gradient, one tensor for each variable.
    pub first: Vec<Tensor>,
    /// Moving average of the squared gradient, one tensor for each variable.
    pub second: Vec<Tensor>,
    /// Steps taken.
    pub steps: u64,
}

impl Adam {
    /// An optimizer of these variables that has seen nothing.
    pub fn new(variables: Vec<Tensor>) -> Adam {
        let zeros = || variables.iter().map(|v| v.zeros_like().set_requires_grad(false)).collect();
        Adam { first: zeros(), second: zeros(), steps: 0, variables }
    }

    /// One step of size `rate` down the gradient of `loss`, whose norm (over all variables) is cut to `max_gradient`:
    ///
    /// `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`, `x -= rate m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)`.
    pub fn descend(&mut self, loss: &Tensor, rate: f64, max_gradient: f64) {
        for variable in &mut self.variables {
            variable.zero_grad();
        }
        loss.backward();
        tch::no_grad(|| {
            let gradients: Vec<Tensor> = self.variables.iter().map(Tensor::grad).collect();
            let norms: Vec<Tensor> = gradients.iter().filter(|g| g.defined()).map(Tensor::norm).collect();
            let norm = Tensor::stack(&norms, 0).norm().double_value(&[]);
            let cut = f64::min(max_gradient / (norm + 1e-6), 1.0);
            self.steps += 1;
            let step = rate / (1.0 - BETA1.powf(self.steps as f64));
            let root = (1.0 - BETA2.powf(self.steps as f64)).sqrt();
            for (i, gradient) in gradients.into_iter().enumerate() {
                if !gradient.defined() {
                    continue;
                }
                let g = if cut < 1.0 { gradient * cut } else { gradient };
                self.first[i] = &self.first[i] * BETA1 + &g * (1.0 - BETA1);
                self.second[i] = &self.second[i] * BETA2 + &g * &g * (1.0 - BETA2);
                let change = &self.first[i] / (self.second[i].sqrt() / root + EPSILON) * step;
                let moved = &self.variables[i] - change;
                self.variables[i].copy_(&moved);
            }
        });
    }
}
