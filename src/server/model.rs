//! What callers see of an app: each task is a model of the protocol with version 1, whose variants all take and give the same tensors.
//! It refuses tasks whose variants differ in that: a caller could not know which tensors to send.

use super::refusal::Refusal;
use super::request::shorten;
use cosched_env::case::{Case, StreamId, VariantId};
use cosched_env::scenario::{ArrivalKind, Stream};
use cosched_env::time::Span;
use cosched_executors::deploy::Deployment;
use cosched_executors::graph::{Graph, ValueId};
pub use cosched_executors::remote::datatype;
use cosched_executors::tensor::DType;
use cosched_experiments::app::App;
use std::collections::BTreeSet;

/// The one version of every model.
pub const VERSION: &str = "1";
/// What the server says it runs models with.
pub const PLATFORM: &str = "cosched";
/// Deadline in milliseconds of requests whose task has no stream; they expire after twice that.
pub const DEADLINE_MS: f64 = 1000.0;

/// An input or output.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Name in the ONNX file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, outermost axis first; every extent is fixed.
    pub shape: Vec<usize>,
}

impl Port {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }

    /// The shape as the protocol has it.
    pub fn dims(&self) -> Vec<i64> {
        self.shape.iter().map(|&d| d as i64).collect()
    }
}

/// A variant as callers may ask for it.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Name in the plan.
    pub name: String,
    /// Its number.
    pub id: VariantId,
    /// Accuracy in (0, 1].
    pub accuracy: f64,
}

/// What a stream gives its requests by default.
#[derive(Clone, Debug)]
pub struct Source {
    /// Name; may be empty.
    pub name: String,
    /// Its number.
    pub id: StreamId,
    /// Time to the deadline.
    pub deadline: Span,
    /// Time after which a waiting request expires.
    pub expire: Span,
    /// Least accuracy of a variant that serves it.
    pub min_accuracy: f64,
}

/// A task as callers see it.
#[derive(Clone, Debug)]
pub struct Model {
    /// Name of the task.
    pub name: String,
    /// Streams whose defaults its requests may have; the first is the one of requests that name none.
    pub sources: Vec<Source>,
    /// Its variants.
    pub variants: Vec<Choice>,
    /// Inputs, in the order of the ONNX files.
    pub inputs: Vec<Port>,
    /// Outputs, in the order of the ONNX files.
    pub outputs: Vec<Port>,
}

impl Model {
    /// The stream of that name, or the first.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn source(&self, name: Option<&str>) -> Result<&Source, Refusal> {
        match name {
            None => Ok(&self.sources[0]),
            Some(name) => self.sources.iter().find(|s| s.name == name && !name.is_empty()).ok_or_else(|| {
                let (name, known) = (shorten(name), self.known());
                Refusal::invalid(format!("model `{}` has no stream {name}; {known}", self.name))
            }),
        }
    }

    fn known(&self) -> String {
        let names: Vec<_> = self.sources.iter().map(|s| s.name.as_str()).filter(|n| !n.is_empty()).collect();
        if names.is_empty() {
            "none of its streams has a name".into()
        } else {
            format!("it has: {}", names.join(", "))
        }
    }

    /// The variant of that name.
    ///
    /// # Errors
    /// When the task has no such variant.
    pub fn variant(&self, name: &str) -> Result<&Choice, Refusal> {
        self.variants.iter().find(|v| v.name == name).ok_or_else(|| {
            let known: Vec<_> = self.variants.iter().map(|v| v.name.as_str()).collect();
            let (name, known) = (shorten(name), known.join(", "));
            Refusal::invalid(format!("model `{}` has no variant {name}; it has: {known}", self.name))
        })
    }

    /// Accuracy of its best variant.
    pub fn best_accuracy(&self) -> f64 {
        self.variants.iter().map(|v| v.accuracy).fold(0.0, f64::max)
    }
}

fn ports(graph: &Graph, ids: &[ValueId]) -> Vec<Port> {
    let port = |&id: &ValueId| {
        let value = graph.value(id);
        Port { name: value.name.clone(), dtype: value.dtype, shape: value.shape.clone() }
    };
    ids.iter().map(port).collect()
}

