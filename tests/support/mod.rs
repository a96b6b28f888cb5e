//! What the tests of the binary share: a folder to run it in, and the judgement of how it refuses. It holds no test.
#![allow(dead_code)]

pub mod apps;

use apps::keyword_app;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command may take before it counts as a hang; generous, because the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Environment of a machine without Vulkan and OpenCL drivers.
pub const NO_GPU: &[(&str, &str)] =
    &[("VK_DRIVER_FILES", "/nowhere"), ("VK_ICD_FILENAMES", "/nowhere"), ("OCL_ICD_VENDORS", "/nowhere")];

/// An app on the cpu alone; rows change it by replacing text.
pub fn app() -> String {
    let head = "name = \"test\"\nprocessors = [\"cpu\"]\nseconds = 0.3\nplan = \"plan.json\"\n";
    keyword_app(head, "period_ms = 20\ndeadline_ms = 20\n")
}

/// What came of a command.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A folder for one test; gone afterwards.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("cosched-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), contents).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The app with `old` replaced by `new`.
    pub fn app(&self, name: &str, old: &str, new: &str) {
        assert!(app().contains(old), "{old}");
        self.write(name, app().replace(old, new));
    }

    /// Runs the binary in the folder, words separated by spaces.
    pub fn run(&self, args: &str, environment: &[(&str, &str)], limit: Duration) -> Result<Ran, String> {
        let file = |name| std::fs::File::create(self.0.join(name)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_cosched"))
            .args(args.split_whitespace())
            .current_dir(&self.0)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file(".out"))
            .stderr(file(".err"))
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > limit {
                child.kill().unwrap();
                child.wait().unwrap();
                return Err(format!("`cosched {args}` hangs: {limit:?} were not enough"));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = |name| String::from_utf8_lossy(&self.read(name)).into_owned();
        Ok(Ran { code: status.code(), out: text(".out"), err: text(".err") })
    }

    /// Starts the binary in the folder, words separated by spaces; nobody hears what it says.
    pub fn start(&self, args: &str) -> Child {
        Command::new(env!("CARGO_BIN_EXE_cosched"))
            .args(args.split_whitespace())
            .current_dir(&self.0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Runs what must work.
    pub fn good(&self, args: &str, environment: &[(&str, &str)]) -> Ran {
        let ran = self.run(args, environment, LIMIT).unwrap();
        assert_eq!(ran.code, Some(0), "cosched {args}: {}", ran.err);
        assert!(!ran.err.contains("panicked"), "cosched {args}: {}", ran.err);
        ran
    }

    /// Runs all rows and reports every one that is not refused as it should be.
    pub fn refuses(&self, rows: &[Row]) {
        let mut wrong = Vec::new();
        for row in rows {
            let ran = self.run(row.0, &[], LIMIT);
            wrong.extend(ran.and_then(|ran| judge(row, &ran)).err());
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Arguments, exit code, what the error must say.
pub type Row<'a> = (&'a str, i32, &'a [&'a str]);

pub fn judge(&(args, code, says): &Row, ran: &Ran) -> Result<(), String> {
    let bad = |problem: String| Err(format!("`cosched {args}`: {problem}; it said: {}", ran.err));
    if ran.err.contains("panicked") || ran.err.contains("RUST_BACKTRACE") {
        return bad("a panic".into());
    }
    if ran.code != Some(code) {
        return bad(format!("expected exit code {code}, got {:?}", ran.code));
    }
    let errors: Vec<usize> = ran.err.match_indices("error: ").map(|(i, _)| i).collect();
    let first = errors.iter().find(|&&i| i == 0 || ran.err.as_bytes()[i - 1] == b'\n');
    let Some(&first) = first else { return bad("no line begins with `error: `".into()) };
    let text = &ran.err[first..];
    // What clap refuses comes with a usage; onnxruntime's absence with the places that were tried. All else is one line.
    let long = text.contains("--help") || text.contains("onnxruntime 1.");
    if !long && text.trim_end().lines().count() != 1 {
        return bad("expected one line".into());
    }
    match says.iter().find(|part| !text.contains(**part)) {
        Some(part) => bad(format!("expected `{part}`")),
        None => Ok(()),
    }
}

pub fn repository(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

pub fn rk3588() -> String {
    repository("experiments/scenarios/rk3588.toml")
}
