//! The report of a sweep: one self-contained page with tables, figures and timelines, and its pictures as SVG and PNG.
//! It refuses outside resources, and to show a number that is not in the results; every name from a file is escaped.

pub mod chart;
pub mod figures;
pub mod groups;
mod page;
#[cfg(feature = "report")]
mod png;

pub use page::page;

use crate::config::{ConfigError, unwritten, write_whole};
use crate::sweep::results::Results;
use figures::Figure;
use groups::Group;
use std::path::Path;

/// What the page and the picture files are made of.
pub struct Report<'a> {
    /// The results.
    pub results: &'a Results,
    /// Contenders compared, group by group.
    pub groups: Vec<Group>,
    /// Names of all contenders; their places give the colours.
    pub names: Vec<String>,
    /// The main metric over what was swept.
    pub over: Vec<Figure>,
    /// Latency curves.
    pub latency: Vec<Figure>,
    /// Energy, latency, accuracy.
    pub fronts: Vec<Figure>,
    /// Learning curves.
    pub learning: Vec<Figure>,
    /// Utility over the seconds of runs in which something changes.
    pub adaptation: Vec<Figure>,
    /// Misses.
    pub misses: Option<chart::Heat>,
}

impl<'a> Report<'a> {
    /// Of some results.
    pub fn of(results: &'a Results) -> Report<'a> {
        let records = &results.records;
        let groups = groups::groups(records, results.meta.reference.as_deref());
        let names = figures::contenders(records);
        let of_capacity = results.meta.sweep["load_of"] == "capacity";
        let title = |key: &str| match key {
            "load" if of_capacity => "load, as a share of the device's capacity".to_owned(),
            _ => key.to_owned(),
        };
        Report {
            over: figures::over_axes(records, &groups, &names, &title),
            latency: figures::latency(records, &groups, &names),
            fronts: figures::fronts(&groups, &names),
            learning: figures::learning(records, &names),
            adaptation: figures::adaptation(records, &names),
            misses: figures::misses(&groups, &names),
            results,
            groups,
            names,
        }
    }

    /// Every picture: name without ending, SVG.
    pub fn pictures(&self) -> Vec<(String, String)> {
        let figures = [&self.over, &self.latency, &self.fronts, &self.learning, &self.adaptation];
        let charts = figures.into_iter().flatten().map(|f| (f.name.clone(), f.chart.picture()));
        charts.chain(self.misses.iter().map(|heat| ("misses".to_owned(), heat.picture()))).collect()
    }
}

/// Writes the page, and the pictures into `pictures` beside it. Returns how many pictures there are.
///
/// # Errors
/// When a file cannot be written; none is left half written.
pub fn write(report: &Report<'_>, gantt: Option<&str>, path: &Path) -> Result<usize, ConfigError> {
    let html = page(report, gantt)?;
    let folder = path.parent().unwrap_or(Path::new("")).join("pictures");
    std::fs::create_dir_all(&folder).map_err(|e| unwritten(&folder, &e))?;
    let pictures = report.pictures();
    #[cfg(feature = "report")]
    let painter = png::Painter::new();
    for (name, svg) in &pictures {
        write_whole(&folder.join(format!("{name}.svg")), svg.as_bytes())?;
        #[cfg(feature = "report")]
        write_whole(
            &folder.join(format!("{name}.png")),
            &painter.paint(svg).map_err(|e| ConfigError::new(&folder, format!("{name}.png: {e}")))?,
        )?;
    }
    write_whole(path, html.as_bytes())?;
    Ok(pictures.len())
}
