//! Lowers pooling and resizing. It refuses the indices of MaxPool, cubic interpolation, and resizing of other than the last two axes.

use super::super::kernel::Spec;
use super::super::kernel::pool::PoolStrip;
use super::super::kernel::window::Pool;
use super::choice::few;
use super::spatial::{Window, window};
use super::{Args, Group, Lower, Operand, Target, elements};
use crate::graph::Node;
use crate::tensor::Data;

pub(super) fn pool(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let node = group.node;
    let (id, value) = lower.input(node, 0)?;
    if node.outputs.get(1).copied().flatten().is_some() {
        return Err("the indices of MaxPool".into());
    }
    let kernel = node.ints("kernel_shape").ok_or("attribute kernel_shape is missing")?;
    if kernel.iter().any(|&k| k < 1) {
        return Err(format!("attribute kernel_shape = {kernel:?}"));
    }
    let kernel: Vec<usize> = kernel.iter().map(|&k| k as usize).collect();
    let w = window(node, &value.shape, &lower.graph.value(group.out).shape, &kernel)?;
    let kind = match (node.op.as_str(), node.int("count_include_pad", 0)) {
        ("MaxPool", _) => Pool::Max,
        (_, 0) => Pool::Average,
        _ => Pool::AveragePadded,
    };
    let (x, out) = (lower.in_arena(id), lower.output(group.out));
    let args = Args::new()
        .window(&w)
        .signed("end_h", w.input[0] as i64 + w.after[0])
        .signed("end_w", w.input[1] as i64 + w.after[1])
        .float("lowest", f32::NEG_INFINITY)
        .at("x_at", x)
        .at("out_at", out);
    let total = elements(lower.graph.value(group.out));
    let Some(strip) = strip(lower.target, &w, kind) else {
        lower.emit(Spec::Pool(kind), args, total);
        return Ok(());
    };
    let tiles_x = w.output[1].div_ceil((strip.width * strip.across) as usize);
    let tiles_y = w.output[0].div_ceil(strip.rows as usize);
    let planes = total / (w.output[0] * w.output[1]);
    let args = args.int("tiles_x", tiles_x).int("tiles_y", tiles_y);
    lower.emit(Spec::PoolStrip(strip), args, planes * tiles_x * tiles_y);
    Ok(())
}

/// The strip for a window, where one fits.
fn strip(target: &Target, w: &Window, kind: Pool) -> Option<PoolStrip> {
    // A vector reads what lies beside a row, as far as the padding goes: the arena's guard is no wider than small windows need.
    let near = [w.before[1], w.after[1]].iter().all(|&pad| pad < w.kernel[1] as i64);
    if w.dilation != [1, 1] || !near || w.kernel.iter().any(|&k| k > 7) || w.stride.iter().any(|&s| s > 7) {
        return None;
    }
    let (width, across) = match target.rows {
        false => (1, 1),
        true if w.stride[1] > 2 => return None,
        true => ([16, 8, 4].into_iter().find(|v| w.output[1] >= *v as usize && *v <= target.width)?, 1),
    };
    let reach =
        |axis: usize| ((w.output[axis] - 1) * w.stride[axis] + w.kernel[axis]) as i64 - w.before[axis];
    Some(PoolStrip {
        kind,
        width,
        across,
        rows: if w.output[0] < 4 { few(w.output[0] / 2 + 1) } else { 4 },
        kernel: w.kernel.map(|k| k as u32),
        stride: w.stride.map(|s| s as u32),
        edges: (0..2).any(|axis| w.before[axis] > 0 || reach(axis) > w.input[axis] as i64),
    })
}

/// For each output position the two input positions and the weight of the second.
fn table(node: &Node, from: usize, to: usize, scale: f64) -> Result<Vec<f32>, String> {
    let linear = match node.str("mode").unwrap_or("nearest") {
        "nearest" => false,
        "linear" => true,
        other => return Err(format!("attribute mode = `{other}`, only nearest and linear are supported")),
    };
    let rule = node.str("coordinate_transformation_mode").unwrap_or("half_pixel");
    let rounding = node.str("nearest_mode").unwrap_or("round_prefer_floor");
    let mut all = Vec::with_capacity(3 * to);
    for o in 0..to {
        // As onnxruntime does, coordinates are computed in f32.
        let (o, s) = (o as f32, scale as f32);
        let at = match rule {
            "half_pixel" => (o + 0.5) / s - 0.5,
            "pytorch_half_pixel" => {
                if to > 1 {
                    (o + 0.5) / s - 0.5
                } else {
                    0.0
                }
            }
            "asymmetric" => o / s,
            "align_corners" => {
                if to > 1 {
                    o * (from as f32 - 1.0) / (to as f32 - 1.0)
                } else {
                    0.0
                }
            }
            other => return Err(format!("attribute coordinate_transformation_mode = `{other}`")),
        };
        let last = from as f32 - 1.0;
        if linear {
            let at = at.clamp(0.0, last);
            let low = at.floor();
            all.extend([low, (low + 1.0).min(last), at - low]);
        } else {
            let nearest = match rounding {
                "round_prefer_floor" => (at - 0.5).ceil(),
                "round_prefer_ceil" => (at + 0.5).floor(),
                "floor" => at.floor(),
                "ceil" => at.ceil(),
                other => return Err(format!("attribute nearest_mode = `{other}`")),
            };
            let nearest = nearest.clamp(0.0, last);
            all.extend([nearest, nearest, 0.0]);
        }
    }
    Ok(all)
}

pub(super) fn resize(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let node = group.node;
    let (id, value) = lower.input(node, 0)?;
    let out_shape = lower.graph.value(group.out).shape.clone();
    let (from, to) = (&value.shape, &out_shape);
    if from.len() != 4 || from[..2] != to[..2] {
        return Err(format!("resizing {from:?} to {to:?}; only the last two of four axes can change"));
    }
    let policy = node.str("keep_aspect_ratio_policy").unwrap_or("stretch");
    if policy != "stretch"
        || node.ints("axes").is_some()
        || node.int("antialias", 0) != 0
        || node.int("exclude_outside", 0) != 0
    {
        return Err("axes, antialias, exclude_outside or keep_aspect_ratio_policy".into());
    }
    // Scales that were given count, those that follow from the sizes otherwise.
    let given = lower.graph.constant_input(node, 2).and_then(|t| match &t.data {
        Data::F32(v) if v.len() == 4 => Some([v[2] as f64, v[3] as f64]),
        _ => None,
    });
    let scales = given.unwrap_or([to[2] as f64 / from[2] as f64, to[3] as f64 / from[3] as f64]);
    let rows = table(node, from[2], to[2], scales[0])?;
    let columns = table(node, from[3], to[3], scales[1])?;
    let rows = Operand::Blob(lower.blob(rows.len(), move || rows.clone()));
    let columns = Operand::Blob(lower.blob(columns.len(), move || columns.clone()));
    let (x, out) = (lower.in_arena(id), lower.output(group.out));
    let args = Args::new()
        .int("ih", from[2])
        .int("iw", from[3])
        .int("oh", to[2])
        .int("ow", to[3])
        .at("rows_at", rows)
        .at("columns_at", columns)
        .at("x_at", x)
        .at("out_at", out);
    lower.emit(Spec::Resize, args, out_shape.iter().product());
    Ok(())
}
