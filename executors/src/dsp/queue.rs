//! The control segment of the DSP shim: a versioned header and two rings of fixed slots (requests one way, replies the other)
//! in memory shared by two processes. It moves small messages only; tensors travel in an [`super::area::Area`].
//! It never waits, trusts no number that the other side may have written, and never panics on one.

use memmap2::MmapRaw;
use std::cell::UnsafeCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Version of everything in shared memory: header, slots, messages, areas. Both sides must agree exactly.
pub const VERSION: u32 = 3;
/// Slots of each ring.
pub const SLOTS: usize = 64;
/// Bytes of payload in one slot.
pub const PAYLOAD: usize = 1000;
/// Set in the sequence number of a request that wants no reply.
pub const NO_REPLY: u64 = 1 << 63;

const MAGIC: u64 = u64::from_le_bytes(*b"cosdspq\n");

/// What can be wrong with a control segment or a message in it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The file could not be made, opened or mapped.
    #[error("shared memory `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a control segment.
    #[error("shared memory `{path}`: expected a DSP queue of {expected}, got {got}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// The two sides are of different builds.
    #[error(
        "DSP protocol version mismatch: the scheduler speaks version {client}, the worker version {worker}; both must be the same build of cosched"
    )]
    Version {
        /// Version of the side that made the segment.
        client: u32,
        /// Version of the side that opened it.
        worker: u32,
    },
    /// The ring has no free slot now.
    #[error("the DSP queue is full ({SLOTS} messages under way)")]
    Full,
    /// The message does not fit a slot.
    #[error("a DSP message of {0} bytes does not fit a slot of {PAYLOAD} bytes")]
    TooLong(usize),
    /// The other side wrote an impossible number.
    #[error("the DSP queue is corrupt: {0}")]
    Corrupt(String),
}

/// A message as it lies in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Sequence number; a reply carries that of its request.
    pub seq: u64,
    /// What the payload means; see [`super::wire`].
    pub kind: u32,
    /// At most [`PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

/// One cache line with one counter, so that the two sides do not fight over a line.
#[repr(C, align(64))]
struct Line(AtomicU64);

#[repr(C, align(64))]
struct Slot {
    seq: AtomicU64,
    kind: AtomicU32,
    len: AtomicU32,
    bytes: UnsafeCell<[u8; PAYLOAD]>,
}

/// Single producer, single consumer; each process guards its own end.
#[repr(C)]
struct Ring {
    head: Line,
    tail: Line,
    slots: [Slot; SLOTS],
}

/// The first four fields keep their place in every version, so that two versions can tell each other apart.
#[repr(C, align(64))]
struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    worker_version: AtomicU32,
    size: AtomicU64,
    heartbeat: AtomicU64,
    worker_asleep: AtomicU32,
    clients_waiting: AtomicU32,
}

#[repr(C)]
struct Layout {
    header: Header,
    requests: Ring,
    replies: Ring,
    /// Changes with every stop.
    bell: AtomicU32,
    /// Sequence numbers of requests that were stopped, each in a place by its number.
    stops: [AtomicU64; SLOTS],
}

/// Which ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the scheduler to the worker.
    Requests,
    /// From the worker to the scheduler.
    Replies,
}

/// A mapped control segment.
pub struct Control {
    map: MmapRaw,
    path: PathBuf,
}

// SAFETY: the mapping is plain memory that outlives every use through `&self`; all fields are atomics except the payload bytes,
// which `push` and `pop` touch only between the matching acquire and release of the ring's counters.
unsafe impl Send for Control {}
// SAFETY: see above; callers keep to one pusher and one popper for each ring (both sides hold a lock or are one thread).
unsafe impl Sync for Control {}

