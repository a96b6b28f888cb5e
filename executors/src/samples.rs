//! The user's sample inputs of a model: arrays of NumPy, as `.npz`, as `.npy` for a model with one input, or a folder of such files. They
//! calibrate int8, feed the profile, and are what live streams ask about. It refuses to guess: an array of another shape or type is an
//! error that names it.

use crate::graph::{Graph, Value};
use crate::tensor::{DType, Data, Tensor};
use npyz::{DType as Kind, NpyFile, Order, TypeChar};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// The array of each name.
type Arrays = BTreeMap<String, Tensor>;

/// Samples that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct SamplesError {
    /// The file or folder.
    pub file: PathBuf,
    /// What was expected, and what is there.
    pub problem: String,
}

/// The samples in `path` (each in the order of the graph's inputs), at most `most`, spread evenly over all that are there.
///
/// An input of shape `[b, ...]` takes an array `[n * b, ...]` or `[n, b, ...]`: n samples. In an `.npz` the arrays have the names of the
/// inputs, others are left alone. f64 is taken for f32, and i32 for i64.
///
/// # Errors
/// [`SamplesError`]: no file, not NumPy's, an input without array, a wrong shape or type, unequal numbers of samples, none at all.
pub fn read(path: &Path, graph: &Graph, most: usize) -> Result<Vec<Vec<Tensor>>, SamplesError> {
    let wrong = |file: &Path, problem: String| SamplesError { file: file.to_owned(), problem };
    let inputs: Vec<&Value> = graph.inputs.iter().map(|id| graph.value(*id)).collect();
    let mut samples = Vec::new();
    for file in files(path).map_err(|problem| wrong(path, problem))? {
        let arrays = arrays(&file, &inputs).map_err(|problem| wrong(&file, problem))?;
        samples.extend(split(arrays, &inputs).map_err(|problem| wrong(&file, problem))?);
    }
    if samples.is_empty() {
        return Err(wrong(path, "expected at least one sample, got none".into()));
    }
    let (all, most) = (samples.len(), most.min(samples.len()));
    let mut kept = (0..most).map(|i| i * all / most).collect::<Vec<_>>().into_iter().peekable();
    let mut place = 0..;
    samples.retain(|_| kept.next_if_eq(&place.next().unwrap_or_default()).is_some());
    Ok(samples)
}

/// The file itself, or those of a folder in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|e| e.to_string())?;
    let of_numpy = |p: &PathBuf| p.extension().is_some_and(|e| e == "npz" || e == "npy");
    let mut files: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).filter(of_numpy).collect();
    files.sort();
    if files.is_empty() { Err("expected .npz or .npy files in this folder".into()) } else { Ok(files) }
}

/// The arrays of a file that are inputs of the model.
fn arrays(file: &Path, inputs: &[&Value]) -> Result<Arrays, String> {
    let opened = File::open(file).map_err(|e| e.to_string())?;
    let size = opened.metadata().map_err(|e| e.to_string())?.len();
    let reader = BufReader::new(opened);
    let mut arrays = Arrays::new();
    if file.extension().is_some_and(|e| e == "npy") {
        let [only] = inputs else {
            let names: Vec<_> = inputs.iter().map(|v| v.name.as_str()).collect();
            return Err(format!("expected .npz with the arrays {}, got .npy", names.join(", ")));
        };
        arrays.insert(only.name.clone(), array(reader, size, only)?);
        return Ok(arrays);
    }
    let mut zip = zip::ZipArchive::new(reader).map_err(|e| format!("not a file of numpy.savez: {e}"))?;
    let names: Vec<String> = zip.file_names().map(str::to_owned).collect();
    for input in inputs {
        let name = npyz::npz::file_name_from_array_name(&input.name);
        let entry = zip.by_name(&name).map_err(|_| {
            let known: Vec<_> =
                names.iter().filter_map(|n| npyz::npz::array_name_from_file_name(n)).collect();
            format!(
                "expected an array `{}`, as the model's input; there are: {}",
                input.name,
                known.join(", ")
            )
        })?;
        let size = entry.size();
        arrays.insert(input.name.clone(), array(entry, size, input)?);
    }
    Ok(arrays)
}

