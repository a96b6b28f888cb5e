//! A dense row-major tensor on the host: the one form in which data crosses between processors.
//! It refuses to be lazy, strided or device-resident; those are a processor's private matters.

use bytemuck::{AnyBitPattern, NoUninit};
use std::fmt;

/// Element types that cosched carries. Compute on the GPUs is f32; the others are for inputs, shapes and int8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum DType {
    F32,
    F16,
    F64,
    I64,
    I32,
    U8,
    I8,
    Bool,
}

impl DType {
    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::F16 => 2,
            DType::U8 | DType::I8 | DType::Bool => 1,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::F64 => "f64",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::U8 => "u8",
            DType::I8 => "i8",
            DType::Bool => "bool",
        })
    }
}

/// The elements, row-major (C order). F16 is kept as raw bits, Bool as 0/1 bytes.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Data {
    F32(Vec<f32>),
    F16(Vec<u16>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U8(Vec<u8>),
    I8(Vec<i8>),
    Bool(Vec<u8>),
}

/// Little-endian bytes as elements; copes with unaligned bytes.
fn cast<X: AnyBitPattern + NoUninit>(bytes: &[u8]) -> Vec<X> {
    bytemuck::pod_collect_to_vec(bytes)
}

impl Data {
    /// Elements from little-endian bytes. A last element that is not whole is filled with zero bytes; a Bool is true unless its byte is 0.
    pub fn from_bytes(dtype: DType, bytes: &[u8]) -> Data {
        match dtype {
            DType::F32 => Data::F32(cast(bytes)),
            DType::F16 => Data::F16(cast(bytes)),
            DType::F64 => Data::F64(cast(bytes)),
            DType::I64 => Data::I64(cast(bytes)),
            DType::I32 => Data::I32(cast(bytes)),
            DType::U8 => Data::U8(bytes.to_vec()),
            DType::I8 => Data::I8(cast(bytes)),
            DType::Bool => Data::Bool(bytes.iter().map(|&b| u8::from(b != 0)).collect()),
        }
    }

    /// The elements as little-endian bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Data::F32(v) => bytemuck::cast_slice(v),
            Data::F16(v) => bytemuck::cast_slice(v),
            Data::F64(v) => bytemuck::cast_slice(v),
            Data::I64(v) => bytemuck::cast_slice(v),
            Data::I32(v) => bytemuck::cast_slice(v),
            Data::U8(v) | Data::Bool(v) => v,
            Data::I8(v) => bytemuck::cast_slice(v),
        }
    }

    /// As [`Data::bytes`], to be written. A Bool must stay 0 or 1.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Data::F32(v) => bytemuck::cast_slice_mut(v),
            Data::F16(v) => bytemuck::cast_slice_mut(v),
            Data::F64(v) => bytemuck::cast_slice_mut(v),
            Data::I64(v) => bytemuck::cast_slice_mut(v),
            Data::I32(v) => bytemuck::cast_slice_mut(v),
            Data::U8(v) | Data::Bool(v) => v,
            Data::I8(v) => bytemuck::cast_slice_mut(v),
        }
    }
}

/// A tensor: `shape` multiplied out equals the number of elements in `data`. A scalar has shape `[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Extent of each axis, outermost first.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Data,
}

impl Tensor {
    /// An f32 tensor.
    ///
    /// # Panics
    /// When `data.len()` is not the product of `shape`: a bug in the caller.
    pub fn f32(shape: &[usize], data: Vec<f32>) -> Self {
        assert_eq!(
            shape.iter().product::<usize>(),
            data.len(),
            "shape {shape:?} does not hold {} elements",
            data.len()
        );
        Self { shape: shape.to_vec(), data: Data::F32(data) }
    }

    /// A tensor of zeros.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Self {
        let n = shape.iter().product();
        let data = match dtype {
            DType::F32 => Data::F32(vec![0.0; n]),
            DType::F16 => Data::F16(vec![0; n]),
            DType::F64 => Data::F64(vec![0.0; n]),
            DType::I64 => Data::I64(vec![0; n]),
            DType::I32 => Data::I32(vec![0; n]),
            DType::U8 => Data::U8(vec![0; n]),
            DType::I8 => Data::I8(vec![0; n]),
            DType::Bool => Data::Bool(vec![0; n]),
        };
        Self { shape: shape.to_vec(), data }
    }

    /// Whether any element is NaN (f32 and f64; the other types are not looked at).
    pub fn has_nan(&self) -> bool {
        match &self.data {
            Data::F32(v) => any(v, |x| x.is_nan()),
            Data::F64(v) => any(v, |x| x.is_nan()),
            _ => false,
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match &self.data {
            Data::F32(_) => DType::F32,
            Data::F16(_) => DType::F16,
            Data::F64(_) => DType::F64,
            Data::I64(_) => DType::I64,
            Data::I32(_) => DType::I32,
            Data::U8(_) => DType::U8,
            Data::I8(_) => DType::I8,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element (an axis of extent 0).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the elements in bytes.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype().size()
    }

    /// The elements if they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(v) => Some(v),
            _ => None,
        }
    }

    /// The elements if they are i64.
    pub fn as_i64(&self) -> Option<&[i64]> {
        match &self.data {
            Data::I64(v) => Some(v),
            _ => None,
        }
    }
}

/// Whether any element is so. Looks at a thousand before it stops, so that the compiler takes vectors: every launch's outputs come by here.
fn any<X: Copy>(values: &[X], is_so: impl Fn(X) -> bool) -> bool {
    values.chunks(1024).any(|chunk| chunk.iter().fold(false, |seen, &x| seen | is_so(x)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_nan_is_found_wherever_it_is() {
        for n in [0, 1, 1023, 1024, 1025, 5000] {
            assert!(!Tensor::f32(&[n], vec![f32::INFINITY; n]).has_nan());
            for at in [0, 1, 1023, 1024, 4999].into_iter().filter(|&at| at < n) {
                let mut values = vec![0.0; n];
                values[at] = f32::NAN;
                assert!(Tensor::f32(&[n], values).has_nan(), "{at} of {n}");
            }
        }
    }
}
