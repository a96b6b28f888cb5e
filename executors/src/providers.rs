//! Other execution providers of the user's onnxruntime as processors: `ort:cuda`, `ort:xnnpack` and so on. They are opened only when somebody
//! asks for them by name. They refuse to let onnxruntime's CPU compute in silence what the provider cannot.

use crate::energy::{Supply, nvml};
use crate::processor::{ExecError, Options, Processor, Row};
use crate::{cpu, runtime};
use ort::ep;
use ort::ep::{ExecutionProvider, ExecutionProviderDispatch};
use std::sync::Arc;

/// One of onnxruntime's execution providers.
#[derive(Clone, Copy)]
pub(crate) struct Provider {
    /// The processor's name.
    pub name: &'static str,
    /// onnxruntime's name.
    pub theirs: &'static str,
    /// Whether the loaded library was built with it.
    pub available: fn() -> ort::Result<bool>,
    /// Makes it.
    pub dispatch: fn() -> ExecutionProviderDispatch,
}

impl Provider {
    /// What feeds the processor that it computes on.
    pub fn supply(&self) -> Supply {
        match self.name {
            // onnxruntime takes the first GPU unless it is told otherwise.
            "ort:cuda" | "ort:tensorrt" => Supply::Nvidia(String::new()),
            "ort:xnnpack" | "ort:cpu" => Supply::Package,
            _ => Supply::Unseen,
        }
    }

    /// The processor and its driver, as far as the system tells.
    fn hardware(&self) -> Option<String> {
        match self.supply() {
            Supply::Package => Some(cpu::model_name()),
            Supply::Nvidia(_) => nvml::driver(),
            Supply::Unseen => None,
        }
    }
}

/// Opens a processor that computes with a provider.
///
/// # Errors
/// [`ExecError::Absent`] when onnxruntime is missing or was built without it.
fn open_with(options: &Options, provider: Provider) -> Result<Arc<dyn Processor>, ExecError> {
    let absent = |reason: String, hint: &str| ExecError::absent(provider.name, reason, hint);
    let version = runtime::version().map_err(|e| absent(e.tried, runtime::HINT))?;
    if !(provider.available)().map_err(|e| absent(e.to_string(), runtime::HINT))? {
        let reason = format!("this onnxruntime {version} was built without {}", provider.theirs);
        return Err(absent(reason, "set COSCHED_ONNXRUNTIME to a libonnxruntime that has it"));
    }
    let threads = options.cpu_threads.max(1);
    let on = provider.hardware().map_or(String::new(), |hardware| format!(" on {hardware}"));
    let device = format!("{} of onnxruntime {version}, {threads} thread(s){on}", provider.theirs);
    Ok(cpu::with(provider, threads, device))
}

macro_rules! providers {
    ($($word:literal, $about:literal, $ep:ident, $open:ident;)+) => {
        $(
            fn $open(options: &Options) -> Result<Arc<dyn Processor>, ExecError> {
                open_with(options, Provider {
                    name: $word,
                    theirs: <ep::$ep as ExecutionProvider>::NAME,
                    available: <ep::$ep as ExecutionProvider>::is_available,
                    dispatch: || ep::$ep::default().build().error_on_failure(),
                })
            }
        )+
        /// A row for each provider that can be asked for by name.
        pub static ROWS: &[Row] = &[$(Row { name: $word, about: $about, open: $open }),+];
    };
}

providers! {
    "ort:coreml", "Apple's Core ML, through onnxruntime", CoreML, coreml;
    "ort:cuda", "an NVIDIA GPU through CUDA, through onnxruntime", CUDA, cuda;
    "ort:nnapi", "Android's NNAPI, through onnxruntime", NNAPI, nnapi;
    "ort:openvino", "Intel's OpenVINO, through onnxruntime", OpenVINO, openvino;
    "ort:qnn", "Qualcomm's DSP and NPU, through onnxruntime", QNN, qnn;
    "ort:tensorrt", "an NVIDIA GPU through TensorRT, through onnxruntime", TensorRT, tensorrt;
    "ort:xnnpack", "XNNPACK on the CPU, through onnxruntime", XNNPACK, xnnpack;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_that_the_library_has_not_is_a_clear_error() {
        for row in ROWS {
            match (row.open)(&Options::default()) {
                Ok(processor) => assert_eq!(processor.name(), row.name),
                Err(error @ ExecError::Absent { .. }) => {
                    let text = error.to_string();
                    let expected = format!("processor `{}` is not available: this onnxruntime", row.name);
                    assert!(text.starts_with(&expected) && text.contains("ExecutionProvider"), "{text}");
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn a_provider_that_is_there_runs_and_says_its_name() {
        // onnxruntime's own CPU provider under a provider's name: the way there is the same.
        let provider = Provider {
            name: "ort:cpu",
            theirs: <ep::CPU as ExecutionProvider>::NAME,
            available: <ep::CPU as ExecutionProvider>::is_available,
            dispatch: || ep::CPU::default().build().error_on_failure(),
        };
        let processor = open_with(&Options::default(), provider).unwrap();
        assert_eq!(processor.name(), "ort:cpu");
        let device = processor.device();
        assert!(device.contains("CPUExecutionProvider") && device.ends_with(&cpu::model_name()), "{device}");
        assert_eq!(processor.supply(), Supply::Package);
    }
}
