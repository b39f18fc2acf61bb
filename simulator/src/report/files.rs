//! The files that a run was asked to write. They are opened before the work begins, so that a bad
//! path costs nothing but a line.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Report, Table, table};

/// A file that cannot be written.
#[derive(Debug)]
pub struct OutputError {
    path: PathBuf,
    reason: String,
}

impl std::fmt::Display for OutputError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot write {}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for OutputError {}

/// The paths of the files wanted.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Everything, for programs.
    pub json: Option<PathBuf>,
    /// The cells of all tables, for programs.
    pub csv: Option<PathBuf>,
    /// The tables, for a document.
    pub markdown: Option<PathBuf>,
    /// The plot.
    pub svg: Option<PathBuf>,
}

impl Files {
    fn all(&self) -> impl Iterator<Item = &Path> {
        let all = [&self.json, &self.csv, &self.markdown, &self.svg];
        all.into_iter().filter_map(|path| path.as_deref())
    }

    /// Whether each can be written; what is there is left as it is.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<(), OutputError> {
        let mut seen: Vec<PathBuf> = Vec::new();
        for path in self.all() {
            // Not truncated: an interrupted run must not lose the last one's results.
            let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
            opened.map_err(|error| failed(path, error))?;
            let whole = path.canonicalize().map_err(|error| failed(path, error))?;
            let device = whole.starts_with("/dev");
            if !device && seen.contains(&whole) {
                return Err(failed(path, "it is wanted for two outputs"));
            }
            seen.push(whole);
        }
        Ok(())
    }

    /// Writes all of them.
    ///
    /// # Errors
    /// The first that cannot be written.
    pub fn write(&self, report: &Report) -> Result<(), OutputError> {
        if let Some(path) = &self.json {
            let text =
                serde_json::to_string_pretty(&report.results).map_err(|e| failed(path, e))?;
            save(path, &(text + "\n"))?;
        }
        if let Some(path) = &self.csv {
            save(path, &table::csv(report.tables.iter().chain(&report.data)))?;
        }
        if let Some(path) = &self.markdown {
            let tables: Vec<String> = report.tables.iter().map(Table::markdown).collect();
            save(path, &tables.join("\n"))?;
        }
        if let Some(path) = &self.svg {
            let drawing = super::plot::svg(&report.charts).map_err(|error| failed(path, error))?;
            save(path, &drawing)?;
        }
        Ok(())
    }
}

fn save(path: &Path, text: &str) -> Result<(), OutputError> {
    let mut file = File::create(path).map_err(|error| failed(path, error))?;
    file.write_all(text.as_bytes()).map_err(|error| failed(path, error))
}

fn failed(path: &Path, reason: impl ToString) -> OutputError {
    OutputError { path: path.to_owned(), reason: reason.to_string() }
}
