//! The command line of cosched.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A DSP shim is this same program in a process of its own; it is not a command for people.
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("dsp-worker") {
        return cosched::executors::dsp::worker_main(&args.collect::<Vec<_>>());
    }
    cli::main()
}
