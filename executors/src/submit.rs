//! The way of callers into a live world: what they may ask, and how they hear of the end. Nothing here waits: a world that has too
//! much to hear refuses, and a reply is handed over by a call that the caller gave along. It refuses to judge tensors.

use crate::tensor::Tensor;
use cosched_env::case::{Case, ProcessorId, StreamId, VariantId};
use cosched_env::event::{Ended, Request, RequestId};
use cosched_env::time::{Span, Time};
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// How a caller's request ended.
#[derive(Debug)]
pub struct Reply {
    /// How, when, in which variant.
    pub ended: Ended,
    /// The answer when there is one, in the order of the model's outputs.
    pub outputs: Option<Vec<Arc<Tensor>>>,
    /// Processors of its good launches, in order; one that served it several times in a row is there once.
    pub processors: Vec<ProcessorId>,
    /// What these launches took together; the rest of the time it waited.
    pub compute: Span,
}

/// Called once with the reply, on the world's own thread: it must not wait for anything. It is dropped uncalled when the request never
/// became one, or when the world is gone.
pub type OnReply = Box<dyn FnOnce(Reply) + Send>;

/// What a caller asks for. What is `None` is as the stream says.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Stream that it belongs to; its task is what is asked for.
    pub stream: StreamId,
    /// In the order of the model's inputs.
    pub inputs: Vec<Arc<Tensor>>,
    /// Time until it is due.
    pub deadline: Option<Span>,
    /// Time after which it is given up if it still waits.
    pub expire: Option<Span>,
    /// Weight in the objective.
    pub priority: Option<f64>,
    /// Least accuracy of a variant that may serve it.
    pub min_accuracy: Option<f64>,
    /// The only variant that may serve it.
    pub variant: Option<VariantId>,
}

impl Ask {
    /// A request as its stream makes them.
    pub fn new(stream: StreamId, inputs: Vec<Arc<Tensor>>) -> Ask {
        Ask {
            stream,
            inputs,
            deadline: None,
            expire: None,
            priority: None,
            min_accuracy: None,
            variant: None,
        }
    }

    /// The request, or why the case knows no such thing.
    pub(crate) fn request(&self, case: &Case, id: RequestId, arrival: Time) -> Result<Request, String> {
        let Some(stream) = case.streams.get(self.stream.0 as usize) else {
            return Err(format!("stream {} of {} streams", self.stream.0, case.streams.len()));
        };
        if let Some(v) = self.variant
            && case.variants.get(v.0 as usize).is_none_or(|variant| variant.task != stream.task)
        {
            return Err(format!("variant {} does not serve the task of stream {}", v.0, self.stream.0));
        }
        let mut request = stream.request(id, self.stream, arrival, arrival);
        request.deadline = self.deadline.map_or(request.deadline, |span| arrival + span);
        request.expires = self.expire.map_or(request.expires, |span| arrival + span);
        request.priority = self.priority.unwrap_or(request.priority);
        request.min_accuracy = self.min_accuracy.unwrap_or(request.min_accuracy);
        request.variant = self.variant;
        Ok(request)
    }
}

/// Why a request was not even heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many as the world takes wait to be heard.
    #[error("too many requests wait to be heard")]
    Full,
    /// The world is gone.
    #[error("the scheduler has ended")]
    Gone,
}

/// What goes to the world.
pub(crate) enum Message {
    Ask(Submission),
    Withdraw(RequestId),
}

/// A request from a caller.
pub(crate) struct Submission {
    pub id: RequestId,
    pub ask: Ask,
    pub at: Instant,
    pub reply: OnReply,
}

/// Messages that a world has not heard yet, at most; it hears them as fast as it decides.
const UNHEARD: usize = 4096;
/// Requests of callers are numbered from here, above all that streams will ever make.
const FIRST_SUBMITTED: u64 = 1 << 48;

/// Hands requests to a live world from any thread. The world goes on for as long as one of these is there.
#[derive(Clone)]
pub struct Submitter {
    messages: Sender<Message>,
    unheard: Arc<AtomicUsize>,
    next_id: Arc<AtomicU64>,
}

/// The world's end.
pub(crate) struct Heard {
    /// What callers say.
    pub messages: Receiver<Message>,
    /// How much of it has not been heard; the world takes one off for each message.
    pub unheard: Arc<AtomicUsize>,
}

/// Both ends. The channel itself has no bound, the count has: a bounded one keeps what its receiver has not heard, and those who wait
/// for the answer to that would wait for ever.
pub(crate) fn channel() -> (Submitter, Heard) {
    let (sender, messages) = unbounded();
    let unheard = Arc::new(AtomicUsize::new(0));
    let next_id = Arc::new(AtomicU64::new(FIRST_SUBMITTED));
    (Submitter { messages: sender, unheard: unheard.clone(), next_id }, Heard { messages, unheard })
}

impl Submitter {
    /// Asks; `reply` is called once, unless the world refuses what is asked or goes away before: then it is dropped. Never waits.
    ///
    /// # Errors
    /// [`Refused`]; `reply` has been dropped then.
    pub fn ask(&self, ask: Ask, reply: OnReply) -> Result<RequestId, Refused> {
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let submission = Submission { id, ask, at: Instant::now(), reply };
        self.send(Message::Ask(submission)).map(|()| id)
    }

    fn send(&self, message: Message) -> Result<(), Refused> {
        if self.unheard.fetch_add(1, Ordering::Relaxed) >= UNHEARD {
            self.unheard.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        self.messages.send(message).map_err(|_| Refused::Gone)
    }

    /// The answer is not wanted any more: a request that waits expires, one that runs does so when its launch ends, which is told to end at
    /// its next operator or dispatch. Its reply still comes. Never waits; where there is too much to hear, the request lives until it expires by itself.
    pub fn withdraw(&self, request: RequestId) {
        let _ = self.send(Message::Withdraw(request));
    }

    /// Asks for the task of a stream. Exactly one reply comes; the receiver is disconnected without one when there is no such
    /// stream, when too much is asked at once, or when the world is gone.
    pub fn submit(&self, stream: StreamId, inputs: Vec<Tensor>) -> Receiver<Reply> {
        let (reply, receiver) = bounded(1);
        let inputs = inputs.into_iter().map(Arc::new).collect();
        // A caller that has gone away has dropped its receiver.
        let reply = Box::new(move |r| drop(reply.send(r)));
        // A refusal drops the sender, and the caller sees it.
        let _ = self.ask(Ask::new(stream, inputs), reply);
        receiver
    }
}
