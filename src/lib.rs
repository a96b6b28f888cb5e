//! cosched: a co-scheduler for deep-learning inference on one device with several unlike processors.
//!
//! It loads several ONNX models, cuts them into segments, and a policy (learned or not) decides online which segment of which
//! request runs next on which processor, in which variant of the model, or whether to wait or to drop. This crate is the
//! facade: the parts are re-exported, and [`session`] puts them together.
//!
//! ```no_run
//! use cosched::session::{Session, SessionOptions};
//! use cosched::experiments::app::App;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let app = App::read("robot.toml".as_ref())?;
//! let session = Session::open(&app, &SessionOptions::default(), &mut |_, _, _| {})?;
//! let plan = session.profile(&app, &mut |_, _, _| {})?;
//! let case = app.case_of(plan)?;
//! let run = session.run(&app, case, "learned", Default::default())?;
//! println!("{} requests ended", run.log.ended.len());
//! # Ok(())
//! # }
//! ```

pub mod export;
pub mod fidelity;
pub mod load;
pub mod online;
pub mod server;
pub mod session;

pub use cosched_agent as agent;
pub use cosched_env as env;
pub use cosched_executors as executors;
pub use cosched_experiments as experiments;
pub use cosched_policies as policies;
