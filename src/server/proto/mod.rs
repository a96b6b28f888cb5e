//! What goes over gRPC. Everything in here is generated; see the two files' first lines. It refuses to hold anything else.

pub mod health;
pub mod inference;
