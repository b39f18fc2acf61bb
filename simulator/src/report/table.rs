//! Tables: one description for the terminal, for Markdown and for CSV.

use std::fmt::Write as _;

/// One value.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A number, and how many decimals a person wants to see.
    Number(f64, usize),
    /// Nothing is known.
    Missing,
}

impl Cell {
    /// A number that may be missing.
    pub fn number(value: Option<f64>, decimals: usize) -> Self {
        value.map_or(Self::Missing, |value| Self::Number(value, decimals))
    }

    fn for_people(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(value, decimals) => format!("{value:.decimals$}"),
            Self::Missing => "-".to_owned(),
        }
    }

    fn for_programs(&self) -> String {
        match self {
            Self::Text(text) if text.contains([',', '"', '\n']) => {
                format!("\"{}\"", text.replace('"', "\"\""))
            }
            Self::Text(text) => text.clone(),
            Self::Number(value, _) => value.to_string(),
            Self::Missing => String::new(),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Self::Number(count as f64, 0)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Number(count as f64, 0)
    }
}

/// A table with a title, and remarks below it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// The heads of its columns, with units.
    pub columns: Vec<String>,
    /// Its rows, each as long as the heads.
    pub rows: Vec<Vec<Cell>>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.into(), columns, rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let row: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(row.len(), self.columns.len(), "{}", self.title);
        self.rows.push(row);
    }

    /// Adds a remark.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn grid(&self) -> (Vec<usize>, Vec<Vec<String>>) {
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(Cell::for_people).collect()).collect();
        let mut widths: Vec<usize> = self.columns.iter().map(|c| c.chars().count()).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        (widths, rows)
    }

    fn is_text(&self, column: usize) -> bool {
        self.rows.iter().any(|row| matches!(row.get(column), Some(Cell::Text(_))))
    }

    fn line(&self, widths: &[usize], cells: &[String], separator: &str) -> String {
        let aligned = cells.iter().zip(widths).enumerate().map(|(at, (cell, &width))| {
            if self.is_text(at) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        aligned.collect::<Vec<_>>().join(separator)
    }

    /// For a terminal.
    pub fn terminal(&self) -> String {
        let (widths, rows) = self.grid();
        let mut out = format!("{}\n\n", self.title);
        let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
        for row in [&self.columns, &rule].into_iter().chain(&rows) {
            let line = self.line(&widths, row, "  ");
            out.push_str(line.trim_end());
            out.push('\n');
        }
        self.append_notes(&mut out);
        out
    }

    /// For a document.
    pub fn markdown(&self) -> String {
        let (widths, rows) = self.grid();
        let mut out = format!("### {}\n\n", self.title);
        let rule = (0..widths.len()).map(|at| match self.is_text(at) {
            true => ":---",
            false => "---:",
        });
        let _ = writeln!(out, "| {} |", self.line(&widths, &self.columns, " | "));
        let _ = writeln!(out, "| {} |", rule.collect::<Vec<_>>().join(" | "));
        for row in &rows {
            let _ = writeln!(out, "| {} |", self.line(&widths, row, " | "));
        }
        self.append_notes(&mut out);
        out
    }

    fn append_notes(&self, out: &mut String) {
        for note in &self.notes {
            let _ = write!(out, "\n{note}\n");
        }
    }

    /// For programs: a line of heads, then the rows with all digits.
    pub fn csv(&self) -> String {
        let heads = self.columns.iter().map(|column| Cell::from(column.as_str()).for_programs());
        let mut out = heads.collect::<Vec<_>>().join(",");
        out.push('\n');
        for row in &self.rows {
            out.push_str(&row.iter().map(Cell::for_programs).collect::<Vec<_>>().join(","));
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("Deaths", &["who", "s"]);
        table.row(["a, b".into(), Cell::Number(1.25, 1)]);
        table.row(["c".into(), Cell::Missing]);
        table.note("Seed 1.");
        table
    }

    #[test]
    fn the_terminal_gets_columns() {
        let expected = "Deaths\n\nwho     s\n----  ---\na, b  1.2\nc       -\n\nSeed 1.\n";
        assert_eq!(table().terminal(), expected);
    }

    #[test]
    fn documents_get_markdown() {
        let markdown = table().markdown();
        assert!(markdown.contains("| :--- | ---: |"), "{markdown}");
        assert!(markdown.starts_with("### Deaths\n"), "{markdown}");
    }

    #[test]
    fn programs_get_all_digits() {
        assert_eq!(table().csv(), "who,s\n\"a, b\",1.25\nc,\n");
    }
}
