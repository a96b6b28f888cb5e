//! Chips of XRBench by their names: `Dual_4K_BigLittle__WS_OS` says how many accelerators there are, how large, and of which dataflow.
//! It refuses to know costs.

/// What a chip's name looks like, for errors.
pub const PATTERN: &str = "a chip like Single_4K__WS, Dual_8K__WS_OS, Dual_4K_BigLittle__WS_OS, Dual_4K_LittleBig__WS_OS or \
    Quad_4K__WS_OS_WS_OS";

/// A chip.
#[derive(Clone, Debug, PartialEq)]
pub struct Chip {
    /// Family and size under which costs are filed, such as `Dual_4K` (those of unequal halves too).
    pub key: String,
    /// Its accelerators in order.
    pub accelerators: Vec<Accelerator>,
}

/// One accelerator of a chip.
#[derive(Clone, Debug, PartialEq)]
pub struct Accelerator {
    /// Processing elements.
    pub elements: u32,
    /// Dataflow, such as `WS` (weight stationary).
    pub dataflow: String,
}

/// Reads a name: `FAMILY_SIZE[_SPLIT]__DATAFLOW_DATAFLOW...`, where the size is in units of 1024 processing elements (`4K`: 4096).
///
/// # Errors
/// What is wrong and what was expected.
pub fn parse(name: &str) -> Result<Chip, String> {
    let expected = |problem: String| format!("`{name}`: {problem}; expected {PATTERN}");
    let (body, dataflows) =
        name.split_once("__").ok_or_else(|| expected("no `__` before the dataflows".into()))?;
    let mut words = body.split('_');
    let (family, size, split) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next());
    if let Some(word) = words.next() {
        return Err(expected(format!("`{word}` is too much")));
    }
    let total =
        size.strip_suffix('K').and_then(|n| n.parse::<u32>().ok()).filter(|&n| (1..=1024).contains(&n));
    let total = 1024 * total.ok_or_else(|| expected(format!("`{size}` is no size from 1K to 1024K")))?;
    let elements = match (family, split) {
        ("Single", None) => vec![total],
        ("Dual", None) => vec![total / 2; 2],
        ("Quad", None) => vec![total / 4; 4],
        ("Dual", Some("BigLittle")) => vec![total / 4 * 3, total / 4],
        ("Dual", Some("LittleBig")) => vec![total / 4, total / 4 * 3],
        ("Single" | "Dual" | "Quad", Some(split)) => {
            return Err(expected(format!("`{family}` has no split `{split}`")));
        }
        _ => return Err(expected(format!("`{family}` is none of Single, Dual, Quad"))),
    };
    let dataflows: Vec<&str> = dataflows.split('_').collect();
    if dataflows.len() != elements.len() || dataflows.contains(&"") {
        return Err(expected(format!("{family} needs {} dataflows", elements.len())));
    }
    let accelerators = elements.into_iter().zip(dataflows);
    let accelerators = accelerators.map(|(elements, d)| Accelerator { elements, dataflow: d.to_owned() });
    Ok(Chip { key: format!("{family}_{size}"), accelerators: accelerators.collect() })
}
