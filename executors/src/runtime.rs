//! Finds and loads the onnxruntime shared library, once a process. It refuses to panic when there is none or one that is too old:
//! everybody who needs it gets the same clear error.

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Environment variable that names the library; when it is set, nothing else is tried.
pub const VARIABLE: &str = "COSCHED_ONNXRUNTIME";

/// How a user gets the library.
pub const HINT: &str = "run `make setup`, or `pip download --no-deps onnxruntime==1.31.1`, unzip the wheel and set \
    COSCHED_ONNXRUNTIME to its onnxruntime/capi/libonnxruntime.so.1.31.1";

/// onnxruntime could not be loaded.
#[derive(Clone, Debug, thiserror::Error)]
#[error("onnxruntime 1.{min} or newer was not found:\n{tried}\n{HINT}", min = ort::MINOR_VERSION)]
pub struct RuntimeError {
    /// One line for each place: the path and what was wrong with it.
    pub tried: String,
}

/// The loaded library.
struct Runtime {
    environment: Environment,
    place: PathBuf,
}

/// Loads the library, the first time.
fn runtime() -> Result<&'static Runtime, RuntimeError> {
    static RUNTIME: OnceLock<Result<Runtime, RuntimeError>> = OnceLock::new();
    RUNTIME.get_or_init(|| open(&places())).as_ref().map_err(Clone::clone)
}

/// The process-wide onnxruntime environment; the first call loads the library.
///
/// # Errors
/// When no library was found or those found are older than the API that we use. A failure is remembered.
pub fn environment() -> Result<&'static Environment, RuntimeError> {
    runtime().map(|r| &r.environment)
}

/// Version of the loaded library with the commit of its build, e.g. `1.31.1 (6af1a93)`.
///
/// # Errors
/// As [`environment`].
pub fn version() -> Result<String, RuntimeError> {
    let runtime = runtime()?;
    let commit = ort::info().split("git-commit-id=").nth(1).and_then(|rest| rest.split([',', ' ']).next());
    let number = number(&runtime.place).unwrap_or_else(|| "unknown version".to_owned());
    Ok(format!("{number} ({})", commit.unwrap_or("unknown commit")))
}

