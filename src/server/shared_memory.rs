//! System shared memory: a caller on this machine names a region once, then sends and gets tensors in it instead of in bodies. Regions are
//! read and written through their file, never mapped: another process may cut or change them at any moment, which must not be able to
//! harm this one. Off unless the server was started with it. It refuses keys that are more than the name of a file of `/dev/shm`.

use super::refusal::{Kind, Refusal};
use super::request::shorten;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Where the system keeps them.
const FOLDER: &str = "/dev/shm";
/// Most regions at a time: each holds a file open.
const MOST: usize = 256;

/// A part of a shared memory object that a caller gave a name.
#[derive(Debug)]
pub struct Region {
    /// Name of the object, as `shm_open` takes it.
    pub key: String,
    /// Where the region begins in the object, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub byte_size: u64,
    file: File,
}

/// A part of a region: one tensor.
#[derive(Clone, Debug)]
pub struct Part {
    region: Arc<Region>,
    begin: u64,
    /// Its size in bytes.
    pub size: usize,
}

impl Part {
    /// What lies there.
    ///
    /// # Errors
    /// When the object has become shorter.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; self.size];
        let read = self.region.file.read_exact_at(&mut bytes, self.begin);
        read.map_err(|e| format!("shared memory `{}`: {e}", self.region.key))?;
        Ok(bytes)
    }

    /// Puts bytes there, from its beginning.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, bytes: &[u8]) -> Result<(), String> {
        // Writing past the end would make the object longer, not fail; the check is as good as any race allows.
        let long = self.region.file.metadata().map(|m| m.len()).unwrap_or(0);
        if long < self.begin + bytes.len() as u64 {
            return Err(format!("shared memory `{}`: it has become shorter", self.region.key));
        }
        let written = self.region.file.write_all_at(bytes, self.begin);
        written.map_err(|e| format!("shared memory `{}`: {e}", self.region.key))
    }
}

/// The regions that callers have named.
#[derive(Default)]
pub struct Regions {
    allowed: bool,
    known: Mutex<BTreeMap<String, Arc<Region>>>,
}

impl Regions {
    /// None yet; `allowed`: whether callers may name any.
    pub fn new(allowed: bool) -> Regions {
        Regions { allowed, known: Mutex::default() }
    }

    /// Whether callers may name any.
    pub fn allowed(&self) -> bool {
        self.allowed
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.allowed {
            return Ok(());
        }
        let problem = "shared memory is off; start the server with --shared-memory";
        Err(Refusal::new(Kind::NotBuilt, problem))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Region>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names a region.
    ///
    /// # Errors
    /// When the name is taken, the key is none, there is no such object, or it is shorter than that.
    pub fn register(&self, name: &str, key: &str, offset: u64, byte_size: u64) -> Result<(), Refusal> {
        self.check()?;
        let shown = shorten(key);
        let wrong = |problem: String| Refusal::invalid(format!("shared memory key {shown}: {problem}"));
        let file = key.strip_prefix('/').unwrap_or(key);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if file.is_empty() || file.len() > 250 || file.starts_with('.') || !file.chars().all(plain) {
            return Err(wrong("expected a slash and letters, digits, `.`, `_`, `-`".into()));
        }
        let path = Path::new(FOLDER).join(file);
        // Neither a link that leads elsewhere nor a pipe that blocks.
        let kind = path.symlink_metadata().map_err(|e| wrong(e.to_string()))?;
        if !kind.is_file() {
            return Err(wrong("it is no shared memory object".into()));
        }
        let opened =
            OpenOptions::new().read(true).write(true).open(&path).map_err(|e| wrong(e.to_string()))?;
        let long = opened.metadata().map_err(|e| wrong(e.to_string()))?.len();
        let end = offset.checked_add(byte_size).filter(|&end| end <= long && byte_size > 0);
        if end.is_none() {
            return Err(wrong(format!("it has {long} bytes, not {byte_size} from {offset}")));
        }
        let mut known = self.known();
        if known.contains_key(name) {
            return Err(Refusal::invalid(format!("shared memory region {} is there already", shorten(name))));
        }
        if known.len() == MOST {
            return Err(Refusal::unavailable(format!("there are {MOST} shared memory regions already")));
        }
        let region = Region { key: key.to_owned(), offset, byte_size, file: opened };
        known.insert(name.to_owned(), Arc::new(region));
        Ok(())
    }

    /// Forgets a region, or all of them (`""`). What uses one goes on using it.
    ///
    /// # Errors
    /// When shared memory is off.
    pub fn unregister(&self, name: &str) -> Result<(), Refusal> {
        self.check()?;
        if name.is_empty() {
            self.known().clear();
        } else {
            self.known().remove(name);
        }
        Ok(())
    }

    /// A region, or all of them (`""`), by name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn status(&self, name: &str) -> Result<BTreeMap<String, Arc<Region>>, Refusal> {
        self.check()?;
        let mut all = self.known().clone();
        if !name.is_empty() {
            all.retain(|known, _| known == name);
            if all.is_empty() {
                return Err(none(name));
            }
        }
        Ok(all)
    }

