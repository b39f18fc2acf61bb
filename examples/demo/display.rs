//! What the demo shows: on a terminal a progress line and a live table of members, otherwise plain
//! lines, with `--json` one object at the end.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use memberlist::{Member, NodeState};

use crate::Summary;
use crate::cluster::Cluster;
use crate::network::Network;

/// Rows of the table; in larger clusters those that are not alive come first.
const ROWS: usize = 10;
const REFRESH: Duration = Duration::from_millis(100);

pub(crate) struct Display {
    json: bool,
    table: Option<Table>,
    began: Instant,
}

struct Table {
    all: MultiProgress,
    step: ProgressBar,
    rows: Vec<ProgressBar>,
    drawn: Cell<Option<Instant>>,
}

impl Display {
    pub(crate) fn new(json: bool) -> Self {
        let terminal = !json && std::io::stdout().is_terminal();
        Self { json, table: terminal.then(Table::new), began: Instant::now() }
    }

    pub(crate) fn begin(&self, line: String) {
        self.note(&line);
    }

    /// A step that held, and its time.
    pub(crate) fn done(&self, what: &str, took: Duration) {
        if took.is_zero() {
            self.line(&format!("  ok            {what}"));
        } else {
            self.line(&format!("  ok  {:>7.3} s {what}", took.as_secs_f64()));
        }
    }

    /// Something worth saying that is no step.
    pub(crate) fn note(&self, what: &str) {
        self.line(&format!("                {what}"));
    }

    pub(crate) fn failed(&self, what: &str) {
        if self.json {
            // Standard output holds the one object only.
            let _ = writeln!(std::io::stderr(), "FAILED: {what}");
        } else {
            self.line(&format!("  FAILED        {what}"));
        }
    }

    fn line(&self, line: &str) {
        if self.json {
            return;
        }
        match &self.table {
            // An error here means that the terminal is gone: nobody is left to tell.
            Some(table) => drop(table.all.println(line)),
            None => drop(writeln!(std::io::stdout(), "{line}")),
        }
    }

    /// Draws the members as the first node sees them.
    pub(crate) fn show<N: Network>(&self, cluster: &Cluster<N>) {
        if let (Some(table), Some(node)) = (&self.table, cluster.running().next()) {
            table.draw(|| node.known_members().to_vec(), self.began.elapsed());
        }
    }

    pub(crate) fn finish(&self, summary: &Summary) {
        if let Some(table) = &self.table {
            table.clear();
        }
        if self.json {
            let object = serde_json::to_string(summary).unwrap_or_default();
            let _ = writeln!(std::io::stdout(), "{object}");
        } else {
            let verdict = if summary.ok { "all steps held" } else { "FAILED" };
            let (deaths, took) = (summary.false_deaths, self.began.elapsed().as_secs_f64());
            self.line(&format!(
                "{verdict}; healthy nodes declared dead: {deaths}; {took:.1} s in all"
            ));
        }
    }
}

impl Table {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let style = |template| {
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_spinner())
        };
        let step = all.add(ProgressBar::new_spinner().with_style(style("{spinner} {msg}")));
        let rows = (0..ROWS)
            .map(|_| all.add(ProgressBar::new_spinner().with_style(style("  {msg}"))))
            .collect();
        Self { all, step, rows, drawn: Cell::new(None) }
    }

    fn draw(&self, members: impl FnOnce() -> Vec<Member>, elapsed: Duration) {
        if self.drawn.get().is_some_and(|at| at.elapsed() < REFRESH) {
            return;
        }
        self.drawn.set(Some(Instant::now()));
        let mut members = members();
        let count = |state| members.iter().filter(|member| member.state == state).count();
        self.step.set_message(format!(
            "{:>6.1} s   {} alive, {} suspect, {} dead, {} left, as node-0 sees it",
            elapsed.as_secs_f64(),
            count(NodeState::Alive),
            count(NodeState::Suspect),
            count(NodeState::Dead),
            count(NodeState::Left),
        ));
        self.step.tick();
        members.sort_by_key(|member| member.state == NodeState::Alive);
        for (i, row) in self.rows.iter().enumerate() {
            row.set_message(members.get(i).map(describe).unwrap_or_default());
            row.tick();
        }
    }

    fn clear(&self) {
        self.rows.iter().for_each(ProgressBar::finish_and_clear);
        self.step.finish_and_clear();
    }
}

fn describe(member: &Member) -> String {
    let meta = String::from_utf8_lossy(&member.node.meta);
    format!("{:<10} {:<21} {:<8} {meta}", member.id().as_str(), member.addr(), member.state)
}
