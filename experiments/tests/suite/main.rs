//! The suite of the experiments crate: files and their errors, comparisons, sweeps, reports.

mod app;
mod bound;
mod compare;
mod config;
mod devices;
mod fixture;
mod html;
mod import;
mod rehearsal;
mod scenarios;
mod shipped;
mod summary;
mod sweep;
mod sweep_run;
mod trace;
mod xrbench;
