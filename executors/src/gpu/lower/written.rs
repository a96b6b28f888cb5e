//! Functions that exporters (and onnxruntime's folding) write out in several nodes, recognised as one: `x * sigmoid(x)`, the same with a hard
//! sigmoid, and GELU by `Erf`.
//! It refuses whatever differs from them: another constant, another reader of a value in between.

use super::super::kernel::unary::Unary;
use crate::graph::{Graph, Node, ValueId};

/// How nodes are found by what they read.
pub(super) struct Readers<'a> {
    pub graph: &'a Graph,
    /// The nodes that read a value, once for each time they do; empty for outputs of the graph.
    pub of: &'a dyn Fn(ValueId) -> &'a [usize],
}

/// A function of one value: itself, its nodes in order, and its result.
pub(super) type Found = (Unary, Vec<usize>, ValueId);

/// The function of `x` that its readers amount to.
pub(super) fn function(readers: &Readers<'_>, x: ValueId) -> Option<Found> {
    let &[a, b] = (readers.of)(x) else { return None };
    [(a, b), (b, a)].into_iter().find_map(|(inner, outer)| {
        let found = silu(readers, x, inner, outer).or_else(|| gelu(readers, x, inner, outer))?;
        let shape = |id: ValueId| &readers.graph.value(id).shape;
        (shape(found.2) == shape(x)).then_some(found)
    })
}

impl Readers<'_> {
    fn node(&self, n: usize) -> &Node {
        &self.graph.nodes[n]
    }

    /// The only output of node `n` when that is an `op`.
    fn out(&self, n: usize, op: &str) -> Option<ValueId> {
        let node = self.node(n);
        match node.outputs[..] {
            [Some(out)] if node.op == op && node.domain.is_empty() => Some(out),
            _ => None,
        }
    }

    /// The only reader of `value`, and its output, when that is an `op`.
    fn next(&self, value: ValueId, op: &str) -> Option<(usize, ValueId)> {
        match *(self.of)(value) {
            [n] => Some((n, self.out(n, op)?)),
            _ => None,
        }
    }

    /// Whether node `n` reads `a` and `b`, in any order.
    fn reads(&self, n: usize, a: ValueId, b: ValueId) -> bool {
        let inputs = &self.node(n).inputs[..];
        inputs == [Some(a), Some(b)] || inputs == [Some(b), Some(a)]
    }

    /// The scalar that node `n` has beside `value`; the flag says whether it stands behind it.
    fn scalar(&self, n: usize, value: ValueId) -> Option<(f32, bool)> {
        let &[Some(a), Some(b)] = &self.node(n).inputs[..] else { return None };
        let (other, behind) = if a == value { (b, true) } else { (a, false) };
        match self.graph.constant(other)?.as_f32()? {
            [v] => Some((*v, behind)),
            _ => None,
        }
    }

    /// Whether node `n` has the scalar `wanted` beside `value`.
    fn has(&self, n: usize, value: ValueId, wanted: f32) -> bool {
        self.scalar(n, value).is_some_and(|(v, _)| (v - wanted).abs() <= 1e-6 * wanted)
    }
}

/// `x * sigmoid(x)`, and with a hard sigmoid of slope 1/6 HardSwish.
fn silu(r: &Readers<'_>, x: ValueId, inner: usize, outer: usize) -> Option<Found> {
    let node = r.node(inner);
    let hard = (node.float("alpha", 0.2) - 1.0 / 6.0).abs() < 1e-6 && node.float("beta", 0.5) == 0.5;
    let (gate, function) = match node.op.as_str() {
        "Sigmoid" => (r.out(inner, "Sigmoid")?, Unary::Silu),
        _ => (r.out(inner, "HardSigmoid").filter(|_| hard)?, Unary::HardSwish),
    };
    let (product, out) = r.next(gate, "Mul")?;
    (product == outer && r.reads(product, x, gate)).then(|| (function, vec![inner, outer], out))
}

