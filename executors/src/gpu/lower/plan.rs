//! The end of the lowering: memory is planned, constants are packed into pages, parameters become words.
//! It refuses plans that a device would not run correctly: too long loops, too large buffers.

use super::super::kernel::Spec;
use super::super::kernel::ir::Kernel;
use super::super::kernel::print::Kept;
use super::super::memory::{self, Lifetime, padded};
use super::{Arg, Draft, Lower, MAX_LOOPS, Operand, elements};
use crate::processor::Storage;
use crate::tensor::Tensor;
use std::collections::HashMap;
use std::sync::Arc;

/// A part of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset in floats.
    pub at: usize,
    /// Length in floats.
    pub floats: usize,
}

/// Where an output of the segment comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Read back from the arena.
    Arena(Span),
    /// It is this input of the segment.
    Input(usize),
    /// It is a constant.
    Constant(Arc<Tensor>),
}

/// One launch of one kernel.
#[derive(Clone, Debug)]
pub struct Step {
    /// The node that it belongs to, for messages.
    pub node: String,
    /// The kernel.
    pub spec: Spec,
    /// How the numbers that it sees are stored.
    pub kept: Kept,
    /// The words of its parameters.
    pub params: Vec<u32>,
    /// Which page of weights it reads.
    pub page: usize,
    /// Invocations.
    pub total: usize,
    /// The most loop iterations of one invocation.
    pub loops: u64,
    /// Multiplications and additions of a convolution or matrix product; 0 elsewhere.
    pub flops: u64,
}

/// Packed constants of several steps.
#[derive(Debug, Default)]
pub struct Page {
    /// The numbers.
    pub floats: Vec<f32>,
    /// How they go to the device.
    pub storage: Storage,
}

/// A segment ready for a device.
#[derive(Debug, Default)]
pub struct Plan {
    /// Launches in order.
    pub steps: Vec<Step>,
    /// Size of the arena in floats.
    pub arena: usize,
    /// Packed constants, at least one page of at least 16 floats.
    pub pages: Vec<Page>,
    /// How the arena's numbers are stored.
    pub storage: Storage,
    /// Where the inputs of the segment go; `None` for those that no kernel reads.
    pub inputs: Vec<Option<Span>>,
    /// Where the outputs come from.
    pub outputs: Vec<Source>,
    /// The problems that may be solved in several ways.
    pub met: Vec<super::choice::Met>,
}

impl Plan {
    /// Bytes on the device: weights and one arena.
    pub fn bytes(&self) -> usize {
        let weights: usize = self.pages.iter().map(|p| p.storage.bytes() * p.floats.len()).sum();
        self.storage.bytes() * self.arena + weights
    }
}

/// Floats before and behind everything in the arena where kernels read beyond rows: more than two vectors and a window.
const GUARD: usize = 64;

type Refusal = (String, String, String);

