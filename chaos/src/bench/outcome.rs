//! What a row has come to.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::binary::temporary_folder;

use super::{
    curve::Curves,
    plot::Plot,
    row::Row,
    series::{Measurement, Series},
    target::Judged,
};

/// A server as it was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Setup {
    /// Its name on the page.
    pub(super) name: String,
    /// What started it.
    pub(super) command: String,
    /// Its configuration file, if it has one.
    pub(super) config: String,
}

/// Figures in lines and columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Table {
    pub(super) headings: Vec<String>,
    pub(super) lines: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { headings: headings.iter().map(|&one| one.to_owned()).collect(), lines: Vec::new() }
    }

    pub(super) fn line(&mut self, cells: impl IntoIterator<Item = String>) {
        self.lines.push(cells.into_iter().collect());
    }
}

/// What is drawn.
pub(super) struct Picture<'a> {
    /// Its name in the folder.
    pub(super) file: String,
    pub(super) title: &'a str,
    pub(super) svg: String,
}

/// A row after its measurement, or in the middle of it: what has failed keeps what was measured before.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) number: u8,
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// How it was measured.
    pub(super) words: &'static str,
    pub(super) targets: Vec<Judged>,
    /// Why it has come to nothing, or to less than it should.
    pub(super) failed: Option<String>,
    /// What was found besides, in sentences.
    pub(super) notes: Vec<String>,
    pub(super) tables: Vec<Table>,
    pub(super) commands: Vec<String>,
    pub(super) setups: Vec<Setup>,
    /// Every measurement of a load, in the order in which they were made.
    pub(super) measurements: Vec<Measurement>,
    /// Everything else that was measured: name -> numbers.
    pub(super) samples: BTreeMap<String, Value>,
    /// How long all of it took.
    pub(super) seconds: f64,
    /// The share of the machine's time that its host gave to others meanwhile, if that is told.
    pub(super) stolen: Option<f64>,
    #[serde(skip)]
    pub(super) plots: Vec<Plot>,
    #[serde(skip)]
    pub(super) curves: Vec<Curves>,
    /// Whether it was of the size that the targets speak of.
    judging: bool,
    #[serde(skip)]
    row: &'static Row,
}

impl Outcome {
    /// Of a row of which nothing was measured yet.
    pub(super) fn new(row: &'static Row, judging: bool) -> Self {
        Self {
            number: row.number,
            name: row.name,
            title: row.title,
            words: row.words,
            targets: row.targets.iter().map(Judged::not_yet).collect(),
            failed: None,
            notes: Vec::new(),
            tables: Vec::new(),
            commands: Vec::new(),
            setups: Vec::new(),
            measurements: Vec::new(),
            samples: BTreeMap::new(),
            seconds: 0.0,
            stolen: None,
            plots: Vec::new(),
            curves: Vec::new(),
            judging,
            row,
        }
    }

    /// Holds a figure against the target of this key: the median of what it was in each round, or the only one.
    ///
    /// # Errors
    /// If the row has no such target.
    pub(super) fn judge(&mut self, key: &str, rounds: &[f64]) -> Result<()> {
        let target = self.row.targets.iter().find(|target| target.key == key);
        let target = target.with_context(|| format!("{} has no target {key}", self.name))?;
        let place = self.targets.iter_mut().find(|judged| judged.key == key);
        let place = place.with_context(|| format!("{} has no place for {key}", self.name))?;
        *place = Judged::of(target, rounds);
        if !self.judging {
            place.met = None;
        }
        Ok(())
    }

    /// One server in one case, over all rounds.
    ///
    /// # Errors
    /// If it was not measured.
    pub(super) fn series(&self, case: &str, target: &str) -> Result<Series> {
        Series::of(&self.measurements, case, target)
            .with_context(|| format!("{target} was not measured: {case}"))
    }

    /// Remembers how a server was started, the first time.
    pub(super) fn setup(&mut self, name: &str, command: String, config: String) {
        if self.setups.iter().any(|setup| setup.name == name) {
            return;
        }
        // Nobody has this folder who reads the page.
        let config = match temporary_folder() {
            Ok(folder) => config.replace(&format!("{}/", folder.display()), ""),
            Err(_) => config,
        };
        self.setups.push(Setup { name: name.to_owned(), command, config });
    }

    /// Remembers what loaded the servers; the same only once.
    pub(super) fn command(&mut self, command: String) {
        if !self.commands.contains(&command) {
            self.commands.push(command);
        }
    }

    /// Remembers numbers that are no measurement of a load.
    pub(super) fn sample(&mut self, name: &str, values: &[f64]) {
        self.samples.insert(name.to_owned(), json!(values));
    }

    /// The start of the names of its files.
    pub(super) fn file(&self) -> String {
        format!("{:02}-{}", self.number, self.name)
    }

    /// Writes everything that was measured, and the pictures.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn save(&self, folder: &Path) -> Result<()> {
        let write = |name: String, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        write(format!("{}.json", self.file()), &json)?;
        for picture in self.pictures() {
            write(picture.file, &picture.svg)?;
        }
        Ok(())
    }

    /// All of them, in the order of the page.
    pub(super) fn pictures(&self) -> Vec<Picture<'_>> {
        let file = |name: &str| format!("{}-{name}.svg", self.file());
        let plots = self.plots.iter().map(|plot| {
            let Plot { name, title, .. } = plot;
            Picture { file: file(name), title, svg: plot.svg() }
        });
        let curves = self.curves.iter().map(|curves| {
            let Curves { name, title, .. } = curves;
            Picture { file: file(name), title, svg: curves.svg() }
        });
        plots.chain(curves).collect()
    }
}
