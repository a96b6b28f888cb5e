//! One living worker process and the queue to it: posts requests, waits for replies, notices death and silence.
//! It never restarts anything (that is [`super::client`]) and believes nothing that the worker writes.

use super::queue::{Control, NO_REPLY, QueueError, Side, VERSION, shared_dir};
use super::wire::{Reply, Request};
use crate::awake::Awake;
use crate::stop::{Halt, Stop};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long the scheduler's side waits for what.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From starting the process to its first answer.
    pub start: Duration,
    /// For compiling a segment, spawning an instance.
    pub load: Duration,
    /// For one run; a worker that takes longer is killed.
    pub run: Duration,
    /// Without a life sign during a call; a stopped or starved worker is killed.
    pub heartbeat: Duration,
    /// Looking at the ring before sleeping.
    pub spin: Duration,
    /// Longest pause before a restart; the first is a hundredth of it.
    pub back_off: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(20),
            load: Duration::from_secs(120),
            run: Duration::from_secs(60),
            heartbeat: Duration::from_secs(5),
            spin: Duration::from_micros(50),
            back_off: Duration::from_secs(2),
        }
    }
}

/// How often somebody who waits looks whether the worker lives.
const LOOK: Duration = Duration::from_millis(50);

/// Why a call got no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The worker answered that it could not; it lives on.
    Failed(String),
    /// The worker is gone, with what was seen.
    Died(String),
    /// Nobody waits for the answer any more.
    Stopped,
}

/// A request that the worker is told to end early.
struct Running {
    connection: Arc<Connection>,
    seq: u64,
}

impl Halt for Running {
    fn halt(&self) {
        self.connection.control.stop(self.seq);
    }
}

/// A started worker. Dropping it closes the pipe, which ends the worker.
pub struct Connection {
    /// Counts the workers of one client from 1: what was loaded under another generation is gone.
    pub generation: u64,
    /// Process id of the worker.
    pub pid: u32,
    control: Control,
    limits: Limits,
    child: Mutex<Child>,
    /// Also the lock of the request ring's producer end.
    pipe: Mutex<Option<ChildStdin>>,
    /// Replies that have come but were not fetched; also the lock of the reply ring's consumer end.
    inbox: Mutex<BTreeMap<u64, Reply>>,
    bell: Condvar,
    dead: OnceLock<String>,
    name: OnceLock<String>,
    served: AtomicBool,
    next: AtomicU64,
}