impl Lower<'_> {
    /// The checks that need no memory plan: loops and sizes of a single node.
    pub(super) fn check(&self) -> Result<(), String> {
        let limit = self.target.max_binding;
        let arena: usize = self.slots.iter().map(|&floats| 4 * padded(floats)).sum();
        if arena > limit {
            return Err(format!("its tensors take {arena} bytes, more than the {limit} of one binding"));
        }
        let mut kernels = HashMap::new();
        for draft in &self.drafts {
            let weights: usize = blobs(draft).iter().map(|&b| 4 * padded(self.blobs[b].floats)).sum();
            if weights > limit {
                return Err(format!(
                    "its weights take {weights} bytes, more than the {limit} of one binding"
                ));
            }
            let kernel = kernels.entry(draft.spec).or_insert_with(|| draft.spec.build());
            loops(kernel, &words(kernel, draft, |_| 0)?)?;
        }
        Ok(())
    }

    /// Plans memory and packs.
    pub(super) fn finish(mut self) -> Result<Plan, Refusal> {
        let whole = |why: String| ("(the whole segment)".to_string(), "segment".to_string(), why);
        let outputs = self.outputs();
        let (offsets, arena) = self.place(&outputs);
        if arena * 4 > self.target.max_binding {
            let limit = self.target.max_binding;
            return Err(whole(format!(
                "its tensors take {} bytes at once, more than the {limit} of one binding",
                arena * 4
            )));
        }
        let storage = self.target.storage;
        // Of each number as if it had 32 bits, whatever it has: one limit for all.
        let limit = self.target.max_binding / 4;
        let first = Page { floats: Vec::new(), storage };
        let mut pages = Pages { limit, pages: vec![first], at: HashMap::new() };
        let mut kernels: HashMap<Spec, Kernel> = HashMap::new();
        let mut plan = Plan { arena, storage, ..Plan::default() };
        for draft in &self.drafts {
            let refuse = |why: String| (draft.node.clone(), format!("{:?}", draft.spec), why);
            let weights = if draft.spec.indexed() { Storage::F32 } else { storage };
            let page = pages.place(&self, &blobs(draft), weights).map_err(refuse)?;
            let kernel = kernels.entry(draft.spec).or_insert_with(|| draft.spec.build());
            let offset = |operand: Operand| match operand {
                Operand::Slot(slot) => offsets[slot],
                Operand::Blob(blob) => pages.at[&(blob, page)],
            };
            let params = words(kernel, draft, offset).map_err(refuse)?;
            let loops = loops(kernel, &params).map_err(refuse)?;
            plan.steps.push(Step {
                node: draft.node.clone(),
                spec: draft.spec,
                kept: Kept { arena: storage, weights },
                params,
                page,
                total: draft.total,
                loops,
                flops: draft.flops,
            });
        }
        let span = |slot: usize, floats: usize| Span { at: offsets[slot], floats };
        plan.inputs = self
            .graph
            .inputs
            .iter()
            .map(|id| self.places.get(id).map(|slot| span(*slot, elements(self.graph.value(*id)))))
            .collect();
        plan.outputs = outputs
            .into_iter()
            .map(|o| match o {
                Output::Slot(slot, floats) => Source::Arena(span(slot, floats)),
                Output::Ready(source) => source,
            })
            .collect();
        plan.met = std::mem::take(&mut self.met);
        plan.pages = pages.pages;
        for page in &mut plan.pages {
            page.floats.resize(padded(page.floats.len()), 0.0);
        }
        Ok(plan)
    }

    fn outputs(&mut self) -> Vec<Output> {
        let graph = self.graph;
        graph
            .outputs
            .iter()
            .map(|id| {
                let input = graph.inputs.iter().position(|i| i == id);
                match (input, graph.constant(*id)) {
                    (Some(i), _) => Output::Ready(Source::Input(i)),
                    (None, Some(tensor)) => Output::Ready(Source::Constant(tensor.clone())),
                    _ => Output::Slot(self.slot_of(*id), elements(graph.value(*id))),
                }
            })
            .collect()
    }

    fn place(&self, outputs: &[Output]) -> (Vec<usize>, usize) {
        let end = self.drafts.len();
        let mut lives: Vec<Lifetime> =
            self.slots.iter().map(|&floats| Lifetime { floats, first: end, last: 0 }).collect();
        for (step, draft) in self.drafts.iter().enumerate() {
            for (_, arg) in &draft.args.0 {
                if let Arg::At(Operand::Slot(slot), ..) = arg {
                    lives[*slot].first = lives[*slot].first.min(step);
                    lives[*slot].last = lives[*slot].last.max(step);
                }
            }
        }
        // Inputs are uploaded before the first step, outputs are read after the last.
        for id in &self.graph.inputs {
            if let Some(slot) = self.places.get(id) {
                lives[*slot].first = 0;
            }
        }
        for output in outputs {
            if let Output::Slot(slot, _) = output {
                lives[*slot].last = end;
            }
        }
        let (mut offsets, arena) = memory::place(&lives);
        // Strips read beyond the ends of rows, and throw it away: that must lie inside the buffer.
        let beyond = |d: &Draft| match d.spec {
            Spec::Strip(strip) => strip.width > 1,
            Spec::PoolStrip(strip) => strip.width > 1,
            Spec::WinogradInput(_, width) | Spec::WinogradOutput(_, width, ..) => width > 1,
            _ => false,
        };
        let guard = if self.drafts.iter().any(beyond) { GUARD } else { 0 };
        offsets.iter_mut().for_each(|at| *at += guard);
        (offsets, arena + 2 * guard)
    }
}

