//! The command line of cosched.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: nothing else runs yet. Without a desktop session Mesa's device-selection layer prints an error at every start;
        // this switches the layer off, and cosched chooses its device itself.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
    // A DSP shim is this same program in a process of its own; it is not a command for people.
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("dsp-worker") {
        return cosched::executors::dsp::worker_main(&args.collect::<Vec<_>>());
    }
    cli::main()
}