/// One step of looking at a ring: on a busy machine the other side may need this very core to make what we look for.
pub(super) fn relax(looked: Duration) {
    if looked < Duration::from_micros(1) { std::hint::spin_loop() } else { std::thread::yield_now() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in another thread leaves these maps and handles valid: take them as they are.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// Starts `command` (program, then arguments, to which the queue's path is added) and waits for its first answer.
    ///
    /// # Errors
    /// [`CallError::Failed`] when the program cannot be started at all, [`CallError::Died`] when it starts and then does not answer.
    pub fn start(command: &[String], limits: &Limits, generation: u64) -> Result<Arc<Self>, CallError> {
        let (program, args) =
            command.split_first().ok_or(CallError::Failed("the DSP command is empty".into()))?;
        let control = Control::create(&shared_dir(), VERSION)
            .or_else(|_| Control::create(&std::env::temp_dir(), VERSION))
            .map_err(|e| CallError::Failed(e.to_string()))?;
        let spawned = Command::new(program)
            .args(args)
            .arg(control.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(e) => {
                control.unlink();
                return Err(CallError::Failed(format!("cannot start the DSP worker `{program}`: {e}")));
            }
        };
        let (pipe, out) = (child.stdin.take(), child.stdout.take());
        let connection = Arc::new(Self {
            generation,
            pid: child.id(),
            control,
            limits: limits.clone(),
            child: Mutex::new(child),
            pipe: Mutex::new(pipe),
            inbox: Mutex::default(),
            bell: Condvar::new(),
            dead: OnceLock::new(),
            name: OnceLock::new(),
            served: AtomicBool::new(false),
            next: AtomicU64::new(1),
        });
        let listening = connection.clone();
        std::thread::Builder::new()
            .name("dsp-listener".into())
            .spawn(move || listening.listen(out))
            .map_err(|e| CallError::Failed(format!("cannot start a thread: {e}")))?;
        let answer = connection.call(&Request::Ping, limits.start);
        connection.control.unlink();
        match answer {
            Ok(_) => Ok(connection),
            Err(e) => {
                connection.close();
                Err(e)
            }
        }
    }

    /// Why the worker is dead, if it is.
    pub fn dead(&self) -> Option<&str> {
        self.dead.get().map(String::as_str)
    }

    /// What the worker says that it computes with, if it has said so.
    pub fn name(&self) -> Option<&str> {
        self.name.get().map(String::as_str)
    }

    /// Whether this worker has completed a run: one that never does is restarted ever more slowly.
    pub fn served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Posts a request and waits for its reply: the nanoseconds that the worker spent on it.
    ///
    /// # Errors
    /// [`CallError::Failed`] with the worker's reason, [`CallError::Died`] when it ends, falls silent or exceeds `timeout`.
    pub fn call(&self, request: &Request, timeout: Duration) -> Result<u64, CallError> {
        self.ask(self.seq(), request, timeout)
    }

    /// As [`Connection::call`]; `stop` ends the run in the worker early.
    ///
    /// # Errors
    /// As [`Connection::call`]; [`CallError::Stopped`].
    pub fn call_unless(
        self: &Arc<Self>,
        stop: &Stop,
        request: &Request,
        timeout: Duration,
    ) -> Result<u64, CallError> {
        let running = Arc::new(Running { connection: self.clone(), seq: self.seq() });
        let called = stop.during(&running, || self.ask(running.seq, request, timeout));
        called.unwrap_or(Err(CallError::Stopped))
    }

    fn seq(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn ask(&self, seq: u64, request: &Request, timeout: Duration) -> Result<u64, CallError> {
        let start = Instant::now();
        self.post(request, seq, start + timeout)?;
        match self.wait(seq, start, timeout)? {
            Reply::Done { busy_ns } => {
                if matches!(request, Request::Run { .. }) {
                    self.served.store(true, Ordering::Relaxed);
                }
                Ok(busy_ns)
            }
            Reply::Here { name } => {
                let _ = self.name.set(name);
                Ok(0)
            }
            Reply::Failed { reason } => Err(CallError::Failed(reason)),
            Reply::Stopped => Err(CallError::Stopped),
        }
    }

    /// Posts a request that gets no reply; does nothing when the worker is dead or the queue stays full.
    pub fn tell(&self, request: &Request) {
        let _ = self.post(request, NO_REPLY, Instant::now() + Duration::from_millis(100));
    }

    /// Kills the worker for `reason`, which becomes the cause of death.
    pub fn kill(&self, reason: String) {
        let _ = self.dead.set(reason);
        let _ = lock(&self.child).kill();
    }

    /// Ends the worker: it sees the end of its pipe, and is killed when that does not help soon.
    pub fn close(&self) {
        drop(lock(&self.pipe).take());
        let until = Instant::now() + Duration::from_millis(300);
        let mut inbox = lock(&self.inbox);
        while self.dead.get().is_none() && Instant::now() < until {
            inbox = self.sleep(inbox, Duration::from_millis(10));
        }
        drop(inbox);
        if self.dead.get().is_none() {
            self.kill("closed".into());
        }
    }

    fn post(&self, request: &Request, seq: u64, until: Instant) -> Result<(), CallError> {
        let (kind, payload) = request.encode();
        loop {
            if let Some(reason) = self.dead() {
                return Err(CallError::Died(reason.to_owned()));
            }
            let mut pipe = lock(&self.pipe);
            match self.control.push(Side::Requests, seq, kind, &payload) {
                Ok(()) => {
                    if self.control.set_worker_asleep(false)
                        && let Some(pipe) = pipe.as_mut()
                    {
                        // A broken pipe is a dead worker: the listener tells.
                        let _ = pipe.write_all(&[1]).and_then(|()| pipe.flush());
                    }
                    return Ok(());
                }
                Err(QueueError::Full) if Instant::now() < until => {
                    drop(pipe);
                    std::thread::sleep(Duration::from_micros(100));
                }
                Err(e @ QueueError::Corrupt(_)) => {
                    drop(pipe);
                    self.kill(e.to_string());
                }
                Err(e) => return Err(CallError::Failed(e.to_string())),
            }
        }
    }

    /// Waits for reply `seq`: first looks, then sleeps until the listener rings.
    fn wait(&self, seq: u64, start: Instant, timeout: Duration) -> Result<Reply, CallError> {
        while start.elapsed() < self.limits.spin {
            if self.control.pending(Side::Replies)
                && let Some(reply) = self.collect(&mut lock(&self.inbox), seq)
            {
                return Ok(reply);
            }
            relax(start.elapsed());
        }
        self.control.client_waits(true);
        let result = self.sleep_for(seq, start, timeout);
        self.control.client_waits(false);
        result
    }

    fn sleep_for(&self, seq: u64, start: Instant, timeout: Duration) -> Result<Reply, CallError> {
        let mut awake = Awake::new(start, 2 * LOOK);
        let (mut beat, mut beaten) = (self.control.heartbeat(), awake.look(Instant::now()));
        let mut inbox = lock(&self.inbox);
        loop {
            if let Some(reply) = self.collect(&mut inbox, seq) {
                return Ok(reply);
            }
            if let Some(reason) = self.dead() {
                return Err(CallError::Died(reason.to_owned()));
            }
            inbox = self.sleep(inbox, LOOK);
            let (now, waited) = (self.control.heartbeat(), awake.look(Instant::now()));
            if now != beat {
                (beat, beaten) = (now, waited);
            }
            let silent = waited - beaten > self.limits.heartbeat;
            if silent || waited > timeout {
                drop(inbox);
                let what = if silent { "gave no life sign for" } else { "did not answer for" };
                let secs = if silent { self.limits.heartbeat } else { timeout }.as_secs_f32();
                self.kill(format!("worker process {} {what} {secs} s and was killed", self.pid));
                inbox = lock(&self.inbox);
            }
        }
    }

    fn sleep<'a, T>(&self, guard: MutexGuard<'a, T>, at_most: Duration) -> MutexGuard<'a, T> {
        self.bell.wait_timeout(guard, at_most).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Empties the reply ring into the inbox and takes `seq` out of it. A malformed reply costs the worker its life.
    fn collect(&self, inbox: &mut BTreeMap<u64, Reply>, seq: u64) -> Option<Reply> {
        loop {
            let fault = match self.control.pop(Side::Replies) {
                Ok(None) => break,
                Ok(Some(message)) => match Reply::decode(message.kind, &message.payload) {
                    Ok(reply) => {
                        if message.seq != seq {
                            self.bell.notify_all();
                        }
                        inbox.insert(message.seq, reply);
                        continue;
                    }
                    Err(e) => e.to_string(),
                },
                Err(e) => e.to_string(),
            };
            self.kill(format!("worker process {} broke the protocol: {fault}", self.pid));
            break;
        }
        inbox.remove(&seq)
    }

    /// Rings the bell for every byte of the worker; at the end of its output the worker is dead.
    fn listen(&self, out: Option<ChildStdout>) {
        let mut bytes = [0u8; 64];
        if let Some(mut out) = out {
            while matches!(out.read(&mut bytes), Ok(n) if n > 0) {
                // The lock makes sure that whoever looked in vain is asleep by now and hears the bell.
                drop(lock(&self.inbox));
                self.bell.notify_all();
            }
        }
        let seen = self.reap();
        let why = self.control.refusal().map(|e| format!("; {e}")).unwrap_or_default();
        let _ = self.dead.set(format!("worker process {} ended: {seen}{why}", self.pid));
        drop(lock(&self.inbox));
        self.bell.notify_all();
    }

    /// Waits for the process that has closed its output, and kills it when it lingers.
    fn reap(&self) -> String {
        let start = Instant::now();
        loop {
            let mut child = lock(&self.child);
            match child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) if start.elapsed() > Duration::from_secs(1) => drop(child.kill()),
                Ok(None) => {}
                Err(e) => return format!("its exit status is unknown ({e})"),
            }
            drop(child);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
