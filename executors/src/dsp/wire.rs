//! The messages between the scheduler's process and the DSP worker, as bytes of a queue slot.
//! Decoding returns an error on anything malformed; it never panics and never allocates more than the slot holds.

use super::queue::PAYLOAD;
use std::path::{Path, PathBuf};

/// What the scheduler asks of the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Are you there, and what do you compute with?
    Ping,
    /// Compile the quantised ONNX model that is blob 0 of the area at `path`.
    Load {
        /// Name of the compiled segment from now on.
        segment: u64,
        /// File of the area.
        path: PathBuf,
    },
    /// Make an instance whose tensors are the blobs of the area at `path`: the inputs, then the outputs, all f32.
    Spawn {
        /// Name of the instance from now on.
        instance: u64,
        /// A loaded segment.
        segment: u64,
        /// File of the area.
        path: PathBuf,
    },
    /// Run an instance: inputs and outputs are in its area.
    Run {
        /// A spawned instance.
        instance: u64,
    },
    /// Forget an instance.
    Free {
        /// A spawned instance.
        instance: u64,
    },
    /// Forget a segment and its instances.
    Unload {
        /// A loaded segment.
        segment: u64,
    },
}

/// What the worker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done, after so many nanoseconds of work in the worker.
    Done {
        /// Nanoseconds between taking the request and answering it.
        busy_ns: u64,
    },
    /// The answer to a ping.
    Here {
        /// What the worker computes with, with its version: for people, and so that plans of another one are refused.
        name: String,
    },
    /// It was stopped before its end.
    Stopped,
    /// Refused or failed, with the reason (cut to fit a slot).
    Failed {
        /// For people.
        reason: String,
    },
}

/// A message that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed DSP message of kind {kind} with {len} bytes: {reason}")]
pub struct WireError {
    /// Kind found in the slot.
    pub kind: u32,
    /// Bytes of payload.
    pub len: usize,
    /// What was expected.
    pub reason: &'static str,
}

impl Request {
    /// Kind and payload for a slot.
    pub fn encode(&self) -> (u32, Vec<u8>) {
        let words = |w: &[u64], path: &Path| {
            let mut bytes: Vec<u8> = w.iter().flat_map(|v| v.to_le_bytes()).collect();
            bytes.extend(path.as_os_str().as_encoded_bytes());
            bytes
        };
        let none = Path::new("");
        match self {
            Request::Ping => (1, Vec::new()),
            Request::Load { segment, path } => (2, words(&[*segment], path)),
            Request::Spawn { instance, segment, path } => (3, words(&[*instance, *segment], path)),
            Request::Run { instance } => (4, words(&[*instance], none)),
            Request::Free { instance } => (5, words(&[*instance], none)),
            Request::Unload { segment } => (6, words(&[*segment], none)),
        }
    }

    /// The request in a slot.
    ///
    /// # Errors
    /// [`WireError`] on an unknown kind, a wrong length or a path that is not UTF-8.
    pub fn decode(kind: u32, payload: &[u8]) -> Result<Self, WireError> {
        let bad = |reason| WireError { kind, len: payload.len(), reason };
        let word = |i: usize| -> Result<u64, WireError> {
            let bytes = payload.get(8 * i..8 * i + 8).and_then(|b| b.try_into().ok());
            bytes.map(u64::from_le_bytes).ok_or(bad("expected more 64-bit words"))
        };
        let exact =
            |n: usize| if payload.len() == 8 * n { Ok(()) } else { Err(bad("expected another length")) };
        let path = |i: usize| -> Result<PathBuf, WireError> {
            let text = std::str::from_utf8(payload.get(8 * i..).unwrap_or(&[]));
            match text {
                Ok("") | Err(_) => Err(bad("expected a path in UTF-8")),
                Ok(text) => Ok(PathBuf::from(text)),
            }
        };
        match kind {
            1 => exact(0).map(|()| Request::Ping),
            2 => Ok(Request::Load { segment: word(0)?, path: path(1)? }),
            3 => Ok(Request::Spawn { instance: word(0)?, segment: word(1)?, path: path(2)? }),
            4 => exact(1).and_then(|()| Ok(Request::Run { instance: word(0)? })),
            5 => exact(1).and_then(|()| Ok(Request::Free { instance: word(0)? })),
            6 => exact(1).and_then(|()| Ok(Request::Unload { segment: word(0)? })),
            _ => Err(bad("expected a request kind from 1 to 6")),
        }
    }
}

impl Reply {
    /// Kind and payload for a slot. A long text is cut at a character boundary.
    pub fn encode(&self) -> (u32, Vec<u8>) {
        match self {
            Reply::Done { busy_ns } => (101, busy_ns.to_le_bytes().to_vec()),
            Reply::Failed { reason } => (102, text(reason)),
            Reply::Stopped => (103, Vec::new()),
            Reply::Here { name } => (104, text(name)),
        }
    }

    /// The reply in a slot.
    ///
    /// # Errors
    /// [`WireError`] on an unknown kind or a wrong length.
    pub fn decode(kind: u32, payload: &[u8]) -> Result<Self, WireError> {
        let bad = |reason| WireError { kind, len: payload.len(), reason };
        match kind {
            101 => match payload.try_into() {
                Ok(bytes) => Ok(Reply::Done { busy_ns: u64::from_le_bytes(bytes) }),
                Err(_) => Err(bad("expected 8 bytes")),
            },
            102 => Ok(Reply::Failed { reason: String::from_utf8_lossy(payload).into_owned() }),
            103 if payload.is_empty() => Ok(Reply::Stopped),
            103 => Err(bad("expected no payload")),
            104 => Ok(Reply::Here { name: String::from_utf8_lossy(payload).into_owned() }),
            _ => Err(bad("expected a reply kind from 101 to 104")),
        }
    }
}

/// As much of a text as fits a slot.
fn text(text: &str) -> Vec<u8> {
    let end = (0..=text.len().min(PAYLOAD)).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text.as_bytes()[..end].to_vec()
}
