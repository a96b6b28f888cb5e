//! Windows over one or two spatial axes, as convolutions and poolings have them: extents, strides, dilations, pads.
//! It refuses three spatial axes, and pads that are negative.

use super::Args;
use crate::graph::Node;

/// Extents, strides, dilations and leading pads of a window, always for two axes (height 1 for one).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    pub kernel: [usize; 2],
    pub input: [usize; 2],
    pub output: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Pads before and after; only those before move anything, those after end the padded input.
    pub before: [i64; 2],
    pub after: [i64; 2],
}

impl Window {
    /// The window of a 1x1 convolution on planes of these extents.
    pub(super) fn pointwise(extents: [usize; 2]) -> Window {
        let ones = [1, 1];
        Window {
            kernel: ones,
            input: extents,
            output: extents,
            stride: ones,
            dilation: ones,
            before: [0; 2],
            after: [0; 2],
        }
    }
}

/// Two numbers from a list attribute of one or two spatial axes.
fn pair(node: &Node, name: &str, spatial: usize, default: usize) -> Result<[usize; 2], String> {
    let all = match node.ints(name) {
        None => vec![default; spatial],
        Some(v) if v.len() == spatial && v.iter().all(|&v| v >= 1) => v.iter().map(|&v| v as usize).collect(),
        Some(v) => return Err(format!("attribute {name} = {v:?}, expected {spatial} positive numbers")),
    };
    Ok(two(&all))
}

fn two(all: &[usize]) -> [usize; 2] {
    match all {
        [h, w] => [*h, *w],
        [w] => [1, *w],
        _ => [1, 1],
    }
}

/// Reads the window of a convolution or pooling node.
pub(super) fn window(
    node: &Node,
    input: &[usize],
    output: &[usize],
    kernel: &[usize],
) -> Result<Window, String> {
    let spatial = input.len().saturating_sub(2);
    if !(1..=2).contains(&spatial) || kernel.len() != spatial || output.len() != input.len() {
        return Err(format!("{spatial} spatial axes with a kernel {kernel:?}; one or two are supported"));
    }
    let mut w = Window {
        kernel: two(kernel),
        input: two(&input[2..]),
        output: two(&output[2..]),
        stride: pair(node, "strides", spatial, 1)?,
        dilation: pair(node, "dilations", spatial, 1)?,
        before: [0, 0],
        after: [0, 0],
    };
    let auto = node.str("auto_pad").unwrap_or("NOTSET");
    match (auto, node.ints("pads")) {
        ("NOTSET", None) | ("VALID", _) => {}
        ("NOTSET", Some(p)) if p.len() == 2 * spatial && p.iter().all(|&p| p >= 0) => {
            for axis in 0..spatial {
                w.before[2 - spatial + axis] = p[axis];
                w.after[2 - spatial + axis] = p[spatial + axis];
            }
        }
        ("NOTSET", Some(p)) => {
            return Err(format!("attribute pads = {p:?}, expected {} numbers from 0", 2 * spatial));
        }
        ("SAME_UPPER" | "SAME_LOWER", _) => {
            for axis in 2 - spatial..2 {
                let reach = (w.output[axis] as i64 - 1) * w.stride[axis] as i64
                    + (w.kernel[axis] as i64 - 1) * w.dilation[axis] as i64
                    + 1;
                let pad = (reach - w.input[axis] as i64).max(0);
                w.before[axis] = if auto == "SAME_UPPER" { pad / 2 } else { pad - pad / 2 };
                w.after[axis] = pad - w.before[axis];
            }
        }
        (other, _) => return Err(format!("attribute auto_pad = `{other}`")),
    }
    Ok(w)
}

impl Args {
    /// The parameters of a window.
    pub(super) fn window(self, w: &Window) -> Self {
        self.int("kh", w.kernel[0])
            .int("kw", w.kernel[1])
            .int("ih", w.input[0])
            .int("iw", w.input[1])
            .int("oh", w.output[0])
            .int("ow", w.output[1])
            .int("stride_h", w.stride[0])
            .int("stride_w", w.stride[1])
            .int("dilation_h", w.dilation[0])
            .int("dilation_w", w.dilation[1])
            .signed("pad_h", w.before[0])
            .signed("pad_w", w.before[1])
    }
}
