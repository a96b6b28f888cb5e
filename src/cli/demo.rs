//! placeholder
#[derive(clap::Args)]
pub struct Args {}
/// Runs.
pub fn run(_: &Args) -> super::Outcome { Ok(()) }
