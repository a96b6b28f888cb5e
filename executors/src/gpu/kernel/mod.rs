//! The kernels: [`Spec`] is the specialisation key, [`Spec::build`] makes the kernel that every dialect prints.
//! Shapes are launch parameters, so few specialisations serve a whole network. It refuses to know graphs and devices.

pub mod builder;
mod columns;
pub mod elementwise;
pub mod ir;
pub mod pool;
pub mod print;
pub mod reduce;
mod reduce_rows;
pub mod strip;
pub mod tile;
pub mod unary;
pub mod window;
pub mod winograd;
mod winograd_rows;

use elementwise::{AcrossRows, Binary};
use ir::{Buf, Kernel};
use pool::PoolStrip;
use reduce::Reduction;
use strip::Strip;
use tile::Tile;
use unary::Unary;
use window::Pool;

/// What a kernel is specialised on. Equal keys share one compiled pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spec {
    /// Convolution and matrix product as a register tile.
    Tile(Tile),
    /// Convolution by strips of rows.
    Strip(Strip),
    /// Winograd's transform of the input, for so many outputs a side, by vectors of so many tiles.
    WinogradInput(u32, u32),
    /// Winograd's transform of the products, likewise; `true`: another tensor is added; then a fused function.
    WinogradOutput(u32, u32, bool, Unary),
    /// One operand, contiguous.
    Unary(Unary),
    /// One operand or two, by vectors along the last axis, then a fused function.
    AcrossRows(AcrossRows),
    /// Two operands with numpy broadcasting over so many axes, then a fused function.
    Broadcast(Binary, Buf, Buf, usize, Unary),
    /// A strided copy over so many axes.
    Copy(Buf, usize),
    /// A strided copy over so many axes, the last of them without gaps on both sides: vectors of so many lanes, and how many.
    CopyRows(Buf, usize, u32, u32),
    /// A strided copy over so many axes: elements of the last axis an invocation, and whether they are far apart.
    CopyLines(Buf, usize, u32, bool),
    /// A strided copy with a constant around it over so many axes.
    Pad(usize),
    /// Rows picked by a table of indices.
    Gather(Buf),
    /// Scale and shift per channel, then a fused function.
    Affine(Unary),
    /// A reduction over up to two groups of axes, by vectors of so many lanes.
    Reduce(Reduction, u32),
    /// Softmax along an axis, by vectors of so many lanes; `true`: its logarithm.
    Softmax(bool, u32),
    /// Mean and variance over the last axes, by vectors of so many lanes.
    LayerNorm(u32),
    /// Local response normalisation: each element by those of its neighbouring channels.
    Lrn,
    /// Maximum or average of a window.
    Pool(Pool),
    /// The same by strips of rows.
    PoolStrip(PoolStrip),
    /// Interpolation between two rows and two columns picked by tables.
    Resize,
}

impl Spec {
    /// Whether it takes indices from its constants: those must stay exact.
    pub fn indexed(&self) -> bool {
        matches!(self, Spec::Gather(_) | Spec::Resize)
    }

    /// The kernel.
    pub fn build(&self) -> Kernel {
        match *self {
            Spec::Tile(tile) => tile::build(tile),
            Spec::Strip(strip) => strip::build(strip),
            Spec::WinogradInput(size, 1) => winograd::input(size),
            Spec::WinogradInput(size, width) => winograd_rows::input(size, width),
            Spec::WinogradOutput(size, 1, residual, act) => winograd::output(size, residual, act),
            Spec::WinogradOutput(size, width, residual, act) => {
                winograd_rows::output(size, width, residual, act)
            }
            Spec::Unary(unary) => elementwise::unary(unary),
            Spec::AcrossRows(rows) => elementwise::across_rows(rows),
            Spec::Broadcast(op, a, b, rank, then) => elementwise::broadcast(op, a, b, rank, then),
            Spec::Copy(from, rank) => elementwise::copy(from, rank),
            Spec::CopyRows(from, rank, width, chunks) => elementwise::copy_rows(from, rank, width, chunks),
            Spec::CopyLines(from, rank, chunks, spread) => {
                elementwise::copy_lines(from, rank, chunks, spread)
            }
            Spec::Pad(rank) => elementwise::pad(rank),
            Spec::Gather(from) => elementwise::gather(from),
            Spec::Affine(then) => elementwise::affine(then),
            Spec::Reduce(kind, 1) => reduce::reduce(kind),
            Spec::Reduce(kind, width) => reduce_rows::reduce(kind, width),
            Spec::Softmax(log, 1) => reduce::softmax(log),
            Spec::Softmax(log, width) => reduce_rows::softmax(log, width),
            Spec::LayerNorm(1) => reduce::layer_norm(),
            Spec::LayerNorm(width) => reduce_rows::layer_norm(width),
            Spec::Lrn => reduce::lrn(),
            Spec::Pool(kind) => window::pool(kind),
            Spec::PoolStrip(strip) => pool::build(strip),
            Spec::Resize => window::resize(),
        }
    }
}
