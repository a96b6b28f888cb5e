//! Content hashes (SHA-256): what a cell is called, and whether a stored result is whole.
//! It refuses to leave out the code: a result is of one executable, whose own hash is part of every name.

use crate::config::ConfigError;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// SHA-256 in hexadecimal.
pub fn of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

/// The code that makes the results: the first twelve digits of the hash of the running executable.
///
/// # Errors
/// When the executable cannot be read.
pub fn code() -> Result<String, ConfigError> {
    static CODE: OnceLock<Result<String, ConfigError>> = OnceLock::new();
    let read = || {
        let path = std::env::current_exe()
            .map_err(|e| ConfigError::new("cosched", format!("cannot find its own executable: {e}")))?;
        let bytes =
            std::fs::read(&path).map_err(|e| ConfigError::new(&path, format!("cannot be read: {e}")))?;
        Ok(of(&bytes)[..12].to_owned())
    };
    CODE.get_or_init(read).clone()
}

/// Hashes of files; each is read once, because thousands of cells share a few of them.
#[derive(Debug, Default)]
pub struct Files(Mutex<BTreeMap<PathBuf, Result<String, ConfigError>>>);

impl Files {
    /// The hash of a file's content.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    pub fn of(&self, path: &Path) -> Result<String, ConfigError> {
        // A lock poisoned by a panic elsewhere holds a whole map all the same.
        let mut known = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let read = || match std::fs::read(path) {
            Ok(bytes) => Ok(of(&bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(ConfigError::new(path, "no such file")),
            Err(e) => Err(ConfigError::new(path, format!("cannot be read: {e}"))),
        };
        known.entry(path.to_owned()).or_insert_with(read).clone()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_hash_is_the_published_one() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(super::of(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_ne!(super::of(b"abd"), super::of(b"abc"));
    }
}
