//! cargo-fuzz's target `onnx`; what it does stands in `targets.rs`. It holds nothing of its own.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (targets::TARGETS[2].run)(data);
});
