//! The server from outside: plain HTTP/1.1 and gRPC against a server in this process, on real models on the cpu. Nothing here hangs on how
//! fast the machine is: launches are held and let go by a gate.

#[path = "../support/apps.rs"]
mod apps;
mod changes;
mod command;
mod ends;
mod errors;
mod faults;
mod fuzz;
mod grpc;
mod http;
mod infer;
mod live;
mod load;
mod memory;
mod online;
mod otlp;
mod over_grpc;
mod parsers;
#[path = "../support/plans.rs"]
mod plans;
mod remote;
mod rig;
mod slow;
mod soak;
mod tls;
mod tokens;
