//! A convolution whose shapes were checked, and the ways to compute it on a device, best guess first.
//! It refuses weights that are not constant, and output shapes given by attribute.

use super::choice::{Along, Choice, Room, few, tiles as tiles_for};
use super::spatial::{Window, window};
use super::{Lower, Target};
use crate::graph::{Node, ValueId};
use crate::tensor::Tensor;
use std::sync::Arc;

/// A convolution whose shapes were checked.
#[derive(Clone)]
pub(super) struct Layer {
    pub id: ValueId,
    pub transposed: bool,
    pub weights: Arc<Tensor>,
    pub bias: Option<Arc<Tensor>>,
    pub window: Window,
    pub batch: usize,
    pub channels: usize,
    pub all_outs: usize,
    pub groups: usize,
}

impl Layer {
    pub(super) fn ins(&self) -> usize {
        self.channels / self.groups
    }
    pub(super) fn outs(&self) -> usize {
        self.all_outs / self.groups
    }
    pub(super) fn positions(&self) -> usize {
        self.window.output[0] * self.window.output[1]
    }
    pub(super) fn plane(&self) -> usize {
        self.window.input[0] * self.window.input[1]
    }
    pub(super) fn taps(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1]
    }
    /// Whether it is a matrix product as it lies in memory.
    pub(super) fn pointwise(&self) -> bool {
        let w = &self.window;
        !self.transposed
            && w.kernel == [1, 1]
            && w.stride == [1, 1]
            && w.before == [0, 0]
            && w.after == [0, 0]
    }

    /// Whether it is a transposed convolution whose windows do not overlap, without gaps.
    pub(super) fn blocks(&self) -> bool {
        let w = &self.window;
        let exact = (0..2).all(|axis| w.output[axis] == w.input[axis] * w.stride[axis]);
        self.transposed
            && self.groups == 1
            && w.kernel == w.stride
            && w.dilation == [1, 1]
            && w.before == [0, 0]
            && exact
    }

    /// Whether it cuts its input into patches that do not overlap.
    pub(super) fn patches(&self) -> bool {
        let w = &self.window;
        let exact = (0..2).all(|axis| w.input[axis] == w.output[axis] * w.stride[axis]);
        !self.transposed
            && self.groups == 1
            && self.taps() >= 16
            && w.kernel == w.stride
            && w.dilation == [1, 1]
            && w.before == [0, 0]
            && exact
    }

    /// What makes two layers equal work.
    pub(super) fn key(&self) -> String {
        let w = &self.window;
        let list = |v: [usize; 2]| format!("{}x{}", v[0], v[1]);
        format!(
            "{} {}x{}x{} to {}x{} window {} stride {} dilation {} pad {},{} groups {}",
            if self.transposed { "transposed conv" } else { "conv" },
            self.batch,
            self.channels,
            list(w.input),
            self.all_outs,
            list(w.output),
            list(w.kernel),
            list(w.stride),
            list(w.dilation),
            w.before[0],
            w.before[1],
            self.groups
        )
    }

    fn strips(&self, target: &Target) -> Vec<Choice> {
        let w = &self.window;
        let simple = !self.transposed && w.dilation == [1, 1] && w.stride[0] == w.stride[1];
        // A strip reads what lies beside a row, as far as the padding goes: the arena's guard is no wider than small windows need.
        let near = [w.before[1], w.after[1]].iter().all(|&pad| pad < w.kernel[1] as i64);
        if !simple || !near || w.stride[0] > 2 || w.kernel[0] > 7 || w.kernel[1] > 7 || self.pointwise() {
            return Vec::new();
        }
        if target.rows && self.ins() == 1 && self.outs() == 1 {
            return self.planes(target);
        }
        let deep = self.outs() > 1;
        let mut all = Vec::new();
        let sizes: &[(u32, u32)] = match (deep, target.rows) {
            (false, _) => &[(4, 1), (2, 1), (1, 1), (7, 1)],
            (true, true) => &[(2, 8), (1, 16), (4, 4), (1, 8)],
            (true, false) => &[(1, 8), (2, 4), (1, 4)],
        };
        let widths: Vec<(u32, u32)> = match target.rows {
            true => {
                let best = [16, 8, 4].into_iter().find(|v| w.output[1] >= *v as usize && *v <= target.width);
                best.map(|v| (v, 1)).into_iter().collect()
            }
            false => [4, 2].into_iter().filter(|v| w.output[1] >= *v as usize).map(|v| (1, v)).collect(),
        };
        for &(width, across) in &widths {
            for &(rows, outs) in sizes {
                // A strip must not be higher than the output; left-over channels repeat the last.
                let lower = if rows as usize > w.output[0] { few(w.output[0] / 2 + 1) } else { rows };
                let (rows, outs) = (lower, few(self.outs()).min(outs));
                let strip = Choice::Strip { width, across, rows, outs };
                // One body for each input row and column: large windows on many rows make too much text.
                let body = ((rows - 1) * w.stride[0] as u32 + w.kernel[0] as u32) * w.kernel[1] as u32 * outs;
                if !all.contains(&strip) && body <= 700 {
                    all.push(strip);
                }
            }
        }
        all
    }

    /// The strips of a depthwise layer where a vector is the SIMD unit: high ones, since to find its place costs an invocation as much as a row.
    fn planes(&self, target: &Target) -> Vec<Choice> {
        let [height, across] = self.window.output;
        let strip = |width: u32, rows: usize| Choice::Strip { width, across: 1, rows: rows as u32, outs: 1 };
        let fitting = [16, 8, 4].into_iter().find(|&v| v <= target.width && v as usize <= across);
        let mut all = Vec::new();
        // A vector that is a little wider than the plane beats two that overlap.
        let wider = across.next_power_of_two();
        if across > 4 && across < wider && wider <= target.width as usize && height <= 16 {
            all.push(strip(wider as u32, height));
        }
        if let Some(width) = fitting {
            let mut rows: Vec<usize> = [14, 8, 7, 4, 2, 1].into_iter().filter(|&r| r <= height).collect();
            rows.sort_by_key(|&r| height.next_multiple_of(r));
            all.extend(rows.into_iter().take(3).map(|rows| strip(width, rows)));
        }
        all
    }

    fn winograd(&self, target: &Target) -> Vec<Choice> {
        let w = &self.window;
        let fits = !self.transposed
            && w.kernel == [3, 3]
            && w.stride == [1, 1]
            && w.dilation == [1, 1]
            && self.groups == 1
            && self.ins() >= 16
            && self.outs() >= 16;
        if !fits {
            return Vec::new();
        }
        let mut all = Vec::new();
        let tiles = |size: usize| self.batch * w.output.map(|o| o.div_ceil(size)).iter().product::<usize>();
        // A few tiles do not fill the rows of a register tile.
        for size in if tiles(4) >= 12 { [4, 2] } else { [2, 4] } {
            let tiles = tiles(size);
            for along in [Along::Positions, Along::Channels] {
                let (columns, rows) = match along {
                    Along::Positions => (tiles, self.outs()),
                    Along::Channels => (self.outs(), tiles),
                };
                if along == Along::Positions && (!target.rows || columns < 16) {
                    continue;
                }
                let room = Room { along, columns, rows, whole: true, packed: along == Along::Channels };
                let best = tiles_for(target, room).into_iter().take(2);
                all.extend(best.map(|tile| Choice::Winograd { size: size as u32, tile }));
            }
        }
        all
    }

    /// Whether strips are better than Winograd where vectors run along positions: its transforms cost about 15 ns for each block of an input
    /// channel and 18 ns for each of an output channel (one core of an AMD EPYC 9004), and save 1.3 ns for each pair of channels.
    fn thin(&self, target: &Target) -> bool {
        let (ins, outs) = (self.ins() as f64, self.outs() as f64);
        target.rows && self.window.output[1] >= 16 && 1.3 * ins * outs < 15.0 * ins + 18.0 * outs
    }

    /// All ways, best guess first.
    pub(super) fn candidates(&self, target: &Target) -> Vec<Choice> {
        let along = Along::Channels;
        let room = Room { along, columns: self.outs(), rows: self.positions(), whole: false, packed: true };
        let channels = tiles_for(target, room).into_iter().map(Choice::Tile);
        if self.pointwise() {
            let (along, columns, rows) = (Along::Positions, self.positions(), self.outs());
            let room = Room { along, columns, rows, whole: true, packed: false };
            return match target.rows && columns >= 16 {
                true => tiles_for(target, room).into_iter().map(Choice::Tile).chain(channels).collect(),
                false => channels.collect(),
            };
        }
        let (strips, winograd) = (self.strips(target), self.winograd(target));
        // Where subgroups share loads, strips do not: they pay for single channels only.
        let few = self.outs() == 1 && self.ins() == 1 || self.ins() <= 4 && target.share == 0;
        match few || self.thin(target) {
            true => strips.into_iter().chain(channels).chain(winograd).collect(),
            false => winograd.into_iter().chain(channels).chain(strips).collect(),
        }
    }
}

