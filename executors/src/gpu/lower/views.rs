//! Lowers operators that only rename or reshape: no kernel runs. It refuses casts between types.

use super::{Group, Lower, elements};
use crate::graph::Node;

fn given(lower: &Lower<'_>, node: &Node) -> Result<crate::graph::ValueId, String> {
    let (id, value) = lower.input(node, 0)?;
    let out = node.outputs.first().copied().flatten().ok_or("it has no output")?;
    if elements(value) != elements(lower.graph.value(out)) {
        return Err(format!("{:?} does not view {:?}", value.shape, lower.graph.value(out).shape));
    }
    Ok(id)
}

pub(super) fn view(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    if group.node.op == "Dropout" {
        if group.node.outputs.get(1).copied().flatten().is_some() {
            return Err("the mask of Dropout".into());
        }
        if let Some(mode) = group.node.inputs.get(2).copied().flatten() {
            let off = matches!(lower.graph.constant(mode).map(|t| &t.data), Some(crate::tensor::Data::Bool(v)) if v.iter().all(|&v| v == 0));
            if !off {
                return Err("Dropout in training mode".into());
            }
        }
    }
    let id = given(lower, group.node)?;
    lower.alias(group.out, id);
    Ok(())
}

pub(super) fn cast(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    // Both types were checked to be f32 already: an input or an output of another type never comes here.
    let id = given(lower, group.node)?;
    lower.alias(group.out, id);
    Ok(())
}
