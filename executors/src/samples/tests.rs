//! Samples from files that NumPy would write, and from those that it would not.

use super::*;
use crate::graph::ValueId;
use npyz::WriterBuilder;
use std::io::Write;

fn graph(inputs: &[(&str, DType, &[usize])]) -> Graph {
    let value = |(name, dtype, shape): &(&str, DType, &[usize])| Value {
        name: (*name).into(),
        dtype: *dtype,
        shape: shape.to_vec(),
    };
    Graph {
        values: inputs.iter().map(value).collect(),
        inputs: (0..inputs.len() as u32).map(ValueId).collect(),
        ..Graph::default()
    }
}

fn npy<T: npyz::AutoSerialize + Clone>(shape: &[u64], data: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer =
        npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut bytes).begin_nd().unwrap();
    writer.extend(data.iter().cloned()).unwrap();
    writer.finish().unwrap();
    bytes
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        zip.start_file(format!("{name}.npy"), Default::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A file that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Scratch {
        let folder = std::env::temp_dir().join(format!("cosched-samples-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn samples_are_cut_as_they_lie() {
    let graph = graph(&[("x", DType::F32, &[1, 2]), ("ids", DType::I64, &[1, 3])]);
    let x: Vec<f64> = (0..10).map(f64::from).collect();
    let ids: Vec<i32> = (0..15).collect();
    let file = Scratch::new(
        "both.npz",
        &npz(&[("x", npy(&[5, 2], &x)), ("ids", npy(&[5, 1, 3], &ids)), ("labels", npy(&[5], &[0i64; 5]))]),
    );
    let samples = read(&file.0, &graph, 100).unwrap();
    assert_eq!(samples.len(), 5);
    assert_eq!(samples[3][0], Tensor::f32(&[1, 2], vec![6.0, 7.0]));
    assert_eq!(samples[4][1], Tensor { shape: vec![1, 3], data: Data::I64(vec![12, 13, 14]) });
    let two = read(&file.0, &graph, 2).unwrap();
    assert_eq!((two.len(), &two[0], &two[1]), (2, &samples[0], &samples[2]));
}

#[test]
fn one_input_takes_npy_and_batches_are_kept_together() {
    let graph = graph(&[("x", DType::F32, &[2, 2])]);
    let file = Scratch::new("x.npy", &npy(&[4, 2], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]));
    let samples = read(&file.0, &graph, 9).unwrap();
    assert_eq!(samples[1][0], Tensor::f32(&[2, 2], vec![5.0, 6.0, 7.0, 8.0]));
    assert_eq!(samples.len(), 2);
}

#[test]
fn what_does_not_fit_is_named() {
    let graph = graph(&[("x", DType::F32, &[1, 2]), ("y", DType::F32, &[1, 2])]);
    let good = || npy(&[2, 2], &[1f32, 2.0, 3.0, 4.0]);
    let mut short = good();
    short.truncate(short.len() - 4);
    for (name, bytes, part) in [
        ("no.npz", b"PK nonsense".to_vec(), "numpy.savez"),
        (
            "less.npz",
            npz(&[("x", good()), ("z", good())]),
            "expected an array `y`, as the model's input; there are",
        ),
        (
            "type.npz",
            npz(&[("x", good()), ("y", npy(&[2, 2], &[1u8, 2, 3, 4]))]),
            "expected f32 numbers, got |u1",
        ),
        (
            "shape.npz",
            npz(&[("x", good()), ("y", npy(&[4], &[1f32; 4]))]),
            "expected [samples, 1, 2], got [4]",
        ),
        ("count.npz", npz(&[("x", good()), ("y", npy(&[1, 2], &[1f32; 2]))]), "`y` has 1 samples, `x` has 2"),
        ("short.npz", npz(&[("x", good()), ("y", short.clone())]), "array `y`"),
        ("one.npy", good(), "expected .npz with the arrays x, y"),
        (
            "none.npz",
            npz(&[("x", npy::<f32>(&[0, 2], &[])), ("y", npy::<f32>(&[0, 2], &[]))]),
            "at least one sample",
        ),
    ] {
        let file = Scratch::new(name, &bytes);
        let error = read(&file.0, &graph, 9).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(part), "{error}");
    }
    let error = read(Path::new("/nowhere.npz"), &graph, 9).unwrap_err().to_string();
    assert!(error.contains("/nowhere.npz") && error.contains("No such file"), "{error}");
}
