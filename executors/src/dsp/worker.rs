//! The DSP worker: the process on the far side of the queue, which runs quantised segments one at a time, as a DSP does.
//! It refuses to outlive its parent: it ends at the end of its standard input, and when it finds itself adopted.

use super::accelerator::{Accelerator, Bound, Fault, Memory, Program};
use super::area::Area;
use super::onnx::Onnxruntime;
use super::queue::{Control, Message, NO_REPLY, QueueError, Side};
use super::wire::{Reply, Request};
use crate::stop::Stop;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an idle worker looks at the ring before it sleeps on its pipe.
const SPIN: Duration = Duration::from_micros(50);
/// Time between two life signs.
pub const BEAT: Duration = Duration::from_millis(100);

/// Exit code when the queue is of another protocol version.
pub const EXIT_VERSION: u8 = 3;

/// Runs the worker with onnxruntime's int8 kernels, as [`worker_with`].
pub fn worker_main(args: &[String]) -> ExitCode {
    worker_with(args, Box::new(Onnxruntime))
}

/// Runs the worker with any accelerator until its parent closes the pipe. `args` are the words after the command: the path of the control
/// segment. Standard output belongs to the queue: an accelerator must write its messages elsewhere.
///
/// Exit codes: 0 the parent went, 1 the queue broke, 2 wrong usage or no queue there, 3 another protocol version.
pub fn worker_with(args: &[String], accelerator: Box<dyn Accelerator>) -> ExitCode {
    let [path] = args else {
        eprintln!("cosched dsp-worker: expected one argument, the path of a DSP queue, got {}", args.len());
        return ExitCode::from(2);
    };
    let control = match Control::open(Path::new(path)) {
        Ok(control) => Arc::new(control),
        Err(e) => {
            eprintln!("cosched dsp-worker: {e}");
            return ExitCode::from(if matches!(e, QueueError::Version { .. }) { EXIT_VERSION } else { 2 });
        }
    };
    control.unlink();
    let now = Arc::new(Now::default());
    let (beating, looking) = (control.clone(), now.clone());
    std::thread::spawn(move || beat(&beating, &looking));
    match serve(&control, &now, accelerator) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("cosched dsp-worker: {e}");
            ExitCode::from(1)
        }
    }
}

/// The run in progress, for the thread that hears of stops.
#[derive(Default)]
struct Now(Mutex<Option<(u64, Arc<Stop>)>>);

impl Now {
    fn lock(&self) -> MutexGuard<'_, Option<(u64, Arc<Stop>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the run if its caller has said so.
    fn look(&self, control: &Control) {
        if let Some((seq, stop)) = &*self.lock()
            && control.stopped(*seq)
        {
            stop.stop();
        }
    }

    /// Does `work` for request `seq` with something that is stopped when its caller says so, before or meanwhile.
    fn during<T>(&self, control: &Control, seq: u64, work: impl FnOnce(&Stop) -> T) -> T {
        let stop = Arc::new(Stop::default());
        *self.lock() = Some((seq, stop.clone()));
        self.look(control);
        let done = work(&stop);
        *self.lock() = None;
        done
    }
}

/// Gives life signs, hears of stops, and ends the process when the parent is gone: the main thread may be deep in a long run then.
fn beat(control: &Control, now: &Now) {
    #[cfg(unix)]
    let parent = std::os::unix::process::parent_id();
    loop {
        let seen = control.stops();
        now.look(control);
        control.beat();
        control.hear(seen, BEAT);
        #[cfg(unix)]
        if std::os::unix::process::parent_id() != parent {
            std::process::exit(0);
        }
    }
}

/// Takes requests until the pipe ends.
fn serve(control: &Control, now: &Now, accelerator: Box<dyn Accelerator>) -> Result<(), QueueError> {
    let mut dsp = Dsp { accelerator, instances: BTreeMap::new(), segments: BTreeMap::new() };
    let mut stdin = std::io::stdin().lock();
    let mut idle = Instant::now();
    loop {
        match control.pop(Side::Requests)? {
            Some(message) => {
                let start = Instant::now();
                let done = now.during(control, message.seq, |stop| dsp.handle(&message, stop));
                if message.seq & NO_REPLY == 0 && !answer(control, message.seq, done, start)? {
                    return Ok(());
                }
                idle = Instant::now();
            }
            None if idle.elapsed() < SPIN => super::connection::relax(idle.elapsed()),
            None => {
                control.set_worker_asleep(true);
                if !control.pending(Side::Requests) {
                    let mut byte = [0u8];
                    match stdin.read(&mut byte) {
                        Ok(0) => return Ok(()),
                        Ok(_) => {}
                        Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                        Err(_) => return Ok(()),
                    }
                }
                control.set_worker_asleep(false);
                idle = Instant::now();
            }
        }
    }
}

