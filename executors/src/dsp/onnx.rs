//! The accelerator that is always there: onnxruntime's int8 kernels on one thread of the CPU, as the one slot of a DSP. It refuses models with
//! other than f32 inputs and outputs of static shape.

use super::accelerator::{Accelerator, Bound, Fault, Memory, Outlet, Program};
use crate::bound::Halter;
use crate::stop::Stop;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{IoBinding, Session};
use ort::value::{Shape, TensorRefMut, ValueType};
use ort::{AsPointer, memory};
use std::cell::RefCell;
use std::ffi::CString;
use std::rc::Rc;
use std::sync::Arc;

/// See the module's text.
pub struct Onnxruntime;

impl Accelerator for Onnxruntime {
    fn name(&self) -> String {
        format!("onnxruntime {}", crate::runtime::version().unwrap_or_else(|_| "that is not there".into()))
    }

    fn compile(&mut self, onnx: &[u8]) -> Result<Box<dyn Program>, String> {
        let session = crate::runtime::session(onnx, 1, GraphOptimizationLevel::All, Ok);
        let session = session.map_err(|e| e.to_string())?;
        let outlets = |list: &[ort::value::Outlet]| -> Result<Vec<Outlet>, String> {
            list.iter().map(|o| outlet(o.name(), o.dtype())).collect()
        };
        let (inputs, outputs) = (outlets(session.inputs())?, outlets(session.outputs())?);
        Ok(Box::new(Compiled { session: Rc::new(RefCell::new(session)), inputs, outputs }))
    }
}

struct Compiled {
    session: Rc<RefCell<Session>>,
    inputs: Vec<Outlet>,
    outputs: Vec<Outlet>,
}

impl Program for Compiled {
    fn inputs(&self) -> &[Outlet] {
        &self.inputs
    }

    fn outputs(&self) -> &[Outlet] {
        &self.outputs
    }

    unsafe fn bind(&self, memory: &[Memory]) -> Result<Box<dyn Bound>, String> {
        let mut binding = self.session.borrow().create_binding().map_err(|e| e.to_string())?;
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for (i, (outlet, memory)) in self.inputs.iter().chain(&self.outputs).zip(memory).enumerate() {
            let said = |e: ort::Error| format!("`{}`: {e}", outlet.name);
            // SAFETY: the caller says that the memory is valid and large enough for as long as what is bound lives.
            let tensor = unsafe { tensor_at(*memory, &outlet.shape) }.map_err(said)?;
            if i < self.inputs.len() {
                bind_input(&mut binding, &outlet.name, &tensor)?;
                inputs.push(tensor);
            } else {
                binding.bind_output(outlet.name.as_str(), tensor).map_err(said)?;
            }
        }
        let (session, halter) = (self.session.clone(), Halter::new()?);
        Ok(Box::new(Ready { binding, _inputs: inputs, session, halter }))
    }
}

/// Fields drop in this order: the binding before the tensors that it names.
struct Ready {
    binding: IoBinding,
    _inputs: Vec<TensorRefMut<'static, f32>>,
    session: Rc<RefCell<Session>>,
    halter: Arc<Halter>,
}

impl Bound for Ready {
    fn run(&mut self, stop: &Stop) -> Result<(), Fault> {
        let mut session = self.session.borrow_mut();
        let ran = stop.during(&self.halter, || {
            session.run_binding_with_options(&self.binding, self.halter.options()).map(drop)
        });
        match ran {
            Some(Ok(())) => Ok(()),
            Some(Err(e)) if !stop.stopped() => Err(e.to_string().into()),
            _ => Err(Fault::Stopped),
        }
    }
}

/// A tensor over shared memory.
///
/// # Safety
/// The memory must hold the whole tensor and outlive it.
unsafe fn tensor_at(at: Memory, shape: &[usize]) -> ort::Result<TensorRefMut<'static, f32>> {
    let info = memory::MemoryInfo::new(
        memory::AllocationDevice::CPU,
        0,
        memory::AllocatorType::Device,
        memory::MemoryType::Default,
    )?;
    let shape = Shape::new(shape.iter().map(|d| *d as i64));
    // SAFETY: as the caller says.
    unsafe { TensorRefMut::from_raw(info, at.address.cast(), shape) }
}

/// Binds an input without the copy that [`IoBinding::bind_input`] makes of borrowed memory: the scheduler's process writes
/// the next input to the same place.
fn bind_input(
    binding: &mut IoBinding,
    name: &str,
    tensor: &TensorRefMut<'static, f32>,
) -> Result<(), String> {
    let c_name = CString::new(name).map_err(|e| e.to_string())?;
    // SAFETY: all three pointers are valid; the tensor is kept beside the binding for as long as that lives.
    let status = unsafe { (ort::api().BindInput)(binding.ptr_mut(), c_name.as_ptr(), tensor.ptr()) };
    // SAFETY: `status` comes from the call above and is consumed once.
    unsafe { ort::Error::result_from_status(status) }.map_err(|e| format!("`{name}`: {e}"))
}

/// An f32 tensor with static extents.
fn outlet(name: &str, kind: &ValueType) -> Result<Outlet, String> {
    match kind {
        ValueType::Tensor { ty: ort::value::TensorElementType::Float32, shape, .. }
            if shape.iter().all(|d| *d >= 0) =>
        {
            Ok(Outlet { name: name.to_owned(), shape: shape.iter().map(|d| *d as usize).collect() })
        }
        other => Err(format!("`{name}`: expected an f32 tensor of static shape, got {other}")),
    }
}
