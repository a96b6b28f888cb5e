//! The scheduler's side of the DSP: keeps one worker process running, restarts it after a death, and brings prepared segments
//! back into the new one when they are next used. It never retries a run: a death in the middle is the caller's to see.

use super::area::Area;
use super::connection::{CallError, Connection, Limits};
use super::wire::Request;
use crate::stop::Stop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Supervisor of the worker. Shared by all segments and threads.
pub struct Client {
    command: Vec<String>,
    limits: Limits,
    state: Mutex<State>,
    starts: AtomicU64,
    handles: AtomicU64,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    /// Workers in a row that died without completing a run, and when the last one did.
    deaths: u32,
    last: Option<Instant>,
}

impl Client {
    /// Starts the first worker.
    ///
    /// # Errors
    /// As [`Connection::start`].
    pub fn open(command: Vec<String>, limits: Limits) -> Result<Self, CallError> {
        let client = Self {
            command,
            limits,
            state: Mutex::default(),
            starts: AtomicU64::new(0),
            handles: AtomicU64::new(1),
        };
        client.connection()?;
        Ok(client)
    }

    /// The waiting times in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Process id of the present worker, if one lives.
    pub fn worker_pid(&self) -> Option<u32> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.connection.as_ref().filter(|c| c.dead().is_none()).map(|c| c.pid)
    }

    /// What the present worker says that it computes with.
    pub fn worker_name(&self) -> Option<String> {
        self.alive().and_then(|c| c.name().map(str::to_owned))
    }

    /// How often a worker was started after the first one.
    pub fn restarts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// A number that names one segment or instance for ever.
    pub fn handle(&self) -> u64 {
        self.handles.fetch_add(1, Ordering::Relaxed)
    }

    /// A living worker; starts one when the last has died, after a pause that doubles with each one that dies useless
    /// and is bounded by [`Limits::back_off`].
    ///
    /// # Errors
    /// As [`Connection::start`].
    pub fn connection(&self) -> Result<Arc<Connection>, CallError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = &state.connection {
            if connection.dead().is_none() {
                return Ok(connection.clone());
            }
            state.deaths = if connection.served() { 1 } else { state.deaths.saturating_add(1) };
            state.last = Some(Instant::now());
            state.connection = None;
        }
        if let Some(last) = state.last {
            // Others wait on the lock meanwhile: there is nothing that they could do without a worker.
            let pause = self.limits.back_off / 100 * (1u32 << state.deaths.saturating_sub(1).min(7));
            let due = last + pause.min(self.limits.back_off);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let generation = self.starts.fetch_add(1, Ordering::Relaxed) + 1;
        match Connection::start(&self.command, &self.limits, generation) {
            Ok(connection) => {
                state.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(e) => {
                state.deaths = state.deaths.saturating_add(1);
                state.last = Some(Instant::now());
                Err(e)
            }
        }
    }

    /// The present worker if it lives; starts none.
    fn alive(&self) -> Option<Arc<Connection>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.connection.clone().filter(|c| c.dead().is_none())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(connection) = self.alive() {
            connection.close();
        }
    }
}

/// A quantised model that any worker can be given again: the bytes stay here.
pub struct Loaded {
    client: Arc<Client>,
    handle: u64,
    onnx: Vec<u8>,
    /// Generation of the worker that has it.
    generation: Mutex<u64>,
}

impl Loaded {
    /// Gives `onnx` (all inputs and outputs f32, static) to the worker.
    ///
    /// # Errors
    /// [`CallError`] when the worker refuses it or dies of it.
    pub fn new(client: Arc<Client>, onnx: Vec<u8>) -> Result<Self, CallError> {
        let loaded = Self { handle: client.handle(), client, onnx, generation: Mutex::new(0) };
        loaded.ensure(&*loaded.client.connection()?)?;
        Ok(loaded)
    }

    /// Bytes of the model.
    pub fn bytes(&self) -> usize {
        self.onnx.len()
    }

    fn ensure(&self, connection: &Connection) -> Result<(), CallError> {
        let mut generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        if *generation == connection.generation {
            return Ok(());
        }
        let area = Area::create(&[self.onnx.len()]).map_err(failed)?;
        area.write(0, &self.onnx).map_err(failed)?;
        let request = Request::Load { segment: self.handle, path: area.path().to_owned() };
        connection.call(&request, self.client.limits.load)?;
        *generation = connection.generation;
        Ok(())
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Some(connection) = self.client.alive() {
            connection.tell(&Request::Unload { segment: self.handle });
        }
    }
}

/// Working memory of one run at a time: tensors in shared memory, bound once in the worker.
pub struct Seat {
    loaded: Arc<Loaded>,
    handle: u64,
    lens: Vec<usize>,
    area: Option<(u64, Area)>,
}

impl Seat {
    /// Makes shared memory for tensors of `lens` bytes (inputs, then outputs) and binds it in the worker.
    ///
    /// # Errors
    /// [`CallError`] when there is no memory or the worker refuses or dies.
    pub fn new(loaded: Arc<Loaded>, lens: Vec<usize>) -> Result<Self, CallError> {
        let mut seat = Self { handle: loaded.client.handle(), loaded, lens, area: None };
        seat.ensure()?;
        Ok(seat)
    }

    /// Runs once: copies `inputs` (bytes of each input) in and the outputs out into `outputs`. Returns the nanoseconds of work.
    ///
    /// # Errors
    /// [`CallError::Died`] when the worker dies meanwhile: the next run gets a new worker. [`CallError::Stopped`] when `stop` is stopped
    /// before the end.
    pub fn run(
        &mut self,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
        stop: &Stop,
    ) -> Result<u64, CallError> {
        let connection = self.ensure()?;
        let Some((_, area)) = &self.area else { return Err(CallError::Failed("no shared memory".into())) };
        for (i, bytes) in inputs.iter().enumerate() {
            area.write(i, bytes).map_err(failed)?;
        }
        let request = Request::Run { instance: self.handle };
        let busy = connection.call_unless(stop, &request, self.loaded.client.limits.run)?;
        for (i, bytes) in outputs.iter_mut().enumerate() {
            area.read(inputs.len() + i, bytes).map_err(failed)?;
        }
        Ok(busy)
    }

    /// Whether the worker that had this seat is gone.
    pub fn stale(&self) -> bool {
        let worker = self.loaded.client.alive().map(|connection| connection.generation);
        self.area.as_ref().map(|(generation, _)| *generation) != worker
    }

    /// A worker that has the segment and this seat.
    fn ensure(&mut self) -> Result<Arc<Connection>, CallError> {
        let client = &self.loaded.client;
        let connection = client.connection()?;
        if self.area.as_ref().is_some_and(|(generation, _)| *generation == connection.generation) {
            return Ok(connection);
        }
        self.loaded.ensure(&connection)?;
        let area = Area::create(&self.lens).map_err(failed)?;
        let request = Request::Spawn {
            instance: self.handle,
            segment: self.loaded.handle,
            path: area.path().to_owned(),
        };
        connection.call(&request, client.limits.load)?;
        self.area = Some((connection.generation, area));
        Ok(connection)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(connection) = self.loaded.client.alive() {
            connection.tell(&Request::Free { instance: self.handle });
        }
    }
}

fn failed(e: impl std::fmt::Display) -> CallError {
    CallError::Failed(e.to_string())
}
