//! What a decision sees and changes, and how time moves: the scheduler, observations, the objective, the emulator.
//! No file, clock, thread or device is touched in here.

pub mod capacity;
pub mod case;
pub mod crowd;
pub mod device;
pub mod emulator;
pub mod episode;
pub mod event;
pub mod fnv;
pub mod objective;
pub mod observation;
pub mod plan;
pub mod recording;
pub mod scenario;
pub mod scheduler;
pub mod streams;
pub mod time;
pub mod vector;
pub mod world;
