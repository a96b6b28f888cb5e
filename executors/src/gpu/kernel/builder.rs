//! Builds kernels: named values, variables, loops, parameters. It refuses assignments to anything but a variable.

use super::ir::{Expr, Kernel, MAX_PARAMS, Node, Stmt, Ty};
use std::collections::BTreeMap;

/// Builds the body of a kernel.
#[derive(Debug)]
pub struct Builder {
    params: Vec<String>,
    blocks: Vec<Vec<Stmt>>,
    names: BTreeMap<String, u32>,
    width: u32,
    together: bool,
}

impl Builder {
    /// An empty kernel that loads vectors of `width` lanes.
    pub fn new(width: u32) -> Self {
        let mut b = Self {
            params: Vec::new(),
            blocks: vec![Vec::new()],
            names: BTreeMap::new(),
            width,
            together: false,
        };
        b.param("total");
        b
    }

    /// The integer parameter `name`.
    pub fn param(&mut self, name: &str) -> Expr {
        let index = self.params.iter().position(|p| p == name).unwrap_or_else(|| {
            self.params.push(name.to_string());
            self.params.len() - 1
        });
        assert!(index < MAX_PARAMS, "too many parameters");
        Expr::new(Ty::Int, Node::Param(index, name.to_string()))
    }

    /// The float parameter `name` (passed as its bits).
    pub fn param_float(&mut self, name: &str) -> Expr {
        let bits = self.param(name);
        let value = Expr::new(Ty::Float, Node::BitsToFloat(bits));
        self.let_(name, value)
    }

    /// The number of this invocation, from 0 to `total` - 1.
    pub fn invocation(&self) -> Expr {
        Expr::new(Ty::Int, Node::Invocation)
    }

    fn fresh(&mut self, name: &str) -> String {
        let n = self.names.entry(name.to_string()).or_insert(0);
        *n += 1;
        // Every name gets a number: no clash with reserved words of either language.
        format!("{name}_{n}")
    }

    fn push(&mut self, s: Stmt) {
        self.blocks.last_mut().expect("a block is open").push(s);
    }

    /// Names a value.
    pub fn let_(&mut self, name: &str, e: Expr) -> Expr {
        let name = self.fresh(name);
        let ty = e.ty;
        self.push(Stmt::Let(name.clone(), e));
        Expr::new(ty, Node::Var(name))
    }

    /// Declares a variable.
    pub fn var(&mut self, name: &str, e: Expr) -> Expr {
        let name = self.fresh(name);
        let ty = e.ty;
        self.push(Stmt::Var(name.clone(), e));
        Expr::new(ty, Node::Var(name))
    }

    /// Assigns to a variable that [`Builder::var`] gave.
    pub fn set(&mut self, var: &Expr, e: Expr) {
        assert_eq!(var.ty, e.ty);
        match &*var.node {
            Node::Var(name) => self.push(Stmt::Set(name.clone(), e)),
            other => panic!("cannot assign to {other:?}"),
        }
    }

    /// Stores one f32 in the arena.
    pub fn store(&mut self, index: Expr, value: Expr) {
        assert_eq!((index.ty, value.ty), (Ty::Int, Ty::Float));
        self.push(Stmt::Store(index, value));
    }

    /// Stores a vector (or a float) in the arena from `index` on.
    pub fn store_row(&mut self, index: Expr, value: Expr) {
        match value.ty {
            Ty::Vec(_) => self.push(Stmt::StoreRow(index, value)),
            _ => self.store(index, value),
        }
    }

    /// The invocations of a subgroup work together from here on.
    pub fn together(&mut self) {
        self.together = true;
    }

    /// `for name in (from..to).step_by(step)`. The bounds must be made of literals and parameters: the lowering counts the iterations.
    pub fn for_step(
        &mut self,
        name: &str,
        from: impl Into<Expr>,
        to: impl Into<Expr>,
        step: i32,
        body: impl FnOnce(&mut Builder, Expr),
    ) {
        let var = self.fresh(name);
        self.blocks.push(Vec::new());
        body(self, Expr::new(Ty::Int, Node::Var(var.clone())));
        let body = self.blocks.pop().expect("the loop's block");
        self.push(Stmt::For { var, from: from.into(), to: to.into(), step, body });
    }

    /// `for name in 0..to`.
    pub fn for_(&mut self, name: &str, to: impl Into<Expr>, body: impl FnOnce(&mut Builder, Expr)) {
        self.for_step(name, 0, to, 1, body);
    }

    /// `for name in 0..to` with `unroll` bodies an iteration, for long loops: the software Vulkan counts iterations.
    pub fn for_unrolled(
        &mut self,
        name: &str,
        to: Expr,
        unroll: i32,
        mut body: impl FnMut(&mut Builder, Expr),
    ) {
        let whole = &to / unroll * unroll;
        self.for_step(name, 0, whole.clone(), unroll, |b, v| {
            for u in 0..unroll {
                body(b, &v + u);
            }
        });
        self.for_step(name, whole, to, 1, body);
    }

    /// Runs `body` where `condition` holds.
    pub fn if_(&mut self, condition: Expr, body: impl FnOnce(&mut Builder)) {
        self.blocks.push(Vec::new());
        body(self);
        let body = self.blocks.pop().expect("the if's block");
        self.push(Stmt::If(condition, body));
    }

    /// The finished kernel.
    pub fn finish(mut self, name: &str) -> Kernel {
        let body = self.blocks.pop().expect("the body");
        Kernel {
            name: name.to_string(),
            params: self.params,
            body,
            width: self.width,
            together: self.together,
        }
    }
}
