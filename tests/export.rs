//! The exported ONNX file beside its checkpoint: on random numbers, on the observations of real emulated episodes, and from the command
//! line. A file with one weight changed is noticed.

mod support;

use cosched::agent::checkpoint::{self, About};
use cosched::agent::features::{Encoder, FEATURE_VERSION};
use cosched::agent::network::{Linear, Weights};
use cosched::env::episode::Episode;
use cosched::env::streams::rng;
use cosched::env::time::{Span, Time};
use cosched::env::world::Decision;
use cosched::executors::bare::Bare;
use cosched::experiments::app::App;
use cosched::experiments::compare::Setup;
use cosched::export::{Twin, check, to_onnx};
use support::{Folder, repository, rk3588};

/// Weights of the size that training gives: uniform, of variance 2 over the inputs.
fn weights(seed: u64) -> Weights {
    use rand::RngExt;
    let mut random = rng(seed, "weights", 0);
    let made = Weights::build(64, |_, inputs, outputs, bias| {
        let bound = (6.0 / inputs as f32).sqrt();
        let mut draw = |n: usize| (0..n).map(|_| random.random_range(-bound..bound)).collect::<Vec<f32>>();
        let weight = draw(inputs * outputs);
        Ok::<_, ()>(Linear { weight, bias: draw(if bias { outputs } else { 0 }), inputs, outputs })
    });
    made.unwrap()
}

fn about() -> About {
    About {
        feature_version: FEATURE_VERSION,
        hidden: 64,
        scenarios: vec!["one".into(), "two".into()],
        seed: 7,
        commit: "abc".into(),
        command: "cosched train some.toml".into(),
        decisions: 1234,
        scores: vec![("one".into(), 0.5)],
    }
}

/// The first word on a difference, over some emulated seconds in which the network decides; else the number of decisions.
fn over_episodes(exported: &[u8], weights: &Weights) -> Result<usize, String> {
    let mut twin = Twin::open(exported, weights).unwrap();
    let mut encoder = Encoder::new();
    let mut decisions = 0;
    for scenario in [rk3588(), repository("experiments/scenarios/demo.toml")] {
        let setup = Setup::of(&App::read(scenario.as_ref()).unwrap()).unwrap();
        let limit = Time::ZERO + Span::from_ms(1500.0);
        for seed in 0..3 {
            let emulator = setup.emulator.clone();
            let mut episode = Episode::new(setup.case.clone(), setup.options, emulator, seed, limit, limit);
            while episode.advance().unwrap().end.is_none() {
                let observation = episode.observation().unwrap();
                encoder.encode(&observation, &[]);
                let candidates = observation.candidates.len();
                let choice = twin.choose(&encoder.candidates, &encoder.context);
                let choice = choice.map_err(|e| format!("seed {seed}, decision {decisions}: {e}"))?;
                episode.decide(Decision(choice), candidates).unwrap();
                decisions += 1;
            }
        }
    }
    Ok(decisions)
}

#[test]
fn the_exported_file_decides_as_the_checkpoint() {
    for seed in 1..=3 {
        let weights = weights(seed);
        let exported = to_onnx(&weights, &about());
        assert_eq!(check(&exported, &weights).unwrap(), 64, "seed {seed}");
        let decisions = over_episodes(&exported, &weights).unwrap();
        assert!(decisions > 300, "seed {seed}: only {decisions} decisions");
    }
    // Saboteurs: in each layer one weight, or one bias, is another.
    let weights = weights(1);
    let spoilers: [fn(&mut Weights); 9] = [
        |w| w.candidate1.bias.iter_mut().for_each(|b| *b += 0.01),
        |w| w.context1.bias.iter_mut().for_each(|b| *b += 0.01),
        |w| w.candidate2.bias.iter_mut().for_each(|b| *b += 0.01),
        |w| w.mix.weight.iter_mut().for_each(|x| *x *= 1.01),
        |w| w.logit.bias[0] += 0.01,
        |w| w.logit.weight[5] += 0.1,
        |w| w.value1.bias.iter_mut().for_each(|b| *b += 0.01),
        |w| w.value2.bias[0] += 0.01,
        |w| std::mem::swap(&mut w.candidate2.weight, &mut w.mix.weight),
    ];
    for (i, spoil) in spoilers.into_iter().enumerate() {
        let mut other = weights.clone();
        spoil(&mut other);
        let exported = to_onnx(&other, &about());
        assert!(check(&exported, &weights).is_err(), "change {i} went unnoticed on random numbers");
        assert!(over_episodes(&exported, &weights).is_err(), "change {i} went unnoticed in episodes");
    }
}

#[test]
fn the_file_says_what_it_is() {
    let model = Bare::open(&to_onnx(&weights(1), &about())).unwrap();
    assert_eq!(model.note("feature_version").unwrap(), Some(FEATURE_VERSION.to_string()));
    let told: About = serde_json::from_str(&model.note("about").unwrap().unwrap()).unwrap();
    assert_eq!(told, about());
    assert_eq!(model.note("nothing").unwrap(), None);
    // What onnxruntime cannot open, and inputs that do not fit, are errors.
    assert!(Bare::open(b"hello").is_err());
}

#[test]
fn the_command_shows_and_exports() {
    let folder = Folder::new("policy");
    let weights = weights(2);
    folder.write("a.safetensors", checkpoint::to_bytes(&weights, &about()).unwrap());
    let old = About { feature_version: FEATURE_VERSION + 1, ..about() };
    folder.write("old.safetensors", checkpoint::to_bytes(&weights, &old).unwrap());
    let shown = folder.good("policy show a.safetensors", &[]).out;
    for part in ["one, two", "1234 decisions", "cosched train some.toml", "0.5000 per request in one"] {
        assert!(shown.contains(part), "`{part}` is not in: {shown}");
    }
    let json = folder.good("policy show a.safetensors --json", &[]).out;
    assert_eq!(serde_json::from_str::<About>(&json).unwrap(), about());
    // One of another version is shown, and not exported.
    let shown = folder.good("policy show old.safetensors", &[]).out;
    assert!(shown.contains("refuses it"), "{shown}");
    folder.good("policy show shipped", &[]);
    let exported = folder.good("policy export a.safetensors --out p.onnx", &[]).out;
    assert!(exported.contains("p.onnx: the same choices in onnxruntime on 64 observations"), "{exported}");
    assert!(folder.read("p.onnx") == to_onnx(&weights, &about()));
    // Where there is no onnxruntime the file is written all the same, and that is said.
    let blind =
        folder.good("policy export a.safetensors -o q.onnx", &[("COSCHED_ONNXRUNTIME", "/nowhere/x.so")]);
    assert!(
        blind.err.contains("not compared") && folder.read("q.onnx") == folder.read("p.onnx"),
        "{}",
        blind.err
    );
    folder.write("bad.safetensors", "hello");
    folder.refuses(&[
        (
            "policy export old.safetensors",
            1,
            &["old.safetensors", "feature version", "cosched train some.toml"],
        ),
        ("policy export bad.safetensors", 1, &["bad.safetensors", "not a safetensors file"]),
        ("policy show gone.safetensors", 1, &["gone.safetensors", "No such file"]),
        ("policy export a.safetensors --out /dev/null/x.onnx", 1, &["/dev/null/x.onnx"]),
        ("policy paint a.safetensors", 2, &["paint"]),
    ]);
}
