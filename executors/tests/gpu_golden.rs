//! Golden text of a handful of generated kernels in both dialects, and naga's verdict on every WGSL kernel of the operator suite.
//! It needs no GPU. It refuses kernels whose loops have no static bound.

mod gpu_cases;

use cosched_executors::gpu::kernel::Spec;
use cosched_executors::gpu::kernel::elementwise::{AcrossRows, Binary, Side};
use cosched_executors::gpu::kernel::ir::Buf;
use cosched_executors::gpu::kernel::pool::PoolStrip;
use cosched_executors::gpu::kernel::print::{Kept, OpenClC, Wgsl, print};
use cosched_executors::gpu::kernel::reduce::Reduction;
use cosched_executors::gpu::kernel::strip::Strip;
use cosched_executors::gpu::kernel::tile::{Tile, Walk, Weights};
use cosched_executors::gpu::kernel::unary::Unary;
use cosched_executors::gpu::kernel::window::Pool;
use cosched_executors::gpu::lower::{MAX_LOOPS, Target, lower, supports};
use cosched_executors::gpu::{opencl, wgpu};
use cosched_executors::processor::Storage;
use cosched_executors::tensor::DType;
use gpu_cases::Case;
use std::collections::HashMap;

fn validate(wgsl: &str) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| e.emit_to_string(wgsl))?;
    let (flags, can) = (naga::valid::ValidationFlags::all(), naga::valid::Capabilities::SUBGROUP);
    naga::valid::Validator::new(flags, can).validate(&module).map(|_| ()).map_err(|e| format!("{e:?}"))
}

fn conv(target: &Target) -> Spec {
    Spec::Tile(Tile {
        width: target.width,
        chunks: 2,
        pixels: 2,
        walk: Walk::Window,
        weights: Weights::Packed,
        x: Buf::Arena,
        x_packed: false,
        bias_m: false,
        rows: false,
        residual: false,
        share: 0,
        single: false,
        spread: !target.rows,
        act: Unary::Clip,
    })
}

/// The tile of a 1x1 convolution where vectors run along positions, with a tensor that is added.
fn pointwise(target: &Target) -> Spec {
    Spec::Tile(Tile {
        width: target.width,
        chunks: 1,
        pixels: 3,
        walk: Walk::Linear,
        weights: Weights::Rows(Buf::Arena),
        x: Buf::Weights,
        x_packed: true,
        bias_m: true,
        rows: true,
        residual: true,
        share: 0,
        single: false,
        spread: false,
        act: Unary::Clip,
    })
}

/// The tile whose weights a subgroup of eight loads together.
fn shared() -> Spec {
    Spec::Tile(Tile {
        width: 4,
        chunks: 2,
        pixels: 2,
        walk: Walk::Linear,
        weights: Weights::Packed,
        x: Buf::Arena,
        x_packed: false,
        bias_m: false,
        rows: false,
        residual: false,
        share: 8,
        single: false,
        spread: true,
        act: Unary::Clip,
    })
}

fn depthwise(width: u32) -> Spec {
    let across = if width == 1 { 2 } else { 1 };
    let kernel = [3, 3];
    let act = Unary::Clip;
    let (single, narrow) = (width > 1, false);
    let strip =
        Strip { width, across, rows: 2, outs: 1, kernel, stride: 2, single, narrow, residual: false, act };
    Spec::Strip(strip)
}

/// All of a depthwise plane that is narrower than the vector.
fn narrow() -> Spec {
    let (kernel, act) = ([3, 3], Unary::Clip);
    let (single, narrow, residual) = (true, true, true);
    Spec::Strip(Strip {
        width: 8,
        across: 1,
        rows: 2,
        outs: 1,
        kernel,
        stride: 1,
        single,
        narrow,
        residual,
        act,
    })
}

fn pool_strip(width: u32) -> Spec {
    let (kind, kernel, stride) = (Pool::Average, [3, 3], [2, 2]);
    Spec::PoolStrip(PoolStrip { kind, width, across: 1, rows: 2, kernel, stride, edges: true })
}

/// A tensor times one number a row.
fn across_rows(width: u32) -> Spec {
    let a = Side { buf: Buf::Arena, along: true };
    let b = Some((Binary::Mul, Side { along: false, ..a }));
    Spec::AcrossRows(AcrossRows { a, b, rank: 4, width, chunks: 2, then: Unary::Silu })
}

