//! Other execution providers of the user's onnxruntime as processors: `ort:cuda`, `ort:xnnpack` and so on. They are opened only when somebody
//! asks for them by name. They refuse to let onnxruntime's CPU compute in silence what the provider cannot.

use crate::cpu::{self, Provider};
use crate::processor::{ExecError, Options, Processor, Row};
use ort::ep;
use ort::ep::ExecutionProvider;
use std::sync::Arc;

macro_rules! providers {
    ($($word:literal, $about:literal, $ep:ident, $open:ident;)+) => {
        $(
            fn $open(options: &Options) -> Result<Arc<dyn Processor>, ExecError> {
                cpu::open_with(options, Provider {
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
        let processor = cpu::open_with(&Options::default(), provider).unwrap();
        assert_eq!(processor.name(), "ort:cpu");
        assert!(processor.device().contains("CPUExecutionProvider"), "{}", processor.device());
    }
}
