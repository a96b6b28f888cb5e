//! Experiments: app files, comparisons, sweeps, and what is reported of a run (tables, HTML, Chrome traces).
//! It refuses to touch a device: live runs call in here for their files and reports, never the other way round.

pub mod about;
pub mod adapt;
pub mod app;
pub mod bound;
pub mod compare;
pub mod config;
pub mod html;
pub mod log;
pub mod parallel;
pub mod speed;
pub mod stats;
#[cfg(test)]
#[rustfmt::skip]
mod stats_values;
pub mod summary;
pub mod sweep;
pub mod table;
pub mod timeline;
pub mod trace;
pub mod xrbench;
