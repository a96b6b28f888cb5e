//! What both GPU processors share: the way from preparing a segment to a device. It refuses to know any driver.

use super::course::{self, Course};
use super::door::{Door, Opened};
use super::kernel::Spec;
use super::kernel::print::{Dialect, Kept, print};
use super::lower::choice::Met;
use super::lower::{self, Plan, Span, Target};
use super::tune;
use super::working::{Made, Origin, Ready, Shared};
use crate::energy::Supply;
use crate::graph::{Graph, Node};
use crate::held::{Meter, Traffic};
use crate::measure::cpu_ms;
use crate::processor::{ExecError, Prepared, Processor};
use crate::stop::Stop;
use crate::tensor::Tensor;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// What a device can do wrong.
#[derive(Debug)]
pub enum Fault {
    /// This segment or this run failed.
    Failed(String),
    /// The device is gone.
    Died(String),
    /// Nobody wants the answer any more.
    Stopped,
}

/// Changes the text of a kernel before it is compiled. Only tests have a use for it: they must reject a wrong kernel.
pub type Edit = fn(String) -> String;

/// What goes into an input's place.
pub enum Feed<'a, B> {
    /// From the host.
    Host(&'a [f32]),
    /// From another place of the device.
    There(&'a B),
}

/// Where an output goes, which is as long as its span.
pub enum Place<B> {
    /// Into this memory on the host.
    Home(Vec<f32>),
    /// Into a buffer of its own on the device.
    There(B),
}

/// An output of a run: its place in the arena, and where it goes.
pub type Output<B> = (Span, Place<B>);

/// One kernel interface.
pub trait Device: Send + Sync + 'static {
    /// Row of the processor table.
    const NAME: &'static str;
    /// A plan with its kernels compiled and its weights uploaded.
    type Segment: Send + Sync + 'static;
    /// Working memory for one run at a time.
    type Memory: Send + 'static;
    /// A tensor that outlives a run.
    type Buffer: Send + Sync + 'static;

    /// Opens the same device once more, after this one was lost.
    ///
    /// # Errors
    /// [`ExecError::Absent`] when it is not there.
    fn reopen(&self) -> Result<Self, ExecError>
    where
        Self: Sized;
    /// Does to itself what a driver does that gives it up; `false`: it has no way to. For tests.
    fn lose(&self) -> bool {
        false
    }
    /// Device, driver and library versions.
    fn describe(&self) -> String;
    /// What feeds it.
    fn supply(&self) -> Supply;
    /// What the lowering must know.
    fn target(&self) -> &Target;
    /// The language of its kernels.
    fn dialect(&self) -> &'static dyn Dialect;
    /// Whether it computes on the CPU: then CPU time says more than wall time.
    fn software(&self) -> bool;
    /// Compiles and uploads.
    fn prepare(&self, plan: &Plan) -> Result<Self::Segment, Fault>;
    /// Working memory, with an arena of its `own` or the common one.
    fn spawn(&self, segment: &Self::Segment, own: bool) -> Result<Self::Memory, Fault>;
    /// Brings `inputs` to their places, runs the steps in the portions that `course` gives, and brings `outputs` where they go. It waits
    /// for all of that if any output goes to the host; else it may still be at work when it returns, and whatever is run or read on this
    /// device later comes after it. No more is at work than a [`Line`](super::course::Line) lets out. A run that is stopped ends when what
    /// went out has ended. Allocates nothing but what the driver allocates for a submission.
    fn run(
        &self,
        segment: &Self::Segment,
        memory: &mut Self::Memory,
        inputs: &mut dyn Iterator<Item = (Span, Feed<'_, Self::Buffer>)>,
        outputs: &mut [Output<Self::Buffer>],
        course: &mut Course<'_>,
    ) -> Result<(), Fault>;
    /// Waits until nothing is at work.
    fn finish(&self) -> Result<(), Fault>;
    /// A buffer for so many floats.
    fn buffer(&self, floats: usize) -> Result<Self::Buffer, Fault>;
    /// Reads a buffer that holds `to.len()` floats; no run uses it.
    fn read(&self, buffer: &Self::Buffer, to: &mut [f32]) -> Result<(), Fault>;
    /// Submits step `step` so many times in one go and waits.
    fn repeat(
        &self,
        segment: &Self::Segment,
        memory: &mut Self::Memory,
        step: usize,
        times: usize,
    ) -> Result<(), Fault>;
}

/// Seconds of one step by itself: the least of some tries, each long enough that submitting does not count.
pub fn time_step<D: Device>(
    device: &D,
    segment: &D::Segment,
    memory: &mut D::Memory,
    step: usize,
) -> Result<f64, Fault> {
    let mut once = |times: usize| {
        let (start, cpu) = (Instant::now(), cpu_ms());
        device.repeat(segment, memory, step, times)?;
        let spent = (cpu_ms() - cpu) / 1e3;
        Ok(if device.software() && spent > 0.0 { spent } else { start.elapsed().as_secs_f64() })
    };
    once(1)?;
    let (one, few) = (once(1)?, once(4)?);
    let each = ((few - one) / 3.0).max(1e-6);
    let times = (TRY / each).clamp(2.0, 200.0) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        best = best.min((once(times + 1)? - one.min(once(1)?)) / times as f64);
    }
    Ok(best.max(0.0))
}

