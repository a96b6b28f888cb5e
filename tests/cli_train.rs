//! `cosched train` of the built binary: a training that was killed goes on to the same checkpoint and curve as one that was not, and
//! nothing goes on that does not belong together.
#![cfg(feature = "train")]

mod support;

use std::time::{Duration, Instant};
use support::{Folder, LIMIT, judge, rk3588};

/// A training of a second or two.
fn train_file(folder: &Folder) {
    let text = format!(
        "out = \"a.safetensors\"\ncases = [\"{}\"]\nteacher = \"edf\"\n\
         [recipe]\nhidden = 8\nactors = 8\nsteps = 32\nimitation = 1500\ndecisions = 6000\nepisode_ms = 700\nthreads = 1\n\
         [evaluation]\nseeds = 1\nseconds = 1\n",
        rk3588()
    );
    folder.write("train.toml", text);
}

/// Begins a training that saves itself at every update, and kills it after some lines of its curve.
fn kill(folder: &Folder, lines: usize) {
    let mut child = folder.start("train train.toml --out b.safetensors --save-minutes 0");
    let begun = Instant::now();
    let written = || std::fs::read_to_string(folder.0.join("b.csv")).map_or(0, |t| t.lines().count());
    while written() <= lines || !folder.0.join("b.safetensors.state").exists() {
        assert!(child.try_wait().unwrap().is_none() && begun.elapsed() < LIMIT, "there was nothing to kill");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A curve without the time.
fn curve(folder: &Folder, name: &str) -> Vec<String> {
    let text = String::from_utf8(folder.read(name)).unwrap();
    text.lines().map(|line| line.split_once(',').unwrap().1.to_owned()).collect()
}

#[test]
fn a_killed_training_goes_on_as_if_nothing_had_been() {
    let folder = Folder::new("train");
    train_file(&folder);
    let whole = folder.good("train train.toml", &[]);
    assert!(whole.out.contains("learned:(this training)"), "{}", whole.out);
    assert!(!folder.0.join("a.safetensors.state").exists(), "a training that ended well leaves no state");
    kill(&folder, 12);
    assert!(!folder.0.join("b.safetensors").exists(), "it ended before it was killed");
    // What does not belong together is refused, and nothing is lost by it.
    let refused = [
        ("train train.toml --out b.safetensors", 2, &["b.safetensors.state", "--resume"] as &[&str]),
        (
            "train train.toml --out b.safetensors --resume --seed 2",
            1,
            &["b.safetensors.state", "recipe.seed: the state has 1; now it is 2"],
        ),
        (
            "train train.toml --out c.safetensors --resume",
            1,
            &["c.safetensors.state", "nothing to go on from"],
        ),
    ];
    for row in refused {
        judge(&row, &folder.run(row.0, &[], LIMIT).unwrap()).unwrap();
    }
    folder.good("train train.toml --out b.safetensors --resume", &[]);
    assert!(!folder.0.join("b.safetensors.state").exists());
    let (a, b) = (curve(&folder, "a.csv"), curve(&folder, "b.csv"));
    assert!(a.len() > 20 && a == b, "the curves differ:\n{}\n\n{}", a.join("\n"), b.join("\n"));
    assert!(folder.read("a.safetensors") == folder.read("b.safetensors"), "the checkpoints differ");
    // Saboteur: another training gives another curve and another checkpoint.
    folder.good("train train.toml --out d.safetensors --seed 2", &[]);
    assert!(curve(&folder, "d.csv") != a && folder.read("d.safetensors") != folder.read("a.safetensors"));
}

#[test]
fn dqn_is_a_word_in_the_train_file() {
    let folder = Folder::new("dqn");
    train_file(&folder);
    let text = String::from_utf8(folder.read("train.toml")).unwrap();
    let dqn = "[recipe]\nlearner = \"dqn\"\ndqn.warm_up = 500\ndqn.replay_mb = 8\n";
    folder.write("train.toml", text.replace("[recipe]\n", dqn));
    folder.good("train train.toml", &[]);
    let last = curve(&folder, "a.csv").pop().unwrap();
    // No entropy and no divergence, but a loss and gradient steps.
    assert!(last.contains(",,,") && !last.contains("NaN") && !last.ends_with(",0"), "{last}");
    folder.write("wrong.toml", text.replace("[recipe]\n", "[recipe]\nlearner = \"dqn\"\ndqn.warmup = 500\n"));
    folder.write("zero.toml", text.replace("actors = 8", "actors = 0"));
    folder.refuses(&[
        ("train wrong.toml", 1, &["wrong.toml", "warmup"]),
        ("train train.toml --save-minutes=-1", 2, &["--save-minutes"]),
        ("train zero.toml", 1, &["recipe.actors: expected a number above 0"]),
    ]);
}
