//! MinMaxCost of NestDNN (Fang, Zeng and Zhang, MobiCom 2018): compute is handed out to the stream with the highest cost, so that the
//! highest cost is least; a stream is served in the variant that its share then makes cheapest. Requests go in order of
//! deadline to the processor with the earliest answer. See `shares.rs` for the cost. It refuses to look at energy.

use crate::shares::{Goal, NestDnn};
use crate::{Make, PolicyError, Row, no_parameter};
use cosched_env::case::Case;
use cosched_env::world::Policy;

pub(crate) const ROW: Row = Row {
    name: "min-max-cost",
    about: "a variant for each stream by the least highest cost of accuracy and lateness (NestDNN), then earliest deadline first",
    make: Make::For(make),
    searches: false,
};

fn make(parameter: Option<&str>, case: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    no_parameter(ROW.name, parameter)?;
    Ok(Box::new(NestDnn::new(Goal::Max, case)))
}
