//! The slow, obvious twin of the emulated device: everything moves in small fixed steps. It refuses to share code with the fast one.

use super::trial::{Job, PROCESSORS, STEP_MS, STEP_NS, Trial};
use cosched_env::device::LinkPhase;
use cosched_env::emulator::FaultKind;

/// What is compared.
#[derive(Debug, Default)]
pub struct Results {
    /// Per job: end in steps, millijoules, whether it failed.
    pub jobs: Vec<(u64, f64, bool)>,
    /// Per processor: busy steps, busy and idle millijoules.
    pub meters: Vec<(u64, f64, f64)>,
    pub celsius: f64,
    /// Something hangs on a hair's breadth.
    pub close: bool,
}

/// One thing that a twin does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wrong {
    Nothing,
    NeverRetimed,
    NoBandwidth,
    BandwidthAdds,
    NoSteps,
    FullPower,
    IdleIsCold,
    LinkIsSlowed,
    LinkIsFree,
    FirstPhaseOnly,
    NothingIsLoaded,
    HangsGoOn,
    HangsAreNotNoticed,
    NothingSlows,
    CrowdsAddUp,
}

/// A launch of the twin that has been handed over and has not ended.
struct Going<'a> {
    index: usize,
    job: &'a Job,
    link_left_ns: f64,
    lost: bool,
    work_left_ns: f64,
    total_ns: f64,
    alone_ns: f64,
    gbps: f64,
    mj: f64,
    frozen: Option<f64>,
}

struct Twin<'a> {
    trial: &'a Trial,
    wrong: Wrong,
    going: Vec<Going<'a>>,
    steps: [usize; PROCESSORS],
    celsius: f64,
    results: Results,
}

impl<'a> Twin<'a> {
    /// Whether a fault of this kind lasts at a step; a noticed hang is a death from then on.
    fn lasts(&self, kind: FaultKind, p: usize, step: u64) -> bool {
        let at = |ms: f64| (ms / STEP_MS).round() as u64;
        self.trial.faults.iter().filter(|f| f.0 == p).any(|(_, f)| {
            let noticed = f.noticed_ms > 0.0 && self.wrong != Wrong::HangsAreNotNoticed;
            let from_ms = match (f.kind, kind) {
                (FaultKind::Die, FaultKind::Die) => f.from_ms,
                (FaultKind::Hang, FaultKind::Hang) if self.wrong != Wrong::HangsGoOn => f.from_ms,
                (FaultKind::Hang, FaultKind::Die) if noticed => f.from_ms + f.noticed_ms,
                _ => return false,
            };
            at(from_ms) <= step && step < at(f.to_ms)
        })
    }

    /// The share of its speed at which a processor works in a step.
    fn speed(&self, p: usize, step: u64) -> f64 {
        let at = |ms: f64| (ms / STEP_MS).round() as u64;
        let mut speed = 1.0;
        for (_, f) in self.trial.faults.iter().filter(|f| f.0 == p && f.1.kind == FaultKind::Slow) {
            if at(f.from_ms) <= step && step < at(f.to_ms) && self.wrong != Wrong::NothingSlows {
                speed *= f.speed;
            }
        }
        speed
    }