/// Posts a reply and wakes whoever sleeps for it. `false`: nobody listens any more.
fn answer(
    control: &Control,
    seq: u64,
    done: Result<Option<String>, Fault>,
    start: Instant,
) -> Result<bool, QueueError> {
    let reply = match done {
        Ok(Some(name)) => Reply::Here { name },
        Ok(None) => Reply::Done { busy_ns: start.elapsed().as_nanos().min(u128::from(u64::MAX)) as u64 },
        Err(Fault::Failed(reason)) => Reply::Failed { reason },
        Err(Fault::Stopped) => Reply::Stopped,
    };
    let (kind, payload) = reply.encode();
    loop {
        match control.push(Side::Replies, seq, kind, &payload) {
            Ok(()) => break,
            // The scheduler's threads each take their reply: there will be room.
            Err(QueueError::Full) => std::thread::sleep(Duration::from_micros(100)),
            Err(e) => return Err(e),
        }
    }
    if control.clients_wait() {
        let mut out = std::io::stdout();
        return Ok(out.write_all(&[1]).and_then(|()| out.flush()).is_ok());
    }
    Ok(true)
}

/// Everything loaded.
struct Dsp {
    accelerator: Box<dyn Accelerator>,
    instances: BTreeMap<u64, Instance>,
    segments: BTreeMap<u64, Box<dyn Program>>,
}

/// What is bound, and the memory that it is bound to. Fields drop in this order.
struct Instance {
    bound: Box<dyn Bound>,
    _area: Area,
    segment: u64,
}

impl Dsp {
    /// Does what is asked; the name of the accelerator where that is asked.
    fn handle(&mut self, message: &Message, stop: &Stop) -> Result<Option<String>, Fault> {
        match Request::decode(message.kind, &message.payload).map_err(|e| e.to_string())? {
            Request::Ping => return Ok(Some(self.accelerator.name())),
            Request::Load { segment, path } => {
                let program = self.accelerator.compile(&model(&path)?)?;
                self.segments.insert(segment, program);
            }
            Request::Spawn { instance, segment, path } => {
                let program =
                    self.segments.get(&segment).ok_or(format!("segment {segment} is not loaded"))?;
                let spawned = spawn(program.as_ref(), segment, &path)?;
                self.instances.insert(instance, spawned);
            }
            Request::Run { instance } => {
                let found = self.instances.get_mut(&instance);
                found.ok_or(format!("instance {instance} was not spawned"))?.bound.run(stop)?;
            }
            Request::Free { instance } => {
                self.instances.remove(&instance);
            }
            Request::Unload { segment } => {
                self.instances.retain(|_, i| i.segment != segment);
                self.segments.remove(&segment);
            }
        }
        Ok(None)
    }
}

/// Opens an area and removes its name: from here on it lives as long as someone maps it.
fn take_area(path: &Path) -> Result<Area, String> {
    let area = Area::open(path).map_err(|e| e.to_string())?;
    area.unlink();
    Ok(area)
}

/// The model in blob 0.
fn model(path: &Path) -> Result<Vec<u8>, String> {
    let area = take_area(path)?;
    if area.len() != 1 {
        return Err(format!("a model area has 1 blob, this one has {}", area.len()));
    }
    let mut onnx = vec![0u8; area.blob_len(0)];
    area.read(0, &mut onnx).map_err(|e| e.to_string())?;
    Ok(onnx)
}

/// Binds the blobs of an area as inputs and outputs, in order: the accelerator then reads and writes the shared memory itself.
fn spawn(program: &dyn Program, segment: u64, path: &Path) -> Result<Instance, String> {
    let area = take_area(path)?;
    let outlets = || program.inputs().iter().chain(program.outputs());
    if outlets().count() != area.len() {
        return Err(format!("the area has {} tensors, the segment {}", area.len(), outlets().count()));
    }
    let memory = outlets().enumerate().map(|(i, outlet)| {
        let bytes = outlet.bytes().ok_or(format!("`{}` is too large", outlet.name))?;
        let address = area.address(i).filter(|_| area.blob_len(i) == bytes);
        let name = &outlet.name;
        let address =
            address.ok_or(format!("`{name}` takes {bytes} bytes, its blob has {}", area.blob_len(i)))?;
        Ok(Memory { address, bytes })
    });
    let memory = memory.collect::<Result<Vec<_>, String>>()?;
    // SAFETY: the blobs were checked against the mapping, which the instance keeps and drops after what is bound; client and worker take turns.
    let bound = unsafe { program.bind(&memory) }?;
    Ok(Instance { bound, _area: area, segment })
}
