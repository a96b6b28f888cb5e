//! A model in onnxruntime as it stands in its file: inputs and outputs by name, of whatever shapes it takes at each run. For checking
//! files that we write. It refuses to be scheduled: segments need shapes that are known before; see `onnx::load` and `cpu`.

use crate::runtime::{self, SessionError};
use crate::tensor::{Data, Tensor};
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynTensor, DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef};

/// Why a model did not run.
#[derive(Debug, thiserror::Error)]
pub enum BareError {
    /// There is no onnxruntime.
    #[error(transparent)]
    Absent(#[from] runtime::RuntimeError),
    /// onnxruntime refuses the model or the inputs.
    #[error("onnxruntime: {0}")]
    Refused(String),
}

impl From<ort::Error> for BareError {
    fn from(error: ort::Error) -> Self {
        BareError::Refused(error.to_string())
    }
}

/// An open model.
pub struct Bare(Session);

impl Bare {
    /// Opens an ONNX file from memory, on one thread.
    ///
    /// # Errors
    /// [`BareError`].
    pub fn open(bytes: &[u8]) -> Result<Bare, BareError> {
        let session = runtime::session(bytes, 1, GraphOptimizationLevel::All, Ok);
        session.map(Bare).map_err(|error| match error {
            SessionError::Absent(error) => BareError::Absent(error),
            SessionError::Refused(reason) => BareError::Refused(reason),
        })
    }

    /// Gives the named outputs for named inputs.
    ///
    /// # Errors
    /// [`BareError::Refused`].
    pub fn run(&mut self, inputs: &[(&str, &Tensor)], outputs: &[&str]) -> Result<Vec<Tensor>, BareError> {
        let mut values = Vec::new();
        for &(name, tensor) in inputs {
            if tensor.data.bytes().len() != tensor.bytes() {
                return Err(BareError::Refused(format!(
                    "`{name}` has not as many elements as its shape says"
                )));
            }
            values.push((name, input(&self.0, tensor)?));
        }
        let made = self.0.run(values)?;
        let missing = |name: &str| BareError::Refused(format!("the model has no output `{name}`"));
        outputs
            .iter()
            .map(|&name| output(made.get(name).ok_or_else(|| missing(name))?).map_err(BareError::Refused))
            .collect()
    }

    /// A note in the metadata of the file.
    ///
    /// # Errors
    /// [`BareError::Refused`].
    pub fn note(&self, key: &str) -> Result<Option<String>, BareError> {
        Ok(self.0.metadata()?.custom(key))
    }
}

/// A tensor as onnxruntime's, borrowed where its crate can.
fn input<'t>(session: &Session, tensor: &'t Tensor) -> Result<SessionInputValue<'t>, ort::Error> {
    fn view<'t, T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static>(
        shape: &[usize],
        data: &'t [T],
    ) -> Result<SessionInputValue<'t>, ort::Error> {
        Ok(TensorRef::from_array_view((shape.to_vec(), data))?.into())
    }
    let copied = |kind: TensorElementType, raw: &[u8]| -> Result<SessionInputValue<'t>, ort::Error> {
        let mut value = DynTensor::new(session.allocator(), kind, tensor.shape.clone())?;
        if !raw.is_empty() {
            // SAFETY: the allocator is the session's, on the CPU; the tensor holds exactly as many bytes (`Bare::run` checks it).
            unsafe { std::ptr::copy_nonoverlapping(raw.as_ptr(), value.data_ptr_mut().cast(), raw.len()) };
        }
        Ok(value.into())
    };
    match &tensor.data {
        Data::F32(v) => view(&tensor.shape, v),
        Data::F64(v) => view(&tensor.shape, v),
        Data::I64(v) => view(&tensor.shape, v),
        Data::I32(v) => view(&tensor.shape, v),
        Data::U8(v) => view(&tensor.shape, v),
        Data::I8(v) => view(&tensor.shape, v),
        Data::F16(v) => copied(TensorElementType::Float16, bytemuck::cast_slice(v)),
        Data::Bool(v) => copied(TensorElementType::Bool, v),
    }
}

/// One of onnxruntime's results as a tensor.
fn output(value: &DynValue) -> Result<Tensor, String> {
    let tensor = value.view().downcast::<ort::value::DynTensorValueType>().map_err(|e| e.to_string())?;
    let kind = *tensor.data_type();
    let dtype = runtime::dtype(kind).ok_or_else(|| format!("an output of type {kind}"))?;
    let shape: Vec<usize> = tensor.shape().iter().map(|&d| d.max(0) as usize).collect();
    let bytes = shape.iter().product::<usize>() * dtype.size();
    let raw: &[u8] = match bytes {
        0 => &[],
        // SAFETY: a dense CPU tensor of this type and shape, owned by `value`, which is borrowed for as long as the slice.
        _ => unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), bytes) },
    };
    Ok(Tensor { data: Data::from_bytes(dtype, raw), shape })
}