enum Output {
    Slot(usize, usize),
    Ready(Source),
}

/// Constants by page; all constants of one step lie in one page, stored alike.
struct Pages {
    limit: usize,
    pages: Vec<Page>,
    at: HashMap<(usize, usize), usize>,
}

impl Pages {
    fn place(&mut self, lower: &Lower<'_>, blobs: &[usize], storage: Storage) -> Result<usize, String> {
        let alike = |pages: &[Page], page: usize| blobs.is_empty() || pages[page].storage == storage;
        let holds = |page: &usize| blobs.iter().all(|b| self.at.contains_key(&(*b, *page)));
        if let Some(page) = (0..self.pages.len()).find(|p| alike(&self.pages, *p) && holds(p)) {
            return Ok(page);
        }
        let floats: usize = blobs.iter().map(|&b| padded(lower.blobs[b].floats)).sum();
        if floats > self.limit {
            return Err(format!(
                "its weights take {} bytes, more than the {} of one binding",
                4 * floats,
                4 * self.limit
            ));
        }
        let last = self.pages.iter().rposition(|page| page.storage == storage);
        let room = last.filter(|&page| self.pages[page].floats.len() + floats <= self.limit);
        let page = room.unwrap_or_else(|| {
            self.pages.push(Page { floats: Vec::new(), storage });
            self.pages.len() - 1
        });
        for &blob in blobs {
            if self.at.contains_key(&(blob, page)) {
                continue;
            }
            let store = &mut self.pages[page].floats;
            self.at.insert((blob, page), store.len());
            let data = (lower.blobs[blob].fill)();
            debug_assert_eq!(data.len(), lower.blobs[blob].floats);
            store.extend_from_slice(&data);
            store.resize(padded(store.len()), 0.0);
        }
        Ok(page)
    }
}

fn blobs(draft: &Draft) -> Vec<usize> {
    let mut all: Vec<usize> = Vec::new();
    for (_, arg) in &draft.args.0 {
        if let Arg::At(Operand::Blob(blob), ..) = arg
            && !all.contains(blob)
        {
            all.push(*blob);
        }
    }
    all
}

fn words(kernel: &Kernel, draft: &Draft, offset: impl Fn(Operand) -> usize) -> Result<Vec<u32>, String> {
    let word = |name: &String| {
        let (_, arg) = draft.args.0.iter().find(|(n, _)| n == name).ok_or_else(|| {
            format!("kernel `{}` wants a parameter `{name}` that the lowering does not give", kernel.name)
        })?;
        let int = |v: i64| {
            i32::try_from(v).map(|v| v as u32).map_err(|_| format!("`{name}` = {v} does not fit 32 bits"))
        };
        match *arg {
            Arg::Int(v) => int(v),
            Arg::Float(v) => Ok(v.to_bits()),
            Arg::At(operand, plus, unit) => int((offset(operand) as i64 + plus) / unit as i64),
        }
    };
    kernel.params.iter().map(word).collect()
}

fn loops(kernel: &Kernel, params: &[u32]) -> Result<u64, String> {
    match kernel.loop_bound(params) {
        Some(n) if n <= MAX_LOOPS => Ok(n),
        Some(n) => Err(format!(
            "one invocation would loop {n} times; software Vulkan is right only up to {MAX_LOOPS}"
        )),
        None => Err(format!("kernel `{}` has a loop without a static bound", kernel.name)),
    }
}
