//! Between ONNX messages and our tensors and attributes. It refuses strings as tensors, sparse tensors and 4-bit, 8-bit and 16-bit brain floats.

use super::proto::attribute_proto::AttributeType as A;
use super::proto::tensor_proto::DataType as T;
use super::proto::{AttributeProto, TensorProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto};
use crate::graph::{Attr, Value};
use crate::tensor::{DType, Data, Tensor};
use prost::bytes::Bytes;

/// Our element type for ONNX's number, or its name for a message.
pub(crate) fn dtype(onnx: i32) -> Result<DType, String> {
    Ok(match T::try_from(onnx) {
        Ok(T::Float) => DType::F32,
        Ok(T::Float16) => DType::F16,
        Ok(T::Double) => DType::F64,
        Ok(T::Int64) => DType::I64,
        Ok(T::Int32) => DType::I32,
        Ok(T::Uint8) => DType::U8,
        Ok(T::Int8) => DType::I8,
        Ok(T::Bool) => DType::Bool,
        Ok(other) => return Err(format!("element type {other:?}").to_lowercase()),
        Err(_) => return Err(format!("element type number {onnx}")),
    })
}

/// ONNX's number of an element type.
pub(crate) fn onnx_type(dtype: DType) -> i32 {
    (match dtype {
        DType::F32 => T::Float,
        DType::F16 => T::Float16,
        DType::F64 => T::Double,
        DType::I64 => T::Int64,
        DType::I32 => T::Int32,
        DType::U8 => T::Uint8,
        DType::I8 => T::Int8,
        DType::Bool => T::Bool,
    }) as i32
}

/// A tensor message as a tensor. Its data must be inside (external data has been read before).
///
/// # Errors
/// Says what was wrong, without the tensor's name.
pub(crate) fn tensor(message: &TensorProto) -> Result<Tensor, String> {
    let dtype = dtype(message.data_type.unwrap_or(0))?;
    let shape: Vec<usize> = message
        .dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| format!("negative extent {d} in its shape")))
        .collect::<Result<_, _>>()?;
    let len = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or("its shape overflows")?;
    if let Some(raw) = &message.raw_data {
        if len.checked_mul(dtype.size()) != Some(raw.len()) {
            return Err(format!("{} bytes of data do not fill {dtype}{shape:?}", raw.len()));
        }
        return Ok(Tensor { shape, data: Data::from_bytes(dtype, raw) });
    }
    let ints = &message.int32_data;
    let data = match dtype {
        DType::F32 => Data::F32(message.float_data.clone()),
        DType::F64 => Data::F64(message.double_data.clone()),
        DType::I64 => Data::I64(message.int64_data.clone()),
        DType::I32 => Data::I32(ints.clone()),
        DType::F16 => Data::F16(ints.iter().map(|&v| v as u16).collect()),
        DType::U8 => Data::U8(ints.iter().map(|&v| v as u8).collect()),
        DType::I8 => Data::I8(ints.iter().map(|&v| v as i8).collect()),
        DType::Bool => Data::Bool(ints.iter().map(|&v| u8::from(v != 0)).collect()),
    };
    let got = data.bytes().len() / dtype.size();
    if got != len {
        return Err(format!("{got} elements of data do not fill {dtype}{shape:?}"));
    }
    Ok(Tensor { shape, data })
}

/// A tensor as a message.
pub(crate) fn tensor_message(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: tensor.shape.iter().map(|&d| d as i64).collect(),
        data_type: Some(onnx_type(tensor.dtype())),
        raw_data: Some(Bytes::copy_from_slice(tensor.data.bytes())),
        ..Default::default()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An attribute message as an attribute.
///
/// # Errors
/// Says what kind it was when we do not carry that kind.
pub(crate) fn attribute(message: &AttributeProto) -> Result<Attr, String> {
    let kind = message.r#type.unwrap_or(0);
    Ok(match A::try_from(kind) {
        Ok(A::Int) => Attr::Int(message.i.unwrap_or(0)),
        Ok(A::Ints) => Attr::Ints(message.ints.clone()),
        Ok(A::Float) => Attr::Float(message.f.unwrap_or(0.0)),
        Ok(A::Floats) => Attr::Floats(message.floats.clone()),
        Ok(A::String) => Attr::String(text(message.s.as_deref().unwrap_or_default())),
        Ok(A::Strings) => Attr::Strings(message.strings.iter().map(|s| text(s)).collect()),
        Ok(A::Tensor) => {
            Attr::Tensor(tensor(message.t.as_ref().ok_or("a tensor attribute without a tensor")?)?)
        }
        Ok(other) => return Err(format!("an attribute of kind {other:?}")),
        Err(_) => return Err(format!("an attribute of kind number {kind}")),
    })
}

/// An attribute as a message.
pub(crate) fn attribute_message(name: &str, attr: &Attr) -> AttributeProto {
    let mut m = AttributeProto { name: Some(name.to_owned()), ..Default::default() };
    let kind = match attr {
        Attr::Int(v) => {
            m.i = Some(*v);
            A::Int
        }
        Attr::Ints(v) => {
            m.ints = v.clone();
            A::Ints
        }
        Attr::Float(v) => {
            m.f = Some(*v);
            A::Float
        }
        Attr::Floats(v) => {
            m.floats = v.clone();
            A::Floats
        }
        Attr::String(v) => {
            m.s = Some(v.clone().into_bytes());
            A::String
        }
        Attr::Strings(v) => {
            m.strings = v.iter().map(|s| s.clone().into_bytes()).collect();
            A::Strings
        }
        Attr::Tensor(v) => {
            m.t = Some(tensor_message("", v));
            A::Tensor
        }
    };
    m.r#type = Some(kind as i32);
    m
}

/// A typed and shaped value as a message.
pub(crate) fn value_message(value: &Value) -> ValueInfoProto {
    let dim = |&d: &usize| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(d as i64)),
        ..Default::default()
    };
    let shape = super::proto::TensorShapeProto { dim: value.shape.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(onnx_type(value.dtype)), shape: Some(shape) };
    ValueInfoProto {
        name: Some(value.name.clone()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_survive_the_round_trip() {
        for data in [
            Data::F32(vec![1.5, -2.0]),
            Data::F16(vec![0x3c00, 1]),
            Data::F64(vec![0.1, 2.0]),
            Data::I64(vec![-1, i64::MAX]),
            Data::I32(vec![7, -8]),
            Data::U8(vec![0, 255]),
            Data::I8(vec![-128, 127]),
            Data::Bool(vec![0, 1]),
        ] {
            let t = Tensor { shape: vec![2, 1], data };
            assert_eq!(tensor(&tensor_message("t", &t)).unwrap(), t);
        }
    }

    #[test]
    fn data_that_does_not_fill_the_shape_is_refused() {
        let mut m = tensor_message("t", &Tensor::f32(&[3], vec![0.0; 3]));
        m.dims = vec![4];
        assert!(tensor(&m).unwrap_err().contains("12 bytes of data do not fill f32[4]"));
        m.raw_data = None;
        assert!(tensor(&m).unwrap_err().contains("0 elements"));
        m.dims = vec![i64::MAX, i64::MAX];
        assert!(tensor(&m).is_err());
        m.dims = vec![-1];
        assert!(tensor(&m).unwrap_err().contains("negative"));
    }
}
