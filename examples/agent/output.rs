//! Standard output, a line at a time.
//!
//! A thread of its own writes, since writing to a pipe that nobody empties blocks. Whoever reports
//! waits while the queue is full; then events collect in the library, which replaces them by a
//! snapshot when they get too many, and messages hold their senders back.

use std::io::{self, Write};
use std::thread;

use tokio::sync::{mpsc, oneshot};

use crate::report::Report;

/// Reports that wait to be written.
const QUEUE: usize = 256;

/// Where reports go. Clones write to the same place.
#[derive(Clone)]
pub(crate) struct Output {
    lines: mpsc::Sender<String>,
    json: bool,
}

/// The thread that writes.
pub(crate) struct Writer(oneshot::Receiver<io::Result<()>>);

impl Output {
    pub(crate) fn start(json: bool) -> (Self, Writer) {
        let (lines, receiver) = mpsc::channel(QUEUE);
        let (result, finished) = oneshot::channel();
        let write = move || {
            // Nobody waits for the result if the agent was ended at once.
            let _ = result.send(write_all(receiver));
        };
        // Without the thread the queue is closed, and the agent ends as it does without a reader.
        let _ = thread::Builder::new().name("output".to_owned()).spawn(write);
        (Self { lines, json }, Writer(finished))
    }

    /// Queues a report, and waits for room.
    pub(crate) async fn tell(&self, report: Report) {
        // A closed queue ends the agent by `closed`.
        let _ = self.lines.send(report.render(self.json)).await;
    }

    /// Queues a report if there is room.
    pub(crate) fn try_tell(&self, report: Report) {
        let _ = self.lines.try_send(report.render(self.json));
    }

    /// Waits until nothing can be written any more.
    pub(crate) async fn closed(&self) {
        self.lines.closed().await;
    }
}

impl Writer {
    /// Waits until everything is written, which can only be after every [`Output`] was dropped. A
    /// reader that went away is no error.
    pub(crate) async fn finished(self) -> io::Result<()> {
        match self.0.await {
            Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

fn write_all(mut lines: mpsc::Receiver<String>) -> io::Result<()> {
    let mut output = io::stdout().lock();
    while let Some(mut line) = lines.blocking_recv() {
        line.push('\n');
        output.write_all(line.as_bytes())?;
        output.flush()?;
    }
    Ok(())
}
