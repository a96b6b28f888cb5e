//! Every operator on every GPU processor against onnxruntime, with random shapes and attributes and a stated bound each.
//! It refuses to trust itself: wrong kernels and wrong numbers must be rejected.

mod gpu_cases;

use cosched_executors::cpu;
use cosched_executors::gpu::device::{Device, Edit, Gpu};
use cosched_executors::gpu::opencl::OpenClDevice;
use cosched_executors::gpu::wgpu::WgpuDevice;
use cosched_executors::processor::{Options, Processor, TABLE};
use cosched_executors::tensor::{Data, Tensor};
use gpu_cases::{Case, Row, rows};
use std::collections::BTreeSet;
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

#[test]
fn every_operator_agrees_with_onnxruntime() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut wrong = Vec::new();
    for processor in GPUS.iter() {
        for row in rows().iter().filter(|r| r.name.contains(&only)) {
            let start = std::time::Instant::now();
            wrong.extend((0..*CASES).filter_map(|seed| verdict(row, seed, &**processor)));
            println!("{} on {}: {:.2} s", row.name, processor.name(), start.elapsed().as_secs_f64());
        }
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
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

/// Wrong kernels that read and write no place that the right one would not: name of the row, text, its replacement.
const SABOTEURS: &[(&str, Edit)] = &[
    // One row of padding too many.
    ("conv", |t| t.replace("- p_pad_h)", "- (p_pad_h + 1))")),
    // The last input channel is dropped.
    ("conv 1x1", |t| t.replace("< p_k;", "< (p_k - 1);")),
    // The dilation is forgotten.
    ("conv depthwise", |t| t.replace("* p_dilation_w)", "* 1)")),
    // The bias is forgotten.
    ("gemm", |t| t.replace("+ bias_1)", ")")),
    // The first element of each row is not looked at.
    ("softmax", |t| t.replace("= 0; j_2", "= 1; j_2")),
    // Elements of the padding are counted.
    ("average pool", |t| t.replace("count_1 + ", "1.0f + count_1 + ")),
    // The broadcast goes along the wrong axis.
    ("binary", |t| t.replace("* p_b_s3)", "* 0)")),
];

fn sabotage<D: Device>(open: impl Fn(Option<Edit>) -> D) {
    for (name, edit) in SABOTEURS {
        let row = rows().into_iter().find(|r| r.name == *name).unwrap();
        let processor = Gpu::new(open(Some(*edit)));
        let rejected = (0..*CASES).any(|seed| verdict(&row, seed, &processor).is_some());
        assert!(rejected, "{}: the wrong kernel of `{name}` passed", D::NAME);
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
