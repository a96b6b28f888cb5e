//! How a convolution or matrix product may be computed: the candidates, best guess first, and the choices that were measured.
//! It refuses to measure: a device does, in `gpu/tune.rs`.

use super::Target;
use serde::{Deserialize, Serialize};

/// What the lanes of a register tile run along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Along {
    /// Output channels of a convolution; columns of a matrix product.
    Channels,
    /// Output positions of a convolution.
    Positions,
}

/// The numbers of a register tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TileShape {
    /// What its lanes are.
    pub along: Along,
    /// Lanes of a vector.
    pub width: u32,
    /// Vectors.
    pub chunks: u32,
    /// Rows of vectors.
    pub pixels: u32,
    /// Invocations of a subgroup that load weights for each other; 0: each for itself.
    pub share: u32,
}

/// One way to compute a convolution or matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Choice {
    /// A register tile over the window itself.
    Tile(TileShape),
    /// Strips of rows: lanes of a vector, vectors, rows, output channels.
    Strip {
        /// Lanes of a vector.
        width: u32,
        /// Vectors side by side.
        across: u32,
        /// Output rows.
        rows: u32,
        /// Output channels.
        outs: u32,
    },
    /// Winograd's transforms for so many outputs a side, and a register tile for the products.
    Winograd {
        /// 2 or 4.
        size: u32,
        /// The tile of the products.
        tile: TileShape,
    },
}

/// A problem with its candidates, as the lowering met it.
#[derive(Clone, Debug, PartialEq)]
pub struct Met {
    /// The node that it belongs to.
    pub node: String,
    /// The problem: equal texts are equal work.
    pub key: String,
    /// All ways, best guess first.
    pub candidates: Vec<Choice>,
}

/// A matrix product: lanes run over `columns`, rows of vectors over `rows`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub along: Along,
    pub columns: usize,
    pub rows: usize,
    /// Whether lanes must lie side by side in memory (whole vectors are loaded or stored).
    pub whole: bool,
    /// Whether the vectors are packed constants, which a subgroup may share.
    pub packed: bool,
}

/// At least so many, as a power of two: what is left over repeats the last, and few numbers make few kernels to compile.
pub(super) fn few(n: usize) -> u32 {
    n.clamp(1, 1 << 16).next_power_of_two() as u32
}

/// The register tiles that pay on `target`, best guess first.
pub(super) fn tiles(target: &Target, room: Room) -> Vec<TileShape> {
    let shape = |width, chunks, pixels, share| TileShape { along: room.along, width, chunks, pixels, share };
    let pixels = |most: u32| few(room.rows).min(most);
    // One row leaves all but one invocation of a subgroup without work.
    if target.share > 0 && room.rows > 1 {
        return shared(target, room);
    }
    let mut width = target.width;
    while width > 4 && room.columns < width as usize {
        width /= 2;
    }
    let fits = |chunks: u32| !room.whole || room.columns >= (width * chunks) as usize;
    if !fits(1) || room.columns <= 2 {
        return vec![shape(1, 1, pixels(target.pixels), 0)];
    }
    // Rows beyond the last are computed for nothing: lower tiles, which are a tenth slower, waste fewer.
    let waste = |rows: usize| room.rows.next_multiple_of(rows) as f64;
    let all: &[(u32, u32)] = match target.width {
        16 if waste(12) > 1.1 * waste(8) => &[(2, 8), (2, 12), (2, 6), (1, 14), (4, 6), (1, 4)],
        16 => &[(2, 12), (2, 8), (2, 6), (1, 14), (4, 6), (1, 4)],
        _ => &[(2, 8), (2, 4), (1, 8), (4, 4)],
    };
    let wanted =
        all.iter().filter(|(chunks, _)| fits(*chunks) && room.columns > (width * (chunks - 1)) as usize);
    let mut all: Vec<_> = wanted.map(|&(chunks, rows)| shape(width, chunks, pixels(rows), 0)).collect();
    let mut seen = std::collections::HashSet::new();
    all.retain(|shape| seen.insert(*shape));
    all
}

/// For devices where subgroups share loads: many channels a tile, few positions.
fn shared(target: &Target, room: Room) -> Vec<TileShape> {
    let shape = |chunks, pixels, share| TileShape { along: room.along, width: 4, chunks, pixels, share };
    if !room.packed {
        return vec![shape(if room.columns > 4 { 2 } else { 1 }, few(room.rows).min(8), 0)];
    }
    // Enough invocations for whole subgroups come first.
    let fewest = few(room.rows.div_ceil(target.share as usize));
    let mut all = Vec::new();
    for (lanes, pixels) in [(32, 4), (64, 2), (16, 4), (32, 8), (16, 8), (8, 8)] {
        let waste = room.columns.next_multiple_of(lanes as usize) as f64 / room.columns as f64;
        if waste <= 1.34 || lanes == 8 {
            let shape = shape(lanes / 4, pixels.min(fewest), target.share);
            if !all.contains(&shape) {
                all.push(shape);
            }
        }
    }
    all
}