/// One array, in the type of `input`. `size` is the most bytes that it can have.
fn array(reader: impl Read, size: u64, input: &Value) -> Result<Tensor, String> {
    let name = &input.name;
    let file = NpyFile::new(reader).map_err(|e| format!("array `{name}`: {e}"))?;
    let Kind::Plain(kind) = file.dtype() else {
        return Err(format!("array `{name}`: expected {} numbers, got records", input.dtype));
    };
    if file.order() == Order::Fortran && file.shape().len() > 1 {
        return Err(format!("array `{name}`: expected C order, got Fortran order; numpy.ascontiguousarray"));
    }
    let bytes = file.shape().iter().try_fold(kind.size_field(), |n, d| n.checked_mul(*d));
    if bytes.is_none_or(|bytes| bytes > size) {
        return Err(format!("array `{name}`: it ends before its {:?} numbers do", file.shape()));
    }
    let shape: Vec<usize> = file.shape().iter().map(|d| *d as usize).collect();
    let got = format!("{kind}");
    let said = |e: std::io::Error| format!("array `{name}`: {e}");
    let bad = || format!("array `{name}`: expected {} numbers, got {got}", input.dtype);
    let data = match (input.dtype, kind.type_char(), kind.size_field()) {
        (DType::F32, TypeChar::Float, 4) => Data::F32(file.into_vec().map_err(said)?),
        (DType::F32, TypeChar::Float, 8) => {
            Data::F32(file.into_vec::<f64>().map_err(said)?.into_iter().map(|x| x as f32).collect())
        }
        (DType::F64, TypeChar::Float, 8) => Data::F64(file.into_vec().map_err(said)?),
        (DType::I64, TypeChar::Int, 8) => Data::I64(file.into_vec().map_err(said)?),
        (DType::I64, TypeChar::Int, 4) => {
            Data::I64(file.into_vec::<i32>().map_err(said)?.into_iter().map(i64::from).collect())
        }
        (DType::I32, TypeChar::Int, 4) => Data::I32(file.into_vec().map_err(said)?),
        (DType::U8, TypeChar::Uint, 1) => Data::U8(file.into_vec().map_err(said)?),
        (DType::I8, TypeChar::Int, 1) => Data::I8(file.into_vec().map_err(said)?),
        (DType::Bool, TypeChar::Bool, 1) => {
            Data::Bool(file.into_vec::<bool>().map_err(said)?.into_iter().map(u8::from).collect())
        }
        _ => return Err(bad()),
    };
    Ok(Tensor { shape, data })
}

/// Cuts arrays into samples.
fn split(mut arrays: Arrays, inputs: &[&Value]) -> Result<Vec<Vec<Tensor>>, String> {
    let mut samples: Vec<Vec<Tensor>> = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        let (name, shape) = (&input.name, &input.shape);
        let array = arrays.remove(name).ok_or_else(|| format!("expected an array `{name}`"))?;
        let batch = shape.first().copied().unwrap_or(1).max(1);
        let count = match array.shape.split_first() {
            Some((&n, rest)) if rest == shape.as_slice() => n,
            Some((&n, rest)) if rest == shape.get(1..).unwrap_or_default() && n % batch == 0 => n / batch,
            _ => {
                let rest: String = shape.iter().map(|d| format!(", {d}")).collect();
                return Err(format!("array `{name}`: expected [samples{rest}], got {:?}", array.shape));
            }
        };
        if i > 0 && count != samples.len() {
            let (first, before) = (&inputs[0].name, samples.len());
            return Err(format!("array `{name}` has {count} samples, `{first}` has {before}"));
        }
        samples.resize(count, Vec::new());
        let bytes = input.bytes();
        for (sample, part) in samples.iter_mut().zip(array.data.bytes().chunks(bytes.max(1))) {
            sample.push(Tensor { shape: shape.clone(), data: Data::from_bytes(input.dtype, part) });
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests;
