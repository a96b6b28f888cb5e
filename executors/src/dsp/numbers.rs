//! The arithmetic of quantisation: scales, zero points, and constants turned into int8. It knows nothing of graphs.
//!
//! Activations are u8 and asymmetric: `real = scale * (q - zero)`, with 0 exactly representable. Weights are s8, symmetric, one scale
//! for each output channel. A bias is i32 with scale `activation scale * weight scale`. Signed activations would be 5 to 15
//! times slower in onnxruntime on x86.

/// Scale and zero point of a u8 activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QParams {
    /// Step between neighbouring numbers.
    pub scale: f32,
    /// The number that means 0.
    pub zero: u8,
}

/// Below this a range is taken as zero: smaller scales would underflow in a product of two.
const TINY: f32 = 1e-12;

impl QParams {
    /// The parameters that cover `min..=max`, widened to hold 0.
    pub fn covering(min: f32, max: f32) -> Self {
        let (min, max) = (min.min(0.0), max.max(0.0));
        // Halves first: the difference of two large finite numbers may be infinite.
        let scale = (max / 255.0 - min / 255.0).max(0.0);
        if scale < TINY {
            return Self { scale: 1.0, zero: 0 };
        }
        Self { scale, zero: (-min / scale).round().clamp(0.0, 255.0) as u8 }
    }

    /// The nearest number, saturating.
    pub fn quantise(self, x: f32) -> u8 {
        ((x / self.scale).round_ties_even() + f32::from(self.zero)).clamp(0.0, 255.0) as u8
    }
}

/// Weights as s8 with one scale for each index of `axis`.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// In the order of the original.
    pub data: Vec<i8>,
    /// One for each channel, or a single one.
    pub scales: Vec<f32>,
    /// The bias in steps of `scales[c] * activation scale`.
    pub bias: Option<Vec<i32>>,
}

/// Quantises weights of `shape`, one scale for each index of `axis` (`None`: one for all), with a `bias` of one number a channel.
/// `limit` is the largest magnitude used: 127, or 64 on x86 processors without VNNI, where sums of two products
/// saturate at 16 bits.
pub fn quantise_weights(
    w: &[f32],
    shape: &[usize],
    axis: Option<usize>,
    bias: Option<&[f32]>,
    input_scale: f32,
    limit: f32,
) -> Weights {
    let channels = axis.map_or(1, |a| shape[a]);
    let inner: usize = axis.map_or(w.len().max(1), |a| shape[a + 1..].iter().product());
    let channel = |i: usize| (i / inner) % channels;
    let mut largest = vec![0f32; channels];
    for (i, x) in w.iter().enumerate() {
        let m = &mut largest[channel(i)];
        *m = m.max(x.abs());
    }
    let mut scales: Vec<f32> =
        largest.iter().map(|m| if m / limit < TINY { 1.0 } else { m / limit }).collect();
    if let Some(bias) = bias {
        // A bias that is huge beside its weights would not fit 32 bits: coarser weights then lose nothing that counts.
        for (i, b) in bias.iter().enumerate() {
            let scale = &mut scales[if channels == 1 { 0 } else { i }];
            *scale = scale.max(b.abs() / input_scale / (1u32 << 30) as f32);
        }
    }
    let data = w
        .iter()
        .enumerate()
        .map(|(i, x)| (x / scales[channel(i)]).round_ties_even().clamp(-limit, limit) as i8)
        .collect();
    let bias = bias.map(|bias| {
        bias.iter()
            .enumerate()
            .map(|(i, b)| {
                let step = f64::from(scales[if channels == 1 { 0 } else { i }]) * f64::from(input_scale);
                (f64::from(*b) / step).round() as i32
            })
            .collect()
    });
    Weights { data, scales, bias }
}

/// Bits of the weights that this machine multiplies without saturating: 8 with VNNI instructions (and off x86), else 7.
pub fn weight_bits() -> u32 {
    #[cfg(target_arch = "x86_64")]
    if !(std::arch::is_x86_feature_detected!("avx512vnni") || std::arch::is_x86_feature_detected!("avxvnni"))
    {
        return 7;
    }
    8
}

/// The largest magnitude of weights of 7 or 8 bits.
///
/// # Errors
/// For another number of bits.
pub fn limit_of_bits(bits: u32) -> Result<f32, String> {
    match bits {
        7 => Ok(64.0),
        8 => Ok(127.0),
        _ => Err(format!("expected 7 or 8, got {bits}")),
    }
}

/// The largest weight magnitude that this machine multiplies without saturating.
pub fn weight_limit() -> f32 {
    limit_of_bits(weight_bits()).unwrap_or(127.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_the_error_is_below_a_step() {
        for (min, max) in [(-1.0, 1.0), (0.0, 6.0), (-3.0, 0.0), (0.5, 7.0), (-1e-3, 4e4), (-3e38, 3e38)] {
            let q = QParams::covering(min, max);
            let back = |x: f32| (f32::from(q.quantise(x)) - f32::from(q.zero)) * q.scale;
            assert_eq!(back(0.0), 0.0);
            for k in 0..=100 {
                let t = k as f32 / 100.0;
                let x = min * (1.0 - t) + max * t;
                // The ends may lie half a step outside, because the zero point is rounded.
                assert!((back(x) - x).abs() <= q.scale * 1.001, "{x} in {min}..{max} became {}", back(x));
            }
        }
    }

    #[test]
    fn a_dead_range_and_a_dead_channel_are_harmless() {
        assert_eq!(QParams::covering(0.0, 0.0), QParams { scale: 1.0, zero: 0 });
        let w = quantise_weights(&[0.0, 0.0, 1.0, -1.0], &[2, 2], Some(0), Some(&[5.0, 0.5]), 0.1, 127.0);
        assert_eq!((w.data[0], w.data[2], w.data[3]), (0, 127, -127));
        assert!((w.bias.unwrap()[0] as f32 * w.scales[0] * 0.1 - 5.0).abs() < 0.06);
    }

    #[test]
    fn a_huge_bias_fits() {
        let w = quantise_weights(&[1e-9, -1e-9], &[1, 2], Some(0), Some(&[100.0]), 1e-3, 127.0);
        let back = f64::from(w.bias.unwrap()[0]) * f64::from(w.scales[0]) * 1e-3;
        assert!((back - 100.0).abs() < 1e-3, "{back}");
    }

    #[test]
    fn channels_along_the_last_axis() {
        let w = quantise_weights(&[1.0, 10.0, -1.0, 5.0], &[2, 2], Some(1), None, 1.0, 127.0);
        assert_eq!(w.data, [127, 127, -127, 64]);
    }
}