/// `x * 0.5 * (erf(x / sqrt(2)) + 1)`, the factors in any order.
fn gelu(r: &Readers<'_>, x: ValueId, inner: usize, outer: usize) -> Option<Found> {
    let root = std::f32::consts::SQRT_2;
    let scaled = match r.out(inner, "Div") {
        Some(out) => out,
        None => r.out(inner, "Mul")?,
    };
    let right = match r.node(inner).op.as_str() {
        "Div" => r.scalar(inner, x).is_some_and(|(v, behind)| behind && (v - root).abs() <= 1e-6 * root),
        _ => r.has(inner, x, 1.0 / root),
    };
    let (erf, bent) = r.next(scaled, "Erf").filter(|_| right)?;
    let (add, lifted) = r.next(bent, "Add").filter(|(n, _)| r.has(*n, bent, 1.0))?;
    let (product, value) = r.next(lifted, "Mul")?;
    let nodes = |last: usize| vec![inner, erf, add, outer, last];
    if product == outer {
        // x times that, and then a half.
        let (half, out) = r.next(value, "Mul").filter(|(n, _)| r.has(*n, value, 0.5))?;
        return r.reads(product, x, lifted).then(|| (Unary::Gelu, nodes(half), out));
    }
    // A half of x first.
    let half = r.out(outer, "Mul").filter(|_| r.has(outer, x, 0.5))?;
    let last = r.next(half, "Mul").is_some_and(|(n, _)| n == product);
    (last && r.reads(product, half, lifted)).then(|| (Unary::Gelu, nodes(product), value))
}

#[cfg(test)]
mod tests {
    use super::super::fuse::groups;
    use super::*;
    use crate::graph::Value;
    use crate::tensor::{DType, Tensor};
    use std::sync::Arc;

    /// A graph of lines like `y = Mul x half`: names that are numbers are scalars; the first value is the input, the last the output.
    fn graph(lines: &[&str]) -> Graph {
        let mut graph = Graph { name: "g".into(), opset: 17, ..Graph::default() };
        let id = |graph: &mut Graph, name: &str| {
            if let Some(i) = graph.values.iter().position(|v| v.name == name) {
                return ValueId(i as u32);
            }
            let scalar = name.parse::<f32>();
            let shape = if scalar.is_ok() { vec![] } else { vec![2, 3] };
            graph.values.push(Value { name: name.into(), dtype: DType::F32, shape });
            let new = ValueId(graph.values.len() as u32 - 1);
            if let Ok(v) = scalar {
                graph.constants.insert(new, Arc::new(Tensor::f32(&[], vec![v])));
            }
            new
        };
        graph.inputs = vec![id(&mut graph, "a")];
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            let inputs = words[3..].iter().map(|name| Some(id(&mut graph, name))).collect();
            let outputs = vec![Some(id(&mut graph, words[0]))];
            let op = words[2].to_owned();
            graph.nodes.push(Node {
                name: line.to_string(),
                op,
                domain: String::new(),
                inputs,
                outputs,
                attrs: Default::default(),
            });
        }
        graph.outputs = graph.nodes.last().and_then(|n| n.outputs[0]).into_iter().collect();
        graph
    }

    /// Groups, and the function of the first.
    fn found(lines: &[&str]) -> (usize, Option<Unary>) {
        let graph = graph(lines);
        let groups = groups(&graph);
        (groups.len(), groups[0].act.map(|(act, _)| act))
    }

    #[test]
    fn functions_are_recognised_and_nothing_like_them() {
        let silu = ["x = Add a a", "s = Sigmoid x", "y = Mul s x"];
        assert_eq!(found(&silu), (1, Some(Unary::Silu)));
        let exported = [
            "x = Add a a",
            "d = Div x 1.4142135",
            "e = Erf d",
            "l = Add e 1",
            "m = Mul x l",
            "y = Mul m 0.5",
        ];
        assert_eq!(found(&exported), (1, Some(Unary::Gelu)));
        // A hard sigmoid's slope is 0.2 unless it is said: another function. And a view in between does not matter.
        assert!(found(&["x = Add a a", "s = HardSigmoid x", "y = Mul s x"]).1.is_none());
        let viewed = ["x = Add a a", "v = Identity x", "s = Sigmoid v", "y = Mul s v"];
        assert_eq!(found(&viewed), (1, Some(Unary::Silu)));
        let half_first = [
            "x = Add a a",
            "h = Mul 0.5 x",
            "d = Mul x 0.70710677",
            "e = Erf d",
            "l = Add 1 e",
            "y = Mul h l",
        ];
        assert_eq!(found(&half_first), (1, Some(Unary::Gelu)));
        // Each change makes another function of it.
        for (line, other) in [
            (1, "d = Div x 1.5"),
            (1, "d = Div 1.4142135 x"),
            (3, "l = Add e 2"),
            (4, "m = Mul d l"),
            (5, "y = Mul m 0.25"),
        ] {
            let mut lines = exported;
            lines[line] = other;
            assert!(found(&lines).1.is_none(), "{other}");
        }
        assert_ne!(found(&["x = Add a a", "s = Sigmoid x", "y = Mul s a"]).1, Some(Unary::Silu));
        // A value in between that somebody else reads.
        let read = ["x = Add a a", "s = Sigmoid x", "y = Mul s x", "z = Add y s"];
        assert!(found(&read).1.is_none());
    }
}
