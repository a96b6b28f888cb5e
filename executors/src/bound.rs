//! A session of onnxruntime that reads our tensors where they lie and writes its results into ours: no copy, and no allocation on our
//! side once it is made (onnxruntime allocates a handle for each tensor). It goes by the C interface, because the crate `ort` allocates
//! names and results at each run. It refuses results that anybody else could see meanwhile.

use crate::graph::Value;
use crate::held::{Held, Own};
use crate::processor::ExecError;
use crate::stop::{Halt, Stop};
use crate::tensor::{DType, Tensor};
use ort::AsPointer;
use ort::session::{RunOptions, Session};
use ort::sys::{
    ONNXTensorElementDataType as Kind, OrtAllocatorType, OrtMemType, OrtMemoryInfo, OrtStatusPtr,
    OrtTensorTypeAndShapeInfo, OrtValue,
};
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::sync::Arc;

/// Inputs or outputs of a session, with the handles of the running run.
struct Ports {
    /// Kept for `pointers`.
    _names: Vec<CString>,
    pointers: Vec<*const c_char>,
    forms: Vec<(Kind, Vec<i64>)>,
    handles: Vec<*mut OrtValue>,
}

/// onnxruntime looks at this before each operator.
pub(crate) struct Halter(RunOptions);

impl Halter {
    pub(crate) fn new() -> Result<Arc<Halter>, String> {
        RunOptions::new().map(|options| Arc::new(Halter(options))).map_err(|e| e.to_string())
    }

    /// For the run that it shall halt.
    pub(crate) fn options(&self) -> &RunOptions {
        &self.0
    }
}

impl Halt for Halter {
    fn halt(&self) {
        // It sets a flag: there is nothing that could go wrong.
        let _ = self.0.terminate();
    }

    fn release(&self) {
        let _ = self.0.unterminate();
    }
}

/// Why a run gave nothing.
pub(crate) enum Fault {
    /// It was stopped.
    Stopped,
    /// What onnxruntime says.
    Failed(String),
    /// An input was not to be had.
    Input(ExecError),
}

impl From<String> for Fault {
    fn from(reason: String) -> Fault {
        Fault::Failed(reason)
    }
}

/// See the module's text.
pub(crate) struct Bound {
    session: Session,
    halter: Arc<Halter>,
    memory: *mut OrtMemoryInfo,
    inputs: Ports,
    outputs: Ports,
}

// SAFETY: the pointers are to things that `Bound` alone owns (names, a description of CPU memory) and to handles that live during
// `run` only, which takes `&mut self`; sessions may be used from any thread.
unsafe impl Send for Bound {}

impl Bound {
    /// `session` must compute `outputs` from `inputs`, on the CPU's memory.
    pub(crate) fn new(session: Session, inputs: &[Value], outputs: &[Value]) -> Result<Bound, String> {
        let mut memory = ptr::null_mut();
        let (arena, kind) = (OrtAllocatorType::OrtArenaAllocator, OrtMemType::OrtMemTypeDefault);
        // SAFETY: `memory` is a place for the result, released in `drop`.
        said(unsafe { (ort::api().CreateCpuMemoryInfo)(arena, kind, &mut memory) })?;
        let (halter, inputs, outputs) = (Halter::new(), Ports::new(inputs), Ports::new(outputs));
        // From here on `drop` releases `memory`, whatever fails.
        let bound = Bound { session, memory, halter: halter?, inputs: inputs?, outputs: outputs? };
        Ok(bound)
    }

    /// Runs once, or until `stop` is stopped. What the inputs are must have been checked; `results` are of the outputs' types and shapes.
    pub(crate) fn run(
        &mut self,
        inputs: &[Held],
        results: &mut [Own<Tensor>],
        stop: &Stop,
    ) -> Result<(), Fault> {
        let done = self.bind(inputs, results).and_then(|()| {
            let halter = self.halter.clone();
            match stop.during(&halter, || self.call()) {
                Some(Ok(())) => Ok(self.collect(results)?),
                Some(Err(reason)) if !stop.stopped() => Err(reason.into()),
                _ => Err(Fault::Stopped),
            }
        });
        self.inputs.release();
        self.outputs.release();
        done
    }

    fn bind(&mut self, inputs: &[Held], results: &mut [Own<Tensor>]) -> Result<(), Fault> {
        for (i, input) in inputs.iter().enumerate() {
            let bytes = input.host().map_err(Fault::Input)?.data.bytes();
            // onnxruntime does not write to inputs, though it takes them as mutable.
            self.inputs.bind(self.memory, i, bytes.as_ptr().cast_mut(), bytes.len())?;
        }
        for (i, result) in results.iter_mut().enumerate() {
            if self.outputs.unsure(i) {
                continue;
            }
            let bytes = result.get().data.bytes_mut();
            self.outputs.bind(self.memory, i, bytes.as_mut_ptr(), bytes.len())?;
        }
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let (inputs, outputs) = (&self.inputs, &mut self.outputs);
        // SAFETY: names and handles are as many as said and live until after the call; `bind` has just filled the handles with tensors
        // whose memory the caller holds.
        said(unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                self.halter.options().ptr(),
                inputs.pointers.as_ptr(),
                inputs.handles.as_ptr().cast(),
                inputs.handles.len(),
                outputs.pointers.as_ptr(),
                outputs.handles.len(),
                outputs.handles.as_mut_ptr(),
            )
        })
    }
}