/// The version number that the library states. The crate `ort` reads it, checks it and keeps it to itself, so we ask again.
#[cfg(target_os = "linux")]
fn number(place: &Path) -> Option<String> {
    use std::ffi::{CStr, CString, c_char, c_int, c_void};
    use std::os::unix::ffi::OsStrExt;
    unsafe extern "C" {
        fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
        fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    }
    const LAZY_IF_LOADED: c_int = 1 | 4;
    type Base = unsafe extern "system" fn() -> *const ort::sys::OrtApiBase;
    let file = CString::new(place.as_os_str().as_bytes()).ok()?;
    // SAFETY: the library is loaded already (the flags only look it up) and never unloaded; the symbol, if it is there, is
    // onnxruntime's documented entry point of this type, and the string that it leads to is static.
    unsafe {
        let library = dlopen(file.as_ptr(), LAZY_IF_LOADED);
        if library.is_null() {
            return None;
        }
        let symbol = dlsym(library, c"OrtGetApiBase".as_ptr());
        if symbol.is_null() {
            return None;
        }
        let base = std::mem::transmute::<*mut c_void, Base>(symbol)();
        let text = (base.as_ref()?.GetVersionString)();
        Some(CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

/// Other systems: not asked.
#[cfg(not(target_os = "linux"))]
fn number(_place: &Path) -> Option<String> {
    None
}

/// Where the library may be, best first.
fn places() -> Vec<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(only) = set(VARIABLE) {
        return vec![only];
    }
    let file = format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let mut places = Vec::new();
    places.extend(set("ORT_DYLIB_PATH"));
    if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        places.push(folder.join("lib").join(&file));
        places.extend(folder.parent().map(|up| up.join("lib").join(&file)));
    }
    places.extend(option_env!("ORT_DYLIB_PATH").map(PathBuf::from));
    places.push(PathBuf::from(file));
    let mut seen = std::collections::BTreeSet::new();
    places.retain(|place| seen.insert(place.clone()));
    places
}

/// Loads the first library of `places` that works.
fn open(places: &[PathBuf]) -> Result<Runtime, RuntimeError> {
    let mut tried = Vec::new();
    for place in places {
        // A bare name is left to the system linker; a path must exist, so that a message stays short.
        if place.components().count() > 1 && !place.exists() {
            tried.push(format!("  {}: no such file", place.display()));
            continue;
        }
        let built = match ort::init_from(place) {
            Ok(builder) => {
                builder.with_name("cosched").with_telemetry(false).with_logger(Arc::new(log)).build()
            }
            Err(e) => {
                tried.push(format!("  {}: {e}", place.display()));
                continue;
            }
        };
        match built {
            Ok(environment) => {
                environment.set_log_level(LogLevel::Warning);
                return Ok(Runtime { environment, place: place.clone() });
            }
            Err(e) => tried.push(format!("  {}: {e}", place.display())),
        }
    }
    Err(RuntimeError { tried: tried.join("\n") })
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// No library.
    #[error(transparent)]
    Absent(#[from] RuntimeError),
    /// onnxruntime, or the crate that binds it, refuses the model.
    #[error("{0}")]
    Refused(String),
}

/// A session for the model in `bytes`, without spinning threads. Every session of the process is made here, because the crate `ort`
/// panics on some models that onnxruntime lets through (shapes that it infers as negative, for one): that is a refusal too.
pub(crate) fn session(
    bytes: &[u8],
    threads: usize,
    level: GraphOptimizationLevel,
    tune: impl FnOnce(SessionBuilder) -> ort::Result<SessionBuilder>,
) -> Result<Session, SessionError> {
    let environment = environment()?;
    let build = || -> ort::Result<Session> {
        let builder = Session::builder(environment)?
            .with_intra_threads(threads)?
            .with_intra_op_spinning(false)?
            .with_optimization_level(level)?;
        tune(builder)?.commit_from_memory(bytes)
    };
    match catch_unwind(AssertUnwindSafe(build)) {
        Ok(built) => built.map_err(|e| SessionError::Refused(e.to_string())),
        Err(panic) => {
            Err(SessionError::Refused(format!("the model brought `ort` down: {}", panic_text(&*panic))))
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}

/// onnxruntime's own messages go where ours go; the errors among them reach the caller as results, so they are not repeated loudly.
fn log(level: LogLevel, _category: &str, _id: &str, _place: &str, message: &str) {
    match level {
        LogLevel::Verbose | LogLevel::Info => tracing::trace!(target: "onnxruntime", "{message}"),
        LogLevel::Warning | LogLevel::Error => tracing::debug!(target: "onnxruntime", "{message}"),
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", "{message}"),
    }
}

/// The element type as ours; `None` for one that cosched does not carry.
pub(crate) fn dtype(kind: ort::value::TensorElementType) -> Option<crate::tensor::DType> {
    use crate::tensor::DType;
    use ort::value::TensorElementType;
    Some(match kind {
        TensorElementType::Float32 => DType::F32,
        TensorElementType::Float16 => DType::F16,
        TensorElementType::Float64 => DType::F64,
        TensorElementType::Int64 => DType::I64,
        TensorElementType::Int32 => DType::I32,
        TensorElementType::Uint8 => DType::U8,
        TensorElementType::Int8 => DType::I8,
        TensorElementType::Bool => DType::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_one_clear_error() {
        let error = open(&[PathBuf::from("/nowhere/libonnxruntime.so")]).err().unwrap().to_string();
        for part in ["/nowhere/libonnxruntime.so: no such file", "make setup", "pip download"] {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }

    #[test]
    fn a_file_that_is_no_library_is_refused() {
        let error = open(&[PathBuf::from("/etc/passwd")]).err().unwrap().to_string();
        assert!(error.contains("/etc/passwd"), "{error}");
    }

    #[test]
    fn the_installed_library_tells_its_version() {
        let version = version().unwrap();
        assert!(version.starts_with("1."), "{version}");
    }
}