/// All tasks of a case as models.
///
/// # Errors
/// The first task whose variants do not take and give the same tensors, in words.
pub fn models(deployment: &Deployment, case: &Case) -> Result<Vec<Model>, String> {
    let mut models = Vec::new();
    for (t, task) in case.tasks.iter().enumerate() {
        let graph = |v: VariantId| &deployment.variants[v.0 as usize].model.graph;
        let seen = |v: VariantId| (ports(graph(v), &graph(v).inputs), ports(graph(v), &graph(v).outputs));
        let first = task.variants[0];
        let (inputs, outputs) = seen(first);
        if let Some(&other) = task.variants.iter().find(|&&v| seen(v) != (inputs.clone(), outputs.clone())) {
            let (a, b) = (&case.variant(first).name, &case.variant(other).name);
            return Err(format!(
                "task `{}`: variants `{a}` and `{b}` differ in names, types or shapes of their inputs or outputs; \
                 a served task needs the same of all its variants",
                task.name
            ));
        }
        let choice = |&id: &VariantId| {
            let table = case.variant(id);
            Choice { name: table.name.clone(), id, accuracy: table.accuracy }
        };
        let of_task = case.streams.iter().enumerate().filter(|(_, s)| s.task.0 as usize == t);
        let source = |(i, table): (usize, &cosched_env::case::StreamTable)| Source {
            name: case.scenario.streams[i].name.clone(),
            id: StreamId(i as u16),
            deadline: table.deadline,
            expire: table.expire,
            min_accuracy: table.min_accuracy,
        };
        let sources: Vec<Source> = of_task.map(source).collect();
        if sources.is_empty() {
            return Err(format!("task `{}` has no stream; serve needs the app of `serving`", task.name));
        }
        let variants = task.variants.iter().map(choice).collect();
        models.push(Model { name: task.name.clone(), sources, variants, inputs, outputs });
    }
    Ok(models)
}

/// The app as it is served: its streams send nothing of their own, they only say what requests of callers are like; a task without one
/// gets one with a deadline of [`DEADLINE_MS`], priority 1 and a queue in order of arrival.
pub fn serving(mut app: App) -> App {
    for stream in &mut app.streams {
        // Callers do not keep to a trace or follow an answer; what is left is how often they come, as a hint to policies.
        if matches!(stream.kind, ArrivalKind::Trace | ArrivalKind::Dependent) {
            let last = stream.times_ms.last().copied().unwrap_or(0.0);
            let mean = last / stream.times_ms.len().max(1) as f64;
            stream.period_ms = if mean > 0.0 { mean } else { stream.deadline_ms };
            stream.kind = ArrivalKind::Poisson;
        }
        stream.times_ms.clear();
        stream.after.clear();
        stream.open_ms.clear();
        stream.probability = 1.0;
    }
    let served: BTreeSet<String> = app.streams.iter().map(|s| s.task.clone()).collect();
    for task in app.tasks.iter().filter(|t| !served.contains(&t.name)) {
        app.streams.push(Stream {
            task: task.name.clone(),
            kind: ArrivalKind::Poisson,
            deadline_ms: DEADLINE_MS,
            ..Stream::default()
        });
    }
    app
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = r#"
name = "x"
[[task]]
name = "a"
[[task.variant]]
model = "zoo:kws"
accuracy = 0.9
[[task]]
name = "b"
[[task.variant]]
model = "zoo:kws_small"
accuracy = 0.9
[[stream]]
name = "s"
task = "a"
period_ms = 10
deadline_ms = 7
[[stream]]
name = "t"
task = "a"
kind = "dependent"
after = "s"
deadline_ms = 30
"#;

    #[test]
    fn served_streams_send_nothing_and_every_task_has_one() {
        let app = serving(App::parse(APP, "x.toml".as_ref()).unwrap());
        let of: Vec<_> = app.streams.iter().map(|s| (s.task.as_str(), s.kind, s.deadline_ms)).collect();
        let (periodic, poisson) = (ArrivalKind::Periodic, ArrivalKind::Poisson);
        assert_eq!(of, [("a", periodic, 7.0), ("a", poisson, 30.0), ("b", poisson, DEADLINE_MS)]);
        assert_eq!((app.streams[1].after.as_str(), app.streams[1].period_ms), ("", 30.0));
    }
}
