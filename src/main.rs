//! The command line of cosched.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: nothing else runs yet. Without a desktop session Mesa's device-selection layer prints an error at every start;
        // this switches the layer off, and cosched chooses its device itself.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
    if std::env::var_os("POCL_DEVICES").is_none() {
        // SAFETY: nothing else runs yet. Where OpenCL's device is pocl's CPU, kernels run in the thread that waits for them, on one core, as
        // onnxruntime does on `cpu` by default: most kernels ran in one of pocl's threads at a time anyway, and to wake those cost a sixth of
        // the CPU time. `POCL_DEVICES=pthread` brings them back. Other drivers do not read it.
        unsafe { std::env::set_var("POCL_DEVICES", "basic") };
    }
    // A DSP shim is this same program in a process of its own; it is not a command for people.
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("dsp-worker") {
        return cosched::executors::dsp::worker_main(&args.collect::<Vec<_>>());
    }
    cli::main()
}
