//! A digest of a graph: what it computes and with which weights, so that a plan can tell that a model has changed. It refuses to hear
//! names, which change nothing, and files, whose bytes may differ where the graph does not.

use crate::graph::{Attr, Graph, Node, ValueId};
use crate::tensor::Tensor;
use sha2::{Digest, Sha256};

/// The first 32 hexadecimal digits of a SHA-256 of types, shapes, constants, nodes, inputs and outputs.
pub fn of(graph: &Graph) -> String {
    let mut hash = Hash(Sha256::new());
    hash.number(graph.opset as u64);
    hash.many(graph.other_opsets.iter(), |hash, (domain, &version)| {
        hash.text(domain);
        hash.number(version as u64);
    });
    hash.many(graph.values.iter(), |hash, value| {
        hash.text(&value.dtype.to_string());
        hash.numbers(value.shape.iter().map(|&n| n as u64));
    });
    hash.many(graph.constants.iter(), |hash, (id, tensor)| {
        hash.number(id.0.into());
        hash.tensor(tensor);
    });
    hash.many(graph.nodes.iter(), Hash::node);
    for ids in [&graph.inputs, &graph.outputs] {
        hash.numbers(ids.iter().map(|id| id.0.into()));
    }
    hash.0.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Everything is preceded by its length or its kind, so that no two graphs give the same bytes.
struct Hash(Sha256);

impl Hash {
    fn number(&mut self, n: u64) {
        self.0.update(n.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn many<T>(&mut self, items: impl ExactSizeIterator<Item = T>, each: impl Fn(&mut Self, T)) {
        self.number(items.len() as u64);
        items.for_each(|item| each(self, item));
    }

    fn numbers(&mut self, numbers: impl ExactSizeIterator<Item = u64>) {
        self.many(numbers, Hash::number);
    }

    fn tensor(&mut self, tensor: &Tensor) {
        self.text(&tensor.dtype().to_string());
        self.numbers(tensor.shape.iter().map(|&n| n as u64));
        self.bytes(tensor.data.bytes());
    }

    fn node(&mut self, node: &Node) {
        self.text(&node.op);
        self.text(&node.domain);
        for ids in [&node.inputs, &node.outputs] {
            // 0 is one that is left out.
            self.numbers(ids.iter().map(|id| id.map_or(0, |ValueId(n)| 1 + u64::from(n))));
        }
        self.many(node.attrs.iter(), |hash, (name, attr)| {
            hash.text(name);
            hash.attr(attr);
        });
    }

    fn attr(&mut self, attr: &Attr) {
        let kind = match attr {
            Attr::Int(_) => 0,
            Attr::Ints(_) => 1,
            Attr::Float(_) => 2,
            Attr::Floats(_) => 3,
            Attr::String(_) => 4,
            Attr::Strings(_) => 5,
            Attr::Tensor(_) => 6,
        };
        self.number(kind);
        match attr {
            Attr::Int(n) => self.number(*n as u64),
            Attr::Ints(all) => self.numbers(all.iter().map(|&n| n as u64)),
            Attr::Float(x) => self.number(x.to_bits().into()),
            Attr::Floats(all) => self.numbers(all.iter().map(|x| x.to_bits().into())),
            Attr::String(text) => self.text(text),
            Attr::Strings(all) => self.many(all.iter(), |hash, text| hash.text(text)),
            Attr::Tensor(tensor) => self.tensor(tensor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Value;
    use crate::tensor::DType;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// `y = Scale(x, w)` with the attribute `axis`.
    fn graph() -> Graph {
        let value = |name: &str| Value { name: name.into(), dtype: DType::F32, shape: vec![2] };
        let node = Node {
            name: "n".into(),
            op: "Scale".into(),
            domain: String::new(),
            inputs: vec![Some(ValueId(0)), None, Some(ValueId(1))],
            outputs: vec![Some(ValueId(2))],
            attrs: BTreeMap::from([("axis".into(), Attr::Ints(vec![1, 2]))]),
        };
        Graph {
            name: "g".into(),
            opset: 17,
            values: vec![value("x"), value("w"), value("y")],
            constants: BTreeMap::from([(ValueId(1), Arc::new(Tensor::f32(&[2], vec![1.0, 2.0])))]),
            nodes: vec![node],
            inputs: vec![ValueId(0)],
            outputs: vec![ValueId(2)],
            ..Graph::default()
        }
    }

    #[test]
    fn only_names_change_nothing() {
        let with = |change: &dyn Fn(&mut Graph)| {
            let mut graph = graph();
            change(&mut graph);
            of(&graph)
        };
        let same = of(&graph());
        assert_eq!(same.len(), 32);
        assert_eq!(with(&|_| {}), same);
        let named = |g: &mut Graph| {
            g.name = "other".into();
            g.nodes[0].name = "other".into();
            g.values[0].name = "other".into();
        };
        assert_eq!(with(&named), same);
        let changes: &[&dyn Fn(&mut Graph)] = &[
            &|g| g.opset = 18,
            &|g| g.other_opsets = BTreeMap::from([("com.microsoft".into(), 1)]),
            &|g| g.values[0].shape = vec![1, 2],
            &|g| g.values[2].dtype = DType::F16,
            // The smallest step of one weight; the shape stays.
            &|g| {
                drop(
                    g.constants.insert(ValueId(1), Arc::new(Tensor::f32(&[2], vec![1.0, 2.0_f32.next_up()]))),
                )
            },
            &|g| drop(g.constants.insert(ValueId(1), Arc::new(Tensor::f32(&[1, 2], vec![1.0, 2.0])))),
            &|g| g.nodes[0].op = "Add".into(),
            &|g| g.nodes[0].domain = "com.microsoft".into(),
            &|g| g.nodes[0].inputs.swap(1, 2),
            &|g| g.nodes[0].inputs.push(None),
            &|g| drop(g.nodes[0].attrs.insert("axis".into(), Attr::Ints(vec![2, 1]))),
            &|g| drop(g.nodes[0].attrs.insert("axis".into(), Attr::Int(2))),
            &|g| g.nodes.push(g.nodes[0].clone()),
            &|g| g.outputs.push(ValueId(0)),
            &|g| g.inputs.clear(),
        ];
        let mut seen = vec![same];
        for (i, change) in changes.iter().enumerate() {
            let digest = with(*change);
            assert!(!seen.contains(&digest), "change {i} is not seen");
            seen.push(digest);
        }
    }
}
