//! Files that are written whole: whatever happens, there is the old file or the new one, and no reader sees half of it.
//! It refuses to know what is in them.

use std::io::{Result, Write};
use std::path::Path;

/// Writes a file through one beside it that has a name of its own, so only one writer may be at work on `path`.
///
/// # Errors
/// What the system says; then what was there is as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".unfinished");
    write_through(&path.with_file_name(name), path, bytes)
}

/// Writes a file through `temporary`, which is in the same folder and nobody else's, and takes its place once it is wholly on the disk.
///
/// # Errors
/// As [`write_whole`].
pub fn write_through(temporary: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = std::fs::File::create(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(temporary, path)
    };
    // What is left over is of no use; that it cannot be removed is not the error to tell.
    write().inspect_err(|_| drop(std::fs::remove_file(temporary)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_as_it_was() {
        let folder = std::env::temp_dir().join(format!("cosched-file-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("taken/full")).unwrap();
        let path = folder.join("state");
        for text in ["old", "new"] {
            write_whole(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        // A folder cannot be replaced: nothing unfinished is left, and the folder is as it was.
        assert!(write_whole(&folder.join("taken"), b"x").is_err());
        assert!(folder.join("taken/full").is_dir());
        assert!(write_whole(&folder.join("nowhere/state"), b"x").is_err());
        let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["state", "taken"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
