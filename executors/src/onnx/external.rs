//! Reads weights that lie in files beside the model into the model. It refuses paths that lead out of the model's folder.

use super::LoadError;
use super::proto::{ModelProto, TensorProto};
use memmap2::Mmap;
use prost::bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

/// ONNX's number for "the data is in another file".
const EXTERNAL: i32 = 1;

/// Replaces every external tensor of the model by its contents. `folder` is where the model lies; `None` for bytes.
pub(super) fn inline(file: &str, model: &mut ModelProto, folder: Option<&Path>) -> Result<(), LoadError> {
    let mut open: BTreeMap<PathBuf, Mmap> = BTreeMap::new();
    let Some(graph) = &mut model.graph else { return Ok(()) };
    let attributes = graph.node.iter_mut().flat_map(|n| &mut n.attribute).filter_map(|a| a.t.as_mut());
    for tensor in graph.initializer.iter_mut().chain(attributes) {
        if tensor.data_location.unwrap_or(0) != EXTERNAL {
            continue;
        }
        let bytes = read(tensor, folder, &mut open).map_err(|reason| LoadError::External {
            file: file.to_owned(),
            tensor: tensor.name.clone().unwrap_or_default(),
            reason,
        })?;
        tensor.raw_data = Some(bytes);
        tensor.data_location = None;
        tensor.external_data.clear();
    }
    Ok(())
}

/// The bytes of one external tensor.
fn read(
    tensor: &TensorProto,
    folder: Option<&Path>,
    open: &mut BTreeMap<PathBuf, Mmap>,
) -> Result<Bytes, String> {
    let entry = |key: &str| tensor.external_data.iter().find(|e| e.key() == key).map(|e| e.value());
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => {
            text.parse::<usize>().map(Some).map_err(|_| format!("`{key}` is `{text}`, not a number"))
        }
    };
    let location = entry("location").ok_or("it names no file")?;
    let folder = folder.ok_or_else(|| {
        format!("is in the file `{location}`, so the model must be loaded from its path, not from bytes")
    })?;
    let path = Path::new(location);
    if !path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("its file `{location}` is outside the model's folder, which is refused"));
    }
    let path = folder.join(path);
    if !open.contains_key(&path) {
        let shown = path.display();
        let handle =
            File::open(&path).map_err(|e| format!("cannot open `{shown}`: {e}; keep it beside the model"))?;
        if !handle.metadata().is_ok_and(|m| m.is_file()) {
            return Err(format!("`{shown}` is not a file"));
        }
        // SAFETY: the map is only read, and copied out of at once; a file that somebody truncates meanwhile is beyond us.
        let map = unsafe { Mmap::map(&handle) }.map_err(|e| format!("cannot read `{shown}`: {e}"))?;
        open.insert(path.clone(), map);
    }
    let map = &open[&path];
    let offset = number("offset")?.unwrap_or(0);
    let length = number("length")?.unwrap_or(map.len().saturating_sub(offset));
    let end = offset.checked_add(length).filter(|&end| end <= map.len());
    let end = end.ok_or_else(|| {
        format!(
            "bytes {offset} to {} lie past the end of `{}` ({} bytes)",
            offset.saturating_add(length),
            path.display(),
            map.len()
        )
    })?;
    Ok(Bytes::copy_from_slice(&map[offset..end]))
}
