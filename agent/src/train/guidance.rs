//! Whom a network hears while it learns, and whom it imitates. It refuses to know which policies there are.

use crate::guide::{Scout, alone};
use cosched_env::case::Case;
use cosched_env::world::Policy;

/// Makes the teacher for a case.
pub type Teacher = dyn Fn(&Case) -> Box<dyn Policy> + Sync;

/// Who chooses while experience is collected.
#[derive(Clone, Copy)]
pub enum Lead<'a> {
    /// The network.
    Network,
    /// The first guide of each case (the network where there is none).
    Guide,
    /// A policy.
    Teacher(&'a Teacher),
}

/// Whom the network hears and whom it imitates.
#[derive(Clone, Copy)]
pub struct Guidance<'a> {
    /// Finds the guides of each case.
    pub scout: &'a Scout,
    /// Imitated first.
    pub lead: Lead<'a>,
}

impl Guidance<'static> {
    /// Neither guides nor imitation.
    pub const NONE: Guidance<'static> = Guidance { scout: &alone, lead: Lead::Network };
}

impl<'a> Guidance<'a> {
    /// No guides; a policy is imitated.
    pub fn taught(teacher: &'a Teacher) -> Guidance<'a> {
        Guidance { scout: &alone, lead: Lead::Teacher(teacher) }
    }

    pub(super) fn teacher(&self, case: &Case) -> Option<Box<dyn Policy>> {
        match self.lead {
            Lead::Teacher(make) => Some(make(case)),
            Lead::Network | Lead::Guide => None,
        }
    }
}