impl Control {
    /// Makes a control segment in a new file of `dir`, marked with `version` ([`VERSION`]; tests pass others).
    ///
    /// # Errors
    /// [`QueueError::Io`] when the file cannot be made or mapped.
    pub fn create(dir: &Path, version: u32) -> Result<Self, QueueError> {
        let (file, path) = create_file(dir, size_of::<Layout>())?;
        let map = MmapRaw::map_raw(&file).map_err(|source| QueueError::Io { path: path.clone(), source })?;
        let control = Self { map, path };
        let header = &control.layout().header;
        header.version.store(version, Ordering::Relaxed);
        header.size.store(size_of::<Layout>() as u64, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        Ok(control)
    }

    /// Opens the segment that the other side made, and leaves this side's version in it.
    ///
    /// # Errors
    /// [`QueueError::Foreign`] when the file is something else, [`QueueError::Version`] when it is of another version.
    pub fn open(path: &Path) -> Result<Self, QueueError> {
        let io = |source| QueueError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let foreign =
            |expected: String, got: String| QueueError::Foreign { path: path.to_owned(), expected, got };
        if bytes < size_of::<Header>() as u64 {
            return Err(foreign(format!("at least {} bytes", size_of::<Header>()), format!("{bytes} bytes")));
        }
        let map = MmapRaw::map_raw(&file).map_err(io)?;
        // SAFETY: the map holds at least a header, page-aligned; every field is an atomic.
        let header = unsafe { &*map.as_ptr().cast::<Header>() };
        let magic = header.magic.load(Ordering::Acquire);
        if magic != MAGIC {
            return Err(foreign(format!("magic {MAGIC:#x}"), format!("{magic:#x}")));
        }
        header.worker_version.store(VERSION, Ordering::SeqCst);
        let client = header.version.load(Ordering::Relaxed);
        if client != VERSION {
            return Err(QueueError::Version { client, worker: VERSION });
        }
        if bytes != size_of::<Layout>() as u64 || header.size.load(Ordering::Relaxed) != bytes {
            return Err(foreign(format!("{} bytes", size_of::<Layout>()), format!("{bytes} bytes")));
        }
        Ok(Self { map, path: path.to_owned() })
    }

    /// Where the file is (or was, once unlinked).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file's name; the memory lives on in those who have it open. Absence is fine.
    pub fn unlink(&self) {
        let _ = std::fs::remove_file(&self.path);
    }

    /// The mismatch, when a worker of another version has looked at this segment.
    pub fn refusal(&self) -> Option<QueueError> {
        let header = &self.layout().header;
        let (client, worker) =
            (header.version.load(Ordering::SeqCst), header.worker_version.load(Ordering::SeqCst));
        (worker != 0 && worker != client).then_some(QueueError::Version { client, worker })
    }

    /// Appends a message. One thread at a time for each ring.
    ///
    /// # Errors
    /// [`QueueError::Full`], [`QueueError::TooLong`] or [`QueueError::Corrupt`].
    pub fn push(&self, side: Side, seq: u64, kind: u32, payload: &[u8]) -> Result<(), QueueError> {
        if payload.len() > PAYLOAD {
            return Err(QueueError::TooLong(payload.len()));
        }
        let ring = self.ring(side);
        let head = ring.head.0.load(Ordering::Relaxed);
        match head.wrapping_sub(ring.tail.0.load(Ordering::Acquire)) {
            used if used < SLOTS as u64 => {}
            used if used == SLOTS as u64 => return Err(QueueError::Full),
            used => return Err(QueueError::Corrupt(format!("{used} of {SLOTS} slots in use"))),
        }
        let slot = &ring.slots[(head % SLOTS as u64) as usize];
        slot.seq.store(seq, Ordering::Relaxed);
        slot.kind.store(kind, Ordering::Relaxed);
        slot.len.store(payload.len() as u32, Ordering::Relaxed);
        // SAFETY: the slot is between tail and head + SLOTS, so the consumer does not read it; the payload fits (checked).
        unsafe { std::ptr::copy_nonoverlapping(payload.as_ptr(), slot.bytes.get().cast(), payload.len()) };
        // Sequentially consistent, because the pusher then looks whether the other side sleeps.
        ring.head.0.store(head.wrapping_add(1), Ordering::SeqCst);
        Ok(())
    }

    /// Takes the oldest message, if there is one. One thread at a time for each ring.
    ///
    /// # Errors
    /// [`QueueError::Corrupt`] when the counters or the length are impossible.
    pub fn pop(&self, side: Side) -> Result<Option<Message>, QueueError> {
        let ring = self.ring(side);
        let tail = ring.tail.0.load(Ordering::Relaxed);
        match ring.head.0.load(Ordering::SeqCst).wrapping_sub(tail) {
            0 => return Ok(None),
            used if used <= SLOTS as u64 => {}
            used => return Err(QueueError::Corrupt(format!("{used} of {SLOTS} slots in use"))),
        }
        let slot = &ring.slots[(tail % SLOTS as u64) as usize];
        let len = slot.len.load(Ordering::Relaxed) as usize;
        if len > PAYLOAD {
            return Err(QueueError::Corrupt(format!("a message of {len} bytes in a slot of {PAYLOAD}")));
        }
        let mut payload = vec![0u8; len];
        // SAFETY: the slot is between tail and head, so the producer does not write it; the length fits (checked).
        unsafe { std::ptr::copy_nonoverlapping(slot.bytes.get().cast::<u8>(), payload.as_mut_ptr(), len) };
        let message = Message {
            seq: slot.seq.load(Ordering::Relaxed),
            kind: slot.kind.load(Ordering::Relaxed),
            payload,
        };
        ring.tail.0.store(tail.wrapping_add(1), Ordering::Release);
        Ok(Some(message))
    }

    /// Whether a message lies in the ring.
    pub fn pending(&self, side: Side) -> bool {
        let ring = self.ring(side);
        ring.head.0.load(Ordering::SeqCst) != ring.tail.0.load(Ordering::SeqCst)
    }

    /// The worker's life sign: a counter.
    pub fn heartbeat(&self) -> u64 {
        self.layout().header.heartbeat.load(Ordering::Relaxed)
    }

    /// One more life sign.
    pub fn beat(&self) {
        self.layout().header.heartbeat.fetch_add(1, Ordering::Relaxed);
    }

    /// Says whether the worker is about to block on its pipe; returns what was said before. Who swaps `true` away owes a byte.
    pub fn set_worker_asleep(&self, asleep: bool) -> bool {
        self.layout().header.worker_asleep.swap(u32::from(asleep), Ordering::SeqCst) != 0
    }

    /// A client thread is about to block (`true`) or has woken (`false`).
    pub fn client_waits(&self, waits: bool) {
        let n = &self.layout().header.clients_waiting;
        if waits {
            n.fetch_add(1, Ordering::SeqCst)
        } else {
            n.fetch_sub(1, Ordering::SeqCst)
        };
    }

    /// Whether some client thread blocks and must be woken through the pipe.
    pub fn clients_wait(&self) -> bool {
        self.layout().header.clients_waiting.load(Ordering::SeqCst) != 0
    }

    /// Says that nobody waits for the reply to request `seq` any more, and wakes who hears of it. As many are remembered as there are
    /// slots: of more at once one may be forgotten, which then runs to its end.
    pub fn stop(&self, seq: u64) {
        let layout = self.layout();
        layout.stops[(seq % SLOTS as u64) as usize].store(seq, Ordering::SeqCst);
        layout.bell.fetch_add(1, Ordering::SeqCst);
        #[cfg(target_os = "linux")]
        let _ = rustix::thread::futex::wake(&layout.bell, rustix::thread::futex::Flags::empty(), u32::MAX);
    }

    /// Whether request `seq` was stopped.
    pub fn stopped(&self, seq: u64) -> bool {
        self.layout().stops[(seq % SLOTS as u64) as usize].load(Ordering::SeqCst) == seq
    }

    /// How often something was stopped, for [`Control::hear`].
    pub fn stops(&self) -> u32 {
        self.layout().bell.load(Ordering::SeqCst)
    }

    /// Sleeps until more was stopped than `seen`, or for so long at most; it may wake for nothing.
    #[cfg(target_os = "linux")]
    pub fn hear(&self, seen: u32, at_most: std::time::Duration) {
        use rustix::thread::futex::{Flags, Timespec, wait};
        let nanos = at_most.as_nanos() as i64;
        let timeout = Timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
        // Both processes have the word in memory of their own: the futex must not be private. Whatever it says, the caller looks again.
        let _ = wait(&self.layout().bell, Flags::empty(), seen, Some(&timeout));
    }

    /// Sleeps for a moment: there is nothing to wait on.
    #[cfg(not(target_os = "linux"))]
    pub fn hear(&self, _: u32, at_most: std::time::Duration) {
        std::thread::sleep(at_most.min(std::time::Duration::from_millis(5)));
    }

    fn layout(&self) -> &Layout {
        // SAFETY: both constructors made sure that the page-aligned map holds a whole `Layout`, whose fields are atomics or cells.
        unsafe { &*self.map.as_ptr().cast::<Layout>() }
    }

    fn ring(&self, side: Side) -> &Ring {
        match side {
            Side::Requests => &self.layout().requests,
            Side::Replies => &self.layout().replies,
        }
    }
}

/// Where shared memory files go: memory-backed where there is one.
pub fn shared_dir() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() }
}

/// A new private file of `bytes` zeros. They are written, not only promised: a full memory file system is then an error here
/// and not a SIGBUS at the first touch.
pub(super) fn create_file(dir: &Path, bytes: usize) -> Result<(File, PathBuf), QueueError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let nanos =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let name = format!("cosched-dsp-{}-{}-{nanos}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = dir.join(name);
    let fill = |file: &mut File| -> io::Result<()> {
        let zeros = vec![0u8; bytes.min(1 << 20)];
        let mut left = bytes;
        while left > 0 {
            let n = left.min(zeros.len());
            file.write_all(&zeros[..n])?;
            left -= n;
        }
        file.flush()
    };
    let mut file = options.open(&path).map_err(|source| QueueError::Io { path: path.clone(), source })?;
    match fill(&mut file) {
        Ok(()) => Ok((file, path)),
        Err(source) => {
            let _ = std::fs::remove_file(&path);
            Err(QueueError::Io { path, source })
        }
    }
}
