//! What learns: features, the network, the learners and checkpoints.
//! Deciding needs no libtorch; the feature `train` brings the learners and tch.

pub mod checkpoint;
pub mod experience;
pub mod features;
pub mod file;
pub mod guide;
pub mod invent;
pub mod matmul;
pub mod network;
pub mod online;
pub mod randomize;
pub mod shortlist;
#[cfg(feature = "train")]
pub mod train;
