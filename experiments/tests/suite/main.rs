//! The suite of the experiments crate: files and their errors, comparisons, sweeps, reports.

mod app;
mod bound;
mod compare;
mod config;
mod fixture;
mod html;
mod shipped;
mod summary;
mod sweep;
mod trace;