/// Reads and checks a node.
pub(super) fn layer(lower: &Lower<'_>, node: &Node) -> Result<Layer, String> {
    let transposed = node.op == "ConvTranspose";
    let (id, x) = lower.input(node, 0)?;
    let weights = lower.constant(node, 1)?.ok_or("input 1 (the weights) is missing")?.clone();
    let bias = lower.constant(node, 2)?.cloned();
    let head_out = node.outputs.first().copied().flatten().ok_or("it has no output")?;
    let out_shape = lower.graph.value(head_out).shape.clone();
    if weights.shape.len() != x.shape.len() || x.shape.len() < 3 {
        return Err(format!("an input of shape {:?} with weights of shape {:?}", x.shape, weights.shape));
    }
    if transposed
        && (node.ints("output_shape").is_some()
            || node.str("auto_pad").is_some_and(|p| p.starts_with("SAME")))
    {
        return Err("output_shape and automatic pads of a transposed convolution".into());
    }
    let window = window(node, &x.shape, &out_shape, &weights.shape[2..])?;
    let groups =
        usize::try_from(node.int("group", 1)).ok().filter(|g| *g >= 1).ok_or("attribute group below 1")?;
    let (batch, channels, all_outs) = (x.shape[0], x.shape[1], out_shape[1]);
    let expected = if transposed { [channels, all_outs / groups] } else { [all_outs, channels / groups] };
    if weights.shape[..2] != expected || channels % groups != 0 || all_outs % groups != 0 {
        return Err(format!(
            "weights of shape {:?} for {channels} channels in {groups} groups",
            weights.shape
        ));
    }
    Ok(Layer { id, transposed, weights, bias, window, batch, channels, all_outs, groups })
}
