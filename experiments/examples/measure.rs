//! Scratch: policies on an app. Not kept.
use cosched_experiments::app::App;
use cosched_experiments::compare::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let app = App::read(std::path::Path::new(&a[1])).unwrap();
    let setup = Setup {
        case: app.case().unwrap(),
        options: app.scheduler,
        emulator: app.emulator.clone(),
        seconds: a[2].parse().unwrap(),
    };
    let n: u64 = a[3].parse().unwrap();
    let policies: Vec<String> = a[4].split(',').map(str::to_owned).collect();
    let seeds: Vec<u64> = (1000..1000 + n).collect();
    let plan = Plan { policies: &policies, seeds: &seeds, reference: None, threads: 1 };
    let t = std::time::Instant::now();
    let c = compare(&setup, &plan, &from_table, &|_, _| {}).unwrap();
    println!(
        "{c}\n{:.1} s, decisions {}",
        t.elapsed().as_secs_f64(),
        c.runs.last().unwrap().summary.decisions
    );
}
