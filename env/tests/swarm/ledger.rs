//! A log sorted by request and by launch, for the rules. It refuses a log in which something is about nobody.

use crate::common::Item;
use cosched_env::event::{Completion, Ended, Event, Launch, Request};
use cosched_env::time::Time;
use std::collections::BTreeMap;

macro_rules! ensure {
    ($holds:expr, $($why:tt)*) => {{
        let holds: bool = $holds;
        if !holds {
            return Err(format!($($why)*));
        }
    }};
}
pub(crate) use ensure;

/// A launch.
pub struct Ran {
    pub launch: Launch,
    /// When its end was heard of, and what was heard.
    pub end: Option<(Time, Completion)>,
}

/// A request.
pub struct Told {
    pub request: Request,
    /// In order.
    pub launches: Vec<u64>,
    pub ends: Vec<Ended>,
}

pub struct Ledger {
    pub requests: BTreeMap<u64, Told>,
    pub launches: BTreeMap<u64, Ran>,
}

impl Ledger {
    pub fn of(log: &[Item]) -> Result<Ledger, String> {
        let mut ledger = Ledger { requests: BTreeMap::new(), launches: BTreeMap::new() };
        for item in log {
            ledger.enter(item).map_err(|why| format!("{item:?}: {why}"))?;
        }
        Ok(ledger)
    }

    fn enter(&mut self, item: &Item) -> Result<(), String> {
        match item {
            Item::Event(_, Event::Arrived(r)) => {
                let told = Told { request: r.clone(), launches: Vec::new(), ends: Vec::new() };
                ensure!(self.requests.insert(r.id.0, told).is_none(), "the number was used before");
            }
            Item::Launched(_, launch) => {
                let told = self.requests.get_mut(&launch.request.0).ok_or("no such request")?;
                ensure!(told.ends.is_empty(), "its request has ended");
                told.launches.push(launch.id.0);
                let ran = Ran { launch: *launch, end: None };
                ensure!(self.launches.insert(launch.id.0, ran).is_none(), "the number was used before");
            }
            Item::Event(now, Event::Completed(c)) => {
                let ran = self.launches.get_mut(&c.launch.0).ok_or("no such launch")?;
                ensure!(ran.end.is_none(), "it completed before");
                ran.end = Some((*now, c.clone()));
            }
            Item::Ended(ended) => {
                let told = self.requests.get_mut(&ended.request.id.0).ok_or("it never arrived")?;
                told.ends.push(ended.clone());
            }
            _ => {}
        }
        Ok(())
    }

    /// The completions of a request's launches, in order; an error when one is missing.
    pub fn completions<'a>(
        &'a self,
        told: &'a Told,
    ) -> impl Iterator<Item = Result<(&'a Launch, &'a Completion), String>> {
        told.launches.iter().map(|id| {
            let ran = &self.launches[id];
            let end = ran.end.as_ref().ok_or_else(|| format!("launch {id} never completed"))?;
            Ok((&ran.launch, &end.1))
        })
    }
}