    /// A part of a region.
    ///
    /// # Errors
    /// When there is no such region, or it does not reach that far.
    pub fn part(&self, name: &str, offset: u64, size: u64) -> Result<Part, Refusal> {
        self.check()?;
        let region = self.known().get(name).cloned().ok_or_else(|| none(name))?;
        if offset.checked_add(size).is_none_or(|end| end > region.byte_size) {
            let (name, has) = (shorten(name), region.byte_size);
            return Err(Refusal::invalid(format!(
                "shared memory region {name} has {has} bytes, not {size} from {offset}"
            )));
        }
        let begin = region.offset + offset;
        Ok(Part { region, begin, size: size as usize })
    }
}

fn none(name: &str) -> Refusal {
    Refusal::unknown(format!("no shared memory region {}; register it first", shorten(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object of so many bytes; gone afterwards.
    struct Object(String);

    impl Object {
        fn new(name: &str, bytes: usize) -> Object {
            let key = format!("/cosched-test-{}-{name}", std::process::id());
            std::fs::write(format!("{FOLDER}{key}"), vec![7; bytes]).unwrap();
            Object(key)
        }
    }

    impl Drop for Object {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(format!("{FOLDER}{}", self.0));
        }
    }

    #[test]
    fn regions_are_named_used_and_forgotten() {
        let (object, regions) = (Object::new("use", 100), Regions::new(true));
        regions.register("r", &object.0, 20, 80).unwrap();
        let part = regions.part("r", 10, 4).unwrap();
        part.write(&[1, 2, 3, 4]).unwrap();
        assert_eq!(std::fs::read(format!("{FOLDER}{}", object.0)).unwrap()[29..35], [7, 1, 2, 3, 4, 7]);
        assert_eq!(part.read().unwrap(), [1, 2, 3, 4]);
        for (offset, size) in [(77, 4), (81, 0), (u64::MAX, 2), (0, u64::MAX)] {
            assert!(regions.part("r", offset, size).is_err(), "{offset} {size}");
        }
        assert!(regions.register("r", &object.0, 0, 1).unwrap_err().message.contains("already"));
        // The object is cut behind our back: an error, and it is not made longer again.
        std::fs::write(format!("{FOLDER}{}", object.0), [0; 10]).unwrap();
        assert!(part.read().is_err() && part.write(&[0; 4]).is_err());
        assert_eq!(regions.status("").unwrap().len(), 1);
        regions.unregister("r").unwrap();
        assert_eq!(regions.part("r", 0, 1).unwrap_err().kind, Kind::Unknown);
    }

    #[test]
    fn wrong_keys_and_ranges_are_refused() {
        let (object, regions) = (Object::new("wrong", 100), Regions::new(true));
        let link = format!("/cosched-test-{}-link", std::process::id());
        std::os::unix::fs::symlink("/etc/passwd", format!("{FOLDER}{link}")).unwrap();
        for (key, offset, size) in [
            ("/../etc/passwd", 0, 1),
            ("/a/b", 0, 1),
            ("", 0, 1),
            ("/", 0, 1),
            ("/..", 0, 1),
            ("/nul\0", 0, 1),
            ("/cosched-none", 0, 1),
            (&link, 0, 1),
            (&object.0, 0, 101),
            (&object.0, 100, 1),
            (&object.0, 0, 0),
            (&object.0, u64::MAX, 2),
        ] {
            assert_eq!(regions.register("x", key, offset, size).unwrap_err().kind, Kind::Invalid, "{key:?}");
        }
        std::fs::remove_file(format!("{FOLDER}{link}")).unwrap();
        assert!(regions.status("").unwrap().is_empty());
        let off = Regions::new(false);
        assert!(off.register("x", &object.0, 0, 1).unwrap_err().message.contains("--shared-memory"));
    }
}
