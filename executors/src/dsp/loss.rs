//! What a model loses by int8: its outputs beside those of the f32 original, on samples, both in onnxruntime.
//! It refuses to judge: accuracy needs labels, which are the user's.

use crate::cpu;
use crate::graph::Graph;
use crate::processor::ExecError;
use crate::tensor::{Data, Tensor};
use serde::Serialize;

/// One output of the int8 form beside that of the original, over all samples.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Loss {
    /// Name of the output.
    pub output: String,
    /// Samples that the numbers were made on.
    pub samples: usize,
    /// Signal to quantisation noise in dB: power of the original over power of the difference. `None`: no difference at all.
    pub sqnr_db: Option<f64>,
    /// Largest difference.
    pub largest: f64,
    /// Mean of the magnitudes of all differences.
    pub mean: f64,
    /// Cosine of the angle between the two, as vectors over all samples; 1 where both are zero.
    pub cosine: f64,
    /// Where the output looks like scores of classes (`[rows, classes]`): in how many rows the best is the same, of how many.
    pub top1: Option<[usize; 2]>,
}

/// Sums over samples.
#[derive(Default)]
struct Sums {
    loss: Loss,
    count: f64,
    differences: f64,
    noise: f64,
    original: f64,
    other: f64,
    product: f64,
}

impl Sums {
    fn add(&mut self, original: &Tensor, other: &Tensor) {
        let (a, b) = (numbers(&original.data), numbers(&other.data));
        for (x, y) in a.iter().zip(&b) {
            let d = (x - y).abs();
            self.loss.largest = self.loss.largest.max(d);
            self.differences += d;
            self.noise += d * d;
            self.original += x * x;
            self.other += y * y;
            self.product += x * y;
        }
        self.count += a.len() as f64;
        self.loss.samples += 1;
        if let [rows, classes] = *original.shape
            && classes > 1
        {
            let pairs = a.chunks(classes).zip(b.chunks(classes));
            let same = pairs.filter(|(a, b)| best(a) == best(b)).count();
            let [before, of] = self.loss.top1.unwrap_or_default();
            self.loss.top1 = Some([before + same, of + rows]);
        }
    }

    fn end(self) -> Loss {
        let sqnr_db = (self.noise > 0.0).then(|| 10.0 * (self.original / self.noise).log10());
        let lengths = (self.original * self.other).sqrt();
        let cosine = match lengths {
            0.0 if self.original == self.other => 1.0,
            0.0 => 0.0,
            _ => self.product / lengths,
        };
        Loss { sqnr_db, cosine, mean: self.differences / self.count.max(1.0), ..self.loss }
    }
}

/// What each of `forms` (with the inputs and outputs of `graph`) loses against `graph` on `samples`: for each form its outputs.
///
/// # Errors
/// When onnxruntime refuses a graph or fails.
pub fn losses(graph: &Graph, forms: &[&Graph], samples: &[Vec<Tensor>]) -> Result<Vec<Vec<Loss>>, ExecError> {
    let mut original = cpu::reference(graph)?;
    let mut others = forms.iter().map(|form| cpu::reference(form)).collect::<Result<Vec<_>, _>>()?;
    let sums = |id| {
        let loss = Loss { output: graph.value(id).name.clone(), ..Loss::default() };
        Sums { loss, ..Sums::default() }
    };
    let mut all: Vec<Vec<Sums>> =
        forms.iter().map(|_| graph.outputs.iter().map(|id| sums(*id)).collect()).collect();
    for sample in samples {
        let inputs: Vec<&Tensor> = sample.iter().collect();
        let want = original.run(&inputs)?;
        for (other, sums) in others.iter_mut().zip(&mut all) {
            let got = other.run(&inputs)?;
            sums.iter_mut().zip(want.iter().zip(&got)).for_each(|(sums, (want, got))| sums.add(want, got));
        }
    }
    Ok(all.into_iter().map(|sums| sums.into_iter().map(Sums::end).collect()).collect())
}

/// The elements as numbers.
fn numbers(data: &Data) -> Vec<f64> {
    match data {
        Data::F32(v) => v.iter().map(|x| f64::from(*x)).collect(),
        Data::F16(v) => v.iter().map(|x| half::f16::from_bits(*x).to_f64()).collect(),
        Data::F64(v) => v.clone(),
        Data::I64(v) => v.iter().map(|x| *x as f64).collect(),
        Data::I32(v) => v.iter().map(|x| f64::from(*x)).collect(),
        Data::U8(v) | Data::Bool(v) => v.iter().map(|x| f64::from(*x)).collect(),
        Data::I8(v) => v.iter().map(|x| f64::from(*x)).collect(),
    }
}

/// The place of the largest number; of equal ones the last.
fn best(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(pairs: &[(&[f32], &[f32])], shape: &[usize]) -> Loss {
        let mut sums = Sums::default();
        for (a, b) in pairs {
            sums.add(&Tensor::f32(shape, a.to_vec()), &Tensor::f32(shape, b.to_vec()));
        }
        sums.end()
    }

    #[test]
    fn numbers_are_those_worked_out_by_hand() {
        // Differences 1 and 0, then 0 and 2: noise 5, signal 9 + 16 + 25 = 50.
        let l = loss(&[(&[3.0, 4.0], &[2.0, 4.0]), (&[5.0, 0.0], &[5.0, 2.0])], &[1, 2]);
        assert_eq!((l.samples, l.largest, l.mean, l.top1), (2, 2.0, 0.75, Some([2, 2])));
        assert!((l.sqnr_db.unwrap() - 10.0).abs() < 1e-9);
        // Products 6 + 16 + 25 = 47, powers 50 and 49.
        assert!((l.cosine - 47.0 / (50.0f64 * 49.0).sqrt()).abs() < 1e-12);
        // The saboteurs: another best class, and no difference at all.
        assert_eq!(loss(&[(&[3.0, 4.0], &[4.0, 3.0])], &[1, 2]).top1, Some([0, 1]));
        let same = loss(&[(&[0.0, 0.0], &[0.0, 0.0])], &[2]);
        assert_eq!((same.sqnr_db, same.cosine, same.top1), (None, 1.0, None));
    }
}
