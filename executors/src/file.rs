//! Files that are written whole: no reader sees half of one. They hold nothing that could not be made again, so it is not waited for the disk.
//! It refuses to know what is in them.

use std::io::Result;
use std::path::Path;

/// Writes a file through one of this process beside it, and makes the folder where there is none.
///
/// # Errors
/// What the system says.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut name = std::ffi::OsString::from(format!(".{}.", std::process::id()));
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(&temporary, path)
}
