//! Tensor elements between JSON and memory: a nested array is read straight into a flat list of the wanted type and never beyond the
//! wanted length; a list is written flat. It refuses numbers that the type cannot hold, and NaN and infinity, which JSON cannot carry.

use crate::tensor::{DType, Data};
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;

/// An element that JSON can carry.
trait Element: Sized + Copy {
    const NAME: &'static str;
    fn of_int(value: i128) -> Option<Self>;
    fn of_float(value: f64) -> Option<Self>;
    fn of_bool(value: bool) -> Option<Self> {
        let _ = value;
        None
    }
}

macro_rules! integers {
    ($($t:ty => $name:literal),*) => {$(
        impl Element for $t {
            const NAME: &'static str = $name;
            fn of_int(value: i128) -> Option<$t> {
                <$t>::try_from(value).ok()
            }
            fn of_float(_: f64) -> Option<$t> {
                None
            }
        }
    )*};
}
integers!(i64 => "INT64", i32 => "INT32", i8 => "INT8", u8 => "UINT8");

macro_rules! floats {
    ($($t:ty => $name:literal),*) => {$(
        impl Element for $t {
            const NAME: &'static str = $name;
            fn of_int(value: i128) -> Option<$t> {
                Some(value as $t)
            }
            fn of_float(value: f64) -> Option<$t> {
                let value = value as $t;
                value.is_finite().then_some(value)
            }
        }
    )*};
}
floats!(f32 => "FP32", f64 => "FP64");

/// A BOOL, kept as a byte.
#[derive(Clone, Copy)]
struct Truth(u8);

impl Element for Truth {
    const NAME: &'static str = "BOOL";
    fn of_int(_: i128) -> Option<Truth> {
        None
    }
    fn of_float(_: f64) -> Option<Truth> {
        None
    }
    fn of_bool(value: bool) -> Option<Truth> {
        Some(Truth(u8::from(value)))
    }
}

/// Reads an element, or an array of whatever this reads, to the end of a list.
struct Flat<'l, T> {
    list: &'l mut Vec<T>,
    most: usize,
}

impl<T: Element> Flat<'_, T> {
    fn push<E: Error>(&mut self, value: Option<T>, shown: impl fmt::Display) -> Result<(), E> {
        let value = value.ok_or_else(|| E::custom(format!("{shown} is no {}", T::NAME)))?;
        if self.list.len() == self.most {
            return Err(E::custom(format!("more than the {} elements of its shape", self.most)));
        }
        self.list.push(value);
        Ok(())
    }
}

impl<'de, T: Element> DeserializeSeed<'de> for Flat<'_, T> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Element> Visitor<'de> for Flat<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}", T::NAME)
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        self.push(T::of_bool(value), value)
    }
    fn visit_i64<E: Error>(mut self, value: i64) -> Result<(), E> {
        self.push(T::of_int(value.into()), value)
    }
    fn visit_u64<E: Error>(mut self, value: u64) -> Result<(), E> {
        self.push(T::of_int(value.into()), value)
    }
    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        self.push(T::of_float(value), value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element_seed(Flat { list: &mut *self.list, most: self.most })?.is_some() {}
        Ok(())
    }
}

fn read<T: Element>(text: &str, elements: usize) -> Result<Vec<T>, String> {
    // Two characters an element at least, so that a short text cannot ask for a large list.
    let mut list = Vec::with_capacity(elements.min(text.len() / 2 + 1));
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Flat { list: &mut list, most: elements }
        .deserialize(&mut deserializer)
        .map_err(|e| format!("data: {e}"))?;
    deserializer.end().map_err(|e| format!("data: {e}"))?;
    if list.len() != elements {
        return Err(format!("data: its shape holds {elements} elements, got {}", list.len()));
    }
    Ok(list)
}

/// The elements of a JSON array, which must be `elements` many.
///
/// # Errors
/// What is not an element of this type, or how many there are, in words.
pub fn parse(dtype: DType, text: &str, elements: usize) -> Result<Data, String> {
    Ok(match dtype {
        DType::F32 => Data::F32(read(text, elements)?),
        DType::F64 => Data::F64(read(text, elements)?),
        DType::I64 => Data::I64(read(text, elements)?),
        DType::I32 => Data::I32(read(text, elements)?),
        DType::I8 => Data::I8(read(text, elements)?),
        DType::U8 => Data::U8(read(text, elements)?),
        DType::Bool => Data::Bool(read::<Truth>(text, elements)?.into_iter().map(|t| t.0).collect()),
        DType::F16 => return Err("FP16 cannot be sent as JSON: send it as binary data".into()),
    })
}