impl Bound {
    /// Copies the results that onnxruntime made itself.
    fn collect(&mut self, results: &mut [Own<Tensor>]) -> Result<(), String> {
        for (i, result) in results.iter_mut().enumerate().filter(|(i, _)| self.outputs.unsure(*i)) {
            let (handle, tensor) = (self.outputs.handles[i], result.get());
            // SAFETY: the run has just made the handle, a dense tensor on the CPU of the type that the graph says; `run` releases it
            // after this. The information about it is released as soon as it is read.
            unsafe {
                let mut info = ptr::null_mut();
                said((ort::api().GetTensorTypeAndShape)(handle, &mut info))?;
                let shape = shape(info);
                (ort::api().ReleaseTensorTypeAndShapeInfo)(info);
                let shape = shape?;
                if shape != tensor.shape {
                    *tensor = Tensor::zeros(tensor.dtype(), &shape);
                }
                let mut data = ptr::null_mut();
                said((ort::api().GetTensorMutableData)(handle, &mut data))?;
                let bytes = tensor.data.bytes_mut();
                if !bytes.is_empty() {
                    ptr::copy_nonoverlapping(data.cast(), bytes.as_mut_ptr(), bytes.len());
                }
            }
        }
        Ok(())
    }
}

/// The shape in a description that is not null.
unsafe fn shape(info: *const OrtTensorTypeAndShapeInfo) -> Result<Vec<usize>, String> {
    // SAFETY: the caller's promise; `extents` is as long as said.
    unsafe {
        let mut rank = 0;
        said((ort::api().GetDimensionsCount)(info, &mut rank))?;
        let mut extents = vec![0i64; rank];
        said((ort::api().GetDimensions)(info, extents.as_mut_ptr(), rank))?;
        Ok(extents.into_iter().map(|d| d.max(0) as usize).collect())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and nothing uses it any more.
        unsafe { (ort::api().ReleaseMemoryInfo)(self.memory) }
    }
}

impl Ports {
    fn new(values: &[Value]) -> Result<Ports, String> {
        let name =
            |v: &Value| CString::new(v.name.as_str()).map_err(|_| format!("`{}` holds a zero", v.name));
        let names = values.iter().map(name).collect::<Result<Vec<_>, _>>()?;
        let shape = |v: &Value| v.shape.iter().map(|&d| d as i64).collect();
        Ok(Ports {
            pointers: names.iter().map(|name| name.as_ptr()).collect(),
            _names: names,
            forms: values.iter().map(|v| (kind(v.dtype), shape(v))).collect(),
            handles: vec![ptr::null_mut(); values.len()],
        })
    }

    /// Makes the handle of port `i` for the tensor at `data`.
    fn bind(
        &mut self,
        memory: *const OrtMemoryInfo,
        i: usize,
        data: *mut u8,
        bytes: usize,
    ) -> Result<(), String> {
        let (kind, shape) = &self.forms[i];
        let handle = &mut self.handles[i];
        // SAFETY: `data` points to so many bytes that outlive the handle, which `release` frees before `run` returns.
        said(unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                memory,
                data.cast(),
                bytes,
                shape.as_ptr(),
                shape.len(),
                *kind,
                handle,
            )
        })
    }

    /// A value without axes is a scalar, or one whose shape hangs on the data: onnxruntime then says as little of it. It makes such a
    /// result itself.
    fn unsure(&self, i: usize) -> bool {
        self.forms[i].1.is_empty()
    }

    fn release(&mut self) {
        for handle in &mut self.handles {
            let handle = std::mem::replace(handle, ptr::null_mut());
            if !handle.is_null() {
                // SAFETY: made by `bind`, released once.
                unsafe { (ort::api().ReleaseValue)(handle) }
            }
        }
    }
}

fn kind(dtype: DType) -> Kind {
    match dtype {
        DType::F32 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DType::F16 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DType::F64 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DType::I64 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DType::I32 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DType::U8 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DType::I8 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DType::Bool => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
    }
}

/// What onnxruntime says of a call.
fn said(status: OrtStatusPtr) -> Result<(), String> {
    if status.0.is_null() {
        return Ok(());
    }
    // SAFETY: a status that is not null holds a message until it is released, and is ours to release.
    unsafe {
        let message = CStr::from_ptr((ort::api().GetErrorMessage)(status.0)).to_string_lossy().into_owned();
        (ort::api().ReleaseStatus)(status.0);
        Err(message)
    }
}
