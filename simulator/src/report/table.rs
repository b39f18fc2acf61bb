//! Tables: one description for the terminal, for Markdown and for CSV.

use std::fmt::Write as _;

/// One value.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A count, exact however large.
    Integer(u64),
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
            Self::Integer(count) => count.to_string(),
            Self::Number(value, decimals) => format!("{value:.decimals$}"),
            Self::Missing => "-".to_owned(),
        }
    }

    fn for_programs(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Integer(count) => count.to_string(),
            Self::Number(value, _) => value.to_string(),
            Self::Missing => String::new(),
        }
    }
}

/// A field of a CSV file.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
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
        Self::Integer(count as u64)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Integer(count)
    }
}

/// A table with a title, and remarks below it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// The heads of its columns, with units; each once, since programs find cells by them.
    pub columns: Vec<String>,
    /// Its rows, each as long as the heads.
    pub rows: Vec<Vec<Cell>>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        let repeated = |(at, column): (usize, &String)| columns[..at].contains(column);
        debug_assert!(!columns.iter().enumerate().any(repeated), "{columns:?}");
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

    /// Its lines of a CSV file, one a cell: table, row, column, value. Rows count from 1; the remarks
    /// are in row 0.
    fn append_csv(&self, out: &mut String) {
        let title = quoted(&self.title);
        for (at, row) in self.rows.iter().enumerate() {
            for (column, cell) in self.columns.iter().zip(row) {
                let (row, column, value) = (at + 1, quoted(column), cell.for_programs());
                let _ = writeln!(out, "{title},{row},{column},{value}");
            }
        }
        for note in &self.notes {
            let _ = writeln!(out, "{title},0,note,{}", quoted(note));
        }
    }
}

/// Tables for programs: one line of heads, then a line for each cell, numbers with all digits. Tables
/// have different columns, and a program wants to read all of a file with one set of heads.
pub(super) fn csv<'a>(tables: impl IntoIterator<Item = &'a Table>) -> String {
    let mut out = "table,row,column,value\n".to_owned();
    tables.into_iter().for_each(|table| table.append_csv(&mut out));
    out
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
    fn programs_get_a_line_a_cell_with_all_digits() {
        let mut counts = Table::new("Counts", &["n"]);
        counts.row([u64::MAX.into()]);
        let expected = "table,row,column,value\n\
            Deaths,1,who,\"a, b\"\n\
            Deaths,1,s,1.25\n\
            Deaths,2,who,c\n\
            Deaths,2,s,\n\
            Deaths,0,note,Seed 1.\n\
            Counts,1,n,18446744073709551615\n";
        assert_eq!(csv([&table(), &counts]), expected);
    }
}
