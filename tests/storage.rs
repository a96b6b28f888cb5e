//! What `[storage]` asks for reaches the processor, and a plan of another storage is refused. It refuses to measure what it is worth.

#[path = "support/apps.rs"]
mod apps;

use apps::keyword_app;
use cosched::experiments::app::App;
use cosched::session::{Session, SessionOptions};
use std::path::Path;

fn parse(storage: &str) -> Result<App, String> {
    let head = format!("name = \"stored\"\nprocessors = [\"cpu\", \"opencl\"]\n{storage}\n");
    let text = keyword_app(&head, "period_ms = 10\ndeadline_ms = 50\n");
    App::parse(&text, Path::new("stored.toml")).map_err(|e| e.to_string())
}

#[test]
fn a_plan_of_another_storage_is_refused() {
    let open = |storage| {
        let app = parse(storage).unwrap();
        let session = Session::open(&app, &SessionOptions::default(), &mut |_, _, _| {}).unwrap();
        assert!(session.absent.is_empty(), "{:?}", session.absent);
        (app, session)
    };
    let (full_app, full) = open("");
    let (halved_app, halved) = open("[storage]\nopencl = \"f16\"");
    let plan = full.profile(&full_app, &mut |_, _, _| {}).unwrap();
    assert_eq!(full.fits(&plan), Ok(()));
    let problem = halved.fits(&plan).unwrap_err();
    assert!(problem.contains("stores f16"), "{problem}");
    // Another storage is another processor, also where an app is read again.
    let again = full.reopen(&halved_app, &mut |_, _, _| {}).unwrap();
    assert!(again.deployment.processors[1].device().ends_with("stores f16)"));
    let bytes = |s: &Session| s.deployment.variants[0].prepared[0][1].as_ref().unwrap().memory_bytes();
    assert!(bytes(&halved) * 100 <= bytes(&full) * 56, "{} and {} bytes", bytes(&halved), bytes(&full));
}

#[test]
fn what_is_no_storage_is_named() {
    for (storage, words) in [
        ("opencl = \"f8\"", "unknown value `f8` in [storage]; known: f32, f16"),
        ("cpu = \"f16\"", "storage.cpu: expected `wgpu` or `opencl`"),
        ("opencl = 16", "storage.opencl: wanted string"),
    ] {
        let problem = parse(&format!("[storage]\n{storage}")).unwrap_err();
        assert!(problem.contains("stored.toml:") && problem.contains(words), "{storage}: {problem}");
    }
}
