//! The DSP worker: the process on the far side of the queue, which runs quantised segments one at a time, as a DSP does.
//! It refuses to outlive its parent: it ends at the end of its standard input, and when it finds itself adopted.

use super::area::Area;
use super::queue::{Control, Message, NO_REPLY, QueueError, Side};
use super::wire::{Reply, Request};
use crate::bound::Halter;
use crate::stop::Stop;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{IoBinding, Session};
use ort::value::{Shape, TensorRefMut, ValueType};
use ort::{AsPointer, memory};
use std::collections::BTreeMap;
use std::ffi::CString;
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

/// Runs the worker until its parent closes the pipe. `args` are the words after the subcommand: the path of the control segment.
///
/// Exit codes: 0 the parent went, 1 the queue broke, 2 wrong usage or no queue there, 3 another protocol version.
pub fn worker_main(args: &[String]) -> ExitCode {
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
    match serve(&control, &now) {
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
fn serve(control: &Control, now: &Now) -> Result<(), QueueError> {
    let mut dsp = Dsp::default();
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
fn answer(control: &Control, seq: u64, done: Result<(), Fault>, start: Instant) -> Result<bool, QueueError> {
    let reply = match done {
        Ok(()) => Reply::Done { busy_ns: start.elapsed().as_nanos().min(u128::from(u64::MAX)) as u64 },
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

/// Why a request was not done.
enum Fault {
    Failed(String),
    Stopped,
}

impl From<String> for Fault {
    fn from(reason: String) -> Fault {
        Fault::Failed(reason)
    }
}

/// Everything loaded.
#[derive(Default)]
struct Dsp {
    instances: BTreeMap<u64, Instance>,
    segments: BTreeMap<u64, Session>,
}

/// Bound tensors of one instance. Fields drop in this order: the binding before the tensors that it names, those before the memory.
struct Instance {
    binding: IoBinding,
    _tensors: Vec<TensorRefMut<'static, f32>>,
    _area: Area,
    segment: u64,
    halter: Arc<Halter>,
}

impl Dsp {
    fn handle(&mut self, message: &Message, stop: &Stop) -> Result<(), Fault> {
        match Request::decode(message.kind, &message.payload).map_err(|e| e.to_string())? {
            Request::Ping => Ok(()),
            Request::Load { segment, path } => {
                let session = load(&path)?;
                self.segments.insert(segment, session);
                Ok(())
            }
            Request::Spawn { instance, segment, path } => {
                let session =
                    self.segments.get_mut(&segment).ok_or(format!("segment {segment} is not loaded"))?;
                let spawned = spawn(session, segment, &path)?;
                self.instances.insert(instance, spawned);
                Ok(())
            }
            Request::Run { instance } => {
                let found =
                    self.instances.get(&instance).ok_or(format!("instance {instance} was not spawned"))?;
                let session = self.segments.get_mut(&found.segment);
                let session = session.ok_or(format!("segment {} is not loaded", found.segment))?;
                let ran = stop.during(&found.halter, || {
                    session.run_binding_with_options(&found.binding, found.halter.options()).map(drop)
                });
                match ran {
                    Some(Ok(())) => Ok(()),
                    Some(Err(e)) if !stop.stopped() => Err(e.to_string().into()),
                    _ => Err(Fault::Stopped),
                }
            }
            Request::Free { instance } => {
                self.instances.remove(&instance);
                Ok(())
            }
            Request::Unload { segment } => {
                self.instances.retain(|_, i| i.segment != segment);
                self.segments.remove(&segment);
                Ok(())
            }
        }
    }
}

/// Opens an area and removes its name: from here on it lives as long as someone maps it.
fn take_area(path: &Path) -> Result<Area, String> {
    let area = Area::open(path).map_err(|e| e.to_string())?;
    area.unlink();
    Ok(area)
}

/// Compiles the model in blob 0: one thread, as the one slot of a DSP.
fn load(path: &Path) -> Result<Session, String> {
    let area = take_area(path)?;
    if area.len() != 1 {
        return Err(format!("a model area has 1 blob, this one has {}", area.len()));
    }
    let mut onnx = vec![0u8; area.blob_len(0)];
    area.read(0, &mut onnx).map_err(|e| e.to_string())?;
    crate::runtime::session(&onnx, 1, GraphOptimizationLevel::All, Ok).map_err(|e| e.to_string())
}

/// Binds the blobs of an area as inputs and outputs, in order: onnxruntime then reads and writes the shared memory itself.
fn spawn(session: &mut Session, segment: u64, path: &Path) -> Result<Instance, String> {
    let area = take_area(path)?;
    let outlets: Vec<(String, Vec<i64>)> = session
        .inputs()
        .iter()
        .chain(session.outputs())
        .map(|o| {
            static_shape(o.dtype())
                .map(|s| (o.name().to_owned(), s))
                .map_err(|e| format!("`{}`: {e}", o.name()))
        })
        .collect::<Result<_, _>>()?;
    if outlets.len() != area.len() {
        return Err(format!("the area has {} tensors, the segment {}", area.len(), outlets.len()));
    }
    let inputs = session.inputs().len();
    let mut binding = session.create_binding().map_err(|e| e.to_string())?;
    let mut tensors = Vec::with_capacity(outlets.len());
    for (i, (name, shape)) in outlets.iter().enumerate() {
        let need = 4 * shape.iter().product::<i64>() as usize;
        let address = area.address(i).filter(|_| area.blob_len(i) == need);
        let address =
            address.ok_or(format!("`{name}` takes {need} bytes, its blob has {}", area.blob_len(i)))?;
        let tensor = tensor_at(address, shape).map_err(|e| format!("`{name}`: {e}"))?;
        if i < inputs {
            bind_input(&mut binding, name, &tensor)?;
            tensors.push(tensor);
        } else {
            binding.bind_output(name.as_str(), tensor).map_err(|e| format!("`{name}`: {e}"))?;
        }
    }
    Ok(Instance { binding, _tensors: tensors, _area: area, segment, halter: Halter::new()? })
}

/// A tensor over shared memory.
fn tensor_at(address: *mut u8, shape: &[i64]) -> ort::Result<TensorRefMut<'static, f32>> {
    let info = memory::MemoryInfo::new(
        memory::AllocationDevice::CPU,
        0,
        memory::AllocatorType::Device,
        memory::MemoryType::Default,
    )?;
    // SAFETY: the caller checked that the blob holds the whole tensor; the area is kept beside the tensor and dropped after it.
    unsafe { TensorRefMut::from_raw(info, address.cast(), Shape::new(shape.iter().copied())) }
}

/// Binds an input without the copy that [`IoBinding::bind_input`] makes of borrowed memory: the scheduler's process writes
/// the next input to the same place.
fn bind_input(
    binding: &mut IoBinding,
    name: &str,
    tensor: &TensorRefMut<'static, f32>,
) -> Result<(), String> {
    let c_name = CString::new(name).map_err(|e| e.to_string())?;
    // SAFETY: all three pointers are valid; the tensor is kept in the instance for as long as the binding.
    let status = unsafe { (ort::api().BindInput)(binding.ptr_mut(), c_name.as_ptr(), tensor.ptr()) };
    // SAFETY: `status` comes from the call above and is consumed once.
    unsafe { ort::Error::result_from_status(status) }.map_err(|e| format!("`{name}`: {e}"))
}

/// The shape of an f32 tensor with static extents.
fn static_shape(t: &ValueType) -> Result<Vec<i64>, String> {
    match t {
        ValueType::Tensor { ty: ort::value::TensorElementType::Float32, shape, .. }
            if shape.iter().all(|d| *d >= 0) =>
        {
            Ok(shape.to_vec())
        }
        other => Err(format!("expected an f32 tensor of static shape, got {other}")),
    }
}
