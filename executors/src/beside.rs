//! Engines of another program, timed in the same rounds as ours: it listens on its standard input and answers a line for a line.
//! It refuses to believe its results without looking: they are compared like everybody's.
//!
//! What is said, words between tabs:
//! - `open MODEL FOLDER SHAPE`: the folder holds `model.onnx` and `input.f32` (little-endian, row by row), the shape is like `1,3,224,224`.
//!   It prepares its engines, runs each once, writes the first output of engine `k` (0, 1, ...) to `FOLDER/k.f32`, and answers
//!   `engines NAME ...`, or `refused REASON`.
//! - `run K`: it runs engine `K` once more and answers `WALL CPU`, in milliseconds; CPU is the time of all threads of its process.
//!
//! It ends when its standard input does.

use crate::graph::Graph;
use crate::measure::{Engine, Spent};
use crate::onnx::to_onnx;
use crate::processor::ExecError;
use crate::tensor::Tensor;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// The other program.
pub struct Beside {
    command: String,
    talk: Mutex<Talk>,
    folder: PathBuf,
}

struct Talk {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Beside {
    /// Starts `command` (split at spaces). It may prepare itself for as long as it likes.
    ///
    /// # Errors
    /// [`ExecError::Absent`] when it does not start.
    pub fn start(command: &str) -> Result<Arc<Beside>, ExecError> {
        let absent = |reason: String| ExecError::absent(command, reason, "name another program, or none");
        let mut words = command.split_whitespace();
        let program = words.next().ok_or_else(|| absent("no program was named".into()))?;
        let mut started = Command::new(program);
        let started = started.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = started.spawn().map_err(|e| absent(e.to_string()))?;
        let to = child.stdin.take();
        let from = child.stdout.take().ok_or_else(|| absent("it cannot be heard".into()))?;
        let folder = std::env::temp_dir().join(format!("cosched-beside-{}", child.id()));
        fs::create_dir_all(&folder).map_err(|e| absent(format!("{}: {e}", folder.display())))?;
        let talk = Mutex::new(Talk { child, to, from: BufReader::new(from) });
        Ok(Arc::new(Beside { command: command.to_owned(), talk, folder }))
    }

    /// Its engines for `graph` on `input`, by name; `Err` within when it refuses the network, with its reason.
    ///
    /// # Errors
    /// [`ExecError::Died`] when it does not answer, or not as it should.
    pub fn open(self: &Arc<Self>, graph: &Graph, inputs: &[Tensor]) -> Result<Opened, ExecError> {
        let [input] = inputs else { return Ok(Err("it takes networks with one input".into())) };
        let lost = |e: std::io::Error| self.died(format!("{}: {e}", self.folder.display()));
        fs::write(self.folder.join("model.onnx"), to_onnx(graph)).map_err(lost)?;
        fs::write(self.folder.join("input.f32"), input.data.bytes()).map_err(lost)?;
        let shape: Vec<String> = input.shape.iter().map(usize::to_string).collect();
        let said =
            self.ask(&format!("open\t{}\t{}\t{}", graph.name, self.folder.display(), shape.join(",")))?;
        let mut words = said.split('\t');
        match words.next() {
            Some("refused") => return Ok(Err(words.collect::<Vec<_>>().join(" "))),
            Some("engines") => {}
            _ => return Err(self.died(format!("it answered `{said}`, not `engines` or `refused`"))),
        }
        let mut all = Vec::new();
        for (k, name) in words.enumerate() {
            let file = self.folder.join(format!("{k}.f32"));
            let bytes = fs::read(&file).map_err(|e| self.died(format!("{}: {e}", file.display())))?;
            let floats: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let result = Arc::new(Tensor::f32(&[floats.len()], floats));
            all.push((name.to_owned(), Other { beside: self.clone(), k, result }));
        }
        Ok(Ok(all))
    }

    fn died(&self, reason: String) -> ExecError {
        ExecError::Died { processor: self.command.clone(), reason }
    }

    fn ask(&self, line: &str) -> Result<String, ExecError> {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let mut said = String::new();
        let asked = talk.to.as_mut().map_or(Ok(()), |to| writeln!(to, "{line}"));
        asked.and_then(|()| talk.from.read_line(&mut said)).map_err(|e| self.died(e.to_string()))?;
        match said.strip_suffix('\n') {
            Some(said) => Ok(said.to_owned()),
            None => Err(self.died(format!("it ended instead of answering `{line}`"))),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let talk = self.talk.get_mut().unwrap_or_else(PoisonError::into_inner);
        talk.to.take();
        // Its end is awaited so that nothing of it runs on; how it ended does not matter.
        let _ = talk.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Engines by name, or why there are none.
pub type Opened = Result<Vec<(String, Other)>, String>;

/// One engine of the other program, with one network.
pub struct Other {
    beside: Arc<Beside>,
    k: usize,
    result: Arc<Tensor>,
}

impl Engine for Other {
    /// The result of its first run.
    fn run(&mut self) -> Result<Vec<Arc<Tensor>>, ExecError> {
        Ok(vec![self.result.clone()])
    }

    fn timed(&mut self) -> Result<Spent, ExecError> {
        let said = self.beside.ask(&format!("run\t{}", self.k))?;
        let mut numbers = said.split('\t').map(|word| word.parse::<f64>());
        match (numbers.next(), numbers.next()) {
            (Some(Ok(wall_ms)), Some(Ok(cpu_ms))) => Ok(Spent { wall_ms, cpu_ms, busy_ms: None }),
            _ => Err(self.beside.died(format!("it answered `{said}`, not two numbers"))),
        }
    }
}
