//! Who learns online in an adaptation, and trainers that teach nothing or something wrong: to show what the weights add to the profile, and
//! what the guard is for. It refuses to train; real trainers are given.

use cosched_agent::experience::Experience;
use cosched_agent::network::Weights;
use cosched_agent::online::Trainer;
use cosched_agent::online::learner::Settings;

/// Makes the trainer of a run.
pub type MakeTrainer<'a> = Box<dyn Fn() -> Result<Box<dyn Trainer>, String> + 'a>;

/// One that learns online.
pub struct Pupil<'a> {
    /// Its name in the table.
    pub name: &'a str,
    /// How it learns; each run explores by its own seed.
    pub settings: Settings,
    /// What it learns from.
    pub trainer: MakeTrainer<'a>,
}

/// A trainer that spoils one lesson: its weights come out negated.
pub struct Spoiled {
    /// Who really trains.
    pub trainer: Box<dyn Trainer>,
    /// Lessons until the spoiled one; 1: the first is spoiled, 0: none any more.
    pub left: u32,
}

impl Trainer for Spoiled {
    fn set(&mut self, weights: &Weights) {
        self.trainer.set(weights);
    }

    fn learn(&mut self, lesson: Experience) -> Weights {
        let learned = self.trainer.learn(lesson);
        let spoils = self.left == 1;
        self.left = self.left.saturating_sub(1);
        if spoils { negated(&learned) } else { learned }
    }
}

/// The same network with its last layer's signs turned round: what was best is worst.
pub fn negated(weights: &Weights) -> Weights {
    let mut weights = weights.clone();
    let logit = &mut weights.logit;
    logit.weight.iter_mut().chain(&mut logit.bias).for_each(|w| *w = -*w);
    weights
}

/// A trainer that has nothing to teach: the weights stay. What adapts then are the profile, the guides and the margin.
pub struct Still(pub Weights);

impl Trainer for Still {
    fn set(&mut self, weights: &Weights) {
        self.0 = weights.clone();
    }

    fn learn(&mut self, _: Experience) -> Weights {
        self.0.clone()
    }
}