#[test]
fn generated_kernels_are_the_committed_ones() {
    let specs = |target: &Target| {
        [
            ("conv", conv(target)),
            ("gelu", Spec::Unary(Unary::Gelu)),
            ("broadcast", Spec::Broadcast(Binary::Add, Buf::Arena, Buf::Weights, 4, Unary::Identity)),
            ("softmax", Spec::Softmax(false, if target.rows { 16 } else { 1 })),
            ("mean", Spec::Reduce(Reduction::Sum, if target.rows { 16 } else { 1 })),
            ("max_pool", Spec::Pool(Pool::Max)),
            ("layer_norm", Spec::LayerNorm(if target.rows { 16 } else { 1 })),
            ("across_rows", across_rows(if target.rows { 16 } else { 1 })),
            ("lrn", Spec::Lrn),
            ("pointwise", pointwise(target)),
            ("depthwise", depthwise(if target.rows { 16 } else { 1 })),
            ("pool_strip", pool_strip(if target.rows { 16 } else { 1 })),
            ("copy_rows", Spec::CopyRows(Buf::Arena, 4, if target.rows { 16 } else { 1 }, 2)),
            ("copy_lines", Spec::CopyLines(Buf::Arena, 4, 2, !target.rows)),
            ("winograd_input", Spec::WinogradInput(2, if target.rows { 4 } else { 1 })),
            ("winograd_output", Spec::WinogradOutput(2, if target.rows { 4 } else { 1 }, true, Unary::Clip)),
        ]
    };
    for (name, spec) in specs(&wgpu::target()) {
        let text = print(&spec.build(), &Wgsl, Kept::default());
        assert_eq!(validate(&text), Ok(()), "{name}");
        insta::assert_snapshot!(format!("{name}.wgsl"), text);
    }
    let text = print(&shared().build(), &Wgsl, Kept::default());
    assert_eq!(validate(&text), Ok(()));
    insta::assert_snapshot!("shared.wgsl", text);
    let narrow = print(&narrow().build(), &OpenClC, Kept::default());
    insta::assert_snapshot!("narrow.cl", narrow);
    for (name, spec) in specs(&opencl::target(true)) {
        insta::assert_snapshot!(format!("{name}.cl"), print(&spec.build(), &OpenClC, Kept::default()));
    }
    let halves = Kept { arena: Storage::F16, weights: Storage::F16 };
    insta::assert_snapshot!("halves.cl", print(&across_rows(16).build(), &OpenClC, halves));
}

#[test]
fn naga_accepts_every_wgsl_kernel_of_the_operator_suite() {
    let mut known: HashMap<Spec, String> = HashMap::new();
    for row in gpu_cases::rows() {
        for seed in 0..12 {
            let case = row.case(seed);
            // As for a GPU, and as for a software device whose subgroups are eight invocations.
            let steps = [0, 8].map(|share| {
                lower(&case.graph, &Target { share, ..wgpu::target() })
                    .unwrap_or_else(|e| panic!("`{}` seed {seed}: {e:?}", row.name))
                    .steps
            });
            for step in steps.into_iter().flatten() {
                assert!(step.loops <= MAX_LOOPS, "{step:?}");
                let text = known
                    .entry(step.spec)
                    .or_insert_with(|| print(&step.spec.build(), &Wgsl, Kept::default()));
                if let Err(why) = validate(text) {
                    panic!("`{}` seed {seed}: {:?}: {why}\n{text}", row.name, step.spec);
                }
            }
        }
    }
    println!("{} kernels", known.len());
    assert!(known.len() > 60, "only {} kernels", known.len());
}

#[test]
fn naga_rejects_a_wrong_kernel() {
    let text = print(&conv(&wgpu::target()).build(), &Wgsl, Kept::default());
    assert_eq!(validate(&text), Ok(()));
    assert!(validate(&text.replace("p_ic;", "p_channels;")).is_err());
    assert!(
        validate(&text.replacen("f32 = 0.0f", "f32 = 0u", 1)).is_err()
            || validate(&text.replacen("vec4<f32>(0.0f)", "0u", 1)).is_err()
    );
}

#[test]
fn a_loop_that_software_vulkan_would_cut_short_is_refused() {
    let row = gpu_cases::rows().into_iter().find(|r| r.name == "softmax").unwrap();
    let mut case = row.case(0);
    case.graph.opset = 13;
    for v in &mut case.graph.values {
        v.shape = vec![40_000];
    }
    case.graph.nodes[0].attrs.clear();
    let (_, _, why) = lower(&case.graph, &wgpu::target()).unwrap_err();
    assert!(why.contains("would loop") && why.contains("65534"), "{why}");
}

#[test]
fn what_cannot_run_is_refused_with_its_reason() {
    let reason = |change: fn(&mut Case)| {
        let row = gpu_cases::rows().into_iter().find(|r| r.name == "Neg").unwrap();
        let mut case = row.case(0);
        change(&mut case);
        supports(&case.graph, &case.graph.nodes[0], &wgpu::target()).err().unwrap_or_default()
    };
    assert_eq!(reason(|_| {}), "");
    let large = reason(|c| c.graph.values.iter_mut().for_each(|v| v.shape = vec![30 << 20]));
    assert!(large.contains("more than the 134217728 of one binding"), "{large}");
    let typed = reason(|c| c.graph.values[0].dtype = DType::I64);
    assert!(typed.contains("`v0` is i64, and GPU kernels compute f32 only"), "{typed}");
    let unknown = reason(|c| c.graph.nodes[0].op = "NonZero".into());
    assert_eq!(unknown, "no GPU kernel for operator NonZero");
    let foreign = reason(|c| c.graph.nodes[0].domain = "com.example".into());
    assert_eq!(foreign, "no GPU kernel for operator com.example.Neg");
    let dynamic = reason(|c| {
        c.graph.nodes[0].op = "Reshape".into();
        c.graph.values[1].shape = vec![1];
    });
    assert!(dynamic.contains("does not view"), "{dynamic}");
}