    fn begin(&self, index: usize, job: &'a Job) -> Going<'a> {
        let l = &job.launch;
        let variant = &self.trial.case.plan.variants[l.variant.0 as usize];
        let (segment, p) = (&variant.segments[0], l.processor.0 as usize);
        let spec = &self.trial.case.plan.processors[p];
        let model = &self.trial.models[p];
        let cost = segment.costs[p].expect("it runs everywhere");
        let alone_ns = cost.mean_us * 1e3;
        let mut bringing_ns = 0.0;
        if l.load_bytes > 0 && self.wrong != Wrong::NothingIsLoaded {
            bringing_ns += 10_000.0 + l.load_bytes as f64 / 5.0;
        }
        let (mut link_ns, mut lost, mut gbps) = (0.0, false, segment.traffic_bytes as f64 / alone_ns);
        if let Some(link) = &model.link {
            let begun = |p: &&LinkPhase| p.from_ms <= job.begins as f64 * STEP_MS;
            let phase = match self.wrong {
                Wrong::FirstPhaseOnly => &link.phases[0],
                _ => link.phases.iter().rfind(begun).expect("one begins at zero"),
            };
            lost = phase.loss == 1.0;
            let kilobits = (segment.input_bytes + segment.output_bytes) as f64 * 8.0 / 1e3;
            let crossing_ms = phase.round_trip_ms + kilobits / phase.mbps;
            link_ns = 1e6 * if lost { 2.0 * link.resend_ms } else { crossing_ms };
            gbps = 0.0;
        } else if l.inputs_on != Some(l.processor) {
            bringing_ns += spec.copy_us * 1e3;
        }
        let total_ns = alone_ns + bringing_ns;
        let work_left_ns = if lost { 0.0 } else { total_ns };
        let frozen = None;
        Going {
            index,
            job,
            link_left_ns: link_ns,
            lost,
            work_left_ns,
            total_ns,
            alone_ns,
            gbps,
            mj: 0.0,
            frozen,
        }
    }

    fn slowdown(&self, going: &Going<'_>) -> f64 {
        let p = going.job.launch.processor;
        let others = self.going.iter().map(|o| o.job.launch.processor).filter(|&o| o != p);
        let contention = &self.trial.case.plan.contention[p.0 as usize];
        let factors: Vec<f64> = others.map(|o| contention[o.0 as usize]).collect();
        let mut pairwise = 1.0 + factors.iter().map(|factor| factor - 1.0).sum::<f64>();
        if let Some(crowd) = self.trial.case.plan.processors[p.0 as usize].crowd.as_ref()
            && factors.len() > 1
            && self.wrong != Wrong::CrowdsAddUp
        {
            pairwise += crowd.added * (factors.len() - 1) as f64;
            pairwise = factors.iter().copied().fold(pairwise, f64::max);
        }
        let Some(curve) = &self.trial.case.device.bandwidth else { return pairwise };
        if going.gbps == 0.0 || self.wrong == Wrong::NoBandwidth {
            return pairwise;
        }
        let all: f64 = self.going.iter().map(|o| o.gbps).sum();
        let peak = self.trial.models[p.0 as usize].peak_gbps;
        let memory = if peak == 0.0 { 1.0 } else { (going.gbps / peak).min(1.0) };
        let stretch = (all / curve.achieved(all)) / (going.gbps / curve.achieved(going.gbps));
        let shared = memory * (stretch - 1.0).max(0.0);
        if self.wrong == Wrong::BandwidthAdds { pairwise + shared } else { pairwise * (1.0 + shared) }
    }

    fn end(&mut self, place: usize, step: u64, failed: bool) {
        let going = self.going.remove(place);
        self.results.jobs[going.index] = (step.max(going.job.begins), going.mj, failed || going.lost);
    }

    fn govern(&mut self) {
        let thermal = self.trial.thermal;
        let below = thermal.trip_c - thermal.hysteresis_c;
        self.results.close |= [thermal.trip_c, below].iter().any(|t| (t - self.celsius).abs() < 0.05);
        for (p, step) in self.steps.iter_mut().enumerate() {
            let last = self.trial.models[p].frequencies.len() - 1;
            if self.celsius > thermal.trip_c && self.wrong != Wrong::NoSteps {
                *step = (*step + 1).min(last);
            } else if self.celsius < below {
                *step = step.saturating_sub(1);
            }
        }
    }

    /// What happens at the beginning of a step.
    fn happen(&mut self, step: u64) {
        for (index, job) in self.trial.jobs.iter().enumerate().filter(|(_, j)| j.handed == step) {
            let going = self.begin(index, job);
            self.going.push(going);
        }
        for place in (0..self.going.len()).rev() {
            let p = self.going[place].job.launch.processor.0 as usize;
            if self.lasts(FaultKind::Die, p, step) {
                // One that would have ended a moment ago may have.
                let going = &self.going[place];
                self.results.close |= going.link_left_ns + going.work_left_ns < 20.0 * STEP_NS as f64;
                self.end(place, step, true);
            }
        }
        let poll = (self.trial.thermal.poll_ms / STEP_MS).round() as u64;
        if step > 0 && step.is_multiple_of(poll) {
            self.govern();
        }
    }

    /// A step passes.
    fn pass(&mut self, step: u64) {
        let mut watts = [0.0; PROCESSORS];
        let mut busy = [false; PROCESSORS];
        let mut ended = Vec::new();
        for place in 0..self.going.len() {
            if self.going[place].job.begins > step {
                continue;
            }
            let p = self.going[place].job.launch.processor.0 as usize;
            let spec = &self.trial.case.plan.processors[p];
            let frequency = self.trial.models[p].frequencies[self.steps[p]];
            let still = self.lasts(FaultKind::Hang, p, step);
            let speed = frequency.speed * self.speed(p, step);
            let mut slowdown = self.slowdown(&self.going[place]);
            let going = &mut self.going[place];
            if self.wrong == Wrong::NeverRetimed {
                slowdown = *going.frozen.get_or_insert(slowdown);
            }
            // Work at full speed in this step, and the share of the step in which segments are computed.
            let (mut work_ns, mut computing) = (0.0, 0.0);
            let on_link = going.link_left_ns > 0.0;
            if still {
            } else if on_link {
                let slowed = if self.wrong == Wrong::LinkIsSlowed { slowdown / speed } else { 1.0 };
                going.link_left_ns -= STEP_NS as f64 / slowed;
            } else {
                work_ns = STEP_NS as f64 * speed / slowdown;
                computing = going.alone_ns / going.total_ns / slowdown;
            }
            going.work_left_ns -= work_ns;
            let cost =
                self.trial.case.plan.variants[going.job.launch.variant.0 as usize].segments[0].costs[p];
            let computing_watts = cost.expect("it runs everywhere").energy_mj * 1e6 / going.alone_ns;
            let power = if self.wrong == Wrong::FullPower { 1.0 } else { frequency.power };
            let mut own = power * (computing * computing_watts + (1.0 - computing) * 0.5 * spec.active_watts);
            if on_link && self.wrong == Wrong::LinkIsFree {
                own = 0.0;
            }
            going.mj += own * STEP_MS;
            watts[p] += own;
            busy[p] = true;
            if going.link_left_ns <= 0.0 && going.work_left_ns <= 0.0 {
                ended.push(place);
            }
        }
        self.meter(&busy, &watts);
        for place in ended.into_iter().rev() {
            self.end(place, step + 1, false);
        }
    }

    fn meter(&mut self, busy: &[bool], watts: &[f64]) {
        let thermal = self.trial.thermal;
        let mut total = thermal.base_watts;
        for (p, meter) in self.results.meters.iter_mut().enumerate() {
            let idle_watts = self.trial.case.plan.processors[p].idle_watts;
            meter.0 += u64::from(busy[p]);
            meter.1 += watts[p] * STEP_MS;
            total += watts[p];
            if !busy[p] {
                meter.2 += idle_watts * STEP_MS;
                total += if self.wrong == Wrong::IdleIsCold { 0.0 } else { idle_watts };
            }
        }
        let settles_at = thermal.ambient_c + total * thermal.kelvin_per_watt;
        self.celsius += (settles_at - self.celsius) * STEP_MS / 1e3 / thermal.time_constant_s;
    }
}

/// What the twin says of the first so many steps; what has not ended then never ends.
pub fn twin(trial: &Trial, until: u64, wrong: Wrong) -> Results {
    let jobs = vec![(u64::MAX / 2, 0.0, false); trial.jobs.len()];
    let results = Results { jobs, meters: vec![(0, 0.0, 0.0); PROCESSORS], ..Results::default() };
    let celsius = trial.thermal.ambient_c;
    let mut twin = Twin { trial, wrong, going: Vec::new(), steps: [0; PROCESSORS], celsius, results };
    for step in 0..until {
        twin.happen(step);
        twin.pass(step);
    }
    Results { celsius: twin.celsius, ..twin.results }
}