/// Writes the elements as a flat JSON array.
///
/// # Errors
/// When JSON cannot carry them.
pub fn write(data: &Data, out: &mut Vec<u8>) -> Result<(), String> {
    let finite = match data {
        Data::F32(v) => v.iter().all(|x| x.is_finite()),
        Data::F64(v) => v.iter().all(|x| x.is_finite()),
        _ => true,
    };
    if !finite {
        return Err("it holds NaN or infinity, which JSON cannot carry: ask for binary data".into());
    }
    let written = match data {
        Data::F32(v) => serde_json::to_writer(out, v),
        Data::F64(v) => serde_json::to_writer(out, v),
        Data::I64(v) => serde_json::to_writer(out, v),
        Data::I32(v) => serde_json::to_writer(out, v),
        Data::I8(v) => serde_json::to_writer(out, v),
        Data::U8(v) => serde_json::to_writer(out, v),
        Data::Bool(v) => serde_json::to_writer(out, &v.iter().map(|&b| b != 0).collect::<Vec<_>>()),
        Data::F16(_) => return Err("FP16 cannot be sent as JSON: ask for binary data".into()),
    };
    written.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_by_hand() {
        let f32s = |text: &str, n| parse(DType::F32, text, n);
        assert_eq!(f32s("[[1, -2.5], [0.1, 3e4]]", 4), Ok(Data::F32(vec![1.0, -2.5, 0.1, 3e4])));
        assert_eq!(f32s(" [] ", 0), Ok(Data::F32(vec![])));
        assert_eq!(parse(DType::I8, "[-128, 127]", 2), Ok(Data::I8(vec![-128, 127])));
        assert_eq!(parse(DType::I64, "[9223372036854775807]", 1), Ok(Data::I64(vec![i64::MAX])));
        assert_eq!(parse(DType::Bool, "[true, false]", 2), Ok(Data::Bool(vec![1, 0])));
        // Each of these must be refused, with these words.
        for (dtype, text, elements, words) in [
            (DType::F32, "[1, 2, 3]", 2, "more than the 2 elements"),
            (DType::F32, "[1]", 2, "holds 2 elements, got 1"),
            (DType::F32, "[1e60]", 1, "is no FP32"),
            (DType::F32, "[\"1\"]", 1, "an array of FP32"),
            (DType::F32, "[null]", 1, "an array of FP32"),
            (DType::F32, "{}", 1, "an array of FP32"),
            (DType::F32, "[1] 2", 1, "trailing"),
            (DType::U8, "[256]", 1, "256 is no UINT8"),
            (DType::U8, "[-1]", 1, "-1 is no UINT8"),
            (DType::I32, "[1.5]", 1, "1.5 is no INT32"),
            (DType::Bool, "[1]", 1, "1 is no BOOL"),
            (DType::F16, "[1]", 1, "binary data"),
        ] {
            let error = parse(dtype, text, elements).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let lists = [
            Data::F32(vec![0.1, -1e-38, 3.402_823_5e38, 16_777_217.0]),
            Data::F64(vec![0.1, f64::MIN_POSITIVE, -1e300]),
            Data::I64(vec![i64::MIN, 0, i64::MAX]),
            Data::U8(vec![0, 255]),
            Data::Bool(vec![0, 1]),
        ];
        for data in lists {
            let mut out = Vec::new();
            write(&data, &mut out).unwrap();
            let (dtype, n) = match &data {
                Data::F32(v) => (DType::F32, v.len()),
                Data::F64(v) => (DType::F64, v.len()),
                Data::I64(v) => (DType::I64, v.len()),
                Data::U8(v) => (DType::U8, v.len()),
                _ => (DType::Bool, 2),
            };
            assert_eq!(parse(dtype, std::str::from_utf8(&out).unwrap(), n), Ok(data));
        }
        assert!(write(&Data::F32(vec![f32::NAN]), &mut Vec::new()).is_err());
    }
}
