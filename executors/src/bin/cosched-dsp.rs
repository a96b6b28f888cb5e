//! The DSP worker as a program of its own, for this crate's tests. The shipped binary has it as a hidden subcommand instead.
fn main() -> std::process::ExitCode {
    cosched_executors::dsp::worker_main(&std::env::args().skip(1).collect::<Vec<_>>())
}
