//! Parameters and operands of a step before memory is planned. They refuse to be numbers: offsets come with the plan.

use super::super::kernel::ir::Buf;

/// Where an operand is before memory is planned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Operand {
    /// In the arena.
    Slot(usize),
    /// Among the weights.
    Blob(usize),
}

impl Operand {
    pub(super) fn buf(self) -> Buf {
        match self {
            Operand::Slot(_) => Buf::Arena,
            Operand::Blob(_) => Buf::Weights,
        }
    }
}

/// A parameter before memory is planned.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg {
    Int(i64),
    Float(f32),
    /// The offset of an operand plus some elements, counted in units of so many elements.
    At(Operand, i64, u32),
}

/// Named parameters of one step.
#[derive(Clone, Debug, Default)]
pub(super) struct Args(pub Vec<(String, Arg)>);

impl Args {
    pub(super) fn new() -> Self {
        Self::default()
    }
    pub(super) fn int(mut self, name: &str, v: usize) -> Self {
        self.0.push((name.to_string(), Arg::Int(v as i64)));
        self
    }
    pub(super) fn signed(mut self, name: &str, v: i64) -> Self {
        self.0.push((name.to_string(), Arg::Int(v)));
        self
    }
    pub(super) fn float(mut self, name: &str, v: f32) -> Self {
        self.0.push((name.to_string(), Arg::Float(v)));
        self
    }
    pub(super) fn at(self, name: &str, operand: Operand) -> Self {
        self.at_plus(name, operand, 0)
    }
    pub(super) fn at_plus(mut self, name: &str, operand: Operand, plus: i64) -> Self {
        self.0.push((name.to_string(), Arg::At(operand, plus, 1)));
        self
    }
    pub(super) fn vectors(mut self, name: &str, operand: Operand, width: u32) -> Self {
        self.0.push((name.to_string(), Arg::At(operand, 0, width)));
        self
    }
    /// `name0`, `name1`, ...
    pub(super) fn list(mut self, name: &str, all: &[i64]) -> Self {
        self.0.extend(all.iter().enumerate().map(|(i, v)| (format!("{name}{i}"), Arg::Int(*v))));
        self
    }
    /// The constants of a fused function.
    pub(super) fn act(self, constants: [f32; 2]) -> Self {
        self.float("a", constants[0]).float("b", constants[1])
    }
}