/// Seconds that a try of one step aims at.
const TRY: f64 = 4e-3;

/// What one compiled kernel serves.
pub type Key = (Spec, Kept);

/// The text of a kernel in `dialect`, with the edit of a test if there is one.
pub fn text((spec, kept): &Key, dialect: &dyn Dialect, edit: Option<Edit>) -> String {
    let text = print(&spec.build(), dialect, *kept);
    match edit {
        Some(edit) => edit(text),
        None => text,
    }
}

/// The version of the kernels, for [`Device::describe`].
pub const KERNELS: &str = concat!("kernels of cosched ", env!("CARGO_PKG_VERSION"));

/// What PCI calls NVIDIA.
pub const NVIDIA: u32 = 0x10de;

/// A GPU processor.
pub struct Gpu<D: Device> {
    inside: Arc<Inside<D>>,
    tune: bool,
}

/// What a processor and the segments that are prepared on it share.
pub(super) struct Inside<D: Device> {
    door: Door<D>,
    /// What the lowering must know, with the choices that were measured.
    target: RwLock<Target>,
    meter: Arc<Meter>,
}

impl<D: Device> Gpu<D> {
    /// A processor on an open device, without measured choices.
    pub fn new(device: D) -> Self {
        let target = device.target().clone();
        Self::of(Door::new(device), target, false, Arc::default())
    }

    /// As [`Gpu::new`], with what was measured on this device before; where `tune` is true, what is missing is measured when it is met.
    pub fn tuned(device: D, tune: bool) -> Self {
        let tuned = Arc::new(tune::known(D::NAME, &device.describe()));
        let target = Target { tuned, ..device.target().clone() };
        Self::of(Door::new(device), target, tune, Arc::default())
    }

    /// The same device with no measured choices and another target: for tests of each choice and of small limits.
    pub fn with(&self, change: impl FnOnce(&mut Target)) -> Self {
        let mut target = self.inside.door.last().target().clone();
        change(&mut target);
        Self::of(self.inside.door.twin(), target, false, self.inside.meter.clone())
    }

    fn of(door: Door<D>, target: Target, tune: bool, meter: Arc<Meter>) -> Self {
        Self { inside: Arc::new(Inside { door, target: RwLock::new(target), meter }), tune }
    }

    /// The problems of `segment` that can be solved in several ways.
    ///
    /// # Errors
    /// The reason why it cannot be lowered.
    pub fn problems(&self, segment: &Graph) -> Result<Vec<Met>, String> {
        lower::lower(segment, &self.inside.target())
            .map(|plan| plan.met)
            .map_err(|(node, _, why)| format!("{node}: {why}"))
    }

    /// The texts of the kernels of `segment`, before the edit of a test.
    ///
    /// # Errors
    /// The reason why it cannot be lowered.
    pub fn texts(&self, segment: &Graph) -> Result<Vec<String>, String> {
        let plan = lower::lower(segment, &self.inside.target())
            .map_err(|(node, _, why)| format!("{node}: {why}"))?;
        let device = self.inside.door.last();
        Ok(plan.steps.iter().map(|s| text(&(s.spec, s.kept), device.dialect(), None)).collect())
    }

    /// Does to the device what a driver does that gives it up, or at least what comes of that; for tests.
    pub fn lose(&self) {
        self.inside.door.last().lose();
    }

