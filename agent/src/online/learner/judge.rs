//! What weights are worth on the device as it is now: their margin, whether they may act on, and whether new ones may act at all.
//! It refuses to act on it: the guard orders, and the learner obeys.

use super::Learner;
use super::shadow::{horizon, mean, run, seeded};
use crate::experience::Experience;
use crate::network::{Weights, highest};
use crate::online::guard::{Acting, Shadow};
use crate::online::off_policy::OffPolicy;
use std::sync::Arc;

impl Learner {
    /// The margin with which the last good weights are best on the device as it is now; of equals the largest.
    pub(super) fn find_margin(&mut self) {
        let good = self.good.clone();
        let margins = self.settings.margins.clone();
        let ways: Vec<_> = margins.iter().map(|&margin| (&good, margin)).collect();
        let scores: Vec<f64> = self.play(&ways).iter().map(|s| mean(s)).collect();
        self.margin = margins.get(highest(&scores)).copied().unwrap_or(0.0);
    }

    /// Scores of each of these weights and margins on the same new seeds of the device as it is now.
    fn play(&mut self, all: &[(&Weights, f32)]) -> Vec<Vec<f64>> {
        let real = Arc::new(seeded(&self.subject, &self.profile, &self.traffic, self.now));
        let horizon = horizon(&real, self.settings.shadow_requests);
        let seeds = self.next_seed..self.next_seed + self.settings.shadow_runs;
        self.next_seed = seeds.end;
        let score = |&(weights, margin): &(&Weights, f32)| {
            seeds
                .clone()
                .map(|seed| run(&self.subject, &real, self.brain(weights, margin), seed, horizon))
                .collect()
        };
        all.iter().map(score).collect()
    }

    /// Looks how the weights do on the device as it is now, and lets the guard judge.
    pub(super) fn check(&mut self) {
        let (good, latest) = (self.good.clone(), self.latest.clone());
        let on_trial = self.guard.acting() == Acting::Trial;
        let mut all = vec![(&good, self.margin), (&good, f32::INFINITY)];
        if on_trial {
            all.push((&latest, self.margin));
        }
        let scores: Vec<f64> = self.play(&all).iter().map(|s| mean(s)).collect();
        let trial = scores.get(2).copied().unwrap_or(scores[0]);
        let gain = self.off_policy.gain();
        self.shadow = Shadow { good: scores[0], baseline: scores[1], trial, gain, ..self.shadow };
        let order = self.guard.check(self.now, &self.shadow);
        self.obey(order);
    }

    /// Forgets what was seen while other weights acted.
    pub(super) fn begin_anew(&mut self) {
        self.lesson = Experience::new();
        self.contrast.clear();
        self.ended_priority = 0.0;
        self.off_policy = OffPolicy::default();
    }

    /// Learns from what was seen; new weights go on trial where that may do good.
    pub(super) fn learn(&mut self) {
        self.lesson.cut();
        let lesson = std::mem::replace(&mut self.lesson, Experience::new());
        self.off_policy.note(&lesson, &self.contrast, self.ended_priority, self.units.reward);
        self.contrast.clear();
        self.ended_priority = 0.0;
        // One trial at a time: what it will show is not known yet.
        if self.guard.acting() == Acting::Trial {
            return;
        }
        self.trainer.set(&self.good);
        let new = self.trainer.learn(lesson);
        self.lessons += 1;
        if new == self.good {
            return;
        }
        // Where the guide alone decides, a comparison at its margin would say nothing of the weights.
        let heard = self.guard.acting() == Acting::Good && self.margin < f32::INFINITY;
        let least = self.settings.margins.iter().copied().fold(f32::INFINITY, f32::min);
        let margin = if heard { self.margin } else { least };
        let good = self.good.clone();
        let scores = self.play(&[(&new, margin), (&good, margin), (&good, f32::INFINITY)]);
        let bar = if heard { &scores[2][..] } else { &[f64::NEG_INFINITY] };
        let admitted = self.guard.admit(&scores[0], &scores[1], bar);
        match admitted {
            Err(why) if self.settings.admission => {
                tracing::debug!("online: new weights are not published: {why}");
            }
            _ if heard => {
                self.latest = new;
                self.guard.publish(self.now);
                self.begin_anew();
                self.send();
            }
            // They wait for the next margin or the learned policy's next chance.
            _ => self.good = new,
        }
    }
}
