//! Every operator on every GPU processor against onnxruntime, with random shapes and attributes and a stated bound each.
//! It refuses to trust itself: wrong kernels and wrong numbers must be rejected.

mod gpu_cases;

use cosched_executors::cpu;
use cosched_executors::gpu::device::{Device, Edit, Gpu};
use cosched_executors::gpu::lower::choice::{Along, Choice, Met};
use cosched_executors::gpu::opencl::OpenClDevice;
use cosched_executors::gpu::wgpu::WgpuDevice;
use cosched_executors::processor::{Options, Processor, TABLE};
use cosched_executors::tensor::{Data, Tensor};
use gpu_cases::{Case, Row, rows};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

/// Random cases of each row on each processor; the variable `CASES` asks for another number.
static CASES: LazyLock<u64> =
    LazyLock::new(|| std::env::var("CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(12));

/// One processor of each kind for all tests of this file: kernels are compiled once.
static GPUS: LazyLock<Vec<Arc<dyn Processor>>> = LazyLock::new(|| {
    let rows = TABLE.iter().filter(|r| matches!(r.name, "wgpu" | "opencl"));
    rows.map(|r| (r.open)(&Options::default()).unwrap_or_else(|e| panic!("{e}"))).collect()
});

fn run(processor: &dyn Processor, case: &Case) -> Result<Vec<Tensor>, String> {
    for node in &case.graph.nodes {
        processor.supports(&case.graph, node)?;
    }
    let inputs: Vec<_> = case.inputs.iter().collect();
    let prepared = processor.prepare(&case.graph, &[]).map_err(|e| e.to_string())?;
    prepared.spawn().and_then(|mut i| i.run(&inputs)).map_err(|e| e.to_string())
}

fn reference(case: &Case) -> Result<Vec<Tensor>, String> {
    let inputs: Vec<_> = case.inputs.iter().collect();
    cpu::reference(&case.graph).and_then(|mut i| i.run(&inputs)).map_err(|e| e.to_string())
}

/// What is wrong with case `seed` of `row`, if anything.
fn verdict(row: &Row, seed: u64, processor: &dyn Processor) -> Option<String> {
    let case = row.case(seed);
    let describe = |why: String| {
        let inputs: Vec<_> = case.inputs.iter().map(|t| &t.shape).collect();
        let nodes: Vec<_> = case.graph.nodes.iter().map(|n| format!("{} {:?}", n.op, n.attrs)).collect();
        format!(
            "`{}` seed {seed} on {}: {why}; inputs {inputs:?}; {}",
            row.name,
            processor.name(),
            nodes.join(", ")
        )
    };
    match (run(processor, &case), reference(&case)) {
        (Err(why), _) | (_, Err(why)) => Some(describe(why)),
        (Ok(got), Ok(want)) => row.differs(&got, &want).map(describe),
    }
}

fn operators_agree(processor: &dyn Processor) {
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut wrong = Vec::new();
    for row in rows().iter().filter(|r| r.name.contains(&only)) {
        let start = std::time::Instant::now();
        wrong.extend((0..*CASES).filter_map(|seed| verdict(row, seed, processor)));
        println!("{} on {}: {:.2} s", row.name, processor.name(), start.elapsed().as_secs_f64());
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

// Drivers compile on one thread: a test each, so that both cores have something to do.
#[test]
fn every_operator_agrees_with_onnxruntime_on_wgpu() {
    operators_agree(&*GPUS[0]);
}

#[test]
fn every_operator_agrees_with_onnxruntime_on_opencl() {
    operators_agree(&*GPUS[1]);
}

/// Rows that have every way among their candidates.
const NAMES: [&str; 7] = [
    "conv",
    "conv 1x1",
    "conv and a sum",
    "conv 3x3 with many channels",
    "matmul by a constant, biased",
    "depthwise of wide rows",
    "conv 3x3 of wide rows",
];

fn each_way<D: Device>(gpu: &Gpu<D>) {
    let mut ways = BTreeSet::new();
    for row in rows().iter().filter(|r| NAMES.contains(&r.name)) {
        for seed in [2, 3] {
            for met in gpu.problems(&row.case(seed).graph).unwrap() {
                for choice in met.candidates {
                    let forced =
                        gpu.with(|target| target.tuned = Arc::new([(met.key.clone(), choice)].into()));
                    assert_eq!(verdict(row, seed, &forced), None, "{}: {choice:?}", met.key);
                    ways.insert(format!("{choice:?}").split([' ', '(']).next().unwrap().to_owned());
                }
            }
        }
    }
    assert_eq!(ways.into_iter().collect::<Vec<_>>(), ["Strip", "Tile", "Winograd"]);
}

#[test]
fn each_way_to_compute_a_layer_is_right() {
    each_way(&Gpu::new(WgpuDevice::open(None).unwrap()));
    each_way(&Gpu::new(OpenClDevice::open(None).unwrap()));
}

#[test]
fn every_operator_of_the_lowering_has_a_row() {
    let mut seen = BTreeSet::new();
    for row in rows() {
        for seed in 0..40 {
            seen.extend(row.case(seed).graph.nodes.iter().map(|n| n.op.clone()));
        }
    }
    // Two that onnxruntime removes or that do nothing in f32; `views` of the networks have them.
    let known = ["Cast", "Dropout"];
    let missing: Vec<_> = cosched_executors::gpu::lower::operators()
        .into_iter()
        .filter(|op| !seen.contains(*op) && !known.contains(op))
        .collect();
    assert!(missing.is_empty(), "no row tests {missing:?}");
}

#[test]
fn one_wrong_number_is_rejected() {
    for row in rows() {
        let case = row.case(3);
        let want = reference(&case).unwrap();
        assert_eq!(row.differs(&want, &want), None);
        let mut wrong = want.clone();
        let Data::F32(data) = &mut wrong[0].data else { panic!("{}: not f32", row.name) };
        let at = data.iter().rposition(|v| v.is_finite()).unwrap();
        data[at] += 3.0 * (row.absolute + row.relative * data[at].abs()).max(1e-6 * (1.0 + data[at].abs()));
        assert!(
            row.differs(&wrong, &want).is_some(),
            "{}: element {at} was changed and nobody saw it",
            row.name
        );
        let Data::F32(data) = &mut wrong[0].data else { panic!("not f32") };
        data[at] = f32::NAN;
        assert!(row.differs(&wrong, &want).is_some(), "{}: a NaN passed", row.name);
    }
}

/// Which way to compute a layer a wrong kernel belongs to.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// There is one way only, or the device's best guess.
    Any,
    /// A register tile, lanes along channels, each invocation by itself.
    Channels,
    /// The same, a subgroup loading together.
    Shared,
    /// A register tile, lanes along positions.
    Positions,
    Strip,
    Winograd(u32),
}

impl Way {
    fn is(self, choice: &Choice) -> bool {
        match (self, choice) {
            (Way::Channels, Choice::Tile(t)) => t.along == Along::Channels && t.share == 0,
            (Way::Shared, Choice::Tile(t)) => t.share > 0,
            (Way::Positions, Choice::Tile(t)) => t.along == Along::Positions,
            (Way::Strip, Choice::Strip { .. }) => true,
            (Way::Winograd(wanted), Choice::Winograd { size, .. }) => *size == wanted,
            _ => false,
        }
    }
}

/// Wrong kernels that read and write no place that the right one would not: name of the row, way, devices that have it, text, its replacement.
const SABOTEURS: &[(&str, Way, &[&str], Edit)] = &[
    // One row of padding too many.
    ("conv", Way::Channels, CL, |t| t.replace("- p_pad_h)", "- (p_pad_h + 1))")),
    ("conv", Way::Shared, GL, |t| t.replace("- p_pad_h)", "- (p_pad_h + 1))")),
    // The last input channel is dropped.
    ("conv 1x1", Way::Channels, CL, |t| t.replace("< p_k;", "< (p_k - 1);")),
    ("conv 1x1", Way::Positions, CL, |t| t.replace("< p_k;", "< (p_k - 1);")),
    // A neighbour's weight is taken for another's.
    ("conv 1x1", Way::Shared, GL, |t| t.replace("(part_1, 1u)", "(part_1, 0u)")),
    // The dilation is forgotten.
    ("conv depthwise", Way::Any, BOTH, |t| t.replace("* p_dilation_w)", "* 1)")),
    // The bias is forgotten.
    ("gemm", Way::Any, BOTH, |t| t.replace("+ bias_1)", ")")),
    // The first element of each row is not looked at.
    ("softmax", Way::Any, BOTH, |t| t.replace("= 0; j_2", "= 1; j_2")),
    // Elements of the padding are counted.
    ("average pool", Way::Any, BOTH, |t| t.replace("count_1 + ", "1.0f + count_1 + ")),
    // The first channel of the window is forgotten; the window is one channel off.
    ("lrn", Way::Any, BOTH, |t| t.replace("= 0; j_1", "= 1; j_1")),
    ("lrn", Way::Any, BOTH, |t| t.replace("x_first_1 + (j_1 * p_inner)", "x_here_1")),
    // A strip's second weight is forgotten for its first.
    ("conv depthwise", Way::Strip, BOTH, |t| t.replace("(w_2 ", "(w_1 ").replace("(w_2)", "(w_1)")),
    ("conv and a sum", Way::Strip, BOTH, left_counts),
    ("max pool of wide rows", Way::Any, BOTH, left_counts),
    ("depthwise of wide rows", Way::Strip, BOTH, left_counts),
    // The last row of a narrow plane ends too early.
    ("depthwise of wide rows", Way::Strip, CL, |t| t.replace("> 5))", "> 500))").replace("> 9))", "> 900))")),
    // What lies left of the image counts; rows that end with a whole tile are not stored to their ends.
    ("conv 3x3 of wide rows", Way::Winograd(4), CL, |t| t.replace(">= zero_1)", ">= (zero_1 - 9.0f))")),
    ("conv 3x3 of wide rows", Way::Winograd(4), CL, |t| t.replace("(end_1 <= p_ow)", "(end_1 < p_ow)")),
    // The second row of outputs is divided by what the first one counts.
    ("average pool of wide rows", Way::Any, BOTH, |t| {
        t.replace("* rows_2)", "* rows_1)").replace("(rows_2)", "(rows_1)")
    }),
    // The second part of a row is the first one again.
    ("long rows that move", Way::Any, BOTH, |t| t.replace("x_index_1 + q_2)", "x_index_1 + q_1)")),
    // The tensor that is added is not read where it is.
    ("conv and a sum", Way::Channels, CL, |t| t.replace("+ res_step_1", "+ 0")),
    ("conv and a sum", Way::Shared, GL, |t| t.replace("+ res_step_1", "+ 0")),
    ("conv and a sum", Way::Positions, CL, |t| t.replace("+ res_step_1", "+ 0")),
    ("conv and a sum", Way::Strip, BOTH, |t| t.replace("+ res_step_1", "+ 0")),
    ("conv 3x3 with many channels", Way::Winograd(4), BOTH, |t| t.replace("+ res_step_1", "+ 0")),
    // One number of Winograd's matrices is wrong.
    ("conv 3x3 with many channels", Way::Winograd(4), BOTH, |t| t.replace("* 5.0f", "* 4.0f")),
    ("conv 3x3 with many channels", Way::Winograd(4), BOTH, |t| t.replace("* 8.0f", "* 7.0f")),
    ("conv 3x3 with many channels", Way::Winograd(2), BOTH, |t| t.replace("(t_1 - t_3)", "(t_1 + t_3)")),
    ("conv 3x3 with many channels", Way::Winograd(2), BOTH, |t| {
        t.replace("((t_1 + t_2) + t_3)", "((t_1 + t_2) - t_3)")
    }),
    // The last of the products between Winograd's transforms is dropped.
    ("conv 3x3 with many channels", Way::Winograd(2), BOTH, |t| t.replace("< p_k;", "< (p_k - 1);")),
    // The second part of a row is the first one again; what is left of a row is forgotten.
    ("binary of long rows", Way::Any, BOTH, |t| t.replace("_index_1 + q_2)", "_index_1 + q_1)")),
    ("lines that turn", Way::Any, BOTH, |t| t.replace("(q_2 * p_x_s", "(q_1 * p_x_s")),
    ("softmax of long rows", Way::Any, CL, nothing_left),
    ("layer normalisation of long rows", Way::Any, CL, nothing_left),
    // All lanes of the last vector count.
    ("reduce of long rows", Way::Any, CL, |t| {
        t.replace("convert_float(((-left_1) + ", "convert_float(0 * ((-left_1) + ")
    }),
    // The broadcast goes along the wrong axis.
    ("binary", Way::Any, BOTH, |t| t.replace("* p_b_s3)", "* 0)")),
];

/// What lies left of a row counts.
fn left_counts(t: String) -> String {
    let scalar = t.replace("(x_1 >= 0) && ", "");
    [4, 8, 16].iter().fold(scalar, |t, n| t.replace(&format!("(x_1 >= ((float{n})(0.0f))) & "), ""))
}

/// Rows end with their last whole vector.
fn nothing_left(t: String) -> String {
    [4, 8, 16].iter().fold(t, |t, n| t.replace(&format!("(p_n % {n})"), "0"))
}

/// Devices of the tests: the software Vulkan, whose subgroups share loads, and the CPU's OpenCL.
const BOTH: &[&str] = &["wgpu", "opencl"];
const GL: &[&str] = &["wgpu"];
const CL: &[&str] = &["opencl"];

/// The same processor with one choice of each problem of `case` that goes this way; `None` where there is none.
fn forced<D: Device>(gpu: &Gpu<D>, case: &Case, way: Way) -> Option<Gpu<D>> {
    let problems = gpu.problems(&case.graph).unwrap();
    let pick = |met: Met| Some((met.key, met.candidates.into_iter().find(|c| way.is(c))?));
    let choices: BTreeMap<_, _> = problems.into_iter().filter_map(pick).collect();
    (matches!(way, Way::Any) || !choices.is_empty())
        .then(|| gpu.with(|target| target.tuned = Arc::new(choices)))
}

fn sabotage<D: Device>(open: impl Fn(Option<Edit>) -> D) {
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |s: &&(&str, Way, &[&str], Edit)| s.2.contains(&D::NAME) && s.0.contains(&only);
    for (name, way, devices, edit) in SABOTEURS.iter().filter(wanted) {
        let row = rows().into_iter().find(|r| r.name == *name).unwrap();
        let gpu = Gpu::new(open(Some(*edit)));
        let what = format!("{}: the wrong kernel of `{name}`, {way:?}, known to {devices:?}", D::NAME);
        let mut touched = 0;
        let rejected = (0..*CASES).any(|seed| {
            let Some(gpu) = forced(&gpu, &row.case(seed), *way) else { return false };
            let changed = |text: String| edit(text.clone()) != text;
            if !gpu.texts(&row.case(seed).graph).unwrap().into_iter().any(changed) {
                return false;
            }
            touched += 1;
            let why = verdict(&row, seed, &gpu);
            // It must be found by its numbers.
            assert!(!why.as_ref().is_some_and(|w| w.contains("does not compile")), "{what}: {why:?}");
            why.is_some()
        });
        assert!(touched > 0, "{what}: no case has it");
        assert!(rejected, "{what}: passed {touched} cases");
    }
}

#[test]
fn wrong_kernels_are_rejected_on_wgpu() {
    sabotage(|edit| WgpuDevice::open(edit).unwrap());
}

#[test]
fn wrong_kernels_are_rejected_on_opencl() {
    sabotage(|edit| OpenClDevice::open(edit).unwrap());
}

#[test]
fn a_kernel_that_does_not_compile_is_an_error_and_not_a_crash() {
    let broken: Edit = |t| t.replace("= p_total", "= p_totals").replace("invocation >=", "invocation >>>");
    let case = rows().into_iter().find(|r| r.name == "Neg").unwrap().case(0);
    let wgpu = Gpu::new(WgpuDevice::open(Some(broken)).unwrap());
    let opencl = Gpu::new(OpenClDevice::open(Some(broken)).unwrap());
    let (wgpu, opencl): (&dyn Processor, &dyn Processor) = (&wgpu, &opencl);
    for processor in [wgpu, opencl] {
        let error = processor.prepare(&case.graph, &[]).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("failed on `Neg 0`"), "{error}");
        // A second attempt must not find a broken pipeline in the cache.
        assert!(processor.prepare(&case.graph, &[]).is_err());
    }
}

#[test]
fn both_processors_run_in_one_process_from_many_threads() {
    let names = ["conv", "matmul", "softmax"];
    let all = rows();
    let picked: Vec<&Row> = all.iter().filter(|r| names.contains(&r.name)).collect();
    std::thread::scope(|scope| {
        for processor in GPUS.iter() {
            for thread in 0..2 {
                let picked = &picked;
                scope.spawn(move || {
                    for seed in 0..20 {
                        let row = picked[(seed as usize + thread) % picked.len()];
                        assert_eq!(verdict(row, seed % *CASES, &**processor), None);
                    }
                });
            }
        }
    });
}
