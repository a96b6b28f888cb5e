//! A data area: one shared-memory file that carries a few blobs (a model, or the tensors of one instance) between the processes.
//! Offsets and lengths are checked once when it is opened and then kept privately; it refuses to grow or to be re-read.

use super::queue::{QueueError, VERSION, create_file, shared_dir};
use memmap2::MmapRaw;
use std::fs::OpenOptions;
use std::ops::Range;
use std::path::{Path, PathBuf};

const MAGIC: u64 = u64::from_le_bytes(*b"cosdspa\n");
const ALIGN: usize = 64;
const MAX_BLOBS: usize = 4096;

/// A mapped data area.
pub struct Area {
    map: MmapRaw,
    blobs: Vec<Range<usize>>,
    path: PathBuf,
    owner: bool,
}

// SAFETY: plain mapped memory; readers and writers take turns as the queue's messages tell them.
unsafe impl Send for Area {}
// SAFETY: the methods take raw copies only; no reference into the mapping escapes.
unsafe impl Sync for Area {}

impl Area {
    /// A new area with one blob for each of `lens` (bytes), each aligned to 64 bytes, all zero. Falls back from the
    /// memory-backed folder to the temporary folder when the former is full.
    ///
    /// # Errors
    /// [`QueueError::Io`] when no file can be made.
    pub fn create(lens: &[usize]) -> Result<Self, QueueError> {
        let mut end = (16 + 16 * lens.len()).next_multiple_of(ALIGN);
        let blobs: Vec<Range<usize>> = lens
            .iter()
            .map(|len| {
                let blob = end..end + len;
                end = blob.end.next_multiple_of(ALIGN);
                blob
            })
            .collect();
        let (file, path) =
            create_file(&shared_dir(), end).or_else(|_| create_file(&std::env::temp_dir(), end))?;
        let io = |source| QueueError::Io { path: path.clone(), source };
        let map = MmapRaw::map_raw(&file).map_err(io)?;
        let mut table = MAGIC.to_le_bytes().to_vec();
        table.extend(VERSION.to_le_bytes());
        table.extend((lens.len() as u32).to_le_bytes());
        for blob in &blobs {
            table.extend((blob.start as u64).to_le_bytes());
            table.extend((blob.len() as u64).to_le_bytes());
        }
        // SAFETY: the file was just made with room for the table; nobody else knows of it yet.
        unsafe { std::ptr::copy_nonoverlapping(table.as_ptr(), map.as_mut_ptr(), table.len()) };
        Ok(Self { map, blobs, path, owner: true })
    }

    /// Opens an area that the other side made.
    ///
    /// # Errors
    /// [`QueueError`] when the file is not an area or its table points outside of it.
    pub fn open(path: &Path) -> Result<Self, QueueError> {
        let io = |source| QueueError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len() as usize;
        let foreign = |got: String| QueueError::Foreign {
            path: path.to_owned(),
            expected: format!("a data area of version {VERSION}"),
            got,
        };
        if size < 16 {
            return Err(foreign(format!("{size} bytes")));
        }
        let map = MmapRaw::map_raw(&file).map_err(io)?;
        let word = |at: usize| -> u64 {
            let mut bytes = [0u8; 8];
            // SAFETY: every caller below has checked that `at + 8 <= size`.
            unsafe { std::ptr::copy_nonoverlapping(map.as_ptr().add(at), bytes.as_mut_ptr(), 8) };
            u64::from_le_bytes(bytes)
        };
        let (version, count) = ((word(8) & 0xffff_ffff) as u32, (word(8) >> 32) as usize);
        if word(0) != MAGIC || version != VERSION {
            return Err(foreign(format!("magic {:#x}, version {version}", word(0))));
        }
        if count > MAX_BLOBS || 16 + 16 * count > size {
            return Err(foreign(format!("a table of {count} blobs in {size} bytes")));
        }
        let mut blobs = Vec::with_capacity(count);
        for i in 0..count {
            let (start, len) = (word(16 + 16 * i), word(24 + 16 * i));
            match start.checked_add(len) {
                Some(end) if end <= size as u64 && start % ALIGN as u64 == 0 => {
                    blobs.push(start as usize..end as usize);
                }
                _ => return Err(foreign(format!("blob {i} at {start} of {len} bytes in {size} bytes"))),
            }
        }
        Ok(Self { map, blobs, path: path.to_owned(), owner: false })
    }

    /// Where the file is (or was).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file's name; the memory lives on in those who have it open. Absence is fine.
    pub fn unlink(&self) {
        let _ = std::fs::remove_file(&self.path);
    }

    /// Number of blobs.
    pub fn len(&self) -> usize {
        self.blobs.len()
    }

    /// Whether there is no blob.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Bytes of blob `i`; 0 when there is none.
    pub fn blob_len(&self, i: usize) -> usize {
        self.blobs.get(i).map_or(0, |b| b.len())
    }

    /// Bytes of the whole file.
    pub fn bytes(&self) -> usize {
        self.map.len()
    }

    /// Copies `from` into blob `i`. The lengths must be equal.
    ///
    /// # Errors
    /// [`QueueError::Corrupt`] when there is no such blob or it has another length.
    pub fn write(&self, i: usize, from: &[u8]) -> Result<(), QueueError> {
        let blob = self.blob(i, from.len())?;
        // SAFETY: the range was checked against the mapping and has the length of `from`.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr(), self.map.as_mut_ptr().add(blob.start), from.len())
        };
        Ok(())
    }

    /// Copies blob `i` into `to`. The lengths must be equal.
    ///
    /// # Errors
    /// [`QueueError::Corrupt`] when there is no such blob or it has another length.
    pub fn read(&self, i: usize, to: &mut [u8]) -> Result<(), QueueError> {
        let blob = self.blob(i, to.len())?;
        // SAFETY: the range was checked against the mapping and has the length of `to`.
        unsafe {
            std::ptr::copy_nonoverlapping(self.map.as_ptr().add(blob.start), to.as_mut_ptr(), to.len())
        };
        Ok(())
    }

    /// The address of blob `i`, aligned to 64 bytes, valid for [`Area::blob_len`] bytes while the area lives.
    pub fn address(&self, i: usize) -> Option<*mut u8> {
        // SAFETY: the range was checked against the mapping.
        self.blobs.get(i).map(|b| unsafe { self.map.as_mut_ptr().add(b.start) })
    }

    fn blob(&self, i: usize, len: usize) -> Result<&Range<usize>, QueueError> {
        match self.blobs.get(i) {
            Some(blob) if blob.len() == len => Ok(blob),
            Some(blob) => {
                Err(QueueError::Corrupt(format!("blob {i} has {} bytes, expected {len}", blob.len())))
            }
            None => Err(QueueError::Corrupt(format!("no blob {i} among {}", self.blobs.len()))),
        }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        if self.owner {
            self.unlink();
        }
    }
}