    /// Measures what is not known yet of the problems of `segment`, and writes it down.
    fn measure(&self, segment: &Graph) -> Result<(), ExecError> {
        let inside = &*self.inside;
        let (mut target, device) = (inside.target(), inside.door.device()?);
        let plan = inside.lowered(segment)?;
        let heard = &mut |problem: &str| tracing::info!("{}: measuring {problem}", D::NAME);
        let fresh = tune::tune(&**device, segment, &target, &plan.met, heard);
        let fresh = fresh.map_err(|f| device.failed(&segment.name, f))?;
        if fresh.is_empty() {
            return Ok(());
        }
        let device = device.describe();
        if let Some(folder) = tune::folder()
            && let Err(problem) = tune::write(&tune::file(&folder, D::NAME, &device), &device, &fresh)
        {
            tracing::warn!("{problem}");
        }
        Arc::make_mut(&mut target.tuned).extend(fresh);
        *inside.target.write().unwrap_or_else(PoisonError::into_inner) = target;
        Ok(())
    }
}

impl<D: Device> Inside<D> {
    fn target(&self) -> Target {
        self.target.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lowered(&self, segment: &Graph) -> Result<Plan, ExecError> {
        lower::lower(segment, &self.target()).map_err(|(node, op, reason)| ExecError::Unsupported {
            processor: D::NAME.to_string(),
            node,
            op,
            reason,
        })
    }

    /// Compiles and uploads `segment` to a device that is there, and runs it.
    ///
    /// # Errors
    /// When it cannot be lowered, or the device fails.
    pub(super) fn make(&self, segment: &Graph) -> Result<Made<D>, ExecError> {
        let (plan, device) = (self.lowered(segment)?, self.door.device()?);
        let ready = device.prepare(&plan).map_err(|f| device.failed(&segment.name, f))?;
        let work = course::work(&plan.steps);
        let first = first_runs(&*device, &ready, &work);
        let (first, spent) = first.map_err(|f| device.failed(&segment.name, f))?;
        let values =
            |ids: &[crate::graph::ValueId]| ids.iter().map(|id| segment.value(*id).clone()).collect();
        let outputs = segment.outputs.iter().map(|&id| segment.value(id).bytes()).sum::<usize>();
        let shared = Arc::new(Shared {
            device,
            meter: self.meter.clone(),
            segment: ready,
            graph: segment.name.clone(),
            inputs: values(&segment.inputs),
            outputs: values(&segment.outputs),
            bytes: plan.bytes() + outputs * plan.storage.bytes() / 4,
            storage: plan.storage,
            places: plan.inputs,
            sources: plan.outputs,
            work,
            spent,
            steps: plan.steps.into_iter().map(|s| (s.node, s.spec, s.flops)).collect(),
        });
        Ok(Made { shared, first: Some(first) })
    }
}

/// Runs a segment on whatever is in memory: drivers compile at the first launch, which is paid for now, and the second one tells
/// what a run takes. No kernel takes an index from the arena, so that the contents do not matter.
fn first_runs<D: Device>(
    device: &Opened<D>,
    segment: &D::Segment,
    work: &[u64],
) -> Result<(D::Memory, Duration), Fault> {
    let (mut memory, stop) = (device.spawn(segment, false)?, Stop::default());
    let mut once = || {
        let mut course = Course::new(work, Duration::ZERO, &stop);
        let begun = Instant::now();
        device.run(segment, &mut memory, &mut std::iter::empty(), &mut [], &mut course)?;
        device.finish()?;
        Ok(begun.elapsed())
    };
    once()?;
    let spent = once()?;
    Ok((memory, spent))
}

impl<D: Device> Processor for Gpu<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn device(&self) -> String {
        self.inside.door.last().describe()
    }

    fn supply(&self) -> Supply {
        self.inside.door.last().supply()
    }

    fn traffic(&self) -> Traffic {
        self.inside.meter.read()
    }

    fn supports(&self, graph: &Graph, node: &Node) -> Result<(), String> {
        lower::supports(graph, node, &self.inside.target())
    }

    fn prepare(&self, segment: &Graph, _samples: &[Vec<Tensor>]) -> Result<Arc<dyn Prepared>, ExecError> {
        if self.tune {
            self.measure(segment)?;
        }
        let made = Mutex::new(self.inside.make(segment)?);
        let (inside, graph) = (self.inside.clone(), segment.clone());
        Ok(Arc::new(Ready(Arc::new(Origin { inside, graph, made }))))
    }
}
