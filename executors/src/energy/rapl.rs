//! RAPL: what the CPU's packages take, as Linux tells it in `/sys/class/powercap` (Documentation/power/powercap/powercap.rst of the kernel).
//! AMD's CPUs stand under the same names. It refuses zones within a package, which are part of it, and the whole platform's.

use super::Counter;
use std::path::{Path, PathBuf};

/// Where Linux has the zones.
pub const POWERCAP: &str = "/sys/class/powercap";

/// All packages together.
pub struct Rapl {
    name: String,
    zones: Vec<Zone>,
}

struct Zone {
    file: PathBuf,
    /// The number after which it begins again from 0.
    range_uj: u64,
    last_uj: u64,
    sum_uj: u64,
}

impl Rapl {
    /// The packages under `root`.
    ///
    /// # Errors
    /// When there are none, or they may not be read (only root may, unless somebody has changed that).
    pub fn open(root: &Path) -> Result<Rapl, String> {
        let listed = std::fs::read_dir(root).map_err(|e| format!("RAPL: {}: {e}", root.display()))?;
        let mut folders: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
        folders.sort();
        let (mut names, mut zones) = (Vec::new(), Vec::new());
        for folder in folders {
            let file = folder.file_name().unwrap_or_default().to_string_lossy();
            // `intel-rapl:0` is a package; `intel-rapl:0:1` a part of it, `intel-rapl-mmio:0` the same by another way.
            let package = file.strip_prefix("intel-rapl:").is_some_and(|number| !number.contains(':'));
            let name = std::fs::read_to_string(folder.join("name")).unwrap_or_default();
            if package && name.starts_with("package") {
                names.push(name.trim().to_owned());
                zones.push(Zone::open(&folder)?);
            }
        }
        if zones.is_empty() {
            return Err(format!("RAPL: {} has no zone of a CPU package", root.display()));
        }
        Ok(Rapl { name: format!("RAPL {}", names.join(" and ")), zones })
    }
}

fn number(file: &Path) -> Result<u64, String> {
    let named = |problem: String| format!("RAPL: {}: {problem}", file.display());
    let text = std::fs::read_to_string(file).map_err(|e| named(e.to_string()))?;
    text.trim().parse().map_err(|_| named(format!("expected a number, got `{}`", text.trim())))
}

impl Zone {
    fn open(folder: &Path) -> Result<Zone, String> {
        let file = folder.join("energy_uj");
        let (range_uj, last_uj) = (number(&folder.join("max_energy_range_uj"))?, number(&file)?);
        Ok(Zone { file, range_uj, last_uj, sum_uj: 0 })
    }

    fn joules(&mut self) -> Result<f64, String> {
        let now_uj = number(&self.file)?;
        self.sum_uj += match now_uj.checked_sub(self.last_uj) {
            Some(more) => more,
            // It has begun again.
            None => now_uj + self.range_uj.saturating_sub(self.last_uj),
        };
        self.last_uj = now_uj;
        Ok(self.sum_uj as f64 / 1e6)
    }
}

impl Counter for Rapl {
    fn name(&self) -> &str {
        &self.name
    }

    fn joules(&mut self) -> Result<f64, String> {
        self.zones.iter_mut().map(Zone::joules).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("cosched-rapl-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn zone(&self, folder: &str, name: &str, uj: u64) -> &Folder {
            let path = self.0.join(folder);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("name"), format!("{name}\n")).unwrap();
            std::fs::write(path.join("max_energy_range_uj"), "1000000000\n").unwrap();
            self.at(folder, uj)
        }

        fn at(&self, folder: &str, uj: u64) -> &Folder {
            std::fs::write(self.0.join(folder).join("energy_uj"), format!("{uj}\n")).unwrap();
            self
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn packages_are_added_up_and_run_over() {
        let f = Folder::new("sum");
        f.zone("intel-rapl:0", "package-0", 5_000_000).zone("intel-rapl:1", "package-1", 999_000_000);
        // Parts and other ways to the same must not be counted twice.
        f.zone("intel-rapl:0:0", "core", 0).zone("intel-rapl-mmio:0", "package-0", 0);
        f.zone("intel-rapl:2", "psys", 0);
        let mut rapl = Rapl::open(&f.0).unwrap();
        assert_eq!(rapl.name(), "RAPL package-0 and package-1");
        assert_eq!(rapl.joules(), Ok(0.0));
        for other in ["intel-rapl:0:0", "intel-rapl-mmio:0", "intel-rapl:2"] {
            f.at(other, 77_000_000);
        }
        f.at("intel-rapl:0", 7_500_000);
        assert_eq!(rapl.joules(), Ok(2.5));
        // 1 J up to the range, and 0.25 J from 0 on.
        f.at("intel-rapl:1", 250_000);
        assert_eq!(rapl.joules(), Ok(3.75));
        // The saboteur: without the range it would have lost 998.75 J.
        f.at("intel-rapl:1", 1_250_000).at("intel-rapl:0", 8_500_000);
        assert_eq!(rapl.joules(), Ok(5.75));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let f = Folder::new("bad");
        let problem = |root: &Path| Rapl::open(root).map(|r| r.name).unwrap_err();
        let gone = f.0.join("gone");
        assert!(problem(&gone).contains(gone.to_str().unwrap()), "{}", problem(&gone));
        assert!(problem(&f.0).contains("no zone of a CPU package"), "{}", problem(&f.0));
        f.zone("intel-rapl:0", "package-0", 1);
        assert!(Rapl::open(&f.0).is_ok());
        let file = f.0.join("intel-rapl:0/energy_uj");
        for (text, says) in [("many\n", "expected a number, got `many`"), ("", "expected a number")] {
            std::fs::write(&file, text).unwrap();
            assert!(problem(&f.0).contains(says), "{}", problem(&f.0));
        }
        // A folder in its place reads as badly as a file without permission, which root would not notice.
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(problem(&f.0).contains(file.to_str().unwrap()), "{}", problem(&f.0));
    }
}
