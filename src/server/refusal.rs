//! Why a caller gets no answer: one list of reasons, with what each is called over HTTP and over gRPC. It refuses to hold anything that
//! only one of the two can say.

/// What kind of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is malformed or does not fit the model.
    Invalid,
    /// No token, or a wrong one.
    Unauthenticated,
    /// No such model, version, stream or path.
    Unknown,
    /// The path knows another method.
    Method,
    /// The request was sent too slowly.
    Slow,
    /// The request is larger than allowed.
    TooLarge,
    /// Something is encoded in a way that is not spoken here.
    Encoding,
    /// The protocol has it, this server does not.
    NotBuilt,
    /// Not now: the queue is full, the request was dropped, the server shuts down.
    Unavailable,
    /// It waited longer than it was allowed to.
    Expired,
    /// Launches failed.
    Failed,
}

impl Kind {
    /// The HTTP status.
    pub fn http(self) -> u16 {
        match self {
            Kind::Invalid => 400,
            Kind::Unauthenticated => 401,
            Kind::Unknown => 404,
            Kind::Method => 405,
            Kind::Slow => 408,
            Kind::TooLarge => 413,
            Kind::Encoding => 415,
            Kind::NotBuilt => 501,
            Kind::Unavailable => 503,
            Kind::Expired => 504,
            Kind::Failed => 500,
        }
    }

    /// The gRPC code.
    pub fn grpc(self) -> tonic::Code {
        match self {
            Kind::Invalid | Kind::Encoding => tonic::Code::InvalidArgument,
            Kind::Unauthenticated => tonic::Code::Unauthenticated,
            Kind::Unknown => tonic::Code::NotFound,
            Kind::Method | Kind::NotBuilt => tonic::Code::Unimplemented,
            Kind::TooLarge => tonic::Code::ResourceExhausted,
            Kind::Unavailable => tonic::Code::Unavailable,
            Kind::Slow | Kind::Expired => tonic::Code::DeadlineExceeded,
            Kind::Failed => tonic::Code::Internal,
        }
    }
}

/// A kind and the words for people: what was wrong and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind it is.
    pub kind: Kind,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A refusal in words.
    pub fn new(kind: Kind, message: impl Into<String>) -> Refusal {
        Refusal { kind, message: message.into() }
    }

    /// The request is malformed or does not fit the model.
    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new(Kind::Invalid, message)
    }

    /// No such thing.
    pub fn unknown(message: impl Into<String>) -> Refusal {
        Refusal::new(Kind::Unknown, message)
    }

    /// Not now.
    pub fn unavailable(message: impl Into<String>) -> Refusal {
        Refusal::new(Kind::Unavailable, message)
    }
}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> tonic::Status {
        tonic::Status::new(refusal.kind.grpc(), refusal.message)
    }
}
